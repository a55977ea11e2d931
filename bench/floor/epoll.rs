//! The floor on epoll: a system call for each accept, read, send and close, as the peers have it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::chat::Chat;

/// Sockets that one turn looks at.
const EVENTS: usize = 1024;
/// Bytes that one read takes: all messages of a full window.
const READ_BYTES: usize = 64 * 1024;

/// Serves until it is killed.
pub(crate) fn serve(listener: &OwnedFd, mut chat: Chat) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    add(&epoll, listener, epoll::EventFlags::IN)?;
    let mut events = Vec::with_capacity(EVENTS);
    let mut scratch = vec![0; READ_BYTES];
    loop {
        let wait = Timespec::try_from(chat.wait()).map_err(io::Error::other)?;
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&epoll, room, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for &epoll::Event { flags, data } in &events {
            let fd = RawFd::try_from(data.u64()).map_err(io::Error::other)?;
            if fd == listener.as_raw_fd() {
                let socket = rustix::net::accept(listener)?;
                // Told once of all that has come: a turn need not look at it again.
                add(&epoll, &socket, READABLE | epoll::EventFlags::ET)?;
                chat.welcome(socket);
            } else if flags.intersects(GONE) {
                drop(chat.leave(fd));
            } else {
                take(&mut chat, fd, &mut scratch);
            }
        }
        chat.say(|socket, bytes| {
            // Whoever has gone is told by the next event.
            let _ = rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        });
        chat.said();
    }
}

const GONE: epoll::EventFlags = epoll::EventFlags::RDHUP
    .union(epoll::EventFlags::HUP)
    .union(epoll::EventFlags::ERR);
const READABLE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP);

fn add(epoll: &OwnedFd, socket: &OwnedFd, flags: epoll::EventFlags) -> io::Result<()> {
    let fd = u64::try_from(socket.as_raw_fd()).map_err(io::Error::other)?;
    Ok(epoll::add(
        epoll,
        socket.as_fd(),
        epoll::EventData::new_u64(fd),
        flags,
    )?)
}

/// Reads all that has come.
fn take(chat: &mut Chat, fd: RawFd, scratch: &mut [u8]) {
    while let Some(socket) = chat.socket(fd) {
        let Ok((count, _)) = rustix::net::recv(socket, &mut *scratch, RecvFlags::DONTWAIT) else {
            return;
        };
        chat.hear(fd, &scratch[..count]);
        if count < scratch.len() {
            return;
        }
    }
}
