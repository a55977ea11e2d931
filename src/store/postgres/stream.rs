//! The way to a PostgreSQL server: a socket on this shard's ring, in the traits of its client.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use tokio::io::ReadBuf;
use tokio_postgres::config::Host;

/// How long the kernel waits for what was sent to be acknowledged by the other side.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// After how much silence the kernel asks whether the other side is there, and how often again.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How often it asks in vain.
const KEEPALIVE_TRIES: u32 = 3;

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
    let name = match host {
        Host::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            return Ok(vec![SockAddr::unix(path)?]);
        }
        Host::Tcp(name) => name.clone(),
    };
    if let Ok(address) = name.parse() {
        return Ok(vec![SocketAddr::new(address, port).into()]);
    }
    // Asking for a name may take seconds: not on the shard's own thread.
    let resolve = move || {
        (name.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect)
    };
    let found: Vec<SocketAddr> = glommio::executor().spawn_blocking(resolve).await?;
    Ok(found.into_iter().map(Into::into).collect())
}

/// Begins to connect. The first write waits until it is done, or brings its error.
pub(super) fn connect(address: &SockAddr) -> io::Result<TcpStream> {
    let unix = address.domain() == Domain::UNIX;
    let protocol = (!unix).then_some(Protocol::TCP);
    let socket = Socket::new(address.domain(), Type::STREAM, protocol)?;
    socket.set_nonblocking(true)?;
    if !unix {
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
        socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TRIES))?;
    }
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
        _ => {}
    }
    #[expect(
        unsafe_code,
        reason = "glommio takes a socket with options, or a Unix one, only by its descriptor"
    )]
    // SAFETY: the descriptor is open, and nobody else has it.
    unsafe {
        Ok(TcpStream::from_raw_fd(socket.into_raw_fd()))
    }
}

/// What `connect` says when it goes on in the background.
const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();
