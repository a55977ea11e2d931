//! Whether this host can run the server: a real ring, and enough lockable memory.
//!
//! Every refusal of `io_uring_setup` looks alike, so the cause is read from the kernel's own files and
//! named together with its mend, before the first executor starts. A second job is to raise the
//! limits that the process may raise by itself.

use std::fmt;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What an executor refuses to start below, whatever it needs.
pub const MEMLOCK_MIN: u64 = 512 * 1024;

/// Why this host cannot run the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `kernel.io_uring_disabled` is 1 or 2.
    Sysctl(u8),
    /// A seccomp filter answers EPERM.
    Seccomp,
    /// The call does not exist here, or a filter says so.
    Missing(Errno),
    /// The limit of locked memory, in bytes, is too small.
    Memlock(u64),
    /// Something else.
    Other(Errno),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(value) => write!(
                f,
                "io_uring is switched off on this machine (kernel.io_uring_disabled = {value}).\n\
                 Allow it with: sysctl kernel.io_uring_disabled=0 (as root, on the node itself)."
            ),
            Self::Seccomp => f.write_str(
                "io_uring is blocked by a seccomp filter, as the default profiles of Docker and containerd do.\n\
                 Run the container with a profile that allows io_uring_setup, io_uring_enter and io_uring_register.",
            ),
            Self::Missing(errno) => write!(
                f,
                "io_uring is not there ({errno}): a kernel before 5.8, gVisor, or a container profile that hides it.\n\
                 Use Linux 5.15 or later and a runtime and profile that allow io_uring."
            ),
            Self::Memlock(limit) => write!(
                f,
                "the limit of locked memory is {} KiB; io_uring needs {} KiB.\n\
                 Raise it: `ulimit -l 8192`, LimitMEMLOCK=infinity in a systemd unit, --ulimit memlock=-1 for a container.",
                limit / 1024,
                MEMLOCK_MIN / 1024
            ),
            Self::Other(errno) => write!(
                f,
                "io_uring cannot be set up: {errno}.\nSee what else uses it on this machine, and its limits of memory and descriptors."
            ),
        }
    }
}

/// Raises this process's limits as far as it may, then tries a ring.
pub fn probe() -> Result<(), Cause> {
    raise_limits();
    if let Some(limit) = getrlimit(Resource::Memlock).current
        && limit < MEMLOCK_MIN
    {
        return Err(Cause::Memlock(limit));
    }
    let Err(errno) = try_ring() else {
        return Ok(());
    };
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Err(judge(errno, disabled.as_deref(), &status))
}

/// Lifts this process's limits as far as it may.
pub(super) fn raise_limits() {
    raise(Resource::Nofile);
    raise(Resource::Memlock);
}

/// Lifts the soft limit to the hard one, which needs no right.
fn raise(resource: Resource) {
    let limit = getrlimit(resource);
    if limit.current != limit.maximum {
        let wanted = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // Not allowed to: what is there must do, and is judged afterwards.
        let _ = setrlimit(resource, wanted);
    }
}

/// Makes a ring and lets it go.
pub(super) fn try_ring() -> Result<(), Errno> {
    let mut params = rustix::io_uring::io_uring_params::default();
    #[expect(
        unsafe_code,
        reason = "the parameters are ours and all zero: no queue is shared, no address is passed"
    )]
    // SAFETY: the kernel writes only into `params`; the ring is closed again when dropped.
    let ring = unsafe { rustix::io_uring::io_uring_setup(4, &mut params) };
    ring.map(drop)
}

/// Names the cause from what the kernel says about itself.
pub(super) fn judge(errno: Errno, disabled: Option<&str>, status: &str) -> Cause {
    let seccomp = is_filtered(status);
    let disabled = disabled.map_or(0, |text| text.trim().parse().unwrap_or(0_u8));
    match errno {
        Errno::PERM | Errno::ACCESS if disabled > 0 => Cause::Sysctl(disabled),
        Errno::PERM | Errno::ACCESS if seccomp => Cause::Seccomp,
        Errno::NOSYS | Errno::OPNOTSUPP => Cause::Missing(errno),
        _ => Cause::Other(errno),
    }
}

/// Whether `/proc/self/status` tells of a seccomp filter.
pub(super) fn is_filtered(status: &str) -> bool {
    let mut lines = status.lines();
    lines.any(|line| line.starts_with("Seccomp:") && line.trim_end().ends_with('2'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_read_not_guessed() {
        let filtered = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let free = "Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n";
        assert_eq!(judge(Errno::PERM, Some("2\n"), filtered), Cause::Sysctl(2));
        assert_eq!(judge(Errno::PERM, Some("0\n"), filtered), Cause::Seccomp);
        assert_eq!(judge(Errno::PERM, None, filtered), Cause::Seccomp);
        assert_eq!(judge(Errno::PERM, None, free), Cause::Other(Errno::PERM));
        assert_eq!(
            judge(Errno::NOSYS, None, free),
            Cause::Missing(Errno::NOSYS)
        );
        assert_eq!(judge(Errno::NOMEM, None, free), Cause::Other(Errno::NOMEM));
    }

    #[test]
    fn every_cause_says_what_to_do() {
        let causes = [
            Cause::Sysctl(2),
            Cause::Seccomp,
            Cause::Missing(Errno::NOSYS),
            Cause::Memlock(65536),
            Cause::Other(Errno::NOMEM),
        ];
        for cause in causes {
            assert_eq!(cause.to_string().lines().count(), 2, "{cause}");
        }
    }
}
