//! Which requests are Engine.IO's, and what a wrong one is answered (protocol.md 1.1).

use crate::fields::SECURITY;
use crate::http::{Connection, head};
use crate::peer::{ENGINE, SOCKET};
use crate::server::Server;
use crate::websocket::OPENING;

/// Requests that are refused with an Engine.IO error, and its code.
macro_rules! refused {
    ($($name:ident: $method:literal $target:literal => $code:literal),* $(,)?) => {
        $(fn $name(server: &'static Server) {
            server.request($method, $target).is_error($code);
        })*
        mod refused {
            use super::*;
            cases!(Calm: $($name),*);
        }
    };
}

refused! {
    no_transport: "GET" "/engine.io/?EIO=4" => 0,
    no_query: "GET" "/engine.io/" => 0,
    empty_query: "GET" "/engine.io/?" => 0,
    unknown_transport: "GET" "/engine.io/?EIO=4&transport=abc" => 0,
    empty_transport: "GET" "/engine.io/?EIO=4&transport=" => 0,
    transport_in_capitals: "GET" "/engine.io/?EIO=4&transport=POLLING" => 0,
    transport_not_offered: "GET" "/engine.io/?EIO=4&transport=webtransport" => 0,
    transport_named_like_a_property: "GET" "/engine.io/?EIO=4&transport=constructor" => 0,
    unknown_transport_at_the_other_path: "GET" "/socket.io/?EIO=4&transport=abc" => 0,
    unknown_transport_before_unknown_sid: "GET" "/engine.io/?EIO=4&transport=abc&sid=x" => 0,
    unknown_transport_before_bad_method: "POST" "/engine.io/?EIO=4&transport=abc" => 0,
    websocket_without_an_upgrade: "GET" "/engine.io/?EIO=4&transport=websocket" => 3,
    websocket_without_an_upgrade_before_version:
        "GET" "/engine.io/?EIO=3&transport=websocket" => 3,
    no_version: "GET" "/engine.io/?transport=polling" => 5,
    version_in_letters: "GET" "/engine.io/?EIO=abc&transport=polling" => 5,
    version_three: "GET" "/engine.io/?EIO=3&transport=polling" => 5,
    version_five: "GET" "/engine.io/?EIO=5&transport=polling" => 5,
    version_empty: "GET" "/engine.io/?EIO=&transport=polling" => 5,
    version_with_a_zero: "GET" "/engine.io/?EIO=04&transport=polling" => 5,
    version_at_the_other_path: "GET" "/socket.io/?EIO=abc&transport=polling" => 5,
    handshake_by_post: "POST" "/engine.io/?EIO=4&transport=polling\r\nContent-Length: 0" => 2,
    handshake_by_put: "PUT" "/engine.io/?EIO=4&transport=polling\r\nContent-Length: 0" => 2,
    handshake_by_delete: "DELETE" "/engine.io/?EIO=4&transport=polling" => 2,
    handshake_by_patch: "PATCH" "/engine.io/?EIO=4&transport=polling\r\nContent-Length: 0" => 2,
    handshake_by_options_without_cors: "OPTIONS" "/engine.io/?EIO=4&transport=polling" => 2,
    bad_method_before_version: "POST" "/socket.io/?EIO=3&transport=polling\r\nContent-Length: 0" => 2,
    unknown_sid: "GET" "/engine.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA" => 1,
    sid_too_short: "GET" "/engine.io/?EIO=4&transport=polling&sid=abc" => 1,
    sid_one_short: "GET" "/engine.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAA" => 1,
    sid_one_long: "GET" "/engine.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAAA" => 1,
    sid_of_a_strange_alphabet:
        "GET" "/engine.io/?EIO=4&transport=polling&sid=%00%01%2F..%2F%FF%C3%A4aaaaaaaaaaa" => 1,
    sid_named_like_a_property: "GET" "/engine.io/?EIO=4&transport=polling&sid=__proto__" => 1,
    unknown_sid_by_post:
        "POST" "/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA\r\nContent-Length: 0" => 1,
    unknown_sid_before_version:
        "GET" "/engine.io/?EIO=3&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA" => 1,
    unknown_sid_before_bad_method:
        "DELETE" "/engine.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA" => 1,
}

cases!(Calm:
    sid_of_every_other_shard,
    head_has_no_body,
    no_route,
    path_below_the_prefix,
    path_needs_its_slash,
    keys_in_any_order,
    unknown_keys,
    percent_encoded_keys_and_values,
    repeated_keys_are_data,
    jsonp_is_not_spoken,
    absolute_form,
    a_session_belongs_to_its_path,
    upgrade_of_an_unknown_sid,
    upgrade_of_an_unknown_transport,
    upgrade_of_another_version,
    upgrade_without_a_version,
    other_methods_leave_a_session_alone,
    other_transport_leaves_a_session_alone,
    security_fields_on_every_answer,
    nothing_names_the_software,
);

/// A sid names its shard; one that was never given out is unknown to every shard it may name.
fn sid_of_every_other_shard(server: &'static Server) {
    let known = server.polling(ENGINE);
    for last in ["A", "Q", "g", "w"] {
        let forged = format!("{}{last}", &known.sid[..19]);
        if forged != known.sid {
            server.get(&format!("{ENGINE}&sid={forged}")).is_error(1);
        }
    }
    for fourth in ["A", "B", "C", "D", "E", "_"] {
        let forged = format!("{}{fourth}{}", &known.sid[..3], &known.sid[4..]);
        if forged != known.sid {
            server.get(&format!("{ENGINE}&sid={forged}")).is_error(1);
        }
    }
    known.alive();
}

fn head_has_no_body(server: &'static Server) {
    let mut connection = server.connect();
    let response = connection.request("HEAD", ENGINE);
    assert_eq!(response.status, 400, "{response:?}");
    connection.get("/engine.io/?EIO=4").is_error(0);
}

fn no_route(server: &'static Server) {
    for target in ["/", "/other/", "/engine", "/socket.ioo/", "/%73ocket.io"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
}

fn path_below_the_prefix(server: &'static Server) {
    let response = server.get("/engine.io/anything?EIO=4&transport=polling");
    assert_eq!(response.status, 200, "{response:?}");
}

fn path_needs_its_slash(server: &'static Server) {
    for target in ["/engine.io?EIO=4&transport=polling", "/socket.io"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
}

fn keys_in_any_order(server: &'static Server) {
    let target = "/engine.io/?t=abc&transport=polling&EIO=4";
    assert_eq!(server.get(target).status, 200);
}

fn unknown_keys(server: &'static Server) {
    let target = "/engine.io/?EIO=4&x&=&&y=1&z=%20&transport=polling&t=PX9bK1&b64=1";
    assert_eq!(server.get(target).status, 200);
}

fn percent_encoded_keys_and_values(server: &'static Server) {
    let target = "/engine.io/?%45IO=%34&transport=poll%69ng";
    assert_eq!(server.get(target).status, 200);
}

/// Whichever of the values counts, it counts as a value.
fn repeated_keys_are_data(server: &'static Server) {
    for target in [
        "/engine.io/?EIO=4&transport=polling&transport=websocket",
        "/engine.io/?EIO=4&EIO=4&transport=polling",
        "/engine.io/?EIO=4&transport=polling&sid=x&sid=y",
        "/engine.io/?EIO=4&transport[]=polling",
    ] {
        let status = server.get(target).status;
        assert!(status == 200 || status == 400, "{target}: {status}");
    }
}

/// Node: still answers with a script for `j`.
fn jsonp_is_not_spoken(server: &'static Server) {
    let response = server.get("/engine.io/?EIO=4&transport=polling&j=0");
    assert!(response.text().starts_with("0{"), "{response:?}");
}

/// Node: does not take it apart.
fn absolute_form(server: &'static Server) {
    let response = server.get(&format!("http://localhost{ENGINE}"));
    assert_eq!(response.status, 200, "{response:?}");
}

fn a_session_belongs_to_its_path(server: &'static Server) {
    let session = server.polling(ENGINE);
    server
        .get(&format!("{SOCKET}&sid={}", session.sid))
        .is_error(1);
    session.alive();
}

/// An Upgrade request is refused outside of the HTTP grammar of bodies: the message, then the end.
#[track_caller]
fn upgrade_is_refused(server: &Server, target: &str, message: &str) {
    let mut connection: Connection = server.connect();
    connection.write(head("GET", target, OPENING));
    let response = connection.response();
    response.is(400, message);
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    assert_eq!(response.field("content-type").as_deref(), Some("text/html"));
    connection.ends();
}

fn upgrade_of_an_unknown_sid(server: &'static Server) {
    let target = "/engine.io/?EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA";
    upgrade_is_refused(server, target, "Session ID unknown");
}

fn upgrade_of_an_unknown_transport(server: &'static Server) {
    let target = "/engine.io/?EIO=4&transport=abc";
    upgrade_is_refused(server, target, "Transport unknown");
    upgrade_is_refused(server, "/engine.io/?EIO=4", "Transport unknown");
}

/// Node: opens the tunnel first.
fn upgrade_of_another_version(server: &'static Server) {
    let target = "/engine.io/?EIO=3&transport=websocket";
    upgrade_is_refused(server, target, "Unsupported protocol version");
}

fn upgrade_without_a_version(server: &'static Server) {
    let target = "/socket.io/?transport=websocket";
    upgrade_is_refused(server, target, "Unsupported protocol version");
}

/// Node: answers 500.
fn other_methods_leave_a_session_alone(server: &'static Server) {
    let session = server.polling(ENGINE);
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"] {
        let target = format!("{}\r\nContent-Length: 0", session.target);
        assert_eq!(server.request(method, &target).status, 400, "{method}");
    }
    session.alive();
}

fn other_transport_leaves_a_session_alone(server: &'static Server) {
    let session = server.polling(ENGINE);
    let target = session.target.replace("polling", "websocket");
    server.get(&target).is_error(3);
    session.alive();
}

/// The fields of reliability.md section 2. Node: the application's work.
fn security_fields_on_every_answer(server: &'static Server) {
    let session = server.polling(ENGINE);
    let answers = [
        server.get(ENGINE),
        server.get("/engine.io/?EIO=4"),
        server.get("/nowhere"),
        session.post("4x"),
        session.get(),
    ];
    for answer in answers {
        for (name, value) in SECURITY {
            assert_eq!(
                answer.field(name).as_deref(),
                Some(value),
                "{name} of {answer:?}"
            );
        }
    }
}

fn nothing_names_the_software(server: &'static Server) {
    for target in [ENGINE, "/nowhere"] {
        let answer = server.get(target);
        assert_eq!(answer.field("server"), None);
        assert_eq!(answer.field("x-powered-by"), None);
        assert_eq!(answer.field("set-cookie"), None);
    }
}
