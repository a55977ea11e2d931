//! The chat on a hub of its own, with made-up time and a store that fails on demand.

mod joining;
mod limits;
mod messages;
mod permissions;
mod tokens;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, pending, ready};
use serde_json::{Value, json};

use super::permission::{Act, Denied, Permissions, TokenRooms};
use super::{Chat, ChatOptions, Parts};
use crate::auth::{AuthOptions, Claims, Keys, User, Verifier, sign};
use crate::bus::directory::{Directory, ShardDirectory};
use crate::bus::usage::MessageRate;
use crate::engine::{self, Engine, Handshake, Key, Transport};
use crate::env::Env;
use crate::hub::{self, Hub, Task};
use crate::limit::Rate;
use crate::metrics::Metrics;
use crate::store::memory::MemoryStore;
use crate::store::{Condition, Cursor, Draft, Page, Store, StoreError, Stored};
use crate::wire::Content;
use crate::wire::engine_io::Packet;

/// What the store does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Works,
    Refuses,
    /// Stores, and says that it does not know.
    Forgets,
    /// Stores, and answers when it works again.
    Dawdles,
    /// Never answers.
    Sulks,
}

struct Moody {
    memory: MemoryStore,
    mood: Rc<Cell<Mood>>,
}

impl Moody {
    fn answer<T: 'static>(
        &self,
        answer: LocalBoxFuture<'static, Result<T, StoreError>>,
    ) -> LocalBoxFuture<'static, Result<T, StoreError>> {
        let mood = self.mood.clone();
        match mood.get() {
            Mood::Works => answer,
            Mood::Refuses => Box::pin(ready(Err(StoreError::Unavailable("a mood".into())))),
            Mood::Sulks => Box::pin(pending()),
            Mood::Forgets => Box::pin(async move {
                let _ = answer.await;
                Err(StoreError::Timeout)
            }),
            Mood::Dawdles => Box::pin(async move {
                let answer = answer.await;
                std::future::poll_fn(|_| match mood.get() {
                    Mood::Dawdles => Poll::Pending,
                    _ => Poll::Ready(()),
                })
                .await;
                answer
            }),
        }
    }
}

impl Store for Moody {
    fn append(&self, draft: Draft) -> LocalBoxFuture<'static, Result<Stored, StoreError>> {
        self.answer(self.memory.append(draft))
    }

    fn history(
        &self,
        room: &str,
        cursor: Cursor,
        limit: usize,
    ) -> LocalBoxFuture<'static, Result<Page, StoreError>> {
        self.answer(self.memory.history(room, cursor, limit))
    }

    fn heads(&self, rooms: Vec<Box<str>>) -> LocalBoxFuture<'static, Result<Vec<u64>, StoreError>> {
        self.answer(self.memory.heads(rooms))
    }

    fn condition(&self) -> Condition {
        Condition::Ok
    }

    fn kind(&self) -> &'static str {
        "moody"
    }
}

fn auth() -> AuthOptions {
    AuthOptions {
        keys: Keys::secrets(vec![
            b"a secret of the tests, long enough".as_slice().into(),
        ]),
        issuer: None,
        audience: None,
        leeway_seconds: 5,
    }
}

/// A shard without a network.
struct World {
    env: Rc<Env>,
    engine: Engine,
    hub: Hub,
    chat: Rc<Chat>,
    tasks: Rc<RefCell<Vec<Task>>>,
    mood: Rc<Cell<Mood>>,
    store: MemoryStore,
}

impl World {
    fn new() -> Self {
        Self::with_prefix("")
    }

    fn with_prefix(prefix: &str) -> Self {
        Self::with(prefix, Rc::new(TokenRooms))
    }

    fn with(prefix: &str, permissions: Rc<dyn Permissions>) -> Self {
        let env = Env::seeded(3);
        let outbox_bytes_max = 64 * 1024;
        let engine = Engine::new(
            env.clone(),
            engine::Options {
                outbox_bytes_max,
                ..engine::Options::default()
            },
        );
        let tasks: Rc<RefCell<Vec<Task>>> = Rc::default();
        let queue = tasks.clone();
        let spawn: hub::Spawn = Rc::new(move |task| queue.borrow_mut().push(task));
        let options = hub::Options {
            connect_timeout: Duration::from_secs(45),
            max_payload: 1_000_000,
            outbox_bytes_max,
        };
        let hub = Hub::new(env.clone(), engine.clone(), options, spawn.clone());
        let mood = Rc::new(Cell::new(Mood::Works));
        let options = ChatOptions {
            room_prefix: prefix.into(),
            outbox_bytes_max,
            ..ChatOptions::default()
        };
        let store = MemoryStore::default();
        let parts = Parts {
            env: env.clone(),
            hub: hub.clone(),
            store: Rc::new(Moody {
                memory: store.clone(),
                mood: mood.clone(),
            }),
            verifier: Rc::new(Verifier::new(&auth())),
            permissions,
            directory: ShardDirectory::new(Directory::new(), 0),
            metrics: Rc::new(Metrics::new(0)),
            spawn,
        };
        let chat = Chat::new(options, parts);
        hub.set_app(chat.clone());
        Self {
            env,
            engine,
            hub,
            chat,
            tasks,
            mood,
            store,
        }
    }

    /// Runs what can run.
    fn run(&self) {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..20 {
            let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            for mut task in tasks {
                if task.as_mut().poll(&mut context).is_pending() {
                    self.tasks.borrow_mut().push(task);
                }
            }
        }
    }

    /// Lets time pass in steps, as the tick of a shard would see it.
    fn pass(&self, time: Duration) {
        let step = Duration::from_millis(100);
        for _ in 0..time.as_millis() / step.as_millis() {
            self.env.advance(step);
            self.hub.tick(self.env.now());
            self.chat.tick(self.env.now());
            self.run();
        }
    }

    fn token(&self, user: &str, ttl_seconds: u64) -> String {
        let issued_seconds = self.env.wall_ms() / 1000;
        let claims = Claims {
            user: user.into(),
            rooms: None,
            issued_seconds,
            expires_seconds: issued_seconds + ttl_seconds,
        };
        sign(&auth(), &claims).expect("signs")
    }

    fn open(&self) -> Key {
        let handshake = Handshake {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            headers: Vec::new(),
            query: "".into(),
            secure: false,
            issued_wall_ms: self.env.wall_ms(),
        };
        self.engine.open(Transport::WebSocket, handshake)
    }

    fn send(&self, key: Key, packet: &str) {
        let packet = Packet::Message(Content::Text(packet.into()));
        let _ = self.engine.receive(key, Transport::WebSocket, packet);
        self.run();
    }

    /// All that waits for a client, and takes it away: the texts of its packets.
    fn receive(&self, key: Key) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            self.run();
            let frames: Vec<_> = self.engine.transmit(key, |waiting| {
                assert_eq!(waiting.sent(), 0, "everything sent is taken whole");
                waiting
                    .packets()
                    .map(|packet| packet.frame().clone())
                    .collect()
            });
            if frames.is_empty() {
                return texts;
            }
            let bytes = frames.iter().map(bytes::Bytes::len).sum();
            self.engine.transmitted(key, bytes);
            for frame in frames {
                let head = match frame[1] {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                };
                let text = std::str::from_utf8(&frame[head..]).expect("a text frame");
                texts.push(text.to_owned());
            }
        }
    }

    /// A connected client of this user.
    fn client(&self, user: &str) -> Key {
        let key = self.open();
        let token = self.token(user, 3600);
        self.send(key, &format!("0{}", json!({"token": token})));
        let answer = self.receive(key);
        assert!(
            answer.iter().any(|packet| packet.starts_with("40")),
            "{answer:?}"
        );
        key
    }

    /// Sends an event, and gives its ack if there is one now.
    fn call(&self, key: Key, event: &str, payload: &Value) -> Option<Value> {
        self.send(key, &format!("27{}", json!([event, payload])));
        self.ack(key)
    }

    fn ack(&self, key: Key) -> Option<Value> {
        acks(&self.receive(key)).pop()
    }

    fn say(&self, key: Key, content: &str) -> Option<Value> {
        let payload = json!({"roomId": "r", "content": content, "clientMsgId": content});
        self.call(key, "sendMessage", &payload)
    }

    fn join(&self, key: Key) -> Option<Value> {
        self.call(key, "joinRoom", &json!({"roomId": "r"}))
    }
}

fn acks(packets: &[String]) -> Vec<Value> {
    packets
        .iter()
        .filter_map(|packet| packet.strip_prefix("437"))
        .map(|list| serde_json::from_str::<Value>(list).expect("JSON")[0].clone())
        .collect()
}

/// The payloads of the events of this name.
fn events(packets: &[String], name: &str) -> Vec<Value> {
    packets
        .iter()
        .filter_map(|packet| packet.strip_prefix("42"))
        .map(|list| serde_json::from_str::<Value>(list).expect("JSON"))
        .filter(|event| event[0] == name)
        .map(|event| event[1].clone())
        .collect()
}

fn code(ack: Option<Value>) -> String {
    let ack = ack.expect("an ack");
    ack["error"]["code"].as_str().unwrap_or("none").to_owned()
}

const FIVE: Duration = Duration::from_secs(5);
