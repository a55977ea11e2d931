//! What a message costs outside the kernel, by how many rooms there are: session, hub, chat, the store
//! in memory, routing, outboxes; all but reading and sending.
//!
//! ```sh
//! cargo bench --bench rooms
//! ```
//!
//! Rooms of two over 400 sessions on one shard. Each room has had a message before, and the store is full
//! to its bound, so that nothing but the number of rooms differs. In the last row as many rooms are there as
//! in the one before, but only a few of them are written to: what differs between these two is memory that
//! the processor's caches do not hold. Rows take turns; the least time counts.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured"
)]

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use project_yum::auth::{AuthOptions, Claims, Keys, Verifier, sign};
use project_yum::bus::directory::Directory;
use project_yum::bus::mesh;
use project_yum::bus::usage::MessageRate;
use project_yum::chat::permission::TokenRooms;
use project_yum::chat::{Chat, ChatOptions, Parts};
use project_yum::engine::{self, Engine, Handshake, Key, Transport};
use project_yum::env::Env;
use project_yum::hub::{self, Hub, Task};
use project_yum::limit::Rate;
use project_yum::metrics::Metrics;
use project_yum::store::memory::{MESSAGES_MAX, MemoryStore};
use project_yum::wire::engine_io::Packet;
use project_yum::wire::{Content, Text};

/// How many rooms there are, and how many of them messages go to.
const SIZES: [(usize, usize); 5] = [
    (100, 100),
    (1_000, 1_000),
    (10_000, 10_000),
    (100_000, 100_000),
    (100_000, 100),
];
const SESSIONS: usize = 400;
const ROUNDS: usize = 5;
/// Messages of a round and size.
const MESSAGES: usize = 100_000;

fn main() {
    let mut shards = SIZES.map(Shard::new);
    let mut least = [f64::INFINITY; SIZES.len()];
    for _ in 0..ROUNDS {
        for (shard, least) in shards.iter_mut().zip(&mut least) {
            *least = least.min(shard.send(MESSAGES));
        }
    }
    println!("| rooms | written to | ns a message |\n|---|---|---|");
    for ((rooms, used), least) in SIZES.iter().zip(least) {
        println!("| {rooms} | {used} | {least:.0} |");
    }
}

/// A shard without a network.
struct Shard {
    engine: Engine,
    _chat: Rc<Chat>,
    keys: Vec<Key>,
    /// Rooms that messages go to.
    used: usize,
    sent: usize,
    dirty: Vec<Key>,
}

/// The members of a room: seldom the same two in two rooms.
fn members(room: usize) -> [usize; 2] {
    let step = 1 + room / SESSIONS % (SESSIONS - 1);
    [room % SESSIONS, (room + step) % SESSIONS]
}

impl Shard {
    fn new((rooms, used): (usize, usize)) -> Self {
        let env = Env::system();
        let engine = Engine::new(env.clone(), engine::Options::default());
        let spawn: hub::Spawn = Rc::new(|task: Task| {
            assert!(task.now_or_never().is_some(), "nothing here waits");
        });
        let options = hub::Options::default();
        let hub = Hub::new(env.clone(), engine.clone(), options, spawn.clone());
        let mut seats = mesh::seats(1, &Directory::new());
        let mesh = seats.remove(0).sit();
        hub.set_bus(mesh.clone());
        let auth = AuthOptions {
            keys: Keys::secrets(vec![[7; 64].as_slice().into()]),
            issuer: None,
            audience: None,
            leeway_seconds: 5,
        };
        let rate = Rate::per_second(1_000_000, 1_000_000);
        let options = ChatOptions {
            message_rate: MessageRate {
                rate,
                joins: rate,
                refusals_max: 1,
            },
            ..ChatOptions::default()
        };
        let parts = Parts {
            env: env.clone(),
            hub: hub.clone(),
            store: Rc::new(MemoryStore::new()),
            verifier: Rc::new(Verifier::new(&auth)),
            permissions: Rc::new(TokenRooms),
            directory: mesh.directory().clone(),
            metrics: Rc::new(Metrics::new(0)),
            spawn,
        };
        let chat = Chat::new(options, parts);
        hub.set_app(chat.clone());
        let mut shard = Self {
            engine,
            _chat: chat,
            keys: Vec::new(),
            used: rooms,
            sent: 0,
            dirty: Vec::new(),
        };
        for user in 0..SESSIONS {
            shard.connect(&env, &auth, user);
        }
        for room in 0..rooms {
            for user in members(room) {
                shard.say(
                    user,
                    &format!(r#"2["joinRoom",{{"roomId":"bench-{room}"}}]"#),
                );
            }
            shard.flush();
        }
        shard.send(rooms.max(MESSAGES_MAX));
        shard.used = used;
        // The store has forgotten the rooms that are not written to any more.
        shard.send(MESSAGES_MAX);
        shard
    }

    fn connect(&mut self, env: &Env, auth: &AuthOptions, user: usize) {
        let issued_seconds = env.wall_ms() / 1000;
        let claims = Claims {
            user: format!("user-{user}").into(),
            rooms: None,
            issued_seconds,
            expires_seconds: issued_seconds + 3_600,
        };
        let token = sign(auth, &claims).expect("it signs");
        let handshake = Handshake {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            headers: Vec::new(),
            query: Box::default(),
            secure: false,
            issued_wall_ms: env.wall_ms(),
        };
        let key = self.engine.open(Transport::WebSocket, handshake);
        self.keys.push(key);
        self.say(user, &format!(r#"0{{"token":"{token}"}}"#));
    }

    fn say(&self, user: usize, text: &str) {
        let packet = Packet::Message(Content::Text(Text::from(text)));
        self.engine
            .receive(self.keys[user], Transport::WebSocket, packet);
    }

    /// What the network does around its sends. Returns the packets.
    fn flush(&mut self) -> usize {
        self.engine.take_dirty(&mut self.dirty);
        let mut packets = 0;
        for key in self.dirty.drain(..) {
            let bytes = self.engine.transmit(key, |waiting| {
                packets += waiting.frames().count();
                waiting.frames().map(<[u8]>::len).sum()
            });
            self.engine.transmitted(key, bytes);
        }
        packets
    }

    /// Sends a message to each room in turn. Returns the nanoseconds that one took.
    fn send(&mut self, count: usize) -> f64 {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            let room = self.sent % self.used;
            self.sent += 1;
            let text = format!(
                r#"2["sendMessage",{{"roomId":"bench-{room}","content":"hello, this is a message of a hundred bytes, as people write them to each other all day long, really"}}]"#
            );
            let begin = Instant::now();
            self.say(members(room)[0], &text);
            let delivered = self.flush();
            took += begin.elapsed();
            assert_eq!(delivered, 2, "each member has it");
        }
        #[expect(clippy::cast_precision_loss, reason = "it is below 2^52")]
        let each = took.as_nanos() as f64 / count as f64;
        each
    }
}
