//! Socket.IO on top of an Engine.IO engine: the library that an application stands on.
//!
//! An application implements [`App`] and is given [`Socket`]s. One hub serves one shard; hubs of
//! other shards and hosts are reached through a [`Bus`], and an application does not notice the
//! difference. A minimal one, which sends every event back:
//!
//! ```no_run
//! # use std::rc::Rc;
//! # use project_yum::hub::{App, Event, Socket, Task};
//! struct Echo;
//!
//! impl App for Echo {
//!     fn admits(&self, namespace: &str) -> bool {
//!         namespace == "/"
//!     }
//!     fn on_event(self: Rc<Self>, socket: Socket, event: Event) -> Task {
//!         Box::pin(async move {
//!             socket.emit(&event.name, &event.args);
//!             if let Some(ack) = event.ack {
//!                 ack.send(&event.args);
//!             }
//!         })
//!     }
//! }
//! ```
//!
//! A whole server of one page is the example `echo` (`tests/examples/echo.rs`).
//!
//! What the hub promises: the events of one connection are handled one at a time, in the order in
//! which they came; acknowledgements, pongs and disconnects are taken meanwhile. A handler once begun
//! is finished, even if its connection dies, and [`App::on_disconnect`] comes after it. Whoever is
//! slower than what is sent to it is closed. Broadcasts with an [`Order`] reach every member of their
//! room in that order.
//!
//! No runtime is named here: the hub spawns through a function it is given, takes time and
//! randomness from its [`Env`], and acts on deadlines in [`Hub::tick`].

pub mod broadcast;
pub mod socket;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use serde_json::value::RawValue;

pub use crate::wire::socket_io::{Args, ArgsBuilder};
pub use broadcast::{
    Audience, BroadcastTimeout, Flags, Order, Presence, RemoteSocket, RequestTimeout,
};
pub use socket::{AckTimeout, Joined, Replay, Socket, SocketId};

use crate::engine::{CloseReason, Engine, Flow, Handler, Handshake, Key};
use crate::env::Env;
use crate::wire::{Content, Text};

/// Work that may wait.
pub type Task = LocalBoxFuture<'static, ()>;

/// Runs a task on this shard, by whatever executor the shard has.
pub type Spawn = Rc<dyn Fn(Task)>;

/// What runs on a hub. All methods but [`App::on_event`] have a default.
pub trait App {
    /// Whether clients may ask for this namespace: one name, a list, or a pattern. Any other is
    /// answered `Invalid namespace`.
    fn admits(&self, namespace: &str) -> bool {
        namespace == "/"
    }

    /// Decides about a CONNECT before it is answered; `auth` is its payload, `{}` if there was none.
    /// The client may vanish meanwhile: then nothing is sent and nothing counted.
    fn on_connect(
        self: Rc<Self>,
        socket: Socket,
        auth: Box<RawValue>,
    ) -> LocalBoxFuture<'static, Result<(), Refusal>> {
        let _ = (socket, auth);
        Box::pin(async { Ok(()) })
    }

    /// The CONNECT answer is queued: what is emitted here is the very next packet.
    fn on_connected(&self, socket: &Socket) {
        let _ = socket;
    }

    /// Handles one event. The connection's next event waits until this has finished.
    fn on_event(self: Rc<Self>, socket: Socket, event: Event) -> Task;

    /// The socket is going; it still is in its rooms. A handler of it may still run.
    fn on_disconnecting(&self, socket: &Socket, reason: DisconnectReason) {
        let _ = (socket, reason);
    }

    /// The socket is gone and in no room; the last of its handlers has finished. `rooms` are those
    /// it was in.
    fn on_disconnect(&self, socket: &Socket, reason: DisconnectReason, rooms: &[Text]) {
        let _ = (socket, reason, rooms);
    }

    /// Another server emitted to this one ([`Hub::server_side_emit`]); `ack` is there if an answer
    /// is wanted.
    fn on_server_side_emit(self: Rc<Self>, namespace: Text, event: Event) -> Task {
        let _ = (namespace, event);
        Box::pin(async {})
    }

    /// Whether the broadcasts of this room are numbered ([`Order`]).
    fn is_ordered(&self, namespace: &str, room: &str) -> bool {
        let _ = (namespace, room);
        false
    }

    /// The newest number of each of these ordered rooms, 0 where there is none; `None` if that cannot
    /// be known now. Asked for at most 1,000 rooms.
    fn heads(
        &self,
        namespace: &str,
        rooms: Vec<Text>,
    ) -> LocalBoxFuture<'static, Option<Vec<u64>>> {
        let _ = (namespace, rooms);
        Box::pin(async { None })
    }

    /// What was broadcast in an ordered room after number `after`: at most `limit` packets, in order,
    /// without a gap; `None` if they cannot be read now.
    fn missed(
        &self,
        namespace: &str,
        room: &str,
        after: u64,
        limit: usize,
    ) -> LocalBoxFuture<'static, Option<Vec<Missed>>> {
        let _ = (namespace, room, after, limit);
        Box::pin(async { None })
    }
}

/// A packet of an ordered room, read from where the application keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Its number in the room.
    pub seq: u64,
    /// The event's name.
    pub event: Text,
    /// The event's arguments.
    pub args: Args,
}

/// A CONNECT refused: the client is sent CONNECT_ERROR `{message, data?}`.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// For people.
    pub message: Text,
    /// For programs.
    pub data: Option<Box<RawValue>>,
}

/// An event from a client, or from another server.
#[derive(Debug)]
pub struct Event {
    /// Its name. A number stands as its text.
    pub name: Text,
    /// What came with it.
    pub args: Args,
    /// There if the sender wants an answer.
    pub ack: Option<Ack>,
    /// When it was read, by the clock of the hub's [`Env`]: before it waited for earlier ones.
    pub received: Instant,
}

/// The right to acknowledge one event, once.
#[derive(Debug)]
pub struct Ack {
    _private: (),
}

impl Ack {
    /// Sends the acknowledgement. Does nothing if the socket is gone.
    pub fn send(self, args: &Args) {
        let _ = args;
        todo!()
    }
}

/// Why a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The client left the namespace.
    ClientNamespaceDisconnect,
    /// [`Socket::disconnect`].
    ServerNamespaceDisconnect,
    /// The connection ended.
    Closed(CloseReason),
}

/// Timings and bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// A connection that has joined no namespace by then is closed.
    pub connect_timeout: Duration,
    /// Bytes of one packet with its attachments, and of the parked events of one connection.
    pub max_payload: usize,
    /// Unsent output of one connection, each packet counted as its bytes + 64: what waits behind a
    /// replay counts too.
    pub outbox_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        let engine = crate::engine::Options::default();
        Self {
            connect_timeout: Duration::from_secs(45),
            max_payload: engine.max_payload,
            outbox_bytes_max: engine.outbox_bytes_max,
        }
    }
}

/// The way to the hubs of other shards and hosts. Nothing here waits for another shard.
pub trait Bus {
    /// Takes a broadcast to the other nodes that have members. What cannot be taken now is owed:
    /// an ordered room's head is told later, so that the others read the rest from the store.
    fn publish(&self, broadcast: Arc<broadcast::Broadcast>);
    /// From when this resolves, broadcasts to the room reach this node.
    fn subscribe(&self, namespace: &str, room: &str) -> Task;
    /// The node has no members of the room any more.
    fn unsubscribe(&self, namespace: &str, room: &str);
    /// Sends a request to all other nodes, and says how many were asked.
    fn request(&self, request: Arc<broadcast::Request>) -> usize;
    /// Answers a request of another node.
    fn respond(&self, to: u16, response: broadcast::Response);
}

/// The sockets of one shard. A handle: cloning it is cheap.
#[derive(Clone)]
pub struct Hub {
    _private: Rc<()>,
}

impl Hub {
    /// A hub over `engine`, whose handler it becomes.
    #[must_use]
    pub fn new(env: Rc<Env>, engine: Engine, options: Options, spawn: Spawn) -> Self {
        let _ = (env, engine, options, spawn);
        todo!()
    }

    /// Says what runs on it. Once, before the first session opens.
    pub fn set_app(&self, app: Rc<dyn App>) {
        let _ = app;
        todo!()
    }

    /// Says how other nodes are reached. Once, before the first session opens; without it there are
    /// none.
    pub fn set_bus(&self, bus: Rc<dyn Bus>) {
        let _ = bus;
        todo!()
    }

    /// Broadcasts in a namespace: `hub.of("/").room("lobby").emit("hello", &args)`.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Audience {
        let _ = namespace;
        todo!()
    }

    /// A connected socket of this shard.
    #[must_use]
    pub fn socket(&self, namespace: &str, id: &SocketId) -> Option<Socket> {
        let _ = (namespace, id);
        todo!()
    }

    /// The connected sockets of this shard in a namespace.
    #[must_use]
    pub fn local_sockets(&self, namespace: &str) -> Vec<Socket> {
        let _ = namespace;
        todo!()
    }

    /// Emits to the other nodes themselves, not to their clients ([`App::on_server_side_emit`]).
    pub fn server_side_emit(&self, namespace: &str, event: &str, args: &Args) {
        let _ = (namespace, event, args);
        todo!()
    }

    /// The same, and gathers the answer of every other node; fails after 5 s with those that came.
    pub fn server_side_emit_with_ack(
        &self,
        namespace: &str,
        event: &str,
        args: &Args,
    ) -> LocalBoxFuture<'static, Result<Vec<Args>, BroadcastTimeout>> {
        let _ = (namespace, event, args);
        todo!()
    }

    /// Does what is due. Call it at each tick.
    pub fn tick(&self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// When [`Hub::tick`] next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        todo!()
    }

    /// Takes what the bus brought from another node.
    pub fn on_bus(&self, envelope: broadcast::Envelope) {
        let _ = envelope;
        todo!()
    }
}

impl Handler for Hub {
    fn on_open(&self, key: Key, handshake: Handshake) {
        let _ = (key, handshake);
        todo!()
    }
    fn on_message(&self, key: Key, content: Content) -> Flow {
        let _ = (key, content);
        todo!()
    }
    fn on_close(&self, key: Key, reason: CloseReason) {
        let _ = (key, reason);
        todo!()
    }
}
