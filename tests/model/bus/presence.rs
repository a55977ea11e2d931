//! Users who enter and leave a room by several shards at once.

use loom::thread;

use super::directory::Change;
use super::{Directory, ROOM, SPACE, ShardDirectory, leave_all, shard};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::{explore, explore_large};

const USER: &str = "ada";

#[derive(Debug)]
struct Step {
    is_enter: bool,
    change: Change,
}

fn enter(shard: &ShardDirectory) -> Step {
    let change = shard.enter(SPACE, ROOM, USER);
    Step {
        is_enter: true,
        change,
    }
}

fn exit(shard: &ShardDirectory) -> Step {
    let change = shard.exit(SPACE, ROOM, USER);
    Step {
        is_enter: false,
        change,
    }
}

/// Versions say in which order it all happened: told in that order, it is what a count of sockets says.
fn check(mut steps: Vec<Step>) {
    steps.sort_by_key(|step| step.change.version);
    let is_growing = |pair: &[Step]| pair[0].change.version < pair[1].change.version;
    assert!(steps.windows(2).all(is_growing), "one version for two");
    let mut count = 0;
    for step in &steps {
        let edge = if step.is_enter {
            count += 1;
            count == 1
        } else {
            count -= 1;
            count == 0
        };
        assert_eq!(step.change.edge, edge, "{steps:?}");
    }
    assert_eq!(count, 0);
}

#[test]
fn versions_are_the_order_of_what_happened() {
    explore(|| {
        let directory = Directory::new();
        let others = [0, 1].map(|number| {
            let directory = directory.clone();
            thread::spawn(move || {
                let shard = shard(&directory, number);
                [enter(&shard), exit(&shard)]
            })
        });
        let steps = others.map(|other| other.join().expect("it enters and leaves"));
        check(steps.into_iter().flatten().collect());
        leave_all(&directory, &[]);
    });
}

/// A change that comes after another has the greater version, also if all that was known of the room went
/// between them.
#[test]
fn a_later_change_never_has_a_smaller_version() {
    explore_large(|| {
        let (directory, newest) = (Directory::new(), Arc::new(AtomicU64::new(0)));
        let others = [0, 1].map(|number| {
            let (directory, newest) = (directory.clone(), newest.clone());
            thread::spawn(move || {
                let shard = shard(&directory, number);
                let before = newest.load(Ordering::Acquire);
                let entered = enter(&shard).change.version;
                let left = exit(&shard).change.version;
                assert!(before < entered && entered < left);
                newest.fetch_max(left, Ordering::AcqRel);
            })
        });
        for other in others {
            other.join().expect("it enters and leaves");
        }
        leave_all(&directory, &[]);
    });
}

/// A shard is told of every change after its first join, and takes every one for news that it may be told of
/// since then: it neither hears of a user too late nor calls what is new old.
#[test]
fn a_joiner_is_told_of_what_happens_from_then_on() {
    explore(|| {
        let directory = Directory::new();
        let witness = directory.clone();
        let witness = thread::spawn(move || {
            let witness = shard(&witness, 0);
            witness.subscribe(SPACE, ROOM);
            witness
        });
        let other = shard(&directory, 1);
        let is_known = || other.others(SPACE, ROOM) & 1 != 0;
        let steps: Vec<_> = [enter, exit]
            .iter()
            .map(|step| {
                let was_known = is_known();
                let version = step(&other).change.version;
                (was_known, version, is_known())
            })
            .collect();
        let witness = witness.join().expect("it subscribes");
        for (was_known, version, is_told) in steps {
            let is_news = witness.is_news(SPACE, ROOM, version);
            assert!(is_told || !is_news, "nobody tells of what is new");
            assert!(is_news || !was_known, "what is new is called old");
        }
        leave_all(&directory, &[0]);
    });
}
