//! Start, health, log and end of the program.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_project-yum");
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    child: Child,
    out: Receiver<String>,
    log: Receiver<String>,
    address: SocketAddr,
    metrics: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(PROGRAM)
            .current_dir(folder.path())
            .env_clear()
            .envs([
                ("PORT", "0"),
                ("METRICS_ADDR", "127.0.0.1:0"),
                ("LOG_FORMAT", "json"),
            ])
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = lines(child.stdout.take().expect("piped"));
        let log = lines(child.stderr.take().expect("piped"));
        let metrics = find(&log, |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let served = line["message"] == "metrics are served";
            served.then(|| line["labels"]["address"].as_str()?.parse().ok())?
        });
        let address = find(&out, |line| {
            let (_, rest) = line.split_once("http://")?;
            rest.split_once(' ')?.0.parse().ok()
        });
        Self {
            child,
            out,
            log,
            address,
            metrics,
            _folder: folder,
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill is there").success());
    }

    fn end(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status.code(), start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn find<T>(lines: &Receiver<String>, wanted: impl Fn(&str) -> Option<T>) -> T {
    let mut seen = Vec::new();
    let end = Instant::now() + PATIENCE;
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if let Some(found) = wanted(&line) {
            return found;
        }
        seen.push(line);
    }
    panic!("not found in {seen:#?}");
}

fn ask(address: SocketAddr, request: &str) -> String {
    ask_as(address, &address.to_string(), request)
}

fn ask_as(address: SocketAddr, host: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let request = format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("it answers with text");
    answer
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn the_demo_serves_its_page_its_health_and_nothing_else() {
    let server = Server::start(&[("SHARDS", "2")]);
    let page = ask(server.address, "GET /");
    assert_eq!(status(&page), "200", "{page}");
    assert!(page.contains("script-src 'sha256-") && page.contains("\"token\":\"ey"));
    // A name of somebody else's that resolves to this machine.
    let other = ask_as(server.address, "evil.example", "GET /");
    assert_eq!(status(&other), "403", "{other}");
    let health = ask(server.address, "GET /health");
    assert_eq!(status(&health), "200");
    assert!(
        health.contains("\"status\":\"ok\"") && health.contains("\"shards\":2"),
        "{health}"
    );
    assert_eq!(status(&ask(server.address, "GET /health/ready")), "200");
    assert!(ask(server.address, "HEAD /health").ends_with("\r\n\r\n"));
    assert_eq!(status(&ask(server.address, "GET /metrics")), "404");
    let refused = ask(server.address, "DELETE /health");
    assert_eq!(status(&refused), "405", "{refused}");
    assert!(
        refused.to_ascii_lowercase().contains("\r\nallow: get"),
        "{refused}"
    );
    let history = ask(server.address, "GET /api/messages?roomId=lobby");
    assert_eq!(status(&history), "401", "{history}");
}

#[test]
fn production_has_no_page() {
    let secret = "0123456789abcdef0123456789abcdef";
    let server = Server::start(&[
        ("JWT_SECRET", secret),
        ("HOST", "127.0.0.1"),
        ("SHARDS", "1"),
    ]);
    assert_eq!(status(&ask(server.address, "GET /")), "404");
}

#[test]
fn metrics_and_health_have_a_listener_of_their_own() {
    let server = Server::start(&[("SHARDS", "1")]);
    let _ = ask(server.address, "GET /health");
    let scrape = ask(server.metrics, "GET /metrics");
    assert_eq!(status(&scrape), "200");
    assert!(
        scrape.contains("# TYPE yum_connections_accepted_total counter"),
        "{scrape}"
    );
    assert!(scrape.contains("yum_build_info{version="), "{scrape}");
    assert_eq!(status(&ask(server.metrics, "GET /health")), "200");
}

#[test]
fn a_signal_ends_it_cleanly_and_every_log_line_is_an_object() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&[("SHARDS", "2")]);
        server.signal(signal);
        let (code, _) = server.end();
        let log: Vec<String> = server.log.iter().collect();
        assert_eq!(code, Some(0), "{log:#?}");
        let said: Vec<String> = server.out.iter().collect();
        let tokens: Vec<&str> = said
            .iter()
            .filter_map(|line| line.split_once(": ey"))
            .map(|(_, token)| token)
            .collect();
        assert_eq!(tokens.len(), 2, "{said:#?}");
        for line in &log {
            let object: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(
                object["@timestamp"].is_string() && object["log.level"].is_string(),
                "{line}"
            );
            assert!(
                !tokens.iter().any(|token| line.contains(token)),
                "a token is logged"
            );
        }
    }
}

#[test]
fn a_port_that_is_taken_is_said_and_ends_with_1() {
    let server = Server::start(&[("SHARDS", "1")]);
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(PROGRAM)
        .current_dir(folder.path())
        .env_clear()
        .env("PORT", server.address.port().to_string())
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("cannot listen on") && errors.contains("PORT"),
        "{errors}"
    );
}
