//! A full disk: refused with an error, reads go on, writes again when there is space, and nothing
//! that was acknowledged is lost by a kill -9.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::client::{Client, Via};
use super::support::server::{Server, folder};
use super::support::token::token;
use super::support::{eventually, http};
use super::turn;

const SMALL_DISK: &str = "FAULTS_SMALL_DISK";

/// Not a test: what the test below starts, with a disk of 8 MiB of its own.
#[test]
#[ignore = "the child of a_full_disk_refuses_and_recovers"]
fn child() {
    let disk = PathBuf::from(std::env::var_os(SMALL_DISK).expect("the parent names it"));
    let log = folder();
    let url = format!("sqlite:{}", disk.join("chat.db").display());
    let settings = [("SHARDS", "2"), ("DATABASE_URL", url.as_str())];
    let server = Server::start(log.path(), &settings);
    let mut alice = Client::connect(server.address, Via::WebSocket, &token("alice"));
    alice.join("r");
    // Leaves room for what SQLite needs to end a transaction, then takes the rest step by step.
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![0; 2 << 20]).expect("there is space yet");
    let payload = json!({"roomId": "r", "content": "x".repeat(60_000)});
    let mut acked = 0;
    let refusal = loop {
        let start = Instant::now();
        let ack = alice.call("sendMessage", &payload);
        assert!(start.elapsed() < Duration::from_secs(6), "answered in time");
        if ack["ok"] == false {
            break ack;
        }
        acked += 1;
        assert!(acked < 1_000, "the disk is never full");
    };
    assert_eq!(refusal["error"]["code"], "unavailable", "{refusal}");
    assert!(acked > 10, "{acked}");
    assert_eq!(stored(&server), acked, "reads go on");
    let health = http::get(server.address, "/health", &[]);
    assert_eq!(health.status, 200, "the process lives");
    let mut bob = Client::connect(server.address, Via::Polling, &token("bob"));
    let ack = bob.ok("joinRoom", &json!({"roomId": "r", "lastSeq": acked - 5}));
    assert_eq!(ack["replayed"], 5);

    fs::remove_file(&ballast).expect("it is ours");
    let start = Instant::now();
    eventually("writes again", || {
        (alice.call("sendMessage", &payload)["ok"] == true).then_some(())
    });
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    server.kill();
    let server = Server::start(log.path(), &settings);
    assert_eq!(stored(&server), acked + 1, "nothing acknowledged is lost");
}

fn stored(server: &Server) -> usize {
    let messages = server.all_messages("r");
    for (index, message) in messages.iter().enumerate() {
        assert_eq!(message["seq"], index + 1);
    }
    messages.len()
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let _turn = turn();
    let home = folder();
    let output = in_small_disk(home.path());
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

/// Runs the child in a mount namespace of its own, so that neither a privilege nor cleaning up is
/// needed.
fn in_small_disk(folder: &Path) -> std::process::Output {
    let script = format!(r#"mount -t tmpfs -o size=8m none "${SMALL_DISK}" && exec "$@""#);
    Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(std::env::current_exe().expect("this test has a path"))
        .args(["--exact", "disk::child", "--ignored"])
        .env(SMALL_DISK, folder)
        .output()
        .expect("unshare, of util-linux, is installed")
}
