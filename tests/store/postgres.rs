//! The contract, kept by PostgreSQL.

use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::block_on;
use futures_util::future::join_all;
use glommio::{LocalExecutorBuilder, Placement};
use project_yum::store::postgres::{PostgresStore, Target};
use project_yum::store::{Condition, Store, Stored};

use crate::contract::{self, draft, keyed};
use crate::postgres_server::Postgres;

/// A process's store with its shards, each an executor on a thread.
pub(crate) struct Host {
    pub(crate) store: PostgresStore,
    running: Option<flume::Sender<()>>,
    shards: Vec<std::thread::JoinHandle<()>>,
}

impl Host {
    pub(crate) fn start(url: &str, shards: usize) -> Self {
        let target = Target::parse(url).unwrap();
        PostgresStore::migrate(&target).unwrap();
        let (store, seats) = PostgresStore::new(target, shards).unwrap();
        let (running, ended) = flume::bounded::<()>(1);
        let run = |seat: project_yum::store::postgres::Seat| {
            let ended = ended.clone();
            std::thread::spawn(move || {
                let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(0);
                executor.ring_depth(128).make().unwrap().run(async move {
                    seat.take();
                    // The tick without which the executor may sleep while work is waiting.
                    while !ended.is_disconnected() {
                        glommio::timer::sleep(Duration::from_millis(5)).await;
                    }
                });
            })
        };
        let shards = seats.into_iter().map(run).collect();
        Self {
            store,
            running: Some(running),
            shards,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.running = None;
        for shard in self.shards.drain(..) {
            shard.join().unwrap();
        }
    }
}

#[test]
fn keeps_the_contract() {
    let server = Postgres::shared();
    let host = Host::start(&server.database(), 2);
    block_on(contract::holds(Rc::new(host.store.handle())));
}

#[test]
fn keeps_the_contract_over_a_unix_socket() {
    let server = Postgres::shared();
    let database = server.database();
    let name = database.rsplit('/').next().unwrap();
    let directory = server.directory().display();
    let url = format!(
        "postgres:///{name}?host={directory}&port={}&user=yum",
        server.port()
    );
    let host = Host::start(&url, 1);
    block_on(contract::holds(Rc::new(host.store.handle())));
}

#[test]
fn orders_the_messages_of_many_threads() {
    let server = Postgres::shared();
    let host = Host::start(&server.database(), 3);
    contract::many_writers(8, 40, &host.store);
}

#[test]
fn stores_a_key_once_that_two_hosts_send_at_the_same_moment() {
    let server = Postgres::shared();
    let url = server.database();
    let (one, two) = (Host::start(&url, 1), Host::start(&url, 2));
    for round in 0..100 {
        let sends = (0..100).flat_map(|n| {
            let key = format!("{round}-{n}");
            let room = ["a", "b", "c"][n % 3];
            [
                one.store.append(keyed(room, "ann", &key)),
                two.store.append(keyed(room, "ann", &key)),
            ]
        });
        let acked: Vec<Stored> = block_on(join_all(sends))
            .into_iter()
            .map(Result::unwrap)
            .collect();
        for pair in acked.chunks(2) {
            assert_eq!(pair[0].message, pair[1].message, "both are acked alike");
            assert!(pair[0].fresh != pair[1].fresh, "one of them stored it");
        }
    }
    let kept = ["a", "b", "c"].map(|room| block_on(contract::all(&one.store, room)));
    for kept in &kept {
        contract::assert_dense(kept);
    }
    assert_eq!(kept.iter().map(Vec::len).sum::<usize>(), 10_000);
}

#[test]
fn orders_the_messages_of_two_hosts_in_the_same_rooms() {
    let server = Postgres::shared();
    let url = server.database();
    let hosts = [Host::start(&url, 2), Host::start(&url, 2)];
    let sends = (0..2_000).map(|n: usize| {
        let room = format!("room-{}", n % 7);
        hosts[n % 2]
            .store
            .append(draft(&room, "ann", &n.to_string()))
    });
    // At most a thousand may wait of each.
    for answer in block_on(join_all(sends)) {
        answer.unwrap();
    }
    for n in 0..7 {
        let room = format!("room-{n}");
        let kept = block_on(contract::all(&hosts[0].store, &room));
        contract::assert_dense(&kept);
        assert_eq!(kept, block_on(contract::all(&hosts[1].store, &room)));
    }
    for host in &hosts {
        assert_eq!(host.store.condition(), Condition::Ok);
    }
}

#[test]
fn a_row_that_cannot_be_stored_does_not_fail_the_others() {
    let server = Postgres::shared();
    let host = Host::start(&server.database(), 1);
    // The middle one has a key that no index of PostgreSQL takes.
    let key: String = (0..600).map(|_| uuid::Uuid::now_v7().to_string()).collect();
    let drafts = (0..9).map(|n| match n {
        4 => keyed("r", "ann", &key),
        2 => draft("r", "ann", "with a NUL \0"),
        _ => draft("r", "ann", "fine"),
    });
    let answers = block_on(join_all(drafts.map(|draft| host.store.append(draft))));
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_ok(), n != 2 && n != 4, "{n}");
    }
    let kept = block_on(contract::all(&host.store, "r"));
    contract::assert_dense(&kept);
    assert_eq!(kept.len(), 7);
}
