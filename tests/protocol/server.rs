//! The servers that the cases run against, each started once and ended with the test process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// How long a case waits for what must come. A busy machine is slow; a wrong server is silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The settings of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Intervals so long that no ping and no time-out meets a case.
    Calm,
    /// The heartbeat of the official suites, 300 and 200 ms, and a connect time-out of 1 s.
    Quick,
    /// An allow-list of origins.
    Cors,
    /// Calm, for what everybody on a server would hear.
    Alone,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shards: usize,
    process: u32,
    /// Its standard input: the server ends when this closes, whatever ends this process.
    _supervisor: Child,
}

static SERVERS: [OnceLock<Server>; 8] = [const { OnceLock::new() }; 8];

/// The server of this profile and number of shards.
pub(crate) fn shared(profile: Profile, shards: usize) -> &'static Server {
    let index = profile as usize * 2 + usize::from(shards > 1);
    SERVERS[index].get_or_init(|| start(&profile.settings(), shards))
}

impl Profile {
    fn settings(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Calm | Self::Alone => vec![
                ("PING_INTERVAL_MS", "25000"),
                ("PING_TIMEOUT_MS", "20000"),
                ("CONNECT_TIMEOUT_MS", "45000"),
            ],
            Self::Quick => vec![("UPGRADE_TIMEOUT_MS", "700")],
            Self::Cors => vec![
                ("PING_INTERVAL_MS", "25000"),
                ("PING_TIMEOUT_MS", "20000"),
                ("CORS_ORIGINS", "http://localhost:8080,https://app.example"),
            ],
        }
    }
}

/// Starts a server on a free port. A shell stands between, so that the server is killed when this
/// process ends in whatever way: its input then reaches the end.
pub(crate) fn start(settings: &[(&str, &str)], shards: usize) -> Server {
    let mut supervisor = Command::new("sh")
        .args(["-c", r#""$0" & server=$!; echo "process $server"; cat >/dev/null; kill -9 $server 2>/dev/null"#])
        .arg(program())
        .env("HOST", "127.0.0.1")
        .env("PORT", "0")
        .envs(settings.iter().copied())
        .env("SHARDS", shards.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell starts");
    let output = supervisor.stdout.take().expect("the output is piped");
    // Two lines, of the shell and of the server, whichever is faster.
    let mut lines = BufReader::new(output).lines().map_while(Result::ok).take(2);
    let (mut process, mut address) = (None, None);
    for line in &mut lines {
        if let Some(number) = line.strip_prefix("process ") {
            process = number.parse().ok();
        } else if let Some(spelt) = line.strip_prefix("listening on ") {
            address = spelt.parse().ok();
        }
    }
    Server {
        address: address.expect("the server says where it listens"),
        shards,
        process: process.expect("the shell says which process it started"),
        _supervisor: supervisor,
    }
}

impl Server {
    /// Asks the process to end.
    pub(crate) fn terminate(&self) {
        let process = self.process.to_string();
        let sent = Command::new("kill").args(["-TERM", &process]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Whether the process has ended, by what /proc says of it.
    pub(crate) fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }

    /// Bytes of memory that the process has resident.
    pub(crate) fn memory(&self) -> usize {
        let path = format!("/proc/{}/status", self.process);
        let status = std::fs::read_to_string(path).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<usize>().ok())
            .expect("its memory is given in kB")
            * 1024
    }
}

/// The `conformance` example of the same build: Cargo puts it beside the tests' own folder.
pub(crate) fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("CONFORMANCE_SERVER") {
        return program.into();
    }
    let mut path = std::env::current_exe().expect("a test knows its own path");
    path.pop();
    path.pop();
    path.push("examples/conformance");
    assert!(
        path.exists(),
        "{} is missing: cargo build --example conformance",
        path.display()
    );
    path
}

/// Whether the long loops are asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("TESTS_LONG").is_some_and(|value| value == "1")
}
