//! One shard: its sessions, hub, chat and connections, introduced to each other.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::live::{Current, Live};
use super::memory;
use super::respond::{self, Demo, Routes};
use super::status::Status;
use super::store_state;
use super::stores::OpenStore;
use crate::auth::{AuthOptions, Verifier};
use crate::bus::mesh::{Mesh, Seat};
use crate::bus::redis::{self, Fleet, Redis};
use crate::chat::permission::{Permissions, TokenRooms};
use crate::chat::rest::Rest;
use crate::chat::{self, Chat, ChatOptions};
use crate::config::Config;
use crate::engine::{self, Engine};
use crate::env::Env;
use crate::hub::{self, Hub};
use crate::metrics::Metrics;
use crate::net::{self, Cors, Handoffs, Mount, Site, Transports};
use crate::store::{SharedStore, postgres};
use crate::wire::Text;

/// How long a drained shard waits at least for the store's answers. Who waited for one has had the
/// drain's time, so only a store that hangs has not given them all by then.
const SENDS_GRACE: Duration = Duration::from_millis(100);
/// How often a shard says how the store is.
const STORE_LOOK: Duration = Duration::from_millis(250);
/// An upgrade that is not finished by then is given up.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// What all shards are given alike.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    pub(super) auth: AuthOptions,
    pub(super) current: Arc<Current>,
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
    pub(super) memory: memory::Calls,
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
    let mut seen = 0;
    let current = parts.all.current.clone();
    let live = current.newer(&mut seen).expect("nothing was seen yet");
    let verifier = Rc::new(Verifier::with_rules(live.rules.clone()));
    let permissions: Rc<dyn Permissions> = Rc::new(TokenRooms);
    let chat = Chat::new(
        ChatOptions {
            room_prefix: parts.all.config.room_prefix.clone(),
            outbox_bytes_max: parts.all.config.outbox_bytes_max,
            message_rate: live.message_rate,
        },
        chat::Parts {
            env: env.clone(),
            hub: hub.clone(),
            store: store.clone(),
            verifier: verifier.clone(),
            permissions: permissions.clone(),
            directory: mesh.directory().clone(),
            metrics: metrics.clone(),
            spawn,
        },
    );
    hub.set_app(chat.clone());
    hub.expect_latecomers();
    glommio::spawn_local(mesh.clone().run(hub.clone())).detach();
    if let Some(redis) = &redis {
        glommio::spawn_local(redis.clone().run()).detach();
    }

    let routes = Rc::new(Routes {
        status: parts.all.status.clone(),
        history: Rest::new(env.clone(), store.clone(), verifier.clone(), permissions),
        demo: parts
            .all
            .config
            .demo
            .then(|| Demo::new(parts.all.auth.clone())),
    });
    let site = site(engine, routes, &live);
    let options = net::Options {
        shard: parts.index,
        shards: parts.shards,
        host: parts.all.host,
        drain: parts.all.config.drain,
        trust: parts.all.config.trust_proxy.clone(),
        address_limits: live.address_limits,
        require_https: parts.all.config.require_https,
        plain_paths: respond::HEALTH,
        ..net::Options::default()
    };
    let status = parts.all.status.clone();
    let shard = net::Shard::new(env.clone(), options, site, metrics, parts.handoffs);
    let mut pulse = Pulse {
        shard: index,
        net: shard.clone(),
        verifier,
        current,
        seen,
        status: parts.all.status,
        fleet: parts.all.fleet,
        process: parts.all.process.clone(),
        hub,
        chat: chat.clone(),
        store,
        look: env.now(),
        memory: parts.memory,
    };
    let tick = Box::new(move |now| pulse.tick(now));
    let end = net::run(shard, parts.listeners, parts.all.process, tick).await;
    status.ended(index);
    finish_sends(&chat, end).await;
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
        target: target.clone(),
    }))
}

/// What the shard serves, besides the sessions.
fn site(engine: Engine, routes: Rc<Routes>, live: &Live) -> Site {
    Site {
        mounts: vec![Rc::new(Mount {
            path: "/socket.io/".into(),
            engine,
            transports: Transports::default(),
            admit: None,
            ports: net::flush::Ports::default(),
        })],
        respond: Rc::new(move |request| routes.respond(&request)),
        cors: Cors::new(live.origins.iter().map(ToString::to_string)),
    }
}

/// A message that the store has taken is delivered to other shards even when its sender is gone.
async fn finish_sends(chat: &Chat, end: Instant) {
    let deadline = end.max(Instant::now() + SENDS_GRACE);
    while chat.waiting_sends() > 0 && Instant::now() < deadline {
        glommio::timer::sleep(Duration::from_millis(10)).await;
    }
}

/// What happens at each tick above the connections.
struct Pulse {
    shard: usize,
    net: Rc<net::Shard>,
    verifier: Rc<Verifier>,
    current: Arc<Current>,
    /// The version of it that this shard goes by.
    seen: u64,
    status: Arc<Status>,
    fleet: Option<Arc<Fleet>>,
    process: Arc<net::Process>,
    hub: Hub,
    chat: Rc<Chat>,
    store: SharedStore,
    look: Instant,
    memory: memory::Calls,
}

impl Pulse {
    /// Goes by other keys, origins and limits from now on.
    fn take_over(&self, live: &Live) {
        self.verifier.replace(live.rules.clone());
        let origins = live.origins.iter().map(ToString::to_string);
        self.net.site().cors.replace(origins);
        self.net.set_address_limits(live.address_limits);
        self.chat.set_message_rate(live.message_rate);
    }

    fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.status.ticked(self.shard, now);
        if self.process.draining.load(Ordering::Relaxed) {
            self.chat.set_draining();
        }
        if let Some(live) = self.current.newer(&mut self.seen) {
            self.take_over(&live);
        }
        self.hub.tick(now);
        self.chat.tick(now);
        self.memory.follow();
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

fn hub_options(config: &Config) -> hub::Options {
    hub::Options {
        connect_timeout: config.connect_timeout,
        max_payload: config.max_payload_bytes,
        outbox_bytes_max: config.outbox_bytes_max,
    }
}
