//! The bus between the shards of one process.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::directory::Directory;
use crate::hub::Hub;

/// One shard's end of the mesh while it is being set up: it may be sent to the shard's thread.
#[derive(Debug)]
pub struct Seat {}

/// Seats for `shards` shards.
#[must_use]
pub fn seats(shards: u8, directory: &Arc<Directory>) -> Vec<Seat> {
    let _ = (shards, directory);
    todo!()
}

impl Seat {
    /// Takes the seat on the shard's own thread.
    #[must_use]
    pub fn sit(self) -> Rc<Mesh> {
        todo!()
    }
}

/// One shard's end of the mesh; give it to [`Hub::set_bus`].
pub struct Mesh {}

impl Mesh {
    /// The directory's handle of this shard.
    #[must_use]
    pub fn directory(&self) -> &super::directory::ShardDirectory {
        todo!()
    }

    /// Receives until the process ends. Spawn it once for each shard.
    pub async fn run(self: Rc<Self>, hub: Hub) {
        let _ = hub;
        todo!()
    }

    /// Sends what is owed. Call it at each tick.
    pub fn tick(&self, now: Instant) {
        let _ = now;
        todo!()
    }
}
