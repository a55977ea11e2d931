//! A shard's tasks: accept, tick, flush, adopt, drain.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use glommio::timer::Timer;
use socket2::{Domain, Protocol, Socket, Type};

use super::addresses::Addresses;
use super::drain::Drain;
use super::stream::Listener;
use super::{Connection, Origin, Shard, flush, handoff, http, proxied, readiness};

/// Descriptors kept for what is no connection: files, the store, connections on their way between
/// two shards.
pub const DESCRIPTORS_RESERVED: usize = 64;
/// Descriptors that each shard's executor and its rings need.
const DESCRIPTORS_OF_A_SHARD: usize = 16;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;
/// How long no connection is accepted after the system had no descriptor or memory for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Connections accepted before others get their turn.
const ACCEPTS_AT_ONCE: usize = 16;

/// The longest time between two ticks while anything happens: it also bounds how long the executor
/// can sleep on work that became ready while it was about to park.
pub const TICK_BUSY: Duration = Duration::from_millis(10);
/// The longest time between two ticks of an idle shard.
pub const TICK_IDLE: Duration = Duration::from_millis(100);
/// A shard is idle when nothing has happened for so long.
const IDLE_AFTER: Duration = Duration::from_millis(100);
const TICK_SHORTEST: Duration = Duration::from_millis(1);

/// What the whole process shares: the signal to drain, and the bound of its descriptors.
#[derive(Debug)]
pub struct Process {
    /// Set once: from then on the shards drain.
    pub draining: AtomicBool,
    /// Connections of all shards.
    connections: AtomicUsize,
    /// Descriptors that are not for connections.
    reserved: AtomicUsize,
    /// The limit of open descriptors.
    descriptors: usize,
    /// What each client address has open.
    addresses: Arc<Addresses>,
    /// Whether it was said that a peer may be a proxy or not.
    has_doubted: AtomicBool,
}

impl Process {
    /// The bound is the process's limit of open descriptors less a reserve.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        Arc::new(Self {
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            reserved: AtomicUsize::new(DESCRIPTORS_RESERVED),
            descriptors: limit.unwrap_or(usize::MAX),
            addresses: Arc::default(),
            has_doubted: AtomicBool::new(false),
        })
    }

    pub(super) fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    /// Whether nobody has asked this before.
    pub(super) fn is_first_doubt(&self) -> bool {
        !self.has_doubted.swap(true, Ordering::Relaxed)
    }

    /// How many connections all shards have.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether one more connection would touch the reserve.
    fn is_full(&self) -> bool {
        let used = self.connections.load(Ordering::Relaxed) + self.reserved.load(Ordering::Relaxed);
        used >= self.descriptors
    }
}

/// Where a shard's connections come in.
#[derive(Debug)]
pub struct Listeners {
    /// Clients, and proxies that speak for them in HTTP's own fields.
    pub public: OwnedFd,
    /// Proxies that begin each connection with a header of the PROXY protocol.
    pub proxied: Option<OwnedFd>,
}

impl From<OwnedFd> for Listeners {
    fn from(public: OwnedFd) -> Self {
        Self {
            public,
            proxied: None,
        }
    }
}

/// A listening socket on `address` that other shards can share (`SO_REUSEPORT`). Port 0 takes a free
/// one. Connections inherit that small packets are sent at once.
pub fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    // A restarted server need not wait for the connections of the one before.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    // Accepting stops where nobody waits.
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves until the process drains and every session has left, or the drain's time is over. Returns
/// until when what is left to do may take: a second before the drain's time is over.
///
/// `tick` is called at most 10 ms apart while anything happens, else at most 100 ms, or when the
/// deadline that it returned has come. Dirty sessions and the engines' deadlines are driven from
/// here, so it is for what stands above: the hub, the watchdog's stamp.
///
/// # Panics
/// When the shard runs already.
pub async fn run(
    shard: Rc<Shard>,
    listeners: impl Into<Listeners>,
    process: Arc<Process>,
    mut tick: Box<dyn FnMut(Instant) -> Option<Instant>>,
) -> Instant {
    process
        .reserved
        .fetch_add(DESCRIPTORS_OF_A_SHARD, Ordering::Relaxed);
    assert!(
        shard.process.set(Arc::clone(&process)).is_ok(),
        "a shard runs once"
    );
    glommio::spawn_local(readiness::run(Rc::clone(&shard.readiness))).detach();
    for mount in &shard.site.mounts {
        glommio::spawn_local(flush::run(Rc::clone(&shard), Rc::clone(mount))).detach();
    }
    glommio::spawn_local(handoff::adopt(Rc::clone(&shard))).detach();
    let Listeners { public, proxied } = listeners.into();
    let mut doors = vec![Door::open(&shard, public, &process, Entrance::Public)];
    doors.extend(proxied.map(|fd| Door::open(&shard, fd, &process, Entrance::Proxied)));

    let mut last_active = Instant::now();
    let mut drain: Option<Drain> = None;
    let mut due = last_active;
    let end = loop {
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        shard.metrics.tick_late_seconds.record(late.as_secs_f64());
        if shard.active.replace(false) {
            last_active = now;
        }
        let above = tick(now);
        shard.deadlines.fire(now);
        let is_crowded = shard.turns.give();
        shard.pings.set(false);
        let engines = shard.site.mounts.iter().map(|mount| {
            let is_due = mount.engine.next_deadline().is_some_and(|at| at <= now);
            shard.pings.set(shard.pings.get() || is_due);
            mount.engine.tick();
            mount.engine.next_deadline()
        });
        let next = engines
            .flatten()
            .chain(above)
            .chain(shard.deadlines.next())
            .min();
        if process.draining.load(Ordering::Acquire) {
            let drain = drain.get_or_insert_with(|| Drain::new(&shard, now));
            if drain.tick(&shard, now) {
                break drain.end();
            }
            last_active = now;
        }
        let longest = if is_crowded {
            TICK_SHORTEST
        } else if now - last_active < IDLE_AFTER {
            TICK_BUSY
        } else {
            TICK_IDLE
        };
        let sleep = next.map_or(longest, |next| {
            next.saturating_duration_since(now).min(longest)
        });
        let sleep = sleep.max(TICK_SHORTEST);
        due = Instant::now() + sleep;
        Timer::new(sleep).await;
    };
    // The listeners close last: whoever came until now was answered.
    for door in doors {
        door.close().await;
    }
    end
}

/// A listener and the task that accepts from it.
struct Door {
    /// A second handle: the listener itself belongs to the task.
    listener: io::Result<OwnedFd>,
    accepting: glommio::Task<()>,
}

/// Whom a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entrance {
    Public,
    Proxied,
}

impl Door {
    fn open(
        shard: &Rc<Shard>,
        socket: OwnedFd,
        process: &Arc<Process>,
        entrance: Entrance,
    ) -> Self {
        let second = socket.try_clone();
        let listener = Listener::new(&shard.readiness, socket);
        let accepting = accept(Rc::clone(shard), listener, Arc::clone(process), entrance);
        Self {
            listener: second,
            accepting: glommio::spawn_local(accepting),
        }
    }

    /// The poll for who comes keeps the listener open until the ring is told otherwise, so it is shut
    /// down first.
    async fn close(self) {
        if let Ok(listener) = self.listener {
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
        self.accepting.cancel().await;
    }
}

async fn accept(shard: Rc<Shard>, listener: Listener, process: Arc<Process>, entrance: Entrance) {
    let mut count: usize = 0;
    loop {
        if process.is_full() {
            // The kernel's queue holds who comes; those who are here are served.
            shard.metrics.connections_refused.increment("descriptors");
            shard.deadlines.reach(Instant::now() + ACCEPT_PAUSE).await;
            continue;
        }
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok((socket, peer)) => {
                shard.mark_active();
                shard.metrics.connections_accepted.increment(1);
                if let Some(peer) = peer {
                    welcome(&shard, socket, peer.into(), entrance);
                }
            }
            Err(error) => {
                if !is_of_the_peer(&error) {
                    // Out of descriptors or memory: trying again at once would only burn the core.
                    shard.metrics.connections_refused.increment("system");
                    shard.deadlines.reach(Instant::now() + ACCEPT_PAUSE).await;
                }
            }
        }
        count += 1;
        if count.is_multiple_of(ACCEPTS_AT_ONCE) {
            glommio::executor().yield_task_queue_now().await;
        }
    }
}

/// Gives an accepted connection a task of its own, unless its address has too many.
fn welcome(shard: &Rc<Shard>, socket: OwnedFd, mut origin: Origin, entrance: Entrance) {
    if entrance == Entrance::Public && !proxied::count(shard, &mut origin) {
        return;
    }
    let mut connection = Connection::new(Rc::clone(shard), socket, origin, BytesMut::new());
    connection.take_arrived();
    match entrance {
        Entrance::Public => glommio::spawn_local(http::serve(connection)).detach(),
        Entrance::Proxied => glommio::spawn_local(proxied::serve(connection)).detach(),
    };
}

/// Whether an accept failed because of the one connection that it would have brought.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}
