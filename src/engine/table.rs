//! The sessions of a shard: found by key and by id, their deadlines in order, and which of them wait
//! for a flush.
//!
//! Keys carry a generation, so that a stale one finds nothing. Ids and deadlines are in ordered maps:
//! strangers cannot make them collide, and one seed always gives one order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::session::Session;
use super::{Key, Sid};

/// Deadlines are rounded up to slots of this part of the ping interval, so that pings leave and
/// pongs return in bursts instead of one wake each. With 10,000 idle sessions twice as many slots cost
/// 3 to 10 % more CPU, and half as many gained nothing.
const SLOTS_IN_INTERVAL: u32 = 32;

/// A slot is never shorter.
const SLOT_MIN: Duration = Duration::from_millis(1);

/// Not registered for any slot.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    sids: BTreeMap<Sid, Key>,
    deadlines: BTreeMap<u64, Vec<Key>>,
    /// Start of slot 0.
    epoch: Instant,
    slot: Duration,
    dirty: Vec<Key>,
    open_count: usize,
    outbox_bytes: usize,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    dirty: bool,
    /// What this session adds to [`Table::outbox_bytes`].
    outbox_bytes: usize,
    /// The earliest slot that names this place.
    registered: u64,
    session: Option<Session>,
}

impl Table {
    pub(super) fn new(epoch: Instant, ping_interval: Duration) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            sids: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            epoch,
            slot: (ping_interval / SLOTS_IN_INTERVAL).max(SLOT_MIN),
            dirty: Vec::new(),
            open_count: 0,
            outbox_bytes: 0,
        }
    }

    /// Takes a session in.
    ///
    /// # Panics
    /// With 2^32 sessions: no shard can hold so many.
    pub(super) fn insert(&mut self, session: Session) -> Key {
        let sid = *session.sid();
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                generation: 0,
                dirty: false,
                outbox_bytes: 0,
                registered: NEVER,
                session: None,
            });
            u32::try_from(self.places.len() - 1).expect("a shard has fewer than 2^32 sessions")
        });
        let place = &mut self.places[index as usize];
        debug_assert!(place.session.is_none(), "a free place is empty");
        place.session = Some(session);
        let key = Key {
            index,
            generation: place.generation,
        };
        self.sids.insert(sid, key);
        self.open_count += 1;
        key
    }

    fn place(&mut self, key: Key) -> Option<&mut Place> {
        let place = self.places.get_mut(key.index as usize)?;
        (place.generation == key.generation).then_some(place)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Session> {
        let place = self.places.get(key.index as usize)?;
        let known = place.generation == key.generation;
        place.session.as_ref().filter(|_| known)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Session> {
        self.place(key)?.session.as_mut()
    }

    pub(super) fn find(&self, sid: &Sid) -> Option<Key> {
        self.sids.get(sid).copied()
    }

    /// Counts a session as open no longer.
    pub(super) fn count_closed(&mut self) {
        self.open_count -= 1;
    }

    pub(super) fn open_count(&self) -> usize {
        self.open_count
    }

    /// Unsent output of all sessions.
    pub(super) fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// Open sessions, in the order of their places.
    pub(super) fn open_keys(&self) -> impl Iterator<Item = Key> {
        let keys = (0..).zip(&self.places);
        keys.filter_map(|(index, place)| {
            let open = place.session.as_ref().is_some_and(Session::is_open);
            open.then_some(Key {
                index,
                generation: place.generation,
            })
        })
    }

    /// Brings the table in line with a session that was stepped. Returns whether something happened
    /// that others may wait for.
    pub(super) fn settle(&mut self, key: Key) -> bool {
        let Some(session) = self.get_mut(key) else {
            return false;
        };
        let (sid, known) = (*session.sid(), session.is_known());
        let finished = session.is_finished();
        let ((), news) = self
            .output(key, |_| ())
            .expect("the session was just stepped");
        if !known && self.sids.get(&sid) == Some(&key) {
            self.sids.remove(&sid);
        }
        if finished {
            self.remove(key);
        } else {
            self.register(key);
        }
        news
    }

    /// Changes what waits for a session, and nothing else: neither its deadlines nor whether it ends.
    /// Returns also whether something happened that others may wait for.
    pub(super) fn output<R>(
        &mut self,
        key: Key,
        change: impl FnOnce(&mut Session) -> R,
    ) -> Option<(R, bool)> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let session = place.session.as_mut()?;
        let result = change(session);
        let news = session.take_news();
        let before = std::mem::replace(&mut place.outbox_bytes, session.outbox_bytes());
        self.outbox_bytes = self.outbox_bytes - before + place.outbox_bytes;
        let is_flushed = news.transport && session.is_attached();
        if is_flushed && !std::mem::replace(&mut place.dirty, true) {
            self.dirty.push(key);
        }
        Some((result, news.transport || news.progress))
    }

    fn remove(&mut self, key: Key) {
        let place = self.place(key).expect("the session was just stepped");
        place.session = None;
        place.dirty = false;
        debug_assert_eq!(place.outbox_bytes, 0, "a finished session owes nothing");
        place.registered = NEVER;
        // A place whose generations are used up is never used again, so that no key is.
        if let Some(generation) = place.generation.checked_add(1) {
            place.generation = generation;
            self.free.push(key.index);
        }
    }

    // Who has something to send.

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn take_dirty(&mut self, dirty: &mut Vec<Key>) {
        for &key in &self.dirty {
            let place = self.places.get_mut(key.index as usize);
            if let Some(place) = place.filter(|place| place.generation == key.generation) {
                place.dirty = false;
            }
        }
        dirty.append(&mut self.dirty);
    }

    // Deadlines.

    /// The first slot that starts at or after `instant`.
    fn slot_after(&self, instant: Instant) -> u64 {
        nanos(instant.saturating_duration_since(self.epoch)).div_ceil(nanos(self.slot))
    }

    fn start_of(&self, slot: u64) -> Instant {
        self.epoch + Duration::from_nanos(slot.saturating_mul(nanos(self.slot)))
    }

    /// Sees to it that a session is looked at when its next deadline is due. One that moved back
    /// stays registered where it is, and is registered anew when that slot comes: pongs cost nothing.
    fn register(&mut self, key: Key) {
        let session = self.get(key).expect("the session was just stepped");
        let Some(next) = session.next_timeout() else {
            return;
        };
        let slot = self.slot_after(next);
        let place = self.place(key).expect("the session was just stepped");
        if slot < place.registered {
            place.registered = slot;
            self.deadlines.entry(slot).or_default().push(key);
        }
    }

    /// Takes out the sessions whose slot has come, to be stepped and settled.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some((&number, _)) = self.deadlines.first_key_value() {
            if self.start_of(number) > now {
                break;
            }
            let keys = self.deadlines.remove(&number).unwrap_or_default();
            due.extend(keys.into_iter().filter(|&key| {
                let place = self.place(key);
                place.is_some_and(|place| {
                    let current = place.registered == number;
                    if current {
                        place.registered = NEVER;
                    }
                    current
                })
            }));
        }
        due
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let (&slot, _) = self.deadlines.first_key_value()?;
        Some(self.start_of(slot))
    }
}

/// In 64 bits, which are enough for centuries.
fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
