//! SIGTERM under load: nothing acknowledged is lost, clients are sent away so that they come back,
//! and the process ends with 0 in time.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::postgres_server::Postgres;
use super::support::client::{Client, Via};
use super::support::http;
use super::support::server::{Server, folder};
use super::support::token::token;
use super::turn;
use super::writer::{Writer, check, write_while};

const DRAIN: Duration = Duration::from_secs(6);

fn writers() -> Vec<Writer> {
    (0..8)
        .map(|n| {
            let via = if n % 2 == 0 {
                Via::WebSocket
            } else {
                Via::Polling
            };
            Writer::new(&format!("room{}", n % 3), &format!("user{n}"), via)
        })
        .collect()
}

#[test]
fn a_drain_loses_nothing_and_ends_in_time() {
    let _turn = turn();
    for signal in ["TERM", "INT"] {
        let folder = folder();
        let settings = [("SHARDS", "2"), ("DRAIN_SECONDS", "6")];
        let mut server = Server::start(folder.path(), &settings);
        let address = server.address;
        let mut idle: Vec<Client> = (0..40)
            .map(|n| {
                let via = if n % 2 == 0 {
                    Via::WebSocket
                } else {
                    Via::Polling
                };
                let mut client = Client::connect(address, via, &token(&format!("idle{n}")));
                client.join(&format!("quiet{n}"));
                client
            })
            .collect();
        let mut writers = writers();
        write_while(&mut writers, address, || {
            std::thread::sleep(Duration::from_millis(700));
            let start = Instant::now();
            server.signal(signal);
            for client in &mut idle {
                assert!(
                    client.wait_closed(DRAIN).is_some(),
                    "a client is not sent away"
                );
                assert!(
                    !client.disconnected,
                    "a DISCONNECT keeps clients from coming back"
                );
            }
            let status = server.wait(DRAIN + Duration::from_secs(2));
            let status = status.expect("it ends in time");
            assert_eq!(status.code(), Some(0), "{status}");
            assert!(
                start.elapsed() < DRAIN + Duration::from_secs(1),
                "{:?}",
                start.elapsed()
            );
        });
        let acked: usize = writers.iter().map(|writer| writer.acked.len()).sum();
        assert!(acked > 100, "{acked}");
        for writer in &writers {
            assert!(writer.refused.is_empty(), "a drain refuses no send");
        }
        let server = Server::start(folder.path(), &settings);
        check(&writers, &server);
    }
}

#[test]
fn a_draining_server_says_so() {
    let _turn = turn();
    let folder = folder();
    let settings = [("SHARDS", "2"), ("DRAIN_SECONDS", "6")];
    let mut server = Server::start(folder.path(), &settings);
    // Enough sessions for the drain to last a while: they leave in waves.
    let clients: Vec<Client> = (0..400)
        .map(|n| Client::connect(server.address, Via::WebSocket, &token(&format!("u{n}"))))
        .collect();
    server.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    let health = http::get(server.address, "/health", &[]);
    assert_eq!(
        (health.status, &health.json()["status"]),
        (503, &json!("draining"))
    );
    let auth = json!({"token": token("late")});
    for via in [Via::WebSocket, Via::Polling] {
        let refused = Client::try_connect(server.address, via, &auth, &[]);
        let text = match refused {
            Ok(Ok(_)) => panic!("a draining server takes a new session"),
            Ok(Err(refusal)) => refusal.to_string(),
            Err(refusal) => refusal.to_string(),
        };
        assert!(text.contains("draining"), "{text}");
    }
    drop(clients);
    let status = server.wait(DRAIN + Duration::from_secs(2));
    assert_eq!(status.expect("it ends in time").code(), Some(0));
}

#[test]
fn a_drain_ends_in_time_though_the_database_and_the_clients_are_silent() {
    let _turn = turn();
    let (postgres, folder) = (Postgres::start(), folder());
    let settings = [
        ("SHARDS", "2"),
        ("DRAIN_SECONDS", "3"),
        ("DATABASE_URL", &postgres.database()),
    ];
    let mut server = Server::start(folder.path(), &settings);
    let mut clients: Vec<Client> = (0..8)
        .map(|n| {
            let user = token(&format!("u{n}"));
            let mut client = Client::connect(server.address, Via::WebSocket, &user);
            client.join(&format!("room{n}"));
            client
        })
        .collect();
    postgres.signal(Signal::STOP);
    for (n, client) in clients.iter_mut().enumerate() {
        let payload = json!({"roomId": format!("room{n}"), "content": "into the silence"});
        client.ask("sendMessage", &payload);
    }
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    server.signal("TERM");
    let status = server.wait(Duration::from_secs(20)).expect("it ends");
    let took = start.elapsed();
    postgres.signal(Signal::CONT);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took <= Duration::from_secs(3), "{took:?}");
}

/// How many clients there are: ten thousand when time is given.
fn crowd() -> usize {
    let is_long = std::env::var("TESTS_LONG").is_ok_and(|long| long == "1");
    if is_long { 10_000 } else { 600 }
}

/// Samples how many sessions are left, until the server ends: seconds since the signal, and a count.
fn watch(server: &Server, start: Instant) -> Vec<(f64, f64)> {
    let mut left = Vec::new();
    while let Some(count) = server.try_metric("yum_sessions", "") {
        left.push((start.elapsed().as_secs_f64(), count));
        std::thread::sleep(Duration::from_millis(100));
    }
    left
}

/// That a client which listened to a room saw every message until it was sent away.
fn check_listener(client: &mut Client, joined: u64) -> u64 {
    let mut last = joined;
    while let Some((name, payload)) = client.event_within(Duration::ZERO) {
        if name == "receiveMessage" {
            last += 1;
            assert_eq!(payload["seq"], last, "a listener missed something");
        }
    }
    last - joined
}

#[test]
fn a_crowd_leaves_evenly_within_ten_seconds_and_misses_nothing() {
    let _turn = turn();
    let folder = folder();
    let settings = [("SHARDS", "2"), ("RATE_MESSAGES_PER_SECOND", "0")];
    let mut server = Server::start(folder.path(), &settings);
    let (address, count) = (server.address, crowd());
    let user = token("crowd");
    let mut crowd: Vec<Client> = (0..count)
        .map(|_| Client::connect(address, Via::WebSocket, &user))
        .collect();
    let mut listeners: Vec<(Client, u64)> = (0..12)
        .map(|n| {
            let mut client = Client::connect(address, Via::WebSocket, &token(&format!("l{n}")));
            let joined = client.join(&format!("room{}", n % 3));
            (client, joined["seq"].as_u64().expect("a seq"))
        })
        .collect();
    let mut writers = writers();
    let (mut left, mut took) = (Vec::new(), Duration::ZERO);
    write_while(&mut writers, address, || {
        std::thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        server.signal("TERM");
        left = watch(&server, start);
        let status = server.wait(Duration::from_secs(5)).expect("it ends");
        took = start.elapsed();
        assert_eq!(status.code(), Some(0), "{status}");
    });
    eprintln!(
        "{count} clients left within {:.2} s, the end of the process included",
        took.as_secs_f64()
    );
    assert!(took <= Duration::from_secs(10), "{took:?}");
    for client in &mut crowd {
        let closed = client.wait_closed(Duration::from_secs(1));
        assert!(closed.is_some(), "a client is not sent away");
        assert!(
            !client.disconnected,
            "a DISCONNECT keeps clients from coming back"
        );
    }
    let seen: u64 = listeners
        .iter_mut()
        .map(|(client, joined)| {
            client
                .wait_closed(Duration::from_secs(1))
                .expect("a listener is sent away");
            check_listener(client, *joined)
        })
        .sum();
    assert!(seen > 100, "{seen}");
    spread(&left, count);
    let server = Server::start(folder.path(), &settings);
    check(&writers, &server);
}

/// That the crowd did not leave in one go, to come back elsewhere in one go.
#[expect(clippy::cast_precision_loss, reason = "a number of clients")]
fn spread(left: &[(f64, f64)], count: usize) {
    // Each of two shards lets 200 a second go, and all within 8 s.
    let waves = (count as f64 / 400.0).min(8.0);
    for pair in left.windows(2) {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        let fair = (to - from) / waves * count as f64;
        let most = 1.5 * fair + 0.1 * count as f64;
        assert!(
            before - after <= most,
            "{} left within {} s: {left:?}",
            before - after,
            to - from
        );
    }
    let gone = left.iter().find(|(_, left)| *left < count as f64 / 2.0);
    assert!(gone.is_some_and(|(at, _)| *at > waves / 4.0), "{left:?}");
}
