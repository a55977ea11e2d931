//! Measures project-yum beside other servers, all with the same load, and says which goals are met.
//!
//! ```sh
//! cargo bench --bench peers                            # everything, three rounds: about an hour
//! cargo bench --bench peers -- --quick                 # one round of short periods: ten minutes
//! cargo bench --bench peers -- --only fanout --servers ours,uws --rounds 5
//! cargo bench --bench peers -- --growth                # how our costs grow with the load
//! ```
//!
//! Each server is started anew for each row, in turn (A B A B …), so that the machine's moods meet all of
//! them. Needs PostgreSQL and Redis (Debian: `postgresql`, `redis-server`), Node 20 or newer with npm, and
//! cargo; the peers are installed and built at their locked versions when they are missing. The results
//! land in `bench/results/`: JSON with every run, and a chart.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured"
)]

mod chart;
mod growth;
mod loads;
mod number;
mod rows;
#[expect(dead_code, reason = "it is shared with the floor's benchmark")]
mod server;
mod servers;
mod services;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rows::Row;
use servers::{Kind, Peers};
use services::Services;
use table::Runs;

/// What the command line asks for.
struct Asked {
    quick: bool,
    growth: bool,
    rounds: usize,
    only: Option<Vec<String>>,
    servers: Vec<Kind>,
}

fn asked() -> Asked {
    let mut asked = Asked {
        quick: false,
        growth: false,
        rounds: 3,
        only: None,
        servers: Kind::ALL.to_vec(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word.as_str() {
            "--quick" => (asked.quick, asked.rounds) = (true, 1),
            "--growth" => asked.growth = true,
            "--rounds" => asked.rounds = value().parse().unwrap_or(3),
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

fn main() {
    let asked = asked();
    server::raise_descriptors();
    let services = Services::start();
    if asked.growth {
        return growth::measure(&services, asked.quick);
    }
    let peers = Peers::prepare(&asked.servers);
    let rows: Vec<Row> = rows::rows(asked.quick)
        .into_iter()
        .filter(|row| {
            asked
                .only
                .as_ref()
                .is_none_or(|only| only.iter().any(|name| row.name.contains(name.as_str())))
        })
        .collect();
    let mut runs: Runs = BTreeMap::new();
    for round in 1..=asked.rounds {
        for row in &rows {
            for &kind in &asked.servers {
                for &shards in row.shards(kind) {
                    let label = kind.label(shards);
                    match peers.measure(kind, shards, row, &services) {
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
    let table = table::Table::new(&rows, &runs);
    println!("\n{table}");
    let folder = results();
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).expect("the results can be kept");
    };
    write("table.json", table.json(&runs).to_string());
    write("table.md", table.to_string());
    write("chart.svg", chart::draw(&table));
    println!("kept in {}", folder.display());
}
