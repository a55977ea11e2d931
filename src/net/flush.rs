//! Sends what waits for a mount's WebSockets: all that is dirty, once.

use std::rc::Rc;

use super::{Mount, Shard};

/// The WebSockets of a mount's sessions.
#[derive(Default)]
pub struct Ports {}

/// Flushes the dirty sessions of a mount, woken by the first of them. One task a mount; never ends.
pub async fn run(shard: Rc<Shard>, mount: Rc<Mount>) {
    todo!()
}
