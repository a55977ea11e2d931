//! The directory, and what users have used up, shared by shards.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the server uses what is not used here"
)]
#[path = "../../src/bus/directory.rs"]
mod directory;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the server uses what is not used here"
)]
#[path = "../../src/bus/usage.rs"]
mod usage;

#[path = "bus/presence.rs"]
mod presence;
#[path = "bus/publishing.rs"]
mod publishing;
#[path = "bus/refusals.rs"]
mod refusals;

use directory::{Directory, ShardDirectory};

use crate::sync::Arc;

const SPACE: &str = "/";
const ROOM: &str = "a";

fn shard(directory: &Arc<Directory>, number: u8) -> ShardDirectory {
    ShardDirectory::new(directory.clone(), number)
}

/// These shards leave the room: nothing is left of it then.
fn leave_all(directory: &Arc<Directory>, shards: &[u8]) {
    for number in shards {
        shard(directory, *number).unsubscribe(SPACE, ROOM);
    }
    assert_eq!(directory.rooms(), 0);
}
