//! What Sentry gets, at an endpoint of the test's own.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use super::support::server::{Server, example, folder, log_of};
use super::support::{PATIENCE, eventually};

/// A request to Sentry: its head, and the lines of its envelope.
struct Received {
    head: String,
    lines: Vec<Value>,
}

/// Listens as Sentry would, and answers everything with 200.
fn endpoint() -> (String, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            let mut bytes = Vec::new();
            let mut chunk = [0; 4096];
            let (head, body) = loop {
                let count = stream.read(&mut chunk).expect("a request comes");
                bytes.extend_from_slice(&chunk[..count]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let head = head.to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.expect("a length").parse().expect("a number");
                if body.len() >= length {
                    break (head, body.to_owned());
                }
            };
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).expect("an answer");
            let lines = body
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"));
            let lines = lines.collect();
            if sender.send(Received { head, lines }).is_err() {
                return;
            }
        }
    });
    (format!("http://key@{address}/7"), received)
}

fn next(received: &Receiver<Received>) -> Received {
    received.recv_timeout(PATIENCE).expect("a report comes")
}

fn check(report: &Received, kind: &str) -> String {
    assert!(
        report.head.starts_with("post /api/7/envelope/"),
        "{}",
        report.head
    );
    assert!(report.head.contains("sentry_key=key"), "{}", report.head);
    let event = &report.lines[2];
    assert_eq!(report.lines[1]["type"], "event");
    let id = report.lines[0]["event_id"]
        .as_str()
        .expect("an id")
        .replace('-', "");
    assert_eq!(event["event_id"], id.as_str());
    let release = concat!("project-yum@", env!("CARGO_PKG_VERSION"));
    assert_eq!(event["release"], release, "{event}");
    assert_eq!(event["environment"], "staging", "{event}");
    assert_eq!(event["exception"]["values"][0]["type"], kind, "{event}");
    assert!(!event.to_string().contains("zebra-content"), "{event}");
    event["event_id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_bug_and_a_panic_are_reported_under_the_id_that_was_told() {
    let (dsn, received) = endpoint();
    let folder = folder();
    let settings = [
        ("SHARDS", "2"),
        ("SENTRY_DSN", dsn.as_str()),
        ("SENTRY_ENVIRONMENT", "staging"),
        ("LOG_LEVEL", "off"),
    ];
    let mut server = Server::start_program(&example("faulty"), folder.path(), &settings);
    server.tell("bug");
    let id = check(&next(&received), "internal");
    let told = eventually("the client's message", || {
        let log = log_of(folder.path());
        let (_, told) = log.split_once("told: ")?;
        Some(told.lines().next()?.to_owned())
    });
    assert!(told.ends_with(&id), "{told} is not {id}");
    eventually("it is counted", || {
        (server.metric("yum_reports_total", "sent") > 0.0).then_some(())
    });

    server.tell("panic");
    let panic = next(&received);
    check(&panic, "panic");
    let event = &panic.lines[2];
    assert_eq!(event["tags"]["shard"], "1", "{event}");
    assert_eq!(event["level"], "fatal");
    let frames = event["exception"]["values"][0]["stacktrace"]["frames"].as_array();
    assert!(frames.is_some_and(|frames| frames.len() > 1), "{event}");
    let status = server.wait(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_panic_is_logged_and_ends_the_process_though_sentry_is_silent() {
    // It takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let dsn = format!("http://key@{address}/7");
    let folder = folder();
    let settings = [("SHARDS", "1"), ("SENTRY_DSN", dsn.as_str())];
    let mut server = Server::start_program(&example("faulty"), folder.path(), &settings);
    server.tell("panic");
    let status = server.wait(Duration::from_secs(8)).expect("it ends soon");
    assert_eq!(status.code(), Some(1));
    let log = log_of(folder.path());
    let line = log
        .lines()
        .find(|line| line.contains("a thread panicked"))
        .expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(line["process.thread.name"], "shard-1");
    assert_eq!(line["error.id"].as_str().map(str::len), Some(32));
    assert!(!log.contains("zebra-content"), "{log}");
}
