//! What one client address may have and do.

use std::time::Duration;

use serde_json::json;

use super::support::client::{Client, Via};
use super::support::eventually;
use super::support::server::{Server, folder};
use super::support::token::token;
use super::{assert_refused, connect_from, http_from, is_closed};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const SOON: Duration = Duration::from_secs(5);

fn server(folder: &std::path::Path, settings: &[(&str, &str)]) -> Server {
    let common = [
        ("SHARDS", "4"),
        ("DATABASE_URL", "memory:"),
        ("TRUST_PROXY", "none"),
    ];
    Server::start(folder, &[&common[..], settings].concat())
}

#[test]
fn an_address_has_so_many_connections_on_all_shards_together() {
    let folder = folder();
    let server = server(folder.path(), &[("MAX_CONNECTIONS_PER_IP", "5")]);
    let mut open: Vec<_> = (0..5)
        .map(|_| http_from("127.0.0.2", server.address))
        .collect();
    for connection in &mut open {
        let health = connection.ask("GET", "/health", &[], b"");
        assert_eq!(health.expect("it is served").status, 200);
    }
    for _ in 0..8 {
        let mut one_more = connect_from("127.0.0.2", server.address);
        assert!(is_closed(&mut one_more, SOON), "closed at accept");
    }
    let stranger = http_from("127.0.0.3", server.address).ask("GET", "/health", &[], b"");
    assert_eq!(stranger.expect("another address").status, 200);
    let reason = "reason=\"address_connections\"";
    let refused = server.metric("yum_connections_refused_total", reason);
    assert!((refused - 8.0).abs() < 0.5, "{refused}");
    drop(open.pop());
    eventually("there is room for one", || {
        let mut connection = http_from("127.0.0.2", server.address);
        connection.ask("GET", "/health", &[], b"").ok()
    });
}

#[test]
fn an_address_makes_connections_at_a_rate() {
    let folder = folder();
    let server = server(folder.path(), &[("RATE_CONNECTIONS_PER_SECOND", "1")]);
    let mut refused = 0;
    for _ in 0..1_020 {
        let mut stream = connect_from("127.0.0.4", server.address);
        // The first thousand pass; they are closed by this side.
        if server_closes(&mut stream) {
            refused += 1;
        }
    }
    eventually("refusals are counted", || {
        let reason = "reason=\"address_rate\"";
        let counted = server.metric("yum_connections_refused_total", reason);
        (counted >= 10.0).then_some(())
    });
    assert!(refused <= 20, "{refused}");
    let mut late = connect_from("127.0.0.4", server.address);
    assert!(is_closed(&mut late, SOON));
    let stranger = http_from("127.0.0.5", server.address).ask("GET", "/health", &[], b"");
    assert_eq!(stranger.expect("another address").status, 200);
}

fn server_closes(stream: &mut std::net::TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a TCP connection");
    let closed = matches!(stream.peek(&mut [0]), Ok(0));
    stream.set_nonblocking(false).expect("a TCP connection");
    closed
}

#[test]
fn an_address_asks_at_a_rate_and_polls_of_a_session_are_free() {
    let folder = folder();
    let server = server(folder.path(), &[("RATE_HTTP_PER_SECOND", "1")]);
    let mut connection = http_from("127.0.0.6", server.address);
    let open = connection.ask("GET", POLLING, &[], b"").expect("a session");
    let open: serde_json::Value = serde_json::from_str(&open.text()[1..]).expect("JSON");
    let session = format!("{POLLING}&sid={}", open["sid"].as_str().expect("a sid"));
    for _ in 0..99 {
        let answer = connection.ask("GET", "/api/messages?roomId=r", &[], b"");
        assert_eq!(answer.expect("kept alive").status, 401);
    }
    for _ in 0..3 {
        let answer = connection.ask("GET", "/api/messages?roomId=r", &[], b"");
        assert_refused(&answer.expect("kept alive"), 429);
        let answer = connection.ask("GET", "/nowhere", &[], b"");
        assert_refused(&answer.expect("kept alive"), 429);
        let answer = connection.ask("GET", POLLING, &[], b"");
        assert_refused(&answer.expect("kept alive"), 429);
        for probe in ["/health", "/health/ready"] {
            let answer = connection.ask("GET", probe, &[], b"");
            assert_eq!(answer.expect("kept alive").status, 200, "{probe}");
        }
    }
    let websocket = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let target = "/socket.io/?EIO=4&transport=websocket";
    let answer = http_from("127.0.0.6", server.address).ask("GET", target, &websocket, b"");
    let answer = answer.expect("an answer");
    assert_refused(&answer, 429);
    assert_eq!(answer.field("connection"), Some("close"));
    // The session that is there goes on.
    let connect = format!("40{}", json!({"token": token("alice")}));
    let posted = connection.ask("POST", &session, &[], connect.as_bytes());
    assert_eq!(posted.expect("an answer").status, 200);
    let polled = connection
        .ask("GET", &session, &[], b"")
        .expect("an answer");
    assert!(polled.text().starts_with("40"), "{}", polled.text());
    let stream = connect_from("127.0.0.7", server.address);
    let mut stranger = Client::over_stream(stream, server.address, &token("bob"));
    stranger.join("r");
    assert!(server.metric("yum_rate_limited_total", "what=\"request\"") >= 10.0);
    let reason = "reason=\"rate_limited\"";
    assert!(server.metric("yum_handshakes_refused_total", reason) >= 4.0);
}

/// What is no session's own takes from the same rate, however it is refused.
#[test]
fn refused_requests_count_too() {
    let folder = folder();
    let settings = [
        ("RATE_HTTP_PER_SECOND", "1"),
        ("CORS_ORIGINS", "https://app.example"),
    ];
    let server = server(folder.path(), &settings);
    let unknown = format!("{POLLING}&sid=AAAAAAAAAAAAAAAAAAAA");
    let stranger = ("Origin", "https://evil.example");
    for (number, (method, target, fields, status)) in [
        ("GET", unknown.as_str(), &[][..], 400),
        ("GET", "/socket.io/?EIO=4&transport=smoke", &[], 400),
        ("GET", "/socket.io/?EIO=3&transport=polling", &[], 400),
        ("POST", POLLING, &[], 400),
        ("GET", POLLING, &[stranger], 403),
        ("OPTIONS", "/api/messages", &[stranger], 204),
        ("OPTIONS", POLLING, &[stranger], 204),
        ("BREW", "/api/messages", &[], 405),
        ("TRACE", "/nowhere", &[], 405),
    ]
    .into_iter()
    .enumerate()
    {
        let source = format!("127.0.2.{}", number + 1);
        let ask = || {
            let answer = http_from(&source, server.address).ask(method, target, fields, b"");
            answer.expect("an answer")
        };
        for _ in 0..100 {
            assert_eq!(ask().status, status, "{method} {target}");
        }
        let refused: Vec<_> = (0..5).map(|_| ask()).collect();
        let limited = refused.iter().find(|answer| answer.status != status);
        let limited = limited.unwrap_or_else(|| panic!("{method} {target} has no limit"));
        assert_refused(limited, 429);
    }
    // A page that adds fields of its own asks so before each poll of a session: that is free.
    let mut page = http_from("127.0.2.100", server.address);
    for _ in 0..200 {
        let answer = page.ask("OPTIONS", &unknown, &[], b"");
        assert_eq!(answer.expect("kept alive").status, 204);
    }
}

#[test]
fn a_private_peer_is_not_limited_until_somebody_says_what_it_is_and_the_log_says_so_once() {
    let folder = folder();
    let settings = [
        ("TRUST_PROXY", ""),
        ("SHARDS", "2"),
        ("MAX_CONNECTIONS_PER_IP", "2"),
        ("RATE_HTTP_PER_SECOND", "1"),
    ];
    let server = server(folder.path(), &settings);
    let mut clients: Vec<_> = (0..6)
        .map(|_| Client::connect(server.address, Via::WebSocket, &token("alice")))
        .collect();
    for client in &mut clients {
        client.join("r");
    }
    let mut connection = http_from("127.0.0.8", server.address);
    for _ in 0..110 {
        let answer = connection.ask("GET", "/nowhere", &[], b"");
        assert_eq!(answer.expect("kept alive").status, 404);
    }
    let log = super::support::server::log_of(folder.path());
    assert_eq!(log.matches("set TRUST_PROXY").count(), 1, "{log}");
}
