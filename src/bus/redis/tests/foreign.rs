//! What servers of other makes say, and what nobody should.

use super::*;

#[test]
fn a_foreign_broadcast_is_passed_on_as_it_is() {
    let world = fleet(2, false);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    world.settle();
    let foreign = |rooms: &[&str]| {
        adapter::encode_broadcast(&Broadcast {
            uid: "emitter".into(),
            namespace: "/".into(),
            event: "hi".into(),
            args: Args::one(&1),
            opts: Opts {
                rooms: rooms.iter().copied().collect(),
                ..Opts::default()
            },
            stamp: None,
        })
    };
    world.publish(ROOM, &foreign(&["o"]));
    for (shard, key) in [(0, a), (1, b)] {
        assert_eq!(world.shards[shard].received(key), [r#"2["hi",1]"#]);
    }
    world.publish("socket.io#/#", &foreign(&[]));
    assert_eq!(world.shards[0].received(a), [r#"2["hi",1]"#]);
    world.shards[1].received(b);
    // One socket by its id.
    let sockets = world.shards[1].hub.local_sockets("/");
    let id = sockets[0].id();
    world.publish(&format!("socket.io#/#{id}#"), &foreign(&[id.as_str()]));
    assert_eq!(world.shards[1].received(b), [r#"2["hi",1]"#]);
    assert!(world.shards[0].received(a).is_empty());
}

#[test]
fn a_socket_of_a_host_that_has_drawn_the_same_tag_is_reached() {
    let world = fleet(2, false);
    let a = world.member(0, "o");
    world.settle();
    let id = world.shards[0].hub.local_sockets("/")[0].id();
    let ours = &world.nodes[1].identity;
    assert_eq!(
        id.place(),
        (ours.tag, world.nodes[1].shard),
        "as if it were ours"
    );
    let audience = world.shards[1].hub.of("/").socket(id);
    audience.emit("hi", &Args::none());
    world.settle();
    assert_eq!(world.shards[0].received(a), [r#"2["hi"]"#]);
}

#[test]
fn rubbish_harms_nobody() {
    let world = fleet(2, false);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    world.settle();
    let channels = Channels::of("/");
    let good = adapter::encode_broadcast(&Broadcast {
        uid: "abcdef".into(),
        namespace: "/".into(),
        event: "hi".into(),
        args: Args::one("there"),
        opts: Opts::default(),
        stamp: None,
    });
    let mut all: Vec<Vec<u8>> = (0..good.len()).map(|cut| good[..cut].to_vec()).collect();
    for text in [
        "",
        "{",
        "{}",
        "[]",
        "null",
        r#"{"type":9}"#,
        r#"{"type":6,"data":1}"#,
    ] {
        all.push(text.as_bytes().to_vec());
    }
    all.extend((0..=255).map(|byte| vec![byte; 9]));
    for channel in [
        &*channels.broadcast,
        ROOM,
        &channels.request,
        &channels.response,
        crate::bus::redis::HEADS,
        HOSTS,
    ] {
        for message in &all {
            world
                .broker
                .borrow_mut()
                .publish(channel.as_bytes(), message);
        }
    }
    world.settle();
    world.pass(1_500);
    world.send(0, a, "x");
    world.settle();
    assert_eq!(world.numbers(0, a), [1]);
    assert_eq!(world.numbers(1, b), [1]);
    assert_eq!(world.nodes[1].phase(), Phase::Up);
}

#[test]
fn a_number_that_somebody_made_up_stops_no_room() {
    let world = fleet(2, false);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    world.settle();
    world.store.is_silent.set(true);
    for seq in [1 << 60, u64::MAX] {
        let head = adapter::Head {
            namespace: "/".into(),
            room: "o".into(),
            seq,
        };
        world.publish(crate::bus::redis::HEADS, &adapter::encode_heads(&[head]));
        let made_up = adapter::encode_broadcast(&Broadcast {
            uid: "abcdef".into(),
            namespace: "/".into(),
            event: "msg".into(),
            args: Args::builder().push(&0).push("x").build(),
            opts: Opts {
                rooms: ["o"].into_iter().collect(),
                ..Opts::default()
            },
            stamp: Some(adapter::Stamp {
                count: 1,
                seq: Some(seq),
                presence: None,
            }),
        });
        world.publish(ROOM, &made_up);
    }
    // So long that delivery goes on without the store.
    world.pass(6_000);
    world.send(0, a, "unseen for now");
    world.settle();
    assert_eq!(world.numbers(0, a), [0]);
    assert_eq!(world.numbers(1, b), [0]);
    world.store.is_silent.set(false);
    world.pass(2_500);
    world.send(0, a, "x");
    world.settle();
    assert_eq!(world.numbers(0, a), [1, 2]);
    assert_eq!(world.numbers(1, b), [1, 2]);
}

#[test]
fn answers_the_requests_of_node_servers_for_its_own_sockets() {
    let world = fleet(2, true);
    world.member(0, "r");
    world.member(1, "r");
    world.settle();
    let ask = |request: &str| {
        world.broker.borrow_mut().published.clear();
        world.publish("socket.io-request#/#", request.as_bytes());
        let broker = world.broker.borrow();
        let all = broker.published.iter();
        let answers = all.filter(|(name, _)| name.starts_with("socket.io-response#/#"));
        answers
            .map(|(_, message)| message.clone())
            .collect::<Vec<_>>()
    };
    let fetch = ask(r#"{"uid":"x","requestId":"q","type":5,"opts":{"rooms":["r"],"except":[]}}"#);
    assert_eq!(fetch.len(), 2, "one for each shard");
    for answer in &fetch {
        let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
        assert_eq!(answer["requestId"], "q");
        let socket = &answer["sockets"][0];
        assert_eq!(socket["rooms"][0], socket["id"]);
        assert_eq!(socket["rooms"][1], "r");
        assert!(socket["handshake"]["issued"].is_number());
    }
    let rooms = ask(r#"{"uid":"x","requestId":"q","type":1}"#);
    let answer: serde_json::Value = serde_json::from_slice(&rooms[0]).unwrap();
    assert_eq!(answer["rooms"].as_array().unwrap().len(), 2);
    let said = ask(r#"{"uid":"x","requestId":"q","type":6,"data":["hello",1]}"#);
    let answer: serde_json::Value = serde_json::from_slice(&said[0]).unwrap();
    assert_eq!(
        (&answer["type"], &answer["data"]),
        (&6.into(), &"heard".into())
    );
    let id = world.shards[0].hub.local_sockets("/")[0].id();
    let old = ask(&format!(
        r#"{{"requestId":"q","type":2,"sid":"{id}","room":"s"}}"#
    ));
    assert_eq!(old, [br#"{"requestId":"q"}"#], "only who has the socket");
    let moved = ask(r#"{"type":3,"opts":{"rooms":["s"],"except":[]},"rooms":["r"]}"#);
    assert!(moved.is_empty());
    let left = ask(r#"{"requestId":"q","type":0,"rooms":["r"]}"#);
    let count = |answer: &Vec<u8>| {
        let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
        answer["sockets"].as_array().unwrap().len()
    };
    assert_eq!(left.iter().map(count).sum::<usize>(), 1);
}

#[test]
fn a_count_of_clients_that_cannot_be_ends_nothing() {
    let world = fleet(2, false);
    let result = Rc::new(RefCell::new(None));
    let slot = result.clone();
    let everybody = world.shards[0].hub.of("/");
    let then = move |acks| *slot.borrow_mut() = Some(acks);
    everybody.emit_with_ack("q", &Args::none(), Duration::from_secs(1), then);
    let id = format!("{}1", world.nodes[0].identity.uid);
    let count = u64::MAX;
    let lie = format!(r#"{{"type":8,"requestId":"{id}","clientCount":{count}}}"#);
    for _ in 0..2 {
        world
            .broker
            .borrow_mut()
            .publish(b"socket.io-response#/#", lie.as_bytes());
    }
    world.settle();
    assert!(result.borrow().is_none(), "so many cannot have answered");
    world.pass(1_100);
    assert!(matches!(result.take(), Some(Err(_))));
}

#[test]
fn what_nobody_can_answer_times_out() {
    let met = bounds_met(|| {
        let world = fleet(2, false);
        world.pause(true);
        let fetched = world.shards[0].hub.of("/").fetch_sockets();
        let result = Rc::new(Cell::new(None));
        let slot = result.clone();
        world.shards[0].spawn(async move { slot.set(Some(fetched.await.is_err())) });
        world.pass(5_100);
        assert_eq!(result.take(), Some(true));
    });
    assert_eq!(met, BTreeMap::from([("answer_time".to_owned(), 1)]));
}

#[test]
fn more_servers_than_are_remembered_are_counted() {
    let met = bounds_met(|| {
        let world = fleet(1, false);
        let a = world.member(0, "o");
        world.settle();
        let hear = |host: u64| {
            let news = HostNews::Beat;
            let beat = adapter::encode_host_notice(&HostNotice { host, news });
            let hello = adapter::encode_broadcast(&Broadcast {
                uid: format!("server {host}").into(),
                namespace: "/".into(),
                event: "hi".into(),
                args: Args::none(),
                opts: Opts::default(),
                stamp: Some(Stamp {
                    count: 1,
                    seq: None,
                    presence: None,
                }),
            });
            let mut broker = world.broker.borrow_mut();
            broker.publish(HOSTS.as_bytes(), &beat);
            broker.publish(b"socket.io#/#", &hello);
        };
        (0..1_025).for_each(hear);
        world.settle();
        assert_eq!(world.shards[0].received(a).len(), 1_025);
        // All are there still, but the one that was forgotten.
        for host in [0, 1_024] {
            hear(host);
        }
        world.settle();
        assert_eq!(world.shards[0].received(a).len(), 1);
        world.pass(5_100);
    });
    let counted = |bound: &str| met.get(bound).copied().unwrap_or_default();
    // The last host is heard twice, and two servers came when there was no place.
    assert_eq!((counted("hosts"), counted("nodes")), (2, 2), "{met:?}");
    assert_eq!(counted("host_time"), 1, "{met:?}");
}

#[test]
fn a_question_of_another_server_is_open_for_ten_minutes_at_most() {
    let met = bounds_met(|| {
        let world = fleet(1, false);
        let key = world.member(0, "r");
        let ask = || {
            let request = r#"{"uid":"x","requestId":"q","type":7,"packet":{"type":2,"nsp":"/","data":["ask"]},
                "opts":{"rooms":["r"],"except":[],"flags":{"timeout":3600000}}}"#;
            world.publish("socket.io-request#/#", request.as_bytes());
            let asked = world.shards[0].received(key).concat();
            let id = asked.strip_prefix('2').unwrap();
            id.strip_suffix(r#"["ask"]"#).unwrap().to_owned()
        };
        let answers = || {
            let broker = world.broker.borrow();
            let all = broker.published.iter();
            all.filter(|(name, _)| name.starts_with("socket.io-response"))
                .count()
        };
        let id = ask();
        assert_eq!(answers(), 1, "of how many");
        world.advance(599_999);
        world.shards[0].say(key, &format!("3{id}[]"));
        world.settle();
        assert_eq!(answers(), 2);
        let id = ask();
        world.advance(600_000);
        world.shards[0].say(key, &format!("3{id}[]"));
        world.settle();
        assert_eq!(answers(), 3, "nobody waits for it");
    });
    assert_eq!(met, BTreeMap::from([("answer_time".to_owned(), 1)]));
}

#[test]
fn a_stream_that_is_none_of_redis_ends_the_link_alone() {
    let world = fleet(1, true);
    for bytes in [
        &b"HTTP/1.1 400\r\n"[..],
        b"+OK\r\n",
        b":1\r\n",
        b"-ERR no\r\n",
    ] {
        world.broker.borrow_mut().say(0, bytes);
        world.settle();
        assert_eq!(world.nodes[0].phase(), Phase::Down);
        world.connect(0);
    }
    let bytes = Bytes::from_static(b">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\ny\r\n");
    world.broker.borrow_mut().say(0, &bytes);
    world.settle();
    assert_eq!(world.nodes[0].phase(), Phase::Up, "an unknown channel");
}
