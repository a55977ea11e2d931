//! How many shards, and where they run.
//!
//! One a CPU of the process's CPU set, at most the cgroup's CPU quota rounded up. They are pinned
//! only when somebody gave this process CPUs of its own, and one for each shard: pinning onto CPUs
//! that others use too makes a shard wait for them.

use rustix::thread::{CpuSet, sched_getaffinity};

/// A process has at most this many shards: the room directory keeps them in one word.
pub const SHARDS_MAX: usize = 64;

/// Where the shards run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many there are.
    pub shards: usize,
    /// The CPU of each, if they are pinned.
    pub pins: Option<Vec<usize>>,
}

/// Looks at this machine. `wanted` is what the operator asked for.
#[must_use]
pub fn plan(wanted: Option<usize>) -> Plan {
    let allowed = sched_getaffinity(None).map_or_else(
        |_| vec![0],
        |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|cpu| set.is_set(*cpu))
                .collect()
        },
    );
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let online = read("/sys/devices/system/cpu/online")
        .and_then(|text| count_list(&text))
        .unwrap_or(allowed.len());
    decide(wanted, &allowed, online, quota(&read))
}

fn decide(wanted: Option<usize>, allowed: &[usize], online: usize, quota: Option<usize>) -> Plan {
    let own = allowed.len().min(quota.unwrap_or(usize::MAX));
    let shards = wanted.unwrap_or(own).clamp(1, SHARDS_MAX);
    let pinned = allowed.len() < online && allowed.len() >= shards;
    Plan {
        shards,
        pins: pinned.then(|| allowed[..shards].to_vec()),
    }
}

/// The cgroup's CPU quota in whole CPUs, rounded up: version 2, else version 1.
fn quota(read: &dyn Fn(&str) -> Option<String>) -> Option<usize> {
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/")
        .trim_end_matches('/')
        .to_owned();
    // A parent's quota binds as well; inside a container the root is the container's own.
    let mut least: Option<usize> = None;
    let mut path = path.as_str();
    loop {
        let max = read(&format!("/sys/fs/cgroup{path}/cpu.max"));
        if let Some(cpus) = max.as_deref().and_then(parse_max) {
            least = Some(least.map_or(cpus, |least| least.min(cpus)));
        }
        let Some(end) = path.rfind('/') else { break };
        path = &path[..end];
    }
    least.or_else(|| {
        let quota = read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")?;
        let period = read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")?;
        parse_max(&format!("{} {}", quota.trim(), period.trim()))
    })
}

/// `"150000 100000"` is one and a half CPU: 2.
fn parse_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

/// `"0-3,8"` is five.
fn count_list(text: &str) -> Option<usize> {
    let mut count = 0;
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(plan: &Plan) -> Option<&[usize]> {
        plan.pins.as_deref()
    }

    #[test]
    fn one_shard_a_cpu_within_the_quota() {
        assert_eq!(decide(None, &[0, 1, 2, 3], 4, None).shards, 4);
        assert_eq!(decide(None, &[0, 1, 2, 3], 4, Some(2)).shards, 2);
        assert_eq!(decide(Some(3), &[0], 1, Some(1)).shards, 3);
        let many: Vec<usize> = (0..128).collect();
        assert_eq!(decide(None, &many, 128, None).shards, SHARDS_MAX);
    }

    #[test]
    fn pinned_only_on_cpus_of_their_own() {
        assert_eq!(pins(&decide(None, &[0, 1], 2, None)), None);
        assert_eq!(pins(&decide(None, &[4, 5], 8, None)), Some(&[4, 5][..]));
        assert_eq!(pins(&decide(Some(4), &[4, 5], 8, None)), None);
    }

    #[test]
    fn quotas_round_up_and_the_smallest_binds() {
        assert_eq!(parse_max("150000 100000\n"), Some(2));
        assert_eq!(parse_max("max 100000\n"), None);
        assert_eq!(parse_max("-1 100000"), None);
        let read = |path: &str| match path {
            "/proc/self/cgroup" => Some("0::/a/b\n".to_owned()),
            "/sys/fs/cgroup/a/b/cpu.max" => Some("max 100000\n".to_owned()),
            "/sys/fs/cgroup/a/cpu.max" => Some("300000 100000\n".to_owned()),
            _ => None,
        };
        assert_eq!(quota(&read), Some(3));
    }

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!(count_list("0-3,8\n"), Some(5));
        assert_eq!(count_list("0"), Some(1));
        assert_eq!(count_list(""), None);
    }
}
