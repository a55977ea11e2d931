//! Measures project-yum beside other servers, all with the same load, and says which goals are met.
//!
//! ```sh
//! cargo bench --bench peers                            # everything, three rounds: about an hour
//! cargo bench --bench peers -- --quick                 # one round of short periods: ten minutes
//! cargo bench --bench peers -- --only fanout --servers ours,uws --rounds 5
//! cargo bench --bench peers -- --growth                # how our costs grow with the load, one round
//! cargo bench --bench peers -- --growth --only 'one room' --rounds 3
//! ```
//!
//! Each server is started anew for each row, in turn (A B A B …), so that the machine's moods meet all of
//! them. Needs PostgreSQL and Redis (Debian: `postgresql`, `redis-server`), Node 20 or newer with npm, and
//! cargo; the peers are installed and built at their locked versions when they are missing. The results
//! land in `bench/results/`: JSON with every run and what it ran on, the table, and a chart.
//!
//! A figure is the median of the runs, but for a p99: that is of the samples of all runs together.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured"
)]

mod chart;
mod growth;
mod kind;
mod loads;
mod machine;
mod number;
mod rows;
#[expect(dead_code, reason = "it is shared with the floor's benchmark")]
mod server;
mod servers;
mod services;
mod spread;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use kind::Kind;
use machine::Machine;
use rows::Row;
use serde_json::Value;
use servers::Peers;
use services::Services;
use table::{Runs, Table};

/// What the command line asks for.
struct Asked {
    quick: bool,
    growth: bool,
    /// One if not said, but three for the whole comparison.
    rounds: Option<usize>,
    only: Option<Vec<String>>,
    servers: Vec<Kind>,
}

impl Asked {
    fn rounds(&self) -> usize {
        let own = if self.quick || self.growth { 1 } else { 3 };
        self.rounds.unwrap_or(own)
    }

    /// Whether this name, of a row or a curve, is among those that are asked for.
    fn is_asked(&self, name: &str) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| only.iter().any(|part| name.contains(part.as_str())))
    }
}

fn asked() -> Asked {
    let mut asked = Asked {
        quick: false,
        growth: false,
        rounds: None,
        only: None,
        servers: Kind::ALL.to_vec(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word.as_str() {
            "--quick" => asked.quick = true,
            "--growth" => asked.growth = true,
            "--rounds" => asked.rounds = value().parse().ok(),
            "--only" => asked.only = Some(value().split(',').map(str::to_owned).collect()),
            "--servers" => {
                let names = value();
                let known = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
                asked.servers = names.split(',').filter_map(known).collect();
            }
            // What cargo itself passes on.
            "--bench" => {}
            other => panic!(
                "what is {other}? --quick, --growth, --rounds, --only and --servers are known"
            ),
        }
    }
    asked
}

/// The folder of the results.
fn results() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/results");
    std::fs::create_dir_all(&folder).expect("the results can be kept");
    folder
}

/// Keeps a result in its folder.
fn keep(name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(results().join(name), text).expect("the results can be kept");
}

/// Results as JSON, with what they were measured on.
fn keep_json(name: &str, mut results: Value, machine: &Machine) {
    results["machine"] = serde_json::to_value(machine).expect("it is plain data");
    keep(name, results.to_string());
}

/// Drives every row with every server, in turn, and prints each run.
fn run(asked: &Asked, rows: &[Row], peers: &Peers, services: &Services) -> Runs {
    let mut runs: Runs = BTreeMap::new();
    for round in 1..=asked.rounds() {
        for row in rows {
            for &kind in &asked.servers {
                for &shards in row.shards(kind) {
                    let label = kind.label(shards);
                    match peers.measure(kind, shards, row, services) {
                        Ok(figures) => {
                            println!("{round} {:<18} {label:<22} {figures}", row.name);
                            runs.entry((row.name.clone(), kind, shards))
                                .or_default()
                                .push(figures);
                        }
                        Err(error) => {
                            println!("{round} {:<18} {label:<22} failed: {error}", row.name);
                        }
                    }
                }
            }
        }
    }
    runs
}

/// The table of the rows that are asked for, with all servers.
fn compare(asked: &Asked, peers: &Peers, services: &Services, machine: &Machine) {
    let mut rows = rows::rows(asked.quick);
    rows.retain(|row| asked.is_asked(&row.name));
    let runs = run(asked, &rows, peers, services);
    let table = Table::new(&rows, &runs, asked.rounds());
    let text = format!("{machine}\n\n{table}");
    println!("\n{text}");
    keep_json("table.json", table.json(&runs), machine);
    keep("table.md", text);
    keep("chart.svg", chart::draw(&table));
}

fn main() {
    let asked = asked();
    server::raise_descriptors();
    let services = Services::start();
    if asked.growth {
        let machine = Machine::look(&mut services::postgres());
        println!("{machine}\n");
        let growth = growth::Asked {
            quick: asked.quick,
            rounds: asked.rounds(),
            chosen: &|title| asked.is_asked(title),
        };
        let curves = growth::measure(&services, &growth);
        keep_json("growth.json", curves, &machine);
    } else {
        // What is missing is installed before its version is asked for.
        let peers = Peers::prepare(&asked.servers);
        let machine = Machine::look(&mut services::postgres());
        compare(&asked, &peers, &services, &machine);
    }
    println!("kept in {}", results().display());
}
