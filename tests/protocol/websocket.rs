//! A small WebSocket client that frames by hand, rightly or wrongly.

use crate::http::{Connection, head};
use crate::server::Server;

/// The fields of a proper opening handshake.
pub(crate) const OPENING: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FIN: u8 = 0x80;

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, the reserved bits and the opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

/// A client's side of one WebSocket.
pub(crate) struct WebSocket {
    pub(crate) connection: Connection,
}

impl Server {
    /// Opens a WebSocket; the opening handshake must succeed.
    #[track_caller]
    pub(crate) fn websocket(&self, target: &str) -> WebSocket {
        self.websocket_and(target, b"")
    }

    /// The same, with `more` bytes in the same write as the handshake.
    #[track_caller]
    pub(crate) fn websocket_and(&self, target: &str, more: &[u8]) -> WebSocket {
        let mut connection = self.connect();
        let mut request = head("GET", target, OPENING).into_bytes();
        request.extend_from_slice(more);
        connection.write(request);
        let response = connection.response();
        assert_eq!(response.status, 101, "{response:?}");
        WebSocket { connection }
    }
}

/// A masked frame; `first` is FIN, the reserved bits and the opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = frame_head(first, payload.len(), true);
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

/// The head of a frame, without the masking key.
pub(crate) fn frame_head(first: u8, length: usize, masked: bool) -> Vec<u8> {
    let mut bytes = vec![first];
    let bit = if masked { 0x80 } else { 0 };
    if length < 126 {
        bytes.push(bit | u8::try_from(length).unwrap());
    } else if let Ok(short) = u16::try_from(length) {
        bytes.push(bit + 126);
        bytes.extend_from_slice(&short.to_be_bytes());
    } else {
        bytes.push(bit + 127);
        bytes.extend_from_slice(&(length as u64).to_be_bytes());
    }
    bytes
}

pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    frame(FIN | TEXT, text.as_bytes())
}

impl WebSocket {
    pub(crate) fn send(&mut self, text: &str) {
        self.connection.write(text_frame(text));
    }

    pub(crate) fn send_binary(&mut self, bytes: &[u8]) {
        self.connection.write(frame(FIN | BINARY, bytes));
    }

    pub(crate) fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.connection.write(frame(first, payload));
    }

    /// Takes the next frame. A server never masks.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Frame {
        self.receive_or_end().expect("a frame comes, not the end")
    }

    /// The next frame; none if the connection ended between two frames.
    #[track_caller]
    pub(crate) fn receive_or_end(&mut self) -> Option<Frame> {
        if self.connection.buffer.is_empty() && !self.connection.fill() {
            return None;
        }
        let start = self.connection.take(2);
        let length = match start[1] {
            126 => {
                let bytes = self.connection.take(2);
                usize::from(u16::from_be_bytes(bytes.try_into().unwrap()))
            }
            127 => {
                let bytes = self.connection.take(8);
                usize::try_from(u64::from_be_bytes(bytes.try_into().unwrap())).unwrap()
            }
            short => {
                assert!(short < 126, "a server does not mask");
                usize::from(short)
            }
        };
        Some(Frame {
            first: start[0],
            payload: self.connection.take(length),
        })
    }

    /// Takes the next frame, which must be one whole text frame.
    #[track_caller]
    pub(crate) fn receive_text(&mut self) -> String {
        let frame = self.receive();
        assert_eq!(frame.first, FIN | TEXT, "{frame:?}");
        String::from_utf8(frame.payload).expect("a text frame is UTF-8")
    }

    /// Asserts the next text frame.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        assert_eq!(self.receive_text(), text);
    }

    /// Asserts the next frame, whatever it is.
    #[track_caller]
    pub(crate) fn expect_frame(&mut self, first: u8, payload: &[u8]) {
        let expected = Frame {
            first,
            payload: payload.to_vec(),
        };
        assert_eq!(self.receive(), expected);
    }

    /// Asserts that nothing but the close comes: its code if it has one, and the end of the
    /// connection.
    #[track_caller]
    pub(crate) fn closes(&mut self) -> Option<u16> {
        let frame = self.receive_or_end()?;
        assert_eq!(
            frame.first,
            FIN | CLOSE,
            "a close, not {:?}",
            String::from_utf8_lossy(&frame.payload)
        );
        let code = match frame.payload.as_slice() {
            [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        };
        // A server may wait for the answer to its close before it ends the connection.
        self.send_frame(FIN | CLOSE, &frame.payload);
        self.connection.ends();
        code
    }

    /// Asserts a close with this code.
    #[track_caller]
    pub(crate) fn closes_with(&mut self, code: u16) {
        assert_eq!(self.closes(), Some(code));
    }
}
