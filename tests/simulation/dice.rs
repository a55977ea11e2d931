//! All chance of a simulation: sequences of numbers from one seed, one for each purpose, so that taking one
//! thing out of a world leaves the others as they were.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// A generator (splitmix64).
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self(Cell::new(seed)))
    }

    /// The sequence of one purpose, such as client number 3.
    pub(crate) fn for_purpose(seed: u64, purpose: &str, number: usize) -> Rc<Self> {
        let mut mixed = 0xcbf2_9ce4_8422_2325 ^ number as u64;
        for byte in purpose.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let dice = Self::new(seed ^ mixed);
        dice.next();
        dice
    }

    fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a usize fits");
        usize::try_from(self.next() % end).expect("it is below a usize")
    }

    /// A number from `low` up to `high`.
    pub(crate) fn between(&self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Whether something of this many in a thousand happens.
    pub(crate) fn chance(&self, per_mille: usize) -> bool {
        self.below(1_000) < per_mille
    }

    /// A time up to `ms`, short ones more often.
    pub(crate) fn ms(&self, ms: usize) -> Duration {
        let end = self.between(0, ms);
        Duration::from_millis(self.between(0, end) as u64)
    }

    pub(crate) fn pick<'a, T>(&self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}
