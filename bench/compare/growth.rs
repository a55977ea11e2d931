//! How the cost of one unit grows with connections, members, rooms and rooms of a connection: it should not.

use std::time::Duration;

use project_yum::load::{LoadError, Pace, Report, Scenario};

use crate::number::number;
use crate::rows::Storage;
use crate::servers;
use crate::services::Services;

/// Deliveries a second of the paced loads: the same for all sizes, and far below saturation.
const DELIVERIES_PER_SECOND: f64 = 20_000.0;
/// Connections over which rooms of two members are spread: 500 rooms each when there are 100,000.
const SPREAD: usize = 400;

/// Prints the curves.
pub(crate) fn measure(services: &Services, quick: bool) {
    let period = Duration::from_secs(if quick { 2 } else { 5 });
    println!("| what grows | size | SHARDS | figure |\n|---|---|---|---|");
    for connections in [1_000, 2_000, 5_000, 10_000, 19_000] {
        let idle = Scenario::Idle {
            connections,
            rooms: 0,
            members: 10,
            period: Duration::from_secs(1),
        };
        show(
            services,
            "idle connections",
            connections,
            1,
            &idle,
            |report| {
                report
                    .memory_per_unit()
                    .map(|bytes| format!("{} B each", number(bytes)))
            },
        );
    }
    for shards in [1, 2] {
        for members in [2, 10, 100, 1_000, 10_000] {
            let scenario = paced(1, members, None, period);
            show(
                services,
                "members of one room",
                members,
                shards,
                &scenario,
                delivery,
            );
        }
        for rooms in [10, 100, 1_000, 9_000] {
            let scenario = paced(rooms, 2, None, period);
            show(
                services,
                "rooms of 2 members, a connection each",
                rooms,
                shards,
                &scenario,
                delivery,
            );
        }
        for rooms in [1_000, 10_000, 100_000] {
            let scenario = paced(rooms, 2, Some(SPREAD), period);
            show(
                services,
                "rooms of 2 members over 400 connections",
                rooms,
                shards,
                &scenario,
                delivery,
            );
        }
    }
    for rooms in [1, 10, 100, 1_000] {
        let idle = Scenario::Idle {
            connections: 100,
            rooms,
            members: 2,
            period: Duration::from_secs(1),
        };
        show(
            services,
            "rooms of each of 100 connections",
            rooms,
            1,
            &idle,
            |report| {
                let bytes = report.memory_bytes?;
                #[expect(clippy::cast_precision_loss, reason = "memory is below 2^52 bytes")]
                let each = bytes as f64 / (100 * rooms) as f64;
                Some(format!("{} B a membership", number(each)))
            },
        );
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

fn delivery(report: &Report) -> Option<String> {
    let cpu = report.cpu_us_per_unit()?;
    Some(format!("{} µs a delivery", number(cpu)))
}

fn show(
    services: &Services,
    what: &str,
    size: usize,
    shards: usize,
    scenario: &Scenario,
    figure: impl Fn(&Report) -> Option<String>,
) {
    let measured = || -> Result<String, LoadError> {
        let server = servers::ours(services, shards, Storage::None)?;
        let report = server.drive(scenario)?;
        Ok(figure(&report).unwrap_or_default())
    };
    let figure = measured().unwrap_or_else(|error| format!("failed: {error}"));
    println!("| {what} | {size} | {shards} | {figure} |");
}
