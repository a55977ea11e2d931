//! A shard that stands still, and what the service manager, the log and the health say of it.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use super::support::eventually;
use super::support::fault::hold_thread;
use super::support::http;
use super::support::server::{Server, folder, log_of};

/// The service manager's end.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        Self { socket }
    }

    /// What was said until `patience` passed, or until something said holds `until`.
    fn said(&self, until: &str, patience: Duration) -> Vec<(Instant, String)> {
        let end = Instant::now() + patience;
        let mut said = Vec::new();
        let mut datagram = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return said;
            }
            self.socket
                .set_read_timeout(Some(left))
                .expect("a time-out");
            let Ok(count) = self.socket.recv(&mut datagram) else {
                continue;
            };
            let text = String::from_utf8_lossy(&datagram[..count]).into_owned();
            let is_last = text.contains(until);
            said.push((Instant::now(), text));
            if is_last {
                return said;
            }
        }
    }

    fn expect(&self, text: &str) {
        let said = self.said(text, Duration::from_secs(20));
        assert!(
            said.last().is_some_and(|(_, last)| last.contains(text)),
            "no {text}: {said:?}"
        );
    }
}

#[test]
fn the_service_manager_hears_of_start_stall_and_end() {
    let folder = folder();
    let path = folder.path().join("notify");
    let manager = Manager::listen(&path);
    let settings = [
        ("SHARDS", "2"),
        ("LOG_FORMAT", "json"),
        ("NOTIFY_SOCKET", path.to_str().expect("a plain path")),
        ("WATCHDOG_USEC", "1000000"),
    ];
    let mut server = Server::start(folder.path(), &settings);
    manager.expect("READY=1\nSTATUS=ok");
    server.signal("HUP");
    manager.expect("RELOADING=1\nMONOTONIC_USEC=");
    manager.expect("READY=1\nSTATUS=ok");
    // At least two a second, each well before the manager's patience ends.
    let beats = manager.said("never said", Duration::from_secs(2));
    let beats: Vec<_> = beats
        .iter()
        .filter(|(_, text)| text.contains("WATCHDOG=1"))
        .collect();
    assert!(beats.len() >= 3, "{beats:?}");

    let held = hold_thread(server.pid(), "shard-1", Duration::from_secs(4));
    manager.expect("STATUS=stalled: shard 1 stands still since ");
    // The liveness probe of the other listener answers though the shard does not.
    let health = http::get(server.metrics, "/health", &[]);
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (503, Some("stalled"))
    );
    assert_eq!(health.json()["stalledShards"][0]["shard"], 1);
    assert!(
        health.json()["stalledShards"][0]["since"].is_string(),
        "{}",
        health.text()
    );
    assert!((server.metric("yum_shard_stalled", "shard=\"1\"") - 1.0).abs() < 0.1);
    assert!(server.metric("yum_shard_stalled", "shard=\"0\"").abs() < 0.1);
    let noticed = Instant::now();
    let silent = manager.said("STATUS=ok", Duration::from_secs(20));
    let mut beats = silent
        .iter()
        .filter(|(_, text)| text.contains("WATCHDOG=1"));
    let first = beats.next().expect("signs of life again").0 - noticed;
    assert!(first > Duration::from_secs(1), "{silent:?}");
    drop(held);
    assert!((server.metric("yum_shard_stalls_total", "shard=\"1\"") - 1.0).abs() < 0.1);
    let log = log_of(folder.path());
    assert!(
        log.contains("the shard has not ticked for 2 s") && log.contains("the shard ticks again"),
        "{log}"
    );

    server.signal("TERM");
    manager.expect("STOPPING=1");
    let status = server.wait(Duration::from_secs(12)).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_shard_that_never_comes_back_ends_the_process() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[("SHARDS", "2"), ("LOG_FORMAT", "json")]);
    let start = Instant::now();
    let held = hold_thread(server.pid(), "shard-0", Duration::from_mins(1));
    let status = server
        .wait(Duration::from_secs(20))
        .expect("it ends for a restart");
    assert_eq!(status.code(), Some(1));
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(9), "{took:?}");
    drop(held);
    let log = log_of(folder.path());
    assert!(
        log.contains("the shard has stood still for 10 s: ending"),
        "{log}"
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[("SHARDS", "1"), ("DRAIN_SECONDS", "60")]);
    // The shard does not look, so that the drain lasts.
    let held = hold_thread(server.pid(), "shard-0", Duration::from_secs(30));
    server.signal("TERM");
    eventually("it drains", || {
        (http::get(server.metrics, "/health", &[]).json()["status"] == "draining").then_some(())
    });
    assert!(
        server.wait(Duration::from_millis(300)).is_none(),
        "it drains"
    );
    let start = Instant::now();
    server.signal("TERM");
    let status = server.wait(Duration::from_secs(5)).expect("it ends");
    assert_eq!(status.code(), Some(1));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    drop(held);
}
