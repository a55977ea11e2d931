//! The load generator: drives any server that speaks the chat, and checks every delivery.
//!
//! One thread, one epoll set, frames made beforehand: it delivers up to five million messages a
//! second on one core, so that what is measured is the server. Nothing here knows which server it is:
//! `project-yum bench` drives a running one with it, and `bench/compare` several, one after the other.
//!
//! What a figure means:
//! - **CPU** is user and system time of the server's process, from `/proc`, over the measured period.
//! - **Latency** counts from the moment a message was scheduled, not from when it could be sent: a server
//!   that makes the generator wait does not look faster for it. Quantiles come from all raw samples: those of
//!   the messages that were scheduled within the measured period, also when they come after it.
//! - A delivery is right when each receiver gets each sender's messages once, in order, without a gap;
//!   what is not is counted as lost, repeated or reordered.

mod connections;
mod figures;
mod frames;
mod ledger;
mod messages;
pub mod named;
mod polling;
mod requests;
mod seats;
mod swarm;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

pub use figures::{Cpu, Process, Report, Samples};
pub use ledger::Faults;

use crate::auth::{self, AuthError, AuthOptions, Claims};
use seats::Seats;
use swarm::Swarm;

/// What is driven, and what is known of it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it verifies tokens with.
    pub auth: AuthOptions,
    /// Its process, if its CPU and memory are to be measured.
    pub pid: Option<u32>,
    /// Now, in seconds since 1970: tokens hold for a day from then.
    pub now_seconds: u64,
}

/// One kind of load.
#[derive(Debug, Clone, PartialEq)]
pub enum Scenario {
    /// Connections that do nothing but answer pings; each in `rooms` rooms of `members` members.
    Idle {
        /// How many.
        connections: usize,
        /// Rooms that each of them joins.
        rooms: usize,
        /// Members of a room.
        members: usize,
        /// How long their CPU is measured.
        period: Duration,
    },
    /// WebSocket, open packet, CONNECT with a token: a period of nothing but these.
    Handshake {
        /// How many in all.
        count: usize,
    },
    /// One sender in each room sends to all its members.
    Messages {
        /// Rooms.
        rooms: usize,
        /// Members of each, the sender included.
        members: usize,
        /// Over how many connections the members are spread, each in several rooms. `None`: every member
        /// has a connection of its own.
        connections: Option<usize>,
        /// How they are sent.
        pace: Pace,
        /// How long.
        period: Duration,
    },
    /// Every member sends with an ack, the next one when the ack has come.
    Stored {
        /// Rooms.
        rooms: usize,
        /// Members of each.
        members: usize,
        /// How long.
        period: Duration,
    },
    /// `GET` of one path over a few connections that are kept.
    Get {
        /// The path and query.
        path: String,
        /// Whether a token goes with it.
        authorized: bool,
        /// Connections.
        connections: usize,
        /// How long.
        period: Duration,
    },
    /// Fills a room with messages, for the history.
    Fill {
        /// Which room.
        room: String,
        /// How many messages.
        count: usize,
    },
    /// Connect, join, send, receive it, close.
    Churn {
        /// How often.
        count: usize,
    },
    /// Long-polling, CONNECT, upgrade to WebSocket, join, close.
    Polling {
        /// How often.
        count: usize,
    },
}

/// How messages follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as they are delivered: at most so many of each room are on their way.
    Window(usize),
    /// So many a second over all rooms, whatever the server does.
    Rate(f64),
}

/// Why a load could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The address means nothing.
    #[error("{0} is not http://HOST:PORT of a server")]
    Url(String),
    /// The system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No token can be made.
    #[error("no token can be made: {0}")]
    Token(#[from] AuthError),
    /// The server did something else than the scenario asks for.
    #[error("the server {0}")]
    Server(String),
}

/// The address in `http://HOST:PORT`.
pub fn address(url: &str) -> Result<SocketAddr, LoadError> {
    let wrong = || LoadError::Url(url.to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let host = rest.split('/').next().unwrap_or_default();
    let mut found = host.to_socket_addrs().map_err(|_| wrong())?;
    found.next().ok_or_else(wrong)
}

/// Drives one scenario to its end.
pub fn run(target: &Target, scenario: &Scenario) -> Result<Report, LoadError> {
    let mut load = Load {
        swarm: Swarm::new(target.address)?,
        process: target.pid.map(Process::new),
        target,
    };
    match *scenario {
        Scenario::Idle {
            connections,
            rooms,
            members,
            period,
        } => load.idle(connections, (rooms, members), period),
        Scenario::Handshake { count } => load.handshakes(count),
        Scenario::Messages {
            rooms,
            members,
            connections,
            pace,
            period,
        } => load.messages(Seats::new(rooms, members, connections), pace, period),
        Scenario::Stored {
            rooms,
            members,
            period,
        } => load.stored((rooms, members), period),
        Scenario::Get {
            ref path,
            authorized,
            connections,
            period,
        } => load.requests(path, authorized, connections, period),
        Scenario::Fill { ref room, count } => load.fill(room, count),
        Scenario::Churn { count } => load.churn(count),
        Scenario::Polling { count } => load.polling(count),
    }
}

/// A scenario under way.
struct Load<'a> {
    swarm: Swarm,
    process: Option<Process>,
    target: &'a Target,
}

impl Load<'_> {
    /// A token of a user.
    fn token(&self, user: usize) -> Result<String, AuthError> {
        let claims = Claims {
            user: format!("u{user}").into(),
            rooms: None,
            issued_seconds: self.target.now_seconds,
            expires_seconds: self.target.now_seconds + 86_400,
        };
        auth::sign(&self.target.auth, &claims)
    }

    /// CPU that the server has used so far.
    fn cpu(&self) -> Result<Option<Cpu>, LoadError> {
        Ok(self.process.as_ref().map(Process::cpu).transpose()?)
    }

    /// Memory of the server in bytes.
    fn memory(&self) -> Result<Option<u64>, LoadError> {
        Ok(self.process.as_ref().map(Process::memory).transpose()?)
    }
}

/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

fn server(text: impl Into<String>) -> LoadError {
    LoadError::Server(text.into())
}
