//! Servers joined by Redis: the built binary against a Redis that is started, paused and killed here.
//!
//! Those tests that measure or harm take turns, because each of them wants the machine for itself.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "../support/mod.rs"]
mod support;

#[expect(dead_code, reason = "the tests of the store use the rest")]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "../store/postgres_server.rs"]
mod postgres_server;

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "../store/relay.rs"]
mod relay;

mod contract;
mod load;
mod outage;
mod redis_server;
mod rubbish;

use std::fs::File;

/// Whether `tests/run --long` runs.
fn is_long() -> bool {
    std::env::var("TESTS_LONG").is_ok_and(|long| long == "1")
}

/// Waits for this test's turn, also when each test is a process of its own.
fn turn() -> File {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/redis.lock");
    let file = File::create(path).expect("a file to lock");
    file.lock().expect("the lock");
    file
}
