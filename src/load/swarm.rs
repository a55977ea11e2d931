//! Many clients on one thread: sockets in an epoll set, HTTP answers and WebSocket frames taken apart.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use socket2::{Domain, Protocol, Socket, Type};

use super::{LoadError, frames, server};

/// Bytes that one read takes.
const SCRATCH_BYTES: usize = 512 * 1024;
/// Sockets that one turn looks at.
const EVENTS: usize = 1024;
/// Source addresses on loopback that take turns, so that the ports of one do not run out.
const SOURCES: u8 = 8;

/// What a client hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// The connection is a WebSocket now.
    Upgraded,
    /// An HTTP answer.
    Response {
        /// Its status.
        status: u16,
        /// Its body.
        body: &'a [u8],
    },
    /// The payload of a text frame; Engine.IO's pings are answered already.
    Text(&'a [u8]),
    /// The server has closed.
    Closed,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    /// The begin of what has not come whole yet.
    input: Vec<u8>,
    /// What the kernel did not take.
    output: Vec<u8>,
    is_websocket: bool,
    waits_for_room: bool,
    is_over: bool,
}

impl Client {
    /// Sends, now or as soon as the kernel takes it.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let mut sent = 0;
        if self.output.is_empty() {
            sent = self.stream.write(bytes).unwrap_or(0);
        }
        self.output.extend_from_slice(&bytes[sent..]);
    }

    /// Closes, once this turn is over.
    pub(super) fn close(&mut self) {
        self.is_over = true;
    }

    fn flush(&mut self) {
        if let Ok(sent) = self.stream.write(&self.output) {
            self.output.drain(..sent);
        }
    }
}

/// All clients.
pub(super) struct Swarm {
    epoll: OwnedFd,
    address: SocketAddr,
    host: String,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    scratch: Vec<u8>,
    events: Vec<epoll::Event>,
    source: u8,
}

impl Swarm {
    pub(super) fn new(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            address,
            host: address.to_string(),
            clients: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            events: Vec::with_capacity(EVENTS),
            source: 0,
        })
    }

    /// What a request's `Host` says.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Opens a connection and sends its first bytes. Returns its number.
    pub(super) fn connect(&mut self, first: &[u8]) -> Result<usize, LoadError> {
        let domain = Domain::for_address(self.address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            self.source = self.source % SOURCES + 1;
            let source = Ipv4Addr::new(127, 0, 1, self.source);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&self.address.into()) {
            Err(error)
                if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                return Err(error.into());
            }
            _ => {}
        }
        let mut client = Client {
            stream: socket.into(),
            input: Vec::new(),
            output: Vec::new(),
            is_websocket: false,
            waits_for_room: true,
            is_over: false,
        };
        client.send(first);
        client.waits_for_room = !client.output.is_empty();
        let number = self.free.pop().unwrap_or(self.clients.len());
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, &client.stream, data, interest(&client))
            .map_err(io::Error::from)?;
        if number == self.clients.len() {
            self.clients.push(None);
        }
        self.clients[number] = Some(client);
        Ok(number)
    }

    /// Opens a WebSocket; `sid` is that of a polling session.
    pub(super) fn open(&mut self, sid: Option<&str>) -> Result<usize, LoadError> {
        let request = frames::opening(&self.host, sid);
        self.connect(&request)
    }

    /// Sends on a connection.
    pub(super) fn send(&mut self, number: usize, bytes: &[u8]) -> io::Result<()> {
        if let Some(client) = self.clients[number].as_mut() {
            client.send(bytes);
        }
        self.settle(number)
    }

    /// Closes a connection.
    pub(super) fn close(&mut self, number: usize) -> io::Result<()> {
        if let Some(client) = self.clients[number].as_mut() {
            client.close();
        }
        self.settle(number)
    }

    /// Whether this connection has sent all that it was given.
    pub(super) fn is_flushed(&self, number: usize) -> bool {
        self.clients[number]
            .as_ref()
            .is_none_or(|client| client.output.is_empty())
    }

    fn settle(&mut self, number: usize) -> io::Result<()> {
        let Some(client) = self.clients[number].as_mut() else {
            return Ok(());
        };
        if client.is_over {
            self.clients[number] = None;
            self.free.push(number);
            return Ok(());
        }
        if client.waits_for_room == client.output.is_empty() {
            client.waits_for_room = !client.output.is_empty();
            let data = epoll::EventData::new_u64(number as u64);
            epoll::modify(&self.epoll, &client.stream, data, interest(client))?;
        }
        Ok(())
    }

    /// Waits at most so long, then tells `hear` all that has come. What it opens or sends on other
    /// connections has to wait until this returns.
    pub(super) fn turn(
        &mut self,
        timeout: Duration,
        mut hear: impl FnMut(usize, &mut Client, Heard<'_>),
    ) -> Result<(), LoadError> {
        let timeout = Timespec::try_from(timeout).map_err(|_| server("is waited for too long"))?;
        self.events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        for place in 0..self.events.len() {
            let epoll::Event { flags, data } = self.events[place];
            let number = usize::try_from(data.u64()).expect("a connection's number");
            let Some(mut client) = self.clients[number].take() else {
                continue;
            };
            if flags.contains(epoll::EventFlags::OUT) {
                client.flush();
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.read(number, &mut client, &mut hear)?;
            }
            self.clients[number] = Some(client);
            self.settle(number)?;
        }
        Ok(())
    }

    fn read(
        &mut self,
        number: usize,
        client: &mut Client,
        hear: &mut impl FnMut(usize, &mut Client, Heard<'_>),
    ) -> Result<(), LoadError> {
        let count = match client.stream.read(&mut self.scratch) {
            Ok(0) => 0,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => 0,
        };
        if count == 0 {
            hear(number, client, Heard::Closed);
            client.close();
            return Ok(());
        }
        let kept = std::mem::take(&mut client.input);
        if kept.is_empty() {
            let used = take_apart(number, client, &self.scratch[..count], hear)?;
            client.input = self.scratch[used..count].to_vec();
        } else {
            let mut all = kept;
            all.extend_from_slice(&self.scratch[..count]);
            let used = take_apart(number, client, &all, hear)?;
            all.drain(..used);
            // Idle clients keep no memory.
            client.input = if all.is_empty() { Vec::new() } else { all };
        }
        Ok(())
    }
}

fn interest(client: &Client) -> epoll::EventFlags {
    if client.waits_for_room {
        epoll::EventFlags::IN | epoll::EventFlags::OUT
    } else {
        epoll::EventFlags::IN
    }
}

/// Tells what is whole of the input. Returns how many bytes that was.
fn take_apart(
    number: usize,
    client: &mut Client,
    input: &[u8],
    hear: &mut impl FnMut(usize, &mut Client, Heard<'_>),
) -> Result<usize, LoadError> {
    let mut used = 0;
    while used < input.len() && !client.is_over {
        let rest = &input[used..];
        if client.is_websocket {
            let Some((first, payload, length)) = frame(rest) else {
                break;
            };
            used += length;
            match (first, payload) {
                (0x81, b"2") => client.send(&frames::text(b"3")),
                (0x81, payload) => hear(number, client, Heard::Text(payload)),
                (0x89, payload) => client.send(&frames::pong(payload)),
                (0x88, _) => {
                    hear(number, client, Heard::Closed);
                    client.close();
                }
                (first, _) => {
                    return Err(server(format!("sent a frame that begins with {first:#x}")));
                }
            }
        } else {
            let Some((status, body, length)) = response(rest)? else {
                break;
            };
            used += length;
            if status == 101 {
                client.is_websocket = true;
                hear(number, client, Heard::Upgraded);
            } else {
                hear(number, client, Heard::Response { status, body });
            }
        }
    }
    Ok(used)
}

/// First byte, payload and whole length of a server's frame.
fn frame(input: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (head, length) = match *input.get(1)? {
        short @ 0..=125 => (2, usize::from(short)),
        126 => (
            4,
            usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?)),
        ),
        _ => {
            let length = u64::from_be_bytes(input.get(2..10)?.try_into().ok()?);
            (10, usize::try_from(length).ok()?)
        }
    };
    let payload = input.get(head..head + length)?;
    Some((input[0], payload, head + length))
}

/// Status, body and whole length of an answer.
type Answer<'a> = (u16, &'a [u8], usize);

/// An answer, if it is whole. A chunked body is given as it came.
fn response(input: &[u8]) -> Result<Option<Answer<'_>>, LoadError> {
    let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&input[..end]).map_err(|_| server("sent no HTTP"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or_else(|| server("sent no HTTP"))?;
    let body = &input[end + 4..];
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let length = if status == 101 || status == 204 {
        Some(0)
    } else if let Some(length) = field("content-length") {
        length.parse().ok()
    } else {
        let last = body.windows(5).position(|w| w == b"0\r\n\r\n");
        let Some(last) = last else { return Ok(None) };
        Some(last + 5)
    };
    let length: usize = length.ok_or_else(|| server("sent a wrong Content-Length"))?;
    let body = body.get(..length);
    Ok(body.map(|body| (status, body, end + 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_frames_and_answers_apart_wherever_they_are_cut() {
        let long = vec![b'a'; 300];
        let mut bytes = vec![0x81, 2, b'h', b'i', 0x81, 126, 1, 44];
        bytes.extend(&long);
        assert_eq!(frame(&bytes[..3]), None);
        assert_eq!(frame(&bytes), Some((0x81, &b"hi"[..], 4)));
        assert_eq!(frame(&bytes[4..100]), None);
        assert_eq!(frame(&bytes[4..]), Some((0x81, &long[..], 304)));

        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP";
        assert_eq!(response(&answer[..answer.len() - 5]).unwrap(), None);
        let whole = response(answer).unwrap();
        assert_eq!(whole, Some((200, &b"ok"[..], answer.len() - 4)));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(response(&chunked[..chunked.len() - 1]).unwrap(), None);
        assert_eq!(
            response(chunked).unwrap().map(|(.., length)| length),
            Some(chunked.len())
        );
    }
}
