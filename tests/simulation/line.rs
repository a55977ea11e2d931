//! A client's connection as bytes and requests see it: polling, the upgrade, the WebSocket, and every way in
//! which these break. Both ends are here: what a browser does, and what `net` does with the engine.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use project_yum::engine::{CloseReason, Engine, Key, Outcome, Sid, Transport};
use project_yum::wire::engine_io::{Packet, Packets, decode, decode_payload};
use project_yum::wire::{Content, Text};

use crate::dice::Dice;

/// What the machine below takes from the server though the client does not read.
const KERNEL_BYTES: usize = 8_192;

/// What a client sends: an Engine.IO packet, or the bytes of a binary message.
#[derive(Debug, Clone)]
pub(crate) enum Out {
    Text(String),
    Binary(Vec<u8>),
}

/// How a connection is, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Whole,
    /// The client has closed; what it sent before still comes.
    Closed,
    /// It was reset: what was on its way is lost.
    Reset,
    /// It is gone, and nobody knows.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Polling,
    /// A WebSocket is there and was not granted yet.
    Probing,
    /// It was granted; `5` goes out when no request is under way.
    Granted,
    WebSocket,
}

/// How much of what the server sent is read in a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) packets: usize,
    /// A write may stop in the middle of a frame.
    pub(crate) is_torn: bool,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others"
)]
pub(crate) struct Line {
    pub(crate) host: usize,
    pub(crate) shard: usize,
    pub(crate) key: Key,
    sid: Sid,
    way: Way,
    up: VecDeque<Out>,
    post: Option<Packets>,
    is_polling: bool,
    payload: Option<Text>,
    down: BytesMut,
    /// A WebSocket refers to the session.
    is_attached: bool,
    fate: Fate,
    is_over: bool,
    /// The upgrade will not be finished by the client.
    is_stuck: bool,
}

impl Line {
    pub(crate) fn new(engine: &Engine, host: usize, shard: usize, key: Key) -> Self {
        let transport = engine.transport(key).expect("it was just opened");
        let way = match transport {
            Transport::Polling => Way::Polling,
            Transport::WebSocket => Way::WebSocket,
        };
        Self {
            host,
            shard,
            key,
            sid: engine.sid(key).expect("it was just opened"),
            way,
            up: VecDeque::new(),
            post: None,
            is_polling: false,
            payload: None,
            down: BytesMut::new(),
            is_attached: way == Way::WebSocket,
            fate: Fate::Whole,
            is_over: false,
            is_stuck: false,
        }
    }

    pub(crate) fn say(&mut self, what: Out) {
        self.up.push_back(what);
    }

    /// Packets that have not been taken by the server.
    pub(crate) fn backlog(&self) -> usize {
        self.up.len()
    }

    /// Whether anything is under way.
    pub(crate) fn is_active(&self, engine: &Engine) -> bool {
        !self.up.is_empty()
            || self.post.is_some()
            || self.payload.is_some()
            || !self.down.is_empty()
            || engine.outbox_bytes(self.key) > 0
            || matches!(self.way, Way::Probing | Way::Granted)
    }

    /// Bytes that wait for the client to read them, at the server and on the way.
    pub(crate) fn unread(&self, engine: &Engine) -> usize {
        let payload = self.payload.as_ref().map_or(0, |payload| payload.len());
        engine.outbox_bytes(self.key) + self.down.len() + payload
    }

    /// The client has seen the end of it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over && self.down.is_empty() && self.payload.is_none()
    }

    /// Nobody will look at it any more.
    pub(crate) fn is_gone(&self, engine: &Engine) -> bool {
        let is_idle = !self.is_attached && !self.is_polling && self.post.is_none();
        is_idle && !engine.is_open(self.key)
    }

    /// The client leaves, one way or another.
    pub(crate) fn end(&mut self, engine: &Engine, fate: Fate) {
        self.fate = fate;
        if fate != Fate::Closed || self.way != Way::WebSocket {
            self.up.clear();
        }
        if fate == Fate::Silent {
            return;
        }
        let lost = self.payload.take().is_some();
        if std::mem::take(&mut self.is_polling) || lost && fate == Fate::Reset {
            engine.abort_poll(self.key);
        }
        if self.post.take().is_some() {
            engine.abort_post(self.key);
        }
        if fate == Fate::Reset || self.way != Way::WebSocket {
            self.let_go(engine, CloseReason::TransportClose);
        }
    }

    /// The server's driver of a WebSocket ends.
    fn let_go(&mut self, engine: &Engine, reason: CloseReason) {
        if !std::mem::take(&mut self.is_attached) {
            return;
        }
        if engine.transport(self.key) == Some(Transport::WebSocket) {
            engine.close(self.key, reason);
        }
        engine.detach(self.key);
        if self.way == Way::WebSocket {
            self.is_over = true;
        } else {
            self.way = Way::Polling;
        }
    }

    /// Begins an upgrade, if it may.
    pub(crate) fn upgrade(&mut self, engine: &Engine) {
        if self.way != Way::Polling || self.is_over {
            return;
        }
        if engine.find(&self.sid).is_some() && engine.begin_probe(self.key).is_ok() {
            self.is_attached = true;
            self.is_stuck = false;
            self.way = Way::Probing;
        }
    }

    /// Does to an upgrade what it must survive; `None`: it was nothing.
    pub(crate) fn disturb(&mut self, engine: &Engine, dice: &Dice) -> Option<&'static str> {
        let is_upgrading = matches!(self.way, Way::Probing | Way::Granted);
        Some(match dice.below(5) {
            0 if is_upgrading => {
                self.let_go(engine, CloseReason::TransportClose);
                "abandons its upgrade"
            }
            1 if is_upgrading => {
                self.receive_probe(engine, Packet::Noop);
                "says nonsense in its upgrade"
            }
            2 if is_upgrading => {
                self.is_stuck = true;
                "forgets its upgrade"
            }
            3 => {
                assert!(engine.begin_probe(self.key).is_err() || !is_upgrading);
                if !is_upgrading && engine.is_probing(self.key) {
                    engine.detach(self.key);
                }
                "sends a second WebSocket"
            }
            4 if self.is_polling && dice.chance(300) => {
                self.is_over |= engine.begin_poll(self.key).is_err();
                "polls twice"
            }
            _ => return None,
        })
    }

    /// A turn: the server reads and writes, then the client does. Returns the packets that came.
    pub(crate) fn turn(&mut self, engine: &Engine, dice: &Dice, reading: Reading) -> Vec<Out> {
        if self.is_attached {
            self.serve_websocket(engine, dice, reading.is_torn);
        }
        self.serve_polling(engine);
        if self.fate != Fate::Whole {
            return Vec::new();
        }
        let mut packets = Vec::new();
        self.read(reading.packets, &mut packets);
        if self.way != Way::WebSocket {
            self.go_on_polling(engine, dice, reading.packets > 0);
        }
        packets
    }

    fn serve_websocket(&mut self, engine: &Engine, dice: &Dice, is_torn: bool) {
        let travels = engine.transport(self.key) == Some(Transport::WebSocket);
        if travels && let Some(reason) = engine.closing(self.key) {
            self.flush(engine, dice, is_torn);
            if engine.outbox_bytes(self.key) == 0 {
                self.let_go(engine, reason);
            }
            return;
        }
        let is_ours = if travels {
            engine.is_open(self.key)
        } else {
            engine.is_probing(self.key)
        };
        if !is_ours {
            return self.let_go(engine, CloseReason::TransportError);
        }
        if !travels {
            return self.serve_probe(engine, dice);
        }
        self.flush(engine, dice, is_torn);
        while self.is_attached && !engine.is_paused(self.key) && dice.chance(900) {
            let Some(out) = self.up.pop_front() else {
                if self.fate == Fate::Closed {
                    self.flush(engine, dice, false);
                    self.let_go(engine, CloseReason::TransportClose);
                }
                return;
            };
            let packet = match out {
                Out::Text(text) => decode(&text.as_str().into()).expect("a client's packet"),
                Out::Binary(bytes) => Packet::Message(Content::Binary(bytes.into())),
            };
            if engine.receive(self.key, Transport::WebSocket, packet) == Outcome::Closed {
                return;
            }
        }
    }

    fn serve_probe(&mut self, engine: &Engine, dice: &Dice) {
        if self.is_stuck || dice.chance(300) {
            return;
        }
        match self.way {
            Way::Probing => self.receive_probe(engine, Packet::Ping { probe: true }),
            // The client waits for its requests to end before it says the last word.
            Way::Granted if !self.is_polling && self.payload.is_none() && self.post.is_none() => {
                self.receive_probe(engine, Packet::Upgrade);
            }
            _ => {}
        }
    }

    fn receive_probe(&mut self, engine: &Engine, packet: Packet) {
        match engine.receive(self.key, Transport::WebSocket, packet) {
            Outcome::AnswerProbe => self.way = Way::Granted,
            Outcome::Upgraded => self.way = Way::WebSocket,
            Outcome::ProbeRefused => self.let_go(engine, CloseReason::TransportError),
            Outcome::Closed | Outcome::Taken(_) => {}
        }
    }

    /// Writes what waits, as much as the connection takes.
    fn flush(&mut self, engine: &Engine, dice: &Dice, is_torn: bool) {
        let waiting = engine.transmit(self.key, |waiting| {
            waiting.frames().take(64).collect::<Vec<_>>().concat()
        });
        let room = KERNEL_BYTES.saturating_sub(self.down.len());
        let mut count = waiting.len().min(room);
        if is_torn && count > 0 && dice.chance(300) {
            count = dice.between(1, count);
        }
        if count == 0 {
            return;
        }
        self.down.extend_from_slice(&waiting[..count]);
        engine.transmitted(self.key, count);
    }

    fn serve_polling(&mut self, engine: &Engine) {
        if self.is_polling
            && let Some(payload) = engine.take_payload(self.key)
        {
            self.is_polling = false;
            if self.fate == Fate::Whole {
                let text = String::from_utf8(payload.body).expect("a payload is text");
                self.payload = Some(text.into());
            }
        }
        let Some(mut packets) = self.post.take() else {
            return;
        };
        while !engine.is_paused(self.key) {
            let Some(packet) = packets.next() else {
                return engine.end_post(self.key);
            };
            let packet = packet.expect("a client's payload");
            if engine.receive(self.key, Transport::Polling, packet) == Outcome::Closed {
                return engine.end_post(self.key);
            }
        }
        self.post = Some(packets);
    }

    /// The client reads up to `limit` packets; a polling client the whole payload.
    fn read(&mut self, limit: usize, packets: &mut Vec<Out>) {
        if limit == 0 {
            return;
        }
        if let Some(payload) = self.payload.take() {
            for item in payload.split('\u{1e}') {
                packets.push(match item.strip_prefix('b') {
                    Some(code) => Out::Binary(STANDARD.decode(code).expect("base64")),
                    None => Out::Text(item.into()),
                });
            }
            return;
        }
        for _ in 0..limit {
            match take_frame(&mut self.down) {
                Some(packet) => packets.push(packet),
                None => break,
            }
        }
        if self.is_over {
            // The rest of a frame that was cut.
            if take_frame(&mut self.down.clone()).is_none() {
                self.down.clear();
            }
        }
    }

    fn go_on_polling(&mut self, engine: &Engine, dice: &Dice, is_reading: bool) {
        if self.is_over || self.way == Way::Granted && !self.is_stuck {
            return;
        }
        if self.post.is_none() && !self.up.is_empty() && dice.chance(700) {
            let count = dice.between(1, self.up.len());
            let body: Vec<String> = self.up.drain(..count).map(in_payload).collect();
            let is_known = engine.find(&self.sid).is_some();
            if !is_known || engine.begin_post(self.key).is_err() {
                self.is_over = true;
                return;
            }
            self.post = Some(decode_payload(&body.join("\u{1e}").into()));
        }
        if is_reading && !self.is_polling && self.payload.is_none() && dice.chance(700) {
            let is_known = engine.find(&self.sid).is_some();
            if !is_known || engine.begin_poll(self.key).is_err() {
                self.is_over = true;
                return;
            }
            self.is_polling = true;
        }
    }
}

fn in_payload(out: Out) -> String {
    match out {
        Out::Text(text) => text,
        Out::Binary(bytes) => format!("b{}", STANDARD.encode(bytes)),
    }
}

/// Takes a whole unmasked frame out of what was received.
fn take_frame(bytes: &mut BytesMut) -> Option<Out> {
    let (head, length) = match (*bytes.get(1)?, bytes.get(2..4), bytes.get(2..10)) {
        (126, Some(length), _) => (4, usize::from(u16::from_be_bytes(length.try_into().ok()?))),
        (127, _, Some(length)) => (
            10,
            usize::try_from(u64::from_be_bytes(length.try_into().ok()?)).ok()?,
        ),
        (length @ 0..126, ..) => (2, usize::from(length)),
        _ => return None,
    };
    if bytes.len() < head + length {
        return None;
    }
    let is_text = bytes[0] == 0x81;
    bytes.advance(head);
    let content = bytes.split_to(length);
    Some(if is_text {
        Out::Text(String::from_utf8(content.to_vec()).expect("a text frame is text"))
    } else {
        Out::Binary(content.to_vec())
    })
}
