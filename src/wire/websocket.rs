//! The WebSocket opening handshake (RFC 6455 section 4.2), server side. Frames are tungstenite's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::http::{Framing, Method, RequestHead};

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request cannot become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not GET, not HTTP/1.1, or with a body.
    #[error("a WebSocket opens with a GET of HTTP/1.1 that has no body")]
    Request,
    /// The `Connection` field does not list `upgrade`.
    #[error("Connection must list Upgrade")]
    Connection,
    /// Not exactly one key of 16 bytes.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    /// Another version than 13; the answer names 13.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
}

impl HandshakeError {
    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 426,
            Self::Request | Self::Connection | Self::Key => 400,
        }
    }
}

/// Whether a request asks to become a WebSocket. Any other upgrade (`h2c`) is ignored.
#[must_use]
pub fn is_upgrade(head: &RequestHead) -> bool {
    head.lists("Upgrade", "websocket")
}

/// Checks an opening handshake. The result is the value of `Sec-WebSocket-Accept`.
///
/// Extensions and subprotocols that the client offers are not taken: the answer names none.
pub fn accept(head: &RequestHead) -> Result<String, HandshakeError> {
    let bodiless = head.framing() == Framing::Length(0);
    if head.method() != Method::Get || head.is_http_1_0() || !bodiless {
        return Err(HandshakeError::Request);
    }
    if !head.lists("Connection", "upgrade") {
        return Err(HandshakeError::Connection);
    }
    let mut versions = head.raw_values("Sec-WebSocket-Version");
    if versions.next() != Some(b"13") || versions.next().is_some() {
        return Err(HandshakeError::Version);
    }
    let mut keys = head.raw_values("Sec-WebSocket-Key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(HandshakeError::Key);
    };
    match STANDARD.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(accept_value(key)),
        _ => Err(HandshakeError::Key),
    }
}

fn accept_value(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_specification() {
        let accept = accept_value(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
