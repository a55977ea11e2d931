//! The machine: kernel, io_uring, memory that may be locked, descriptors, CPUs, clock.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::{Finding, Level, read};
use crate::server::{cpus, probe};

/// The oldest kernel that can do it, and the oldest that is recommended.
const KERNEL_MIN: (u32, u32) = (5, 8);
const KERNEL_GOOD: (u32, u32) = (5, 15);
/// What the rings of one shard may be charged against the limit of locked memory: three buffers of
/// 64 KiB.
const MEMLOCK_OF_A_SHARD: u64 = 3 * 64 * 1024;
/// Fewer descriptors than these serve only a few clients.
const DESCRIPTORS_GOOD: u64 = 4096;
/// What a process needs besides its clients' connections.
const DESCRIPTORS_OWN: u64 = 128;
/// 2025-01-01: a clock before that has never been set.
const WALL_SECONDS_MIN: u64 = 1_735_689_600;
/// Clock sources that are read without a system call.
const FAST_CLOCKS: &[&str] = &[
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
];

/// Where the kernel's files are, and what it answers.
pub(super) struct Host {
    root: PathBuf,
    ring: Result<(), Errno>,
    memlock: Option<u64>,
    descriptors: Option<u64>,
    wall_seconds: u64,
}

impl Host {
    /// This machine, with the limits raised as a start raises them.
    pub(super) fn here() -> Self {
        probe::raise_limits();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            root: PathBuf::from("/"),
            ring: probe::try_ring(),
            memlock: getrlimit(Resource::Memlock).current,
            descriptors: getrlimit(Resource::Nofile).current,
            wall_seconds: since.map_or(0, |since| since.as_secs()),
        }
    }

    /// All checks, for this many shards if the settings say.
    pub(super) fn check(&self, shards: Option<usize>) -> Vec<Finding> {
        let plan = cpus::plan(shards);
        vec![
            self.kernel(),
            self.sysctl(),
            self.seccomp(),
            self.ring(),
            self.memlock(plan.shards),
            self.descriptors(),
            cpus(&plan, shards),
            self.clock(),
        ]
    }

    fn kernel(&self) -> Finding {
        let release = read(&self.root, "/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = release.trim();
        let text = format!("Linux {release}");
        match version(release) {
            Some(version) if version >= KERNEL_GOOD => Finding::ok("kernel", text),
            Some(version) if version >= KERNEL_MIN => {
                let mend =
                    "Use Linux 5.15 or later: the io_uring of earlier ones has known faults.";
                Finding::new("kernel", Level::Warning, text, mend)
            }
            Some(_) => {
                let mend = "Use Linux 5.15 or later.";
                Finding::new("kernel", Level::Failure, text, mend)
            }
            None => {
                let text = "the kernel does not say its version";
                Finding::new("kernel", Level::Warning, text, "See that /proc is mounted.")
            }
        }
    }

    fn sysctl(&self) -> Finding {
        let name = "io_uring_disabled";
        match self.disabled() {
            None => Finding::ok(name, "this kernel has no such switch"),
            Some(0) => Finding::ok(name, "0"),
            // With 1, a privileged process, or one of the group, may still have rings.
            Some(value) => {
                let level = if self.ring.is_ok() {
                    Level::Ok
                } else {
                    Level::Failure
                };
                let told = probe::Cause::Sysctl(value).to_string();
                match level {
                    Level::Ok => {
                        Finding::ok(name, format!("{value}, but this process is let through"))
                    }
                    _ => Finding::told(name, level, &told),
                }
            }
        }
    }

    fn disabled(&self) -> Option<u8> {
        let text = read(&self.root, "/proc/sys/kernel/io_uring_disabled")?;
        text.trim().parse().ok()
    }

    fn status(&self) -> String {
        read(&self.root, "/proc/self/status").unwrap_or_default()
    }

    fn seccomp(&self) -> Finding {
        if !probe::is_filtered(&self.status()) {
            return Finding::ok("seccomp", "no filter");
        }
        match self.ring {
            Ok(()) => Finding::ok("seccomp", "a filter, which lets io_uring through"),
            Err(Errno::PERM | Errno::ACCESS) if self.disabled().unwrap_or(0) == 0 => Finding::told(
                "seccomp",
                Level::Failure,
                &probe::Cause::Seccomp.to_string(),
            ),
            Err(_) => Finding::ok("seccomp", "a filter"),
        }
    }

    fn ring(&self) -> Finding {
        match self.ring {
            Ok(()) => Finding::ok("io_uring", "a ring was made"),
            Err(errno) => {
                let disabled = read(&self.root, "/proc/sys/kernel/io_uring_disabled");
                let cause = probe::judge(errno, disabled.as_deref(), &self.status());
                Finding::told("io_uring", Level::Failure, &cause.to_string())
            }
        }
    }

    fn memlock(&self, shards: usize) -> Finding {
        let need = probe::MEMLOCK_MIN.max(shards as u64 * MEMLOCK_OF_A_SHARD);
        let Some(limit) = self.memlock else {
            return Finding::ok("memlock", "no limit");
        };
        if limit < probe::MEMLOCK_MIN {
            let cause = probe::Cause::Memlock(limit);
            return Finding::told("memlock", Level::Failure, &cause.to_string());
        }
        let text = format!(
            "{} KiB may be locked; {shards} shards need up to {} KiB",
            limit / 1024,
            need / 1024
        );
        if limit >= need {
            return Finding::ok("memlock", text);
        }
        let mend = "Raise it (`ulimit -l`, LimitMEMLOCK=, --ulimit memlock=), or set SHARDS lower. \
                    A privileged process is not held to it.";
        Finding::new("memlock", Level::Warning, text, mend)
    }

    fn descriptors(&self) -> Finding {
        let Some(limit) = self.descriptors else {
            return Finding::ok("descriptors", "no limit");
        };
        let room = limit.saturating_sub(DESCRIPTORS_OWN);
        let text = format!("{limit} may be open: room for about {room} connections");
        if limit >= DESCRIPTORS_GOOD {
            return Finding::ok("descriptors", text);
        }
        let mend = "Raise the hard limit: `ulimit -Hn`, LimitNOFILE= in a systemd unit, --ulimit nofile= for a container.";
        Finding::new("descriptors", Level::Warning, text, mend)
    }

    fn clock(&self) -> Finding {
        if self.wall_seconds < WALL_SECONDS_MIN {
            let text = "the clock stands before this program was written";
            let mend = "Set it (chrony, systemd-timesyncd): tokens and messages carry its time.";
            return Finding::new("clock", Level::Failure, text, mend);
        }
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        match read(&self.root, path).as_deref().map(str::trim) {
            Some(source) if !FAST_CLOCKS.contains(&source) => {
                let mend = "Reading it costs a system call: see available_clocksource beside it, and the hypervisor's settings.";
                Finding::new(
                    "clock",
                    Level::Warning,
                    format!("clock source {source}"),
                    mend,
                )
            }
            Some(source) => Finding::ok("clock", format!("clock source {source}")),
            None => Finding::ok("clock", "set"),
        }
    }
}

fn cpus(plan: &cpus::Plan, wanted: Option<usize>) -> Finding {
    let own = cpus::plan(None).shards;
    let pinned = match &plan.pins {
        Some(pins) => format!("pinned to CPUs {pins:?}"),
        None => "not pinned".to_owned(),
    };
    let text = format!(
        "{own} CPUs for this process, {} shards, {pinned}",
        plan.shards
    );
    if wanted.is_some_and(|wanted| wanted > own) {
        let mend = "Set SHARDS to the number of CPUs, or leave it out: shards on one CPU wait for each other.";
        return Finding::new("cpus", Level::Warning, text, mend);
    }
    Finding::ok("cpus", text)
}

/// Major and minor number of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether a file's folder can be written to, and how many bytes are free there.
pub(super) fn room(path: &Path) -> Result<u64, Errno> {
    let mut folder = path.parent().unwrap_or(path);
    if folder.as_os_str().is_empty() {
        folder = Path::new(".");
    }
    // What does not exist yet is made in the nearest folder that does.
    while !folder.exists() {
        match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => folder = parent,
            _ => folder = Path::new("."),
        }
    }
    rustix::fs::access(
        folder,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )?;
    let file_system = rustix::fs::statvfs(folder)?;
    Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::super::below;
    use super::*;

    /// A machine made of files.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = below(root.path(), path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let host = Host {
            root: root.path().to_owned(),
            ring: Ok(()),
            memlock: None,
            descriptors: Some(1 << 20),
            wall_seconds: WALL_SECONDS_MIN,
        };
        (root, host)
    }

    const RELEASE: &str = "/proc/sys/kernel/osrelease";
    const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";
    const STATUS: &str = "/proc/self/status";

    #[test]
    fn kernels_are_told_by_their_numbers() {
        for (release, level) in [
            ("6.18.0-rc1\n", Level::Ok),
            ("5.15.0-91-generic\n", Level::Ok),
            ("5.10.0\n", Level::Warning),
            ("5.4.0-150\n", Level::Failure),
            ("4.18.0\n", Level::Failure),
            ("odd", Level::Warning),
        ] {
            let (_root, host) = machine(&[(RELEASE, release)]);
            assert_eq!(host.kernel().level, level, "{release}");
        }
    }

    #[test]
    fn a_switched_off_io_uring_is_named_with_its_mend() {
        let (_root, mut host) = machine(&[(DISABLED, "2\n"), (STATUS, "Seccomp:\t2\n")]);
        host.ring = Err(Errno::PERM);
        let found = host.sysctl();
        assert_eq!(found.level, Level::Failure);
        assert!(
            found.mend.contains("sysctl kernel.io_uring_disabled=0"),
            "{found}"
        );
        // The same words as a failed start, and the filter is not blamed.
        assert_eq!(host.ring().text, found.text);
        assert_eq!(host.seccomp().level, Level::Ok);
    }

    #[test]
    fn a_filter_is_blamed_when_nothing_else_explains_it() {
        let (_root, mut host) = machine(&[(DISABLED, "0\n"), (STATUS, "Name:\tx\nSeccomp:\t2\n")]);
        assert_eq!(host.seccomp().level, Level::Ok, "it lets us through");
        host.ring = Err(Errno::PERM);
        assert_eq!(host.seccomp().level, Level::Failure);
        assert!(host.ring().mend.contains("profile"), "{}", host.ring());
    }

    #[test]
    fn limits_are_held_against_what_the_shards_need() {
        let (_root, mut host) = machine(&[]);
        assert_eq!(host.memlock(64).level, Level::Ok);
        host.memlock = Some(64 * 1024);
        assert_eq!(host.memlock(1).level, Level::Failure);
        host.memlock = Some(8 << 20);
        assert_eq!(host.memlock(8).level, Level::Ok);
        assert_eq!(host.memlock(64).level, Level::Warning);
        host.descriptors = Some(1024);
        assert_eq!(host.descriptors().level, Level::Warning);
    }

    #[test]
    fn clocks_that_are_slow_or_wrong_are_found() {
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let (_root, mut host) = machine(&[(path, "hpet\n")]);
        assert_eq!(host.clock().level, Level::Warning);
        host.wall_seconds = 86_400;
        assert_eq!(host.clock().level, Level::Failure);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let found = Host::here().check(Some(1));
        assert_eq!(found.len(), 8);
        assert!(found.iter().all(|one| !one.text.is_empty()), "{found:?}");
    }
}
