//! When to try again, and when to stop hoping: pure, with the chance handed in.

use std::time::Duration;

/// The wait after the first failure; each further one doubles it.
const FIRST: Duration = Duration::from_millis(50);
/// The longest wait, so that writes go on soon after the database is back.
const LONGEST: Duration = Duration::from_millis(500);
/// After so many failures in a row the circuit opens: requests are refused at once, not queued.
const OPENS_AFTER: u32 = 5;

/// The failures since the last success.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure and returns how long to wait; `chance` spreads it by up to a quarter, so that
    /// many servers do not come back in step.
    pub fn failed(&mut self, chance: u8) -> Duration {
        let wait = (FIRST * 2_u32.pow(self.failures.min(8))).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait * 3 / 4 + wait * u32::from(chance) / 1024
    }

    /// Notes a failure after which nothing is worth waiting for.
    pub fn gave_up(&mut self) {
        self.failures = self.failures.max(OPENS_AFTER);
    }

    /// Notes a success: the next failure is a first one.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Whether requests are to be refused at once.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.failures >= OPENS_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_up_to_half_a_second() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..6 {
            let mut other = Backoff {
                failures: backoff.failures,
            };
            assert!(other.failed(0) < backoff.failed(255));
            waits.push(other.failed(0).as_millis());
        }
        assert!(waits.is_sorted());
        assert!(Backoff { failures: 1_000 }.failed(255) <= LONGEST);
    }

    #[test]
    fn opens_after_five_failures_in_a_row() {
        let mut backoff = Backoff::default();
        for _ in 0..4 {
            backoff.failed(0);
        }
        assert!(!backoff.is_open());
        backoff.succeeded();
        for _ in 0..4 {
            backoff.failed(0);
        }
        assert!(!backoff.is_open());
        backoff.failed(0);
        assert!(backoff.is_open());
        backoff.succeeded();
        backoff.gave_up();
        assert!(backoff.is_open());
    }
}
