//! How the cost of one unit grows with connections, members, rooms and rooms of a connection: it should not.

use std::time::Duration;

use project_yum::load::{Faults, LoadError, Pace, Report, Scenario};
use serde_json::{Value, json};

use crate::rows::{SHARDS, Storage};
use crate::servers;
use crate::services::Services;
use crate::spread::Spread;

/// Deliveries a second of the paced loads: the same for all sizes, and far below saturation.
const DELIVERIES_PER_SECOND: f64 = 20_000.0;
/// Connections over which rooms of two members are spread: 500 rooms each when there are 100,000.
const SPREAD: usize = 400;
/// Connections of the curve whose size is the rooms of each.
const ROOMY: usize = 100;
/// How long connections idle whose memory alone is looked at.
const IDLE: Duration = Duration::from_secs(1);

/// What grows, and what is looked at.
struct Curve {
    title: &'static str,
    sizes: &'static [usize],
    shards: &'static [usize],
    /// The load of a size and a period.
    scenario: fn(usize, Duration) -> Scenario,
    unit: &'static str,
    /// The figure of a size.
    figure: fn(&Report, usize) -> Option<f64>,
}

const CURVES: [Curve; 5] = [
    Curve {
        title: "idle connections",
        sizes: &[1_000, 2_000, 5_000, 10_000, 19_000],
        shards: &[1],
        scenario: |connections, _| idle(connections, 0, 10),
        unit: "B each",
        figure: |report, _| report.memory_per_unit(),
    },
    Curve {
        title: "members of one room",
        sizes: &[2, 10, 100, 1_000, 10_000],
        shards: SHARDS,
        scenario: |members, period| paced(1, members, None, period),
        unit: "µs a delivery",
        figure: delivery,
    },
    Curve {
        title: "rooms of 2 members, a connection each",
        sizes: &[10, 100, 1_000, 9_000],
        shards: SHARDS,
        scenario: |rooms, period| paced(rooms, 2, None, period),
        unit: "µs a delivery",
        figure: delivery,
    },
    Curve {
        title: "rooms of 2 members over 400 connections",
        sizes: &[1_000, 10_000, 100_000],
        shards: SHARDS,
        scenario: |rooms, period| paced(rooms, 2, Some(SPREAD), period),
        unit: "µs a delivery",
        figure: delivery,
    },
    Curve {
        title: "rooms of each of 100 connections",
        sizes: &[1, 10, 100, 1_000],
        shards: &[1],
        scenario: |rooms, _| idle(ROOMY, rooms, 2),
        unit: "B a membership",
        figure: membership,
    },
];

/// What is asked of the curves.
pub(crate) struct Asked<'a> {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// Whether a title is among those that are asked for.
    pub(crate) chosen: &'a dyn Fn(&str) -> bool,
}

/// Prints the curves. Returns them as JSON.
pub(crate) fn measure(services: &Services, asked: &Asked<'_>) -> Value {
    println!("| what grows | size | SHARDS | figure |\n|---|---|---|---|");
    let curves = CURVES.iter().filter(|curve| (asked.chosen)(curve.title));
    let points = curves.flat_map(|curve| curve.measure(services, asked));
    json!({"rounds": asked.rounds, "points": points.collect::<Vec<_>>()})
}

impl Curve {
    /// Measures all points in turn, as often as is asked, and prints them. Returns each as JSON.
    fn measure(&self, services: &Services, asked: &Asked<'_>) -> Vec<Value> {
        let period = Duration::from_secs(if asked.quick { 2 } else { 5 });
        let of_shards = |shards| {
            self.sizes
                .iter()
                .map(move |size| (*size, shards, Vec::new()))
        };
        let mut points: Vec<(usize, usize, Vec<f64>)> =
            self.shards.iter().copied().flat_map(of_shards).collect();
        for _ in 0..asked.rounds {
            for (size, shards, figures) in &mut points {
                match self.run(services, *size, *shards, period) {
                    Ok(figure) => figures.extend(figure),
                    Err(error) => {
                        eprintln!("{} {size}, SHARDS={shards} failed: {error}", self.title);
                    }
                }
            }
        }
        let points = points.into_iter().map(|(size, shards, figures)| {
            let spread = Spread::of(figures);
            let shown = spread.map_or("failed".to_owned(), |spread| {
                format!("{} {}", spread.shown(asked.rounds), self.unit)
            });
            println!("| {} | {size} | {shards} | {shown} |", self.title);
            json!({"curve": self.title, "size": size, "shards": shards, "unit": self.unit, "figure": spread})
        });
        points.collect()
    }

    fn run(
        &self,
        services: &Services,
        size: usize,
        shards: usize,
        period: Duration,
    ) -> Result<Option<f64>, LoadError> {
        let server = servers::ours(services, shards, Storage::None)?;
        let report = server.drive(&(self.scenario)(size, period))?;
        if report.faults != Faults::default() {
            let text = format!("lost its way: {:?}", report.faults);
            return Err(LoadError::Server(text));
        }
        Ok((self.figure)(&report, size))
    }
}

fn idle(connections: usize, rooms: usize, members: usize) -> Scenario {
    Scenario::Idle {
        connections,
        rooms,
        members,
        period: IDLE,
    }
}

/// Messages at a rate that gives the same deliveries for each size.
fn paced(rooms: usize, members: usize, connections: Option<usize>, period: Duration) -> Scenario {
    let members_count = u32::try_from(members).unwrap_or(u32::MAX);
    Scenario::Messages {
        rooms,
        members,
        connections,
        pace: Pace::Rate(DELIVERIES_PER_SECOND / f64::from(members_count)),
        period,
    }
}

fn delivery(report: &Report, _: usize) -> Option<f64> {
    report.cpu_us_per_unit()
}

fn membership(report: &Report, rooms: usize) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "memory is below 2^52 bytes")]
    let each = report.memory_bytes? as f64 / (ROOMY * rooms) as f64;
    Some(each)
}
