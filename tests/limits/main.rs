//! Limits, addresses, keys and what SIGHUP changes: the built binary, black box, under live connections.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "../support/mod.rs"]
mod support;

mod messages;
