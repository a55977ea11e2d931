//! How many messages a user may send.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::client::{Client, Via};
use super::support::server::{Server, folder};
use super::support::token::token;

const RATE: f64 = 50.0;
const BURST: usize = 40;

fn server(folder: &std::path::Path) -> Server {
    let settings = [
        ("SHARDS", "4"),
        ("DATABASE_URL", "memory:"),
        ("RATE_MESSAGES_PER_SECOND", "50"),
        ("RATE_BURST", "40"),
    ];
    Server::start(folder, &settings)
}

#[test]
fn one_rate_holds_for_all_connections_of_a_user_on_all_shards() {
    let folder = folder();
    let server = server(folder.path());
    let connect = |user| Client::connect(server.address, Via::WebSocket, &token(user));
    // The kernel deals connections out among the shards: twelve miss none of four but once in a hundred.
    let mut clients: Vec<Client> = (0..12).map(|_| connect("alice")).collect();
    for client in &mut clients {
        client.join("r");
    }
    let payloads: Vec<_> = (0..10)
        .map(|n| json!({"roomId": "r", "content": n.to_string()}))
        .collect();
    let start = Instant::now();
    let asked: Vec<Vec<u64>> = clients
        .iter_mut()
        .map(|client| client.ask_all("sendMessage", &payloads))
        .collect();
    let mut taken = 0;
    for (client, ids) in clients.iter_mut().zip(asked) {
        for id in ids {
            let ack = client
                .ack_within(id, Duration::from_secs(10))
                .expect("an ack");
            if ack["ok"] == true {
                taken += 1;
                continue;
            }
            assert_eq!(ack["error"]["code"], "rate_limited", "{ack}");
            let wait = ack["error"]["retryAfterMs"].as_u64().expect("a time");
            assert!((1..=20).contains(&wait), "{ack}");
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number"
    )]
    let most = BURST + (start.elapsed().as_secs_f64() * RATE).ceil() as usize;
    assert!((BURST..=most).contains(&taken), "{taken} of at most {most}");
    assert_eq!(
        server.all_messages("r").len(),
        taken,
        "refused is not stored"
    );
    let refused = server.metric("yum_rate_limited_total", "what=\"message\"");
    assert!((refused - f64::from(u32::try_from(120 - taken).expect("few"))).abs() < 0.5);
    let mut bob = connect("bob");
    bob.join("r");
    bob.say("r", "another user's rate is another's");
}

/// Whoever comes and goes as fast as possible does not fill the connections of a room's members.
#[test]
fn one_rate_holds_for_the_joins_of_a_user() {
    const JOINS_BURST: usize = 4_000;
    let folder = folder();
    let server = server(folder.path());
    let connect = |user| Client::connect(server.address, Via::WebSocket, &token(user));
    let mut bob = connect("bob");
    bob.join("r");
    let mut clients = [connect("alice"), connect("alice")];
    let room = json!({"roomId": "r"});
    let (mut joined, mut refused) = (0, 0);
    let start = Instant::now();
    while joined + refused < JOINS_BURST + 500 {
        for client in &mut clients {
            let ids = client.ask_all("joinRoom", &vec![room.clone(); 50]);
            for id in ids {
                let ack = client
                    .ack_within(id, Duration::from_secs(10))
                    .expect("an ack");
                if ack["ok"] == true {
                    joined += 1;
                    continue;
                }
                refused += 1;
                assert_eq!(ack["error"]["code"], "rate_limited", "{ack}");
                let wait = ack["error"]["retryAfterMs"].as_u64().expect("a time");
                assert!((1..=10).contains(&wait), "{ack}");
            }
        }
    }
    let earned = start.elapsed().as_secs_f64() * 2.0 * RATE;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number"
    )]
    let most = JOINS_BURST + earned.ceil() as usize;
    assert!((JOINS_BURST..=most).contains(&joined), "{joined} of {most}");
    let counted = server.metric("yum_rate_limited_total", "what=\"join\"");
    assert!((counted - f64::from(u32::try_from(refused).expect("few"))).abs() < 0.5);
    // Refused joins end no connection.
    for client in &mut clients {
        client.ok("leaveRoom", &room);
    }
    bob.say("r", "the room is as it was");
}

#[test]
fn a_flood_ends_the_connection_and_keeps_the_user_out_for_a_while() {
    let folder = folder();
    let server = server(folder.path());
    let mut alice = Client::connect(server.address, Via::WebSocket, &token("alice"));
    let mut bob = Client::connect(server.address, Via::WebSocket, &token("bob"));
    bob.join("r");
    alice.join("r");
    bob.expect("userJoined");
    let payloads = vec![json!({"roomId": "r", "content": "x"}); 50];
    let start = Instant::now();
    while !alice.closed && start.elapsed() < Duration::from_secs(10) {
        let last = alice.ask_all("sendMessage", &payloads).pop();
        let _ = last.and_then(|id| alice.ack_within(id, Duration::from_secs(5)));
    }
    assert!(alice.closed && alice.disconnected, "told, and ended");
    let cause = std::iter::from_fn(|| alice.event_within(Duration::ZERO))
        .filter(|(name, _)| name == "exception")
        .last();
    let (_, cause) = cause.expect("an exception");
    assert_eq!(cause["event"], "disconnect");
    assert_eq!(cause["error"]["code"], "rate_limited");
    let auth = json!({"token": token("alice")});
    let back = Client::try_connect(server.address, Via::WebSocket, &auth, &[]);
    let refused = back.expect("the server is there").err().expect("refused");
    assert_eq!(refused["data"]["code"], "rate_limited", "{refused}");
    let wait = refused["data"]["retryAfterMs"].as_u64().expect("a time");
    assert!((1..=10_000).contains(&wait), "{refused}");
    bob.say("r", "the room is as it was");
    assert!(server.metric("yum_rate_limited_total", "what=\"flood\"") >= 1.0);
}
