//! The contract, kept by PostgreSQL.

use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::{block_on, poll_once};
use futures_util::future::join_all;
use glommio::{LocalExecutorBuilder, Placement};
use project_yum::store::postgres::{PostgresStore, Target};
use project_yum::store::{Condition, Cursor, Store, Stored};

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
                    let seated = seat.take();
                    // The tick without which the executor may sleep while work is waiting.
                    while !ended.is_disconnected() {
                        glommio::timer::sleep(Duration::from_millis(5)).await;
                    }
                    seated.leave().await;
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

#[test]
fn what_is_stored_is_answered_while_the_next_batch_is_out() {
    let server = Postgres::shared();
    let url = server.database();
    let host = Host::start(&url, 1);
    server.sql_in(
        url.rsplit('/').next().unwrap(),
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep(NEW.content::float); RETURN NEW; END $$;
         CREATE TRIGGER dawdles BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION dawdle()",
    );
    let first = host.store.append(draft("r", "ann", "0.5"));
    std::thread::sleep(Duration::from_millis(100));
    let mut second = host.store.append(draft("r", "ann", "2"));
    block_on(first).unwrap();
    let early = block_on(poll_once(&mut second));
    assert_eq!(early, None, "the first did not wait for the second");
    block_on(second).unwrap();
}

#[test]
fn takes_the_password_from_its_file() {
    let server = Postgres::shared();
    let url = server.database().replace(":secret", "");
    assert!(PostgresStore::migrate(&Target::parse(&url).unwrap()).is_err());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "*:*:*:yum:secret\n").unwrap();
    let url = format!("{url}?passfile={}", file.path().display());
    PostgresStore::migrate(&Target::parse(&url).unwrap()).unwrap();
}

/// The one line that says why a database cannot be used.
pub(crate) fn refusal(url: &str) -> String {
    let refused = PostgresStore::migrate(&Target::parse(url).unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        !refused.contains('\n') && !refused.contains("secret"),
        "{refused}"
    );
    refused
}

#[test]
fn says_in_one_line_why_a_database_cannot_be_used() {
    let server = Postgres::shared();
    let url = server.database();
    let (base, name) = url.rsplit_once('/').unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();

    let refused = refusal(&format!("postgres://yum:secret@127.0.0.1:{free}/x"));
    assert!(refused.contains(&format!("127.0.0.1:{free}")), "{refused}");
    assert!(refused.contains("refused"), "{refused}");
    let refused = refusal("postgres://yum:secret@no-such-host.invalid/x");
    assert!(refused.contains("no-such-host.invalid"), "{refused}");
    let refused = refusal(
        &url.replace("yum:secret", "yum:not-the-secret")
            .replace("not-the-secret", "wrong"),
    );
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
    let refused = refusal(&format!("{base}/missing"));
    assert!(refused.contains("\"missing\" does not exist"), "{refused}");
    server.sql(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on"
    ));
    let refused = refusal(&url);
    assert!(refused.contains("read-only"), "{refused}");
}

#[test]
fn refuses_a_newer_database_and_lists_what_an_older_one_lacks() {
    let server = Postgres::shared();
    let url = server.database();
    let target = Target::parse(&url).unwrap();
    assert_eq!(
        PostgresStore::pending_migrations(&target).unwrap(),
        ["0001_messages"]
    );
    // Servers that start at the same moment: one takes the steps, the others wait for it.
    let starts: Vec<_> = (0..3)
        .map(|_| {
            let target = target.clone();
            std::thread::spawn(move || PostgresStore::migrate(&target).unwrap().len())
        })
        .collect();
    let taken: usize = starts.into_iter().map(|start| start.join().unwrap()).sum();
    assert_eq!(taken, 1);
    assert!(
        PostgresStore::pending_migrations(&target)
            .unwrap()
            .is_empty()
    );
    let name = url.rsplit('/').next().unwrap();
    server.sql_in(
        name,
        "INSERT INTO project_yum_migrations (version, name) VALUES (99, 'later')",
    );
    assert!(refusal(&url).contains("version 99"));
}

#[test]
fn a_page_costs_the_same_at_any_depth_of_a_million_rows() {
    let server = Postgres::shared();
    let url = server.database();
    let host = Host::start(&url, 1);
    block_on(host.store.append(draft("deep", "ann", "first"))).unwrap();
    let name = url.rsplit('/').next().unwrap();
    server.sql_in(
        name,
        "INSERT INTO messages (room, seq, id, sender, content, wall_ms)
         SELECT r, s, gen_random_uuid(), 'ann', 'some text', 0
         FROM generate_series(1, 10) r, generate_series(2, 100000) s;
         UPDATE rooms SET head = 100000",
    );
    for (condition, order) in [("< 90000", "DESC"), ("< 200", "DESC"), ("> 50000", "ASC")] {
        let plan = server.sql_in(
            name,
            &format!(
                "EXPLAIN SELECT seq, content FROM messages
                 WHERE room = (SELECT id FROM rooms WHERE name = 'deep') AND seq {condition}
                 ORDER BY seq {order} LIMIT 51"
            ),
        );
        assert!(
            plan.contains("messages_pkey") && !plan.contains("Sort"),
            "{plan}"
        );
    }
    let best = |cursor| {
        let time = |_| {
            let begun = std::time::Instant::now();
            let page = block_on(host.store.history("deep", cursor, 50)).unwrap();
            assert_eq!(page.messages.len(), 50);
            begun.elapsed()
        };
        (0..30).map(time).min().unwrap()
    };
    let (near, far) = (best(Cursor::Before(99_000)), best(Cursor::Before(60)));
    assert!(
        far < near * 5 && near < far * 5,
        "near {near:?}, far {far:?}"
    );
}
