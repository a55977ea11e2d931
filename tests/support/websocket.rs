//! One WebSocket: masked frames out, whole text messages in (RFC 6455).

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::PATIENCE;
use super::http::read_some;

/// An open WebSocket.
pub(crate) struct WebSocket {
    stream: TcpStream,
    read: Vec<u8>,
    /// Where the next frame begins in `read`.
    start: usize,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    /// The close frame's code.
    Close(u16),
}

impl WebSocket {
    /// Opens one over `stream`, connected to `address`.
    pub(crate) fn over(
        mut stream: TcpStream,
        address: SocketAddr,
        target: &str,
        fields: &[(&str, &str)],
    ) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut head = format!(
            "GET {target} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in fields {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match read_some(&mut stream, &mut read, Instant::now() + PATIENCE)? {
                Some(count) if count > 0 => {}
                _ => return Err(ErrorKind::UnexpectedEof.into()),
            }
        };
        if !read.starts_with(b"HTTP/1.1 101") {
            let text = String::from_utf8_lossy(&read).into_owned();
            return Err(std::io::Error::other(text));
        }
        Ok(Self {
            stream,
            read,
            start: end,
        })
    }

    /// Sends text messages in one write.
    pub(crate) fn send(&mut self, texts: &[String]) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        for text in texts {
            frame(&mut bytes, 0x81, text.as_bytes());
        }
        self.stream.write_all(&bytes)
    }

    /// The next message or close frame; `None` when none has come by `deadline`. Pings are answered.
    pub(crate) fn receive(&mut self, deadline: Instant) -> std::io::Result<Option<Frame>> {
        loop {
            while let Some((first, payload)) = self.take_frame() {
                match first & 0x0f {
                    1 => {
                        let text = String::from_utf8(payload).expect("text frames are UTF-8");
                        return Ok(Some(Frame::Text(text)));
                    }
                    8 => {
                        let code = payload
                            .get(..2)
                            .map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                        return Ok(Some(Frame::Close(code)));
                    }
                    9 => {
                        let mut pong = Vec::new();
                        frame(&mut pong, 0x8a, &payload);
                        self.stream.write_all(&pong)?;
                    }
                    opcode => panic!("an unexpected frame with opcode {opcode}"),
                }
            }
            match read_some(&mut self.stream, &mut self.read, deadline)? {
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The first byte and the payload of a frame that has come whole.
    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let frame = &self.read[self.start..];
        let (&first, &second) = (frame.first()?, frame.get(1)?);
        let (head, length) = match second {
            126 => (
                4,
                u64::from(u16::from_be_bytes(frame.get(2..4)?.try_into().ok()?)),
            ),
            127 => (10, u64::from_be_bytes(frame.get(2..10)?.try_into().ok()?)),
            length => (2, u64::from(length)),
        };
        let end = head + usize::try_from(length).expect("a frame fits memory");
        let payload = frame.get(head..end)?.to_vec();
        self.start += end;
        if self.start == self.read.len() || self.start > 64 * 1024 {
            self.read.drain(..self.start);
            self.start = 0;
        }
        Some((first, payload))
    }
}

fn frame(bytes: &mut Vec<u8>, first: u8, payload: &[u8]) {
    bytes.push(first);
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).expect("below 126")),
        length @ 126..65_536 => {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(length).expect("below 65,536").to_be_bytes());
        }
        length => {
            bytes.push(0xff);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    // A mask of zeros is a mask: the server must not tell the difference.
    bytes.extend([0; 4]);
    bytes.extend_from_slice(payload);
}
