//! Nodes of a fleet over a Redis without a network: outages, repair, foreign messages.

mod foreign;
mod outages;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::{HOSTS, Phase};
use crate::bus::tests::{World, fleet};
use crate::hub::Args;
use crate::metrics::testing::bounds_met;
use crate::wire::adapter::{self, Broadcast, Channels, HostNews, HostNotice, Opts, Stamp};

/// A room's channel.
const ROOM: &str = "socket.io#/#o#";

fn published(world: &World, channel: &str) -> usize {
    let broker = world.broker.borrow();
    let all = broker.published.iter();
    all.filter(|(name, _)| name == channel).count()
}

impl World {
    fn cut(&self, shard: usize) {
        self.broker.borrow_mut().cut(shard, &self.nodes[shard]);
    }

    fn connect(&self, shard: usize) {
        self.broker.borrow_mut().connect(shard, &self.nodes[shard]);
        self.settle();
        assert_eq!(self.nodes[shard].phase(), Phase::Up);
    }

    fn pause(&self, is_paused: bool) {
        self.broker.borrow_mut().is_paused = is_paused;
    }

    fn publish(&self, channel: &str, message: &[u8]) {
        let channel = channel.as_bytes();
        self.broker.borrow_mut().publish(channel, message);
        self.settle();
    }
}

#[test]
fn one_publish_serves_all_members_of_all_shards() {
    for is_one_process in [true, false] {
        let world = fleet(3, is_one_process);
        let keys: Vec<_> = (0..9)
            .map(|nth| (nth % 3, world.member(nth % 3, "o")))
            .collect();
        world.send(0, keys[0].1, "x");
        world.settle();
        for (shard, key) in &keys {
            assert_eq!(world.numbers(*shard, *key), [1]);
        }
        assert_eq!(published(&world, ROOM), 1);
        let elsewhere = world.member(1, "o2");
        world.send(0, keys[0].1, "y");
        world.settle();
        assert!(world.numbers(1, elsewhere).is_empty());
    }
}

#[test]
fn a_join_waits_until_redis_has_confirmed_it_or_is_gone() {
    let world = fleet(1, true);
    let key = world.shards[0].connected();
    world.settle();
    world.pause(true);
    world.shards[0].say(key, r#"21["join","o"]"#);
    world.settle();
    assert!(world.shards[0].received(key).is_empty());
    world.pause(false);
    world.settle();
    assert_eq!(world.shards[0].received(key), ["31[0]"]);
    world.pause(true);
    world.shards[0].say(key, r#"22["join","o2"]"#);
    world.settle();
    assert!(world.shards[0].received(key).is_empty());
    world.pass(1_100);
    assert_eq!(world.nodes[0].phase(), Phase::Down, "it owed an answer");
    assert_eq!(world.shards[0].received(key), ["32[0]"]);
    world.shards[0].say(key, r#"23["join","o3"]"#);
    assert_eq!(world.shards[0].received(key), ["33[0]"], "at once");
}

#[test]
fn what_both_ways_bring_is_taken_once() {
    let world = fleet(2, true);
    world.member(0, "r");
    let b = world.member(1, "r");
    world.settle();
    world.pause(true);
    let say = |event: &str| {
        let room = world.shards[0].hub.of("/").room("r");
        room.emit(event, &Args::none());
    };
    say("one");
    say("two");
    world.advance(5);
    let both = [r#"2["one"]"#, r#"2["two"]"#];
    assert_eq!(world.shards[1].received(b), both);
    world.pause(false);
    world.settle();
    assert!(world.shards[1].received(b).is_empty());
    say("three");
    world.settle();
    assert_eq!(world.shards[1].received(b), [r#"2["three"]"#]);
}

#[test]
fn nothing_overtakes_what_redis_is_late_with() {
    let world = fleet(2, true);
    world.member(0, "r");
    let b = world.member(1, "r");
    world.settle();
    world.pause(true);
    for event in ["one", "two", "three"] {
        let room = world.shards[0].hub.of("/").room("r");
        room.emit(event, &Args::none());
        world.shards[0].env.advance(Duration::from_millis(3));
    }
    world.settle();
    let all = [r#"2["one"]"#, r#"2["two"]"#, r#"2["three"]"#];
    assert_eq!(world.shards[1].received(b), all);
}
