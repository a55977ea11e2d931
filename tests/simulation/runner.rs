//! Plays seeds on all cores, and says what was done, or how a seed that fails is replayed.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use project_yum::planted::{Defect, plant};

use crate::failure::Failure;
use crate::plan::{Fault, Limits, Plan};
use crate::shrink::shrink;
use crate::world::{Tally, Trace, World};

/// Characters of a failed run's trace that are shown.
const TRACE_SHOWN: usize = 20_000;

/// How a run ended.
pub(crate) struct Played {
    pub(crate) outcome: Result<(), Failure>,
    pub(crate) tally: Tally,
}

thread_local! {
    static IS_PLAYING: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic of a run was.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic within a run is an outcome like others: nothing is printed.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_PLAYING.get() {
                let at = info.location().map(ToString::to_string);
                PANICKED_AT.set(at.unwrap_or_default());
            } else {
                before(info);
            }
        }));
    });
}

/// Plays one seed.
pub(crate) fn play(seed: u64, limits: &Limits, trace: Trace) -> Played {
    quiet_panics();
    let tally = Rc::new(RefCell::new(Tally::default()));
    let done = tally.clone();
    IS_PLAYING.set(true);
    let run = AssertUnwindSafe(|| {
        let mut world = World::new(Plan::new(seed, limits), trace);
        let outcome = world.run();
        *done.borrow_mut() = world.tally();
        outcome
    });
    let outcome = catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let rule = format!("a panic at {}", PANICKED_AT.take());
        Err(Failure::new(rule, text.unwrap_or("without a text")))
    });
    IS_PLAYING.set(false);
    let tally = tally.take();
    Played { outcome, tally }
}

/// Plays one seed and tells all that happened.
pub(crate) fn replay(seed: u64, limits: &Limits) {
    if let Err(what) = play(seed, limits, None).outcome {
        tell(seed, limits, &what, usize::MAX);
    }
    let trace = Rc::new(RefCell::new(String::new()));
    play(seed, limits, Some(trace.clone()));
    print(&trace.borrow());
}

fn tell(seed: u64, limits: &Limits, what: &Failure, shown: usize) {
    let trace = Rc::new(RefCell::new(String::new()));
    let again = play(seed, limits, Some(trace.clone())).outcome;
    let trace = trace.borrow();
    let mut from = trace.len() - shown.min(trace.len());
    while !trace.is_char_boundary(from) {
        from += 1;
    }
    let from = trace[from..].find('\n').map_or(0, |line| from + line);
    let command = format!(
        "SIMULATION_SEED={seed} SIMULATION_LIMITS={limits} cargo test --test simulation production"
    );
    assert_eq!(
        again,
        Err(what.clone()),
        "a seed gives the same run: {command}"
    );
    panic!("{}\n{what}\nreplay: {command}", &trace[from..]);
}

/// Plays seeds on all cores. The first that fails is made smaller and told.
pub(crate) fn play_all(seeds: Range<u64>) {
    let begun = Instant::now();
    let count = seeds.end - seeds.start;
    let next = AtomicU64::new(seeds.start);
    let is_over = AtomicBool::new(false);
    let failed: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
    let sum = Mutex::new(Tally::default());
    let work = || {
        let limits = Limits::default();
        let mut tally = Tally::default();
        while !is_over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let played = play(seed, &limits, None);
            add(&mut tally, &played.tally);
            if let Err(what) = played.outcome {
                is_over.store(true, Ordering::Relaxed);
                let mut failed = failed.lock().expect("nobody panics with it");
                failed.get_or_insert((seed, what));
            }
        }
        add(&mut sum.lock().expect("nobody panics with it"), &tally);
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    if let Some((seed, what)) = failed.into_inner().expect("nobody panicked with it") {
        let (limits, what) = shrink(seed, what, |limits| play(seed, limits, None).outcome);
        tell(seed, &limits, &what, TRACE_SHOWN);
    }
    let sum = sum.into_inner().expect("nobody panicked with it");
    report(count, &sum, begun.elapsed().as_secs_f64());
}

/// The first seed that finds a planted defect, and what it finds.
pub(crate) fn first_that_fails(defect: Defect, seeds: Range<u64>) -> Option<(u64, Failure)> {
    plant(Some(defect));
    let mut seeds = seeds.map(|seed| (seed, play(seed, &Limits::default(), None).outcome));
    let found = seeds.find_map(|(seed, outcome)| Some((seed, outcome.err()?)));
    plant(None);
    found
}

fn add(sum: &mut Tally, part: &Tally) {
    sum.steps += part.steps;
    sum.messages += part.messages;
    sum.late += part.late;
    sum.overtaken += part.overtaken;
    for (fault, count) in &part.faults {
        *sum.faults.entry(*fault).or_default() += count;
    }
}

/// The table of the README.
fn report(seeds: u64, tally: &Tally, seconds: f64) {
    print(&format!(
        "{seeds} seeds in {seconds:.1} s: {} steps, {} messages stored",
        tally.steps, tally.messages
    ));
    print(&format!(
        "writes of the bus that were late: {}; messages overtaken: {}",
        tally.late, tally.overtaken
    ));
    for fault in Fault::ALL {
        let count = tally.faults.get(&fault).copied().unwrap_or(0);
        print(&format!("  {:<14} {count:>9}", fault.name()));
    }
}

#[expect(clippy::print_stdout, reason = "a test's report goes there")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}
