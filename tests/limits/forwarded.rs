//! Clients behind proxies that are trusted, or are not.

use super::support::client::Client;
use super::support::http::Connection;
use super::support::server::{Server, folder};
use super::support::token::token;
use super::{assert_refused, connect_from, http_from};

const HISTORY: &str = "/api/messages?roomId=r";
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

fn server(folder: &std::path::Path, settings: &[(&str, &str)]) -> Server {
    let common = [
        ("SHARDS", "4"),
        ("DATABASE_URL", "memory:"),
        ("TRUST_PROXY", "127.0.0.2,127.1.0.0/16"),
    ];
    Server::start(folder, &[&common[..], settings].concat())
}

fn ask(connection: &mut Connection, forwarded: &[&str]) -> u16 {
    let fields: Vec<_> = forwarded
        .iter()
        .map(|value| ("X-Forwarded-For", *value))
        .collect();
    let answer = connection.ask("GET", HISTORY, &fields, b"");
    answer.expect("kept alive").status
}

#[test]
fn clients_behind_a_proxy_are_told_apart_by_what_it_says() {
    let folder = folder();
    let server = server(folder.path(), &[("RATE_HTTP_PER_SECOND", "1")]);
    let mut proxy = http_from("127.0.0.2", server.address);
    // One connection of the proxy carries many clients; whatever they forge stands left.
    for round in 0..100 {
        let forged = format!("198.51.100.{round}, 203.0.113.1, 127.1.2.3");
        assert_eq!(ask(&mut proxy, &[&forged]), 401);
    }
    assert_eq!(ask(&mut proxy, &["203.0.113.1"]), 429);
    assert_eq!(ask(&mut proxy, &["203.0.113.1", "127.1.2.3"]), 429);
    let last = ["198.51.100.9", "203.0.113.1, 127.1.2.3"];
    assert_eq!(ask(&mut proxy, &last), 429, "the last line is read first");
    assert_eq!(ask(&mut proxy, &["203.0.113.2"]), 401);
    assert_eq!(ask(&mut proxy, &["203.0.113.1, 203.0.113.2"]), 401);
    let mut second = http_from("127.1.9.9", server.address);
    assert_eq!(ask(&mut second, &["203.0.113.1"]), 429);
    // Whoever is no proxy speaks for itself only.
    let mut liar = http_from("127.0.0.3", server.address);
    for round in 0..100 {
        assert_eq!(ask(&mut liar, &[&format!("203.0.114.{round}")]), 401);
    }
    assert_eq!(ask(&mut liar, &["203.0.113.77"]), 429);
    assert_eq!(ask(&mut proxy, &["127.0.0.3"]), 429, "the same address");
}

#[test]
fn connections_count_for_the_client_and_a_mixed_one_for_its_present_client() {
    let folder = folder();
    let settings = [
        ("MAX_CONNECTIONS_PER_IP", "3"),
        ("RATE_CONNECTIONS_PER_SECOND", "1"),
    ];
    let server = server(folder.path(), &settings);
    let mut held: Vec<_> = (0..3)
        .map(|_| http_from("127.0.0.2", server.address))
        .collect();
    for connection in &mut held {
        assert_eq!(ask(connection, &["203.0.113.1"]), 401);
    }
    let mut fourth = http_from("127.0.0.2", server.address);
    let fields = [("X-Forwarded-For", "203.0.113.1")];
    let answer = fourth.ask("GET", HISTORY, &fields, b"").expect("an answer");
    assert_refused(&answer, 503);
    assert_eq!(answer.field("connection"), Some("close"));
    // The first goes over to another client, which makes room for one.
    assert_eq!(ask(&mut held[0], &["203.0.113.2"]), 401);
    let mut fifth = http_from("127.0.0.2", server.address);
    assert_eq!(ask(&mut fifth, &["203.0.113.1"]), 401);
    // Many more than the burst of new connections: it is not a new one each time.
    for round in 0..1_100 {
        let client = format!("203.0.113.{}", 10 + round % 2);
        assert_eq!(ask(&mut held[0], &[&client]), 401);
    }
}

#[test]
fn https_is_what_the_trusted_proxy_says() {
    let folder = folder();
    let server = server(folder.path(), &[("REQUIRE_HTTPS", "true")]);
    let get = |source: &str, target: &str, scheme: Option<&str>| {
        let scheme = scheme.map(|scheme| ("X-Forwarded-Proto", scheme));
        let fields: Vec<_> = scheme.into_iter().collect();
        let answer = http_from(source, server.address).ask("GET", target, &fields, b"");
        answer.expect("an answer").status
    };
    for target in [HISTORY, POLLING, "/nowhere"] {
        assert_eq!(get("127.0.0.2", target, None), 403, "{target}");
        assert_eq!(get("127.0.0.2", target, Some("http")), 403, "{target}");
        assert_eq!(get("127.0.0.3", target, Some("https")), 403, "{target}");
    }
    assert_eq!(get("127.0.0.2", HISTORY, Some("https")), 401);
    assert_eq!(get("127.0.0.2", POLLING, Some("https")), 200);
    for probe in ["/health", "/health/ready"] {
        assert_eq!(get("127.0.0.3", probe, None), 200, "{probe}");
    }
    let stream = connect_from("127.0.0.2", server.address);
    let refused = std::panic::catch_unwind(|| {
        Client::over_stream(stream, server.address, &token("alice"));
    });
    assert!(refused.is_err(), "no WebSocket without TLS");
}
