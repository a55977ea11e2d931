//! Requests and responses: JSON, or MessagePack where there may be binary data.
//!
//! What they hold is read as a [`Message`] first; here it becomes what it asks or says, and is written.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::broadcast::{write_opts, write_packet};
use super::message::{Listed, Message, Part};
use super::packed;
use super::{Answer, Ask, Names, Opts, Request, Response, Undecodable};
use crate::wire::Text;
use crate::wire::msgpack::Writer;
use crate::wire::socket_io::Args;

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

/// Reads a request whose arguments become at most `bytes_max` bytes of JSON text.
pub fn decode_request(message: &Bytes, bytes_max: usize) -> Result<Request, Undecodable> {
    let message = Message::read(message, bytes_max)?;
    let what = match message.kind.ok_or(Undecodable::Type)? {
        kind::SOCKETS => Ask::Sockets(message.rooms.unwrap_or_default()),
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
        kind::FETCH => Ask::Fetch(message.opts.ok_or(Undecodable::Shape)?),
        kind::SERVER_SIDE_EMIT => {
            let data = message.data.ok_or(Undecodable::Shape)?;
            let (event, args) = data.event(bytes_max)?;
            Ask::ServerSideEmit { event, args }
        }
        kind::BROADCAST => {
            let packet = message.packet.ok_or(Undecodable::Shape)?;
            let packet = packet.packet(bytes_max)?;
            Ask::Broadcast {
                namespace: packet.namespace,
                event: packet.event,
                args: packet.args,
                opts: message.opts.ok_or(Undecodable::Shape)?,
            }
        }
        _ => return Err(Undecodable::Type),
    };
    Ok(Request {
        uid: message.uid,
        id: message.id,
        what,
    })
}

/// Whom a request is for: `opts`, or in the old form one socket.
fn target(opts: Option<Opts>, sid: Option<Text>) -> Result<Opts, Undecodable> {
    match (opts, sid) {
        (Some(opts), _) => Ok(opts),
        (None, Some(sid)) => Ok(Opts {
            rooms: [sid].into_iter().collect(),
            ..Opts::default()
        }),
        (None, None) => Err(Undecodable::Shape),
    }
}

/// The same with the rooms to join or to leave.
fn targets(
    opts: Option<Opts>,
    sid: Option<Text>,
    rooms: Option<Names>,
    room: Option<Text>,
) -> Result<(Opts, Names), Undecodable> {
    let rooms = match (rooms, room) {
        (Some(rooms), _) => rooms,
        (None, Some(room)) => [room].into_iter().collect(),
        (None, None) => return Err(Undecodable::Shape),
    };
    Ok((target(opts, sid)?, rooms))
}

/// Reads a response whose arguments become at most `bytes_max` bytes of JSON text.
pub fn decode_response(message: &Bytes, bytes_max: usize) -> Result<Response, Undecodable> {
    let message = Message::read(message, bytes_max)?;
    let argument = |part: Option<Part<'_>>| {
        part.map_or_else(|| Ok(Args::none()), |part| part.argument(bytes_max))
    };
    let what = match message.kind {
        Some(kind::SERVER_SIDE_EMIT) => Answer::ServerSideAck(argument(message.data)?),
        Some(kind::CLIENT_COUNT) => {
            Answer::ClientCount(message.client_count.ok_or(Undecodable::Shape)?)
        }
        Some(kind::CLIENT_ACK) => Answer::ClientAck(argument(message.packet)?),
        None => match (message.sockets, message.rooms) {
            (Some(Listed::Ids(ids)), _) => Answer::Sockets(ids),
            (Some(Listed::Whole(sockets)), _) => Answer::Fetched(sockets),
            (None, Some(rooms)) => Answer::Rooms(rooms),
            (None, None) => Answer::Done,
        },
        Some(_) => return Err(Undecodable::Type),
    };
    let id = message.id.ok_or(Undecodable::Shape)?;
    Ok(Response { id, what })
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
    rooms: Option<&'a Names>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<&'a RawValue>>,
}

#[derive(Serialize)]
struct OptsOut<'a> {
    rooms: &'a Names,
    except: &'a Names,
}

fn opts_out(opts: &Opts) -> OptsOut<'_> {
    OptsOut {
        rooms: &opts.rooms,
        except: &opts.except,
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
        Ask::Sockets(rooms) => (out.kind, out.rooms) = (kind::SOCKETS, Some(rooms)),
        Ask::AllRooms => {}
        Ask::Join(opts, rooms) | Ask::Leave(opts, rooms) => {
            let is_join = matches!(request.what, Ask::Join(..));
            out.kind = if is_join { kind::JOIN } else { kind::LEAVE };
            (out.opts, out.rooms) = (Some(opts_out(opts)), Some(rooms));
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
            packed::write_args(&mut writer, &[event], args);
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
            write_opts(
                &mut writer,
                opts.rooms.iter(),
                opts.except.iter(),
                opts.flags,
            );
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
    rooms: Option<&'a Names>,
    #[serde(rename = "clientCount", skip_serializing_if = "Option::is_none")]
    client_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SocketsOut<'a> {
    Ids(&'a Names),
    Whole(Vec<SocketOut>),
}

#[derive(Serialize)]
struct SocketOut {
    id: String,
    handshake: Box<RawValue>,
    rooms: Names,
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
        Answer::Sockets(ids) => out.sockets = Some(SocketsOut::Ids(ids)),
        Answer::Rooms(rooms) => out.rooms = Some(rooms),
        Answer::Done => {}
        Answer::Fetched(sockets) => {
            let sockets = sockets.iter().map(|socket| SocketOut {
                id: socket.id.to_string(),
                handshake: object(&socket.handshake),
                rooms: socket.rooms,
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
        packed::write_value(&mut writer, first.get(), args.attachments());
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
