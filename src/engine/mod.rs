//! The sessions of one shard.
//!
//! [`Engine`] is a handle that everything on the shard may hold. Every entry borrows the table, steps
//! it, and ends the borrow before anybody else is called, so no borrow crosses an `await` or a call
//! back into the engine. Sessions that got something to send are marked dirty; the transport layer
//! flushes them all at once (`Engine::dirty`).

pub mod session;
pub mod sid;
pub mod table;

use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::env::Env;
use crate::wire::Content;
use crate::wire::engine_io::{Encoded, Packet};
pub use session::{CloseReason, Transport};
pub use sid::Sid;

/// Names a session on its shard. A key is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub index: u32,
    pub generation: u32,
}

/// Timings and bounds of the sessions.
#[derive(Debug, Clone)]
pub struct Options {
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    pub upgrade_timeout: Duration,
    /// Bytes of one polling body or one WebSocket message.
    pub max_payload: usize,
    /// Unsent output of one session in bytes, each packet counted as its bytes + 64.
    pub outbox_bytes_max: usize,
    /// Names this host in session ids.
    pub host: u16,
    /// Names this shard in session ids.
    pub shard: u8,
}

/// The request that opened a session, as an application may see it.
#[derive(Debug, Clone)]
pub struct Handshake {
    pub address: IpAddr,
    /// Field lines of the request, names in lower case.
    pub headers: Vec<(Box<str>, Box<str>)>,
    pub query: Box<str>,
    pub secure: bool,
    pub issued_wall_ms: u64,
}

/// What sits on top of the sessions: the Socket.IO hub, or an echo.
pub trait Handler {
    fn on_open(&self, key: Key, handshake: Handshake);
    /// Takes one message. `Flow::Pause` asks the transport to read nothing more of this session
    /// until [`Engine::resume`].
    fn on_message(&self, key: Key, content: Content) -> Flow;
    fn on_close(&self, key: Key, reason: CloseReason);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Continue,
    Pause,
}

/// A shard's handle to its sessions.
#[derive(Clone)]
pub struct Engine {/* Rc<Inner> */}
