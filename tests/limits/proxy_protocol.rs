//! The listener for the PROXY protocol.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::client::Client;
use super::support::eventually;
use super::support::http::Connection;
use super::support::server::{Server, folder, log_of};
use super::support::token::token;
use super::{connect_from, is_closed};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const SOON: Duration = Duration::from_secs(3);

fn start(folder: &Path, settings: &[(&str, &str)]) -> (Server, SocketAddr) {
    let common = [
        ("SHARDS", "4"),
        ("DATABASE_URL", "memory:"),
        ("LOG_FORMAT", "json"),
        ("PROXY_PROTOCOL_ADDR", "127.0.0.1:0"),
    ];
    let server = Server::start(folder, &[&common[..], settings].concat());
    let address = eventually("the second listener is told", || {
        let log = log_of(folder);
        let line = log
            .lines()
            .find(|line| line.contains("the PROXY protocol is served"))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["labels"]["address"].as_str()?.parse().ok()
    });
    (server, address)
}

fn version_2(command: u8, source: [u8; 4], tlvs: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let length = u16::try_from(12 + tlvs.len()).expect("short");
    header.extend([0x20 | command, 0x11]);
    header.extend(length.to_be_bytes());
    header.extend(source);
    header.extend([10, 0, 0, 1, 0x12, 0x34, 0, 80]);
    header.extend(tlvs);
    header
}

fn version_1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 10.0.0.1 4660 80\r\n").into_bytes()
}

fn proxied(address: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = connect_from("127.0.0.1", address);
    stream.write_all(header).expect("it is taken");
    stream
}

fn status(stream: TcpStream, address: SocketAddr) -> u16 {
    let mut connection = Connection::over(stream, address);
    let answer = connection.ask("GET", "/api/messages?roomId=r", &[], b"");
    answer.expect("an answer").status
}

#[test]
fn both_versions_name_the_client_and_what_follows_is_http() {
    let folder = folder();
    let (server, address) = start(folder.path(), &[("RATE_HTTP_PER_SECOND", "1")]);
    for round in 0..50_u8 {
        let old = proxied(address, &version_1("203.0.113.1"));
        assert_eq!(status(old, address), 401);
        let new = version_2(1, [203, 0, 113, 1], &vec![round; 8 * usize::from(round)]);
        assert_eq!(status(proxied(address, &new), address), 401);
    }
    assert_eq!(
        status(proxied(address, &version_1("203.0.113.1")), address),
        429
    );
    let new = version_2(1, [203, 0, 113, 1], &[]);
    assert_eq!(status(proxied(address, &new), address), 429);
    for header in [
        version_1("203.0.113.2"),
        // The proxy's own connections, such as its health checks.
        version_2(0, [203, 0, 113, 1], &[]),
        b"PROXY UNKNOWN\r\n".to_vec(),
    ] {
        assert_eq!(status(proxied(address, &header), address), 401);
    }
    // In one piece with the request, and byte by byte.
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let whole = [version_2(1, [203, 0, 113, 9], &[]), request.to_vec()].concat();
    let mut stream = proxied(address, &whole);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut stream = connect_from("127.0.0.1", address);
    for byte in version_1("203.0.113.9") {
        stream.write_all(&[byte]).expect("it is taken");
    }
    assert_eq!(status(stream, address), 401);
    let stream = proxied(address, &version_1("203.0.113.10"));
    let mut alice = Client::over_stream(stream, address, &token("alice"));
    alice.join("r");
    drop(server);
}

#[test]
fn a_connection_without_a_good_header_in_time_is_closed_without_a_word() {
    let folder = folder();
    let (server, address) = start(folder.path(), &[]);
    for wrong in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PROXY TCP4 203.0.113.1 10.0.0.1 4660\r\n",
        b"PROXY TCP4 203.0.113.1 10.0.0.1 4660 80\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c............",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
    ] {
        let mut stream = proxied(address, wrong);
        assert!(is_closed(&mut stream, SOON), "{}", wrong.escape_ascii());
    }
    let refused = server.metric("yum_connections_refused_total", "proxy_header");
    assert!((refused - 6.0).abs() < 0.5, "{refused}");
    // One drips, the other says nothing: the deadline is the header's, not the byte's.
    let start = Instant::now();
    let mut silent = connect_from("127.0.0.1", address);
    let mut dripping = connect_from("127.0.0.1", address);
    let drip = dripping.try_clone().expect("a second handle");
    let dripper = std::thread::spawn(move || {
        for byte in version_1("203.0.113.1").iter().cycle() {
            std::thread::sleep(Duration::from_millis(300));
            if (&drip).write_all(&[*byte]).is_err() || start.elapsed() > Duration::from_secs(9) {
                return;
            }
        }
    });
    assert!(is_closed(&mut silent, Duration::from_secs(9)));
    assert!(is_closed(&mut dripping, Duration::from_secs(9)));
    let took = start.elapsed().as_secs_f64();
    assert!((4.5..8.0).contains(&took), "{took} s");
    drop(dripping);
    dripper.join().expect("it ends");
}

#[test]
fn elsewhere_such_a_header_is_a_bad_request() {
    let folder = folder();
    let (server, _) = start(folder.path(), &[]);
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    for header in [
        version_1("203.0.113.1"),
        version_2(1, [203, 0, 113, 1], &[]),
    ] {
        let mut stream = proxied(server.address, &[&header[..], request].concat());
        let mut answer = String::new();
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        stream.read_to_string(&mut answer).expect("an end");
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
}

#[test]
fn a_connection_that_moves_to_another_shard_still_counts_for_its_client() {
    let folder = folder();
    let (server, address) = start(folder.path(), &[("MAX_CONNECTIONS_PER_IP", "2")]);
    let header = version_1("203.0.113.1");
    for _ in 0..12 {
        let mut one = Connection::over(proxied(address, &header), address);
        let mut two = Connection::over(proxied(address, &header), address);
        let open = one.ask("GET", POLLING, &[], b"").expect("a session").text();
        let open: serde_json::Value = serde_json::from_str(&open[1..]).expect("JSON");
        let session = format!("{POLLING}&sid={}", open["sid"].as_str().expect("a sid"));
        let connect = format!("40{}", json!({"token": token("alice")}));
        let posted = two.ask("POST", &session, &[], connect.as_bytes());
        assert_eq!(posted.expect("an answer").status, 200);
        assert!(is_closed(&mut proxied(address, &header), SOON), "the third");
        assert_eq!(
            two.ask("POST", &session, &[], b"1")
                .expect("an answer")
                .status,
            200
        );
        drop((one, two));
        eventually("both are forgotten", || {
            let mut both: Vec<_> = (0..2)
                .map(|_| Connection::over(proxied(address, &header), address))
                .collect();
            both.iter_mut()
                .all(|connection| connection.ask("GET", "/health", &[], b"").is_ok())
                .then_some(())
        });
        // Those two have to be forgotten as well.
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(server.metric("yum_connections_moved_total", "") > 0.0);
}
