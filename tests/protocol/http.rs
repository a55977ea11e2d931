//! A small HTTP/1.1 client that sends exactly the bytes it is given.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::server::{PATIENCE, Server};

/// One TCP connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// What was read and not yet taken.
    pub(crate) buffer: Vec<u8>,
}

/// A response as it came.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a field, its lines joined by a comma.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> = self
            .fields
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// Asserts status and body at once, so that a failure shows both.
    #[track_caller]
    pub(crate) fn is(&self, status: u16, body: &str) -> &Self {
        let got = (self.status, String::from_utf8_lossy(&self.body));
        assert_eq!((got.0, &*got.1), (status, body));
        self
    }

    /// Asserts an Engine.IO error: its status, its JSON body and its type.
    #[track_caller]
    pub(crate) fn is_error(&self, code: u8) -> &Self {
        let message = match code {
            0 => "Transport unknown",
            1 => "Session ID unknown",
            2 => "Bad handshake method",
            3 => "Bad request",
            4 => "Forbidden",
            _ => "Unsupported protocol version",
        };
        let status = if code == 4 { 403 } else { 400 };
        self.is(
            status,
            &format!(r#"{{"code":{code},"message":"{message}"}}"#),
        );
        assert_eq!(
            self.field("content-type").as_deref(),
            Some("application/json")
        );
        self
    }
}

impl Server {
    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection {
            stream,
            buffer: Vec::new(),
        }
    }

    /// One request without a body on a connection of its own. `target` may bring field lines of its
    /// own behind a line end.
    pub(crate) fn request(&self, method: &str, target: &str) -> Response {
        self.connect().request(method, target)
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.request("GET", target)
    }

    pub(crate) fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.connect().post(target, body)
    }

    /// Sends `bytes` on a new connection and takes one response.
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut connection = self.connect();
        connection.write(bytes);
        connection.response()
    }
}

impl Connection {
    /// Writes what it can: a server that has refused may have closed already.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    pub(crate) fn request(&mut self, method: &str, target: &str) -> Response {
        self.write(head(method, target, ""));
        if method == "HEAD" {
            self.response_without_body()
        } else {
            self.response()
        }
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.request("GET", target)
    }

    pub(crate) fn post(&mut self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.write(post(target, body.as_ref()));
        self.response()
    }

    /// Takes the next response.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.response_without_body();
        if response.field("transfer-encoding").is_some() {
            response.body = self.chunks();
            return response;
        }
        response.body = match response.field("content-length") {
            Some(length) => self.take(length.parse().expect("a length is a number")),
            None if response.status == 101 || response.status == 204 || response.status == 100 => {
                Vec::new()
            }
            None => {
                assert_eq!(
                    response.field("connection").as_deref(),
                    Some("close"),
                    "a response without a length ends with the connection: {response:?}"
                );
                while self.fill() {}
                std::mem::take(&mut self.buffer)
            }
        };
        response
    }

    /// Takes a chunked body.
    #[track_caller]
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(self.take(1));
            }
            let size = std::str::from_utf8(&line).expect("ASCII").trim();
            let size = usize::from_str_radix(size, 16).expect("a chunk size");
            body.extend(self.take(size));
            self.take(2);
            if size == 0 {
                return body;
            }
        }
    }

    /// Takes the head of the next response: all there is after a HEAD request.
    #[track_caller]
    pub(crate) fn response_without_body(&mut self) -> Response {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill(),
                "the connection ended before a response: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).expect("a head is ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("there is a first line");
        assert!(status_line.starts_with("HTTP/1.1 "), "{status_line:?}");
        let status = status_line[9..12].parse().expect("a status is a number");
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a field line has a colon");
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Response {
            status,
            fields,
            body: Vec::new(),
        }
    }

    /// Takes exactly `count` bytes.
    #[track_caller]
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(
                self.fill(),
                "the connection ended: {} of {count} bytes came",
                self.buffer.len()
            );
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads more; false at the end of the connection.
    #[track_caller]
    pub(crate) fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came in time: {error}"),
        }
    }

    /// Asserts that the server ends the connection without another byte.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        let more = self.fill() || !self.buffer.is_empty();
        assert!(
            !more,
            "unexpected: {:?}",
            String::from_utf8_lossy(&self.buffer)
        );
    }

    /// Closes the sending half.
    pub(crate) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// A request head. `target` may bring field lines of its own behind a line end.
pub(crate) fn head(method: &str, target: &str, more: &str) -> String {
    let (target, fields) = target.split_once("\r\n").unwrap_or((target, ""));
    let fields = if fields.is_empty() {
        String::new()
    } else {
        format!("{fields}\r\n")
    };
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}{more}\r\n")
}

/// A whole POST request.
pub(crate) fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let length = format!(
        "Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n",
        body.len()
    );
    let mut request = head("POST", target, &length).into_bytes();
    request.extend_from_slice(body);
    request
}
