//! A shard's connections.
//!
//! [`run`] accepts them, ticks, takes over connections whose session lives here, and drains. One
//! connection is one task: [`http`] reads its requests and answers them one after the other. A
//! request below a [`Mount`] belongs to an Engine.IO session ([`routing`]); every other one goes to
//! [`Site::respond`]. What the sessions carry is not known here.

pub mod addresses;
pub mod client;
mod compress;
pub mod connection;
pub mod cors;
pub mod deadline;
mod drain;
pub mod flush;
pub mod frames;
pub mod handoff;
pub mod http;
mod joined;
pub mod polling;
mod proxied;
mod readiness;
pub mod ring;
pub mod routing;
pub mod run;
pub mod stream;
mod turns;
pub mod websocket;

#[cfg(test)]
mod websocket_tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use crate::engine::{Engine, Handshake};
use crate::env::Env;
use crate::metrics::Metrics;
pub use crate::wire::http::Response;
use crate::wire::http::{RequestHead, http_date};
pub use addresses::AddressLimits;
use addresses::{Place, Refused};
pub use client::{Client, Origin, Trust};
pub use connection::{Closed, Connection};
pub use cors::Cors;
pub use deadline::Deadlines;
pub use handoff::{Handoff, Handoffs};
pub use run::{Listeners, Process, listen, run};
pub use stream::Stream;

/// What a shard serves.
pub struct Site {
    /// The Engine.IO endpoints.
    pub mounts: Vec<Rc<Mount>>,
    /// Answers every request that is not below a mount.
    pub respond: Rc<dyn Fn(Request) -> LocalBoxFuture<'static, Response>>,
    /// Which other origins may read the answers.
    pub cors: Cors,
}

/// One Engine.IO endpoint.
pub struct Mount {
    /// The prefix of its requests' paths, with a slash at its end: `/socket.io/`.
    pub path: Box<str>,
    /// The sessions.
    pub engine: Engine,
    /// Whether sessions may use WebSockets, and long-polling.
    pub transports: Transports,
    /// The application's own check of a request that would open a session. `Err` is answered with
    /// 403 and the given text.
    pub admit: Option<Admit>,
    /// The WebSockets of its sessions: `Ports::default()` at first.
    pub ports: flush::Ports,
}

/// See [`Mount::admit`].
pub type Admit = Rc<dyn Fn(&Handshake) -> Result<(), String>>;

/// Which transports a mount offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transports {
    /// HTTP long-polling.
    pub polling: bool,
    /// WebSocket, at first or by an upgrade.
    pub websocket: bool,
}

impl Default for Transports {
    fn default() -> Self {
        Self {
            polling: true,
            websocket: true,
        }
    }
}

/// A request outside the mounts, its body read.
#[derive(Debug, Clone)]
pub struct Request {
    /// The head.
    pub head: RequestHead,
    /// The body, at most [`Options::body_bytes_max`].
    pub body: Bytes,
    /// Who sent it.
    pub client: Client,
}

/// A shard's own numbers and bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// This shard, below `shards`.
    pub shard: u8,
    /// How many shards the process has.
    pub shards: u8,
    /// The host tag in session ids.
    pub host: u16,
    /// Bytes of a body outside the mounts.
    pub body_bytes_max: usize,
    /// How long a drain may take.
    pub drain: Duration,
    /// Which peers are proxies.
    pub trust: Trust,
    /// What one address may do; [`Shard::set_address_limits`] changes it.
    pub address_limits: AddressLimits,
    /// Whether requests that did not come through TLS are refused.
    pub require_https: bool,
    /// Paths that probes ask for: served without TLS too, and however often.
    pub plain_paths: &'static [&'static str],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shard: 0,
            shards: 1,
            host: 0,
            body_bytes_max: 64 * 1024,
            drain: Duration::from_secs(10),
            trust: Trust::default(),
            address_limits: AddressLimits::default(),
            require_https: false,
            plain_paths: &[],
        }
    }
}

/// What all connections of a shard share.
pub struct Shard {
    env: Rc<Env>,
    options: Options,
    site: Site,
    metrics: Rc<Metrics>,
    deadlines: Deadlines,
    handoffs: Handoffs,
    /// Which connections can be read.
    readiness: Rc<readiness::Readiness>,
    /// Reads go through here, so that an idle connection has no buffer of its own.
    scratch: RefCell<Box<[u8]>>,
    turns: turns::Turns,
    /// Whether anything was read or written since the last tick, but for heartbeats: they are in no hurry.
    active: Cell<bool>,
    /// Whether the last tick had pings to send: what is sent until the next one does not count.
    pings: Cell<bool>,
    open: Cell<usize>,
    /// Requests being answered, and WebSockets.
    busy: Cell<usize>,
    process: OnceCell<Arc<Process>>,
    address_limits: Cell<AddressLimits>,
    common: RefCell<CommonFields>,
    /// Sends for many connections at once; `None` where the kernel gives no ring.
    ring: RefCell<Option<ring::Ring>>,
}

/// The field lines of every answer, made once a second because of the date in them.
#[derive(Default)]
struct CommonFields {
    second: u64,
    plain: Rc<str>,
    with_policy: Rc<str>,
}

/// Counts a request or a WebSocket as long as it lives.
struct Busy(Rc<Shard>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

/// Bytes that one read takes at most.
const SCRATCH_BYTES: usize = 16 * 1024;

impl Shard {
    /// A shard that serves `site`.
    ///
    /// # Panics
    /// When the kernel gives no ring for its connections, though the executor has had three.
    #[must_use]
    pub fn new(
        env: Rc<Env>,
        options: Options,
        site: Site,
        metrics: Rc<Metrics>,
        handoffs: Handoffs,
    ) -> Rc<Self> {
        let readiness = readiness::Readiness::new().expect("io_uring, and a descriptor to be free");
        Rc::new(Self {
            env,
            address_limits: Cell::new(options.address_limits),
            options,
            site,
            metrics,
            deadlines: Deadlines::default(),
            handoffs,
            readiness,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            turns: turns::Turns::default(),
            active: Cell::new(false),
            pings: Cell::new(false),
            open: Cell::new(0),
            busy: Cell::new(0),
            process: OnceCell::new(),
            common: RefCell::default(),
            // Without it each connection has a send of its own.
            ring: RefCell::new(ring::Ring::new().ok()),
        })
    }

    /// The clock and the random bytes.
    #[must_use]
    pub fn env(&self) -> &Rc<Env> {
        &self.env
    }

    /// The shard's numbers and bounds.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What is served.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The shard's figures.
    #[must_use]
    pub fn metrics(&self) -> &Rc<Metrics> {
        &self.metrics
    }

    /// Deadlines that the tick fires.
    #[must_use]
    pub fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Changes what one address may do, from now on.
    pub fn set_address_limits(&self, limits: AddressLimits) {
        self.address_limits.set(limits);
    }

    /// Counts a connection for this address; see [`addresses::Addresses::open`].
    fn open_place(&self, address: IpAddr, is_new: bool) -> Result<Option<Place>, Refused> {
        let limits = self.address_limits.get();
        let Some(process) = self.process.get() else {
            return Ok(None);
        };
        let now = || self.env.now();
        let opened = process.addresses().open(address, &limits, is_new, now);
        match opened {
            Ok((place, had_no_room)) => {
                self.count_no_room(had_no_room);
                Ok(place)
            }
            Err(refused) => {
                let refusals = &self.metrics.connections_refused;
                refusals.increment(refused.reason());
                Err(refused)
            }
        }
    }

    /// Takes one request of this client; `Err` is how long to wait.
    fn take_request(&self, client: &Client) -> Result<(), Duration> {
        let (limits, process) = (self.address_limits.get(), self.process.get());
        let Some(process) = process.filter(|_| client.is_limited) else {
            return Ok(());
        };
        let taken = process.addresses();
        match taken.take_request(client.address, &limits, || self.env.now()) {
            Ok(((), had_no_room)) => {
                self.count_no_room(had_no_room);
                Ok(())
            }
            Err(wait) => {
                self.metrics.rate_limited.increment("request");
                Err(wait)
            }
        }
    }

    fn count_no_room(&self, had_no_room: bool) {
        if had_no_room {
            self.metrics.drops.increment("addresses_full");
        }
    }

    /// Says once for the process that limits by address do not apply.
    fn warn_of_proxies(&self) {
        let process = self.process.get();
        if !self.address_limits.get().are_off() && process.is_some_and(|p| p.is_first_doubt()) {
            tracing::warn!(
                "a peer of a loopback or private address is taken for a proxy, so limits by address do not apply to it; \
                 set TRUST_PROXY to the proxies' addresses, or to none if there is no proxy"
            );
        }
    }

    /// Whether the process is going away: no new sessions. Every shard knows at once, so that a client
    /// that one has sent away is not let in by the next.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        let process = self.process.get();
        process.is_some_and(|process| process.draining.load(Ordering::Acquire))
    }

    /// The turn of a client that sends without a pause is over.
    fn end_turn(&self) -> &turns::Turns {
        self.metrics.bounds.increment("turn");
        &self.turns
    }

    /// Tells the tick that something happens, so that it comes every 10 ms.
    pub fn mark_active(&self) {
        self.active.set(true);
    }

    fn busy(self: &Rc<Self>) -> Busy {
        self.busy.set(self.busy.get() + 1);
        Busy(Rc::clone(self))
    }

    /// The field lines that every answer has.
    fn common_fields(&self, with_policy: bool) -> Rc<str> {
        let second = self.env.wall_ms() / 1000;
        let mut common = self.common.borrow_mut();
        if common.second != second {
            let date = http_date(second);
            let plain = format!("Date: {date}\r\n{}", http::SECURITY_FIELDS);
            common.second = second;
            common.with_policy = format!("{}{plain}", http::POLICY_FIELD).into();
            common.plain = plain.into();
        }
        Rc::clone(if with_policy {
            &common.with_policy
        } else {
            &common.plain
        })
    }

    /// Notes that `sends` took so many frames.
    fn count_sends(&self, sends: usize, frames: usize) {
        if !self.pings.get() {
            self.mark_active();
        }
        self.metrics.flushes.increment(sends as u64);
        self.metrics.flushed_frames.increment(frames as u64);
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.open.get()
    }
}
