//! Puts the parts together: one executor a shard, the store, the mesh, the listeners, the signals.

pub mod cpus;
pub mod demo;
pub mod metrics_listener;
pub mod probe;
pub mod process_figures;
pub mod signals;
pub mod status;
pub mod watchdog;
