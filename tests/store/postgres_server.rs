//! A private PostgreSQL for the tests: made, started on a free port, and thrown away.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The user that it runs as when the tests are root's: PostgreSQL refuses root.
const UNPRIVILEGED: u32 = 65_534;

/// A server that ends with its last handle.
pub(crate) struct Postgres {
    home: tempfile::TempDir,
    port: u16,
    process: Mutex<Option<Child>>,
}

/// The server that the tests share which do not harm it.
static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());

impl Postgres {
    /// The server of all harmless tests that run at this moment.
    pub(crate) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap();
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start());
        *shared = Arc::downgrade(&started);
        started
    }

    /// A server of one's own.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same, changed before it runs.
    pub(crate) fn start_with(change: impl FnOnce(&Path)) -> Self {
        let (home, port) = (home(), free_port());
        let data = home.path().join("data");
        let made = command("initdb", home.path())
            .args([
                "--username=yum",
                "--auth-host=scram-sha-256",
                "--auth-local=trust",
            ])
            .args([
                "--encoding=UTF8",
                "--no-sync",
                "--no-instructions",
                "--pgdata",
            ])
            .arg(&data)
            .output()
            .expect("the packages postgresql and util-linux (setpriv) are installed");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        change(&data);
        let server = Self {
            home,
            port,
            process: Mutex::new(None),
        };
        server.run();
        server.sql("ALTER USER yum PASSWORD 'secret'");
        server
    }

    /// A hot standby of this server, which replays each commit so many milliseconds late.
    pub(crate) fn replica(&self, late_ms: u32) -> Self {
        let (home, port) = (home(), free_port());
        let data = home.path().join("data");
        let made = command("pg_basebackup", home.path())
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .args(["--username=yum", "--pgdata"])
            .arg(&data)
            .arg("--host")
            .arg(self.home.path())
            .arg(format!("--port={}", self.port))
            .output()
            .expect("pg_basebackup is a part of the package postgresql");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        let mut settings = std::fs::File::options()
            .append(true)
            .open(data.join("postgresql.auto.conf"))
            .unwrap();
        writeln!(settings, "recovery_min_apply_delay = {late_ms}").unwrap();
        let replica = Self {
            home,
            port,
            process: Mutex::new(None),
        };
        replica.run();
        replica
    }

    /// Starts the process, and waits until it answers.
    pub(crate) fn run(&self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("log"))
            .unwrap();
        let child = command("postgres", self.home.path())
            .arg("-D")
            .arg(self.home.path().join("data"))
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "max_connections=100",
            ])
            .arg("-p")
            .arg(self.port.to_string())
            .arg("-k")
            .arg(self.home.path())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        *self.process.lock().unwrap() = Some(child);
        let begun = Instant::now();
        while !self.psql("postgres", "SELECT 1").status.success() {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "it does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Kills every process of it, as if the machine had stopped.
    pub(crate) fn kill(&self) {
        let Some(mut child) = self.process.lock().unwrap().take() else {
            return;
        };
        // One that is paused would not notice that the head is gone.
        let children = children(child.id());
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        for pid in children {
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
        }
        let _ = child.wait();
        // The children of the head are gone a moment after it; a new one refuses to start until then.
        std::thread::sleep(Duration::from_millis(50));
    }

    /// Sends a signal to every process of it.
    pub(crate) fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap();
        let child = process.as_ref().expect("it runs");
        for pid in std::iter::once(child.id()).chain(children(child.id())) {
            let pid = Pid::from_raw(pid.cast_signed()).unwrap();
            let _ = kill_process(pid, signal);
        }
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its Unix socket.
    pub(crate) fn directory(&self) -> &Path {
        self.home.path()
    }

    /// A new database, as a URL.
    pub(crate) fn database(&self) -> String {
        let name = format!("d{}", uuid::Uuid::now_v7().simple());
        self.sql(&format!("CREATE DATABASE {name}"));
        format!("postgres://yum:secret@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs SQL as the owner of everything and returns what it prints.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    /// The same in one database.
    pub(crate) fn sql_in(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn psql(&self, database: &str, sql: &str) -> std::process::Output {
        Command::new(program("psql"))
            .args([
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "yum",
                "-d",
                database,
                "-c",
                sql,
            ])
            .arg("-h")
            .arg(self.home.path())
            .arg("-p")
            .arg(self.port.to_string())
            .output()
            .expect("the package postgresql-client is installed")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The processes that the head has started: each is its own group's leader, as PostgreSQL makes them.
fn children(head: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{head}/task/{head}/children"));
    listed
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// A directory that the server may use.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    if is_root() {
        chown(home.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
    }
    home
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One of PostgreSQL's programs: where `pg_config` says, where Debian keeps it, or on the path.
fn program(name: &str) -> PathBuf {
    let asked = Command::new("pg_config").arg("--bindir").output();
    let directory = asked
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let asked = directory.map(|directory| PathBuf::from(directory.trim()));
    let kept = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut kept: Vec<PathBuf> = kept.map(|version| version.path().join("bin")).collect();
    kept.sort();
    let places = asked.into_iter().chain(kept.into_iter().rev());
    places
        .map(|place| place.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| name.into())
}

/// A program, run as the user whom PostgreSQL runs as.
pub(crate) fn command(name: &str, directory: &Path) -> Command {
    let program = program(name);
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        let id = UNPRIVILEGED.to_string();
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(directory);
    command
}
