//! From polling to a WebSocket, and every way in which that fails (protocol.md 1.7).

use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Connection, head};
use crate::peer::{ENGINE, ENGINE_WS, Item, Polling, text};
use crate::server::{PATIENCE, Server, long};
use crate::websocket::{FIN, TEXT, WebSocket, frame, text_frame};

cases!(Calm:
    probe_and_upgrade,
    probe_upgrade_and_message_in_one_write,
    handshake_and_all_in_one_write,
    pending_get_is_released_by_a_noop,
    get_behind_the_probe_is_released,
    get_behind_the_probe_takes_what_is_there,
    post_behind_the_probe_counts,
    post_ends_behind_the_upgrade,
    post_left_behind_the_upgrade,
    queued_packets_follow_in_order,
    polling_after_the_upgrade_is_refused,
    second_websocket_after_the_upgrade,
    second_websocket_during_the_upgrade,
    websocket_onto_a_websocket_session,
    message_instead_of_a_probe,
    ping_instead_of_a_probe,
    upgrade_instead_of_a_probe,
    binary_instead_of_a_probe,
    bad_frame_instead_of_a_probe,
    message_instead_of_an_upgrade,
    closed_before_the_probe,
    closed_after_the_probe,
    vanished_after_the_probe,
    upgraded_at_the_second_attempt,
    probe_is_answered_once,
    close_by_post_during_the_upgrade,
    traffic_in_both_directions,
);

mod quick {
    use super::*;
    cases!(Quick: probe_without_an_end_times_out, websocket_without_a_probe_times_out);
}

/// Begins an upgrade: a WebSocket whose probe is answered.
#[track_caller]
fn probe(session: &Polling) -> WebSocket {
    let mut websocket = begin(session);
    websocket.send("2probe");
    websocket.expect("3probe");
    websocket
}

#[track_caller]
fn begin(session: &Polling) -> WebSocket {
    let target = session.target.replace("polling", "websocket");
    session.server.websocket(&target)
}

/// Ends the polling side as a client does, then upgrades.
#[track_caller]
fn upgrade(session: &Polling) -> WebSocket {
    let mut websocket = probe(session);
    session.expect("6");
    websocket.send("5");
    websocket
}

#[track_caller]
fn echoes(websocket: &mut WebSocket, packet: &str) {
    websocket.send(packet);
    websocket.expect(packet);
}

fn pending_get(session: &Polling) -> Connection {
    let mut connection = session.server.connect();
    connection.write(head("GET", &session.target, ""));
    thread::sleep(Duration::from_millis(100));
    connection
}

fn probe_and_upgrade(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = upgrade(&session);
    echoes(&mut websocket, "4hello");
    websocket.send_binary(&[1, 2, 3]);
    websocket.expect_frame(FIN | 2, &[1, 2, 3]);
}

fn probe_upgrade_and_message_in_one_write(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = begin(&session);
    let mut bytes = text_frame("2probe");
    bytes.extend(text_frame("5"));
    bytes.extend(text_frame("4hello"));
    websocket.connection.write(bytes);
    websocket.expect("3probe");
    websocket.expect("4hello");
}

fn handshake_and_all_in_one_write(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut bytes = text_frame("2probe");
    bytes.extend(text_frame("5"));
    bytes.extend(text_frame("4hello"));
    let target = session.target.replace("polling", "websocket");
    let mut websocket = server.websocket_and(&target, &bytes);
    websocket.expect("3probe");
    websocket.expect("4hello");
}

fn pending_get_is_released_by_a_noop(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut getting = pending_get(&session);
    let mut websocket = probe(&session);
    getting.response().is(200, "6");
    websocket.send("5");
    echoes(&mut websocket, "4hello");
}

fn get_behind_the_probe_is_released(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = probe(&session);
    session.expect("6");
    session.expect("6");
    websocket.send("5");
    echoes(&mut websocket, "4hello");
}

fn get_behind_the_probe_takes_what_is_there(server: &'static Server) {
    let session = server.polling(ENGINE);
    session.send("4early");
    let mut websocket = probe(&session);
    session.expect("4early");
    session.expect("6");
    websocket.send("5");
    echoes(&mut websocket, "4hello");
}

fn post_behind_the_probe_counts(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = probe(&session);
    session.send("4posted");
    session.expect("4posted");
    session.send("4queued");
    websocket.send("5");
    websocket.expect("4queued");
    echoes(&mut websocket, "4hello");
}

/// A POST whose body is still coming when the WebSocket has taken over.
#[track_caller]
fn unfinished_post(session: &Polling) -> (Connection, WebSocket) {
    let mut websocket = probe(session);
    let mut posting = session.pending_post(6);
    posting.write("4hel");
    websocket.send("5");
    echoes(&mut websocket, "4upgraded");
    (posting, websocket)
}

fn post_ends_behind_the_upgrade(server: &'static Server) {
    let session = server.polling(ENGINE);
    let (mut posting, mut websocket) = unfinished_post(&session);
    posting.write("lo");
    posting.response().is(200, "ok");
    websocket.expect("4hello");
}

fn post_left_behind_the_upgrade(server: &'static Server) {
    let session = server.polling(ENGINE);
    let (posting, mut websocket) = unfinished_post(&session);
    drop(posting);
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(20));
        echoes(&mut websocket, "4alive");
    }
}

fn queued_packets_follow_in_order(server: &'static Server) {
    let session = server.polling(ENGINE);
    session.send("4one\u{1e}bAQID");
    let mut websocket = probe(&session);
    session.send("4two");
    websocket.send("5");
    websocket.send("4three");
    websocket.expect("4one");
    websocket.expect_frame(FIN | 2, &[1, 2, 3]);
    websocket.expect("4two");
    websocket.expect("4three");
}

fn polling_after_the_upgrade_is_refused(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = upgrade(&session);
    echoes(&mut websocket, "4hello");
    session.get().is_error(3);
    session.post("4x").is_error(3);
    echoes(&mut websocket, "4again");
}

fn second_websocket_after_the_upgrade(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = upgrade(&session);
    echoes(&mut websocket, "4hello");
    begin(&session).closes();
    echoes(&mut websocket, "4again");
}

fn second_websocket_during_the_upgrade(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut first = probe(&session);
    begin(&session).closes();
    session.expect("6");
    first.send("5");
    echoes(&mut first, "4hello");
}

fn websocket_onto_a_websocket_session(server: &'static Server) {
    let mut websocket = server.websocket(ENGINE_WS);
    let sid = crate::peer::sid_of(&websocket.receive_text());
    server.websocket(&format!("{ENGINE_WS}&sid={sid}")).closes();
    echoes(&mut websocket, "4hello");
}

/// That WebSocket is closed, and polling goes on unharmed; a proper upgrade then works.
#[track_caller]
fn fails_and_polling_goes_on(server: &'static Server, bytes: &[u8]) {
    let session = server.polling(ENGINE);
    session.send("4before");
    let mut websocket = begin(&session);
    websocket.connection.write(bytes);
    websocket.closes();
    session.expect("4before");
    session.alive();
    let mut websocket = upgrade(&session);
    echoes(&mut websocket, "4hello");
}

fn message_instead_of_a_probe(server: &'static Server) {
    fails_and_polling_goes_on(server, &text_frame("4hello"));
}

fn ping_instead_of_a_probe(server: &'static Server) {
    fails_and_polling_goes_on(server, &text_frame("2"));
}

/// Node: takes it.
fn upgrade_instead_of_a_probe(server: &'static Server) {
    fails_and_polling_goes_on(server, &text_frame("5"));
}

fn binary_instead_of_a_probe(server: &'static Server) {
    fails_and_polling_goes_on(server, &frame(FIN | 2, b"2probe"));
}

fn bad_frame_instead_of_a_probe(server: &'static Server) {
    fails_and_polling_goes_on(server, &frame(FIN | 0x40 | TEXT, b"2probe"));
}

fn message_instead_of_an_upgrade(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = probe(&session);
    websocket.send("4hello");
    websocket.closes();
    session.alive();
}

fn closed_before_the_probe(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = begin(&session);
    websocket.send_frame(FIN | 8, &1000u16.to_be_bytes());
    websocket.closes();
    session.alive();
}

fn closed_after_the_probe(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = probe(&session);
    websocket.send_frame(FIN | 8, &1000u16.to_be_bytes());
    websocket.closes();
    goes_on_after_noops(&session);
}

fn vanished_after_the_probe(server: &'static Server) {
    let session = server.polling(ENGINE);
    drop(probe(&session));
    goes_on_after_noops(&session);
}

/// Until the server knows of the end, it releases GETs with a noop.
#[track_caller]
fn goes_on_after_noops(session: &Polling) {
    session.send("4alive");
    let start = Instant::now();
    loop {
        let answer = session.get();
        if answer.text() == "4alive" {
            break;
        }
        answer.is(200, "6");
        assert!(start.elapsed() < PATIENCE);
    }
    let mut websocket = upgrade_when_free(session);
    echoes(&mut websocket, "4hello");
}

/// An upgrade, repeated while the server still holds the one before.
#[track_caller]
fn upgrade_when_free(session: &Polling) -> WebSocket {
    let start = Instant::now();
    loop {
        let mut websocket = begin(session);
        websocket.send("2probe");
        match websocket.receive_or_end() {
            Some(frame) if frame.payload == b"3probe" => {
                session.expect("6");
                websocket.send("5");
                return websocket;
            }
            _ => assert!(start.elapsed() < PATIENCE),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn upgraded_at_the_second_attempt(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut getting = pending_get(&session);
    let mut first = begin(&session);
    first.send("4not a probe");
    first.closes();
    let mut second = probe(&session);
    getting.response().is(200, "6");
    second.send("5");
    echoes(&mut second, "4hello");
}

fn probe_is_answered_once(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut websocket = upgrade(&session);
    websocket.send("4a");
    websocket.expect("4a");
}

fn close_by_post_during_the_upgrade(server: &'static Server) {
    let mut session = server.polling(ENGINE);
    let mut websocket = probe(&session);
    session.send("1");
    websocket.closes();
    session.ended();
}

/// No `5` within the upgrade time-out: that WebSocket is closed, polling goes on.
fn probe_without_an_end_times_out(server: &'static Server) {
    times_out(server, probe);
}

fn websocket_without_a_probe_times_out(server: &'static Server) {
    times_out(server, begin);
}

/// The heartbeat goes on meanwhile, by polling. Where the case itself was too late for a ping, it
/// says nothing and is tried again.
fn times_out(server: &'static Server, start_upgrade: fn(&Polling) -> WebSocket) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut session = server.polling(ENGINE);
        let began = Instant::now();
        let mut websocket = start_upgrade(&session);
        let closing = thread::spawn(move || {
            websocket.closes();
            began.elapsed()
        });
        let mut in_time = true;
        let mut last = Instant::now();
        while in_time && !closing.is_finished() {
            in_time = answer_pings(&mut session, &mut last);
        }
        let waited = closing.join().expect("it closes");
        if in_time {
            assert!(waited >= Duration::from_millis(650), "{waited:?}");
            assert!(waited < Duration::from_secs(10), "{waited:?}");
            if session.post("4alive").status == 200 {
                while session.receive() != text("4alive") {}
                return;
            }
            assert!(
                last.elapsed() > Duration::from_millis(150),
                "the session died"
            );
        }
    }
    panic!("this machine was too slow for the heartbeat");
}

/// Takes what is there and answers a ping; false if that took too long to be sure.
fn answer_pings(session: &mut Polling, last: &mut Instant) -> bool {
    let answer = session.get();
    if answer.status != 200 {
        return false;
    }
    if answer
        .text()
        .split(crate::peer::SEPARATOR)
        .any(|packet| packet == "2")
    {
        let posted = Instant::now();
        if session.post("3").status != 200 || posted.elapsed() > Duration::from_millis(100) {
            return false;
        }
        *last = Instant::now();
    }
    thread::sleep(Duration::from_millis(10));
    true
}

/// 300 upgrades (10,000 with `TESTS_LONG=1`) while messages go both ways: each arrives once and in
/// its order, whichever way it takes.
fn traffic_in_both_directions(server: &'static Server) {
    let rounds = if long() { 10_000 } else { 300 };
    for _ in 0..rounds {
        one_upgrade_with_traffic(server);
    }
}

fn one_upgrade_with_traffic(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut received: Vec<Item> = Vec::new();
    let mut sent = 0;
    let mut packet = || {
        sent += 1;
        format!("4{sent}")
    };
    session.send(packet() + "\u{1e}" + &packet());
    let mut getting = pending_now(&session);
    let mut websocket = begin(&session);
    session.send(packet());
    websocket.send("2probe");
    session.send(packet());
    websocket.expect("3probe");
    session.send(packet());
    // A client stops polling with the answer to the GET that it has; then it upgrades.
    received.extend(crate::peer::packets(getting.response().text()));
    session.send(packet());
    let mut bytes = text_frame("5");
    bytes.extend(text_frame(&packet()));
    bytes.extend(text_frame(&packet()));
    websocket.connection.write(bytes);
    received.retain(|item| *item != text("6"));
    while received.len() < 8 {
        received.push(Item::Text(websocket.receive_text()));
    }
    let expected: Vec<Item> = (1..=8).map(|number| text(&format!("4{number}"))).collect();
    assert_eq!(received, expected);
}

fn pending_now(session: &Polling) -> Connection {
    let mut connection = session.server.connect();
    connection.write(head("GET", &session.target, ""));
    connection
}
