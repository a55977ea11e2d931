//! How a store is, told without asking it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::LocalBoxFuture;

use super::request::refused;
use super::{Condition, StoreError};
use crate::metrics::StoreMetrics;

/// What failed last and has not succeeded since, by part: `writes`, `reads`.
#[derive(Default)]
pub(super) struct Health {
    /// The store's figures, for every part to count in.
    pub(super) figures: StoreMetrics,
    /// Whether its faults are the store's: a replica's are not.
    needed: bool,
    /// Whether anything failed, so that a success, the usual case, takes no lock.
    any: AtomicBool,
    faults: Mutex<BTreeMap<&'static str, Box<str>>>,
}

impl Health {
    /// Nothing has failed.
    pub(super) fn new() -> Arc<Self> {
        let health = Self {
            needed: true,
            ..Self::default()
        };
        health.figures.up.set(1.0);
        Arc::new(health)
    }

    /// The same for what the store can do without.
    pub(super) fn of_replicas() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Box<str>>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a failure, and logs it unless the part failed already.
    pub(super) fn failed(&self, part: &'static str, reason: &str) {
        let known = self.lock().insert(part, reason.into());
        self.any.store(true, Ordering::Release);
        if self.needed {
            self.figures.up.set(0.0);
        }
        match (known.is_none(), self.needed) {
            (true, true) => tracing::error!(part, reason, "the store fails"),
            (true, false) => {
                tracing::warn!(part, reason, "a replica fails: the primary answers for it");
            }
            (false, _) => {}
        }
    }

    /// Notes a success.
    pub(super) fn succeeded(&self, part: &'static str) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut faults = self.lock();
        if faults.remove(part).is_some() {
            tracing::info!(part, "it works again");
        }
        self.any.store(!faults.is_empty(), Ordering::Release);
        if faults.is_empty() && self.needed {
            self.figures.up.set(1.0);
        }
    }

    /// Answers that too much waits.
    pub(super) fn full<T: 'static>(&self) -> LocalBoxFuture<'static, Result<T, StoreError>> {
        self.figures.refused_full.increment(1);
        refused("too much waits for it")
    }

    /// Answers that the store is given up for now.
    pub(super) fn down<T: 'static>(&self) -> LocalBoxFuture<'static, Result<T, StoreError>> {
        self.figures.refused_down.increment(1);
        refused("the database is down")
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

/// A number for a figure.
pub(super) fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_degraded_from_its_failure_to_its_next_success() {
        let health = Health::new();
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
