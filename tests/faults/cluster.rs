//! Two servers on one PostgreSQL, in the same rooms, while it is killed and paused.
//!
//! Nothing runs between the servers: what the other one stored is read from the database when the
//! next message of one's own shows that it is missing, so at the end the other's last may lack.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::postgres_server::Postgres;
use super::support::client::{Client, Via};
use super::support::server::{Server, folder};
use super::support::token::token;
use super::support::{PATIENCE, eventually, http};
use super::turn;

const SERVERS: usize = 2;
const WRITERS: usize = 16;
const ROOMS: usize = 10;
/// Sends of one writer that wait for their acks at a time.
const WINDOW: usize = 4;
/// Between a writer's rounds, so that a refusal at once is no reason to spin.
const PAUSE: Duration = Duration::from_millis(10);
/// A send is answered within 5 s; the rest is for a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_millis(6_500);
/// Writes go on within 2 s of the return; the rest is for a busy machine.
const BACK_WITHIN: Duration = Duration::from_millis(3_500);
/// How long each state of the database lasts: it works, is gone, works, and is silent.
const STEPS: [Duration; 4] = [
    Duration::from_secs(3),
    Duration::from_secs(2),
    Duration::from_secs(2),
    Duration::from_secs(6),
];
/// How long it works at the end.
const LAST: Duration = Duration::from_secs(3);

#[test]
fn two_servers_keep_one_order_while_postgres_is_killed_and_paused() {
    let _turn = turn();
    let database = Postgres::start();
    let url = database.database();
    let folders = [folder(), folder()];
    let servers = folders
        .each_ref()
        .map(|folder| Server::start(folder.path(), &[("SHARDS", "2"), ("DATABASE_URL", &url)]));
    // A quarter of a minute, or a whole one.
    let rounds = if std::env::var("TESTS_LONG").is_ok_and(|long| long == "1") {
        4
    } else {
        1
    };
    let (joined, stop) = (Barrier::new(WRITERS + 1), AtomicBool::new(false));
    let (mut returned, mut writers) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let start = |number: usize| {
            let (server, joined, stop) = (&servers[number % SERVERS], &joined, &stop);
            scope.spawn(move || Writer::join(server, number, joined).write(stop))
        };
        let threads: Vec<_> = (0..WRITERS).map(start).collect();
        joined.wait();
        let faults = std::panic::AssertUnwindSafe(|| {
            (0..rounds)
                .flat_map(|_| harm(&database, &servers))
                .collect()
        });
        let outcome = std::panic::catch_unwind(faults);
        // The writers are told in any case: else the scope would wait for them for ever.
        stop.store(true, Ordering::Relaxed);
        returned = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        writers = ended.map(|writer| writer.expect("a writer ends")).collect();
    });
    check_answers(&writers, &returned);
    check_rooms(&writers, &servers);
}

/// Kills and pauses the database once each; says when it was back.
fn harm(database: &Postgres, servers: &[Server; SERVERS]) -> Vec<Instant> {
    let mut returned = Vec::new();
    std::thread::sleep(STEPS[0]);
    assert_health(servers, 200, "ok");
    database.kill();
    lasts(STEPS[1], || assert_health(servers, 503, "degraded"));
    database.run();
    returned.push(Instant::now());
    std::thread::sleep(STEPS[2]);
    assert_health(servers, 200, "ok");
    database.signal(Signal::STOP);
    lasts(STEPS[3], || assert_health(servers, 503, "degraded"));
    database.signal(Signal::CONT);
    returned.push(Instant::now());
    std::thread::sleep(LAST);
    returned
}

fn lasts(time: Duration, work: impl FnOnce()) {
    let begun = Instant::now();
    work();
    std::thread::sleep(time.saturating_sub(begun.elapsed()));
}

/// Waits until every server says so of itself; alive it is all the time.
fn assert_health(servers: &[Server; SERVERS], ready: u16, word: &str) {
    for server in servers {
        eventually(word, || {
            let health = http::get(server.address, "/health", &[]);
            assert_eq!(health.status, 200, "{}", health.text());
            let says = http::get(server.address, "/health/ready", &[]).status;
            (health.json()["status"] == word && says == ready).then_some(())
        });
    }
}

/// A user in every room, who writes to one after the other.
struct Writer {
    user: String,
    server: usize,
    client: Client,
    next: usize,
    /// Keys whose outcome is not known, to be sent again.
    open: BTreeSet<usize>,
    /// Key to the ack's seq and id.
    acked: BTreeMap<usize, Place>,
    /// Refused for sure, and not sent again.
    refused: BTreeSet<usize>,
    /// Those that were unknown once: a later refusal says nothing of the first time.
    doubtful: BTreeSet<usize>,
    /// By room, in the order of delivery.
    seen: [Vec<Place>; ROOMS],
    acks: Vec<Instant>,
    slowest: Duration,
}

/// A message's seq and id.
type Place = (u64, String);

fn place(value: &Value) -> Place {
    let id = value["id"].as_str().expect("an id").to_owned();
    (value["seq"].as_u64().expect("a seq"), id)
}

fn room(key: usize) -> String {
    format!("room{}", key % ROOMS)
}

impl Writer {
    fn join(server: &Server, number: usize, joined: &Barrier) -> Self {
        let user = format!("user{number}");
        let mut client = Client::connect(server.address, Via::WebSocket, &token(&user));
        for nth in 0..ROOMS {
            assert_eq!(client.join(&room(nth))["seq"], 0);
        }
        joined.wait();
        Self {
            user,
            server: number % SERVERS,
            client,
            // Not all in the same room at the same time.
            next: number,
            open: BTreeSet::new(),
            acked: BTreeMap::new(),
            refused: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            seen: Default::default(),
            acks: Vec::new(),
            slowest: Duration::ZERO,
        }
    }

    /// Writes until told to stop, and then until every outcome is known.
    fn write(mut self, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::Relaxed) {
            while self.open.len() < WINDOW {
                self.open.insert(self.next);
                self.next += 1;
            }
            self.round();
            std::thread::sleep(PAUSE);
        }
        while !self.open.is_empty() {
            self.round();
        }
        // One's own messages arrive, and with them all that lie before them.
        let begun = Instant::now();
        while self.lacks_own() && begun.elapsed() < PATIENCE {
            self.take_events(Duration::from_millis(100));
        }
        assert!(
            !self.lacks_own(),
            "{}'s own messages do not come",
            self.user
        );
        self.take_events(Duration::from_millis(500));
        let client = &self.client;
        assert!(
            !client.closed && !client.disconnected,
            "a client was dropped"
        );
        self
    }

    fn round(&mut self) {
        let keys: Vec<usize> = self.open.iter().copied().collect();
        let payloads: Vec<Value> = keys.iter().map(|key| self.payload(*key)).collect();
        let begun = Instant::now();
        let ids = self.client.ask_all("sendMessage", &payloads);
        for (key, id) in keys.into_iter().zip(ids) {
            let ack = self.client.ack_within(id, PATIENCE);
            let ack = ack.unwrap_or_else(|| panic!("{} {key} is not answered", self.user));
            self.slowest = self.slowest.max(begun.elapsed());
            self.take(key, &ack);
        }
        self.take_events(Duration::ZERO);
    }

    fn payload(&self, key: usize) -> Value {
        let content = format!("{} {key}", self.user);
        json!({"roomId": room(key), "content": content, "clientMsgId": key.to_string()})
    }

    fn take(&mut self, key: usize, ack: &Value) {
        if ack["ok"] == true {
            self.open.remove(&key);
            self.acks.push(Instant::now());
            self.acked.insert(key, place(ack));
        } else if ack["error"]["code"] == "unavailable" {
            if !self.doubtful.contains(&key) {
                self.open.remove(&key);
                self.refused.insert(key);
            }
        } else {
            assert_eq!(ack["error"]["code"], "timeout", "{ack}");
            self.doubtful.insert(key);
        }
    }

    fn take_events(&mut self, patience: Duration) {
        while let Some((name, payload)) = self.client.event_within(patience) {
            if name == "receiveMessage" {
                let room = payload["roomId"].as_str().expect("a room");
                let nth: usize = room["room".len()..].parse().expect("a number");
                self.seen[nth].push(place(&payload));
            } else {
                assert_eq!(name, "userJoined", "{payload}");
            }
        }
    }

    fn lacks_own(&self) -> bool {
        let mut last = [0; ROOMS];
        for (key, (seq, _)) in &self.acked {
            last[key % ROOMS] = last[key % ROOMS].max(*seq);
        }
        let seen = |nth: usize| self.seen[nth].last().map_or(0, |(seq, _)| *seq);
        (0..ROOMS).any(|nth| seen(nth) < last[nth])
    }
}

/// That everybody was answered in time, and that writes went on soon after each return.
fn check_answers(writers: &[Writer], returned: &[Instant]) {
    let slowest = writers.iter().map(|writer| writer.slowest).max();
    let slowest = slowest.expect("there are writers");
    assert!(slowest < ANSWERED_WITHIN, "answered after {slowest:?}");
    for server in 0..SERVERS {
        let of = writers.iter().filter(|writer| writer.server == server);
        let acks: Vec<Instant> = of.flat_map(|writer| writer.acks.clone()).collect();
        for returned in returned {
            let back = acks.iter().filter(|at| *at > returned).min();
            let back = back.expect("writes go on").duration_since(*returned);
            assert!(back < BACK_WITHIN, "server {server} is back after {back:?}");
        }
    }
    let acked: usize = writers.iter().map(|writer| writer.acked.len()).sum();
    let refused: usize = writers.iter().map(|writer| writer.refused.len()).sum();
    let unknown: usize = writers.iter().map(|writer| writer.doubtful.len()).sum();
    let sums = format!("acked {acked}, refused {refused}, unknown {unknown}, slowest {slowest:?}");
    assert!(acked > 1_000 && refused > 0 && unknown > 0, "{sums}");
    eprintln!("{sums}");
}

/// That each room's history has what was acked once, nothing that was refused, and is what each
/// member has got.
fn check_rooms(writers: &[Writer], servers: &[Server; SERVERS]) {
    let gaps = servers
        .each_ref()
        .map(|server| server.metric("yum_order_gaps_total", ""));
    for nth in 0..ROOMS {
        let messages = servers[nth % SERVERS].all_messages(&room(nth));
        let mut kept = BTreeMap::new();
        for (message, seq) in messages.iter().zip(1_u64..) {
            assert_eq!(message["seq"], seq, "{} is not dense", room(nth));
            let text = |key: &str| message[key].as_str().expect("text").to_owned();
            let key = (text("userId"), text("clientMsgId"));
            let before = kept.insert(key.clone(), place(message));
            assert_eq!(before, None, "{key:?} is stored twice");
        }
        for writer in writers {
            let stored = |key: &usize| kept.get(&(writer.user.clone(), key.to_string()));
            let here = |key: &&usize| **key % ROOMS == nth;
            for key in writer.acked.keys().filter(here) {
                assert_eq!(stored(key), writer.acked.get(key), "{} {key}", writer.user);
            }
            for key in writer.refused.iter().filter(here) {
                assert_eq!(
                    stored(key),
                    None,
                    "refused, yet stored: {} {key}",
                    writer.user
                );
            }
            check_delivery(writer, nth, &messages, gaps[writer.server]);
        }
        let acked = writers.iter().flat_map(|writer| writer.acked.keys());
        assert_eq!(kept.len(), acked.filter(|key| *key % ROOMS == nth).count());
    }
}

/// That a member got history in its order, without repeats; and without gaps, unless its server counted
/// one: that of a time in which the database was silent for longer than a message is held back.
fn check_delivery(writer: &Writer, nth: usize, history: &[Value], gaps: f64) {
    let seen = &writer.seen[nth];
    let who = format!("{} in {}", writer.user, room(nth));
    assert!(
        seen.is_sorted_by_key(|(seq, _)| *seq),
        "{who}: another order"
    );
    for pair in seen.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{who}: {} came twice", pair[0].0);
    }
    for (seq, id) in seen {
        let index = usize::try_from(*seq).expect("few messages") - 1;
        assert_eq!(history[index]["id"], **id, "{who}: {seq} is another one");
    }
    let last = seen.last().map_or(0, |(seq, _)| *seq);
    let missing = last - seen.len() as u64;
    assert!(missing == 0 || gaps > 0.0, "{who}: {missing} are missing");
}
