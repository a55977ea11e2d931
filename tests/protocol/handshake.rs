//! Opening a session (protocol.md 1.2, 1.3) and the WebSocket opening handshake (RFC 6455 4.2).

use std::collections::HashSet;

use crate::http::head;
use crate::peer::{ENGINE, ENGINE_WS, SOCKET, SOCKET_WS, sid_of};
use crate::server::Server;
use crate::websocket::{FIN, OPENING, PING, PONG, TEXT, WebSocket, frame, text_frame};

cases!(Calm:
    polling_open_packet,
    polling_open_packet_of_socket_io,
    websocket_open_packet,
    websocket_open_packet_of_socket_io,
    polling_fields,
    sids_are_distinct_and_well_formed,
    sids_do_not_count_up,
    accept_of_the_key,
    key_of_16_bytes_only,
    key_is_needed,
    version_13_only,
    get_only,
    http_1_0_does_not_upgrade,
    tokens_in_any_case_and_company,
    compression_is_not_negotiated,
    subprotocol_is_not_echoed,
    frames_in_the_same_segment,
    bad_frame_in_the_same_segment,
    handshake_byte_by_byte,
);

mod quick {
    use super::*;
    cases!(Quick: timings_of_the_official_suites);
}

#[track_caller]
fn is_open(packet: &str, upgrades: &str, interval: u32, timeout: u32) {
    let sid = sid_of(packet);
    assert_eq!(
        packet,
        format!(
            r#"0{{"sid":"{sid}","upgrades":{upgrades},"pingInterval":{interval},"pingTimeout":{timeout},"maxPayload":1000000}}"#
        )
    );
}

const UPGRADES: &str = r#"["websocket"]"#;

fn polling_open_packet(server: &'static Server) {
    is_open(server.get(ENGINE).text(), UPGRADES, 25000, 20000);
}

fn polling_open_packet_of_socket_io(server: &'static Server) {
    is_open(server.get(SOCKET).text(), UPGRADES, 25000, 20000);
}

fn websocket_open_packet(server: &'static Server) {
    let packet = server.websocket(ENGINE_WS).receive_text();
    is_open(&packet, "[]", 25000, 20000);
}

fn websocket_open_packet_of_socket_io(server: &'static Server) {
    let packet = server.websocket(SOCKET_WS).receive_text();
    is_open(&packet, "[]", 25000, 20000);
}

fn timings_of_the_official_suites(server: &'static Server) {
    is_open(server.get(ENGINE).text(), UPGRADES, 300, 200);
    let packet = server.websocket(SOCKET_WS).receive_text();
    is_open(&packet, "[]", 300, 200);
}

fn polling_fields(server: &'static Server) {
    let response = server.get(ENGINE);
    assert_eq!(
        response.field("content-type").as_deref(),
        Some("text/plain; charset=UTF-8")
    );
    assert_eq!(response.field("cache-control").as_deref(), Some("no-store"));
    assert!(response.field("content-length").is_some());
    assert_eq!(response.field("set-cookie"), None);
}

fn sids_are_distinct_and_well_formed(server: &'static Server) {
    let mut seen = HashSet::new();
    for _ in 0..50 {
        let sid = server.polling(ENGINE).sid;
        assert_eq!(sid.len(), 20, "{sid}");
        let of_alphabet = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(sid.chars().all(of_alphabet), "{sid}");
        assert!(seen.insert(sid));
    }
}

/// 12 of the 15 bytes are random: the last 16 characters of two sids share no long prefix.
/// Node: ends with a counter.
fn sids_do_not_count_up(server: &'static Server) {
    let sids: Vec<String> = (0..20).map(|_| server.polling(ENGINE).sid).collect();
    for (index, one) in sids.iter().enumerate() {
        for other in &sids[..index] {
            assert_ne!(one[4..10], other[4..10]);
            assert_ne!(one[14..], other[14..]);
        }
    }
}

fn opening(fields: &str) -> String {
    head("GET", ENGINE_WS, fields)
}

fn accept_of_the_key(server: &'static Server) {
    let response = server.raw(opening(OPENING));
    assert_eq!(response.status, 101);
    let field = |name| response.field(name).map(|value| value.to_ascii_lowercase());
    assert_eq!(
        response.field("sec-websocket-accept").as_deref(),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(field("upgrade").as_deref(), Some("websocket"));
    assert_eq!(field("connection").as_deref(), Some("upgrade"));
}

#[track_caller]
fn no_tunnel(server: &Server, request: &str, statuses: &[u16]) {
    let response = server.raw(request);
    assert!(statuses.contains(&response.status), "{response:?}");
}

fn key_of_16_bytes_only(server: &'static Server) {
    for key in [
        "",
        "short",
        "dGhlIHNhbXBsZSBub25jZQ",
        "c2hvcnQ=",
        "!!!!!!!!!!!!!!!!!!!!!!==",
    ] {
        let request = opening(&OPENING.replace("dGhlIHNhbXBsZSBub25jZQ==", key));
        no_tunnel(server, &request, &[400]);
    }
}

fn key_is_needed(server: &'static Server) {
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    no_tunnel(server, &opening(fields), &[400]);
}

/// Node: answers 400 to another version.
fn version_13_only(server: &'static Server) {
    for version in ["8", "12", "14", "abc"] {
        let request = opening(&OPENING.replace(": 13", &format!(": {version}")));
        let response = server.raw(&request);
        assert_eq!(response.status, 426, "{response:?}");
        assert_eq!(
            response.field("sec-websocket-version").as_deref(),
            Some("13")
        );
    }
}

fn get_only(server: &'static Server) {
    let request = head(
        "POST",
        ENGINE_WS,
        &format!("{OPENING}Content-Length: 0\r\n"),
    );
    no_tunnel(server, &request, &[400, 405]);
}

/// Node: opens the tunnel.
fn http_1_0_does_not_upgrade(server: &'static Server) {
    let request = opening(OPENING).replace("HTTP/1.1", "HTTP/1.0");
    no_tunnel(server, &request, &[400, 426, 505]);
}

fn tokens_in_any_case_and_company(server: &'static Server) {
    let fields = OPENING
        .replace("Connection: Upgrade", "connection: keep-alive, UPGRADE")
        .replace("Upgrade: websocket", "UPGRADE: WebSocket");
    assert_eq!(server.raw(opening(&fields)).status, 101);
}

fn compression_is_not_negotiated(server: &'static Server) {
    let fields = format!("{OPENING}Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let response = server.raw(opening(&fields));
    assert_eq!(response.status, 101);
    assert_eq!(response.field("sec-websocket-extensions"), None);
}

/// No application protocol is offered, so none is chosen. Node: ws chooses the first.
fn subprotocol_is_not_echoed(server: &'static Server) {
    let fields = format!("{OPENING}Sec-WebSocket-Protocol: chat, superchat\r\n");
    let response = server.raw(opening(&fields));
    assert_eq!(response.status, 101);
    assert_eq!(response.field("sec-websocket-protocol"), None);
}

/// Node: drops what it reads before its session has a listener.
fn frames_in_the_same_segment(server: &'static Server) {
    let mut more = text_frame("4one");
    more.extend(frame(FIN | PING, b"ping"));
    more.extend(text_frame("4two"));
    let mut websocket = server.websocket_and(ENGINE_WS, &more);
    // A pong may overtake messages.
    let mut texts = Vec::new();
    while texts.len() < 3 {
        let frame = websocket.receive();
        match frame.first & 0x0f {
            TEXT => texts.push(String::from_utf8(frame.payload).unwrap()),
            PONG => assert_eq!(frame.payload, b"ping"),
            _ => panic!("{frame:?}"),
        }
    }
    sid_of(&texts[0]);
    assert_eq!(texts[1..], ["4one", "4two"]);
}

/// CVE-2022-21676: a reserved bit right behind the handshake.
fn bad_frame_in_the_same_segment(server: &'static Server) {
    let mut websocket = server.websocket_and(ENGINE_WS, &frame(FIN | 0x70 | TEXT, b"4x"));
    let first = websocket.receive();
    if first.first == FIN | TEXT {
        websocket.closes_with(1002);
    } else {
        assert_eq!(first.payload.get(..2), Some(&1002u16.to_be_bytes()[..]));
    }
}

fn handshake_byte_by_byte(server: &'static Server) {
    let mut connection = server.connect();
    for byte in opening(OPENING).bytes() {
        connection.write([byte]);
    }
    assert_eq!(connection.response().status, 101);
    let mut websocket = WebSocket { connection };
    sid_of(&websocket.receive_text());
}
