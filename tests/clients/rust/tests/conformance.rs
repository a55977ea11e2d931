//! `rust_socketio` against the conformance server, by each transport, on one shard and on four.
//!
//! This client knows one attachment an event, never acknowledges a server's event, and takes the byte 0x1e in a binary
//! WebSocket message for the end of a packet: none of this is asked of it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rust_socketio::client::Client;
use rust_socketio::{ClientBuilder, Event, Payload, TransportType};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// The server's process; it ends with the test.
struct Server {
    child: Child,
    port: u16,
    shards: u8,
}

impl Server {
    fn start(shards: u8) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|probe| probe.local_addr())
            .expect("a free port")
            .port();
        let child = spawn(port, shards);
        let server = Self {
            child,
            port,
            shards,
        };
        server.wait();
        server
    }

    fn restart(&mut self) {
        self.end();
        self.child = spawn(self.port, self.shards);
        self.wait();
    }

    /// Waits until something answers in HTTP.
    fn wait(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut answer = [0; 5];
            let asked = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(
                    b"GET /socket.io/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                )?;
                stream.read_exact(&mut answer)
            });
            if asked.is_ok() && &answer == b"HTTP/" {
                return;
            }
            assert!(
                Instant::now() < end,
                "the conformance server does not answer on port {}",
                self.port
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn end(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("its state").is_none() {
            if Instant::now() > end {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(port: u16, shards: u8) -> Child {
    let program = std::env::var("PROJECT_YUM_CONFORMANCE_BIN")
        .expect("PROJECT_YUM_CONFORMANCE_BIN: the conformance example; tests/run sets it");
    Command::new(program)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .envs([
            ("HOST", "127.0.0.1"),
            ("PING_INTERVAL_MS", "25000"),
            ("PING_TIMEOUT_MS", "20000"),
            ("CONNECT_TIMEOUT_MS", "45000"),
        ])
        .env("PORT", port.to_string())
        .env("SHARDS", shards.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the conformance server starts")
}

/// What a client received, in order.
type Inbox = Receiver<(String, Payload)>;

fn connect(server: &Server, transport: TransportType, namespace: &str) -> (Client, Inbox) {
    let (sender, inbox) = channel();
    let heard = sender.clone();
    let client = ClientBuilder::new(server.url())
        .namespace(namespace)
        .transport_type(transport)
        .auth(json!({"token": "123"}))
        .reconnect(true)
        .reconnect_on_disconnect(true)
        .reconnect_delay(50, 200)
        .on_any(move |event, payload, _| drop(sender.send((String::from(event), payload))))
        .on(Event::Error, move |payload, _| {
            drop(heard.send(("error".to_owned(), payload)))
        })
        .connect()
        .expect("a connection");
    // The auth payload is the first thing a socket hears: from here on the namespace is joined.
    assert_eq!(
        await_event(&inbox, "auth"),
        Payload::from(json!({"token": "123"}))
    );
    (client, inbox)
}

fn await_event(inbox: &Inbox, name: &str) -> Payload {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match inbox.recv_timeout(left) {
            Ok((event, payload)) if event == name => return payload,
            Ok(_) => {}
            Err(_) => panic!("no {name} within {PATIENCE:?}"),
        }
    }
}

fn ask(client: &Client, event: &str, payload: impl Into<Payload>) -> Payload {
    let (sender, answer) = channel();
    client
        .emit_with_ack(event, payload, PATIENCE, move |payload: Payload, _| {
            drop(sender.send(payload))
        })
        .expect("sent");
    answer.recv_timeout(PATIENCE).expect("an acknowledgement")
}

/// The arguments of an acknowledgement come wrapped once more by this client.
fn arguments(payload: &Payload) -> Vec<Value> {
    match payload {
        Payload::Text(values) => match values.as_slice() {
            [Value::Array(inner)] => inner.clone(),
            values => values.to_vec(),
        },
        other => panic!("not text: {other:?}"),
    }
}

fn matrix(transport: fn() -> TransportType, name: &str, shards: u8) {
    let mut server = Server::start(shards);
    let (client, inbox) = connect(&server, transport(), "/");
    assert_eq!(
        arguments(&ask(&client, "transport", Payload::Text(vec![]))),
        [json!(name)]
    );

    // Events, acknowledgements, unicode.
    let text = "žluťoučký kůň · 日本語 · 🐎 · \u{2028}\u{1e}\u{0} \"\\/";
    client
        .emit(
            "message",
            vec![json!(text), json!({"a": [1, -0.5, null, true]})],
        )
        .expect("sent");
    assert_eq!(
        await_event(&inbox, "message-back"),
        Payload::Text(vec![json!(text), json!({"a": [1, -0.5, null, true]})])
    );
    assert_eq!(
        arguments(&ask(&client, "message-with-ack", json!(text))),
        [json!(text)]
    );

    // An acknowledgement that the server waits for in vain.
    client.emit("ack-timeout", json!(60)).expect("sent");
    assert_eq!(
        await_event(&inbox, "ack-timeout"),
        Payload::from(json!(true))
    );

    // Binary, small and near the limit; by polling base64 makes it a third longer.
    client
        .emit("message", Payload::Binary(vec![0, 1, 10, 255].into()))
        .expect("sent");
    assert_eq!(
        await_event(&inbox, "message-back"),
        Payload::Binary(vec![0, 1, 10, 255].into())
    );
    let size = if name == "polling" {
        740_000
    } else {
        1_000_000
    };
    let large: Vec<u8> = (0..size)
        .map(|index| u8::try_from(index % 30).expect("below 30"))
        .collect();
    client
        .emit("message", Payload::Binary(large.clone().into()))
        .expect("sent");
    assert!(
        await_event(&inbox, "message-back") == Payload::Binary(large.into()),
        "the bytes came back whole"
    );

    // 900 KB of text.
    let long = "0123456789".repeat(90_000);
    client.emit("message", json!(long)).expect("sent");
    assert!(
        await_event(&inbox, "message-back") == Payload::from(json!(long)),
        "the text came back whole"
    );

    // A burst, in order.
    for number in 0..1000 {
        client.emit("message", json!(number)).expect("sent");
    }
    for number in 0..1000 {
        assert_eq!(
            await_event(&inbox, "message-back"),
            Payload::from(json!(number))
        );
    }

    // Other namespaces.
    for namespace in ["/custom", "/dyn-1", "/dyn-2"] {
        let (other, other_inbox) = connect(&server, transport(), namespace);
        other.emit("message", json!(namespace)).expect("sent");
        assert_eq!(
            await_event(&other_inbox, "message-back"),
            Payload::from(json!(namespace))
        );
        other.disconnect().expect("disconnected");
    }

    // It comes back when the server does.
    server.restart();
    let end = Instant::now() + PATIENCE;
    loop {
        if client.emit("message", json!("again")).is_ok()
            && let Ok((event, payload)) = inbox.recv_timeout(Duration::from_millis(300))
            && event == "message-back"
        {
            assert_eq!(payload, Payload::from(json!("again")));
            break;
        }
        assert!(Instant::now() < end, "no answer after the restart");
    }
    client.disconnect().expect("disconnected");
}

#[test]
fn polling_on_one_shard() {
    matrix(|| TransportType::Polling, "polling", 1);
}

#[test]
fn polling_on_four_shards() {
    matrix(|| TransportType::Polling, "polling", 4);
}

#[test]
fn websocket_on_one_shard() {
    matrix(|| TransportType::Websocket, "websocket", 1);
}

#[test]
fn websocket_on_four_shards() {
    matrix(|| TransportType::Websocket, "websocket", 4);
}

#[test]
fn upgrade_on_one_shard() {
    matrix(|| TransportType::WebsocketUpgrade, "websocket", 1);
}

#[test]
fn upgrade_on_four_shards() {
    matrix(|| TransportType::WebsocketUpgrade, "websocket", 4);
}
