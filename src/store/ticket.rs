//! A request's way to its answer: from the shard that asks, through a thread or another shard, back.
//!
//! A [`Ticket`] is either *waiting* in a queue, *taken* by whoever works on it, or *answered*. The
//! step from waiting to taken is atomic with its deadline's, so a message that was refused because
//! its time ran out is surely never stored, and one that was in flight is surely called unknown.
//!
//! The deadlines of all requests lie the same time ahead, so they fall due in the order of asking,
//! and one thread for the process watches the front of a queue: no timer for each message, and the
//! answer comes even when the disk, the network, or the shard that holds the connection stands still.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::StoreError;

/// How often the deadlines are looked at while anything is asked.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// How soon the watching thread sees that the last handle is gone.
const WATCH_END_SEEN_WITHIN: Duration = Duration::from_secs(1);

/// The reason of a refusal by time.
const NOT_IN_TIME: &str = "no answer in time";

/// What a request has come to.
#[derive(Debug)]
enum State<T> {
    Waiting,
    Taken,
    Answered(Result<T, StoreError>),
    /// The answer was taken away by who asked.
    Over,
}

#[derive(Debug)]
struct Inner<T> {
    state: State<T>,
    waker: Option<Waker>,
}

/// What to say when a taken request's time runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// It changes something: the outcome is unknown.
    ToStore,
    /// It only reads.
    ToRead,
}

/// One request that waits for its answer.
#[derive(Debug)]
pub(super) struct Ticket<T> {
    inner: Mutex<Inner<T>>,
    asks: Asks,
}

impl<T> Ticket<T> {
    pub(super) fn new(asks: Asks) -> Arc<Self> {
        let inner = Inner {
            state: State::Waiting,
            waker: None,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            asks,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing panics while it is held, so it is never poisoned in truth.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the request up. `false`: its time has run out, it must not be done any more.
    pub(super) fn take(&self) -> bool {
        let mut inner = self.lock();
        let waiting = matches!(inner.state, State::Waiting);
        if waiting {
            inner.state = State::Taken;
        }
        waiting
    }

    /// Answers, unless the deadline has done so.
    pub(super) fn answer(&self, answer: Result<T, StoreError>) {
        let waker = {
            let mut inner = self.lock();
            if !matches!(inner.state, State::Waiting | State::Taken) {
                return;
            }
            inner.state = State::Answered(answer);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The future of the answer.
    pub(super) fn wait(self: &Arc<Self>) -> Answer<T> {
        Answer(self.clone())
    }
}

/// The answer of a [`Ticket`], once there is one.
#[derive(Debug)]
pub(super) struct Answer<T>(Arc<Ticket<T>>);

impl<T> Future for Answer<T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.0.lock();
        match std::mem::replace(&mut inner.state, State::Over) {
            State::Answered(answer) => Poll::Ready(answer),
            state => {
                inner.state = state;
                inner.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Something whose time can run out.
trait Expire: Send + Sync {
    /// Whether it needs no watching any more.
    fn is_over(&self) -> bool;
    /// Answers that the time has run out. `false`: it was answered before.
    fn expire(&self) -> bool;
    /// What was asked.
    fn asks(&self) -> Asks;
}

impl<T: Send> Expire for Ticket<T> {
    fn is_over(&self) -> bool {
        matches!(self.lock().state, State::Answered(_) | State::Over)
    }

    fn expire(&self) -> bool {
        let waker = {
            let mut inner = self.lock();
            let answer = match (&inner.state, self.asks) {
                (State::Taken, Asks::ToStore) => StoreError::Timeout,
                (State::Waiting | State::Taken, _) => StoreError::Unavailable(NOT_IN_TIME.into()),
                (State::Answered(_) | State::Over, _) => return false,
            };
            inner.state = State::Answered(Err(answer));
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    fn asks(&self) -> Asks {
        self.asks
    }
}

/// Watches the deadlines of a store's tickets. Its thread ends when the last handle is gone.
pub(super) struct Deadlines {
    shared: Arc<Watched>,
    within: Duration,
}

struct Watched {
    due: Mutex<VecDeque<(Instant, Arc<dyn Expire>)>>,
    /// Rung when the first ticket comes and when the watch ends.
    bell: Condvar,
    on_expired: Box<dyn Fn(Asks) + Send + Sync>,
}

impl Deadlines {
    /// Starts the watch. `on_expired` is told, on its thread, each time that an answer was late.
    pub(super) fn watch(
        within: Duration,
        on_expired: impl Fn(Asks) + Send + Sync + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Watched {
            due: Mutex::default(),
            bell: Condvar::new(),
            on_expired: Box::new(on_expired),
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("store-deadlines".into())
            .spawn(move || while watch_once(&weak) {})?;
        Ok(Arc::new(Self { shared, within }))
    }

    /// Has an unanswered ticket expire when the time is over.
    pub(super) fn add<T: Send + 'static>(&self, ticket: &Arc<Ticket<T>>) {
        let mut due = self.shared.lock();
        due.push_back((Instant::now() + self.within, ticket.clone()));
        if due.len() == 1 {
            self.shared.bell.notify_one();
        }
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Arc<dyn Expire>)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expires what is due and forgets what is over, without making those who ask wait for it.
    fn look(&self) {
        let mut looked_at = std::mem::take(&mut *self.lock());
        let now = Instant::now();
        looked_at.retain(|(at, ticket)| {
            if *at <= now && ticket.expire() {
                (self.on_expired)(ticket.asks());
            }
            !ticket.is_over()
        });
        let mut due = self.lock();
        looked_at.append(&mut due);
        *due = looked_at;
    }
}

/// One round of the watching thread: `false` when nobody can ask any more.
fn watch_once(weak: &Weak<Watched>) -> bool {
    let Some(shared) = weak.upgrade() else {
        return false;
    };
    if shared.lock().is_empty() {
        // With a time-out, because whoever drops the last handle rings no bell.
        let _ = shared
            .bell
            .wait_timeout_while(shared.lock(), WATCH_END_SEEN_WITHIN, |due| due.is_empty());
    } else {
        shared.look();
    }
    drop(shared);
    std::thread::sleep(WATCH_EVERY);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    fn unavailable<T>(answer: &Result<T, StoreError>) -> bool {
        matches!(answer, Err(StoreError::Unavailable(_)))
    }

    #[test]
    fn an_answer_reaches_the_one_who_waits_in_another_thread() {
        let ticket = Ticket::new(Asks::ToStore);
        let worker = {
            let ticket = ticket.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                assert!(ticket.take());
                ticket.answer(Ok(7));
            })
        };
        assert_eq!(block_on(ticket.wait()), Ok(7));
        worker.join().unwrap();
    }

    #[test]
    fn a_request_that_expired_while_waiting_cannot_be_taken() {
        let ticket = Ticket::<u8>::new(Asks::ToStore);
        assert!(ticket.expire());
        assert!(!ticket.take());
        ticket.answer(Ok(1));
        assert!(unavailable(&block_on(ticket.wait())));
    }

    #[test]
    fn a_request_that_expired_in_flight_is_unknown_if_it_stores_and_unavailable_if_it_reads() {
        let stores = Ticket::<u8>::new(Asks::ToStore);
        let reads = Ticket::<u8>::new(Asks::ToRead);
        assert!(stores.take() && reads.take());
        assert!(stores.expire() && reads.expire());
        assert_eq!(block_on(stores.wait()), Err(StoreError::Timeout));
        assert!(unavailable(&block_on(reads.wait())));
    }

    #[test]
    fn what_is_answered_does_not_expire() {
        let ticket = Ticket::new(Asks::ToRead);
        assert!(ticket.take());
        ticket.answer(Ok(3));
        assert!(!ticket.expire());
        assert_eq!(block_on(ticket.wait()), Ok(3));
        assert!(ticket.is_over());
    }

    #[test]
    fn the_watch_answers_in_time_and_forgets() {
        let late = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = late.clone();
        let deadlines = Deadlines::watch(Duration::from_millis(60), move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })
        .unwrap();
        let (silent, answered) = (Ticket::<u8>::new(Asks::ToStore), Ticket::new(Asks::ToStore));
        deadlines.add(&silent);
        deadlines.add(&answered);
        answered.answer(Ok(1));
        let asked = Instant::now();
        assert!(unavailable(&block_on(silent.wait())));
        assert!(asked.elapsed() < Duration::from_secs(2));
        // Whoever waits may go on before the watch has counted it.
        let counted = || late.load(std::sync::atomic::Ordering::Relaxed);
        while counted() == 0 || !deadlines.shared.lock().is_empty() {
            assert!(
                asked.elapsed() < Duration::from_secs(5),
                "what is over stays watched, or uncounted"
            );
            std::thread::sleep(WATCH_EVERY);
        }
        assert_eq!(counted(), 1);
    }
}
