//! Requests and responses.

use super::*;

pub(super) fn request(what: Ask) -> Request {
    Request {
        uid: Some("x7Sa6C".into()),
        id: Some("Ab12Cd".into()),
        what,
    }
}

fn opts() -> Opts {
    Opts {
        rooms: vec!["r".into(), "5".into()],
        except: vec!["\"quoted\"".into()],
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
        Ask::Sockets(vec!["r".into()]),
        Ask::AllRooms,
        Ask::Join(opts(), vec!["new".into()]),
        Ask::Leave(opts(), vec![]),
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
        rooms: vec!["S".into()],
        ..Opts::default()
    };
    assert_eq!(old.what, Ask::Join(only.clone(), vec!["5".into()]));
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
        ("[1]", Undecodable::Trailing),
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
    let all = [
        Answer::Sockets(vec!["S".into(), "T".into()]),
        Answer::Rooms(vec!["r".into()]),
        Answer::Done,
        Answer::Fetched(vec![]),
        Answer::Fetched(vec![Socket {
            id: "S".into(),
            rooms: vec!["S".into()],
            handshake: Text::default(),
        }]),
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
        rooms: vec!["S".into(), "r".into()],
        handshake: handshake.into(),
    };
    let response = Response {
        id: "a".into(),
        what: Answer::Fetched(vec![socket]),
    };
    let written: Value = serde_json::from_slice(&encode_response(&response)).unwrap();
    let expected = json!({"requestId": "a", "sockets": [{
        "id": "S", "handshake": {"address": "::1", "issued": 5}, "rooms": ["S", "r"], "data": {},
    }]});
    assert_eq!(written, expected);
}
