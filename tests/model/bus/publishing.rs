//! A join loses nothing: a shard sets its bit, then reads the store; a publisher stores, then reads the bits.
//! Whatever the order, the message is in one of the two.

use loom::thread;

use super::{Directory, ROOM, SPACE, leave_all, shard};
use crate::sync::{Arc, Mutex};
use crate::{explore, explore_large};

/// Whether the message is stored. A store orders those who ask it, as a lock does.
type Store = Arc<Mutex<bool>>;

/// Shard 0 has its first member of the room. Whether it finds the message in the store.
fn join(directory: &Arc<Directory>, store: &Store) -> bool {
    shard(directory, 0).subscribe(SPACE, ROOM);
    *store.lock().expect("nobody panics with it")
}

/// Whether shard 0 is among those that the message goes to.
fn publish(publisher: &super::ShardDirectory, store: &Store) -> bool {
    *store.lock().expect("nobody panics with it") = true;
    publisher.others(SPACE, ROOM) & 1 != 0
}

/// Shard 2 has a member for a moment: with it the room's entry may go, and come again.
fn come_and_go(directory: &Arc<Directory>) {
    let shard = shard(directory, 2);
    shard.subscribe(SPACE, ROOM);
    shard.unsubscribe(SPACE, ROOM);
}

/// The publisher is shard 1; `is_member`: it has a member of the room, so that it keeps the room's entry.
fn play(is_member: bool) {
    let (directory, store) = (Directory::new(), Store::default());
    let joiner = (directory.clone(), store.clone());
    let joiner = thread::spawn(move || join(&joiner.0, &joiner.1));
    let passer = directory.clone();
    let passer = thread::spawn(move || come_and_go(&passer));
    let publisher = shard(&directory, 1);
    if is_member {
        publisher.subscribe(SPACE, ROOM);
    }
    let is_sent = publish(&publisher, &store);
    let is_read = joiner.join().expect("it joins");
    passer.join().expect("it comes and goes");
    assert!(is_sent || is_read, "the joiner misses the message");
    assert_eq!(publisher.others(SPACE, ROOM), 1);
    leave_all(&directory, &[0, 1]);
}

#[test]
fn a_joiner_misses_nothing_of_a_publisher_in_the_room() {
    explore_large(|| play(true));
}

#[test]
fn a_joiner_misses_nothing_of_a_publisher_outside() {
    explore_large(|| play(false));
}

/// Last leaves and first joins of one room by two shards at once: the bits are those of who is there.
#[test]
fn nobody_is_lost_while_a_room_goes_and_comes() {
    explore(|| {
        let directory = Directory::new();
        let other = directory.clone();
        let other = thread::spawn(move || {
            let other = shard(&other, 0);
            other.subscribe(SPACE, ROOM);
            other.unsubscribe(SPACE, ROOM);
            other.subscribe(SPACE, ROOM);
        });
        come_and_go(&directory);
        let own = shard(&directory, 1);
        own.subscribe(SPACE, ROOM);
        other.join().expect("it comes, goes and comes");
        assert_eq!(own.others(SPACE, ROOM), 1);
        assert_eq!(shard(&directory, 0).others(SPACE, ROOM), 1 << 1);
        leave_all(&directory, &[0, 1]);
    });
}
