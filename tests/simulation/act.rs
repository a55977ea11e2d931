//! What clients do, and what goes wrong around them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use project_yum::engine::{Handshake, Transport};

use crate::client::{Asked, Connection, Pace, Sent};
use crate::dice::Dice;
use crate::host::State;
use crate::line::{Fate, Line, Out};
use crate::plan::Fault;
use crate::world::{GREAT_JUMP_MS, JUMP_MS, STALL_MS, World, note};
use std::fmt::Write as _;

const DOWN_MS: usize = 1_500;
const OUTAGE_MS: usize = 3_000;
/// How often all connections are cut when the bus flaps, within the time of an outage.
const FLAPS_MIN: usize = 3;
const FLAPS_MAX: usize = 8;
const SILENCE_MS: usize = 1_500;
const WALL_JUMP_MS: usize = 20_000;
/// The least time between two faults that make the store seem silent.
const FAULTS_APART: Duration = Duration::from_secs(4);
/// Packets of a client that wait to be sent: it does nothing more then.
const BACKLOG_MAX: usize = 20;
/// Sends at once, more than a connection's handlers may leave waiting.
const BURST: usize = 80;

/// A sequence of chance for each kind of fault.
pub(crate) type FaultDice = BTreeMap<Fault, Rc<Dice>>;

impl World {
    pub(crate) fn fault_dice(&self) -> FaultDice {
        let plan = &self.ground.plan;
        let all = Fault::ALL.into_iter().filter(|fault| plan.has(*fault));
        all.map(|fault| (fault, plan.dice(fault.name(), 0)))
            .collect()
    }

    /// What goes wrong now.
    pub(crate) fn fault(&mut self, dice: &FaultDice) {
        let steps_between = |fault| match fault {
            Fault::Stall => 50,
            Fault::BusLoss | Fault::BusSilent => 100,
            Fault::WallJump => 150,
            Fault::HostCrash | Fault::BusOutage | Fault::BusFlapping => 300,
            Fault::HostDrain => 400,
            Fault::StoreDown | Fault::ClockJump | Fault::GreatJump => 120,
            _ => 0,
        };
        for (fault, dice) in dice {
            let steps = steps_between(*fault);
            if steps > 0 && dice.below(steps) == 0 {
                self.inject(*fault, dice);
            }
        }
    }

    fn inject(&mut self, fault: Fault, dice: &Dice) {
        let now = self.ground.clock.now();
        let host = dice.below(self.hosts.len());
        let needs_pause = matches!(
            fault,
            Fault::StoreDown | Fault::ClockJump | Fault::GreatJump
        );
        if needs_pause && now < self.fault_after {
            return;
        }
        let is_of_bus = matches!(
            fault,
            Fault::BusLoss | Fault::BusSilent | Fault::BusOutage | Fault::BusFlapping
        );
        if is_of_bus && !self.ground.plan.has_redis {
            return;
        }
        match fault {
            Fault::Stall if self.hosts[host].is_serving() => {
                let stall = dice.ms(STALL_MS);
                let shard = dice.below(self.hosts[host].shards.len());
                note!(self, "host {host}, shard {shard} stalls for {stall:?}");
                self.hosts[host].shards[shard].stalled_until = now + stall;
            }
            Fault::BusLoss | Fault::BusSilent if self.hosts[host].is_serving() => {
                let shard = dice.below(self.hosts[host].shards.len());
                let node = (host, shard, self.hosts[host].run);
                let time = dice.ms(SILENCE_MS);
                note!(
                    self,
                    "host {host}, shard {shard}: {} ({time:?})",
                    fault.name()
                );
                if fault == Fault::BusLoss {
                    self.ground.network.cut(node);
                } else {
                    self.ground.network.silence(node, time);
                }
            }
            Fault::BusOutage => {
                let (time, is_silent) = (dice.ms(OUTAGE_MS), dice.chance(500));
                note!(self, "the bus is away for {time:?}, silent: {is_silent}");
                self.ground.network.outage(time, is_silent);
            }
            Fault::BusFlapping => {
                let count = dice.between(FLAPS_MIN, FLAPS_MAX);
                let flaps: Vec<_> = (0..count).map(|_| dice.ms(OUTAGE_MS)).collect();
                note!(self, "the bus flaps after {flaps:?}");
                self.ground.network.flap(&flaps);
            }
            Fault::StoreDown => {
                let down = dice.ms(DOWN_MS);
                note!(self, "the store is down for {down:?}");
                self.ground.store.down_until.set(now + down);
                self.fault_after = now + down + FAULTS_APART;
            }
            Fault::ClockJump => {
                let jump = dice.ms(JUMP_MS);
                note!(self, "host {host} jumps by {jump:?}");
                self.hosts[host].env.advance(jump);
                self.fault_after = now + jump + FAULTS_APART;
            }
            Fault::GreatJump => {
                let jump = dice.ms(GREAT_JUMP_MS);
                note!(self, "host {host} jumps by {jump:?}");
                self.hosts[host].env.advance(jump);
            }
            Fault::WallJump => {
                let by = dice.between(0, 2 * WALL_JUMP_MS);
                let by =
                    i64::try_from(by).expect("small") - i64::try_from(WALL_JUMP_MS).expect("small");
                note!(self, "the wall clock of host {host} is set by {by} ms");
                self.hosts[host].env.shift_wall(by);
            }
            Fault::HostCrash if self.hosts[host].is_serving() => {
                note!(self, "host {host} crashes");
                self.stop(host, false);
            }
            Fault::HostDrain if self.hosts[host].state == State::Up => {
                note!(self, "host {host} drains");
                self.hosts[host].begin_drain(now);
            }
            _ => return,
        }
        self.count(fault);
    }

    /// A client does something.
    pub(crate) fn act(&mut self, number: usize) {
        let dice = self.clients[number].dice.clone();
        let Some(connection) = &mut self.clients[number].connection else {
            if dice.chance(300) {
                self.connect(number);
            }
            return;
        };
        if connection.cut_at.is_some() || connection.line.backlog() > BACKLOG_MAX {
            return;
        }
        let shard = &self.hosts[connection.line.host].shards[connection.line.shard];
        if self.ground.clock.now() < shard.stalled_until {
            return;
        }
        if dice.chance(30) {
            return self.end_somehow(number, &dice);
        }
        if dice.chance(100) {
            connection.line.upgrade(&shard.engine);
        }
        if self.ground.plan.has(Fault::UpgradeRace) && dice.chance(60) {
            if let Some(what) = connection.line.disturb(&shard.engine, &dice) {
                note!(self, "client {number} {what}");
                self.count(Fault::UpgradeRace);
            }
            return;
        }
        if connection.has_left {
            if !connection.is_reconnecting && dice.chance(300) {
                self.connect_again(number);
            }
            return;
        }
        if connection.is_ready && connection.pace != Pace::Dead {
            self.act_in_namespace(number, &dice);
        }
    }

    fn act_in_namespace(&mut self, number: usize, dice: &Dice) {
        let plan = &self.ground.plan;
        let room = dice.pick(&self.rooms).clone();
        match dice.below(100) {
            0..30 => {
                let seen = self.clients[number].seen.get(&room).copied();
                let last_seq = seen.filter(|_| dice.chance(700));
                self.ask(number, Asked::Join { room, last_seq });
            }
            30..36 => self.ask(number, Asked::Leave { room }),
            36..39 => self.change_pace(number),
            39 => self.leave_namespace(number),
            40..44 if plan.has(Fault::TokenExpiry) => {
                let (token, expires_wall_ms) = self.token(number);
                let asked = Asked::Authenticate {
                    token,
                    expires_wall_ms,
                };
                self.ask(number, asked);
            }
            44..46 if plan.has(Fault::Binary) => {
                self.count(Fault::Binary);
                self.ask(number, Asked::Binary);
            }
            46 if plan.has(Fault::FullQueue) && dice.chance(400) => {
                self.count(Fault::FullQueue);
                for _ in 0..BURST {
                    self.send_new(number, room.clone(), dice);
                }
            }
            47..58 => {
                if let Some(message) = self.clients[number].again.pop() {
                    self.send(number, message);
                }
            }
            _ => self.send_new(number, room, dice),
        }
    }

    pub(crate) fn send_new(&mut self, number: usize, room: String, dice: &Dice) {
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

    /// Everybody says something in every room, or joins it: whatever is lost of it, no later message shows.
    pub(crate) fn talk_all_at_once(&mut self) {
        for number in self.able() {
            let dice = self.clients[number].dice.clone();
            let is_joiner = dice.chance(400);
            for room in self.rooms.clone() {
                if is_joiner {
                    let last_seq = None;
                    self.ask(number, Asked::Join { room, last_seq });
                    continue;
                }
                self.send_new(number, room.clone(), &dice);
                self.send_new(number, room, &dice);
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

    pub(crate) fn ask(&mut self, number: usize, asked: Asked) {
        note!(self, "client {number} asks {asked:?}");
        let now = self.ground.clock.now();
        let client = &mut self.clients[number];
        let Some(connection) = client.connection.as_mut() else {
            return;
        };
        if let Asked::Join { room, .. } = &asked {
            let place = (room.clone(), client.user.clone());
            let hosts = self.places.entry(place).or_default();
            hosts.insert(connection.line.host);
        }
        connection.ask(asked, &self.sent, now);
    }

    /// The client leaves the namespace; what still comes of it is of no interest.
    pub(crate) fn leave_namespace(&mut self, number: usize) {
        note!(self, "client {number} leaves the namespace");
        let Some(connection) = &mut self.clients[number].connection else {
            return;
        };
        if !connection.is_ready {
            return;
        }
        connection.line.say(Out::Text("41".into()));
        let unanswered = connection.give_up();
        connection.leave();
        self.send_again_later(number, &unanswered);
    }

    fn send_again_later(&mut self, number: usize, unanswered: &[usize]) {
        for message in unanswered {
            self.sent[*message].is_open = false;
            if self.sent[*message].key.is_some() {
                self.clients[number].again.push(*message);
            }
        }
    }

    fn connect(&mut self, number: usize) {
        let dice = self.clients[number].dice.clone();
        let host = if self.users_stay {
            number % self.ground.plan.users % self.hosts.len()
        } else {
            dice.below(self.hosts.len())
        };
        if self.hosts[host].state != State::Up {
            return;
        }
        let shard = dice.below(self.hosts[host].shards.len());
        let place = &self.hosts[host].shards[shard];
        if self.ground.clock.now() < place.stalled_until {
            return;
        }
        let handshake = Handshake {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            headers: Vec::new(),
            query: "".into(),
            secure: false,
            issued_wall_ms: self.hosts[host].env.wall_ms(),
        };
        let transport = if dice.chance(self.ground.plan.polling) {
            Transport::Polling
        } else {
            Transport::WebSocket
        };
        let key = place.engine.open(transport, handshake);
        note!(
            self,
            "client {number} connects to host {host}, shard {shard}, by {transport:?}"
        );
        let line = Line::new(&place.engine, host, shard, key);
        let is_slow = self.ground.plan.has(Fault::SlowClient) && dice.chance(150);
        let speed = if is_slow { Pace::Slow } else { Pace::Fast };
        self.clients[number].connection = Some(Connection::new(line, speed));
        self.connect_again(number);
    }

    /// Asks for the namespace.
    fn connect_again(&mut self, number: usize) {
        let (token, expires_wall_ms) = self.token(number);
        if let Some(connection) = &mut self.clients[number].connection {
            connection.expires_wall_ms = expires_wall_ms;
            connection.is_reconnecting = true;
            let packet = format!(r#"40{{"token":"{token}"}}"#);
            connection.line.say(Out::Text(packet));
        }
    }

    fn change_pace(&mut self, number: usize) {
        let mut choices = vec![Pace::Fast, Pace::Fast];
        if self.ground.plan.has(Fault::SlowClient) {
            choices.push(Pace::Slow);
        }
        if self.ground.plan.has(Fault::DeadClient) {
            choices.push(Pace::Dead);
        }
        let pace = *self.clients[number].dice.pick(&choices);
        note!(self, "client {number} is {pace:?}");
        match pace {
            Pace::Fast => {}
            Pace::Slow => self.count(Fault::SlowClient),
            Pace::Dead => self.count(Fault::DeadClient),
        }
        if let Some(connection) = &mut self.clients[number].connection {
            connection.pace = pace;
        }
    }

    /// The connection ends in one of the ways in which connections end.
    fn end_somehow(&mut self, number: usize, dice: &Dice) {
        let plan = &self.ground.plan;
        let mut ways = vec![Fate::Closed];
        if plan.has(Fault::HalfOpen) {
            ways.push(Fate::Silent);
        }
        if plan.has(Fault::Reset) {
            ways.push(Fate::Reset);
        }
        let fate = *dice.pick(&ways);
        match fate {
            Fate::Silent => self.count(Fault::HalfOpen),
            Fate::Reset => self.count(Fault::Reset),
            Fate::Whole | Fate::Closed => {}
        }
        self.hang_up(number, fate);
    }

    pub(crate) fn hang_up(&mut self, number: usize, fate: Fate) {
        note!(self, "client {number} ends its connection: {fate:?}");
        let is_cut = |connection: &Connection| connection.cut_at.is_some();
        if self.clients[number].connection.as_ref().is_some_and(is_cut) {
            self.forget_connection(number);
            return;
        }
        if let Some(mut line) = self.forget_connection(number) {
            let engine = &self.hosts[line.host].shards[line.shard].engine;
            line.end(engine, fate);
            self.ghosts.push(line);
        }
    }

    /// The client has no connection any more.
    pub(crate) fn forget_connection(&mut self, number: usize) -> Option<Line> {
        let mut connection = self.clients[number].connection.take()?;
        let unanswered = connection.give_up();
        self.send_again_later(number, &unanswered);
        Some(connection.line)
    }
}
