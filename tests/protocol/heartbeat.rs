//! The heartbeat at 300/200 ms and the connect time-out at 1 s (protocol.md 1.8, 2.2).
//!
//! These cases decide by the clock. A lower bound holds on every machine: nothing may come early.
//! An upper bound has room for a busy one. Where a case must answer within 200 ms and the machine
//! kept it from that, it is tried again instead of blamed on the server.

use std::thread;
use std::time::{Duration, Instant};

use crate::peer::{ENGINE, ENGINE_WS, Polling, SOCKET, SOCKET_WS};
use crate::server::{PATIENCE, Server};
use crate::websocket::WebSocket;

const INTERVAL: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(200);
const CONNECT: Duration = Duration::from_secs(1);
/// How late a busy machine may be.
const LATE: Duration = Duration::from_secs(5);
/// How fast a case must have answered a ping to be sure that the pong was in time.
const SURE: Duration = Duration::from_millis(120);

cases!(Quick:
    websocket_ping_after_the_interval,
    websocket_pings_again_after_each_pong,
    websocket_ends_without_a_pong,
    messages_are_no_pong,
    polling_ping_after_the_interval,
    polling_ping_is_kept_for_the_next_get,
    polling_pings_again_after_each_pong,
    polling_ends_without_a_pong,
    get_at_interval_and_timeout_is_refused,
    post_at_interval_and_timeout_is_refused,
    pending_get_ends_with_the_session,
    heartbeat_goes_on_after_an_upgrade,
    no_namespace_in_time,
    no_namespace_in_time_by_polling,
    refused_namespace_does_not_count,
    joined_namespace_counts,
);

/// Runs a case that must be fast, again while this process was too slow for it.
#[track_caller]
fn in_time(case: impl Fn() -> Option<()>) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if case().is_some() {
            return;
        }
    }
    panic!("this machine was too slow for the heartbeat");
}

/// Takes a ping and answers it: how long the ping took, and when the pong was written. None: the
/// answer may have been too late.
fn beat(websocket: &mut WebSocket, since: Instant) -> Option<(Duration, Instant)> {
    let frame = websocket.receive_or_end()?;
    if frame.payload != b"2" {
        return None;
    }
    let now = Instant::now();
    websocket.send("3");
    let waited = now - since;
    (waited < INTERVAL + SURE).then_some((waited, now))
}

fn websocket_ping_after_the_interval(server: &'static Server) {
    let start = Instant::now();
    let mut websocket = server.session(ENGINE_WS);
    websocket.expect("2");
    let waited = start.elapsed();
    assert!(waited >= INTERVAL, "{waited:?}");
    assert!(waited < INTERVAL + LATE, "{waited:?}");
}

fn websocket_pings_again_after_each_pong(server: &'static Server) {
    in_time(|| {
        let mut websocket = server.session(ENGINE_WS);
        let mut last = Instant::now();
        for round in 0..4 {
            let (waited, sent) = beat(&mut websocket, last)?;
            if round > 0 {
                assert!(waited >= INTERVAL, "{waited:?}");
            }
            last = sent;
        }
        websocket.send("4alive");
        (websocket.receive_or_end()?.payload == b"4alive").then_some(())
    });
}

fn websocket_ends_without_a_pong(server: &'static Server) {
    let start = Instant::now();
    let mut websocket = server.session(ENGINE_WS);
    websocket.expect("2");
    websocket.closes();
    let waited = start.elapsed();
    assert!(waited >= INTERVAL + TIMEOUT, "{waited:?}");
    assert!(waited < INTERVAL + TIMEOUT + LATE, "{waited:?}");
}

fn messages_are_no_pong(server: &'static Server) {
    let mut websocket = server.session(ENGINE_WS);
    let start = Instant::now();
    while start.elapsed() < INTERVAL + TIMEOUT + LATE {
        websocket.send("4x");
        match websocket.receive_or_end() {
            Some(frame) if frame.first == 0x81 => {}
            _ => {
                assert!(start.elapsed() >= INTERVAL, "ended too soon");
                return;
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("still open");
}

fn polling_ping_after_the_interval(server: &'static Server) {
    let start = Instant::now();
    let session = server.polling(ENGINE);
    let answer = session.get();
    let waited = start.elapsed();
    answer.is(200, "2");
    assert!(waited >= INTERVAL, "{waited:?}");
    assert!(waited < INTERVAL + LATE, "{waited:?}");
}

fn polling_ping_is_kept_for_the_next_get(server: &'static Server) {
    in_time(|| {
        let opened = Instant::now();
        let session = server.polling(ENGINE);
        thread::sleep(INTERVAL + Duration::from_millis(60));
        let answer = session.get();
        if opened.elapsed() > INTERVAL + SURE {
            return None;
        }
        answer.is(200, "2");
        Some(())
    });
}

fn polling_beat(session: &Polling) -> Option<Duration> {
    let start = Instant::now();
    let answer = session.get();
    let waited = start.elapsed();
    if answer.status != 200 || answer.text() != "2" {
        return None;
    }
    let posted = session.post("3");
    (posted.status == 200 && start.elapsed() < INTERVAL + SURE).then_some(waited)
}

fn polling_pings_again_after_each_pong(server: &'static Server) {
    in_time(|| {
        let session = server.polling(ENGINE);
        for _ in 0..4 {
            polling_beat(&session)?;
        }
        let answer = session.post("4alive");
        (answer.status == 200 && session.get().text() == "4alive").then_some(())
    });
}

fn polling_ends_without_a_pong(server: &'static Server) {
    let session = server.polling(ENGINE);
    session.expect("2");
    thread::sleep(TIMEOUT + Duration::from_millis(20));
    session.unknown();
}

/// The official suites ask exactly then, so a late timer must not decide.
fn get_at_interval_and_timeout_is_refused(server: &'static Server) {
    for path in [ENGINE, SOCKET] {
        let session = server.polling(path);
        thread::sleep(INTERVAL + TIMEOUT);
        session.unknown();
    }
}

fn post_at_interval_and_timeout_is_refused(server: &'static Server) {
    let session = server.polling(ENGINE);
    thread::sleep(INTERVAL + TIMEOUT);
    session.post("3").is_error(1);
}

/// With the last ping taken, a waiting GET is let go when the pong is missing.
fn pending_get_ends_with_the_session(server: &'static Server) {
    let session = server.polling(ENGINE);
    session.expect("2");
    let answer = session.get();
    assert!(
        answer.status == 400 || matches!(answer.text(), "1" | "6"),
        "{answer:?}"
    );
    session.unknown();
}

/// The timer is not restarted by the upgrade: the first ping comes an interval after the open packet.
fn heartbeat_goes_on_after_an_upgrade(server: &'static Server) {
    in_time(|| {
        let start = Instant::now();
        let session = server.polling(ENGINE);
        let target = session.target.replace("polling", "websocket");
        let mut websocket = server.websocket(&target);
        websocket.send("2probe");
        websocket.expect("3probe");
        websocket.send("5");
        if start.elapsed() > INTERVAL / 2 {
            return None;
        }
        let (waited, _) = beat(&mut websocket, start)?;
        assert!(waited >= INTERVAL, "{waited:?}");
        beat(&mut websocket, Instant::now())?;
        websocket.send("4alive");
        (websocket.receive_or_end()?.payload == b"4alive").then_some(())
    });
}

/// Answers pings until the connection ends. None: perhaps not in time.
fn beats_until_the_end(websocket: &mut WebSocket) -> Option<()> {
    let mut last = Instant::now();
    let start = Instant::now();
    while let Some(frame) = websocket.receive_or_end() {
        assert!(start.elapsed() < CONNECT + LATE, "still open");
        match &*frame.payload {
            b"2" => {
                if last.elapsed() > INTERVAL + SURE {
                    return None;
                }
                websocket.send("3");
                last = Instant::now();
            }
            _ if frame.first == 0x88 => return Some(()),
            _ => {}
        }
    }
    Some(())
}

fn no_namespace_in_time(server: &'static Server) {
    in_time(|| {
        let start = Instant::now();
        let mut websocket = server.session(SOCKET_WS);
        beats_until_the_end(&mut websocket)?;
        assert!(start.elapsed() >= CONNECT, "{:?}", start.elapsed());
        assert!(start.elapsed() < CONNECT + LATE);
        Some(())
    });
}

fn no_namespace_in_time_by_polling(server: &'static Server) {
    in_time(|| {
        let start = Instant::now();
        let mut session = server.polling(SOCKET);
        while start.elapsed() < CONNECT + LATE {
            let asked = Instant::now();
            let answer = session.get();
            if answer.status == 400 || answer.text() == "1" {
                assert!(start.elapsed() >= CONNECT, "{:?}", start.elapsed());
                session.ended();
                return Some(());
            }
            if asked.elapsed() > INTERVAL + SURE || session.post("3").status != 200 {
                return None;
            }
        }
        panic!("still open");
    });
}

fn refused_namespace_does_not_count(server: &'static Server) {
    in_time(|| {
        let start = Instant::now();
        let mut websocket = server.session(SOCKET_WS);
        websocket.send("40/reject,");
        websocket.expect(
            r#"44/reject,{"message":"not authorized","data":{"code":"E_AUTH","status":401}}"#,
        );
        beats_until_the_end(&mut websocket)?;
        assert!(start.elapsed() >= CONNECT, "{:?}", start.elapsed());
        Some(())
    });
}

fn joined_namespace_counts(server: &'static Server) {
    in_time(|| {
        let start = Instant::now();
        let mut websocket = server.session(SOCKET_WS);
        websocket.send("40/custom,");
        let mut last = Instant::now();
        while start.elapsed() < CONNECT + INTERVAL * 2 {
            let frame = websocket.receive_or_end()?;
            if frame.payload == b"2" {
                websocket.send("3");
                if last.elapsed() > INTERVAL + SURE {
                    return None;
                }
                last = Instant::now();
            }
        }
        websocket.send(r#"42/custom,["message","alive"]"#);
        let packet = websocket.receive_or_end()?.payload;
        if packet == b"2" {
            return None;
        }
        assert_eq!(packet, br#"42/custom,["message-back","alive"]"#);
        Some(())
    });
}
