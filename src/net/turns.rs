//! Whoever has had its turn waits until the shard has looked after everybody else.
//!
//! The executor looks for input when nothing is left to run, or when its preemption timer fires, after
//! 100 ms. A client that sends without a pause would keep its task runnable, and everybody else waiting
//! for so long. So after [`MESSAGES`] in a row it stops for the shard's next tick, a millisecond later.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Messages that one client has handled in a row: a few milliseconds' worth.
pub(super) const MESSAGES: u32 = 1024;

/// Those who wait for the next tick.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: RefCell<Vec<Waker>>,
}

impl Turns {
    /// Wakes the task of `cx` with the next tick.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        self.waiting.borrow_mut().push(cx.waker().clone());
    }

    /// Resolves with the next tick, or when its task is woken for something else.
    pub(super) async fn next(&self) {
        let has_waited = Cell::new(false);
        poll_fn(|cx| {
            if has_waited.replace(true) {
                return Poll::Ready(());
            }
            self.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// Wakes all who wait. Whether there was anybody: then the next tick should be soon.
    pub(super) fn give(&self) -> bool {
        let waiting = self.waiting.take();
        let is_wanted = !waiting.is_empty();
        waiting.into_iter().for_each(Waker::wake);
        is_wanted
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use futures_util::task::noop_waker_ref;

    use super::*;

    #[test]
    fn a_turn_comes_with_the_next_tick_and_only_for_who_waits() {
        let turns = Turns::default();
        assert!(!turns.give(), "nobody waits");
        let mut turn = pin!(turns.next());
        assert!((&mut turn).now_or_never().is_none());
        turns.wait(&Context::from_waker(noop_waker_ref()));
        assert!(turns.give());
        assert!(turn.now_or_never().is_some());
        assert!(!turns.give(), "they have had it");
    }
}
