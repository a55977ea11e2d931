//! Puts the parts together: one executor a shard, the store, the mesh, the listeners, the signals.

pub mod cpus;
pub mod probe;
pub mod signals;
pub mod status;
pub mod watchdog;
