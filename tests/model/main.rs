//! What the shards of a process share, under every order in which their threads can meet.
//!
//! The files checked are those of the server, compiled once more: their `crate::sync` is loom's here. loom
//! plays a model again and again, each time with other switches between its threads, and other values where
//! the memory model leaves a load a choice, until it has played all of them.

mod bus;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the server uses what is not used here"
)]
#[path = "../../src/hashed.rs"]
mod hashed;
mod limit;
mod sync;

use loom::model::Builder;

/// Switches in the middle of a thread's work, in one run of a large model. Its runs get several times as many
/// with each; a race needs one or two.
const SWITCHES_MAX: usize = 4;

/// Plays a model in every order there is.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    Builder::new().check(model);
}

/// Plays a large model in every order with up to [`SWITCHES_MAX`] switches.
fn explore_large(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(SWITCHES_MAX);
    builder.check(model);
}
