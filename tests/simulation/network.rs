//! What lies between hosts: a broker that speaks Redis's protocol byte for byte over connections that are
//! late, torn, cut, silent, or too full.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use project_yum::bus::mesh::Mesh;
use project_yum::bus::redis::{Phase, Redis};
use project_yum::env::Env;
use project_yum::hub::Hub;

use crate::dice::Dice;

/// A shard of a host that runs for the so-manieth time.
pub(crate) type Node = (usize, usize, usize);

/// How long a node waits at most before it connects again.
const AGAIN_MS: usize = 300;

pub(crate) struct Network {
    clock: Rc<Env>,
    dice: Rc<Dice>,
    wires: RefCell<BTreeMap<Node, Wire>>,
    /// Nobody gets a connection until then.
    down_until: Cell<Instant>,
    /// Bytes that may wait for one node; above that the broker ends its connection.
    queue_max: usize,
    /// Connections that were ended because too much waited for them.
    pub(crate) overflows: Cell<u64>,
    /// Writes of nodes that arrived later than they were sent.
    pub(crate) late: Cell<u64>,
    /// Messages that arrived after one of the same channel that was sent later, by another node.
    pub(crate) overtaken: Cell<u64>,
    /// When the newest message of each channel was sent that has arrived.
    newest: RefCell<BTreeMap<Vec<u8>, Instant>>,
    /// When all connections are cut again: the bus flaps.
    flaps: RefCell<Vec<Instant>>,
}

/// Bytes that were written at once.
struct Chunk {
    sent: Instant,
    /// When they arrive.
    at: Instant,
    bytes: Vec<u8>,
}

/// One connection, and what its node has subscribed to by it.
#[derive(Default)]
struct Wire {
    is_connected: bool,
    /// The node does not know yet that it was cut.
    is_cut: bool,
    connect_at: Option<Instant>,
    /// No byte moves until then.
    silent_until: Option<Instant>,
    channels: BTreeSet<Vec<u8>>,
    up: VecDeque<Chunk>,
    input: Vec<u8>,
    down: VecDeque<Chunk>,
    waiting: usize,
}

impl Wire {
    fn cut(&mut self) {
        // It may be cut again before the node has noticed.
        let is_cut = self.is_cut || self.is_connected;
        let silent_until = self.silent_until;
        *self = Self {
            is_cut,
            silent_until,
            ..Self::default()
        };
    }
}

/// Puts bytes behind those that are under way.
fn later(queue: &mut VecDeque<Chunk>, sent: Instant, delay: Duration, bytes: Vec<u8>) {
    let at = sent + delay;
    let at = queue.back().map_or(at, |last| last.at.max(at));
    queue.push_back(Chunk { sent, at, bytes });
}

impl Network {
    pub(crate) fn new(clock: Rc<Env>, dice: Rc<Dice>, queue_max: usize) -> Rc<Self> {
        let down_until = Cell::new(clock.now());
        Rc::new(Self {
            clock,
            dice,
            wires: RefCell::default(),
            down_until,
            queue_max,
            overflows: Cell::new(0),
            late: Cell::new(0),
            overtaken: Cell::new(0),
            newest: RefCell::default(),
            flaps: RefCell::default(),
        })
    }

    /// A host is gone, and with it its connections. `has_left`: its last words have arrived.
    pub(crate) fn remove(&self, host: usize, has_left: bool) {
        if has_left {
            let mut wires = self.wires.borrow_mut();
            for (_, wire) in wires.iter_mut().filter(|(node, _)| node.0 == host) {
                for chunk in &mut wire.up {
                    chunk.at = self.clock.now();
                }
            }
            drop(wires);
            self.run();
        }
        self.wires.borrow_mut().retain(|node, _| node.0 != host);
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let wires = self.wires.borrow();
        let of_wire = |wire: &Wire| {
            let queues = [wire.up.front(), wire.down.front()];
            let first = queues.into_iter().flatten().map(|chunk| chunk.at).min();
            let at = first.into_iter().chain(wire.connect_at).min()?;
            Some(wire.silent_until.map_or(at, |until| until.max(at)))
        };
        wires.values().filter_map(of_wire).min()
    }

    /// Cuts a connection.
    pub(crate) fn cut(&self, node: Node) {
        if let Some(wire) = self.wires.borrow_mut().get_mut(&node) {
            wire.cut();
        }
    }

    /// Nothing moves on a connection, and nobody is told.
    pub(crate) fn silence(&self, node: Node, time: Duration) {
        if let Some(wire) = self.wires.borrow_mut().get_mut(&node) {
            wire.silent_until = Some(self.clock.now() + time);
        }
    }

    /// The broker is away: all connections are cut, or all are silent.
    pub(crate) fn outage(&self, time: Duration, is_silent: bool) {
        let until = self.clock.now() + time;
        for wire in self.wires.borrow_mut().values_mut() {
            if is_silent {
                wire.silent_until = Some(until);
            } else {
                wire.cut();
            }
        }
        if !is_silent {
            self.down_until.set(until);
        }
    }

    /// All connections are cut, again and again: so long from now each time.
    pub(crate) fn flap(&self, after: &[Duration]) {
        let now = self.clock.now();
        let flaps = after.iter().map(|after| now + *after);
        self.flaps.borrow_mut().extend(flaps);
    }

    /// The faults end.
    pub(crate) fn mend(&self) {
        self.down_until.set(self.clock.now());
        self.flaps.borrow_mut().clear();
        for wire in self.wires.borrow_mut().values_mut() {
            wire.silent_until = None;
        }
    }

    /// The broker takes what has come, and answers.
    pub(crate) fn run(&self) {
        let now = self.clock.now();
        let flaps = &mut *self.flaps.borrow_mut();
        let count = flaps.len();
        flaps.retain(|at| *at > now);
        if flaps.len() < count {
            self.wires.borrow_mut().values_mut().for_each(Wire::cut);
        }
        let mut wires = self.wires.borrow_mut();
        let nodes: Vec<Node> = wires.keys().copied().collect();
        for node in nodes {
            let wire = wires.get_mut(&node).expect("it is there");
            if wire.silent_until.is_some_and(|until| now < until) {
                continue;
            }
            wire.silent_until = None;
            self.hear(&mut wires, node);
        }
    }

    /// Obeys what has arrived from a node.
    fn hear(&self, wires: &mut BTreeMap<Node, Wire>, node: Node) {
        let now = self.clock.now();
        loop {
            let wire = wires.get_mut(&node).expect("it is there");
            let Some(chunk) = wire.up.pop_front_if(|chunk| chunk.at <= now) else {
                return;
            };
            if chunk.at > chunk.sent {
                self.late.set(self.late.get() + 1);
            }
            wire.input.extend(chunk.bytes);
            while let Some(command) = take_command(&mut wires.get_mut(&node).expect("there").input)
            {
                if command[0] == b"PUBLISH" {
                    self.note_order(&command[1], chunk.sent);
                }
                self.obey(wires, node, &command);
            }
        }
    }

    fn note_order(&self, channel: &[u8], sent: Instant) {
        let mut newest = self.newest.borrow_mut();
        let newest = newest.entry(channel.to_vec()).or_insert(sent);
        if sent < *newest {
            self.overtaken.set(self.overtaken.get() + 1);
        }
        *newest = sent.max(*newest);
    }

    fn say(&self, wire: &mut Wire, bytes: Vec<u8>) {
        wire.waiting += bytes.len();
        if wire.waiting > self.queue_max {
            self.overflows.set(self.overflows.get() + 1);
            return wire.cut();
        }
        later(&mut wire.down, self.clock.now(), self.dice.ms(30), bytes);
    }

    fn obey(&self, wires: &mut BTreeMap<Node, Wire>, node: Node, command: &[Vec<u8>]) {
        let publish = |wires: &mut BTreeMap<Node, Wire>| {
            let (channel, message) = (&command[1], &command[2]);
            let mut push = b">3\r\n$7\r\nmessage\r\n".to_vec();
            for part in [channel, message] {
                push.extend(format!("${}\r\n", part.len()).into_bytes());
                push.extend(part);
                push.extend(b"\r\n");
            }
            let mut count = 0;
            for wire in wires.values_mut() {
                if wire.is_connected && wire.channels.contains(channel) {
                    count += 1;
                    self.say(wire, push.clone());
                }
            }
            count
        };
        let name = String::from_utf8_lossy(&command[0]).into_owned();
        let answer = match &*name {
            "HELLO" => "%1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n".to_owned(),
            "SELECT" => "+OK\r\n".to_owned(),
            "PING" => "+PONG\r\n".to_owned(),
            "PUBLISH" => format!(":{}\r\n", publish(wires)),
            "SUBSCRIBE" | "UNSUBSCRIBE" => {
                let wire = wires.get_mut(&node).expect("who asks is there");
                let kind = name.to_lowercase();
                let mut answer = String::new();
                for channel in &command[1..] {
                    if kind == "subscribe" {
                        wire.channels.insert(channel.clone());
                    } else {
                        wire.channels.remove(channel);
                    }
                    let (length, count) = (channel.len(), wire.channels.len());
                    let channel = String::from_utf8_lossy(channel);
                    let _ = write!(
                        answer,
                        ">3\r\n${}\r\n{kind}\r\n${length}\r\n{channel}\r\n:{count}\r\n",
                        kind.len()
                    );
                }
                answer
            }
            other => panic!("a command that the broker does not know: {other}"),
        };
        if let Some(wire) = wires.get_mut(&node).filter(|wire| wire.is_connected) {
            self.say(wire, answer.into_bytes());
        }
    }
}

/// Takes a whole command out of what a node has sent.
fn take_command(input: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let (count, mut at) = take_number(input, 0, b'*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, from) = take_number(input, at, b'$')?;
        words.push(input.get(from..from + length)?.to_vec());
        at = from + length + 2;
    }
    (at <= input.len()).then(|| {
        input.drain(..at);
        words
    })
}

fn take_number(input: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let rest = input.get(at..)?.strip_prefix(&[kind])?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let number = std::str::from_utf8(&rest[..end - 1]).ok()?;
    Some((number.parse().ok()?, at + end + 2))
}

/// One shard's end: the mesh of its host, and its connection to the broker, if there is a fleet.
pub(crate) struct Link {
    pub(crate) mesh: Rc<Mesh>,
    pub(crate) redis: Option<Rc<Redis>>,
    network: Rc<Network>,
    node: Node,
    /// Channels that are subscribed from the start on.
    channels: usize,
}

impl Link {
    /// The bus of a shard's hub from now on.
    pub(crate) fn new(
        mesh: Rc<Mesh>,
        redis: Option<Rc<Redis>>,
        network: Rc<Network>,
        node: Node,
    ) -> Self {
        if redis.is_some() {
            let wire = Wire {
                connect_at: Some(network.clock.now()),
                ..Wire::default()
            };
            network.wires.borrow_mut().insert(node, wire);
        }
        let channels = redis.as_ref().map_or(0, |redis| redis.channels());
        Self {
            mesh,
            redis,
            network,
            node,
            channels,
        }
    }

    pub(crate) fn attach_to(&self, hub: &Hub) {
        match &self.redis {
            Some(redis) => redis.attach_to(hub),
            None => hub.set_bus(self.mesh.clone()),
        }
    }

    /// Channels of rooms and sockets.
    pub(crate) fn subscriptions(&self) -> usize {
        let channels = self.redis.as_ref().map_or(0, |redis| redis.channels());
        channels.saturating_sub(self.channels)
    }

    /// Takes what has arrived, and sends what waits.
    pub(crate) fn turn(&self, hub: &Hub) {
        self.mesh.drain(hub);
        if let Some(redis) = &self.redis {
            self.connect(redis);
            self.read(redis);
            self.write(redis);
        }
    }

    fn connect(&self, redis: &Redis) {
        let now = self.network.clock.now();
        let mut wires = self.network.wires.borrow_mut();
        let wire = wires.get_mut(&self.node).expect("a node has a wire");
        if std::mem::take(&mut wire.is_cut) {
            drop(wires);
            redis.lost("cut");
            wires = self.network.wires.borrow_mut();
        }
        let wire = wires.get_mut(&self.node).expect("a node has a wire");
        if wire.is_connected && redis.phase() == Phase::Down {
            // The node gave it up.
            wire.cut();
            wire.is_cut = false;
        }
        if wire.is_connected {
            return;
        }
        let again = || now + self.network.dice.ms(AGAIN_MS);
        let connect_at = *wire.connect_at.get_or_insert_with(again);
        if now >= connect_at && now >= self.network.down_until.get() {
            wire.is_connected = true;
            wire.connect_at = None;
            drop(wires);
            redis.connected();
        }
    }

    fn read(&self, redis: &Redis) {
        let now = self.network.clock.now();
        loop {
            let mut wires = self.network.wires.borrow_mut();
            let wire = wires.get_mut(&self.node).expect("a node has a wire");
            if wire.silent_until.is_some_and(|until| now < until) {
                return;
            }
            let Some(chunk) = wire.down.pop_front_if(|chunk| chunk.at <= now) else {
                return;
            };
            let bytes = chunk.bytes;
            wire.waiting -= bytes.len();
            drop(wires);
            let (first, second) = bytes.split_at(self.network.dice.below(bytes.len() + 1));
            redis.received(first);
            if !second.is_empty() && redis.phase() != Phase::Down {
                redis.received(second);
            }
        }
    }

    /// The shard ends in good order: what it has to say is sent.
    pub(crate) fn leave(&self) {
        if let Some(redis) = &self.redis {
            redis.say_stop();
            self.write(redis);
        }
    }

    fn write(&self, redis: &Redis) {
        let mut wires = self.network.wires.borrow_mut();
        let wire = wires.get_mut(&self.node).expect("a node has a wire");
        if !wire.is_connected || wire.is_cut {
            return;
        }
        let output = redis.take_output();
        if !output.is_empty() {
            let (now, delay) = (self.network.clock.now(), self.network.dice.ms(30));
            later(&mut wire.up, now, delay, output);
        }
    }
}
