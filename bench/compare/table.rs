//! What was measured, beside what is to be reached.

use std::collections::BTreeMap;
use std::fmt;

use project_yum::load::{Faults, Report};
use serde::Serialize;
use serde_json::{Value, json};

use crate::number::number;
use crate::rows::{Column, Goal, Row};
use crate::servers::Kind;

/// All runs, by row, server and shards.
pub(crate) type Runs = BTreeMap<(String, Kind, usize), Vec<Figures>>;

/// What came of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    pub(crate) units: u64,
    pub(crate) per_second: f64,
    pub(crate) cpu_us: Option<f64>,
    pub(crate) cpu_ms_per_minute: Option<f64>,
    pub(crate) memory: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) faults: Faults,
}

impl Figures {
    pub(crate) fn of(report: &Report) -> Self {
        Self {
            units: report.units,
            per_second: report.units_per_second(),
            cpu_us: report.cpu_us_per_unit(),
            cpu_ms_per_minute: report
                .cpu
                .map(|cpu| cpu.seconds() * 60_000.0 / report.seconds),
            memory: report.memory_per_unit(),
            p50_ms: report.samples.quantile_ms(0.5),
            p99_ms: report.samples.quantile_ms(0.99),
            faults: report.faults,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.0}/s", self.per_second)?;
        let mut show = |name: &str, figure: Option<f64>| match figure {
            Some(figure) => write!(f, "  {name} {}", number(figure)),
            None => Ok(()),
        };
        show("CPU µs", self.cpu_us)?;
        show("bytes", self.memory)?;
        show("p50 ms", self.p50_ms)?;
        show("p99 ms", self.p99_ms)?;
        if self.faults != Faults::default() {
            write!(f, "  {:?}", self.faults)?;
        }
        Ok(())
    }
}

/// The least, the median and the most of some runs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self {
            min: *values.first()?,
            median: values[values.len() / 2],
            max: *values.last()?,
        })
    }
}

/// One figure of all servers.
pub(crate) struct Line {
    pub(crate) row: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) goal: Goal,
    pub(crate) peers: Vec<(Kind, Spread)>,
    pub(crate) ours: Option<(usize, Spread)>,
}

impl Line {
    /// `shards`: which of ours counts.
    fn new(row: &Row, column: &Column, runs: &Runs, shards: Option<usize>) -> Self {
        let mut peers: Vec<(Kind, Spread)> = Vec::new();
        let mut ours = None;
        for (kind, of, spread) in spreads(row, column, runs) {
            match kind {
                Kind::Ours if Some(of) == shards => ours = Some((of, spread)),
                Kind::Ours => {}
                _ => peers.push((kind, spread)),
            }
        }
        peers.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
        if more_is_better(column) {
            peers.reverse();
        }
        Self {
            row: row.title,
            figure: column.title,
            goal: column.goal,
            peers,
            ours,
        }
    }

    /// The best peer's median.
    pub(crate) fn best(&self) -> Option<f64> {
        self.peers.first().map(|(_, spread)| spread.median)
    }

    /// Ours as a share of the best peer's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(self.ours?.1.median / self.best()?)
    }

    /// Whether the goal is met, and the goal.
    pub(crate) fn verdict(&self) -> (Option<bool>, String) {
        let ours = self.ours.map(|(_, spread)| spread.median);
        match self.goal {
            Goal::AtMost(most) => (ours.map(|ours| ours <= most), format!("≤ {}", number(most))),
            Goal::Below(share) => (
                self.ratio().map(|ratio| ratio <= share),
                format!("≤ {share} × best"),
            ),
            Goal::Above(share) => (
                self.ratio().map(|ratio| ratio >= share),
                format!("≥ {share} × best"),
            ),
            Goal::Shown => (None, "–".to_owned()),
        }
    }
}

fn more_is_better(column: &Column) -> bool {
    matches!(column.goal, Goal::Above(_)) || column.title.ends_with("/s")
}

/// A figure of each server that has it. A run of ours that lost, doubled or swapped anything has none.
fn spreads(row: &Row, column: &Column, runs: &Runs) -> Vec<(Kind, usize, Spread)> {
    let of_row = runs.iter().filter(|((name, ..), _)| *name == row.name);
    of_row
        .filter_map(|((_, kind, shards), figures)| {
            let sound = figures
                .iter()
                .filter(|run| *kind != Kind::Ours || run.faults == Faults::default());
            let spread = Spread::of(sound.filter_map(column.of).collect())?;
            Some((*kind, *shards, spread))
        })
        .collect()
}

/// The number of shards that counts for a row: the better one by its first figure.
fn better_shards(row: &Row, runs: &Runs) -> Option<usize> {
    let column = row.columns.first()?;
    let sign = if more_is_better(column) { -1.0 } else { 1.0 };
    spreads(row, column, runs)
        .into_iter()
        .filter(|(kind, ..)| *kind == Kind::Ours)
        .min_by(|(.., a), (.., b)| (sign * a.median).total_cmp(&(sign * b.median)))
        .map(|(_, shards, _)| shards)
}

/// All figures.
pub(crate) struct Table {
    pub(crate) lines: Vec<Line>,
}

impl Table {
    pub(crate) fn new(rows: &[Row], runs: &Runs) -> Self {
        let lines = rows.iter().flat_map(|row| {
            let shards = better_shards(row, runs);
            let columns = row.columns.iter();
            columns.map(move |column| Line::new(row, column, runs, shards))
        });
        Self {
            lines: lines.collect(),
        }
    }

    /// Everything, each run too.
    pub(crate) fn json(&self, runs: &Runs) -> Value {
        let lines = self.lines.iter().map(|line| {
            let (met, goal) = line.verdict();
            let peers = line.peers.iter().map(|(kind, spread)| json!({"server": kind.name(), "figure": spread}));
            json!({
                "row": line.row,
                "figure": line.figure,
                "ours": line.ours.map(|(shards, spread)| json!({"shards": shards, "figure": spread})),
                "peers": peers.collect::<Vec<_>>(),
                "ratio": line.ratio(),
                "goal": goal,
                "met": met,
            })
        });
        let runs = runs.iter().map(|((row, kind, shards), figures)| {
            json!({"row": row, "server": kind.name(), "shards": shards, "runs": figures})
        });
        json!({"lines": lines.collect::<Vec<_>>(), "runs": runs.collect::<Vec<_>>()})
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers = Kind::ALL.iter().filter(|kind| **kind != Kind::Ours);
        let titles: Vec<&str> = peers.clone().map(|kind| kind.title()).collect();
        writeln!(
            f,
            "| figure (min–**median**–max) | {} | **ours** | ours/best | goal |",
            titles.join(" | ")
        )?;
        writeln!(f, "|---|{}---|---|---|", "---|".repeat(titles.len()))?;
        for line in &self.lines {
            write!(f, "| {}: {} |", line.row, line.figure)?;
            for peer in peers.clone() {
                let spread = line.peers.iter().find(|(kind, _)| kind == peer);
                write!(
                    f,
                    " {} |",
                    spread.map_or("–".to_owned(), |(_, spread)| shown(*spread))
                )?;
            }
            let ours = line.ours.map_or("–".to_owned(), |(shards, spread)| {
                format!("{} (SHARDS={shards})", shown(spread))
            });
            let ratio = line
                .ratio()
                .map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let (met, goal) = line.verdict();
            let mark = match met {
                Some(true) => " ✓",
                Some(false) => " ✗",
                None => "",
            };
            writeln!(f, " {ours} | {ratio} | {goal}{mark} |")?;
        }
        Ok(())
    }
}

fn shown(Spread { min, median, max }: Spread) -> String {
    format!("{}–**{}**–{}", number(min), number(median), number(max))
}
