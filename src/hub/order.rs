//! Puts the broadcasts of one room into the order of their numbers.
//!
//! A broadcast that overtook its predecessor is held for a moment; then the room's owner is asked to
//! read what is missing from where it is kept. Only when that stays silent does delivery go on behind a
//! visible gap; a swap or a repeat never happens. While the room's newest number is not known yet
//! (`open`), everything is held. Nothing here waits or reads a clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::planted::{self, Defect};

/// How long a broadcast is held before its predecessor is asked for.
pub(super) const HOLD: Duration = Duration::from_millis(50);
/// Broadcasts held for one room. What comes above is dropped, and read again later.
pub const HELD_MAX: usize = 1_000;
/// How long the store may be silent before delivery goes on without it.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// The greatest number that a store can give. What claims a greater one is none of ours.
const SEQ_MAX: u64 = i64::MAX.unsigned_abs();
/// When to ask again after the store could not answer.
const RETRY: Duration = Duration::from_millis(250);

/// The order of one room; `T` is a broadcast.
#[derive(Debug)]
pub(super) struct RoomOrder<T> {
    state: State,
    /// The last number delivered; `None` while it is unknown what came before.
    delivered: Option<u64>,
    /// The greatest number known to exist.
    head: u64,
    held: BTreeMap<u64, T>,
    /// Since when something is missing.
    gap_since: Option<Instant>,
    /// Since when the store has been asked in vain.
    asked_since: Option<Instant>,
    /// When to ask next.
    ask_at: Option<Instant>,
    is_asking: bool,
    /// More was held or became known since the store was asked: its answer may be older than that.
    is_stale: bool,
    /// While nobody has vouched for `delivered`.
    doubt: Option<Doubt>,
    counts: Counts,
}

/// Delivery went on, or began, with a number that only the bus knew, while the store was silent.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// The last number before that, if there was one.
    sure: Option<u64>,
    /// That number.
    at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The room's newest number is being read.
    Opening {
        since: Instant,
    },
    Open,
}

/// What happened, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) held: u64,
    pub(super) repaired: u64,
    pub(super) gaps: u64,
    pub(super) duplicates: u64,
    /// Broadcasts and notices of numbers that the store does not have.
    pub(super) bogus: u64,
    /// How often delivery went on with a number that is to be compared with the store's newest
    /// ([`RoomOrder::compare`]).
    pub(super) doubts: u64,
}

impl<T> RoomOrder<T> {
    /// A room whose newest number is not known yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Opening { since: now },
            delivered: None,
            head: 0,
            held: BTreeMap::new(),
            gap_since: None,
            asked_since: None,
            ask_at: None,
            is_asking: false,
            is_stale: false,
            doubt: None,
            counts: Counts::default(),
        }
    }

    /// Whether the newest number is still being read.
    pub(super) fn is_opening(&self) -> bool {
        self.state != State::Open
    }

    /// How many broadcasts wait for their predecessor.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// The last number delivered.
    pub(super) fn delivered(&self) -> Option<u64> {
        self.delivered
    }

    /// Whether something up to this number is known to be missing.
    pub(super) fn lacks(&self, seq: u64) -> bool {
        let is_behind = self.delivered.is_some_and(|delivered| delivered < seq);
        is_behind && self.head >= seq
    }

    /// Takes what was counted since the last call.
    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// The newest number was read; `None`: it cannot be known, and the first broadcast becomes it.
    /// Returns what is to be delivered now.
    pub(super) fn open(&mut self, now: Instant, head: Option<u64>) -> Vec<T> {
        if !self.is_opening() {
            return Vec::new();
        }
        self.state = State::Open;
        self.delivered = head;
        if let Some(head) = head {
            self.head = self.head.max(head);
            self.held = self.held.split_off(&(head + 1));
        }
        let ready = self.release();
        self.look_for_gap(now);
        ready
    }

    /// Takes a broadcast. Returns what is to be delivered now, in order.
    pub(super) fn receive(&mut self, now: Instant, seq: u64, item: T) -> Vec<T> {
        if self.delivered.is_some_and(|delivered| seq <= delivered) || self.held.contains_key(&seq)
        {
            self.counts.duplicates += 1;
            if planted::has(Defect::DeliveredTwice) {
                return vec![item];
            }
            return Vec::new();
        }
        if seq > SEQ_MAX {
            self.counts.bogus += 1;
            return Vec::new();
        }
        self.head = self.head.max(seq);
        let is_next = self.delivered.is_none_or(|delivered| seq == delivered + 1)
            || planted::has(Defect::SwappedOrder);
        if !self.is_opening() && is_next {
            if self.delivered.is_none() {
                self.begin_doubt(seq);
            }
            self.delivered = Some(seq);
            let mut ready = vec![item];
            ready.append(&mut self.release());
            self.look_for_gap(now);
            return ready;
        }
        self.counts.held += 1;
        self.is_stale = true;
        self.held.insert(seq, item);
        if self.held.len() > HELD_MAX {
            // The greatest goes: it will be read again last.
            self.held.pop_last();
            self.ask_now(now);
        }
        self.look_for_gap(now);
        Vec::new()
    }

    /// It became known that `head` exists.
    pub(super) fn notice(&mut self, now: Instant, head: u64) {
        if planted::has(Defect::MissedRepair) {
            return;
        }
        if head > SEQ_MAX {
            self.counts.bogus += 1;
            return;
        }
        self.is_stale |= head > self.head;
        self.head = self.head.max(head);
        let behind = self.delivered.is_some_and(|delivered| delivered < head);
        if behind && !self.held.contains_key(&head) {
            // A lost broadcast: waiting will not bring it.
            self.ask_now(now);
        }
        self.look_for_gap(now);
    }

    /// What is missing is not on its way: it is asked for without a pause.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.gap_since.is_some() {
            self.ask_now(now);
        }
    }

    /// The store's newest number was read, after `asked` had been delivered. If that is more than the
    /// store has, somebody made the number up while the store was silent: delivery goes back to where it
    /// was sure, or every message of the room up to there would be dropped as known.
    pub(super) fn compare(&mut self, now: Instant, asked: Option<u64>, head: u64) {
        let Some(asked) = asked else {
            return self.notice(now, head);
        };
        // What was asked before the doubt began says nothing of it.
        if let Some(doubt) = self.doubt.take_if(|doubt| doubt.at <= asked)
            && asked > head
        {
            self.counts.bogus += self.held.len() as u64 + 1;
            self.held.clear();
            self.delivered = Some(doubt.sure.map_or(head, |sure| sure.min(head)));
            self.head = head;
            (self.gap_since, self.asked_since) = (None, None);
        }
        self.notice(now, head);
    }

    fn begin_doubt(&mut self, at: u64) {
        let sure = self.delivered;
        self.doubt.get_or_insert(Doubt { sure, at }).at = at;
        self.counts.doubts += 1;
    }

    /// When [`RoomOrder::handle_timeout`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Opening { since } => Some(since + SILENCE),
            State::Open => {
                let silence = self.asked_since.map(|since| since + SILENCE);
                let ask = self.ask_at.filter(|_| !self.is_asking);
                silence.into_iter().chain(ask).min()
            }
        }
    }

    /// Whether the store has told nothing for as long as it is waited for.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.asked_since.is_some_and(|since| now >= since + SILENCE)
    }

    /// Does what is due. Returns what is to be delivered now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<T> {
        match (self.state, self.asked_since) {
            (State::Opening { since }, _) if now >= since + SILENCE => self.open(now, None),
            (State::Open, Some(_)) if self.is_silent(now) => {
                if self.held.is_empty() {
                    self.ask_again(now);
                    return Vec::new();
                }
                self.give_up(now)
            }
            _ => Vec::new(),
        }
    }

    /// Nothing waits behind what the store does not tell: giving it up would help nobody, and lose it.
    fn ask_again(&mut self, now: Instant) {
        self.asked_since = None;
        self.is_asking = false;
        self.ask_at = Some(now);
    }

    /// After which number the store is to be asked now, if at all. Whoever is told to ask must call
    /// [`RoomOrder::repaired`] in the end.
    pub(super) fn poll_repair(&mut self, now: Instant) -> Option<u64> {
        let due = self.ask_at.is_some_and(|at| now >= at);
        if self.is_opening() || self.is_asking || !due {
            return None;
        }
        self.is_asking = true;
        self.is_stale = false;
        self.ask_at = None;
        self.asked_since.get_or_insert(now);
        self.delivered
    }

    /// The store's answer: what follows, in order; `None` if it has none now. Returns what is to be
    /// delivered now.
    pub(super) fn repaired(&mut self, now: Instant, items: Option<Vec<(u64, T)>>) -> Vec<T> {
        self.is_asking = false;
        let mut ready = Vec::new();
        let is_end = items.as_ref().is_some_and(Vec::is_empty);
        if is_end && !self.is_stale {
            self.nothing_follows();
        }
        for (seq, item) in items.into_iter().flatten() {
            let next = self.delivered.map_or(seq, |delivered| delivered + 1);
            if seq == next {
                self.held.remove(&seq);
                self.delivered = Some(seq);
                self.head = self.head.max(seq);
                self.counts.repaired += 1;
                ready.push(item);
            }
        }
        ready.append(&mut self.release());
        if ready.is_empty() && planted::has(Defect::GapSkipped) {
            return self.give_up(now);
        }
        if ready.is_empty() {
            self.ask_at = Some(now + RETRY);
            if is_end {
                // It speaks: only its silence is a reason to go on without it.
                self.asked_since = Some(now);
            }
        } else {
            // Something came: the store is there, and if more is missing it is asked at once.
            self.asked_since = None;
            self.ask_at = Some(now);
        }
        self.look_for_gap(now);
        ready
    }

    /// The store has nothing after what is delivered. What is known of so far was never stored, since
    /// whatever is published is in the store before that: nobody may receive it.
    fn nothing_follows(&mut self) {
        let delivered = self.delivered.unwrap_or(0);
        let told = u64::from(self.head > delivered && !self.held.contains_key(&self.head));
        self.counts.bogus += self.held.len() as u64 + told;
        self.held.clear();
        self.head = delivered;
    }

    /// What is held and follows without a gap.
    fn release(&mut self) -> Vec<T> {
        let mut ready = Vec::new();
        while let Some(entry) = self.held.first_entry() {
            let seq = *entry.key();
            if self.delivered.is_some_and(|delivered| seq != delivered + 1) {
                break;
            }
            let item = entry.remove();
            if self.delivered.is_none() {
                self.begin_doubt(seq);
            }
            self.delivered = Some(seq);
            ready.push(item);
        }
        ready
    }

    /// Goes on behind what nobody could read.
    fn give_up(&mut self, now: Instant) -> Vec<T> {
        self.counts.gaps += 1;
        self.asked_since = None;
        self.ask_at = None;
        self.gap_since = None;
        self.is_asking = false;
        let next = self.held.keys().next().copied();
        let passed = next.map_or(self.head, |next| next - 1);
        self.begin_doubt(passed);
        self.delivered = Some(passed);
        let ready = self.release();
        self.look_for_gap(now);
        ready
    }

    /// Notes since when something is missing, or that nothing is.
    fn look_for_gap(&mut self, now: Instant) {
        if self.is_opening() {
            return;
        }
        if self
            .delivered
            .is_none_or(|delivered| delivered >= self.head)
        {
            self.gap_since = None;
            self.asked_since = None;
            self.ask_at = None;
        } else if self.gap_since.is_none() {
            self.gap_since = Some(now);
            self.ask_at.get_or_insert(now + HOLD);
        } else if !self.is_asking {
            self.ask_at.get_or_insert(now + HOLD);
        }
    }

    fn ask_now(&mut self, now: Instant) {
        if self.ask_at.is_none_or(|at| at > now) && self.asked_since.is_none() {
            self.ask_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests;
