//! What a durable message costs: acks a second, CPU of this process, and how many share a commit.
//!
//! ```sh
//! cargo bench --bench storage                                   # SQLite, in a new directory
//! cargo bench --bench storage -- postgres://user:pw@host/bench  # and PostgreSQL
//! ```
//!
//! The senders run on one shard, as tasks of its executor, each sending its next message when the last
//! one is acked. PostgreSQL's own CPU is not counted; SQLite's is, since it is a thread of ours.

use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use project_yum::metrics::{STORE_BATCH_ROWS, STORE_BATCHES};
use project_yum::store::postgres::{PostgresStore, Seat, Target};
use project_yum::store::sqlite::SqliteStore;
use project_yum::store::{Draft, SharedStore, Store};

/// How long each number of senders sends.
const SECONDS: u64 = 5;
const SENDERS: [usize; 3] = [1, 64, 1_000];
const ROOMS: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recorder = PrometheusBuilder::new().install_recorder()?;
    let home = tempfile::tempdir()?;
    let sqlite = SqliteStore::open(&home.path().join("bench.db"))?;
    measure("sqlite", &recorder, Seat::default(), move || {
        Rc::new(sqlite.clone())
    })?;
    for url in std::env::args().filter(|argument| argument.starts_with("postgres")) {
        let target = Target::parse(&url)?;
        PostgresStore::migrate(&target)?;
        let (store, seats) = PostgresStore::new(target, 1)?;
        let seat = seats.into_iter().next().expect("one shard has one seat");
        measure("postgres", &recorder, seat, move || Rc::new(store.handle()))?;
    }
    Ok(())
}

fn measure(
    name: &str,
    recorder: &PrometheusHandle,
    seat: Seat,
    store: impl Fn() -> SharedStore + 'static,
) -> Result<(), Box<dyn std::error::Error>> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(0)
        .ring_depth(256)
        .make()?;
    let (name, recorder) = (name.to_owned(), recorder.clone());
    executor.run(async move {
        let _seated = seat.take();
        let ticking = glommio::spawn_local(async {
            loop {
                glommio::timer::sleep(Duration::from_millis(5)).await;
            }
        });
        glommio::timer::sleep(Duration::from_millis(500)).await;
        for senders in SENDERS {
            let before = Sample::take(&recorder);
            let acked = send(&*store(), senders).await;
            let line = Sample::take(&recorder).since(&before, acked);
            let mut out = std::io::stdout();
            let _ = writeln!(out, "{name:<8} {senders:>5} senders: {line}");
        }
        ticking.cancel().await;
    });
    Ok(())
}

/// Sends until the time is over and returns how many were acked.
async fn send(store: &dyn Store, senders: usize) -> usize {
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let sender = async |number: usize| {
        let user = format!("user-{number}");
        let mut acked = 0;
        while Instant::now() < until {
            let id = uuid::Uuid::now_v7();
            let draft = Draft {
                room: format!("room-{}", (number + acked) % ROOMS).into(),
                user: user.as_str().into(),
                content: "a message of about a hundred and fifty bytes, as people write them in a \
                    room: a sentence, perhaps a second one, and now and then a link."
                    .into(),
                client_msg_id: Some(id.to_string().into()),
                id,
                wall_ms: 1_767_225_600_000,
            };
            match store.append(draft).await {
                Ok(_) => acked += 1,
                Err(error) => {
                    let _ = writeln!(std::io::stderr(), "{error}");
                    break;
                }
            }
        }
        acked
    };
    futures_util::future::join_all((0..senders).map(sender))
        .await
        .into_iter()
        .sum()
}

/// What the process has used and stored so far.
struct Sample {
    at: Instant,
    cpu: Duration,
    batches: f64,
    rows: f64,
}

impl Sample {
    fn take(recorder: &PrometheusHandle) -> Self {
        let text = recorder.render();
        let figure = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.split([' ', '{']).next() == Some(name));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
                .unwrap_or(0.0)
        };
        Self {
            at: Instant::now(),
            cpu: cpu(),
            batches: figure(STORE_BATCHES),
            rows: figure(&format!("{STORE_BATCH_ROWS}_sum")),
        }
    }

    fn since(&self, before: &Self, acked: usize) -> String {
        let acked = f64::from(u32::try_from(acked).unwrap_or(u32::MAX));
        let seconds = (self.at - before.at).as_secs_f64();
        let cpu = self.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / acked;
        let batch = (self.rows - before.rows) / (self.batches - before.batches);
        format!(
            "{:>8.0} acks/s, {cpu:>6.1} µs CPU a message, {batch:>6.1} a commit",
            acked / seconds
        )
    }
}

/// User and system time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string(Path::new("/proc/self/stat")).unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}
