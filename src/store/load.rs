//! What waits for a store's writers, counted so that it stays bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much waits, and how much may.
#[derive(Debug)]
pub(super) struct Bound {
    held: AtomicUsize,
    max: usize,
}

impl Bound {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicUsize::new(0),
            max,
        })
    }

    /// Room for one more. `None`: with it there would be too much.
    pub(super) fn hold(self: &Arc<Self>, amount: usize) -> Option<Load> {
        let load = Load {
            amount,
            bound: self.clone(),
        };
        let before = self.held.fetch_add(amount, Ordering::Relaxed);
        (before + amount <= self.max).then_some(load)
    }
}

/// One's share of a [`Bound`]; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Load {
    amount: usize,
    bound: Arc<Bound>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.bound.held.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_up_to_its_bound_and_again_what_was_given_back() {
        let bound = Bound::new(10);
        let first = bound.hold(6);
        assert!(first.is_some());
        assert!(bound.hold(5).is_none());
        assert!(bound.hold(4).is_some(), "the refused one holds nothing");
        drop(first);
        assert!(bound.hold(10).is_some());
    }
}
