//! Cross-origin requests: nothing without an allow-list, and with one the fields stand on every
//! answer, refusals included, or a browser would hide their bodies (protocol.md 1.1).

use crate::http::{Response, head};
use crate::peer::{ENGINE, SOCKET};
use crate::server::Server;
use crate::websocket::OPENING;

cases!(Cors:
    preflight,
    preflight_on_a_session,
    preflight_of_a_stranger,
    handshake_and_its_session,
    second_origin_of_the_list,
    refusals_carry_the_fields,
    post_carries_the_fields,
    same_origin_requests_have_no_fields,
    stranger_is_forbidden,
    null_origin_is_forbidden,
    origin_that_begins_alike_is_forbidden,
    upgrade_of_a_stranger,
    upgrade_of_a_friend,
);

mod off {
    use super::*;
    cases!(Calm: no_fields_without_a_list, any_origin_upgrades_without_a_list);
}

const FRIEND: &str = "http://localhost:8080";

#[track_caller]
fn allows(response: &Response, origin: &str) {
    assert_eq!(
        response.field("access-control-allow-origin").as_deref(),
        Some(origin),
        "{response:?}"
    );
    assert_eq!(
        response
            .field("access-control-allow-credentials")
            .as_deref(),
        Some("true")
    );
    let vary = response.field("vary").expect("it varies");
    assert!(vary.to_ascii_lowercase().contains("origin"), "{vary}");
}

fn from(origin: &str, target: &str) -> String {
    format!("{target}\r\nOrigin: {origin}")
}

#[track_caller]
fn is_preflight(response: &Response) {
    assert_eq!(response.status, 204, "{response:?}");
    allows(response, FRIEND);
    let methods = response
        .field("access-control-allow-methods")
        .expect("methods are named");
    assert!(methods.contains("GET") && methods.contains("POST"));
    assert_eq!(
        response.field("access-control-allow-headers").as_deref(),
        Some("content-type,x-custom")
    );
    assert!(matches!(
        response.field("content-length").as_deref(),
        None | Some("0")
    ));
}

const PREFLIGHT: &str = "\r\nAccess-Control-Request-Method: POST\
    \r\nAccess-Control-Request-Headers: content-type,x-custom";

fn preflight(server: &'static Server) {
    let target = from(FRIEND, ENGINE) + PREFLIGHT;
    is_preflight(&server.request("OPTIONS", &target));
    let target = from(FRIEND, SOCKET) + PREFLIGHT;
    is_preflight(&server.request("OPTIONS", &target));
}

fn preflight_on_a_session(server: &'static Server) {
    let session = server.polling(ENGINE);
    let target = from(FRIEND, &session.target) + PREFLIGHT;
    is_preflight(&server.request("OPTIONS", &target));
    session.alive();
}

fn preflight_of_a_stranger(server: &'static Server) {
    let target = from("http://evil.example", ENGINE) + PREFLIGHT;
    let response = server.request("OPTIONS", &target);
    assert_eq!(response.field("access-control-allow-origin"), None);
}

fn handshake_and_its_session(server: &'static Server) {
    let response = server.get(&from(FRIEND, ENGINE));
    assert_eq!(response.status, 200);
    allows(&response, FRIEND);
    let sid = crate::peer::sid_of(response.text());
    let target = from(FRIEND, &format!("{ENGINE}&sid={sid}"));
    let response = server.post(&target, "4x");
    response.is(200, "ok");
    allows(&response, FRIEND);
    let response = server.get(&target);
    response.is(200, "4x");
    allows(&response, FRIEND);
}

fn second_origin_of_the_list(server: &'static Server) {
    let response = server.get(&from("https://app.example", ENGINE));
    allows(&response, "https://app.example");
}

fn refusals_carry_the_fields(server: &'static Server) {
    for target in [
        "/engine.io/?EIO=4",
        "/engine.io/?EIO=3&transport=polling",
        "/engine.io/?EIO=4&transport=polling&sid=unknown",
    ] {
        let response = server.get(&from(FRIEND, target));
        assert_eq!(response.status, 400);
        allows(&response, FRIEND);
    }
}

fn post_carries_the_fields(server: &'static Server) {
    let response = server.post(&from(FRIEND, ENGINE), "4x");
    response.is_error(2);
    allows(&response, FRIEND);
}

fn same_origin_requests_have_no_fields(server: &'static Server) {
    let response = server.get(ENGINE);
    assert_eq!(response.status, 200);
    assert_eq!(response.field("access-control-allow-origin"), None);
}

/// Node: answers without the fields, and leaves the refusal to the browser.
fn stranger_is_forbidden(server: &'static Server) {
    let response = server.get(&from("http://evil.example", ENGINE));
    assert_eq!(response.status, 403, "{response:?}");
    assert_eq!(response.field("access-control-allow-origin"), None);
}

fn null_origin_is_forbidden(server: &'static Server) {
    assert_eq!(server.get(&from("null", ENGINE)).status, 403);
}

fn origin_that_begins_alike_is_forbidden(server: &'static Server) {
    for origin in [
        "http://localhost:80801",
        "http://localhost",
        "https://app.example.evil.example",
    ] {
        assert_eq!(server.get(&from(origin, ENGINE)).status, 403, "{origin}");
    }
}

/// Node: opens the tunnel.
fn upgrade_of_a_stranger(server: &'static Server) {
    let target = from(
        "http://evil.example",
        "/engine.io/?EIO=4&transport=websocket",
    );
    let response = server.raw(head("GET", &target, OPENING));
    assert_eq!(response.status, 403, "{response:?}");
}

fn upgrade_of_a_friend(server: &'static Server) {
    let target = from(FRIEND, "/engine.io/?EIO=4&transport=websocket");
    let mut websocket = server.session(&target);
    websocket.send("4x");
    websocket.expect("4x");
}

fn no_fields_without_a_list(server: &'static Server) {
    for target in [ENGINE, "/engine.io/?EIO=4"] {
        let response = server.get(&from(FRIEND, target));
        let cors = |(name, _): &&(String, String)| name.starts_with("access-control-");
        assert_eq!(response.fields.iter().find(cors), None);
    }
}

fn any_origin_upgrades_without_a_list(server: &'static Server) {
    server.session(&from(FRIEND, "/engine.io/?EIO=4&transport=websocket"));
}
