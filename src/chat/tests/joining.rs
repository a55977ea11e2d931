//! Joins, replays, and who is told of them.

use super::*;

#[test]
fn a_replay_that_cannot_be_promised_is_refused_and_one_that_was_ends_the_connection() {
    let world = World::new();
    let alice = world.client("alice");
    world.join(alice);
    for n in 0..250 {
        world.say(alice, &n.to_string());
    }
    let bob = world.client("bob");
    let resume = json!({"roomId": "r", "lastSeq": 10});
    world.mood.set(Mood::Refuses);
    assert_eq!(code(world.call(bob, "joinRoom", &resume)), "unavailable");
    world.mood.set(Mood::Works);
    assert_eq!(code(world.say(bob, "x")), "not_in_room");
    // The outbox of 64 KiB makes the replay stop on its way.
    world.send(bob, &format!("27{}", json!(["joinRoom", resume])));
    world.mood.set(Mood::Refuses);
    let packets = world.receive(bob);
    assert_eq!(acks(&packets)[0]["replayed"], 240);
    let seqs: Vec<_> = events(&packets, "receiveMessage")
        .iter()
        .filter_map(|message| message["seq"].as_u64())
        .collect();
    assert!(
        seqs.len() < 240 && seqs.iter().copied().eq(11..11 + seqs.len() as u64),
        "{seqs:?}"
    );
    assert!(!world.engine.is_open(bob));
}

#[test]
fn a_client_that_has_seen_more_elsewhere_is_recovered_once_the_shard_has_caught_up() {
    let world = World::new();
    let alice = world.client("alice");
    world.join(alice);
    world.say(alice, "1");
    // Another server stores what its bus does not bring.
    for number in 2..=5_u128 {
        let draft = Draft {
            room: "r".into(),
            user: "bob".into(),
            content: number.to_string().into(),
            client_msg_id: None,
            id: uuid::Uuid::from_u128(number),
            wall_ms: 0,
        };
        let mut stored = world.store.append(draft);
        assert!((&mut stored).now_or_never().is_some());
    }
    world.receive(alice);
    let carol = world.client("carol");
    let resume = json!({"roomId": "r", "lastSeq": 3});
    world.send(carol, &format!("27{}", json!(["joinRoom", resume])));
    let packets = world.receive(carol);
    let ack = &acks(&packets)[0];
    assert_eq!((&ack["seq"], &ack["recovered"]), (&5.into(), &true.into()));
    let numbers = |packets: &[String]| -> Vec<u64> {
        let messages = events(packets, "receiveMessage");
        messages.iter().filter_map(|m| m["seq"].as_u64()).collect()
    };
    assert_eq!(numbers(&packets), [4, 5], "and nothing again");
    assert_eq!(numbers(&world.receive(alice)), [2, 3, 4, 5]);
    // More than there is: what the client has is not ours.
    let dave = world.client("dave");
    let ahead = json!({"roomId": "r", "lastSeq": 9});
    let ack = world.call(dave, "joinRoom", &ahead).expect("an ack");
    assert_eq!(ack["recovered"], false);
}

#[test]
fn without_the_store_a_join_without_last_seq_succeeds() {
    let world = World::new();
    world.mood.set(Mood::Refuses);
    let alice = world.client("alice");
    world.send(
        alice,
        &format!("27{}", json!(["joinRoom", {"roomId": "r"}])),
    );
    world.pass(FIVE + FIVE);
    let ack = world.ack(alice).expect("an ack");
    assert_eq!(
        ack,
        json!({"ok": true, "roomId": "r", "seq": null, "replayed": 0})
    );
}

#[test]
fn a_prefix_names_the_socket_io_room_and_clients_do_not_see_it() {
    let world = World::with_prefix("chat:");
    let alice = world.client("alice");
    assert_eq!(world.join(alice).expect("an ack")["roomId"], "r");
    world.send(
        alice,
        &format!(
            "27{}",
            json!(["sendMessage", {"roomId": "r", "content": "x"}])
        ),
    );
    let packets = world.receive(alice);
    assert_eq!(events(&packets, "receiveMessage")[0]["roomId"], "r");
    let sockets = world.hub.of("/").room("chat:r").local_sockets();
    assert_eq!(sockets.len(), 1);
}

#[test]
fn one_user_enters_and_leaves_once() {
    let world = World::new();
    let watch = world.client("watch");
    world.join(watch);
    let sockets = [world.client("bob"), world.client("bob")];
    for key in sockets {
        world.join(key);
    }
    let notice = json!({"roomId": "r", "userId": "bob"});
    let joined = events(&world.receive(watch), "userJoined");
    assert_eq!(joined, std::slice::from_ref(&notice));
    world
        .engine
        .close(sockets[0], crate::engine::CloseReason::TransportClose);
    world.run();
    assert_eq!(events(&world.receive(watch), "userLeft"), [] as [Value; 0]);
    world.call(sockets[1], "leaveRoom", &json!({"roomId": "r"}));
    assert_eq!(events(&world.receive(watch), "userLeft"), [notice]);
}
