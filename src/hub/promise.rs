//! A value that comes later, within one shard.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The side that gives the value. Dropped without one, the other side gets the type's default.
#[derive(Debug)]
pub(super) struct Promise<T: Default> {
    shared: Rc<RefCell<Shared<T>>>,
}

#[derive(Debug)]
struct Shared<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// A promise, and what it promises.
pub(super) fn promise<T: Default>() -> (Promise<T>, impl Future<Output = T>) {
    let shared = Rc::new(RefCell::new(Shared {
        value: None,
        waker: None,
    }));
    let promised = Rc::clone(&shared);
    let value = poll_fn(move |context| {
        let mut shared = promised.borrow_mut();
        if let Some(value) = shared.value.take() {
            return Poll::Ready(value);
        }
        shared.waker = Some(context.waker().clone());
        Poll::Pending
    });
    (Promise { shared }, value)
}

impl<T: Default> Promise<T> {
    /// Gives the value.
    pub(super) fn keep(self, value: T) {
        self.shared.borrow_mut().value = Some(value);
    }
}

impl<T: Default> Drop for Promise<T> {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.value.get_or_insert_with(T::default);
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn gives_what_was_kept_or_the_default() {
        let (kept, value) = promise::<u8>();
        let mut value = Box::pin(value);
        assert_eq!((&mut value).now_or_never(), None);
        kept.keep(7);
        assert_eq!(value.now_or_never(), Some(7));
        let (broken, value) = promise::<u8>();
        drop(broken);
        assert_eq!(value.now_or_never(), Some(0));
    }
}
