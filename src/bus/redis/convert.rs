//! Between the hub's values and the messages of Socket.IO's adapter. Pure.
//!
//! On the wire a room is a name, and a socket's id is the name of a room. Here the two are told apart:
//! a name that one of this host's sockets may have as its id is never a room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::hub::broadcast::{Broadcast, Order, Origin, Presence, RemoteSocket, RoomKey, Target};
use crate::hub::envelope::{Answer, Ask, Far, Form, Node, Request, Response};
use crate::hub::{Args, Flags, SocketId};
use crate::wire::Text;
use crate::wire::adapter::{self, Opts, Stamp, Undecodable};
use crate::wire::socket_io::encode_event;

/// Bytes of JSON that a message's arguments may become: the largest payload that may be set.
const ARGS_BYTES_MAX: usize = 16 << 20;
/// How long clients may take to acknowledge when a request does not say it.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that a request may ask for.
const ACK_TIMEOUT_MAX: Duration = Duration::from_mins(10);
/// Rooms that one request may make sockets join or leave.
const ROOMS_MAX: usize = 1_000;

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

    fn target(&self, namespace: &Text, opts: &Opts) -> Target {
        let keys = |names: &[Text]| names.iter().map(|name| self.key(name)).collect();
        Target {
            namespace: namespace.clone(),
            rooms: keys(&opts.rooms),
            except: keys(&opts.except),
        }
    }

    /// A broadcast as it travels.
    pub(super) fn write_broadcast(&self, broadcast: &Broadcast) -> Vec<u8> {
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
        adapter::encode_broadcast(&adapter::Broadcast {
            uid: self.uid.clone(),
            namespace: broadcast.target.namespace.clone(),
            event: broadcast.event.clone(),
            args: broadcast.args.clone(),
            opts: opts(&broadcast.target, broadcast.flags),
            stamp,
        })
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
        let target = self.target(namespace, &read.opts);
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
                let what = adapter::Ask::Join(opts_of(target), rooms.clone());
                (&target.namespace, false, what)
            }
            Ask::Leave(target, rooms) => {
                let what = adapter::Ask::Leave(opts_of(target), rooms.clone());
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
                let target = self.target(namespace, &Opts { rooms, ..all });
                (Ask::Fetch(target), Form::Ids, true)
            }
            adapter::Ask::AllRooms => (Ask::Rooms(namespace.clone()), Form::Rooms, true),
            adapter::Ask::Join(opts, rooms) => {
                let what = Ask::Join(self.target(namespace, &opts), self.public(rooms)?);
                (what, Form::Done, false)
            }
            adapter::Ask::Leave(opts, rooms) => {
                let what = Ask::Leave(self.target(namespace, &opts), self.public(rooms)?);
                (what, Form::Done, false)
            }
            adapter::Ask::Disconnect(opts, close) => {
                let what = Ask::Disconnect(self.target(namespace, &opts), close);
                (what, Form::Done, false)
            }
            adapter::Ask::Fetch(opts) => {
                let target = self.target(namespace, &opts);
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
                let what = self.broadcast_with_ack(now, namespace, (event, args), &opts);
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
    ) -> Ask {
        let timeout = opts
            .flags
            .timeout
            .map_or(ACK_TIMEOUT, Duration::from_millis);
        let broadcast = Broadcast {
            target: self.target(namespace, opts),
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
        Ask::Broadcast(Box::new(broadcast), timeout.min(ACK_TIMEOUT_MAX))
    }

    /// Rooms that sockets may be made to join or leave: never what is a socket's own.
    fn public(&self, mut rooms: Vec<Text>) -> Result<Vec<Text>, Ignored> {
        if rooms.len() > ROOMS_MAX {
            return Err(Ignored::For("too_large"));
        }
        rooms.retain(|room| matches!(self.key(room), RoomKey::Named(_)));
        Ok(rooms)
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
            (Answer::Rooms(rooms), Form::Rooms) => adapter::Answer::Rooms(rooms.clone()),
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
        let read = adapter::decode_response(message, ARGS_BYTES_MAX)?;
        let number = read.id.strip_prefix(&*self.uid);
        // Every node hears the answers to all others.
        let Some(id) = number.and_then(|number| number.parse().ok()) else {
            return Err(Ignored::Own);
        };
        let what = match read.what {
            adapter::Answer::Fetched(sockets) => {
                let sockets = sockets.into_iter().filter_map(|socket| {
                    Some(RemoteSocket {
                        id: SocketId::parse(&socket.id)?,
                        rooms: socket.rooms,
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
    let mut rooms = vec![own.clone()];
    rooms.extend_from_slice(&socket.rooms);
    adapter::Socket {
        id: own,
        rooms,
        handshake: socket.handshake.clone(),
    }
}

/// The name of a room on the wire.
pub(super) fn name(key: &RoomKey) -> Text {
    match key {
        RoomKey::Named(name) => name.clone(),
        RoomKey::Private(id) => id.as_str().into(),
    }
}

/// The names of rooms, each once.
fn names(keys: &[RoomKey]) -> Vec<Text> {
    let mut names: Vec<Text> = Vec::with_capacity(keys.len());
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
        rooms: names(&target.rooms),
        except: names(&target.except),
        flags: adapter::Flags {
            volatile: flags.volatile,
            compress: flags.compress,
            timeout: None,
        },
    }
}

/// The one room that a target means on the wire, if it is one.
pub(super) fn one_room(target: &Target) -> Option<Text> {
    let (first, rest) = target.rooms.split_first()?;
    let first = name(first);
    rest.iter().all(|key| name(key) == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn identity(uid: &str, host: u64) -> Identity {
        let uid = uid.into();
        Identity { uid, host, tag: 7 }
    }

    fn own(tag: u16) -> SocketId {
        let mut bytes = [0; 15];
        bytes[..2].copy_from_slice(&tag.to_be_bytes());
        SocketId::parse(&URL_SAFE_NO_PAD.encode(bytes)).unwrap()
    }

    fn broadcast(rooms: Vec<RoomKey>, seq: Option<u64>, version: Option<u64>) -> Broadcast {
        Broadcast {
            target: Target {
                namespace: "/".into(),
                rooms,
                except: vec![RoomKey::Private(own(7))],
            },
            event: "e".into(),
            args: Args::one(&serde_json::json!({"a": [1, "two", null]})),
            packets: Vec::new(),
            flags: Flags::default(),
            order: seq.map(|seq| Order { seq }),
            presence: version.map(|version| Presence {
                user: "ada".into(),
                version,
            }),
            origin: Some(Origin {
                uid: "aaaaaa".into(),
                count: 9,
            }),
            published: Instant::now(),
        }
    }

    fn carry(
        from: &Identity,
        to: &Identity,
        sent: &Broadcast,
    ) -> Result<(Broadcast, bool), Ignored> {
        let message = Bytes::from(from.write_broadcast(sent));
        to.read_broadcast(sent.published, &"/".into(), &message)
    }

    #[test]
    fn users_of_other_hosts_are_others() {
        let (a, sibling, far) = (
            identity("aaaaaa", 1),
            identity("bbbbbb", 1),
            identity("cccccc", 2),
        );
        let news = broadcast(vec![RoomKey::Named("r".into())], None, Some(4));
        let (read, is_own) = carry(&a, &sibling, &news).unwrap();
        assert!(is_own);
        assert_eq!(read.presence, news.presence);
        let (read, is_own) = carry(&a, &far, &news).unwrap();
        assert!(!is_own);
        assert_ne!(read.presence, news.presence);
        assert!(matches!(carry(&a, &a, &news), Err(Ignored::Own)));
    }

    #[test]
    fn only_a_whole_room_has_a_number() {
        let (a, b) = (identity("aaaaaa", 1), identity("bbbbbb", 2));
        let forged = broadcast(vec![RoomKey::Named("r".into())], Some(4), None);
        let read = carry(&a, &b, &forged);
        assert!(
            matches!(read, Err(Ignored::For("shape"))),
            "it has an exception"
        );
    }

    #[test]
    fn a_name_is_one_room_and_a_socket_of_ours_is_none() {
        let named = |name: &str| RoomKey::Named(name.into());
        let id = own(7);
        let both = [named(id.as_str()), RoomKey::Private(id)];
        let target = |rooms: &[RoomKey]| Target {
            namespace: "/".into(),
            rooms: rooms.to_vec(),
            except: Vec::new(),
        };
        assert_eq!(one_room(&target(&both)), Some(id.as_str().into()));
        assert_eq!(one_room(&target(&[named("a"), named("b")])), None);
        assert_eq!(one_room(&target(&[])), None);
        let us = identity("aaaaaa", 1);
        assert_eq!(us.key(&id.as_str().into()), RoomKey::Private(id));
        let other = own(8);
        assert_eq!(us.key(&other.as_str().into()), named(other.as_str()));
        let rooms = us.public(vec![id.as_str().into(), "a".into()]).unwrap();
        assert_eq!(rooms, ["a".into()]);
        assert!(us.public(vec!["a".into(); ROOMS_MAX + 1]).is_err());
    }

    #[test]
    fn answers_find_who_asked_and_nobody_else() {
        let (a, b) = (identity("aaaaaa", 1), identity("bbbbbb", 2));
        let now = Instant::now();
        let request = Request {
            id: 42,
            from: Node::Shard(0),
            what: Ask::Fetch(Target {
                namespace: "/".into(),
                ..Target::default()
            }),
        };
        let (namespace, message) = a.write_request(&request).unwrap();
        let message = Bytes::from(message);
        assert!(matches!(
            a.read_request(now, &namespace, &message),
            Err(Ignored::Own)
        ));
        let read = b.read_request(now, &namespace, &message).unwrap();
        let Node::Far(far) = read.from else {
            panic!("a far node asked");
        };
        let socket = RemoteSocket {
            id: own(8),
            rooms: vec!["r".into()],
            handshake: "{}".into(),
        };
        let answer = Response {
            id: 0,
            what: Answer::Sockets(vec![socket]),
        };
        let answer = Bytes::from(Identity::write_response(&far, &answer).unwrap());
        let heard = a.read_response(&answer).unwrap();
        assert_eq!(heard.id, 42);
        assert!(matches!(heard.what, Answer::Sockets(sockets) if sockets.len() == 1));
        assert!(matches!(b.read_response(&answer), Err(Ignored::Own)));
    }

    proptest! {
        #[test]
        fn a_broadcast_arrives_as_it_was_sent(
            rooms in prop::collection::vec("[a-z]{1,9}", 0..4),
            version: Option<u64>,
            volatile: bool,
        ) {
            let (a, b) = (identity("aaaaaa", 1), identity("bbbbbb", 1));
            let rooms = rooms.iter().map(|room| RoomKey::Named(room.as_str().into())).collect();
            let mut sent = broadcast(rooms, None, version);
            sent.flags.volatile = volatile;
            let (read, _) = carry(&a, &b, &sent).unwrap();
            prop_assert_eq!(names(&read.target.rooms), names(&sent.target.rooms));
            prop_assert_eq!(read.target.except, sent.target.except);
            prop_assert_eq!((read.event, read.args), (sent.event, sent.args));
            prop_assert_eq!((read.flags, read.presence), (sent.flags, sent.presence));
            prop_assert_eq!(read.origin, sent.origin);
        }

        #[test]
        fn survives_anything(bytes: Vec<u8>) {
            let (us, bytes, now) = (identity("aaaaaa", 1), Bytes::from(bytes), Instant::now());
            let _ = us.read_broadcast(now, &"/".into(), &bytes);
            let _ = us.read_request(now, &"/".into(), &bytes);
            let _ = us.read_response(&bytes);
        }
    }
}
