//! A shard's tasks: accept, tick, flush, adopt, drain.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use super::Shard;

/// Descriptors kept for what is no connection: rings, files, the store, a connection on its way
/// between two shards.
pub const DESCRIPTORS_RESERVED: usize = 64;

/// What the whole process shares: the signal to drain, and the bound of its descriptors.
#[derive(Debug)]
pub struct Process {
    /// Set once: from then on the shards drain.
    pub draining: AtomicBool,
    /// Connections of all shards.
    connections: AtomicUsize,
    /// How many connections all shards may have: the limit of descriptors less a reserve.
    connections_max: usize,
}

impl Process {
    /// The bound is the process's limit of open descriptors less [`DESCRIPTORS_RESERVED`].
    #[must_use]
    pub fn new() -> Arc<Self> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        Arc::new(Self {
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            connections_max: limit
                .unwrap_or(usize::MAX)
                .saturating_sub(DESCRIPTORS_RESERVED)
                .max(1),
        })
    }
}

/// A listening socket on `address` that other shards can share (`SO_REUSEPORT`), backlog 4096.
/// Port 0 takes a free one.
pub fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    todo!()
}

/// Serves until the process drains and every session has left, or the drain's time is over.
///
/// `tick` is called at most 10 ms apart while anything happens, else at most 100 ms, or when the
/// deadline that it returned has come. Dirty sessions and the engines' deadlines are driven from
/// here, so it is for what stands above: the hub, the watchdog's stamp.
pub async fn run(
    shard: Rc<Shard>,
    listener: OwnedFd,
    process: Arc<Process>,
    tick: Box<dyn FnMut(Instant) -> Option<Instant>>,
) {
    todo!()
}
