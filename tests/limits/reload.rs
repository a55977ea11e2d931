//! SIGHUP under live connections.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::client::{Client, Via};
use super::support::eventually;
use super::support::http;
use super::support::server::{Server, folder, log_of};
use super::support::token::{OLD_SECRET, SECRET, now_seconds, signed_with};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// Settings that a start takes from `.env`, because the environment leaves them empty.
fn start(folder: &Path) -> Server {
    let settings = [
        ("SHARDS", "4"),
        ("DATABASE_URL", "memory:"),
        ("LOG_FORMAT", "json"),
        ("JWT_SECRET", ""),
        ("RATE_MESSAGES_PER_SECOND", ""),
        ("RATE_HTTP_PER_SECOND", ""),
        ("MAX_CONNECTIONS_PER_IP", ""),
        ("TRUST_PROXY", "none"),
    ];
    Server::start(folder, &settings)
}

fn token(user: &str, secret: &str) -> String {
    let claims = json!({"sub": user, "exp": now_seconds() + 3600.0});
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    signed_with(&claims, &header, secret)
}

fn history(server: &Server, secret: &str) -> u16 {
    let authorization = format!("Bearer {}", token("alice", secret));
    let fields = [("Authorization", authorization.as_str())];
    http::get(server.address, "/api/messages?roomId=r", &fields).status
}

fn handshake(server: &Server, origin: &str) -> u16 {
    http::get(server.address, POLLING, &[("Origin", origin)]).status
}

/// Writes `.env`, sends SIGHUP, and waits until it was dealt with.
fn reload(server: &Server, folder: &Path, dotenv: &str, outcome: &str) {
    std::fs::write(folder.join(".env"), dotenv).expect("written");
    let count = || server.metric("yum_reloads_total", outcome);
    let before = count();
    server.signal("HUP");
    eventually("it is reread", || (count() > before).then_some(()));
}

#[test]
fn what_may_change_changes_everywhere_and_connections_stay() {
    let folder = folder();
    let path = folder.path();
    let off = "RATE_MESSAGES_PER_SECOND=0\nRATE_HTTP_PER_SECOND=0\nMAX_CONNECTIONS_PER_IP=0\n";
    std::fs::write(path.join(".env"), format!("JWT_SECRET={SECRET}\n{off}")).expect("written");
    let server = start(path);
    // Enough for every shard to have some.
    let mut clients: Vec<Client> = (0..12)
        .map(|n| {
            let token = token(&format!("user-{n}"), SECRET);
            Client::connect(server.address, Via::WebSocket, &token)
        })
        .collect();
    let rooms: Vec<String> = (0..12).map(|n| format!("room-{n}")).collect();
    for (client, room) in clients.iter_mut().zip(&rooms) {
        client.join(room);
    }
    assert_eq!(
        (history(&server, SECRET), history(&server, OLD_SECRET)),
        (200, 401)
    );
    assert_eq!(handshake(&server, "https://b.example"), 200);

    let new = format!(
        "JWT_SECRET={OLD_SECRET}\nRATE_MESSAGES_PER_SECOND=1\nRATE_BURST=2\nRATE_HTTP_PER_SECOND=0\n\
         MAX_CONNECTIONS_PER_IP=0\nCORS_ORIGINS=https://a.example\nDRAIN_SECONDS=3\n"
    );
    reload(&server, path, &new, "done");
    eventually("every shard goes by it", || {
        let all_new = (0..8).all(|_| {
            let codes = (history(&server, SECRET), history(&server, OLD_SECRET));
            codes == (401, 200) && handshake(&server, "https://b.example") == 403
        });
        all_new.then_some(())
    });
    assert_eq!(handshake(&server, "https://a.example"), 200);
    for (client, room) in clients.iter_mut().zip(&rooms) {
        let payloads = vec![json!({"roomId": room, "content": "x"}); 4];
        let ids = client.ask_all("sendMessage", &payloads);
        let acks: Vec<Value> = ids
            .into_iter()
            .map(|id| {
                client
                    .ack_within(id, super::support::PATIENCE)
                    .expect("an ack")
            })
            .collect();
        assert_eq!(
            (&acks[0]["ok"], &acks[1]["ok"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(acks[3]["error"]["code"], "rate_limited", "{acks:?}");
    }
    let log = log_of(path);
    let line = |text: &str| {
        let found = log.lines().find(|line| line.contains(text));
        serde_json::from_str::<Value>(found.unwrap_or_else(|| panic!("{text}: {log}")))
            .expect("JSON")
    };
    let changed = "JWT_SECRET, CORS_ORIGINS, RATE_MESSAGES_PER_SECOND, RATE_BURST";
    assert_eq!(
        line("the settings were reread")["labels"]["changed"],
        changed
    );
    assert_eq!(
        line("need a restart")["labels"]["settings"],
        "DRAIN_SECONDS"
    );

    reload(
        &server,
        path,
        &new.replace("BURST=2", "BURST=two"),
        "refused",
    );
    assert!(log_of(path).contains("RATE_BURST: must be a whole number"));
    assert_eq!(
        (history(&server, SECRET), history(&server, OLD_SECRET)),
        (401, 200)
    );

    // The level holds before this reload is told.
    let said = || log_of(path).matches("the settings were reread").count();
    let before = said();
    reload(&server, path, &format!("{new}LOG_LEVEL=error\n"), "done");
    assert_eq!(said(), before);
    let log = log_of(path);
    assert!(
        !log.contains(SECRET) && !log.contains(OLD_SECRET),
        "values are not logged"
    );
}

#[test]
fn limits_by_address_change_too_and_a_drain_ends_the_server_all_the_same() {
    let folder = folder();
    let path = folder.path();
    let with = |rest: &str| format!("JWT_SECRET={SECRET}\n{rest}");
    std::fs::write(path.join(".env"), with("MAX_CONNECTIONS_PER_IP=0\n")).expect("written");
    let mut server = start(path);
    let address = server.address;
    let count = |most: usize| {
        let connections: Vec<_> = (0..most)
            .map(|_| super::http_from("127.0.0.9", address))
            .collect();
        let answered = connections.into_iter().map(|mut connection| {
            let answer = connection.ask("GET", "/health", &[], b"");
            (connection, answer.is_ok())
        });
        let answered: Vec<_> = answered.collect();
        answered.iter().filter(|(_, is_ok)| *is_ok).count()
    };
    assert_eq!(count(6), 6);
    reload(&server, path, &with("MAX_CONNECTIONS_PER_IP=2\n"), "done");
    eventually("two are served", || (count(6) == 2).then_some(()));
    server.signal("HUP");
    server.signal("TERM");
    let status = server.wait(super::support::PATIENCE).expect("it ends");
    assert!(status.success(), "{status}");
}

#[test]
fn of_those_who_ask_while_it_reloads_one_waits() {
    let folder = folder();
    let path = folder.path().join("secret");
    std::fs::write(&path, SECRET).expect("written");
    let settings = [
        ("SHARDS", "1"),
        ("DATABASE_URL", "memory:"),
        ("JWT_SECRET", ""),
        ("JWT_SECRET_FILE", path.to_str().expect("a path")),
    ];
    let server = Server::start(folder.path(), &settings);
    // Whoever reads it now waits for what is written.
    std::fs::remove_file(&path).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("it is there").success());
    for _ in 0..4 {
        server.signal("HUP");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(history(&server, SECRET), 200, "nobody waits for it");
    let done = || server.metric("yum_reloads_total", "done");
    for count in [1.0, 2.0] {
        std::fs::write(&path, SECRET).expect("somebody reads");
        eventually("it has reloaded", || (done() >= count).then_some(()));
    }
    std::thread::sleep(Duration::from_millis(300));
    let reader = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&path);
    assert!(reader.is_err(), "nobody reads it a third time");
    assert!((done() - 2.0).abs() < 0.5);
}
