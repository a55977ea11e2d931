//! What our own servers tell each other beside Socket.IO's messages: heads of rooms, and that a host lives.

use bytes::Bytes;

use super::Undecodable;
use super::broadcast::text;
use crate::wire::Text;
use crate::wire::msgpack::{Reader, Token, Writer};

/// Rooms of one head notice.
pub const HEADS_MAX: usize = 1_000;

/// What a host says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostNews {
    /// It has begun.
    Start,
    /// It is there.
    Beat,
    /// It goes: nobody need wait for it.
    Stop,
}

/// A host's word of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNotice {
    /// The host.
    pub host: u64,
    /// What it says.
    pub news: HostNews,
}

/// The newest number of an ordered room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The namespace.
    pub namespace: Text,
    /// The room.
    pub room: Text,
    /// The number of its newest message.
    pub seq: u64,
}

/// Writes a head notice, `[[room, seq], …]`; a room of another namespace than `/` has it behind.
#[must_use]
pub fn encode_heads(heads: &[Head]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(heads.len());
    for head in heads {
        let is_main = &*head.namespace == "/";
        writer.array(if is_main { 2 } else { 3 });
        writer.string(&head.room);
        writer.unsigned(head.seq);
        if !is_main {
            writer.string(&head.namespace);
        }
    }
    writer.into_bytes()
}

/// The heads of a notice. It is read again as they are taken: a list of them would be many times as large.
#[derive(Debug, Clone)]
pub struct Heads<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl Iterator for Heads<'_> {
    type Item = Head;

    fn next(&mut self) -> Option<Head> {
        self.left = self.left.checked_sub(1)?;
        Some(read_head(&mut self.reader).expect("the notice was read once"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Heads<'_> {}

/// Reads a head notice.
pub fn decode_heads(message: &Bytes) -> Result<Heads<'_>, Undecodable> {
    let mut reader = Reader::new(message);
    let Token::Array(count) = reader.token()? else {
        return Err(Undecodable::Shape);
    };
    if count > HEADS_MAX {
        return Err(Undecodable::TooLarge);
    }
    let heads = Heads {
        reader: reader.clone(),
        left: count,
    };
    for _ in 0..count {
        read_head(&mut reader)?;
    }
    end(&reader)?;
    Ok(heads)
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, Undecodable> {
    let Token::Array(count @ 2..=3) = reader.token()? else {
        return Err(Undecodable::Shape);
    };
    let room = text(reader)?;
    let Token::Unsigned(seq) = reader.token()? else {
        return Err(Undecodable::Shape);
    };
    let namespace = if count == 3 {
        text(reader)?
    } else {
        Text::from_static("/")
    };
    Ok(Head {
        namespace,
        room,
        seq,
    })
}

/// Writes a host's word, `[host, "start" | "beat" | "stop"]`.
#[must_use]
pub fn encode_host_notice(notice: &HostNotice) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(2);
    writer.unsigned(notice.host);
    writer.string(match notice.news {
        HostNews::Start => "start",
        HostNews::Beat => "beat",
        HostNews::Stop => "stop",
    });
    writer.into_bytes()
}

/// Reads a host's word.
pub fn decode_host_notice(message: &Bytes) -> Result<HostNotice, Undecodable> {
    let mut reader = Reader::new(message);
    let (Token::Array(2), Token::Unsigned(host)) = (reader.token()?, reader.token()?) else {
        return Err(Undecodable::Shape);
    };
    let news = match &*text(&mut reader)? {
        "start" => HostNews::Start,
        "beat" => HostNews::Beat,
        "stop" => HostNews::Stop,
        _ => return Err(Undecodable::Type),
    };
    end(&reader)?;
    Ok(HostNotice { host, news })
}

fn end(reader: &Reader<'_>) -> Result<(), Undecodable> {
    if reader.is_at_end() {
        Ok(())
    } else {
        Err(Undecodable::Trailing)
    }
}
