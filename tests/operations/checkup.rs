//! `doctor` before real services, up and down.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::postgres_server::Postgres;
use super::redis_server::Redis;
use super::support::token::SECRET;

/// The exit code, and the findings about a service.
fn doctor(env: &[(&str, &str)], name: &str) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_project-yum"))
        .current_dir(folder.path())
        .env_clear()
        .envs([("JWT_SECRET", SECRET)])
        .envs(env.iter().copied())
        .args(["doctor", "--json"])
        .output()
        .expect("the program starts");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(!report.to_string().contains("secret"), "{report}");
    let findings = report["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["name"] == name);
    (
        output.status.code(),
        found.expect("it was looked at").clone(),
    )
}

#[test]
fn the_doctor_knows_the_database_and_redis() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let (database, bus) = (postgres.database(), redis.url());
    let env = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", bus.as_str()),
    ];
    let (code, found) = doctor(&env, "database");
    let text = found["text"].as_str().expect("a text");
    assert!(code == Some(0) && text.contains("0001_messages"), "{found}");
    assert!(
        text.starts_with("PostgreSQL 1") && text.contains("a round trip takes"),
        "{found}"
    );
    let (_, found) = doctor(&env, "redis");
    let text = found["text"].as_str().expect("a text");
    assert!(
        text.starts_with("redis ") && text.contains("a round trip takes"),
        "{found}"
    );

    redis.kill();
    let (code, found) = doctor(&env, "redis");
    assert!(code == Some(1) && found["level"] == "failure", "{found}");
    assert!(
        found["mend"]
            .as_str()
            .is_some_and(|mend| mend.contains("REDIS_URL")),
        "{found}"
    );
    postgres.kill();
    let (code, found) = doctor(&env, "database");
    assert!(code == Some(1) && found["level"] == "failure", "{found}");
}

#[test]
fn the_doctor_waits_for_no_service_without_end() {
    // It is let in by the kernel, and nobody ever says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = silent.local_addr().expect("it has one");
    let (database, bus) = (
        format!("postgres://a@{place}/b"),
        format!("redis://{place}"),
    );
    let env = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", bus.as_str()),
    ];
    let begun = Instant::now();
    for name in ["database", "redis"] {
        let (code, found) = doctor(&env, name);
        assert_eq!(code, Some(1), "{found}");
        let text = found["text"].as_str().expect("a text");
        assert!(text.contains("no answer in time"), "{text}");
    }
    assert!(begun.elapsed() < Duration::from_secs(12));
}
