//! Engine.IO protocol v4: packets, long-polling payloads, and packets encoded for sending.
//!
//! A packet is encoded once, as the complete WebSocket frame that carries it. Every recipient shares
//! these bytes, and a long-polling payload takes them without the frame's head.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::{BufMut, Bytes, BytesMut};

use super::{Content, Text};

/// Stands between the packets of a payload. JSON never holds it unescaped.
const SEPARATOR: char = '\u{1e}';

/// First byte of an unfragmented text frame, and of a binary one. RFC 6455 section 5.2.
const FINAL_TEXT: u8 = 0x81;
const FINAL_BINARY: u8 = 0x82;

/// Standard base64 as Node's decoder takes it: padding may be missing, spare bits may be set.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A packet as received. Source: Engine.IO protocol v4, "Packet encoding".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// `0`: only a server sends it.
    Open,
    /// `1`
    Close,
    /// `2`, or `2probe` when the flag is set.
    Ping {
        /// Whether it asks for an upgrade.
        probe: bool,
    },
    /// `3`, or `3probe` when the flag is set.
    Pong {
        /// Whether it grants an upgrade.
        probe: bool,
    },
    /// `4`, or a binary message.
    Message(Content),
    /// `5`
    Upgrade,
    /// `6`
    Noop,
}

/// Decodes one packet that came alone: a text frame, or one item of a payload.
pub fn decode(text: &Text) -> Result<Packet, PacketError> {
    let data = || text.get(1..) == Some("probe");
    match text.as_bytes().first() {
        None => Err(PacketError::Empty),
        Some(b'0') => Ok(Packet::Open),
        Some(b'1') => Ok(Packet::Close),
        Some(b'2') => Ok(Packet::Ping { probe: data() }),
        Some(b'3') => Ok(Packet::Pong { probe: data() }),
        Some(b'4') => Ok(Packet::Message(Content::Text(text.slice(1..text.len())))),
        Some(b'5') => Ok(Packet::Upgrade),
        Some(b'6') => Ok(Packet::Noop),
        Some(b'b') => match LENIENT.decode(&text.as_bytes()[1..]) {
            Ok(bytes) => Ok(Packet::Message(Content::Binary(bytes.into()))),
            Err(_) => Err(PacketError::Base64),
        },
        Some(_) => Err(PacketError::UnknownType),
    }
}

/// Decodes a long-polling payload: packets joined by U+001E, handed on up to the first bad one.
/// `b` and base64 is a binary message. An empty payload is one empty packet.
#[must_use]
pub fn decode_payload(body: &Text) -> Packets {
    Packets {
        body: body.clone(),
        next: Some(0),
    }
}

/// The packets of a payload, decoded one by one.
#[derive(Debug, Clone)]
pub struct Packets {
    body: Text,
    /// Where the next packet starts; `None` after the last, and after a bad one.
    next: Option<usize>,
}

impl Iterator for Packets {
    type Item = Result<Packet, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next?;
        let (end, next) = match self.body[start..].find(SEPARATOR) {
            Some(length) => (start + length, Some(start + length + SEPARATOR.len_utf8())),
            None => (self.body.len(), None),
        };
        let packet = decode(&self.body.slice(start..end));
        self.next = next.filter(|_| packet.is_ok());
        Some(packet)
    }
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
        Self::joined(kind, &[body])
    }

    /// A text packet whose body comes in parts, written one after the other.
    #[must_use]
    pub fn joined(kind: char, parts: &[&str]) -> Self {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + kind.len_utf8();
        let (mut frame, head) = begin(FINAL_TEXT, length);
        frame.put_slice(kind.encode_utf8(&mut [0; 4]).as_bytes());
        for part in parts {
            frame.put_slice(part.as_bytes());
        }
        Self::new(frame, head, false)
    }

    /// A binary message.
    #[must_use]
    pub fn binary(bytes: &[u8]) -> Self {
        let (mut frame, head) = begin(FINAL_BINARY, bytes.len());
        frame.put_slice(bytes);
        Self::new(frame, head, true)
    }

    fn new(frame: BytesMut, head: u8, binary: bool) -> Self {
        Self {
            frame: frame.freeze(),
            head,
            binary,
            compress: true,
        }
    }

    /// The whole WebSocket frame.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The packet as a long-polling payload holds it, appended to `payload`.
    ///
    /// # Panics
    /// Never: room for the base64 is made before.
    pub fn append_to_payload(&self, payload: &mut Vec<u8>) {
        if !payload.is_empty() {
            payload.push(SEPARATOR as u8);
        }
        let content = &self.frame[usize::from(self.head)..];
        if self.binary {
            payload.push(b'b');
            let start = payload.len();
            payload.resize(start + content.len().div_ceil(3) * 4, 0);
            STANDARD
                .encode_slice(content, &mut payload[start..])
                .expect("room for base64 was made");
        } else {
            payload.extend_from_slice(content);
        }
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

/// A buffer of the exact size of a frame, its head written, and the length of that head.
fn begin(first: u8, length: usize) -> (BytesMut, u8) {
    let head: u8 = match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    let mut frame = BytesMut::with_capacity(usize::from(head) + length);
    frame.put_u8(first);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if head == 2 => frame.put_u8(short),
        (_, Ok(medium)) => {
            frame.put_u8(126);
            frame.put_u16(medium);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
    (frame, head)
}

#[cfg(test)]
mod tests {
    use async_tungstenite::tungstenite::protocol::{Role, WebSocket};
    use async_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};
    use proptest::prelude::*;
    use std::io::Cursor;

    use super::*;

    fn check(input: &str, expected: impl Into<Result<Packet, PacketError>>) {
        assert_eq!(decode(&Text::from(input)), expected.into(), "{input}");
    }

    fn text(content: &str) -> Packet {
        Packet::Message(Content::Text(Text::from(content)))
    }

    fn binary(content: &[u8]) -> Packet {
        Packet::Message(Content::Binary(Bytes::copy_from_slice(content)))
    }

    #[test]
    fn reads_the_specification_s_packets() {
        check("0{}", Ok(Packet::Open));
        check("1", Ok(Packet::Close));
        check("2", Ok(Packet::Ping { probe: false }));
        check("2probe", Ok(Packet::Ping { probe: true }));
        check("3", Ok(Packet::Pong { probe: false }));
        check("3probe", Ok(Packet::Pong { probe: true }));
        check("4hello", Ok(text("hello")));
        check("4", Ok(text("")));
        check("5", Ok(Packet::Upgrade));
        check("6", Ok(Packet::Noop));
        check("bAQIDBA==", Ok(binary(&[1, 2, 3, 4])));
    }

    #[test]
    fn takes_base64_as_node_does() {
        check("bAQIDBA", Ok(binary(&[1, 2, 3, 4])));
        check("bAQIDBB==", Ok(binary(&[1, 2, 3, 4])));
        check("b", Ok(binary(&[])));
    }

    #[test]
    fn refuses_what_is_no_packet() {
        check("", Err(PacketError::Empty));
        for input in ["7", "abc", "{}", "ä", " 4", "\0"] {
            check(input, Err(PacketError::UnknownType));
        }
        for input in ["b!", "bA", "bAQID BA==", "bAQ=IDBA="] {
            check(input, Err(PacketError::Base64));
        }
    }

    fn payload(body: &str) -> Vec<Result<Packet, PacketError>> {
        decode_payload(&Text::from(body)).collect()
    }

    #[test]
    fn splits_a_payload() {
        assert_eq!(
            payload("4hello\u{1e}bAQIDBA==\u{1e}3"),
            [
                Ok(text("hello")),
                Ok(binary(&[1, 2, 3, 4])),
                Ok(Packet::Pong { probe: false })
            ]
        );
    }

    #[test]
    fn hands_on_what_came_before_a_bad_packet_and_nothing_after_it() {
        assert_eq!(
            payload("4a\u{1e}x\u{1e}4b"),
            [Ok(text("a")), Err(PacketError::UnknownType)]
        );
        assert_eq!(
            payload("4a\u{1e}"),
            [Ok(text("a")), Err(PacketError::Empty)]
        );
        assert_eq!(payload(""), [Err(PacketError::Empty)]);
    }

    /// Reads a frame back with the library that clients of ours may use.
    fn read(frame: &[u8]) -> Message {
        let stream = Cursor::new(frame.to_vec());
        let config = WebSocketConfig::default().read_buffer_size(256);
        WebSocket::from_raw_socket(stream, Role::Client, Some(config))
            .read()
            .expect("one frame")
    }

    #[test]
    fn encodes_one_frame_and_leaves_its_head_away_in_a_payload() {
        let hello = Encoded::text('4', "hello");
        assert_eq!(&hello.frame()[..], b"\x81\x064hello");
        let mut body = Vec::new();
        hello.append_to_payload(&mut body);
        Encoded::binary(&[1, 2, 3, 4]).append_to_payload(&mut body);
        assert_eq!(body, "4hello\u{1e}bAQIDBA==".as_bytes());
    }

    #[test]
    fn writes_every_form_of_length() {
        for length in [
            0, 1, 124, 125, 126, 127, 255, 256, 65_534, 65_535, 65_536, 100_000,
        ] {
            let bytes = vec![7; length];
            assert_eq!(
                read(Encoded::binary(&bytes).frame()),
                Message::binary(bytes),
                "{length}"
            );
        }
    }

    #[test]
    fn keeps_the_wish_not_to_be_compressed() {
        let packet = Encoded::text('4', "x");
        assert!(packet.compress());
        assert!(!packet.uncompressed().copy().compress());
    }

    /// One packet to send, and what its receiver decodes.
    fn sendable() -> impl Strategy<Value = (Encoded, Packet)> {
        let json = "[^\u{1e}]{0,200}";
        prop_oneof![
            json.prop_map(|body| (Encoded::text('4', &body), text(&body))),
            (json, json)
                .prop_map(|(a, b)| { (Encoded::joined('4', &[&a, &b]), text(&format!("{a}{b}"))) }),
            proptest::collection::vec(any::<u8>(), 0..300)
                .prop_map(|body| (Encoded::binary(&body), binary(&body))),
            Just((Encoded::text('2', ""), Packet::Ping { probe: false })),
            Just((Encoded::text('3', "probe"), Packet::Pong { probe: true })),
            Just((Encoded::text('6', ""), Packet::Noop)),
        ]
    }

    proptest! {
        #[test]
        fn a_payload_decodes_to_what_was_encoded(
            packets in proptest::collection::vec(sendable(), 1..8)
        ) {
            let mut body = Vec::new();
            for (encoded, _) in &packets {
                encoded.append_to_payload(&mut body);
            }
            let body = Text::from_utf8(body.into()).expect("a payload is UTF-8");
            let decoded: Result<Vec<_>, _> = decode_payload(&body).collect();
            let expected: Vec<_> = packets.into_iter().map(|(_, packet)| packet).collect();
            prop_assert_eq!(decoded, Ok(expected));
        }

        #[test]
        fn a_frame_decodes_to_what_was_encoded((encoded, expected) in sendable()) {
            let decoded = match read(encoded.frame()) {
                Message::Text(body) => decode(&body.into()),
                Message::Binary(body) => Ok(Packet::Message(Content::Binary(body))),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(decoded, Ok(expected));
        }

        #[test]
        fn any_text_is_decoded_or_refused(body in "\\PC*") {
            let body = Text::from(body);
            let packets = decode_payload(&body).count();
            prop_assert!(packets <= body.matches(SEPARATOR).count() + 1);
        }
    }
}
