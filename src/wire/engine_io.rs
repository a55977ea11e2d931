//! Engine.IO protocol v4: packets, long-polling payloads, and packets encoded for sending.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Content, Text};

/// A packet as received. Source: Engine.IO protocol v4, "Packet encoding".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// `0`: only a server sends it.
    Open,
    /// `1`
    Close,
    /// `2`, or `2probe` when the flag is set.
    Ping { probe: bool },
    /// `3`, or `3probe` when the flag is set.
    Pong { probe: bool },
    /// `4`, or a binary message.
    Message(Content),
    /// `5`
    Upgrade,
    /// `6`
    Noop,
}

/// Decodes one packet that came alone: a text frame, or one item of a payload.
pub fn decode(text: &Text) -> Result<Packet, PacketError> {
    todo!()
}

/// Decodes a long-polling payload: packets joined by U+001E, handed on up to the first bad one.
/// `b` and base64 is a binary message.
pub fn decode_payload(body: &Text) -> impl Iterator<Item = Result<Packet, PacketError>> + use<> {
    std::iter::empty()
}

/// Why a packet cannot be read. The session it came for must close with `parse error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// No type character at all.
    #[error("empty packet")]
    Empty,
    /// A type character that Engine.IO v4 does not have.
    #[error("unknown packet type")]
    UnknownType,
    /// `b` is not followed by base64.
    #[error("binary packet is not base64")]
    Base64,
}

/// A packet encoded for sending: once, for every recipient and for both transports.
///
/// The bytes are those of one WebSocket frame (RFC 6455 section 5.2, unmasked, as a server sends);
/// for long-polling the frame's head is left away. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    frame: Bytes,
    head: u8,
    binary: bool,
    compress: bool,
}

impl Encoded {
    /// A text packet: `body` is written after the type character.
    #[must_use]
    pub fn text(kind: char, body: &str) -> Self {
        todo!()
    }

    /// A binary message.
    #[must_use]
    pub fn binary(bytes: &[u8]) -> Self {
        todo!()
    }

    /// The whole WebSocket frame.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The packet as a long-polling payload holds it, appended to `payload`.
    pub fn append_to_payload(&self, payload: &mut Vec<u8>) {
        todo!()
    }

    /// The same bytes in memory of their own: what a shard does once with a packet of another
    /// shard, so that its reference count stays on its own core.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            frame: Bytes::copy_from_slice(&self.frame),
            ..*self
        }
    }

    /// Marks a packet that polling must not compress.
    #[must_use]
    pub fn uncompressed(self) -> Self {
        Self {
            compress: false,
            ..self
        }
    }

    /// Whether polling may compress a payload that holds this packet.
    #[must_use]
    pub fn compress(&self) -> bool {
        self.compress
    }
}
