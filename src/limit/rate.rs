//! An average and a burst.

use std::time::Duration;

pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// So many a second on average, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Between two, on average; 0: no limit.
    pub(super) interval_ns: u64,
    pub(super) burst: u32,
}

impl Rate {
    /// No limit; what [`Rate::default`] is too.
    pub const UNLIMITED: Self = Self {
        interval_ns: 0,
        burst: 0,
    };

    /// `count` a second, `burst` at once, at least one. A `count` of 0 is no limit.
    #[must_use]
    pub fn per_second(count: u32, burst: u32) -> Self {
        let Some(interval_ns) = SECOND_NS.checked_div(count.into()) else {
            return Self::UNLIMITED;
        };
        Self {
            interval_ns: interval_ns.max(1),
            burst: burst.max(1),
        }
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(self) -> bool {
        self.interval_ns == 0
    }

    /// Takes one from a bucket that is full at `full_ns`, and gives the time at which it then is.
    /// `Err` is how long to wait for the next one; nothing is taken then.
    pub fn take(self, full_ns: u64, now_ns: u64) -> Result<u64, Duration> {
        if self.is_unlimited() {
            return Ok(full_ns);
        }
        let missing = full_ns.saturating_sub(now_ns);
        let most = self.interval_ns.saturating_mul(u64::from(self.burst - 1));
        if missing > most {
            return Err(Duration::from_nanos(missing - most));
        }
        Ok(now_ns.saturating_add(missing + self.interval_ns))
    }
}
