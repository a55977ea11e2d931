//! The server that does nothing but what the kernel asks for.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, Socket, Type};

const ENTRIES: u32 = 4096;
/// Provided buffers, a power of two, and the bytes of each: a CONNECT with its token fits.
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: u16 = 2048;
/// As project-yum and every peer.
const PING_INTERVAL: Duration = Duration::from_secs(25);
/// As `SLOTS_IN_INTERVAL` of the engine's table.
const BURSTS: u32 = 32;

/// With the accept key of the one nonce that the load sends.
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\
\x81\x560{\"sid\":\"floor\",\"upgrades\":[],\"pingInterval\":25000,\"pingTimeout\":20000,\"maxPayload\":1}";
const CONNECTED: &[u8] = b"\x81\x1140{\"sid\":\"floor\"}";
const PING: &[u8] = b"\x81\x012";

/// How bytes come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// A one-shot poll, then `recv`: as the runtime does for us.
    Poll,
    /// A multishot receive into provided buffers.
    Multishot,
}

/// What a completion is about; the lower half of its `user_data` is the descriptor.
const ACCEPT: u64 = 0;
const READ: u64 = 1 << 32;
const SEND: u64 = 2 << 32;

struct Client {
    socket: OwnedFd,
    is_websocket: bool,
}

/// A server of one thread.
pub(crate) struct Floor {
    ring: IoUring,
    reads: Reads,
    buffers: Buffers,
    listener: OwnedFd,
    /// What `GET` is answered.
    answer: &'static [u8],
    /// By descriptor.
    clients: Vec<Option<Client>>,
}

impl Floor {
    /// Listens on a port of loopback; `GET` will be answered so.
    pub(crate) fn new(reads: Reads, port: u16, answer: Vec<u8>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(16 * ENTRIES)
            .build(ENTRIES)?;
        let buffers = Buffers::new(&ring)?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        socket.listen(4096)?;
        Ok(Self {
            ring,
            reads,
            buffers,
            listener: socket.into(),
            answer: answer.leak(),
            clients: Vec::new(),
        })
    }

    /// Serves until it is killed.
    pub(crate) fn serve(mut self) -> io::Result<()> {
        self.accept();
        let burst = PING_INTERVAL / BURSTS;
        let (mut due, mut turn) = (Instant::now() + burst, 0);
        let mut completions = Vec::new();
        loop {
            let wait = Timespec::from(due.saturating_duration_since(Instant::now()));
            let arguments = SubmitArgs::new().timespec(&wait);
            match self.ring.submitter().submit_with_args(1, &arguments) {
                Err(error) if error.raw_os_error() != Some(Errno::TIME.raw_os_error()) => {
                    return Err(error);
                }
                _ => {}
            }
            completions.extend(self.ring.completion());
            for completion in completions.drain(..) {
                self.complete(&completion);
            }
            if Instant::now() >= due {
                self.ping(turn);
                (due, turn) = (due + burst, (turn + 1) % BURSTS as usize);
            }
        }
    }

    /// Pings those whose turn it is.
    fn ping(&mut self, turn: usize) {
        for fd in (turn..self.clients.len()).step_by(BURSTS as usize) {
            if let Some(client) = &self.clients[fd]
                && client.is_websocket
            {
                self.send(client.socket.as_raw_fd(), PING);
            }
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry) {
        let (about, result) = (completion.user_data(), completion.result());
        let is_last = !cqueue::more(completion.flags());
        let fd = RawFd::try_from(about & 0xffff_ffff).expect("a descriptor");
        match about & !0xffff_ffff {
            ACCEPT => {
                if result >= 0 {
                    self.welcome(result);
                }
                if is_last {
                    self.accept();
                }
            }
            // Only a send that failed is told, and then a read says so, too.
            SEND => {}
            _ if self.reads == Reads::Poll => self.take(fd),
            _ => {
                let buffer = cqueue::buffer_select(completion.flags());
                if let Some(buffer) = buffer {
                    let count = usize::try_from(result).expect("a buffer was filled");
                    let reply = self.reply(fd, self.buffers.filled(buffer, count));
                    self.buffers.give(buffer);
                    self.answer_with(fd, reply);
                }
                let starved = result == -Errno::NOBUFS.raw_os_error();
                match (is_last, buffer.is_some() || starved) {
                    (true, true) => self.read(fd),
                    (true, false) => self.clients[place(fd)] = None,
                    (false, _) => {}
                }
            }
        }
    }

    fn welcome(&mut self, fd: RawFd) {
        #[expect(unsafe_code, reason = "the kernel has just accepted it, for us alone")]
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let place = place(fd);
        if self.clients.len() <= place {
            self.clients.resize_with(place + 1, || None);
        }
        self.clients[place] = Some(Client {
            socket,
            is_websocket: false,
        });
        self.read(fd);
    }

    /// Reads what a poll has announced.
    fn take(&mut self, fd: RawFd) {
        let Some(client) = &self.clients[place(fd)] else {
            return;
        };
        let mut scratch = [0; BUFFER_BYTES as usize];
        match rustix::net::recv(&client.socket, &mut scratch, RecvFlags::DONTWAIT) {
            Ok((count @ 1.., _)) => {
                let reply = self.reply(fd, &scratch[..count]);
                self.answer_with(fd, reply);
                self.read(fd);
            }
            Err(Errno::AGAIN | Errno::INTR) => self.read(fd),
            Ok(_) | Err(_) => self.clients[place(fd)] = None,
        }
    }

    /// What is said to this, and whether the client is a WebSocket from then on. All that a client sends
    /// comes whole: it is one small write. The mask of its frames is zero.
    fn reply(&self, fd: RawFd, input: &[u8]) -> Option<(&'static [u8], bool)> {
        let has = |part: &[u8]| memchr::memmem::find(input, part).is_some();
        match self.clients[place(fd)].as_ref()?.is_websocket {
            true => has(b"40{").then_some((CONNECTED, true)),
            false if has(b"\r\nUpgrade:") => Some((UPGRADED, true)),
            false => Some((self.answer, false)),
        }
    }

    fn answer_with(&mut self, fd: RawFd, reply: Option<(&'static [u8], bool)>) {
        if let (Some((bytes, is_websocket)), Some(client)) = (reply, &mut self.clients[place(fd)]) {
            client.is_websocket = is_websocket;
            self.send(fd, bytes);
        }
    }

    fn accept(&mut self) {
        let entry = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).build();
        self.push(&entry.user_data(ACCEPT));
    }

    fn read(&mut self, fd: RawFd) {
        let entry = match self.reads {
            Reads::Poll => opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build(),
            Reads::Multishot => opcode::RecvMulti::new(Fd(fd), Buffers::GROUP).build(),
        };
        self.push(&entry.user_data(READ | place(fd) as u64));
    }

    fn send(&mut self, fd: RawFd, bytes: &'static [u8]) {
        let length = u32::try_from(bytes.len()).expect("a short answer");
        let entry = opcode::Send::new(Fd(fd), bytes.as_ptr(), length).flags(libc::MSG_NOSIGNAL);
        let entry = entry.build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(SEND | place(fd) as u64));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        #[expect(
            unsafe_code,
            reason = "sends read static memory, receives write into buffers that live as long as the ring"
        )]
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            // The queue is full: what is in it goes ahead.
            self.ring.submit().expect("the ring takes its queue");
        }
    }
}

/// A client's place among all.
fn place(fd: RawFd) -> usize {
    usize::try_from(fd).expect("descriptors are not negative")
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
