//! joinRoom with `lastSeq`: what was missed comes first, in order, and nothing twice.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::PATIENCE;
use super::support::server::{Server, folder, shared};
use super::{BOTH, Via, client, room};

/// Fills a room with `count` messages of this content.
fn fill(server: &Server, room: &str, count: usize, content: &str) {
    let mut writer = client(server, Via::WebSocket, "writer");
    writer.join(room);
    let payloads = vec![json!({"roomId": room, "content": content}); count];
    for chunk in payloads.chunks(32) {
        for id in writer.ask_all("sendMessage", chunk) {
            let ack = writer.ack_within(id, PATIENCE).expect("an ack");
            assert_eq!(ack["ok"], true, "{ack}");
        }
    }
    // Else its end would be told to whoever joins meanwhile.
    writer.ok("leaveRoom", &json!({"roomId": room}));
}

fn resume(room: &str, last_seq: u64) -> Value {
    json!({"roomId": room, "lastSeq": last_seq})
}

#[test]
fn what_was_missed_follows_the_ack_in_order() {
    let room = room("missed");
    fill(shared(), &room, 250, "x");
    for via in BOTH {
        let mut alice = client(shared(), via, "alice");
        let ack = alice.ok("joinRoom", &resume(&room, 7));
        let expected =
            json!({"ok": true, "roomId": room, "seq": 250, "recovered": true, "replayed": 243});
        assert_eq!(ack, expected);
        for seq in 8..=250 {
            assert_eq!(alice.expect("receiveMessage")["seq"], seq);
        }
        alice.expect_quiet();
        alice.ok("leaveRoom", &json!({"roomId": room}));
        let ack = alice.ok("joinRoom", &resume(&room, 250));
        assert_eq!(
            (&ack["recovered"], &ack["replayed"]),
            (&json!(true), &json!(0))
        );
        alice.expect_quiet();
    }
}

#[test]
fn too_much_or_what_is_not_ours_is_not_replayed() {
    let room = room("much");
    fill(shared(), &room, 502, "x");
    let mut alice = client(shared(), Via::WebSocket, "alice");
    for (last_seq, recovered, replayed) in [(1, false, 0), (503, false, 0), (2, true, 500)] {
        let ack = alice.ok("joinRoom", &resume(&room, last_seq));
        assert_eq!(ack["seq"], 502);
        assert_eq!(ack["recovered"], recovered, "{last_seq}");
        assert_eq!(ack["replayed"], replayed, "{last_seq}");
        for n in 0..replayed {
            assert_eq!(alice.expect("receiveMessage")["seq"], last_seq + 1 + n);
        }
        alice.expect_quiet();
        alice.ok("leaveRoom", &json!({"roomId": room}));
    }
}

#[test]
fn already_in_the_room_nothing_is_sent_again() {
    let room = room("already");
    fill(shared(), &room, 5, "x");
    let mut alice = client(shared(), Via::WebSocket, "alice");
    alice.ok("joinRoom", &resume(&room, 2));
    for seq in 3..=5 {
        assert_eq!(alice.expect("receiveMessage")["seq"], seq);
    }
    let ack = alice.ok("joinRoom", &resume(&room, 2));
    assert_eq!(
        ack,
        json!({"ok": true, "roomId": room, "seq": 5, "recovered": true, "replayed": 0})
    );
    // What came before the join was never sent.
    let ack = alice.ok("joinRoom", &resume(&room, 1));
    assert_eq!(
        (&ack["recovered"], &ack["replayed"]),
        (&json!(false), &json!(0))
    );
    let ack = alice.ok("joinRoom", &json!({"roomId": room}));
    assert_eq!(
        ack,
        json!({"ok": true, "roomId": room, "seq": 5, "replayed": 0})
    );
    alice.expect_quiet();
}

#[test]
fn a_large_replay_passes_a_small_outbox() {
    let folder = folder();
    let settings = [("SHARDS", "1"), ("OUTBOX_BYTES_MAX", "262144")];
    let server = Server::start(folder.path(), &settings);
    // 500 messages of 20 kB are 40 times the bound.
    fill(&server, "r", 500, &"x".repeat(20_000));
    for via in BOTH {
        let mut alice = client(&server, via, "alice");
        let ack = alice.ok("joinRoom", &resume("r", 0));
        assert_eq!(ack["replayed"], 500);
        std::thread::sleep(Duration::from_millis(300));
        for seq in 1..=500 {
            assert_eq!(alice.expect("receiveMessage")["seq"], seq, "{via:?}");
        }
    }
}

#[test]
fn live_messages_wait_behind_the_replay() {
    let room = room("behind");
    fill(shared(), &room, 400, "old");
    let mut writer = client(shared(), Via::WebSocket, "writer");
    writer.join(&room);
    for via in BOTH {
        let first = writer.say(&room, "live")["seq"].as_u64().expect("a seq");
        let mut alice = client(shared(), via, "alice");
        let asked = alice.ask("joinRoom", &resume(&room, first - 300));
        for _ in 0..50 {
            writer.say(&room, "live");
        }
        let ack = alice.ack_within(asked, PATIENCE).expect("an ack");
        assert_eq!(ack["recovered"], true, "{ack}");
        for seq in first - 299..=first + 50 {
            assert_eq!(alice.expect("receiveMessage")["seq"], seq);
        }
        alice.expect_quiet();
    }
}

#[test]
fn a_replay_goes_on_below_a_flood_of_large_messages() {
    // More than the kernel holds for a client that does not read: the replay is still on in the flood.
    const OLD: usize = 500;
    const NEW: usize = 300;
    let folder = folder();
    let settings = [
        ("SHARDS", "1"),
        ("OUTBOX_BYTES_MAX", "262144"),
        ("RATE_MESSAGES_PER_SECOND", "0"),
    ];
    let server = Server::start(folder.path(), &settings);
    let content = "x".repeat(24_000);
    fill(&server, "r", OLD, &content);
    for via in BOTH {
        let mut writer = client(&server, Via::WebSocket, "writer");
        let first = writer.ok("joinRoom", &json!({"roomId": "r"}))["seq"].as_u64();
        let first = first.expect("a seq") + 1 - OLD as u64;
        let mut alice = client(&server, via, "alice");
        let ack = alice.ok("joinRoom", &resume("r", first - 1));
        assert_eq!(ack["recovered"], true, "{ack}");
        // Twenty times what may wait, before alice reads on.
        let payloads = vec![json!({"roomId": "r", "content": content}); NEW];
        for chunk in payloads.chunks(32) {
            for id in writer.ask_all("sendMessage", chunk) {
                let ack = writer.ack_within(id, PATIENCE).expect("an ack");
                assert_eq!(ack["ok"], true, "{ack}");
            }
        }
        for seq in first..first + (OLD + NEW) as u64 {
            assert_eq!(alice.expect("receiveMessage")["seq"], seq, "{via:?}");
        }
        alice.expect_quiet();
        writer.ok("leaveRoom", &json!({"roomId": "r"}));
    }
}
