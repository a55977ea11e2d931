//! Lists of names and of sockets, kept as they are written: as many values would take many times a message.

use std::borrow::Borrow;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Serialize, Serializer};

use super::broadcast::text;
use super::{Socket, Undecodable, json};
use crate::wire::Text;
use crate::wire::msgpack::{Reader, Token, Writer};

/// Why a list that was made can be read.
const CHECKED: &str = "it was looked at when the list was made";

/// Names of rooms or ids of sockets: MessagePack's strings and numbers, one behind the other.
#[derive(Clone, Default)]
pub struct Names {
    list: Bytes,
    count: usize,
}

impl Names {
    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The names, which share the message's memory where they can.
    ///
    /// # Panics
    /// Never: the list was looked at when it was made.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Text> + '_ {
        let mut reader = Reader::new(&self.list);
        (0..self.count).map(move |_| text(&mut reader).expect(CHECKED))
    }

    /// Reads so many names.
    pub(super) fn read(reader: &mut Reader<'_>, count: usize) -> Result<Self, Undecodable> {
        let start = reader.at();
        for _ in 0..count {
            name(reader)?;
        }
        let list = reader.share(start..reader.at());
        Ok(Self { list, count })
    }

    /// Writes them as an array.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.array(self.count);
        writer.written(&self.list);
    }
}

/// The next value as it is written, which has to be a name.
pub(super) fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Undecodable> {
    let start = reader.at();
    match reader.token()? {
        Token::String(_) | Token::Unsigned(_) | Token::Negative(_) | Token::Float(_) => {
            Ok(reader.slice(start..reader.at()))
        }
        _ => Err(Undecodable::Shape),
    }
}

impl<T: Borrow<str>> FromIterator<T> for Names {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        let mut list = NamesWriter::default();
        for name in names {
            list.push(name.borrow());
        }
        list.finish()
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for Names {}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.count))?;
        for name in self.iter() {
            list.serialize_element(&*name)?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = NamesWriter::default();
                while list
                    .next_element_seed(NameSeed(|name: &str| names.push(name)))?
                    .is_some()
                {}
                Ok(names.finish())
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Puts [`Names`] together.
#[derive(Default)]
pub(super) struct NamesWriter {
    writer: Writer,
    count: usize,
}

impl NamesWriter {
    pub(super) fn push(&mut self, name: &str) {
        self.writer.string(name);
        self.count += 1;
    }

    pub(super) fn finish(self) -> Names {
        Names {
            list: self.writer.into_bytes().into(),
            count: self.count,
        }
    }
}

/// Hands on a string of JSON, or a number as its text.
pub(super) struct NameSeed<F>(pub(super) F);

impl<'de, F: FnOnce(&str)> DeserializeSeed<'de> for NameSeed<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<F: FnOnce(&str)> Visitor<'_> for NameSeed<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.0(value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match json::integer(value) {
            Some(whole) => self.visit_str(&whole.to_string()),
            None => self.visit_str(&value.to_string()),
        }
    }
}

/// Sockets: of each its id, its handshake and the array of its rooms in MessagePack, one behind the other.
#[derive(Clone, Default)]
pub struct Sockets {
    list: Bytes,
    count: usize,
}

impl Sockets {
    /// The sockets, whose names share one memory.
    ///
    /// # Panics
    /// Never: the list was looked at when it was made.
    pub fn iter(&self) -> impl Iterator<Item = Socket> + '_ {
        let mut reader = Reader::new(&self.list);
        (0..self.count).map(move |_| Self::next(&mut reader).expect(CHECKED))
    }

    fn next(reader: &mut Reader<'_>) -> Result<Socket, Undecodable> {
        let (id, handshake) = (text(reader)?, text(reader)?);
        let Token::Array(count) = reader.token()? else {
            return Err(Undecodable::Shape);
        };
        let rooms = Names::read(reader, count)?;
        Ok(Socket {
            id,
            rooms,
            handshake,
        })
    }
}

impl FromIterator<Socket> for Sockets {
    fn from_iter<I: IntoIterator<Item = Socket>>(sockets: I) -> Self {
        let mut list = SocketsWriter::default();
        for socket in sockets {
            list.push(&socket.id, &socket.handshake, &socket.rooms);
        }
        list.finish()
    }
}

impl PartialEq for Sockets {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for Sockets {}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Puts [`Sockets`] together.
#[derive(Default)]
pub(super) struct SocketsWriter {
    writer: Writer,
    pub(super) count: usize,
}

impl SocketsWriter {
    pub(super) fn push(&mut self, id: &str, handshake: &str, rooms: &Names) {
        self.writer.string(id);
        self.finish_one(handshake, rooms);
    }

    /// The same with an id as it is written.
    pub(super) fn push_written(&mut self, id: &[u8], rooms: &Names) {
        self.writer.written(id);
        self.finish_one("", rooms);
    }

    fn finish_one(&mut self, handshake: &str, rooms: &Names) {
        self.writer.string(handshake);
        rooms.write(&mut self.writer);
        self.count += 1;
    }

    pub(super) fn finish(self) -> Sockets {
        Sockets {
            list: self.writer.into_bytes().into(),
            count: self.count,
        }
    }
}
