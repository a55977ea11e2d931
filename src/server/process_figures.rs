//! What the kernel counts of this process, under the names that Prometheus' own clients use.

use std::fmt::Write as _;

/// The lines for a scrape; what cannot be read is left out.
#[must_use]
pub fn render() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let descriptors = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let mut out = figures(&stat, &boot);
    let mut line = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            let _ = write!(
                out,
                "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n\n"
            );
        }
    };
    let open = descriptors.map(|count| count as u64);
    line("process_open_fds", "Open file descriptors.", open);
    line("process_max_fds", "Limit of open file descriptors.", limit);
    let _ = write!(
        out,
        "# HELP yum_build_info The version that runs.\n# TYPE yum_build_info gauge\n\
         yum_build_info{{version=\"{}\"}} 1\n\n",
        env!("CARGO_PKG_VERSION")
    );
    out
}

/// Fields 14, 15, 22, 23 and 24 of proc(5)'s `/proc/PID/stat`.
fn figures(stat: &str, boot: &str) -> String {
    let mut out = String::new();
    // The name stands in parentheses and may hold anything; what follows the last one is plain.
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let [
        Some(user),
        Some(system),
        Some(begun),
        Some(virt),
        Some(pages),
    ] = [11, 12, 19, 20, 21].map(|index| fields.get(index).copied())
    else {
        return out;
    };
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let seconds = |count: u64| format!("{}.{:02}", count / ticks, count % ticks * 100 / ticks);
    let boot = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
    let resident = pages * rustix::param::page_size() as u64;
    let mut line = |name: &str, kind: &str, help: &str, value: String| {
        let _ = write!(
            out,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n"
        );
    };
    line(
        "process_cpu_seconds_total",
        "counter",
        "CPU time used.",
        seconds(user + system),
    );
    line(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory.",
        resident.to_string(),
    );
    line(
        "process_virtual_memory_bytes",
        "gauge",
        "Address space.",
        virt.to_string(),
    );
    if let Some(boot) = boot {
        line(
            "process_start_time_seconds",
            "gauge",
            "Start, in seconds since 1970.",
            seconds(boot * ticks + begun),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_behind_a_name_with_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 3 0 100 4096000 10 0";
        let text = figures(stat, "cpu 1\nbtime 1000\n");
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(ticks, 100, "Linux reports hundredths to everybody");
        assert!(
            text.contains("\nprocess_cpu_seconds_total 2.00\n"),
            "{text}"
        );
        assert!(
            text.contains("\nprocess_virtual_memory_bytes 4096000\n"),
            "{text}"
        );
        assert!(
            text.contains("\nprocess_start_time_seconds 1001.00\n"),
            "{text}"
        );
        assert_eq!(figures("", ""), "");
    }
}
