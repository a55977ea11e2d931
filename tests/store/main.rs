//! The contract of a store, one body for every implementation, and what each must survive.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod contract;
mod faults;
mod memory;
mod postgres;
#[expect(dead_code, reason = "the tests of the built server use the rest")]
mod postgres_server;
#[expect(
    dead_code,
    reason = "the tests of servers joined by Redis use the rest"
)]
mod relay;
mod sqlite;
mod tls;
