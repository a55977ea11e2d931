//! What each user has used up in this process, over all shards and connections.
//!
//! A user has one entry from the first socket on. It outlives the last one until it is as good as new,
//! so that coming back does not refill a bucket; then it goes. Entries lie in parts with a lock each,
//! taken when a socket comes or goes; taking a token is one atomic and no lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::directory::lock;
use crate::limit::{Bucket, Rate};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// Parts, by a hash of the user's id.
pub(super) const PARTS: usize = 16;
/// Absent users of one part whose entries are kept; of more the oldest goes, and with it what its
/// user had used up.
pub(super) const ABSENT_MAX: usize = 4_096;
/// For so long refusals are counted together.
pub const REFUSALS_WINDOW: Duration = Duration::from_secs(10);

/// How many messages a user may send, and how many rooms join: both are told to all members of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageRate {
    /// Messages.
    pub rate: Rate,
    /// Joins.
    pub joins: Rate,
    /// Refused messages within [`REFUSALS_WINDOW`] after which the user is cut off until it ends.
    pub refusals_max: u32,
}

/// The users of a process.
#[derive(Debug, Default)]
pub(super) struct Usages {
    pub(super) parts: [Mutex<Part>; PARTS],
    /// What times are counted from: the first one that anybody brought.
    epoch: OnceLock<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) users: BTreeMap<Box<str>, Entry>,
    /// Users whose last socket has gone, the longest absent first; some may have come back.
    pub(super) absent: VecDeque<Box<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Entry {
    usage: Arc<Usage>,
    sockets: u32,
    /// Whether the user stands among the absent.
    is_noted: bool,
}

/// What one user has used up.
#[derive(Debug, Default)]
pub struct Usage {
    messages: Bucket,
    joins: Bucket,
    /// The begin of the window in milliseconds, and in the low bits how many refusals it has seen.
    refusals: AtomicU64,
}

const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

impl Usage {
    /// Counts a refusal.
    fn refused(&self, now: Duration) {
        let now_ms = milliseconds(now);
        let count = |known: u64| {
            let (begin, count) = (known >> COUNT_BITS, known & COUNT_MAX);
            let is_over = now_ms >= begin + milliseconds(REFUSALS_WINDOW);
            Some(if count == 0 || is_over {
                (now_ms << COUNT_BITS) | 1
            } else {
                (begin << COUNT_BITS) | (count + 1).min(COUNT_MAX)
            })
        };
        let _ = self
            .refusals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// How long the user is cut off.
    fn cut_off(&self, limit: MessageRate, now: Duration) -> Option<Duration> {
        if limit.rate.is_unlimited() {
            return None;
        }
        let known = self.refusals.load(Ordering::Relaxed);
        let end = Duration::from_millis(known >> COUNT_BITS) + REFUSALS_WINDOW;
        let is_over = known & COUNT_MAX < u64::from(limit.refusals_max);
        end.checked_sub(now)
            .filter(|wait| !is_over && !wait.is_zero())
    }

    fn is_as_new(&self, now: Duration) -> bool {
        let known = self.refusals.load(Ordering::Relaxed);
        let window = Duration::from_millis(known >> COUNT_BITS) + REFUSALS_WINDOW;
        let are_full = [&self.messages, &self.joins].map(|bucket| bucket.is_full(nanoseconds(now)));
        are_full == [true, true] && (known & COUNT_MAX == 0 || window <= now)
    }
}

impl Usages {
    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.epoch.get_or_init(|| now))
    }

    fn part(&self, user: &str) -> &Mutex<Part> {
        // FNV-1a. Whoever chooses ids so that they meet in one part shares a lock, no more.
        let hash = user.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let part = hash % PARTS as u64;
        &self.parts[usize::try_from(part).expect("a small number")]
    }

    pub(super) fn arrive(&self, user: &str) -> Arc<Usage> {
        let mut part = lock(self.part(user));
        let entry = match part.users.get_mut(user) {
            Some(entry) => entry,
            None => part.users.entry(user.into()).or_default(),
        };
        entry.sockets += 1;
        entry.usage.clone()
    }

    /// `true`: for this one somebody else was forgotten too early.
    pub(super) fn leave(&self, user: &str, now: Instant) -> bool {
        let now = self.elapsed(now);
        let mut part = lock(self.part(user));
        let Some(entry) = part.users.get_mut(user) else {
            return false;
        };
        entry.sockets = entry.sockets.saturating_sub(1);
        if entry.sockets == 0 && !entry.is_noted {
            if entry.usage.is_as_new(now) {
                part.users.remove(user);
            } else {
                entry.is_noted = true;
                part.absent.push_back(user.into());
            }
        }
        part.sweep(now)
    }

    pub(super) fn sweep(&self, now: Instant) {
        let now = self.elapsed(now);
        for part in &self.parts {
            lock(part).sweep(now);
        }
    }

    pub(super) fn take(
        &self,
        usage: &Usage,
        limit: MessageRate,
        now: Instant,
    ) -> Result<(), Duration> {
        if limit.rate.is_unlimited() {
            return Ok(());
        }
        let now = self.elapsed(now);
        let taken = usage.messages.take(limit.rate, nanoseconds(now));
        taken.inspect_err(|_| usage.refused(now))
    }

    pub(super) fn take_join(
        &self,
        usage: &Usage,
        limit: MessageRate,
        now: Instant,
    ) -> Result<(), Duration> {
        let now = self.elapsed(now);
        usage.joins.take(limit.joins, nanoseconds(now))
    }

    pub(super) fn cut_off(&self, user: &str, limit: MessageRate, now: Instant) -> Option<Duration> {
        let now = self.elapsed(now);
        let part = lock(self.part(user));
        part.users.get(user)?.usage.cut_off(limit, now)
    }
}

impl Part {
    /// Lets go of absent users that are as good as new, and of those who are too many. `true`: there
    /// were too many, and what one of them had used up is forgotten.
    fn sweep(&mut self, now: Duration) -> bool {
        let mut was_too_many = false;
        while let Some(user) = self.absent.front() {
            let is_one_too_many = self.absent.len() > ABSENT_MAX;
            match self.users.get_mut(user) {
                Some(entry) if entry.sockets > 0 => entry.is_noted = false,
                Some(entry) => {
                    let is_as_new = entry.usage.is_as_new(now);
                    if !is_one_too_many && !is_as_new {
                        break;
                    }
                    was_too_many |= !is_as_new;
                    self.users.remove(user);
                }
                None => {}
            }
            self.absent.pop_front();
        }
        was_too_many
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
