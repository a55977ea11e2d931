//! Puts the parts together: one executor a shard, the store, the mesh, the listeners, the signals.
//!
//! This is the only place where the chat meets the network, the store and the bus; none of them
//! knows another. [`run`] starts everything, says where it listens, and returns when a signal has
//! ended it and every client is told.

pub mod announce;
pub mod cpus;
pub mod demo;
pub mod doctor;
pub mod executor;
pub mod live;
mod memory;
pub mod metrics_listener;
pub mod notify;
pub mod probe;
pub mod process_figures;
pub mod reload;
pub mod respond;
pub mod shard;
pub mod signals;
pub mod status;
mod stores;
pub mod watchdog;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::auth::AuthOptions;
use crate::bus::directory::Directory;
use crate::bus::mesh;
use crate::bus::redis::Fleet;
use crate::config::Config;
use crate::metrics::DRAINING;
use crate::report::Reporter;
use crate::store::{Condition, postgres, sqlite};
use crate::{log, net};
use cpus::Plan;
use live::{Current, Live};
use reload::{OnPhase, Phase, Reloader, Source};
use shard::{Parts, Shared};
use status::Status;
use stores::OpenStore;

/// How long all shards may take to tick for the first time.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the port may be taken by a server that has just ended.
const PORT_TIMEOUT: Duration = Duration::from_secs(2);
const PORT_RETRY: Duration = Duration::from_millis(20);

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A listener cannot be opened.
    #[error("cannot listen on {address}: {error}.\n{}", listen_advice(error))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The metrics listener cannot be opened.
    #[error("cannot serve metrics on {0}: {1}.\nChoose another METRICS_ADDR, or none.")]
    Metrics(SocketAddr, io::Error),
    /// The database cannot be opened.
    #[error("cannot open the database {0}: {1}\n{advice}", advice = sqlite_advice(.1))]
    Store(String, sqlite::OpenError),
    /// PostgreSQL cannot be used.
    #[error("cannot use the database: {0}\n{advice}", advice = postgres_advice(.0))]
    Postgres(#[from] postgres::OpenError),
    /// The demo's secret cannot be kept.
    #[error("cannot keep the demo's secret: {0}")]
    Secret(io::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A shard ended before it was told to.
    #[error("shard {0} failed: {1}")]
    Shard(usize, String),
    /// The shards did not begin to tick.
    #[error("the shards did not start within 10 s")]
    Slow,
}

fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "Another program listens there: stop it, or choose another PORT (or PROXY_PROTOCOL_ADDR)."
        }
        io::ErrorKind::AddrNotAvailable => "This machine does not have that address: see HOST.",
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need a right (CAP_NET_BIND_SERVICE): choose another PORT."
        }
        _ => "See HOST and PORT.",
    }
}

/// What to do when this host, not the service that was asked, stands in the way.
const HOST_ADVICE: &str = "This host is in the way, not the service: see its limits of threads, memory and locked memory.";

fn sqlite_advice(error: &sqlite::OpenError) -> &'static str {
    match error {
        sqlite::OpenError::Thread(_) => HOST_ADVICE,
        sqlite::OpenError::Newer(_) | sqlite::OpenError::Foreign(_) => {
            "Or choose another file: DATABASE_URL."
        }
        sqlite::OpenError::Make { .. } | sqlite::OpenError::Sqlite { .. } => {
            "See that the path is right and is this user's to write: DATABASE_URL."
        }
    }
}

fn postgres_advice(error: &postgres::OpenError) -> &'static str {
    match error {
        postgres::OpenError::Thread(_) => HOST_ADVICE,
        postgres::OpenError::Newer(_) => "Or choose another database: DATABASE_URL.",
        postgres::OpenError::Step { .. } => {
            "See that its user may create tables and that it may be written to: DATABASE_URL."
        }
        postgres::OpenError::Link(_) => {
            "See that it runs, and that DATABASE_URL names its host, user, password and database."
        }
    }
}

/// Serves until a signal ends it. `auth` are the keys of `config`, and `source` reads it anew.
pub fn run(config: Config, auth: &AuthOptions, source: Source) -> Result<(), ServerError> {
    let recorder = config
        .metrics_addr
        .map(|address| (address, metrics_listener::install_recorder()));
    let reporter = config
        .sentry_dsn
        .as_ref()
        .map(|dsn| Reporter::start(dsn, &config.sentry_environment))
        .transpose()
        .map_err(ServerError::Thread)?;
    let log = log::start(&config.log_level, config.log_format, reporter);
    let plan = cpus::plan(config.shards);
    let (listeners, address) = listen(SocketAddr::new(config.host, config.port), plan.shards)?;
    let (listeners, proxied) = listen_to_proxies(&config, listeners)?;
    let (store, store_seats) = OpenStore::open(&config.database, &config.replicas, plan.shards)?;
    let fleet = config
        .redis
        .is_some()
        .then(|| Fleet::new(plan.shards, random));
    let bus_kind = if fleet.is_some() { "redis" } else { "mesh" };
    let status = Status::new(plan.shards, store.kind(), bus_kind);
    let process = net::Process::new();
    let current = Current::new(Live::new(&config, auth));
    let reloader = Reloader {
        source,
        config: config.clone(),
        current: current.clone(),
        log: log.clone(),
        on_phase: tell_of_reloads(&status, &process),
    };
    let reload = reload::start(reloader).map_err(ServerError::Thread)?;
    start_threads(&config, recorder, &status, &process, &log, reload)?;

    let config = Arc::new(config);
    let all = Shared {
        config: config.clone(),
        auth: auth.clone(),
        current,
        store,
        status: status.clone(),
        process: process.clone(),
        host: host_tag(),
        fleet,
    };
    let ends = start_shards(&plan, &all, listeners, store_seats)?;
    // From here on only the shards hold the store, so that it closes with the last of them.
    drop(all);
    wait_for_start(&status, &ends)?;
    announce::ready(&config, auth, address, proxied, plan.shards);
    notify::ready(&status.summary());
    wait_for_end(&ends, &process)?;
    tracing::info!("stopped");
    Ok(())
}

/// Starts a thread for each shard.
fn start_shards(
    plan: &Plan,
    all: &Shared,
    listeners: Vec<net::Listeners>,
    store_seats: Vec<postgres::Seat>,
) -> Result<Ends, ServerError> {
    let count = u8::try_from(plan.shards).expect("there are at most 64 shards");
    let directory = Directory::new();
    let seats = mesh::seats(count, &directory);
    let process = all.process.clone();
    let memory = memory::start(move || process.connections() + directory.rooms())
        .map_err(ServerError::Thread)?;
    let handoffs = net::Handoffs::mesh(plan.shards);
    let (ended, ends) = flume::bounded(plan.shards);
    let each = listeners
        .into_iter()
        .zip(seats)
        .zip(handoffs)
        .zip(store_seats);
    for (index, (((listeners, seat), handoffs), store_seat)) in (0..count).zip(each) {
        let parts = Parts {
            index,
            shards: count,
            all: all.clone(),
            listeners,
            seat,
            handoffs,
            store_seat,
            memory: memory.clone(),
        };
        let cpu = plan.pins.as_ref().map(|pins| pins[usize::from(index)]);
        let serve = move || shard::serve(parts);
        executor::start(usize::from(index), cpu, ended.clone(), serve)
            .map_err(ServerError::Thread)?;
    }
    Ok(ends)
}

/// The listeners of all shards, on one address.
fn listen(address: SocketAddr, shards: usize) -> Result<(Vec<OwnedFd>, SocketAddr), ServerError> {
    let fail = |error| ServerError::Listen { address, error };
    // SO_REUSEPORT would let a second server of the same user share the port unseen.
    if address.port() != 0 {
        wait_for_port(address).map_err(fail)?;
    }
    let first = net::listen(address).map_err(fail)?;
    let bound = rustix::net::getsockname(first.as_fd())
        .map_err(io::Error::from)
        .and_then(|name| SocketAddr::try_from(name).map_err(io::Error::from))
        .map_err(fail)?;
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(net::listen(bound).map_err(fail)?);
    }
    Ok((listeners, bound))
}

/// Puts to each shard's listener the one for the PROXY protocol, if there is to be one.
fn listen_to_proxies(
    config: &Config,
    public: Vec<OwnedFd>,
) -> Result<(Vec<net::Listeners>, Option<SocketAddr>), ServerError> {
    let Some(address) = config.proxy_protocol_addr else {
        return Ok((public.into_iter().map(net::Listeners::from).collect(), None));
    };
    let (proxied, address) = listen(address, public.len())?;
    let pairs = public.into_iter().zip(proxied);
    let both = pairs.map(|(public, proxied)| net::Listeners {
        public,
        proxied: Some(proxied),
    });
    Ok((both.collect(), Some(address)))
}

/// Waits until nobody listens on an address. The kernel gives back the listeners of a server that
/// was killed a moment after its end, with its rings; whoever restarts it need not know.
fn wait_for_port(address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + PORT_TIMEOUT;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(PORT_RETRY);
            }
            other => return other.map(drop),
        }
    }
}

fn start_threads(
    config: &Config,
    recorder: Option<(SocketAddr, metrics_exporter_prometheus::PrometheusHandle)>,
    status: &Arc<Status>,
    process: &Arc<net::Process>,
    log: &log::Guard,
    reload: SyncSender<()>,
) -> Result<(), ServerError> {
    let (draining, told) = (process.clone(), status.clone());
    let shown = metrics::gauge!(DRAINING);
    shown.set(0.0);
    let drain = move |signal: &'static str| {
        tracing::info!(signal, "draining: clients are told to leave");
        told.set_draining();
        notify::stopping();
        shown.set(1.0);
        draining.draining.store(true, Ordering::Release);
    };
    let last_words = log.clone();
    let end_now = move || {
        tracing::warn!("a second signal: ending at once");
        last_words.flush();
        std::process::exit(1);
    };
    // One that waits already is as good as two.
    let reload = move || {
        let _ = reload.try_send(());
    };
    signals::start(drain, end_now, reload).map_err(ServerError::Thread)?;
    let last_words = log.clone();
    let give_up = move |shard| {
        tracing::error!(shard, "the shard has stood still for 10 s: ending");
        last_words.flush();
        std::process::exit(1);
    };
    watchdog::start(status.clone(), give_up).map_err(ServerError::Thread)?;
    let Some((address, handle)) = recorder else {
        return Ok(());
    };
    match metrics_listener::start(address, handle, status.clone()) {
        Ok(bound) => tracing::info!(address = %bound, "metrics are served"),
        Err(error) if config.metrics_required => return Err(ServerError::Metrics(address, error)),
        // The default address: a second server on this machine should not fail because of it.
        Err(error) => tracing::warn!(%address, %error, "metrics are not served"),
    }
    Ok(())
}

/// What the service manager hears of a reload; nothing once the server goes away.
fn tell_of_reloads(status: &Arc<Status>, process: &Arc<net::Process>) -> OnPhase {
    let (status, process) = (status.clone(), process.clone());
    Box::new(move |phase| match phase {
        _ if process.draining.load(Ordering::Acquire) => {}
        Phase::Begun => notify::reloading(),
        Phase::Done => notify::ready(&status.summary()),
    })
}

/// Names this host in session ids: another process must not take our sids for its own.
fn host_tag() -> u16 {
    let mut tag = [0; 2];
    random(&mut tag);
    u16::from_be_bytes(tag)
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

type Ends = flume::Receiver<(usize, Result<(), String>)>;

fn wait_for_start(status: &Status, ends: &Ends) -> Result<(), ServerError> {
    let deadline = Instant::now() + START_TIMEOUT;
    while !status.is_started() {
        match ends.recv_timeout(Duration::from_millis(5)) {
            Ok((shard, Err(error))) => return Err(ServerError::Shard(shard, error)),
            Ok((_, Ok(()))) | Err(flume::RecvTimeoutError::Disconnected) => break,
            Err(flume::RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                return Err(ServerError::Slow);
            }
            Err(flume::RecvTimeoutError::Timeout) => {}
        }
    }
    Ok(())
}

/// Returns when every shard has ended as it was told; the first other end is an error.
fn wait_for_end(ends: &Ends, process: &net::Process) -> Result<(), ServerError> {
    while let Ok((shard, end)) = ends.recv() {
        end.map_err(|error| ServerError::Shard(shard, error))?;
        if !process.draining.load(Ordering::Acquire) {
            return Err(ServerError::Shard(shard, "it ended by itself".to_owned()));
        }
    }
    Ok(())
}

/// What the shards tell `/health` of the store.
fn store_state(condition: Condition) -> status::PartState {
    match condition {
        Condition::Ok => Ok(()),
        Condition::Degraded(reason) => Err(reason),
    }
}
