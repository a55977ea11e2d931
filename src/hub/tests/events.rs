//! Events, their acknowledgements, and their turn.

use super::*;

#[test]
fn echoes_arguments_untouched_with_their_attachments() {
    let shard = shard();
    let key = shard.connected();
    shard.say(key, r#"250["echo",{"b":1.0,"a":1e2}]"#);
    assert_eq!(shard.received(key), [r#"350[{"b":1.0,"a":1e2}]"#]);
    let json = r#"["echo",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]"#;
    shard.say(key, &format!("52-{json}"));
    for byte in [1, 2] {
        shard.message(key, Content::Binary(Bytes::from(vec![byte])));
    }
    assert_eq!(shard.received(key), [&format!("52-{json}"), "01", "02"]);
    shard.say(key, r#"50-["echo",1]"#);
    assert_eq!(shard.received(key), [r#"2["echo",1]"#]);
}

#[test]
fn attachments_have_to_come_in_time() {
    let shard = shard();
    let key = shard.connected();
    shard.say(key, r#"51-["echo",{"_placeholder":true,"num":0}]"#);
    shard.advance(
        ATTACHMENTS_TIMEOUT
            .checked_sub(Duration::from_secs(1))
            .unwrap(),
    );
    assert!(shard.is_open(key));
    shard.advance(Duration::from_secs(1));
    assert!(!shard.is_open(key));
}

#[test]
fn handles_events_one_at_a_time_and_says_good_bye_last() {
    let shard = shard();
    let key = shard.connected();
    shard.app.is_slow.set(true);
    shard.say(key, r#"2["slow","a"]"#);
    shard.say(key, r#"2["slow","b"]"#);
    shard.say(key, r#"21["echo","c"]"#);
    assert_eq!(shard.log(), ["begin a"]);
    assert!(shard.received(key).is_empty(), "the echo waits its turn");
    shard.app.is_slow.set(false);
    shard.run();
    assert_eq!(shard.log(), ["end a", "begin b", "end b"]);
    assert_eq!(shard.received(key), [r#"31["c"]"#]);

    shard.app.is_slow.set(true);
    shard.say(key, r#"2["slow","d"]"#);
    shard.engine.close(key, CloseReason::PingTimeout);
    assert_eq!(shard.log(), ["begin d", "leaving 0 rooms"]);
    shard.app.is_slow.set(false);
    shard.run();
    assert_eq!(shard.log(), ["end d", "gone from 0 rooms: ping timeout"]);
    assert!(shard.hub.with(|state| state.sessions.is_empty()));
}

#[test]
fn what_was_sent_before_leaving_is_handled() {
    let shard = shard();
    let key = shard.connected();
    shard.app.is_slow.set(true);
    shard.say(key, r#"2["join","a"]"#);
    shard.say(key, r#"2["slow","a"]"#);
    shard.say(key, r#"2["slow","b"]"#);
    shard.close(key);
    shard.app.is_slow.set(false);
    shard.run();
    let expected = [
        "begin a",
        "end a",
        "begin b",
        "end b",
        "leaving 1 rooms",
        "gone from 1 rooms: transport close",
    ];
    assert_eq!(shard.log(), expected);
    assert!(shard.hub.with(|state| state.sessions.is_empty()));
}

#[test]
fn pauses_a_client_that_is_faster_than_its_handlers() {
    let shard = shard();
    let key = shard.connected();
    shard.app.is_slow.set(true);
    for _ in 0..65 {
        assert!(!shard.engine.is_paused(key));
        shard.say(key, r#"2["slow","a"]"#);
    }
    assert!(shard.engine.is_paused(key));
    shard.app.is_slow.set(false);
    shard.run();
    assert!(!shard.engine.is_paused(key));
    assert_eq!(shard.log().len(), 130);
}

#[test]
fn asks_clients_and_waits_in_time() {
    let met = bounds_met(|| {
        let shard = shard();
        let key = shard.connected();
        for number in 0..3 {
            shard.say(key, r#"2["ask",1]"#);
            assert_eq!(shard.received(key), [format!(r#"2{number}["asked",1]"#)]);
        }
        shard.say(key, r"31[7,8]");
        shard.say(key, r"31[9]");
        shard.say(key, r"399[9]");
        assert_eq!(shard.log(), ["7,8"], "once, and only what was asked");
        shard.advance(Duration::from_millis(999));
        assert!(shard.log().is_empty());
        shard.say(key, r#"2["ask",1]"#);
        shard.advance(Duration::from_millis(1));
        assert_eq!(shard.log(), ["no ack", "no ack"]);
        shard.close(key);
        assert_eq!(shard.log()[1], "no ack", "it will never come");
        assert!(shard.hub.with(|state| state.acks.is_empty()));
        assert_eq!(shard.hub.next_deadline(), None);
    });
    assert_eq!(met, BTreeMap::from([("answer_time".to_owned(), 2)]));
}

#[test]
fn drops_what_is_volatile_when_it_cannot_leave() {
    let shard = shard();
    let key = shard.connected();
    shard.say(key, r#"2["volatile",1]"#);
    assert_eq!(shard.received(key), [r#"2["volatile",1]"#]);
    shard.say(key, r#"2["echo",1]"#);
    shard.say(key, r#"2["volatile",2]"#);
    assert_eq!(shard.received(key), [r#"2["echo",1]"#]);
}
