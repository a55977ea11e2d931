//! One HTTP/1.1 connection, kept alive; a request may wait for its answer while others go elsewhere.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(n, _)| n == name);
        field.map(|(_, value)| value.as_str())
    }
}

/// A connection.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream, address))
    }

    /// Over a TCP connection made by the caller.
    pub(crate) fn over(stream: TcpStream, address: SocketAddr) -> Self {
        let read = Vec::new();
        Self {
            address,
            stream,
            read,
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        self.send(method, target, fields, body)?;
        let answer = self.receive(Instant::now() + PATIENCE)?;
        answer.ok_or_else(|| ErrorKind::TimedOut.into())
    }

    /// Sends a request.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in fields {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if method == "POST" {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes)
    }

    /// All that comes until the server closes the connection.
    pub(crate) fn rest(mut self) -> std::io::Result<String> {
        let mut text = String::from_utf8(self.read).map_err(std::io::Error::other)?;
        self.stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The next answer; `None` when it has not come by `deadline`.
    pub(crate) fn receive(&mut self, deadline: Instant) -> std::io::Result<Option<Response>> {
        loop {
            if let Some((response, length)) = parse(&self.read) {
                self.read.drain(..length);
                return Ok(Some(response));
            }
            match read_some(&mut self.stream, &mut self.read, deadline)? {
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}

/// Reads what there is, waiting for it until `deadline`; `None`: nothing came.
pub(crate) fn read_some(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    deadline: Instant,
) -> std::io::Result<Option<usize>> {
    let wait = deadline.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
    let mut chunk = [0; 16 * 1024];
    match stream.read(&mut chunk) {
        Ok(count) => {
            buffer.extend_from_slice(&chunk[..count]);
            Ok(Some(count))
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> Option<(Response, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).expect("the head is text");
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = fields
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().expect("a length"));
    let body = bytes.get(end..end + length)?.to_vec();
    let response = Response {
        status,
        fields,
        body,
    };
    Some((response, end + length))
}

/// One request on a connection of its own.
pub(crate) fn get(address: SocketAddr, target: &str, fields: &[(&str, &str)]) -> Response {
    request(address, "GET", target, fields)
}

/// One request with this method on a connection of its own.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Response {
    let mut connection = Connection::open(address).expect("the server accepts");
    connection
        .send(method, target, fields, b"")
        .expect("the request is taken");
    connection
        .receive(Instant::now() + PATIENCE)
        .expect("the connection holds")
        .expect("an answer comes")
}
