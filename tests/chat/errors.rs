//! Every code of the table of errors, by event and by HTTP.

use serde_json::{Value, json};

use super::support::client::Client;
use super::support::http;
use super::support::server::shared;
use super::support::token::token_for;
use super::{BOTH, Via, client, room};

/// Payloads that are refused as `invalid_payload`, each with the field that the message names.
fn bad_messages(room: &str) -> Vec<(Value, &'static str)> {
    let long_room = "r".repeat(129);
    let long_content = "é".repeat(32_769);
    let long_key = "k".repeat(65);
    vec![
        (json!(null), "payload"),
        (json!("text"), "payload"),
        (json!([]), "payload"),
        (json!(7), "payload"),
        (json!({}), "roomId"),
        (json!({"roomId": null, "content": "x"}), "roomId"),
        (json!({"roomId": 1, "content": "x"}), "roomId"),
        (json!({"roomId": ["r"], "content": "x"}), "roomId"),
        (json!({"roomId": "", "content": "x"}), "roomId"),
        (json!({"roomId": "a\nb", "content": "x"}), "roomId"),
        (json!({"roomId": "a\u{0}b", "content": "x"}), "roomId"),
        (json!({"roomId": long_room, "content": "x"}), "roomId"),
        (json!({"roomId": room}), "content"),
        (json!({"roomId": room, "content": null}), "content"),
        (json!({"roomId": room, "content": 5}), "content"),
        (json!({"roomId": room, "content": {"a": 1}}), "content"),
        (json!({"roomId": room, "content": ["x"]}), "content"),
        (json!({"roomId": room, "content": ""}), "content"),
        (json!({"roomId": room, "content": "a\u{0}"}), "content"),
        (json!({"roomId": room, "content": long_content}), "content"),
        (
            json!({"roomId": room, "content": "x", "userId": 1}),
            "userId",
        ),
        (
            json!({"roomId": room, "content": "x", "clientMsgId": ""}),
            "clientMsgId",
        ),
        (
            json!({"roomId": room, "content": "x", "clientMsgId": 1}),
            "clientMsgId",
        ),
        (
            json!({"roomId": room, "content": "x", "clientMsgId": long_key}),
            "clientMsgId",
        ),
    ]
}

#[test]
fn invalid_payloads_are_refused_by_field_and_harm_nothing() {
    for via in BOTH {
        let room = room("invalid");
        let mut alice = client(shared(), via, "alice");
        alice.join(&room);
        for (payload, field) in bad_messages(&room) {
            let ack = alice.call("sendMessage", &payload);
            assert_eq!(ack["ok"], false, "{payload}");
            assert_eq!(ack["error"]["code"], "invalid_payload", "{payload}");
            let message = ack["error"]["message"].as_str().expect("a message");
            assert!(message.starts_with(field), "{field}: {message}");
        }
        for last_seq in [json!(-1), json!(1.5), json!("1"), json!(null), json!(1e300)] {
            let payload = json!({"roomId": room, "lastSeq": last_seq});
            assert_eq!(
                alice.refused("joinRoom", &payload),
                "invalid_payload",
                "{payload}"
            );
        }
        for payload in [json!({}), json!({"token": 1}), json!(null)] {
            assert_eq!(alice.refused("authenticate", &payload), "invalid_payload");
        }
        assert_eq!(alice.say(&room, "still here")["seq"], 1);
    }
}

#[test]
fn an_event_with_an_ack_id_is_always_answered_once() {
    let mut alice = client(shared(), Via::WebSocket, "alice");
    // No payload at all, an unknown event, a lone surrogate, an attachment where text belongs.
    for (id, packet) in [
        (900, r#"42900["sendMessage"]"#),
        (901, r#"42901["noSuchEvent",{}]"#),
        (
            902,
            r#"42902["sendMessage",{"roomId":"r","content":"\ud800"}]"#,
        ),
        (903, r#"42903["joinRoom",{"roomId":"\udfff"}]"#),
        (904, r#"42904["joinRoom",{"\ud800":1,"roomId":"r"}]"#),
    ] {
        alice.send_raw(packet);
        let ack = alice.ack_within(id, super::support::PATIENCE);
        let ack = ack.unwrap_or_else(|| panic!("no ack for {packet}"));
        assert_eq!(ack["error"]["code"], "invalid_payload", "{packet}: {ack}");
    }
    alice.expect_quiet();
}

#[test]
fn without_an_ack_id_a_failure_is_an_exception() {
    for via in BOTH {
        let mut alice = client(shared(), via, "alice");
        alice.emit(
            "sendMessage",
            &json!({"roomId": "never joined", "content": "x"}),
        );
        let exception = alice.expect("exception");
        assert_eq!(exception["event"], "sendMessage");
        assert_eq!(exception["error"]["code"], "not_in_room");
        assert!(exception["error"]["message"].is_string());
        alice.emit("joinRoom", &json!({}));
        let exception = alice.expect("exception");
        assert_eq!(exception["event"], "joinRoom");
        assert_eq!(exception["error"]["code"], "invalid_payload");
        // Nobody asked, nobody knows the event: silence.
        alice.emit("noSuchEvent", &json!({}));
        alice.expect_quiet();
    }
}

#[test]
fn only_members_send() {
    let mut alice = client(shared(), Via::WebSocket, "alice");
    let payload = json!({"roomId": room("never"), "content": "x"});
    assert_eq!(alice.refused("sendMessage", &payload), "not_in_room");
}

#[test]
fn another_users_id_is_forbidden() {
    let room = room("other");
    let mut alice = client(shared(), Via::WebSocket, "alice");
    alice.join(&room);
    for user in ["bob", "Alice", ""] {
        let payload = json!({"roomId": room, "content": "x", "userId": user});
        assert_eq!(alice.refused("sendMessage", &payload), "forbidden");
    }
    alice.expect_quiet();
}

#[test]
fn a_token_may_be_for_some_rooms_only() {
    let (lobby, team) = (room("lobby"), room("team"));
    let token = token_for("alice", &[&lobby, "team*"]);
    let mut alice = Client::connect(shared().address, Via::WebSocket, &token);
    alice.join(&lobby);
    alice.join(&team);
    let other = room("private");
    let join = json!({"roomId": other});
    assert_eq!(alice.refused("joinRoom", &join), "forbidden");
    let send = json!({"roomId": other, "content": "x"});
    assert_eq!(alice.refused("sendMessage", &send), "forbidden");
    let authorization = format!("Bearer {token}");
    let status = |room: &str| {
        let target = format!("/api/messages?roomId={room}");
        let fields = [("Authorization", authorization.as_str())];
        http::get(shared().address, &target, &fields).status
    };
    assert_eq!((status(&team), status(&other)), (200, 403));
}

#[test]
fn a_connection_may_be_in_a_thousand_rooms() {
    let mut alice = client(shared(), Via::WebSocket, "alice");
    let name = room("many");
    let payloads: Vec<Value> = (0..1_000)
        .map(|n| json!({"roomId": format!("{name}-{n}")}))
        .collect();
    for chunk in payloads.chunks(50) {
        for id in alice.ask_all("joinRoom", chunk) {
            let ack = alice.ack_within(id, super::support::PATIENCE);
            assert_eq!(ack.expect("an ack")["ok"], true);
        }
    }
    let more = json!({"roomId": format!("{name}-more")});
    assert_eq!(alice.refused("joinRoom", &more), "too_many_rooms");
    // One that it is in already is no more.
    alice.ok("joinRoom", &payloads[7]);
    alice.ok("leaveRoom", &payloads[7]);
    alice.ok("joinRoom", &more);
}

#[test]
fn a_refused_connect_says_why_and_nothing_else_works() {
    for via in BOTH {
        for (auth, code) in [
            (json!({}), "unauthorized"),
            (json!({"token": ""}), "unauthorized"),
            (json!({"token": 7}), "unauthorized"),
            (json!({"token": "x.y.z"}), "unauthorized"),
        ] {
            let refused = Client::try_connect(shared().address, via, &auth, &[]);
            let Err(error) = refused.expect("the server is there") else {
                panic!("{auth} was taken");
            };
            assert_eq!(error["data"]["code"], code, "{auth}");
            assert_eq!(error["message"], error["data"]["message"], "{auth}");
            assert!(error["message"].is_string(), "{auth}");
        }
    }
}

#[test]
fn unknown_paths_and_methods_have_their_codes() {
    let address = shared().address;
    let missing = http::get(address, "/nothing", &[]);
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"]["code"], "not_found");
    assert_eq!(http::get(address, "/", &[]).status, 404);
    let post = http::request(address, "POST", "/api/messages?roomId=r", &[]);
    assert_eq!(post.status, 405);
    assert_eq!(post.json()["error"]["code"], "method_not_allowed");
    assert_eq!(post.field("allow"), Some("GET, HEAD, OPTIONS"));
    let options = http::request(address, "OPTIONS", "/api/messages", &[]);
    assert_eq!(options.status, 204);
    assert_eq!(options.field("allow"), Some("GET, HEAD, OPTIONS"));
}
