//! Who is where in this process: the shards of each room, and the users in it.

use std::rc::Rc;
use std::sync::Arc;

/// One for the process.
#[derive(Debug, Default)]
pub struct Directory {}

impl Directory {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        todo!()
    }

    /// How many rooms are known.
    #[must_use]
    pub fn rooms(&self) -> usize {
        todo!()
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

/// A shard's handle. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct ShardDirectory {
    _shared: Rc<()>,
}

impl ShardDirectory {
    /// The handle of shard number `shard`, below 64.
    #[must_use]
    pub fn new(directory: Arc<Directory>, shard: u8) -> Self {
        let _ = (directory, shard);
        todo!()
    }

    /// One more socket of the user is in the room. `edge`: announce `userJoined`.
    #[must_use]
    pub fn enter(&self, namespace: &str, room: &str, user: &str) -> Change {
        let _ = (namespace, room, user);
        todo!()
    }

    /// One socket of the user less is in the room. `edge`: announce `userLeft`.
    #[must_use]
    pub fn exit(&self, namespace: &str, room: &str, user: &str) -> Change {
        let _ = (namespace, room, user);
        todo!()
    }
}
