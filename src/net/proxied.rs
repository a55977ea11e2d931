//! Connections that a proxy passes on with a header of the PROXY protocol.
//!
//! The header is required, comes before anything else, and has a deadline of its own, which single
//! bytes do not push back. A connection without one is closed without a word: whoever made it is no
//! proxy, and must not learn what listens here.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Buf as _;

use super::{Connection, Origin, Shard, http};
use crate::wire::proxy_protocol::{self, Header};

/// From a connection's begin to the last byte of its header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the header, then serves the connection as one from the address that it names.
pub(super) async fn serve(mut connection: Connection) {
    let shard = Rc::clone(connection.shard());
    let Some(header) = read(&mut connection).await else {
        shard.metrics.connections_refused.increment("proxy_header");
        return;
    };
    connection.buffer().advance(header.length);
    let origin = connection.origin_mut();
    origin.source = header.source;
    if count(&shard, origin) {
        http::serve(connection).await;
    }
}

async fn read(connection: &mut Connection) -> Option<Header> {
    let deadline = Instant::now() + HEADER_TIMEOUT;
    loop {
        if let Some(header) = proxy_protocol::decode(connection.buffer()).ok()? {
            return Some(header);
        }
        match connection.fill(deadline).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// Counts a new connection for the address it comes from, if that is a client's. `false`: it has too
/// many, or makes them too fast.
pub(super) fn count(shard: &Shard, origin: &mut Origin) -> bool {
    let trust = &shard.options.trust;
    let Some(address) = trust.client_of(origin) else {
        if trust.is_unsure_of(origin) {
            shard.warn_of_proxies();
        }
        return true;
    };
    let opened = shard.open_place(address, true);
    let has_room = opened.is_ok();
    origin.place = opened.ok().flatten();
    has_room
}
