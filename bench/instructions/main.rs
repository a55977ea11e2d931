//! Instructions of the hot path, counted by callgrind: the same on every run and every machine of one
//! kind, so that two commits can be compared where times cannot.
//!
//! ```sh
//! cargo bench --bench instructions
//! ```
//!
//! Each step runs a number of times and then twice as often under valgrind (Debian: `valgrind`); the
//! difference, divided, is what one costs, without the start of the program. The last two are whole
//! [`requests`], for which PostgreSQL is started (Debian: `postgresql`); there a thousandth differs between runs.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured"
)]

#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests' own server, of which a part is needed here"
)]
#[path = "../../tests/store/postgres_server.rs"]
mod postgres_server;
mod requests;

use std::hint::black_box;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::rc::Rc;

use futures_util::FutureExt as _;
use project_yum::engine::{self, Engine, Handshake, Key, Transport};
use project_yum::env::Env;
use project_yum::hub::{self, App, Args, Event, Hub, Socket, Task};
use project_yum::wire::engine_io::{self, Packet};
use project_yum::wire::frame::{Plain, plain};
use project_yum::wire::socket_io::{ATTACHMENTS_MAX, Decoder, encode_event};
use project_yum::wire::{Content, Text};

/// Members of the room.
const MEMBERS: u32 = 100;
/// Times that a step runs at first.
const TIMES: u32 = 200;
const EVENT: &str = r#"42["sendMessage",{"roomId":"bench-0","content":"hello, this is a message of a hundred bytes, as people write them to each other all day long, really"}]"#;

/// A step, its name, and what one run of it does.
struct Step {
    name: &'static str,
    of: &'static str,
    run: fn(u32),
}

const STEPS: [Step; 7] = [
    Step {
        name: "decode",
        of: "a message: frame, Engine.IO packet, Socket.IO event",
        run: decode,
    },
    Step {
        name: "handle",
        of: "the same through session, hub and an empty handler",
        run: handle,
    },
    Step {
        name: "encode",
        of: "an event, once for all its receivers",
        run: encode,
    },
    Step {
        name: "deliver",
        of: "a delivery: route and enqueue, one of 100 members",
        run: deliver,
    },
    Step {
        name: "flush",
        of: "a delivery with its flush, but for the send itself",
        run: flush,
    },
    Step {
        name: HEALTH,
        of: "GET /health, with the runtime",
        run: requests::serve,
    },
    Step {
        name: HISTORY,
        of: "GET /api/messages, 50 rows of PostgreSQL, with the runtime and the database's client",
        run: requests::serve,
    },
];
const HEALTH: &str = "health";
const HISTORY: &str = "history";

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    if let (Some(name), Some(times)) = (words.next(), words.next()) {
        let step = STEPS.iter().find(|step| step.name == name);
        let times = times.parse().expect("how often it runs");
        (step.expect("one of the steps").run)(times);
        return;
    }
    let postgres = postgres_server::Postgres::start();
    let database = postgres.database();
    requests::fill(&database);
    println!("| step | instructions | of |\n|---|---|---|");
    for Step { name, of, .. } in &STEPS {
        let once = counted(name, TIMES, &database);
        let twice = counted(name, 2 * TIMES, &database);
        let units = match *name {
            "deliver" | "flush" => u64::from(TIMES * MEMBERS),
            _ => u64::from(TIMES),
        };
        println!("| {name} | {} | {of} |", (twice - once) / units);
    }
}

/// Runs this program under callgrind, and reads how many instructions it took.
fn counted(name: &str, times: u32, database: &str) -> u64 {
    let own = std::env::current_exe().expect("a program has a file");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args([name, &times.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let path = match name {
        HEALTH => Some("/health"),
        HISTORY => Some("/api/messages?roomId=history&limit=50"),
        _ => None,
    };
    if name == HISTORY {
        command.env(requests::DATABASE, database);
    }
    let mut process = command.spawn().expect("the package valgrind is installed");
    if let Some(path) = path {
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut port = String::new();
        output
            .read_line(&mut port)
            .expect("it says where it listens");
        requests::ask(port.trim().parse().expect("a port"), path, times);
    }
    let output = process.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = count.unwrap_or_else(|| panic!("callgrind says: {said}"));
    count.trim().parse().expect("a count")
}

/// The masked frame of a client.
fn frame(payload: &str) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short message");
    let mut frame = vec![0x81, 0xfe];
    frame.extend(length.to_be_bytes());
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(
        payload
            .bytes()
            .zip(mask.into_iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

fn packet(frame: &[u8]) -> Packet {
    let mut bytes = frame.to_vec();
    let Plain::Text(text, _) = plain(&mut bytes, 1_000_000) else {
        panic!("it is plain")
    };
    let text = Text::from(std::str::from_utf8(text).expect("it is text"));
    engine_io::decode(&text).expect("it is a packet")
}

fn decode(times: u32) {
    let frame = frame(EVENT);
    let mut decoder = Decoder::new(ATTACHMENTS_MAX, 1_000_000);
    for _ in 0..times {
        let Packet::Message(content) = packet(&frame) else {
            panic!("it is a message")
        };
        black_box(decoder.receive(content).expect("it is an event"));
    }
}

fn message() -> Args {
    Args::one(&serde_json::json!({
        "roomId": "bench-0",
        "userId": "u1",
        "content": "hello, this is a message of a hundred bytes, as people write them to each other all day long, really",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "id": "019a0000-0000-7000-8000-000000000000",
        "seq": 12_345,
    }))
}

fn encode(times: u32) {
    let (namespace, args) = (Text::from_static("/"), message());
    for _ in 0..times {
        black_box(encode_event(&namespace, "receiveMessage", &args, None));
    }
}

/// Joins whoever comes, and does nothing else.
struct Room;

impl App for Room {
    fn on_connected(&self, socket: &Socket) {
        let joined = socket.join("bench-0").now_or_never();
        assert!(joined.is_some(), "an unordered room is joined at once");
    }

    fn on_event(self: Rc<Self>, _socket: Socket, event: Event) -> Task {
        black_box(&event);
        Box::pin(async {})
    }
}

/// A hub with a room, and the sessions of its members.
fn room() -> (Hub, Engine, Vec<Key>) {
    let env = Env::seeded(1);
    let engine = Engine::new(env.clone(), engine::Options::default());
    let spawn: hub::Spawn = Rc::new(|task: Task| {
        assert!(task.now_or_never().is_some(), "nothing here waits");
    });
    let hub = Hub::new(env, engine.clone(), hub::Options::default(), spawn);
    hub.set_app(Rc::new(Room));
    let keys = (0..MEMBERS).map(|_| {
        let handshake = Handshake {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            headers: Vec::new(),
            query: Box::default(),
            secure: false,
            issued_wall_ms: 0,
        };
        let key = engine.open(Transport::WebSocket, handshake);
        let connect = Packet::Message(Content::Text(Text::from_static("0")));
        engine.receive(key, Transport::WebSocket, connect);
        drain(&engine, key);
        key
    });
    let keys = keys.collect();
    (hub, engine, keys)
}

/// What the transport does around its send.
fn drain(engine: &Engine, key: Key) {
    let bytes = engine.transmit(key, |waiting| waiting.frames().map(<[u8]>::len).sum());
    engine.transmitted(key, black_box(bytes));
}

fn handle(times: u32) {
    let (_hub, engine, keys) = room();
    let frame = frame(EVENT);
    for _ in 0..times {
        engine.receive(keys[0], Transport::WebSocket, packet(&frame));
    }
}

fn deliver(times: u32) {
    let (hub, _engine, _keys) = room();
    let args = message();
    for _ in 0..times {
        hub.of("/").room("bench-0").emit("receiveMessage", &args);
    }
}

fn flush(times: u32) {
    let (hub, engine, keys) = room();
    let args = message();
    let mut dirty = Vec::new();
    for _ in 0..times {
        hub.of("/").room("bench-0").emit("receiveMessage", &args);
        engine.take_dirty(&mut dirty);
        dirty.clear();
        for key in &keys {
            drain(&engine, *key);
        }
    }
}
