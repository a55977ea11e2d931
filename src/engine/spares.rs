//! Lists for what waits in the outboxes of a shard, kept for the next session that has something to send.
//!
//! A room's members all need one at the same time and give it back with the same flush. Without spares that
//! would be an allocation for each member and flush, and three more while a list grows to 32 packets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::wire::engine_io::Encoded;

/// So many lists are kept, for as many sessions that something waits for at the same time; others are freed.
const LISTS_MAX: usize = 16_384;

/// A list that has grown longer, for a client who does not keep up or for a replay, is freed. With [`LISTS_MAX`]
/// this bounds what a shard keeps to 9 MiB.
const PACKETS_MAX: usize = 64;

/// Lists that were not needed for so long are freed.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The packets that wait for one session.
pub(super) type List = VecDeque<Rc<Encoded>>;

/// The lists that no session uses.
pub(super) struct Spares {
    lists: RefCell<Vec<List>>,
    /// The fewest that were left since [`Spares::trim`] freed some: nobody needed those.
    least: Cell<usize>,
    trimmed: Cell<Instant>,
}

impl Spares {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lists: RefCell::default(),
            least: Cell::new(0),
            trimmed: Cell::new(now),
        }
    }

    /// An empty list.
    pub(super) fn take(&self) -> List {
        let mut lists = self.lists.borrow_mut();
        let list = lists.pop().unwrap_or_default();
        self.least.set(self.least.get().min(lists.len()));
        list
    }

    /// Keeps the memory of a list, and forgets what is in it.
    pub(super) fn put(&self, mut list: List) {
        list.clear();
        let mut lists = self.lists.borrow_mut();
        if (1..=PACKETS_MAX).contains(&list.capacity()) && lists.len() < LISTS_MAX {
            lists.push(list);
        }
    }

    /// Frees the lists that nobody needed since it last did, [`KEPT_FOR`] ago or longer.
    pub(super) fn trim(&self, now: Instant) {
        if now < self.trimmed.get() + KEPT_FOR {
            return;
        }
        let mut lists = self.lists.borrow_mut();
        lists.drain(..self.least.get());
        let count = lists.len();
        lists.shrink_to(count);
        self.least.set(count);
        self.trimmed.set(now);
    }
}

impl fmt::Debug for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = self.lists.borrow().len();
        f.debug_struct("Spares")
            .field("lists", &lists)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{self, CloseReason, Engine, Key, Transport, testing};

    /// A session for which nothing waits any more but `bodies`.
    fn session(transport: Transport, bodies: &[&str]) -> (Engine, Key) {
        let options = engine::Options {
            outbox_bytes_max: 1_000,
            ..engine::Options::default()
        };
        let engine = testing::engine(options);
        let key = testing::open(&engine, transport);
        finish(&engine, key);
        for body in bodies {
            engine.send(key, &[Encoded::text('4', body)]);
        }
        (engine, key)
    }

    /// Sends or fetches all that waits.
    fn finish(engine: &Engine, key: Key) {
        if engine.transport(key) == Some(Transport::Polling) {
            engine.begin_poll(key).expect("the GET is let in");
            assert!(engine.take_payload(key).is_some());
            return;
        }
        let sum = |waiting: engine::Waiting<'_>| waiting.frames().map(<[u8]>::len).sum();
        engine.transmitted(key, engine.transmit(key, sum));
    }

    /// How many lists are spare; all of them are empty.
    fn spare(engine: &Engine) -> usize {
        let lists = engine.inner.spares.lists.borrow();
        assert!(
            lists
                .iter()
                .all(|list| list.is_empty() && list.capacity() > 0)
        );
        lists.len()
    }

    #[test]
    fn a_session_gives_its_list_back_when_all_was_sent() {
        let (engine, key) = session(Transport::WebSocket, &["one", "two", "three"]);
        assert_eq!(spare(&engine), 0);
        engine.transmitted(key, 1);
        engine.transmitted(key, 8);
        assert_eq!(spare(&engine), 0);
        finish(&engine, key);
        assert_eq!(spare(&engine), 1);
        engine.send(key, &[Encoded::text('4', "again")]);
        assert_eq!(spare(&engine), 0);
    }

    #[test]
    fn a_session_gives_its_list_back_when_it_is_fetched_given_up_or_over() {
        let (engine, key) = session(Transport::Polling, &["one", "two"]);
        finish(&engine, key);
        assert_eq!(spare(&engine), 1);
        // One that reads too slowly.
        let (engine, _) = session(Transport::WebSocket, &["something long"; 20]);
        assert_eq!(engine.session_count(), 0);
        assert_eq!(spare(&engine), 1);
        let (engine, key) = session(Transport::WebSocket, &["one"]);
        engine.close(key, CloseReason::TransportError);
        assert_eq!(spare(&engine), 1);
    }

    /// Has so many lists in use at once, each for one packet.
    fn use_at_once(spares: &Spares, count: usize) {
        let lists: Vec<_> = (0..count).map(|_| spares.take()).collect();
        for mut list in lists {
            list.push_back(Rc::new(Encoded::text('4', "something")));
            spares.put(list);
        }
    }

    #[test]
    fn a_list_is_used_again_and_empty() {
        let spares = Spares::new(Instant::now());
        use_at_once(&spares, 3);
        let list = spares.take();
        assert!(list.is_empty() && list.capacity() > 0);
        assert_eq!(spares.lists.borrow().len(), 2);
    }

    #[test]
    fn neither_many_nor_long_ones_are_kept() {
        let spares = Spares::new(Instant::now());
        spares.put(List::new());
        spares.put(List::with_capacity(PACKETS_MAX + 1));
        assert_eq!(spares.lists.borrow().len(), 0);
        use_at_once(&spares, LISTS_MAX + 1);
        assert_eq!(spares.lists.borrow().len(), LISTS_MAX);
    }

    #[test]
    fn those_that_were_not_needed_for_a_while_are_freed() {
        let start = Instant::now();
        let spares = Spares::new(start);
        use_at_once(&spares, 1_000);
        spares.trim(start + KEPT_FOR);
        use_at_once(&spares, 10);
        // Not yet.
        spares.trim(start + KEPT_FOR + KEPT_FOR / 2);
        assert_eq!(spares.lists.borrow().len(), 1_000);
        spares.trim(start + KEPT_FOR * 2);
        assert_eq!(spares.lists.borrow().len(), 10);
        assert!(spares.lists.borrow().capacity() < 100);
        spares.trim(start + KEPT_FOR * 3);
        assert_eq!(spares.lists.borrow().len(), 0);
    }
}
