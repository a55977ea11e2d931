//! Brings a PostgreSQL database to the schema that this version knows.

use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::{Client, Error};

use super::link::{Link, LinkError, Needs};
use super::target::{Target, cause};
use crate::dial::within;
use crate::store::migration::{self, Migration, Newer};

/// The number under which servers that start at the same moment wait for each other.
const ADVISORY_LOCK: i64 = 0x7975_6d21;

/// How long the answers may take that a look at a database needs.
const LOOK_WITHIN: Duration = Duration::from_secs(4);

const MIGRATIONS: &[Migration] = &[Migration {
    name: "0001_messages",
    sql: include_str!("../../../migrations/postgres/0001_messages.sql"),
}];

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no way in.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A later version of the program made it.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// A step could not be taken.
    #[error("cannot bring the database {database} up to date ({step}): {cause}")]
    Step {
        /// The hosts and the database.
        database: String,
        /// What was to be done.
        step: &'static str,
        /// Why it was not.
        cause: String,
    },
    /// A thread or an executor could not be started.
    #[error("cannot start a thread of the store: {0}")]
    Thread(std::io::Error),
}

/// What a look at a database found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The server's version, as it writes it.
    pub version: String,
    /// The names of the steps that the database lacks.
    pub pending: Vec<&'static str>,
    /// How long the shortest question took.
    pub round_trip: Duration,
    /// How far its clock is from this host's.
    pub apart: Duration,
}

/// Connects as the writers do, and looks. Changes nothing.
pub(super) async fn look(target: &Target) -> Result<Found, OpenError> {
    let link = Link::open(target, Needs::Writing).await?;
    in_time(target, look_around(target, &link)).await
}

/// What a look finds, unless that takes too long.
async fn in_time<T>(
    target: &Target,
    look: impl Future<Output = Result<T, OpenError>>,
) -> Result<T, OpenError> {
    let looked = within(LOOK_WITHIN, look).await;
    looked.unwrap_or_else(|| Err(step_failed(target, "look", "no answer in time".to_owned())))
}

async fn look_around(target: &Target, link: &Link) -> Result<Found, OpenError> {
    let failed = |error| at(target, "look", &error);
    let pending = lacking(target, &link.client).await?;
    let asked = Instant::now();
    let question = "SELECT current_setting('server_version'), clock_timestamp()";
    let row = link.client.query_one(question, &[]).await.map_err(failed)?;
    let round_trip = asked.elapsed();
    let (its, ours): (SystemTime, _) = (row.get(1), SystemTime::now());
    let apart = ours
        .duration_since(its)
        .unwrap_or_else(|early| early.duration());
    Ok(Found {
        version: row.get(0),
        pending: pending.iter().map(|one| one.name).collect(),
        round_trip,
        apart: apart.saturating_sub(round_trip),
    })
}

/// The names of the steps that the database lacks. Changes nothing.
pub(super) async fn pending(target: &Target) -> Result<Vec<&'static str>, OpenError> {
    let link = Link::open(target, Needs::Reading).await?;
    let lacking = in_time(target, lacking(target, &link.client)).await?;
    Ok(lacking.iter().map(|one| one.name).collect())
}

/// Takes the steps that the database lacks, all or none, and returns their names.
pub(super) async fn migrate(target: &Target) -> Result<Vec<&'static str>, OpenError> {
    let link = Link::open(target, Needs::Writing).await?;
    let client = &link.client;
    if in_time(target, lacking(target, client)).await?.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |step| move |error| at(target, step, &error);
    // A step may take long on a large table, and so may another server's.
    let begin = format!(
        "SET statement_timeout = 0; SET lock_timeout = 0; \
         BEGIN; SELECT pg_advisory_xact_lock({ADVISORY_LOCK}); \
         CREATE TABLE IF NOT EXISTS project_yum_migrations ( \
             version integer PRIMARY KEY, name text NOT NULL, \
             taken_at timestamptz NOT NULL DEFAULT now())"
    );
    client
        .batch_execute(&begin)
        .await
        .map_err(failed("begin"))?;
    let lacking = lacking(target, client).await?;
    for step in lacking {
        client
            .batch_execute(step.sql)
            .await
            .map_err(failed(step.name))?;
        // The name is one of ours.
        let note = format!(
            "INSERT INTO project_yum_migrations (version, name) VALUES ({}, '{}')",
            version(step),
            step.name
        );
        client
            .batch_execute(&note)
            .await
            .map_err(failed(step.name))?;
    }
    client
        .batch_execute("COMMIT")
        .await
        .map_err(failed("commit"))?;
    Ok(lacking.iter().map(|one| one.name).collect())
}

/// A step's number, from 1.
fn version(step: &Migration) -> usize {
    1 + MIGRATIONS
        .iter()
        .position(|one| one.name == step.name)
        .expect("it is one of the list")
}

async fn lacking(target: &Target, client: &Client) -> Result<&'static [Migration], OpenError> {
    let failed = |error| at(target, "look", &error);
    let there = "SELECT to_regclass('project_yum_migrations') IS NOT NULL";
    if !client
        .query_one(there, &[])
        .await
        .map_err(failed)?
        .get::<_, bool>(0)
    {
        return Ok(MIGRATIONS);
    }
    let newest = "SELECT coalesce(max(version), 0) FROM project_yum_migrations";
    let found: i32 = client.query_one(newest, &[]).await.map_err(failed)?.get(0);
    Ok(migration::pending(
        MIGRATIONS,
        usize::try_from(found).unwrap_or(usize::MAX),
    )?)
}

fn at(target: &Target, step: &'static str, error: &Error) -> OpenError {
    step_failed(target, step, cause(error))
}

fn step_failed(target: &Target, step: &'static str, cause: String) -> OpenError {
    OpenError::Step {
        database: target.to_string(),
        step,
        cause,
    }
}
