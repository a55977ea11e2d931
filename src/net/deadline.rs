//! Deadlines of a shard's connections, fired by its tick.
//!
//! A runtime timer costs ten microseconds and memory in the kernel's ring; a step of a request needs a
//! deadline and almost never reaches it. So waiting for one costs an entry in an ordered map, and
//! the tick, which runs anyway, wakes those that are due: up to one tick late.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// The deadlines of one shard. A clone is the same table.
#[derive(Debug, Clone, Default)]
pub struct Deadlines(Rc<RefCell<Table>>);

type Entry = (Instant, u64);

#[derive(Debug, Default)]
struct Table {
    waiting: BTreeMap<Entry, Waker>,
    made: u64,
}

/// The deadline came before the future was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub struct Elapsed;

impl Deadlines {
    /// The future's output, or [`Elapsed`] once `at` has passed.
    pub fn within<F: Future + Unpin>(&self, at: Instant, future: F) -> Within<F> {
        Within {
            deadlines: self.clone(),
            at,
            entry: None,
            future,
        }
    }

    /// Resolves at the first tick after `at`.
    pub async fn reach(&self, at: Instant) {
        let Err(Elapsed) = self.within(at, std::future::pending::<()>()).await else {
            unreachable!("a pending future has no output")
        };
    }

    /// Wakes whoever waits for a deadline that has passed. The tick calls it.
    pub fn fire(&self, now: Instant) {
        loop {
            // One at a time: waking may run code that registers or removes other deadlines.
            let due = {
                let mut table = self.0.borrow_mut();
                match table.waiting.first_entry() {
                    Some(first) if first.key().0 <= now => Some(first.remove()),
                    _ => None,
                }
            };
            let Some(waker) = due else { return };
            waker.wake();
        }
    }

    /// The earliest deadline that somebody waits for.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.0.borrow().waiting.keys().next().map(|(at, _)| *at)
    }

    fn set(&self, entry: &mut Option<Entry>, at: Instant, waker: &Waker) {
        let mut table = self.0.borrow_mut();
        if let Some(known) = entry.and_then(|entry| table.waiting.get_mut(&entry)) {
            known.clone_from(waker);
            return;
        }
        let new = (at, table.made);
        table.made += 1;
        table.waiting.insert(new, waker.clone());
        *entry = Some(new);
    }

    fn remove(&self, entry: Option<Entry>) {
        if let Some(entry) = entry {
            // The waker is dropped after the borrow: with it may go the last handle of a task.
            let removed = self.0.borrow_mut().waiting.remove(&entry);
            drop(removed);
        }
    }
}

/// A future with a deadline; see [`Deadlines::within`].
#[derive(Debug)]
pub struct Within<F> {
    deadlines: Deadlines,
    at: Instant,
    entry: Option<Entry>,
    future: F,
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(output) = Pin::new(&mut this.future).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if Instant::now() >= this.at {
            return Poll::Ready(Err(Elapsed));
        }
        this.deadlines.set(&mut this.entry, this.at, cx.waker());
        Poll::Pending
    }
}

impl<F> Drop for Within<F> {
    fn drop(&mut self) {
        self.deadlines.remove(self.entry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_lite::future::{block_on, pending, poll_once};

    use super::*;

    #[test]
    fn a_deadline_ends_a_wait_and_leaves_nothing_behind() {
        let deadlines = Deadlines::default();
        let at = Instant::now() + Duration::from_millis(5);
        let mut waiting = deadlines.within(at, pending::<()>());
        assert_eq!(block_on(poll_once(&mut waiting)), None);
        assert_eq!(deadlines.next(), Some(at));
        std::thread::sleep(Duration::from_millis(6));
        deadlines.fire(Instant::now());
        assert_eq!(block_on(waiting), Err(Elapsed));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn a_wait_that_ends_early_takes_its_deadline_away() {
        let deadlines = Deadlines::default();
        let at = Instant::now() + Duration::from_secs(5);
        let mut waiting = deadlines.within(at, pending::<()>());
        assert_eq!(block_on(poll_once(&mut waiting)), None);
        drop(waiting);
        assert_eq!(deadlines.next(), None);
        assert_eq!(block_on(deadlines.within(at, std::future::ready(7))), Ok(7));
    }
}
