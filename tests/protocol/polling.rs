//! HTTP long-polling on an Engine.IO session (protocol.md 1.4, 1.5).

use std::io::Read;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use flate2::read::{GzDecoder, ZlibDecoder};

use crate::http::{head, post};
use crate::peer::{ENGINE, Transport, text};
use crate::server::Server;

const MAX_PAYLOAD: usize = 1_000_000;

/// What is echoed: the body of a POST, and what the GET behind it answers.
macro_rules! echoes {
    ($($name:ident: $body:expr => $payload:expr),* $(,)?) => {
        $(fn $name(server: &'static Server) {
            let session = server.polling(ENGINE);
            session.send($body);
            session.expect($payload);
        })*
        mod echoes {
            use super::*;
            cases!(Calm: $($name),*);
        }
    };
}

echoes! {
    one_packet: "4hello" => "4hello",
    several_packets: "4test1\u{1e}4test2\u{1e}4test3" => "4test1\u{1e}4test2\u{1e}4test3",
    text_and_binary: "4hello\u{1e}bAQIDBA==" => "4hello\u{1e}bAQIDBA==",
    binary_between_texts: "4a\u{1e}bAA==\u{1e}4b\u{1e}b/+8=" => "4a\u{1e}bAA==\u{1e}4b\u{1e}b/+8=",
    empty_message: "4" => "4",
    empty_binary: "b\u{1e}4x" => "b\u{1e}4x",
    non_ascii: "4€ ñ 𐍈 ü\u{2028}\u{0}" => "4€ ñ 𐍈 ü\u{2028}\u{0}",
    digits_are_content: "442\u{1e}41:2" => "442\u{1e}41:2",
    open_from_a_client_is_ignored: "0{}\u{1e}4x" => "4x",
    noop_from_a_client_is_ignored: "6\u{1e}4x" => "4x",
    upgrade_outside_of_one_is_ignored: "5\u{1e}4x" => "4x",
    pong_unasked_is_ignored: "3\u{1e}4x" => "4x",
}

/// Bodies that close the session. The answer may be 200 or 400 (protocol.md 1.4); then the sid is
/// unknown.
macro_rules! closes {
    ($($name:ident: $body:expr),* $(,)?) => {
        $(fn $name(server: &'static Server) {
            let mut session = server.polling(ENGINE);
            let response = session.post($body);
            assert!(matches!(response.status, 200 | 400), "{response:?}");
            session.ended();
        })*
        mod closes {
            use super::*;
            cases!(Calm: $($name),*);
        }
    };
}

closes! {
    empty_body: "",
    letters: "abc",
    type_seven: "7",
    type_blank: " 4x",
    empty_packet_at_the_end: "6\u{1e}",
    empty_packet_at_the_start: "\u{1e}6",
    empty_packet_between: "6\u{1e}\u{1e}6",
    // Node: takes what its base64 decoder makes of it.
    bad_base64: "b!!!!",
    // Node: replaces what is not UTF-8.
    not_utf_8: b"4\xff\xfe",
    ping_from_a_client: "2",
    close_packet: "1",
}

cases!(Calm:
    get_waits_for_something,
    get_answers_with_everything,
    post_answer,
    second_get_ends_the_session,
    second_post_ends_the_session,
    get_and_post_overlap,
    content_types,
    octet_stream_is_refused,
    close_releases_the_get,
    packets_before_a_bad_one_count,
    packets_behind_a_close_do_not_count,
    exactly_max_payload,
    over_max_payload,
    over_max_payload_by_announcement,
    over_max_payload_while_streaming,
    aborted_get_ends_the_session,
    aborted_post_ends_the_session,
    half_closed_get_ends_the_session,
    server_close_waits_for_the_next_get,
    server_close_meets_a_get,
    whole_session_on_one_connection,
    pipelined_session,
    gzip_from_1024_bytes,
    deflate_if_asked_for,
    nothing_is_compressed_unasked,
    small_answers_are_not_compressed,
    posts_are_not_compressed,
    thousand_packets_in_order,
);

fn get_waits_for_something(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut connection = server.connect();
    connection.write(head("GET", &session.target, ""));
    connection
        .stream
        .set_read_timeout(Some(Duration::from_millis(150)))
        .unwrap();
    let mut byte = [0];
    connection
        .stream
        .read(&mut byte)
        .expect_err("nothing comes yet");
    connection
        .stream
        .set_read_timeout(Some(crate::server::PATIENCE))
        .unwrap();
    session.send("4late");
    connection.response().is(200, "4late");
}

fn get_answers_with_everything(server: &'static Server) {
    let session = server.polling(ENGINE);
    session.send("4a");
    session.send("4b\u{1e}4c");
    session.send("bAQ==");
    session.expect("4a\u{1e}4b\u{1e}4c\u{1e}bAQ==");
}

fn post_answer(server: &'static Server) {
    let session = server.polling(ENGINE);
    let response = session.post("4x");
    response.is(200, "ok");
    assert_eq!(response.field("content-type").as_deref(), Some("text/html"));
    assert_eq!(response.field("content-length").as_deref(), Some("2"));
}

/// Sends a GET and gives the server time to hold it.
fn pending_get(session: &crate::peer::Polling) -> crate::http::Connection {
    let mut connection = session.server.connect();
    connection.write(head("GET", &session.target, ""));
    // The GET may still be on its way to its shard when this returns.
    thread::sleep(Duration::from_millis(100));
    connection
}

fn second_get_ends_the_session(server: &'static Server) {
    let session = server.polling(ENGINE);
    // On a busy machine either may be the first.
    let mut answers = [pending_get(&session), pending_get(&session)].map(|mut get| get.response());
    answers.sort_by_key(|answer| answer.status);
    answers[0].is(200, "1");
    // Node: an older one answers 500.
    answers[1].is(400, "");
    session.unknown();
}

fn second_post_ends_the_session(server: &'static Server) {
    let session = server.polling(ENGINE);
    let _first = session.pending_post(10);
    session.post("4x").is(400, "");
    session.unknown();
}

fn get_and_post_overlap(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut posting = server.connect();
    posting.write(head("POST", &session.target, "Content-Length: 6\r\n") + "4he");
    let mut getting = pending_get(&session);
    posting.write("llo");
    posting.response().is(200, "ok");
    getting.response().is(200, "4hello");
}

fn content_types(server: &'static Server) {
    let session = server.polling(ENGINE);
    for field in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/json; charset=latin1\r\n",
    ] {
        let fields = format!("{field}Content-Length: 4\r\n");
        let request = head("POST", &session.target, &fields) + "4+%€";
        let request = request.replace("Content-Length: 4", "Content-Length: 6");
        server.raw(request).is(200, "ok");
        session.expect("4+%€");
    }
}

fn octet_stream_is_refused(server: &'static Server) {
    let session = server.polling(ENGINE);
    let fields = "Content-Type: application/octet-stream\r\nContent-Length: 2\r\n";
    let response = server.raw(head("POST", &session.target, fields) + "4x");
    assert_eq!(response.status, 400, "{response:?}");
    session.unknown();
}

fn close_releases_the_get(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut getting = pending_get(&session);
    session.send("1");
    getting.response().is(200, "6");
    session.unknown();
}

/// Seen by another client: the session itself is gone. Node: drops at the Socket.IO level what is
/// handled at its next tick.
fn packets_before_a_bad_one_count(server: &'static Server) {
    let room = crate::peer::fresh("before");
    let mut witness = server.socket(Transport::WebSocket);
    witness.enter(&room);
    let mut peer = server.socket(Transport::Polling);
    peer.offer(&[text(&format!(r#"42["in-room","{room}","x"]"#)), text("9")]);
    witness.expect(r#"42["x"]"#);
    peer.ended();
}

fn packets_behind_a_close_do_not_count(server: &'static Server) {
    let room = crate::peer::fresh("behind");
    let mut witness = server.socket(Transport::WebSocket);
    witness.enter(&room);
    let mut peer = server.socket(Transport::Polling);
    peer.offer(&[text("1"), text(&format!(r#"42["in-room","{room}","x"]"#))]);
    peer.ended();
    witness.nothing_came();
}

fn exactly_max_payload(server: &'static Server) {
    let session = server.polling(ENGINE);
    let body = format!("4{}", "x".repeat(MAX_PAYLOAD - 1));
    session.send(&body);
    let answer = session.get();
    assert!(answer.status == 200 && answer.text() == body);
}

/// The session lives on: a client may send less.
fn over_max_payload(server: &'static Server) {
    let session = server.polling(ENGINE);
    let body = format!("4{}", "x".repeat(MAX_PAYLOAD));
    assert_eq!(session.post(body).status, 413);
    session.alive();
}

/// Not a byte of the body is awaited. Node: awaits it.
fn over_max_payload_by_announcement(server: &'static Server) {
    let session = server.polling(ENGINE);
    let fields = format!("Content-Length: {}\r\n", MAX_PAYLOAD + 1);
    let mut connection = server.connect();
    connection.write(head("POST", &session.target, &fields));
    assert_eq!(connection.response().status, 413);
    connection.finish();
    connection.ends();
    session.alive();
}

fn over_max_payload_while_streaming(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut connection = server.connect();
    connection.write(head(
        "POST",
        &session.target,
        "Transfer-Encoding: chunked\r\n",
    ));
    let chunk = format!("c350\r\n{}\r\n", "4".repeat(50_000));
    for _ in 0..20 {
        connection.write(&chunk);
    }
    connection.write("1\r\n4\r\n");
    assert_eq!(connection.response().status, 413);
    session.alive();
}

fn aborted_get_ends_the_session(server: &'static Server) {
    let session = server.polling(ENGINE);
    let getting = pending_get(&session);
    getting.stream.shutdown(Shutdown::Both).unwrap();
    drop(getting);
    session.soon_unknown();
}

fn half_closed_get_ends_the_session(server: &'static Server) {
    let session = server.polling(ENGINE);
    let getting = pending_get(&session);
    getting.finish();
    session.soon_unknown();
}

fn aborted_post_ends_the_session(server: &'static Server) {
    let mut session = server.polling(ENGINE);
    let mut posting = session.pending_post(10);
    posting.write("4hell");
    drop(posting);
    // A POST would meet the unfinished one; a GET waits for the end.
    session.ended();
}

/// Node: adds a noop.
fn server_close_waits_for_the_next_get(server: &'static Server) {
    let mut peer = server.socket(Transport::Polling);
    peer.send(r#"42["disconnect-me",true]"#);
    thread::sleep(Duration::from_millis(200));
    peer.expect("41");
    peer.expect("1");
    peer.ended();
}

fn server_close_meets_a_get(server: &'static Server) {
    let mut peer = server.socket(Transport::Polling);
    let crate::peer::Peer::Polling(session) = &peer else {
        unreachable!("it polls")
    };
    let mut getting = pending_get(session);
    session.send(r#"42["disconnect-me",true]"#);
    let first = getting.response();
    if first.text() == "41" {
        peer.expect("1");
    } else {
        first.is(200, "41\u{1e}1");
    }
    peer.ended();
}

fn whole_session_on_one_connection(server: &'static Server) {
    let mut connection = server.connect();
    let open = connection.get(ENGINE);
    let target = format!("{ENGINE}&sid={}", crate::peer::sid_of(open.text()));
    for round in 0..50 {
        let packet = format!("4round {round}");
        connection.post(&target, &packet).is(200, "ok");
        connection.get(&target).is(200, &packet);
    }
    connection.post(&target, "1").is(200, "ok");
    connection.get(&target).is_error(1);
}

/// Node: takes a pipelined GET for a second one.
fn pipelined_session(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut requests = Vec::new();
    for round in 0..6 {
        requests.extend(post(&session.target, format!("4round {round}").as_bytes()));
        requests.extend(head("GET", &session.target, "").bytes());
    }
    let mut connection = server.connect();
    connection.write(requests);
    for round in 0..6 {
        connection.response().is(200, "ok");
        connection.response().is(200, &format!("4round {round}"));
    }
}

/// One GET that accepts `coding`, after `length` bytes were echoed: the answer's coding and body.
fn compressed(
    server: &'static Server,
    length: usize,
    coding: &str,
) -> (Option<String>, Vec<u8>, String) {
    let session = server.polling(ENGINE);
    let packet = format!("4{}", "x".repeat(length - 1));
    session.send(&packet);
    let fields = format!("\r\nAccept-Encoding: {coding}");
    let answer = server.get(&format!("{}{fields}", session.target));
    assert_eq!(answer.status, 200);
    (answer.field("content-encoding"), answer.body, packet)
}

#[track_caller]
fn inflates_to(mut decoder: impl Read, packet: &str) {
    let mut plain = String::new();
    decoder.read_to_string(&mut plain).expect("it inflates");
    assert!(plain == packet);
}

fn gzip_from_1024_bytes(server: &'static Server) {
    for length in [1024, 5000, 900_000] {
        let (coding, body, packet) = compressed(server, length, "gzip, deflate, br");
        assert_eq!(coding.as_deref(), Some("gzip"));
        assert!(body.len() < length / 2);
        inflates_to(GzDecoder::new(&*body), &packet);
    }
}

fn deflate_if_asked_for(server: &'static Server) {
    let (coding, body, packet) = compressed(server, 2000, "deflate");
    assert_eq!(coding.as_deref(), Some("deflate"));
    inflates_to(ZlibDecoder::new(&*body), &packet);
}

fn nothing_is_compressed_unasked(server: &'static Server) {
    for accepted in ["identity", "br;q=0", "gzip;q=0", ""] {
        let (coding, body, packet) = compressed(server, 2000, accepted);
        assert_eq!(coding, None, "{accepted}");
        assert_eq!(body, packet.as_bytes());
    }
}

fn small_answers_are_not_compressed(server: &'static Server) {
    let (coding, body, packet) = compressed(server, 1023, "gzip, deflate");
    assert_eq!(coding, None);
    assert_eq!(body, packet.as_bytes());
}

fn posts_are_not_compressed(server: &'static Server) {
    let session = server.polling(ENGINE);
    let target = format!("{}\r\nAccept-Encoding: gzip", session.target);
    let response = server.post(&target, "4x");
    response.is(200, "ok");
    assert_eq!(response.field("content-encoding"), None);
}

fn thousand_packets_in_order(server: &'static Server) {
    let mut session = server.polling(ENGINE);
    let expected: Vec<String> = (0..1000).map(|number| format!("4{number}")).collect();
    for part in expected.chunks(50) {
        session.send(part.join("\u{1e}"));
    }
    for packet in &expected {
        assert_eq!(session.receive(), text(packet));
    }
}
