//! The protocol, byte for byte: Engine.IO v4 and Socket.IO v5 over raw TCP.
//!
//! Each case states what goes out on the wire and what must come back. They are written from the
//! public protocol documents and RFC 6455, RFC 9110 and RFC 9112; none uses a client library, and the
//! small HTTP and WebSocket clients here can also send what a proper client never would.
//!
//! Every case runs against the `conformance` example (`tests/conformance/server.rs`), once with one
//! shard and once with four. Where a case differs from the Node server on purpose, a comment that
//! begins with "Node:" says how. `CONFORMANCE_SERVER=<program>` runs the cases against another server
//! with the same settings; `TESTS_LONG=1` adds the long loops.
//!
//! Reading order: `server` starts the servers, `http`, `websocket` and `peer` are the clients, the
//! rest are the cases.

#![expect(clippy::unwrap_used, reason = "a test may fail by it")]

#[path = "../support/fields.rs"]
mod fields;
mod http;
mod peer;
mod server;
mod websocket;

/// Makes a test of each named case, for one shard and for four. A case is a function of a `&Server`.
macro_rules! cases {
    ($profile:ident: $($name:ident),* $(,)?) => {
        mod one_shard {
            $(#[test] fn $name() {
                super::$name(crate::server::shared(crate::server::Profile::$profile, 1));
            })*
        }
        mod four_shards {
            $(#[test] fn $name() {
                super::$name(crate::server::shared(crate::server::Profile::$profile, 4));
            })*
        }
    };
}

/// Like [`cases`], over each transport: a case is a function of a `&Server` and a `Transport`.
macro_rules! transport_cases {
    ($profile:ident: $($name:ident),* $(,)?) => {
        transport_cases!(@ polling_one_shard, Polling, 1, $profile: $($name),*);
        transport_cases!(@ polling_four_shards, Polling, 4, $profile: $($name),*);
        transport_cases!(@ websocket_one_shard, WebSocket, 1, $profile: $($name),*);
        transport_cases!(@ websocket_four_shards, WebSocket, 4, $profile: $($name),*);
    };
    (@ $module:ident, $transport:ident, $shards:literal, $profile:ident: $($name:ident),*) => {
        mod $module {
            $(#[test] fn $name() {
                let server = crate::server::shared(crate::server::Profile::$profile, $shards);
                super::$name(server, crate::peer::Transport::$transport);
            })*
        }
    };
}

mod cors;
mod events;
mod framing;
mod handshake;
mod heartbeat;
mod moves;
mod namespaces;
mod packets;
mod polling;
mod process;
mod rooms;
mod routing;
mod upgrade;
mod ws;
