//! What the shards go by and may be replaced while they run: keys, origins, limits.
//!
//! One value for the process behind a version number. Each shard looks at the number with each tick,
//! which costs one atomic read, and takes the value when it has changed. Connections stay.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::auth::{AuthOptions, Rules};
use crate::bus::usage::MessageRate;
use crate::config::Config;
use crate::limit::Rate;
use crate::net::AddressLimits;

/// REST requests and handshakes of one address at once.
const HTTP_BURST: u32 = 100;
/// New connections of one address at once.
const CONNECTIONS_BURST: u32 = 1_000;
/// Joins of one user at once: four devices that come back, each to all the rooms of a connection.
const JOINS_BURST: u32 = 4_000;
/// Joins of one user on average, for each message.
const JOINS_PER_MESSAGE: u32 = 2;
/// So many times a user's burst may be refused before the user is cut off.
const REFUSALS_PER_BURST: u32 = 10;

/// What the shards go by.
#[derive(Debug, Clone)]
pub struct Live {
    /// Which tokens are valid.
    pub rules: Arc<Rules>,
    /// Origins whose pages may connect.
    pub origins: Vec<Box<str>>,
    /// How much a user may send and join.
    pub message_rate: MessageRate,
    /// What one address may do.
    pub address_limits: AddressLimits,
}

impl Live {
    /// What these settings say. `auth` are their keys.
    #[must_use]
    pub fn new(config: &Config, auth: &AuthOptions) -> Self {
        Self {
            rules: Arc::new(Rules::new(auth)),
            origins: config.cors_origins.clone(),
            message_rate: MessageRate {
                rate: Rate::per_second(config.rate_messages_per_second, config.rate_burst),
                joins: Rate::per_second(
                    config
                        .rate_messages_per_second
                        .saturating_mul(JOINS_PER_MESSAGE),
                    JOINS_BURST,
                ),
                refusals_max: config.rate_burst.saturating_mul(REFUSALS_PER_BURST),
            },
            address_limits: address_limits(config),
        }
    }
}

fn address_limits(config: &Config) -> AddressLimits {
    if config.demo {
        // All come from this machine.
        return AddressLimits::default();
    }
    AddressLimits {
        requests: Rate::per_second(config.rate_http_per_second, HTTP_BURST),
        connections: Rate::per_second(config.rate_connections_per_second, CONNECTIONS_BURST),
        connections_max: config.max_connections_per_ip,
    }
}

/// The present value, for all threads.
#[derive(Debug)]
pub struct Current {
    version: AtomicU64,
    live: Mutex<Arc<Live>>,
}

impl Current {
    /// Begins with this one.
    #[must_use]
    pub fn new(live: Live) -> Arc<Self> {
        Arc::new(Self {
            version: AtomicU64::new(1),
            live: Mutex::new(Arc::new(live)),
        })
    }

    /// Puts another in its place; every shard takes it with its next tick.
    pub fn replace(&self, live: Live) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The value, if it is another than the one of version `seen`; 0 has seen none.
    pub fn newer(&self, seen: &mut u64) -> Option<Arc<Live>> {
        let version = self.version.load(Ordering::Acquire);
        if version == *seen {
            return None;
        }
        *seen = version;
        Some(self.get())
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> Arc<Live> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&live)
    }
}
