//! The servers: how each is started as its makers recommend, driven once, and ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use project_yum::auth::{AuthOptions, Keys};
use project_yum::load::{self, LoadError, Report, Target, named};

use crate::rows::{Row, Storage};
use crate::services::{Services, free_port};
use crate::table::Figures;

const SECRET: &str = "0123456789abcdef0123456789abcdef-of-a-benchmark";

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ours,
    Node,
    Uws,
    Bun,
    Socketioxide,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Ours,
        Self::Node,
        Self::Uws,
        Self::Bun,
        Self::Socketioxide,
    ];

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Node => "node",
            Self::Uws => "uws",
            Self::Bun => "bun",
            Self::Socketioxide => "socketioxide",
        }
    }

    /// The name in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ours => "project-yum",
            Self::Node => "Node + Socket.IO",
            Self::Uws => "Socket.IO on uWebSockets.js",
            Self::Bun => "Bun",
            Self::Socketioxide => "socketioxide",
        }
    }

    pub(crate) fn label(self, shards: usize) -> String {
        match self {
            Self::Ours => format!("ours, SHARDS={shards}"),
            _ => self.name().to_owned(),
        }
    }
}

/// The peers, ready to be started.
pub(crate) struct Peers {
    folder: PathBuf,
    socketioxide: PathBuf,
    logs: tempfile::TempDir,
}

impl Peers {
    /// Installs and builds what is missing for these servers.
    pub(crate) fn prepare(kinds: &[Kind]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers");
        let is_script = |kind| matches!(kind, &Kind::Node | &Kind::Uws | &Kind::Bun);
        if kinds.iter().any(is_script) && !folder.join("node_modules/.bin/bun").exists() {
            done(
                Command::new("npm")
                    .args(["ci", "--no-audit", "--no-fund"])
                    .current_dir(&folder),
            );
        }
        let target = folder.join("socketioxide/target");
        let socketioxide = target.join("release/peer-socketioxide");
        if kinds.contains(&Kind::Socketioxide) {
            done(
                Command::new("cargo")
                    .args(["build", "--release", "--locked", "--target-dir"])
                    .arg(&target)
                    .current_dir(folder.join("socketioxide")),
            );
        }
        Self {
            folder,
            socketioxide,
            logs: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn command(&self, kind: Kind, shards: usize, storage: Storage, services: &Services) -> Command {
        let program = match kind {
            Kind::Ours => PathBuf::from(env!("CARGO_BIN_EXE_project-yum")),
            Kind::Node | Kind::Uws => "node".into(),
            Kind::Bun => self.folder.join("node_modules/.bin/bun"),
            Kind::Socketioxide => self.socketioxide.clone(),
        };
        let mut command = Command::new(program);
        command
            .current_dir(self.logs.path())
            .env("JWT_SECRET", SECRET)
            .env("NODE_ENV", "production");
        match kind {
            Kind::Ours => {
                // Raised, not turned off.
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
                    .env("SHARDS", shards.to_string());
                command
                    .env("LOG_LEVEL", "warn")
                    .env("METRICS_ADDR", "127.0.0.1:0");
                command.env("DATABASE_URL", "memory:");
            }
            Kind::Node => {
                command.env("PEER", "ws").arg(self.folder.join("node.mjs"));
            }
            Kind::Uws => {
                command.env("PEER", "uws").arg(self.folder.join("node.mjs"));
            }
            Kind::Bun => {
                command.arg(self.folder.join("bun.mjs"));
            }
            Kind::Socketioxide => {}
        }
        match storage {
            Storage::None => {}
            Storage::Sqlite => {
                command.env("DATABASE_URL", "sqlite:bench.db");
            }
            Storage::Postgres => {
                command.env("DATABASE_URL", services.database());
            }
            Storage::PostgresRedis => {
                command
                    .env("DATABASE_URL", services.database())
                    .env("REDIS_URL", services.redis());
            }
        }
        command
    }

    /// Starts a server, drives it, ends it.
    pub(crate) fn measure(
        &self,
        kind: Kind,
        shards: usize,
        row: &Row,
        services: &Services,
    ) -> Result<Figures, LoadError> {
        let command = self.command(kind, shards, row.storage, services);
        let server = Server::start(command, &self.logs.path().join(kind.name()))?;
        if row.fills {
            server.drive(&named::fill())?;
        }
        let report = server.drive(&row.scenario)?;
        Ok(Figures::of(&report))
    }
}

/// Starts our own server alone.
pub(crate) fn ours(
    services: &Services,
    shards: usize,
    storage: Storage,
) -> Result<Server, LoadError> {
    let peers = Peers::prepare(&[]);
    let command = peers.command(Kind::Ours, shards, storage, services);
    let mut server = Server::start(command, &peers.logs.path().join("ours"))?;
    server.home = Some(peers.logs);
    Ok(server)
}

/// A server that runs.
pub(crate) struct Server {
    process: Child,
    target: Target,
    home: Option<tempfile::TempDir>,
}

impl Server {
    fn start(mut command: Command, log: &Path) -> Result<Self, LoadError> {
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

fn done(command: &mut Command) {
    let status = command.status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "failed: {command:?}"
    );
}
