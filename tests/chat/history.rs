//! GET /api/messages.

use serde_json::{Value, json};

use super::support::http;
use super::support::server::shared;
use super::support::token::{now_seconds, signed, token};
use super::{Via, client, room};

/// The sequence numbers of a page.
fn seqs(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().filter_map(|m| m["seq"].as_u64()).collect()
}

#[test]
fn pages_cover_a_room_in_both_directions() {
    let room = room("pages");
    let mut alice = client(shared(), Via::WebSocket, "alice");
    alice.join(&room);
    let payloads: Vec<Value> = (1..=120)
        .map(|n| json!({"roomId": room, "content": format!("message {n}")}))
        .collect();
    for chunk in payloads.chunks(40) {
        for id in alice.ask_all("sendMessage", chunk) {
            let ack = alice.ack_within(id, super::support::PATIENCE);
            assert_eq!(ack.expect("an ack")["ok"], true);
        }
    }
    let page = |query: &str| {
        let response = shared().history(&format!("roomId={room}{query}"));
        assert_eq!(response.status, 200);
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert_eq!(response.field("cache-control"), Some("no-store"));
        response.json()
    };
    let newest = page("");
    assert_eq!(seqs(&newest), (71..=120).collect::<Vec<_>>());
    assert_eq!(
        (&newest["hasMore"], &newest["nextBeforeSeq"]),
        (&json!(true), &json!(71))
    );
    assert_eq!(newest["roomId"], json!(room));
    let before = page("&beforeSeq=71&limit=70");
    assert_eq!(seqs(&before), (1..=70).collect::<Vec<_>>());
    assert_eq!(before["hasMore"], false);
    let after = page("&afterSeq=10&limit=100");
    assert_eq!(seqs(&after), (11..=110).collect::<Vec<_>>());
    assert_eq!(
        (&after["hasMore"], &after["nextAfterSeq"]),
        (&json!(true), &json!(110))
    );
    let end = page("&afterSeq=120");
    assert_eq!((seqs(&end), &end["hasMore"]), (vec![], &json!(false)));
    assert_eq!(newest["messages"][49]["content"], "message 120");
}

#[test]
fn parameters_that_are_wrong_are_named() {
    for (query, field) in [
        ("", "roomId"),
        ("roomId=a&roomId=a", "roomId"),
        ("roomId=x%00y", "roomId"),
        ("roomId=r&limit=0", "limit"),
        ("roomId=r&limit=101", "limit"),
        ("roomId=r&limit=-1", "limit"),
        ("roomId=r&limit=ten", "limit"),
        ("roomId=r&beforeSeq=1&afterSeq=1", "afterSeq"),
        ("roomId=r&beforeSeq=1%20or%201", "beforeSeq"),
    ] {
        let response = shared().history(query);
        assert_eq!(response.status, 400, "{query}");
        let error = &response.json()["error"];
        assert_eq!(error["code"], "invalid_payload", "{query}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.starts_with(field), "{query}: {message}");
    }
}

#[test]
fn history_needs_a_token() {
    let get = |authorization: Option<&str>| {
        let fields: Vec<_> = authorization
            .map(|a| ("Authorization", a))
            .into_iter()
            .collect();
        let response = http::get(shared().address, "/api/messages?roomId=r", &fields);
        let code = response.json()["error"]["code"].clone();
        (
            response.status,
            code,
            response.field("www-authenticate").map(str::to_owned),
        )
    };
    let bearer = Some("Bearer".to_owned());
    let unauthorized = (401, json!("unauthorized"), bearer.clone());
    assert_eq!(get(None), unauthorized);
    assert_eq!(get(Some("Bearer nonsense")), unauthorized);
    assert_eq!(
        get(Some(&format!("Basic {}", token("alice")))),
        unauthorized
    );
    let old = signed(&json!({"sub": "alice", "exp": now_seconds() - 10.0}));
    assert_eq!(
        get(Some(&format!("Bearer {old}"))),
        (401, json!("token_expired"), bearer)
    );
    let query = format!("/api/messages?roomId=r&token={}", token("alice"));
    assert_eq!(http::get(shared().address, &query, &[]).status, 401);
}

#[test]
fn head_has_no_body_and_a_room_without_messages_is_an_empty_page() {
    let authorization = format!("Bearer {}", token("alice"));
    let fields = [("Authorization", authorization.as_str())];
    let page = http::get(
        shared().address,
        "/api/messages?roomId=empty%2Froom",
        &fields,
    )
    .json();
    assert_eq!(
        page,
        json!({"roomId": "empty/room", "messages": [], "hasMore": false, "nextBeforeSeq": null})
    );
}
