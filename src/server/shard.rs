//! One shard: its sessions, hub, chat and connections, introduced to each other.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::respond::{self, Demo, Routes};
use super::status::Status;
use super::store_state;
use super::stores::OpenStore;
use crate::auth::{AuthOptions, Verifier};
use crate::bus::mesh::{Mesh, Seat};
use crate::bus::redis::{self, Fleet, Redis};
use crate::bus::usage::MessageRate;
use crate::chat::rest::Rest;
use crate::chat::{self, Chat, ChatOptions};
use crate::config::Config;
use crate::engine::{self, Engine};
use crate::env::Env;
use crate::hub::{self, Hub};
use crate::limit::Rate;
use crate::metrics::Metrics;
use crate::net::{self, AddressLimits, Cors, Handoffs, Mount, Site, Transports};
use crate::store::{SharedStore, postgres};
use crate::wire::Text;

/// How long a drained shard waits for the store's answers: nothing waits for longer.
const SENDS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a shard says how the store is.
const STORE_LOOK: Duration = Duration::from_millis(250);
/// REST requests and handshakes of one address at once.
const HTTP_BURST: u32 = 100;
/// New connections of one address at once.
const CONNECTIONS_BURST: u32 = 1_000;
/// So many times a user's burst may be refused before the user is cut off.
const REFUSALS_PER_BURST: u32 = 10;
/// An upgrade that is not finished by then is given up.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// What all shards are given alike.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    pub(super) auth: AuthOptions,
    pub(super) store: OpenStore,
    pub(super) status: Arc<Status>,
    pub(super) process: Arc<net::Process>,
    /// Names this host in session ids.
    pub(super) host: u16,
    /// What the shards know of each other's links to Redis, if there is one.
    pub(super) fleet: Option<Arc<Fleet>>,
}

/// What a shard's thread is given.
pub(super) struct Parts {
    pub(super) index: u8,
    pub(super) shards: u8,
    pub(super) all: Shared,
    pub(super) listeners: net::Listeners,
    pub(super) seat: Seat,
    pub(super) handoffs: Handoffs,
    pub(super) store_seat: postgres::Seat,
}

/// Serves until the process has drained.
pub(super) async fn serve(parts: Parts) {
    let index = usize::from(parts.index);
    let env = Env::system();
    let metrics = Rc::new(Metrics::new(index));
    let engine = Engine::new(env.clone(), engine_options(&parts));
    engine.set_metrics(metrics.clone());
    let spawn: hub::Spawn = Rc::new(|task| {
        glommio::spawn_local(task).detach();
    });
    let hub_options = hub_options(&parts.all.config);
    let hub = Hub::new(env.clone(), engine.clone(), hub_options, spawn.clone());
    let mesh = parts.seat.sit();
    let redis = redis(&parts.all, parts.index, &env, &mesh);
    match &redis {
        Some(redis) => redis.attach_to(&hub),
        None => hub.set_bus(mesh.clone()),
    }
    let store = parts.all.store.handle();
    let store_seat = parts.store_seat.take();
    let verifier = Rc::new(Verifier::new(&parts.all.auth));
    let chat = Chat::new(
        ChatOptions {
            room_prefix: parts.all.config.room_prefix.clone(),
            outbox_bytes_max: parts.all.config.outbox_bytes_max,
            message_rate: message_rate(&parts.all.config),
        },
        chat::Parts {
            env: env.clone(),
            hub: hub.clone(),
            store: store.clone(),
            verifier: verifier.clone(),
            directory: mesh.directory().clone(),
            metrics: metrics.clone(),
            spawn,
        },
    );
    hub.set_app(chat.clone());
    glommio::spawn_local(mesh.clone().run(hub.clone())).detach();
    if let (Some(redis), Some(target)) = (&redis, &parts.all.config.redis) {
        glommio::spawn_local(redis.clone().run(target.clone())).detach();
    }

    let routes = Rc::new(Routes {
        status: parts.all.status.clone(),
        history: Rest::new(env.clone(), store.clone(), verifier),
        demo: parts
            .all
            .config
            .demo
            .then(|| Demo::new(parts.all.auth.clone())),
    });
    let site = site(engine, routes, &parts.all.config);
    let options = net::Options {
        shard: parts.index,
        shards: parts.shards,
        host: parts.all.host,
        drain: parts.all.config.drain,
        trust: parts.all.config.trust_proxy.clone(),
        address_limits: address_limits(&parts.all.config),
        require_https: parts.all.config.require_https,
        plain_paths: respond::HEALTH,
        ..net::Options::default()
    };
    let status = parts.all.status.clone();
    let mut pulse = Pulse {
        shard: index,
        status: parts.all.status,
        fleet: parts.all.fleet,
        process: parts.all.process.clone(),
        hub,
        chat: chat.clone(),
        store,
        look: env.now(),
    };
    let shard = net::Shard::new(env, options, site, metrics, parts.handoffs);
    let tick = Box::new(move |now| pulse.tick(now));
    net::run(shard, parts.listeners, parts.all.process, tick).await;
    status.ended(index);
    finish_sends(&chat).await;
    if let Some(redis) = redis {
        redis.leave().await;
    }
    store_seat.leave().await;
}

/// The shard's node in a fleet of hosts, if the settings name one.
fn redis(all: &Shared, shard: u8, env: &Rc<Env>, mesh: &Rc<Mesh>) -> Option<Rc<Redis>> {
    let (target, fleet) = (all.config.redis.as_ref()?, all.fleet.clone()?);
    Some(Redis::new(redis::Parts {
        env: env.clone(),
        mesh: mesh.clone(),
        fleet,
        shard,
        tag: all.host,
        namespaces: vec![Text::from_static(chat::NAMESPACE)],
        login: target.login.clone(),
    }))
}

/// What the shard serves, besides the sessions.
fn site(engine: Engine, routes: Rc<Routes>, config: &Config) -> Site {
    Site {
        mounts: vec![Rc::new(Mount {
            path: "/socket.io/".into(),
            engine,
            transports: Transports::default(),
            admit: None,
            ports: net::flush::Ports::default(),
        })],
        respond: Rc::new(move |request| routes.respond(&request)),
        cors: Cors::new(config.cors_origins.iter().map(ToString::to_string)),
    }
}

/// A message that the store has taken is delivered to other shards even when its sender is gone.
async fn finish_sends(chat: &Chat) {
    let deadline = Instant::now() + SENDS_TIMEOUT;
    while chat.waiting_sends() > 0 && Instant::now() < deadline {
        glommio::timer::sleep(Duration::from_millis(10)).await;
    }
}

/// What happens at each tick above the connections.
struct Pulse {
    shard: usize,
    status: Arc<Status>,
    fleet: Option<Arc<Fleet>>,
    process: Arc<net::Process>,
    hub: Hub,
    chat: Rc<Chat>,
    store: SharedStore,
    look: Instant,
}

impl Pulse {
    fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.status.ticked(self.shard, now);
        if self.process.draining.load(Ordering::Relaxed) {
            self.chat.set_draining();
        }
        self.hub.tick(now);
        self.chat.tick(now);
        // One shard speaks for all: the store is the process's.
        if self.shard == 0 && now >= self.look {
            self.status.set_store(store_state(self.store.condition()));
            if let Some(fleet) = &self.fleet {
                self.status.set_bus(fleet.condition());
            }
            self.look = now + STORE_LOOK;
        }
        [self.hub.next_deadline(), self.chat.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }
}

fn engine_options(parts: &Parts) -> engine::Options {
    let config = &parts.all.config;
    engine::Options {
        ping_interval: config.ping_interval,
        ping_timeout: config.ping_timeout,
        upgrade_timeout: UPGRADE_TIMEOUT,
        upgrades: true,
        max_payload: config.max_payload_bytes,
        outbox_bytes_max: config.outbox_bytes_max,
        host: parts.all.host,
        shard: parts.index,
    }
}

fn message_rate(config: &Config) -> MessageRate {
    MessageRate {
        rate: Rate::per_second(config.rate_messages_per_second, config.rate_burst),
        refusals_max: config.rate_burst.saturating_mul(REFUSALS_PER_BURST),
    }
}

fn address_limits(config: &Config) -> AddressLimits {
    if config.demo {
        // All come from this machine.
        return AddressLimits::default();
    }
    AddressLimits {
        requests: Rate::per_second(config.rate_http_per_second, HTTP_BURST),
        connections: Rate::per_second(config.rate_connections_per_second, CONNECTIONS_BURST),
        connections_max: config.max_connections_per_ip,
    }
}

fn hub_options(config: &Config) -> hub::Options {
    hub::Options {
        connect_timeout: config.connect_timeout,
        max_payload: config.max_payload_bytes,
        outbox_bytes_max: config.outbox_bytes_max,
    }
}
