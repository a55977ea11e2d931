//! Each fault with its alert, and with what the README's walk says to look at.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::monitor::Prometheus;
use super::postgres_server::Postgres;
use super::redis_server::Redis;
use super::support::client::{Client, Via};
use super::support::fault::hold_thread;
use super::support::server::{Server, folder, log_of};
use super::support::token::token;
use super::support::{eventually, http};

/// Alerts that tell of a machine without time. The machine of the tests may be one.
const OF_A_BUSY_MACHINE: &[&str] = &["YumTicksLate", "YumAcksSlow", "YumDeliveriesSlow"];

/// A server, and the folder that it works in.
pub(super) struct Planted {
    pub(super) server: Server,
    pub(super) folder: tempfile::TempDir,
}

pub(super) fn plant(settings: &[(&str, &str)]) -> Planted {
    let folder = folder();
    let more = [("SHARDS", "2"), ("RATE_MESSAGES_PER_SECOND", "0")];
    let settings: Vec<_> = more.iter().chain(settings).copied().collect();
    let server = Server::start(folder.path(), &settings);
    Planted { server, folder }
}

impl Planted {
    pub(super) fn instance(&self) -> String {
        self.server.metrics.to_string()
    }

    fn health(&self) -> serde_json::Value {
        http::get(self.server.metrics, "/health", &[]).json()
    }

    pub(super) fn client(&self, room: &str) -> Client {
        let mut client = Client::connect(self.server.address, Via::WebSocket, &token("ann"));
        client.join(room);
        client
    }

    /// How many measures of a histogram were above so many seconds.
    fn above(&self, name: &str, seconds: &str) -> f64 {
        let all = self.server.metric(&format!("{name}_count"), "");
        all - self
            .server
            .metric(&format!("{name}_bucket"), &format!("le=\"{seconds}\""))
    }
}

/// Members of a room that do not read, and a flood for them.
fn slow_consumers(address: SocketAddr) -> Vec<Client> {
    let slow: Vec<Client> = (0..24)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_recv_buffer_size(4096).expect("a small buffer");
            socket.connect(&address.into()).expect("the server accepts");
            let mut client = Client::over_stream(socket.into(), address, &token("slow"));
            client.join("flooded");
            client
        })
        .collect();
    let mut flood = Client::connect(address, Via::WebSocket, &token("flood"));
    flood.join("flooded");
    for _ in 0..80 {
        flood.ok(
            "sendMessage",
            &json!({"roomId": "flooded", "content": "x".repeat(60_000)}),
        );
        while flood.event_within(Duration::ZERO).is_some() {}
    }
    slow
}

/// Leaves a process few descriptors more than it uses.
fn shorten_descriptors(pid: u32) {
    let status = Command::new("prlimit")
        .args([&format!("--pid={pid}"), "--nofile=200:200"])
        .status();
    assert!(
        status
            .expect("prlimit is there (Debian: util-linux)")
            .success()
    );
}

#[test]
fn each_fault_raises_its_alert_and_no_other_server_does() {
    let postgres = Postgres::start();
    let redis = Redis::start();
    let calm = plant(&[]);
    let stored = plant(&[("DATABASE_URL", &postgres.database())]);
    let fleet = plant(&[("REDIS_URL", &redis.url())]);
    let stalled = plant(&[]);
    let slow = plant(&[("OUTBOX_BYTES_MAX", "65536")]);
    let short = plant(&[]);
    let gone = plant(&[]);
    let servers = [&calm, &stored, &fleet, &stalled, &slow, &short, &gone];
    let folder = folder();
    let prometheus = Prometheus::watch(folder.path(), &servers.map(|one| one.server.metrics));
    let mut witness = calm.client("calm");
    let mut writer = stored.client("lobby");
    witness.say("calm", "before");
    writer.say("lobby", "before");
    std::thread::sleep(Duration::from_secs(3));
    let quiet = unexcused(&prometheus);
    assert!(quiet.is_empty(), "before any fault: {quiet:?}");

    redis.kill();
    postgres.signal(Signal::STOP);
    gone.server.signal("KILL");
    let held = hold_thread(stalled.server.pid(), "shard-1", Duration::from_secs(9));
    let unread = slow_consumers(slow.server.address);
    let mut many: Vec<TcpStream> = Vec::new();
    for _ in 0..150 {
        many.push(TcpStream::connect(short.server.address).expect("the server accepts"));
    }
    shorten_descriptors(short.server.pid());
    writer.ask(
        "sendMessage",
        &json!({"roomId": "lobby", "content": "into the silence"}),
    );

    let mut missing: BTreeSet<(String, String)> = [
        ("YumStoreDown", &stored),
        ("YumBusDown", &fleet),
        ("YumShardStalled", &stalled),
        ("YumSlowConsumers", &slow),
        ("YumDescriptorsShort", &short),
        ("YumServerDown", &gone),
    ]
    .into_iter()
    .map(|(alert, planted)| (alert.to_owned(), planted.instance()))
    .collect();
    let expected = missing.clone();
    let start = Instant::now();
    while !missing.is_empty() {
        let left = format!(
            "do not fire: {missing:?}; what does: {:?}",
            prometheus.firing()
        );
        assert!(start.elapsed() < Duration::from_secs(30), "{left}");
        let firing = unexcused(&prometheus);
        let calm = firing.iter().find(|(_, server)| *server == calm.instance());
        assert_eq!(calm, None, "a calm server alarms");
        missing.retain(|alert| !firing.contains(alert));
        std::thread::sleep(Duration::from_millis(200));
        if missing.iter().any(|(alert, _)| alert == "YumStoreDown") {
            writer.ask(
                "sendMessage",
                &json!({"roomId": "lobby", "content": "again"}),
            );
        }
    }
    let firing = unexcused(&prometheus);
    let others: Vec<_> = firing.difference(&expected).collect();
    assert!(
        others.iter().all(|(alert, _)| alert == "YumStoreRefusing"),
        "{others:?}"
    );
    let health = stored.health();
    assert_eq!(
        (&health["status"], &health["store"]["status"]),
        (&json!("degraded"), &json!("degraded"))
    );
    assert_eq!(fleet.health()["bus"]["status"], "degraded");
    postgres.signal(Signal::CONT);
    drop((held, unread, many));
}

/// What fires, but for what the machine itself may be to blame for.
fn unexcused(prometheus: &Prometheus) -> BTreeSet<(String, String)> {
    let mut firing = prometheus.firing();
    firing.retain(|(alert, _)| !OF_A_BUSY_MACHINE.contains(&alert.as_str()));
    firing
}

/// The section that operators read.
fn operating() -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let readme = readme.expect("the README is there");
    let (_, section) = readme.split_once("## Operating\n").expect("a section");
    section
        .split_once("\n## ")
        .expect("a next section")
        .0
        .to_owned()
}

/// The walk names what this looks at.
#[track_caller]
fn named(what: &str) {
    assert!(
        operating().contains(what),
        "the README's walk does not name {what}"
    );
}

#[test]
fn the_walk_leads_to_a_slow_database() {
    let postgres = Postgres::start();
    let planted = plant(&[("DATABASE_URL", &postgres.database())]);
    let mut client = planted.client("lobby");
    client.say("lobby", "before");
    let acks = planted.above("yum_ack_seconds", "1");
    postgres.signal(Signal::STOP);
    let id = client.ask("sendMessage", &json!({"roomId": "lobby", "content": "x"}));
    std::thread::sleep(Duration::from_millis(1_500));
    postgres.signal(Signal::CONT);
    let ack = client
        .ack_within(id, Duration::from_secs(10))
        .expect("an ack");
    assert_eq!(ack["ok"], true, "{ack}");
    // Acks were slow, and so were commits; the shards were not.
    assert!(planted.above("yum_ack_seconds", "1") > acks);
    assert!(planted.above("yum_store_commit_seconds", "1") > 0.5);
    assert!(planted.above("yum_tick_late_seconds", "1") < 0.5);
    // And when it does not come back, health says so, and since when.
    postgres.signal(Signal::STOP);
    let degraded = eventually("health says it", || {
        client.ask("sendMessage", &json!({"roomId": "lobby", "content": "x"}));
        std::thread::sleep(Duration::from_millis(200));
        let health = planted.health();
        (health["store"]["status"] == "degraded").then_some(health)
    });
    assert!(degraded["store"]["since"].is_string(), "{degraded}");
    assert!(planted.server.metric("yum_store_up", "") < 0.5);
    eventually("what it refuses is counted", || {
        client.ask("sendMessage", &json!({"roomId": "lobby", "content": "x"}));
        (planted.server.metric("yum_store_refused_total", "") > 0.5).then_some(())
    });
    postgres.signal(Signal::CONT);
    for name in [
        "yum_ack_seconds",
        "yum_store_commit_seconds",
        "yum_tick_late_seconds",
        "yum_store_up",
        "yum_store_refused_total",
        "`store`",
        "`since`",
    ] {
        named(name);
    }
}

#[test]
fn the_walk_leads_to_a_shard_that_stands_still() {
    let planted = plant(&[]);
    let held = hold_thread(planted.server.pid(), "shard-0", Duration::from_secs(3));
    let health = eventually("health says it", || {
        let health = planted.health();
        (health["status"] == "stalled").then_some(health)
    });
    assert_eq!(health["stalledShards"][0]["shard"], 0, "{health}");
    assert!(planted.server.metric("yum_shard_stalled", "shard=\"0\"") > 0.5);
    eventually("it goes on", || {
        (planted.health()["status"] == "ok").then_some(())
    });
    drop(held);
    assert!(
        planted
            .server
            .metric("yum_shard_stalls_total", "shard=\"0\"")
            > 0.5
    );
    // Count and bucket come from two scrapes, between which the shard may have ticked.
    eventually("the late tick is in the figures", || {
        (planted.above("yum_tick_late_seconds", "1") > 0.5).then_some(())
    });
    for name in [
        "`stalled`",
        "`stalledShards`",
        "yum_shard_stalls_total",
        "yum_tick_late_seconds",
    ] {
        named(name);
    }
}

#[test]
fn the_walk_leads_to_clients_that_do_not_read() {
    let planted = plant(&[]);
    let unread = slow_consumers(planted.server.address);
    eventually("they are closed and counted", || {
        (planted.server.metric("yum_slow_consumers_total", "") > 23.0).then_some(())
    });
    let closed = planted
        .server
        .metric("yum_sessions_closed_total", "slow_consumer");
    assert!(closed > 23.0, "{closed}");
    assert_eq!(planted.health()["status"], "ok");
    let log = log_of(planted.folder.path());
    assert!(log.contains("it does not read what is sent to it"), "{log}");
    drop(unread);
    for name in [
        "yum_slow_consumers_total",
        "yum_outbox_bytes",
        "it does not read what is sent to it",
    ] {
        named(name);
    }
}
