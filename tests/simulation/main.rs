//! A cluster from one seed: hosts, their shards, clients, a store and a network in one thread.
//!
//! The production code of engine, hub, chat, ordering, repair, directory, mesh and Redis link runs over
//! made-up time; the link talks RESP3 with a broker of the simulation.
//! What must hold is checked at every step, and when all faults have ended.
//!
//! `SIMULATION_SEEDS=n` plays so many seeds (from `SIMULATION_FIRST` on), on as many threads as there are
//! cores. A seed that fails is made smaller, and the command that replays it is printed with its trace:
//! `SIMULATION_SEED=n SIMULATION_LIMITS=clients=2,steps=40,without=stall`.

mod act;
mod client;
mod dice;
mod failure;
mod host;
mod line;
mod meet;
mod network;
mod plan;
mod runner;
mod shrink;
mod store;
mod tasks;
mod world;

use std::env;

use std::fs;
use std::path::Path;

use plan::Limits;
use project_yum::planted::{Defect, MARKER};

/// Seeds played unless told otherwise.
const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn production_code_keeps_its_promises_for_every_seed() {
    if let Some(seed) = number("SIMULATION_SEED") {
        let limits = env::var("SIMULATION_LIMITS").unwrap_or_default();
        let limits: Limits = limits.parse().expect("limits are NAME=VALUE,…");
        return runner::replay(seed, &limits);
    }
    let first = number("SIMULATION_FIRST").unwrap_or(0);
    let count = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    runner::play_all(first..first + count);
}

#[test]
fn every_planted_defect_is_found() {
    let found = |defect| runner::first_that_fails(defect, 0..SEEDS);
    let all = Defect::ALL.map(|defect| (defect, found(defect)));
    let list: Vec<String> = all
        .iter()
        .map(|(defect, found)| match found {
            Some((seed, what)) => {
                let what = what.to_string();
                format!("{defect:?}: seed {seed}: {what:.120}")
            }
            None => format!("{defect:?}: NOT FOUND"),
        })
        .collect();
    let list = list.join("\n");
    runner::print(&list);
    assert!(!list.contains("NOT FOUND"), "{list}");
}

/// `tests/run` looks for the marker in the release build; here it is seen that looking would find it.
#[test]
fn defects_can_be_planted_in_this_build_only() {
    let own = fs::read(env::current_exe().expect("a test has a file")).expect("it can be read");
    let marker = MARKER.as_bytes();
    assert!(own.windows(marker.len()).any(|bytes| bytes == marker));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("a package has a manifest");
    assert!(!manifest.contains("debug-assertions"), "release has none");
}
