//! The parts of the comparison that need no server: what runs come to, and how it is written.

#[expect(dead_code, reason = "the comparison has use for all of it")]
mod kind;
mod loads;
#[expect(dead_code, reason = "a part of it looks at the machine")]
mod machine;
mod number;
#[expect(dead_code, reason = "the comparison has use for all of it")]
mod rows;
mod spread;
mod table;

use std::time::Duration;

use project_yum::load::{Cpu, Faults, Report, Samples};

use kind::Kind;
use rows::Row;
use spread::Spread;
use table::{Runs, Table};

fn row(name: &str) -> Row {
    let mut rows = rows::rows(true).into_iter();
    rows.find(|row| row.name == name)
        .expect("a row of this name")
}

/// A run of `units` in a second, all of it CPU, with latencies of so many milliseconds.
fn report(units: u64, latencies: impl IntoIterator<Item = u64>) -> Report {
    let mut samples = Samples::default();
    for latency in latencies {
        samples.push(Duration::from_millis(latency));
    }
    Report {
        seconds: 1.0,
        units,
        cpu: Some(Cpu {
            user: Duration::from_secs(1),
            ..Cpu::default()
        }),
        samples,
        ..Report::default()
    }
}

/// Runs of a row by server and shards.
fn runs<const N: usize>(row: &Row, of: [(Kind, usize, Vec<Report>); N]) -> Runs {
    let of = of.into_iter().map(|(kind, shards, reports)| {
        let figures = reports.into_iter().map(|report| row.figures(report));
        ((row.name.clone(), kind, shards), figures.collect())
    });
    of.collect()
}

#[test]
fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
    let median = |values: &[f64]| Spread::of(values.to_vec()).map(|spread| spread.median);
    assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
    assert_eq!(median(&[2.0, 1.0]), Some(1.5));
    assert_eq!(median(&[7.0]), Some(7.0));
    assert_eq!(median(&[]), None);
}

#[test]
fn a_figure_of_fewer_runs_than_rounds_is_marked() {
    let spread = Spread::of(vec![2.0, 1.0]).expect("two runs");
    assert_eq!(spread.shown(2), "1.00–**1.50**–2.00");
    assert_eq!(spread.shown(3), "1.00–**1.50**–2.00 (2 of 3 runs)");
    let single = Spread::of(vec![7.0]).expect("a run");
    assert_eq!(single.shown(1), "7.00");
}

#[test]
fn rows_that_were_run_with_both_numbers_of_shards_show_both() {
    let row = row("fanout-full-sqlite");
    let rate = |rates: &[u64]| rates.iter().map(|rate| report(*rate, [])).collect();
    let mut lost = report(999, []);
    lost.faults = Faults {
        lost: 1,
        ..Faults::default()
    };
    let of_two = vec![report(50, []), lost, report(70, [])];
    let both = runs(
        &row,
        [
            (Kind::Ours, 1, rate(&[10, 30, 20])),
            (Kind::Ours, 2, of_two),
        ],
    );
    let row = [row];
    let table = Table::new(&row, &both, 3);
    let text = table.to_string();
    let shards = text.split_once("ours by shards").map(|(_, rest)| rest);
    let shards = shards.expect("the second table");
    assert!(shards.starts_with(" | SHARDS=1 | SHARDS=2 |\n|---|---|---|\n"));
    let of_rate = "deliveries/s | 10.0–**20.0**–30.0 | 50.0–**60.0**–70.0 (2 of 3 runs) |";
    assert!(shards.contains(of_rate), "{text}");
    let json = table.json(&both);
    let figures = &json["ours_by_shards"][1]["ours"];
    assert_eq!(figures[0]["figure"]["median"], 20.0, "{json}");
    assert_eq!(figures[1]["shards"], 2, "{json}");
    assert_eq!(figures[1]["figure"]["runs"], 2, "{json}");

    let one = runs(&row[0], [(Kind::Ours, 1, rate(&[10, 30, 20]))]);
    let table = Table::new(&row, &one, 3);
    assert!(!table.to_string().contains("by shards"));
}

#[test]
fn the_p99_that_counts_is_that_of_the_samples_of_all_runs() {
    let row = row("fanout-50");
    // Of 300 samples the 297th counts; the middle one of three quantiles would be 1.
    let of_runs = || vec![report(1, 1..=100), report(1, [1; 100]), report(1, [1; 100])];
    let runs = runs(&row, [(Kind::Ours, 1, of_runs())]);
    let table = Table::new(&[row], &runs, 3);
    let p99 = table.lines.iter().find(|line| line.figure == "p99 ms");
    let (_, spread) = p99.and_then(|line| line.ours).expect("ours");
    assert_eq!(spread.shown(3), "1.00–**97.0**–99.0");
}

#[test]
fn samples_are_kept_only_for_rows_that_need_them() {
    let kept = |name| row(name).figures(report(1, [5])).samples.quantile_ms(0.5);
    assert_eq!(kept("rooms-1000"), Some(5.0));
    assert_eq!(kept("rooms-full"), None);
}

#[test]
fn the_machine_is_read_off_what_the_system_says() {
    let cpuinfo = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: A CPU @ 2 GHz\n";
    assert_eq!(
        machine::cpu_model(cpuinfo).as_deref(),
        Some("A CPU @ 2 GHz")
    );
    let meminfo = "MemTotal:       16384 kB\nMemFree: 1 kB\n";
    assert_eq!(machine::memory_kib(meminfo), Some(16_384));
    let versions = [
        "postgres (PostgreSQL) 15.9 (Debian 15.9-1)",
        "Redis server v=7.0.15 sha=00000000:0 bits=64",
        "rustc 1.95.0 (0000000 2026-01-01)",
        "v20.1.0",
        "nothing here",
    ];
    let found = versions.map(|line| machine::number_in(line).unwrap_or_default());
    assert_eq!(found, ["15.9", "7.0.15", "1.95.0", "20.1.0", ""]);
    let lock = include_str!("../peers/socketioxide/Cargo.lock");
    let locked = machine::locked_version(lock, "socketioxide");
    assert!(locked.is_some_and(|version| version.starts_with("0.")));
    assert_eq!(machine::locked_version(lock, "socketio"), None);
}
