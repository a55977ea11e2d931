//! Waits that end at a time, driven by the shard's tick instead of a timer each.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::env::Env;

/// The deadlines that somebody waits for now. There are as many as sends wait for the store.
pub(super) struct Deadlines {
    env: Rc<Env>,
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    count: Cell<u64>,
}

impl Deadlines {
    pub(super) fn new(env: Rc<Env>) -> Rc<Self> {
        Rc::new(Self {
            env,
            waiting: RefCell::default(),
            count: Cell::new(0),
        })
    }

    /// Resolves at the first tick after `at`.
    pub(super) fn at(self: &Rc<Self>, at: Instant) -> Deadline {
        let number = self.count.get();
        self.count.set(number + 1);
        Deadline {
            deadlines: self.clone(),
            key: (at, number),
        }
    }

    /// Wakes whoever waits for a time up to `now`.
    pub(super) fn tick(&self, now: Instant) {
        loop {
            let mut waiting = self.waiting.borrow_mut();
            let Some(entry) = waiting.first_entry().filter(|entry| entry.key().0 <= now) else {
                return;
            };
            let waker = entry.remove();
            drop(waiting);
            waker.wake();
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.borrow().keys().next().map(|(at, _)| *at)
    }
}

/// A wait for a time.
pub(super) struct Deadline {
    deadlines: Rc<Deadlines>,
    key: (Instant, u64),
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.deadlines.env.now() >= self.key.0 {
            return Poll::Ready(());
        }
        let mut waiting = self.deadlines.waiting.borrow_mut();
        waiting.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.deadlines.waiting.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::time::Duration;

    #[test]
    fn resolves_once_its_time_has_come_and_leaves_nothing_behind() {
        let env = Env::seeded(1);
        let deadlines = Deadlines::new(env.clone());
        let at = env.now() + Duration::from_secs(5);
        let (mut one, mut two) = (deadlines.at(at), deadlines.at(at));
        assert_eq!(block_on(poll_once(&mut one)), None);
        assert_eq!(block_on(poll_once(&mut two)), None);
        assert_eq!(deadlines.next(), Some(at));
        drop(two);
        env.advance(Duration::from_secs(5));
        deadlines.tick(env.now());
        assert_eq!(deadlines.next(), None);
        assert_eq!(block_on(poll_once(&mut one)), Some(()));
    }
}
