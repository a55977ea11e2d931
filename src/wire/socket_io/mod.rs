//! Socket.IO protocol v5: packets, and the decoder that gathers binary attachments.
//!
//! JSON is checked but never rebuilt: arguments travel as the very bytes that came ([`Args`]), so key
//! order and number text stay as the client wrote them, and an echo costs no parse. Decoding is linear
//! in the length of the input, and nesting is bounded before anything recurses.

mod args;
mod placeholder;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde_json::value::RawValue;

pub use self::args::{Args, ArgsBuilder};
use self::args::{Scan, elements};
use super::engine_io::Encoded;
use super::{Content, Text};

/// Binary attachments of one packet, unless set otherwise.
pub const ATTACHMENTS_MAX: usize = 10;

/// The greatest acknowledgement id: the greatest integer that JavaScript holds exactly.
pub const ACK_ID_MAX: u64 = (1 << 53) - 1;

/// How deep JSON may be nested. It is the depth that `serde_json` still reads.
const DEPTH_MAX: usize = 127;

/// Names of events that mean something else on either side.
const RESERVED: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// Whether an event may not have this name.
#[must_use]
pub fn is_reserved(event: &str) -> bool {
    RESERVED.contains(&event)
}

/// A packet, its attachments gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The namespace; `/` if none was named.
    pub namespace: Text,
    /// What it says.
    pub kind: Kind,
}

/// What a packet says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `0`: asks for the namespace, or grants it.
    Connect {
        /// A JSON object.
        payload: Option<Text>,
    },
    /// `1`: leaves the namespace.
    Disconnect,
    /// `2`, or `5` with attachments.
    Event {
        /// Its name. A number stands as its text.
        name: Text,
        /// What follows the name.
        args: Args,
        /// The number to answer to, if an answer is wanted.
        ack: Option<u64>,
    },
    /// `3`, or `6` with attachments.
    Ack {
        /// The number of the event it answers. An acknowledgement without one answers nothing.
        id: Option<u64>,
        /// The answer.
        args: Args,
    },
    /// `4`: refuses the namespace.
    ConnectError {
        /// A JSON object or string.
        payload: Text,
    },
}

/// Why a packet cannot be read. Every one of these closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Nothing, or a character that is no type.
    #[error("unknown packet type")]
    Type,
    /// Not `<number>-` after a binary type.
    #[error("illegal attachment count")]
    AttachmentCount,
    /// More attachments than are allowed.
    #[error("too many attachments")]
    TooManyAttachments,
    /// Text and attachments are larger than is allowed.
    #[error("packet too large")]
    TooLarge,
    /// An acknowledgement id above 2^53 - 1.
    #[error("acknowledgement id out of range")]
    AckId,
    /// What follows is not JSON, or there is something behind it.
    #[error("payload is not JSON")]
    Json,
    /// JSON nested too deep.
    #[error("payload nested too deep")]
    TooDeep,
    /// JSON that a packet of this type does not have.
    #[error("payload does not fit the packet type")]
    Payload,
    /// An event with a reserved name.
    #[error("reserved event name")]
    ReservedName,
    /// A placeholder that names no attachment.
    #[error("illegal placeholder")]
    Placeholder,
    /// Text while attachments are awaited.
    #[error("text while attachments are awaited")]
    UnexpectedText,
    /// An attachment while none is awaited.
    #[error("attachment while none is awaited")]
    UnexpectedBinary,
}

/// Makes packets out of Engine.IO messages. One for each connection.
#[derive(Debug)]
pub struct Decoder {
    attachments_max: usize,
    bytes_max: usize,
    /// Boxed: it is rare, and every connection has a decoder.
    pending: Option<Box<Pending>>,
}

/// A packet whose attachments have not all come.
#[derive(Debug)]
struct Pending {
    packet: Packet,
    wanted: usize,
    attachments: Vec<Bytes>,
    bytes: usize,
}

impl Decoder {
    /// A decoder that takes at most `attachments_max` attachments of `bytes_max` bytes together for one
    /// packet. Its text is bounded where messages are read.
    #[must_use]
    pub fn new(attachments_max: usize, bytes_max: usize) -> Self {
        Self {
            attachments_max,
            bytes_max,
            pending: None,
        }
    }

    /// Whether attachments are awaited.
    #[must_use]
    pub fn is_gathering(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes one message; gives a packet once it is complete.
    pub fn receive(&mut self, content: Content) -> Result<Option<Packet>, PacketError> {
        match (content, self.pending.as_mut()) {
            (Content::Text(_), Some(_)) => Err(PacketError::UnexpectedText),
            (Content::Binary(_), None) => Err(PacketError::UnexpectedBinary),
            (Content::Binary(bytes), Some(pending)) => {
                pending.bytes += bytes.len();
                if pending.bytes > self.bytes_max {
                    return Err(PacketError::TooLarge);
                }
                pending.attachments.push(bytes);
                if pending.attachments.len() < pending.wanted {
                    return Ok(None);
                }
                Ok(self.pending.take().map(|pending| pending.finish()))
            }
            (Content::Text(text), None) => {
                let (packet, wanted) = decode(&text, self.attachments_max)?;
                if wanted == 0 {
                    return Ok(Some(packet));
                }
                self.pending = Some(Box::new(Pending {
                    packet,
                    wanted,
                    attachments: Vec::with_capacity(wanted),
                    bytes: 0,
                }));
                Ok(None)
            }
        }
    }
}

impl Pending {
    fn finish(self) -> Packet {
        let mut packet = self.packet;
        if let Kind::Event { args, .. } | Kind::Ack { args, .. } = &mut packet.kind {
            *args = std::mem::take(args).with_attachments(self.attachments);
        }
        packet
    }
}

/// Decodes a packet's text, and says how many attachments follow.
fn decode(text: &Text, attachments_max: usize) -> Result<(Packet, usize), PacketError> {
    let kind = *text.as_bytes().first().ok_or(PacketError::Type)?;
    if !kind.is_ascii_digit() {
        // The text is cut behind it, which a character of several bytes does not allow.
        return Err(PacketError::Type);
    }
    let mut at = 1;
    let mut attachments = 0;
    if matches!(kind, b'5' | b'6') {
        let (count, end) = digits(text, at);
        let count = count.ok_or(PacketError::AttachmentCount)?;
        if text.as_bytes().get(end) != Some(&b'-') {
            return Err(PacketError::AttachmentCount);
        }
        if count > attachments_max as u64 {
            return Err(PacketError::TooManyAttachments);
        }
        attachments = usize::try_from(count).map_err(|_| PacketError::TooManyAttachments)?;
        at = end + 1;
    }
    let mut namespace = Text::from_static("/");
    if text.as_bytes().get(at) == Some(&b'/') {
        let comma = text[at..].find(',').map(|length| at + length);
        namespace = text.slice(at..comma.unwrap_or(text.len()));
        at = comma.map_or(text.len(), |comma| comma + 1);
    }
    let (id, at) = match digits(text, at) {
        (_, end) if end == at => (None, at),
        (Some(id), end) if id <= ACK_ID_MAX => (Some(id), end),
        _ => return Err(PacketError::AckId),
    };
    let payload = text.slice(at..text.len());
    if !payload.is_empty() {
        check_json(&payload)?;
    }
    if attachments > 0 && !placeholder::are_valid(&payload, attachments) {
        return Err(PacketError::Placeholder);
    }
    let kind = decode_kind(kind, id, payload)?;
    Ok((Packet { namespace, kind }, attachments))
}

fn decode_kind(kind: u8, id: Option<u64>, payload: Text) -> Result<Kind, PacketError> {
    let first = payload.trim_start().as_bytes().first().copied();
    match (kind, first) {
        (b'0', None) => Ok(Kind::Connect { payload: None }),
        (b'0', Some(b'{')) => Ok(Kind::Connect {
            payload: Some(payload),
        }),
        (b'1', None) => Ok(Kind::Disconnect),
        (b'2' | b'5', Some(b'[')) => decode_event(id, &inside(&payload)),
        (b'3' | b'6', Some(b'[')) => Ok(Kind::Ack {
            id,
            args: Args::new(inside(&payload), Vec::new()),
        }),
        (b'4', Some(b'{' | b'"')) => Ok(Kind::ConnectError { payload }),
        (b'0'..=b'6', _) => Err(PacketError::Payload),
        _ => Err(PacketError::Type),
    }
}

/// `list` are the elements of an event's array: first its name, which is a number or a string.
pub(super) fn decode_event(ack: Option<u64>, list: &Text) -> Result<Kind, PacketError> {
    let mut rest = elements(list);
    let first = rest.next().ok_or(PacketError::Payload)?.trim();
    let name = match first.as_bytes().first() {
        Some(b'"') => {
            // JSON that was checked fails here for half a surrogate pair alone. That is a name which nobody
            // listens to, as it stands; but who asks for an answer gets one.
            let name = serde_json::from_str(first).unwrap_or_else(|_| first.to_owned());
            if is_reserved(&name) {
                return Err(PacketError::ReservedName);
            }
            Text::from(name)
        }
        Some(b'-' | b'0'..=b'9') => Text::from(first),
        _ => return Err(PacketError::Payload),
    };
    let list = match rest.next_start() {
        Some(start) => list.slice(start..list.len()),
        None => Text::default(),
    };
    let args = Args::new(list, Vec::new());
    Ok(Kind::Event { name, args, ack })
}

/// The decimal number at `start`, and where it ends. `None`: no digits, or more than 64 bits hold.
fn digits(text: &str, start: usize) -> (Option<u64>, usize) {
    let length = text.as_bytes()[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let end = start + length;
    (text[start..end].parse().ok(), end)
}

pub(super) fn check_json(json: &str) -> Result<(), PacketError> {
    // A text too short to open and close that many brackets needs no look.
    if json.len() > 2 * DEPTH_MAX {
        let mut scan = Scan::default();
        if json.bytes().any(|byte| scan.step(byte) > DEPTH_MAX) {
            return Err(PacketError::TooDeep);
        }
    }
    serde_json::from_str::<&RawValue>(json)
        .map(|_| ())
        .map_err(|_| PacketError::Json)
}

/// What stands between the brackets of a JSON array.
pub(super) fn inside(array: &Text) -> Text {
    let start = array.len() - array.trim_start().len() + 1;
    let end = array.trim_end().len() - 1;
    let inner = &array[start..end];
    let trimmed = inner.trim_start();
    let start = start + (inner.len() - trimmed.len());
    array.slice(start..start + trimmed.trim_end().len())
}

/// Encodes a packet: its text, then its attachments.
#[must_use]
pub fn encode(packet: &Packet) -> Vec<Encoded> {
    let namespace = &*packet.namespace;
    match &packet.kind {
        Kind::Connect { payload } => {
            encode_plain("0", namespace, payload.as_deref().unwrap_or_default())
        }
        Kind::Disconnect => encode_plain("1", namespace, ""),
        Kind::Event { name, args, ack } => encode_event(namespace, name, args, *ack),
        Kind::Ack { id, args } => encode_ack(namespace, *id, args),
        Kind::ConnectError { payload } => encode_plain("4", namespace, payload),
    }
}

fn encode_plain(kind: &str, namespace: &str, payload: &str) -> Vec<Encoded> {
    let (namespace, comma) = prefix(namespace);
    vec![Encoded::joined('4', &[kind, namespace, comma, payload])]
}

/// Encodes an event.
///
/// # Panics
/// Never: a string has a JSON form.
#[must_use]
pub fn encode_event(namespace: &str, name: &str, args: &Args, ack: Option<u64>) -> Vec<Encoded> {
    let behind = if args.list().is_empty() { "" } else { "," };
    if is_plain(name) {
        let opening = ["[\"", name, "\"", behind];
        return encode_args(["2", "5"], namespace, ack, args, opening);
    }
    let name = serde_json::to_string(name).expect("a string has a JSON form");
    encode_args(["2", "5"], namespace, ack, args, ["[", &name, behind, ""])
}

/// Whether a text between quotes is its own JSON form.
pub(super) fn is_plain(text: &str) -> bool {
    // Without a way out in the middle, so that it takes many bytes at once.
    let special = text.bytes().fold(0, |found, byte| {
        found | u8::from(byte < b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\')
    });
    special == 0
}

/// Encodes an acknowledgement.
#[must_use]
pub fn encode_ack(namespace: &str, id: Option<u64>, args: &Args) -> Vec<Encoded> {
    encode_args(["3", "6"], namespace, id, args, ["[", "", "", ""])
}

fn encode_args(
    [text, binary]: [&str; 2],
    namespace: &str,
    id: Option<u64>,
    args: &Args,
    [a, b, c, d]: [&str; 4],
) -> Vec<Encoded> {
    let attachments = args.attachments();
    let binary = (!attachments.is_empty()).then(|| format!("{binary}{}-", attachments.len()));
    let kind = binary.as_deref().unwrap_or(text);
    let (namespace, comma) = prefix(namespace);
    let id = id.map(|id| id.to_string()).unwrap_or_default();
    let list = &**args.list();
    let parts = [kind, namespace, comma, &*id, a, b, c, d, list, "]"];
    let mut packets = vec![Encoded::joined('4', &parts)];
    packets.extend(attachments.iter().map(|bytes| Encoded::binary(bytes)));
    packets
}

/// How a namespace is written in front of what follows.
fn prefix(namespace: &str) -> (&str, &str) {
    if namespace == "/" {
        ("", "")
    } else {
        (namespace, ",")
    }
}
