//! The figures this server shows of itself: names, units and help in one table, and the handles.
//!
//! Every shard has its own [`Metrics`], so that two cores never write to one counter. A handle is
//! fetched once and kept: looking one up costs thirty times what counting costs. Label values are
//! static words of this program, and each family takes at most [`FAMILY_MAX`] of them; no room, user
//! or address is ever a label.

use std::cell::RefCell;

use metrics::{Counter, Gauge, Histogram, Label, Unit};

/// How many label values one family takes; what comes later counts as `other`.
pub const FAMILY_MAX: usize = 32;
/// The same for a family of two labels: each event with each of its outcomes.
pub const PAIRS_MAX: usize = 96;

/// What kind of figure a row of the table describes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values in buckets.
    Histogram(&'static [f64]),
}

/// One row of the table: a figure's name, kind, unit and help.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// The name in the scrape.
    pub name: &'static str,
    /// What kind of figure it is.
    pub kind: Kind,
    /// What one of it means.
    pub unit: Unit,
    /// One sentence for the operator.
    pub help: &'static str,
}

/// Buckets for waits, in seconds: 50 µs to 10 s.
pub const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];
/// Buckets for numbers of things handled at once.
pub const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

macro_rules! table {
    ($($constant:ident = $name:literal, $kind:expr, $unit:ident, $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*
        /// Every figure of the server's own.
        pub const TABLE: &[Description] = &[
            $(Description { name: $name, kind: $kind, unit: Unit::$unit, help: $help },)*
        ];
    };
}

table! {
    CONNECTIONS = "yum_connections", Kind::Gauge, Count, "TCP connections that are open.";
    CONNECTIONS_ACCEPTED = "yum_connections_accepted_total", Kind::Counter, Count, "TCP connections accepted.";
    CONNECTIONS_REFUSED = "yum_connections_refused_total", Kind::Counter, Count, "TCP connections not served, by reason.";
    CONNECTIONS_MOVED = "yum_connections_moved_total", Kind::Counter, Count, "TCP connections moved to the shard of their session.";
    HANDOFFS_REFUSED = "yum_handoffs_refused_total", Kind::Counter, Count, "Moves of a connection given up because the other shard's queue stayed full.";
    HTTP_REQUESTS = "yum_http_requests_total", Kind::Counter, Count, "HTTP requests answered, by class of status.";
    SESSIONS = "yum_sessions", Kind::Gauge, Count, "Engine.IO sessions that are open, by transport.";
    SESSIONS_OPENED = "yum_sessions_opened_total", Kind::Counter, Count, "Engine.IO sessions opened, by their first transport.";
    SESSIONS_CLOSED = "yum_sessions_closed_total", Kind::Counter, Count, "Engine.IO sessions closed, by reason.";
    HANDSHAKES_REFUSED = "yum_handshakes_refused_total", Kind::Counter, Count, "Engine.IO requests refused, by reason.";
    UPGRADES = "yum_upgrades_total", Kind::Counter, Count, "Upgrades from polling to WebSocket, by outcome.";
    BOUNDS = "yum_bounds_total", Kind::Counter, Count, "Times that a bound was met which no other figure counts, by bound; the README says which there are.";
    SLOW_CONSUMERS = "yum_slow_consumers_total", Kind::Counter, Count, "Sessions closed because their unsent output passed its bound.";
    OUTBOX_BYTES = "yum_outbox_bytes", Kind::Gauge, Bytes, "Unsent output of all sessions.";
    FLUSHES = "yum_flushes_total", Kind::Counter, Count, "Sends to a WebSocket; each carries all frames that waited.";
    FLUSHED_FRAMES = "yum_flushed_frames_total", Kind::Counter, Count, "Frames sent to WebSockets.";
    FLUSH_REMAINDERS = "yum_flush_remainders_total", Kind::Counter, Count, "Sends that the kernel took only in part.";
    SOCKETS = "yum_sockets", Kind::Gauge, Count, "Socket.IO sockets that are connected.";
    CONNECT_ERRORS = "yum_connect_errors_total", Kind::Counter, Count, "Socket.IO CONNECTs refused, by code.";
    EVENTS = "yum_events_total", Kind::Counter, Count, "Events of clients, by name and outcome.";
    EVENTS_PARKED = "yum_events_parked_total", Kind::Counter, Count, "Times a connection was not read, because too many of its events waited for their turn.";
    RATE_LIMITED = "yum_rate_limited_total", Kind::Counter, Count, "Things refused because of a limit of a user or an address, by what was refused.";
    ROOMS = "yum_rooms", Kind::Gauge, Count, "Rooms with members on the shard.";
    BROADCASTS = "yum_broadcasts_total", Kind::Counter, Count, "Broadcasts published.";
    DELIVERIES = "yum_deliveries_total", Kind::Counter, Count, "Packets put into outboxes by broadcasts.";
    DROPS = "yum_drops_total", Kind::Counter, Count, "Packets not delivered, by reason.";
    ACK_SECONDS = "yum_ack_seconds", Kind::Histogram(SECONDS), Seconds, "From a sendMessage read to its ack.";
    DELIVERY_SECONDS = "yum_delivery_seconds", Kind::Histogram(SECONDS), Seconds, "From a broadcast published to its packets in the outboxes of a shard's members, once for each shard that delivers it.";
    ORDER_HELD = "yum_order_held_total", Kind::Counter, Count, "Messages held because they overtook a predecessor.";
    ORDER_REPAIRED = "yum_order_repaired_total", Kind::Counter, Count, "Messages read from the store because the bus did not bring them.";
    ORDER_GAPS = "yum_order_gaps_total", Kind::Counter, Count, "Gaps left visible because the store stayed silent.";
    ORDER_BOGUS = "yum_order_bogus_total", Kind::Counter, Count, "Numbers of messages that came over the bus and are not in the store.";
    ORDER_DUPLICATES = "yum_order_duplicates_total", Kind::Counter, Count, "Messages that came again and were dropped.";
    BUS_UP = "yum_bus_up", Kind::Gauge, Count, "Whether the shard reaches the other hosts: 1 or 0. Always 1 where there are none.";
    BUS_PUBLISHED = "yum_bus_published_total", Kind::Counter, Count, "Envelopes handed to other shards.";
    BUS_RECEIVED = "yum_bus_received_total", Kind::Counter, Count, "Envelopes taken from other shards.";
    BUS_DUPLICATES = "yum_bus_duplicates_total", Kind::Counter, Count, "Broadcasts that two ways of the bus brought, dropped the second time.";
    BUS_OWED = "yum_bus_owed_total", Kind::Counter, Count, "Head notices owed because a queue between shards was full.";
    BUS_NOTICES = "yum_bus_notices_total", Kind::Counter, Count, "Head notices sent.";
    REDIS_CONNECTIONS = "yum_redis_connections_total", Kind::Counter, Count, "Connections to Redis made, the first ones included.";
    REDIS_PUBLISHED = "yum_redis_published_total", Kind::Counter, Count, "Broadcasts, requests and answers handed to Redis.";
    REDIS_RECEIVED = "yum_redis_received_total", Kind::Counter, Count, "Messages that Redis brought, the shard's own included.";
    REDIS_IGNORED = "yum_redis_ignored_total", Kind::Counter, Count, "Messages of Redis that were not understood, by cause.";
    REDIS_LATE = "yum_redis_late_total", Kind::Counter, Count, "Broadcasts that Redis did not answer soon, so that the mesh took them too.";
    REDIS_ROUND_TRIP_SECONDS = "yum_redis_round_trip_seconds", Kind::Histogram(SECONDS), Seconds, "From a message handed to Redis to its answer.";
    STORE_BATCHES = "yum_store_batches_total", Kind::Counter, Count, "Transactions committed by the store's writer.";
    STORE_BATCH_ROWS = "yum_store_batch_rows", Kind::Histogram(COUNTS), Count, "Messages in one transaction.";
    STORE_COMMIT_SECONDS = "yum_store_commit_seconds", Kind::Histogram(SECONDS), Seconds, "From the begin of a transaction to its durable commit.";
    STORE_READ_SECONDS = "yum_store_read_seconds", Kind::Histogram(SECONDS), Seconds, "One read of history, heads or missed messages.";
    STORE_QUEUE = "yum_store_queue", Kind::Gauge, Count, "Messages that wait for the store's writer.";
    STORE_REFUSED = "yum_store_refused_total", Kind::Counter, Count, "Calls that the store refused, by reason.";
    STORE_FORGOTTEN = "yum_store_forgotten_total", Kind::Counter, Count, "Messages that the store in memory let go of because it was full.";
    STORE_REPLICA_READS = "yum_store_replica_reads_total", Kind::Counter, Count, "Pages of history asked of replicas, by outcome: served, or left to the primary because the replica was behind or unreachable.";
    STORE_UP = "yum_store_up", Kind::Gauge, Count, "Whether the store takes messages: 1 or 0.";
    STORE_RECONNECTS = "yum_store_reconnects_total", Kind::Counter, Count, "Connections to the database made, the first ones included.";
    STORE_CIRCUITS_OPEN = "yum_store_circuits_open", Kind::Gauge, Count, "Connections to the database given up for now: what needs them is refused at once.";
    TICK_LATE_SECONDS = "yum_tick_late_seconds", Kind::Histogram(SECONDS), Seconds, "How much later than planned a shard's tick came: what everything on that shard waits for besides its own work.";
    SHARD_STALLED = "yum_shard_stalled", Kind::Gauge, Count, "Whether a shard has not ticked for 2 s: 1 or 0.";
    SHARD_STALLS = "yum_shard_stalls_total", Kind::Counter, Count, "Times that a shard did not tick for 2 s.";
    LOG_LINES_DROPPED = "yum_log_lines_dropped_total", Kind::Counter, Count, "Log lines dropped because the writer was behind.";
    LOG_LINES_REPEATED = "yum_log_lines_repeated_total", Kind::Counter, Count, "Log lines left out because the same place had logged often within a short time.";
    REPORTS = "yum_reports_total", Kind::Counter, Count, "Errors reported to Sentry, by outcome.";
    SCRAPES_REFUSED = "yum_scrapes_refused_total", Kind::Counter, Count, "Connections to the metrics' own listener that got no figures, by reason.";
    DRAINING = "yum_draining", Kind::Gauge, Count, "Whether the server is going away: 1 or 0.";
    RELOADS = "yum_reloads_total", Kind::Counter, Count, "Times that settings or public keys were reread, by outcome: done or refused.";
}

/// Tells the recorder what each figure means. Called once, before the first handle is made.
pub fn describe() {
    for row in TABLE {
        match row.kind {
            Kind::Counter => metrics::describe_counter!(row.name, row.unit, row.help),
            Kind::Gauge => metrics::describe_gauge!(row.name, row.unit, row.help),
            Kind::Histogram(_) => metrics::describe_histogram!(row.name, row.unit, row.help),
        }
    }
    // What rarely happens is there before it has: a rate over what is missing is not 0.
    for name in [LOG_LINES_DROPPED, LOG_LINES_REPEATED, STORE_FORGOTTEN] {
        metrics::counter!(name).increment(0);
    }
    for (name, key, values) in [
        (REPORTS, "outcome", ["sent", "failed", "dropped"].as_slice()),
        (RELOADS, "outcome", &["done", "refused"]),
        (SCRAPES_REFUSED, "reason", &["busy", "head", "slow"]),
    ] {
        for value in values {
            metrics::counter!(name, key => *value).increment(0);
        }
    }
}

/// Counters that differ in one label, or in two, whose values are words of this program.
pub struct Family {
    name: &'static str,
    keys: [&'static str; 2],
    shard: Box<str>,
    known: RefCell<Vec<([&'static str; 2], Counter)>>,
}

impl Family {
    fn new(name: &'static str, key: &'static str, shard: &str) -> Self {
        Self::pair(name, [key, ""], shard)
    }

    fn pair(name: &'static str, keys: [&'static str; 2], shard: &str) -> Self {
        Self {
            name,
            keys,
            shard: shard.into(),
            known: RefCell::default(),
        }
    }

    /// Counts one more with this label value.
    pub fn increment(&self, value: &'static str) {
        self.add([value, ""], 1);
    }

    /// Counts one more with these two label values.
    pub fn increment_pair(&self, first: &'static str, second: &'static str) {
        self.add([first, second], 1);
    }

    fn add(&self, mut values: [&'static str; 2], count: u64) {
        let mut known = self.known.borrow_mut();
        let find = |known: &[([&str; 2], Counter)], values| {
            known.iter().position(|(known, _)| *known == values)
        };
        let mut place = find(&known, values);
        let is_pair = !self.keys[1].is_empty();
        let most = if is_pair { PAIRS_MAX } else { FAMILY_MAX };
        if place.is_none() && known.len() >= most {
            values = ["other", if is_pair { "other" } else { "" }];
            place = find(&known, values);
        }
        let place = place.unwrap_or_else(|| {
            known.push((values, self.handle(values)));
            known.len() - 1
        });
        known[place].1.increment(count);
    }

    /// Shows these values from the start, at 0: a rate over what is not there yet misses the first.
    fn knowing(self, values: &[&'static str]) -> Self {
        for value in values {
            self.add([value, ""], 0);
        }
        self
    }

    fn handle(&self, values: [&'static str; 2]) -> Counter {
        let mut labels: Vec<Label> = self
            .keys
            .iter()
            .zip(values)
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, value)| Label::new(*key, value))
            .collect();
        labels.push(Label::new("shard", self.shard.to_string()));
        metrics::counter!(self.name, labels)
    }
}

/// One shard's handles. A shard makes them once and shares them by `Rc`.
#[expect(
    missing_docs,
    reason = "each field is the row of the table of its name, which says it"
)]
pub struct Metrics {
    pub connections: Gauge,
    pub connections_accepted: Counter,
    pub connections_refused: Family,
    pub connections_moved: Counter,
    pub handoffs_refused: Counter,
    pub http_requests: Family,
    pub sessions_polling: Gauge,
    pub sessions_websocket: Gauge,
    pub sessions_opened: Family,
    pub sessions_closed: Family,
    pub handshakes_refused: Family,
    pub upgrades: Family,
    /// By the names in the README's table of bounds.
    pub bounds: Family,
    pub slow_consumers: Counter,
    pub outbox_bytes: Gauge,
    pub flushes: Counter,
    pub flushed_frames: Counter,
    pub flush_remainders: Counter,
    pub sockets: Gauge,
    pub connect_errors: Family,
    /// By name and outcome: `increment_pair`.
    pub events: Family,
    pub events_parked: Counter,
    pub rate_limited: Family,
    pub rooms: Gauge,
    pub broadcasts: Counter,
    pub deliveries: Counter,
    pub drops: Family,
    pub ack_seconds: Histogram,
    pub delivery_seconds: Histogram,
    pub order_held: Counter,
    pub order_repaired: Counter,
    pub order_gaps: Counter,
    pub order_bogus: Counter,
    pub order_duplicates: Counter,
    pub bus_up: Gauge,
    pub bus_published: Counter,
    pub bus_received: Counter,
    pub bus_duplicates: Counter,
    pub bus_owed: Counter,
    pub bus_notices: Counter,
    pub redis_connections: Counter,
    pub redis_published: Counter,
    pub redis_received: Counter,
    pub redis_ignored: Family,
    pub redis_late: Counter,
    pub redis_round_trip_seconds: Histogram,
    pub tick_late_seconds: Histogram,
}

/// The labels of [`Metrics::bounds`].
const BOUNDS_MET: &[&str] = &[
    "absent_users",
    "answer_time",
    "attachments_time",
    "close_time",
    "connect_time",
    "control",
    "farewell_time",
    "host_time",
    "hosts",
    "linger_time",
    "message",
    "nodes",
    "pipeline",
    "presence",
    "refusals",
    "replay",
    "replay_held",
    "subscriptions",
    "turn",
    "write_time",
];

impl Metrics {
    /// The handles of one shard. Without a recorder installed, as in tests, they count nothing.
    #[must_use]
    pub fn new(shard: usize) -> Self {
        let shard = shard.to_string();
        let counter = |name: &'static str| metrics::counter!(name, "shard" => shard.clone());
        let gauge = |name: &'static str| metrics::gauge!(name, "shard" => shard.clone());
        let histogram = |name: &'static str| metrics::histogram!(name, "shard" => shard.clone());
        let family = |name, key| Family::new(name, key, &shard);
        let sessions = |transport: &'static str| metrics::gauge!(SESSIONS, "transport" => transport, "shard" => shard.clone());
        let bus_up = gauge(BUS_UP);
        bus_up.set(1.0);
        let events = Family::pair(EVENTS, ["event", "outcome"], &shard);
        for event in ["sendMessage", "joinRoom", "leaveRoom", "authenticate"] {
            events.add([event, "ok"], 0);
        }
        Self {
            connections: gauge(CONNECTIONS),
            connections_accepted: counter(CONNECTIONS_ACCEPTED),
            connections_refused: family(CONNECTIONS_REFUSED, "reason").knowing(&[
                "descriptors",
                "system",
                "address_rate",
                "address_connections",
                "proxy_header",
            ]),
            connections_moved: counter(CONNECTIONS_MOVED),
            handoffs_refused: counter(HANDOFFS_REFUSED),
            http_requests: family(HTTP_REQUESTS, "status").knowing(&["2xx", "4xx", "5xx"]),
            sessions_polling: sessions("polling"),
            sessions_websocket: sessions("websocket"),
            sessions_opened: family(SESSIONS_OPENED, "transport")
                .knowing(&["polling", "websocket"]),
            sessions_closed: family(SESSIONS_CLOSED, "reason").knowing(&[
                "transport_close",
                "transport_error",
                "ping_timeout",
                "parse_error",
                "forced_close",
                "server_shutting_down",
                "slow_consumer",
            ]),
            handshakes_refused: family(HANDSHAKES_REFUSED, "reason").knowing(&[
                "transport",
                "sid",
                "method",
                "request",
                "forbidden",
                "version",
                "draining",
                "websocket",
                "rate_limited",
            ]),
            upgrades: family(UPGRADES, "outcome").knowing(&["done", "refused", "abandoned"]),
            bounds: family(BOUNDS, "bound").knowing(BOUNDS_MET),
            slow_consumers: counter(SLOW_CONSUMERS),
            outbox_bytes: gauge(OUTBOX_BYTES),
            flushes: counter(FLUSHES),
            flushed_frames: counter(FLUSHED_FRAMES),
            flush_remainders: counter(FLUSH_REMAINDERS),
            sockets: gauge(SOCKETS),
            connect_errors: family(CONNECT_ERRORS, "code").knowing(&[
                "unauthorized",
                "token_expired",
                "draining",
                "rate_limited",
            ]),
            events,
            events_parked: counter(EVENTS_PARKED),
            rate_limited: family(RATE_LIMITED, "what").knowing(&[
                "message",
                "join",
                "authenticate",
                "flood",
                "request",
            ]),
            rooms: gauge(ROOMS),
            broadcasts: counter(BROADCASTS),
            deliveries: counter(DELIVERIES),
            drops: family(DROPS, "reason").knowing(&["mesh_full"]),
            ack_seconds: histogram(ACK_SECONDS),
            delivery_seconds: histogram(DELIVERY_SECONDS),
            order_held: counter(ORDER_HELD),
            order_repaired: counter(ORDER_REPAIRED),
            order_gaps: counter(ORDER_GAPS),
            order_bogus: counter(ORDER_BOGUS),
            order_duplicates: counter(ORDER_DUPLICATES),
            bus_up,
            bus_published: counter(BUS_PUBLISHED),
            bus_received: counter(BUS_RECEIVED),
            bus_duplicates: counter(BUS_DUPLICATES),
            bus_owed: counter(BUS_OWED),
            bus_notices: counter(BUS_NOTICES),
            redis_connections: counter(REDIS_CONNECTIONS),
            redis_published: counter(REDIS_PUBLISHED),
            redis_received: counter(REDIS_RECEIVED),
            redis_ignored: family(REDIS_IGNORED, "cause").knowing(&["shape"]),
            redis_late: counter(REDIS_LATE),
            redis_round_trip_seconds: histogram(REDIS_ROUND_TRIP_SECONDS),
            tick_late_seconds: histogram(TICK_LATE_SECONDS),
        }
    }
}

/// The store's handles. It has threads of its own, so these may move to them.
#[derive(Clone)]
#[expect(
    missing_docs,
    reason = "each field is the row of the table of its name, which says it"
)]
pub struct StoreMetrics {
    pub batches: Counter,
    pub batch_rows: Histogram,
    pub commit_seconds: Histogram,
    pub read_seconds: Histogram,
    pub queue: Gauge,
    pub refused_down: Counter,
    pub refused_full: Counter,
    pub refused_failed: Counter,
    pub refused_timeout: Counter,
    pub replica_served: Counter,
    pub replica_behind: Counter,
    pub replica_unreachable: Counter,
    pub reconnects: Counter,
    pub circuits_open: Gauge,
    pub up: Gauge,
}

impl StoreMetrics {
    /// The handles of the process's one store.
    #[must_use]
    pub fn new() -> Self {
        let refused = |reason: &'static str| metrics::counter!(STORE_REFUSED, "reason" => reason);
        let replica =
            |outcome: &'static str| metrics::counter!(STORE_REPLICA_READS, "outcome" => outcome);
        Self {
            batches: metrics::counter!(STORE_BATCHES),
            batch_rows: metrics::histogram!(STORE_BATCH_ROWS),
            commit_seconds: metrics::histogram!(STORE_COMMIT_SECONDS),
            read_seconds: metrics::histogram!(STORE_READ_SECONDS),
            queue: metrics::gauge!(STORE_QUEUE),
            refused_down: refused("down"),
            refused_full: refused("full"),
            refused_failed: refused("failed"),
            refused_timeout: refused("timeout"),
            replica_served: replica("served"),
            replica_behind: replica("behind"),
            replica_unreachable: replica("unreachable"),
            reconnects: metrics::counter!(STORE_RECONNECTS),
            circuits_open: metrics::gauge!(STORE_CIRCUITS_OPEN),
            up: metrics::gauge!(STORE_UP),
        }
    }
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeMap;

    use super::BOUNDS;

    /// How often each bound was met during some work on this thread.
    pub(crate) fn bounds_met(work: impl FnOnce()) -> BTreeMap<String, u64> {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, work);
        let rendered = recorder.handle().render();
        let mut met = BTreeMap::new();
        for line in rendered.lines() {
            let Some(series) = line.strip_prefix(&format!("{BOUNDS}{{bound=\"")) else {
                continue;
            };
            let (bound, rest) = series.split_once('"').expect("a label ends");
            let count: u64 = rest
                .rsplit(' ')
                .next()
                .and_then(|count| count.parse().ok())
                .expect("a count");
            if count > 0 {
                *met.entry(bound.to_owned()).or_default() += count;
            }
        }
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let mut names = Vec::new();
        for row in TABLE {
            let letters = row
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(letters && row.name.starts_with("yum_"), "{}", row.name);
            let total = row.name.ends_with("_total");
            assert_eq!(total, matches!(row.kind, Kind::Counter), "{}", row.name);
            match row.unit {
                Unit::Seconds => assert!(row.name.ends_with("_seconds"), "{}", row.name),
                Unit::Bytes => assert!(row.name.ends_with("_bytes"), "{}", row.name),
                _ => {}
            }
            assert!(row.help.ends_with('.'), "{}", row.name);
            names.push(row.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn a_family_takes_a_bounded_number_of_values() {
        let family = Family::new(DROPS, "reason", "0");
        for n in 0..100 {
            family.increment(Box::leak(n.to_string().into_boxed_str()));
        }
        let known = family.known.borrow();
        assert_eq!(known.len(), FAMILY_MAX + 1);
        assert_eq!(known[FAMILY_MAX].0, ["other", ""]);
    }
}
