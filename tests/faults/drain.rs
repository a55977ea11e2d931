//! SIGTERM under load: nothing acknowledged is lost, clients are sent away so that they come back,
//! and the process ends with 0 in time.

use std::time::{Duration, Instant};

use serde_json::json;

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
