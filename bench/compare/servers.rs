//! The servers: how each is started as its makers recommend, driven once, and ended.

use std::path::{Path, PathBuf};
use std::process::Command;

use project_yum::load::{LoadError, named};

use crate::kind::Kind;
use crate::rows::{Row, Storage};
use crate::server::{self, SECRET, Server};
use crate::services::Services;
use crate::table::Figures;

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
        let script = |program: PathBuf, script| {
            let mut command = Command::new(program);
            command.arg(self.folder.join(script));
            command
        };
        let mut command = match kind {
            Kind::Ours => server::ours(shards),
            Kind::Node | Kind::Uws => script("node".into(), "node.mjs"),
            Kind::Bun => script(self.folder.join("node_modules/.bin/bun"), "bun.mjs"),
            Kind::Socketioxide => Command::new(&self.socketioxide),
        };
        command
            .current_dir(self.logs.path())
            .env("JWT_SECRET", SECRET)
            .env("NODE_ENV", "production");
        match kind {
            Kind::Node => command.env("PEER", "ws"),
            Kind::Uws => command.env("PEER", "uws"),
            _ => &mut command,
        };
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
        let mut command = self.command(kind, shards, row.storage, services);
        let server = Server::start(&mut command, &self.logs.path().join(kind.name()))?;
        if row.fills {
            server.drive(&named::fill())?;
        }
        let report = server.drive(&row.scenario)?;
        Ok(row.figures(report))
    }
}

/// Starts our own server alone.
pub(crate) fn ours(
    services: &Services,
    shards: usize,
    storage: Storage,
) -> Result<Server, LoadError> {
    let peers = Peers::prepare(&[]);
    let mut command = peers.command(Kind::Ours, shards, storage, services);
    let mut server = Server::start(&mut command, &peers.logs.path().join("ours"))?;
    server.home = Some(peers.logs);
    Ok(server)
}

fn done(command: &mut Command) {
    let status = command.status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "failed: {command:?}"
    );
}
