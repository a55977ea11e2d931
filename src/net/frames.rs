//! Reads the frames of a WebSocket, over any stream: the layer beneath a session's driver.
//!
//! tungstenite joins the frames to messages. [`Checked`] looks at the same bytes first, because the
//! library bounds fragments by nothing, and knows when the reader may be replaced to give back its
//! memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::Error;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use futures_lite::{AsyncRead, AsyncWrite};
use futures_util::FutureExt;

use super::flush::ControlFull;
use crate::wire::frame::{Heads, Violation};

/// Bytes that tungstenite keeps for reading on every connection. Measured over 9,000 idle sessions:
/// 256 cost 2.5 KiB of memory each in all, 1,024 cost 3.2, the default of 128 KiB would cost 130.
/// The connection reads into the shard's scratch, so a small buffer costs no system calls.
const READ_BUFFER_BYTES: usize = 256;

/// After a message of more bytes the reader is replaced, or it would keep that memory for good.
const MESSAGE_BYTES_KEPT: usize = 16 * 1024;

/// Bytes of control frames that tungstenite holds back at most; the stream takes them at once.
const WRITE_BUFFER_BYTES_MAX: usize = 1024;

/// Reads messages of a client.
pub type Reader<S> = WebSocketStream<Checked<S>>;

/// A reader of messages of at most `max_payload` bytes, its opening handshake done.
///
/// # Panics
/// Never: what the library does here does not wait.
pub fn reader<S: AsyncRead + AsyncWrite + Unpin>(stream: S, max_payload: usize) -> Reader<S> {
    let checked = Checked {
        stream,
        heads: Heads::new(max_payload),
        violation: None,
        grown: 0,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(max_payload))
        .max_frame_size(Some(max_payload));
    WebSocketStream::from_raw_socket(checked, Role::Server, Some(config))
        .now_or_never()
        .expect("a reader is made without waiting")
}

/// What an error of a reader means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The client is gone.
    Closed,
    /// The connection failed.
    Io,
    /// The client broke a rule: the close code that says so (RFC 6455 section 7.4.1).
    Violation(u16),
}

impl Failure {
    /// Sorts an error.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Closed,
            Error::Io(error) => violation(error).map_or(Self::Io, Self::Violation),
            Error::Utf8(_) => Self::Violation(1007),
            Error::Capacity(_) => Self::Violation(1009),
            _ => Self::Violation(1002),
        }
    }
}

/// The close code of what this layer itself reports as an error of the stream.
fn violation(error: &io::Error) -> Option<u16> {
    let inner = error.get_ref()?;
    if inner.is::<ControlFull>() {
        return Some(1002);
    }
    let violation = inner.downcast_ref::<Violation>();
    violation.map(|violation| violation.close_code())
}

/// A stream whose frame heads are looked at as they are read.
#[derive(Debug)]
pub struct Checked<S> {
    stream: S,
    heads: Heads,
    violation: Option<Violation>,
    /// Bytes of the messages read since the reader was made, until one was too big to keep.
    grown: usize,
}

impl<S> Checked<S> {
    /// Whether a big message came, and nothing else is half read: the reader should be replaced.
    #[must_use]
    pub fn is_grown(&self) -> bool {
        self.grown > MESSAGE_BYTES_KEPT && self.heads.is_between_messages()
    }

    /// Whether nothing is half read, so that the reader may go.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.heads.is_between_messages() && self.violation.is_none()
    }

    /// The stream, to write to it past the library.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Checked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(violation) = this.violation {
            return Poll::Ready(Err(io::Error::other(violation)));
        }
        let count = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if this.heads.is_between_messages() && this.grown <= MESSAGE_BYTES_KEPT {
            this.grown = 0;
        }
        this.grown += count;
        match this.heads.feed(&buffer[..count]) {
            Ok(()) => Poll::Ready(Ok(count)),
            Err((good, violation)) => {
                // What came before the bad frame still counts.
                this.violation = Some(violation);
                if good == 0 {
                    return Poll::Ready(Err(io::Error::other(violation)));
                }
                Poll::Ready(Ok(good))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Checked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
