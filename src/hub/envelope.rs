//! What travels between nodes, a node being the hub of one shard.

use std::sync::Arc;
use std::time::Duration;

use super::Args;
use super::broadcast::{Broadcast, RemoteSocket, Target};
use crate::wire::Text;

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
