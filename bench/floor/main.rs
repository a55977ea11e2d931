//! The floor: what the kernel asks of any server for the same traffic, beside what project-yum takes.
//!
//! ```sh
//! cargo bench --bench floor                             # idle connections and GET /health, three rounds
//! cargo bench --bench floor -- --rounds 1 --seconds 25 --only health
//! ```
//!
//! The floor ([`ring`]) is one thread with a ring and with answers that were made beforehand. It parses,
//! checks and keeps nothing. It opens WebSockets, pings them as often as project-yum does (an interval in 32
//! bursts), and answers `GET` with the bytes that project-yum answers. It reads in one of two ways: a
//! one-shot poll and a `recv`, as the runtime does for us, or a multishot receive into provided buffers. All
//! sends of a turn leave in one submission.
//!
//! All are driven by the same load in turn (A B C A B C), so that the machine's moods meet all of them.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured"
)]

mod ring;
#[expect(dead_code, reason = "it is shared with the comparison")]
#[path = "../compare/server.rs"]
mod server;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use project_yum::load::{LoadError, Report, Scenario};
use ring::{Floor, Reads};
use server::Server;

/// Who is driven.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Ours,
    Floor(Reads),
}

impl Kind {
    const ALL: [Self; 3] = [
        Self::Ours,
        Self::Floor(Reads::Poll),
        Self::Floor(Reads::Multishot),
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Ours => "project-yum",
            Self::Floor(Reads::Poll) => "floor, poll and recv",
            Self::Floor(Reads::Multishot) => "floor, multishot receive",
        }
    }

    fn start(self, home: &Path) -> Result<Server, LoadError> {
        let mut command = server::ours(1);
        if let Self::Floor(reads) = self {
            command = Command::new(std::env::current_exe()?);
            command.arg(format!("{reads:?}")).arg(home.join("answer"));
        }
        Server::start(command.current_dir(home), &home.join("log"))
    }
}

/// A load, and its unit.
struct Row {
    name: &'static str,
    title: &'static str,
    scenario: Scenario,
    /// Units of a report, by which its microseconds are divided.
    units: fn(&Report) -> f64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a run answers fewer than 2^52 requests"
)]
fn rows(period: Duration) -> [Row; 2] {
    [
        Row {
            name: "idle",
            title: "10,000 idle connections, ms a minute",
            scenario: Scenario::Idle {
                connections: 10_000,
                rooms: 0,
                members: 1,
                period,
            },
            units: |report| report.seconds / 60.0 * 1000.0,
        },
        Row {
            name: "health",
            title: "GET /health, µs",
            scenario: Scenario::Get {
                path: "/health".to_owned(),
                authorized: false,
                connections: 16,
                period: period / 6,
            },
            units: |report| report.units as f64,
        },
    ]
}

/// CPU of one unit: all of it, and what of it the kernel took.
type Figure = (f64, f64);

fn measure(kind: Kind, row: &Row, home: &Path) -> Result<Figure, LoadError> {
    let report = kind.start(home)?.drive(&row.scenario)?;
    let cpu = report.cpu.unwrap_or_default();
    let each = |seconds: f64| seconds * 1e6 / (row.units)(&report);
    Ok((each(cpu.seconds()), each(cpu.system.as_secs_f64())))
}

/// What `GET /health` of project-yum is answered, byte for byte.
fn answer(home: &Path) -> Result<Vec<u8>, LoadError> {
    let server = Kind::Ours.start(home)?;
    let mut stream = TcpStream::connect(server.address())?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut bytes = vec![0; 4096];
    let count = stream.read(&mut bytes)?;
    bytes.truncate(count);
    assert!(bytes.ends_with(b"}"), "it came whole");
    Ok(bytes)
}

fn main() -> Result<(), LoadError> {
    let mut words = std::env::args().skip(1);
    let (mut rounds, mut period, mut only) = (3, Duration::from_mins(1), String::new());
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word.as_str() {
            "--rounds" => rounds = value().parse().unwrap_or(rounds),
            "--seconds" => period = value().parse().map_or(period, Duration::from_secs),
            "--only" => only = value(),
            "--bench" => {}
            reads => {
                let reads = match reads {
                    "Poll" => Reads::Poll,
                    "Multishot" => Reads::Multishot,
                    other => panic!("what is {other}? --rounds, --seconds and --only are known"),
                };
                let port = std::env::var("PORT")
                    .ok()
                    .and_then(|port| port.parse().ok());
                let port = port.expect("PORT is where it listens");
                return Ok(Floor::new(reads, port, std::fs::read(value())?)?.serve()?);
            }
        }
    }
    server::raise_descriptors();
    let home = tempfile::tempdir()?;
    std::fs::write(home.path().join("answer"), answer(home.path())?)?;
    println!("| CPU, the least of {rounds} | | in the kernel | outside | of project-yum's |");
    println!("|---|---|---|---|---|");
    for row in rows(period).iter().filter(|row| row.name.contains(&only)) {
        let mut least = [(f64::MAX, 0.0); Kind::ALL.len()];
        for _ in 0..rounds {
            for (kind, least) in Kind::ALL.into_iter().zip(&mut least) {
                let figure = measure(kind, row, home.path())?;
                eprintln!("{} {}: {figure:.2?}", row.name, kind.title());
                if figure.0 < least.0 {
                    *least = figure;
                }
            }
        }
        for (kind, (all, kernel)) in Kind::ALL.into_iter().zip(least) {
            println!(
                "| {}: {} | {all:.1} | {kernel:.1} | {:.1} | {:.2} |",
                row.title,
                kind.title(),
                all - kernel,
                all / least[0].0,
            );
        }
    }
    Ok(())
}
