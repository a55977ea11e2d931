//! Requests and responses: JSON, or MessagePack where there may be binary data.
//!
//! MessagePack is read by way of JSON text: these messages are rare, and so both have one reader.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::broadcast::{write_opts, write_packet};
use super::json::{self, Json};
use super::{Answer, Ask, Flags, Opts, Request, Response, Socket, Undecodable};
use crate::wire::Text;
use crate::wire::msgpack::{Reader, Writer};
use crate::wire::socket_io::{Args, Kind, check_json, decode_event, inside};

/// What a JSON object begins with; MessagePack has the number 123 there, which is no message.
const BRACE: u8 = b'{';

/// The numbers of the types.
mod kind {
    pub(super) const SOCKETS: u64 = 0;
    pub(super) const ALL_ROOMS: u64 = 1;
    pub(super) const JOIN: u64 = 2;
    pub(super) const LEAVE: u64 = 3;
    pub(super) const DISCONNECT: u64 = 4;
    pub(super) const FETCH: u64 = 5;
    pub(super) const SERVER_SIDE_EMIT: u64 = 6;
    pub(super) const BROADCAST: u64 = 7;
    pub(super) const CLIENT_COUNT: u64 = 8;
    pub(super) const CLIENT_ACK: u64 = 9;
}

/// A string, or a number as its text.
#[derive(Debug)]
struct Name(Text);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Name, E> {
        Ok(Name(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Name, E> {
        Ok(Name(value.to_string().into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Name, E> {
        Ok(Name(value.to_string().into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Name, E> {
        let text =
            json::integer(value).map_or_else(|| value.to_string(), |whole| whole.to_string());
        Ok(Name(text.into()))
    }
}

/// Whatever a request or a response may hold. Objects that lack something are taken, lists are not.
#[derive(Deserialize)]
struct Message<'a> {
    uid: Option<Name>,
    #[serde(rename = "requestId")]
    id: Option<Name>,
    #[serde(rename = "type")]
    kind: Option<u64>,
    rooms: Option<Vec<Name>>,
    opts: Option<OptsMessage>,
    close: Option<bool>,
    sid: Option<Name>,
    room: Option<Name>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    packet: Option<&'a RawValue>,
    #[serde(borrow)]
    sockets: Option<Vec<SocketMessage<'a>>>,
    #[serde(rename = "clientCount")]
    client_count: Option<u64>,
}

#[derive(Deserialize)]
struct OptsMessage {
    rooms: Option<Vec<Name>>,
    except: Option<Vec<Name>>,
    flags: Option<FlagsMessage>,
}

#[derive(Deserialize)]
struct FlagsMessage {
    volatile: Option<bool>,
    compress: Option<bool>,
    timeout: Option<u64>,
}

#[derive(Deserialize)]
struct PacketMessage<'a> {
    #[serde(rename = "type")]
    kind: u64,
    #[serde(borrow)]
    data: &'a RawValue,
    nsp: Option<Name>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SocketMessage<'a> {
    Id(#[serde(borrow)] Cow<'a, str>),
    Whole(#[serde(borrow)] WholeSocket<'a>),
}

#[derive(Deserialize)]
struct WholeSocket<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    rooms: Option<Vec<Name>>,
}

impl OptsMessage {
    fn opts(self) -> Opts {
        let flags = self.flags.map_or_else(Flags::default, |flags| Flags {
            volatile: flags.volatile.unwrap_or(false),
            compress: flags.compress.unwrap_or(true),
            timeout: flags.timeout,
        });
        Opts {
            rooms: texts(self.rooms),
            except: texts(self.except),
            flags,
        }
    }
}

fn texts(names: Option<Vec<Name>>) -> Vec<Text> {
    let names = names.unwrap_or_default().into_iter();
    names.map(|Name(text)| text).collect()
}

/// The JSON text of a message, and what is attached to it.
fn json_of(message: &Bytes, bytes_max: usize) -> Result<(Text, Vec<Bytes>), Undecodable> {
    if message.first() == Some(&BRACE) {
        if message.len() > bytes_max {
            return Err(Undecodable::TooLarge);
        }
        let text = Text::from_utf8(message.clone()).map_err(|_| Undecodable::Syntax)?;
        check_json(&text)?;
        return Ok((text, Vec::new()));
    }
    let mut reader = Reader::new(message);
    let mut json = Json::new(bytes_max);
    json.value(&mut reader)?;
    if !reader.is_at_end() {
        return Err(Undecodable::Trailing);
    }
    let (text, attachments) = json.finish()?;
    check_json(&text)?;
    if text.as_bytes().first() != Some(&BRACE) {
        return Err(Undecodable::Shape);
    }
    Ok((text, attachments))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Undecodable> {
    serde_json::from_str(json).map_err(|_| Undecodable::Shape)
}

/// Name and arguments of `[name, …arguments]`.
fn event(data: &RawValue, attachments: Vec<Bytes>) -> Result<(Text, Args), Undecodable> {
    let data = Text::from(data.get());
    if data.as_bytes().first() != Some(&b'[') {
        return Err(Undecodable::Shape);
    }
    match decode_event(None, &inside(&data))? {
        Kind::Event { name, args, .. } => Ok((name, Args::new(args.list().clone(), attachments))),
        _ => Err(Undecodable::Shape),
    }
}

/// One value as arguments.
fn argument(value: Option<&RawValue>, attachments: Vec<Bytes>) -> Args {
    value.map_or_else(Args::none, |value| {
        Args::new(value.get().into(), attachments)
    })
}

/// Reads a request whose arguments become at most `bytes_max` bytes of JSON text.
pub fn decode_request(message: &Bytes, bytes_max: usize) -> Result<Request, Undecodable> {
    let (text, attachments) = json_of(message, bytes_max)?;
    let message: Message<'_> = parse(&text)?;
    let what = match message.kind.ok_or(Undecodable::Type)? {
        kind::SOCKETS => Ask::Sockets(texts(message.rooms)),
        kind::ALL_ROOMS => Ask::AllRooms,
        kind::JOIN => {
            let (opts, rooms) = targets(message.opts, message.sid, message.rooms, message.room)?;
            Ask::Join(opts, rooms)
        }
        kind::LEAVE => {
            let (opts, rooms) = targets(message.opts, message.sid, message.rooms, message.room)?;
            Ask::Leave(opts, rooms)
        }
        kind::DISCONNECT => {
            let opts = target(message.opts, message.sid)?;
            Ask::Disconnect(opts, message.close.unwrap_or(false))
        }
        kind::FETCH => Ask::Fetch(message.opts.ok_or(Undecodable::Shape)?.opts()),
        kind::SERVER_SIDE_EMIT => {
            let data = message.data.ok_or(Undecodable::Shape)?;
            let (event, args) = event(data, attachments)?;
            Ask::ServerSideEmit { event, args }
        }
        kind::BROADCAST => {
            let packet = message.packet.ok_or(Undecodable::Shape)?;
            let packet: PacketMessage<'_> = parse(packet.get())?;
            if !matches!(packet.kind, 2 | 5) {
                return Err(Undecodable::Type);
            }
            let (event, args) = event(packet.data, attachments)?;
            Ask::Broadcast {
                namespace: packet.nsp.map_or(Text::from_static("/"), |nsp| nsp.0),
                event,
                args,
                opts: message.opts.ok_or(Undecodable::Shape)?.opts(),
            }
        }
        _ => return Err(Undecodable::Type),
    };
    Ok(Request {
        uid: message.uid.map(|name| name.0),
        id: message.id.map(|name| name.0),
        what,
    })
}

/// Whom a request is for: `opts`, or in the old form one socket.
fn target(opts: Option<OptsMessage>, sid: Option<Name>) -> Result<Opts, Undecodable> {
    match (opts, sid) {
        (Some(opts), _) => Ok(opts.opts()),
        (None, Some(Name(sid))) => Ok(Opts {
            rooms: vec![sid],
            ..Opts::default()
        }),
        (None, None) => Err(Undecodable::Shape),
    }
}

/// The same with the rooms to join or to leave.
fn targets(
    opts: Option<OptsMessage>,
    sid: Option<Name>,
    rooms: Option<Vec<Name>>,
    room: Option<Name>,
) -> Result<(Opts, Vec<Text>), Undecodable> {
    let rooms = match (rooms, room) {
        (Some(rooms), _) => texts(Some(rooms)),
        (None, Some(Name(room))) => vec![room],
        (None, None) => return Err(Undecodable::Shape),
    };
    Ok((target(opts, sid)?, rooms))
}

/// Reads a response whose arguments become at most `bytes_max` bytes of JSON text.
pub fn decode_response(message: &Bytes, bytes_max: usize) -> Result<Response, Undecodable> {
    let (text, attachments) = json_of(message, bytes_max)?;
    let message: Message<'_> = parse(&text)?;
    let what = match message.kind {
        Some(kind::SERVER_SIDE_EMIT) => Answer::ServerSideAck(argument(message.data, attachments)),
        Some(kind::CLIENT_COUNT) => {
            Answer::ClientCount(message.client_count.ok_or(Undecodable::Shape)?)
        }
        Some(kind::CLIENT_ACK) => Answer::ClientAck(argument(message.packet, attachments)),
        None => match (message.sockets, message.rooms) {
            (Some(sockets), _) => described(sockets)?,
            (None, Some(rooms)) => Answer::Rooms(texts(Some(rooms))),
            (None, None) => Answer::Done,
        },
        Some(_) => return Err(Undecodable::Type),
    };
    let id = message.id.ok_or(Undecodable::Shape)?.0;
    Ok(Response { id, what })
}

fn described(sockets: Vec<SocketMessage<'_>>) -> Result<Answer, Undecodable> {
    if let Some(SocketMessage::Id(_)) = sockets.first() {
        let ids = sockets.into_iter().map(|socket| match socket {
            SocketMessage::Id(id) => Ok(Text::from(&*id)),
            SocketMessage::Whole(_) => Err(Undecodable::Shape),
        });
        return Ok(Answer::Sockets(ids.collect::<Result<_, _>>()?));
    }
    let sockets = sockets.into_iter().map(|socket| match socket {
        SocketMessage::Whole(socket) => Ok(Socket {
            id: Text::from(&*socket.id),
            rooms: texts(socket.rooms),
            handshake: Text::default(),
        }),
        SocketMessage::Id(_) => Err(Undecodable::Shape),
    });
    Ok(Answer::Fetched(sockets.collect::<Result<_, _>>()?))
}

#[derive(Serialize)]
struct RequestOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type")]
    kind: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opts: Option<OptsOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<&'a RawValue>>,
}

#[derive(Serialize)]
struct OptsOut<'a> {
    rooms: Vec<&'a str>,
    except: Vec<&'a str>,
}

fn strs(texts: &[Text]) -> Vec<&str> {
    texts.iter().map(|text| &**text).collect()
}

fn opts_out(opts: &Opts) -> OptsOut<'_> {
    OptsOut {
        rooms: strs(&opts.rooms),
        except: strs(&opts.except),
    }
}

/// Writes a request as Node does: JSON, but MessagePack for type 7 and where there is binary data.
#[must_use]
pub fn encode_request(request: &Request) -> Vec<u8> {
    let mut out = RequestOut {
        uid: request.uid.as_deref(),
        id: request.id.as_deref(),
        kind: kind::ALL_ROOMS,
        opts: None,
        rooms: None,
        close: None,
        data: None,
    };
    let name;
    match &request.what {
        Ask::Sockets(rooms) => (out.kind, out.rooms) = (kind::SOCKETS, Some(strs(rooms))),
        Ask::AllRooms => {}
        Ask::Join(opts, rooms) | Ask::Leave(opts, rooms) => {
            let is_join = matches!(request.what, Ask::Join(..));
            out.kind = if is_join { kind::JOIN } else { kind::LEAVE };
            (out.opts, out.rooms) = (Some(opts_out(opts)), Some(strs(rooms)));
        }
        Ask::Disconnect(opts, close) => {
            out.kind = kind::DISCONNECT;
            (out.opts, out.close) = (Some(opts_out(opts)), Some(*close));
        }
        Ask::Fetch(opts) => (out.kind, out.opts) = (kind::FETCH, Some(opts_out(opts))),
        Ask::ServerSideEmit { event, args } if args.attachments().is_empty() => {
            out.kind = kind::SERVER_SIDE_EMIT;
            name = json_string(event);
            out.data = Some(std::iter::once(&*name).chain(args.items()).collect());
        }
        Ask::ServerSideEmit { event, args } => {
            let mut writer = head(request, kind::SERVER_SIDE_EMIT, 1);
            writer.string("data");
            json::write_args(&mut writer, &[event], args);
            return writer.into_bytes();
        }
        Ask::Broadcast {
            namespace,
            event,
            args,
            opts,
        } => {
            let mut writer = head(request, kind::BROADCAST, 2);
            writer.string("packet");
            write_packet(&mut writer, namespace, event, args);
            writer.string("opts");
            write_opts(&mut writer, &opts.rooms, &opts.except, opts.flags);
            return writer.into_bytes();
        }
    }
    to_json(&out)
}

/// The beginning of a request in MessagePack, with so many fields to follow.
fn head(request: &Request, kind: u64, more: usize) -> Writer {
    let ids = [("uid", &request.uid), ("requestId", &request.id)];
    let ids = ids.map(|(key, id)| id.as_deref().map(|id| (key, id)));
    let mut writer = Writer::default();
    writer.map(ids.iter().flatten().count() + 1 + more);
    for (key, id) in ids.into_iter().flatten() {
        writer.string(key);
        writer.string(id);
    }
    writer.string("type");
    writer.unsigned(kind);
    writer
}

#[derive(Serialize)]
struct ResponseOut<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<u64>,
    #[serde(rename = "requestId")]
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<SocketsOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<Vec<&'a str>>,
    #[serde(rename = "clientCount", skip_serializing_if = "Option::is_none")]
    client_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SocketsOut<'a> {
    Ids(Vec<&'a str>),
    Whole(Vec<SocketOut<'a>>),
}

#[derive(Serialize)]
struct SocketOut<'a> {
    id: &'a str,
    handshake: Box<RawValue>,
    rooms: Vec<&'a str>,
    data: Box<RawValue>,
}

/// Writes a response as Node does: JSON, but MessagePack for acknowledgements of clients and where there
/// is binary data.
#[must_use]
pub fn encode_response(response: &Response) -> Vec<u8> {
    let mut out = ResponseOut {
        kind: None,
        id: &response.id,
        sockets: None,
        rooms: None,
        client_count: None,
        data: None,
    };
    match &response.what {
        Answer::Sockets(ids) => out.sockets = Some(SocketsOut::Ids(strs(ids))),
        Answer::Rooms(rooms) => out.rooms = Some(strs(rooms)),
        Answer::Done => {}
        Answer::Fetched(sockets) => {
            let sockets = sockets.iter().map(|socket| SocketOut {
                id: &socket.id,
                handshake: object(&socket.handshake),
                rooms: strs(&socket.rooms),
                data: object(""),
            });
            out.sockets = Some(SocketsOut::Whole(sockets.collect()));
        }
        Answer::ServerSideAck(args) if args.attachments().is_empty() => {
            (out.kind, out.data) = (Some(kind::SERVER_SIDE_EMIT), args.first());
        }
        Answer::ServerSideAck(args) => {
            return answer(response, kind::SERVER_SIDE_EMIT, "data", args);
        }
        Answer::ClientCount(count) => {
            (out.kind, out.client_count) = (Some(kind::CLIENT_COUNT), Some(*count));
        }
        Answer::ClientAck(args) => return answer(response, kind::CLIENT_ACK, "packet", args),
    }
    to_json(&out)
}

/// An answer of one value, in MessagePack.
fn answer(response: &Response, kind: u64, key: &str, args: &Args) -> Vec<u8> {
    let first = args.first();
    let mut writer = Writer::default();
    writer.map(2 + usize::from(first.is_some()));
    writer.string("type");
    writer.unsigned(kind);
    writer.string("requestId");
    writer.string(&response.id);
    if let Some(first) = first {
        writer.string(key);
        json::write_value(&mut writer, first.get(), args.attachments());
    }
    writer.into_bytes()
}

/// A JSON text as a value; an empty object if it is none.
fn object(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap_or_else(|_| {
        RawValue::from_string("{}".to_owned()).expect("an empty object is JSON")
    })
}

fn json_string(text: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(text).expect("a string has a JSON form")
}

fn to_json(out: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(out).expect("texts, numbers and JSON values have a JSON form")
}
