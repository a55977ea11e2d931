//! What a user has used up by several shards at once.

use std::time::{Duration, Instant};

use loom::thread;

use super::usage::{MessageRate, REFUSALS_WINDOW};
use super::{Directory, ShardDirectory, shard};
use crate::explore;
use crate::limit::Rate;

const USER: &str = "ada";

/// One message at once; cut off after so many refusals.
fn limit(refusals_max: u32) -> MessageRate {
    MessageRate {
        rate: Rate::per_second(1, 1),
        joins: Rate::UNLIMITED,
        refusals_max,
    }
}

/// A socket of the user takes so many messages; how many it gets.
fn take(shard: &ShardDirectory, now: Instant, count: usize) -> usize {
    let usage = shard.arrive(USER);
    let takes = (0..count).map(|_| shard.take_message(&usage, limit(1), now));
    takes.flatten().count()
}

#[test]
fn every_refusal_counts_once() {
    let now = Instant::now();
    explore(move || {
        let directory = Directory::new();
        let other = directory.clone();
        let other = thread::spawn(move || take(&shard(&other, 1), now, 2));
        let own = shard(&directory, 0);
        let taken = take(&own, now, 2) + other.join().expect("it takes");
        assert_eq!(taken, 1);
        let cut_off = |refusals| own.cut_off(USER, limit(refusals), now).is_some();
        assert!(cut_off(3), "a refusal was not counted");
        assert!(!cut_off(4), "a refusal was counted twice");
    });
}

/// One shard's time has reached the window's end, another's has not: the new window stays, with all that the
/// first counts in it.
#[test]
fn a_window_that_has_ended_does_not_come_back() {
    let begin = Instant::now();
    explore(move || {
        let directory = Directory::new();
        let own = shard(&directory, 0);
        assert_eq!(take(&own, begin, 2), 1);
        let other = directory.clone();
        let just_before = begin + Duration::from_millis(9_999);
        let end = begin + REFUSALS_WINDOW;
        let other = thread::spawn(move || take(&shard(&other, 1), just_before, 2));
        let taken = take(&own, end, 2);
        assert_eq!(taken + other.join().expect("it takes"), 1);
        let cut_off = |refusals| own.cut_off(USER, limit(refusals), end);
        let of_own = if taken == 1 { 1 } else { 2 };
        assert_eq!(cut_off(of_own), Some(REFUSALS_WINDOW));
        assert_eq!(cut_off(4), None, "a refusal was counted twice");
    });
}

/// A user's last socket goes at one shard while one comes at another, and what was used up is forgotten just
/// now, if nobody is there: the user has one bucket all along.
#[test]
fn a_user_who_changes_shards_starts_no_new_bucket() {
    let begin = Instant::now();
    let full = begin + Duration::from_secs(1);
    for left in [begin, full] {
        explore(move || {
            let directory = Directory::new();
            let own = shard(&directory, 0);
            assert_eq!(take(&own, begin, 1), 1);
            let other = directory.clone();
            let other = thread::spawn(move || take(&shard(&other, 1), full, 1));
            assert!(!own.leave(USER, left), "nobody else is away");
            own.sweep(full);
            assert_eq!(other.join().expect("it takes"), 1);
            assert_eq!(take(&own, full, 1), 0, "a second bucket");
        });
    }
}
