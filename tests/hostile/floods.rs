//! Many at once: connections that only cost, names that only grow, descriptors that run out.
//!
//! Each has a server of its own and the machine for itself.

use std::fs::{File, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::client::{Client, Via};
use super::support::eventually;
use super::support::http;
use super::support::server::{Server, folder};
use super::support::token::token;
use super::wire::{Got, Wire, frame};
use super::witness::Witness;

const MIB: usize = 1 << 20;

/// Whether the long forms are asked for.
fn long() -> bool {
    std::env::var_os("TESTS_LONG").is_some_and(|value| value == "1")
}

/// Waits for this test's turn, also when each test is a process of its own.
fn turn() -> File {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/floods.lock");
    let file = File::create(path).expect("a file to lock");
    file.lock().expect("the lock");
    file
}

/// Resident bytes once they have come to rest.
fn settled(server: &Server) -> usize {
    let mut last = server.resident_bytes();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = server.resident_bytes();
        if now.abs_diff(last) < MIB / 4 {
            return now;
        }
        last = now;
    }
}

fn open(server: &Server) -> f64 {
    server.metric("yum_connections", "")
}

fn connect(address: SocketAddr) -> Wire {
    Wire::open(address).expect("the server accepts")
}

#[test]
fn a_thousand_connections_that_say_nothing_are_gone_and_cost_little() {
    let _turn = turn();
    let folder = folder();
    let server = Server::start(folder.path(), &[("SHARDS", "2")]);
    let witness = Witness::start(server.address, Via::WebSocket);
    // The first few hundred bring the executor's own memory.
    drop(
        (0..200)
            .map(|_| connect(server.address))
            .collect::<Vec<_>>(),
    );
    eventually("the first ones are gone", || {
        (open(&server) < 3.0).then_some(())
    });
    let before = settled(&server);
    let begun = Instant::now();
    let mut all: Vec<Wire> = (0..1000)
        .map(|number| {
            let mut wire = connect(server.address);
            match number % 4 {
                0 => {}
                1 => drop(wire.write(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Name: ")),
                2 => drop(wire.write(b"G")),
                _ => {
                    wire.write(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost:");
                    // Half open: the other half says nothing more, and nobody closes this one.
                    if number % 8 == 7 {
                        wire.half_close();
                    }
                }
            }
            wire
        })
        .collect();
    let mut peak = 0;
    while begun.elapsed() < Duration::from_secs(15) && open(&server) > 2.5 {
        for (number, wire) in all.iter_mut().enumerate() {
            if number % 4 == 1 {
                wire.write(b"x");
            }
        }
        peak = peak.max(server.resident_bytes());
        std::thread::sleep(Duration::from_millis(200));
    }
    let took = begun.elapsed();
    witness.check().expect("the witness");
    assert!(took < Duration::from_secs(15), "{} are left", open(&server));
    let cost = peak.saturating_sub(before);
    eprintln!("1,000 gone after {took:?}, at most {} KiB", cost >> 10);
    assert!(cost <= 10 * MIB, "they cost {} KiB", cost >> 10);
    for wire in &mut all {
        wire.gone(Duration::from_secs(5)).expect("they are closed");
    }
    witness.end();
}

#[test]
fn what_is_announced_and_never_sent_costs_nothing() {
    let _turn = turn();
    let folder = folder();
    let server = Server::start(folder.path(), &[("SHARDS", "2")]);
    let witness = Witness::start(server.address, Via::WebSocket);
    let before = settled(&server);
    let announced: Vec<Client> = (0..300)
        .map(|number| {
            let mut stream = TcpStream::connect(server.address).expect("the server accepts");
            let twin = stream.try_clone().expect("a handle");
            let user = format!("announcer-{number}");
            let client = Client::over_stream(twin, server.address, &token(&user));
            let mut bytes = frame(0x81, true, Some(900_000), &[b'x'; 4096]);
            bytes[1] |= 0x80;
            std::io::Write::write_all(&mut stream, &bytes).expect("it is taken");
            client
        })
        .collect();
    let after = settled(&server).saturating_sub(before);
    eprintln!("300 frames announced: {} KiB", after >> 10);
    assert!(after < 100 * MIB, "{} MiB", after / MIB);
    drop(announced);

    let before = settled(&server);
    let mut stalled = Vec::new();
    for _ in 0..100 {
        let opened = http::get(server.address, "/socket.io/?EIO=4&transport=polling", &[]);
        let text = opened.text();
        let sid = text.split('"').nth(3).expect("a sid");
        let mut wire = connect(server.address);
        let head = format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: a\r\n\
             Content-Length: 1000000\r\n\r\n"
        );
        wire.write(head.as_bytes());
        wire.write(&vec![b'4'; 100_000]);
        stalled.push(wire);
    }
    let after = settled(&server).saturating_sub(before);
    eprintln!("100 bodies stalled: {} KiB", after >> 10);
    assert!(after < 64 * MIB, "{} MiB", after / MIB);
    witness.check().expect("the witness");
    witness.end();
}

/// 400 descriptors for the server, 700 clients.
#[test]
fn a_server_out_of_descriptors_serves_those_it_has_and_then_the_next() {
    const CLIENTS: usize = 700;
    let _turn = turn();
    let folder = folder();
    let program = folder.path().join("limited");
    let script = format!(
        "#!/bin/sh\nulimit -n 400\nexec {}\n",
        env!("CARGO_BIN_EXE_project-yum")
    );
    std::fs::write(&program, script).expect("a file");
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("it is ours");
    let server = Server::start_program(&program, folder.path(), &[("SHARDS", "2")]);
    let witness = Witness::start(server.address, Via::WebSocket);
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| connect(server.address)).collect();
    for wire in &mut clients {
        // Kept alive, so that their descriptors stay taken.
        wire.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("it is full", || {
        let refused = server.metric("yum_connections_refused_total", "descriptors");
        (refused > 0.0).then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    let (cpu, begun) = (server.cpu_seconds(), Instant::now());
    std::thread::sleep(Duration::from_secs(4));
    let used = (server.cpu_seconds() - cpu) / begun.elapsed().as_secs_f64();
    eprintln!("full: {used:.3} of a CPU, {} connections", open(&server));
    assert!(used < 0.25, "it takes {used:.2} of a CPU while it is full");
    witness.check().expect("those who are in are served");
    // Room comes back.
    let left = clients.split_off(300);
    drop(clients);
    let freed = Instant::now();
    let answered = |wire: &mut Wire| wire.answer().is_ok_and(|answer| answer.status == 200);
    for mut wire in left.into_iter().take(400) {
        assert!(answered(&mut wire), "one of those who waited");
    }
    let mut next = connect(server.address);
    next.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answered(&mut next));
    eprintln!(
        "400 who waited and a new one were served {:?} after there was room",
        freed.elapsed()
    );
    assert!(
        freed.elapsed() < Duration::from_secs(3),
        "{:?}",
        freed.elapsed()
    );
    witness.check().expect("the witness");
    witness.end();
}

/// Everybody joins rooms of his own, and leaves.
#[test]
fn rooms_that_are_left_leave_no_memory_behind() {
    let _turn = turn();
    let (clients, rounds) = if long() { (50, 2) } else { (10, 3) };
    let folder = folder();
    let server = Server::start(
        folder.path(),
        &[("SHARDS", "2"), ("PING_INTERVAL_MS", "300000")],
    );
    let address = server.address;
    // Names of the same length, so that each round asks for the same.
    let rooms_of = |client: usize, round: usize| {
        (0..1000).map(move |room| format!("flood-{client:03}-{round:03}-{room:04}-{:060}", 0))
    };
    let mut all: Vec<Client> = (0..clients)
        .map(|number| Client::connect(address, Via::WebSocket, &token(&format!("u{number}"))))
        .collect();
    let ask = |all: &mut [Client], event: &str, round: usize| {
        for (number, client) in all.iter_mut().enumerate() {
            for chunk in rooms_of(number, round).collect::<Vec<_>>().chunks(50) {
                let payloads: Vec<_> = chunk.iter().map(|room| json!({"roomId": room})).collect();
                for id in client.ask_all(event, &payloads) {
                    let ack = client.ack_within(id, Duration::from_secs(30));
                    assert_eq!(ack.expect("an ack")["ok"], true);
                }
            }
        }
    };
    // The first ones bring what a process takes once.
    ask(&mut all[..1], "joinRoom", 999);
    ask(&mut all[..1], "leaveRoom", 999);
    let before = settled(&server);
    ask(&mut all, "joinRoom", 0);
    let joined = settled(&server);
    assert!(
        (server.metric("yum_rooms", "") - f64::from(u32::try_from(clients).unwrap()) * 1000.0)
            .abs()
            < 0.5
    );
    ask(&mut all, "leaveRoom", 0);
    // Who came and went is remembered for 10 s, and memory given back after a while.
    let bound = before + before / 10;
    let rest = |what: &str| {
        let (peak, begun) = (server.resident_bytes(), Instant::now());
        while server.resident_bytes() > bound && begun.elapsed() < Duration::from_secs(45) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let now = server.resident_bytes();
        let (peak, rest, took) = (peak >> 10, now >> 10, begun.elapsed());
        eprintln!("{what}: {peak} KiB, and {rest} after {took:?}");
        now
    };
    let left = rest("left");
    for round in 1..rounds {
        ask(&mut all, "joinRoom", round);
        ask(&mut all, "leaveRoom", round);
    }
    let over_time = rest("over time");
    let (rooms, names) = (clients * 1000, clients * 1000 * rounds);
    let (first, then) = (before >> 10, joined >> 10);
    eprintln!("{first} KiB before, {then} with {rooms} rooms; {names} names in all");
    assert!(left <= bound, "{left} bytes are left, {before} before");
    assert!(
        over_time <= bound,
        "{over_time} bytes over time, {before} before"
    );
}

/// Thousands come at once, and go at once, twice.
#[test]
fn a_storm_that_is_dropped_at_once_leaves_nothing_behind() {
    let _turn = turn();
    let count = if long() { 9000 } else { 2000 };
    let folder = folder();
    let server = Server::start(
        folder.path(),
        &[("SHARDS", "2"), ("DATABASE_URL", "memory:")],
    );
    let witness = Witness::start(server.address, Via::WebSocket);
    let storm = || {
        let begun = Instant::now();
        let all: Vec<Wire> = (0..count)
            .map(|number| {
                let mut wire = connect(server.address);
                let user = token(&format!("storm-{number}"));
                let mut bytes =
                    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\n\
                    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                        .to_vec();
                let connect = format!(r#"40{{"token":"{user}"}}"#);
                bytes.extend(frame(0x81, true, None, connect.as_bytes()));
                wire.write(&bytes);
                wire
            })
            .collect();
        eventually("all are connected", || {
            (server.metric("yum_sockets", "") >= f64::from(count)).then_some(())
        });
        let connected = begun.elapsed();
        witness.check().expect("the witness, in the storm");
        let begun = Instant::now();
        drop(all);
        eventually("all are gone", || (open(&server) < 2.5).then_some(()));
        (connected, begun.elapsed())
    };
    let first = storm();
    witness.check().expect("the witness");
    let before = settled(&server);
    let second = storm();
    let after = settled(&server);
    eprintln!(
        "{count} connected and gone in {first:?}, again in {second:?}; {} KiB after the first, {} after the second; an ack took {:?} at most",
        before >> 10,
        after >> 10,
        witness.slowest()
    );
    assert!(
        after <= before + before / 10 + 4 * MIB,
        "{before}, then {after}"
    );
    witness.check().expect("the witness");
    witness.end();
}

/// A body of half a million packets does not hold up the shard: whoever asks meanwhile is answered first.
#[test]
fn a_body_of_packets_without_end_lets_others_go_first() {
    let _turn = turn();
    let folder = folder();
    let server = Server::start(folder.path(), &[("SHARDS", "1")]);
    let mut other = connect(server.address);
    let mut body = b"6\x1e".repeat(499_999);
    body.push(b'6');
    let (last, rest) = body.split_last().expect("it is long");
    for round in 0..5 {
        let opened = http::get(server.address, "/socket.io/?EIO=4&transport=polling", &[]);
        let text = opened.text();
        let sid = text.split('"').nth(3).expect("a sid");
        let head = format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: a\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let mut flood = connect(server.address);
        assert!(flood.write(head.as_bytes()) && flood.write(rest));
        // All of it but the last byte is read when the other request comes.
        std::thread::sleep(Duration::from_millis(500));
        assert!(flood.write(&[*last]));
        other.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(other.answer().expect("an answer").status, 200);
        let got = flood.fill(Instant::now());
        assert_eq!(got, Got::Nothing, "round {round}: the flood went first");
        assert_eq!(flood.answer().expect("an answer").status, 200);
    }
}

/// A head that drips costs the server what a whole one costs, not more with each byte.
#[test]
fn a_dripped_head_takes_no_more_time_than_its_bytes() {
    let _turn = turn();
    let folder = folder();
    let server = Server::start(folder.path(), &[("SHARDS", "1")]);
    let head = format!(
        "GET /health HTTP/1.1\r\nHost: a\r\nName: {}\r\n\r\n",
        "x".repeat(16_000)
    );
    let cost = |length: usize| {
        let mut wire = connect(server.address);
        let before = server.cpu_seconds();
        for byte in &head.as_bytes()[..length] {
            assert!(wire.write(&[*byte]));
            // The server reads it alone: what is waiting would be read at once.
            std::hint::black_box(wire.fill(Instant::now()) == Got::Nothing);
        }
        server.cpu_seconds() - before
    };
    let (half, whole) = (cost(head.len() / 2), cost(head.len()));
    eprintln!("half a head takes {half:.2} s of CPU, a whole one {whole:.2} s");
    assert!(whole <= half * 3.0 + 0.3, "{half:.2} s, then {whole:.2} s");
}
