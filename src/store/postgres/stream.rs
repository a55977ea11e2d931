//! The way to a PostgreSQL server: its addresses, and a stream in the traits of its client.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::io::{AsyncRead, AsyncWrite};
use socket2::SockAddr;
use tokio::io::ReadBuf;
use tokio_postgres::config::Host;

use crate::dial;

/// Bytes that one read takes at most. The client's own buffer holds 8 KiB, and the server sends a page of
/// history in a packet of those and a rest: so that is one call of the system, not two or three.
const READ_BYTES: usize = 32 * 1024;

/// A stream of the executor, as the PostgreSQL client wants it.
pub(super) struct Compat<S> {
    stream: S,
    input: Box<[u8]>,
    /// What of the input the client has not taken yet.
    rest: Range<usize>,
}

impl<S> Compat<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            input: vec![0; READ_BYTES].into(),
            rest: 0..0,
        }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream alone, to be made secret. What the server has said out of turn before is thrown away:
    /// nobody vouches for it.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> tokio::io::AsyncRead for Compat<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            let count = ready!(Pin::new(&mut this.stream).poll_read(context, &mut this.input))?;
            this.rest = 0..count;
        }
        let count = this.rest.len().min(buffer.remaining());
        let end = this.rest.start + count;
        buffer.put_slice(&this.input[this.rest.start..end]);
        this.rest.start = end;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> tokio::io::AsyncWrite for Compat<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// The addresses of one host: a directory with a Unix socket, or what its name stands for.
pub(super) async fn addresses(host: &Host, port: u16) -> io::Result<Vec<SockAddr>> {
    match host {
        Host::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            Ok(vec![SockAddr::unix(path)?])
        }
        Host::Tcp(name) => dial::addresses(name, port).await,
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures_lite::io::Cursor;
    use tokio::io::AsyncRead as _;

    use super::*;

    #[test]
    fn a_read_takes_so_many_bytes_and_the_next_the_rest() {
        let sent: Vec<u8> = (0..READ_BYTES + 100).map(|n| n.to_le_bytes()[0]).collect();
        let mut stream = Compat::new(Cursor::new(sent.clone()));
        let mut context = Context::from_waker(Waker::noop());
        let mut memory = vec![0; 2 * READ_BYTES];
        let (mut got, mut counts) = (Vec::new(), Vec::new());
        // First through the client's own buffer, then through a large one.
        for room in [8_000, memory.len(), memory.len(), memory.len()] {
            let mut buffer = ReadBuf::new(&mut memory[..room]);
            let read = Pin::new(&mut stream).poll_read(&mut context, &mut buffer);
            assert!(matches!(read, Poll::Ready(Ok(()))));
            counts.push(buffer.filled().len());
            got.extend_from_slice(buffer.filled());
        }
        assert_eq!(counts, [8_000, READ_BYTES - 8_000, 100, 0]);
        assert_eq!(got, sent);
    }
}
