//! Tests of one hub with clients that speak the wire's language.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::testing::{Shard, TestStore};
use super::*;
use crate::engine::Sid;
use crate::metrics::testing::bounds_met;
use crate::wire::Content;

fn shard() -> Shard {
    Shard::new(0, &Rc::default())
}

fn with_store() -> (Shard, Rc<TestStore>) {
    let store = Rc::default();
    (Shard::new(0, &store), store)
}

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
