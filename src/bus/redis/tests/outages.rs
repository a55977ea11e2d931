//! Redis is silent, away, or loses messages.

use super::*;

#[test]
fn the_rooms_of_a_host_go_on_while_redis_is_silent() {
    let world = fleet(2, true);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    world.settle();
    world.pause(true);
    world.send(0, a, "x");
    world.settle();
    assert!(world.numbers(1, b).is_empty());
    world.advance(5);
    assert_eq!(world.numbers(1, b), [1]);
    world.send(0, a, "y");
    world.settle();
    assert_eq!(world.numbers(1, b), [2], "at once, since it is late");
    world.pass(2_000);
    world.send(0, a, "z");
    world.settle();
    assert_eq!(world.numbers(1, b), [3], "at once, since the link is down");
    world.pause(false);
    for shard in 0..2 {
        world.connect(shard);
    }
    world.pass(1_500);
    assert!(world.numbers(1, b).is_empty(), "not again");
    assert_eq!(world.numbers(0, a), [1, 2, 3]);
}

#[test]
fn a_shard_that_alone_is_cut_off_hears_its_siblings_through_the_mesh() {
    let world = fleet(2, true);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    world.settle();
    world.cut(1);
    world.send(0, a, "x");
    world.settle();
    assert_eq!(world.numbers(1, b), [1]);
    world.send(1, b, "y");
    world.settle();
    assert_eq!(world.numbers(0, a), [1, 2]);
    world.connect(1);
    world.pass(1_500);
    world.send(0, a, "z");
    world.settle();
    assert_eq!(world.numbers(1, b), [2, 3]);
}

#[test]
fn the_last_message_before_an_outage_arrives_after_it() {
    let world = fleet(2, false);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    world.pass(1_500);
    world.cut(0);
    world.send(0, a, "nobody sends again");
    world.pass(500);
    assert!(world.numbers(1, b).is_empty());
    world.connect(0);
    world.pass(100);
    assert_eq!(world.numbers(1, b), [1], "a head notice told of it");
    // It was on its way when the link broke, and Redis never had it.
    world.pause(true);
    world.send(0, a, "x");
    world.pass(100);
    world.cut(0);
    world.pause(false);
    world.connect(0);
    world.pass(100);
    assert_eq!(world.numbers(1, b), [2]);
}

#[test]
fn what_other_hosts_have_sent_is_read_at_once_while_redis_is_away() {
    let world = fleet(2, false);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    world.pass(3_000);
    world.cut(0);
    world.cut(1);
    world.pass(1_500);
    world.send(0, a, "x");
    world.settle();
    assert!(world.numbers(1, b).is_empty());
    world.send(1, b, "y");
    world.settle();
    assert_eq!(world.numbers(1, b), [1, 2], "no time has passed");
}

#[test]
fn whoever_was_cut_off_compares_the_heads_of_its_rooms() {
    let world = fleet(2, false);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    world.pass(1_500);
    world.cut(1);
    world.pass(1_500);
    for _ in 0..5 {
        world.send(0, a, "x");
    }
    world.pass(3_000);
    assert!(world.numbers(1, b).is_empty());
    world.connect(1);
    world.pass(1_500);
    assert_eq!(world.numbers(1, b), [1, 2, 3, 4, 5]);
}

#[test]
fn a_server_that_dies_between_storing_and_publishing_loses_nothing() {
    let world = fleet(2, false);
    world.member(0, "o");
    let b = world.member(1, "o");
    world.pass(3_000);
    world.store.append("o", "stored, never published");
    world.broker.borrow_mut().cut(0, &world.nodes[0]);
    // It is not the dead one's tick that finds it.
    for _ in 0..700 {
        world.shards[1].advance(Duration::from_millis(10));
        world.settle();
    }
    assert_eq!(world.numbers(1, b), [1]);
}

#[test]
fn a_flapping_link_loses_and_doubles_nothing() {
    let world = fleet(2, false);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    world.settle();
    let mut got = Vec::new();
    let mut sent = 0;
    for second in 0..60 {
        world.cut(second % 2);
        for _ in 0..5 {
            world.send(0, a, "x");
            sent += 1;
            world.pass(100);
        }
        world.connect(second % 2);
        for _ in 0..5 {
            world.send(0, a, "x");
            sent += 1;
            world.pass(100);
        }
        got.extend(world.numbers(1, b));
        world.numbers(0, a);
    }
    world.pass(2_000);
    got.extend(world.numbers(1, b));
    assert_eq!(got, (1..=sent).collect::<Vec<u64>>());
}

#[test]
fn whoever_lost_too_much_to_name_it_has_everybody_look() {
    for is_one_process in [true, false] {
        let world = fleet(2, is_one_process);
        let (a, b) = (world.member(0, "o"), world.member(1, "o"));
        world.pass(1_500);
        world.store.append("o", "stored, never published");
        world.pass(1_500);
        assert!(world.numbers(0, a).is_empty());
        world.shards[0].hub.compare_everywhere();
        world.pass(1_500);
        assert_eq!(world.numbers(0, a), [1]);
        assert_eq!(world.numbers(1, b), [1]);
    }
}

#[test]
fn who_came_and_left_in_an_outage_is_told_after_it() {
    let world = fleet(2, false);
    let (_, b) = (world.member(0, "r"), world.member(1, "r"));
    world.pass(1_500);
    let tell = |user: &str, event: &str, version: u64| {
        let room = world.shards[0].hub.of("/").room("r");
        room.presence(user, version).emit(event, &Args::one(user));
        world.settle();
    };
    tell("ada", "userJoined", 1);
    assert_eq!(world.shards[1].received(b), [r#"2["userJoined","ada"]"#]);
    world.pass(12_000);
    for (number, _) in world.nodes.iter().enumerate() {
        world.cut(number);
    }
    tell("ada", "userLeft", 2);
    tell("bob", "userJoined", 3);
    tell("bob", "userLeft", 4);
    world.pass(8_000);
    world.connect(0);
    world.pass(1_500);
    world.connect(1);
    tell("ada", "userJoined", 5);
    tell("cy", "userJoined", 6);
    world.pass(4_000);
    // That ada left and came back at once nobody needs to know.
    assert_eq!(world.shards[1].received(b), [r#"2["userJoined","cy"]"#]);
    world.cut(0);
    tell("ada", "userLeft", 7);
    world.connect(0);
    world.pass(4_000);
    assert_eq!(world.shards[1].received(b), [r#"2["userLeft","ada"]"#]);
}

#[test]
fn siblings_answer_while_redis_is_away() {
    let world = fleet(2, true);
    world.member(0, "r");
    world.member(1, "r");
    world.settle();
    world.cut(0);
    let fetched = world.shards[0].hub.of("/").room("r").fetch_sockets();
    let result = Rc::new(RefCell::new(None));
    let slot = result.clone();
    world.shards[0].spawn(async move { *slot.borrow_mut() = Some(fetched.await) });
    world.settle();
    let sockets = result.take().expect("it was answered").unwrap();
    assert_eq!(sockets.len(), 2);
    // The other way round: Redis does not count who is cut off.
    let fetched = world.shards[1].hub.of("/").room("r").fetch_sockets();
    let slot = result.clone();
    world.shards[1].spawn(async move { *slot.borrow_mut() = Some(fetched.await) });
    world.settle();
    let sockets = result.take().expect("it was answered").unwrap();
    assert_eq!(sockets.len(), 2);
}

#[test]
fn joins_wait_when_too_many_rooms_are_not_confirmed() {
    let met = bounds_met(|| {
        let world = fleet(1, false);
        let joins = |count: usize| {
            for number in 0..count {
                let key = world.shards[0].connected();
                world.shards[0].say(key, &format!(r#"2["join","r{number}"]"#));
            }
        };
        joins(100);
        world.advance(10);
        world.pause(true);
        world.cut(0);
        joins(2_500);
        world.pause(false);
        world.connect(0);
        world.advance(10);
        assert_eq!(world.nodes[0].channels() - 6, 2_600 + 2_500);
    });
    assert_eq!(met, BTreeMap::from([("subscriptions".to_owned(), 1)]));
}
