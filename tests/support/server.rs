//! The built binary as a server, on a free port, with a database of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::http::{self, Response};
use super::token::{OLD_SECRET, SECRET, token};

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    process: Child,
    /// Kills the server when this process ends in whatever way: its input then reaches the end.
    guard: Child,
}

/// A folder for a database, and for what the server logs.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// An example program, built beside the test that runs.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test is a file");
    let built = test.parent().and_then(Path::parent).expect("a folder");
    let program = built.join("examples").join(name);
    assert!(
        program.exists(),
        "{} is missing: cargo build --examples",
        program.display()
    );
    program
}

/// A server with two shards, the default settings and a database in memory, for tests that keep to
/// rooms of their own.
pub(crate) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        // It keeps nothing but its log there, and is never dropped.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Server::start(folder, &[("SHARDS", "2"), ("DATABASE_URL", "memory:")])
    })
}

impl Server {
    /// Starts one with its database in `folder`.
    pub(crate) fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_project-yum").as_ref(), folder, settings)
    }

    /// Starts another program that serves as ours does. Its input is a pipe to be written to.
    pub(crate) fn start_program(program: &Path, folder: &Path, settings: &[(&str, &str)]) -> Self {
        let metrics = free_port();
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .expect("a log file");
        let mut process = Command::new(program)
            .current_dir(folder)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .env(
                "DATABASE_URL",
                format!("sqlite:{}", folder.join("chat.db").display()),
            )
            .env("JWT_SECRET", format!("{SECRET},{OLD_SECRET}"))
            // Most tests send as fast as they can.
            .env("RATE_MESSAGES_PER_SECOND", "0")
            // Their addresses are all of this machine.
            .env("RATE_HTTP_PER_SECOND", "0")
            .env("RATE_CONNECTIONS_PER_SECOND", "0")
            .env("MAX_CONNECTIONS_PER_IP", "0")
            .env("METRICS_ADDR", metrics.to_string())
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let guard = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -9 $0 2>/dev/null"])
            .arg(process.id().to_string())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let output = BufReader::new(process.stdout.take().expect("the output is piped"));
        let address = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, rest) = line.split_once("serves on http://")?;
                rest.split_once(' ')?.0.parse().ok()
            })
            .unwrap_or_else(|| panic!("it does not start: {}", log_of(folder)));
        Self {
            address,
            metrics,
            process,
            guard,
        }
    }

    /// `GET /api/messages` with a token of nobody in particular.
    pub(crate) fn history(&self, query: &str) -> Response {
        let authorization = format!("Bearer {}", token("historian"));
        let fields = [("Authorization", authorization.as_str())];
        http::get(self.address, &format!("/api/messages?{query}"), &fields)
    }

    /// Every message of a room, oldest first.
    pub(crate) fn all_messages(&self, room: &str) -> Vec<serde_json::Value> {
        let mut messages = Vec::new();
        let mut after = 0;
        loop {
            let page = self.history(&format!("roomId={room}&afterSeq={after}&limit=100"));
            assert_eq!(page.status, 200, "{}", page.text());
            let mut page = page.json();
            after = page["nextAfterSeq"].as_u64().expect("a cursor");
            let list = page["messages"].as_array_mut().expect("messages");
            messages.append(list);
            if page["hasMore"] == false {
                return messages;
            }
        }
    }

    /// The sum of a metric over its labels, of those lines that contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        self.try_metric(name, label).expect("it can be scraped")
    }

    /// The same, unless the server is gone.
    pub(crate) fn try_metric(&self, name: &str, label: &str) -> Option<f64> {
        let mut connection = http::Connection::open(self.metrics).ok()?;
        connection.send("GET", "/metrics", &[], b"").ok()?;
        let answer = connection.receive(Instant::now() + PATIENCE).ok()??;
        let text = answer.text();
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        });
        Some(
            lines
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum(),
        )
    }

    /// What Prometheus gets.
    pub(crate) fn scrape(&self) -> String {
        let answer = http::get(self.metrics, "/metrics", &[]);
        assert_eq!(answer.status, 200);
        answer.text()
    }

    /// Writes a line to its input.
    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.process.stdin.as_mut().expect("its input is a pipe");
        writeln!(input, "{line}").expect("it reads");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        kib.expect("Linux says how much") * 1024
    }

    /// CPU time that it has taken so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let text = self.scrape();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
        let seconds = line.and_then(|seconds| seconds.parse().ok());
        seconds.expect("the server says how much")
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let status = self.process.try_wait().expect("its state is known");
            if status.is_some() || start.elapsed() > patience {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it as a power cut would, but for the page cache.
    pub(crate) fn kill(mut self) {
        self.signal("KILL");
        assert!(self.wait(PATIENCE).is_some(), "it outlives kill -9");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First the guard, while the server's number is surely its own.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the servers of this folder have logged.
pub(crate) fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address")
}
