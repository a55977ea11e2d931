//! Every rule about heads, each with the status that it earns.

use proptest::prelude::*;

use super::*;

/// The first head of `input` when it comes in pieces of `step` bytes, and what is left of it.
fn feed(input: &[u8], step: usize) -> Result<Option<(RequestHead, Vec<u8>)>, HttpError> {
    let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
    let mut head = None;
    for piece in input.chunks(step) {
        buffer.extend_from_slice(piece);
        if head.is_none() {
            head = reader.read(&mut buffer)?;
        }
    }
    Ok(head.map(|head| (head, buffer.to_vec())))
}

fn parse_whole(input: &str) -> Result<RequestHead, HttpError> {
    for step in [1, 3] {
        let (dripped, whole) = (
            feed(input.as_bytes(), step),
            feed(input.as_bytes(), input.len()),
        );
        assert_eq!(
            dripped.map(|found| found.is_some()),
            whole.map(|found| found.is_some()),
            "{input:?} by {step}"
        );
    }
    feed(input.as_bytes(), input.len()).map(|found| found.expect("the head is complete").0)
}

fn refused(input: &str, error: HttpError) {
    assert_eq!(
        parse_whole(input).map(|head| head.method()),
        Err(error),
        "{input:?}"
    );
}

/// A request with these field lines beside a valid Host.
fn with_fields(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn a_request_is_read_up_to_its_empty_line() {
    let input = b"GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: a:1\r\nX-Y:  b \r\nx-y:\xff\r\n\r\nrest";
    for step in 1..input.len() {
        let (head, rest) = feed(input, step).unwrap().unwrap();
        assert_eq!(head.method(), Method::Get);
        assert_eq!(
            (head.path(), head.query().as_str()),
            ("/socket.io/", "EIO=4")
        );
        assert_eq!(head.field("x-y"), Some("b"));
        assert_eq!(head.fields().count(), 3);
        assert!(head.keep_alive() && !head.is_http_1_0());
        assert_eq!(head.framing(), Framing::Length(0));
        assert_eq!(rest, b"rest");
    }
}

#[test]
fn two_requests_in_one_read_come_one_after_the_other() {
    let one = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut buffer = BytesMut::from(format!("{one}\r\n{one}").as_bytes());
    let mut reader = HeadReader::default();
    assert!(reader.read(&mut buffer).unwrap().is_some());
    assert!(reader.read(&mut buffer).unwrap().is_some());
    assert!(reader.read(&mut buffer).unwrap().is_none() && buffer.is_empty());
}

#[test]
fn one_empty_line_before_a_request_is_skipped_and_not_two() {
    assert!(parse_whole("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    refused(
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        HttpError::RequestLine,
    );
    refused(
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        HttpError::RequestLine,
    );
}

#[test]
fn request_lines_have_three_words_and_single_spaces() {
    for line in [
        "GET",
        "GET /",
        "GET  / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "GET / HTTPS/1.1",
        "G@T / HTTP/1.1",
        "GET / a HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "PROXY TCP4 127.0.0.1 127.0.0.1 1 2",
        "\x16\x03\x01",
    ] {
        refused(
            &format!("{line}\r\nHost: a\r\n\r\n"),
            HttpError::RequestLine,
        );
    }
}

#[test]
fn a_refused_request_line_does_not_wait_for_its_fields() {
    let mut buffer = BytesMut::from("PRI * HTTP/2.0\r\n");
    let result = HeadReader::default().read(&mut buffer);
    assert_eq!(result.map(|head| head.is_some()), Err(HttpError::Version));
}

#[test]
fn versions_beside_1_0_and_1_1_are_refused_with_505() {
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/1.2"] {
        refused(
            &format!("GET / {version}\r\nHost: a\r\n\r\n"),
            HttpError::Version,
        );
    }
    assert_eq!(HttpError::Version.status(), 505);
}

#[test]
fn targets_come_in_origin_absolute_and_asterisk_form() {
    let of = |line: &str| {
        parse_whole(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .map(|head| (head.path().to_owned(), head.query().as_str().to_owned()))
    };
    let both = |path: &str, query: &str| Ok((path.to_owned(), query.to_owned()));
    assert_eq!(of("GET http://b:80/x?y=http://c"), both("/x", "y=http://c"));
    assert_eq!(of("GET HTTPS://b/x"), both("/x", ""));
    assert_eq!(of("GET http://b?y"), both("", "y"));
    assert_eq!(of("GET /x://y?z?w"), both("/x://y", "z?w"));
    assert_eq!(of("OPTIONS *"), both("*", ""));
    assert_eq!(of("CONNECT b:80"), both("b:80", ""));
    for bad in [
        "GET *",
        "GET b:80",
        "GET x/y",
        "GET ftp://b/",
        "GET http:///x",
        "GET http://u@b/",
        "GET /x#y",
        "GET /ä",
        "GET ?x",
    ] {
        assert_eq!(of(bad), Err(HttpError::Target), "{bad}");
    }
}

#[test]
fn methods_are_told_apart_by_case() {
    let of = |name: &str| {
        parse_whole(&format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n"))
            .unwrap()
            .method()
    };
    assert_eq!(of("PATCH"), Method::Patch);
    assert_eq!(of("TRACE"), Method::Trace);
    assert_eq!(of("get"), Method::Unknown);
    assert_eq!(of("BREW"), Method::Unknown);
}

#[test]
fn host_stands_there_exactly_once() {
    refused("GET / HTTP/1.1\r\n\r\n", HttpError::Host);
    refused(
        "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        HttpError::Host,
    );
    refused("GET / HTTP/1.1\r\nHost:\r\n\r\n", HttpError::Host);
    refused("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HttpError::Host);
    refused("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HttpError::Host);
    refused(
        "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        HttpError::Host,
    );
    assert!(parse_whole("GET / HTTP/1.0\r\n\r\n").is_ok());
}

#[test]
fn field_lines_are_a_token_a_colon_and_a_value() {
    for line in [
        "A : b",
        " A: b",
        "A\t: b",
        ": b",
        "no colon",
        "A b: c",
        "A(: b",
        "A: b\r\n folded",
        "A: \0",
        "A: \x01",
        "A: \x7f",
        "Ä: b",
        "A: b\rc",
    ] {
        refused(&with_fields(&format!("{line}\r\n")), HttpError::FieldLine);
    }
    refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", HttpError::FieldLine);
    refused(
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        HttpError::LineEnd,
    );
    refused("GET / HTTP/1.1\nHost: a\r\n\r\n", HttpError::LineEnd);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\n", HttpError::LineEnd);
    assert!(parse_whole(&with_fields("A:b\r\nB:\r\nC: \tx\ty \r\n")).is_ok());
}

#[test]
fn lengths_are_one_line_of_digits() {
    for bad in [
        "",
        "-1",
        "+1",
        "1 1",
        "1,1",
        "0x1",
        "1a",
        "18446744073709551616",
        "1.0",
        "\u{b2}",
    ] {
        refused(
            &with_fields(&format!("Content-Length: {bad}\r\n")),
            HttpError::ContentLength,
        );
    }
    refused(
        &with_fields("Content-Length: 1\r\nContent-Length: 1\r\n"),
        HttpError::ContentLength,
    );
    let head = parse_whole(&with_fields("content-length: 007\r\n")).unwrap();
    assert_eq!(head.framing(), Framing::Length(7));
}

#[test]
fn the_only_transfer_coding_is_chunked() {
    let head = parse_whole(&with_fields("Transfer-Encoding: CHUNKED\r\n")).unwrap();
    assert_eq!(head.framing(), Framing::Chunked);
    for bad in [
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "identity",
        "",
        "xchunked",
        "chunked;q=1",
    ] {
        let fields = with_fields(&format!("Transfer-Encoding: {bad}\r\n"));
        refused(&fields, HttpError::TransferEncoding);
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    refused(&with_fields(twice), HttpError::TransferEncoding);
    let both = "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n";
    refused(&with_fields(both), HttpError::AmbiguousLength);
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(old, HttpError::TransferEncodingInHttp10);
    // A value that is no text must not be overlooked.
    let odd = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xffchunked\r\n\r\n";
    let odd = feed(odd, odd.len()).map(|head| head.is_some());
    assert_eq!(odd, Err(HttpError::TransferEncoding));
}

#[test]
fn the_connection_stays_open_unless_somebody_wants_it_closed() {
    let of = |version: &str, connection: &str| {
        let field = format!("Connection: {connection}\r\n");
        let input = format!("GET / {version}\r\nHost: a\r\n{field}\r\n");
        parse_whole(&input).unwrap().keep_alive()
    };
    assert!(of("HTTP/1.1", "x, y"));
    assert!(!of("HTTP/1.1", "x, Close"));
    assert!(of("HTTP/1.0", "Keep-Alive"));
    assert!(!of("HTTP/1.0", "x"));
}

#[test]
fn heads_are_bounded_while_they_come() {
    let long = "x".repeat(REQUEST_LINE_BYTES_MAX);
    assert_eq!(feed(long.as_bytes(), 1000).map(|_| ()), Ok(()));
    let longer = format!("{long}x");
    assert_eq!(
        feed(longer.as_bytes(), 1000).map(|_| ()),
        Err(HttpError::RequestLineTooLong)
    );
    refused(
        &format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        HttpError::RequestLineTooLong,
    );

    let start = "GET / HTTP/1.1\r\nHost: a\r\n";
    let endless = format!("{start}X: {}", "x".repeat(FIELDS_BYTES_MAX));
    assert_eq!(
        feed(endless.as_bytes(), 1000).map(|_| ()),
        Err(HttpError::HeadTooLarge)
    );
    let lines = |count: usize| format!("{start}{}\r\n", "X: y\r\n".repeat(count));
    assert!(parse_whole(&lines(FIELD_LINES_MAX - 1)).is_ok());
    refused(&lines(FIELD_LINES_MAX), HttpError::HeadTooLarge);
    assert_eq!(HttpError::HeadTooLarge.status(), 431);
    assert_eq!(HttpError::RequestLineTooLong.status(), 414);
}

#[test]
fn a_head_that_comes_byte_by_byte_is_looked_at_once() {
    let mut reader = HeadReader::default();
    let mut buffer = BytesMut::new();
    for byte in "GET / HTTP/1.1\r\nHost: a\r\nX: y".bytes() {
        buffer.extend_from_slice(&[byte]);
        assert!(reader.read(&mut buffer).unwrap().is_none());
        assert_eq!(reader.scanned, buffer.len());
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same_requests(
        input in r"(\r\n)?(GET|POST|get) (/|/a\?b|\*) HTTP/1\.[0-2]\r\n((Host: a|X:|Y : 1|Content-Length: 3|Connection: close)(\r\n|\n)){0,3}\r\n[a-z]{0,3}",
        step in 1_usize..20,
    ) {
        let result = |step| feed(input.as_bytes(), step).map(|found| {
            found.map(|(head, rest)| (head.method(), head.framing(), head.fields.len(), rest))
        });
        prop_assert_eq!(result(step), result(input.len()));
    }

    #[test]
    fn no_bytes_do_harm(input in prop::collection::vec(any::<u8>(), 0..200), step in 1_usize..50) {
        let _ = feed(&input, step);
    }
}

/// What was looked at may change without being noticed, until its line ends: so a head that drips is
/// looked at once, not anew with each byte (CVE-2023-43669).
#[test]
fn a_dripped_head_costs_what_a_whole_one_costs() {
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nName: {}\r\n\r\n",
        "x".repeat(16_000)
    );
    let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
    for (at, byte) in head.bytes().enumerate() {
        buffer.extend_from_slice(&[byte]);
        if byte == b'\n' {
            buffer.copy_from_slice(&head.as_bytes()[..=at]);
        }
        let read = reader
            .read(&mut buffer)
            .expect("nobody looks at the line ends");
        assert_eq!(read.is_some(), at + 1 == head.len());
        if buffer.len() > 1 {
            // A line end that is seen would end the reading.
            buffer[1..].fill(b'\n');
        }
    }
}
