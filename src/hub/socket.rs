//! What an application holds of a client: [`Socket`].

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::broadcast::{Audience, Flags};
use super::{Args, Hub, SocketId};
use crate::engine::{CloseReason, Handshake, Key, Transport};
use crate::wire::Text;
use crate::wire::socket_io::{encode_event, is_reserved};

/// A client in one namespace. A handle: it may outlive the client, and then does nothing.
#[derive(Clone)]
pub struct Socket {
    inner: Rc<Inner>,
}

struct Inner {
    hub: Hub,
    key: Key,
    namespace: Text,
    id: SocketId,
    handshake: RefCell<Rc<Handshake>>,
    phase: Cell<Phase>,
    data: RefCell<Option<Rc<dyn Any>>>,
}

/// How far a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The application has not decided yet.
    Deciding,
    Connected,
    /// On its way out: still in its rooms.
    Leaving,
    Gone,
}

/// An acknowledgement did not come: in time, or ever, because the socket is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client did not acknowledge in time")]
pub struct AckTimeout;

/// What a join gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// In an ordered room: the newest number when the join took effect. Every greater one reaches this
    /// socket live. `None` in other rooms, and when it cannot be known now.
    pub seq: Option<u64>,
    /// Whether the socket was in the room before.
    pub already: bool,
}

/// Holds back what a room sends to a socket, so that the application can first emit what the socket
/// missed. Dropping it finishes it.
///
/// What is held back counts as unsent output. Of that, numbered broadcasts may take half of what a
/// connection may leave unread; when there are more they are forgotten, and [`Replay::missed`] tells it.
#[must_use = "live messages wait until this is finished"]
pub struct Replay {
    socket: Socket,
    room: Text,
    gate: u64,
}

impl Replay {
    /// The socket that it is for.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The room is known to have a number that this shard has not delivered yet: waits until it has,
    /// or the store says that there is none, or has been silent for 5 s. What was held back until then
    /// is forgotten: it is up to the number returned, the newest delivered. `None`: it cannot be known.
    #[must_use = "the join is complete when this resolves"]
    pub fn catch_up(&self, head: u64) -> LocalBoxFuture<'static, Option<u64>> {
        let (socket, hub) = (&self.socket, self.socket.hub().clone());
        let name = (socket.namespace().clone(), self.room.clone());
        hub.catch_up(name, head, (socket.key(), self.gate))
            .boxed_local()
    }

    /// Numbered broadcasts were too large to be held back: the newest number delivered. The application
    /// emits them up to it, and asks again. `None`: none was forgotten. Who finishes without asking loses
    /// the connection if some were.
    #[must_use = "what was forgotten has to be emitted by the application"]
    pub fn missed(&self) -> Option<u64> {
        let (socket, hub) = (&self.socket, self.socket.hub());
        let name = (socket.namespace().clone(), self.room.clone());
        hub.forgotten(&name, (socket.key(), self.gate))
    }

    /// Lets go, behind all that was emitted to the socket before.
    pub fn finish(self) {
        drop(self);
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.socket.hub().open_gate(self.socket.key(), self.gate);
    }
}

impl Socket {
    pub(super) fn new(
        hub: Hub,
        key: Key,
        namespace: Text,
        id: SocketId,
        handshake: Rc<Handshake>,
    ) -> Self {
        Self {
            inner: Rc::new(Inner {
                hub,
                key,
                namespace,
                id,
                handshake: RefCell::new(handshake),
                phase: Cell::new(Phase::Deciding),
                data: RefCell::new(None),
            }),
        }
    }

    pub(super) fn key(&self) -> Key {
        self.inner.key
    }

    pub(super) fn phase(&self) -> Phase {
        self.inner.phase.get()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.inner.phase.set(phase);
    }

    /// Its id, unique in the fleet.
    #[must_use]
    pub fn id(&self) -> SocketId {
        self.inner.id
    }

    /// The namespace it is in.
    #[must_use]
    pub fn namespace(&self) -> &Text {
        &self.inner.namespace
    }

    /// The hub it belongs to.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.inner.hub
    }

    /// How its packets travel now; `None` if the connection is gone.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.hub().engine().transport(self.key())
    }

    /// The request that opened the connection; see [`App::keeps_handshake`](super::App::keeps_handshake).
    #[must_use]
    pub fn handshake(&self) -> Rc<Handshake> {
        self.inner.handshake.borrow().clone()
    }

    pub(super) fn set_handshake(&self, handshake: Rc<Handshake>) {
        *self.inner.handshake.borrow_mut() = handshake;
    }

    /// Whether it is connected: from the CONNECT answer to the disconnect.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.phase(), Phase::Connected | Phase::Leaving)
    }

    /// Sends an event. Reserved names are not sent.
    pub fn emit(&self, event: &str, args: &Args) {
        self.emit_with(event, args, Flags::default());
    }

    /// Sends an event with flags.
    pub fn emit_with(&self, event: &str, args: &Args, flags: Flags) {
        if !self.is_connected() || is_reserved(event) {
            return;
        }
        let packets = encode_event(self.namespace(), event, args, None);
        self.hub().send(&[self.key()], &flags.apply(packets), flags);
    }

    /// Sends an event that asks for an acknowledgement; `then` is called with it, or with the
    /// time-out. Nothing waits: a handler goes on at once.
    pub fn emit_with_ack(
        &self,
        event: &str,
        args: &Args,
        timeout: Duration,
        then: impl FnOnce(Result<Args, AckTimeout>) + 'static,
    ) {
        if !self.is_connected() || is_reserved(event) {
            return then(Err(AckTimeout));
        }
        let id = self.hub().await_ack(self, timeout, Box::new(then));
        let packets = encode_event(self.namespace(), event, args, Some(id));
        self.hub().send(&[self.key()], &packets, Flags::default());
    }

    /// Enters a room. In an ordered room this waits for the room's newest number.
    #[must_use = "the join is complete when this resolves"]
    pub fn join(&self, room: &str) -> LocalBoxFuture<'static, Joined> {
        self.hub().join(self, &Text::from(room))
    }

    /// Enters a room, and holds back what it sends to this socket until the replay is finished.
    #[must_use = "the join is complete when this resolves"]
    pub fn join_with_replay(&self, room: &str) -> LocalBoxFuture<'static, (Joined, Replay)> {
        let room = Text::from(room);
        let gate = self.hub().shut_gate(self, &room);
        let replay = Replay {
            socket: self.clone(),
            room: room.clone(),
            gate,
        };
        let joined = self.hub().join(self, &room);
        joined.map(|joined| (joined, replay)).boxed_local()
    }

    /// Leaves a room, and says whether the socket was in it. Nothing from it follows.
    #[expect(
        clippy::must_use_candidate,
        reason = "most callers leave whether or not they were in"
    )]
    pub fn leave(&self, room: &str) -> bool {
        self.hub().leave(self, room)
    }

    /// Whether it is in the room.
    #[must_use]
    pub fn is_in(&self, room: &str) -> bool {
        self.hub().is_in(self, room)
    }

    /// The rooms it has joined, in the order of their names. The private room that every socket has
    /// under its id is not among them.
    #[must_use]
    pub fn rooms(&self) -> Vec<Text> {
        self.hub().rooms_of(self)
    }

    /// Broadcasts to a room without this socket.
    pub fn to(&self, room: &str) -> Audience {
        self.broadcast().room(room)
    }

    /// Broadcasts to the namespace without this socket.
    pub fn broadcast(&self) -> Audience {
        self.hub().of(self.namespace()).except_socket(self.id())
    }

    /// Ends this socket with a DISCONNECT packet, after which clients do not come back by themselves.
    /// `close`: all sockets of the connection, and then the connection.
    pub fn disconnect(&self, close: bool) {
        if self.phase() == Phase::Gone {
            return;
        }
        if close {
            self.hub().disconnect_all(self.key());
        } else if self.is_connected() {
            self.hub().disconnect(self);
        }
    }

    /// Closes the connection without a word: clients come back by themselves.
    pub fn close_transport(&self, reason: CloseReason) {
        self.hub().engine().close(self.key(), reason);
    }

    /// Keeps something of the application with the socket, instead of what it kept before.
    pub fn set_data<T: 'static>(&self, data: Rc<T>) {
        *self.inner.data.borrow_mut() = Some(data);
    }

    /// What the application keeps with the socket.
    #[must_use]
    pub fn data<T: 'static>(&self) -> Option<Rc<T>> {
        let data = self.inner.data.borrow().clone();
        data?.downcast().ok()
    }

    /// Whether its connection is neither gone, closing, nor to be closed because the server goes away.
    #[must_use]
    pub fn is_staying(&self) -> bool {
        self.hub().engine().is_staying(self.key())
    }

    /// Resolves when at most `below` bytes wait to be sent on the connection, or it no longer stays.
    pub fn drained(&self, below: usize) -> impl Future<Output = ()> + 'static {
        self.hub().engine().drained(self.key(), below)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("namespace", self.namespace())
            .field("id", &self.id())
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}
