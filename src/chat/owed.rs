//! Rooms of which it is not known whether their last message is stored: the store did not say in time.
//! Whoever should have received it is told later. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Rooms named; more means all rooms.
const ROOMS_MAX: usize = 10_000;
/// Rooms that are asked for in one tick.
const AT_ONCE: usize = 16;
/// How long after an unknown outcome, or a failed try, the store is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// The rooms of one shard.
pub(super) struct Owed {
    rooms: BTreeSet<Box<str>>,
    /// There were too many to name.
    all: bool,
    next: Instant,
}

/// What is to be told now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The newest messages of these rooms.
    Rooms(Vec<Box<str>>),
    /// That any room may have more than was published.
    All,
}

impl Owed {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rooms: BTreeSet::new(),
            all: false,
            next: now,
        }
    }

    /// A message of the room may be stored without having been published. `false`: there are too many
    /// such rooms to name.
    pub(super) fn owe(&mut self, now: Instant, room: &str) -> bool {
        self.next = now + RETRY;
        if !self.all {
            self.rooms.insert(room.into());
            self.all = self.rooms.len() > ROOMS_MAX;
        }
        if self.all {
            self.rooms.clear();
        }
        !self.all
    }

    /// Takes what is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Due> {
        if now < self.next()? {
            return None;
        }
        self.next = now + RETRY;
        if std::mem::take(&mut self.all) {
            return Some(Due::All);
        }
        let rooms = (0..AT_ONCE).map_while(|_| self.rooms.pop_first());
        Some(Due::Rooms(rooms.collect()))
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        (self.all || !self.rooms.is_empty()).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_of_rooms_a_while_later_a_few_at_a_time() {
        let now = Instant::now();
        let mut owed = Owed::new(now);
        assert_eq!((owed.next(), owed.take(now)), (None, None));
        for room in 0..=AT_ONCE {
            assert!(owed.owe(now, &format!("{room:02}")));
        }
        assert_eq!(owed.take(now), None);
        let due = |owed: &mut Owed, after: u32| match owed.take(now + after * RETRY) {
            Some(Due::Rooms(rooms)) => rooms.len(),
            _ => 0,
        };
        assert_eq!((due(&mut owed, 1), due(&mut owed, 2)), (AT_ONCE, 1));
        assert_eq!(owed.next(), None);
    }

    #[test]
    fn too_many_rooms_are_all_rooms() {
        let now = Instant::now();
        let mut owed = Owed::new(now);
        for room in 0..ROOMS_MAX {
            assert!(owed.owe(now, &room.to_string()));
        }
        assert!(owed.owe(now, "0"), "it is named already");
        assert!(!owed.owe(now, "one more"));
        assert!(!owed.owe(now, "and one"));
        assert_eq!(owed.take(now + RETRY), Some(Due::All));
        assert_eq!(owed.next(), None);
        assert!(owed.owe(now, "a"));
    }
}
