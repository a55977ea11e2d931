//! The running program, as whoever operates it sees it: start, health, metrics, log, faults, end.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "../support/mod.rs"]
mod support;

#[expect(dead_code, reason = "the tests of the store use the rest")]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "../store/postgres_server.rs"]
mod postgres_server;

#[expect(dead_code, reason = "the tests of Redis use the rest")]
#[path = "../redis/redis_server.rs"]
mod redis_server;

mod alerts;
mod checkup;
mod journal;
mod monitor;
mod report;
mod running;
mod scrape;
mod stalled;
