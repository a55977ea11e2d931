//! The services that the settings name: the database, and what stands between hosts.

use std::path::Path;
use std::time::Duration;

use super::host::room;
use super::{Finding, Level};
use crate::bus::redis;
use crate::config::{Config, Database};
use crate::server::{HOST_ADVICE, ServerError};
use crate::store::postgres::{Found, PostgresStore, Target};
use crate::store::sqlite::SqliteStore;

/// Free space below which a database on this disk will soon be full.
const FREE_BYTES_GOOD: u64 = 1 << 30;
/// How far the clocks of this host and of the database may be apart.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(2);
/// A round trip to the database that takes longer is felt in every message.
const ROUND_TRIP_GOOD: Duration = Duration::from_millis(20);

/// One finding or more for each service.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = match &config.database {
        Database::Sqlite(path) => sqlite(path),
        Database::Postgres(target) => vec![postgres("database", target)],
        Database::Memory => vec![Finding::new(
            "database",
            Level::Warning,
            "messages are kept in memory: nothing is durable",
            "Set DATABASE_URL to sqlite:PATH or postgres://….",
        )],
    };
    findings.extend(config.replicas.iter().map(replica));
    findings.extend(config.redis.as_ref().map(redis));
    findings
}

fn sqlite(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    let database = match SqliteStore::pending_migrations(path) {
        Err(error) => {
            let error = ServerError::Store(shown.to_string(), error).to_string();
            Finding::told("database", Level::Failure, &error)
        }
        Ok(pending) => {
            let steps = steps(&pending);
            let version = rusqlite::version();
            Finding::ok("database", format!("SQLite {version} in {shown}; {steps}"))
        }
    };
    let disk = match room(path) {
        Ok(free) if free >= FREE_BYTES_GOOD => {
            Finding::ok("disk", format!("{} MiB free for {shown}", free >> 20))
        }
        Ok(free) => {
            let text = format!("only {} MiB free for {shown}", free >> 20);
            let mend = "Make room: when it is used up, messages are refused.";
            Finding::new("disk", Level::Warning, text, mend)
        }
        Err(error) => {
            let text = format!("the folder of {shown} cannot be written to: {error}");
            let mend =
                "Give it to the user that the server runs as, or choose another DATABASE_URL.";
            Finding::new("disk", Level::Failure, text, mend)
        }
    };
    vec![database, disk]
}

fn postgres(name: &'static str, target: &Target) -> Finding {
    let found = match PostgresStore::look(target) {
        Ok(found) => found,
        Err(error) => {
            let error = ServerError::Postgres(error).to_string();
            return Finding::told(name, Level::Failure, &error);
        }
    };
    let Found {
        version,
        pending,
        round_trip,
        apart,
    } = found;
    let text = format!(
        "PostgreSQL {version} at {target}; {}; a round trip takes {:.1} ms, its clock is {:.1} s apart",
        steps(&pending),
        round_trip.as_secs_f64() * 1000.0,
        apart.as_secs_f64()
    );
    if apart > CLOCKS_APART_MAX {
        let mend = "Set both clocks (chrony, systemd-timesyncd): who is behind makes tokens look expired or not yet valid.";
        return Finding::new(name, Level::Warning, text, mend);
    }
    if round_trip > ROUND_TRIP_GOOD {
        let mend = "Every message waits for it: put the server near its database.";
        return Finding::new(name, Level::Warning, text, mend);
    }
    Finding::ok(name, text)
}

fn replica(target: &Target) -> Finding {
    match PostgresStore::pending_migrations(target) {
        Ok(pending) if pending.is_empty() => {
            Finding::ok("replica", format!("PostgreSQL at {target} can be read"))
        }
        Ok(_) => Finding::new(
            "replica",
            Level::Warning,
            format!("PostgreSQL at {target} lacks our tables"),
            "It follows another database, or is far behind: pages come from the primary meanwhile.",
        ),
        Err(error) => Finding::new(
            "replica",
            Level::Warning,
            format!("it cannot be read: {error}"),
            "Pages come from the primary meanwhile. See DATABASE_REPLICA_URLS.",
        ),
    }
}

fn redis(target: &redis::Target) -> Finding {
    match redis::look(target) {
        Ok(redis::Found {
            version,
            round_trip,
        }) => {
            let ms = round_trip.as_secs_f64() * 1000.0;
            let text = format!("{version} at {target}; a round trip takes {ms:.1} ms");
            if round_trip > ROUND_TRIP_GOOD {
                let mend =
                    "Every message to another server waits for it: put Redis near the servers.";
                return Finding::new("redis", Level::Warning, text, mend);
            }
            Finding::ok("redis", text)
        }
        // The server starts without it, and serves its own clients.
        Err(cause) => Finding::new(
            "redis",
            Level::Failure,
            format!("cannot use Redis at {target}: {cause}"),
            redis_mend(&cause),
        ),
    }
}

fn redis_mend(cause: &redis::LookError) -> &'static str {
    match cause {
        redis::LookError::Executor(_) => HOST_ADVICE,
        redis::LookError::Refused(_) => {
            "See that it runs (version 7 or later), and that REDIS_URL names its host, user and password."
        }
    }
}

fn steps(pending: &[&str]) -> String {
    if pending.is_empty() {
        return "its tables are up to date".to_owned();
    }
    format!("a start takes the steps {}", pending.join(", "))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::store::postgres::OpenError;

    #[test]
    fn a_missing_ring_is_not_blamed_on_the_service() {
        let limit = "The memlock resource limit is too low";
        let asked = ServerError::Postgres(OpenError::Thread(io::Error::other(limit))).to_string();
        let found = Finding::told("database", Level::Failure, &asked);
        assert!(found.text.ends_with(limit), "{found}");
        assert_eq!(found.mend, HOST_ADVICE);
        let missing = redis::LookError::Executor(limit.to_owned());
        assert_eq!(redis_mend(&missing), HOST_ADVICE);
        assert!(!HOST_ADVICE.contains("_URL"));
        let mend = redis_mend(&redis::LookError::Refused("no answer in time".to_owned()));
        assert!(mend.contains("7 or later") && mend.contains("REDIS_URL"));
    }
}
