//! One host: shards of production code over a clock of their own, from start to drain or crash.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{LocalBoxFuture, ready};
use project_yum::auth::Verifier;
use project_yum::bus::directory::Directory;
use project_yum::bus::mesh::{Mesh, seats_with_slots};
use project_yum::bus::redis::{self, Fleet, Redis, Target};
use project_yum::chat::permission::TokenRooms;
use project_yum::chat::{Chat, ChatOptions, Parts, WAITING_SENDS_MAX};
use project_yum::engine::{self, CloseReason, Engine, Flow, Handler, Handshake, Key};
use project_yum::env::Env;
use project_yum::hub::{
    self, App, Event, HELD_MAX, Hub, Missed, PARKED_MAX, Refusal, Socket, Task,
};
use project_yum::metrics::Metrics;
use project_yum::wire::{Content, Text};
use serde_json::value::RawValue;

use crate::dice::Dice;
use crate::failure::Failure;
use crate::network::{Link, Network};
use crate::plan::Plan;
use crate::store::{Handle, SimulatedStore};
use crate::tasks::Tasks;

/// What a packet without a body counts in an outbox.
const CONTROL_BYTES: usize = 3 + 64;
/// Tasks of one shard: a handler for each connection, and what it has left behind.
const TASKS_MAX: usize = 1_000;
/// A drain is over by then, whatever still runs.
const DRAIN: Duration = Duration::from_secs(10);

pub(crate) struct Shard {
    pub(crate) engine: Engine,
    pub(crate) hub: Hub,
    pub(crate) chat: Rc<Chat>,
    pub(crate) link: Link,
    pub(crate) tasks: Rc<Tasks>,
    app: Rc<Carrier>,
    /// Nothing runs until then.
    pub(crate) stalled_until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    /// No new sessions; those that are there leave.
    Draining {
        since: Instant,
    },
    Down {
        until: Instant,
    },
}

/// What all hosts stand on.
pub(crate) struct Ground {
    pub(crate) plan: Plan,
    pub(crate) clock: Rc<Env>,
    pub(crate) store: Rc<SimulatedStore>,
    pub(crate) network: Rc<Network>,
    pub(crate) verifier: Rc<Verifier>,
}

pub(crate) struct Host {
    pub(crate) number: usize,
    /// How often it was started.
    pub(crate) run: usize,
    pub(crate) env: Rc<Env>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) state: State,
    dice: Rc<Dice>,
    leaving: Vec<(usize, Key)>,
}

impl Host {
    pub(crate) fn new(number: usize, ground: &Ground) -> Self {
        let mut host = Self {
            number,
            run: 0,
            env: Env::seeded(ground.plan.seed.wrapping_add(number as u64)),
            directory: Directory::new(),
            shards: Vec::new(),
            state: State::Up,
            dice: ground.plan.dice("host", number),
            leaving: Vec::new(),
        };
        host.start(ground);
        host
    }

    /// The process starts: nothing is left of an earlier one but the machine's clock.
    pub(crate) fn start(&mut self, ground: &Ground) {
        self.run += 1;
        self.state = State::Up;
        self.directory = Directory::new();
        let count = u8::try_from(ground.plan.shards).expect("few");
        let seats = seats_with_slots(count, &self.directory, ground.plan.mesh_slots);
        let random = |bytes: &mut [u8]| self.env.fill(bytes);
        let fleet = ground
            .plan
            .has_redis
            .then(|| Fleet::new(ground.plan.shards, random));
        self.shards = (0..)
            .zip(seats)
            .map(|(number, seat)| {
                let node = (self.number, usize::from(number), self.run);
                let mesh = seat.sit();
                let redis = fleet.as_ref().map(|fleet| self.redis(number, &mesh, fleet));
                let link = Link::new(mesh, redis, ground.network.clone(), node);
                self.shard(number, link, ground)
            })
            .collect();
    }

    fn redis(&self, shard: u8, mesh: &Rc<Mesh>, fleet: &Arc<Fleet>) -> Rc<Redis> {
        Redis::new(redis::Parts {
            env: self.env.clone(),
            mesh: mesh.clone(),
            fleet: fleet.clone(),
            shard,
            tag: u16::try_from(self.number).expect("few"),
            namespaces: vec![Text::from_static("/")],
            target: Target::parse("redis://broker").expect("an address"),
        })
    }

    fn shard(&self, number: u8, link: Link, ground: &Ground) -> Shard {
        let plan = &ground.plan;
        let env = self.env.clone();
        let options = engine::Options {
            ping_interval: plan.ping_interval,
            ping_timeout: plan.ping_timeout,
            outbox_bytes_max: plan.outbox_bytes_max,
            host: u16::try_from(self.number).expect("few"),
            shard: number,
            ..engine::Options::default()
        };
        let engine = Engine::new(env.clone(), options);
        let tasks = Tasks::new();
        let queue = tasks.clone();
        let spawn: hub::Spawn = Rc::new(move |task| queue.spawn(task));
        let options = hub::Options {
            outbox_bytes_max: plan.outbox_bytes_max,
            ..hub::Options::default()
        };
        let hub = Hub::new(env.clone(), engine.clone(), options, spawn.clone());
        link.attach_to(&hub);
        let options = ChatOptions {
            room_prefix: "".into(),
            outbox_bytes_max: plan.outbox_bytes_max,
            ..ChatOptions::default()
        };
        let parts = Parts {
            env,
            hub: hub.clone(),
            store: Rc::new(Handle {
                store: ground.store.clone(),
                owner: self.number,
            }),
            verifier: ground.verifier.clone(),
            permissions: Rc::new(TokenRooms),
            directory: link.mesh.directory().clone(),
            metrics: Rc::new(Metrics::new(usize::from(number))),
            spawn,
        };
        let chat = Chat::new(options, parts);
        let app = Rc::new(Carrier(RefCell::new(Some(chat.clone()))));
        hub.set_app(app.clone());
        hub.expect_latecomers();
        Shard {
            engine,
            hub,
            chat,
            link,
            tasks,
            app,
            stalled_until: ground.clock.now(),
        }
    }

    /// The process ends at once: all that it knew is gone, and nobody was told.
    pub(crate) fn end(&mut self) {
        for shard in self.shards.drain(..) {
            shard.app.0.take();
            shard.tasks.clear();
            for key in shard.engine.keys() {
                shard.engine.close(key, CloseReason::TransportError);
            }
            shard.engine.set_handler(Rc::new(Nobody));
        }
        self.leaving.clear();
    }

    pub(crate) fn is_serving(&self) -> bool {
        !matches!(self.state, State::Down { .. })
    }

    /// A moment of one shard. `healthy`: everybody gets their turn.
    pub(crate) fn step(&self, shard: usize, healthy: bool) {
        let Shard {
            engine,
            hub,
            chat,
            link,
            tasks,
            ..
        } = &self.shards[shard];
        let dice = &self.dice;
        tasks.run(dice);
        if healthy || dice.chance(600) {
            engine.tick();
            if matches!(self.state, State::Draining { .. }) {
                chat.set_draining();
            }
            hub.tick(self.env.now());
            chat.tick(self.env.now());
        }
        tasks.run(dice);
        if healthy || dice.chance(600) {
            link.turn(hub);
        }
        tasks.run(dice);
        engine.take_dirty(&mut Vec::new());
    }

    /// No new sessions are let in; those that are there leave in waves.
    pub(crate) fn begin_drain(&mut self, now: Instant) {
        self.state = State::Draining { since: now };
        self.leaving.clear();
        for (number, shard) in self.shards.iter().enumerate() {
            let keys = shard.engine.keys().into_iter();
            self.leaving.extend(keys.map(|key| (number, key)));
        }
    }

    /// Goes on draining, as `net` does. Whether the process may end.
    pub(crate) fn drain(&mut self, now: Instant) -> bool {
        let State::Draining { since } = self.state else {
            return false;
        };
        let (shards, dice) = (&self.shards, &self.dice);
        self.leaving.retain(|(shard, key)| {
            let engine = &shards[*shard].engine;
            if dice.chance(700) || !engine.drain(*key) {
                return true;
            }
            engine.close(*key, CloseReason::ServerShuttingDown);
            false
        });
        let waits = |shard: &Shard| shard.chat.waiting_sends() > 0 || shard.tasks.len() > 0;
        let is_quiet = self.leaving.is_empty() && !self.shards.iter().any(waits);
        is_quiet && now >= since + Duration::from_secs(1) || now >= since + DRAIN
    }

    /// When something happens next, from now.
    pub(crate) fn next(&self) -> Option<Duration> {
        let now = self.env.now();
        let deadlines = self.shards.iter().flat_map(|shard| {
            [
                shard.engine.next_deadline(),
                shard.hub.next_deadline(),
                shard.chat.next_deadline(),
            ]
        });
        let next = deadlines.flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    pub(crate) fn check_bounds(&self, plan: &Plan) -> Result<(), Failure> {
        for shard in &self.shards {
            for key in shard.engine.keys() {
                // A ping, and the packet that ends a poll, may come on top of what a client leaves unread.
                let bound = plan.outbox_bytes_max + 2 * CONTROL_BYTES;
                let bytes = shard.engine.outbox_bytes(key);
                if bytes > bound {
                    let detail = format!("{bytes} bytes, its bound is {bound}");
                    return Err(Failure::new("an outbox above its bound", detail));
                }
            }
            let counts = [
                ("tasks", shard.tasks.len(), TASKS_MAX),
                ("parked events", shard.hub.most_parked(), PARKED_MAX),
                ("held broadcasts", shard.hub.most_held(), HELD_MAX),
                ("sends", shard.chat.waiting_sends(), WAITING_SENDS_MAX),
            ];
            for (what, count, bound) in counts {
                if count > bound {
                    let detail = format!("{count}, the bound is {bound}");
                    return Err(Failure::new(format!("too many {what}"), detail));
                }
            }
        }
        Ok(())
    }

    /// After the last client has gone. `timers`: also those that come later.
    pub(crate) fn check_nothing_is_left(&self, timers: bool) -> Result<(), Failure> {
        let number = self.number;
        let mut all = Vec::new();
        for (shard_number, shard) in self.shards.iter().enumerate() {
            let mut left = vec![
                ("sessions", shard.engine.session_count()),
                ("rooms", shard.hub.rooms()),
                ("sockets", shard.hub.local_sockets("/").len()),
                ("waiting sends", shard.chat.waiting_sends()),
                ("tasks", shard.tasks.len()),
                ("subscriptions", shard.link.subscriptions()),
            ];
            if timers && shard.link.redis.is_none() {
                // A node of a fleet always has something to do.
                left.push(("hub deadlines", count(shard.hub.next_deadline())));
            }
            if timers {
                left.extend([
                    ("chat deadlines", count(shard.chat.next_deadline())),
                    ("engine deadlines", count(shard.engine.next_deadline())),
                ]);
            }
            let shard = format!("shard {shard_number}");
            all.extend(
                left.into_iter()
                    .map(|(what, count)| (what, count, shard.clone())),
            );
        }
        all.push(("rooms", self.directory.rooms(), "the directory".into()));
        all.retain(|(_, count, _)| *count > 0);
        let Some((first, ..)) = all.first() else {
            return Ok(());
        };
        let details = all
            .iter()
            .map(|(what, count, place)| format!("{count} {what} of {place}"));
        let details: Vec<_> = details.collect();
        let detail = format!("host {number} has left {}", details.join(", "));
        Err(Failure::new(format!("{first} left behind"), detail))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

fn count(deadline: Option<Instant>) -> usize {
    usize::from(deadline.is_some())
}

/// The chat, until the process ends.
struct Carrier(RefCell<Option<Rc<Chat>>>);

impl Carrier {
    fn chat(&self) -> Option<Rc<Chat>> {
        self.0.borrow().clone()
    }
}

impl App for Carrier {
    fn on_connect(
        self: Rc<Self>,
        socket: Socket,
        auth: Box<RawValue>,
    ) -> LocalBoxFuture<'static, Result<(), Refusal>> {
        match self.chat() {
            Some(chat) => chat.on_connect(socket, auth),
            None => Box::pin(ready(Ok(()))),
        }
    }

    fn on_connected(&self, socket: &Socket) {
        if let Some(chat) = self.chat() {
            chat.on_connected(socket);
        }
    }

    fn on_event(self: Rc<Self>, socket: Socket, event: Event) -> Task {
        match self.chat() {
            Some(chat) => chat.on_event(socket, event),
            None => Box::pin(ready(())),
        }
    }

    fn on_disconnect(&self, socket: &Socket, reason: CloseReason, rooms: &[Text]) {
        if let Some(chat) = self.chat() {
            chat.on_disconnect(socket, reason, rooms);
        }
    }

    fn is_ordered(&self, namespace: &str, room: &str) -> bool {
        let chat = self.chat();
        chat.is_some_and(|chat| chat.is_ordered(namespace, room))
    }

    fn heads(
        &self,
        namespace: &str,
        rooms: Vec<Text>,
    ) -> LocalBoxFuture<'static, Option<Vec<u64>>> {
        match self.chat() {
            Some(chat) => chat.heads(namespace, rooms),
            None => Box::pin(ready(None)),
        }
    }

    fn missed(
        &self,
        namespace: &str,
        room: &str,
        after: u64,
        limit: usize,
    ) -> LocalBoxFuture<'static, Option<Vec<Missed>>> {
        match self.chat() {
            Some(chat) => chat.missed(namespace, room, after, limit),
            None => Box::pin(ready(None)),
        }
    }
}

/// Takes the place of a hub whose process has ended.
struct Nobody;

impl Handler for Nobody {
    fn on_open(&self, _key: Key, _handshake: Handshake) {}

    fn on_message(&self, _key: Key, _content: Content) -> Flow {
        Flow::Continue
    }

    fn on_close(&self, _key: Key, _reason: CloseReason) {}
}
