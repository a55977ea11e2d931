//! joinRoom, leaveRoom, sendMessage, and who is told.

use serde_json::{Value, json};

use super::support::server::shared;
use super::{BOTH, Client, Via, client, room};

/// That a timestamp is RFC 3339 in UTC with milliseconds.
fn is_timestamp(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[test]
fn a_message_reaches_every_member_and_its_sender() {
    for via in BOTH {
        let room = room("message");
        let (mut alice, mut bob) = (client(shared(), via, "alice"), client(shared(), via, "bob"));
        let joined = alice.join(&room);
        assert_eq!(
            joined,
            json!({"ok": true, "roomId": room, "seq": 0, "replayed": 0})
        );
        bob.join(&room);
        let notice = json!({"roomId": room, "userId": "bob"});
        assert_eq!(alice.expect("userJoined"), notice);

        let payload = json!({"roomId": room, "content": "hé\u{202e}<b>\u{1e}", "userId": "alice", "clientMsgId": "k1"});
        let ack = alice.ok("sendMessage", &payload);
        assert_eq!(ack["seq"], 1);
        assert!(is_timestamp(&ack["timestamp"]), "{ack}");
        assert_eq!(ack.as_object().map(serde_json::Map::len), Some(4), "{ack}");
        let expected = json!({
            "roomId": room, "userId": "alice", "content": "hé\u{202e}<b>\u{1e}", "seq": 1,
            "timestamp": ack["timestamp"], "id": ack["id"], "clientMsgId": "k1",
        });
        assert_eq!(bob.expect("receiveMessage"), expected);
        assert_eq!(alice.expect("receiveMessage"), expected);
        let page = shared().history(&format!("roomId={room}")).json();
        assert_eq!(page["messages"], json!([expected]));
    }
}

#[test]
fn ids_are_uuids_of_version_7_and_times_never_go_back() {
    let room = room("ids");
    let mut alice = client(shared(), Via::WebSocket, "alice");
    alice.join(&room);
    let acks: Vec<Value> = (0..20).map(|n| alice.say(&room, &n.to_string())).collect();
    for (before, after) in acks.iter().zip(&acks[1..]) {
        assert!(before["timestamp"].as_str() <= after["timestamp"].as_str());
        assert_ne!(before["id"], after["id"]);
    }
    let id = acks[0]["id"].as_str().expect("an id");
    assert_eq!((id.len(), &id[14..15]), (36, "7"), "{id}");
}

#[test]
fn what_a_client_says_about_itself_is_not_believed() {
    let room = room("claims");
    let mut alice = client(shared(), Via::WebSocket, "alice");
    alice.join(&room);
    let payload = json!({
        "roomId": room, "content": "x", "id": "mine", "seq": 99, "sender": "bob",
        "timestamp": "1999-01-01T00:00:00.000Z",
    });
    let ack = alice.ok("sendMessage", &payload);
    assert_eq!(ack["seq"], 1);
    let message = alice.expect("receiveMessage");
    assert_eq!(message["userId"], "alice");
    assert_eq!(message["id"], ack["id"]);
    assert_ne!(message["id"], "mine");
    assert!(message.get("sender").is_none());
}

#[test]
fn without_an_ack_id_success_is_silent_and_delivery_the_same() {
    let room = room("silent");
    let mut alice = client(shared(), Via::WebSocket, "alice");
    // Back to back, as a client may.
    alice.emit("joinRoom", &json!({"roomId": room}));
    alice.emit("sendMessage", &json!({"roomId": room, "content": "x"}));
    assert_eq!(alice.expect("receiveMessage")["content"], "x");
    alice.expect_quiet();
}

#[test]
fn a_user_joins_and_leaves_once_whatever_its_sockets_do() {
    for via in BOTH {
        let room = room("presence");
        let mut watch = client(shared(), Via::WebSocket, "watch");
        watch.join(&room);
        let notice = json!({"roomId": room, "userId": "bob"});
        let mut first = client(shared(), via, "bob");
        first.join(&room);
        assert_eq!(watch.expect("userJoined"), notice);
        let mut second = client(shared(), via, "bob");
        second.join(&room);
        second.join(&room);
        watch.expect_quiet();
        assert_eq!(
            first.ok("leaveRoom", &json!({"roomId": room})),
            json!({"ok": true, "roomId": room})
        );
        first.ok("leaveRoom", &json!({"roomId": room}));
        watch.expect_quiet();
        // The last one goes without a word.
        second.send_raw("41");
        assert_eq!(watch.expect("userLeft"), notice);
        watch.expect_quiet();
        first.expect_quiet();
    }
}

#[test]
fn the_end_of_a_connection_is_a_leave() {
    let room = room("gone");
    let mut watch = client(shared(), Via::WebSocket, "watch");
    watch.join(&room);
    for via in BOTH {
        let mut bob = client(shared(), via, "bob");
        bob.join(&room);
        watch.expect("userJoined");
        match via {
            // A reset connection.
            Via::WebSocket => drop(bob),
            // The close packet.
            Via::Polling => bob.send_raw("1"),
        }
        assert_eq!(watch.expect("userLeft")["userId"], "bob");
    }
    watch.expect_quiet();
}

/// One `userLeft` for each `userJoined`, also when the connections of a hundred are reset at once.
#[test]
fn a_hundred_who_drop_at_once_leave_once_each() {
    let room = room("hundred");
    let mut watch = client(shared(), Via::WebSocket, "watch");
    watch.join(&room);
    let name = |event: &str, watch: &mut Client| {
        let notice = watch.expect(event);
        notice["userId"].as_str().expect("a name").to_owned()
    };
    let users: Vec<String> = (0..100).map(|number| format!("user-{number}")).collect();
    let mut all = Vec::new();
    for user in &users {
        let mut one = client(shared(), Via::WebSocket, user);
        one.join(&room);
        assert_eq!(name("userJoined", &mut watch), *user);
        all.push(one);
    }
    drop(all);
    let mut left: Vec<String> = users.iter().map(|_| name("userLeft", &mut watch)).collect();
    let mut expected = users.clone();
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    watch.expect_quiet();
}

#[test]
fn after_leaving_nothing_comes_and_nothing_may_be_sent() {
    let room = room("left");
    let (mut alice, mut bob) = (
        client(shared(), Via::WebSocket, "alice"),
        client(shared(), Via::Polling, "bob"),
    );
    alice.join(&room);
    bob.join(&room);
    alice.expect("userJoined");
    bob.ok("leaveRoom", &json!({"roomId": room}));
    alice.expect("userLeft");
    alice.say(&room, "alone");
    bob.expect_quiet();
    let send = json!({"roomId": room, "content": "x"});
    assert_eq!(bob.refused("sendMessage", &send), "not_in_room");
    // A room never joined.
    bob.ok("leaveRoom", &json!({"roomId": "nowhere"}));
}

#[test]
fn rooms_are_compared_byte_for_byte() {
    let room = room("Bytes*");
    let names = [
        room.clone(),
        room.to_lowercase(),
        format!("{room} "),
        "*".to_owned(),
    ];
    let mut alice = client(shared(), Via::WebSocket, "alice");
    let mut others: Vec<_> = names
        .iter()
        .map(|name| {
            let mut other = client(shared(), Via::WebSocket, "other");
            other.join(name);
            other
        })
        .collect();
    alice.join(&room);
    others[0].expect("userJoined");
    alice.say(&room, "x");
    assert_eq!(others[0].expect("receiveMessage")["roomId"], json!(room));
    for other in &mut others[1..] {
        other.expect_quiet();
    }
}

#[test]
fn a_known_client_msg_id_gets_the_first_ack_and_is_not_delivered_again() {
    let room = room("again");
    let (mut alice, mut bob) = (
        client(shared(), Via::WebSocket, "alice"),
        client(shared(), Via::Polling, "bob"),
    );
    alice.join(&room);
    bob.join(&room);
    alice.expect("userJoined");
    let payload = json!({"roomId": room, "content": "x", "clientMsgId": "k"});
    let first = alice.ok("sendMessage", &payload);
    let mut again = first.clone();
    again["duplicate"] = json!(true);
    assert_eq!(alice.ok("sendMessage", &payload), again);
    let other = json!({"roomId": room, "content": "other words", "clientMsgId": "k"});
    assert_eq!(alice.ok("sendMessage", &other), again);
    // The key is the user's own.
    assert_eq!(bob.ok("sendMessage", &payload)["seq"], 2);
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.expect("receiveMessage")["seq"], 1);
        assert_eq!(client.expect("receiveMessage")["seq"], 2);
        client.expect_quiet();
    }
}

#[test]
fn the_largest_content_comes_through() {
    for via in BOTH {
        let room = room("large");
        let mut alice = client(shared(), via, "alice");
        alice.join(&room);
        let content = "\u{1}é\"\\".repeat(65_536 / 5);
        let content = format!("{content}{}", "x".repeat(65_536 - content.len()));
        alice.say(&room, &content);
        assert_eq!(alice.expect("receiveMessage")["content"], json!(content));
    }
}
