//! What lies between hosts: a broker that delivers each broadcast at most once, sometimes late, swapped, or
//! not at all. A link that was cut, or whose queue ran over, has all rooms compared when it is back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use project_yum::bus::mesh::Mesh;
use project_yum::env::Env;
use project_yum::hub::broadcast::{Broadcast, RoomKey};
use project_yum::hub::envelope::{self, Envelope, Head, Request, Response};
use project_yum::hub::{Bus, Hub, Task};
use project_yum::wire::Text;

use crate::dice::Dice;

/// A shard of a host that runs for the so-manieth time.
pub(crate) type Node = (usize, usize, usize);
type RoomName = (Text, Text);

/// How long the others take to notice that a host is gone.
const MISSED_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct Network {
    clock: Rc<Env>,
    dice: Rc<Dice>,
    nodes: RefCell<BTreeMap<Node, NodeState>>,
    events: RefCell<BTreeMap<(Instant, u64), Event>>,
    count: Cell<u64>,
    pub(crate) reorders: Cell<bool>,
    /// What may wait for one node; above it the broker cuts the link.
    pub(crate) queue_max: usize,
    /// Links that were cut because too much waited for them.
    pub(crate) overflows: Cell<u64>,
    pub(crate) swaps: Cell<u64>,
}

#[derive(Default)]
struct NodeState {
    wanted: BTreeSet<RoomName>,
    confirmed: BTreeSet<RoomName>,
    down_until: Option<Instant>,
    /// Newest numbers that could not be published, by room.
    owed: BTreeMap<RoomName, u64>,
    waiting: usize,
    /// What it asks of the broker takes effect in turn.
    last_command: Option<Instant>,
    last_from: BTreeMap<Node, Instant>,
    inbox: Vec<Envelope>,
}

enum Event {
    Arrive(Node, Envelope),
    Subscribe(Node, RoomName, Rc<Confirmation>),
    /// A host is missed: everybody's rooms may have more than is known.
    Compare,
}

#[derive(Default)]
struct Confirmation {
    is_there: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Confirmation {
    fn confirm(&self) {
        self.is_there.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Network {
    pub(crate) fn new(clock: Rc<Env>, dice: Rc<Dice>, queue_max: usize) -> Rc<Self> {
        Rc::new(Self {
            clock,
            dice,
            nodes: RefCell::default(),
            events: RefCell::default(),
            count: Cell::new(0),
            reorders: Cell::new(false),
            queue_max,
            overflows: Cell::new(0),
            swaps: Cell::new(0),
        })
    }

    pub(crate) fn add(&self, node: Node) {
        self.nodes.borrow_mut().insert(node, NodeState::default());
    }

    /// A host is gone; unless it said so, the others notice later.
    pub(crate) fn remove(&self, host: usize, has_said_so: bool) {
        self.nodes.borrow_mut().retain(|node, _| node.0 != host);
        if !has_said_so {
            self.at(self.clock.now() + MISSED_WITHIN, Event::Compare);
        }
    }

    fn at(&self, at: Instant, event: Event) {
        self.count.set(self.count.get() + 1);
        let mut events = self.events.borrow_mut();
        events.insert((at, self.count.get()), event);
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let nodes = self.nodes.borrow();
        let back = nodes.values().filter_map(|node| node.down_until).min();
        let events = self.events.borrow();
        let first = events.keys().next().map(|(at, _)| *at);
        back.into_iter().chain(first).min()
    }

    /// Rooms that a host is subscribed to.
    pub(crate) fn subscriptions(&self, host: usize) -> usize {
        let nodes = self.nodes.borrow();
        let of_host = nodes.iter().filter(|(node, _)| node.0 == host);
        of_host
            .map(|(_, state)| state.wanted.len().max(state.confirmed.len()))
            .sum()
    }

    /// Cuts a link, or all of them.
    pub(crate) fn cut(&self, which: Option<Node>, time: Duration) {
        let until = self.clock.now() + time;
        let mut waits = Vec::new();
        for (node, state) in self.nodes.borrow_mut().iter_mut() {
            if which.is_none_or(|which| which == *node) {
                state.down_until = state.down_until.max(Some(until));
                state.confirmed.clear();
                state.waiting = 0;
                waits.push(*node);
            }
        }
        // What was on its way there is lost, and nobody waits for a link that is down.
        let mut lost = Vec::new();
        self.events.borrow_mut().retain(|_, event| match event {
            Event::Arrive(node, _) => !waits.contains(node),
            Event::Subscribe(node, _, confirmation) if waits.contains(node) => {
                lost.push(confirmation.clone());
                false
            }
            _ => true,
        });
        for confirmation in lost {
            confirmation.confirm();
        }
    }

    /// The faults end: all links are up again.
    pub(crate) fn mend(&self) {
        let now = self.clock.now();
        for state in self.nodes.borrow_mut().values_mut() {
            state.down_until = state.down_until.map(|_| now);
        }
    }

    /// Does what is due.
    pub(crate) fn run(&self) {
        let now = self.clock.now();
        self.bring_back(now);
        loop {
            let mut events = self.events.borrow_mut();
            let Some(event) = events.first_entry().filter(|entry| entry.key().0 <= now) else {
                return;
            };
            let event = event.remove();
            drop(events);
            let mut nodes = self.nodes.borrow_mut();
            match event {
                Event::Arrive(node, envelope) => {
                    if let Some(state) = nodes.get_mut(&node) {
                        state.waiting -= 1;
                        state.inbox.push(envelope);
                    }
                }
                Event::Subscribe(node, room, confirmation) => {
                    if let Some(state) = nodes.get_mut(&node)
                        && state.wanted.contains(&room)
                    {
                        state.confirmed.insert(room);
                    }
                    drop(nodes);
                    confirmation.confirm();
                }
                Event::Compare => {
                    for state in nodes.values_mut() {
                        state.inbox.push(Envelope::AllHeads);
                    }
                }
            }
        }
    }

    fn bring_back(&self, now: Instant) {
        let mut notices = Vec::new();
        for (node, state) in self.nodes.borrow_mut().iter_mut() {
            if state.down_until.is_some_and(|until| until <= now) {
                state.down_until = None;
                state.confirmed = state.wanted.clone();
                state.inbox.push(Envelope::AllHeads);
                let owed = std::mem::take(&mut state.owed);
                let heads = owed.into_iter().map(|((namespace, room), seq)| Head {
                    namespace,
                    room,
                    seq,
                });
                notices.push((*node, heads.collect::<Vec<_>>()));
            }
        }
        for (from, heads) in notices {
            if !heads.is_empty() {
                let heads = Arc::new(heads);
                self.send(from, None, || Envelope::Heads(heads.clone()));
            }
        }
    }

    /// Takes something to the nodes of other hosts, or to those of them that want a room.
    fn send(&self, from: Node, room: Option<&RoomName>, envelope: impl Fn() -> Envelope) {
        let now = self.clock.now();
        let mut over = Vec::new();
        let mut arrivals = Vec::new();
        for (node, state) in self.nodes.borrow_mut().iter_mut() {
            let is_for = room.is_none_or(|room| state.confirmed.contains(room));
            if node.0 == from.0 || state.down_until.is_some() || !is_for {
                continue;
            }
            if state.waiting >= self.queue_max {
                over.push(*node);
                continue;
            }
            let mut at = now + self.dice.ms(40);
            let last = state.last_from.get(&from).copied();
            if self.reorders.get() && self.dice.chance(300) {
                self.swaps.set(self.swaps.get() + 1);
                at += self.dice.ms(150);
            } else {
                at = at.max(last.unwrap_or(at));
                state.last_from.insert(from, at);
            }
            state.waiting += 1;
            arrivals.push((*node, at));
        }
        for (node, at) in arrivals {
            self.at(at, Event::Arrive(node, envelope()));
        }
        for node in over {
            self.overflows.set(self.overflows.get() + 1);
            self.cut(Some(node), Duration::from_millis(50));
        }
    }
}

/// One shard's end: the production mesh for its own host, the network for the others.
pub(crate) struct Link {
    pub(crate) mesh: Rc<Mesh>,
    network: Rc<Network>,
    node: Node,
    /// The process has ended: nothing leaves it any more.
    is_over: Cell<bool>,
}

impl Link {
    pub(crate) fn new(mesh: Rc<Mesh>, network: Rc<Network>, node: Node) -> Rc<Self> {
        network.add(node);
        Rc::new(Self {
            mesh,
            network,
            node,
            is_over: Cell::new(false),
        })
    }

    pub(crate) fn end(&self) {
        self.is_over.set(true);
    }

    /// Takes what has arrived.
    pub(crate) fn drain(&self, hub: &Hub) {
        self.mesh.drain(hub);
        let mut nodes = self.network.nodes.borrow_mut();
        let inbox = nodes
            .get_mut(&self.node)
            .map(|state| std::mem::take(&mut state.inbox));
        drop(nodes);
        for envelope in inbox.into_iter().flatten() {
            hub.on_bus(envelope);
        }
    }
}

impl Bus for Link {
    fn publish(&self, broadcast: Arc<Broadcast>) {
        if self.is_over.get() {
            return;
        }
        self.mesh.publish(broadcast.clone());
        let [RoomKey::Named(room)] = &*broadcast.target.rooms else {
            return;
        };
        let name = (broadcast.target.namespace.clone(), room.clone());
        let mut nodes = self.network.nodes.borrow_mut();
        let Some(state) = nodes.get_mut(&self.node) else {
            return;
        };
        if state.down_until.is_some() {
            if let Some(order) = broadcast.order {
                let owed = state.owed.entry(name).or_default();
                *owed = order.seq.max(*owed);
            }
            return;
        }
        drop(nodes);
        // Versions of presence count on their own host.
        let broadcast = Arc::new(Broadcast {
            presence: None,
            ..Broadcast::clone(&broadcast)
        });
        let envelope = || Envelope::Broadcast(broadcast.clone());
        self.network.send(self.node, Some(&name), envelope);
    }

    fn subscribe(&self, namespace: &str, room: &str) -> Task {
        drop(self.mesh.subscribe(namespace, room));
        let name = (Text::from(namespace), Text::from(room));
        let network = &self.network;
        let mut nodes = network.nodes.borrow_mut();
        let confirmation = Rc::new(Confirmation::default());
        match nodes.get_mut(&self.node) {
            Some(state) if !self.is_over.get() => {
                state.wanted.insert(name.clone());
                if state.down_until.is_some() {
                    confirmation.confirm();
                } else {
                    let at = network.clock.now() + network.dice.ms(30);
                    let at = state.last_command.map_or(at, |last| last.max(at));
                    state.last_command = Some(at);
                    drop(nodes);
                    let event = Event::Subscribe(self.node, name, confirmation.clone());
                    network.at(at, event);
                }
            }
            _ => confirmation.confirm(),
        }
        Box::pin(poll_fn(move |context| {
            if confirmation.is_there.get() {
                return Poll::Ready(());
            }
            *confirmation.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        }))
    }

    fn unsubscribe(&self, namespace: &str, room: &str) {
        self.mesh.unsubscribe(namespace, room);
        let name = (Text::from(namespace), Text::from(room));
        let mut nodes = self.network.nodes.borrow_mut();
        if let Some(state) = nodes.get_mut(&self.node) {
            state.wanted.remove(&name);
            state.confirmed.remove(&name);
        }
    }

    fn request(&self, request: Arc<Request>) -> LocalBoxFuture<'static, usize> {
        self.mesh.request(request)
    }

    fn respond(&self, to: &envelope::Node, response: Response) {
        self.mesh.respond(to, response);
    }

    fn tick(&self, now: Instant) {
        self.mesh.tick(now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        Bus::next_deadline(&*self.mesh)
    }
}
