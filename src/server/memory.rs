//! Gives memory back to the system after many have left.
//!
//! The allocator keeps what was freed for the next who need it, scattered over all that it ever took: a
//! process that held fifty thousand rooms for an hour would stay that big for good. So when half of the
//! connections and rooms have gone, and stay away for a while, the free pages are returned. It costs
//! milliseconds in which other threads may wait for the allocator, and happens at most twice for each
//! halving: once more a while later, for those who were still leaving, and what was remembered of them.
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

use std::time::Duration;

/// How often it looks: a crowd that came and went in between is not seen.
const STEP: Duration = Duration::from_millis(500);
/// So many steps long they must have been away, or the last time must be ago: what is remembered of
/// somebody for 10 s has gone then, too.
const STEPS_AWAY: u32 = 24;
/// Fewer are not worth it.
const GONE_MIN: usize = 1_000;

/// Starts the thread. `in_use` says how many connections and rooms there are.
pub(super) fn start(in_use: impl Fn() -> usize + Send + 'static) -> std::io::Result<()> {
    let name = "memory".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        let mut keeper = Keeper::default();
        loop {
            std::thread::sleep(STEP);
            if keeper.step(in_use()) {
                give_back();
            }
        }
    })?;
    Ok(())
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
