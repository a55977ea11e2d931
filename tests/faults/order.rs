//! One order for a room: every member of it gets the same messages, as history has them, whatever
//! shard it is on and however its packets travel.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::PATIENCE;
use super::support::client::{Client, Via};
use super::support::server::{Server, folder};
use super::support::token::token;
use super::turn;

const ROOMS: usize = 8;
const MEMBERS: usize = 20;
const SENDERS: usize = 4;
const MESSAGES: usize = 500;
/// Sends that one sender has in flight.
const WINDOW: usize = 25;

#[test]
fn every_member_sees_the_order_of_history_on_1_shard() {
    run(1);
}

#[test]
fn every_member_sees_the_order_of_history_on_2_shards() {
    run(2);
}

#[test]
fn every_member_sees_the_order_of_history_on_4_shards() {
    run(4);
}

fn run(shards: usize) {
    let _turn = turn();
    let folder = folder();
    let count = shards.to_string();
    let server = Server::start(folder.path(), &[("SHARDS", &count)]);
    let joined = Barrier::new(ROOMS * MEMBERS + 1);
    let mut members: Vec<Member> = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ROOMS * MEMBERS)
            .map(|number| {
                let (server, joined) = (&server, &joined);
                std::thread::Builder::new()
                    .stack_size(512 * 1024)
                    .spawn_scoped(scope, move || member(server, number, joined))
                    .expect("a thread")
            })
            .collect();
        joined.wait();
        for shard in 0..shards {
            let sockets = server.metric("yum_sockets", &format!("shard=\"{shard}\""));
            assert!(sockets > 0.0, "shard {shard} has no member");
        }
        members = threads
            .into_iter()
            .map(|thread| thread.join().expect("a member has all"))
            .collect();
    });
    for member in &mut members {
        let _ = member.client.refused("leaveRoom", &json!({}));
        let more = member.client.event_within(Duration::ZERO);
        assert_eq!(more, None, "something came twice");
    }
    for room in 0..ROOMS {
        let history: Vec<(u64, String)> =
            server.all_messages(&name(room)).iter().map(place).collect();
        assert_eq!(history.len(), SENDERS * MESSAGES);
        for (index, (seq, _)) in history.iter().enumerate() {
            assert_eq!(*seq, index as u64 + 1);
        }
        for member in members.iter().skip(room).step_by(ROOMS) {
            assert!(
                member.seen == history,
                "a member of {} saw another order",
                name(room)
            );
        }
    }
    assert!(server.metric("yum_order_gaps_total", "") == 0.0);
}

fn name(room: usize) -> String {
    format!("room{room}")
}

fn place(message: &Value) -> (u64, String) {
    let id = message["id"].as_str().expect("an id").to_owned();
    (message["seq"].as_u64().expect("a seq"), id)
}

/// A member that has got all messages, still connected: when it goes, the others are told.
struct Member {
    client: Client,
    seen: Vec<(u64, String)>,
}

/// One member: member number n is in room n mod 8; the first of each room send.
fn member(server: &Server, number: usize, joined: &Barrier) -> Member {
    let room = name(number % ROOMS);
    let rank = number / ROOMS;
    let via = if rank.is_multiple_of(2) {
        Via::WebSocket
    } else {
        Via::Polling
    };
    let mut client = Client::connect(server.address, via, &token(&format!("user{number}")));
    assert_eq!(client.join(&room)["seq"], 0);
    joined.wait();
    let mut seen = Vec::with_capacity(SENDERS * MESSAGES);
    if rank < SENDERS {
        let payload = json!({"roomId": room, "content": format!("from {number}")});
        let payloads = vec![payload; WINDOW];
        for _ in 0..MESSAGES / WINDOW {
            for id in client.ask_all("sendMessage", &payloads) {
                let ack = client.ack_within(id, PATIENCE).expect("an ack");
                assert_eq!(ack["ok"], true, "{ack}");
            }
            while let Some(event) = client.event_within(Duration::ZERO) {
                note(event, &mut seen);
            }
        }
    }
    let start = Instant::now();
    while seen.len() < SENDERS * MESSAGES {
        let event = client.event_within(PATIENCE);
        let Some(event) = event else {
            let have = seen.len();
            panic!(
                "member {number} has {have} messages after {:?}",
                start.elapsed()
            );
        };
        note(event, &mut seen);
    }
    Member { client, seen }
}

fn note((name, payload): (String, Value), seen: &mut Vec<(u64, String)>) {
    if name == "receiveMessage" {
        seen.push(place(&payload));
    } else {
        assert_eq!(name, "userJoined", "{payload}");
    }
}
