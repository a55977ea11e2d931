//! The running program, as whoever operates it sees it: start, health, metrics, log, faults, end.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "../support/mod.rs"]
mod support;

mod journal;
mod report;
mod running;
mod scrape;
mod stalled;
