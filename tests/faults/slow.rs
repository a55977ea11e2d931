//! A thousand clients that stop reading: they are closed and counted, and nobody else notices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::support::client::{Client, Via};
use super::support::eventually;
use super::support::server::{Server, folder};
use super::support::token::token;
use super::turn;

const SLOW: u32 = 1_000;
/// What the flood is made of: well above the kernel's buffers and the bound of one outbox together.
const FLOOD_MESSAGES: usize = 120;
const FLOOD_CONTENT: usize = 60_000;
const GROWTH_BYTES_MAX: usize = 200 << 20;

/// A client whose kernel takes little for it.
fn small_client(address: SocketAddr, user: &str) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&address.into()).expect("the server accepts");
    Client::over_stream(socket.into(), address, &token(user))
}

/// Some round trips in another room, the longest last.
fn acks(client: &mut Client, count: usize) -> Vec<Duration> {
    let mut acks: Vec<Duration> = (0..count)
        .map(|_| {
            let start = Instant::now();
            client.say("calm", "x");
            client.expect("receiveMessage");
            start.elapsed()
        })
        .collect();
    acks.sort_unstable();
    acks
}

#[test]
fn clients_that_stop_reading_are_closed_and_nobody_else_waits() {
    let _turn = turn();
    let folder = folder();
    let server = Server::start(folder.path(), &[("SHARDS", "2")]);
    let mut calm = Client::connect(server.address, Via::WebSocket, &token("calm"));
    calm.join("calm");
    let mut flood = Client::connect(server.address, Via::WebSocket, &token("flood"));
    flood.join("flooded");
    // All of one user, so that they do not announce each other.
    let slow: Vec<Client> = (0..SLOW)
        .map(|_| {
            let mut client = small_client(server.address, "slow");
            client.join("flooded");
            client
        })
        .collect();
    let before = server.resident_bytes();
    let usual = acks(&mut calm, 50);
    let usual = usual[usual.len() - 1];

    let payload = json!({"roomId": "flooded", "content": "x".repeat(FLOOD_CONTENT)});
    let mut peak = 0;
    let mut flooded = Vec::new();
    for _ in 0..FLOOD_MESSAGES {
        flood.ok("sendMessage", &payload);
        while flood.event_within(Duration::ZERO).is_some() {}
        flooded.extend(acks(&mut calm, 2));
        peak = peak.max(server.resident_bytes());
    }
    let closed = eventually("all slow clients are counted", || {
        peak = peak.max(server.resident_bytes());
        let closed = server.metric("yum_slow_consumers_total", "");
        (closed >= f64::from(SLOW)).then_some(closed)
    });
    assert!(
        (closed - f64::from(SLOW)).abs() < 0.5,
        "{closed} were closed"
    );
    let grown = peak.saturating_sub(before);
    assert!(
        grown <= GROWTH_BYTES_MAX,
        "the process grew by {} MiB",
        grown >> 20
    );
    flooded.sort_unstable();
    // To hand 60 kB to a thousand members takes this machine its time; to wait for one of them that
    // does not read would take seconds.
    let (most, all) = (flooded[flooded.len() * 9 / 10], flooded[flooded.len() - 1]);
    assert!(
        most <= usual * 4 + Duration::from_millis(250),
        "{most:?}, {usual:?} before"
    );
    assert!(
        all <= Duration::from_secs(2),
        "an ack took {all:?}, {usual:?} before"
    );
    assert_eq!(flood.ok("sendMessage", &payload)["seq"], FLOOD_MESSAGES + 1);
    drop(slow);
    eventually("their connections are gone", || {
        (server.metric("yum_sockets", "") < 3.0).then_some(())
    });
}
