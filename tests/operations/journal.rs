//! What the log says, what it never says, and that nobody waits for it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::client::{Client, Via};
use super::support::eventually;
use super::support::http;
use super::support::server::{Server, folder, log_of};
use super::support::token::{OLD_SECRET, SECRET, token};

/// What a person wrote; no line may hold it.
const CONTENT: &str = "zebra-content";

fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn each_line_names_its_request_or_socket_and_no_secret() {
    let folder = folder();
    let settings = [
        ("SHARDS", "2"),
        ("LOG_LEVEL", "trace"),
        ("LOG_FORMAT", "json"),
    ];
    let mut server = Server::start(folder.path(), &settings);
    let user = token("ann");
    for via in [Via::WebSocket, Via::Polling] {
        let mut client = Client::connect(server.address, via, &user);
        client.join("lobby");
        client.say("lobby", CONTENT);
        client.refused(
            "sendMessage",
            &json!({"roomId": "elsewhere", "content": CONTENT}),
        );
    }
    let fields = [
        ("Authorization", format!("Bearer {user}")),
        ("X-Request-Id", "from-a-proxy".to_owned()),
    ];
    let fields = fields
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let history = http::get(
        server.address,
        &format!("/api/messages?roomId=lobby&x={CONTENT}"),
        &fields,
    );
    assert_eq!(history.status, 200);
    server.signal("TERM");
    server.wait(Duration::from_secs(12)).expect("it ends");
    let log = log_of(folder.path());
    for secret in [CONTENT, SECRET, OLD_SECRET, &user, "sid="] {
        assert!(!log.contains(secret), "{secret} is logged");
    }
    let mut seen = BTreeMap::<String, usize>::new();
    for line in lines(&log) {
        assert!(
            line["@timestamp"].is_string() && line["log.level"].is_string(),
            "{line}"
        );
        assert_eq!(line["service.name"], "project-yum");
        let message = line["message"].as_str().expect("a message").to_owned();
        match message.as_str() {
            "request answered" => assert!(line["http.request.id"].is_string(), "{line}"),
            "event answered" | "connected" | "disconnected" => {
                assert_eq!(
                    line["labels"]["socket"].as_str().map(str::len),
                    Some(20),
                    "{line}"
                );
            }
            _ => {}
        }
        *seen.entry(message).or_default() += 1;
    }
    assert_eq!(seen["event answered"], 6);
    assert_eq!((seen["connected"], seen["disconnected"]), (2, 2));
    assert!(
        log.contains("\"http.request.id\":\"from-a-proxy\""),
        "{log}"
    );
}

#[test]
fn the_level_may_differ_by_module() {
    let folder = folder();
    let settings = [
        ("SHARDS", "1"),
        ("LOG_FORMAT", "json"),
        ("LOG_LEVEL", "warn,project_yum::chat=debug"),
    ];
    let server = Server::start(folder.path(), &settings);
    let mut client = Client::connect(server.address, Via::WebSocket, &token("ann"));
    client.join("lobby");
    eventually("a line of the chat", || {
        log_of(folder.path())
            .contains("project_yum::chat")
            .then_some(())
    });
    server.kill();
    for line in lines(&log_of(folder.path())) {
        let logger = line["log.logger"].as_str().expect("a logger");
        assert!(
            logger.starts_with("project_yum::chat") || line["log.level"] != "info",
            "{line}"
        );
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_client() {
    let folder = folder();
    // A pipe that is not read: after 64 KiB the writer stands still.
    let mut server = Command::new(env!("CARGO_BIN_EXE_project-yum"))
        .current_dir(folder.path())
        .env_clear()
        .envs([("PORT", "0"), ("METRICS_ADDR", "none"), ("SHARDS", "1")])
        .envs([
            ("JWT_SECRET", SECRET),
            ("HOST", "127.0.0.1"),
            ("LOG_LEVEL", "trace"),
            ("RATE_MESSAGES_PER_SECOND", "0"),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut said = server.stdout.take().expect("piped");
    let mut text = Vec::new();
    let address = loop {
        let mut byte = [0];
        said.read_exact(&mut byte).expect("it says where it serves");
        text.push(byte[0]);
        let line = String::from_utf8_lossy(&text).into_owned();
        if let Some((_, rest)) = line.split_once("http://")
            && let Some((address, _)) = rest.split_once(' ')
        {
            break address.parse().expect("an address");
        }
    };
    let mut client = Client::connect(address, Via::WebSocket, &token("ann"));
    client.join("lobby");
    // Far more lines than the pipe and the queue hold.
    for _ in 0..60 {
        let payloads = vec![json!({"roomId": "lobby"}); 200];
        let acks = client.ask_all("joinRoom", &payloads);
        for id in acks {
            let ack = client.ack_within(id, Duration::from_secs(5));
            assert_eq!(ack.expect("an ack")["ok"], true);
        }
    }
    server.kill().expect("it runs");
    server.wait().expect("it ends");
}
