//! The conformance server: the Engine.IO and Socket.IO layers without the chat.
//!
//! `cargo run --release --example conformance` offers a raw Engine.IO echo at `/engine.io/` and the
//! Socket.IO handlers of [`app`] at `/socket.io/`, so that any client's own tests, ours in
//! `tests/protocol/`, and protocol suites can be run against it. It is also the proof that these
//! layers stand without the chat: it names `engine`, `hub`, `bus::mesh` and `net`, nothing above.
//!
//! Settings come from the environment: `HOST`, `PORT` (0: a free one; the first line of the output
//! says which), `PING_INTERVAL_MS`, `PING_TIMEOUT_MS`, `CONNECT_TIMEOUT_MS`, `UPGRADE_TIMEOUT_MS`,
//! `MAX_PAYLOAD_BYTES`, `CORS_ORIGINS`, `SHARDS`. SIGTERM ends it.

mod app;
mod echo;
mod settings;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use project_yum::bus::directory::Directory;
use project_yum::bus::mesh::{self, Mesh, Seat};
use project_yum::bus::redis::{self, Fleet, Redis};
use project_yum::engine::{self, Engine};
use project_yum::env::Env;
use project_yum::hub::{self, Hub};
use project_yum::metrics::Metrics;
use project_yum::net::{self, Cors, Handoffs, Mount, Response, Site, Transports};
use project_yum::server::{executor, signals};
use project_yum::wire::Text;
use rustix::net::getsockname;

use app::Conformance;
use echo::Echo;
use settings::Settings;

/// Unsent output of one session in payloads of full size: an echo may be asked for several at once.
const OUTBOX_PAYLOADS: usize = 4;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

/// What one shard's thread is given.
struct Parts {
    shard: u8,
    settings: Arc<Settings>,
    listener: OwnedFd,
    process: Arc<net::Process>,
    /// Of the one listener that both endpoints share.
    handoffs: Handoffs,
    /// The host in the ids of sockets.
    host: u16,
    fleet: Option<Arc<Fleet>>,
}

fn run() -> Result<(), String> {
    let settings = Arc::new(Settings::from_env(|name| std::env::var(name).ok())?);
    let (listeners, address) = listen(settings.address, settings.shards)?;
    let process = net::Process::new();
    let draining = process.clone();
    signals::start(
        move |_| draining.draining.store(true, Ordering::Release),
        || std::process::exit(1),
        || {},
    )
    .map_err(|error| format!("cannot wait for signals: {error}"))?;

    let seats = mesh::seats(settings.shards, &Directory::new());
    let handoffs = Handoffs::mesh(usize::from(settings.shards));
    let mut tag = [0; 2];
    random(&mut tag);
    let is_joined = settings.redis.is_some();
    let fleet = is_joined.then(|| Fleet::new(usize::from(settings.shards), random));
    let (ended, ends) = flume::bounded(usize::from(settings.shards));
    let each = listeners.into_iter().zip(seats).zip(handoffs);
    for (shard, ((listener, seat), handoffs)) in (0..).zip(each) {
        let parts = Parts {
            shard,
            settings: settings.clone(),
            listener,
            process: process.clone(),
            handoffs,
            host: u16::from_be_bytes(tag),
            fleet: fleet.clone(),
        };
        executor::start(usize::from(shard), None, ended.clone(), move || {
            serve(parts, seat)
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    drop(ended);
    writeln!(std::io::stdout(), "listening on {address}")
        .map_err(|error| format!("cannot say where it listens: {error}"))?;
    for (shard, end) in ends {
        end.map_err(|error| format!("shard {shard} failed: {error}"))?;
    }
    Ok(())
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

/// A listener for each shard, on one address.
fn listen(address: SocketAddr, shards: u8) -> Result<(Vec<OwnedFd>, SocketAddr), String> {
    let fail = |error: std::io::Error| format!("cannot listen on {address}: {error}");
    let first = net::listen(address).map_err(fail)?;
    let bound = getsockname(&first)
        .and_then(SocketAddr::try_from)
        .map_err(|error| fail(error.into()))?;
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(net::listen(bound).map_err(fail)?);
    }
    Ok((listeners, bound))
}

async fn serve(parts: Parts, seat: Seat) {
    let settings = &parts.settings;
    let env = Env::system();
    let sockets = Engine::new(env.clone(), engine_options(&parts));
    let spawn: hub::Spawn = Rc::new(|task| {
        glommio::spawn_local(task).detach();
    });
    let hub = Hub::new(
        env.clone(),
        sockets.clone(),
        hub::Options {
            connect_timeout: settings.connect_timeout,
            max_payload: settings.max_payload,
            outbox_bytes_max: settings.max_payload * OUTBOX_PAYLOADS,
        },
        spawn.clone(),
    );
    hub.set_app(Rc::new(Conformance::new(hub.clone())));
    let mesh = seat.sit();
    let redis = join_fleet(&parts, &env, &mesh);
    match &redis {
        Some(redis) => redis.attach_to(&hub),
        None => hub.set_bus(mesh.clone()),
    }
    if let Some(redis) = &redis {
        glommio::spawn_local(redis.clone().run()).detach();
    }
    glommio::spawn_local(mesh.clone().run(hub.clone())).detach();

    let echoes = Engine::new(env.clone(), engine_options(&parts));
    echoes.set_handler(Rc::new(Echo::new(echoes.clone(), spawn)));

    let site = Site {
        mounts: vec![mount("/engine.io/", echoes), mount("/socket.io/", sockets)],
        respond: Rc::new(|_| {
            let nothing = Response::error(404, "not_found", "there is nothing at this path");
            Box::pin(async { nothing })
        }),
        cors: Cors::new(settings.origins.clone()),
    };
    let options = net::Options {
        shard: parts.shard,
        shards: settings.shards,
        host: parts.host,
        drain: settings::DRAIN,
        ..net::Options::default()
    };
    let metrics = Rc::new(Metrics::new(usize::from(parts.shard)));
    let shard = net::Shard::new(env, options, site, metrics, parts.handoffs);
    let tick = move |now: Instant| {
        hub.tick(now);
        hub.next_deadline()
    };
    net::run(shard, parts.listener, parts.process, Box::new(tick)).await;
    if let Some(redis) = redis {
        redis.leave().await;
    }
}

/// The shard's node in a fleet, if the settings name its Redis.
fn join_fleet(parts: &Parts, env: &Rc<Env>, mesh: &Rc<Mesh>) -> Option<Rc<Redis>> {
    Some(Redis::new(redis::Parts {
        env: env.clone(),
        mesh: mesh.clone(),
        fleet: parts.fleet.clone()?,
        shard: parts.shard,
        tag: parts.host,
        namespaces: ["/", "/custom"].map(Text::from_static).to_vec(),
        target: parts.settings.redis.clone()?,
    }))
}

fn mount(path: &str, engine: Engine) -> Rc<Mount> {
    Rc::new(Mount {
        path: path.into(),
        engine,
        transports: Transports::default(),
        admit: None,
        ports: net::flush::Ports::default(),
    })
}

fn engine_options(parts: &Parts) -> engine::Options {
    let settings = &parts.settings;
    engine::Options {
        ping_interval: settings.ping_interval,
        ping_timeout: settings.ping_timeout,
        upgrade_timeout: settings.upgrade_timeout,
        max_payload: settings.max_payload,
        outbox_bytes_max: settings.max_payload * OUTBOX_PAYLOADS,
        shard: parts.shard,
        host: parts.host,
        ..engine::Options::default()
    }
}
