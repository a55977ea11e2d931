//! The server as a process: what it does when it is told to end, and what its memory does.

use std::thread;
use std::time::{Duration, Instant};

use crate::http::head;
use crate::peer::{ENGINE, ENGINE_WS, eventually, sid_of};
use crate::server::{Server, start};
use crate::websocket::{BINARY, FIN, WebSocket, frame, frame_head};

const CALM: [(&str, &str); 2] = [("PING_INTERVAL_MS", "25000"), ("PING_TIMEOUT_MS", "20000")];
const MIB: usize = 1 << 20;

/// Every client is told, the process ends within 5 s, and its port can be had at once.
#[track_caller]
fn ends_when_told(shards: usize) {
    let server: &'static Server = Box::leak(Box::new(start(&CALM, shards)));
    let mut websockets: Vec<WebSocket> = (0..8).map(|_| server.session(ENGINE_WS)).collect();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let session = server.polling(ENGINE);
        let mut connection = server.connect();
        connection.write(head("GET", &session.target, ""));
        waiting.push(connection);
    }
    thread::sleep(Duration::from_millis(200));
    let told = Instant::now();
    server.terminate();
    for websocket in &mut websockets {
        assert_eq!(websocket.closes(), Some(1001));
    }
    for connection in &mut waiting {
        // No close packet, after which some clients stay away: their next request fails instead.
        connection.response().is(200, "6");
    }
    eventually("the process has ended", || server.has_ended());
    // 5 s, and what a busy machine adds.
    assert!(
        told.elapsed() < Duration::from_secs(8),
        "{:?}",
        told.elapsed()
    );

    let port = server.address.port().to_string();
    let again = start(&[("PORT", &port)], shards);
    assert_eq!(again.address, server.address);
    sid_of(again.get(ENGINE).text());
}

#[test]
fn one_shard_ends_when_told() {
    ends_when_told(1);
}

#[test]
fn four_shards_end_when_told() {
    ends_when_told(4);
}

/// A connection that once carried a big message goes back to its idle size.
#[test]
fn big_messages_leave_no_memory_behind() {
    let server = start(&CALM, 1);
    let mut websockets: Vec<WebSocket> = (0..100).map(|_| server.session(ENGINE_WS)).collect();
    let bytes = frame(FIN | BINARY, &vec![7; 900_000]);
    let mut round = || {
        for websocket in &mut websockets {
            websocket.connection.write(&bytes);
            assert_eq!(websocket.receive().payload.len(), 900_000);
        }
    };
    round();
    let settled = server.memory();
    // Kept for good, they would be 86 MiB; the server had at most a few at once.
    assert!(settled < 48 * MIB, "{settled} bytes");
    round();
    let after = server.memory();
    assert!(after < settled + 8 * MIB, "{settled}, then {after} bytes");
}

/// What is announced and never sent costs nothing.
#[test]
fn announced_bytes_take_no_memory() {
    let server = start(&CALM, 1);
    drop(server.session(ENGINE_WS));
    let before = server.memory();
    let mut stalled = Vec::new();
    for _ in 0..300 {
        let mut websocket = server.session(ENGINE_WS);
        let mut bytes = frame_head(FIN | BINARY, 900_000, true);
        bytes.extend_from_slice(b"mask and the beginning");
        websocket.connection.write(bytes);
        stalled.push(websocket);
    }
    for _ in 0..100 {
        let mut connection = server.connect();
        let fields = "Content-Length: 1000000\r\n";
        connection.write(head("POST", &server_target(&server), fields) + "4");
        stalled.push(WebSocket { connection });
    }
    thread::sleep(Duration::from_millis(300));
    let after = server.memory();
    assert!(after < before + 64 * MIB, "{before}, then {after} bytes");
}

/// A polling session that its request alone uses.
fn server_target(server: &Server) -> String {
    let open = server.get(ENGINE);
    format!("{ENGINE}&sid={}", sid_of(open.text()))
}
