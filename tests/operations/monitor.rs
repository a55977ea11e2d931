//! A Prometheus of the test's own, with the alert rules of `deploy/` and no patience.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::support::{PATIENCE, eventually};

/// What is waited for in minutes is waited for in seconds here.
const QUICK: &[(&str, &str)] = &[
    ("for: 30s", "for: 1s"),
    ("for: 1m", "for: 1s"),
    ("for: 2m", "for: 1s"),
    ("for: 5m", "for: 1s"),
    ("[5m]", "[8s]"),
    ("[10m]", "[8s]"),
    ("[15m]", "[8s]"),
];
const CONFIG: &str = "
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}
rule_files: [rules.yml]
scrape_configs:
- job_name: project-yum
  static_configs:
  - targets: [TARGETS]
";

/// A running Prometheus. Dropping it ends it.
pub(crate) struct Prometheus {
    address: SocketAddr,
    process: Child,
}

/// An alert that fires: its name, and the server.
pub(crate) type Firing = (String, String);

impl Prometheus {
    /// Scrapes these servers.
    pub(crate) fn watch(folder: &Path, servers: &[SocketAddr]) -> Self {
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/rules.yml");
        let mut rules = std::fs::read_to_string(rules).expect("the rules are there");
        for (patient, quick) in QUICK {
            rules = rules.replace(patient, quick);
        }
        let targets: Vec<String> = servers.iter().map(|one| format!("'{one}'")).collect();
        let config = CONFIG.replace("TARGETS", &targets.join(", "));
        std::fs::write(folder.join("rules.yml"), rules).expect("written");
        std::fs::write(folder.join("prometheus.yml"), config).expect("written");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let log = std::fs::File::create(folder.join("prometheus.log")).expect("a log");
        let process = Command::new("prometheus")
            .current_dir(folder)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=series"])
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is there (Debian: prometheus)");
        let prometheus = Self { address, process };
        eventually("Prometheus has scraped every server", || {
            let up = prometheus.query("sum(up)")?;
            (up == servers.len().to_string()).then_some(())
        });
        prometheus
    }

    fn get(&self, target: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        // By HTTP/1.0, so that the body comes in one piece.
        write!(stream, "GET {target} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    /// The first value of an expression.
    fn query(&self, expression: &str) -> Option<String> {
        let answer = self.get(&format!("/api/v1/query?query={expression}"))?;
        let value = answer["data"]["result"][0]["value"][1].as_str()?;
        Some(value.to_owned())
    }

    /// What fires now.
    pub(crate) fn firing(&self) -> BTreeSet<Firing> {
        let answer = self.get("/api/v1/alerts").expect("it answers");
        let alerts = answer["data"]["alerts"].as_array().expect("a list").iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing
            .map(|alert| {
                let label = |name: &str| alert["labels"][name].as_str().unwrap_or("").to_owned();
                (label("alertname"), label("instance"))
            })
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
