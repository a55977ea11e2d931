//! Moves a connection to the shard of its session.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bytes::BytesMut;

/// Connections that wait to be taken by one shard.
pub const QUEUE_MAX: usize = 1024;

/// A connection on its way: its descriptor, and the bytes read from it that no request has used.
#[derive(Debug)]
pub struct Handoff {
    fd: OwnedFd,
    buffer: BytesMut,
    peer: SocketAddr,
}

/// One shard's ends of the queues between all shards.
#[derive(Debug)]
pub struct Handoffs {
    to: Vec<flume::Sender<Box<Handoff>>>,
    from: flume::Receiver<Box<Handoff>>,
}

impl Handoffs {
    /// The queues between `shards` shards; element `n` is for shard `n`.
    #[must_use]
    pub fn mesh(shards: usize) -> Vec<Self> {
        let queues: Vec<_> = (0..shards).map(|_| flume::bounded(QUEUE_MAX)).collect();
        let to: Vec<_> = queues.iter().map(|(sender, _)| sender.clone()).collect();
        queues
            .into_iter()
            .map(|(_, from)| Self {
                to: to.clone(),
                from,
            })
            .collect()
    }
}
