//! The fuzz targets of `tests/fuzz/`, for a moment each and without instrumentation: seeds of our own,
//! changed at random. `FUZZ_SECONDS=n` gives each target so long; `tests/fuzz/run` fuzzes them for real.

#[path = "fuzz/src/memory.rs"]
#[expect(unreachable_pub, reason = "it is a module of the fuzz crate, too")]
mod memory;
#[path = "fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "it is a module of the fuzz crate, too")]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Inputs grow no longer by chance.
const INPUT_MAX: usize = 4_096;

/// A generator (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).expect("below a usize")
    }

    fn place(&mut self, input: &[u8]) -> usize {
        self.below(input.len() + 1)
    }

    /// Changes an input a little.
    fn change(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>]) {
        const TELLING: &[u8] = b"\r\n\0\x1e\"{}[]:,;-+%#/\\ \t0123456789aA\x7f\x80\xff";
        let at = self.place(input);
        match self.below(7) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = TELLING[self.below(TELLING.len())],
            2 => input.insert(at, TELLING[self.below(TELLING.len())]),
            3 => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let end = (at + 1 + self.below(64)).min(input.len());
                let part = input[at..end].to_vec();
                for _ in 0..=self.below(8) {
                    input.splice(at..at, part.iter().copied());
                }
            }
            5 => {
                let other = &others[self.below(others.len())];
                let from = self.place(other);
                let end = self.place(&other[from..]) + from;
                input.splice(at..at, other[from..end].iter().copied());
            }
            _ => input.truncate(at),
        }
        input.truncate(INPUT_MAX);
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.join("tests/fuzz/seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("every target has seeds")
        .map(|entry| entry.expect("a seed").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| fs::read(file).expect("a seed can be read"))
        .collect()
}

/// Feeds a target for some time. Returns how many inputs that were.
fn fuzz(name: &str, target: fn(&[u8]), time: Duration) -> u64 {
    let seeds = seeds(name);
    let end = Instant::now() + time;
    let mut chance = Chance(1);
    let mut count = 0;
    for seed in &seeds {
        target(seed);
    }
    while Instant::now() < end {
        let mut input = seeds[chance.below(seeds.len())].clone();
        for _ in 0..=chance.below(6) {
            chance.change(&mut input, &seeds);
        }
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let shown = || input.escape_ascii().to_string();
        assert!(outcome.is_ok(), "{name} fails for {}", shown());
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{name} hangs for {took:?}");
        count += 1;
    }
    count
}

#[test]
#[expect(clippy::print_stdout, reason = "a test's report goes there")]
fn targets_hold_for_changed_seeds() {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(2, |text| text.parse().expect("a number of seconds"));
    let time = Duration::from_secs(seconds);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (name, target) in targets::ALL {
            threads.push((name, scope.spawn(move || fuzz(name, *target, time))));
            // Two at a time: more would only wait for each other.
            if threads.len() % 2 == 0 {
                for (name, thread) in threads.drain(..) {
                    let count = thread.join().expect("the target holds");
                    println!("{name}: {count} inputs");
                }
            }
        }
    });
}
