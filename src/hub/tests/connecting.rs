//! Namespaces: coming in, being refused, leaving.

use super::*;

#[test]
fn answers_connect_and_then_what_the_application_emits() {
    let shard = shard();
    let key = shard.open();
    shard.say(key, r#"0{"token":"x"}"#);
    let received = shard.received(key);
    let sid = received[0].strip_prefix(r#"0{"sid":""#).unwrap();
    let sid = sid.strip_suffix(r#""}"#).unwrap();
    let id = SocketId::parse(sid).unwrap();
    assert!(shard.hub.socket("/", &id).is_some());
    assert_ne!(Some(sid), shard.engine.sid(key).as_ref().map(Sid::as_str));
    assert_eq!(received[1], r#"2["auth","{\"token\":\"x\"}"]"#);
    shard.say(key, "0/b");
    let received = shard.received(key);
    assert!(received[0].starts_with(r#"0/b,{"sid":""#));
    assert_eq!(received[1], r#"2/b,["auth","{}"]"#);
}

#[test]
fn refuses_with_data_and_keeps_the_connection() {
    let shard = shard();
    let key = shard.open();
    shard.say(key, "0/no,");
    let refused = r#"4/no,{"message":"no","data":{"code":7}}"#;
    assert_eq!(shard.received(key), [refused]);
    shard.say(key, "0/unknown");
    let invalid = r#"4/unknown,{"message":"Invalid namespace"}"#;
    assert_eq!(shard.received(key), [invalid]);
    shard.say(key, "0");
    assert_eq!(shard.received(key).len(), 2);
    assert!(shard.log().is_empty(), "nobody has gone");
}

#[test]
fn closes_after_too_many_refusals() {
    let shard = shard();
    let key = shard.open();
    for _ in 0..9 {
        shard.say(key, "0/unknown,");
    }
    assert!(shard.is_open(key));
    shard.say(key, "0/unknown,");
    assert!(!shard.is_open(key));
}

#[test]
fn closes_who_joins_nothing_in_time() {
    let shard = shard();
    let (idle, refused, joined) = (shard.open(), shard.open(), shard.connected());
    shard.say(refused, "0/no,");
    assert!(shard.hub.next_deadline().is_some());
    shard.advance(Duration::from_secs(44));
    assert!(shard.is_open(idle));
    shard.advance(Duration::from_secs(1));
    assert!(!shard.is_open(idle) && !shard.is_open(refused) && shard.is_open(joined));
    assert_eq!(shard.hub.next_deadline(), None);
}

#[test]
fn closes_who_has_left_everything_and_comes_back_to_nothing_in_time() {
    let met = bounds_met(|| {
        let shard = shard();
        let keys = [(); 3].map(|()| shard.connected());
        shard.say(keys[2], "0/b,");
        shard.advance(Duration::from_mins(1));
        for key in keys {
            shard.say(key, "1");
        }
        shard.advance(Duration::from_millis(44_900));
        shard.say(keys[1], "0");
        shard.advance(Duration::from_millis(200));
        let open = keys.map(|key| shard.is_open(key));
        assert_eq!(open, [false, true, true], "one is back, one in `/b`");
        shard.advance(Duration::from_mins(1));
        assert!(shard.is_open(keys[1]) && shard.is_open(keys[2]));
    });
    assert_eq!(met, BTreeMap::from([("connect_time".to_owned(), 1)]));
}

#[test]
fn a_client_that_vanishes_while_the_application_decides_is_never_there() {
    let shard = shard();
    let (gone, early) = (shard.open(), shard.open());
    shard.app.is_undecided.set(true);
    shard.say(gone, "0");
    shard.close(gone);
    shard.say(early, "0");
    shard.say(early, r#"2["echo"]"#);
    assert!(!shard.is_open(early), "nothing but CONNECT before CONNECT");
    shard.app.is_undecided.set(false);
    shard.run();
    assert!(shard.log().is_empty());
    assert!(shard.hub.local_sockets("/").is_empty());
    assert!(shard.hub.with(|state| state.sessions.is_empty()));
}

#[test]
fn a_client_whose_outbox_overflows_with_the_answer_to_connect_is_never_there() {
    let mut gone = BTreeSet::new();
    for slack in (0..400).step_by(40) {
        let shard = shard();
        let key = shard.connected();
        let filling = "x".repeat(shard.engine.options().outbox_bytes_max - slack);
        shard.say(key, &format!(r#"2["echo","{filling}"]"#));
        if shard.is_open(key) {
            shard.say(key, "0/b");
            gone.insert(shard.log().len() / 2);
        }
    }
    // With the least room only the socket that was there before is told to go.
    assert_eq!(Vec::from_iter(gone), [0, 1, 2]);
}

#[test]
fn closes_on_what_breaks_a_rule() {
    for text in ["x", "2", r#"2/b,["echo"]"#, r#"2["connect"]"#, "0", "4{}"] {
        let shard = shard();
        let key = shard.connected();
        shard.say(key, text);
        assert!(!shard.is_open(key), "{text}");
        assert_eq!(shard.log().len(), 2, "{text}");
    }
}

#[test]
fn leaves_a_namespace_and_comes_back_as_another() {
    let shard = shard();
    let key = shard.connected();
    let first = shard.hub.local_sockets("/").remove(0);
    shard.say(key, r#"2["join","a"]"#);
    shard.say(key, "1");
    let gone = [
        "leaving 1 rooms",
        "gone from 1 rooms: client namespace disconnect",
    ];
    assert_eq!(shard.log(), gone);
    assert!(!first.is_connected() && shard.is_open(key));
    shard.say(key, "0");
    let again = shard.hub.local_sockets("/").remove(0);
    assert_ne!(first.id(), again.id());
    first.emit("late", &Args::none());
    assert_eq!(shard.received(key).len(), 2, "the answer, and `auth`");
}

#[test]
fn disconnects_a_namespace_or_the_connection() {
    let shard = shard();
    let key = shard.connected();
    shard.say(key, "0/b,");
    shard.received(key);
    shard.say(key, r#"2/b,["out",false]"#);
    assert_eq!(shard.received(key), ["1/b,"]);
    assert!(shard.is_open(key));
    shard.say(key, "0/b,");
    shard.received(key);
    shard.log();
    shard.say(key, r#"2["out",true]"#);
    assert_eq!(shard.received(key)[..2], ["1", "1/b,"]);
    assert!(!shard.is_open(key));
    let gone = "gone from 0 rooms: server namespace disconnect";
    assert_eq!(shard.log().iter().filter(|line| *line == gone).count(), 2);
}
