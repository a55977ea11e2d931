//! What travels between nodes, a node being the hub of one shard.

use std::sync::Arc;
use std::time::Duration;

use super::Args;
use super::broadcast::{Broadcast, RemoteSocket, Target};
use crate::wire::Text;

/// Who asks: the way back of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A shard of this process.
    Shard(u8),
    /// A node that only the bus can reach, and what it wants to hear.
    Far(Arc<Far>),
}

/// A request of a node elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub struct Far {
    /// The namespace in which it asks.
    pub namespace: Text,
    /// Its name for the request; `None`: it wants no answer.
    pub id: Option<Text>,
    /// What it wants to hear.
    pub form: Form,
}

/// What a [`Far`] request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Ids of sockets.
    Ids,
    /// Names of rooms.
    Rooms,
    /// That it is done, by whoever has the socket.
    Done,
    /// Sockets with all that is known of them.
    Sockets,
    /// The application's answer.
    Application,
    /// How many clients were asked, and their acknowledgements.
    Clients,
}

/// What nodes ask each other. Each answers for its own sockets.
#[derive(Debug, Clone)]
pub struct Request {
    /// The asking node's own number for it; a far node's name for it is in its [`Far`].
    pub id: u64,
    /// Who asks.
    pub from: Node,
    /// What is asked.
    pub what: Ask,
}

/// What a [`Request`] asks.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Which sockets are there?
    Fetch(Target),
    /// Which rooms of a namespace have members? Only far nodes ask.
    Rooms(Text),
    /// Make sockets join rooms. Not answered.
    Join(Target, Vec<Text>),
    /// Make sockets leave rooms. Not answered.
    Leave(Target, Vec<Text>),
    /// Disconnect sockets. Not answered.
    Disconnect(Target, bool),
    /// Broadcast an event that asks every client for an acknowledgement within this time.
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
    /// The rooms with members there, those of the sockets themselves included.
    Rooms(Vec<Text>),
    /// What was asked for is done.
    Done,
    /// How many clients of the node were sent the broadcast.
    ClientCount(usize),
    /// One client's acknowledgement, or the application's answer to a server-side emit.
    Ack(Args),
}

/// What travels between nodes.
#[derive(Debug, Clone)]
pub enum Envelope {
    /// For the sockets.
    Broadcast(Arc<Broadcast>),
    /// For the hub.
    Request(Arc<Request>),
    /// For the hub that asked.
    Response(Arc<Response>),
    /// The newest numbers of ordered rooms, of which broadcasts were lost on the way.
    Heads(Arc<Vec<Head>>),
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
