//! HTTP/1.1 message framing (RFC 9112; reliability.md section 2): one decision before any body byte
//! is used, and every refusal answers once and closes.
//!
//! Node: more lenient in several of these (bare LF, missing Host, `Expect`, codes of its own).

use std::time::{Duration, Instant};

use crate::http::{head, post};
use crate::peer::ENGINE;
use crate::server::{Server, long};

/// Heads that are refused, with the statuses that may say so; then the connection ends.
macro_rules! refused {
    ($($name:ident: $head:expr => $($status:literal)|+),* $(,)?) => {
        $(fn $name(server: &'static Server) {
            let mut connection = server.connect();
            connection.write($head);
            let response = connection.response();
            assert!(matches!(response.status, $($status)|+), "{response:?}");
            connection.ends();
        })*
        mod refused {
            use super::*;
            cases!(Calm: $($name),*);
        }
    };
}

const LINE: &str = "POST /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n";

fn with(fields: &str) -> String {
    format!("{LINE}{fields}\r\n\r\n")
}

fn chunked(body: &str) -> String {
    format!("{LINE}Transfer-Encoding: chunked\r\n\r\n{body}")
}

refused! {
    chunked_and_length: with("Transfer-Encoding: chunked\r\nContent-Length: 5") => 400,
    length_and_chunked: with("Content-Length: 5\r\nTransfer-Encoding: chunked") => 400,
    other_coding: with("Transfer-Encoding: gzip") => 400 | 501,
    two_codings: with("Transfer-Encoding: gzip, chunked") => 400 | 501,
    chunked_twice: with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked") => 400 | 501,
    coding_with_a_tail: with("Transfer-Encoding: chunked;x=1") => 400 | 501,
    coding_in_quotes: with("Transfer-Encoding: \"chunked\"") => 400 | 501,
    chunked_in_http_1_0:
        "POST /engine.io/ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" => 400,
    length_with_a_sign: with("Content-Length: +5") => 400,
    length_negative: with("Content-Length: -5") => 400,
    length_in_letters: with("Content-Length: five") => 400,
    length_in_hex: with("Content-Length: 0x5") => 400,
    length_with_a_blank_inside: with("Content-Length: 1 0") => 400,
    length_empty: with("Content-Length:") => 400,
    length_overflow: with("Content-Length: 99999999999999999999999") => 400,
    lengths_that_differ: with("Content-Length: 5\r\nContent-Length: 6") => 400,
    length_list_that_differs: with("Content-Length: 5, 6") => 400,
    chunk_size_in_letters: chunked("xyz\r\n") => 400,
    chunk_size_with_a_sign: chunked("+1\r\na\r\n0\r\n\r\n") => 400,
    chunk_size_negative: chunked("-1\r\na\r\n0\r\n\r\n") => 400,
    chunk_size_with_a_prefix: chunked("0x1\r\na\r\n0\r\n\r\n") => 400,
    chunk_size_overflow: chunked("fffffffffffffffff\r\n") => 400,
    chunk_line_with_bare_lf: chunked("1\na\r\n0\r\n\r\n") => 400,
    chunk_data_without_its_end: chunked("1\r\nab\r\n0\r\n\r\n") => 400,
    chunk_extension_without_end: chunked(&format!("1;{}\r\n", "x".repeat(300))) => 400,
    trailers_without_end: chunked(&format!("0\r\n{}", "a: b\r\n".repeat(2000))) => 400 | 431,
    blank_before_colon: with("Name : value") => 400,
    folded_line: with("Name: value\r\n folded") => 400,
    nul_in_a_value: with("Name: va\0lue") => 400,
    bare_cr_in_a_value: with("Name: va\rlue") => 400,
    control_character_in_a_value: with("Name: va\u{1}lue") => 400,
    empty_name: with(": value") => 400,
    name_with_a_blank: with("Na me: value") => 400,
    line_without_colon: with("nothing") => 400,
    blank_before_the_first_field:
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n" => 400,
    bare_lf_line_ends: "GET / HTTP/1.1\nHost: a\n\n" => 400,
    origin_with_a_control_character: with("Origin: http://a\u{7f}b") => 400,
    no_host: "GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\n\r\n" => 400,
    two_hosts: "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n" => 400,
    host_with_a_path: "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n" => 400,
    host_with_a_user: "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n" => 400,
    host_with_a_bad_port: "GET / HTTP/1.1\r\nHost: a:port\r\n\r\n" => 400,
    version_2: "GET / HTTP/2.0\r\nHost: a\r\n\r\n" => 505,
    version_9: "GET / HTTP/9.1\r\nHost: a\r\n\r\n" => 505,
    version_nonsense: "GET / HTTQ/1.1\r\nHost: a\r\n\r\n" => 400,
    no_version: "GET /\r\n\r\n" => 400,
    nonsense: "hello\r\n\r\n" => 400,
    tls_hello: b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n" => 400,
    proxy_line: "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\n\r\n" => 400,
    line_too_long: format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000)) => 414,
    line_without_end: format!("GET /{}", "a".repeat(20_000)) => 414,
    fields_too_long: with(&format!("Name: {}", "a".repeat(17_000))) => 431,
    fields_without_end: format!("GET / HTTP/1.1\r\nHost: a\r\nName: {}", "a".repeat(20_000)) => 431,
    too_many_fields: with(&"a: b\r\n".repeat(101)) => 431,
}

cases!(Calm:
    methods_that_are_not_served,
    chunked_body,
    chunked_body_in_pieces,
    equal_lengths,
    http_1_0_closes,
    close_is_honoured,
    leading_line_end,
    body_of_a_get_is_no_request,
    unread_body_is_no_request,
    pipelined_in_order,
    expectation_is_no_obstacle,
    h2c_is_ignored,
    head_byte_by_byte,
    silent_and_dripping_connections_end,
);

fn methods_that_are_not_served(server: &'static Server) {
    for method in ["TRACE", "CONNECT", "BREW", "get"] {
        let response = server.raw(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nX: secret\r\n\r\n"
        ));
        assert!(
            matches!(response.status, 400 | 405 | 501),
            "{method}: {response:?}"
        );
        assert!(!response.text().contains("secret"), "never echoed");
    }
}

fn chunked_body(server: &'static Server) {
    let session = server.polling(ENGINE);
    let head = head("POST", &session.target, "Transfer-Encoding: chunked\r\n");
    let body = "2;ext=1\r\n4h\r\n04\r\nello\r\n0\r\nTrailer: x\r\n\r\n";
    server.raw(format!("{head}{body}")).is(200, "ok");
    session.expect("4hello");
}

fn chunked_body_in_pieces(server: &'static Server) {
    let session = server.polling(ENGINE);
    let mut connection = server.connect();
    let head = head("POST", &session.target, "Transfer-Encoding: Chunked\r\n");
    for byte in format!("{head}6\r\n4hello\r\n0\r\n\r\n").bytes() {
        connection.write([byte]);
    }
    connection.response().is(200, "ok");
    session.expect("4hello");
}

/// RFC 9112 section 6.3 lets a server merge equal lengths or refuse them.
fn equal_lengths(server: &'static Server) {
    let session = server.polling(ENGINE);
    let fields = "Content-Length: 2\r\nContent-Length: 2\r\n";
    let response = server.raw(head("POST", &session.target, fields) + "4x");
    assert!(matches!(response.status, 200 | 400), "{response:?}");
}

fn http_1_0_closes(server: &'static Server) {
    let mut connection = server.connect();
    connection.write(format!("GET {ENGINE} HTTP/1.0\r\n\r\n"));
    assert_eq!(connection.response().status, 200);
    connection.ends();
}

fn close_is_honoured(server: &'static Server) {
    let mut connection = server.connect();
    connection.write(head("GET", ENGINE, "Connection: close\r\n"));
    let response = connection.response();
    assert_eq!(response.status, 200);
    assert_eq!(response.field("connection").as_deref(), Some("close"));
    connection.ends();
}

fn leading_line_end(server: &'static Server) {
    let response = server.raw(format!("\r\n{}", head("GET", ENGINE, "")));
    assert_eq!(response.status, 200);
}

/// The second request line is inside the first one's body.
fn body_of_a_get_is_no_request(server: &'static Server) {
    let inner = head("GET", "/engine.io/?EIO=4", "");
    let mut connection = server.connect();
    connection.write(head(
        "GET",
        ENGINE,
        &format!("Content-Length: {}\r\n", inner.len()),
    ));
    connection.write(&inner);
    connection.write(head("GET", "/nowhere", "Connection: close\r\n"));
    let first = connection.response();
    if first.status == 200 && first.field("connection").as_deref() != Some("close") {
        assert_eq!(connection.response().status, 404);
    }
    connection.ends();
}

/// The same behind a refusal: what follows an unread body is not taken for a request.
fn unread_body_is_no_request(server: &'static Server) {
    let inner = head("GET", ENGINE, "");
    let mut connection = server.connect();
    connection.write(post(
        "/engine.io/?EIO=4&transport=polling",
        inner.as_bytes(),
    ));
    let response = connection.response();
    response.is_error(2);
    if response.field("connection").as_deref() != Some("close") {
        connection.get("/engine.io/?EIO=4").is_error(0);
    }
}

fn pipelined_in_order(server: &'static Server) {
    let mut connection = server.connect();
    let mut requests = String::new();
    for _ in 0..8 {
        requests += &head("GET", ENGINE, "");
        requests += &head("GET", "/engine.io/?EIO=4", "");
        requests += &head("GET", "/nowhere", "");
    }
    connection.write(requests);
    for _ in 0..8 {
        assert_eq!(connection.response().status, 200);
        connection.response().is_error(0);
        assert_eq!(connection.response().status, 404);
    }
}

fn expectation_is_no_obstacle(server: &'static Server) {
    let session = server.polling(ENGINE);
    let fields = "Expect: 100-continue\r\nContent-Length: 6\r\n";
    let mut connection = server.connect();
    connection.write(head("POST", &session.target, fields) + "4hello");
    let mut response = connection.response();
    if response.status == 100 {
        response = connection.response();
    }
    response.is(200, "ok");
    session.expect("4hello");
}

fn h2c_is_ignored(server: &'static Server) {
    let fields =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let response = server.raw(head("GET", ENGINE, fields));
    assert_ne!(response.status, 101, "{response:?}");
}

fn head_byte_by_byte(server: &'static Server) {
    let mut connection = server.connect();
    for byte in head("GET", ENGINE, "").bytes() {
        connection.write([byte]);
    }
    assert_eq!(connection.response().status, 200);
}

/// First byte 10 s, whole head 10 s, idle 30 s: single bytes push none of them back.
fn silent_and_dripping_connections_end(server: &'static Server) {
    if !long() {
        return;
    }
    let start = Instant::now();
    let silent = server.connect();
    let mut dripping = server.connect();
    dripping.write("GET / HTTP/1.1\r\nHost: a\r\nName: ");
    for mut connection in [silent, dripping] {
        connection
            .stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        loop {
            connection.write("");
            let mut byte = [0];
            match std::io::Read::read(&mut connection.stream, &mut byte) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            assert!(start.elapsed() < Duration::from_secs(20), "still open");
        }
    }
    assert!(start.elapsed() > Duration::from_secs(8), "ended too soon");
}
