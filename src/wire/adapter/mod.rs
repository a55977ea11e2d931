//! The messages of the classic Redis adapter of Socket.IO (`@socket.io/redis-adapter`) and of the emitter.
//!
//! What others send is taken in every form that any of their versions writes: MessagePack or JSON, keys in
//! any order, old requests and new ones. Whatever does not decode is an [`Undecodable`] that names its
//! cause; nothing here trusts a length or a depth. What is written is what Node's current version writes,
//! byte for byte, but for a fourth element of our own broadcasts ([`Stamp`]), which others do not read.

mod broadcast;
mod json;
mod message;
mod names;
mod notice;
mod packed;
mod request;
#[cfg(test)]
mod tests;

pub use self::broadcast::{Outgoing, decode_broadcast, encode_broadcast, sender, write_broadcast};
pub use self::names::{Names, Sockets};
pub use self::notice::{
    HEADS_MAX, Head, Heads, HostNews, HostNotice, decode_heads, decode_host_notice, encode_heads,
    encode_host_notice,
};
pub use self::request::{decode_request, decode_response, encode_request, encode_response};
use super::Text;
use super::msgpack::MsgpackError;
use super::socket_io::{Args, PacketError};

/// What all channels begin with, unless a fleet has set another key.
pub const PREFIX: &str = "socket.io";
/// The uid of whatever `@socket.io/redis-emitter` publishes.
pub const EMITTER: &str = "emitter";

/// Why a message is none, or none that we know. Nobody is told but the metric of ignored messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// It ends in the middle, or announces more than is there.
    #[error("truncated")]
    Truncated,
    /// There is something behind it.
    #[error("trailing bytes")]
    Trailing,
    /// Neither MessagePack nor JSON.
    #[error("neither MessagePack nor JSON")]
    Syntax,
    /// Nested too deep.
    #[error("nested too deep")]
    TooDeep,
    /// It would become larger than allowed.
    #[error("too large")]
    TooLarge,
    /// Fields lack, or have other types.
    #[error("another shape")]
    Shape,
    /// A type of packet, request or response that does not belong here.
    #[error("another type")]
    Type,
    /// An event with a reserved name: clients end their connection over it.
    #[error("reserved event name")]
    ReservedName,
    /// Something that clients would take for the placeholder of an attachment.
    #[error("illegal placeholder")]
    Placeholder,
}

impl Undecodable {
    /// One word, as a metric's label.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Trailing => "trailing",
            Self::Syntax => "syntax",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::Shape => "shape",
            Self::Type => "type",
            Self::ReservedName => "reserved_name",
            Self::Placeholder => "placeholder",
        }
    }
}

impl From<MsgpackError> for Undecodable {
    fn from(error: MsgpackError) -> Self {
        match error {
            MsgpackError::Truncated => Self::Truncated,
            MsgpackError::Reserved => Self::Syntax,
        }
    }
}

impl From<PacketError> for Undecodable {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::TooDeep => Self::TooDeep,
            PacketError::ReservedName => Self::ReservedName,
            PacketError::Json => Self::Syntax,
            _ => Self::Shape,
        }
    }
}

/// The channels of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    /// Broadcasts to none or several rooms.
    pub broadcast: Text,
    /// Requests.
    pub request: Text,
    /// Responses.
    pub response: Text,
}

/// What a channel is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel<'a> {
    /// Broadcasts to none or several rooms.
    Broadcast,
    /// Broadcasts to exactly this room.
    Room(&'a str),
    /// Requests.
    Request,
    /// Responses, to whomever or to one node alone.
    Response,
}

impl Channels {
    /// Those of a namespace, which begins with a slash.
    #[must_use]
    pub fn of(namespace: &str) -> Self {
        let channel = |kind: &str| format!("{PREFIX}{kind}#{namespace}#").into();
        Self {
            broadcast: channel(""),
            request: channel("-request"),
            response: channel("-response"),
        }
    }

    /// Where broadcasts to exactly one room go.
    #[must_use]
    pub fn room(&self, room: &str) -> String {
        self.room_parts(room).concat()
    }

    /// The same in the pieces that it is put together of.
    #[must_use]
    pub fn room_parts<'a>(&'a self, room: &'a str) -> [&'a str; 3] {
        [&self.broadcast, room, "#"]
    }

    /// Where responses to one node may go.
    #[must_use]
    pub fn response_to(&self, uid: &str) -> String {
        format!("{}{uid}#", self.response)
    }

    /// What a channel is for, if it is one of this namespace.
    #[must_use]
    pub fn parse<'a>(&self, channel: &'a str) -> Option<Channel<'a>> {
        if channel == &*self.request {
            Some(Channel::Request)
        } else if channel.starts_with(&*self.response) {
            Some(Channel::Response)
        } else {
            let room = channel.strip_prefix(&*self.broadcast)?;
            Some(match room.strip_suffix('#') {
                Some(room) => Channel::Room(room),
                None if room.is_empty() => Channel::Broadcast,
                None => return None,
            })
        }
    }
}

/// Whom a message is for, as Node has it: names of rooms, a socket's id being one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opts {
    /// Rooms whose members are meant; none: everybody.
    pub rooms: Names,
    /// Rooms whose members are left out.
    pub except: Names,
    /// How it is sent.
    pub flags: Flags,
}

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Dropped for whoever cannot take it now.
    pub volatile: bool,
    /// Whether a transport may compress it.
    pub compress: bool,
    /// How long acknowledgements are waited for, in milliseconds.
    pub timeout: Option<u64>,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            volatile: false,
            compress: true,
            timeout: None,
        }
    }
}

/// An event for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// Who published it.
    pub uid: Text,
    /// The namespace; `/` if none was named.
    pub namespace: Text,
    /// The event's name.
    pub event: Text,
    /// The event's arguments.
    pub args: Args,
    /// Whom it is for.
    pub opts: Opts,
    /// What our own servers add.
    pub stamp: Option<Stamp>,
}

/// The fourth element of our own broadcasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The publisher's count of its broadcasts.
    pub count: u64,
    /// The number of a stored message in its room.
    pub seq: Option<u64>,
    /// What it says about a user.
    pub presence: Option<Presence>,
}

/// Makes a broadcast the news that a user entered or left a room of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The host that says so.
    pub host: u64,
    /// Newer news of the host has a higher one.
    pub version: u64,
    /// Who.
    pub user: Text,
}

/// What one node asks all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks. The emitter and old servers do not say.
    pub uid: Option<Text>,
    /// Names the request in its responses. Without one, none is wanted.
    pub id: Option<Text>,
    /// What is asked.
    pub what: Ask,
}

/// What a [`Request`] asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Type 0: the ids of the sockets in these rooms (none: all).
    Sockets(Names),
    /// Type 1: all rooms, the sockets' own included.
    AllRooms,
    /// Type 2: make sockets join rooms. The old form names a socket and a room.
    Join(Opts, Names),
    /// Type 3: make sockets leave rooms.
    Leave(Opts, Names),
    /// Type 4: disconnect sockets; `true`: with their connections.
    Disconnect(Opts, bool),
    /// Type 5: sockets with all that is known of them.
    Fetch(Opts),
    /// Type 6: an event for the servers themselves; with an id, an answer is wanted.
    ServerSideEmit {
        /// The event's name.
        event: Text,
        /// The event's arguments.
        args: Args,
    },
    /// Type 7: an event that asks every client for an acknowledgement.
    Broadcast {
        /// The namespace; `/` if none was named.
        namespace: Text,
        /// The event's name.
        event: Text,
        /// The event's arguments.
        args: Args,
        /// Whom it is for.
        opts: Opts,
    },
}

/// An answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The request's name.
    pub id: Text,
    /// What it says.
    pub what: Answer,
}

/// What a [`Response`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To type 0. An empty list reads as [`Answer::Fetched`]: the wire does not tell them apart.
    Sockets(Names),
    /// To type 1.
    Rooms(Names),
    /// To the old forms of 2, 3 and 4.
    Done,
    /// To type 5.
    Fetched(Sockets),
    /// To type 6: the answer, one argument or none.
    ServerSideAck(Args),
    /// First to type 7: how many clients were asked.
    ClientCount(u64),
    /// Then to type 7: one client's acknowledgement, one argument or none.
    ClientAck(Args),
}

/// A socket of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its id.
    pub id: Text,
    /// The rooms that it is in, its own included.
    pub rooms: Names,
    /// How it came: a JSON object to be written, which is not read.
    pub handshake: Text,
}
