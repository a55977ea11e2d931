//! The rows of the table: which load, over which store, and the goals.

use project_yum::load::{Report, Samples, Scenario};

use crate::kind::Kind;
use crate::loads::Loads;
use crate::table::Figures;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Nowhere; for us `memory:`.
    None,
    Sqlite,
    Postgres,
    PostgresRedis,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At most so much.
    AtMost(f64),
    /// At most this share of the best peer's.
    Below(f64),
    /// At least so many times the best peer's.
    Above(f64),
    /// For the record.
    Shown,
}

/// The numbers of shards that are tried for us where the load can use more than one.
pub(crate) const SHARDS: &[usize] = &[1, 2];

/// One figure of a row.
#[derive(Clone)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) of: fn(&Figures) -> Option<f64>,
    pub(crate) goal: Goal,
    /// Of a quantile: which. What counts is then that of the samples of all runs together.
    pub(crate) quantile: Option<f64>,
}

/// One load, and its figures.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) title: &'static str,
    pub(crate) scenario: Scenario,
    pub(crate) storage: Storage,
    /// Whether a room is filled first.
    pub(crate) fills: bool,
    /// Which numbers of shards are tried for us: 1, or [`SHARDS`], of which the better one counts.
    shards: &'static [usize],
    pub(crate) columns: Vec<Column>,
    /// Whether peers take part.
    ours_only: bool,
}

impl Row {
    pub(crate) fn shards(&self, kind: Kind) -> &'static [usize] {
        match kind {
            Kind::Ours => self.shards,
            _ if self.ours_only => &[],
            _ => &[1],
        }
    }

    fn new(name: &str, title: &'static str, scenario: Scenario, shards: &'static [usize]) -> Self {
        Self {
            name: name.to_owned(),
            title,
            scenario,
            storage: Storage::None,
            fills: false,
            shards,
            columns: Vec::new(),
            ours_only: false,
        }
    }

    fn over(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    fn column(mut self, title: &'static str, of: fn(&Figures) -> Option<f64>, goal: Goal) -> Self {
        self.columns.push(Column {
            title,
            of,
            goal,
            quantile: None,
        });
        self
    }

    fn p99(mut self, goal: Goal) -> Self {
        self.columns.push(Column {
            title: "p99 ms",
            of: |figures| figures.p99_ms,
            goal,
            quantile: Some(0.99),
        });
        self
    }

    /// What came of a run. Its samples, which are millions in saturated rows, are kept only when a column
    /// needs them.
    pub(crate) fn figures(&self, report: Report) -> Figures {
        let mut figures = Figures::of(report);
        if self.columns.iter().all(|column| column.quantile.is_none()) {
            figures.samples = Samples::default();
        }
        figures
    }
}

const CPU: fn(&Figures) -> Option<f64> = |figures| figures.cpu_us;
const RATE: fn(&Figures) -> Option<f64> = |figures| Some(figures.per_second);
const MEMORY: fn(&Figures) -> Option<f64> = |figures| figures.memory;
const IDLE: fn(&Figures) -> Option<f64> = |figures| figures.cpu_ms_per_minute;

/// All rows. `quick`: short periods, fewer connections.
#[expect(
    clippy::too_many_lines,
    reason = "it is a table: a row after the other"
)]
pub(crate) fn rows(quick: bool) -> Vec<Row> {
    let loads = Loads { quick };
    let mut rows = vec![
        Row::new(
            "idle",
            "10,000 idle connections, authenticated",
            loads.idle(0),
            &[1],
        )
        .column("bytes each (PSS)", MEMORY, Goal::AtMost(3_072.0))
        .column("CPU ms a minute", IDLE, Goal::Below(0.6)),
        Row::new("idle-room", "the same, each in a room", loads.idle(1), &[1]).column(
            "bytes each (PSS)",
            MEMORY,
            Goal::AtMost(3_584.0),
        ),
        Row::new(
            "handshake",
            "WebSocket, open, CONNECT with a token",
            loads.handshake(),
            &[1],
        )
        .column("CPU µs", CPU, Goal::Below(0.75)),
        Row::new(
            "fanout-full",
            "1 × 1,000 members, saturated",
            loads.fanout_full(),
            SHARDS,
        )
        .column("CPU µs a delivery", CPU, Goal::Below(0.85))
        .column("deliveries/s", RATE, Goal::Above(1.2)),
        Row::new(
            "fanout-50",
            "1 × 1,000 members, 50 messages/s",
            loads.fanout_50(),
            SHARDS,
        )
        .column("CPU µs a delivery", CPU, Goal::Below(0.65))
        .p99(Goal::Below(1.0)),
        Row::new(
            "rooms-full",
            "100 rooms × 50, saturated",
            loads.rooms_full(),
            SHARDS,
        )
        .column("CPU µs a delivery", CPU, Goal::Below(0.5)),
        Row::new(
            "rooms-1000",
            "100 rooms × 50, 1,000 messages/s",
            loads.rooms_1000(),
            SHARDS,
        )
        .column("CPU µs a delivery", CPU, Goal::Below(0.65))
        .p99(Goal::Below(1.0)),
        Row::new(
            "stored",
            "stored sends with ack (64 senders, PostgreSQL, Redis)",
            loads.stored(),
            SHARDS,
        )
        .over(Storage::PostgresRedis)
        .column("messages/s", RATE, Goal::Above(3.0))
        .column("CPU µs a message", CPU, Goal::Below(0.45)),
        Row::new("health", "GET /health", loads.get("/health", false), &[1]).column(
            "CPU µs",
            CPU,
            Goal::Below(0.8),
        ),
        Row::new(
            "history",
            "GET /api/messages (50 rows, PostgreSQL)",
            loads.get("/api/messages?roomId=history&limit=50", true),
            &[1],
        )
        .over(Storage::Postgres)
        .column("CPU µs", CPU, Goal::Below(0.6)),
        Row::new("churn", "connect, join, send, close", loads.churn(), &[1]).column(
            "CPU µs",
            CPU,
            Goal::Below(0.75),
        ),
        Row::new("polling", "polling, then upgrade", loads.polling(), &[1]).column(
            "CPU µs",
            CPU,
            Goal::Below(0.75),
        ),
        Row::new(
            "fanout-full-sqlite",
            "1 × 1,000 members, saturated, stored in SQLite",
            loads.fanout_full(),
            SHARDS,
        )
        .over(Storage::Sqlite)
        .column("CPU µs a delivery", CPU, Goal::Shown)
        .column("deliveries/s", RATE, Goal::Shown),
        Row::new(
            "fanout-full-postgres",
            "1 × 1,000 members, saturated, stored in PostgreSQL",
            loads.fanout_full(),
            SHARDS,
        )
        .over(Storage::Postgres)
        .column("CPU µs a delivery", CPU, Goal::Shown)
        .column("deliveries/s", RATE, Goal::Shown),
    ];
    for row in &mut rows {
        row.fills = row.name == "history";
        row.ours_only = matches!(
            row.columns[..],
            [
                Column {
                    goal: Goal::Shown,
                    ..
                },
                ..
            ]
        );
    }
    rows
}
