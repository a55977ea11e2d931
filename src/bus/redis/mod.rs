//! Every shard a node of a fleet, over Redis pub/sub in the format of Socket.IO's classic adapter.
//!
//! Each shard has one connection, for publishing and subscribing, and a uid of its own, as one more
//! Socket.IO server would. It subscribes to the rooms that it has members of. While the connection is
//! slow or away, the mesh of the process stands in: what is not answered soon goes through it too, and a
//! shard that is cut off says so to its siblings. What comes twice is dropped by the hub.
//!
//! Redis may lose, the store may not: whoever could not publish tells the room's newest number as soon
//! as it can, and every shard compares the numbers of all its rooms when its link has returned, when a
//! host begins and when one falls silent.
//!
//! Whoever may publish on this Redis is one of the fleet, as with Socket.IO's adapter: it may disconnect
//! any socket, and show clients what nobody has stored. What it makes up stops no room, however: a number
//! that the store does not have is forgotten when the store is asked. One just above the newest is not
//! asked for, and whoever gets it would drop the real message of that number, until it joins again. A signature would
//! keep out Node's servers and the emitter too, so the door is Redis's own: passwords, ACLs, TLS.
//!
//! News of users that could not be told follows when the link is back ([`news`]). What has neither a number
//! nor an answer (broadcasts in other rooms, commands to sockets) is lost with the link, and counted.
//!
//! What decides is in pure files: [`link`] (the connection), [`subscriptions`], [`reply`], [`hosts`], [`news`],
//! [`convert`] (the messages) and [`target`] (the URL). This file is the node that puts them together and
//! neither waits; [`rim`] has the stream.

mod convert;
mod fleet;
mod hosts;
mod link;
mod look;
mod news;
mod node;
mod reply;
mod requests;
mod rim;
mod subscriptions;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use flume::Sender;

pub use self::fleet::Fleet;
pub use self::link::{LinkError, Phase};
pub use self::look::{Found, LookError, look};
pub use self::target::{Target, UrlError};

use self::convert::Identity;
use self::hosts::Hosts;
use self::link::{Event, Link};
use self::news::OwedNews;
use super::heads::OwedHeads;
use super::mesh::Mesh;
use crate::dial::backoff::Backoff;
use crate::env::Env;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::wire::Text;
use crate::wire::adapter::Channels;

/// Where head notices are told.
const HEADS: &str = "project-yum#heads";
/// Where hosts say that they live.
const HOSTS: &str = "project-yum#hosts";
/// Heads are compared within this time of the reason, so that not all shards ask at once.
const COMPARE_WITHIN: Duration = Duration::from_millis(250);
/// The least time between two comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// Bytes that are kept allocated for the message that is written next.
const SCRATCH_KEPT: usize = 64 << 10;

/// What a node is made of.
pub struct Parts {
    /// Time and random bytes.
    pub env: Rc<Env>,
    /// The way to the other shards of the process.
    pub mesh: Rc<Mesh>,
    /// What the shards know of each other's links.
    pub fleet: Arc<Fleet>,
    /// This shard.
    pub shard: u8,
    /// The host in the ids of sockets.
    pub tag: u16,
    /// The namespaces that are shared with the fleet. Broadcasts of others stay on this host.
    pub namespaces: Vec<Text>,
    /// Where Redis is.
    pub target: Target,
}

/// One shard's node; give it to [`Hub::set_bus`].
pub struct Redis {
    identity: Identity,
    shard: u8,
    namespaces: Vec<(Text, Channels)>,
    target: Target,
    env: Rc<Env>,
    mesh: Rc<Mesh>,
    fleet: Arc<Fleet>,
    hub: OnceCell<Hub>,
    metrics: Metrics,
    /// How many broadcasts have been named.
    broadcasts: Cell<u64>,
    state: RefCell<State>,
}

/// All that changes. It is borrowed within one step, never while the hub is called.
struct State {
    link: Link,
    backoff: Backoff,
    owed: OwedHeads,
    news: OwedNews,
    hosts: Hosts,
    /// Who waits for a channel's confirmation: dropped, it comes to an end.
    waiters: BTreeMap<Box<str>, Vec<Sender<()>>>,
    /// Who waits for a number of subscribers.
    counts: BTreeMap<u64, Sender<usize>>,
    count_number: u64,
    compare_at: Option<Instant>,
    compared: Option<Instant>,
    beat_at: Instant,
    events: Vec<Event>,
    /// Where messages are written before their length is known.
    scratch: Vec<u8>,
    /// Of the task that has the stream.
    waker: Option<Waker>,
    /// Counts the ends of connections: the task sees by it that its stream is of no use any more.
    epoch: u64,
    /// The reason that the log has for the link being down.
    told: Option<Box<str>>,
    is_over: bool,
}

impl Redis {
    /// The node of a shard. Its link is down until [`Redis::run`] has made a connection.
    #[must_use]
    pub fn new(parts: Parts) -> Rc<Self> {
        let now = parts.env.now();
        let identity = Identity {
            uid: parts.fleet.uid(parts.shard).into(),
            host: parts.fleet.host(),
            tag: parts.tag,
        };
        let namespaces = parts.namespaces.into_iter();
        let namespaces: Vec<_> = namespaces
            .map(|name| (name.clone(), Channels::of(&name)))
            .collect();
        let mut link = Link::new(parts.target.login.clone(), now);
        for (_, channels) in &namespaces {
            let own = channels.response_to(&identity.uid);
            let all = [&*channels.broadcast, &channels.request, &channels.response];
            for channel in all.into_iter().chain([&*own]) {
                link.subscribe(now, channel);
            }
        }
        link.subscribe(now, HEADS);
        link.subscribe(now, HOSTS);
        let metrics = Metrics::new(usize::from(parts.shard));
        metrics.bus_up.set(0.0);
        Rc::new(Self {
            identity,
            shard: parts.shard,
            namespaces,
            target: parts.target,
            env: parts.env,
            mesh: parts.mesh,
            fleet: parts.fleet,
            hub: OnceCell::new(),
            metrics,
            broadcasts: Cell::new(0),
            state: RefCell::new(State {
                link,
                backoff: Backoff::default(),
                owed: OwedHeads::default(),
                news: OwedNews::default(),
                hosts: Hosts::default(),
                waiters: BTreeMap::new(),
                counts: BTreeMap::new(),
                count_number: 0,
                compare_at: None,
                compared: None,
                beat_at: now,
                events: Vec::new(),
                scratch: Vec::new(),
                waker: None,
                epoch: 0,
                told: None,
                is_over: false,
            }),
        })
    }

    /// Says whose bus it is. Once, before the first connection.
    pub fn attach_to(self: &Rc<Self>, hub: &Hub) {
        let _ = self.hub.set(hub.clone());
        hub.set_bus(self.clone());
    }

    /// How far the link is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.borrow().link.phase()
    }

    /// How many channels are subscribed, or will be once there is a link.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.state.borrow().link.channels()
    }

    /// What is to be written to the connection, for whoever has no stream: a test, a simulation.
    #[must_use]
    pub fn take_output(&self) -> Vec<u8> {
        self.with(|state| {
            let output = state.link.output().to_vec();
            state.link.sent(output.len());
            output
        })
    }

    fn channels_of(&self, namespace: &str) -> Option<&Channels> {
        let known = self.namespaces.iter();
        let mut known = known.filter(|(name, _)| &**name == namespace);
        known.next().map(|(_, channels)| channels)
    }

    fn with<R>(&self, step: impl FnOnce(&mut State) -> R) -> R {
        step(&mut self.state.borrow_mut())
    }

    /// The task that has the stream looks for what is to be written.
    fn wake(&self) {
        let waker = self.with(|state| {
            let has_output = !state.link.output().is_empty();
            state.waker.take_if(|_| has_output)
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The heads of all rooms are to be compared soon.
    fn compare_soon(&self, now: Instant) {
        let mut chance = [0];
        self.env.fill(&mut chance);
        self.with(|state| {
            let jitter = COMPARE_WITHIN * u32::from(chance[0]) / 255;
            let earliest = state.compared.map(|compared| compared + COMPARE_EVERY);
            let at = earliest.map_or(now + jitter, |earliest| earliest.max(now + jitter));
            state.compare_at = Some(state.compare_at.map_or(at, |before| before.min(at)));
        });
    }
}
