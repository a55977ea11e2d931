//! Gives memory back to the system after many have left.
//!
//! The allocator keeps what was freed for the next who need it, scattered over all that it ever took: a
//! process that held fifty thousand rooms for an hour would stay that big for good. So when half of the
//! connections and rooms have gone, and stay away for a while, the free pages are returned. It costs
//! milliseconds in which other threads may wait for the allocator, and happens at most twice for each
//! halving: once more a while later, for those who were still leaving, and what was remembered of them.
//!
//! A page with a single piece on it stays, also when that piece is free but kept for its thread: glibc
//! keeps seven pieces of each of 64 sizes, and they were 3 MB of pages where two shards had left 50,000
//! rooms, more than all that was in use. Only the thread itself gets at them, so the shards are called
//! upon half a second before, and each swaps those pieces for others that lie together.
//!
//! The allocator is the system's. In the same runs, four of each, preloaded, for 9,500 idle connections
//! (bytes of the whole process for each; their pings, CPU a minute, median and range):
//!
//! | | bytes | ms for 10,000 |
//! |---|---|---|
//! | system | 3,358 | 498 (452..550) |
//! | mimalloc 2.0 | 3,436 | 427 (402..490) |
//! | jemalloc 5.3 | 3,493 | 444 (387..674) |
//!
//! A handshake costs the same with each. So the system's takes the least memory; mimalloc may save time,
//! and would need another way to give memory back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How often it looks: a crowd that came and went in between is not seen.
const STEP: Duration = Duration::from_millis(500);
/// So many steps long they must have been away, or the last time must be ago: what is remembered of
/// somebody for 10 s has gone then, too.
const STEPS_AWAY: u32 = 24;
/// Fewer are not worth it.
const GONE_MIN: usize = 1_000;

/// Pieces of one size that glibc keeps for a thread; its version 2.42 keeps more.
#[cfg(target_env = "gnu")]
const PIECES: usize = 7;
/// The first swap leaves some in the gaps between others that are gone after it; the second finds them.
#[cfg(target_env = "gnu")]
const SWAPS: usize = 2;

/// Starts the thread. `in_use` says how many connections and rooms there are.
pub(super) fn start(in_use: impl Fn() -> usize + Send + 'static) -> std::io::Result<Calls> {
    let name = "memory".to_owned();
    let calls = Calls::default();
    let made = calls.made.clone();
    std::thread::Builder::new().name(name).spawn(move || {
        let mut keeper = Keeper::default();
        let mut is_called = false;
        loop {
            std::thread::sleep(STEP);
            if std::mem::take(&mut is_called) {
                give_back();
            }
            if keeper.step(in_use()) {
                made.fetch_add(1, Ordering::Relaxed);
                is_called = true;
            }
        }
    })?;
    Ok(calls)
}

/// The calls upon the shards to gather what is kept for their threads. Each has a clone of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls {
    made: Arc<AtomicU32>,
    heard: u32,
}

impl Calls {
    /// Does as it was called upon, if it was.
    pub(super) fn follow(&mut self) {
        if self.is_called() {
            gather();
        }
    }

    /// Whether there was a call since the last time.
    fn is_called(&mut self) -> bool {
        let made = self.made.load(Ordering::Relaxed);
        std::mem::replace(&mut self.heard, made) != made
    }
}

/// Swaps the pieces that are kept for this thread for some that lie together. Takes half a millisecond.
#[cfg(target_env = "gnu")]
fn gather() {
    for _ in 0..SWAPS {
        let scattered = take_pieces();
        let together = take_pieces();
        // What is dropped first is kept, the others are free.
        drop(together);
        drop(scattered);
    }
}

/// Other C libraries keep nothing, or other things.
#[cfg(not(target_env = "gnu"))]
fn gather() {}

/// As much of each size as is kept for a thread; what is kept comes first.
#[cfg(target_env = "gnu")]
fn take_pieces() -> Vec<Vec<u8>> {
    let sizes = (24..1033_usize).step_by(16);
    let mut pieces = Vec::with_capacity(sizes.len() * PIECES);
    for size in sizes {
        pieces.extend((0..PIECES).map(|_| std::hint::black_box(Vec::with_capacity(size))));
    }
    pieces
}

/// Decides when it is worth it.
#[derive(Debug, Default)]
struct Keeper {
    /// The most there were since memory was given back.
    most: usize,
    steps_away: u32,
    /// Steps until it is done once more.
    once_more: Option<u32>,
}

impl Keeper {
    fn step(&mut self, in_use: usize) -> bool {
        self.most = self.most.max(in_use);
        let gone = self.most - in_use;
        if gone < GONE_MIN || gone < in_use {
            self.steps_away = 0;
        } else {
            self.steps_away += 1;
        }
        if self.steps_away > STEPS_AWAY {
            self.most = in_use;
            self.steps_away = 0;
            self.once_more = Some(STEPS_AWAY);
            return true;
        }
        self.once_more = match self.once_more {
            Some(0) => {
                self.once_more = None;
                return true;
            }
            steps => steps.map(|steps| steps - 1),
        };
        false
    }
}

#[cfg(target_env = "gnu")]
fn give_back() {
    #[expect(
        unsafe_code,
        reason = "glibc's own function is in no crate that is used here"
    )]
    unsafe extern "C" {
        /// `malloc_trim(3)`: safe to call at any time, from any thread.
        safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    let some = malloc_trim(0) != 0;
    tracing::debug!(some, "memory was given back to the system");
}

/// Other C libraries give it back themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own, whose pieces nobody else takes.
    #[cfg(target_env = "gnu")]
    #[test]
    fn what_is_kept_for_a_thread_comes_to_lie_together() {
        let pages = || {
            let pieces = take_pieces();
            let pages = pieces.iter().map(|piece| piece.as_ptr().addr() / 4096);
            pages.collect::<std::collections::BTreeSet<_>>().len()
        };
        let work = move || {
            let mut all: Vec<_> = (0..100).map(|_| take_pieces()).collect();
            // One of each: so they are kept, each from somewhere else.
            for pieces in all.iter_mut().step_by(14) {
                pieces.reverse();
                let mut number = 0;
                pieces.retain(|_| {
                    number += 1;
                    number % PIECES != 0
                });
            }
            drop(all);
            let scattered = pages();
            gather();
            (scattered, pages())
        };
        let (scattered, together) = std::thread::spawn(work).join().expect("it ends");
        assert!(
            together * 2 < scattered,
            "{together} pages, {scattered} before"
        );
    }

    #[test]
    fn a_call_is_followed_once_by_each() {
        let mut one = Calls::default();
        let mut two = one.clone();
        assert!(!one.is_called());
        one.made.fetch_add(1, Ordering::Relaxed);
        assert!(one.is_called() && !one.is_called());
        assert!(two.is_called() && !two.is_called());
    }

    #[test]
    fn memory_is_given_back_once_half_has_gone_for_a_while() {
        let mut keeper = Keeper::default();
        let away = STEPS_AWAY as usize;
        let mut given_back =
            |in_use, count| -> Vec<usize> { (1..=count).filter(|_| keeper.step(in_use)).collect() };
        assert_eq!(given_back(50_000, away), [0; 0]);
        assert_eq!(given_back(30_000, 3 * away), [0; 0]);
        assert_eq!(given_back(10_000, away + 1), [away + 1]);
        // Once more for the stragglers, and no more.
        assert_eq!(given_back(9_500, away + 1), [away + 1]);
        assert_eq!(given_back(9_500, 3 * away), [0; 0]);
        // Back within the while, and gone again.
        assert_eq!(given_back(30_000, 1), [0; 0]);
        assert_eq!(given_back(5_000, away), [0; 0]);
        assert_eq!(given_back(25_000, 1), [0; 0]);
        assert_eq!(given_back(0, away + 1), [away + 1]);
        assert_eq!(given_back(0, away + 1), [away + 1]);
        // A few are not worth it.
        assert_eq!(given_back(900, 1), [0; 0]);
        assert_eq!(given_back(0, 3 * away), [0; 0]);
    }
}
