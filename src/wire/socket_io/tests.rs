//! Tests of the packet format: the specification's examples, and properties.

use proptest::prelude::*;

use super::*;
use crate::wire::engine_io;

fn decoder() -> Decoder {
    Decoder::new(ATTACHMENTS_MAX, 1_000_000)
}

fn receive(text: &str) -> Result<Option<Packet>, PacketError> {
    decoder().receive(Content::Text(text.into()))
}

fn packet(namespace: &str, kind: Kind) -> Packet {
    Packet {
        namespace: namespace.into(),
        kind,
    }
}

fn args(list: &str, attachments: &[&'static [u8]]) -> Args {
    let attachments = attachments.iter().map(|bytes| Bytes::from_static(bytes));
    Args::new(list.into(), attachments.collect())
}

fn event(name: &str, ack: Option<u64>, args: Args) -> Kind {
    let name = name.into();
    Kind::Event { name, args, ack }
}

fn check(text: &str, namespace: &str, kind: Kind) {
    assert_eq!(receive(text), Ok(Some(packet(namespace, kind))), "{text}");
}

#[test]
fn reads_the_examples_of_the_specification() {
    let connect = |payload: Option<&str>| Kind::Connect {
        payload: payload.map(Text::from),
    };
    check("0", "/", connect(None));
    check(
        r#"0{"token":"123"}"#,
        "/",
        connect(Some(r#"{"token":"123"}"#)),
    );
    check("0/admin,", "/admin", connect(None));
    check("0/admin", "/admin", connect(None));
    check(
        r#"0/admin,{"sid":"x"}"#,
        "/admin",
        connect(Some(r#"{"sid":"x"}"#)),
    );
    check("0/a?b=c,{}", "/a?b=c", connect(Some("{}")));
    check("1", "/", Kind::Disconnect);
    check("1/admin,", "/admin", Kind::Disconnect);
    check(r#"2["hello",1]"#, "/", event("hello", None, args("1", &[])));
    check(r#"2["hello"]"#, "/", event("hello", None, Args::none()));
    check(
        r#"2/admin,456["project:delete",123]"#,
        "/admin",
        event("project:delete", Some(456), args("123", &[])),
    );
    check(
        "3/admin,456[]",
        "/admin",
        Kind::Ack {
            id: Some(456),
            args: Args::none(),
        },
    );
    check(
        r#"4{"message":"Not authorized"}"#,
        "/",
        Kind::ConnectError {
            payload: r#"{"message":"Not authorized"}"#.into(),
        },
    );
}

#[test]
fn keeps_the_text_of_arguments() {
    check(
        r#"2[ "e\u0031" , {"b":1.0,"a":1e2} ,[ ] ] "#,
        "/",
        event("e1", None, args(r#" {"b":1.0,"a":1e2} ,[ ]"#, &[])),
    );
    check("2[5,6]", "/", event("5", None, args("6", &[])));
    check(r#"2["error"]"#, "/", event("error", None, Args::none()));
}

#[test]
fn gathers_attachments() {
    let mut decoder = decoder();
    let head =
        r#"52-/admin,7["baz",{"_placeholder":true,"num":1},{"x":{"_placeholder":true,"num":0}}]"#;
    assert_eq!(decoder.receive(Content::Text(head.into())), Ok(None));
    assert!(decoder.is_gathering());
    let first = Content::Binary(Bytes::from_static(b"\x01"));
    assert_eq!(decoder.receive(first), Ok(None));
    let second = Content::Binary(Bytes::from_static(b"\x02"));
    let list = r#"{"_placeholder":true,"num":1},{"x":{"_placeholder":true,"num":0}}"#;
    let kind = event("baz", Some(7), args(list, &[b"\x01", b"\x02"]));
    assert_eq!(decoder.receive(second), Ok(Some(packet("/admin", kind))));
    assert!(!decoder.is_gathering());
}

#[test]
fn delivers_a_binary_event_without_attachments_and_goes_on() {
    let mut decoder = decoder();
    for text in [r#"50-["a"]"#, r#"2["a"]"#] {
        let got = decoder.receive(Content::Text(text.into()));
        assert_eq!(got, Ok(Some(packet("/", event("a", None, Args::none())))));
    }
}

#[test]
fn refuses_what_breaks_a_rule() {
    let deep = format!(r#"2["a",{}{}]"#, "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        ("", PacketError::Type),
        ("7", PacketError::Type),
        ("a", PacketError::Type),
        ("5[\"a\"]", PacketError::AttachmentCount),
        ("5-[\"a\"]", PacketError::AttachmentCount),
        ("51", PacketError::AttachmentCount),
        ("5x-[\"a\"]", PacketError::AttachmentCount),
        ("5-1-[\"a\"]", PacketError::AttachmentCount),
        ("511-[\"a\"]", PacketError::TooManyAttachments),
        ("2", PacketError::Payload),
        ("2{}", PacketError::Payload),
        ("2[]", PacketError::Payload),
        ("2[ ]", PacketError::Payload),
        ("2[{}]", PacketError::Payload),
        ("2[null]", PacketError::Payload),
        ("2[[\"a\"]]", PacketError::Payload),
        ("2\"a\"", PacketError::Payload),
        ("2[\"a\"", PacketError::Json),
        ("2[\"a\"]]", PacketError::Json),
        ("2[\"a\",]", PacketError::Json),
        ("21-[\"a\"]", PacketError::Json),
        ("2[\"a\"]x", PacketError::Json),
        ("2[\"connect\"]", PacketError::ReservedName),
        ("2[\"disc\\u006fnnect\"]", PacketError::ReservedName),
        ("29007199254740992[\"a\"]", PacketError::AckId),
        ("299999999999999999999999[\"a\"]", PacketError::AckId),
        ("3", PacketError::Payload),
        ("31{}", PacketError::Payload),
        ("0[]", PacketError::Payload),
        ("0null", PacketError::Payload),
        ("0\"x\"", PacketError::Payload),
        ("1{}", PacketError::Payload),
        ("41", PacketError::Payload),
        (
            "51-[\"a\",{\"_placeholder\":true,\"num\":1}]",
            PacketError::Placeholder,
        ),
        (
            "61-1[{\"_placeholder\":true,\"num\":\"splice\"}]",
            PacketError::Placeholder,
        ),
        (&deep, PacketError::TooDeep),
    ];
    for (text, error) in cases {
        assert_eq!(receive(text), Err(error), "{text:.60}");
    }
    assert!(receive("29007199254740991[\"a\"]").is_ok());
}

#[test]
fn takes_nesting_up_to_the_bound() {
    let nested = |depth: usize| format!(r#"2["a",{}{}]"#, "[".repeat(depth), "]".repeat(depth));
    assert!(receive(&nested(126)).is_ok());
    assert_eq!(receive(&nested(127)), Err(PacketError::TooDeep));
    let binary = nested(126).replacen('2', "51-", 1);
    assert!(receive(&binary).is_ok(), "the walk reads as deep");
}

#[test]
fn refuses_messages_out_of_turn() {
    let binary = Content::Binary(Bytes::from_static(b"\x01"));
    assert_eq!(
        decoder().receive(binary),
        Err(PacketError::UnexpectedBinary)
    );
    let mut decoder = decoder();
    let head = Content::Text(r#"51-["a",{"_placeholder":true,"num":0}]"#.into());
    assert_eq!(decoder.receive(head.clone()), Ok(None));
    assert_eq!(decoder.receive(head), Err(PacketError::UnexpectedText));
}

#[test]
fn bounds_the_bytes_of_a_packet() {
    let mut decoder = Decoder::new(2, 29);
    let head = r#"52-["a",{"_placeholder":true,"num":0}]"#;
    decoder.receive(Content::Text(head.into())).unwrap();
    let half = || Content::Binary(Bytes::from_static(&[0; 15]));
    assert_eq!(decoder.receive(half()), Ok(None));
    assert_eq!(decoder.receive(half()), Err(PacketError::TooLarge));
}

/// What a client receives of an encoded packet.
fn contents(packets: &[Encoded]) -> Vec<Content> {
    let as_sent = |packet: &Encoded| {
        let mut payload = Vec::new();
        packet.append_to_payload(&mut payload);
        let text = Text::from(String::from_utf8(payload).unwrap());
        match engine_io::decode(&text) {
            Ok(engine_io::Packet::Message(content)) => content,
            other => panic!("not a message: {other:?}"),
        }
    };
    packets.iter().map(as_sent).collect()
}

fn any_namespace() -> impl Strategy<Value = Text> {
    prop_oneof![
        Just(Text::from("/")),
        "/[a-z0-9?=#ä-]{1,12}".prop_map(Text::from)
    ]
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_args() -> impl Strategy<Value = Args> {
    let binary = proptest::collection::vec(any::<u8>(), 0..9);
    let item = prop_oneof![
        3 => any_json().prop_map(Ok),
        1 => binary.prop_map(|bytes| Err(Bytes::from(bytes))),
    ];
    proptest::collection::vec(item, 0..5).prop_map(|items| {
        let builder = items
            .iter()
            .fold(Args::builder(), |builder, item| match item {
                Ok(json) => builder.push(json),
                Err(bytes) => builder.push_binary(bytes.clone()),
            });
        builder.build()
    })
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let id = proptest::option::of(0..=ACK_ID_MAX);
    let name = ".{0,9}".prop_filter("not reserved", |name| !is_reserved(name));
    let kind = prop_oneof![
        Just(Kind::Disconnect),
        Just(Kind::Connect { payload: None }),
        ".{0,9}".prop_map(|sid| Kind::Connect {
            payload: Some(serde_json::json!({ "sid": sid }).to_string().into())
        }),
        (name, any_args(), id.clone()).prop_map(|(name, args, ack)| event(&name, ack, args)),
        (any_args(), id).prop_map(|(args, id)| Kind::Ack { id, args }),
        ".{0,9}".prop_map(|text| Kind::ConnectError {
            payload: serde_json::json!(text).to_string().into()
        }),
    ];
    (any_namespace(), kind).prop_map(|(namespace, kind)| Packet { namespace, kind })
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(packets in proptest::collection::vec(any_packet(), 1..6)) {
        let mut decoder = decoder();
        let mut got = Vec::new();
        for content in packets.iter().flat_map(|packet| contents(&encode(packet))) {
            got.extend(decoder.receive(content).unwrap());
        }
        prop_assert_eq!(got, packets);
    }

    #[test]
    fn whatever_comes_is_an_answer_not_a_panic(text in r#"[0-6é]?[0-9é-]{0,3}(/[a-zé]{0,2},?)?[0-9é]{0,2}[\[\]{}",:a-zé\u{a0}\u{2028}_\\0-9]{0,20}"#) {
        if let Ok(Some(packet)) = receive(&text) {
            let again = contents(&encode(&packet));
            let mut decoder = decoder();
            let Content::Text(_) = &again[0] else { panic!("text comes first") };
            prop_assert!(decoder.receive(again[0].clone()).is_ok());
        }
    }
}
