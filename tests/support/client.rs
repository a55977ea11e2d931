//! A Socket.IO client in the chat's namespace, over a WebSocket or by long-polling.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::PATIENCE;
use super::http::Connection;
use super::websocket::{Frame, WebSocket};

const PATH: &str = "/socket.io/?EIO=4&transport=";

/// How a client's packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    WebSocket,
    Polling,
}

enum Wire {
    WebSocket(WebSocket),
    Polling(Box<Polling>),
}

struct Polling {
    address: SocketAddr,
    target: String,
    get: Connection,
    post: Connection,
    pending: bool,
}

/// A connected client. Nothing runs beside it: it reads while it is asked for something.
pub(crate) struct Client {
    wire: Wire,
    acks: HashMap<u64, Value>,
    events: VecDeque<(String, Value)>,
    next_ack: u64,
    /// A DISCONNECT came.
    pub(crate) disconnected: bool,
    /// The connection has ended.
    pub(crate) closed: bool,
}

impl Client {
    /// Connects with a token.
    pub(crate) fn connect(address: SocketAddr, via: Via, token: &str) -> Self {
        Self::try_connect(address, via, &json!({"token": token}), &[])
            .expect("the server is there")
            .expect("the server takes the token")
    }

    /// Connects; the inner error is what `CONNECT_ERROR` said.
    pub(crate) fn try_connect(
        address: SocketAddr,
        via: Via,
        auth: &Value,
        fields: &[(&str, &str)],
    ) -> io::Result<Result<Self, Value>> {
        let wire = match via {
            Via::WebSocket => {
                let stream = TcpStream::connect(address)?;
                let target = format!("{PATH}websocket");
                Wire::WebSocket(WebSocket::over(stream, address, &target, fields)?)
            }
            Via::Polling => Wire::Polling(Box::new(Polling::open(address, fields)?)),
        };
        Self::over(wire, auth)
    }

    /// Connects over a TCP connection made by the caller.
    pub(crate) fn over_stream(stream: TcpStream, address: SocketAddr, token: &str) -> Self {
        let target = format!("{PATH}websocket");
        let websocket = WebSocket::over(stream, address, &target, &[]).expect("an upgrade");
        Self::over(Wire::WebSocket(websocket), &json!({"token": token}))
            .expect("the server is there")
            .expect("the server takes the token")
    }

    fn over(wire: Wire, auth: &Value) -> io::Result<Result<Self, Value>> {
        let mut client = Self {
            wire,
            acks: HashMap::new(),
            events: VecDeque::new(),
            next_ack: 0,
            disconnected: false,
            closed: false,
        };
        client.wire.send(&[format!("40{auth}")])?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let packets = client.wire.receive(deadline)?;
            assert!(!packets.is_empty(), "no answer to CONNECT");
            let mut answer = None;
            for packet in packets {
                if packet.starts_with("40") {
                    answer = Some(None);
                } else if let Some(error) = packet.strip_prefix("44") {
                    answer = Some(Some(serde_json::from_str(error).expect("JSON")));
                } else if !packet.starts_with('0') {
                    client.take(&packet);
                }
            }
            match answer {
                Some(None) => return Ok(Ok(client)),
                Some(Some(error)) => return Ok(Err(error)),
                None => {}
            }
        }
    }

    /// Sends an event that asks for no ack.
    pub(crate) fn emit(&mut self, event: &str, payload: &Value) {
        self.send_raw(&format!("42{}", json!([event, payload])));
    }

    /// Sends a packet as it stands.
    pub(crate) fn send_raw(&mut self, packet: &str) {
        if self.wire.send(&[packet.to_owned()]).is_err() {
            self.closed = true;
        }
    }

    /// Sends an event that asks for an ack, and says under which id.
    pub(crate) fn ask(&mut self, event: &str, payload: &Value) -> u64 {
        self.ask_all(event, std::slice::from_ref(payload))[0]
    }

    /// Sends several events in one go.
    pub(crate) fn ask_all(&mut self, event: &str, payloads: &[Value]) -> Vec<u64> {
        let ids = self.next_ack..self.next_ack + payloads.len() as u64;
        self.next_ack = ids.end;
        let packets: Vec<String> = ids
            .clone()
            .zip(payloads)
            .map(|(id, payload)| format!("42{id}{}", json!([event, payload])))
            .collect();
        if self.wire.send(&packets).is_err() {
            self.closed = true;
        }
        ids.collect()
    }

    /// The ack with this id, if it comes while the connection lasts.
    pub(crate) fn ack_within(&mut self, id: u64, patience: Duration) -> Option<Value> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(ack) = self.acks.remove(&id) {
                return Some(ack);
            }
            if self.closed || !self.read(deadline) {
                return None;
            }
        }
    }

    /// Sends an event and waits for its ack.
    pub(crate) fn call(&mut self, event: &str, payload: &Value) -> Value {
        let id = self.ask(event, payload);
        self.ack_within(id, PATIENCE)
            .unwrap_or_else(|| panic!("no ack for {event} {payload}"))
    }

    /// The same, for what must succeed.
    pub(crate) fn ok(&mut self, event: &str, payload: &Value) -> Value {
        let ack = self.call(event, payload);
        assert_eq!(ack["ok"], true, "{event} {payload}: {ack}");
        ack
    }

    /// The same, for what must fail; gives the code.
    pub(crate) fn refused(&mut self, event: &str, payload: &Value) -> String {
        let ack = self.call(event, payload);
        assert_eq!(ack["ok"], false, "{event} {payload}: {ack}");
        assert!(ack["error"]["message"].is_string(), "{ack}");
        ack["error"]["code"].as_str().expect("a code").to_owned()
    }

    pub(crate) fn join(&mut self, room: &str) -> Value {
        self.ok("joinRoom", &json!({"roomId": room}))
    }

    pub(crate) fn say(&mut self, room: &str, content: &str) -> Value {
        self.ok("sendMessage", &json!({"roomId": room, "content": content}))
    }

    /// The next event, whatever its name, if one comes in time.
    pub(crate) fn event_within(&mut self, patience: Duration) -> Option<(String, Value)> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.closed || !self.read(deadline) {
                return None;
            }
        }
    }

    /// The payload of the next event, which must have this name.
    pub(crate) fn expect(&mut self, name: &str) -> Value {
        let event = self.event_within(PATIENCE);
        let (got, payload) = event.unwrap_or_else(|| panic!("no {name} came"));
        assert_eq!(got, name, "{payload}");
        payload
    }

    /// Asserts that no event comes: an ack asked for now would have followed it.
    pub(crate) fn expect_quiet(&mut self) {
        let _ = self.refused("leaveRoom", &json!({}));
        let came = self.event_within(Duration::from_millis(100));
        assert_eq!(came, None, "nothing was to come");
    }

    /// Waits for the end of the connection; says after how long it came.
    pub(crate) fn wait_closed(&mut self, patience: Duration) -> Option<Duration> {
        let start = Instant::now();
        while !self.closed && self.read(start + patience) {}
        self.closed.then(|| start.elapsed())
    }

    /// Reads what comes next into the queues. `false`: nothing came by `deadline`.
    fn read(&mut self, deadline: Instant) -> bool {
        match self.wire.receive(deadline) {
            Ok(packets) if packets.is_empty() => Instant::now() < deadline,
            Ok(packets) => {
                for packet in packets {
                    self.take(&packet);
                }
                true
            }
            Err(_) => {
                self.closed = true;
                true
            }
        }
    }

    fn take(&mut self, packet: &str) {
        match packet.get(..2) {
            Some("42") => {
                let event: (String, Value) = serde_json::from_str(&packet[2..]).expect("an event");
                self.events.push_back(event);
            }
            Some("43") => {
                let at = packet.find('[').expect("an ack's payload");
                let id = packet[2..at].parse().expect("an ack's id");
                let [ack]: [Value; 1] = serde_json::from_str(&packet[at..]).expect("one value");
                let again = self.acks.insert(id, ack);
                assert_eq!(again, None, "ack {id} came twice");
            }
            Some("41") => self.disconnected = true,
            _ => match packet {
                "2" => drop(self.wire.send(&["3".to_owned()])),
                "1" => self.closed = true,
                "6" => {}
                other => panic!("an unexpected packet {other:?}"),
            },
        }
    }
}

impl Wire {
    fn send(&mut self, packets: &[String]) -> io::Result<()> {
        match self {
            Self::WebSocket(websocket) => websocket.send(packets),
            Self::Polling(polling) => polling.post(packets),
        }
    }

    /// What came by `deadline`; nothing is an empty list.
    fn receive(&mut self, deadline: Instant) -> io::Result<Vec<String>> {
        match self {
            Self::WebSocket(websocket) => match websocket.receive(deadline)? {
                Some(Frame::Text(text)) => Ok(vec![text]),
                Some(Frame::Close(code)) => Err(io::Error::other(format!("closed with {code}"))),
                None => Ok(Vec::new()),
            },
            Self::Polling(polling) => polling.poll(deadline),
        }
    }
}

impl Polling {
    fn open(address: SocketAddr, fields: &[(&str, &str)]) -> io::Result<Self> {
        let mut get = Connection::open(address)?;
        let target = format!("{PATH}polling");
        get.send("GET", &target, fields, b"")?;
        let open = get.receive(Instant::now() + PATIENCE)?;
        let open = open.ok_or(io::ErrorKind::TimedOut)?;
        if open.status != 200 {
            return Err(io::Error::other(open.text()));
        }
        let text = open.text();
        let handshake: Value = serde_json::from_str(&text[1..])?;
        let sid = handshake["sid"].as_str().expect("a sid");
        Ok(Self {
            address,
            target: format!("{target}&sid={sid}"),
            get,
            post: Connection::open(address)?,
            pending: false,
        })
    }

    fn post(&mut self, packets: &[String]) -> io::Result<()> {
        let body = packets.join("\u{1e}");
        self.post.send("POST", &self.target, &[], body.as_bytes())?;
        let answer = self.post.receive(Instant::now() + PATIENCE)?;
        match answer.ok_or(io::ErrorKind::TimedOut)? {
            answer if answer.status == 200 => Ok(()),
            answer => Err(io::Error::other(answer.text())),
        }
    }

    fn poll(&mut self, deadline: Instant) -> io::Result<Vec<String>> {
        if !self.pending {
            self.get.send("GET", &self.target, &[], b"")?;
            self.pending = true;
        }
        let Some(answer) = self.get.receive(deadline)? else {
            return Ok(Vec::new());
        };
        self.pending = false;
        if answer.status != 200 {
            return Err(io::Error::other(answer.text()));
        }
        // Each poll on a connection of its own now and then: any shard may be the one to accept it.
        if answer.body.len() % 7 == 0 {
            self.get = Connection::open(self.address)?;
        }
        Ok(answer.text().split('\u{1e}').map(str::to_owned).collect())
    }
}
