//! A private Redis, or Valkey: started on a free port, paused, killed, and thrown away.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use project_yum::wire::resp::Replies;
use redis::{Cmd, Value};

use super::support::PATIENCE;

/// A server that ends with its handle.
pub(crate) struct Redis {
    home: tempfile::TempDir,
    program: String,
    port: u16,
    options: Vec<String>,
    process: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    /// Kills it when this process ends in whatever way: its input then reaches the end.
    guard: Child,
}

/// The servers that the tests are to hold for: Redis, and Valkey where `VALKEY_SERVER` says where it is.
pub(crate) fn programs() -> Vec<String> {
    let valkey = std::env::var("VALKEY_SERVER").ok();
    let valkey = valkey.filter(|path| !path.is_empty());
    std::iter::once("redis-server".to_owned())
        .chain(valkey)
        .collect()
}

impl Redis {
    /// Redis, as it comes.
    pub(crate) fn start() -> Self {
        Self::start_with("redis-server", |_| Vec::new())
    }

    /// A program with these options, which may depend on its folder.
    pub(crate) fn start_with(program: &str, options: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let server = Self {
            options: options(home.path()),
            home,
            program: program.to_owned(),
            port: free_port(),
            process: Mutex::new(None),
        };
        server.run();
        server
    }

    /// Starts the process, and waits until it takes connections.
    pub(crate) fn run(&self) {
        let child = Command::new(&self.program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.home.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the package redis-server is installed");
        let guard = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -9 $0 2>/dev/null"])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        *self.lock() = Some(Running { child, guard });
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                begun.elapsed() < PATIENCE,
                "{} does not start",
                self.program
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it; nothing it knew remains.
    pub(crate) fn kill(&self) {
        if let Some(mut running) = self.lock().take() {
            // First the guard, while the server's number is surely its own.
            let _ = running.guard.kill();
            let _ = running.guard.wait();
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }

    /// Stops it, or lets it go on: connections stay, and nothing is answered meanwhile.
    pub(crate) fn pause(&self, is_paused: bool) {
        let running = self.lock();
        let pid = running.as_ref().expect("it runs").child.id().to_string();
        let signal = if is_paused { "STOP" } else { "CONT" };
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The path of a file in its folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// What the last of its options says.
    pub(crate) fn last_option(&self) -> &str {
        self.options.last().expect("it has options")
    }

    /// Its address as a URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection of one's own.
    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it takes connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Connection {
            stream,
            replies: Replies::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.process.lock().expect("nobody panicked")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A blocking client.
pub(crate) struct Connection {
    stream: TcpStream,
    replies: Replies,
}

impl Connection {
    /// Sends commands in one go, and gives their replies.
    pub(crate) fn send(&mut self, commands: &[Cmd]) -> Vec<Value> {
        let packed: Vec<u8> = commands.iter().flat_map(Cmd::get_packed_command).collect();
        self.stream.write_all(&packed).expect("it reads");
        commands.iter().map(|_| self.receive()).collect()
    }

    /// Publishes messages; says how many received them in all.
    pub(crate) fn publish<'a>(
        &mut self,
        messages: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> i64 {
        let publish = |(channel, message)| redis::cmd("PUBLISH").arg(channel).arg(message).clone();
        let commands: Vec<Cmd> = messages.map(publish).collect();
        let counts = self.send(&commands).into_iter().map(|reply| match reply {
            Value::Int(count) => count,
            other => panic!("{other:?}"),
        });
        counts.sum()
    }

    /// How many connections listen to a channel.
    pub(crate) fn listeners(&mut self, channel: &str) -> i64 {
        let ask = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).clone();
        match &*self.send(&[ask]) {
            [Value::Array(pair)] => match pair[..] {
                [_, Value::Int(count)] => count,
                _ => panic!("{pair:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn receive(&mut self) -> Value {
        let mut buffer = [0; 4_096];
        loop {
            if let Some(reply) = self.replies.next_reply().expect("it speaks RESP") {
                return redis::parse_redis_value(&reply).expect("a reply");
            }
            let count = self.stream.read(&mut buffer).expect("it answers");
            assert!(count > 0, "it hung up");
            self.replies.push(&buffer[..count]);
        }
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address").port()
}
