//! The built binary as a server, and a small Socket.IO client over plain blocking sockets.
//!
//! Nothing here is shared with the code under test but the signing of tokens: the client speaks
//! RFC 6455, Engine.IO v4 and Socket.IO v5 with code of its own, as far as the tests need.

pub(crate) mod client;
pub(crate) mod fault;
pub(crate) mod fields;
pub(crate) mod http;
pub(crate) mod server;
pub(crate) mod token;
pub(crate) mod websocket;

use std::time::{Duration, Instant};

/// How long a test waits for what must come. A busy machine is slow; a wrong server is silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `holds` gives something.
pub(crate) fn eventually<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
