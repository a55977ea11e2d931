//! Whom a broadcast is for, and its packet, encoded once.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::{Args, Hub, Socket, SocketId};
use crate::wire::Text;
use crate::wire::engine_io::Encoded;

/// A room as one asks for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoomKey {
    /// The room that a socket has to itself.
    Private(SocketId),
    /// A room that sockets join. Its name may be a socket's id: it is another room nevertheless.
    Named(Text),
}

/// Whom a broadcast is for: the union of the rooms (none: the whole namespace) without `except`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// The namespace.
    pub namespace: Text,
    /// Rooms whose members are meant.
    pub rooms: Vec<RoomKey>,
    /// Rooms whose members are left out.
    pub except: Vec<RoomKey>,
}

/// How an event is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Dropped for whoever cannot take it now.
    pub volatile: bool,
    /// Whether a transport may compress it.
    pub compress: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            volatile: false,
            compress: true,
        }
    }
}

/// The number of a broadcast in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Dense from 1.
    pub seq: u64,
}

/// Makes a broadcast the news that a user entered or left a room: an older one never follows a newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub user: Text,
    /// As the directory gave it.
    pub version: u64,
}

/// A broadcast on its way through hubs and buses.
#[derive(Debug, Clone)]
pub struct Broadcast {
    /// Whom it is for.
    pub target: Target,
    /// The event's name.
    pub event: Text,
    /// The event's arguments.
    pub args: Args,
    /// The event encoded: the packet and its attachments.
    pub packets: Vec<Encoded>,
    /// How it is sent.
    pub flags: Flags,
    /// Its number, if its room is ordered.
    pub order: Option<Order>,
    /// What it says about a user.
    pub presence: Option<Presence>,
}

/// What nodes ask each other. Each answers for its own sockets.
#[derive(Debug, Clone)]
pub struct Request {
    /// The asking node's own number for it.
    pub id: u64,
    /// Who asks.
    pub from: u16,
    /// What is asked.
    pub what: Ask,
}

/// What a [`Request`] asks.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Which sockets are there?
    Fetch(Target),
    /// Make sockets join rooms. Not answered.
    Join(Target, Vec<Text>),
    /// Make sockets leave rooms. Not answered.
    Leave(Target, Vec<Text>),
    /// Disconnect sockets. Not answered.
    Disconnect(Target, bool),
    /// Broadcast an event that asks every client for an acknowledgement.
    Broadcast(Box<Broadcast>, Duration),
    /// An event for the application itself.
    ServerSideEmit {
        /// The namespace.
        namespace: Text,
        /// The event's name.
        event: Text,
        /// The event's arguments.
        args: Args,
        /// Whether an answer is wanted.
        ack: bool,
    },
}

/// An answer to a [`Request`].
#[derive(Debug, Clone)]
pub struct Response {
    /// The request's number.
    pub id: u64,
    /// The answer.
    pub what: Answer,
}

/// What a [`Response`] says.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The sockets of the node.
    Sockets(Vec<RemoteSocket>),
    /// How many clients of the node were sent the broadcast.
    ClientCount(usize),
    /// One client's acknowledgement, or the application's answer to a server-side emit.
    Ack(Args),
}

/// What travels between nodes.
#[derive(Debug, Clone)]
pub enum Envelope {
    /// For the sockets.
    Broadcast(std::sync::Arc<Broadcast>),
    /// For the hub.
    Request(std::sync::Arc<Request>),
    /// For the hub that asked.
    Response(std::sync::Arc<Response>),
    /// The newest numbers of ordered rooms, of which broadcasts were lost on the way.
    Heads(std::sync::Arc<Vec<Head>>),
    /// Broadcasts of too many rooms were lost to name them: every room is to be compared.
    AllHeads,
}

/// The newest number of an ordered room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The namespace.
    pub namespace: Text,
    /// The room.
    pub room: Text,
    /// Its newest number that is known to be stored.
    pub seq: u64,
}

/// A socket somewhere in the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSocket {
    /// Its id.
    pub id: SocketId,
    /// The rooms it has joined.
    pub rooms: Vec<Text>,
}

/// Some clients or nodes did not answer in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not everybody answered in time")]
pub struct BroadcastTimeout {
    /// What those answered who did.
    pub acks: Vec<Args>,
}

/// Not every node answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not every node answered in time")]
pub struct RequestTimeout;

/// Whom something is for, put together step by step.
///
/// Rooms add up (each client once); none means the whole namespace.
#[must_use]
#[derive(Clone)]
pub struct Audience {
    hub: Hub,
    target: Target,
    flags: Flags,
    order: Option<Order>,
    presence: Option<Presence>,
    local: bool,
}

impl Audience {
    /// Adds the members of a room.
    pub fn room(self, name: &str) -> Self {
        let _ = name;
        todo!()
    }

    /// Adds one socket.
    pub fn socket(self, id: SocketId) -> Self {
        let _ = id;
        todo!()
    }

    /// Adds what Node's `to(name)` means: the members of the room, and the socket with that id.
    pub fn any(self, name: &str) -> Self {
        let _ = name;
        todo!()
    }

    /// Leaves out the members of a room.
    pub fn except(self, name: &str) -> Self {
        let _ = name;
        todo!()
    }

    /// Leaves out one socket.
    pub fn except_socket(self, id: SocketId) -> Self {
        let _ = id;
        todo!()
    }

    /// Leaves out what [`Audience::any`] would add.
    pub fn except_any(self, name: &str) -> Self {
        let _ = name;
        todo!()
    }

    /// Drops it for whoever cannot take it now.
    pub fn volatile(self) -> Self {
        todo!()
    }

    /// Whether a transport may compress it.
    pub fn compress(self, compress: bool) -> Self {
        let _ = compress;
        todo!()
    }

    /// Only the sockets of this shard.
    pub fn local(self) -> Self {
        todo!()
    }

    /// Gives it its number. The audience must be exactly one room.
    pub fn ordered(self, seq: u64) -> Self {
        let _ = seq;
        todo!()
    }

    /// Makes it the news that a user entered or left the room.
    pub fn presence(self, user: &str, version: u64) -> Self {
        let _ = (user, version);
        todo!()
    }

    /// Sends an event. Reserved names are not sent.
    pub fn emit(self, event: &str, args: &Args) {
        let _ = (event, args);
        todo!()
    }

    /// Sends an event that asks every client for an acknowledgement; `then` gets the first argument
    /// lists of all, or after `timeout` of those who answered.
    pub fn emit_with_ack(
        self,
        event: &str,
        args: &Args,
        timeout: Duration,
        then: impl FnOnce(Result<Vec<Args>, BroadcastTimeout>) + 'static,
    ) {
        let _ = (event, args, timeout, then);
        todo!()
    }

    /// The sockets of this shard that it means.
    #[must_use]
    pub fn local_sockets(&self) -> Vec<Socket> {
        todo!()
    }

    /// The sockets of the whole fleet that it means; fails after 5 s.
    pub fn fetch_sockets(
        self,
    ) -> LocalBoxFuture<'static, Result<Vec<RemoteSocket>, RequestTimeout>> {
        todo!()
    }

    /// Makes them join rooms, wherever they are.
    pub fn sockets_join(self, rooms: &[&str]) {
        let _ = rooms;
        todo!()
    }

    /// Makes them leave rooms.
    pub fn sockets_leave(self, rooms: &[&str]) {
        let _ = rooms;
        todo!()
    }

    /// Disconnects them; `close`: with their connections.
    pub fn disconnect_sockets(self, close: bool) {
        let _ = close;
        todo!()
    }
}
