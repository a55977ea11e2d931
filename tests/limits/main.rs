//! Limits, addresses, keys and what SIGHUP changes: the built binary, black box, under live connections.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod forwarded;
mod headers;
mod keys;
mod messages;
mod proxy_protocol;
mod reload;

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use support::http::{Connection, Response};

/// A connection from another address of this machine.
fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let source: IpAddr = source.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    let source = SocketAddr::new(source, 0);
    socket.bind(&source.into()).expect("127.0.0.0/8 is ours");
    socket.connect(&address.into()).expect("the server listens");
    let stream: TcpStream = socket.into();
    stream.set_nodelay(true).expect("a TCP connection");
    stream
}

/// The same, for HTTP.
fn http_from(source: &str, address: SocketAddr) -> Connection {
    Connection::over(connect_from(source, address), address)
}

/// Whether the server ends the connection by `patience` without having said anything.
fn is_closed(stream: &mut TcpStream, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).expect("a time-out");
        match stream.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => panic!("it says something"),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Checks that an answer is a refusal that says when to come back.
fn assert_refused(answer: &Response, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "rate_limited");
    let wait = answer.field("retry-after").expect("Retry-After");
    assert!((1..=10).contains(&wait.parse::<u32>().expect("seconds")));
}
