//! How long a connection is let in.

use super::*;

#[test]
fn a_token_that_runs_out_ends_the_connection() {
    let world = World::new();
    let key = world.open();
    let token = world.token("alice", 60);
    world.send(key, &format!("0{}", json!({"token": token})));
    world.pass(Duration::from_secs(59));
    assert_eq!(events(&world.receive(key), "exception"), [] as [Value; 0]);
    assert!(world.engine.is_open(key));
    world.pass(Duration::from_millis(1_100));
    let packets = world.receive(key);
    assert_eq!(
        events(&packets, "exception")[0]["error"]["code"],
        "token_expired"
    );
    assert!(packets.iter().any(|packet| packet == "41"), "{packets:?}");
    assert!(!world.engine.is_open(key));
    assert_eq!(world.chat.expiries.borrow().next(), None);
}

#[test]
fn tokens_that_run_out_together_are_dealt_with_over_some_ticks() {
    let world = World::new();
    let keys: Vec<Key> = (0..crate::chat::EXPIRED_PER_TICK + 10)
        .map(|number| {
            let key = world.open();
            let token = world.token(&number.to_string(), 60);
            world.send(key, &format!("0{}", json!({"token": token})));
            key
        })
        .collect();
    let open = || {
        keys.iter()
            .filter(|key| world.engine.is_open(**key))
            .count()
    };
    world.env.advance(Duration::from_secs(61));
    for left in [10, 0] {
        world.chat.tick(world.env.now());
        assert_eq!(open(), left);
    }
}

#[test]
fn a_fresh_token_moves_the_end() {
    let world = World::new();
    let key = world.open();
    let token = world.token("alice", 10);
    world.send(key, &format!("0{}", json!({"token": token})));
    let fresh = json!({"token": world.token("alice", 100)});
    let ack = world.call(key, "authenticate", &fresh).expect("an ack");
    assert_eq!(
        ack,
        json!({"ok": true, "expiresAt": "2026-01-01T00:01:40.000Z"})
    );
    let foreign = json!({"token": world.token("bob", 100)});
    assert_eq!(code(world.call(key, "authenticate", &foreign)), "forbidden");
    world.pass(Duration::from_secs(20));
    assert!(world.engine.is_open(key));
    world.pass(Duration::from_secs(81));
    assert!(!world.engine.is_open(key));
}

#[test]
fn a_draining_server_refuses_to_connect() {
    let world = World::new();
    world.chat.set_draining();
    let key = world.open();
    let token = world.token("alice", 60);
    world.send(key, &format!("0{}", json!({"token": token})));
    let packets = world.receive(key);
    let refusal = packets.iter().find_map(|packet| packet.strip_prefix("44"));
    let refusal: Value = serde_json::from_str(refusal.expect("refused")).expect("JSON");
    assert_eq!(refusal["data"]["code"], "draining");
}
