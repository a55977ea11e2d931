//! The load generator against the real server: what `project-yum bench` and the benchmarks stand on.

#[expect(dead_code, reason = "each test program uses its part of it")]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use project_yum::auth::{AuthOptions, Keys};
use project_yum::load::named;
use project_yum::load::{self, Target};
use serde_json::Value;

use support::eventually;
use support::server::{Server, example, log_of};
use support::token::SECRET;

/// Drives a scenario with small numbers.
fn drive(server: &Server, name: &str, numbers: &[(&str, u64)]) -> Value {
    let numbers: BTreeMap<String, u64> = numbers
        .iter()
        .map(|(name, number)| ((*name).to_owned(), *number))
        .collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let target = Target {
        address: server.address,
        auth: AuthOptions {
            keys: Keys::secrets(vec![SECRET.as_bytes().into()]),
            issuer: None,
            audience: None,
            leeway_seconds: 5,
        },
        pid: Some(server.pid()),
        now_seconds: now.expect("it is past 1970").as_secs(),
    };
    let figures = named::run(&target, name, &numbers).expect("the server does its part");
    let faults = &figures["faults"];
    for fault in ["lost", "repeated", "reordered"] {
        assert_eq!(faults[fault], 0, "{name}: {figures}");
    }
    figures
}

#[test]
fn every_load_can_be_driven_and_finds_no_fault() {
    let folder = support::server::folder();
    let settings = [("SHARDS", "2"), ("DATABASE_URL", "memory:")];
    let server = Server::start(folder.path(), &settings);
    let units = |name, numbers: &[(&str, u64)]| {
        let figures = drive(&server, name, numbers);
        figures["units"].as_u64().expect("a count")
    };
    let idle = [("connections", 20), ("rooms", 2), ("seconds", 1)];
    assert_eq!(units("idle", &idle), 20);
    assert_eq!(units("handshake", &[("connections", 40)]), 40);
    assert_eq!(units("churn", &[("connections", 20)]), 20);
    assert_eq!(units("polling", &[("connections", 20)]), 20);
    let small = [("rooms", 3), ("members", 4), ("seconds", 1)];
    assert!(units("rooms", &small) > 100);
    assert!(units("stored", &small) > 10);
    let paced = [("members", 10), ("rate", 20), ("seconds", 2)];
    let paced = units("fanout", &paced);
    assert!((300..=500).contains(&paced), "{paced} of 400");
    assert!(units("health", &[("seconds", 1)]) > 10);
    assert!(units("history", &[("seconds", 1)]) > 10);
}

/// How many allocations the program of `tests/examples/counted.rs` has made since its start.
fn allocations(server: &mut Server, folder: &Path) -> u64 {
    let counts = || {
        let log = log_of(folder);
        let counts = log
            .lines()
            .filter_map(|line| line.strip_prefix("allocations: "));
        counts
            .map(|count| count.parse().expect("a count"))
            .collect::<Vec<u64>>()
    };
    let before = counts().len();
    server.tell("");
    eventually("it says how many", || counts().get(before).copied())
}

#[test]
fn a_fan_out_allocates_nothing_for_a_member() {
    const MEMBERS: u64 = 1_000;
    let folder = support::server::folder();
    let settings = [("SHARDS", "1"), ("DATABASE_URL", "memory:")];
    let mut server = Server::start_program(&example("counted"), folder.path(), &settings);
    // One message at a time, and as many as it can take. Without spare lists these are 1.1 and 0.25.
    for (rate, most) in [(Some(50), 0.5), (None, 0.16)] {
        let mut took = |seconds| {
            let before = allocations(&mut server, folder.path());
            let mut numbers = vec![("members", MEMBERS), ("seconds", seconds)];
            numbers.extend(rate.map(|rate| ("rate", rate)));
            let deliveries = drive(&server, "fanout", &numbers)["units"].as_f64();
            let count = allocations(&mut server, folder.path()) - before;
            let count = u32::try_from(count).expect("some millions");
            (f64::from(count), deliveries.expect("a count"))
        };
        took(1);
        // What the members' coming and going takes is in both.
        let (short, long) = (took(1), took(3));
        let deliveries = long.1 - short.1;
        assert!(deliveries > 10_000.0, "{short:?}, {long:?}");
        let each = (long.0 - short.0) / deliveries;
        assert!(each < most, "{each} at {rate:?}: {short:?}, {long:?}");
    }
}

#[test]
fn the_command_prints_figures_and_says_what_is_wrong() {
    let folder = support::server::folder();
    let server = Server::start(folder.path(), &[("DATABASE_URL", "memory:")]);
    let bench = |url: &str, scenario: &str| {
        Command::new(env!("CARGO_BIN_EXE_project-yum"))
            .current_dir(folder.path())
            .env_clear()
            .env("JWT_SECRET", SECRET)
            .args(["bench", url, scenario, "--connections", "5"])
            .output()
            .expect("the program runs")
    };
    let url = format!("http://{}", server.address);
    let output = bench(&url, "handshake");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(figures["units"], 5);
    assert_eq!(bench(&url, "nothing").status.code(), Some(2));
    let refused = bench("ftp://nowhere", "handshake");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ftp://nowhere"));
}

#[test]
fn an_address_is_read_off_a_url() {
    let found = load::address("http://127.0.0.1:4000/").expect("an address");
    assert_eq!(found.to_string(), "127.0.0.1:4000");
    assert!(load::address("127.0.0.1:4000").is_err());
}
