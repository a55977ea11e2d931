//! One TCP connection: its stream, and the bytes that were read and not used yet.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use futures_lite::future::poll_once;
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::addresses::Refused;
use super::{Client, Origin, Shard, Stream};
use crate::wire::http::Framing;

/// Bytes kept of what a client sends before its earlier requests are answered.
pub const PIPELINE_BYTES_MAX: usize = 32 * 1024;
/// How long the peer may take to close after us, its bytes read and thrown away meanwhile.
pub const LINGER: Duration = Duration::from_secs(1);
/// How long the peer may take to read an answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a connection can be used no longer. The peer is gone, or was too slow; there is nobody to
/// tell.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The peer has closed it.
    #[error("closed by the peer")]
    ByPeer,
    /// The system reports an error.
    #[error("connection failed: {0}")]
    Failed(#[from] io::Error),
    /// The request was refused, the peer was told, and nothing more is read.
    #[error("the request was refused")]
    Refused,
    /// The peer did not read, or not write, in time.
    #[error("the peer was too slow")]
    TimedOut,
}

/// One TCP connection of this shard.
pub struct Connection {
    stream: Stream,
    buffer: BytesMut,
    origin: Origin,
    open: Open,
    /// The current request has a body that was not read to its end.
    body: bool,
    /// The connection ends with the current answer.
    ending: bool,
}

/// Counts a connection as long as it lives.
struct Open(Rc<Shard>);

impl Open {
    fn new(shard: Rc<Shard>) -> Self {
        shard.open.set(shard.open.get() + 1);
        if let Some(process) = shard.process.get() {
            process.opened();
        }
        shard.metrics.connections.increment(1.0);
        Self(shard)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if let Some(process) = self.0.process.get() {
            process.closed();
        }
        self.0.metrics.connections.decrement(1.0);
    }
}

impl Connection {
    /// A connection of `shard` over this socket, of which `buffer` was already read.
    #[must_use]
    pub fn new(
        shard: Rc<Shard>,
        socket: OwnedFd,
        origin: impl Into<Origin>,
        buffer: BytesMut,
    ) -> Self {
        Self {
            stream: Stream::new(&shard.readiness, socket),
            buffer,
            origin: origin.into(),
            open: Open::new(shard),
            body: false,
            ending: false,
        }
    }

    /// Begins a request whose body is framed so, or notes that its body was read.
    pub(super) fn begin(&mut self, framing: Framing) {
        self.body = framing != Framing::Length(0);
    }

    pub(super) fn has_body(&self) -> bool {
        self.body
    }

    /// Notes that the connection ends with the current answer.
    pub(super) fn end(&mut self) {
        self.ending = true;
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Gives back the memory of a buffer that holds nothing.
    pub(super) fn trim(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// The shard it belongs to.
    #[must_use]
    pub fn shard(&self) -> &Rc<Shard> {
        &self.open.0
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn origin_mut(&mut self) -> &mut Origin {
        &mut self.origin
    }

    /// Where it comes from, for the shard that it moves to: it counts there from now on.
    pub(super) fn take_origin(&mut self) -> Origin {
        let peer = self.origin.peer;
        std::mem::replace(&mut self.origin, peer.into())
    }

    /// Counts the connection for the client of its present request.
    pub(super) fn count_for(&mut self, client: &Client) -> Result<(), Refused> {
        if !client.is_limited {
            return Ok(());
        }
        let known = &self.origin.place;
        if known
            .as_ref()
            .is_some_and(|place| place.is_of(client.address))
        {
            return Ok(());
        }
        // The old place goes only when the new one is there: a proxy's connection, which carries
        // many clients, is new with the first of them only.
        let place = self.open.0.open_place(client.address, known.is_none())?;
        self.origin.place = place;
        Ok(())
    }

    /// What was read and not used yet.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The descriptor, for as long as this connection is borrowed.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.fd()
    }

    /// The stream, for reads and writes that this type does not know. The buffer's bytes come first.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Reads what has come into the buffer. `Ok(0)` is the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let shard = &self.open.0;
        let mut scratch = shard.scratch.borrow_mut();
        let count = std::task::ready!(self.stream.poll_read(cx, &mut scratch))?;
        shard.mark_active();
        self.buffer.extend_from_slice(&scratch[..count]);
        Poll::Ready(Ok(count))
    }

    /// Takes what has come already: with a new connection that is mostly its first request, which then need
    /// not be waited for. What goes wrong here, the next read says too.
    pub(super) fn take_arrived(&mut self) {
        let shard = &self.open.0;
        let mut scratch = shard.scratch.borrow_mut();
        if let Ok(count) = self.stream.try_read(&mut scratch) {
            self.buffer.extend_from_slice(&scratch[..count]);
        }
    }

    /// Gives `take` the bytes that were not used yet, or else what comes next: none at the end of the
    /// stream. It says how many of them it has used; the rest is kept. Whether they make the shard active
    /// is for the caller to say.
    pub(super) fn poll_take<R>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut [u8]) -> (R, usize),
    ) -> Poll<io::Result<R>> {
        if self.buffer.is_empty() {
            let shard = &self.open.0;
            let mut scratch = shard.scratch.borrow_mut();
            let count = std::task::ready!(self.stream.poll_read(cx, &mut scratch))?;
            let (result, used) = take(&mut scratch[..count]);
            self.buffer.extend_from_slice(&scratch[used..count]);
            return Poll::Ready(Ok(result));
        }
        let (result, used) = take(&mut self.buffer);
        self.buffer.advance(used);
        self.trim();
        Poll::Ready(Ok(result))
    }

    /// Reads something into the buffer before `deadline`; 0 bytes are the end of the stream.
    pub async fn fill(&mut self, deadline: Instant) -> Result<usize, Closed> {
        let deadlines = self.open.0.deadlines.clone();
        match deadlines
            .within(deadline, poll_fn(|cx| self.poll_fill(cx)))
            .await
        {
            Ok(result) => Ok(result?),
            Err(_) => Err(Closed::TimedOut),
        }
    }

    /// Writes all bytes; the peer has [`WRITE_TIMEOUT`] to take them.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        self.open.0.mark_active();
        let mut writing = self.stream.write_all(bytes);
        // Mostly the kernel takes it at once.
        if let Some(result) = poll_once(&mut writing).await {
            return Ok(result?);
        }
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let written = self.open.0.deadlines.within(deadline, writing);
        if let Ok(result) = written.await {
            return Ok(result?);
        }
        self.open.0.metrics.bounds.increment("write_time");
        Err(Closed::TimedOut)
    }

    /// Resolves when the peer has closed the connection or it failed. Bytes that come meanwhile stay
    /// in the buffer; at [`PIPELINE_BYTES_MAX`] reading stops, and with it the watch.
    ///
    /// It may be dropped at any time without losing a byte.
    pub async fn closed_by_peer(&mut self) -> Closed {
        loop {
            if self.buffer.len() >= PIPELINE_BYTES_MAX {
                self.open.0.metrics.bounds.increment("pipeline");
                return std::future::pending().await;
            }
            match poll_fn(|cx| self.poll_fill(cx)).await {
                Ok(0) => return Closed::ByPeer,
                Ok(_) => {}
                Err(error) => return Closed::Failed(error),
            }
        }
    }

    /// Ends the connection so that the peer gets to read what was sent: closes our half, then reads
    /// and throws away for at most [`LINGER`]. Closing with unread bytes would send a reset, which
    /// destroys what the peer has not read yet.
    pub async fn linger(mut self) {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        loop {
            match self.fill(deadline).await {
                Ok(1..) => self.buffer.clear(),
                Err(Closed::TimedOut) => {
                    return self.open.0.metrics.bounds.increment("linger_time");
                }
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() {
            // Through the shard's scratch, however small the reader's own buffer is: one call takes
            // what has come, and only what does not fit takes memory, until it is read.
            let this = &mut *self;
            let shard = &this.open.0;
            let mut scratch = shard.scratch.borrow_mut();
            let count = std::task::ready!(this.stream.poll_read(cx, &mut scratch))?;
            shard.mark_active();
            let fits = count.min(bytes.len());
            bytes[..fits].copy_from_slice(&scratch[..fits]);
            this.buffer.extend_from_slice(&scratch[fits..count]);
            return Poll::Ready(Ok(fits));
        }
        let count = bytes.len().min(self.buffer.len());
        self.buffer.copy_to_slice(&mut bytes[..count]);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open.0.mark_active();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
