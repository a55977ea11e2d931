mod requests;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::wire::socket_io::{ATTACHMENTS_MAX, Args, ArgsBuilder};

const BYTES_MAX: usize = 1 << 20;

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

fn args(list: &str) -> Args {
    Args::new(list.into(), Vec::new())
}

fn names(names: &[&str]) -> Names {
    names.iter().copied().collect()
}

fn broadcast(event: &str, args: Args, rooms: &[&str]) -> Broadcast {
    Broadcast {
        uid: "x7Sa6C".into(),
        namespace: "/".into(),
        event: event.into(),
        args,
        opts: Opts {
            rooms: names(rooms),
            ..Opts::default()
        },
        stamp: None,
    }
}

fn decode(message: &[u8]) -> Result<Broadcast, Undecodable> {
    decode_broadcast(&Bytes::copy_from_slice(message), BYTES_MAX)
}

/// A tuple around the MessagePack of the arguments behind the event's name.
fn tuple(count: u8, arguments: &str) -> Bytes {
    let data = 0x90 | (count + 1);
    hex(&format!(
        "93 a178 83 a474797065 02 a464617461 {data:02x} a165 {arguments} a36e7370 a12f \
         83 a5726f6f6d73 90 a6657863657074 90 a5666c616773 80"
    ))
}

fn decoded_list(count: u8, arguments: &str) -> Result<String, Undecodable> {
    let decoded = decode_broadcast(&tuple(count, arguments), BYTES_MAX)?;
    Ok(decoded.args.list().to_string())
}

const NODE: &str = "93a658793361426383a47479706502a46461746192a2686901a36e7370a12f83a5726f6f6d73\
                    91a27231a665786365707490a5666c61677380";
const EMITTED: &str = "93a7656d697474657283a47479706502a46461746192a2686901a36e7370a12f83a5726f6f6d\
                       7391a27231a5666c61677380a665786365707490";

#[test]
fn nodes_own_bytes_are_read_and_written() {
    let message = hex(NODE);
    let read = decode(&message).unwrap();
    assert_eq!(sender(&message), Some("Xy3aBc"));
    let mut expected = broadcast("hi", args("1"), &["r1"]);
    expected.uid = "Xy3aBc".into();
    assert_eq!(read, expected);
    assert_eq!(encode_broadcast(&read), message);
}

#[test]
fn the_emitters_bytes_are_read() {
    let read = decode(&hex(EMITTED)).unwrap();
    let mut expected = broadcast("hi", args("1"), &["r1"]);
    expected.uid = EMITTER.into();
    assert_eq!(read, expected);
}

#[test]
fn every_truncation_is_an_error() {
    let mut stamped = broadcast("e", args(r#"{"a":[1,"b",-3.5]},null"#), &["r", "s"]);
    stamped.stamp = Some(Stamp {
        count: 70_000,
        seq: Some(9),
        presence: None,
    });
    for message in [hex(NODE), hex(EMITTED), encode_broadcast(&stamped).into()] {
        for length in 0..message.len() {
            let error = decode(&message[..length]).unwrap_err();
            assert_eq!(error, Undecodable::Truncated, "{length}");
        }
        let longer = [&message, &b"\xc0"[..]].concat();
        assert_eq!(decode(&longer), Err(Undecodable::Trailing));
    }
}

#[test]
fn takes_every_form_of_a_field() {
    // Keys in another order, type as a float, str8, a room that is a number, no flags, no nsp, unknown keys.
    let message = hex(
        "93 d90178 82 a464617461 dc0001 da000165 a474797065 cb4000000000000000 \
         84 a26f6b c3 a6657863657074 92 05 cb4016000000000000 a5726f6f6d73 c0 a5666c616773 c0",
    );
    let read = decode(&message).unwrap();
    assert_eq!(
        (&*read.uid, &*read.namespace, &*read.event),
        ("x", "/", "e")
    );
    assert_eq!(read.opts.except, names(&["5", "5.5"]));
    assert!(read.opts.rooms.is_empty());
    let flagged = hex("93 a178 82 a464617461 91 a165 a474797065 05 \
         81 a5666c616773 84 a8766f6c6174696c65 c3 a8636f6d7072657373 c2 a774696d656f7574 64 a178 93 010203");
    let flags = decode(&flagged).unwrap().opts.flags;
    let expected = Flags {
        volatile: true,
        compress: false,
        timeout: Some(100),
    };
    assert_eq!(flags, expected);
}

#[test]
fn values_become_what_json_stringify_makes_of_them() {
    let cases = [
        ("cc ff", "255"),
        ("cf 0020000000000000", "9007199254740992"),
        ("cf ffffffffffffffff", "18446744073709551615"),
        ("d3 8000000000000000", "-9223372036854775808"),
        ("d0 7f", "127"),
        ("e0", "-32"),
        ("cb 3ff8000000000000", "1.5"),
        ("cb 4000000000000000", "2"),
        ("cb 8000000000000000", "-0.0"),
        ("cb 7ff8000000000000", "null"),
        ("cb 7ff0000000000000", "null"),
        ("ca 3fc00000", "1.5"),
        ("a3 e280a8", "\"\u{2028}\""),
        ("a3 22 5c 0a", r#""\"\\\n""#),
        ("a1 ff", "\"\u{fffd}\""),
        ("d6 ff 5e0be100", r#""2020-01-01T00:00:00.000Z""#),
        ("d7 ff 77359400 5e0be100", r#""2020-01-01T00:00:00.500Z""#),
        (
            "c7 0c ff 00000000 ffffffffffffffff",
            r#""1969-12-31T23:59:59.000Z""#,
        ),
        ("c7 0c ff 00000000 7fffffffffffffff", "null"),
        ("c7 03 ff 000000", "null"),
        ("d7 00 0000016f5e66e800", r#""2020-01-01T00:00:00.000Z""#),
        ("92 d40000 01", "[null,1]"),
        ("83 a161 01 a162 d40000 a163 02", r#"{"a":1,"c":2}"#),
        ("81 a161 d40000", "{}"),
        ("82 05 01 c3", ""),
        ("81 cb3ff8000000000000 c2", r#"{"1.5":false}"#),
        ("d4 05 01", r#"[5,{"_placeholder":true,"num":0}]"#),
        ("c4 02 0102", r#"{"_placeholder":true,"num":0}"#),
    ];
    for (bytes, json) in cases {
        let list = decoded_list(1, bytes);
        if json.is_empty() {
            assert_eq!(list, Err(Undecodable::Shape), "{bytes}");
        } else {
            assert_eq!(list.as_deref(), Ok(json), "{bytes}");
        }
    }
}

#[test]
fn json_becomes_what_node_would_send() {
    let cases = [
        ("1", "01"),
        ("1.0", "01"),
        ("-0", "cb8000000000000000"),
        ("255", "ccff"),
        ("-33", "d0df"),
        ("4294967296", "cf0000000100000000"),
        ("9007199254740992", "cf0020000000000000"),
        ("9007199254740994", "cb4340000000000001"),
        ("1e400", "c0"),
        ("0.5", "cb3fe0000000000000"),
        (r#""\u00e4\n""#, "a3c3a40a"),
        (r#""\ud83d\ude00""#, "a4f09f9880"),
        (r#""\ud83d""#, "a3efbfbd"),
        (r#""\ud83dx""#, "a4efbfbd78"),
        ("[ ]", "90"),
        (r#"{ "a" : [ 1 , [ ] ] , "b" : { } }"#, "82a161920190a16280"),
        (
            r#"{"_placeholder":true,"num":0}"#,
            "82ac5f706c616365686f6c646572c3a36e756d00",
        ),
    ];
    for (json, bytes) in cases {
        let written = encode_broadcast(&broadcast("e", args(json), &[]));
        let start = hex("93 a6783753613643 83 a474797065 02 a464617461 92 a165");
        let rest = written.strip_prefix(&start[..]).unwrap();
        assert!(rest.starts_with(&hex(bytes)), "{json}: {rest:02x?}");
    }
    let many = format!("[{}]", ["0"; 16].join(","));
    let written = encode_broadcast(&broadcast("e", args(&many), &[]));
    assert!(written.windows(4).any(|bytes| bytes == [0xdc, 0, 16, 0]));
}

#[test]
fn attachments_travel_inside() {
    let data = [Bytes::from_static(b"\x01"), Bytes::from_static(b"two")];
    let list = r#"{"a":{"num":1,"_placeholder":true}},[{"_placeholder":true,"num":0,"x":[1,{}]}],{"num":1}"#;
    let sent = broadcast("e", Args::new(list.into(), data.to_vec()), &["r"]);
    let read = decode(&encode_broadcast(&sent)).unwrap();
    let expected =
        r#"{"a":{"_placeholder":true,"num":0}},[{"_placeholder":true,"num":1}],{"num":1}"#;
    assert_eq!(&**read.args.list(), expected);
    assert_eq!(read.args.attachments(), [data[1].clone(), data[0].clone()]);
    assert_eq!(decode(&encode_broadcast(&read)), Ok(read));
}

#[test]
fn a_forged_placeholder_is_refused_only_where_it_would_harm() {
    let forged = "82 ac5f706c616365686f6c646572 c3 a36e756d 07";
    assert!(decoded_list(1, forged).is_ok());
    let beside = decoded_list(2, &format!("{forged} c40101"));
    assert_eq!(beside, Err(Undecodable::Placeholder));
}

#[test]
fn only_our_own_fourth_element_counts() {
    let mut ours = broadcast("e", Args::none(), &["r"]);
    for stamp in [
        Stamp {
            count: 1,
            seq: None,
            presence: None,
        },
        Stamp {
            count: 1 << 40,
            seq: Some(7),
            presence: None,
        },
        Stamp {
            count: 0,
            seq: None,
            presence: Some(Presence {
                host: 65_535,
                version: 3,
                user: "ada".into(),
            }),
        },
    ] {
        ours.stamp = Some(stamp);
        assert_eq!(decode(&encode_broadcast(&ours)), Ok(ours.clone()));
    }
    for other in [
        "c0",
        "93 01 02 03",
        "93 01 a131 c0",
        "92 01 02",
        "81 01 02",
        "a3 616263",
        "93 ff c0 c0",
    ] {
        let message = [&hex(&NODE.replacen("93", "94", 1)), &hex(other)[..]].concat();
        assert_eq!(decode(&message).unwrap().stamp, None, "{other}");
    }
}

#[test]
fn what_would_end_clients_is_refused() {
    for name in ["connect", "disconnect", "newListener"] {
        let named = broadcast(name, Args::none(), &[]);
        assert_eq!(
            decode(&encode_broadcast(&named)),
            Err(Undecodable::ReservedName)
        );
    }
    let deep = format!("{}00", "91".repeat(DEPTH));
    assert_eq!(decoded_list(1, &deep), Err(Undecodable::TooDeep));
    let deep = format!("{}00", "81 a161".repeat(DEPTH));
    assert_eq!(decoded_list(1, &deep), Err(Undecodable::TooDeep));
    let large = [
        hex("93 a178 82 a474797065 02 a464617461 92 a165 dd 00040000"),
        vec![0xc0; 1 << 18].into(),
    ]
    .concat();
    assert_eq!(decode(&large), Err(Undecodable::TooLarge));
}

#[test]
fn more_attachments_than_clients_take_are_refused() {
    let of = |count: usize| decoded_list(u8::try_from(count).unwrap(), &"c400".repeat(count));
    let most = of(ATTACHMENTS_MAX).unwrap();
    assert_eq!(most.matches("_placeholder").count(), ATTACHMENTS_MAX);
    assert_eq!(of(ATTACHMENTS_MAX + 1), Err(Undecodable::TooLarge));
    let emit = |count: usize| {
        let head = hex("82 a474797065 06 a464617461 dc 00");
        let count_byte = u8::try_from(count + 1).unwrap();
        let list = [b"\xa1e".as_slice(), &b"\xc4\x00".repeat(count)].concat();
        let message = [&head[..], &[count_byte], &list].concat();
        decode_request(&message.into(), BYTES_MAX)
    };
    assert!(emit(ATTACHMENTS_MAX).is_ok());
    assert_eq!(emit(ATTACHMENTS_MAX + 1), Err(Undecodable::TooLarge));
}

/// Deeper than is taken, whatever lies around it.
const DEPTH: usize = 140;

#[test]
fn rubbish_has_a_cause() {
    use Undecodable::{Shape, Syntax, Truncated, Type};
    let cases: &[(&[u8], Undecodable)] = &[
        (b"", Truncated),
        (b"hello", Shape),
        (b"{\"type\":3}", Shape),
        (b"\xc1", Syntax),
        (b"\xc0", Shape),
        (b"\x90", Shape),
        (b"\x93\xc0\xc0\xc0", Shape),
        (b"\x93\xa1x\x80\x80", Type),
        (b"\x93\xa1x\x81\xa4type\x02\x80", Shape),
        (b"\x93\xa1x\x82\xa4type\x02\xa4data\x90\x80", Shape),
        (b"\x93\xa1x\x82\xa4type\x02\xa4data\x91\xc0\x80", Shape),
        (b"\x93\xa1x\x82\xa4type\x03\xa4data\x91\xa1e\x80", Type),
        (b"\x93\xa1x\x82\xa4type\x02\xa4data\x91\xa1e\xc0", Shape),
        (b"\xdd\xff\xff\xff\xff", Truncated),
        (b"\xdf\xff\xff\xff\xff", Truncated),
        (b"\xc6\xff\xff\xff\xff", Truncated),
        (b"\xc9\xff\xff\xff\xff\x01", Truncated),
    ];
    for (bytes, cause) in cases {
        assert_eq!(decode(bytes), Err(*cause), "{bytes:x?}");
    }
}

#[test]
fn channels_are_read_as_they_are_written() {
    let main = Channels::of("/");
    assert_eq!(&*main.broadcast, "socket.io#/#");
    assert_eq!(&*main.request, "socket.io-request#/#");
    assert_eq!(main.response_to("Xy3aBc"), "socket.io-response#/#Xy3aBc#");
    assert_eq!(main.room("a#b"), "socket.io#/#a#b#");
    let of = |channel: &'static str| main.parse(channel);
    assert_eq!(of("socket.io#/#"), Some(Channel::Broadcast));
    assert_eq!(of("socket.io#/#a#b#"), Some(Channel::Room("a#b")));
    assert_eq!(of("socket.io-request#/#"), Some(Channel::Request));
    assert_eq!(of("socket.io-response#/#"), Some(Channel::Response));
    assert_eq!(of("socket.io-response#/#Xy3aBc#"), Some(Channel::Response));
    for other in [
        "socket.io#/chat#",
        "socket.io#/#a",
        "socket.io",
        "",
        "other#/#",
    ] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn our_own_notices_read_back() {
    let head = |namespace: &str, seq| Head {
        namespace: namespace.into(),
        room: "r".into(),
        seq,
    };
    let heads = vec![head("/", 1), head("/chat", u64::MAX)];
    let written: Bytes = encode_heads(&heads).into();
    assert_eq!(decode_heads(&written).map(Vec::from_iter), Ok(heads));
    for length in 0..written.len() {
        assert_eq!(
            decode_heads(&written.slice(..length)).unwrap_err(),
            Undecodable::Truncated
        );
    }
    for news in [HostNews::Start, HostNews::Beat, HostNews::Stop] {
        let notice = HostNotice { host: 513, news };
        assert_eq!(
            decode_host_notice(&encode_host_notice(&notice).into()),
            Ok(notice)
        );
    }
    assert_eq!(
        decode_host_notice(&hex("92 01 a2 6f6b")),
        Err(Undecodable::Type)
    );
    assert_eq!(
        decode_host_notice(&hex("92 01 a4 62656174 c0")),
        Err(Undecodable::Trailing)
    );
    let many = vec![head("/", 1); HEADS_MAX + 1];
    assert_eq!(
        decode_heads(&encode_heads(&many).into()).unwrap_err(),
        Undecodable::TooLarge
    );
}

/// Any JSON value whose numbers JavaScript holds.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..=1 << 53).prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| {
                json::integer(value).map_or_else(|| Value::from(value), Value::from)
            }),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..20)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        values in proptest::collection::vec(any_json(), 0..4),
        event in "[a-z]{1,40}",
        rooms in proptest::collection::vec(".{0,40}", 0..3),
        volatile: bool,
        seq: Option<u64>,
    ) {
        let args = values.iter().fold(Args::builder(), ArgsBuilder::push).build();
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let mut sent = broadcast(&event, args, &rooms);
        sent.opts.flags.volatile = volatile;
        sent.stamp = Some(Stamp { count: 1, seq, presence: None });
        let read = decode(&encode_broadcast(&sent)).unwrap();
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn strings_are_written_as_the_crate_writes_them(bytes in proptest::collection::vec(
        prop_oneof![4 => any::<u8>(), 2 => 0_u8..0x20, 2 => Just(b'"'), 1 => Just(b'\\'), 2 => Just(0xc3)],
        0..31,
    )) {
        let string = [&[0xa0 | u8::try_from(bytes.len()).unwrap()], &*bytes].concat();
        let expected = serde_json::to_string(&*String::from_utf8_lossy(&bytes)).unwrap();
        let message = [&hex("93 a178 82 a474797065 02 a464617461 92 a165")[..], &string, b"\x80"].concat();
        let read = decode(&message).map(|read| read.args.list().to_string());
        prop_assert_eq!(read, Ok(expected));
    }

    #[test]
    fn no_text_is_longer_than_it_may_be(value in any_json(), less in any::<proptest::sample::Index>()) {
        let sent = encode_broadcast(&broadcast("e", Args::one(&value), &[])).into();
        let length = decode_broadcast(&sent, BYTES_MAX).unwrap().args.list().len();
        prop_assert!(decode_broadcast(&sent, length).is_ok());
        let shorter = decode_broadcast(&sent, less.index(length));
        prop_assert_eq!(shorter, Err(Undecodable::TooLarge));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = sender(&bytes);
        let _ = decode_broadcast(&bytes, BYTES_MAX);
        let _ = decode_request(&bytes, BYTES_MAX);
        let _ = decode_response(&bytes, BYTES_MAX);
        let _ = decode_heads(&bytes);
        let _ = decode_host_notice(&bytes);
    }

    #[test]
    fn any_change_of_a_good_message_is_taken_without_a_panic(
        at in any::<proptest::sample::Index>(),
        byte: u8,
        value in any_json(),
    ) {
        let args = Args::builder().push(&value).push_binary(Bytes::from_static(b"\x01")).build();
        let broadcast = broadcast("e", args.clone(), &["r"]);
        let ask = Ask::ServerSideEmit { event: "e".into(), args: args.clone() };
        let answer = Response { id: "a".into(), what: Answer::ClientAck(args) };
        let mut messages = [
            encode_broadcast(&broadcast),
            encode_request(&requests::request(ask)),
            encode_response(&answer),
        ];
        for message in &mut messages {
            let at = at.index(message.len());
            message[at] = byte;
            let message = Bytes::from(std::mem::take(message));
            if let Ok(read) = decode_broadcast(&message, BYTES_MAX) {
                let text = format!("[{}]", read.args.list());
                serde_json::from_str::<Value>(&text).unwrap();
            }
            let _ = decode_request(&message, BYTES_MAX);
            let _ = decode_response(&message, BYTES_MAX);
        }
    }
}
