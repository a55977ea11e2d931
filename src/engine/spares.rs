//! Lists for what waits in the outboxes of a shard, kept for the next session that has something to send.
//!
//! A room's members all need one at the same time and give it back with the same flush. Without spares
//! that were an allocation for each member and flush, and three more while a list grows to 32 packets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::wire::engine_io::Encoded;

/// So many lists are kept: the members of a room that are on one shard. Others are freed.
pub(super) const LISTS_MAX: usize = 16_384;

/// A list that was made longer by a client who did not keep up is freed. With [`LISTS_MAX`] this
/// bounds what a shard keeps to 8 MiB.
pub(super) const PACKETS_MAX: usize = 64;

/// The packets that wait for one session.
pub(super) type List = VecDeque<Rc<Encoded>>;

/// The lists that no session uses.
#[derive(Debug)]
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

    /// Frees the lists that nobody needed for `period`, once in that time.
    pub(super) fn trim(&self, now: Instant, period: Duration) {
        if now < self.trimmed.get() + period {
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

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(25);

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
        spares.trim(start + PERIOD, PERIOD);
        use_at_once(&spares, 10);
        // Not yet.
        spares.trim(start + PERIOD * 2 - Duration::from_millis(1), PERIOD);
        assert_eq!(spares.lists.borrow().len(), 1_000);
        spares.trim(start + PERIOD * 2, PERIOD);
        assert_eq!(spares.lists.borrow().len(), 10);
        assert!(spares.lists.borrow().capacity() < 100);
        spares.trim(start + PERIOD * 3, PERIOD);
        assert_eq!(spares.lists.borrow().len(), 0);
    }
}
