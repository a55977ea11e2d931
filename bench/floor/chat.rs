//! What the floor says. Answers are made beforehand; of a message its bytes are copied between two others.
//!
//! It relies on what the load sends, and checks nothing: requests come whole, frames have a mask of zero, a
//! client is in one room. Nothing is bounded, stored or put in order: whoever reads gets bytes in the
//! order in which they came, and what the kernel does not take at once is lost (the load would tell).

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// As project-yum and every peer.
const PING_INTERVAL: Duration = Duration::from_secs(25);
/// As `SLOTS_IN_INTERVAL` of the engine's table.
const BURSTS: u32 = 32;

/// With the accept key of the one nonce that the load sends.
const UPGRADED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// The same, and the open packet of a session that begins with it.
const OPENED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\
\x81\x560{\"sid\":\"floor\",\"upgrades\":[],\"pingInterval\":25000,\"pingTimeout\":20000,\"maxPayload\":1}";
const CONNECTED: &[u8] = b"\x81\x1140{\"sid\":\"floor\"}";
const PING: &[u8] = b"\x81\x012";
const PROBED: &[u8] = b"\x81\x063probe";
/// The ack of the one room that a client joins.
const JOINED: &[u8] = b"\x81\x2d430[{\"ok\":true,\"roomId\":\"bench\",\"seq\":10000}]";

/// To a POST, to the GET of CONNECT's answer, and to the GET that waits for an upgrade.
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok";
const GREETED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\n\
Content-Length: 17\r\n\r\n40{\"sid\":\"floor\"}";
const RELEASED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\n\
Content-Length: 1\r\n\r\n6";

/// How the load asks for a session, and for one that it has.
const SESSION: &[u8] = b"GET /socket.io/?EIO=4&transport=";
const SID: &[u8] = b"&sid=floor-";
/// What stands before and behind the fields of a message that comes, and of one that goes out: as long
/// as ours, which tell the user, the moment, an id and a number.
const SENT: (&[u8], &[u8]) = (b"42[\"sendMessage\",{", b"}]");
const RECEIVED: (&[u8], &[u8]) = (
    b"42[\"receiveMessage\",{\"userId\":\"u0\",",
    b",\"timestamp\":\"2026-01-01T00:00:00.000Z\",\"id\":\"019b7a11-0000-7000-8000-000000000000\",\"seq\":10000}]",
);

/// What a connection is used for.
enum Link {
    /// Requests. `greeted`: the answer of CONNECT was fetched, the next GET waits.
    Http { greeted: bool },
    /// A WebSocket. `polling`: the place of the connection that waits until this one is probed.
    WebSocket { polling: Option<usize> },
}

struct Client {
    socket: OwnedFd,
    link: Link,
    room: Option<usize>,
    /// The begin of a frame that was cut where a read ended.
    rest: Vec<u8>,
}

/// Its members' places, and what all of them are sent at the end of a turn.
#[derive(Default)]
struct Room {
    members: Vec<usize>,
    frames: Vec<u8>,
}

/// All clients, by descriptor, and what waits to be sent to them.
pub(crate) struct Chat {
    /// What `GET /health` is answered.
    health: &'static [u8],
    clients: Vec<Option<Client>>,
    rooms: Vec<Room>,
    replies: Vec<(usize, &'static [u8])>,
    /// Rooms that have frames.
    speaking: Vec<usize>,
    /// The open packet of a polling session, by the descriptor that it names.
    openings: Vec<&'static [u8]>,
    /// When the next burst of pings is due, and which.
    due: Instant,
    burst: u32,
}

impl Chat {
    /// `health`: what `GET /health` is answered, whole.
    pub(crate) fn new(health: Vec<u8>) -> Self {
        Self {
            health: health.leak(),
            clients: Vec::new(),
            rooms: Vec::new(),
            replies: Vec::new(),
            speaking: Vec::new(),
            openings: Vec::new(),
            due: Instant::now() + PING_INTERVAL / BURSTS,
            burst: 0,
        }
    }

    /// Lets somebody in.
    pub(crate) fn welcome(&mut self, socket: OwnedFd) {
        let place = place(socket.as_raw_fd());
        if self.clients.len() <= place {
            self.clients.resize_with(place + 1, || None);
        }
        self.clients[place] = Some(Client {
            socket,
            link: Link::Http { greeted: false },
            room: None,
            rest: Vec::new(),
        });
    }

    /// Whose descriptor this is.
    pub(crate) fn socket(&self, fd: RawFd) -> Option<BorrowedFd<'_>> {
        let client = self.clients.get(place(fd))?.as_ref()?;
        Some(client.socket.as_fd())
    }

    /// Forgets somebody. The socket is the caller's, to be closed.
    pub(crate) fn leave(&mut self, fd: RawFd) -> Option<OwnedFd> {
        let client = self.clients.get_mut(place(fd))?.take()?;
        if let Some(room) = client.room {
            let members = &mut self.rooms[room].members;
            members.retain(|member| *member != place(fd));
        }
        Some(client.socket)
    }

    /// Takes what somebody has sent.
    pub(crate) fn hear(&mut self, fd: RawFd, input: &[u8]) {
        let place = place(fd);
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let Link::WebSocket { polling } = client.link else {
            return self.answer(place, input);
        };
        if client.rest.is_empty() {
            let used = self.frames(place, polling, input);
            if let (true, Some(client)) = (used < input.len(), &mut self.clients[place]) {
                client.rest = input[used..].to_vec();
            }
        } else {
            let mut all = std::mem::take(&mut client.rest);
            all.extend_from_slice(input);
            self.hear(fd, &all);
        }
    }

    /// Answers a request.
    fn answer(&mut self, place: usize, request: &[u8]) {
        let Some(query) = request.strip_prefix(SESSION) else {
            let is_post = request.starts_with(b"POST");
            let reply = if is_post { TAKEN } else { self.health };
            return self.replies.push((place, reply));
        };
        let Some(Client { link, .. }) = &mut self.clients[place] else {
            return;
        };
        if let Some(query) = query.strip_prefix(b"websocket") {
            let polling = query.strip_prefix(SID).map(number);
            *link = Link::WebSocket { polling };
            let reply = polling.map_or(OPENED, |_| UPGRADED);
            self.replies.push((place, reply));
        } else if !query[b"polling".len()..].starts_with(SID) {
            let reply = self.opening(place);
            self.replies.push((place, reply));
        } else if let Link::Http { greeted } = link
            && !std::mem::replace(greeted, true)
        {
            self.replies.push((place, GREETED));
        }
    }

    /// The open packet of the polling session of this connection, made once.
    fn opening(&mut self, place: usize) -> &'static [u8] {
        for place in self.openings.len()..=place {
            let body = format!(
                r#"0{{"sid":"floor-{place}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1}}"#
            );
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            self.openings.push(answer.leak().as_bytes());
        }
        self.openings[place]
    }

    /// Takes the frames that are whole. Returns how many bytes they are.
    fn frames(&mut self, place: usize, polling: Option<usize>, input: &[u8]) -> usize {
        let mut used = 0;
        while let Some((payload, length)) = frame(&input[used..]) {
            used += length;
            if payload.starts_with(b"42[") {
                self.message(place, payload);
            } else if payload.starts_with(b"40") {
                self.replies.push((place, CONNECTED));
            } else if payload.starts_with(b"420[") {
                self.join(place, payload);
            } else if payload == b"2probe" {
                self.replies.push((place, PROBED));
                self.replies
                    .extend(polling.map(|polling| (polling, RELEASED)));
            }
        }
        used
    }

    /// Puts a client into a room: the number behind the first `-` says which.
    fn join(&mut self, place: usize, payload: &[u8]) {
        let dash = memchr::memchr(b'-', payload).expect("rooms have numbers");
        let room = number(&payload[dash + 1..]);
        if self.rooms.len() <= room {
            self.rooms.resize_with(room + 1, Room::default);
        }
        self.rooms[room].members.push(place);
        if let Some(client) = &mut self.clients[place] {
            client.room = Some(room);
        }
        self.replies.push((place, JOINED));
    }

    /// Copies a message into its room's frames.
    fn message(&mut self, place: usize, payload: &[u8]) {
        let room = self.clients[place].as_ref().and_then(|client| client.room);
        let room = room.expect("who sends has joined");
        let fields = &payload[SENT.0.len()..payload.len() - SENT.1.len()];
        let length = RECEIVED.0.len() + fields.len() + RECEIVED.1.len();
        let length = u16::try_from(length).expect("messages are short");
        let frames = &mut self.rooms[room].frames;
        if frames.is_empty() {
            self.speaking.push(room);
        }
        frames.extend([0x81, 126]);
        frames.extend(length.to_be_bytes());
        for part in [RECEIVED.0, fields, RECEIVED.1] {
            frames.extend_from_slice(part);
        }
    }

    /// How long nobody has to be pinged.
    pub(crate) fn wait(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Tells `send` all that is to be sent at the end of a turn: each reply, and to each member of a room
    /// all its messages as one.
    pub(crate) fn say(&mut self, mut send: impl FnMut(BorrowedFd<'_>, &[u8])) {
        if self.wait().is_zero() {
            self.ping();
        }
        let mut say = |place: usize, bytes: &[u8]| {
            if let Some(Some(client)) = self.clients.get(place) {
                send(client.socket.as_fd(), bytes);
            }
        };
        for (place, bytes) in self.replies.drain(..) {
            say(place, bytes);
        }
        for room in &self.speaking {
            let Room { members, frames } = &self.rooms[*room];
            for member in members {
                say(*member, frames);
            }
        }
    }

    /// Forgets what was said: the kernel has it.
    pub(crate) fn said(&mut self) {
        for room in self.speaking.drain(..) {
            self.rooms[room].frames.clear();
        }
    }

    /// Pings those whose turn it is.
    fn ping(&mut self) {
        let due = (self.burst as usize..self.clients.len()).step_by(BURSTS as usize);
        self.replies.extend(due.filter_map(|place| {
            let client = self.clients[place].as_ref()?;
            matches!(client.link, Link::WebSocket { .. }).then_some((place, PING))
        }));
        self.due += PING_INTERVAL / BURSTS;
        self.burst = (self.burst + 1) % BURSTS;
    }
}

/// A client's place among all.
fn place(fd: RawFd) -> usize {
    usize::try_from(fd).expect("descriptors are not negative")
}

/// The payload of the frame that the input begins with, and the frame's length; `None` if it is not whole.
fn frame(input: &[u8]) -> Option<(&[u8], usize)> {
    let (head, length) = match input.get(1)? & 0x7f {
        126 => (8, u16::from_be_bytes([*input.get(2)?, *input.get(3)?])),
        short => (6, short.into()),
    };
    let end = head + usize::from(length);
    Some((input.get(head..end)?, end))
}

/// The number that the text begins with.
fn number(text: &[u8]) -> usize {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}
