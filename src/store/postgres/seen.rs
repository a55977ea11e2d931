//! The newest number that this process has seen in each room: what a replica must hold to be asked.
//! Pure.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most rooms that are known at a time.
const ROOMS_MAX: usize = 65_536;
/// So many parts, so that shards seldom wait for each other.
const PARTS: usize = 16;

/// The newest numbers seen.
pub(super) struct Seen {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
    part_max: usize,
}

#[derive(Default)]
struct Part {
    newest: HashMap<Box<str>, u64>,
    /// Whether a room had to go: from then on, an unknown one may have been seen.
    forgot: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self::with_room_for(ROOMS_MAX)
    }
}

impl Seen {
    fn with_room_for(rooms: usize) -> Self {
        Self {
            parts: Default::default(),
            hasher: RandomState::new(),
            part_max: (rooms / PARTS).max(1),
        }
    }

    fn part(&self, room: &str) -> MutexGuard<'_, Part> {
        let count = PARTS as u64;
        let nth = usize::try_from(self.hasher.hash_one(room) % count).expect("there are few parts");
        self.parts[nth]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a number of a room.
    pub(super) fn note(&self, room: &str, seq: u64) {
        let mut part = self.part(room);
        if let Some(newest) = part.newest.get_mut(room) {
            *newest = seq.max(*newest);
            return;
        }
        if part.newest.len() >= self.part_max
            && let Some(gone) = part.newest.keys().next().cloned()
        {
            part.newest.remove(&gone);
            part.forgot = true;
        }
        part.newest.insert(room.into(), seq);
    }

    /// The newest number of a room, 0 when none was seen; `None` when that is forgotten.
    pub(super) fn newest(&self, room: &str) -> Option<u64> {
        let part = self.part(room);
        let unknown = if part.forgot { None } else { Some(0) };
        part.newest.get(room).copied().or(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_never_goes_back() {
        let seen = Seen::default();
        assert_eq!(seen.newest("r"), Some(0));
        seen.note("r", 5);
        seen.note("r", 3);
        assert_eq!((seen.newest("r"), seen.newest("s")), (Some(5), Some(0)));
    }

    #[test]
    fn a_forgotten_room_is_not_taken_for_a_new_one() {
        let seen = Seen::with_room_for(PARTS);
        for n in 0..1_000_u64 {
            seen.note(&n.to_string(), n + 1);
        }
        let known = (0..1_000_u64).filter_map(|n| {
            let newest = seen.newest(&n.to_string())?;
            assert_eq!(newest, n + 1);
            Some(newest)
        });
        assert!((1..=PARTS).contains(&known.count()));
    }
}
