//! The broadcast tuple: `[uid, packet, opts]`, and `[uid, packet, opts, stamp]` of our own servers.

use std::borrow::Borrow;

use bytes::Bytes;

use super::json::{self, Json};
use super::packed;
use super::{Broadcast, Flags, Names, Opts, Presence, Stamp, Undecodable};
use crate::wire::Text;
use crate::wire::msgpack::{Reader, Token, Writer};
use crate::wire::socket_io::{Args, is_reserved};

/// Bytes of a tuple besides its texts.
const OVERHEAD: usize = 64;

/// Who published a broadcast; `None` if it does not even begin like one.
#[must_use]
pub fn sender(message: &Bytes) -> Option<&str> {
    let mut reader = Reader::new(message);
    match (reader.token().ok()?, reader.token().ok()?) {
        (Token::Array(3..), Token::String(uid)) => std::str::from_utf8(reader.slice(uid)).ok(),
        _ => None,
    }
}

/// Reads a broadcast whose arguments become at most `bytes_max` bytes of JSON text.
pub fn decode_broadcast(message: &Bytes, bytes_max: usize) -> Result<Broadcast, Undecodable> {
    let mut reader = Reader::new(message);
    let Token::Array(count @ 3..) = reader.token()? else {
        return Err(Undecodable::Shape);
    };
    let uid = text(&mut reader)?;
    let packet = packet(&mut reader, bytes_max)?;
    let opts = opts(&mut reader)?;
    let mut stamp = None;
    for nth in 3..count {
        let mut own = reader.clone();
        if nth == 3 {
            stamp = read_stamp(&mut own);
        }
        reader.skip()?;
    }
    if !reader.is_at_end() {
        return Err(Undecodable::Trailing);
    }
    Ok(Broadcast {
        uid,
        namespace: packet.namespace,
        event: packet.event,
        args: packet.args,
        opts,
        stamp,
    })
}

/// What a packet says.
pub(super) struct Packet {
    pub(super) namespace: Text,
    pub(super) event: Text,
    pub(super) args: Args,
}

/// `{type, data, nsp}`, in any order.
pub(super) fn packet(reader: &mut Reader<'_>, bytes_max: usize) -> Result<Packet, Undecodable> {
    let (mut kind, mut event, mut namespace) = (None, None, None);
    each(reader, |reader, key| {
        match key {
            "type" => kind = number(reader)?,
            "data" => event = Some(data(reader, bytes_max)?),
            "nsp" => namespace = json::name(reader)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    // Earlier emitters say 5 where there is binary data.
    if !matches!(kind, Some(2 | 5)) {
        return Err(Undecodable::Type);
    }
    let (event, args) = event.ok_or(Undecodable::Shape)?;
    let namespace = match namespace.as_deref() {
        None | Some("/") => Text::from_static("/"),
        Some(name) => Text::from(name),
    };
    Ok(Packet {
        namespace,
        event,
        args,
    })
}

/// `[name, …arguments]`.
pub(super) fn data(reader: &mut Reader<'_>, bytes_max: usize) -> Result<(Text, Args), Undecodable> {
    let Token::Array(count @ 1..) = reader.token()? else {
        return Err(Undecodable::Shape);
    };
    let name = text(reader)?;
    if is_reserved(&name) {
        return Err(Undecodable::ReservedName);
    }
    let mut list = Json::new(bytes_max);
    // As text it is hardly ever larger.
    list.reserve(reader.left());
    list.list(reader, count - 1)?;
    let (list, attachments) = list.finish()?;
    Ok((name, Args::new(list, attachments)))
}

/// `{rooms, except, flags}`, in any order, each of which may lack.
pub(super) fn opts(reader: &mut Reader<'_>) -> Result<Opts, Undecodable> {
    let mut opts = Opts::default();
    each(reader, |reader, key| {
        match key {
            "rooms" => opts.rooms = names(reader)?,
            "except" => opts.except = names(reader)?,
            "flags" => opts.flags = flags(reader)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(opts)
}

fn flags(reader: &mut Reader<'_>) -> Result<Flags, Undecodable> {
    let mut flags = Flags::default();
    if is_absent(reader)? {
        return Ok(flags);
    }
    each(reader, |reader, key| {
        let value = reader.token()?;
        match (key, &value) {
            ("volatile", Token::Bool(value)) => flags.volatile = *value,
            ("compress", Token::Bool(value)) => flags.compress = *value,
            ("timeout", Token::Unsigned(value)) => flags.timeout = Some(*value),
            _ => {}
        }
        Ok(reader.skip_inside(&value)?)
    })?;
    Ok(flags)
}

/// A list of names; none, if it is not there.
pub(super) fn names(reader: &mut Reader<'_>) -> Result<Names, Undecodable> {
    if is_absent(reader)? {
        return Ok(Names::default());
    }
    match reader.token()? {
        Token::Array(count) => Names::read(reader, count),
        _ => Err(Undecodable::Shape),
    }
}

/// A name. It shares the message's memory where it can: whoever keeps it copies it.
pub(super) fn text(reader: &mut Reader<'_>) -> Result<Text, Undecodable> {
    let mut ahead = reader.clone();
    if let Token::String(place) = ahead.token()?
        && let Ok(text) = Text::from_utf8(ahead.share(place))
    {
        *reader = ahead;
        return Ok(text);
    }
    let name = json::name(reader)?.ok_or(Undecodable::Shape)?;
    Ok(Text::from(name.into_owned()))
}

/// Calls `entry` for each key of a map; it reads the value.
pub(super) fn each<'a>(
    reader: &mut Reader<'a>,
    mut entry: impl FnMut(&mut Reader<'a>, &str) -> Result<(), Undecodable>,
) -> Result<(), Undecodable> {
    let Token::Map(count) = reader.token()? else {
        return Err(Undecodable::Shape);
    };
    for _ in 0..count {
        let key = json::name(reader)?.ok_or(Undecodable::Shape)?;
        entry(reader, &key)?;
    }
    Ok(())
}

/// An integer that is not negative, in whatever form; `None` for anything else.
pub(super) fn number(reader: &mut Reader<'_>) -> Result<Option<u64>, Undecodable> {
    Ok(match reader.token()? {
        Token::Unsigned(number) => Some(number),
        Token::Float(number) => json::integer(number).and_then(|number| number.try_into().ok()),
        other => {
            reader.skip_inside(&other)?;
            None
        }
    })
}

/// Goes past a nil or an `undefined`, if there is one.
pub(super) fn is_absent(reader: &mut Reader<'_>) -> Result<bool, Undecodable> {
    let mut ahead = reader.clone();
    let is_absent = match ahead.token()? {
        Token::Nil => true,
        Token::Extension(0, place) => place.len() == 1,
        _ => false,
    };
    if is_absent {
        *reader = ahead;
    }
    Ok(is_absent)
}

/// `[count, seq | nil, [host, version, user] | nil]`; anything else is somebody else's.
fn read_stamp(reader: &mut Reader<'_>) -> Option<Stamp> {
    let (Token::Array(3), Token::Unsigned(count)) = (reader.token().ok()?, reader.token().ok()?)
    else {
        return None;
    };
    let seq = match reader.token().ok()? {
        Token::Nil => None,
        Token::Unsigned(seq) => Some(seq),
        _ => return None,
    };
    let presence = match reader.token().ok()? {
        Token::Nil => None,
        Token::Array(3) => match (reader.token().ok()?, reader.token().ok()?) {
            (Token::Unsigned(host), Token::Unsigned(version)) => Some(Presence {
                host,
                version,
                user: text(reader).ok()?,
            }),
            _ => return None,
        },
        _ => return None,
    };
    Some(Stamp {
        count,
        seq,
        presence,
    })
}

/// A broadcast to be written, all of which is somebody else's.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a, T> {
    /// Who publishes it.
    pub uid: &'a str,
    /// The namespace.
    pub namespace: &'a str,
    /// The event's name.
    pub event: &'a str,
    /// The event's arguments.
    pub args: &'a Args,
    /// Rooms whose members are meant; none: everybody.
    pub rooms: &'a [T],
    /// Rooms whose members are left out.
    pub except: &'a [T],
    /// How it is sent.
    pub flags: Flags,
    /// What our own servers add.
    pub stamp: Option<&'a Stamp>,
}

/// Writes a broadcast.
#[must_use]
pub fn encode_broadcast(broadcast: &Broadcast) -> Vec<u8> {
    let outgoing = Outgoing {
        uid: &broadcast.uid,
        namespace: &broadcast.namespace,
        event: &broadcast.event,
        args: &broadcast.args,
        rooms: &broadcast.opts.rooms.iter().collect::<Vec<_>>(),
        except: &broadcast.opts.except.iter().collect::<Vec<_>>(),
        flags: broadcast.opts.flags,
        stamp: broadcast.stamp.as_ref(),
    };
    write_broadcast(Vec::new(), &outgoing)
}

/// Writes a broadcast behind what is in `bytes`.
#[must_use]
pub fn write_broadcast<T: Borrow<str>>(bytes: Vec<u8>, broadcast: &Outgoing<'_, T>) -> Vec<u8> {
    let Outgoing { event, args, .. } = *broadcast;
    let mut writer = Writer::over(bytes);
    writer.reserve(OVERHEAD + event.len() + args.bytes());
    writer.array(if broadcast.stamp.is_some() { 4 } else { 3 });
    writer.string(broadcast.uid);
    write_packet(&mut writer, broadcast.namespace, event, args);
    let (rooms, except) = (broadcast.rooms.iter(), broadcast.except.iter());
    let (rooms, except) = (rooms.map(T::borrow), except.map(T::borrow));
    write_opts::<&str>(&mut writer, rooms, except, broadcast.flags);
    if let Some(stamp) = broadcast.stamp {
        write_stamp(&mut writer, stamp);
    }
    writer.into_bytes()
}

pub(super) fn write_packet(writer: &mut Writer, namespace: &str, event: &str, args: &Args) {
    writer.map(3);
    writer.string("type");
    writer.unsigned(2);
    writer.string("data");
    packed::write_args(writer, &[event], args);
    writer.string("nsp");
    writer.string(namespace);
}

pub(super) fn write_opts<T: Borrow<str>>(
    writer: &mut Writer,
    rooms: impl ExactSizeIterator<Item = T>,
    except: impl ExactSizeIterator<Item = T>,
    flags: Flags,
) {
    writer.map(3);
    write_names(writer, "rooms", rooms);
    write_names(writer, "except", except);
    writer.string("flags");
    let Flags {
        volatile,
        compress,
        timeout,
    } = flags;
    let set = [volatile, !compress, timeout.is_some()];
    writer.map(set.into_iter().filter(|is_set| *is_set).count());
    if volatile {
        writer.string("volatile");
        writer.bool(true);
    }
    if !compress {
        writer.string("compress");
        writer.bool(false);
    }
    if let Some(timeout) = timeout {
        writer.string("timeout");
        writer.unsigned(timeout);
    }
}

fn write_names<T: Borrow<str>>(
    writer: &mut Writer,
    key: &str,
    names: impl ExactSizeIterator<Item = T>,
) {
    writer.string(key);
    writer.array(names.len());
    for name in names {
        writer.string(name.borrow());
    }
}

fn write_stamp(writer: &mut Writer, stamp: &Stamp) {
    writer.array(3);
    writer.unsigned(stamp.count);
    match stamp.seq {
        Some(seq) => writer.unsigned(seq),
        None => writer.nil(),
    }
    match &stamp.presence {
        Some(presence) => {
            writer.array(3);
            writer.unsigned(presence.host);
            writer.unsigned(presence.version);
            writer.string(&presence.user);
        }
        None => writer.nil(),
    }
}
