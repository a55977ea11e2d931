//! PostgreSQL and Redis of this run alone, on free ports, gone with it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests' own server, of which a part is needed here"
)]
#[path = "../../tests/store/postgres_server.rs"]
mod postgres_server;

use postgres_server::Postgres;

use crate::server::free_port;

/// Both services.
pub(crate) struct Services {
    postgres: Postgres,
    redis: Child,
    redis_port: u16,
    _home: tempfile::TempDir,
}

impl Services {
    /// Starts them.
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let redis_port = free_port();
        let redis = Command::new("redis-server")
            .current_dir(home.path())
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--port",
            ])
            .arg(redis_port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("the package redis-server is installed");
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", redis_port)).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "Redis does not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            postgres: Postgres::start(),
            redis,
            redis_port,
            _home: home,
        }
    }

    /// An empty database of its own: its URL.
    pub(crate) fn database(&self) -> String {
        self.postgres.database()
    }

    /// Where Redis is.
    pub(crate) fn redis(&self) -> String {
        format!("redis://127.0.0.1:{}", self.redis_port)
    }
}

/// The program of PostgreSQL, wherever it is installed.
pub(crate) fn postgres() -> Command {
    postgres_server::command("postgres", &std::env::temp_dir())
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = self.redis.kill();
        let _ = self.redis.wait();
    }
}
