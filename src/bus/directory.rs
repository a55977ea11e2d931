//! Who is where in this process: the shards of each room, and the users in it.
//!
//! A shard keeps a reference to the entry of each room it has members of, so publishing to one of them
//! reads one atomic and takes no lock. Names are resolved under a lock
//! only at a shard's first join, at its last leave, and for rooms it has no members of. An entry that
//! has neither shards nor users is gone, whatever its name was.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::usage::{MessageRate, Usage, Usages};
use crate::hashed::HashedMap;
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering};

/// Shards that a set of shards can hold.
pub const SHARDS_MAX: u8 = 64;

/// What is known of rooms, by namespace and name.
type Names<T> = BTreeMap<Box<str>, HashedMap<Box<str>, T>>;

/// One for the process.
#[derive(Debug)]
pub struct Directory {
    pub(super) rooms: Mutex<Names<Arc<Room>>>,
    /// The last version given to a change of a user's presence. One for all rooms, so that it grows
    /// even when a room's entry goes and comes again.
    version: AtomicU64,
    usages: Usages,
}

#[derive(Debug, Default)]
pub(super) struct Room {
    /// A bit for each shard that has members.
    shards: AtomicU64,
    /// How many sockets each user has in the room.
    users: Mutex<BTreeMap<Box<str>, u32>>,
}

impl Room {
    fn is_unused(&self) -> bool {
        self.shards.load(Ordering::SeqCst) == 0 && lock(&self.users).is_empty()
    }
}

/// No code panics while it holds one of these locks; and if it did, the process would end.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            rooms: Mutex::default(),
            version: AtomicU64::new(0),
            usages: Usages::default(),
        })
    }

    /// How many rooms are known.
    #[must_use]
    pub fn rooms(&self) -> usize {
        lock(&self.rooms).values().map(HashedMap::len).sum()
    }

    /// Uses a room's entry while nobody may remove it; makes one if there is none.
    fn with_room<R>(&self, namespace: &str, room: &str, step: impl FnOnce(&Arc<Room>) -> R) -> R {
        let mut rooms = lock(&self.rooms);
        let of_namespace = match rooms.get_mut(namespace) {
            Some(of_namespace) => of_namespace,
            None => rooms.entry(namespace.into()).or_default(),
        };
        let entry = match of_namespace.get(room) {
            Some(entry) => Arc::clone(entry),
            None => Arc::clone(of_namespace.or_default(room.into())),
        };
        let result = step(&entry);
        if entry.is_unused() {
            of_namespace.remove(room);
            if of_namespace.is_empty() {
                rooms.remove(namespace);
            }
        }
        result
    }
}

/// What happened to a user in a room of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// On entering: this was the user's first socket in the room. On leaving: it was the last.
    pub edge: bool,
    /// Grows with every change; for [`crate::hub::Audience::presence`].
    pub version: u64,
}

/// A room that a shard has members of.
#[derive(Debug)]
pub(super) struct Joined {
    room: Arc<Room>,
    /// The last version given before the shard's first join: news up to it is of no interest.
    since: u64,
}

/// A shard's handle. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct ShardDirectory {
    directory: Arc<Directory>,
    shard: u8,
    /// The rooms that this shard has members of.
    pub(super) joined: Rc<RefCell<Names<Joined>>>,
}

impl ShardDirectory {
    /// The handle of shard number `shard`.
    ///
    /// # Panics
    /// When there are more shards than [`SHARDS_MAX`].
    #[must_use]
    pub fn new(directory: Arc<Directory>, shard: u8) -> Self {
        assert!(shard < SHARDS_MAX, "a set of shards holds 64");
        Self {
            directory,
            shard,
            joined: Rc::default(),
        }
    }

    fn bit(&self) -> u64 {
        1 << self.shard
    }

    /// This shard has a first member of the room.
    pub(super) fn subscribe(&self, namespace: &str, room: &str) {
        let joined = self.directory.with_room(namespace, room, |entry| {
            entry.shards.fetch_or(self.bit(), Ordering::SeqCst);
            Joined {
                room: Arc::clone(entry),
                since: self.directory.version.load(Ordering::SeqCst),
            }
        });
        let mut all = self.joined.borrow_mut();
        all.entry(namespace.into())
            .or_default()
            .insert(room.into(), joined);
    }

    /// Whether a change of this version came after the shard's first join of the room. An older one may
    /// still be on its way, sent for members who have left since; the change that undid it is not.
    pub(super) fn is_news(&self, namespace: &str, room: &str, version: u64) -> bool {
        let all = self.joined.borrow();
        let joined = all.get(namespace).and_then(|rooms| rooms.get(room));
        joined.is_none_or(|joined| version > joined.since)
    }

    /// This shard's last member of the room has left.
    pub(super) fn unsubscribe(&self, namespace: &str, room: &str) {
        let mut all = self.joined.borrow_mut();
        if let Some(of_namespace) = all.get_mut(namespace) {
            of_namespace.remove(room);
            if of_namespace.is_empty() {
                all.remove(namespace);
            }
        }
        drop(all);
        self.directory.with_room(namespace, room, |entry| {
            entry.shards.fetch_and(!self.bit(), Ordering::SeqCst);
        });
    }

    /// The other shards that have members of the room, a bit for each.
    pub(super) fn others(&self, namespace: &str, room: &str) -> u64 {
        let all = self.joined.borrow();
        let known = all.get(namespace).and_then(|rooms| rooms.get(room));
        let shards = match known {
            Some(joined) => joined.room.shards.load(Ordering::SeqCst),
            None => self.others_by_name(namespace, room),
        };
        shards & !self.bit()
    }

    fn others_by_name(&self, namespace: &str, room: &str) -> u64 {
        let rooms = lock(&self.directory.rooms);
        let entry = rooms.get(namespace).and_then(|rooms| rooms.get(room));
        entry.map_or(0, |entry| entry.shards.load(Ordering::SeqCst))
    }

    /// One more socket of the user is in the room. `edge`: announce `userJoined`.
    #[must_use]
    pub fn enter(&self, namespace: &str, room: &str, user: &str) -> Change {
        self.change(namespace, room, |users| {
            let count = match users.get_mut(user) {
                Some(count) => count,
                None => users.entry(user.into()).or_default(),
            };
            *count += 1;
            *count == 1
        })
    }

    /// One socket of the user less is in the room. `edge`: announce `userLeft`.
    #[must_use]
    pub fn exit(&self, namespace: &str, room: &str, user: &str) -> Change {
        self.change(namespace, room, |users| {
            let Some(count) = users.get_mut(user) else {
                return false;
            };
            *count -= 1;
            let is_last = *count == 0;
            if is_last {
                users.remove(user);
            }
            is_last
        })
    }

    /// A socket of the user is there. Until [`ShardDirectory::leave`] the user's usage is kept.
    #[must_use]
    pub fn arrive(&self, user: &str) -> Arc<Usage> {
        self.directory.usages.arrive(user)
    }

    /// A socket of the user, which arrived, is gone. `true`: so many users are away that what one of
    /// them had used up is forgotten.
    #[must_use]
    pub fn leave(&self, user: &str, now: Instant) -> bool {
        self.directory.usages.leave(user, now)
    }

    /// Takes one message from what the user may send; `Err` is how long to wait.
    pub fn take_message(
        &self,
        usage: &Usage,
        limit: MessageRate,
        now: Instant,
    ) -> Result<(), Duration> {
        self.directory.usages.take(usage, limit, now)
    }

    /// Takes one join from what the user may do; `Err` is how long to wait.
    pub fn take_join(
        &self,
        usage: &Usage,
        limit: MessageRate,
        now: Instant,
    ) -> Result<(), Duration> {
        self.directory.usages.take_join(usage, limit, now)
    }

    /// How long a user who was refused too often is cut off.
    #[must_use]
    pub fn cut_off(&self, user: &str, limit: MessageRate, now: Instant) -> Option<Duration> {
        self.directory.usages.cut_off(user, limit, now)
    }

    /// Forgets absent users who have used up nothing. Some shard does it now and then.
    pub fn sweep(&self, now: Instant) {
        self.directory.usages.sweep(now);
    }

    fn change(
        &self,
        namespace: &str,
        room: &str,
        step: impl FnOnce(&mut BTreeMap<Box<str>, u32>) -> bool,
    ) -> Change {
        self.directory.with_room(namespace, room, |entry| {
            let mut users = lock(&entry.users);
            let edge = step(&mut users);
            let version = self.directory.version.fetch_add(1, Ordering::SeqCst) + 1;
            Change { edge, version }
        })
    }
}
