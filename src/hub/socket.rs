//! What an application holds of a client: [`Socket`].

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::{Args, Audience, Flags, Hub};
use crate::engine::{CloseReason, Handshake, Transport};
use crate::wire::Text;

/// The id of a socket: 20 characters of base64url. Others may know it, so it is never the session's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId([u8; 20]);

impl SocketId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("ids are made of ASCII")
    }

    /// The id that `text` spells, if it has the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let _ = text;
        todo!()
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A client in one namespace. A handle: it may outlive the client, and then does nothing.
#[derive(Clone)]
pub struct Socket {
    _private: Rc<()>,
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
#[must_use = "live messages wait until this is finished"]
pub struct Replay {
    _private: (),
}

impl Replay {
    /// Lets go, behind all that was emitted to the socket before.
    pub fn finish(self) {}
}

impl Drop for Replay {
    fn drop(&mut self) {}
}

impl Socket {
    /// Its id, unique in the fleet.
    #[must_use]
    pub fn id(&self) -> SocketId {
        todo!()
    }

    /// The namespace it is in.
    #[must_use]
    pub fn namespace(&self) -> &Text {
        todo!()
    }

    /// The hub it belongs to.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        todo!()
    }

    /// How its packets travel now; `None` if the connection is gone.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        todo!()
    }

    /// The request that opened the connection.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        todo!()
    }

    /// Whether it is connected: from the CONNECT answer to the disconnect.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        todo!()
    }

    /// Sends an event. Reserved names are not sent.
    pub fn emit(&self, event: &str, args: &Args) {
        self.emit_with(event, args, Flags::default());
    }

    /// Sends an event with flags.
    pub fn emit_with(&self, event: &str, args: &Args, flags: Flags) {
        let _ = (event, args, flags);
        todo!()
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
        let _ = (event, args, timeout, then);
        todo!()
    }

    /// Enters a room. In an ordered room this waits for the room's newest number.
    pub fn join(&self, room: &str) -> LocalBoxFuture<'static, Joined> {
        let _ = room;
        todo!()
    }

    /// Enters a room, and holds back what it sends to this socket until the replay is finished.
    pub fn join_with_replay(&self, room: &str) -> LocalBoxFuture<'static, (Joined, Replay)> {
        let _ = room;
        todo!()
    }

    /// Leaves a room, and says whether the socket was in it. Nothing from it follows.
    pub fn leave(&self, room: &str) -> bool {
        let _ = room;
        todo!()
    }

    /// Whether it is in the room.
    #[must_use]
    pub fn is_in(&self, room: &str) -> bool {
        let _ = room;
        todo!()
    }

    /// The rooms it has joined, in the order of their names. The private room that every socket has
    /// under its id is not among them.
    #[must_use]
    pub fn rooms(&self) -> Vec<Text> {
        todo!()
    }

    /// Broadcasts to a room without this socket.
    #[must_use]
    pub fn to(&self, room: &str) -> Audience {
        let _ = room;
        todo!()
    }

    /// Broadcasts to the namespace without this socket.
    #[must_use]
    pub fn broadcast(&self) -> Audience {
        todo!()
    }

    /// Ends this socket with a DISCONNECT packet, after which clients do not come back by themselves.
    /// `close`: all sockets of the connection, and then the connection.
    pub fn disconnect(&self, close: bool) {
        let _ = close;
        todo!()
    }

    /// Closes the connection without a word: clients come back by themselves.
    pub fn close_transport(&self, reason: CloseReason) {
        let _ = reason;
        todo!()
    }

    /// Keeps something of the application with the socket, instead of what it kept before.
    pub fn set_data<T: 'static>(&self, data: Rc<T>) {
        let _ = data;
        todo!()
    }

    /// What the application keeps with the socket.
    #[must_use]
    pub fn data<T: 'static>(&self) -> Option<Rc<T>> {
        todo!()
    }

    /// Resolves when at most `below` bytes wait to be sent on the connection, or it is closed.
    pub fn drained(&self, below: usize) -> impl Future<Output = ()> + 'static {
        let _ = below;
        std::future::ready(())
    }
}
