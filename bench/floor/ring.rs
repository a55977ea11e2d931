//! The floor on a ring: all sends and closes of a turn, and its wait, are one system call.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::chat::Chat;

const ENTRIES: u32 = 4096;
/// Provided buffers, a power of two, and the bytes of each: all messages of a full window fit.
const BUFFERS: u16 = 256;
const BUFFER_BYTES: u16 = 16 * 1024;

/// How bytes come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A one-shot poll, then `recv`. Project-yum polls, too, but once for many arrivals.
    Poll,
    /// A multishot receive into provided buffers.
    Multishot,
}

/// What a completion is about; the lower half of its `user_data` is the descriptor.
const ACCEPT: u64 = 0;
const READ: u64 = 1 << 32;
/// Of sends and closes only failures are told, which a read tells, too.
const DONE: u64 = 2 << 32;

/// A server of one thread.
pub(crate) struct Floor {
    queue: Queue,
    reads: Reads,
    buffers: Buffers,
    listener: OwnedFd,
    chat: Chat,
    scratch: Vec<u8>,
}

impl Floor {
    pub(crate) fn new(reads: Reads, listener: OwnedFd, chat: Chat) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(16 * ENTRIES)
            .build(ENTRIES)?;
        Ok(Self {
            reads,
            buffers: Buffers::new(&ring)?,
            queue: Queue(ring),
            listener,
            chat,
            scratch: vec![0; BUFFER_BYTES.into()],
        })
    }

    /// Serves until it is killed.
    pub(crate) fn serve(mut self) -> io::Result<()> {
        self.accept();
        let mut completions = Vec::new();
        loop {
            let Self { chat, queue, .. } = &mut self;
            chat.say(|socket, bytes| queue.send(socket.as_raw_fd(), bytes));
            queue.wait(chat)?;
            // A send that must not wait is over when it is submitted.
            chat.said();
            completions.extend(queue.0.completion());
            for completion in completions.drain(..) {
                self.complete(&completion);
            }
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry) {
        let (about, result) = (completion.user_data(), completion.result());
        let is_last = !cqueue::more(completion.flags());
        let fd = RawFd::try_from(about & 0xffff_ffff).expect("a descriptor");
        match (about & !0xffff_ffff, self.reads) {
            (ACCEPT, _) => {
                if result >= 0 {
                    self.welcome(result);
                }
                if is_last {
                    self.accept();
                }
            }
            (DONE, _) => {}
            (_, Reads::Poll) if result & i32::from(libc::POLLRDHUP) != 0 => self.leave(fd),
            (_, Reads::Poll) => self.take(fd),
            (_, Reads::Multishot) => {
                let buffer = cqueue::buffer_select(completion.flags());
                if let Some(buffer) = buffer {
                    let count = usize::try_from(result).expect("a buffer was filled");
                    self.chat.hear(fd, self.buffers.filled(buffer, count));
                    self.buffers.give(buffer);
                }
                let starved = result == -Errno::NOBUFS.raw_os_error();
                match (is_last, buffer.is_some() || starved) {
                    (true, true) => self.read(fd),
                    (true, false) => self.leave(fd),
                    (false, _) => {}
                }
            }
        }
    }

    fn welcome(&mut self, fd: RawFd) {
        #[expect(unsafe_code, reason = "the kernel has just accepted it, for us alone")]
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        self.chat.welcome(socket);
        self.read(fd);
    }

    fn leave(&mut self, fd: RawFd) {
        if let Some(socket) = self.chat.leave(fd) {
            let entry = opcode::Close::new(Fd(socket.into_raw_fd())).build();
            self.queue.push_unanswered(entry);
        }
    }

    /// Reads what a poll has announced.
    fn take(&mut self, fd: RawFd) {
        let Some(socket) = self.chat.socket(fd) else {
            return;
        };
        match rustix::net::recv(socket, &mut *self.scratch, RecvFlags::DONTWAIT) {
            Ok((count @ 1.., _)) => {
                self.chat.hear(fd, &self.scratch[..count]);
                self.read(fd);
            }
            Err(Errno::AGAIN | Errno::INTR) => self.read(fd),
            Ok(_) | Err(_) => self.leave(fd),
        }
    }

    fn accept(&mut self) {
        let entry = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).build();
        self.queue.push(&entry.user_data(ACCEPT));
    }

    fn read(&mut self, fd: RawFd) {
        let entry = match self.reads {
            Reads::Poll => {
                let events = libc::POLLIN | libc::POLLRDHUP;
                opcode::PollAdd::new(Fd(fd), events.cast_unsigned().into()).build()
            }
            Reads::Multishot => opcode::RecvMulti::new(Fd(fd), Buffers::GROUP).build(),
        };
        let about = u64::try_from(fd).expect("descriptors are not negative");
        self.queue.push(&entry.user_data(READ | about));
    }
}

/// What is submitted next.
struct Queue(IoUring);

impl Queue {
    /// Submits what is queued, and waits for completions until somebody is to be pinged.
    fn wait(&self, chat: &Chat) -> io::Result<()> {
        let wait = Timespec::from(chat.wait());
        let arguments = SubmitArgs::new().timespec(&wait);
        match self.0.submitter().submit_with_args(1, &arguments) {
            Err(error) if error.raw_os_error() != Some(Errno::TIME.raw_os_error()) => Err(error),
            _ => Ok(()),
        }
    }

    /// The bytes have to stay until they are submitted.
    fn send(&mut self, fd: RawFd, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a window is short");
        let flags = (SendFlags::DONTWAIT | SendFlags::NOSIGNAL).bits();
        let entry = opcode::Send::new(Fd(fd), bytes.as_ptr(), length).flags(flags.cast_signed());
        self.push_unanswered(entry.build());
    }

    fn push_unanswered(&mut self, entry: squeue::Entry) {
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(DONE));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        #[expect(
            unsafe_code,
            reason = "what sends read stays until the queue is submitted, receives write into buffers that live as long as the ring"
        )]
        while unsafe { self.0.submission().push(entry) }.is_err() {
            // The queue is full: what is in it goes ahead.
            self.0.submit().expect("the ring takes its queue");
        }
    }
}
/// Memory that the kernel fills, and the ring in which it is given to it.
struct Buffers {
    entries: Box<[Page]>,
    memory: Vec<u8>,
    tail: u16,
}

#[derive(Clone)]
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "the kernel reads it")] [u8; 4096]);

impl Buffers {
    const GROUP: u16 = 0;

    fn new(ring: &IoUring) -> io::Result<Self> {
        let pages = usize::from(BUFFERS) * size_of::<BufRingEntry>() / size_of::<Page>();
        let mut buffers = Self {
            entries: vec![Page([0; 4096]); pages].into_boxed_slice(),
            memory: vec![0; usize::from(BUFFERS) * usize::from(BUFFER_BYTES)],
            tail: 0,
        };
        let address = buffers.entries.as_ptr() as u64;
        #[expect(
            unsafe_code,
            reason = "the pages do not move, and are dropped after the ring"
        )]
        unsafe {
            let submitter = ring.submitter();
            submitter.register_buf_ring_with_flags(address, BUFFERS, Self::GROUP, 0)?;
        }
        (0..BUFFERS).for_each(|buffer| buffers.give(buffer));
        Ok(buffers)
    }

    fn filled(&self, buffer: u16, count: usize) -> &[u8] {
        &self.memory[usize::from(buffer) * usize::from(BUFFER_BYTES)..][..count]
    }

    /// Gives a buffer to the kernel.
    fn give(&mut self, buffer: u16) {
        let at = usize::from(buffer) * usize::from(BUFFER_BYTES);
        let address = self.memory[at..].as_mut_ptr() as u64;
        let first = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        #[expect(
            unsafe_code,
            reason = "the entry is within the pages, and ours until the tail has passed it; the tail is the kernel's atomic of 16 bits"
        )]
        let tail = unsafe {
            let entry = &mut *first.add(usize::from(self.tail % BUFFERS));
            entry.set_addr(address);
            entry.set_len(BUFFER_BYTES.into());
            entry.set_bid(buffer);
            &*BufRingEntry::tail(first).cast::<AtomicU16>()
        };
        self.tail = self.tail.wrapping_add(1);
        tail.store(self.tail, Ordering::Release);
    }
}
