//! The way to a PostgreSQL server: its addresses, and a stream in the traits of its client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::io::{AsyncRead, AsyncWrite};
use socket2::SockAddr;
use tokio::io::ReadBuf;
use tokio_postgres::config::Host;

use crate::dial;

/// A stream of the executor, as the PostgreSQL client wants it.
pub(super) struct Compat<S>(pub(super) S);

impl<S: AsyncRead + Unpin> tokio::io::AsyncRead for Compat<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unfilled = buffer.initialize_unfilled();
        let count = ready!(Pin::new(&mut self.0).poll_read(context, unfilled))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> tokio::io::AsyncWrite for Compat<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(context)
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
