//! The sessions of one shard.
//!
//! [`Engine`] is a handle that everything on the shard may hold. Every entry borrows the table, steps
//! it, and ends the borrow before anybody else is called, so no borrow crosses an `await` or a call
//! back into the engine. Sessions that got something to send are marked dirty; the transport layer
//! flushes them all at once ([`Engine::poll_dirty`], [`Engine::take_dirty`]).

pub mod session;
pub mod sid;
pub mod table;

use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::env::Env;
use crate::wire::Content;
use crate::wire::engine_io::{Encoded, Packet};
pub use session::{CloseReason, Outcome, Payload, Refusal, Transport};
pub use sid::Sid;

/// Names a session on its shard. A key is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Place in the table.
    pub index: u32,
    /// How often that place was used before.
    pub generation: u32,
}

/// Timings and bounds of the sessions.
#[derive(Debug, Clone)]
pub struct Options {
    /// Silence between the open packet, or a pong, and the next ping.
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping.
    pub ping_timeout: Duration,
    /// How long an upgrade to WebSocket may take.
    pub upgrade_timeout: Duration,
    /// Whether the handshake of a polling session offers WebSocket.
    pub upgrades: bool,
    /// Bytes of one polling body or one WebSocket message.
    pub max_payload: usize,
    /// Unsent output of one session in bytes, each packet counted as its bytes + 64.
    pub outbox_bytes_max: usize,
    /// Names this host in session ids.
    pub host: u16,
    /// Names this shard in session ids.
    pub shard: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            upgrades: true,
            max_payload: 1_000_000,
            outbox_bytes_max: 1 << 20,
            host: 0,
            shard: 0,
        }
    }
}

/// The request that opened a session, as an application may see it.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Who asked: the peer, or what a trusted proxy says.
    pub address: IpAddr,
    /// Field lines of the request, names in lower case.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// The query, as it was sent.
    pub query: Box<str>,
    /// Whether the client came through TLS.
    pub secure: bool,
    /// When the request came, in milliseconds since 1970.
    pub issued_wall_ms: u64,
}

/// What sits on top of the sessions: the Socket.IO hub, or an echo. Every method may call back into
/// the [`Engine`], for the same session too.
pub trait Handler {
    /// A session began. Its open packet is queued already.
    fn on_open(&self, key: Key, handshake: Handshake);
    /// Takes one message. `Flow::Pause` asks the transport to read nothing more of this session
    /// until [`Engine::resume`].
    fn on_message(&self, key: Key, content: Content) -> Flow;
    /// A session ended: the last call for this key, made exactly once.
    fn on_close(&self, key: Key, reason: CloseReason);
}

/// Whether a handler can take more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The next message may come.
    Continue,
    /// Nothing more until [`Engine::resume`].
    Pause,
}

/// A shard's handle to its sessions.
#[derive(Clone)]
pub struct Engine {
    inner: Rc<Inner>,
}

struct Inner {}

impl Engine {
    /// No sessions yet, and nobody above: call [`Engine::set_handler`] before the first
    /// [`Engine::open`].
    #[must_use]
    pub fn new(env: Rc<Env>, options: Options) -> Self {
        let _ = (env, options);
        todo!()
    }

    /// Says who sits above.
    pub fn set_handler(&self, handler: Rc<dyn Handler>) {
        let _ = handler;
        todo!()
    }

    /// Timings and bounds.
    #[must_use]
    pub fn options(&self) -> &Options {
        todo!()
    }

    /// Begins a session: queues its open packet, then tells the handler.
    pub fn open(&self, transport: Transport, handshake: Handshake) -> Key {
        let _ = (transport, handshake);
        todo!()
    }

    /// The session of this id, if a request may still name it. A pong deadline that has passed is
    /// noticed here, whatever the timers say.
    #[must_use]
    pub fn find(&self, sid: &Sid) -> Option<Key> {
        let _ = sid;
        todo!()
    }

    /// The id of a session.
    #[must_use]
    pub fn sid(&self, key: Key) -> Option<Sid> {
        let _ = key;
        todo!()
    }

    /// How a session's packets travel now.
    #[must_use]
    pub fn transport(&self, key: Key) -> Option<Transport> {
        let _ = key;
        todo!()
    }

    /// Whether the session is neither closed nor closing.
    #[must_use]
    pub fn is_open(&self, key: Key) -> bool {
        let _ = key;
        todo!()
    }

    /// How many sessions there are, closing ones not counted.
    #[must_use]
    pub fn session_count(&self) -> usize {
        todo!()
    }

    /// The open sessions, oldest place first: for draining.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        todo!()
    }

    // What the layer above calls.

    /// Queues packets. For a session that is closing or gone they are dropped; over
    /// [`Options::outbox_bytes_max`] the session closes with [`CloseReason::SlowConsumer`].
    pub fn send(&self, key: Key, packets: &[Encoded]) {
        let _ = (key, packets);
        todo!()
    }

    /// Ends a session: what is queued is still sent, then a close packet or frame. The handler is
    /// told at once, unless it was before.
    pub fn close(&self, key: Key, reason: CloseReason) {
        let _ = (key, reason);
        todo!()
    }

    /// The handler can take messages again.
    pub fn resume(&self, key: Key) {
        let _ = key;
        todo!()
    }

    /// Unsent output, each packet counted as its bytes + 64.
    #[must_use]
    pub fn outbox_bytes(&self, key: Key) -> usize {
        let _ = key;
        todo!()
    }

    /// Whether a volatile packet would leave now: a GET is pending, or the WebSocket has taken all
    /// that was sent before.
    #[must_use]
    pub fn is_writable(&self, key: Key) -> bool {
        let _ = key;
        todo!()
    }

    /// Resolves when at most `below` bytes are unsent, or the session is gone.
    pub fn drained(&self, key: Key, below: usize) -> impl Future<Output = ()> + 'static {
        let _ = (key, below);
        std::future::pending()
    }

    // What the transport layer calls.

    /// Takes one packet of the client, that came `via` a transport. Messages go on to the handler.
    pub fn receive(&self, key: Key, via: Transport, packet: Packet) -> Outcome {
        let _ = (key, via, packet);
        todo!()
    }

    /// Whether the handler asked for a pause.
    #[must_use]
    pub fn is_paused(&self, key: Key) -> bool {
        let _ = key;
        todo!()
    }

    /// Resolves when something happened to the session since this call: output, a close, a resume,
    /// progress of an upgrade.
    pub fn changed(&self, key: Key) -> impl Future<Output = ()> + 'static {
        let _ = key;
        std::future::pending()
    }

    /// A GET came.
    pub fn begin_poll(&self, key: Key) -> Result<(), Refusal> {
        let _ = key;
        todo!()
    }

    /// What the pending GET must answer now; `None`: it has to wait. Ends the poll.
    pub fn take_payload(&self, key: Key) -> Option<Payload> {
        let _ = key;
        todo!()
    }

    /// The client left before its GET was answered.
    pub fn abort_poll(&self, key: Key) {
        let _ = key;
        todo!()
    }

    /// A POST came: its body is about to be read.
    pub fn begin_post(&self, key: Key) -> Result<(), Refusal> {
        let _ = key;
        todo!()
    }

    /// The POST's packets were all taken.
    pub fn end_post(&self, key: Key) {
        let _ = key;
        todo!()
    }

    /// The client left in the midst of its POST.
    pub fn abort_post(&self, key: Key) {
        let _ = key;
        todo!()
    }

    /// A WebSocket came that wants to take over a polling session.
    pub fn begin_probe(&self, key: Key) -> Result<(), Refusal> {
        let _ = key;
        todo!()
    }

    /// That WebSocket is gone before the upgrade was done; polling goes on.
    pub fn abandon_probe(&self, key: Key) {
        let _ = key;
        todo!()
    }

    /// The frames that wait for the session's WebSocket, at most `limit`, cloned into `frames`; the
    /// first without what was sent of it already. Returns how many bytes of the first were.
    pub fn transmit(&self, key: Key, limit: usize, frames: &mut Vec<Bytes>) -> usize {
        let _ = (key, limit, frames);
        todo!()
    }

    /// `bytes` of the waiting frames were sent.
    pub fn transmitted(&self, key: Key, bytes: usize) {
        let _ = (key, bytes);
        todo!()
    }

    /// The WebSocket of the session is done with it: forgets a closed session.
    pub fn detach(&self, key: Key) {
        let _ = key;
        todo!()
    }

    /// Ready when sessions wait for a flush.
    pub fn poll_dirty(&self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        todo!()
    }

    /// Moves the keys of the sessions that wait for a flush into `dirty`.
    pub fn take_dirty(&self, dirty: &mut Vec<Key>) {
        let _ = dirty;
        todo!()
    }

    /// Does what is due: pings, time-outs.
    pub fn tick(&self) {
        todo!()
    }

    /// When [`Engine::tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        todo!()
    }
}
