//! What every answer carries, what none does, and compression.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::json;

use super::support::client::{Client, Via};
use super::support::fields::SECURITY;
use super::support::http::{self, Response};
use super::support::server::{Server, folder};
use super::support::token::token;

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const ORIGIN: &str = "https://app.example";

fn server(folder: &std::path::Path) -> Server {
    let settings = [
        ("SHARDS", "2"),
        ("DATABASE_URL", "memory:"),
        ("CORS_ORIGINS", ORIGIN),
    ];
    Server::start(folder, &settings)
}

fn assert_secure(answer: &Response, what: &str) {
    let fields: BTreeMap<_, _> = answer
        .fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        fields.len(),
        answer.fields.len() - repeated_vary(answer),
        "{what}: {answer:?}"
    );
    let no_cache = ("cache-control", "no-store");
    for (name, value) in SECURITY.into_iter().chain([no_cache]) {
        assert_eq!(fields.get(name), Some(&value), "{what}: {name}");
    }
    for name in ["server", "x-powered-by", "via", "etag", "last-modified"] {
        assert_eq!(fields.get(name), None, "{what}: {name}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let says_version = fields.values().any(|value| value.contains(version));
    assert!(!says_version, "{what}: {fields:?}");
}

/// Vary may stand there for the origin and for the coding.
fn repeated_vary(answer: &Response) -> usize {
    let vary = answer.fields.iter().filter(|(name, _)| name == "vary");
    vary.count().saturating_sub(1)
}

#[test]
fn every_answer_is_safe_to_receive() {
    let folder = folder();
    let server = server(folder.path());
    let address = server.address;
    let authorization = format!("Bearer {}", token("alice"));
    let bearer = ("Authorization", authorization.as_str());
    let websocket = ("Upgrade", "websocket");
    let long = format!("/{}", "x".repeat(9_000));
    for (method, target, fields, status) in [
        ("GET", "/api/messages?roomId=r", &[bearer][..], 200),
        ("HEAD", "/api/messages?roomId=r", &[bearer], 200),
        ("GET", "/api/messages?roomId=r", &[], 401),
        ("GET", "/api/messages", &[bearer], 400),
        ("DELETE", "/api/messages?roomId=r", &[bearer], 405),
        ("TRACE", "/health", &[], 405),
        ("GET", "/health", &[], 200),
        ("GET", "/health/ready", &[], 200),
        ("GET", "/", &[], 404),
        ("GET", "/metrics", &[], 404),
        ("GET", "/socket.io/socket.io.js", &[], 400),
        ("GET", POLLING, &[], 200),
        ("GET", POLLING, &[("Origin", ORIGIN)], 200),
        ("GET", POLLING, &[("Origin", "https://evil.example")], 403),
        (
            "GET",
            "/socket.io/?EIO=4&transport=polling&sid=unknown",
            &[],
            400,
        ),
        (
            "GET",
            "/socket.io/?EIO=4&transport=websocket",
            &[websocket],
            400,
        ),
        ("OPTIONS", "/api/messages", &[("Origin", ORIGIN)], 204),
        ("GET", &long, &[], 414),
        ("GET", "/health", &[("Bad Name", "x")], 400),
    ] {
        let mut connection = http::Connection::open(address).expect("the server accepts");
        connection.send(method, target, fields, b"").expect("sent");
        let answer = if method == "HEAD" {
            // Its length is that of the body that stays away.
            head_answer(address, target, fields)
        } else {
            let end = std::time::Instant::now() + super::support::PATIENCE;
            connection
                .receive(end)
                .expect("it holds")
                .expect("an answer")
        };
        let what = format!("{method} {}", &target[..target.len().min(60)]);
        assert_eq!(answer.status, status, "{what}");
        assert_secure(&answer, &what);
        let allowed = answer.field("access-control-allow-origin");
        let is_friend = fields.contains(&("Origin", ORIGIN));
        assert_eq!(allowed, is_friend.then_some(ORIGIN), "{what}");
    }
}

fn head_answer(address: std::net::SocketAddr, target: &str, fields: &[(&str, &str)]) -> Response {
    let mut closing = fields.to_vec();
    closing.push(("Connection", "close"));
    let mut connection = http::Connection::open(address).expect("the server accepts");
    connection
        .send("HEAD", target, &closing, b"")
        .expect("sent");
    let text = connection.rest().expect("text");
    let mut lines = text.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let fields = lines.filter_map(|line| line.split_once(": "));
    Response {
        status: status
            .and_then(|status| status.parse().ok())
            .expect("a status"),
        fields: fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: Vec::new(),
    }
}

#[test]
fn upgrades_and_polls_of_strangers_are_refused_and_odd_origins_too() {
    let folder = folder();
    let server = server(folder.path());
    let upgrade = |origins: &[&str]| {
        let mut fields = vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ];
        fields.extend(origins.iter().map(|origin| ("Origin", *origin)));
        let target = "/socket.io/?EIO=4&transport=websocket";
        http::get(server.address, target, &fields).status
    };
    assert_eq!(upgrade(&[]), 101);
    assert_eq!(upgrade(&[ORIGIN]), 101);
    for origins in [
        &["https://evil.example"][..],
        &["null"],
        &["https://APP.example"],
        &["https://app.example:443"],
        &["https://app.example.evil.example"],
        &["https://\u{e9}.example"],
        &[ORIGIN, "https://evil.example"],
        &["https://evil.example", ORIGIN],
        &[""],
    ] {
        assert_eq!(upgrade(origins), 403, "{origins:?}");
    }
    // A session that a page has begun is not polled by another page.
    let open = http::get(server.address, POLLING, &[("Origin", ORIGIN)]).text();
    let open: serde_json::Value = serde_json::from_str(&open[1..]).expect("JSON");
    let session = format!("{POLLING}&sid={}", open["sid"].as_str().expect("a sid"));
    let stranger = http::get(
        server.address,
        &session,
        &[("Origin", "https://evil.example")],
    );
    assert_eq!(stranger.status, 403);
}

#[test]
fn history_is_compressed_for_whoever_takes_it() {
    let folder = folder();
    let server = server(folder.path());
    let mut alice = Client::connect(server.address, Via::WebSocket, &token("alice"));
    alice.join("r");
    for number in 0..20 {
        alice.say(
            "r",
            &format!("message number {number}, which says the same as the others"),
        );
    }
    let authorization = format!("Bearer {}", token("alice"));
    let get = |accepted: Option<&str>, limit: u32| {
        let mut fields = vec![("Authorization", authorization.as_str())];
        fields.extend(accepted.map(|accepted| ("Accept-Encoding", accepted)));
        let target = format!("/api/messages?roomId=r&limit={limit}");
        http::get(server.address, &target, &fields)
    };
    let plain = get(None, 20);
    assert_eq!(plain.field("content-encoding"), None);
    assert!(plain.body.len() > 1024);
    for (accepted, coding) in [
        ("br", Some("br")),
        ("gzip", Some("gzip")),
        ("gzip, deflate, br", Some("gzip")),
        ("gzip;q=0, br", Some("br")),
        ("br;q=0, *;q=0.1", Some("gzip")),
        ("br;q=0", None),
        ("identity", None),
    ] {
        let answer = get(Some(accepted), 20);
        assert_eq!(answer.field("content-encoding"), coding, "{accepted}");
        let varies = answer
            .fields
            .iter()
            .any(|(name, value)| name == "vary" && value == "Accept-Encoding");
        assert!(varies, "{accepted}");
        let mut decoded = Vec::new();
        match coding {
            Some("br") => brotli::Decompressor::new(&*answer.body, 4096).read_to_end(&mut decoded),
            Some(_) => flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut decoded),
            None => (&*answer.body).read_to_end(&mut decoded),
        }
        .expect("it decodes");
        assert_eq!(decoded, plain.body, "{accepted}");
        assert!(
            coding.is_none() || answer.body.len() < plain.body.len() / 2,
            "{accepted}"
        );
    }
    let small = get(Some("br, gzip"), 1);
    assert!(small.body.len() < 1024);
    assert_eq!(small.field("content-encoding"), None, "too small to gain");
}

#[test]
fn what_people_write_and_what_they_prove_themselves_with_is_never_logged() {
    const FORGED: &str = "\u{1b}[31m{\"log.level\":\"error\",\"message\":\"forged\"}";
    for format in ["json", "pretty"] {
        let folder = folder();
        let settings = [
            ("SHARDS", "2"),
            ("LOG_LEVEL", "trace"),
            ("LOG_FORMAT", format),
        ];
        let server = Server::start(folder.path(), &settings);
        let secret = token("mallory-in-the-log");
        for via in [Via::WebSocket, Via::Polling] {
            let mut client = Client::connect(server.address, via, &secret);
            // One for each: whoever comes may still hear of whoever has just gone.
            let room = format!("room-in-the-log-{via:?}");
            client.join(&room);
            client.say(&room, &format!("content-in-the-log\n{FORGED}"));
            client.ok("authenticate", &json!({"token": secret}));
            for (event, payload) in [
                (
                    "sendMessage",
                    json!({"roomId": "x\n", "content": "content-in-the-log"}),
                ),
                ("joinRoom", json!({"roomId": ["content-in-the-log"]})),
                ("authenticate", json!({"token": "token-in-the-log"})),
            ] {
                client.call(event, &payload);
            }
            client.emit("event-in-the-log\n", &json!("content-in-the-log"));
            client.expect("receiveMessage");
        }
        let fields = [
            ("X-Odd", "field-in-the-log"),
            ("Authorization", "Bearer token-in-the-log"),
        ];
        http::get(
            server.address,
            "/seen%0a2026-01-01?query-in-the-log",
            &fields,
        );
        http::get(
            server.address,
            "/api/messages?roomId=query-in-the-log",
            &fields,
        );
        server.signal("HUP");
        server.signal("TERM");
        let mut server = server;
        assert!(server.wait(super::support::PATIENCE).is_some());
        let log = super::support::server::log_of(folder.path());
        assert!(log.contains("draining"), "{log}");
        assert!(
            !log.contains("in-the-log") && !log.contains("forged"),
            "{log}"
        );
        assert!(
            !log.contains(&secret) && !log.contains("a-secret-of-the-tests"),
            "{log}"
        );
        for line in log.lines() {
            if format == "json" {
                let object = serde_json::from_str::<serde_json::Value>(line);
                assert!(object.is_ok_and(|object| object.is_object()), "{line}");
            } else {
                // A time begins each: nothing of a client's begins a line.
                assert!(
                    line.starts_with("20") && !line.starts_with("2026-01-01"),
                    "{line}"
                );
            }
        }
    }
}
