//! Between the hub's values and the messages of Socket.IO's adapter. Pure.
//!
//! On the wire a room is a name, and a socket's id is the name of a room. Here the two are told apart:
//! a name that one of this host's sockets may have as its id is never a room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memchr::memmem;

use crate::hub::broadcast::{Broadcast, Order, Origin, Presence, RemoteSocket, RoomKey, Target};
use crate::hub::envelope::{Answer, Ask, Far, Form, Node, Request, Response};
use crate::hub::{Args, Flags, SocketId};
use crate::wire::Text;
use crate::wire::adapter::{self, Names, Opts, Stamp, Undecodable};
use crate::wire::socket_io::encode_event;

/// Bytes of JSON that a message's arguments may become: the largest payload that may be set.
const ARGS_BYTES_MAX: usize = 16 << 20;
/// How long clients may take to acknowledge when a request does not say it.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that a request may ask for.
const ACK_TIMEOUT_MAX: Duration = Duration::from_mins(10);
/// Rooms that one request may make sockets join or leave.
const ROOMS_MAX: usize = 1_000;
/// Rooms that one message may be for, and as many that it may leave out. Here a name takes fifty bytes, on the
/// wire perhaps two.
const NAMES_MAX: usize = 65_536;

/// Bytes of a response from which on it is looked through for our name before it is read: the requests
/// that we number begin with it.
const LOOKED_THROUGH: usize = 1_024;

/// Who we are in the fleet.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// This node's.
    pub(super) uid: Text,
    /// The host's, in heartbeats and the news of users.
    pub(super) host: u64,
    /// The host's, in the ids of sockets.
    pub(super) tag: u16,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ignored {
    /// It is our own.
    Own,
    /// For this reason, a word for the metrics.
    For(&'static str),
}

impl From<Undecodable> for Ignored {
    fn from(cause: Undecodable) -> Self {
        Self::For(cause.cause())
    }
}

impl Identity {
    fn key(&self, name: &Text) -> RoomKey {
        match SocketId::parse(name) {
            Some(id) if id.place().0 == self.tag => RoomKey::Private(id),
            _ => RoomKey::Named(name.clone()),
        }
    }

    fn target(&self, namespace: &Text, opts: &Opts) -> Result<Target, Ignored> {
        let keys = |names: &Names| {
            if names.len() > NAMES_MAX {
                return Err(Ignored::For("too_large"));
            }
            Ok(names.iter().map(|name| self.key(&name)).collect())
        };
        Ok(Target {
            namespace: namespace.clone(),
            rooms: keys(&opts.rooms)?,
            except: keys(&opts.except)?,
        })
    }

    /// A broadcast as it travels, behind what is in `bytes`.
    pub(super) fn write_broadcast(&self, bytes: Vec<u8>, broadcast: &Broadcast) -> Vec<u8> {
        let presence = broadcast.presence.as_ref();
        let stamp = broadcast.origin.as_ref().map(|origin| Stamp {
            count: origin.count,
            seq: broadcast.order.map(|order| order.seq),
            presence: presence.map(|presence| adapter::Presence {
                host: self.host,
                version: presence.version,
                user: presence.user.clone(),
            }),
        });
        let target = &broadcast.target;
        let outgoing = adapter::Outgoing {
            uid: &self.uid,
            namespace: &target.namespace,
            event: &broadcast.event,
            args: &broadcast.args,
            rooms: &names(&target.rooms),
            except: &names(&target.except),
            flags: flags_of(broadcast.flags),
            stamp: stamp.as_ref(),
        };
        adapter::write_broadcast(bytes, &outgoing)
    }

    /// A broadcast that came on a channel of `namespace`. Whether the news in it is our own host's is
    /// said beside it.
    pub(super) fn read_broadcast(
        &self,
        now: Instant,
        namespace: &Text,
        message: &Bytes,
    ) -> Result<(Broadcast, bool), Ignored> {
        if adapter::sender(message) == Some(&*self.uid) {
            return Err(Ignored::Own);
        }
        let read = adapter::decode_broadcast(message, ARGS_BYTES_MAX)?;
        if read.namespace != *namespace {
            return Err(Ignored::For("namespace"));
        }
        let target = self.target(namespace, &read.opts)?;
        let flags = Flags {
            volatile: read.opts.flags.volatile,
            compress: read.opts.flags.compress,
        };
        let (mut order, mut presence, mut origin) = (None, None, None);
        let mut is_of_this_host = false;
        if let Some(stamp) = read.stamp {
            // A number belongs to one whole room; anything else is none of ours.
            let is_whole = matches!(&*target.rooms, [RoomKey::Named(_)]);
            if stamp.seq.is_some() && !(is_whole && target.except.is_empty()) {
                return Err(Ignored::For("shape"));
            }
            order = stamp.seq.map(|seq| Order { seq });
            origin = Some(Origin {
                uid: read.uid,
                count: stamp.count,
            });
            if let Some(news) = stamp.presence {
                is_of_this_host = news.host == self.host;
                presence = Some(Presence {
                    // Users of other hosts are others, each with versions of its own.
                    user: if is_of_this_host {
                        news.user
                    } else {
                        format!("{:x}\0{}", news.host, news.user).into()
                    },
                    version: news.version,
                });
            }
        }
        let packets = encode_event(namespace, &read.event, &read.args, None);
        let broadcast = Broadcast {
            target,
            event: read.event,
            args: read.args,
            packets: flags.apply(packets),
            flags,
            order,
            presence,
            origin,
            published: now,
        };
        Ok((broadcast, is_of_this_host))
    }

    /// A request as it travels, with the namespace it is asked in. `None`: not over Redis.
    pub(super) fn write_request(&self, request: &Request) -> Option<(Text, Vec<u8>)> {
        let opts_of = |target: &Target| opts(target, Flags::default());
        let (namespace, wants_answer, what) = match &request.what {
            Ask::Fetch(target) => (
                &target.namespace,
                true,
                adapter::Ask::Fetch(opts_of(target)),
            ),
            Ask::Join(target, rooms) => {
                let what = adapter::Ask::Join(opts_of(target), rooms.iter().cloned().collect());
                (&target.namespace, false, what)
            }
            Ask::Leave(target, rooms) => {
                let what = adapter::Ask::Leave(opts_of(target), rooms.iter().cloned().collect());
                (&target.namespace, false, what)
            }
            Ask::Disconnect(target, close) => {
                let what = adapter::Ask::Disconnect(opts_of(target), *close);
                (&target.namespace, false, what)
            }
            Ask::Broadcast(broadcast, timeout) => {
                let mut opts = opts(&broadcast.target, broadcast.flags);
                opts.flags.timeout = u64::try_from(timeout.as_millis()).ok();
                let namespace = &broadcast.target.namespace;
                let what = adapter::Ask::Broadcast {
                    namespace: namespace.clone(),
                    event: broadcast.event.clone(),
                    args: broadcast.args.clone(),
                    opts,
                };
                (namespace, true, what)
            }
            Ask::ServerSideEmit {
                namespace,
                event,
                args,
                ack,
            } => {
                let (event, args) = (event.clone(), args.clone());
                (
                    namespace,
                    *ack,
                    adapter::Ask::ServerSideEmit { event, args },
                )
            }
            Ask::Rooms(_) => return None,
        };
        let id = wants_answer.then(|| format!("{}{}", self.uid, request.id).into());
        let message = adapter::encode_request(&adapter::Request {
            uid: Some(self.uid.clone()),
            id,
            what,
        });
        Some((namespace.clone(), message))
    }

    /// A request that came on the request channel of `namespace`.
    pub(super) fn read_request(
        &self,
        now: Instant,
        namespace: &Text,
        message: &Bytes,
    ) -> Result<Request, Ignored> {
        let read = adapter::decode_request(message, ARGS_BYTES_MAX)?;
        if read.uid.as_ref() == Some(&self.uid) {
            return Err(Ignored::Own);
        }
        let all = Opts::default();
        let (what, form, needs_id) = match read.what {
            adapter::Ask::Sockets(rooms) => {
                let target = self.target(namespace, &Opts { rooms, ..all })?;
                (Ask::Fetch(target), Form::Ids, true)
            }
            adapter::Ask::AllRooms => (Ask::Rooms(namespace.clone()), Form::Rooms, true),
            adapter::Ask::Join(opts, rooms) => {
                let what = Ask::Join(self.target(namespace, &opts)?, self.public(&rooms)?);
                (what, Form::Done, false)
            }
            adapter::Ask::Leave(opts, rooms) => {
                let what = Ask::Leave(self.target(namespace, &opts)?, self.public(&rooms)?);
                (what, Form::Done, false)
            }
            adapter::Ask::Disconnect(opts, close) => {
                let what = Ask::Disconnect(self.target(namespace, &opts)?, close);
                (what, Form::Done, false)
            }
            adapter::Ask::Fetch(opts) => {
                let target = self.target(namespace, &opts)?;
                (Ask::Fetch(target), Form::Sockets, true)
            }
            adapter::Ask::ServerSideEmit { event, args } => {
                let what = Ask::ServerSideEmit {
                    namespace: namespace.clone(),
                    event,
                    args,
                    ack: read.id.is_some(),
                };
                (what, Form::Application, false)
            }
            adapter::Ask::Broadcast {
                namespace: of,
                event,
                args,
                opts,
            } => {
                if of != *namespace {
                    return Err(Ignored::For("namespace"));
                }
                let what = self.broadcast_with_ack(now, namespace, (event, args), &opts)?;
                (what, Form::Clients, true)
            }
        };
        if needs_id && read.id.is_none() {
            return Err(Ignored::For("shape"));
        }
        let far = Far {
            namespace: namespace.clone(),
            id: read.id,
            form,
        };
        Ok(Request {
            id: 0,
            from: Node::Far(Arc::new(far)),
            what,
        })
    }

    fn broadcast_with_ack(
        &self,
        now: Instant,
        namespace: &Text,
        (event, args): (Text, Args),
        opts: &Opts,
    ) -> Result<Ask, Ignored> {
        let timeout = opts
            .flags
            .timeout
            .map_or(ACK_TIMEOUT, Duration::from_millis);
        let broadcast = Broadcast {
            target: self.target(namespace, opts)?,
            event,
            args,
            // They are encoded with the ids of the acknowledgements.
            packets: Vec::new(),
            flags: Flags {
                volatile: opts.flags.volatile,
                compress: opts.flags.compress,
            },
            order: None,
            presence: None,
            origin: None,
            published: now,
        };
        let timeout = timeout.min(ACK_TIMEOUT_MAX);
        Ok(Ask::Broadcast(Box::new(broadcast), timeout))
    }

    /// Rooms that sockets may be made to join or leave: never what is a socket's own.
    fn public(&self, rooms: &Names) -> Result<Vec<Text>, Ignored> {
        if rooms.len() > ROOMS_MAX {
            return Err(Ignored::For("too_large"));
        }
        let is_public = |room: &Text| matches!(self.key(room), RoomKey::Named(_));
        Ok(rooms.iter().filter(is_public).collect())
    }

    /// A response as it travels; `None`: it does not go to a far node, or none is wanted.
    pub(super) fn write_response(far: &Far, response: &Response) -> Option<Vec<u8>> {
        let what = match (&response.what, far.form) {
            (Answer::Sockets(sockets), Form::Ids) => {
                let ids = sockets.iter().map(|socket| Text::from(socket.id.as_str()));
                adapter::Answer::Sockets(ids.collect())
            }
            (Answer::Sockets(sockets), Form::Sockets) => {
                adapter::Answer::Fetched(sockets.iter().map(described).collect())
            }
            (Answer::Rooms(rooms), Form::Rooms) => {
                adapter::Answer::Rooms(rooms.iter().cloned().collect())
            }
            (Answer::Done, Form::Done) => adapter::Answer::Done,
            (Answer::ClientCount(count), Form::Clients) => {
                adapter::Answer::ClientCount(*count as u64)
            }
            (Answer::Ack(args), Form::Clients) => adapter::Answer::ClientAck(args.clone()),
            (Answer::Ack(args), Form::Application) => adapter::Answer::ServerSideAck(args.clone()),
            _ => return None,
        };
        let id = far.id.clone()?;
        Some(adapter::encode_response(&adapter::Response { id, what }))
    }

    /// A response that came, if it is for us.
    pub(super) fn read_response(&self, message: &Bytes) -> Result<Response, Ignored> {
        // A list of a whole shard's sockets is for one node alone, and the others need not read it.
        if message.len() > LOOKED_THROUGH && memmem::find(message, self.uid.as_bytes()).is_none() {
            return Err(Ignored::Own);
        }
        let read = adapter::decode_response(message, ARGS_BYTES_MAX)?;
        let number = read.id.strip_prefix(&*self.uid);
        // Every node hears the answers to all others.
        let Some(id) = number.and_then(|number| number.parse().ok()) else {
            return Err(Ignored::Own);
        };
        let what = match read.what {
            adapter::Answer::Fetched(sockets) => {
                let sockets = sockets.iter().filter_map(|socket| {
                    Some(RemoteSocket {
                        id: SocketId::parse(&socket.id)?,
                        rooms: socket.rooms.iter().collect(),
                        handshake: socket.handshake,
                    })
                });
                Answer::Sockets(sockets.collect())
            }
            adapter::Answer::ClientCount(count) => {
                let count = usize::try_from(count).map_err(|_| Ignored::For("shape"))?;
                Answer::ClientCount(count)
            }
            adapter::Answer::ClientAck(args) | adapter::Answer::ServerSideAck(args) => {
                Answer::Ack(args)
            }
            _ => return Err(Ignored::For("type")),
        };
        Ok(Response { id, what })
    }
}

fn described(socket: &RemoteSocket) -> adapter::Socket {
    let own = Text::from(socket.id.as_str());
    let rooms = std::iter::once(&own).chain(&socket.rooms).cloned();
    adapter::Socket {
        rooms: rooms.collect(),
        id: own,
        handshake: socket.handshake.clone(),
    }
}

/// The name of a room on the wire.
fn name(key: &RoomKey) -> &str {
    match key {
        RoomKey::Named(name) => name,
        RoomKey::Private(id) => id.as_str(),
    }
}

/// The names of rooms, each once.
fn names(keys: &[RoomKey]) -> Vec<&str> {
    let mut names = Vec::with_capacity(keys.len());
    for key in keys {
        let name = name(key);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn opts(target: &Target, flags: Flags) -> Opts {
    Opts {
        rooms: names(&target.rooms).into_iter().collect(),
        except: names(&target.except).into_iter().collect(),
        flags: flags_of(flags),
    }
}

fn flags_of(flags: Flags) -> adapter::Flags {
    adapter::Flags {
        volatile: flags.volatile,
        compress: flags.compress,
        timeout: None,
    }
}

/// The one room that a target means on the wire, if it is one.
pub(super) fn one_room(target: &Target) -> Option<&str> {
    let (first, rest) = target.rooms.split_first()?;
    let first = name(first);
    rest.iter().all(|key| name(key) == first).then_some(first)
}

#[cfg(test)]
mod tests;
