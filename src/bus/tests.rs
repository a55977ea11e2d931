//! Hubs of several shards, joined by a mesh whose rings are emptied by hand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::directory::Directory;
use super::mesh::{LETTERS_MAX, Mesh, seats_with_slots};
use super::redis::testing::Broker;
use super::redis::{self, Fleet, Redis, Target};
use crate::engine::Key;
use crate::env::Env;
use crate::hub::testing::{Shard, TestStore};
use crate::hub::{Args, BroadcastTimeout, RequestTimeout};

pub(super) struct World {
    pub(super) shards: Vec<Shard>,
    pub(super) meshes: Vec<Rc<Mesh>>,
    /// One for each shard, if the bus is Redis.
    pub(super) nodes: Vec<Rc<Redis>>,
    pub(super) broker: RefCell<Broker>,
    pub(super) store: Rc<TestStore>,
    directory: std::sync::Arc<Directory>,
}

/// Shards of one process, over a mesh alone.
fn world(shards: u8, slots: usize) -> World {
    let world = unconnected(shards, slots);
    for (shard, mesh) in world.shards.iter().zip(&world.meshes) {
        shard.hub.set_bus(mesh.clone());
    }
    world
}

fn unconnected(shards: u8, slots: usize) -> World {
    let (directory, store) = (Directory::new(), Rc::default());
    let seats = seats_with_slots(shards, &directory, slots);
    let meshes: Vec<_> = seats.into_iter().map(super::mesh::Seat::sit).collect();
    let shards = (0..shards).map(|number| Shard::new(number, &store));
    World {
        shards: shards.collect(),
        meshes,
        nodes: Vec::new(),
        broker: RefCell::default(),
        store,
        directory,
    }
}

/// The same shards as nodes of a fleet: of one process, or each of a process of its own.
pub(super) fn fleet(shards: u8, is_one_process: bool) -> World {
    let mut world = unconnected(shards, 1_024);
    let fill = |seed: u8| {
        let env = Env::seeded(seed.into());
        move |bytes: &mut [u8]| env.fill(bytes)
    };
    let shared = Fleet::new(shards.into(), fill(1));
    for number in 0..shards {
        let index = usize::from(number);
        if !is_one_process {
            let seat = seats_with_slots(1, &Directory::new(), 1_024).remove(0);
            world.meshes[index] = seat.sit();
        }
        let node = Redis::new(redis::Parts {
            env: world.shards[index].env.clone(),
            mesh: world.meshes[index].clone(),
            fleet: if is_one_process {
                shared.clone()
            } else {
                Fleet::new(1, fill(number + 2))
            },
            shard: if is_one_process { number } else { 0 },
            tag: 0,
            namespaces: vec!["/".into()],
            target: Target::parse("redis://h").unwrap(),
        });
        node.attach_to(&world.shards[index].hub);
        world.broker.get_mut().connect(index, &node);
        world.nodes.push(node);
    }
    world.settle();
    world
}

/// Runs a test over each kind of bus.
fn on_every_bus(shards: u8, test: impl Fn(&World)) {
    test(&world(shards, 1_024));
    test(&fleet(shards, true));
    test(&fleet(shards, false));
}

/// The same with all shards in one process: some things are a host's own.
fn on_this_host(shards: u8, test: impl Fn(&World)) {
    test(&world(shards, 1_024));
    test(&fleet(shards, true));
}

impl World {
    /// Everything that is on its way arrives.
    pub(super) fn settle(&self) {
        for _ in 0..20 {
            for (shard, mesh) in self.shards.iter().zip(&self.meshes) {
                mesh.drain(&shard.hub);
                shard.run();
            }
            self.broker.borrow_mut().exchange(&self.nodes);
        }
    }

    pub(super) fn advance(&self, ms: u64) {
        for shard in &self.shards {
            shard.advance(Duration::from_millis(ms));
        }
        self.settle();
    }

    /// So much time passes, in steps of a tick.
    pub(super) fn pass(&self, ms: u64) {
        for _ in 0..ms / 10 {
            self.advance(10);
        }
    }

    /// A client on a shard, in a room.
    pub(super) fn member(&self, shard: usize, room: &str) -> Key {
        let shard = &self.shards[shard];
        let key = shard.connected();
        shard.say(key, &format!(r#"2["join","{room}"]"#));
        if !self.nodes.is_empty() {
            self.settle();
        }
        key
    }

    pub(super) fn send(&self, shard: usize, key: Key, text: &str) {
        let text = format!(r#"2["send","o","{text}"]"#);
        self.shards[shard].say(key, &text);
    }

    /// The numbers of the messages that a client has received.
    pub(super) fn numbers(&self, shard: usize, key: Key) -> Vec<u64> {
        let received = self.shards[shard].received(key);
        let number = |text: &String| {
            let text = text.strip_prefix(r#"2["msg","#).expect("a message");
            text.split(',').next().unwrap().parse().unwrap()
        };
        received.iter().map(number).collect()
    }
}

#[test]
fn a_broadcast_reaches_only_shards_with_members() {
    let world = world(3, 64);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    let c = world.member(2, "other");
    world.send(0, a, "x");
    assert_eq!(world.meshes[2].drain(&world.shards[2].hub), 0);
    assert_eq!(world.meshes[1].drain(&world.shards[1].hub), 1);
    assert_eq!(world.numbers(0, a), [1]);
    assert_eq!(world.numbers(1, b), [1]);
    world.shards[0].hub.of("/").emit("all", &Args::none());
    world.settle();
    for (shard, key) in [(0, a), (1, b), (2, c)] {
        assert_eq!(world.shards[shard].received(key), [r#"2["all"]"#]);
    }
}

#[test]
fn every_shard_delivers_in_the_order_of_the_numbers() {
    on_every_bus(3, |world| {
        let keys: Vec<Key> = (0..3).map(|shard| world.member(shard, "o")).collect();
        // Two shards store in turn; the third one's ring sees them swapped.
        let stored: Vec<u64> = (0..10).map(|_| world.store.append("o", "x")).collect();
        for (shard, parity) in [(1, 0), (0, 1)] {
            for seq in stored.iter().filter(|seq| **seq % 2 == parity) {
                let room = world.shards[shard].hub.of("/").room("o").ordered(*seq);
                room.emit("msg", &Args::builder().push(seq).push("x").build());
            }
        }
        world.settle();
        for (shard, key) in keys.iter().enumerate() {
            assert_eq!(world.numbers(shard, *key), stored);
        }
        assert_eq!(
            world.store.reads.get(),
            3,
            "nothing had to be read but the heads"
        );
    });
}

#[test]
fn a_full_ring_loses_nothing() {
    let world = world(2, 2);
    let (a, b) = (world.member(0, "o"), world.member(1, "o"));
    let (c, d) = (world.member(0, "o2"), world.member(1, "o2"));
    for _ in 0..20 {
        world.send(0, a, "x");
        world.shards[0].say(c, r#"2["send","o2","x"]"#);
    }
    world.settle();
    assert_eq!(world.numbers(1, b), [1]);
    assert_eq!(world.numbers(1, d), [1]);
    world.advance(10);
    let all: Vec<u64> = (1..=20).collect();
    assert_eq!(world.numbers(0, a), all);
    assert_eq!(world.numbers(1, b), all[1..]);
    assert_eq!(world.numbers(1, d), all[1..]);
    world.send(0, a, "x");
    world.settle();
    assert_eq!(world.numbers(1, b), [21]);
}

#[test]
fn a_full_ring_delays_the_news_of_users() {
    let world = world(2, 1);
    let (a, witness) = (world.member(0, "o"), world.member(1, "o"));
    world.send(0, a, "fills the ring");
    let news = |event: &str, version| {
        let room = world.shards[0].hub.of("/").room("o");
        room.presence("ada", version).emit(event, &Args::none());
    };
    news("joined", 1);
    news("left", 2);
    for _ in 0..3 {
        world.advance(10);
    }
    let received = world.shards[1].received(witness);
    assert_eq!(received[1..], [r#"2["joined"]"#, r#"2["left"]"#]);
}

#[test]
fn letters_that_wait_for_a_full_ring_are_bounded() {
    let world = world(2, 1);
    let (a, witness) = (world.member(0, "o"), world.member(1, "o"));
    world.send(0, a, "fills the ring");
    for user in 0..LETTERS_MAX + 10 {
        let room = world.shards[0].hub.of("/").room("o");
        let room = room.presence(&format!("user {user}"), 1);
        room.emit("joined", &Args::one(&user));
    }
    let mut received = Vec::new();
    for _ in 0..LETTERS_MAX + 20 {
        world.advance(1);
        received.extend(world.shards[1].received(witness));
    }
    let last = format!(r#"2["joined",{}]"#, LETTERS_MAX - 1);
    assert_eq!(
        received.len(),
        1 + LETTERS_MAX,
        "the message, and what fits"
    );
    assert_eq!(received.last(), Some(&last), "the latest are dropped");
}

#[test]
fn too_many_owed_rooms_mean_all_rooms() {
    let world = world(2, 1);
    let rooms: Vec<String> = (0..1_200).map(|number| format!("o{number}")).collect();
    let sender = world.shards[0].connected();
    let receiver = world.shards[1].connected();
    for room in &rooms {
        world.shards[1].say(receiver, &format!(r#"2["join","{room}"]"#));
    }
    for room in &rooms {
        world.shards[0].say(sender, &format!(r#"2["send","{room}","x"]"#));
    }
    world.settle();
    assert_eq!(world.numbers(1, receiver).len(), 1);
    world.store.is_down.set(true);
    world.advance(10);
    assert!(world.numbers(1, receiver).is_empty());
    world.store.is_down.set(false);
    world.advance(1_000);
    world.advance(0);
    assert_eq!(world.numbers(1, receiver).len(), rooms.len() - 1);
}

#[test]
fn a_join_under_traffic_neither_loses_nor_repeats() {
    on_every_bus(2, |world| {
        let sender = world.member(0, "o");
        for _ in 0..5 {
            world.send(0, sender, "before");
        }
        let joiner = world.shards[1].connected();
        world.store.is_silent.set(true);
        world.shards[1].say(joiner, r#"21["join","o"]"#);
        for _ in 0..5 {
            world.send(0, sender, "meanwhile");
        }
        world.settle();
        world.store.is_silent.set(false);
        world.settle();
        for _ in 0..5 {
            world.send(0, sender, "after");
        }
        world.settle();
        let received = world.shards[1].received(joiner);
        assert_eq!(received[0], "31[10]", "all of them were stored by then");
        assert_eq!(received.len(), 6);
        assert!(received[1].starts_with(r#"2["msg",11,"#));
    });
}

#[test]
fn a_replay_on_another_shard_has_no_gap() {
    on_every_bus(2, |world| {
        let sender = world.member(0, "o");
        for _ in 0..10 {
            world.send(0, sender, "x");
        }
        let joiner = world.shards[1].connected();
        world.shards[1].app.is_slow.set(true);
        world.shards[1].say(joiner, r#"21["replay","o",4]"#);
        world.broker.borrow_mut().exchange(&world.nodes);
        world.shards[1].run();
        for _ in 0..5 {
            world.send(0, sender, "x");
            world.settle();
        }
        assert_eq!(world.shards[1].received(joiner), ["31[10]"]);
        world.shards[1].app.is_slow.set(false);
        world.settle();
        assert_eq!(world.numbers(1, joiner), (5..=15).collect::<Vec<_>>());
    });
}

#[test]
fn a_late_user_left_never_undoes_a_newer_join() {
    on_this_host(2, |world| {
        let witness = world.member(1, "o");
        let shards: Vec<_> = world.meshes.iter().map(|mesh| mesh.directory()).collect();
        assert!(shards[0].enter("/", "o", "ada").edge);
        let left = shards[0].exit("/", "o", "ada");
        let joined = shards[1].enter("/", "o", "ada");
        assert!(left.edge && joined.edge);
        let news = |shard: usize, event: &str, version| {
            let room = world.shards[shard].hub.of("/").room("o");
            room.presence("ada", version).emit(event, &Args::none());
        };
        news(1, "joined", joined.version);
        news(0, "left", left.version);
        world.settle();
        assert_eq!(world.shards[1].received(witness), [r#"2["joined"]"#]);
    });
}

#[test]
fn news_from_before_a_room_was_joined_again_is_not_told() {
    on_this_host(2, |world| {
        world.member(0, "o");
        let witness = world.member(1, "o");
        let ada = world.meshes[0].directory();
        let news = |event: &str, version| {
            let room = world.shards[0].hub.of("/").room("o");
            room.presence("ada", version).emit(event, &Args::none());
        };
        assert!(ada.enter("/", "o", "ada").edge);
        news("left", ada.exit("/", "o", "ada").version);
        world.shards[1].say(witness, r#"2["leave","o"]"#);
        // Nobody of the other shard is there to be told.
        news("joined", ada.enter("/", "o", "ada").version);
        world.shards[1].say(witness, r#"2["join","o"]"#);
        world.settle();
        assert!(world.shards[1].received(witness).is_empty());
    });
}

#[test]
fn the_last_word_in_an_empty_room_silences_nobody() {
    on_this_host(2, |world| {
        world.member(0, "o");
        let last = world.member(1, "o");
        let shards: Vec<_> = world.meshes.iter().map(|mesh| mesh.directory()).collect();
        let news = |shard: usize, event: &str, version| {
            let room = world.shards[shard].hub.of("/").room("o");
            room.presence("ada", version).emit(event, &Args::none());
        };
        // Ada was the last one on her shard: the room is empty there when it is told that she left.
        assert!(shards[1].enter("/", "o", "ada").edge);
        world.shards[1].close(last);
        news(1, "left", shards[1].exit("/", "o", "ada").version);
        news(0, "joined", shards[0].enter("/", "o", "ada").version);
        let witness = world.member(1, "o");
        news(0, "left", shards[0].exit("/", "o", "ada").version);
        world.settle();
        assert_eq!(world.shards[1].received(witness), [r#"2["left"]"#]);
    });
}

#[test]
fn empty_rooms_leave_the_directory() {
    on_this_host(2, |world| {
        let (a, b) = (world.member(0, "o"), world.member(1, "o"));
        assert_eq!(world.directory.rooms(), 1);
        world.shards[0].close(a);
        assert_eq!(world.directory.rooms(), 1);
        world.shards[1].close(b);
        assert_eq!(world.directory.rooms(), 0);
    });
}

#[test]
fn sockets_of_all_shards_are_found_and_moved() {
    on_every_bus(3, |world| {
        let keys: Vec<Key> = (0..3).map(|shard| world.member(shard, "r")).collect();
        let hub = &world.shards[0].hub;
        let fetch = |room: &str| {
            let fetched = hub.of("/").room(room).fetch_sockets();
            let result = Rc::new(RefCell::new(None));
            let (slot, task) = (result.clone(), fetched);
            world.shards[0].spawn(async move { *slot.borrow_mut() = Some(task.await) });
            world.settle();
            result
                .take()
                .expect("it was answered")
                .map(|sockets| sockets.len())
        };
        assert_eq!(fetch("r"), Ok(3));
        hub.of("/").room("r").sockets_join(&["s"]);
        world.settle();
        assert_eq!(fetch("s"), Ok(3));
        hub.of("/").room("r").sockets_leave(&["r"]);
        world.settle();
        assert_eq!(fetch("r"), Ok(0));
        hub.of("/").room("s").disconnect_sockets(false);
        world.settle();
        assert_eq!(fetch("s"), Ok(0));
        for (shard, key) in keys.iter().enumerate() {
            assert_eq!(world.shards[shard].received(*key), ["1"]);
        }
    });
}

#[test]
fn a_shard_that_does_not_answer_is_not_waited_for_long() {
    let world = world(2, 64);
    let fetched = world.shards[0].hub.of("/").fetch_sockets();
    let result = Rc::new(Cell::new(None));
    let slot = result.clone();
    world.shards[0].spawn(async move { slot.set(Some(fetched.await)) });
    world.shards[0].advance(Duration::from_millis(4_999));
    assert!(result.take().is_none());
    world.shards[0].advance(Duration::from_millis(1));
    assert_eq!(result.take(), Some(Err(RequestTimeout)));
}

#[test]
fn acknowledgements_come_from_all_shards() {
    on_every_bus(2, |world| {
        let (a, b) = (world.member(0, "r"), world.member(1, "r"));
        let result = Rc::new(RefCell::new(
            Vec::<Result<Vec<Args>, BroadcastTimeout>>::new(),
        ));
        let ask = || {
            let slot = result.clone();
            let room = world.shards[0].hub.of("/").room("r");
            let then = move |acks| slot.borrow_mut().push(acks);
            room.emit_with_ack("q", &Args::one(&1), Duration::from_secs(1), then);
            world.settle();
        };
        ask();
        assert_eq!(world.shards[0].received(a), [r#"20["q",1]"#]);
        assert_eq!(world.shards[1].received(b), [r#"20["q",1]"#]);
        world.shards[0].say(a, r#"30["a"]"#);
        world.shards[1].say(b, r#"30["b"]"#);
        world.settle();
        let acks = result.borrow_mut().pop().expect("all answered");
        assert_eq!(acks, Ok(vec![Args::one("a"), Args::one("b")]));
        ask();
        world.shards[1].say(b, r#"31["b"]"#);
        world.settle();
        assert!(result.borrow().is_empty());
        world.advance(1_000);
        let late = BroadcastTimeout {
            acks: vec![Args::one("b")],
        };
        assert_eq!(result.borrow_mut().pop(), Some(Err(late)));
    });
}

#[test]
fn servers_talk_to_each_other() {
    on_every_bus(3, |world| {
        let said = world.shards[0]
            .hub
            .server_side_emit_with_ack("/", "hello", &Args::none());
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        world.shards[0].spawn(async move { *slot.borrow_mut() = Some(said.await) });
        world.settle();
        let heard = vec![Args::one("heard"), Args::one("heard")];
        assert_eq!(result.take(), Some(Ok(heard)));
        world.shards[0]
            .hub
            .server_side_emit("/", "again", &Args::none());
        world.settle();
        assert!(world.shards[0].log().is_empty(), "never to ourselves");
        assert_eq!(
            world.shards[1].log(),
            ["server said hello", "server said again"]
        );
    });
}
