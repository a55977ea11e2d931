//! Whom a broadcast is for, and its packet, encoded once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;

use super::envelope::Ask;
use super::{Args, Hub, Socket, SocketId};
use crate::wire::Text;
use crate::wire::engine_io::Encoded;
use crate::wire::socket_io::{encode_event, is_reserved};

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

impl Flags {
    /// Marks packets as the flags say.
    #[must_use]
    pub fn apply(self, packets: Vec<Encoded>) -> Vec<Encoded> {
        if self.compress {
            return packets;
        }
        packets.into_iter().map(Encoded::uncompressed).collect()
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
    /// Which of its publisher's broadcasts it is, if the bus may bring it twice.
    pub origin: Option<Origin>,
    /// When it was published; when it arrived, if that is not known.
    pub published: Instant,
}

/// Names a broadcast in the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The node that published it.
    pub uid: Text,
    /// The node's count of its broadcasts.
    pub count: u64,
}

/// A socket somewhere in the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSocket {
    /// Its id.
    pub id: SocketId,
    /// The rooms it has joined.
    pub rooms: Vec<Text>,
    /// How it came, as Socket.IO's `handshake` object in JSON; empty where only its own node knows.
    pub handshake: Text,
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
    is_local: bool,
}

impl Audience {
    pub(super) fn new(hub: Hub, namespace: &str) -> Self {
        let namespace = match namespace {
            // The one that nearly everybody uses takes no memory.
            "/" => Text::from_static("/"),
            other => other.into(),
        };
        let target = Target {
            namespace,
            ..Target::default()
        };
        Self {
            hub,
            target,
            flags: Flags::default(),
            order: None,
            presence: None,
            is_local: false,
        }
    }

    /// Adds the members of a room.
    pub fn room(mut self, name: &str) -> Self {
        self.target.rooms.push(RoomKey::Named(name.into()));
        self
    }

    /// Adds one socket.
    pub fn socket(mut self, id: SocketId) -> Self {
        self.target.rooms.push(RoomKey::Private(id));
        self
    }

    /// Adds what Node's `to(name)` means: the members of the room, or the socket with that id.
    pub fn any(mut self, name: &str) -> Self {
        let keys = self.keys(name);
        self.target.rooms.extend(keys);
        self
    }

    /// Leaves out the members of a room.
    pub fn except(mut self, name: &str) -> Self {
        self.target.except.push(RoomKey::Named(name.into()));
        self
    }

    /// Leaves out one socket.
    pub fn except_socket(mut self, id: SocketId) -> Self {
        self.target.except.push(RoomKey::Private(id));
        self
    }

    /// Leaves out what [`Audience::any`] would add.
    pub fn except_any(mut self, name: &str) -> Self {
        let keys = self.keys(name);
        self.target.except.extend(keys);
        self
    }

    /// What a plain name means. A name that one of this host's sockets may have as its id is never a
    /// room, or whoever joins a room of that name would hear what is meant for the socket.
    fn keys(&self, name: &str) -> Vec<RoomKey> {
        let named = RoomKey::Named(name.into());
        match SocketId::parse(name) {
            None => vec![named],
            Some(id) if id.place().0 == self.hub.engine().options().host => {
                vec![RoomKey::Private(id)]
            }
            Some(id) => vec![named, RoomKey::Private(id)],
        }
    }

    /// Drops it for whoever cannot take it now.
    pub fn volatile(mut self) -> Self {
        self.flags.volatile = true;
        self
    }

    /// Whether a transport may compress it.
    pub fn compress(mut self, compress: bool) -> Self {
        self.flags.compress = compress;
        self
    }

    /// Only the sockets of this shard.
    pub fn local(mut self) -> Self {
        self.is_local = true;
        self
    }

    /// Gives it its number. The audience must be exactly one room, without exceptions.
    pub fn ordered(mut self, seq: u64) -> Self {
        self.order = Some(Order { seq });
        self
    }

    /// Makes it the news that a user entered or left the room.
    pub fn presence(mut self, user: &str, version: u64) -> Self {
        let user = user.into();
        self.presence = Some(Presence { user, version });
        self
    }

    /// Sends an event. Reserved names are not sent.
    ///
    /// # Panics
    /// When it is numbered and not for exactly one room.
    pub fn emit(self, event: &str, args: &Args) {
        if is_reserved(event) {
            return;
        }
        if self.order.is_some() {
            let is_one = matches!(&*self.target.rooms, [RoomKey::Named(_)]);
            let is_whole = is_one && self.target.except.is_empty();
            assert!(is_whole, "a number belongs to one whole room");
        }
        let (hub, is_local) = (self.hub.clone(), self.is_local);
        hub.publish(&Arc::new(self.broadcast(event, args)), is_local);
    }

    fn broadcast(self, event: &str, args: &Args) -> Broadcast {
        let packets = encode_event(&self.target.namespace, event, args, None);
        let bus = self.hub.bus().filter(|_| !self.is_local);
        Broadcast {
            origin: bus.and_then(|bus| bus.origin()),
            published: self.hub.env().now(),
            target: self.target,
            event: event.into(),
            args: args.clone(),
            packets: self.flags.apply(packets),
            flags: self.flags,
            order: self.order,
            presence: self.presence,
        }
    }

    /// Sends an event that asks every client for an acknowledgement; `then` gets the arguments of all,
    /// or after `timeout` of those who answered.
    pub fn emit_with_ack(
        self,
        event: &str,
        args: &Args,
        timeout: Duration,
        then: impl FnOnce(Result<Vec<Args>, BroadcastTimeout>) + 'static,
    ) {
        if is_reserved(event) {
            return then(Ok(Vec::new()));
        }
        let (hub, is_local) = (self.hub.clone(), self.is_local);
        hub.broadcast_with_ack(
            &self.broadcast(event, args),
            is_local,
            timeout,
            Box::new(then),
        );
    }

    /// The sockets of this shard that it means.
    #[must_use]
    pub fn local_sockets(&self) -> Vec<Socket> {
        self.hub.select(&self.target)
    }

    /// The sockets of the whole fleet that it means; fails after 5 s.
    #[must_use]
    pub fn fetch_sockets(
        self,
    ) -> LocalBoxFuture<'static, Result<Vec<RemoteSocket>, RequestTimeout>> {
        self.hub.clone().fetch(self.target, self.is_local)
    }

    /// Makes them join rooms, wherever they are.
    pub fn sockets_join(self, rooms: &[&str]) {
        let rooms = rooms.iter().map(|room| Text::from(*room)).collect();
        self.everywhere(|target| Ask::Join(target, rooms));
    }

    /// Makes them leave rooms.
    pub fn sockets_leave(self, rooms: &[&str]) {
        let rooms = rooms.iter().map(|room| Text::from(*room)).collect();
        self.everywhere(|target| Ask::Leave(target, rooms));
    }

    /// Disconnects them; `close`: with their connections.
    pub fn disconnect_sockets(self, close: bool) {
        self.everywhere(|target| Ask::Disconnect(target, close));
    }

    fn everywhere(self, what: impl FnOnce(Target) -> Ask) {
        self.hub.clone().command(&what(self.target), self.is_local);
    }
}
