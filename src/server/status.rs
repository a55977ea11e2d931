//! How the process is, as its threads see it: what `/health` says.
//!
//! Shards write here (a stamp at each tick, the store's condition), the watchdog judges, and both
//! the public listener and the metrics listener read. Nothing here waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How a part of the server is; the text says why it is degraded.
pub type PartState = Result<(), Box<str>>;

/// What the threads of the process know of each other.
pub struct Status {
    start: Instant,
    /// Milliseconds since `start` at each shard's last tick; 0: not yet, or no more.
    ticks: Vec<AtomicU64>,
    /// Milliseconds since `start` when the watchdog found each shard stalled; 0: it is not.
    stalled: Vec<AtomicU64>,
    draining: AtomicBool,
    store: Part,
    bus: Part,
    /// The last answer while all was well, and its second.
    kept: Mutex<(u64, String)>,
}

/// A part's state, and since when.
struct Part {
    kind: &'static str,
    state: Mutex<(PartState, Instant)>,
}

impl Part {
    fn new(kind: &'static str, start: Instant) -> Self {
        Self {
            kind,
            state: Mutex::new((Ok(()), start)),
        }
    }

    fn set(&self, state: PartState) {
        let mut known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.is_err() && state.is_err() {
            // Another reason is no other time: it has been degraded since the first.
            known.0 = state;
        } else if known.0 != state {
            *known = (state, Instant::now());
        }
    }

    fn get(&self) -> (PartState, Instant) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    fn describe(&self) -> Value {
        match self.get() {
            (Ok(()), _) => json!({"kind": self.kind, "status": "ok"}),
            (Err(reason), since) => json!({
                "kind": self.kind,
                "status": "degraded",
                "reason": reason,
                "since": wall(since),
                "forSeconds": since.elapsed().as_secs(),
            }),
        }
    }
}

/// A moment of the past by the clock on the wall, to the second.
fn wall(then: Instant) -> String {
    let then = OffsetDateTime::now_utc() - then.elapsed();
    let whole = then.replace_nanosecond(0).unwrap_or(then);
    whole.format(&Rfc3339).unwrap_or_default()
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
            ticks: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            stalled: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            draining: AtomicBool::new(false),
            store: Part::new(store_kind, start),
            bus: Part::new(bus_kind, start),
            kept: Mutex::default(),
        })
    }

    /// Milliseconds from the start, at least 1.
    fn stamp(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).max(1)
    }

    /// Stamps a shard's tick.
    pub fn ticked(&self, shard: usize, now: Instant) {
        self.ticks[shard].store(self.stamp(now), Ordering::Relaxed);
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
        let stamp = if stalled {
            self.stamp(Instant::now())
        } else {
            0
        };
        let known = &self.stalled[shard];
        if (known.load(Ordering::Relaxed) > 0) == stalled {
            return false;
        }
        known.store(stamp, Ordering::Relaxed);
        true
    }

    /// Says that the server is going away.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Says how the store is.
    pub fn set_store(&self, state: PartState) {
        self.store.set(state);
    }

    /// Says how the way to other hosts is.
    pub fn set_bus(&self, state: PartState) {
        self.bus.set(state);
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

    /// One line for whoever asks the service manager: the word of `/health`, and why.
    #[must_use]
    pub fn summary(&self) -> String {
        let (_, word) = self.judge(false);
        let mut reasons = Vec::new();
        for (name, part) in [("store", &self.store), ("bus", &self.bus)] {
            if let (Err(reason), since) = part.get() {
                reasons.push(format!("{name} since {}: {reason}", wall(since)));
            }
        }
        for (shard, since) in self.stalled() {
            reasons.push(format!("shard {shard} stands still since {}", wall(since)));
        }
        if reasons.is_empty() {
            return word.to_owned();
        }
        format!("{word}: {}", reasons.join("; "))
    }

    fn stalled(&self) -> Vec<(usize, Instant)> {
        let stamps = self
            .stalled
            .iter()
            .map(|stamp| stamp.load(Ordering::Relaxed));
        let stalled = stamps.enumerate().filter(|(_, stamp)| *stamp > 0);
        stalled
            .map(|(shard, stamp)| (shard, self.start + Duration::from_millis(stamp)))
            .collect()
    }

    fn judge(&self, ready: bool) -> (u16, &'static str) {
        let store = self.store.get().0;
        if self.draining.load(Ordering::Relaxed) {
            (503, "draining")
        } else if !self.stalled().is_empty() {
            (503, "stalled")
        } else if store.is_err() {
            (if ready { 503 } else { 200 }, "degraded")
        } else if ready && !self.is_started() {
            (503, "starting")
        } else if self.bus.get().0.is_err() {
            // This host serves its own clients meanwhile.
            (200, "degraded")
        } else {
            (200, "ok")
        }
    }

    fn answer(&self, ready: bool) -> Health {
        let (code, word) = self.judge(ready);
        let uptime = self.start.elapsed().as_secs();
        if word != "ok" {
            let body = self.body(word, uptime);
            return Health { code, body };
        }
        // While all is well nothing in it changes but the seconds: load balancers ask often.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 != uptime || kept.1.is_empty() {
            *kept = (uptime, self.body(word, uptime));
        }
        let body = kept.1.clone();
        Health { code, body }
    }

    fn body(&self, word: &str, uptime: u64) -> String {
        let mut body = json!({
            "status": word,
            "version": env!("CARGO_PKG_VERSION"),
            "uptimeSeconds": uptime,
            "shards": self.shards(),
            "store": self.store.describe(),
            "bus": self.bus.describe(),
        });
        let stalled = self.stalled();
        if !stalled.is_empty() {
            let stalled = stalled.into_iter().map(|(shard, since)| {
                json!({"shard": shard, "since": wall(since), "forSeconds": since.elapsed().as_secs()})
            });
            body["stalledShards"] = stalled.collect();
        }
        body.to_string()
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
        status.set_store(Err("another reason".into()));
        let body: Value = serde_json::from_str(&status.health().body).expect("JSON");
        assert_eq!(body["store"]["reason"], "another reason");
        assert!(
            body["store"]["since"]
                .as_str()
                .is_some_and(|since| since.ends_with('Z')),
            "{body}"
        );
        assert!(status.summary().starts_with("degraded: store since "));
        status.set_store(Ok(()));
        assert_eq!(
            (status.ready().code, status.summary().as_str()),
            (200, "ok")
        );
    }

    #[test]
    fn a_lost_bus_degrades_and_stays_ready() {
        let status = Status::new(1, "sqlite", "redis");
        status.ticked(0, Instant::now());
        status.set_bus(Err("no link".into()));
        assert_eq!((status.health().code, status.ready().code), (200, 200));
        assert_eq!(word(&status.ready()), "degraded");
    }

    #[test]
    fn draining_and_stalled_fail_at_once() {
        let status = Status::new(2, "sqlite", "mesh");
        assert!(status.set_stalled(1, true));
        assert!(!status.set_stalled(1, true));
        assert_eq!(word(&status.health()), "stalled");
        assert!(
            status.health().body.contains("\"shard\":1"),
            "{}",
            status.health().body
        );
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
