//! What a user may send and join.

use super::*;

fn limited(world: &World, burst: u32) {
    world.chat.set_message_rate(MessageRate {
        rate: Rate::per_second(10, burst),
        joins: Rate::per_second(20, 5),
        refusals_max: 10 * burst,
    });
}

#[test]
fn a_user_sends_at_a_rate_over_all_connections() {
    let world = World::new();
    limited(&world, 3);
    let (one, two, other) = (
        world.client("ada"),
        world.client("ada"),
        world.client("bob"),
    );
    for key in [one, two, other] {
        world.join(key);
    }
    assert_eq!(world.say(one, "1").expect("an ack")["ok"], true);
    assert_eq!(world.say(two, "2").expect("an ack")["ok"], true);
    assert_eq!(world.say(one, "3").expect("an ack")["ok"], true);
    for key in [one, two] {
        let refused = world.say(key, "4").expect("an ack");
        assert_eq!(refused["error"]["code"], "rate_limited");
        assert_eq!(refused["error"]["retryAfterMs"], 100, "{refused}");
    }
    assert_eq!(world.say(other, "5").expect("an ack")["ok"], true);
    world.env.advance(Duration::from_millis(100));
    let again = world.say(two, "4").expect("an ack");
    assert_eq!((&again["ok"], &again["seq"]), (&json!(true), &json!(5)));
    limited(&world, 0);
    world.chat.set_message_rate(MessageRate::default());
    for content in 0..100 {
        let sent = world.say(one, &content.to_string());
        assert_eq!(sent.expect("an ack")["ok"], true, "no limit any more");
    }
}

#[test]
fn what_is_malformed_counts_and_an_exception_tells_too() {
    let world = World::new();
    limited(&world, 1);
    let ada = world.client("ada");
    assert_eq!(
        code(world.call(ada, "sendMessage", &json!({}))),
        "invalid_payload"
    );
    world.send(ada, r#"2["sendMessage",{}]"#);
    let exceptions = events(&world.receive(ada), "exception");
    assert_eq!(exceptions[0]["error"]["code"], "rate_limited");
    assert_eq!(exceptions[0]["error"]["retryAfterMs"], 100);
    // Joins have a rate of their own.
    assert_eq!(world.join(ada).expect("an ack")["ok"], true);
}

#[test]
fn tokens_count_as_joins_good_ones_and_bad_ones() {
    let world = World::new();
    limited(&world, 1);
    let ada = world.client("ada");
    let token = world.token("ada", 600);
    for (token, expected) in [(&*token, None), ("forged", Some("unauthorized"))] {
        let answer = world.call(ada, "authenticate", &json!({"token": token}));
        let answer = answer.expect("an ack");
        assert_eq!(answer["error"]["code"].as_str(), expected);
    }
    for _ in 2..5 {
        assert_eq!(world.join(ada).expect("an ack")["ok"], true);
    }
    let refused = world.call(ada, "authenticate", &json!({"token": token}));
    let refused = refused.expect("an ack");
    assert_eq!(refused["error"]["code"], "rate_limited", "{refused}");
    assert_eq!(refused["error"]["retryAfterMs"], 50);
    assert!(world.engine.is_open(ada));
    world.env.advance(Duration::from_millis(50));
    let again = world.call(ada, "authenticate", &json!({"token": token}));
    assert_eq!(again.expect("an ack")["ok"], true);
}

#[test]
fn a_user_joins_at_a_rate_over_all_connections_and_is_not_cut_off_for_it() {
    let world = World::new();
    limited(&world, 1);
    let (one, two, other) = (
        world.client("ada"),
        world.client("ada"),
        world.client("bob"),
    );
    for key in [one, two, one, two, one] {
        assert_eq!(world.join(key).expect("an ack")["ok"], true);
        world.call(key, "leaveRoom", &json!({"roomId": "r"}));
    }
    let joined = world.join(other).expect("an ack");
    assert_eq!(joined["ok"], true, "another user's rate is another's");
    for key in [one, two].repeat(20) {
        let refused = world.join(key).expect("an ack");
        assert_eq!(refused["error"]["code"], "rate_limited", "{refused}");
        assert_eq!(refused["error"]["retryAfterMs"], 50);
    }
    let told = events(&world.receive(other), "userJoined");
    assert_eq!(told, [] as [Value; 0], "who is refused is not announced");
    assert!(world.engine.is_open(one) && world.engine.is_open(two));
    world.env.advance(Duration::from_millis(50));
    assert_eq!(world.join(two).expect("an ack")["ok"], true);
}

#[test]
fn who_goes_on_regardless_is_cut_off_for_a_while() {
    let world = World::new();
    limited(&world, 2);
    let (ada, second) = (world.client("ada"), world.client("ada"));
    for content in 0..22 {
        let outcome = world.say(ada, &content.to_string());
        assert!(outcome.is_some(), "answered to the last");
        world.receive(second);
    }
    assert!(world.engine.closing(ada).is_some() || !world.engine.is_open(ada));
    assert!(world.engine.is_open(second), "it did not do it");
    let token = world.token("ada", 3600);
    let key = world.open();
    world.send(key, &format!("0{}", json!({"token": token})));
    let answer = world.receive(key).concat();
    let (_, refusal) = answer.split_once("44").expect("a refusal");
    let refusal: Value = serde_json::from_str(refusal).expect("JSON");
    assert_eq!(refusal["data"]["code"], "rate_limited");
    assert_eq!(refusal["data"]["retryAfterMs"], 10_000);
    world.client("bob");
    world.pass(Duration::from_secs(10));
    world.client("ada");
}

/// A table of members, as an installation may have one: a look-up takes a moment, and may fail.

#[test]
fn it_is_counted_when_too_many_are_away_to_remember_them_all() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let met = || {
        let rendered = recorder.handle().render();
        let mut lines = rendered.lines();
        let line =
            lines.find_map(|line| line.strip_prefix("yum_bounds_total{bound=\"absent_users\""));
        line.expect("it is there").ends_with(" 1")
    };
    metrics::with_local_recorder(&recorder, || {
        let world = World::new();
        limited(&world, 3);
        let (directory, now) = (&world.chat.parts.directory, world.env.now());
        for number in 0..100_000 {
            let user = number.to_string();
            let usage = directory.arrive(&user);
            let taken = directory.take_message(&usage, world.chat.message_rate.get(), now);
            assert!(taken.is_ok());
            let _ = directory.leave(&user, now);
        }
        let key = world.client("ada");
        world.join(key);
        world.say(key, "x");
        assert!(!met());
        world.engine.close(key, engine::CloseReason::TransportClose);
        world.run();
    });
    assert!(met());
}
