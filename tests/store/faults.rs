//! What becomes of messages while PostgreSQL is killed, paused, cut off or reset.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_lite::future::block_on;
use metrics_exporter_prometheus::PrometheusBuilder;
use project_yum::store::postgres::{PostgresStore, Target};
use project_yum::store::{Condition, Store, StoreError};
use rustix::process::Signal;

use crate::contract::{self, keyed};
use crate::postgres::Host;
use crate::postgres_server::Postgres;
use crate::relay::Relay;

/// Every send is answered within 5 s; the rest is for a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_millis(5_600);
/// Writes go on so soon after the return.
const BACK_WITHIN: Duration = Duration::from_secs(2);
const SENDERS: usize = 20;
const ROOMS: [&str; 4] = ["a", "b", "c", "d"];

/// What a sender was told of each of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Acked(u64),
    Refused,
    Unknown,
}

struct Load {
    stop: Arc<AtomicBool>,
    senders: Vec<std::thread::JoinHandle<Sender>>,
}

struct Sender {
    told: BTreeMap<(usize, String), Told>,
    slowest: Duration,
    /// When each message was acked.
    acks: Vec<Instant>,
}

impl Load {
    fn start(host: &Host) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |number: usize| {
            let (store, stop) = (host.store.handle(), stop.clone());
            std::thread::spawn(move || {
                let user = format!("user-{number}");
                let mut sender = Sender {
                    told: BTreeMap::new(),
                    slowest: Duration::ZERO,
                    acks: Vec::new(),
                };
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let (room, key) = ((number + n) % ROOMS.len(), format!("{user}-{n}"));
                    let begun = Instant::now();
                    let told = match block_on(store.append(keyed(ROOMS[room], &user, &key))) {
                        Ok(stored) => Told::Acked(stored.message.seq),
                        Err(StoreError::Unavailable(_)) => Told::Refused,
                        Err(StoreError::Timeout) => Told::Unknown,
                    };
                    sender.slowest = sender.slowest.max(begun.elapsed());
                    if matches!(told, Told::Acked(_)) {
                        sender.acks.push(Instant::now());
                    }
                    sender.told.insert((room, key), told);
                    std::thread::sleep(Duration::from_millis(5));
                }
                sender
            })
        };
        let senders = (0..SENDERS).map(start).collect();
        Self { stop, senders }
    }

    /// Ends the load and checks that everybody was told the truth, in time.
    fn check(self, host: &Host, returned: Instant) {
        self.stop.store(true, Ordering::SeqCst);
        let senders: Vec<Sender> = self
            .senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect();
        let slowest = senders.iter().map(|sender| sender.slowest).max().unwrap();
        assert!(
            slowest < ANSWERED_WITHIN,
            "a send was answered after {slowest:?}"
        );
        let acks = senders.iter().flat_map(|sender| &sender.acks);
        let back = acks
            .filter(|at| **at > returned)
            .min()
            .expect("writes go on");
        assert!(
            *back - returned < BACK_WITHIN,
            "back after {:?}",
            *back - returned
        );

        let mut kept = BTreeMap::new();
        for (number, room) in ROOMS.iter().enumerate() {
            let messages = block_on(contract::all(&host.store, room));
            contract::assert_dense(&messages);
            for message in messages {
                let key = String::from(message.client_msg_id.unwrap());
                assert_eq!(
                    kept.insert((number, key), message.seq),
                    None,
                    "stored twice"
                );
            }
        }
        let mut sum = [0; 3];
        for (place, told) in senders.iter().flat_map(|sender| &sender.told) {
            match (told, kept.get(place)) {
                (Told::Acked(seq), Some(kept)) if seq == kept => sum[0] += 1,
                (Told::Refused, None) => sum[1] += 1,
                (Told::Unknown, _) => sum[2] += 1,
                other => panic!("told and kept are not the same: {other:?}"),
            }
        }
        assert!(sum[0] > 100, "acked, refused, unknown: {sum:?}");
    }
}

/// Runs load around a fault that lasts for a while.
pub(crate) fn survives(host: &Host, lasts: Duration, begin: impl FnOnce(), end: impl FnOnce()) {
    let load = Load::start(host);
    std::thread::sleep(Duration::from_millis(700));
    begin();
    std::thread::sleep(lasts);
    if lasts > Duration::from_secs(5) {
        assert!(matches!(host.store.condition(), Condition::Degraded(_)));
    }
    end();
    let returned = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    load.check(host, returned);
    let asked = Instant::now();
    while host.store.condition() != Condition::Ok {
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            host.store.condition()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn survives_that_postgres_is_killed() {
    let server = Postgres::start();
    let host = Host::start(&server.database(), 2);
    survives(
        &host,
        Duration::from_secs(1),
        || server.kill(),
        || server.run(),
    );
}

#[test]
fn survives_that_postgres_is_paused() {
    let server = Postgres::start();
    let host = Host::start(&server.database(), 2);
    let begin = || server.signal(Signal::STOP);
    survives(&host, Duration::from_secs(8), begin, || {
        server.signal(Signal::CONT);
    });
}

#[test]
fn survives_that_the_way_is_cut_off_silently() {
    let server = Postgres::shared();
    let (relay, url) = relayed(&server);
    let host = Host::start(&url, 2);
    survives(
        &host,
        Duration::from_secs(8),
        || relay.cut(),
        || relay.mend(),
    );
}

/// The way to a database of its own, whose connections can be lost.
fn relayed(server: &Postgres) -> (Relay, String) {
    let relay = Relay::to(server.port());
    let url = server.database();
    let url = url.replace(&server.port().to_string(), &relay.port().to_string());
    (relay, url)
}

#[test]
fn a_server_that_lets_us_in_and_then_is_silent_is_left_again() {
    let server = Postgres::shared();
    let (relay, url) = relayed(&server);
    // What a writer and a reader prepare, with nothing before it lost.
    PostgresStore::migrate(&Target::parse(&url).unwrap()).unwrap();
    relay.lose_at("append_messages_1(");
    let host = Host::start(&url, 1);
    let asked = Instant::now();
    let refused = block_on(host.store.append(keyed("a", "ann", "1")));
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    assert!(asked.elapsed() < ANSWERED_WITHIN);
    relay.mend();
    let stored = block_on(host.store.append(keyed("a", "ann", "2")));
    assert!(stored.is_ok(), "{stored:?}");
    assert!(relay.made() < 20, "{} connections", relay.made());
}

#[test]
fn a_database_without_our_tables_is_not_asked_without_a_pause() {
    let server = Postgres::shared();
    let (relay, url) = relayed(&server);
    let recorder = PrometheusBuilder::new().build_recorder();
    let host = metrics::with_local_recorder(&recorder, || Host::start(&url, 1));
    let counted = |line: &str| {
        recorder
            .handle()
            .render()
            .lines()
            .any(|other| other == line)
    };
    assert!(block_on(host.store.append(keyed("a", "ann", "1"))).is_ok());
    // The readers connect beside the writer, and may need a moment longer.
    let begun = Instant::now();
    while !counted("yum_store_reconnects_total 3") {
        assert!(begun.elapsed() < Duration::from_secs(10), "three connect");
        std::thread::sleep(Duration::from_millis(10));
    }
    let drop = "DROP TABLE messages, rooms, project_yum_migrations CASCADE; \
        DROP FUNCTION append_messages_1";
    server.sql_in(url.rsplit('/').next().unwrap(), drop);
    relay.reset();
    let made = relay.made();
    std::thread::sleep(Duration::from_secs(3));
    let made = relay.made() - made;
    assert!((3..60).contains(&made), "{made} connections in 3 s");
    assert!(matches!(host.store.condition(), Condition::Degraded(_)));
    assert!(counted("yum_store_circuits_open 3"));
    let refused = block_on(host.store.append(keyed("a", "ann", "2")));
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
}

#[test]
fn a_look_at_a_silent_database_ends() {
    let server = Postgres::shared();
    let (relay, url) = relayed(&server);
    let target = Target::parse(&url).unwrap();
    relay.lose_at("project_yum_migrations");
    let begun = Instant::now();
    for found in [
        PostgresStore::look(&target).err(),
        PostgresStore::pending_migrations(&target).err(),
        PostgresStore::migrate(&target).err(),
    ] {
        let error = found.expect("nobody answers").to_string();
        assert!(error.contains("no answer in time"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn survives_that_connections_are_reset() {
    let server = Postgres::shared();
    let (relay, url) = relayed(&server);
    let host = Host::start(&url, 2);
    survives(
        &host,
        Duration::from_secs(1),
        || relay.reset(),
        || relay.reset(),
    );
}
