//! A bounded history in memory. Nothing is durable.
//!
//! For trials and tests: it keeps the contract of [`Store`] until the process ends, and forgets the
//! oldest messages (and their `clientMsgId`) when it holds too many. A room's `seq` goes on.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};

use crate::hashed::HashedMap;
use crate::metrics::{STORE_FORGOTTEN, STORE_REFUSED};

use super::request::Gathering;
use super::{Condition, Cursor, Draft, Message, Page, Store, StoreError, Stored};

/// The most messages kept, over all rooms.
pub const MESSAGES_MAX: usize = 100_000;
/// The most bytes kept, over all rooms.
pub const BYTES_MAX: usize = 128 << 20;
/// The most rooms. A further one is refused: to forget a room's head would number it from 1 again.
pub const ROOMS_MAX: usize = 100_000;

/// The messages of the whole process; each clone is a handle to the same ones.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    rooms: HashedMap<Box<str>, Room>,
    /// Each kept message's room and weight, oldest first.
    ages: VecDeque<(Box<str>, usize)>,
    bytes: usize,
    messages_max: usize,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            rooms: HashedMap::default(),
            ages: VecDeque::new(),
            bytes: 0,
            messages_max: MESSAGES_MAX,
        }
    }
}

#[derive(Debug, Default)]
struct Room {
    head: u64,
    newest_ms: u64,
    /// The newest messages, without gaps up to `head`.
    kept: VecDeque<Message>,
    keys: HashMap<(Box<str>, Box<str>), u64>,
}

impl Room {
    /// The `seq` of the oldest kept message; `head + 1` when none is kept.
    fn first(&self) -> u64 {
        self.head + 1 - self.kept.len() as u64
    }

    fn get(&self, seq: u64) -> Option<&Message> {
        let index = usize::try_from(seq.checked_sub(self.first())?).ok()?;
        self.kept.get(index)
    }

    fn page(&self, cursor: Cursor, limit: usize) -> Page {
        let (first, end) = (self.first(), self.head + 1);
        let mut gathering = Gathering::new(limit);
        let mut take = |seq| {
            let message = self.get(seq).cloned();
            message.is_none_or(|message| gathering.take(message))
        };
        match cursor {
            Cursor::Newest => (first..end).rev().all(&mut take),
            Cursor::Before(seq) => (first..seq.clamp(first, end)).rev().all(&mut take),
            Cursor::After(seq) => (seq.saturating_add(1).clamp(first, end)..end).all(&mut take),
        };
        gathering.end(cursor)
    }
}

impl Shared {
    fn append(&mut self, draft: Draft) -> Result<Stored, StoreError> {
        if self.rooms.len() >= ROOMS_MAX && !self.rooms.contains_key(&draft.room) {
            metrics::counter!(STORE_REFUSED, "reason" => "full").increment(1);
            return Err(StoreError::Unavailable("too many rooms in memory".into()));
        }
        let room = self.rooms.or_default(draft.room.clone());
        let key = draft
            .client_msg_id
            .clone()
            .map(|key| (draft.user.clone(), key));
        if let Some(known) = key.as_ref().and_then(|key| room.keys.get(key)) {
            let message = room
                .get(*known)
                .expect("a kept key has a kept message")
                .clone();
            return Ok(Stored {
                message,
                fresh: false,
            });
        }
        let weight = draft.weight();
        room.head += 1;
        room.newest_ms = room.newest_ms.max(draft.wall_ms);
        let message = draft.numbered(room.head, room.newest_ms);
        if let Some(key) = key {
            room.keys.insert(key, message.seq);
        }
        room.kept.push_back(message.clone());
        self.ages.push_back((message.room.clone(), weight));
        self.bytes += weight;
        while self.ages.len() > self.messages_max || self.bytes > BYTES_MAX {
            self.forget_oldest();
        }
        Ok(Stored {
            message,
            fresh: true,
        })
    }

    fn forget_oldest(&mut self) {
        let Some((name, weight)) = self.ages.pop_front() else {
            return;
        };
        metrics::counter!(STORE_FORGOTTEN).increment(1);
        self.bytes -= weight;
        let room = self
            .rooms
            .get_mut(&name)
            .expect("a kept message has its room");
        let oldest = room.kept.pop_front().expect("what is counted is kept");
        if let Some(key) = oldest.client_msg_id {
            room.keys.remove(&(oldest.user, key));
        }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that keeps at most this many messages.
    #[must_use]
    pub fn bounded(messages_max: usize) -> Self {
        let store = Self::default();
        store.lock().messages_max = messages_max;
        store
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A panic elsewhere cannot leave it half changed in a way that matters to a trial.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn append(&self, draft: Draft) -> LocalBoxFuture<'static, Result<Stored, StoreError>> {
        ready(self.lock().append(draft)).boxed_local()
    }

    fn history(
        &self,
        room: &str,
        cursor: Cursor,
        limit: usize,
    ) -> LocalBoxFuture<'static, Result<Page, StoreError>> {
        let page = self
            .lock()
            .rooms
            .get(room)
            .map(|room| room.page(cursor, limit));
        ready(Ok(page.unwrap_or_default())).boxed_local()
    }

    fn heads(&self, rooms: Vec<Box<str>>) -> LocalBoxFuture<'static, Result<Vec<u64>, StoreError>> {
        let shared = self.lock();
        let head = |name: &str| shared.rooms.get(name).map_or(0, |room| room.head);
        ready(Ok(rooms.iter().map(|name| head(name)).collect())).boxed_local()
    }

    fn condition(&self) -> Condition {
        Condition::Ok
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    fn draft(room: &str, key: Option<&str>, wall_ms: u64) -> Draft {
        Draft {
            room: room.into(),
            user: "ann".into(),
            content: "hello".into(),
            client_msg_id: key.map(Into::into),
            id: uuid::Uuid::now_v7(),
            wall_ms,
        }
    }

    #[test]
    fn forgets_the_oldest_and_goes_on_numbering() {
        let store = MemoryStore::bounded(3);
        for n in 0..5 {
            let key = format!("k{n}");
            block_on(store.append(draft("r", Some(&key), n))).unwrap();
        }
        let page = block_on(store.history("r", Cursor::After(0), 10)).unwrap();
        let seqs: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
        assert_eq!((seqs, page.has_more), (vec![3, 4, 5], false));
        assert!(
            !block_on(store.append(draft("r", Some("k4"), 9)))
                .unwrap()
                .fresh
        );
        let again = block_on(store.append(draft("r", Some("k0"), 9))).unwrap();
        assert_eq!(
            (again.message.seq, again.fresh),
            (6, true),
            "a forgotten key is new"
        );
    }

    fn count(rendered: &str, series: &str) -> u64 {
        let line = rendered.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |count| count.trim().parse().expect("a number"))
    }

    #[test]
    fn rooms_and_bytes_are_bounded_and_that_is_counted() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let store = MemoryStore::new();
        let append = |room: &str, content: &str| {
            let content = content.into();
            block_on(store.append(Draft {
                content,
                ..draft(room, None, 1)
            }))
        };
        metrics::with_local_recorder(&recorder, || {
            for number in 0..ROOMS_MAX {
                append(&number.to_string(), "").unwrap();
            }
            let refused = append("one more", "");
            assert!(matches!(refused, Err(StoreError::Unavailable(_))));
            append("7", "").expect("a room that is there");
            assert!(store.lock().ages.len() == MESSAGES_MAX);
            let long = "x".repeat(1 << 20);
            for _ in 0..BYTES_MAX >> 20 {
                append("7", &long).unwrap();
                assert!(store.lock().bytes <= BYTES_MAX);
            }
            let last = append("7", &long).unwrap().message.seq;
            assert_eq!(last, 3 + (BYTES_MAX as u64 >> 20));
        });
        let rendered = recorder.handle().render();
        let refused = count(&rendered, "yum_store_refused_total{reason=\"full\"}");
        let forgotten = count(&rendered, "yum_store_forgotten_total");
        let stored = ROOMS_MAX + 2 + (BYTES_MAX >> 20);
        let kept = store.lock().ages.len();
        assert_eq!((refused, forgotten), (1, (stored - kept) as u64));
    }

    #[test]
    fn handles_share_the_messages() {
        let store = MemoryStore::new();
        block_on(store.clone().append(draft("r", None, 1))).unwrap();
        assert_eq!(
            block_on(store.heads(vec!["r".into(), "s".into()])).unwrap(),
            [1, 0]
        );
    }
}
