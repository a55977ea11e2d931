//! Hostile input: the built binary against clients that break every rule.
//!
//! The cases are data (`cases/`, `rules.toml`; `case` reads them, `play` says what their steps mean). Each runs
//! against one server with one shard and one with four. After each, the server answers `/health` in time, has
//! not grown, and a room that goes on all along (`witness`) has missed nothing. What needs a server of its own
//! or a thousand connections is in `floods`.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod case;
mod floods;
mod play;
mod wire;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use case::Case;
use support::client::{Client, Via};
use support::http;
use support::server::{Server, folder, log_of};
use support::token::token;
use witness::Witness;

/// What the process may gain over all cases.
const GROWTH_BYTES_MAX: usize = 32 << 20;
/// How soon `/health` is answered.
const HEALTH_MAX: Duration = Duration::from_millis(100);
/// Tries to meet it: other programs of this machine are slow, too.
const HEALTH_TRIES: usize = 5;
/// Cases at a time, but for those that wait.
const WORKERS: usize = 6;

#[test]
fn one_shard_holds() {
    suite(1, Via::WebSocket);
}

#[test]
fn four_shards_hold() {
    suite(4, Via::Polling);
}

/// Every rule is somebody's, and every case is for a rule.
#[test]
fn every_rule_has_a_case() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let cases = case::all();
    for case in &cases {
        *counts.entry(case.rule.clone()).or_default() += 1;
        assert!(names.insert(&case.name), "{} is there twice", case.name);
    }
    for rule in case::rules() {
        let tested = counts.remove(&rule.id).is_some();
        assert!(tested || !rule.tests.is_empty(), "{} has no case", rule.id);
        for test in &rule.tests {
            assert!(case::is_known(test), "{test} is missing");
        }
    }
    assert!(counts.is_empty(), "no such rules: {:?}", counts.keys());
    assert!(cases.len() >= 300, "{} cases", cases.len());
}

fn suite(shards: usize, listening: Via) {
    let cases = case::all();
    let wanted = std::env::var("HOSTILE_CASE").unwrap_or_default();
    let cases: Vec<&Case> = cases
        .iter()
        .filter(|case| case.name.contains(&wanted))
        .collect();
    let folder = folder();
    let shards = shards.to_string();
    let settings = [
        ("SHARDS", shards.as_str()),
        ("CONNECT_TIMEOUT_MS", "8000"),
        ("LOG_LEVEL", "warn"),
    ];
    let server = Server::start(folder.path(), &settings);
    let witness = Witness::start(server.address, listening);
    let run = Run {
        server: &server,
        witness: &witness,
        before: Mutex::new(0),
        faults: Mutex::default(),
        slowest: Mutex::default(),
    };
    run.warm_up(&cases);
    let (slow, quick): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.slow);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (number, case) in slow.iter().enumerate() {
            let run = &run;
            scope.spawn(move || run.case(case, 10_000 + number));
        }
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = quick.get(number) else {
                        return;
                    };
                    run.case(case, number);
                }
            });
        }
    });
    let grown = server
        .resident_bytes()
        .saturating_sub(*run.before.lock().expect("no panic"));
    let slowest = run.slowest.into_inner().expect("no panic");
    let mut faults = run.faults.into_inner().expect("no panic");
    if wanted.is_empty() {
        faults.extend(bounds::check_counts(&server));
    }
    let heard = witness.end();
    eprintln!(
        "{} cases on {shards} shards: +{} KiB, /health at most {slowest:?}, {heard} messages witnessed",
        cases.len(),
        grown >> 10
    );
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert!(heard > 0, "the witness heard nothing");
}

/// What a client writes stays on its line of the log, escaped, and what is said there is nobody's content.
#[test]
fn the_log_holds_neither_content_nor_tokens() {
    let folder = folder();
    let settings = [
        ("SHARDS", "1"),
        ("LOG_LEVEL", "debug"),
        ("LOG_FORMAT", "json"),
    ];
    let server = Server::start(folder.path(), &settings);
    let user = "eve\",\"log.level\":\"fatal";
    let mut eve = Client::connect(server.address, Via::WebSocket, &token(user));
    eve.join("room\"forged");
    eve.say("room\"forged", "secret-content\n{\"message\":\"forged\"}");
    let _ = eve.refused(
        "sendMessage",
        &serde_json::json!({"roomId": "\n{}", "content": "secret-content"}),
    );
    let _ = http::get(
        server.address,
        "/%0a%7b%22message%22:%22forged%22%7d?token=secret-token",
        &[],
    );
    let secret = token("secret-user");
    let bearer = format!("Bearer {secret}x");
    let fields = [("Authorization", bearer.as_str())];
    let _ = http::get(server.address, "/api/messages?roomId=a", &fields);
    drop(eve);
    server.signal("TERM");
    let mut server = server;
    assert!(server.wait(support::PATIENCE).is_some(), "it ends");
    let log = log_of(folder.path());
    assert!(!log.is_empty());
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("each line is an object");
        assert_ne!(line["message"], "forged");
        assert_ne!(line["log.level"], "fatal");
    }
    for never in [
        "secret-content",
        "secret-token",
        support::token::SECRET,
        &secret,
    ] {
        assert!(!log.contains(never), "{never} is in the log");
    }
}

struct Run<'a> {
    server: &'a Server,
    witness: &'a Witness,
    /// Resident bytes before the first case.
    before: Mutex<usize>,
    faults: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
}

impl Run<'_> {
    /// What every process takes once: code that is read in, pools that are filled.
    fn warm_up(&self, cases: &[&Case]) {
        self.witness.check().expect("the witness hears");
        for case in cases.iter().filter(|case| !case.slow).take(10) {
            let _ = play::play(case, self.server.address, usize::MAX);
        }
        *self.before.lock().expect("no panic") = self.server.resident_bytes();
    }

    fn case(&self, case: &Case, number: usize) {
        let played = play::play(case, self.server.address, number);
        let checks = played
            .and_then(|()| self.check_health())
            .and_then(|()| self.witness.check());
        let checks = checks.and_then(|()| self.check_memory());
        if let Err(fault) = checks {
            let mut faults = self.faults.lock().expect("no panic");
            faults.push(format!("{}: {fault}", case.name));
        }
    }

    fn check_health(&self) -> Result<(), String> {
        let mut quickest = Duration::MAX;
        for _ in 0..HEALTH_TRIES {
            let start = Instant::now();
            let answer = http::get(self.server.address, "/health", &[]);
            quickest = quickest.min(start.elapsed());
            if answer.status != 200 {
                return Err(format!("/health says {}", answer.status));
            }
            if quickest <= HEALTH_MAX {
                let mut slowest = self.slowest.lock().expect("no panic");
                *slowest = quickest.max(*slowest);
                return Ok(());
            }
        }
        Err(format!("/health took {quickest:?}"))
    }

    fn check_memory(&self) -> Result<(), String> {
        let before = *self.before.lock().expect("no panic");
        let grown = self.server.resident_bytes().saturating_sub(before);
        if grown > GROWTH_BYTES_MAX {
            return Err(format!("the process grew by {} MiB", grown >> 20));
        }
        Ok(())
    }
}
