//! How a store is, told without asking it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Condition;

/// What failed last and has not succeeded since, by part: `writes`, `reads`.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Whether anything failed, so that a success, the usual case, takes no lock.
    any: AtomicBool,
    faults: Mutex<BTreeMap<&'static str, Box<str>>>,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Box<str>>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a failure, and logs it unless the part failed already.
    pub(super) fn failed(&self, part: &'static str, reason: &str) {
        let known = self.lock().insert(part, reason.into());
        self.any.store(true, Ordering::Release);
        if known.is_none() {
            tracing::error!(part, reason, "the store fails");
        }
    }

    /// Notes a success.
    pub(super) fn succeeded(&self, part: &'static str) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut faults = self.lock();
        if faults.remove(part).is_some() {
            tracing::info!(part, "the store works again");
        }
        self.any.store(!faults.is_empty(), Ordering::Release);
    }

    /// Every part that fails, with its reason.
    pub(super) fn condition(&self) -> Condition {
        let faults = self.lock();
        let reasons: Vec<String> = faults
            .iter()
            .map(|(part, reason)| format!("{part}: {reason}"))
            .collect();
        if reasons.is_empty() {
            return Condition::Ok;
        }
        Condition::Degraded(reasons.join("; ").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_degraded_from_its_failure_to_its_next_success() {
        let health = Health::default();
        health.failed("writes", "disk full");
        health.failed("reads", "gone");
        health.succeeded("reads");
        assert_eq!(
            health.condition(),
            Condition::Degraded("writes: disk full".into())
        );
        health.succeeded("writes");
        assert_eq!(health.condition(), Condition::Ok);
    }
}
