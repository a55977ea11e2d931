//! The chat on a hub of its own, with made-up time and a store that fails on demand.

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

#[test]
fn a_message_is_stored_then_seen() {
    let world = World::new();
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    world.join(alice);
    world.join(bob);
    world.mood.set(Mood::Dawdles);
    assert_eq!(world.say(alice, "x"), None);
    assert_eq!(
        events(&world.receive(bob), "receiveMessage"),
        [] as [Value; 0]
    );
    world.mood.set(Mood::Works);
    assert_eq!(world.ack(alice).expect("an ack")["seq"], 1);
    assert_eq!(
        events(&world.receive(bob), "receiveMessage")[0]["content"],
        "x"
    );
}

#[test]
fn every_send_is_answered_within_5_s_of_being_read() {
    let world = World::new();
    let alice = world.client("alice");
    world.join(alice);
    world.mood.set(Mood::Sulks);
    for n in 0..10 {
        assert_eq!(world.say(alice, &n.to_string()), None);
    }
    world.pass(Duration::from_millis(4_800));
    assert_eq!(world.ack(alice), None);
    world.pass(Duration::from_millis(300));
    let acks = acks(&world.receive(alice));
    let codes: Vec<_> = acks
        .iter()
        .map(|ack| ack["error"]["code"].clone())
        .collect();
    // The first was in flight; the others were never handed on.
    assert_eq!(codes[0], "timeout");
    assert_eq!(codes[1..], vec![json!("unavailable"); 9]);
}

#[test]
fn what_is_stored_after_its_time_is_delivered_all_the_same() {
    let world = World::new();
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    world.join(alice);
    world.join(bob);
    world.mood.set(Mood::Dawdles);
    assert_eq!(world.say(alice, "x"), None);
    world.pass(FIVE + Duration::from_millis(100));
    assert_eq!(code(world.ack(alice)), "timeout");
    world.mood.set(Mood::Works);
    assert_eq!(
        events(&world.receive(bob), "receiveMessage")[0]["content"],
        "x"
    );
    let again = world.say(alice, "x").expect("an ack");
    assert_eq!(
        (&again["seq"], &again["duplicate"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(
        events(&world.receive(bob), "receiveMessage"),
        [] as [Value; 0]
    );
}

#[test]
fn a_message_of_unknown_outcome_reaches_the_members_once_the_store_answers() {
    let world = World::new();
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    world.join(alice);
    world.join(bob);
    world.mood.set(Mood::Forgets);
    assert_eq!(code(world.say(alice, "x")), "timeout");
    assert_eq!(code(world.say(alice, "y")), "timeout");
    world.mood.set(Mood::Refuses);
    world.pass(FIVE);
    assert_eq!(
        events(&world.receive(bob), "receiveMessage"),
        [] as [Value; 0]
    );
    world.mood.set(Mood::Works);
    world.pass(FIVE);
    let seen = events(&world.receive(bob), "receiveMessage");
    let contents: Vec<_> = seen
        .iter()
        .map(|message| message["content"].clone())
        .collect();
    assert_eq!(contents, ["x", "y"]);
}

#[test]
fn sends_that_wait_are_bounded() {
    let world = World::new();
    let alice = world.client("alice");
    world.join(alice);
    world.chat.waiting.set(super::send::WAITING_SENDS_MAX);
    let ack = world.say(alice, "x");
    assert_eq!(ack.as_ref().expect("an ack")["error"]["retryAfterMs"], 1000);
    assert_eq!(code(ack), "unavailable");
    world.chat.waiting.set(0);
    assert_eq!(world.say(alice, "x").expect("an ack")["seq"], 1);
    assert_eq!(world.chat.waiting_sends(), 0);
    world.mood.set(Mood::Refuses);
    assert_eq!(code(world.say(alice, "y")), "unavailable");
    assert_eq!(world.chat.waiting_sends(), 0);
}

#[test]
fn a_token_that_runs_out_ends_the_connection() {
    let world = World::new();
    let key = world.open();
    let token = world.token("alice", 60);
    world.send(key, &format!("0{}", json!({"token": token})));
    world.pass(Duration::from_secs(59));
    assert_eq!(events(&world.receive(key), "exception"), [] as [Value; 0]);
    assert!(world.engine.is_open(key));
    world.pass(Duration::from_millis(1_100));
    let packets = world.receive(key);
    assert_eq!(
        events(&packets, "exception")[0]["error"]["code"],
        "token_expired"
    );
    assert!(packets.iter().any(|packet| packet == "41"), "{packets:?}");
    assert!(!world.engine.is_open(key));
    assert_eq!(world.chat.expiries.borrow().next(), None);
}

#[test]
fn tokens_that_run_out_together_are_dealt_with_over_some_ticks() {
    let world = World::new();
    let keys: Vec<Key> = (0..super::EXPIRED_PER_TICK + 10)
        .map(|number| {
            let key = world.open();
            let token = world.token(&number.to_string(), 60);
            world.send(key, &format!("0{}", json!({"token": token})));
            key
        })
        .collect();
    let open = || {
        keys.iter()
            .filter(|key| world.engine.is_open(**key))
            .count()
    };
    world.env.advance(Duration::from_secs(61));
    for left in [10, 0] {
        world.chat.tick(world.env.now());
        assert_eq!(open(), left);
    }
}

#[test]
fn a_fresh_token_moves_the_end() {
    let world = World::new();
    let key = world.open();
    let token = world.token("alice", 10);
    world.send(key, &format!("0{}", json!({"token": token})));
    let fresh = json!({"token": world.token("alice", 100)});
    let ack = world.call(key, "authenticate", &fresh).expect("an ack");
    assert_eq!(
        ack,
        json!({"ok": true, "expiresAt": "2026-01-01T00:01:40.000Z"})
    );
    let foreign = json!({"token": world.token("bob", 100)});
    assert_eq!(code(world.call(key, "authenticate", &foreign)), "forbidden");
    world.pass(Duration::from_secs(20));
    assert!(world.engine.is_open(key));
    world.pass(Duration::from_secs(81));
    assert!(!world.engine.is_open(key));
}

#[test]
fn a_draining_server_refuses_to_connect() {
    let world = World::new();
    world.chat.set_draining();
    let key = world.open();
    let token = world.token("alice", 60);
    world.send(key, &format!("0{}", json!({"token": token})));
    let packets = world.receive(key);
    let refusal = packets.iter().find_map(|packet| packet.strip_prefix("44"));
    let refusal: Value = serde_json::from_str(refusal.expect("refused")).expect("JSON");
    assert_eq!(refusal["data"]["code"], "draining");
}

#[test]
fn a_replay_that_cannot_be_promised_is_refused_and_one_that_was_ends_the_connection() {
    let world = World::new();
    let alice = world.client("alice");
    world.join(alice);
    for n in 0..250 {
        world.say(alice, &n.to_string());
    }
    let bob = world.client("bob");
    let resume = json!({"roomId": "r", "lastSeq": 10});
    world.mood.set(Mood::Refuses);
    assert_eq!(code(world.call(bob, "joinRoom", &resume)), "unavailable");
    world.mood.set(Mood::Works);
    assert_eq!(code(world.say(bob, "x")), "not_in_room");
    // The outbox of 64 KiB makes the replay stop on its way.
    world.send(bob, &format!("27{}", json!(["joinRoom", resume])));
    world.mood.set(Mood::Refuses);
    let packets = world.receive(bob);
    assert_eq!(acks(&packets)[0]["replayed"], 240);
    let seqs: Vec<_> = events(&packets, "receiveMessage")
        .iter()
        .filter_map(|message| message["seq"].as_u64())
        .collect();
    assert!(
        seqs.len() < 240 && seqs.iter().copied().eq(11..11 + seqs.len() as u64),
        "{seqs:?}"
    );
    assert!(!world.engine.is_open(bob));
}

#[test]
fn a_client_that_has_seen_more_elsewhere_is_recovered_once_the_shard_has_caught_up() {
    let world = World::new();
    let alice = world.client("alice");
    world.join(alice);
    world.say(alice, "1");
    // Another server stores what its bus does not bring.
    for number in 2..=5_u128 {
        let draft = Draft {
            room: "r".into(),
            user: "bob".into(),
            content: number.to_string().into(),
            client_msg_id: None,
            id: uuid::Uuid::from_u128(number),
            wall_ms: 0,
        };
        let mut stored = world.store.append(draft);
        assert!((&mut stored).now_or_never().is_some());
    }
    world.receive(alice);
    let carol = world.client("carol");
    let resume = json!({"roomId": "r", "lastSeq": 3});
    world.send(carol, &format!("27{}", json!(["joinRoom", resume])));
    let packets = world.receive(carol);
    let ack = &acks(&packets)[0];
    assert_eq!((&ack["seq"], &ack["recovered"]), (&5.into(), &true.into()));
    let numbers = |packets: &[String]| -> Vec<u64> {
        let messages = events(packets, "receiveMessage");
        messages.iter().filter_map(|m| m["seq"].as_u64()).collect()
    };
    assert_eq!(numbers(&packets), [4, 5], "and nothing again");
    assert_eq!(numbers(&world.receive(alice)), [2, 3, 4, 5]);
    // More than there is: what the client has is not ours.
    let dave = world.client("dave");
    let ahead = json!({"roomId": "r", "lastSeq": 9});
    let ack = world.call(dave, "joinRoom", &ahead).expect("an ack");
    assert_eq!(ack["recovered"], false);
}

#[test]
fn without_the_store_a_join_without_last_seq_succeeds() {
    let world = World::new();
    world.mood.set(Mood::Refuses);
    let alice = world.client("alice");
    world.send(
        alice,
        &format!("27{}", json!(["joinRoom", {"roomId": "r"}])),
    );
    world.pass(FIVE + FIVE);
    let ack = world.ack(alice).expect("an ack");
    assert_eq!(
        ack,
        json!({"ok": true, "roomId": "r", "seq": null, "replayed": 0})
    );
}

#[test]
fn a_prefix_names_the_socket_io_room_and_clients_do_not_see_it() {
    let world = World::with_prefix("chat:");
    let alice = world.client("alice");
    assert_eq!(world.join(alice).expect("an ack")["roomId"], "r");
    world.send(
        alice,
        &format!(
            "27{}",
            json!(["sendMessage", {"roomId": "r", "content": "x"}])
        ),
    );
    let packets = world.receive(alice);
    assert_eq!(events(&packets, "receiveMessage")[0]["roomId"], "r");
    let sockets = world.hub.of("/").room("chat:r").local_sockets();
    assert_eq!(sockets.len(), 1);
}

#[test]
fn one_user_enters_and_leaves_once() {
    let world = World::new();
    let watch = world.client("watch");
    world.join(watch);
    let sockets = [world.client("bob"), world.client("bob")];
    for key in sockets {
        world.join(key);
    }
    let notice = json!({"roomId": "r", "userId": "bob"});
    let joined = events(&world.receive(watch), "userJoined");
    assert_eq!(joined, std::slice::from_ref(&notice));
    world
        .engine
        .close(sockets[0], crate::engine::CloseReason::TransportClose);
    world.run();
    assert_eq!(events(&world.receive(watch), "userLeft"), [] as [Value; 0]);
    world.call(sockets[1], "leaveRoom", &json!({"roomId": "r"}));
    assert_eq!(events(&world.receive(watch), "userLeft"), [notice]);
}

fn limited(world: &World, burst: u32) {
    world.chat.set_message_rate(MessageRate {
        rate: Rate::per_second(10, burst),
        joins: Rate::per_second(20, 5),
        refusals_max: 10 * burst,
    });
}

#[test]
fn a_user_sends_at_a_rate_over_all_connections() {
    let world = World::new();
    limited(&world, 3);
    let (one, two, other) = (
        world.client("ada"),
        world.client("ada"),
        world.client("bob"),
    );
    for key in [one, two, other] {
        world.join(key);
    }
    assert_eq!(world.say(one, "1").expect("an ack")["ok"], true);
    assert_eq!(world.say(two, "2").expect("an ack")["ok"], true);
    assert_eq!(world.say(one, "3").expect("an ack")["ok"], true);
    for key in [one, two] {
        let refused = world.say(key, "4").expect("an ack");
        assert_eq!(refused["error"]["code"], "rate_limited");
        assert_eq!(refused["error"]["retryAfterMs"], 100, "{refused}");
    }
    assert_eq!(world.say(other, "5").expect("an ack")["ok"], true);
    world.env.advance(Duration::from_millis(100));
    let again = world.say(two, "4").expect("an ack");
    assert_eq!((&again["ok"], &again["seq"]), (&json!(true), &json!(5)));
    limited(&world, 0);
    world.chat.set_message_rate(MessageRate::default());
    for content in 0..100 {
        let sent = world.say(one, &content.to_string());
        assert_eq!(sent.expect("an ack")["ok"], true, "no limit any more");
    }
}

#[test]
fn what_is_malformed_counts_and_an_exception_tells_too() {
    let world = World::new();
    limited(&world, 1);
    let ada = world.client("ada");
    assert_eq!(
        code(world.call(ada, "sendMessage", &json!({}))),
        "invalid_payload"
    );
    world.send(ada, r#"2["sendMessage",{}]"#);
    let exceptions = events(&world.receive(ada), "exception");
    assert_eq!(exceptions[0]["error"]["code"], "rate_limited");
    assert_eq!(exceptions[0]["error"]["retryAfterMs"], 100);
    // Joins have a rate of their own.
    assert_eq!(world.join(ada).expect("an ack")["ok"], true);
}

#[test]
fn tokens_count_as_joins_good_ones_and_bad_ones() {
    let world = World::new();
    limited(&world, 1);
    let ada = world.client("ada");
    let token = world.token("ada", 600);
    for (token, expected) in [(&*token, None), ("forged", Some("unauthorized"))] {
        let answer = world.call(ada, "authenticate", &json!({"token": token}));
        let answer = answer.expect("an ack");
        assert_eq!(answer["error"]["code"].as_str(), expected);
    }
    for _ in 2..5 {
        assert_eq!(world.join(ada).expect("an ack")["ok"], true);
    }
    let refused = world.call(ada, "authenticate", &json!({"token": token}));
    let refused = refused.expect("an ack");
    assert_eq!(refused["error"]["code"], "rate_limited", "{refused}");
    assert_eq!(refused["error"]["retryAfterMs"], 50);
    assert!(world.engine.is_open(ada));
    world.env.advance(Duration::from_millis(50));
    let again = world.call(ada, "authenticate", &json!({"token": token}));
    assert_eq!(again.expect("an ack")["ok"], true);
}

#[test]
fn a_user_joins_at_a_rate_over_all_connections_and_is_not_cut_off_for_it() {
    let world = World::new();
    limited(&world, 1);
    let (one, two, other) = (
        world.client("ada"),
        world.client("ada"),
        world.client("bob"),
    );
    for key in [one, two, one, two, one] {
        assert_eq!(world.join(key).expect("an ack")["ok"], true);
        world.call(key, "leaveRoom", &json!({"roomId": "r"}));
    }
    let joined = world.join(other).expect("an ack");
    assert_eq!(joined["ok"], true, "another user's rate is another's");
    for key in [one, two].repeat(20) {
        let refused = world.join(key).expect("an ack");
        assert_eq!(refused["error"]["code"], "rate_limited", "{refused}");
        assert_eq!(refused["error"]["retryAfterMs"], 50);
    }
    let told = events(&world.receive(other), "userJoined");
    assert_eq!(told, [] as [Value; 0], "who is refused is not announced");
    assert!(world.engine.is_open(one) && world.engine.is_open(two));
    world.env.advance(Duration::from_millis(50));
    assert_eq!(world.join(two).expect("an ack")["ok"], true);
}

#[test]
fn who_goes_on_regardless_is_cut_off_for_a_while() {
    let world = World::new();
    limited(&world, 2);
    let (ada, second) = (world.client("ada"), world.client("ada"));
    for content in 0..22 {
        let outcome = world.say(ada, &content.to_string());
        assert!(outcome.is_some(), "answered to the last");
        world.receive(second);
    }
    assert!(world.engine.closing(ada).is_some() || !world.engine.is_open(ada));
    assert!(world.engine.is_open(second), "it did not do it");
    let token = world.token("ada", 3600);
    let key = world.open();
    world.send(key, &format!("0{}", json!({"token": token})));
    let answer = world.receive(key).concat();
    let (_, refusal) = answer.split_once("44").expect("a refusal");
    let refusal: Value = serde_json::from_str(refusal).expect("JSON");
    assert_eq!(refusal["data"]["code"], "rate_limited");
    assert_eq!(refusal["data"]["retryAfterMs"], 10_000);
    world.client("bob");
    world.pass(Duration::from_secs(10));
    world.client("ada");
}

/// A table of members, as an installation may have one: a look-up takes a moment, and may fail.
#[derive(Default)]
struct Members {
    rights: RefCell<Vec<(&'static str, Act)>>,
    is_down: Cell<bool>,
}

impl Permissions for Members {
    fn check<'a>(
        &'a self,
        user: &'a User,
        _room: &'a str,
        act: Act,
    ) -> LocalBoxFuture<'a, Result<(), Denied>> {
        Box::pin(async move {
            futures_lite::future::yield_now().await;
            if self.is_down.get() {
                return Err(Denied::Unknown);
            }
            let rights = self.rights.borrow();
            let has_it = rights.iter().any(|(id, of)| **id == *user.id && *of == act);
            has_it.then_some(()).ok_or(Denied::Forbidden)
        })
    }
}

#[test]
fn each_act_asks_the_installations_own_rules() {
    let members = Rc::new(Members::default());
    let world = World::with("", members.clone());
    let (ada, bob) = (world.client("ada"), world.client("bob"));
    members.rights.borrow_mut().push(("ada", Act::Join));
    assert_eq!(world.join(ada).expect("an ack")["ok"], true);
    assert_eq!(code(world.join(bob)), "forbidden");
    assert_eq!(
        code(world.say(ada, "1")),
        "forbidden",
        "to join is not to send"
    );
    members.rights.borrow_mut().push(("ada", Act::Send));
    assert_eq!(world.say(ada, "1").expect("an ack")["ok"], true);
    members.is_down.set(true);
    assert_eq!(code(world.say(ada, "2")), "unavailable");
    assert_eq!(code(world.join(bob)), "unavailable");
    members.is_down.set(false);
    members.rights.borrow_mut().clear();
    assert_eq!(
        code(world.say(ada, "2")),
        "forbidden",
        "a right is asked for when it is used"
    );
    assert_eq!(
        world.say(bob, "3").map(|ack| ack["ok"] == true),
        Some(false)
    );
}

#[test]
fn it_is_counted_when_too_many_are_away_to_remember_them_all() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let met = || {
        let rendered = recorder.handle().render();
        let mut lines = rendered.lines();
        let line =
            lines.find_map(|line| line.strip_prefix("yum_bounds_total{bound=\"absent_users\""));
        line.expect("it is there").ends_with(" 1")
    };
    metrics::with_local_recorder(&recorder, || {
        let world = World::new();
        limited(&world, 3);
        let (directory, now) = (&world.chat.parts.directory, world.env.now());
        for number in 0..100_000 {
            let user = number.to_string();
            let usage = directory.arrive(&user);
            let taken = directory.take_message(&usage, world.chat.message_rate.get(), now);
            assert!(taken.is_ok());
            let _ = directory.leave(&user, now);
        }
        let key = world.client("ada");
        world.join(key);
        world.say(key, "x");
        assert!(!met());
        world.engine.close(key, engine::CloseReason::TransportClose);
        world.run();
    });
    assert!(met());
}
