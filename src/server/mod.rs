//! Puts the parts together: one executor a shard, the store, the mesh, the listeners, the signals.

pub mod cpus;
pub mod demo;
pub mod executor;
pub mod metrics_listener;
pub mod probe;
pub mod process_figures;
pub mod signals;
pub mod status;
pub mod watchdog;

use crate::config::Config;

/// Serves until a signal ends it.
pub fn run(config: Config) -> Result<(), ServerError> {
    let _ = config;
    todo!("the shards")
}

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A listener cannot be opened.
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
}
