//! When each socket's token runs out.
//!
//! One ordered set for the shard, looked at by its tick: no timer for each socket. Times are wall
//! time, because that is what tokens are written in. Pure: `now` is an argument.

use std::collections::BTreeSet;

use crate::hub::SocketId;

/// Sockets in the order in which their tokens run out.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    by_time: BTreeSet<(u64, SocketId)>,
}

impl Expiries {
    /// Notes that the token of `id` runs out at `wall_ms`.
    pub(super) fn insert(&mut self, wall_ms: u64, id: SocketId) {
        self.by_time.insert((wall_ms, id));
    }

    /// Forgets what was noted.
    pub(super) fn remove(&mut self, wall_ms: u64, id: SocketId) {
        self.by_time.remove(&(wall_ms, id));
    }

    /// Takes the next socket whose token has run out by `now_wall_ms`.
    pub(super) fn pop_due(&mut self, now_wall_ms: u64) -> Option<SocketId> {
        let &(at, id) = self.by_time.first()?;
        if at > now_wall_ms {
            return None;
        }
        self.by_time.pop_first();
        Some(id)
    }

    /// When the next token runs out.
    pub(super) fn next(&self) -> Option<u64> {
        self.by_time.first().map(|(at, _)| *at)
    }
}
