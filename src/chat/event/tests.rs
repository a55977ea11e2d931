use super::*;
use proptest::prelude::*;
use serde_json::json;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.into()).expect("the test's own JSON")
}

fn send(text: &str) -> Result<SendMessage, Failure> {
    SendMessage::parse(Some(&raw(text)))
}

/// That the payload is refused with a message that begins with the field's name.
fn refused<T: fmt::Debug>(result: Result<T, Failure>, field: &str) {
    let failure = result.expect_err("refused");
    assert_eq!(failure.code, Code::InvalidPayload, "{failure}");
    assert!(failure.message.starts_with(field), "{field}: {failure}");
}

#[test]
fn reads_a_message_and_keeps_its_content() {
    let message = send(
        r#"{"roomId":"r","content":"a\u0041\ud83e\udd80\"\u001e</script>","userId":"u","clientMsgId":"k","seq":9}"#,
    )
    .expect("valid");
    assert_eq!(&*message.room, "r");
    assert_eq!(&*message.content, "aA🦀\"\u{1e}</script>");
    assert_eq!(message.user.as_deref(), Some("u"));
    assert_eq!(message.client_msg_id.as_deref(), Some("k"));
    let bare = send(r#"{"content":"c","roomId":"r"}"#).expect("valid");
    assert_eq!((bare.user, bare.client_msg_id), (None, None));
}

#[test]
fn every_refusal_of_a_message_names_the_field() {
    let wrong_strings = [
        "null",
        "1",
        "true",
        "[]",
        "{}",
        r#""""#,
        r#""\ud800""#,
        r#""\u0000""#,
    ];
    for value in wrong_strings {
        let room = format!(r#"{{"roomId":{value},"content":"c"}}"#);
        refused(send(&room), "roomId");
        let content = format!(r#"{{"roomId":"r","content":{value}}}"#);
        refused(send(&content), "content");
        let key = format!(r#"{{"roomId":"r","content":"c","clientMsgId":{value}}}"#);
        refused(send(&key), "clientMsgId");
    }
    for value in ["null", "1", r#""\udc00x""#] {
        let user = format!(r#"{{"roomId":"r","content":"c","userId":{value}}}"#);
        refused(send(&user), "userId");
    }
    refused(send(r#"{"content":"c"}"#), "roomId");
    refused(send(r#"{"roomId":"r"}"#), "content");
    refused(send(r#"{"roomId":"a\u007fb","content":"c"}"#), "roomId");
    refused(send(r#"{"roomId":"a\u0085b","content":"c"}"#), "roomId");
}

#[test]
fn bounds_are_counted_in_bytes() {
    let check = |room: usize, content: usize, key: usize| {
        let payload = json!({
            "roomId": "é".repeat(room / 2),
            "content": "é".repeat(content / 2),
            "clientMsgId": "é".repeat(key / 2),
        });
        send(&payload.to_string())
    };
    assert!(check(128, 65_536, 64).is_ok());
    refused(check(130, 2, 2), "roomId");
    refused(check(2, 65_538, 2), "content");
    refused(check(2, 2, 66), "clientMsgId");
}

#[test]
fn what_is_no_object_is_refused() {
    refused(SendMessage::parse(None), "payload");
    for text in ["null", "[]", "\"x\"", "1"] {
        refused(send(text), "payload");
        refused(JoinRoom::parse(Some(&raw(text))), "payload");
        refused(LeaveRoom::parse(Some(&raw(text))), "payload");
        refused(Authenticate::parse(Some(&raw(text))), "payload");
    }
    refused(send(r#"{"\ud800":1}"#), "payload");
}

#[test]
fn of_a_repeated_field_the_last_counts() {
    let message = send(r#"{"roomId":1,"roomId":"r","content":"a","cont\u0065nt":"b"}"#);
    let message = message.expect("valid");
    assert_eq!((&*message.room, &*message.content), ("r", "b"));
}

#[test]
fn last_seq_is_an_integer_that_javascript_can_hold() {
    let join = |value: &str| {
        let text = format!(r#"{{"roomId":"r","lastSeq":{value}}}"#);
        JoinRoom::parse(Some(&raw(&text))).map(|join| join.last_seq)
    };
    assert_eq!(join("0"), Ok(Some(0)));
    assert_eq!(join("9007199254740991"), Ok(Some(INTEGER_MAX)));
    for value in [
        "9007199254740992",
        "-1",
        "1.5",
        "\"1\"",
        "null",
        "1e400",
        "[]",
    ] {
        refused(join(value), "lastSeq");
    }
    let without = JoinRoom::parse(Some(&raw(r#"{"roomId":"r"}"#))).expect("valid");
    assert_eq!(without.last_seq, None);
}

#[test]
fn the_token_of_a_connect_may_be_absent_but_not_wrong() {
    assert_eq!(connect_token(&raw("{}")), Ok(None));
    assert_eq!(connect_token(&raw(r#"{"pid":1}"#)), Ok(None));
    let token = connect_token(&raw(r#"{"token":"t"}"#)).expect("valid");
    assert_eq!(token.as_deref(), Some("t"));
    for text in [
        r#"{"token":1}"#,
        r#"{"token":["t"]}"#,
        r#"{"token":"\ud800"}"#,
        "[]",
    ] {
        let failure = connect_token(&raw(text)).expect_err("refused");
        assert_eq!(failure.code, Code::Unauthorized, "{text}");
    }
}

#[test]
fn a_message_has_one_form() {
    let mut message = Message {
        room: "r".into(),
        seq: 7,
        id: uuid::Uuid::from_u128(1),
        user: "u".into(),
        content: "a\"b".into(),
        wall_ms: 1_795_350_600_123,
        client_msg_id: None,
    };
    let text = |message: &Message| {
        serde_json::to_string(&MessageView::from(message)).expect("has a JSON form")
    };
    assert_eq!(
        text(&message),
        r#"{"roomId":"r","userId":"u","content":"a\"b","timestamp":"2026-11-22T12:30:00.123Z","id":"00000000-0000-0000-0000-000000000001","seq":7}"#
    );
    message.client_msg_id = Some("k".into());
    assert!(text(&message).ends_with(r#","seq":7,"clientMsgId":"k"}"#));
}

#[test]
fn failures_have_one_form() {
    let failure = Failure::new(Code::Unavailable, "x");
    let failed = Failed {
        ok: Some(false),
        error: &failure,
    };
    assert_eq!(
        serde_json::to_string(&failed).expect("has a JSON form"),
        r#"{"ok":false,"error":{"code":"unavailable","message":"x","retryAfterMs":1000}}"#
    );
    let secret = Failure::from(StoreError::Unavailable("disk /dev/sda is full".into()));
    assert!(!secret.message.contains("sda"));
    assert_eq!(Failure::from(StoreError::Timeout).code.status(), 504);
    assert_eq!(Failure::from(AuthError::Expired).code, Code::TokenExpired);
    assert_eq!(Failure::from(AuthError::Missing).code, Code::Unauthorized);
}

#[test]
fn timestamps_are_rfc_3339() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (951_868_800_000, "2000-03-01T00:00:00.000Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
        (1_767_225_600_000, "2026-01-01T00:00:00.000Z"),
    ] {
        assert_eq!(Timestamp(ms).to_string(), text);
        assert_eq!(json!(Timestamp(ms)), text);
    }
}

#[test]
fn a_timestamp_may_lie_beyond_the_year_9999() {
    for (ms, text) in [
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "10000-01-01T00:00:00.000Z"),
    ] {
        assert_eq!(json!(Timestamp(ms)), text);
    }
}

proptest! {
    #[test]
    fn timestamps_are_what_another_calendar_says(ms in 0_u64..253_402_300_799_999) {
        use time::format_description::well_known::Rfc3339;
        let parsed = time::OffsetDateTime::parse(&Timestamp(ms).to_string(), &Rfc3339);
        let nanos = parsed.expect("RFC 3339").unix_timestamp_nanos();
        prop_assert_eq!(nanos, i128::from(ms) * 1_000_000);
        prop_assert_eq!(json!(Timestamp(ms)), Timestamp(ms).to_string());
    }

    #[test]
    fn content_comes_through_unchanged(content in "[^\u{0}]{1,200}", room in "[^\\p{Cc}]{1,30}") {
        let payload = json!({"roomId": room, "content": content}).to_string();
        let message = send(&payload).expect("valid");
        prop_assert_eq!(&*message.content, &content);
        prop_assert_eq!(&*message.room, &room);
    }

    #[test]
    fn no_payload_is_too_strange(text in "\\PC*") {
        if let Ok(raw) = RawValue::from_string(text) {
            let _ = SendMessage::parse(Some(&raw));
            let _ = JoinRoom::parse(Some(&raw));
        }
    }
}
