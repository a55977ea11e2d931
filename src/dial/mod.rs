//! Ways out: connections of a shard to other servers, on its own ring.
//!
//! Whoever speaks to a database or to Redis opens its stream here ([`connect`]), makes it secret
//! ([`tls`]) and waits between two tries ([`backoff`]). What is said over it is not known here.

pub mod backoff;
pub mod tls;
mod verifier;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

use futures_lite::future::or;
use glommio::net::TcpStream;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

/// How long the kernel waits for what was sent to be acknowledged by the other side.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// After how much silence the kernel asks whether the other side is there, and how often again.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How often it asks in vain.
const KEEPALIVE_TRIES: u32 = 3;

/// What a host's name stands for.
pub async fn addresses(name: &str, port: u16) -> io::Result<Vec<SockAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![SocketAddr::new(address, port).into()]);
    }
    let name = name.to_owned();
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
pub fn connect(address: &SockAddr) -> io::Result<TcpStream> {
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

/// The value of a future, or `None` when the time was over first.
pub async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    or(async { Some(future.await) }, async {
        glommio::timer::sleep(time).await;
        None
    })
    .await
}
