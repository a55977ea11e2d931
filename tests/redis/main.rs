//! Servers joined by Redis: the built binary against a Redis that is started, paused and killed here.
//!
//! Those tests that measure or harm take turns, two at a time: each has servers of its own, and mostly waits.

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
use std::time::Duration;

/// Tests that may have their turn at once.
const TURNS: usize = 2;

/// Whether `tests/run --long` runs.
fn is_long() -> bool {
    std::env::var("TESTS_LONG").is_ok_and(|long| long == "1")
}

/// Waits for this test's turn, also when each test is a process of its own.
fn turn() -> File {
    loop {
        for nth in 0..TURNS {
            let path = format!("{}/redis.{nth}.lock", env!("CARGO_TARGET_TMPDIR"));
            let file = File::create(path).expect("a file to lock");
            if file.try_lock().is_ok() {
                return file;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
