//! What must hold under load and under faults: the built binary, black box.
//!
//! Each test starts servers of its own with a database on disk. They take turns, because each of
//! them wants the machine for itself.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "../support/mod.rs"]
mod support;

mod disk;
mod drain;
mod kill;
mod order;
mod slow;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for this test's turn.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
