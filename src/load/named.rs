//! The loads by their names, with the numbers that the tables of the README are made with.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Cpu, LoadError, Pace, Report, Scenario, Target, run as drive};

/// The room that the history is read from.
const HISTORY_ROOM: &str = "history";

/// Drives the scenario of this name; `numbers` are what differs from its own. The figures as JSON.
pub fn run(
    target: &Target,
    name: &str,
    numbers: &BTreeMap<String, u64>,
) -> Result<Value, LoadError> {
    if name == "history" {
        drive(target, &fill())?;
    }
    let scenario = scenario(name, numbers)
        .ok_or_else(|| super::server(format!("has no load of the name {name}")))?;
    Ok(figures(&drive(target, &scenario)?))
}

/// Fills the room that `history` reads.
#[must_use]
pub fn fill() -> Scenario {
    Scenario::Fill {
        room: HISTORY_ROOM.into(),
        count: 60,
    }
}

/// The scenario of this name.
#[must_use]
pub fn scenario(name: &str, numbers: &BTreeMap<String, u64>) -> Option<Scenario> {
    let number = |of: &str, own: usize| {
        let given = numbers.get(of).and_then(|n| usize::try_from(*n).ok());
        given.unwrap_or(own)
    };
    let period = |own| Duration::from_secs(numbers.get("seconds").copied().unwrap_or(own));
    let messages = |rooms, members, window| {
        let rate = numbers.get("rate");
        let rate = rate.map(|rate| Pace::Rate(f64::from(u32::try_from(*rate).unwrap_or(u32::MAX))));
        Scenario::Messages {
            rooms: number("rooms", rooms),
            members: number("members", members),
            connections: numbers
                .get("connections")
                .and_then(|n| usize::try_from(*n).ok()),
            pace: rate.unwrap_or(Pace::Window(window)),
            period: period(5),
        }
    };
    let get = |path: String, authorized| Scenario::Get {
        path,
        authorized,
        connections: number("connections", 16),
        period: period(5),
    };
    Some(match name {
        "idle" => Scenario::Idle {
            connections: number("connections", 10_000),
            rooms: number("rooms", 0),
            members: number("members", 10),
            period: period(50),
        },
        "handshake" => Scenario::Handshake {
            count: number("connections", 5_000),
        },
        "fanout" => messages(1, 1_000, 32),
        "rooms" => messages(100, 50, 2),
        "stored" => Scenario::Stored {
            rooms: number("rooms", 8),
            members: number("members", 8),
            period: period(5),
        },
        "health" => get("/health".into(), false),
        "history" => get(
            format!("/api/messages?roomId={HISTORY_ROOM}&limit=50"),
            true,
        ),
        "churn" => Scenario::Churn {
            count: number("connections", 4_000),
        },
        "polling" => Scenario::Polling {
            count: number("connections", 2_000),
        },
        _ => return None,
    })
}

/// The figures of a report.
#[must_use]
pub fn figures(report: &Report) -> Value {
    json!({
        "seconds": report.seconds,
        "units": report.units,
        "messages": report.messages,
        "unitsPerSecond": report.units_per_second(),
        "cpuUsPerUnit": report.cpu_us_per_unit(),
        "cpuSeconds": report.cpu.map(Cpu::seconds),
        "kernelSeconds": report.cpu.map(|cpu| cpu.system.as_secs_f64()),
        "memoryBytesPerUnit": report.memory_per_unit(),
        "p50Ms": report.samples.quantile_ms(0.5),
        "p99Ms": report.samples.quantile_ms(0.99),
        "maxMs": report.samples.quantile_ms(1.0),
        "faults": report.faults,
    })
}
