//! Engine.IO sessions over polling, and Socket.IO peers over either transport.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::http::{Connection, Response, head};
use crate::server::{PATIENCE, Server};
use crate::websocket::{BINARY, FIN, TEXT, WebSocket};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The separator of a polling payload.
pub(crate) const SEPARATOR: char = '\u{1e}';

pub(crate) const ENGINE: &str = "/engine.io/?EIO=4&transport=polling";
pub(crate) const ENGINE_WS: &str = "/engine.io/?EIO=4&transport=websocket";
pub(crate) const SOCKET: &str = "/socket.io/?EIO=4&transport=polling";
pub(crate) const SOCKET_WS: &str = "/socket.io/?EIO=4&transport=websocket";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Polling,
    WebSocket,
}

/// One packet as it came: a text with its type digit, or a binary message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Text(String),
    Binary(Vec<u8>),
}

/// A polling session. Every request goes over a TCP connection of its own, so any shard may meet it.
pub(crate) struct Polling {
    pub(crate) server: &'static Server,
    pub(crate) sid: String,
    /// The path, the query and the sid.
    pub(crate) target: String,
    waiting: VecDeque<Item>,
}

impl Server {
    /// Opens a polling session at `path` (`ENGINE` or `SOCKET`).
    #[track_caller]
    pub(crate) fn polling(&'static self, path: &str) -> Polling {
        let response = self.get(path);
        assert_eq!(response.status, 200, "{response:?}");
        let sid = sid_of(response.text());
        Polling {
            server: self,
            target: format!("{path}&sid={sid}"),
            sid,
            waiting: VecDeque::new(),
        }
    }

    /// Opens a WebSocket session at `path` (`ENGINE_WS` or `SOCKET_WS`) and takes the open packet.
    #[track_caller]
    pub(crate) fn session(&self, path: &str) -> WebSocket {
        let mut websocket = self.websocket(path);
        sid_of(&websocket.receive_text());
        websocket
    }

    /// Opens a session without joining any namespace.
    #[track_caller]
    pub(crate) fn peer(&'static self, transport: Transport) -> Peer {
        match transport {
            Transport::Polling => Peer::Polling(self.polling(SOCKET)),
            Transport::WebSocket => Peer::WebSocket(self.session(SOCKET_WS)),
        }
    }

    /// Opens a session and joins `/`.
    #[track_caller]
    pub(crate) fn socket(&'static self, transport: Transport) -> Peer {
        let mut peer = self.peer(transport);
        peer.join("/");
        peer
    }
}

/// The sid of an open packet.
#[track_caller]
pub(crate) fn sid_of(open: &str) -> String {
    let json = open.strip_prefix('0').expect("an open packet comes first");
    let open: Value = serde_json::from_str(json).expect("the open packet is JSON");
    open["sid"].as_str().expect("it has a sid").to_owned()
}

/// Splits a payload into its packets.
#[track_caller]
pub(crate) fn packets(payload: &str) -> Vec<Item> {
    payload
        .split(SEPARATOR)
        .map(|packet| match packet.strip_prefix('b') {
            Some(base64) => Item::Binary(BASE64_STANDARD.decode(base64).expect("base64")),
            None => Item::Text(packet.to_owned()),
        })
        .collect()
}

/// Joins packets into a payload.
pub(crate) fn payload(items: &[Item]) -> String {
    let packets: Vec<String> = items
        .iter()
        .map(|item| match item {
            Item::Text(text) => text.clone(),
            Item::Binary(bytes) => format!("b{}", BASE64_STANDARD.encode(bytes)),
        })
        .collect();
    packets.join("\u{1e}")
}

pub(crate) fn text(text: &str) -> Item {
    Item::Text(text.to_owned())
}

pub(crate) fn binary(bytes: &[u8]) -> Item {
    Item::Binary(bytes.to_vec())
}

impl Polling {
    pub(crate) fn get(&self) -> Response {
        self.server.get(&self.target)
    }

    pub(crate) fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.server.post(&self.target, body)
    }

    /// Begins a POST of so many bytes, none of which is sent yet. The server asks for them, so it has
    /// begun to take the POST when this returns.
    #[track_caller]
    pub(crate) fn pending_post(&self, length: usize) -> Connection {
        let fields = format!("Content-Length: {length}\r\nExpect: 100-continue\r\n");
        let mut connection = self.server.connect();
        connection.write(head("POST", &self.target, &fields));
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(connection.take(go_on.len()), go_on);
        connection
    }

    /// Asserts that a POST is taken.
    #[track_caller]
    pub(crate) fn send(&self, body: impl AsRef<[u8]>) {
        self.post(body).is(200, "ok");
    }

    /// Asserts that the next GET answers exactly this payload.
    #[track_caller]
    pub(crate) fn expect(&self, payload: &str) {
        self.get().is(200, payload);
    }

    /// Takes the next packet, with as many GETs as it needs.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Item {
        while self.waiting.is_empty() {
            let response = self.get();
            assert_eq!(response.status, 200, "{response:?}");
            self.waiting.extend(packets(response.text()));
        }
        self.waiting.pop_front().expect("there is one")
    }

    /// Asserts that nothing but a close is left, and that the session is unknown then.
    #[track_caller]
    pub(crate) fn ended(&mut self) {
        for packet in self.waiting.drain(..) {
            assert_eq!(packet, text("1"));
        }
        let response = self.get();
        if response.status == 200 {
            // Node: answers a GET behind the close with both.
            let closes = matches!(response.text(), "1" | "6" | "6\u{1e}1");
            assert!(closes, "{response:?}");
            self.unknown();
        } else {
            response.is_error(1);
        }
    }

    /// Asserts that the session is unknown.
    #[track_caller]
    pub(crate) fn unknown(&self) {
        self.get().is_error(1);
    }

    /// Asserts that the session is soon unknown: what ends it may still be on its way.
    #[track_caller]
    pub(crate) fn soon_unknown(&self) {
        // An empty-handed POST asks without disturbing: a noop is ignored.
        eventually("the session is unknown", || self.post("6").status == 400);
        self.post("6").is_error(1);
    }

    /// Asserts that the session works: an echo goes through it.
    #[track_caller]
    pub(crate) fn alive(&self) {
        self.send("4alive");
        self.expect("4alive");
    }
}

/// A Socket.IO client.
pub(crate) enum Peer {
    Polling(Polling),
    WebSocket(WebSocket),
}

impl Peer {
    /// Sends one packet, its type digit `4` included.
    #[track_caller]
    pub(crate) fn send(&mut self, packet: &str) {
        self.send_all(&[text(packet)]);
    }

    /// Sends packets in one go: one POST, or frames in one write.
    #[track_caller]
    pub(crate) fn send_all(&mut self, items: &[Item]) {
        match self {
            Self::Polling(polling) => polling.send(payload(items)),
            Self::WebSocket(websocket) => {
                let mut bytes = Vec::new();
                for item in items {
                    bytes.extend(match item {
                        Item::Text(text) => crate::websocket::text_frame(text),
                        Item::Binary(data) => crate::websocket::frame(FIN | BINARY, data),
                    });
                }
                websocket.connection.write(bytes);
            }
        }
    }

    /// The same, where the server may refuse: a POST may then be answered with 200 or 400.
    pub(crate) fn offer(&mut self, items: &[Item]) {
        match self {
            Self::Polling(polling) => {
                let response = polling.post(payload(items));
                assert!(matches!(response.status, 200 | 400), "{response:?}");
            }
            Self::WebSocket(_) => self.send_all(items),
        }
    }

    #[track_caller]
    pub(crate) fn receive(&mut self) -> Item {
        match self {
            Self::Polling(polling) => polling.receive(),
            Self::WebSocket(websocket) => {
                let frame = websocket.receive();
                match frame.first & 0x0f {
                    TEXT => Item::Text(String::from_utf8(frame.payload).expect("UTF-8")),
                    BINARY => Item::Binary(frame.payload),
                    _ => panic!("{frame:?} is no packet"),
                }
            }
        }
    }

    #[track_caller]
    pub(crate) fn receive_text(&mut self) -> String {
        match self.receive() {
            Item::Text(text) => text,
            Item::Binary(bytes) => panic!("{bytes:?} are no text"),
        }
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, packet: &str) {
        assert_eq!(self.receive(), text(packet));
    }

    #[track_caller]
    pub(crate) fn expect_all(&mut self, items: &[Item]) {
        for item in items {
            assert_eq!(&self.receive(), item);
        }
    }

    /// Asserts that nothing is on its way: an echo is the next to come.
    #[track_caller]
    pub(crate) fn nothing_came(&mut self) {
        self.send(r#"42["message","marker"]"#);
        self.expect(r#"42["message-back","marker"]"#);
    }

    /// Asserts that the connection is closed, and that nothing else comes first.
    #[track_caller]
    pub(crate) fn ended(&mut self) {
        match self {
            Self::Polling(polling) => polling.ended(),
            Self::WebSocket(websocket) => {
                websocket.closes();
            }
        }
    }

    /// Joins a namespace; returns the sid there.
    #[track_caller]
    pub(crate) fn join(&mut self, namespace: &str) -> String {
        self.join_with(namespace, "")
    }

    /// Joins a namespace with an auth payload, and takes the `auth` event behind the answer.
    #[track_caller]
    pub(crate) fn join_with(&mut self, namespace: &str, auth: &str) -> String {
        let prefix = if namespace == "/" {
            String::new()
        } else {
            format!("{namespace},")
        };
        self.send(&format!("40{prefix}{auth}"));
        let answer = self.receive_text();
        let json = answer
            .strip_prefix(&format!("40{prefix}"))
            .unwrap_or_else(|| panic!("{answer:?} does not answer a CONNECT to {namespace}"));
        let answer: Value = serde_json::from_str(json).expect("the answer is JSON");
        let auth = if auth.is_empty() { "{}" } else { auth };
        self.expect(&format!(r#"42{prefix}["auth",{auth}]"#));
        answer["sid"].as_str().expect("it has a sid").to_owned()
    }

    /// Joins a room.
    #[track_caller]
    pub(crate) fn enter(&mut self, room: &str) {
        self.send(&format!(r#"429["join","{room}"]"#));
        self.expect(r#"439["ok"]"#);
    }
}

/// A room name that no other case uses: cases share their server.
pub(crate) fn fresh(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
