//! The bucket itself: one number, shared.

use std::time::Duration;

use super::Rate;
use crate::sync::{AtomicU64, Ordering};

/// A bucket that many threads take from. Full at first.
#[derive(Debug, Default)]
pub struct Bucket {
    pub(super) full_ns: AtomicU64,
}

impl Bucket {
    /// Takes one at this rate; see [`Rate::take`].
    pub fn take(&self, rate: Rate, now_ns: u64) -> Result<(), Duration> {
        let mut known = self.full_ns.load(Ordering::Relaxed);
        loop {
            let full_ns = rate.take(known, now_ns)?;
            let exchanged = self.full_ns.compare_exchange_weak(
                known,
                full_ns,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match exchanged {
                Ok(_) => return Ok(()),
                Err(other) => known = other,
            }
        }
    }

    /// Whether nothing is missing, so that a new bucket is as good.
    pub fn is_full(&self, now_ns: u64) -> bool {
        self.full_ns.load(Ordering::Relaxed) <= now_ns
    }
}
