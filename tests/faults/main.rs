//! What must hold under load and under faults: the built binary, black box.
//!
//! Each test starts servers of its own with a database on disk. They take turns, because each of
//! them wants the machine for itself.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "../support/mod.rs"]
mod support;

#[expect(dead_code, reason = "the tests of the store use the rest")]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "../store/postgres_server.rs"]
mod postgres_server;

mod cluster;
mod disk;
mod drain;
mod kill;
mod order;
mod replica;
mod slow;
mod writer;

use std::fs::File;

/// Waits for this test's turn, also when each test is a process of its own.
fn turn() -> File {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/faults.lock");
    let file = File::create(path).expect("a file to lock");
    file.lock().expect("the lock");
    file
}
