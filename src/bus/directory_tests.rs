//! The directory, shard by shard in one thread; `tests/model` has several.

use super::directory::{Directory, ShardDirectory, lock};
use crate::sync::Arc;

fn shards() -> (Arc<Directory>, ShardDirectory, ShardDirectory) {
    let directory = Directory::new();
    let shard = |number| ShardDirectory::new(directory.clone(), number);
    (directory.clone(), shard(0), shard(63))
}

#[test]
fn knows_the_other_shards_of_a_room() {
    let (_, first, last) = shards();
    assert_eq!(first.others("/", "a"), 0);
    last.subscribe("/", "a");
    assert_eq!(first.others("/", "a"), 1 << 63, "by its name");
    first.subscribe("/", "a");
    assert_eq!(first.others("/", "a"), 1 << 63, "by its entry");
    assert_eq!(last.others("/", "a"), 1);
    assert_eq!(last.others("/b", "a"), 0);
    last.unsubscribe("/", "a");
    assert_eq!(first.others("/", "a"), 0);
    assert_eq!(last.others("/", "a"), 1);
}

#[test]
fn keeps_no_room_that_nobody_is_in() {
    let (directory, shard, _) = shards();
    for number in 0..100_000 {
        let name = number.to_string();
        shard.subscribe("/", &name);
        let _ = shard.enter("/", &name, "ada");
        shard.unsubscribe("/", &name);
        let _ = shard.exit("/", &name, "ada");
    }
    assert_eq!(directory.rooms(), 0);
    assert!(shard.joined.borrow().is_empty());
    assert!(lock(&directory.rooms).is_empty());
}

#[test]
fn a_user_enters_and_leaves_once_on_a_host() {
    let (directory, first, last) = shards();
    let one = first.enter("/", "a", "ada");
    let two = last.enter("/", "a", "ada");
    assert!(one.edge && !two.edge);
    assert!(first.enter("/", "a", "bob").edge);
    let three = first.exit("/", "a", "ada");
    let four = last.exit("/", "a", "ada");
    assert!(!three.edge && four.edge);
    assert!(one.version < two.version && three.version < four.version);
    assert!(!last.exit("/", "a", "ada").edge, "it was not there");
    assert!(first.exit("/", "a", "bob").edge);
    assert_eq!(directory.rooms(), 0);
    assert!(first.enter("/", "a", "ada").version > four.version);
}
