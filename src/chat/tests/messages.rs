//! Sends: stored, then seen, and always answered.

use super::*;

#[test]
fn a_message_is_stored_then_seen() {
    let world = World::new();
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    world.join(alice);
    world.join(bob);
    world.mood.set(Mood::Dawdles);
    assert_eq!(world.say(alice, "x"), None);
    assert_eq!(
        events(&world.receive(bob), "receiveMessage"),
        [] as [Value; 0]
    );
    world.mood.set(Mood::Works);
    assert_eq!(world.ack(alice).expect("an ack")["seq"], 1);
    assert_eq!(
        events(&world.receive(bob), "receiveMessage")[0]["content"],
        "x"
    );
}

#[test]
fn every_send_is_answered_within_5_s_of_being_read() {
    let world = World::new();
    let alice = world.client("alice");
    world.join(alice);
    world.mood.set(Mood::Sulks);
    for n in 0..10 {
        assert_eq!(world.say(alice, &n.to_string()), None);
    }
    world.pass(Duration::from_millis(4_800));
    assert_eq!(world.ack(alice), None);
    world.pass(Duration::from_millis(300));
    let acks = acks(&world.receive(alice));
    let codes: Vec<_> = acks
        .iter()
        .map(|ack| ack["error"]["code"].clone())
        .collect();
    // The first was in flight; the others were never handed on.
    assert_eq!(codes[0], "timeout");
    assert_eq!(codes[1..], vec![json!("unavailable"); 9]);
}

#[test]
fn what_is_stored_after_its_time_is_delivered_all_the_same() {
    let world = World::new();
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    world.join(alice);
    world.join(bob);
    world.mood.set(Mood::Dawdles);
    assert_eq!(world.say(alice, "x"), None);
    world.pass(FIVE + Duration::from_millis(100));
    assert_eq!(code(world.ack(alice)), "timeout");
    world.mood.set(Mood::Works);
    assert_eq!(
        events(&world.receive(bob), "receiveMessage")[0]["content"],
        "x"
    );
    let again = world.say(alice, "x").expect("an ack");
    assert_eq!(
        (&again["seq"], &again["duplicate"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(
        events(&world.receive(bob), "receiveMessage"),
        [] as [Value; 0]
    );
}

#[test]
fn a_message_of_unknown_outcome_reaches_the_members_once_the_store_answers() {
    let world = World::new();
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    world.join(alice);
    world.join(bob);
    world.mood.set(Mood::Forgets);
    assert_eq!(code(world.say(alice, "x")), "timeout");
    assert_eq!(code(world.say(alice, "y")), "timeout");
    world.mood.set(Mood::Refuses);
    world.pass(FIVE);
    assert_eq!(
        events(&world.receive(bob), "receiveMessage"),
        [] as [Value; 0]
    );
    world.mood.set(Mood::Works);
    world.pass(FIVE);
    let seen = events(&world.receive(bob), "receiveMessage");
    let contents: Vec<_> = seen
        .iter()
        .map(|message| message["content"].clone())
        .collect();
    assert_eq!(contents, ["x", "y"]);
}

#[test]
fn sends_that_wait_are_bounded() {
    let world = World::new();
    let alice = world.client("alice");
    world.join(alice);
    world.chat.waiting.set(crate::chat::WAITING_SENDS_MAX);
    let ack = world.say(alice, "x");
    assert_eq!(ack.as_ref().expect("an ack")["error"]["retryAfterMs"], 1000);
    assert_eq!(code(ack), "unavailable");
    world.chat.waiting.set(0);
    assert_eq!(world.say(alice, "x").expect("an ack")["seq"], 1);
    assert_eq!(world.chat.waiting_sends(), 0);
    world.mood.set(Mood::Refuses);
    assert_eq!(code(world.say(alice, "y")), "unavailable");
    assert_eq!(world.chat.waiting_sends(), 0);
}
