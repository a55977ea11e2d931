//! Moves a connection to the shard of its session.
//!
//! A session is used only by its own shard, and the kernel gives a new connection to any of them.
//! So the connection moves, with the request that was read: its descriptor and those bytes cross to
//! the other shard's thread, and the request is read again there. Later requests on it are at home.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use flume::TrySendError;

use super::{Connection, Origin, Response, Shard, http};
use crate::wire::http::RequestHead;

/// Connections that wait to be taken by one shard.
pub const QUEUE_MAX: usize = 1024;
/// How long a connection may wait for a place in the other shard's queue.
const WAIT: Duration = Duration::from_secs(5);
/// How soon a full queue is tried again; the tick makes it a little later.
const RETRY: Duration = Duration::from_millis(5);

/// A connection on its way: its descriptor, and the bytes read from it that no request has used.
#[derive(Debug)]
pub struct Handoff {
    fd: OwnedFd,
    buffer: BytesMut,
    origin: Origin,
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

    /// Whether nobody waits to be taken by this shard.
    pub(super) fn is_empty(&self) -> bool {
        self.from.is_empty()
    }
}

/// Gives the connection to another shard, together with the request that it brought. While that
/// shard's queue is full the connection waits, unread; after [`WAIT`] it comes back, with the
/// refusal sent.
pub(super) async fn send(
    mut connection: Connection,
    head: RequestHead,
    target: u8,
) -> Option<Connection> {
    let shard = Rc::clone(connection.shard());
    let deadline = Instant::now() + WAIT;
    let mut buffer = BytesMut::from(head.as_bytes());
    buffer.extend_from_slice(connection.buffer());
    // A duplicate: the stream closes its own when it is dropped here.
    let fd = connection.fd().try_clone_to_owned();
    let mut waiting = fd.ok().map(|fd| {
        let origin = connection.take_origin();
        Box::new(Handoff { fd, buffer, origin })
    });
    let sender = &shard.handoffs.to[usize::from(target)];
    while let Some(handoff) = waiting.take() {
        match sender.try_send(handoff) {
            Ok(()) => {
                shard.metrics.connections_moved.increment(1);
                return None;
            }
            Err(TrySendError::Full(handoff)) if Instant::now() < deadline => {
                waiting = Some(handoff);
                shard.mark_active();
                shard.deadlines.reach(Instant::now() + RETRY).await;
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
    shard.metrics.handoffs_refused.increment(1);
    let response = Response::error(503, "unavailable", "the session's shard is busy")
        .field("Retry-After", "1")
        .closing();
    let _ = connection.respond(&head, response).await;
    Some(connection)
}

/// Serves the connections that other shards give to this one. Never ends.
pub(super) async fn adopt(shard: Rc<Shard>) {
    while let Ok(handoff) = shard.handoffs.from.recv_async().await {
        let Handoff { fd, buffer, origin } = *handoff;
        let connection = Connection::new(Rc::clone(&shard), fd, origin, buffer);
        glommio::spawn_local(http::serve(connection)).detach();
    }
}
