//! What was measured, beside what is to be reached.

use std::collections::BTreeMap;
use std::fmt;

use project_yum::load::{Faults, Report, Samples};
use serde::Serialize;
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::number::number;
use crate::rows::{Column, Goal, Row, SHARDS};
use crate::spread::Spread;

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
    /// Empty where no column needs them.
    #[serde(skip)]
    pub(crate) samples: Samples,
}

impl Figures {
    pub(crate) fn of(report: Report) -> Self {
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
            samples: report.samples,
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
            let is_sound = |run: &&Figures| *kind != Kind::Ours || run.faults == Faults::default();
            let sound: Vec<&Figures> = figures.iter().filter(is_sound).collect();
            Some((*kind, *shards, spread(column, &sound)?))
        })
        .collect()
}

/// What sound runs come to. What counts of a quantile is that of all their samples, not its median.
fn spread(column: &Column, runs: &[&Figures]) -> Option<Spread> {
    let mut spread = Spread::of(runs.iter().filter_map(|run| (column.of)(run)).collect())?;
    if let Some(share) = column.quantile {
        let mut all = Samples::default();
        for run in runs {
            all.merge(&run.samples);
        }
        spread.median = all.quantile_ms(share).unwrap_or(spread.median);
    }
    Some(spread)
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

/// One figure of ours with each of [`SHARDS`].
struct ByShards {
    row: &'static str,
    figure: &'static str,
    spreads: Vec<Spread>,
}

impl ByShards {
    /// `None` unless it was measured with all of them.
    fn new(row: &Row, column: &Column, runs: &Runs) -> Option<Self> {
        let all = spreads(row, column, runs);
        let with = |shards: &usize| {
            let found = all
                .iter()
                .find(|(kind, of, _)| *kind == Kind::Ours && of == shards);
            found.map(|(.., spread)| *spread)
        };
        Some(Self {
            row: row.title,
            figure: column.title,
            spreads: SHARDS.iter().map(with).collect::<Option<_>>()?,
        })
    }

    fn json(&self) -> Value {
        let spreads = SHARDS.iter().zip(&self.spreads);
        let spreads = spreads.map(|(shards, spread)| json!({"shards": shards, "figure": spread}));
        json!({"row": self.row, "figure": self.figure, "ours": spreads.collect::<Vec<_>>()})
    }
}

/// All figures.
pub(crate) struct Table {
    pub(crate) lines: Vec<Line>,
    by_shards: Vec<ByShards>,
    /// How many runs a figure should have.
    rounds: usize,
}

impl Table {
    pub(crate) fn new(rows: &[Row], runs: &Runs, rounds: usize) -> Self {
        let by_shards = rows.iter().flat_map(|row| {
            let columns = row.columns.iter();
            columns.filter_map(|column| ByShards::new(row, column, runs))
        });
        let lines = rows.iter().flat_map(|row| {
            let shards = better_shards(row, runs);
            let columns = row.columns.iter();
            columns.map(move |column| Line::new(row, column, runs, shards))
        });
        Self {
            lines: lines.collect(),
            by_shards: by_shards.collect(),
            rounds,
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
        json!({
            "rounds": self.rounds,
            "lines": lines.collect::<Vec<_>>(),
            "ours_by_shards": self.by_shards.iter().map(ByShards::json).collect::<Vec<_>>(),
            "runs": runs.collect::<Vec<_>>(),
        })
    }

    fn write_shards(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = SHARDS.iter().map(|shards| format!(" SHARDS={shards} |"));
        writeln!(f, "\n| ours by shards |{}", titles.collect::<String>())?;
        writeln!(f, "|---|{}", "---|".repeat(SHARDS.len()))?;
        for line in &self.by_shards {
            write!(f, "| {}: {} |", line.row, line.figure)?;
            for spread in &line.spreads {
                write!(f, " {} |", spread.shown(self.rounds))?;
            }
            writeln!(f)?;
        }
        Ok(())
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
                    spread.map_or("–".to_owned(), |(_, spread)| spread.shown(self.rounds))
                )?;
            }
            let ours = line.ours.map_or("–".to_owned(), |(shards, spread)| {
                format!("{} (SHARDS={shards})", spread.shown(self.rounds))
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
        if self.by_shards.is_empty() {
            return Ok(());
        }
        self.write_shards(f)
    }
}
