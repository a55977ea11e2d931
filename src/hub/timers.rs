//! Deadlines in order.

use std::collections::BTreeMap;
use std::time::Instant;

/// Names a deadline that has been set.
pub(super) type TimerId = (Instant, u64);

/// What is due when. Equal instants keep the order in which they were set.
#[derive(Debug)]
pub(super) struct Timers<T> {
    due: BTreeMap<TimerId, T>,
    count: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
            count: 0,
        }
    }
}

impl<T> Timers<T> {
    pub(super) fn set(&mut self, at: Instant, what: T) -> TimerId {
        self.count += 1;
        let id = (at, self.count);
        self.due.insert(id, what);
        id
    }

    pub(super) fn cancel(&mut self, id: TimerId) {
        self.due.remove(&id);
    }

    /// Takes one thing that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }
}
