//! A host of some shards, its clients and its store in one thread, from one seed.
//!
//! The production code of engine, hub, chat, ordering, repair and mesh runs over made-up time and a
//! store that fails as the dice say. What must hold is checked at every step and when all faults have
//! ended. `SIMULATION_SEED=n` replays one seed, `SIMULATION_SEEDS=n` plays so many.

mod bus;
mod client;
mod dice;
mod store;
mod tasks;
mod world;

use std::cell::RefCell;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use world::{Trace, World};

/// Seeds played unless told otherwise.
const SEEDS: u64 = 200;
/// Characters of a failed run's trace that are shown.
const TRACE_SHOWN: usize = 20_000;

/// Defects planted around the production code, to see that the checks find them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    LostBroadcast,
    LostUserLeft,
    ForgottenUnsubscribe,
    StoredTwice,
    RefusedYetStored,
    AckBeforeCommit,
    MissedRepair,
    DeliveredTwice,
    SwappedOrder,
    LostAck,
    LeakedSession,
}

fn play(seed: u64, planted: Option<Planted>, trace: Trace) -> Result<(), String> {
    let run = || World::new(seed, planted, trace).run();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("a panic: {}", text.unwrap_or("without a text")))
        }
    }
}

/// Plays a seed; if something does not hold, plays it again to tell how it came about.
fn check(seed: u64) {
    let Err(what) = play(seed, None, None) else {
        return;
    };
    let trace = Rc::new(RefCell::new(String::new()));
    let again = play(seed, None, Some(trace.clone()));
    let trace = trace.borrow();
    // Whoever replays a seed wants to see all of it.
    let shown = number("SIMULATION_SEED").map_or(TRACE_SHOWN, |_| trace.len());
    let from = trace.len() - shown.min(trace.len());
    let from = trace[from..].find('\n').map_or(0, |line| from + line);
    assert_eq!(again, Err(what.clone()), "a seed gives the same run");
    let command = format!("SIMULATION_SEED={seed} cargo test --test simulation production");
    panic!("{}\n{what}\nreplay: {command}", &trace[from..]);
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn production_code_keeps_its_promises_for_every_seed() {
    if let Some(seed) = number("SIMULATION_SEED") {
        return check(seed);
    }
    for seed in 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS) {
        check(seed);
    }
}

#[test]
fn planted_defects_are_found() {
    let all = [
        Planted::LostBroadcast,
        Planted::LostUserLeft,
        Planted::ForgottenUnsubscribe,
        Planted::StoredTwice,
        Planted::RefusedYetStored,
        Planted::AckBeforeCommit,
        Planted::MissedRepair,
        Planted::DeliveredTwice,
        Planted::SwappedOrder,
        Planted::LostAck,
        Planted::LeakedSession,
    ];
    for planted in all {
        let found = (0..SEEDS).any(|seed| play(seed, Some(planted), None).is_err());
        assert!(found, "{planted:?} is not found");
    }
}
