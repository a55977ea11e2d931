//! What Prometheus gets: names, units, help and labels, and what it costs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use project_yum::metrics::{FAMILY_MAX, Kind, PAIRS_MAX, TABLE};
use project_yum::server::metrics_listener::CONNECTIONS_MAX;
use serde_json::json;

use super::support::client::{Client, Via};
use super::support::eventually;
use super::support::http;
use super::support::server::{Server, folder};
use super::support::token::token;

/// Labels of the figures that have others than `shard`.
const LABELS: &[(&str, &[&str])] = &[
    ("yum_bounds_total", &["bound", "shard"]),
    ("yum_connect_errors_total", &["code", "shard"]),
    ("yum_connections_refused_total", &["reason", "shard"]),
    ("yum_drops_total", &["reason", "shard"]),
    ("yum_events_total", &["event", "outcome", "shard"]),
    ("yum_handshakes_refused_total", &["reason", "shard"]),
    ("yum_http_requests_total", &["shard", "status"]),
    ("yum_rate_limited_total", &["shard", "what"]),
    ("yum_redis_ignored_total", &["cause", "shard"]),
    ("yum_reloads_total", &["outcome"]),
    ("yum_reports_total", &["outcome"]),
    ("yum_scrapes_refused_total", &["reason"]),
    ("yum_sessions", &["shard", "transport"]),
    ("yum_sessions_closed_total", &["reason", "shard"]),
    ("yum_sessions_opened_total", &["shard", "transport"]),
    ("yum_store_refused_total", &["reason"]),
    ("yum_store_replica_reads_total", &["outcome"]),
    ("yum_upgrades_total", &["outcome", "shard"]),
    ("yum_build_info", &["version"]),
];
/// The process's own, without labels and shards.
const OF_THE_PROCESS: &[&str] = &[
    "yum_draining",
    "yum_log_lines_dropped_total",
    "yum_log_lines_repeated_total",
];
/// Written by the listener itself, under the names that Prometheus' clients use everywhere.
const PROCESS: &[(&str, &str)] = &[
    ("process_cpu_seconds_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("yum_build_info", "gauge"),
];
/// Part of every name that strangers choose here: a scrape must never hold it.
const STRANGE: &str = "zebra";

/// One line of a scrape.
struct Sample {
    /// Without the suffix of a histogram's line.
    family: String,
    labels: BTreeMap<String, String>,
}

fn samples(scrape: &str, types: &BTreeMap<&str, &str>) -> Vec<Sample> {
    let lines = scrape
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').expect("labels end");
            let labels = labels
                .split(',')
                .filter(|label| !label.is_empty())
                .map(|label| {
                    let (key, value) = label.split_once('=').expect("a label has a value");
                    (key.to_owned(), value.trim_matches('"').to_owned())
                });
            let stem = ["_bucket", "_sum", "_count"]
                .into_iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|stem| types.get(stem) == Some(&"histogram"));
            Sample {
                family: stem.unwrap_or(name).to_owned(),
                labels: labels.collect(),
            }
        })
        .collect()
}

/// The lines `# TYPE name word` or `# HELP name words`.
fn comments<'a>(scrape: &'a str, kind: &str) -> BTreeMap<&'a str, &'a str> {
    let prefix = format!("# {kind} ");
    let lines = scrape
        .lines()
        .filter_map(|line| line.strip_prefix(prefix.as_str()));
    lines.filter_map(|line| line.split_once(' ')).collect()
}

/// Every kind of traffic that leaves a figure, all of it with strange names.
fn some_traffic(server: &Server) {
    let room = format!("{STRANGE}-room");
    for via in [Via::WebSocket, Via::Polling] {
        let mut client = Client::connect(server.address, via, &token(&format!("{STRANGE}-user")));
        client.join(&room);
        client.say(&room, &format!("{STRANGE}-content"));
        client.refused(&format!("{STRANGE}-event"), &json!({}));
        client.refused(
            "sendMessage",
            &json!({"roomId": format!("{STRANGE}-other"), "content": "x"}),
        );
        client.ok("leaveRoom", &json!({"roomId": room}));
    }
    let bad = json!({"token": STRANGE});
    let refused = Client::try_connect(server.address, Via::WebSocket, &bad, &[]);
    assert!(refused.expect("it answers").is_err());
    for path in [
        format!("/{STRANGE}"),
        format!("/socket.io/?EIO=4&transport={STRANGE}"),
        format!("/socket.io/?EIO=4&transport=polling&sid={STRANGE}"),
        format!("/api/messages?roomId={STRANGE}"),
    ] {
        http::get(server.address, &path, &[]);
    }
}

#[test]
fn a_scrape_is_what_the_table_says_and_names_nobody() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("SHARDS", "2")]);
    some_traffic(&server);
    let scrape = server.scrape();
    assert!(!scrape.contains(STRANGE), "{scrape}");
    assert!(!scrape.contains("127.0.0.1"), "{scrape}");
    let (types, helps) = (comments(&scrape, "TYPE"), comments(&scrape, "HELP"));
    for row in TABLE {
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!(types.get(row.name), Some(&kind), "{}", row.name);
        assert_eq!(helps.get(row.name), Some(&row.help), "{}", row.name);
    }
    for (name, kind) in PROCESS {
        assert_eq!(types.get(name), Some(kind), "{name}");
        assert!(helps.contains_key(name), "{name}");
    }
    assert_eq!(
        types.len(),
        TABLE.len() + PROCESS.len(),
        "a figure without a row: {types:?}"
    );
    check_labels(&scrape, &types);
}

fn check_labels(scrape: &str, types: &BTreeMap<&str, &str>) {
    let known: BTreeMap<&str, &[&str]> = LABELS.iter().copied().collect();
    let mut values: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for sample in samples(scrape, types) {
        let name = sample.family.as_str();
        let of_process = name.starts_with("yum_store_")
            || name.starts_with("process_")
            || OF_THE_PROCESS.contains(&name);
        let default: &[&str] = if of_process { &[] } else { &["shard"] };
        let expected = known.get(name).copied().unwrap_or(default);
        let keys: Vec<&str> = sample
            .labels
            .keys()
            .map(String::as_str)
            .filter(|key| *key != "le")
            .collect();
        assert_eq!(keys, expected, "{name}");
        for (key, value) in sample.labels {
            if key != "le" {
                values
                    .entry((sample.family.clone(), key))
                    .or_default()
                    .insert(value);
            }
        }
    }
    for ((name, key), values) in values {
        let most = if name == "yum_events_total" {
            PAIRS_MAX
        } else {
            FAMILY_MAX
        };
        assert!(values.len() <= most, "{name}: {values:?}");
        for value in values {
            let plain =
                |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (key == "version" && b == b'.');
            assert!(
                value.len() <= 32 && value.bytes().all(plain),
                "{name}: {key}={value}"
            );
            assert!(
                key != "shard" || ["0", "1"].contains(&value.as_str()),
                "{name}: {value}"
            );
        }
    }
}

#[test]
fn scrapes_are_bounded_in_number_size_and_time() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("SHARDS", "1")]);
    let connect = || {
        let stream = TcpStream::connect(server.metrics).expect("it listens");
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("a time");
        stream
    };
    let counted = |reason: &str, least: f64| {
        eventually(reason, || {
            let count = server.try_metric("yum_scrapes_refused_total", reason)?;
            (count >= least).then_some(())
        });
    };
    let begun = Instant::now();
    let mut silent: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| connect()).collect();
    let mut end = [0];
    assert!(matches!(connect().read(&mut end), Ok(0) | Err(_)));
    assert!(begun.elapsed() < Duration::from_secs(2), "at once");
    for stream in &mut silent {
        assert_eq!(stream.read(&mut end).expect("it is closed"), 0);
    }
    counted("slow", 16.0);
    counted("busy", 1.0);
    let mut long = connect();
    let head = format!("GET /metrics HTTP/1.1\r\nx: {}", "x".repeat(9_000));
    long.write_all(head.as_bytes()).expect("it is taken");
    counted("head", 1.0);
}

#[test]
fn promtool_finds_nothing_to_blame() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("SHARDS", "1")]);
    some_traffic(&server);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there (Debian: prometheus)");
    let mut input = promtool.stdin.take().expect("piped");
    input
        .write_all(server.scrape().as_bytes())
        .expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// Scrapes of eight hours, at one each 15 s.
const EIGHT_HOURS: usize = 8 * 60 * 4;

#[test]
fn eight_hours_of_scrapes_grow_no_memory() {
    let folder = folder();
    let server = Server::start(
        folder.path(),
        &[("SHARDS", "2"), ("DATABASE_URL", "memory:")],
    );
    some_traffic(&server);
    let mut sizes = Vec::new();
    let mut before = 0;
    for n in 0..EIGHT_HOURS {
        sizes.push(server.scrape().lines().count());
        if n == EIGHT_HOURS / 8 {
            before = server.resident_bytes();
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert_eq!(
        sizes[0],
        sizes[EIGHT_HOURS - 1],
        "series appear by being asked for"
    );
    assert!(grown < 1 << 20, "{} KiB more", grown >> 10);
}

/// Seconds that ticks came late, in all.
fn lateness(server: &Server) -> f64 {
    server.metric("yum_tick_late_seconds_sum", "")
}

/// Lets a writer write for a while, with this many scrapes meanwhile. Returns how late ticks came
/// in all.
fn late_under_load(server: &Server, scrapes: u32) -> f64 {
    const WHILE: Duration = Duration::from_millis(1_500);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for user in ["ann", "bob"] {
            let stop = &stop;
            scope.spawn(move || {
                let mut client = Client::connect(server.address, Via::WebSocket, &token(user));
                client.join("lobby");
                while !stop.load(Ordering::Relaxed) {
                    client.say("lobby", "x");
                    while client.event_within(Duration::ZERO).is_some() {}
                }
            });
        }
        let (before, start) = (lateness(server), Instant::now());
        for n in 1..=scrapes {
            server.scrape();
            std::thread::sleep((WHILE * n / scrapes).saturating_sub(start.elapsed()));
        }
        std::thread::sleep(WHILE.saturating_sub(start.elapsed()));
        let late = lateness(server) - before;
        stop.store(true, Ordering::Relaxed);
        late
    })
}

#[test]
fn a_scrape_under_load_costs_a_shard_less_than_a_millisecond() {
    const SCRAPES: u32 = 30;
    let folder = folder();
    let settings = [
        ("SHARDS", "1"),
        ("DATABASE_URL", "memory:"),
        ("RATE_MESSAGES_PER_SECOND", "0"),
    ];
    let server = Server::start(folder.path(), &settings);
    // What else runs on this machine only adds, so the best of a few rounds is the server's own.
    let mut costs: Vec<f64> = Vec::new();
    while costs.len() < 4 && costs.iter().all(|cost| *cost >= 0.001) {
        let usual = late_under_load(&server, 1);
        costs.push((late_under_load(&server, SCRAPES) - usual) / f64::from(SCRAPES));
    }
    assert!(
        costs.iter().any(|cost| *cost < 0.001),
        "seconds a scrape: {costs:?}"
    );
}
