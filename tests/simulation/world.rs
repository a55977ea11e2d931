//! Shards, clients and a store in one thread: what happens, and what must hold.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use project_yum::auth::{AuthOptions, Claims, Keys, Verifier, sign};
use project_yum::bus::directory::Directory;
use project_yum::bus::mesh::{Mesh, seats_with_slots};
use project_yum::chat::{Chat, ChatOptions, Parts};
use project_yum::engine::{self, Engine, Handshake, Transport};
use project_yum::env::Env;
use project_yum::hub::{self, Hub};
use project_yum::metrics::Metrics;
use project_yum::wire::Content;
use project_yum::wire::engine_io::Packet;

use crate::Planted;
use crate::bus::PlantedBus;
use crate::client::{Asked, Client, Connection, Judge, Pace, Sent};
use crate::dice::Dice;
use crate::store::{Handle, SimulatedStore};
use crate::tasks::Tasks;

const STEPS: usize = 500;
/// Packets that wait for a shard, whatever happens, must go within this time after the faults.
const REPAIRED_WITHIN: Duration = Duration::from_secs(12);
/// The least time between two faults that make the store seem silent.
const FAULTS_APART: Duration = Duration::from_secs(4);
const DOWN_MS: usize = 1_500;
const STALL_MS: usize = 400;
const JUMP_MS: usize = 800;
/// A jump after which every deadline has passed.
const GREAT_JUMP_MS: usize = 40_000;

/// What a run is asked to report: nothing, or every step.
pub(crate) type Trace = Option<Rc<RefCell<String>>>;

struct Shard {
    engine: Engine,
    hub: Hub,
    chat: Rc<Chat>,
    mesh: Rc<Mesh>,
    tasks: Rc<Tasks>,
    /// Nothing runs until then.
    stalled_until: Instant,
}

pub(crate) struct World {
    env: Rc<Env>,
    begun: Instant,
    dice: Rc<Dice>,
    planted: Option<Planted>,
    store: Rc<SimulatedStore>,
    directory: Arc<Directory>,
    shards: Vec<Shard>,
    clients: Vec<Client>,
    sent: Vec<Sent>,
    rooms: Vec<String>,
    outbox_bytes_max: usize,
    has_great_jumps: bool,
    fault_after: Instant,
    trace: Trace,
}

macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        if let Some(trace) = &$world.trace {
            let at = $world.env.now() - $world.begun;
            let _ = write!(trace.borrow_mut(), "{:>9.3} ", at.as_secs_f64());
            let _ = writeln!(trace.borrow_mut(), $($what)*);
        }
    };
}

fn auth() -> AuthOptions {
    let secret = b"a secret of the simulation, long enough".as_slice();
    AuthOptions {
        keys: Keys::secrets(vec![secret.into()]),
        issuer: None,
        audience: None,
        leeway_seconds: 5,
    }
}

fn token(env: &Env, user: &str) -> String {
    let issued_seconds = env.wall_ms() / 1000;
    let claims = Claims {
        user: user.into(),
        rooms: None,
        issued_seconds,
        expires_seconds: issued_seconds + 1_000_000,
    };
    sign(&auth(), &claims).expect("a secret signs")
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>, trace: Trace) -> Self {
        let dice = Dice::new(seed);
        let env = Env::seeded(seed);
        let store = SimulatedStore::new(env.clone(), dice.clone(), planted);
        store.slow.set(dice.chance(300));
        store.unknown_per_mille.set(*dice.pick(&[0, 0, 20, 100]));
        store.refused_per_mille.set(*dice.pick(&[0, 0, 20, 100]));
        let directory = Directory::new();
        let count = u8::try_from(dice.between(1, 4)).expect("four fit");
        let slots = *dice.pick(&[1, 2, 4, 8, 64]);
        let outbox_bytes_max = *dice.pick(&[3_000, 8_000, 60_000, 1_000_000]);
        let seats = seats_with_slots(count, &directory, slots);
        let verifier = Rc::new(Verifier::new(&auth()));
        let mut world = Self {
            begun: env.now(),
            fault_after: env.now(),
            planted,
            store,
            directory,
            shards: Vec::new(),
            clients: Vec::new(),
            sent: Vec::new(),
            rooms: (0..dice.between(1, 3))
                .map(|room| format!("r{room}"))
                .collect(),
            outbox_bytes_max,
            has_great_jumps: dice.chance(200),
            trace,
            env,
            dice,
        };
        for (number, seat) in (0..).zip(seats) {
            let shard = world.shard(number, seat.sit(), verifier.clone());
            world.shards.push(shard);
        }
        let users = world.dice.between(2, 6);
        for number in 0..world.dice.between(2, 12) {
            let user = format!("u{}", number % users);
            world.clients.push(Client {
                token: token(&world.env, &user),
                user,
                connection: None,
                seen: std::collections::BTreeMap::new(),
                again: Vec::new(),
            });
        }
        note!(
            world,
            "{count} shards, {slots} slots, {outbox_bytes_max} bytes of outbox"
        );
        world
    }

    fn shard(&self, number: u8, mesh: Rc<Mesh>, verifier: Rc<Verifier>) -> Shard {
        let (env, outbox_bytes_max) = (self.env.clone(), self.outbox_bytes_max);
        let options = engine::Options {
            outbox_bytes_max,
            shard: number,
            ..engine::Options::default()
        };
        let engine = Engine::new(env.clone(), options);
        let tasks = Tasks::new();
        let queue = tasks.clone();
        let spawn: hub::Spawn = Rc::new(move |task| queue.spawn(task));
        let options = hub::Options {
            outbox_bytes_max,
            ..hub::Options::default()
        };
        let hub = Hub::new(env.clone(), engine.clone(), options, spawn.clone());
        hub.set_bus(Rc::new(PlantedBus {
            mesh: mesh.clone(),
            dice: self.dice.clone(),
            planted: self.planted,
        }));
        let options = ChatOptions {
            room_prefix: "".into(),
            outbox_bytes_max,
            ..ChatOptions::default()
        };
        let parts = Parts {
            env,
            hub: hub.clone(),
            store: Rc::new(Handle(self.store.clone())),
            verifier,
            directory: mesh.directory().clone(),
            metrics: Rc::new(Metrics::new(usize::from(number))),
            spawn,
        };
        let chat = Chat::new(options, parts);
        hub.set_app(chat.clone());
        Shard {
            engine,
            hub,
            chat,
            mesh,
            tasks,
            stalled_until: self.env.now(),
        }
    }

    /// Plays it all. `Err`: what does not hold.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.fault();
            for _ in 0..self.dice.between(0, 3) {
                let client = self.dice.below(self.clients.len());
                self.act(client);
            }
            self.step(false)?;
        }
        self.repair()?;
        self.check_all_is_told()?;
        self.leave_all()?;
        self.check_nothing_is_left()
    }

    fn fault(&mut self) {
        let dice = self.dice.clone();
        let now = self.env.now();
        if dice.chance(20) {
            let shard = dice.below(self.shards.len());
            let stall = dice.ms(STALL_MS);
            note!(self, "shard {shard} stalls for {stall:?}");
            self.shards[shard].stalled_until = now + stall;
        }
        if now < self.fault_after {
            return;
        }
        let fault = dice.below(100);
        if fault == 0 {
            let down = dice.ms(DOWN_MS);
            note!(self, "the store is down for {down:?}");
            self.store.down_until.set(now + down);
            self.fault_after = now + down + FAULTS_APART;
        } else if fault == 1 {
            let jump = dice.ms(JUMP_MS);
            note!(self, "the clock jumps by {jump:?}");
            self.env.advance(jump);
            self.fault_after = now + jump + FAULTS_APART;
        } else if fault == 2 && self.has_great_jumps {
            let jump = dice.ms(GREAT_JUMP_MS);
            note!(self, "the clock jumps by {jump:?}");
            self.env.advance(jump);
        }
    }

    /// A moment passes. `healthy`: everybody gets their turn.
    fn step(&mut self, healthy: bool) -> Result<(), String> {
        self.env.advance(if healthy {
            Duration::from_millis(20)
        } else {
            self.dice.ms(30)
        });
        self.store.run();
        let now = self.env.now();
        let count = self.shards.len();
        let first = self.dice.below(count);
        for shard in (0..count).map(|number| (first + number) % count) {
            let is_stalled = now < self.shards[shard].stalled_until;
            if is_stalled || !healthy && self.dice.chance(300) {
                continue;
            }
            let Shard {
                engine,
                hub,
                chat,
                mesh,
                tasks,
                ..
            } = &self.shards[shard];
            tasks.run(&self.dice);
            if healthy || self.dice.chance(600) {
                engine.tick();
                hub.tick(now);
                chat.tick(now);
            }
            tasks.run(&self.dice);
            if healthy || self.dice.chance(600) {
                mesh.drain(hub);
            }
            tasks.run(&self.dice);
            engine.take_dirty(&mut Vec::new());
        }
        for client in 0..self.clients.len() {
            self.read(client, healthy)?;
        }
        self.check_bounds()
    }

    fn check_bounds(&self) -> Result<(), String> {
        for client in &self.clients {
            let Some(connection) = &client.connection else {
                continue;
            };
            let engine = &self.shards[connection.shard].engine;
            if engine.outbox_bytes(connection.key) > self.outbox_bytes_max {
                return Err("an outbox is over its bound".into());
            }
        }
        Ok(())
    }

    /// A client does something.
    fn act(&mut self, number: usize) {
        let dice = self.dice.clone();
        let Some(connection) = &self.clients[number].connection else {
            if dice.chance(300) {
                self.connect(number);
            }
            return;
        };
        if self.env.now() < self.shards[connection.shard].stalled_until {
            return;
        }
        let (shard, key) = (connection.shard, connection.key);
        let engine = &self.shards[shard].engine;
        if !connection.is_ready || engine.is_paused(key) || connection.pace == Pace::Dead {
            if dice.chance(5) {
                self.hang_up(number);
            }
            return;
        }
        let room = dice.pick(&self.rooms).clone();
        match dice.below(100) {
            0..30 => {
                let seen = self.clients[number].seen.get(&room).copied();
                let last_seq = seen.filter(|_| dice.chance(700));
                self.ask(number, Asked::Join { room, last_seq });
            }
            30..36 => self.ask(number, Asked::Leave { room }),
            36..40 => self.change_pace(number),
            40..42 => self.hang_up(number),
            42 => self.leave_namespace(number),
            43..55 => {
                if let Some(message) = self.clients[number].again.pop() {
                    self.send(number, message);
                }
            }
            _ => {
                let count = self.sent.len();
                let key = dice.chance(700).then(|| format!("k{count}"));
                let content = format!("m{count} {}", "x".repeat(dice.below(200)));
                self.sent.push(Sent {
                    room,
                    content,
                    key,
                    ..Sent::default()
                });
                self.send(number, count);
            }
        }
    }

    fn send(&mut self, number: usize, message: usize) {
        let sent = &mut self.sent[message];
        if sent.is_open {
            return;
        }
        sent.is_open = true;
        sent.tries += 1;
        self.ask(number, Asked::Send { number: message });
    }

    fn ask(&mut self, number: usize, asked: Asked) {
        note!(self, "client {number} asks {asked:?}");
        let now = self.env.now();
        let connection = self.clients[number].connection.as_mut();
        let packet = connection.map(|connection| connection.ask(asked, &self.sent, now));
        self.say(number, &packet.unwrap_or_default());
    }

    fn say(&mut self, number: usize, text: &str) {
        let Some(connection) = &self.clients[number].connection else {
            return;
        };
        let packet = Packet::Message(Content::Text(text.into()));
        let engine = &self.shards[connection.shard].engine;
        let _ = engine.receive(connection.key, Transport::WebSocket, packet);
    }

    /// The client says good-bye; what still comes is of no interest to it.
    fn leave_namespace(&mut self, number: usize) {
        note!(self, "client {number} leaves the namespace");
        self.say(number, "1");
        if let Some(connection) = &mut self.clients[number].connection {
            connection.leave();
        }
    }

    fn connect(&mut self, number: usize) {
        let shard = self.dice.below(self.shards.len());
        if self.env.now() < self.shards[shard].stalled_until {
            return;
        }
        let handshake = Handshake {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            headers: Vec::new(),
            query: "".into(),
            secure: false,
            issued_wall_ms: self.env.wall_ms(),
        };
        let key = self.shards[shard]
            .engine
            .open(Transport::WebSocket, handshake);
        note!(self, "client {number} connects to shard {shard}");
        let pace = if self.dice.chance(150) {
            Pace::Slow
        } else {
            Pace::Fast
        };
        let packet = format!(r#"0{{"token":"{}"}}"#, self.clients[number].token);
        self.clients[number].connection = Some(Connection::new(shard, key, pace));
        self.say(number, &packet);
    }

    fn change_pace(&mut self, number: usize) {
        let pace = *self
            .dice
            .pick(&[Pace::Fast, Pace::Fast, Pace::Slow, Pace::Dead]);
        note!(self, "client {number} is {pace:?}");
        if let Some(connection) = &mut self.clients[number].connection {
            connection.pace = pace;
        }
    }

    /// The connection breaks.
    fn hang_up(&mut self, number: usize) {
        note!(self, "client {number} hangs up");
        let Some(connection) = self.clients[number].connection.take() else {
            return;
        };
        for message in connection.unanswered() {
            self.sent[message].is_open = false;
            if self.sent[message].key.is_some() {
                self.clients[number].again.push(message);
            }
        }
        if self.planted == Some(Planted::LeakedSession) {
            return;
        }
        self.shards[connection.shard].engine.detach(connection.key);
    }

    /// A client takes what was sent to it.
    fn read(&mut self, number: usize, healthy: bool) -> Result<(), String> {
        loop {
            let Some(connection) = &self.clients[number].connection else {
                return Ok(());
            };
            let (shard, key) = (connection.shard, connection.key);
            let engine = self.shards[shard].engine.clone();
            let limit = match connection.pace {
                Pace::Fast => 64,
                Pace::Slow if healthy || self.dice.chance(100) => 1,
                Pace::Slow | Pace::Dead => 0,
            };
            let mut frames = Vec::new();
            if limit > 0 {
                engine.transmit(key, limit, &mut frames);
            }
            if frames.is_empty() {
                if !engine.is_open(key) {
                    note!(self, "client {number} sees its connection closed");
                    self.hang_up(number);
                }
                return Ok(());
            }
            let is_twice = self.planted == Some(Planted::DeliveredTwice) && self.dice.chance(20);
            if !is_twice {
                engine.transmitted(key, frames.iter().map(bytes::Bytes::len).sum());
            }
            if self.planted == Some(Planted::SwappedOrder) && self.dice.chance(50) {
                frames.reverse();
            }
            for frame in frames {
                self.take(number, &text_of(&frame))?;
            }
            if limit == 1 {
                return Ok(());
            }
        }
    }

    fn take(&mut self, number: usize, packet: &str) -> Result<(), String> {
        note!(self, "client {number} receives {packet:.150}");
        let Some(connection) = &self.clients[number].connection else {
            return Ok(());
        };
        match packet.split_at(1) {
            ("0" | "1", _) => {}
            ("2", _) => {
                let engine = &self.shards[connection.shard].engine;
                let pong = Packet::Pong { probe: false };
                let _ = engine.receive(connection.key, Transport::WebSocket, pong);
            }
            ("4", packet) => {
                let is_lost = self.planted == Some(Planted::LostAck)
                    && packet.starts_with('3')
                    && self.dice.chance(20);
                if is_lost {
                    return Ok(());
                }
                let judge = Judge {
                    now: self.env.now(),
                    store: &self.store,
                    gaps_allowed: self.has_great_jumps,
                    late: if self.has_great_jumps {
                        Duration::from_millis(GREAT_JUMP_MS as u64 * 2)
                    } else {
                        Duration::from_millis((JUMP_MS + 2 * STALL_MS) as u64)
                    },
                };
                if connection.has_left {
                    return Ok(());
                }
                let client = &mut self.clients[number];
                let taken = client.take(packet, &mut self.sent, &judge);
                taken.map_err(|what| format!("client {number}: {what} ({packet:.200})"))?;
            }
            _ => return Err(format!("client {number}: a packet {packet}")),
        }
        Ok(())
    }

    /// The faults end: everything that is owed comes.
    fn repair(&mut self) -> Result<(), String> {
        note!(self, "the faults end");
        self.store.slow.set(false);
        self.store.unknown_per_mille.set(0);
        self.store.refused_per_mille.set(0);
        self.store.down_until.set(self.env.now());
        for number in 0..self.clients.len() {
            match &mut self.clients[number].connection {
                Some(connection) if connection.pace == Pace::Dead => self.hang_up(number),
                Some(connection) => connection.pace = Pace::Fast,
                None => {}
            }
        }
        self.pass(REPAIRED_WITHIN)
    }

    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.env.now() + time;
        while self.env.now() < end {
            self.step(true)?;
        }
        Ok(())
    }

    /// After the repair: acks, messages and presence are complete.
    fn check_all_is_told(&self) -> Result<(), String> {
        if !self.store.is_idle() {
            return Err("the store is still asked".into());
        }
        for message in &self.sent {
            message.check(&self.store)?;
        }
        for (number, client) in self.clients.iter().enumerate() {
            let Some(connection) = &client.connection else {
                continue;
            };
            if connection.pending() > 0 && !connection.has_left {
                return Err(format!("client {number} lacks an ack"));
            }
            for (room, membership) in &connection.rooms {
                let (last, head) = (membership.last, self.store.head(room));
                if last.is_some_and(|last| last != head) {
                    let what = format!("client {number} has {last:?} of {room}, not {head}");
                    return Err(what);
                }
                for (user, is_there) in &membership.users {
                    // Nobody is told of their own coming.
                    if *user != client.user && *is_there != self.is_in(user, room) {
                        let what = format!("client {number}: {user} in {room}: {is_there}");
                        return Err(what);
                    }
                }
            }
        }
        Ok(())
    }

    fn is_in(&self, user: &str, room: &str) -> bool {
        self.clients.iter().any(|client| {
            let connection = client.connection.as_ref();
            client.user == user
                && connection.is_some_and(|connection| connection.rooms.contains_key(room))
        })
    }

    fn leave_all(&mut self) -> Result<(), String> {
        note!(self, "all leave");
        for number in 0..self.clients.len() {
            if self.dice.chance(300) {
                self.leave_namespace(number);
                self.step(true)?;
            }
            self.hang_up(number);
        }
        self.pass(Duration::from_secs(7))?;
        // The engine forgets the deadlines of closed sessions when they come.
        self.env.advance(Duration::from_mins(1));
        self.step(true)
    }

    fn check_nothing_is_left(&self) -> Result<(), String> {
        if self.directory.rooms() != 0 {
            return Err(format!("{} rooms in the directory", self.directory.rooms()));
        }
        for (number, shard) in self.shards.iter().enumerate() {
            let left = [
                ("sessions", shard.engine.session_count()),
                ("rooms", shard.hub.rooms()),
                ("sockets", shard.hub.local_sockets("/").len()),
                ("tasks", shard.tasks.len()),
                ("waiting sends", shard.chat.waiting_sends()),
                (
                    "deadlines of the hub",
                    usize::from(shard.hub.next_deadline().is_some()),
                ),
                (
                    "deadlines of the chat",
                    usize::from(shard.chat.next_deadline().is_some()),
                ),
                (
                    "deadlines of the engine",
                    usize::from(shard.engine.next_deadline().is_some()),
                ),
            ];
            for (what, count) in left {
                if count > 0 {
                    return Err(format!("shard {number} has {count} {what} left"));
                }
            }
        }
        Ok(())
    }
}

/// The text of an unmasked frame.
fn text_of(frame: &[u8]) -> String {
    let content = match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    };
    String::from_utf8_lossy(content).into_owned()
}
