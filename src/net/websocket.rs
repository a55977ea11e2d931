//! One WebSocket onto a session.

use std::rc::Rc;

use super::{Connection, Mount};
use crate::engine::{Handshake, Key};

/// What a WebSocket is for.
#[derive(Debug)]
pub enum Start {
    /// A new session.
    Open(Box<Handshake>),
    /// An upgrade of this polling session.
    Probe(Key),
}

/// Serves a WebSocket until it ends. The opening handshake is checked and answered with 101 already;
/// whatever the client sent behind it is in the connection's buffer. A task of its own.
pub async fn drive(connection: Connection, mount: Rc<Mount>, start: Start) {
    todo!()
}
