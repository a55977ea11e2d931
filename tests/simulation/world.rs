//! Hosts, clients, a store and a network in one thread: how time passes, and what must hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use project_yum::auth::{AuthOptions, Claims, Keys, Verifier, sign};
use project_yum::env::Env;

use crate::client::{Client, Judge, Membership, Pace, Sent};
use crate::dice::Dice;
use crate::failure::Failure;
use crate::host::{Ground, Host, State};
use crate::line::{Fate, Line, Out, Reading};
use crate::network::Network;
use crate::plan::{Fault, Plan};
use crate::store::SimulatedStore;

/// What is owed must have come within this time after the faults, and the sessions of silent clients ended.
const REPAIRED_WITHIN: Duration = Duration::from_secs(12);
/// How much longer answers may take that come one after the other, a replay through a small outbox each.
const ANSWERED_WITHIN: Duration = Duration::from_mins(2);
pub(crate) const STALL_MS: usize = 400;
pub(crate) const JUMP_MS: usize = 800;
/// A jump after which every deadline has passed.
pub(crate) const GREAT_JUMP_MS: usize = 40_000;
/// A token that has run out ends its socket within this time.
const EXPIRED_WITHIN: Duration = Duration::from_secs(5);
/// Steps from the last words to the end of the faults.
const LAST_STEPS: usize = 8;
/// Steps in which a client may not get its turn, hardly ever all of them.
const UNLUCKY_STEPS: u32 = 40;

/// What a run is asked to report: nothing, or every step.
pub(crate) type Trace = Option<Rc<RefCell<String>>>;

macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        if let Some(trace) = &$world.trace {
            let at = $world.ground.clock.now() - $world.begun;
            let mut trace = trace.borrow_mut();
            let _ = write!(trace, "{:>9.3} ", at.as_secs_f64());
            let _ = writeln!(trace, $($what)*);
        }
    };
}
pub(crate) use note;

/// What a run has done.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) messages: u64,
    /// Writes of the bus that were late; messages of it that later ones overtook.
    pub(crate) late: u64,
    pub(crate) overtaken: u64,
    pub(crate) faults: BTreeMap<Fault, u64>,
}

pub(crate) struct World {
    pub(crate) ground: Ground,
    pub(crate) begun: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) clients: Vec<Client>,
    /// Connections whose clients have left them.
    pub(crate) ghosts: Vec<Line>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) rooms: Vec<String>,
    /// Hosts on which sockets of a user have asked for a room, by room and user.
    pub(crate) places: BTreeMap<(String, String), BTreeSet<usize>>,
    pub(crate) users_stay: bool,
    pub(crate) fault_after: Instant,
    pub(crate) tally: Tally,
    pub(crate) trace: Trace,
    order: Rc<Dice>,
    pace: Rc<Dice>,
}

pub(crate) fn auth() -> AuthOptions {
    let secret = b"a secret of the simulation, long enough".as_slice();
    AuthOptions {
        keys: Keys::secrets(vec![secret.into()]),
        issuer: None,
        audience: None,
        leeway_seconds: 5,
    }
}

impl World {
    pub(crate) fn new(plan: Plan, trace: Trace) -> Self {
        let seed = plan.seed;
        let dice = plan.dice("world", 0);
        let clock = Env::seeded(seed);
        let store = SimulatedStore::new(clock.clone(), plan.dice("store", 0));
        store.slow.set(plan.has(Fault::StoreSlow));
        if plan.has(Fault::StoreUnknown) {
            store.unknown_per_mille.set(*dice.pick(&[20, 100]));
        }
        if plan.has(Fault::StoreError) {
            store.refused_per_mille.set(*dice.pick(&[20, 100]));
        }
        let queue_max = if plan.has(Fault::FullQueue) {
            8_000
        } else {
            10_000_000
        };
        let network = Network::new(clock.clone(), plan.dice("network", 0), queue_max);
        let ground = Ground {
            clock,
            store,
            network,
            verifier: Rc::new(Verifier::new(&auth())),
            plan,
        };
        let plan = &ground.plan;
        let hosts = (0..plan.hosts).map(|number| Host::new(number, &ground));
        let clients = (0..plan.clients).map(|number| Client {
            user: format!("u{}", number % plan.users),
            connection: None,
            dice: plan.dice("client", number),
            seen: BTreeMap::new(),
            again: Vec::new(),
        });
        let world = Self {
            begun: ground.clock.now(),
            fault_after: ground.clock.now(),
            hosts: hosts.collect(),
            clients: clients.collect(),
            ghosts: Vec::new(),
            sent: Vec::new(),
            rooms: (0..plan.rooms).map(|room| format!("r{room}")).collect(),
            places: BTreeMap::new(),
            users_stay: dice.chance(500),
            tally: Tally::default(),
            trace,
            order: plan.dice("order", 0),
            pace: plan.dice("pace", 0),
            ground,
        };
        note!(world, "{}", world.ground.plan);
        world
    }

    /// Plays it all. `Err`: what does not hold.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        let faults = self.fault_dice();
        for _ in 0..self.ground.plan.steps {
            self.fault(&faults);
            for number in 0..self.clients.len() {
                if self.clients[number].dice.chance(self.ground.plan.busy) {
                    self.act(number);
                }
            }
            let time = self.pace.ms(self.ground.plan.step_ms);
            self.step(time, false)?;
        }
        self.repair()?;
        self.check_all_is_told()?;
        self.meet()?;
        self.leave_all()?;
        for host in &self.hosts {
            host.check_nothing_is_left(true)?;
        }
        if !self.ghosts.is_empty() {
            return Err("a connection of nobody lives on".into());
        }
        Ok(())
    }

    /// What was done so far.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = self.tally.clone();
        for (fault, count) in &*self.ground.store.faults.borrow() {
            *tally.faults.entry(*fault).or_default() += count;
        }
        let network = &self.ground.network;
        let full = tally.faults.entry(Fault::FullQueue).or_default();
        *full += network.overflows.get();
        (tally.late, tally.overtaken) = (network.late.get(), network.overtaken.get());
        let truth = self.ground.store.truth.borrow();
        tally.messages = truth.values().map(|list| list.len() as u64).sum();
        tally
    }

    pub(crate) fn count(&mut self, fault: Fault) {
        *self.tally.faults.entry(fault).or_default() += 1;
    }

    /// A moment passes. `healthy`: everybody gets their turn.
    pub(crate) fn step(&mut self, time: Duration, healthy: bool) -> Result<(), Failure> {
        self.tally.steps += 1;
        self.ground.clock.advance(time);
        for host in &self.hosts {
            host.env.advance(time);
        }
        self.ground.store.run();
        self.ground.network.run();
        let now = self.ground.clock.now();
        for host in 0..self.hosts.len() {
            self.step_host(host, now, healthy)?;
        }
        for number in 0..self.clients.len() {
            self.turn(number, healthy)?;
        }
        self.turn_ghosts();
        for host in &self.hosts {
            host.check_bounds(&self.ground.plan)?;
        }
        Ok(())
    }

    fn step_host(&mut self, number: usize, now: Instant, healthy: bool) -> Result<(), Failure> {
        let count = self.hosts[number].shards.len();
        let first = self.order.below(count.max(1));
        for shard in (0..count).map(|shard| (first + shard) % count) {
            let is_stalled = now < self.hosts[number].shards[shard].stalled_until;
            if !is_stalled && (healthy || !self.order.chance(300)) {
                self.hosts[number].step(shard, healthy);
            }
        }
        match self.hosts[number].state {
            State::Draining { .. } => {
                if self.hosts[number].drain(now) {
                    note!(self, "host {number} has drained and ends");
                    self.hosts[number].check_nothing_is_left(false)?;
                    self.stop(number, true);
                }
            }
            State::Down { until } if now >= until || healthy => {
                note!(self, "host {number} starts");
                self.hosts[number].start(&self.ground);
            }
            State::Up | State::Down { .. } => {}
        }
        Ok(())
    }

    /// A host ends; who was connected notices at once, or later.
    pub(crate) fn stop(&mut self, number: usize, has_said_so: bool) {
        let dice = self.order.clone();
        let now = self.ground.clock.now();
        if has_said_so {
            for shard in &self.hosts[number].shards {
                shard.link.leave();
            }
        }
        self.hosts[number].end();
        let until = now + dice.ms(3_000);
        self.hosts[number].state = State::Down { until };
        self.ground.network.remove(number, has_said_so);
        if !has_said_so {
            self.ground.store.forget(number);
        }
        self.ghosts.retain(|line| line.host != number);
        for client in &mut self.clients {
            if let Some(connection) = &mut client.connection
                && connection.line.host == number
            {
                let late = if dice.chance(300) { 4_000 } else { 100 };
                connection.cut_at.get_or_insert(now + dice.ms(late));
            }
        }
    }

    fn is_stalled(&self, line: &Line) -> bool {
        let shard = &self.hosts[line.host].shards[line.shard];
        self.ground.clock.now() < shard.stalled_until
    }

    /// A client and its server get a turn with their connection.
    fn turn(&mut self, number: usize, healthy: bool) -> Result<(), Failure> {
        let now = self.ground.clock.now();
        let dice = self.clients[number].dice.clone();
        let Some(connection) = &mut self.clients[number].connection else {
            return Ok(());
        };
        if let Some(at) = connection.cut_at {
            if now >= at || healthy {
                note!(self, "client {number} sees that its host is gone");
                self.forget_connection(number);
            }
            return Ok(());
        }
        let shard = &self.hosts[connection.line.host].shards[connection.line.shard];
        if now < shard.stalled_until {
            return Ok(());
        }
        let reading = Reading {
            packets: match connection.pace {
                Pace::Fast => 64,
                Pace::Slow if healthy || dice.chance(100) => 1,
                Pace::Slow | Pace::Dead => 0,
            },
            is_torn: !healthy && self.ground.plan.has(Fault::SlowClient),
        };
        let engine = shard.engine.clone();
        let packets = connection.line.turn(&engine, &dice, reading);
        for packet in packets {
            self.take(number, packet)?;
        }
        let Some(connection) = &mut self.clients[number].connection else {
            return Ok(());
        };
        connection.unread = connection.line.unread(&engine);
        if connection.line.is_over() {
            note!(self, "client {number} sees its connection closed");
            self.hang_up(number, Fate::Closed);
            return Ok(());
        }
        self.check_expiry(number)
    }

    fn turn_ghosts(&mut self) {
        let reading = Reading {
            packets: 0,
            is_torn: false,
        };
        for mut line in std::mem::take(&mut self.ghosts) {
            let engine = &self.hosts[line.host].shards[line.shard].engine;
            if !self.is_stalled(&line) {
                line.turn(engine, &self.order, reading);
            }
            if !line.is_gone(engine) {
                self.ghosts.push(line);
            }
        }
    }

    /// A token that has run out ends its socket soon.
    fn check_expiry(&mut self, number: usize) -> Result<(), Failure> {
        let now = self.ground.clock.now();
        let Some(connection) = &mut self.clients[number].connection else {
            return Ok(());
        };
        let host = &self.hosts[connection.line.host];
        let engine = &host.shards[connection.line.shard].engine;
        let leeway_ms = 5_000;
        let is_overdue = connection.is_ready
            && engine.is_open(connection.line.key)
            && host.env.wall_ms() >= connection.expires_wall_ms + leeway_ms;
        if !is_overdue {
            connection.overdue_since = None;
        } else if now - *connection.overdue_since.get_or_insert(now) > EXPIRED_WITHIN {
            let rule = "a token that ran out long ago still serves";
            return Err(Failure::new(rule, format!("client {number}")));
        }
        Ok(())
    }

    fn take(&mut self, number: usize, packet: Out) -> Result<(), Failure> {
        let Out::Text(packet) = packet else {
            let detail = format!("client {number}");
            return Err(Failure::new("bytes that nobody expects", detail));
        };
        note!(self, "client {number} receives {packet:.150}");
        if packet.contains("token_expired") {
            self.count(Fault::TokenExpiry);
        }
        let Some(connection) = &mut self.clients[number].connection else {
            return Ok(());
        };
        match packet.split_at(1) {
            ("0" | "1" | "6", _) => {}
            ("2", _) => connection.line.say(Out::Text("3".into())),
            ("4", packet) => {
                let plan = &self.ground.plan;
                let steps = Duration::from_millis(plan.step_ms as u64) * UNLUCKY_STEPS;
                let has_great_jumps = plan.has(Fault::GreatJump);
                let jump = if has_great_jumps {
                    GREAT_JUMP_MS * 2
                } else {
                    JUMP_MS
                };
                let wall = self.hosts.iter().map(|host| host.env.wall_ms()).max();
                let judge = Judge {
                    now: self.ground.clock.now(),
                    store: &self.ground.store,
                    gaps_allowed: has_great_jumps,
                    late: Duration::from_millis((jump + 2 * STALL_MS) as u64) + steps,
                    wall_ms: wall.unwrap_or_default(),
                    is_wall_true: !plan.has(Fault::WallJump),
                    host: connection.line.host,
                    places: &self.places,
                };
                let client = &mut self.clients[number];
                let taken = client.take(packet, &mut self.sent, &judge);
                taken.map_err(|what| what.with(format!("client {number}: {packet:.200}")))?;
            }
            _ => {
                let detail = format!("client {number}: {packet}");
                return Err(Failure::new("a packet of no kind", detail));
            }
        }
        Ok(())
    }

    /// The faults end: everything that is owed comes.
    fn repair(&mut self) -> Result<(), Failure> {
        if self.ground.plan.has(Fault::BusOutage) {
            self.ground.network.outage(Duration::from_secs(1), false);
        }
        self.talk_all_at_once();
        for _ in 0..LAST_STEPS {
            let time = self.pace.ms(self.ground.plan.step_ms);
            self.step(time, false)?;
        }
        note!(self, "the faults end");
        let store = &self.ground.store;
        store.slow.set(false);
        store.unknown_per_mille.set(0);
        store.refused_per_mille.set(0);
        store.down_until.set(self.ground.clock.now());
        self.ground.network.mend();
        for host in &mut self.hosts {
            for shard in &mut host.shards {
                shard.stalled_until = self.begun;
            }
        }
        for number in 0..self.clients.len() {
            match &mut self.clients[number].connection {
                Some(connection) if connection.pace == Pace::Dead => {
                    self.hang_up(number, Fate::Closed);
                }
                Some(connection) => connection.pace = Pace::Fast,
                None => {}
            }
        }
        self.pass(REPAIRED_WITHIN)?;
        let end = self.ground.clock.now() + ANSWERED_WITHIN;
        let waits = |client: &Client| {
            let connection = client.connection.as_ref();
            connection.is_some_and(|one| one.cut_at.is_none() && one.pending() > 0)
        };
        while self.clients.iter().any(waits) && self.ground.clock.now() < end {
            self.pass(Duration::from_secs(1))?;
        }
        self.pass(self.silence())
    }

    /// After this time without a word every session is closed.
    fn silence(&self) -> Duration {
        let plan = &self.ground.plan;
        (plan.ping_interval + plan.ping_timeout) * 5 / 4 + Duration::from_secs(1)
    }

    fn pass(&mut self, time: Duration) -> Result<(), Failure> {
        let end = self.ground.clock.now() + time;
        loop {
            let now = self.ground.clock.now();
            if now >= end {
                return Ok(());
            }
            self.step(self.quiet(now).min(end - now), true)?;
        }
    }

    /// How long nothing happens.
    fn quiet(&self, now: Instant) -> Duration {
        let (soon, late) = (Duration::from_millis(20), Duration::from_millis(500));
        let lines = self.clients.iter().filter_map(|client| {
            let connection = client.connection.as_ref()?;
            connection.cut_at.is_none().then_some(&connection.line)
        });
        let is_active = |line: &Line| {
            let engine = &self.hosts[line.host].shards[line.shard].engine;
            line.is_active(engine)
        };
        if lines.chain(&self.ghosts).any(is_active) {
            return soon;
        }
        let next = self.hosts.iter().filter_map(Host::next);
        let others = [self.ground.store.next(), self.ground.network.next()];
        let others = others.into_iter().flatten();
        let others = others.map(|at| at.saturating_duration_since(now));
        next.chain(others).min().unwrap_or(late).clamp(soon, late)
    }

    /// After the repair: acks, messages and presence are complete.
    pub(crate) fn check_all_is_told(&self) -> Result<(), Failure> {
        let store = &self.ground.store;
        if !store.is_idle() {
            return Err("the store is still asked".into());
        }
        for message in &self.sent {
            message.check(store)?;
        }
        for (number, client) in self.clients.iter().enumerate() {
            let Some(connection) = &client.connection else {
                continue;
            };
            if connection.pending() > 0 && !connection.has_left {
                return Err(Failure::new(
                    "an ack is lacking",
                    format!("client {number}"),
                ));
            }
            for (room, membership) in &connection.rooms {
                let (last, head) = (membership.last, store.head(room));
                if last.is_some_and(|last| last != head) {
                    let detail = format!("client {number} has {last:?} of {room}, not {head}");
                    return Err(Failure::new("messages are lacking", detail));
                }
                self.check_newcomers(number, room, membership)?;
                for (user, is_there) in &membership.users {
                    let hosts = self.places.get(&(room.clone(), user.clone()));
                    let is_of_one = hosts.is_some_and(|hosts| {
                        hosts.iter().all(|host| *host == connection.line.host)
                    });
                    // Nobody is told of their own coming.
                    let is_told = *user != client.user && is_of_one && !self.is_going(user);
                    if is_told && *is_there != self.is_in(user, room) {
                        let detail = format!("client {number}: {user} in {room}: {is_there}");
                        return Err(Failure::new("told wrongly who is there", detail));
                    }
                }
            }
        }
        Ok(())
    }

    /// Who asked for a room only after this member was in it, and is there now, has been announced.
    fn check_newcomers(
        &self,
        number: usize,
        room: &str,
        membership: &Membership,
    ) -> Result<(), Failure> {
        for ((name, user), hosts) in &self.places {
            let own = self.clients[number].connection.as_ref();
            let is_of_one = own.is_some_and(|own| hosts.iter().all(|host| *host == own.line.host));
            let is_new = name == room && is_of_one && !membership.earlier.contains(user);
            let is_there = is_new && self.is_in(user, room) && !self.is_going(user);
            if is_there && !membership.users.contains_key(user) {
                let detail = format!("client {number}: {user} in {room}");
                return Err(Failure::new("nobody told who came", detail));
            }
        }
        Ok(())
    }

    /// Whether a token of the user's ends just now: one has heard of it, another not yet.
    fn is_going(&self, user: &str) -> bool {
        let wall = self.hosts.iter().map(|host| host.env.wall_ms()).max();
        self.clients.iter().any(|client| {
            let connection = client.connection.as_ref();
            client.user == user
                && connection.is_some_and(|connection| {
                    !connection.is_ready || wall >= Some(connection.expires_wall_ms)
                })
        })
    }

    fn is_in(&self, user: &str, room: &str) -> bool {
        self.clients.iter().any(|client| {
            let connection = client.connection.as_ref();
            client.user == user
                && connection.is_some_and(|connection| connection.rooms.contains_key(room))
        })
    }

    fn leave_all(&mut self) -> Result<(), Failure> {
        note!(self, "all leave");
        for number in 0..self.clients.len() {
            if self.order.chance(300) {
                self.leave_namespace(number);
                self.pass(Duration::from_millis(100))?;
            }
            self.hang_up(number, Fate::Closed);
        }
        self.pass(Duration::from_secs(7))?;
        self.pass(self.silence())?;
        // The engine forgets the deadlines of closed sessions when they come.
        self.step(Duration::from_mins(1), true)?;
        self.step(Duration::from_millis(20), true)
    }

    /// A token for a user: with short lives, of a few seconds.
    pub(crate) fn token(&self, number: usize) -> (String, u64) {
        let client = &self.clients[number];
        let lives_seconds = if self.ground.plan.has(Fault::TokenExpiry) {
            client.dice.between(1, 8) as u64
        } else {
            1_000_000
        };
        let wall = self.hosts.iter().map(|host| host.env.wall_ms()).max();
        let issued_seconds = wall.unwrap_or_default() / 1000;
        let claims = Claims {
            user: client.user.as_str().into(),
            rooms: None,
            issued_seconds,
            expires_seconds: issued_seconds + lives_seconds,
        };
        let token = sign(&auth(), &claims).expect("a secret signs");
        (token, claims.expires_seconds * 1000)
    }
}
