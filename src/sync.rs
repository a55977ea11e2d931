//! The atomics and locks of what the shards of a process share, under one name.
//!
//! `tests/model` compiles the files that use this once more, with loom's atomics and locks under the same
//! name, and plays the orders in which threads can meet in them. So those files hold no unit tests: these
//! stand beside them.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
