//! project-yum: a real-time chat server that speaks Socket.IO.
//!
//! A **shard** is one thread, one io_uring executor, and everything it owns: its listener, its
//! sessions, its sockets, its rooms. What decides is a plain state machine; what waits lives in a
//! thin rim around it. The modules below stand in the order of their layers: each may name its own
//! folder and those before it, nothing else (`tests/architecture.rs` checks it).

pub mod dial;
pub mod env;
pub mod hashed;
pub mod metrics;
pub mod planted;
pub mod sorted;
mod sync;
pub mod wire;

pub mod engine;
pub mod limit;

pub mod hub;

pub mod auth;
pub mod bus;
pub mod store;

pub mod chat;
pub mod net;

pub mod commands;
pub mod config;
pub mod load;
pub mod log;
pub mod report;
pub mod server;
