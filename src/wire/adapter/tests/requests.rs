//! Requests and responses.

use super::*;
use crate::wire::msgpack::Writer;

pub(super) fn request(what: Ask) -> Request {
    Request {
        uid: Some("x7Sa6C".into()),
        id: Some("Ab12Cd".into()),
        what,
    }
}

fn opts() -> Opts {
    Opts {
        rooms: names(&["r", "5"]),
        except: names(&["\"quoted\""]),
        flags: Flags::default(),
    }
}

#[test]
fn requests_are_written_as_node_writes_them() {
    let fetch = encode_request(&request(Ask::Fetch(opts())));
    assert_eq!(
        String::from_utf8(fetch).unwrap(),
        r#"{"uid":"x7Sa6C","requestId":"Ab12Cd","type":5,"opts":{"rooms":["r","5"],"except":["\"quoted\""]}}"#
    );
    let emit = encode_request(&Request {
        uid: Some("x7Sa6C".into()),
        id: None,
        what: Ask::ServerSideEmit {
            event: "hello".into(),
            args: args("1,{\"a\":2}"),
        },
    });
    assert_eq!(
        String::from_utf8(emit).unwrap(),
        r#"{"uid":"x7Sa6C","type":6,"data":["hello",1,{"a":2}]}"#
    );
}

#[test]
fn requests_read_back() {
    let binary = Args::new(
        r#"{"_placeholder":true,"num":0},1"#.into(),
        vec![Bytes::from_static(b"\x07")],
    );
    let mut timed = opts();
    timed.flags.timeout = Some(5_000);
    let all = [
        Ask::Sockets(names(&["r"])),
        Ask::AllRooms,
        Ask::Join(opts(), names(&["new"])),
        Ask::Leave(opts(), names(&[])),
        Ask::Disconnect(opts(), true),
        Ask::Fetch(Opts::default()),
        Ask::ServerSideEmit {
            event: "e".into(),
            args: args("1,\"two\""),
        },
        Ask::ServerSideEmit {
            event: "e".into(),
            args: binary.clone(),
        },
        Ask::Broadcast {
            namespace: "/chat".into(),
            event: "e".into(),
            args: binary,
            opts: timed,
        },
    ];
    for what in all {
        let request = request(what);
        let written: Bytes = encode_request(&request).into();
        assert_eq!(decode_request(&written, BYTES_MAX), Ok(request));
        for length in 0..written.len() {
            decode_request(&written.slice(..length), BYTES_MAX).unwrap_err();
        }
    }
}

#[test]
fn old_and_foreign_requests_are_taken() {
    let read = |json: &str| decode_request(&Bytes::copy_from_slice(json.as_bytes()), BYTES_MAX);
    let old = read(r#"{"requestId":"a","type":2,"sid":"S","room":5}"#).unwrap();
    let only = Opts {
        rooms: names(&["S"]),
        ..Opts::default()
    };
    assert_eq!(old.what, Ask::Join(only.clone(), names(&["5"])));
    assert_eq!((old.uid, old.id), (None, Some("a".into())));
    let old = read(r#"{"requestId":"a","type":4,"sid":"S"}"#).unwrap();
    assert_eq!(old.what, Ask::Disconnect(only, false));
    let emitted = read(r#"{"type":4,"opts":{"rooms":["r"],"except":[]},"close":true}"#).unwrap();
    assert_eq!((emitted.uid, emitted.id), (None, None));
    for (json, cause) in [
        (r#"{"type":5}"#, Undecodable::Shape),
        (r#"{"type":2,"opts":{}}"#, Undecodable::Shape),
        (r#"{"type":6,"data":{}}"#, Undecodable::Shape),
        (r#"{"type":6,"data":[]}"#, Undecodable::Shape),
        (
            r#"{"type":6,"data":["disconnect"]}"#,
            Undecodable::ReservedName,
        ),
        (r#"{"type":8,"requestId":"a"}"#, Undecodable::Type),
        (r#"{"type":77}"#, Undecodable::Type),
        (
            r#"{"type":3,"data":{"packet":{"type":2}},"uid":"0123456789abcdef","nsp":"/"}"#,
            Undecodable::Shape,
        ),
        ("{}", Undecodable::Type),
        ("{", Undecodable::Syntax),
        ("{\"a\":\"\u{7f}", Undecodable::Syntax),
        ("[1]", Undecodable::Shape),
    ] {
        assert_eq!(read(json).map(|_| ()), Err(cause), "{json}");
    }
    let deep = format!(
        r#"{{"type":6,"data":["e",{}{}]}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    assert_eq!(read(&deep).unwrap_err(), Undecodable::TooDeep);
}

#[test]
fn responses_read_back() {
    let binary = Args::new(
        r#"{"_placeholder":true,"num":0}"#.into(),
        vec![Bytes::from_static(b"\x07")],
    );
    let socket = Socket {
        id: "S".into(),
        rooms: names(&["S"]),
        handshake: Text::default(),
    };
    let all = [
        Answer::Sockets(names(&["S", "T"])),
        Answer::Rooms(names(&["r"])),
        Answer::Done,
        Answer::Fetched(Sockets::default()),
        Answer::Fetched(Sockets::from_iter([socket])),
        Answer::ServerSideAck(args("[1]")),
        Answer::ServerSideAck(Args::none()),
        Answer::ServerSideAck(binary.clone()),
        Answer::ClientCount(3),
        Answer::ClientAck(args("{\"a\":1}")),
        Answer::ClientAck(Args::none()),
        Answer::ClientAck(binary),
    ];
    for what in all {
        let response = Response {
            id: "Ab12Cd".into(),
            what,
        };
        let written: Bytes = encode_response(&response).into();
        assert_eq!(decode_response(&written, BYTES_MAX), Ok(response));
    }
    let count = Response {
        id: "a".into(),
        what: Answer::ClientCount(0),
    };
    let text = String::from_utf8(encode_response(&count)).unwrap();
    assert_eq!(text, r#"{"type":8,"requestId":"a","clientCount":0}"#);
}

#[test]
fn a_fetched_socket_has_what_node_reads() {
    let handshake = r#"{"address":"::1","issued":5}"#;
    let socket = Socket {
        id: "S".into(),
        rooms: names(&["S", "r"]),
        handshake: handshake.into(),
    };
    let response = Response {
        id: "a".into(),
        what: Answer::Fetched(Sockets::from_iter([socket])),
    };
    let written: Value = serde_json::from_slice(&encode_response(&response)).unwrap();
    let expected = json!({"requestId": "a", "sockets": [{
        "id": "S", "handshake": {"address": "::1", "issued": 5}, "rooms": ["S", "r"], "data": {},
    }]});
    assert_eq!(written, expected);
}

/// A JSON text as MessagePack.
fn packed(json: &str) -> Bytes {
    let mut writer = Writer::default();
    packed::write_value(&mut writer, json, &[]);
    writer.into_bytes().into()
}

#[test]
fn messagepack_says_what_json_says() {
    for request in [
        r#"{"uid":"u","requestId":5,"type":0,"rooms":["a",7,-1,1.5]}"#,
        r#"{"requestId":"r","type":1,"other":[[{}]]}"#,
        r#"{"type":2,"opts":{"rooms":["r"],"except":null,"flags":{"volatile":true,"compress":false,"timeout":9}},"rooms":["b"]}"#,
        r#"{"type":2,"sid":"S","room":5}"#,
        r#"{"type":3,"opts":{"flags":null},"rooms":[]}"#,
        r#"{"type":4,"sid":"S","close":true,"uid":null}"#,
        r#"{"type":5,"opts":{}}"#,
        r#"{"type":6,"data":["e",{"a":["\u0001\"\\é",null,-3]}]}"#,
        r#"{"type":7,"packet":{"type":5,"data":["e",1],"nsp":"/x"},"opts":{"rooms":["r"]}}"#,
        r#"{"type":7,"packet":{"type":2,"data":["e"]},"opts":{}}"#,
        r#"{"type":7,"packet":{"type":3,"data":["e"]},"opts":{}}"#,
        r#"{"type":6,"data":["connect"]}"#,
        r#"{"type":6}"#,
        r#"{"type":2,"opts":{}}"#,
        r#"{"type":0,"rooms":[null]}"#,
        r#"{"type":0,"rooms":5}"#,
        r#"{"type":4,"sid":"S","close":1}"#,
        r#"{"type":-1}"#,
        r#"{"type":"1"}"#,
        r#"{"uid":[],"type":1}"#,
        "{}",
    ] {
        let text = Bytes::copy_from_slice(request.as_bytes());
        let read = decode_request(&packed(request), BYTES_MAX);
        assert_eq!(read, decode_request(&text, BYTES_MAX), "{request}");
    }
    for response in [
        r#"{"requestId":"r","sockets":["S","T"]}"#,
        r#"{"requestId":"r","sockets":[]}"#,
        r#"{"requestId":"r","sockets":[{"handshake":{"a":[1]},"rooms":["a",5],"id":"S"},{"id":"T","rooms":null}]}"#,
        r#"{"requestId":"r","sockets":[{"id":"S"},"T"]}"#,
        r#"{"requestId":"r","sockets":["S",{"id":"T"}]}"#,
        r#"{"requestId":"r","sockets":[{"rooms":[]}]}"#,
        r#"{"requestId":"r","sockets":[null]}"#,
        r#"{"requestId":"r","rooms":["a"]}"#,
        r#"{"requestId":"r","sockets":null,"rooms":null}"#,
        r#"{"requestId":"r","type":6,"data":[1,{}]}"#,
        r#"{"requestId":"r","type":6,"data":null}"#,
        r#"{"requestId":"r","type":8,"clientCount":2}"#,
        r#"{"requestId":"r","type":8}"#,
        r#"{"requestId":"r","type":9,"packet":"x"}"#,
        r#"{"type":9,"packet":"x"}"#,
        r#"{"requestId":"r","type":1}"#,
    ] {
        let text = Bytes::copy_from_slice(response.as_bytes());
        let read = decode_response(&packed(response), BYTES_MAX);
        assert_eq!(read, decode_response(&text, BYTES_MAX), "{response}");
    }
}

#[test]
fn names_that_are_no_text_are_read_as_far_as_they_are() {
    let message = hex("82 a474797065 00 a5726f6f6d73 92 a261ff 05");
    let read = decode_request(&message, BYTES_MAX).unwrap();
    assert_eq!(read.what, Ask::Sockets(names(&["a\u{fffd}", "5"])));
    let message = hex("82 a9726571756573744964 a172 a7736f636b657473 91 81 a26964 a1fe");
    let Answer::Fetched(sockets) = decode_response(&message, BYTES_MAX).unwrap().what else {
        panic!("it is a list of sockets")
    };
    assert_eq!(&*sockets.iter().next().unwrap().id, "\u{fffd}");
    let undefined = hex("84 a474797065 02 a3736964 a153 a4726f6f6d a172 a46f707473 d40000");
    let read = decode_request(&undefined, BYTES_MAX).unwrap();
    assert!(matches!(read.what, Ask::Join(opts, _) if opts.rooms == names(&["S"])));
}
