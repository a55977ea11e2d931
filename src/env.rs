//! What a shard asks of its surroundings: the time and random bytes.
//!
//! Everything above takes both from here, so that a test, or the simulation of a whole cluster, can
//! hand in a clock that it moves itself and bytes that follow from a seed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The clock and the random number generator of one shard.
#[derive(Debug)]
pub struct Env {
    clock: Clock,
    rng: RefCell<ChaCha12Rng>,
}

#[derive(Debug)]
enum Clock {
    System,
    /// A clock that only [`Env::advance`] moves.
    Manual {
        start: Instant,
        /// The wall clock at the start; it may be set, as a machine's is.
        start_wall_ms: Cell<u64>,
        elapsed: Cell<Duration>,
    },
}

impl Env {
    /// The machine's clocks, and a CSPRNG seeded by the operating system.
    ///
    /// # Panics
    /// When the operating system gives no randomness: nothing secret could be made then.
    #[must_use]
    pub fn system() -> Rc<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the operating system gives random bytes");
        Rc::new(Self {
            clock: Clock::System,
            rng: RefCell::new(ChaCha12Rng::from_seed(seed)),
        })
    }

    /// Made-up time that starts at 2026-01-01T00:00:00Z, and bytes that follow from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Rc<Self> {
        let clock = Clock::Manual {
            start: Instant::now(),
            start_wall_ms: Cell::new(1_767_225_600_000),
            elapsed: Cell::new(Duration::ZERO),
        };
        Rc::new(Self {
            clock,
            rng: RefCell::new(ChaCha12Rng::seed_from_u64(seed)),
        })
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.clock {
            Clock::System => Instant::now(),
            Clock::Manual { start, elapsed, .. } => *start + elapsed.get(),
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Panics
    /// When the machine's clock stands before 1970.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        match &self.clock {
            Clock::System => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .expect("the clock is past 1970");
                u64::try_from(since.as_millis()).expect("milliseconds since 1970 fit 64 bits")
            }
            Clock::Manual {
                start_wall_ms,
                elapsed,
                ..
            } => {
                start_wall_ms.get()
                    + u64::try_from(elapsed.get().as_millis()).expect("made-up time fits 64 bits")
            }
        }
    }

    /// Moves made-up time on.
    ///
    /// # Panics
    /// On a system clock, which nobody but the machine moves.
    pub fn advance(&self, by: Duration) {
        match &self.clock {
            Clock::System => panic!("a system clock cannot be moved"),
            Clock::Manual { elapsed, .. } => elapsed.set(elapsed.get() + by),
        }
    }

    /// Sets made-up wall time forwards or back; monotonic time does not notice.
    ///
    /// # Panics
    /// On a system clock, which nobody but the machine sets.
    pub fn shift_wall(&self, by_ms: i64) {
        match &self.clock {
            Clock::System => panic!("a system clock cannot be set"),
            Clock::Manual { start_wall_ms, .. } => {
                start_wall_ms.set(start_wall_ms.get().saturating_add_signed(by_ms));
            }
        }
    }

    /// Fills `bytes` from the generator.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.rng.borrow_mut().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_time_moves_only_when_told() {
        let env = Env::seeded(1);
        let (then, wall) = (env.now(), env.wall_ms());
        assert_eq!((env.now(), env.wall_ms()), (then, wall));
        env.advance(Duration::from_millis(1500));
        assert_eq!(env.now() - then, Duration::from_millis(1500));
        assert_eq!(env.wall_ms() - wall, 1500);
    }

    #[test]
    fn a_wall_clock_may_be_set_back() {
        let env = Env::seeded(1);
        let (then, wall) = (env.now(), env.wall_ms());
        env.advance(Duration::from_secs(1));
        env.shift_wall(-3_000);
        assert_eq!(env.wall_ms(), wall - 2_000);
        assert_eq!(env.now() - then, Duration::from_secs(1));
    }

    #[test]
    fn one_seed_gives_the_same_bytes_and_two_seeds_do_not() {
        let draw = |seed| {
            let mut bytes = [0; 12];
            Env::seeded(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
