//! The shard's own io_uring ring: many sends in one system call.
//!
//! A fan-out to a thousand connections is a thousand sends. One by one each costs a system call beside the
//! work in the kernel; here all of them are submitted together, none waits, and every completion is taken
//! before the call returns. So no buffer has to outlive it, and the executor does not know the ring.
//!
//! Descriptors are not registered with it: in seven rounds of a thousand sends of 180 bytes that won nothing clear
//! (4.3 to 4.9 µs a send, 4.2 to 5.1 without, 5.0 to 5.9 by a call each), and each connection would have to be.
//!
//! It does not receive: another ring tells which sockets can be read ([`readiness`](super::readiness)), and each
//! is read by a `recv`. A multishot receive into provided buffers would save that call; in a server that does
//! nothing else (`cargo bench --bench floor`) it saved nothing that could be measured: 44 to 46 µs a short life
//! either way, and it would have to be cancelled for each pause of a session and each move of a connection.

use std::io;
use std::os::fd::RawFd;

use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// Sends of one submission at most: about a millisecond of work.
pub const SENDS_MAX: usize = ENTRIES as usize;
const ENTRIES: u32 = 256;

/// One send.
#[derive(Debug, Clone, Copy)]
pub struct Send<'a> {
    /// The socket. Of one that is not open the kernel says so.
    pub socket: RawFd,
    /// What is sent: less than 4 GiB.
    pub bytes: &'a [u8],
}

/// A ring that only sends.
pub struct Ring {
    ring: IoUring,
}

impl Ring {
    /// A ring for the calling thread: only it may send. `Err` where the kernel gives none.
    pub fn new() -> io::Result<Self> {
        // Linux 6.1 and newer can leave the completions to the thread that submits.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)
            .or_else(|_| IoUring::new(ENTRIES))?;
        Ok(Self { ring })
    }

    /// Sends all of these, none of which waits. `results` gets, in their order, how many bytes the kernel
    /// took of each, or why it took none.
    ///
    /// # Panics
    /// With more than [`SENDS_MAX`] sends.
    pub fn send<'a>(
        &mut self,
        sends: impl ExactSizeIterator<Item = Send<'a>>,
        results: &mut Vec<Result<usize, Errno>>,
    ) {
        let mut left = sends.len();
        assert!(left <= SENDS_MAX, "one submission takes them all");
        results.clear();
        results.resize(left, Err(Errno::AGAIN));
        let flags = (SendFlags::DONTWAIT | SendFlags::NOSIGNAL).bits();
        let flags = flags.cast_signed();
        for (number, send) in sends.enumerate() {
            let socket = types::Fd(send.socket);
            let length = u32::try_from(send.bytes.len()).expect("a send is short");
            let entry = opcode::Send::new(socket, send.bytes.as_ptr(), length);
            let entry = entry.flags(flags).build().user_data(number as u64);
            #[expect(
                unsafe_code,
                reason = "the bytes are borrowed until this function returns, which it does only when the completion of each has been taken"
            )]
            let pushed = unsafe { self.ring.submission().push(&entry) };
            pushed.expect("the queue is empty at first and has a place for each");
        }
        while left > 0 {
            // What goes wrong here concerns the call and not the sends: those that the kernel has are
            // completed, the others still stand in the queue. Leaving now would leave them our memory.
            let _ = self.ring.submit_and_wait(left);
            for completion in self.ring.completion() {
                let number = usize::try_from(completion.user_data()).expect("a place");
                results[number] = match completion.result() {
                    error @ ..0 => Err(Errno::from_raw_os_error(-error)),
                    count => Ok(usize::try_from(count).expect("it is not negative")),
                };
                left -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn every_send_has_its_own_result() {
        let mut ring = Ring::new().expect("the kernel has io_uring");
        let (full, mut reader) = UnixStream::pair().expect("a pair");
        let (closed, other) = UnixStream::pair().expect("a pair");
        drop(other);
        let big = vec![7; 4 << 20];
        let send = |socket, bytes| Send { socket, bytes };
        let mut results = Vec::new();
        // More often than the queue is long, so that its ends meet.
        for _ in 0..3 {
            let sends: Vec<_> = (0..SENDS_MAX)
                .map(|_| send(closed.as_raw_fd(), b"hello"))
                .collect();
            ring.send(sends.iter().copied(), &mut results);
            assert_eq!(results, vec![Err(Errno::PIPE); SENDS_MAX]);
        }
        let sends = [
            send(full.as_raw_fd(), b"hello"),
            send(full.as_raw_fd(), &big),
            send(full.as_raw_fd(), b"hello"),
        ];
        ring.send(sends.into_iter(), &mut results);
        assert_eq!((results[0], results[2]), (Ok(5), Err(Errno::AGAIN)));
        assert!(results[1].is_ok_and(|count| count < 4 << 20), "{results:?}");
        let mut begin = [0; 6];
        reader.read_exact(&mut begin).expect("it was sent");
        assert_eq!(&begin, b"hello\x07");
    }
}
