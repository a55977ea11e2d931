//! Buckets that several shards take from.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the server uses what is not used here"
)]

#[path = "../../src/limit/bucket.rs"]
mod bucket;
#[path = "../../src/limit/rate.rs"]
mod rate;

pub(crate) use bucket::Bucket;
pub(crate) use rate::Rate;

use loom::thread;

use crate::explore;
use crate::sync::Arc;

const SECOND_NS: u64 = 1_000_000_000;

/// How many of so many takes succeed.
fn take(bucket: &Bucket, rate: Rate, now_ns: u64, count: usize) -> usize {
    let takes = (0..count).map(|_| bucket.take(rate, now_ns));
    takes.flatten().count()
}

#[test]
fn shards_together_take_the_burst_and_no_more() {
    explore(|| {
        let (bucket, rate) = (Arc::new(Bucket::default()), Rate::per_second(1, 3));
        let others = [(); 2].map(|()| {
            let bucket = bucket.clone();
            thread::spawn(move || take(&bucket, rate, 0, 2))
        });
        let taken = others.map(|other| other.join().expect("it takes"));
        assert_eq!(taken.iter().sum::<usize>(), 3);
        assert!(!bucket.is_full(3 * SECOND_NS - 1));
        assert!(bucket.is_full(3 * SECOND_NS));
    });
}

/// The shards read their clocks at different times: nobody takes what has not dropped in, and nothing is lost.
#[test]
fn a_shard_with_an_older_time_takes_nothing_twice() {
    explore(|| {
        let (bucket, rate) = (Arc::new(Bucket::default()), Rate::per_second(1, 2));
        assert_eq!(take(&bucket, rate, 0, 2), 2);
        let later = bucket.clone();
        let later = thread::spawn(move || take(&later, rate, SECOND_NS, 2));
        let earlier = take(&bucket, rate, 0, 2);
        assert_eq!((earlier, later.join().expect("it takes")), (0, 1));
        assert_eq!(take(&bucket, rate, 2 * SECOND_NS, 2), 1);
    });
}
