//! How the process is, as its threads see it: what `/health` says.
//!
//! Shards write here (a stamp at each tick, the store's condition), the watchdog judges, and both
//! the public listener and the metrics listener read. Nothing here waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

/// How a part of the server is; the text says why it is degraded.
pub type PartState = Result<(), Box<str>>;

/// What the threads of the process know of each other.
pub struct Status {
    start: Instant,
    store_kind: &'static str,
    bus_kind: &'static str,
    /// Milliseconds since `start` at each shard's last tick; 0: not yet, or no more.
    ticks: Vec<AtomicU64>,
    stalled: Vec<AtomicBool>,
    draining: AtomicBool,
    store: Mutex<(PartState, Instant)>,
}

/// An answer of `/health` or `/health/ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The HTTP status.
    pub code: u16,
    /// The JSON body.
    pub body: String,
}

impl Status {
    /// Before the first tick of `shards` shards.
    #[must_use]
    pub fn new(shards: usize, store_kind: &'static str, bus_kind: &'static str) -> Arc<Self> {
        let start = Instant::now();
        Arc::new(Self {
            start,
            store_kind,
            bus_kind,
            ticks: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            stalled: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            draining: AtomicBool::new(false),
            store: Mutex::new((Ok(()), start)),
        })
    }

    /// Stamps a shard's tick.
    pub fn ticked(&self, shard: usize, now: Instant) {
        let since = now.saturating_duration_since(self.start).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.ticks[shard].store(since.max(1), Ordering::Relaxed);
    }

    /// Says that a shard has done its work: it ticks no more, and nobody waits for it.
    pub fn ended(&self, shard: usize) {
        self.ticks[shard].store(0, Ordering::Relaxed);
    }

    /// A number that changes with each tick of a shard; 0 before the first and after the last.
    #[must_use]
    pub fn last_tick(&self, shard: usize) -> u64 {
        self.ticks[shard].load(Ordering::Relaxed)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.ticks.len()
    }

    /// Whether every shard has ticked at least once: the server is up.
    #[must_use]
    pub fn is_started(&self) -> bool {
        (0..self.shards()).all(|shard| self.last_tick(shard) > 0)
    }

    /// Says whether a shard is stalled; `true` when that is news.
    pub fn set_stalled(&self, shard: usize, stalled: bool) -> bool {
        self.stalled[shard].swap(stalled, Ordering::Relaxed) != stalled
    }

    /// Says that the server is going away.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Says how the store is.
    pub fn set_store(&self, state: PartState) {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.0 != state {
            *store = (state, Instant::now());
        }
    }

    /// The liveness answer: it never fails because the store does.
    #[must_use]
    pub fn health(&self) -> Health {
        self.answer(false)
    }

    /// The readiness answer: it fails while the store does not answer.
    #[must_use]
    pub fn ready(&self) -> Health {
        self.answer(true)
    }

    fn answer(&self, ready: bool) -> Health {
        let (store, since) = {
            let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            (store.0.clone(), store.1)
        };
        let stalled: Vec<usize> = (0..self.shards())
            .filter(|shard| self.stalled[*shard].load(Ordering::Relaxed))
            .collect();
        let (code, word) = if self.draining.load(Ordering::Relaxed) {
            (503, "draining")
        } else if !stalled.is_empty() {
            (503, "stalled")
        } else if store.is_err() {
            (if ready { 503 } else { 200 }, "degraded")
        } else if ready && !self.is_started() {
            (503, "starting")
        } else {
            (200, "ok")
        };
        let part = |kind: &str, state: &PartState| match state {
            Ok(()) => json!({"kind": kind, "status": "ok"}),
            Err(reason) => json!({
                "kind": kind,
                "status": "degraded",
                "reason": reason,
                "forSeconds": since.elapsed().as_secs(),
            }),
        };
        let mut body = json!({
            "status": word,
            "version": env!("CARGO_PKG_VERSION"),
            "uptimeSeconds": self.start.elapsed().as_secs(),
            "shards": self.shards(),
            "store": part(self.store_kind, &store),
            "bus": part(self.bus_kind, &Ok(())),
        });
        if !stalled.is_empty() {
            body["stalledShards"] = Value::from(stalled);
        }
        Health {
            code,
            body: body.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(health: &Health) -> String {
        let body: Value = serde_json::from_str(&health.body).expect("JSON");
        body["status"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_silent_store_degrades_but_does_not_kill() {
        let status = Status::new(1, "sqlite", "mesh");
        status.ticked(0, Instant::now());
        assert_eq!((status.health().code, status.ready().code), (200, 200));
        status.set_store(Err("disk full".into()));
        assert_eq!((status.health().code, status.ready().code), (200, 503));
        assert_eq!(word(&status.health()), "degraded");
        status.set_store(Ok(()));
        assert_eq!(status.ready().code, 200);
    }

    #[test]
    fn draining_and_stalled_fail_at_once() {
        let status = Status::new(2, "sqlite", "mesh");
        assert!(status.set_stalled(1, true));
        assert!(!status.set_stalled(1, true));
        assert_eq!(word(&status.health()), "stalled");
        status.set_draining();
        assert_eq!(
            (word(&status.health()).as_str(), status.health().code),
            ("draining", 503)
        );
    }

    #[test]
    fn ready_only_when_every_shard_runs() {
        let status = Status::new(2, "sqlite", "mesh");
        status.ticked(0, Instant::now());
        assert_eq!(word(&status.ready()), "starting");
        status.ticked(1, Instant::now());
        assert_eq!(status.ready().code, 200);
    }
}
