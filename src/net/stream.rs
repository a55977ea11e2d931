//! Sockets of a shard: connections, and the listeners that they come from.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncWrite;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, acceptfrom_with, recv, send, shutdown};

use super::readiness::{Readiness, Watched};

/// One TCP connection, as a shard reads and writes it.
pub struct Stream {
    // Let go of before the socket is closed.
    watched: Watched,
    socket: OwnedFd,
}

impl Stream {
    pub(super) fn new(readiness: &Rc<Readiness>, socket: OwnedFd) -> Self {
        Self {
            watched: readiness.watch(socket.as_fd()),
            socket,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what is there. `WouldBlock`: nothing.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len();
        let result = loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        match result {
            Ok((count @ 1.., _)) if count < room => self.watched.found_less(),
            Err(Errno::AGAIN) => self.watched.found_nothing(),
            Ok(_) | Err(_) => {}
        }
        Ok(result?.0)
    }

    /// Reads something; 0 bytes are the end.
    pub(super) fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.watched.poll_readable(cx));
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Has the task woken when the kernel, which did not take all, takes more.
    pub(super) fn wait_for_writable(&self, cx: &Context<'_>) {
        self.watched.wait_for_writable(cx);
    }

    /// Ends one direction, or both.
    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(shutdown(&self.socket, how)?)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match send(&self.socket, bytes, flags) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.watched.wait_for_writable(cx);
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown(Shutdown::Write))
    }
}

/// A listening socket, as a shard accepts from it.
pub(super) struct Listener {
    watched: Watched,
    socket: OwnedFd,
}

impl Listener {
    /// The socket is one that does not block.
    pub(super) fn new(readiness: &Rc<Readiness>, socket: OwnedFd) -> Self {
        Self {
            watched: readiness.watch(socket.as_fd()),
            socket,
        }
    }

    /// Accepts a connection, and says who it is from, if the kernel does.
    pub(super) fn poll_accept(
        &self,
        cx: &Context<'_>,
    ) -> Poll<io::Result<(OwnedFd, Option<SocketAddr>)>> {
        loop {
            ready!(self.watched.poll_readable(cx));
            match acceptfrom_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    return Poll::Ready(Ok((socket, peer)));
                }
                Err(Errno::AGAIN) => self.watched.found_nothing(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}
