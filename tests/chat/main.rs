//! The chat as its clients see it: the built binary, black box, over both transports.
//!
//! Each test keeps to rooms of its own on one shared server, or starts a server when it needs
//! settings of its own. `support` is the client and the server; the rest are the cases. What must
//! hold under load and under faults is in `tests/faults`.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "../support/mod.rs"]
mod support;

mod errors;
mod events;
mod history;
mod replay;
mod tokens;

use std::sync::atomic::{AtomicU32, Ordering};

use support::client::{Client, Via};
use support::server::Server;
use support::token::token;

/// Both transports.
const BOTH: [Via; 2] = [Via::WebSocket, Via::Polling];

/// A room that no other test knows.
fn room(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A connected client of this user.
fn client(server: &Server, via: Via, user: &str) -> Client {
    Client::connect(server.address, via, &token(user))
}
