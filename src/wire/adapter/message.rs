//! What a request or a response holds, in JSON or in MessagePack, before it is known what it asks or says.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::broadcast::{self, Packet, each, is_absent, names, number, opts, text};
use super::json::Json;
use super::names::{NameSeed, NamesWriter, SocketsWriter, name};
use super::{Flags, Names, Opts, Sockets, Undecodable};
use crate::wire::Text;
use crate::wire::msgpack::{Reader, Token};
use crate::wire::socket_io::{Args, Kind, check_json, decode_event, inside};

/// What a JSON object begins with; MessagePack has the number 123 there, which is no message.
const BRACE: u8 = b'{';

/// Whatever a request or a response may hold. Objects that lack something are taken, lists are not.
#[derive(Deserialize, Default)]
pub(super) struct Message<'a> {
    #[serde(default, deserialize_with = "optional_name")]
    pub(super) uid: Option<Text>,
    #[serde(default, rename = "requestId", deserialize_with = "optional_name")]
    pub(super) id: Option<Text>,
    #[serde(rename = "type")]
    pub(super) kind: Option<u64>,
    pub(super) rooms: Option<Names>,
    pub(super) opts: Option<Opts>,
    pub(super) close: Option<bool>,
    #[serde(default, deserialize_with = "optional_name")]
    pub(super) sid: Option<Text>,
    #[serde(default, deserialize_with = "optional_name")]
    pub(super) room: Option<Text>,
    #[serde(borrow)]
    pub(super) data: Option<Part<'a>>,
    #[serde(borrow)]
    pub(super) packet: Option<Part<'a>>,
    pub(super) sockets: Option<Listed>,
    #[serde(rename = "clientCount")]
    pub(super) client_count: Option<u64>,
}

/// A value that is read once it is known what it is.
pub(super) enum Part<'a> {
    Json(&'a RawValue),
    /// It comes next in the reader.
    Packed(Reader<'a>),
}

/// A list of sockets: their ids, or what is known of them. One of none is the latter.
pub(super) enum Listed {
    Ids(Names),
    Whole(Sockets),
}

impl<'a> Message<'a> {
    /// Reads a message; as JSON it may have so many bytes.
    pub(super) fn read(message: &'a Bytes, bytes_max: usize) -> Result<Self, Undecodable> {
        if message.first() != Some(&BRACE) {
            return Self::unpack(message);
        }
        if message.len() > bytes_max {
            return Err(Undecodable::TooLarge);
        }
        let text = std::str::from_utf8(message).map_err(|_| Undecodable::Syntax)?;
        check_json(text)?;
        parse(text)
    }

    fn unpack(message: &'a Bytes) -> Result<Self, Undecodable> {
        let mut read = Self::default();
        let mut reader = Reader::new(message);
        each(&mut reader, |reader, key| {
            if is_absent(reader)? {
                return Ok(());
            }
            match key {
                "uid" => read.uid = Some(text(reader)?),
                "requestId" => read.id = Some(text(reader)?),
                "type" => read.kind = Some(number(reader)?.ok_or(Undecodable::Shape)?),
                "rooms" => read.rooms = Some(names(reader)?),
                "opts" => read.opts = Some(opts(reader)?),
                "close" => match reader.token()? {
                    Token::Bool(close) => read.close = Some(close),
                    _ => return Err(Undecodable::Shape),
                },
                "sid" => read.sid = Some(text(reader)?),
                "room" => read.room = Some(text(reader)?),
                "data" => read.data = Some(Part::skip(reader)?),
                "packet" => read.packet = Some(Part::skip(reader)?),
                "sockets" => read.sockets = Some(Listed::read(reader)?),
                "clientCount" => {
                    read.client_count = Some(number(reader)?.ok_or(Undecodable::Shape)?);
                }
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        if !reader.is_at_end() {
            return Err(Undecodable::Trailing);
        }
        Ok(read)
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Undecodable> {
    serde_json::from_str(json).map_err(|_| Undecodable::Shape)
}

impl<'a> Part<'a> {
    fn skip(reader: &mut Reader<'a>) -> Result<Self, Undecodable> {
        let part = reader.clone();
        reader.skip()?;
        Ok(Self::Packed(part))
    }

    /// Name and arguments of `[name, …arguments]`.
    pub(super) fn event(self, bytes_max: usize) -> Result<(Text, Args), Undecodable> {
        let data = match self {
            Self::Packed(mut reader) => return broadcast::data(&mut reader, bytes_max),
            Self::Json(data) => Text::from(data.get()),
        };
        if data.as_bytes().first() != Some(&b'[') {
            return Err(Undecodable::Shape);
        }
        match decode_event(None, &inside(&data))? {
            Kind::Event { name, args, .. } => Ok((name, args)),
            _ => Err(Undecodable::Shape),
        }
    }

    /// A packet, which has to be an event.
    pub(super) fn packet(self, bytes_max: usize) -> Result<Packet, Undecodable> {
        let data = match self {
            Self::Packed(mut reader) => return broadcast::packet(&mut reader, bytes_max),
            Self::Json(data) => data,
        };
        let packet: PacketMessage<'_> = parse(data.get())?;
        if !matches!(packet.kind, 2 | 5) {
            return Err(Undecodable::Type);
        }
        let (event, args) = packet.data.event(bytes_max)?;
        Ok(Packet {
            namespace: packet.nsp.unwrap_or(Text::from_static("/")),
            event,
            args,
        })
    }

    /// The one value as an argument.
    pub(super) fn argument(self, bytes_max: usize) -> Result<Args, Undecodable> {
        let mut reader = match self {
            Self::Packed(reader) => reader,
            Self::Json(value) => return Ok(Args::new(value.get().into(), Vec::new())),
        };
        let mut json = Json::new(bytes_max);
        json.reserve(reader.left());
        json.value(&mut reader)?;
        let (text, attachments) = json.finish()?;
        Ok(Args::new(text, attachments))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Part<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Self::Json)
    }
}

#[derive(Deserialize)]
struct PacketMessage<'a> {
    #[serde(rename = "type")]
    kind: u64,
    #[serde(borrow)]
    data: Part<'a>,
    #[serde(default, deserialize_with = "optional_name")]
    nsp: Option<Text>,
}

/// A string, or a number as its text.
struct Name(Text);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = Text::default();
        NameSeed(|name: &str| text = name.into()).deserialize(deserializer)?;
        Ok(Self(text))
    }
}

fn optional_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text>, D::Error> {
    let name = Option::<Name>::deserialize(deserializer)?;
    Ok(name.map(|Name(text)| text))
}

#[derive(Deserialize)]
struct OptsMessage {
    rooms: Option<Names>,
    except: Option<Names>,
    flags: Option<FlagsMessage>,
}

#[derive(Deserialize)]
struct FlagsMessage {
    volatile: Option<bool>,
    compress: Option<bool>,
    timeout: Option<u64>,
}

impl<'de> Deserialize<'de> for Opts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let opts = OptsMessage::deserialize(deserializer)?;
        let flags = opts.flags.map_or_else(Flags::default, |flags| Flags {
            volatile: flags.volatile.unwrap_or(false),
            compress: flags.compress.unwrap_or(true),
            timeout: flags.timeout,
        });
        Ok(Self {
            rooms: opts.rooms.unwrap_or_default(),
            except: opts.except.unwrap_or_default(),
            flags,
        })
    }
}

impl Listed {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Undecodable> {
        let Token::Array(count) = reader.token()? else {
            return Err(Undecodable::Shape);
        };
        if count > 0 && !matches!(reader.clone().token()?, Token::Map(_)) {
            return Names::read(reader, count).map(Self::Ids);
        }
        let mut sockets = SocketsWriter::default();
        for _ in 0..count {
            let (mut id, mut rooms) = (None, Names::default());
            each(reader, |reader, key| {
                match key {
                    "id" => id = Some(name(reader)?),
                    "rooms" => rooms = names(reader)?,
                    _ => reader.skip()?,
                }
                Ok(())
            })?;
            sockets.push_written(id.ok_or(Undecodable::Shape)?, &rooms);
        }
        Ok(Self::Whole(sockets.finish()))
    }
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListedVisitor)
    }
}

struct ListedVisitor;

impl<'de> Visitor<'de> for ListedVisitor {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of sockets, or one of their ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listed, A::Error> {
        let (mut ids, mut sockets) = (NamesWriter::default(), SocketsWriter::default());
        while list
            .next_element_seed(SocketSeed {
                ids: &mut ids,
                sockets: &mut sockets,
            })?
            .is_some()
        {}
        let (is_of_ids, ids) = (sockets.count == 0, ids.finish());
        match (ids.is_empty(), is_of_ids) {
            (true, _) => Ok(Listed::Whole(sockets.finish())),
            (false, true) => Ok(Listed::Ids(ids)),
            (false, false) => Err(A::Error::custom("a list of both")),
        }
    }
}

/// Reads one socket of a list to where it belongs.
struct SocketSeed<'s> {
    ids: &'s mut NamesWriter,
    sockets: &'s mut SocketsWriter,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Id,
    Rooms,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for SocketSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SocketSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a socket, or its id")
    }

    fn visit_str<E: Error>(self, id: &str) -> Result<(), E> {
        self.ids.push(id);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut socket: A) -> Result<(), A::Error> {
        let (mut id, mut rooms) = (None, None);
        while let Some(field) = socket.next_key()? {
            match field {
                Field::Id => id = Some(socket.next_value::<String>()?),
                Field::Rooms => rooms = socket.next_value::<Option<Names>>()?,
                Field::Other => drop(socket.next_value::<IgnoredAny>()?),
            }
        }
        let id = id.ok_or_else(|| A::Error::missing_field("id"))?;
        self.sockets.push(&id, "", &rooms.unwrap_or_default());
        Ok(())
    }
}
