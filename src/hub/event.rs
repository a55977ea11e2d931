//! What an application is given, and what it gives: events, acknowledgements, refusals.

use std::fmt;
use std::time::Instant;

use serde_json::value::RawValue;

use super::envelope::Node;
use super::{Args, Flags, Hub, Socket};
use crate::wire::Text;
use crate::wire::socket_io::encode_ack;

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

/// A CONNECT refused: the client is sent `CONNECT_ERROR` `{message, data?}`.
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
    to: AckTo,
}

enum AckTo {
    Client { socket: Socket, id: u64 },
    Node { hub: Hub, node: Node, request: u64 },
}

impl fmt::Debug for AckTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { socket, id } => write!(f, "{id} of {}", socket.id()),
            Self::Node { node, request, .. } => write!(f, "{request} of {node:?}"),
        }
    }
}

impl Ack {
    pub(super) fn of_client(socket: Socket, id: u64) -> Self {
        let to = AckTo::Client { socket, id };
        Self { to }
    }

    pub(super) fn of_node(hub: Hub, node: Node, request: u64) -> Self {
        let to = AckTo::Node { hub, node, request };
        Self { to }
    }

    /// Sends the acknowledgement. Does nothing if the socket is gone.
    pub fn send(self, args: &Args) {
        match self.to {
            AckTo::Client { socket, id } => {
                if socket.is_connected() {
                    let packets = encode_ack(socket.namespace(), Some(id), args);
                    socket
                        .hub()
                        .send(&[socket.key()], &packets, Flags::default());
                }
            }
            AckTo::Node { hub, node, request } => hub.answer_node(&node, request, args.clone()),
        }
    }
}
