//! Pages of history from a replica: a real one, that is late, and then away.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::postgres_server::Postgres;
use super::support::client::{Client, Via};
use super::support::server::{Server, folder, log_of};
use super::support::token::token;
use super::support::{eventually, http};
use super::turn;

/// How late the replica is.
const LATE_MS: u32 = 2_000;

/// How many pages came out so.
fn pages(server: &Server, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    server.metric("yum_store_replica_reads_total", &label)
}

/// The messages of the newest page, from whoever reads it.
fn newest_page(server: &Server) -> Vec<String> {
    let page = server.history("roomId=r");
    assert_eq!(page.status, 200, "{}", page.text());
    let page = page.json();
    let messages = page["messages"].as_array().expect("messages");
    let content = |message: &serde_json::Value| message["content"].as_str().map(str::to_owned);
    messages.iter().filter_map(content).collect()
}

/// What the log says of the replica's failures.
fn failures(folder: &Path) -> Vec<String> {
    let log = log_of(folder);
    assert!(!log.contains("yum:secret"), "a secret is in the log");
    let of_replica = |line: &&str| line.contains("replica 1") && line.contains("a replica fails");
    log.lines().filter(of_replica).map(str::to_owned).collect()
}

#[test]
fn a_late_replica_serves_what_it_holds_and_an_absent_one_is_not_missed() {
    let _turn = turn();
    let primary = Postgres::start();
    let url = primary.database();
    let replica = primary.replica(LATE_MS);
    let at = |server: &Postgres| format!(":{}/", server.port());
    let replica_url = url.replace(&at(&primary), &at(&replica));
    let folder = folder();
    let settings = [
        ("SHARDS", "2"),
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_REPLICA_URLS", replica_url.as_str()),
    ];
    let server = Server::start(folder.path(), &settings);
    // It has not even the tables yet. Then it serves, also a room of which nobody knows anything.
    eventually("the replica serves a page", || {
        assert!(newest_page(&server).is_empty());
        (pages(&server, "served") > 0.0).then_some(())
    });

    let mut client = Client::connect(server.address, Via::WebSocket, &token("ann"));
    client.join("r");
    let mut said = Vec::new();
    for text in ["one", "two"] {
        client.say("r", text);
        said.push(text.to_owned());
        let (before, behind) = (pages(&server, "served"), pages(&server, "behind"));
        assert_eq!(newest_page(&server), said, "the page lacks what was acked");
        assert!(pages(&server, "behind") > behind, "the replica is not late");
        // Once it has caught up, it is asked again; and no page is ever without the message.
        eventually("the replica serves a page again", || {
            assert_eq!(newest_page(&server), said);
            (pages(&server, "served") > before).then_some(())
        });
    }
    let before = pages(&server, "served") + pages(&server, "behind");
    assert_eq!(server.all_messages("r").len(), 2);
    let after = pages(&server, "served") + pages(&server, "behind");
    assert!((after - before).abs() < 0.5, "afterSeq asked the replica");

    let known = failures(folder.path()).len();
    replica.kill();
    for _ in 0..20 {
        assert_eq!(newest_page(&server), said);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(pages(&server, "unreachable") > 0.0);
    for path in ["/health", "/health/ready"] {
        let health = http::get(server.address, path, &[]);
        assert_eq!(health.status, 200, "{}", health.text());
        assert_eq!(health.json()["status"], "ok", "only pages need a replica");
    }
    let failed = failures(folder.path()).split_off(known);
    assert_eq!(failed.len(), 1, "one line says it: {failed:?}");
    assert!(
        failed[0].contains(&replica.port().to_string()),
        "{failed:?}"
    );
    assert_eq!(
        client.call("sendMessage", &json!({"roomId": "r", "content": "three"}))["seq"],
        3
    );

    replica.run();
    let before = pages(&server, "served");
    eventually("the replica serves a page after its return", || {
        assert_eq!(newest_page(&server), ["one", "two", "three"]);
        (pages(&server, "served") > before).then_some(())
    });
}
