//! Broadcasts to rooms, and what makes a room an ordered one.

use super::*;

#[test]
fn broadcasts_to_unions_without_exceptions() {
    let shard = shard();
    let keys: Vec<Key> = (0..4).map(|_| shard.connected()).collect();
    for (key, room) in [(0, "a"), (1, "a"), (1, "b"), (2, "b")] {
        shard.say(keys[key], &format!(r#"2["join","{room}"]"#));
    }
    let cast = |audience: Audience| {
        audience.emit("x", &Args::none());
        let got = |key: &Key| usize::from(!shard.received(*key).is_empty());
        keys.iter().map(got).collect::<Vec<_>>()
    };
    let of = || shard.hub.of("/");
    assert_eq!(cast(of()), [1, 1, 1, 1]);
    assert_eq!(cast(of().room("a").room("b")), [1, 1, 1, 0]);
    assert_eq!(cast(of().room("a").except("b")), [1, 0, 0, 0]);
    let third = shard.hub.local_sockets("/").remove(2);
    assert_eq!(cast(of().except_socket(third.id())), [1, 1, 0, 1]);
    assert_eq!(cast(of().any(third.id().as_str())), [0, 0, 1, 0]);
    assert_eq!(cast(third.to("b")), [0, 1, 0, 0]);
    assert_eq!(cast(shard.hub.of("/b")), [0, 0, 0, 0]);
    // A room named like a socket hears nothing that is meant for it.
    shard.say(keys[0], &format!(r#"2["join","{}"]"#, third.id()));
    assert_eq!(cast(of().any(third.id().as_str())), [0, 0, 1, 0]);
    assert_eq!(cast(of().room(third.id().as_str())), [1, 0, 0, 0]);
}

#[test]
fn gathers_acknowledgements_of_a_room() {
    let shard = shard();
    let (one, two) = (shard.connected(), shard.connected());
    let ask = |timeout: u64| {
        let log = shard.app.clone();
        let timeout = Duration::from_millis(timeout);
        let then = move |acks: Result<Vec<Args>, BroadcastTimeout>| {
            let (word, acks) = match acks {
                Ok(acks) => ("all", acks),
                Err(late) => ("some", late.acks),
            };
            log.log.borrow_mut().push(format!("{word} {}", acks.len()));
        };
        shard
            .hub
            .of("/")
            .emit_with_ack("q", &Args::none(), timeout, then);
    };
    ask(100);
    assert_eq!(shard.received(one), [r#"20["q"]"#]);
    shard.say(one, "30[1]");
    assert!(shard.log().is_empty());
    shard.say(two, "30[2]");
    assert_eq!(shard.log(), ["all 2"]);
    ask(100);
    shard.say(two, "31[2]");
    shard.advance(Duration::from_millis(100));
    assert_eq!(shard.log(), ["some 1"]);
    assert!(
        shard
            .hub
            .with(|state| state.acks.is_empty() && state.gatherings.is_empty())
    );
    shard
        .hub
        .of("/b")
        .emit_with_ack("q", &Args::none(), Duration::ZERO, |acks| {
            assert_eq!(acks, Ok(Vec::new()), "nobody was asked");
        });
}

#[test]
fn a_join_waits_for_the_head_and_loses_nothing() {
    let (shard, store) = with_store();
    store.append("o", "1");
    let (one, two) = (shard.connected(), shard.connected());
    store.is_silent.set(true);
    shard.say(one, r#"21["join","o"]"#);
    shard.say(two, r#"22["join","o"]"#);
    shard.say(two, r#"2["send","o","2"]"#);
    shard
        .hub
        .of("/")
        .room("o")
        .ordered(1)
        .emit("msg", &Args::none());
    assert!(shard.received(one).is_empty());
    store.is_silent.set(false);
    store.append("o", "2");
    shard
        .hub
        .of("/")
        .room("o")
        .ordered(2)
        .emit("msg", &Args::one(&2));
    shard.run();
    // The head was read after the second message was stored; the third came while `two` waited.
    assert_eq!(shard.received(one), ["31[2]", r#"2["msg",3,"2"]"#]);
    assert_eq!(shard.received(two), ["32[2]", r#"2["msg",3,"2"]"#]);
    assert_eq!(store.reads.get(), 1, "one read for both");
}

#[test]
fn a_join_gives_up_on_a_silent_store() {
    let (shard, store) = with_store();
    let key = shard.connected();
    store.is_silent.set(true);
    shard.say(key, r#"21["join","o"]"#);
    shard.advance(Duration::from_secs(5));
    assert_eq!(shard.received(key), ["31[null]"]);
    shard
        .hub
        .of("/")
        .room("o")
        .ordered(9)
        .emit("msg", &Args::none());
    assert_eq!(
        shard.received(key),
        [r#"2["msg"]"#],
        "the first one seen begins"
    );
}

#[test]
fn repairs_what_the_bus_lost() {
    let (shard, store) = with_store();
    let key = shard.connected();
    shard.say(key, r#"21["join","o"]"#);
    shard.received(key);
    for text in ["a", "b", "c"] {
        store.append("o", text);
    }
    shard
        .hub
        .of("/")
        .room("o")
        .ordered(3)
        .emit("msg", &Args::none());
    shard.advance(Duration::from_millis(49));
    assert!(shard.received(key).is_empty());
    shard.advance(Duration::from_millis(1));
    let expected = [
        r#"2["msg",1,"a"]"#,
        r#"2["msg",2,"b"]"#,
        r#"2["msg",3,"c"]"#,
    ];
    assert_eq!(shard.received(key), expected);
    assert_eq!(shard.hub.next_deadline(), None);
}

#[test]
fn asks_a_store_that_is_down_again_and_then_goes_on() {
    let (shard, store) = with_store();
    let key = shard.connected();
    shard.say(key, r#"21["join","o"]"#);
    shard.received(key);
    store.is_down.set(true);
    shard
        .hub
        .of("/")
        .room("o")
        .ordered(2)
        .emit("msg", &Args::none());
    for _ in 0..49 {
        shard.advance(Duration::from_millis(100));
    }
    assert!(shard.received(key).is_empty());
    for _ in 0..2 {
        shard.advance(Duration::from_millis(100));
    }
    assert_eq!(shard.received(key), [r#"2["msg"]"#], "behind a visible gap");
    assert!(store.reads.get() > 10);
}

#[test]
fn a_replay_comes_before_what_is_live() {
    let (shard, store) = with_store();
    let (sender, key) = (shard.connected(), shard.connected());
    shard.say(sender, r#"2["join","o"]"#);
    for text in ["a", "b", "c"] {
        shard.say(sender, &format!(r#"2["send","o","{text}"]"#));
    }
    shard.app.is_slow.set(true);
    shard.say(key, r#"27["replay","o",1]"#);
    shard.say(sender, r#"2["send","o","d"]"#);
    shard.say(sender, r#"2["cast","o","live"]"#);
    assert_eq!(shard.received(key), ["37[3]"]);
    shard.app.is_slow.set(false);
    shard.run();
    let expected = [
        r#"2["msg",2,"b"]"#,
        r#"2["msg",3,"c"]"#,
        r#"2["msg",4,"d"]"#,
        r#"2["cast","live"]"#,
    ];
    assert_eq!(shard.received(key), expected);
    shard.say(sender, r#"2["send","o","e"]"#);
    assert_eq!(shard.received(key), [r#"2["msg",5,"e"]"#]);
    assert_eq!(store.reads.get(), 1);
    assert!(!shard.hub.with(|state| state.rooms.has_gates()));
}

#[test]
fn what_waits_behind_a_replay_is_bounded() {
    let shard = shard();
    let (sender, key) = (shard.connected(), shard.connected());
    shard.app.is_slow.set(true);
    shard.say(key, r#"27["replay","o",0]"#);
    let text = "x".repeat(5_000);
    for _ in 0..19 {
        shard.say(sender, &format!(r#"2["cast","o","{text}"]"#));
    }
    assert!(shard.is_open(key));
    shard.say(sender, &format!(r#"2["cast","o","{text}"]"#));
    assert!(!shard.is_open(key));
    shard.app.is_slow.set(false);
    shard.run();
    assert!(!shard.hub.with(|state| state.rooms.has_gates()));
}

#[test]
fn numbered_messages_are_forgotten_behind_a_replay_and_who_does_not_ask_for_them_is_closed() {
    let (shard, _) = with_store();
    let (sender, key) = (shard.connected(), shard.connected());
    shard.say(sender, r#"2["join","o"]"#);
    shard.app.is_slow.set(true);
    shard.say(key, r#"27["replay","o",0]"#);
    let text = "x".repeat(5_000);
    for _ in 0..40 {
        shard.say(sender, &format!(r#"2["send","o","{text}"]"#));
        shard.received(sender);
    }
    assert!(shard.is_open(key));
    shard.app.is_slow.set(false);
    shard.run();
    assert!(!shard.is_open(key), "its application did not ask");
    assert!(!shard.hub.with(|state| state.rooms.has_gates()));
}

#[test]
fn rooms_leave_nothing_behind() {
    let shard = shard();
    let keys: Vec<Key> = (0..3).map(|_| shard.connected()).collect();
    for key in &keys {
        for room in ["a", "b", "o"] {
            shard.say(*key, &format!(r#"2["join","{room}"]"#));
        }
    }
    assert_eq!(shard.hub.rooms(), 3);
    for key in &keys {
        shard.say(*key, r#"2["leave","a"]"#);
    }
    assert_eq!(shard.hub.rooms(), 2);
    for key in keys {
        shard.close(key);
    }
    let is_empty = |state: &mut State| {
        state.channels.is_empty() && state.sessions.is_empty() && state.acks.is_empty()
    };
    assert!(shard.hub.with(is_empty));
    assert_eq!(shard.hub.rooms(), 0);
}

#[test]
fn an_empty_room_s_next_member_costs_the_same_whoever_came_before() {
    let shard = shard();
    let key = shard.connected();
    for version in 1..=9_000 {
        let crowd = shard.hub.of("/").room("crowd");
        let user = format!("user {version}");
        crowd.presence(&user, version).emit("out", &Args::none());
    }
    let visits = |room: &str| {
        let visit = || {
            let begin = Instant::now();
            for _ in 0..20 {
                shard.say(key, &format!(r#"2["join","{room}"]"#));
                shard.say(key, &format!(r#"2["leave","{room}"]"#));
            }
            begin.elapsed()
        };
        (0..10).map(|_| visit()).min().expect("there are some")
    };
    let (fresh, crowd) = (visits("fresh"), visits("crowd"));
    assert!(crowd < 4 * fresh, "{crowd:?}, and {fresh:?} in a new one");
}
