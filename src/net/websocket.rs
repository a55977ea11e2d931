//! One WebSocket onto a session.
//!
//! A message that came whole is taken as it stands in the shard's own buffer; for all else tungstenite
//! reads, for as long as something is half read, so that an idle connection keeps no reader and no
//! buffer. What it writes, pongs, goes into the port's control queue, so that a connection has one writer. The driver is one future that does what can be done next:
//! finish a send, end, read. It is small, because ten thousand of them are idle at once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt, Stream};
use futures_util::future::LocalBoxFuture;

use super::flush::Port;
use super::frames::{self, Failure, Reader};
use super::{Closed, Connection, Mount, Shard};
use crate::engine::{CloseReason, Handshake, Key, Outcome, Transport};
use crate::wire::engine_io::{self, Encoded, Packet};
use crate::wire::frame::{self, Plain};
use crate::wire::{Content, Text};

/// Messages that one turn of the driver takes before others run.
const MESSAGES_AT_ONCE: u32 = 64;

/// How long the peer may take to close after our close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a WebSocket is for.
#[derive(Debug)]
pub enum Start {
    /// A new session.
    Open(Box<Handshake>),
    /// An upgrade of this polling session.
    Probe(Key),
}

/// Serves a WebSocket until it ends. The opening handshake is checked; `answer`, its 101, is sent before
/// anything else, in one send with the open packet. Whatever the client sent behind its request is in the
/// connection's buffer. The session begins at once; the future, which does the rest, is for a task of its
/// own. It is small: what is rare is boxed.
pub fn drive(
    connection: Connection,
    mount: Rc<Mount>,
    start: Start,
    answer: Vec<u8>,
) -> impl Future<Output = ()> + use<> {
    let driver = begin(connection, mount, start, answer);
    async move {
        let mut driver = match driver {
            Ok(driver) => driver,
            Err(refused) => return refused.await,
        };
        let end = poll_fn(|cx| driver.poll(cx)).await;
        let port = driver.finish(end);
        let inside_frame = port.is_inside_frame();
        let Some((connection, control)) = port.into_parts() else {
            debug_assert!(false, "the driver is gone, and the table forgot the port");
            return;
        };
        if let (Farewell::Close(code), false) = (end.farewell, inside_frame) {
            let mut bytes = control.to_vec();
            bytes.extend_from_slice(&frame::close(code));
            Box::pin(farewell(connection, bytes)).await;
        }
    }
}

/// Opens the session, or lets the WebSocket probe it. `Err`: it may not, and this tells the client.
fn begin(
    connection: Connection,
    mount: Rc<Mount>,
    start: Start,
    mut answer: Vec<u8>,
) -> Result<Driver, LocalBoxFuture<'static, ()>> {
    let shard = Rc::clone(connection.shard());
    let key = match start {
        Start::Open(handshake) => mount.engine.open(Transport::WebSocket, *handshake),
        Start::Probe(key) => {
            if mount.engine.begin_probe(key).is_err() {
                shard.metrics().upgrades.increment("refused");
                answer.extend_from_slice(&frame::close(None));
                return Err(Box::pin(farewell(connection, answer)));
            }
            key
        }
    };
    let port = Port::new(key, connection, &answer);
    mount.ports.insert(Rc::clone(&port));
    // Before anything is read: whoever sent nonsense already is greeted all the same.
    port.flush(&shard, &mount);
    Ok(Driver {
        reader: None,
        mount,
        shard,
        key,
        port,
    })
}

/// Bytes of the future of one connection.
#[cfg(test)]
pub(super) fn future_bytes() -> usize {
    fn bytes<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    bytes(drive)
}

/// How a WebSocket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    /// What the session is told, if it travels on this WebSocket.
    reason: CloseReason,
    farewell: Farewell,
}

/// What is sent at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// Nothing: the peer is gone.
    None,
    /// A close frame, with a code or without.
    Close(Option<u16>),
}

impl End {
    fn gone(reason: CloseReason) -> Self {
        Self {
            reason,
            farewell: Farewell::None,
        }
    }

    fn closing(reason: CloseReason, code: Option<u16>) -> Self {
        Self {
            reason,
            farewell: Farewell::Close(code),
        }
    }

    /// What an error of the reader means.
    fn of(error: &Error) -> Self {
        match Failure::of(error) {
            Failure::Closed => Self::gone(CloseReason::TransportClose),
            Failure::Io => Self::gone(CloseReason::TransportError),
            Failure::Violation(code) => Self::closing(CloseReason::TransportError, Some(code)),
        }
    }
}

struct Driver {
    /// Reads what is no plain message, until nothing is half read: an idle connection has none.
    reader: Option<Box<Reader<Adapter>>>,
    mount: Rc<Mount>,
    shard: Rc<Shard>,
    key: Key,
    port: Rc<Port>,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.port.register(cx);
        let mut taken = 0;
        loop {
            if let Some(end) = ready!(self.poll_session(cx)) {
                return Poll::Ready(end);
            }
            let paused = self.mount.engine.is_paused(self.key);
            self.port.set_parked(paused);
            if paused {
                return Poll::Pending;
            }
            let Poll::Ready(message) = self.poll_next(cx) else {
                self.port.ran_dry();
                if self.port.has_control() {
                    // A pong does not wait for the flush.
                    self.port.flush(&self.shard, &self.mount);
                }
                if self.drop_reader() {
                    continue;
                }
                return Poll::Pending;
            };
            if let Some(end) = self.take(message) {
                return Poll::Ready(end);
            }
            taken += 1;
            if taken >= MESSAGES_AT_ONCE {
                self.shard.readiness.look();
                if self.port.has_had_turn(taken) {
                    self.shard.end_turn().wait(cx);
                } else {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
    }

    /// Finishes a send, and looks whether the session is still ours. `Pending` only while a session
    /// that is closing has something to send.
    fn poll_session(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let finished = match self.port.poll_finish(cx, &self.shard, &self.mount) {
            Poll::Ready(Err(_)) => {
                return Poll::Ready(Some(End::gone(CloseReason::TransportClose)));
            }
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        let engine = &self.mount.engine;
        if let Some(reason) = engine.closing(self.key)
            && engine.transport(self.key) == Some(Transport::WebSocket)
        {
            let code = (reason == CloseReason::ServerShuttingDown).then_some(1001);
            return if !finished {
                Poll::Pending
            } else if engine.outbox_bytes(self.key) == 0 {
                Poll::Ready(Some(End::closing(reason, code)))
            } else {
                self.port.flush(&self.shard, &self.mount);
                self.poll_session(cx)
            };
        }
        let travels = engine.transport(self.key) == Some(Transport::WebSocket);
        let ours = if travels {
            engine.is_open(self.key)
        } else {
            engine.is_probing(self.key)
        };
        if !ours {
            return Poll::Ready(Some(End::closing(CloseReason::TransportError, None)));
        }
        Poll::Ready(None)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        let max_payload = self.mount.engine.options().max_payload;
        if self.reader.is_none() {
            let mut connection = self.port.connection().borrow_mut();
            let plain = connection.poll_take(cx, |bytes| plain(bytes, max_payload));
            drop(connection);
            match ready!(plain) {
                Ok(Some(message)) => return Poll::Ready(message),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        let adapter = || Adapter(Rc::clone(&self.port));
        let reader = self
            .reader
            .get_or_insert_with(|| Box::new(frames::reader(adapter(), max_payload)));
        let message = ready!(Pin::new(&mut **reader).poll_next(cx));
        Poll::Ready(message.unwrap_or(Err(Error::ConnectionClosed)))
    }

    /// Takes one message.
    fn take(&mut self, message: Result<Message, Error>) -> Option<End> {
        let packet = match message {
            Err(error) => {
                let end = End::of(&error);
                if end.farewell == Farewell::Close(Some(1009)) {
                    self.shard.metrics().bounds.increment("message");
                }
                return Some(end);
            }
            Ok(Message::Close(frame)) => {
                let code = frame.map(|frame| frame.code.into());
                return Some(End::closing(CloseReason::TransportClose, code));
            }
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => return None,
            Ok(Message::Binary(bytes)) => Packet::Message(Content::Binary(bytes)),
            Ok(Message::Text(text)) => match engine_io::decode(&Text::from(text)) {
                Ok(packet) => packet,
                Err(_) => return Some(End::closing(CloseReason::ParseError, None)),
            },
        };
        if !matches!(packet, Packet::Pong { .. }) {
            self.shard.mark_active();
        }
        let engine = &self.mount.engine;
        match engine.receive(self.key, Transport::WebSocket, packet) {
            // The next turn sees what became of the session.
            Outcome::Taken(_) | Outcome::Closed => None,
            Outcome::Upgraded => {
                self.shard.metrics().upgrades.increment("done");
                None
            }
            Outcome::AnswerProbe => {
                let answer = Encoded::text('3', "probe");
                let queued = self.port.push_control(answer.frame());
                self.port.flush(&self.shard, &self.mount);
                queued
                    .is_err()
                    .then(|| End::closing(CloseReason::TransportError, None))
            }
            Outcome::ProbeRefused => Some(End::closing(CloseReason::TransportError, None)),
        }
    }

    /// Gives the reader's memory back, once nothing is half read and all that came was taken. Whether
    /// it did: the connection has to be polled then, to be woken by it.
    fn drop_reader(&mut self) -> bool {
        let is_idle = |reader: &mut Box<Reader<Adapter>>| reader.get_ref().is_idle();
        self.reader.take_if(is_idle).is_some()
    }

    /// Lets go of the session, and of the reader.
    fn finish(self, end: End) -> Rc<Port> {
        let Self {
            reader,
            mount,
            shard,
            key,
            port,
        } = self;
        drop(reader);
        let engine = &mount.engine;
        if engine.transport(key) == Some(Transport::WebSocket) {
            if end.farewell != Farewell::None && engine.is_open(key) {
                // Answers to what came before the end are sent before the close frame.
                port.flush(&shard, &mount);
            }
            engine.close(key, end.reason);
        } else {
            shard.metrics().upgrades.increment("abandoned");
        }
        mount.ports.remove(key);
        engine.detach(key);
        port
    }
}

/// The message at the begin of a client's bytes, and how many of them it took; `None` if it is not plain.
/// No bytes are the end of the stream.
fn plain(bytes: &mut [u8], max_payload: usize) -> (Option<Result<Message, Error>>, usize) {
    if bytes.is_empty() {
        return (Some(Err(Error::ConnectionClosed)), 0);
    }
    match frame::plain(bytes, max_payload) {
        // The pong of a heartbeat: it needs no memory.
        Plain::Text(b"3", length) => (Some(Ok(Message::Text(Utf8Bytes::from_static("3")))), length),
        Plain::Text(text, length) => {
            let text = std::str::from_utf8(text).map(Utf8Bytes::from);
            let wrong = |_| Error::Utf8("a message of text".to_owned());
            (Some(text.map(Message::Text).map_err(wrong)), length)
        }
        Plain::Binary(payload, length) => {
            let payload = Bytes::copy_from_slice(payload);
            (Some(Ok(Message::Binary(payload))), length)
        }
        Plain::Other => (None, 0),
    }
}

/// The stream that tungstenite sees: it reads the connection, and what it writes waits in the port.
struct Adapter(Rc<Port>);

impl AsyncRead for Adapter {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut connection = self.0.connection().borrow_mut();
        Pin::new(&mut *connection).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Adapter {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let pushed = self.0.push_control(bytes);
        Poll::Ready(match pushed {
            Ok(()) => Ok(bytes.len()),
            Err(full) => Err(io::Error::other(full)),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Sends the last bytes, closes our half, then reads and throws away until the peer has closed too:
/// closing with unread bytes would send a reset, which destroys what the peer has not read yet.
async fn farewell(mut connection: Connection, bytes: Vec<u8>) {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    let deadlines = connection.shard().deadlines().clone();
    let stream = connection.stream();
    let written = deadlines.within(deadline, stream.write_all(&bytes)).await;
    if !matches!(written, Ok(Ok(()))) {
        return;
    }
    if stream.shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    loop {
        match connection.fill(deadline).await {
            Ok(1..) => connection.buffer().clear(),
            Err(Closed::TimedOut) => {
                connection.shard().metrics().bounds.increment("close_time");
                return;
            }
            _ => return,
        }
    }
}
