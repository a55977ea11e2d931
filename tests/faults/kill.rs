//! kill -9 under load: what was acknowledged is in history once, and `seq` is dense.

use std::time::Duration;

use serde_json::json;

use super::support::client::{Client, Via};
use super::support::server::{Server, folder};
use super::support::token::token;
use super::turn;
use super::writer::{Writer, check, write_while};

const KILLS: u64 = 5;

#[test]
fn acknowledged_messages_survive_kill_9_under_load() {
    let _turn = turn();
    let folder = folder();
    let settings = [("SHARDS", "2")];
    let mut writers: Vec<Writer> = (0..12)
        .map(|n| {
            let via = [Via::WebSocket, Via::WebSocket, Via::Polling][n % 3];
            Writer::new(&format!("room{}", n % 4), &format!("user{n}"), via)
        })
        .collect();
    let mut acked = 0;
    for round in 0..KILLS {
        let server = Server::start(folder.path(), &settings);
        check(&writers, &server);
        write_while(&mut writers, server.address, || {
            std::thread::sleep(Duration::from_millis(700 + 170 * round));
            server.kill();
        });
        let now: usize = writers.iter().map(|writer| writer.acked.len()).sum();
        assert!(now > acked, "nothing was acknowledged in round {round}");
        acked = now;
    }
    let server = Server::start(folder.path(), &settings);
    check(&writers, &server);
    for writer in &mut writers {
        writer.finish(server.address);
    }
    check(&writers, &server);
    let duplicates: usize = writers.iter().map(|writer| writer.duplicates).sum();
    assert!(acked > 1_000, "only {acked} messages were acknowledged");
    assert!(
        duplicates > 0,
        "no message was stored whose ack was lost: five kills say little"
    );
}

#[test]
fn a_resend_after_a_restart_gets_the_first_ack_and_reaches_nobody_twice() {
    let _turn = turn();
    let folder = folder();
    let payload = json!({"roomId": "r", "content": "x", "clientMsgId": "k"});
    let server = Server::start(folder.path(), &[]);
    let mut alice = Client::connect(server.address, Via::WebSocket, &token("alice"));
    alice.join("r");
    let first = alice.ok("sendMessage", &payload);
    alice.expect("receiveMessage");
    server.kill();

    let server = Server::start(folder.path(), &[]);
    let mut alice = Client::connect(server.address, Via::Polling, &token("alice"));
    let mut bob = Client::connect(server.address, Via::WebSocket, &token("bob"));
    assert_eq!(alice.join("r")["seq"], 1);
    bob.ok("joinRoom", &json!({"roomId": "r", "lastSeq": 0}));
    assert_eq!(bob.expect("receiveMessage")["seq"], 1);
    let mut again = first.clone();
    again["duplicate"] = json!(true);
    assert_eq!(alice.ok("sendMessage", &payload), again);
    assert_eq!(alice.say("r", "next")["seq"], 2);
    assert_eq!(alice.expect("userJoined")["userId"], "bob");
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.expect("receiveMessage")["seq"], 2);
        client.expect_quiet();
    }
    assert_eq!(server.all_messages("r").len(), 2);
}
