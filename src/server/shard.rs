//! One shard: its sessions, hub, chat and connections, introduced to each other.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::respond::{Demo, Routes};
use super::status::Status;
use super::{OpenStore, store_state};
use crate::auth::{AuthOptions, Verifier};
use crate::bus::mesh::{Mesh, Seat};
use crate::config::Config;
use crate::engine::{self, Engine};
use crate::env::Env;
use crate::hub::{self, Hub};
use crate::metrics::Metrics;
use crate::net::{self, Cors, Handoffs, Mount, Site, Transports};
use crate::store::SharedStore;

/// How often a shard says how the store is, and looks at its clock's lateness.
const STORE_LOOK: Duration = Duration::from_millis(250);
/// An upgrade that is not finished by then is given up.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a shard's thread is given.
pub(super) struct Parts {
    pub(super) index: u8,
    pub(super) shards: u8,
    pub(super) host: u16,
    pub(super) config: Arc<Config>,
    pub(super) auth: AuthOptions,
    pub(super) store: OpenStore,
    pub(super) status: Arc<Status>,
    pub(super) process: Arc<net::Process>,
    pub(super) listener: OwnedFd,
    pub(super) seat: Seat,
    pub(super) handoffs: Handoffs,
}

/// Serves until the process has drained.
pub(super) async fn serve(parts: Parts) {
    let env = Env::system();
    let metrics = Rc::new(Metrics::new(usize::from(parts.index)));
    let engine = Engine::new(env.clone(), engine_options(&parts));
    let spawn: hub::Spawn = Rc::new(|task| {
        glommio::spawn_local(task).detach();
    });
    let hub = Hub::new(
        env.clone(),
        engine.clone(),
        hub_options(&parts.config),
        spawn,
    );
    let mesh = parts.seat.sit();
    let store = parts.store.handle();
    let verifier = Rc::new(Verifier::new(&parts.auth));
    let routes = Rc::new(Routes {
        status: parts.status.clone(),
        history: todo!("the chat"),
        demo: parts.config.demo.then(|| Demo::new(parts.auth.clone())),
    });
    glommio::spawn_local(mesh.clone().run(hub.clone())).detach();

    let site = Site {
        mounts: vec![Rc::new(Mount {
            path: "/socket.io/".into(),
            engine,
            transports: Transports::default(),
            admit: None,
            ports: net::flush::Ports::default(),
        })],
        respond: Rc::new(move |request| routes.respond(request)),
        cors: Cors::new(parts.config.cors_origins.iter().map(ToString::to_string)),
    };
    let options = net::Options {
        shard: parts.index,
        shards: parts.shards,
        host: parts.host,
        drain: parts.config.drain,
        ..net::Options::default()
    };
    let tick = tick(
        usize::from(parts.index),
        parts.status,
        hub,
        mesh,
        store,
        metrics.clone(),
    );
    let shard = net::Shard::new(env, options, site, metrics, parts.handoffs);
    net::run(shard, parts.listener, parts.process, tick).await;
}

/// What happens at each tick above the connections.
fn tick(
    shard: usize,
    status: Arc<Status>,
    hub: Hub,
    mesh: Rc<Mesh>,
    store: SharedStore,
    metrics: Rc<Metrics>,
) -> Box<dyn FnMut(Instant) -> Option<Instant>> {
    let mut look = Instant::now();
    Box::new(move |now| {
        status.ticked(shard, now);
        hub.tick(now);
        mesh.tick(now);
        if shard == 0 && now >= look {
            status.set_store(store_state(store.condition()));
            look = now + STORE_LOOK;
        }
        let _ = &metrics;
        hub.next_deadline()
    })
}

fn engine_options(parts: &Parts) -> engine::Options {
    let config = &parts.config;
    engine::Options {
        ping_interval: config.ping_interval,
        ping_timeout: config.ping_timeout,
        upgrade_timeout: UPGRADE_TIMEOUT,
        upgrades: true,
        max_payload: config.max_payload_bytes,
        outbox_bytes_max: config.outbox_bytes_max,
        host: parts.host,
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
