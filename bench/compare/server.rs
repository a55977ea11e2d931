//! One server under load: started, driven, ended.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use project_yum::auth::{AuthOptions, Keys};
use project_yum::load::{self, LoadError, Report, Target};

/// What tokens are signed with, for all servers alike.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef-of-a-benchmark";

/// Our own server, its limits raised and not turned off; `DATABASE_URL=memory:` until the command says more.
///
/// Those by address hold for loopback, where the load comes from, only when it is said that there is no proxy.
pub(crate) fn ours(shards: usize) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_project-yum"));
    for name in [
        "RATE_MESSAGES_PER_SECOND",
        "RATE_BURST",
        "RATE_HTTP_PER_SECOND",
        "RATE_CONNECTIONS_PER_SECOND",
        "MAX_CONNECTIONS_PER_IP",
    ] {
        command.env(name, "1000000");
    }
    command
        .env("HOST", "127.0.0.1")
        .env("TRUST_PROXY", "none")
        .env("SHARDS", shards.to_string())
        .env("LOG_LEVEL", "warn")
        .env("METRICS_ADDR", "127.0.0.1:0")
        .env("DATABASE_URL", "memory:")
        .env("JWT_SECRET", SECRET);
    command
}

/// A server that runs.
pub(crate) struct Server {
    process: Child,
    target: Target,
    /// Kept as long as it runs.
    pub(crate) home: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts it on a free port, which `PORT` tells it, with its output in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, LoadError> {
        let port = free_port();
        let process = command
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(File::create(log)?)
            .stderr(File::create(log.with_extension("err"))?)
            .spawn()?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let server = Self {
            target: Target {
                address: ([127, 0, 0, 1], port).into(),
                auth: AuthOptions {
                    keys: Keys::secrets(vec![SECRET.as_bytes().into()]),
                    issuer: None,
                    audience: None,
                    leeway_seconds: 5,
                },
                pid: Some(process.id()),
                now_seconds: now.as_secs(),
            },
            process,
            home: None,
        };
        let begun = Instant::now();
        while std::net::TcpStream::connect(server.target.address).is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                let said = std::fs::read_to_string(log.with_extension("err")).unwrap_or_default();
                return Err(LoadError::Server(format!("does not start: {said}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // What it does when it starts is not what is measured.
        std::thread::sleep(Duration::from_millis(500));
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.target.address
    }

    pub(crate) fn drive(&self, scenario: &load::Scenario) -> Result<Report, LoadError> {
        load::run(&self.target, scenario)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Takes all the descriptors that this process may have: ten thousand clients need them.
pub(crate) fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, all);
}
