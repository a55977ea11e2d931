//! The rows of the table: which load, and what of it is shown.

use std::cmp::Ordering;

use project_yum::load::{Report, Scenario};

use crate::loads::Loads;

/// One figure of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// CPU of a unit; the title names it.
    Cpu(&'static str),
    Rate,
    P99,
}

/// A load, and its figures.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    title: &'static str,
    pub(crate) scenario: Scenario,
    /// What the CPU in microseconds is divided by.
    units: fn(&Report) -> f64,
    pub(crate) columns: &'static [Column],
}

/// What came of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// CPU of one unit: all of it, and what of it the kernel took.
    cpu: f64,
    kernel: f64,
    per_second: f64,
    p99_ms: f64,
}

impl Row {
    pub(crate) fn figures(&self, report: &Report) -> Figures {
        let cpu = report.cpu.unwrap_or_default();
        let each = |seconds: f64| seconds * 1e6 / (self.units)(report);
        Figures {
            cpu: each(cpu.seconds()),
            kernel: each(cpu.system.as_secs_f64()),
            per_second: report.units_per_second(),
            p99_ms: report.samples.quantile_ms(0.99).unwrap_or_default(),
        }
    }

    pub(crate) fn title(&self, column: Column) -> String {
        let figure = match column {
            Column::Cpu(unit) => unit,
            Column::Rate => "deliveries/s",
            Column::P99 => "p99 ms",
        };
        format!("{}: {figure}", self.title)
    }
}

impl Column {
    /// The better one is the less.
    pub(crate) fn order(self, a: f64, b: f64) -> Ordering {
        match self {
            Self::Rate => b.total_cmp(&a),
            Self::Cpu(_) | Self::P99 => a.total_cmp(&b),
        }
    }

    /// The best of some runs, and of its CPU the share that the kernel took.
    pub(crate) fn best(self, runs: &[Figures]) -> Option<(f64, Option<f64>)> {
        let of = |run: &Figures| match self {
            Self::Cpu(_) => (run.cpu, Some(run.kernel / run.cpu)),
            Self::Rate => (run.per_second, None),
            Self::P99 => (run.p99_ms, None),
        };
        runs.iter()
            .map(of)
            .min_by(|(a, _), (b, _)| self.order(*a, *b))
    }
}

/// All rows. `quick`: short periods.
pub(crate) fn rows(quick: bool) -> Vec<Row> {
    const DELIVERY: Column = Column::Cpu("CPU µs a delivery");
    let loads = Loads { quick };
    // So little CPU goes into the short ones that the clock's ticks would show.
    let full = Loads { quick: false };
    let row = |name, title, scenario, columns| Row {
        name,
        title,
        scenario,
        units,
        columns,
    };
    let mut idle = row(
        "idle",
        "10,000 idle connections",
        loads.idle(0),
        &[Column::Cpu("CPU ms a minute")],
    );
    idle.units = |report| report.seconds / 60.0 * 1000.0;
    vec![
        idle,
        row(
            "health",
            "`GET /health`",
            loads.get("/health", false),
            &[Column::Cpu("CPU µs")],
        ),
        row(
            "fanout-full",
            "1 × 1,000, saturated",
            loads.fanout_full(),
            &[DELIVERY, Column::Rate],
        ),
        row(
            "fanout-50",
            "1 × 1,000, 50 messages/s",
            loads.fanout_50(),
            &[DELIVERY, Column::P99],
        ),
        row(
            "rooms-full",
            "100 × 50, saturated",
            loads.rooms_full(),
            &[DELIVERY, Column::Rate],
        ),
        row(
            "rooms-1000",
            "100 × 50, 1,000 messages/s",
            loads.rooms_1000(),
            &[DELIVERY, Column::P99],
        ),
        row(
            "churn",
            "connect, join, send, close",
            full.churn(),
            &[Column::Cpu("CPU µs")],
        ),
        row(
            "polling",
            "polling, then upgrade",
            full.polling(),
            &[Column::Cpu("CPU µs")],
        ),
    ]
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a run has fewer than 2^52 units"
)]
fn units(report: &Report) -> f64 {
    report.units as f64
}
