//! Futures that wait until something happens to a session.
//!
//! The wakers live here, beside the table and not in it, so that the machines stay plain data. A
//! watch counts from its making, not from its first poll: nothing that happens between is missed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Inner, Key};

/// The watches of a shard's sessions, in order of session and age.
#[derive(Debug, Default)]
pub(super) struct Watches {
    waiting: RefCell<BTreeMap<(Key, u64), State>>,
    next: Cell<u64>,
}

#[derive(Debug)]
enum State {
    Armed(Option<Waker>),
    Fired,
}

impl Watches {
    /// Whether nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Something happened to this session.
    pub(super) fn fire(&self, key: Key) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return;
        }
        let mut wakers = Vec::new();
        for (_, state) in waiting.range_mut((key, 0)..=(key, u64::MAX)) {
            if let State::Armed(Some(waker)) = std::mem::replace(state, State::Fired) {
                wakers.push(waker);
            }
        }
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Resolves when something happened to a session since this was made.
pub(super) struct Watch {
    inner: Rc<Inner>,
    place: (Key, u64),
}

impl Watch {
    pub(super) fn new(inner: Rc<Inner>, key: Key) -> Self {
        let watches = &inner.watches;
        let number = watches.next.get();
        watches.next.set(number + 1);
        let place = (key, number);
        let known = inner.table.borrow().get(key).is_some();
        // To a session that is gone everything has happened.
        let state = if known {
            State::Armed(None)
        } else {
            State::Fired
        };
        watches.waiting.borrow_mut().insert(place, state);
        Self { inner, place }
    }
}

impl Future for Watch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.inner.watches.waiting.borrow_mut();
        match waiting.get_mut(&self.place) {
            Some(State::Armed(waker)) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(State::Fired) | None => Poll::Ready(()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner.watches.waiting.borrow_mut().remove(&self.place);
    }
}
