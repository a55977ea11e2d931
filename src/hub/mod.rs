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
mod channel;
mod client;
pub mod envelope;
mod event;
mod handshake;
mod id;
mod order;
mod presence;
mod promise;
mod request;
mod rooms;
mod session;
pub mod socket;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod timers;
mod window;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use serde_json::value::RawValue;

pub use self::broadcast::{
    Audience, BroadcastTimeout, Flags, Order, Origin, Presence, RemoteSocket, RequestTimeout,
};
pub use self::client::PARKED_MAX;
pub use self::event::{Ack, Event, Missed, Refusal};
pub use self::id::SocketId;
pub use self::order::HELD_MAX;
pub use self::request::REQUEST_TIMEOUT;
pub use self::session::ATTACHMENTS_TIMEOUT;
pub use self::socket::{AckTimeout, Joined, Replay, Socket};
pub use crate::engine::CloseReason as DisconnectReason;
pub use crate::wire::socket_io::{Args, ArgsBuilder};

use self::broadcast::{Broadcast, Target};
use self::channel::{Channel, RoomName};
use self::envelope::{Node, Request, Response};
use self::presence::Newest;
use self::request::{Gathering, Waiting};
use self::rooms::Rooms;
use self::session::Session;
use self::timers::Timers;
use self::window::Windows;
use crate::engine::{CloseReason, Engine, Key};
use crate::env::Env;
use crate::hashed::HashedMap;
use crate::metrics::Metrics;
use crate::wire::Text;

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

    /// Whether [`Socket::handshake`] is to show the request's field lines and query for as long as the
    /// connection lives. If not, they are given up once the client is let in: a browser sends a
    /// kilobyte of them.
    fn keeps_handshake(&self) -> bool {
        true
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

/// Timings and bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// A connection that has joined no namespace by then is closed.
    pub connect_timeout: Duration,
    /// Bytes of the attachments of one packet, and of the parked events of one connection.
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
    fn publish(&self, broadcast: Arc<Broadcast>);
    /// The other nodes are to compare the heads of all their rooms.
    fn owe_all(&self) {}
    /// From when this resolves, broadcasts to the room reach this node.
    fn subscribe(&self, namespace: &str, room: &str) -> Task;
    /// The node has no members of the room any more.
    fn unsubscribe(&self, namespace: &str, room: &str);
    /// Sends a request to all other nodes. The future says how many were asked; the request is on its
    /// way whether or not anybody waits for that.
    fn request(&self, request: Arc<Request>) -> LocalBoxFuture<'static, usize>;
    /// Answers a request of another node.
    fn respond(&self, to: &Node, response: Response);
    /// The name of the broadcast that is published next, for a bus that may bring one twice.
    fn origin(&self) -> Option<Origin> {
        None
    }
    /// Whether other nodes publish what cannot reach this one now: then nobody waits for what is missing.
    fn is_away(&self) -> bool {
        false
    }
    /// A socket connected: what is for it alone is to reach this node.
    fn attach(&self, namespace: &str, socket: SocketId) {
        let _ = (namespace, socket);
    }
    /// The socket is gone.
    fn detach(&self, namespace: &str, socket: SocketId) {
        let _ = (namespace, socket);
    }
    /// Sends what is owed. [`Hub::tick`] calls it.
    fn tick(&self, now: Instant) {
        let _ = now;
    }
    /// When [`Bus::tick`] next has something to do.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

/// How long something may be on its way into the store, and a little more.
const LATECOMERS: Duration = Duration::from_secs(6);
/// How long to wait before the heads of all rooms are asked for again.
const COMPARE_RETRY: Duration = Duration::from_secs(1);

/// The sockets of one shard. A handle: cloning it is cheap.
#[derive(Clone)]
pub struct Hub {
    inner: Rc<Inner>,
}

struct Inner {
    env: Rc<Env>,
    engine: Engine,
    options: Options,
    spawn: Spawn,
    app: OnceCell<Rc<dyn App>>,
    bus: OnceCell<Rc<dyn Bus>>,
    metrics: Metrics,
    state: RefCell<State>,
}

/// All that a hub knows. It is borrowed within [`Hub::with`] only.
#[derive(Default)]
struct State {
    /// Boxed: a tree has places for twice what it holds, and a session is big.
    sessions: BTreeMap<Key, Box<Session>>,
    rooms: Rooms,
    channels: HashedMap<RoomName, Box<Channel>>,
    generation: u64,
    timers: Timers<Due>,
    /// By socket and acknowledgement id.
    acks: BTreeMap<(SocketId, u64), Waiting>,
    gatherings: BTreeMap<u64, Gathering>,
    gathering_count: u64,
    presence: Newest,
    windows: Windows,
    is_comparing: bool,
    scratch: Vec<Key>,
}

/// What has a deadline.
enum Due {
    /// A session has to have joined a namespace.
    Connect(Key),
    /// The attachments of a packet have to have come.
    Attachments(Key),
    /// A client has to have acknowledged.
    Ack(SocketId, u64),
    /// The clients of a broadcast have to have acknowledged.
    Acks(Vec<SocketId>, u64),
    /// Other nodes have to have answered.
    Gathering(u64),
    /// A room's order wants to be looked at.
    Channel(RoomName),
    /// The heads of all rooms are to be asked for.
    Compare,
}

impl Hub {
    /// A hub over `engine`, whose handler it becomes.
    #[must_use]
    pub fn new(env: Rc<Env>, engine: Engine, options: Options, spawn: Spawn) -> Self {
        let metrics = Metrics::new(usize::from(engine.options().shard));
        let hub = Self {
            inner: Rc::new(Inner {
                env,
                engine,
                options,
                spawn,
                app: OnceCell::new(),
                bus: OnceCell::new(),
                metrics,
                state: RefCell::default(),
            }),
        };
        hub.engine().set_handler(Rc::new(hub.clone()));
        hub
    }

    /// Says what runs on it. Once, before the first session opens; a second call does nothing.
    pub fn set_app(&self, app: Rc<dyn App>) {
        let _ = self.inner.app.set(app);
    }

    /// Says how other nodes are reached. Once, before the first session opens; without it there are
    /// none. A second call does nothing.
    pub fn set_bus(&self, bus: Rc<dyn Bus>) {
        let _ = self.inner.bus.set(bus);
    }

    /// A process has begun: the heads of all rooms are compared a while later. What a process that ended
    /// just before had sent to its store may be stored after our first joins, and nobody publishes it.
    pub fn expect_latecomers(&self) {
        let at = self.env().now() + LATECOMERS;
        self.with(|state| state.timers.set(at, Due::Compare));
    }

    fn app(&self) -> Rc<dyn App> {
        let app = self.inner.app.get();
        Rc::clone(app.expect("an application is set before the first session opens"))
    }

    fn bus(&self) -> Option<&Rc<dyn Bus>> {
        self.inner.bus.get()
    }

    fn env(&self) -> &Env {
        &self.inner.env
    }

    /// The sessions below.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    fn options(&self) -> &Options {
        &self.inner.options
    }

    fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    fn spawn(&self, task: Task) {
        (self.inner.spawn)(task);
    }

    /// The only place where the state is borrowed. Whoever is called from within must not call back:
    /// neither the application, nor the bus, nor what of the engine may close a session.
    fn with<R>(&self, step: impl FnOnce(&mut State) -> R) -> R {
        step(&mut self.inner.state.borrow_mut())
    }

    /// Broadcasts in a namespace: `hub.of("/").room("lobby").emit("hello", &args)`.
    pub fn of(&self, namespace: &str) -> Audience {
        Audience::new(self.clone(), namespace)
    }

    /// A connected socket of this shard.
    #[must_use]
    pub fn socket(&self, namespace: &str, id: &SocketId) -> Option<Socket> {
        self.with(|state| {
            let key = state.rooms.key(namespace, id)?;
            state.socket(namespace, key)
        })
    }

    /// The connected sockets of this shard in a namespace.
    #[must_use]
    pub fn local_sockets(&self, namespace: &str) -> Vec<Socket> {
        self.of(namespace).local_sockets()
    }

    /// How many rooms have members on this shard.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.with(|state| state.rooms.count())
    }

    /// The events that wait for their turn on the connection that has most of them.
    #[must_use]
    pub fn most_parked(&self) -> usize {
        self.with(|state| {
            let sessions = state.sessions.values();
            sessions.map(|session| session.parked()).max().unwrap_or(0)
        })
    }

    /// The broadcasts that wait for their predecessor in the room that has most of them.
    #[must_use]
    pub fn most_held(&self) -> usize {
        self.with(|state| {
            let orders = state.channels.values().filter_map(|channel| channel.held());
            orders.max().unwrap_or(0)
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a shard has fewer rooms than 2^52"
    )]
    fn room_count(&self) -> f64 {
        self.rooms() as f64
    }

    /// Our own sockets that a target means.
    fn select(&self, target: &Target) -> Vec<Socket> {
        self.with(|state| {
            let mut keys = Vec::new();
            state.rooms.select(target, &mut keys);
            let sockets = keys.iter();
            let sockets = sockets.filter_map(|key| state.socket(&target.namespace, *key));
            sockets.collect()
        })
    }

    fn is_in(&self, socket: &Socket, room: &str) -> bool {
        self.with(|state| state.rooms.is_in(socket.namespace(), socket.key(), room))
    }

    fn rooms_of(&self, socket: &Socket) -> Vec<Text> {
        self.with(|state| state.rooms.of(socket.namespace(), socket.key()))
    }

    fn shut_gate(&self, socket: &Socket, room: &Text) -> u64 {
        self.with(|state| {
            let (namespace, key) = (socket.namespace(), socket.key());
            state.rooms.shut_gate(namespace, key, room)
        })
    }

    fn open_gate(&self, key: Key, number: u64) {
        let opened = self.with(|state| state.rooms.open_gate(key, number));
        if opened.has_forgotten {
            // Nobody has read it again: the client comes back for it.
            return self.engine().close(key, CloseReason::SlowConsumer);
        }
        if !opened.packets.is_empty() {
            self.engine().send(key, &opened.packets);
        }
    }

    /// Does what is due. Call it at each tick.
    pub fn tick(&self, now: Instant) {
        self.with(|state| state.presence.forget_old(now));
        while let Some(due) = self.with(|state| state.timers.pop(now)) {
            match due {
                Due::Connect(key) => {
                    self.metrics().bounds.increment("connect_time");
                    self.session_due(key, CloseReason::ForcedServerClose);
                }
                Due::Attachments(key) => {
                    self.metrics().bounds.increment("attachments_time");
                    self.session_due(key, CloseReason::ForcedClose);
                }
                Due::Ack(socket, id) => {
                    self.metrics().bounds.increment("answer_time");
                    self.ack_failed(socket, id);
                }
                Due::Acks(sockets, id) => self.acks_timed_out(&sockets, id),
                Due::Gathering(number) => self.gathering_timed_out(number),
                Due::Channel(name) => self.channel_due(&name),
                Due::Compare => {
                    self.with(|state| state.is_comparing = false);
                    self.compare_heads();
                }
            }
        }
        if let Some(bus) = self.bus() {
            bus.tick(now);
        }
    }

    /// When [`Hub::tick`] next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let own = self.with(|state| state.timers.next());
        let bus = self.bus().and_then(|bus| bus.next_deadline());
        own.into_iter().chain(bus).min()
    }

    /// The store could not tell the heads: asks again later.
    fn compare_later(&self) {
        let at = self.env().now() + COMPARE_RETRY;
        self.with(|state| {
            if !state.is_comparing {
                state.is_comparing = true;
                state.timers.set(at, Due::Compare);
            }
        });
    }
}

impl State {
    fn socket(&self, namespace: &str, key: Key) -> Option<Socket> {
        self.sessions.get(&key)?.sockets.get(namespace).cloned()
    }
}
