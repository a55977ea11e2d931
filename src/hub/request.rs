//! Questions that many answer: acknowledgements of clients, and what other nodes are asked.
//!
//! Every node answers for its own sockets. Who asks counts the answers, and stops waiting in time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};

use super::broadcast::{Broadcast, BroadcastTimeout, RemoteSocket, RequestTimeout, Target};
use super::envelope::{Answer, Ask, Node, Request, Response};
use super::handshake;
use super::promise::promise;
use super::socket::AckTimeout;
use super::timers::TimerId;
use super::{Ack, Args, Due, Event, Hub, Socket, SocketId};
use crate::engine::Key;
use crate::wire::socket_io::encode_event;

/// How long other nodes may take to answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Called with one client's acknowledgement.
pub(super) type AckThen = Box<dyn FnOnce(Result<Args, AckTimeout>)>;
/// Called with the acknowledgements of many.
pub(super) type AcksThen = Box<dyn FnOnce(Result<Vec<Args>, BroadcastTimeout>)>;

/// Who waits for a client's acknowledgement.
pub(super) enum Waiting {
    /// The application, for this one.
    One { then: AckThen, timer: TimerId },
    /// A gathering of this node.
    Gathering(u64),
    /// A gathering of another node.
    Node { node: Node, request: u64 },
}

/// Answers that are being gathered.
pub(super) struct Gathering {
    /// How many other nodes were asked; `None` until that is known.
    asked: Option<usize>,
    /// How many of them have said how much comes from them. Some may before they are counted.
    answered: usize,
    acks_wanted: usize,
    acks: Vec<Args>,
    sockets: Vec<RemoteSocket>,
    then: Box<dyn FnOnce(Gathered)>,
    timer: TimerId,
}

/// What was gathered.
pub(super) struct Gathered {
    is_complete: bool,
    acks: Vec<Args>,
    sockets: Vec<RemoteSocket>,
}

impl Gathered {
    fn acks(self) -> Result<Vec<Args>, BroadcastTimeout> {
        if self.is_complete {
            Ok(self.acks)
        } else {
            Err(BroadcastTimeout { acks: self.acks })
        }
    }
}

impl Hub {
    /// Notes that a socket is asked for an acknowledgement; returns its id.
    pub(super) fn await_ack(&self, socket: &Socket, timeout: Duration, then: AckThen) -> u64 {
        let at = self.env().now() + timeout;
        self.with(|state| {
            let id = state.rooms.next_ack(socket.namespace());
            let timer = state.timers.set(at, Due::Ack(socket.id(), id));
            let waiting = Waiting::One { then, timer };
            state.acks.insert((socket.id(), id), waiting);
            id
        })
    }

    /// A client acknowledged.
    pub(super) fn acked(&self, socket: SocketId, id: u64, args: Args) {
        match self.with(|state| state.acks.remove(&(socket, id))) {
            // Not asked for, too late, or a second time.
            None => {}
            Some(Waiting::One { then, timer }) => {
                self.with(|state| state.timers.cancel(timer));
                then(Ok(args));
            }
            Some(Waiting::Gathering(number)) => {
                self.gather(number, |gathering| gathering.acks.push(args));
            }
            Some(Waiting::Node { node, request }) => {
                self.respond(&node, request, Answer::Ack(args));
            }
        }
    }

    /// A client did not acknowledge in time, or is gone.
    pub(super) fn ack_failed(&self, socket: SocketId, id: u64) {
        let waiting = self.with(|state| state.acks.remove(&(socket, id)));
        if let Some(Waiting::One { then, timer }) = waiting {
            self.with(|state| state.timers.cancel(timer));
            then(Err(AckTimeout));
        }
    }

    /// Clients that were asked together have had their time.
    pub(super) fn acks_timed_out(&self, sockets: &[SocketId], id: u64) {
        let are_missed = self.with(|state| {
            let missing = sockets
                .iter()
                .filter_map(|socket| state.acks.remove(&(*socket, id)));
            // A gathering of ours has a time of its own.
            missing.fold(false, |are_missed, waiting| {
                are_missed | matches!(waiting, Waiting::Node { .. })
            })
        });
        if are_missed {
            self.metrics().bounds.increment("answer_time");
        }
    }

    /// Nothing more comes from a socket.
    pub(super) fn acks_failed(&self, socket: SocketId) {
        let ids: Vec<u64> = self.with(|state| {
            let range = state.acks.range((socket, 0)..=(socket, u64::MAX));
            range.map(|((_, id), _)| *id).collect()
        });
        for id in ids {
            self.ack_failed(socket, id);
        }
    }

    /// Begins to gather; the number names the gathering.
    fn begin_gathering(&self, timeout: Duration, then: Box<dyn FnOnce(Gathered)>) -> u64 {
        let at = self.env().now() + timeout;
        self.with(|state| {
            state.gathering_count += 1;
            let number = state.gathering_count;
            let timer = state.timers.set(at, Due::Gathering(number));
            let gathering = Gathering {
                asked: None,
                answered: 0,
                acks_wanted: 0,
                acks: Vec::new(),
                sockets: Vec::new(),
                then,
                timer,
            };
            state.gatherings.insert(number, gathering);
            number
        })
    }

    /// Adds an answer to a gathering, and ends it if that was the last.
    fn gather(&self, number: u64, add: impl FnOnce(&mut Gathering)) {
        let done = self.with(|state| {
            let gathering = state.gatherings.get_mut(&number)?;
            add(gathering);
            gathering
                .is_complete()
                .then(|| state.gatherings.remove(&number))?
        });
        if let Some(gathering) = done {
            self.with(|state| state.timers.cancel(gathering.timer));
            gathering.finish(true);
        }
    }

    /// The time of a gathering is up.
    pub(super) fn gathering_timed_out(&self, number: u64) {
        if let Some(gathering) = self.with(|state| state.gatherings.remove(&number)) {
            self.metrics().bounds.increment("answer_time");
            gathering.finish(false);
        }
    }

    /// Asks all other nodes, at once; how many they are may be known only later.
    fn ask(&self, id: u64, what: Ask) -> LocalBoxFuture<'static, usize> {
        let Some(bus) = self.bus() else {
            return ready(0).boxed_local();
        };
        let from = Node::Shard(self.engine().options().shard);
        bus.request(Arc::new(Request { id, from, what }))
    }

    /// Asks all other nodes, and tells the gathering how many they are.
    fn ask_for(
        &self,
        number: u64,
        what: Ask,
        counted: impl FnOnce(&mut Gathering, usize) + 'static,
    ) {
        let (hub, asked) = (self.clone(), self.ask(number, what));
        self.run_or_spawn(async move {
            let asked = asked.await;
            hub.gather(number, |gathering| counted(gathering, asked));
        });
    }

    fn respond(&self, to: &Node, id: u64, what: Answer) {
        if let Some(bus) = self.bus() {
            bus.respond(to, Response { id, what });
        }
    }

    /// Broadcasts an event that asks for acknowledgements.
    pub(super) fn broadcast_with_ack(
        &self,
        broadcast: &Broadcast,
        is_local: bool,
        timeout: Duration,
        then: AcksThen,
    ) {
        let finish = Box::new(|gathered: Gathered| then(gathered.acks()));
        let number = self.begin_gathering(timeout, finish);
        let count = self.deliver_with_ack(broadcast, timeout, || Waiting::Gathering(number));
        self.gather(number, |gathering| gathering.acks_wanted += count);
        if is_local {
            self.gather(number, |gathering| gathering.asked = Some(0));
        } else {
            let what = Ask::Broadcast(Box::new(broadcast.clone()), timeout);
            self.ask_for(number, what, |gathering, asked| {
                gathering.asked = Some(asked);
            });
        }
    }

    /// Sends an event that asks for acknowledgements to our own sockets, and says how many they are.
    fn deliver_with_ack(
        &self,
        broadcast: &Broadcast,
        timeout: Duration,
        waiting: impl Fn() -> Waiting,
    ) -> usize {
        let namespace = &broadcast.target.namespace;
        let sockets = self.select(&broadcast.target);
        let at = self.env().now() + timeout;
        let id = self.with(|state| {
            let id = state.rooms.next_ack(namespace);
            for socket in &sockets {
                state.acks.insert((socket.id(), id), waiting());
            }
            let asked = sockets.iter().map(Socket::id).collect();
            state.timers.set(at, Due::Acks(asked, id));
            id
        });
        let packets = encode_event(namespace, &broadcast.event, &broadcast.args, Some(id));
        let keys: Vec<Key> = sockets.iter().map(Socket::key).collect();
        self.send(&keys, &broadcast.flags.apply(packets), broadcast.flags);
        sockets.len()
    }

    /// The sockets of the fleet that a target means.
    pub(super) fn fetch(
        &self,
        target: Target,
        is_local: bool,
    ) -> LocalBoxFuture<'static, Result<Vec<RemoteSocket>, RequestTimeout>> {
        let mut sockets = self.describe(&target);
        if is_local || self.bus().is_none() {
            return ready(Ok(sockets)).boxed_local();
        }
        let (keep, promised) = promise::<Option<Vec<RemoteSocket>>>();
        let finish = Box::new(|gathered: Gathered| {
            keep.keep(gathered.is_complete.then_some(gathered.sockets));
        });
        let number = self.begin_gathering(REQUEST_TIMEOUT, finish);
        self.gather(number, |gathering| gathering.sockets.append(&mut sockets));
        self.ask_for(number, Ask::Fetch(target), |gathering, asked| {
            gathering.asked = Some(asked);
        });
        promised
            .map(|sockets| sockets.ok_or(RequestTimeout))
            .boxed_local()
    }

    fn describe(&self, target: &Target) -> Vec<RemoteSocket> {
        let describe = |socket: &Socket| RemoteSocket {
            id: socket.id(),
            rooms: socket.rooms(),
            handshake: handshake::to_json(&socket.handshake()),
        };
        self.select(target).iter().map(describe).collect()
    }

    /// Does something to sockets, here and on all other nodes.
    pub(super) fn command(&self, what: &Ask, is_local: bool) {
        if !is_local {
            drop(self.ask(0, what.clone()));
        }
        self.obey(what);
    }

    /// Does to our own sockets what a command says; returns how many they are.
    fn obey(&self, what: &Ask) -> usize {
        let sockets = match what {
            Ask::Join(target, _) | Ask::Leave(target, _) | Ask::Disconnect(target, _) => {
                self.select(target)
            }
            _ => return 0,
        };
        match what {
            Ask::Join(_, rooms) => {
                for socket in &sockets {
                    for room in rooms {
                        let joined = socket.join(room);
                        self.spawn(joined.map(|_| ()).boxed_local());
                    }
                }
            }
            Ask::Leave(_, rooms) => {
                for socket in &sockets {
                    for room in rooms {
                        socket.leave(room);
                    }
                }
            }
            Ask::Disconnect(_, close) => {
                for socket in &sockets {
                    socket.disconnect(*close);
                }
            }
            _ => {}
        }
        sockets.len()
    }

    /// Emits to the other nodes themselves, not to their clients
    /// ([`App::on_server_side_emit`](super::App::on_server_side_emit)).
    pub fn server_side_emit(&self, namespace: &str, event: &str, args: &Args) {
        drop(self.ask(0, server_side_emit(namespace, event, args, false)));
    }

    /// The same, and gathers the answer of every other node; fails after 5 s with those that came.
    #[must_use]
    pub fn server_side_emit_with_ack(
        &self,
        namespace: &str,
        event: &str,
        args: &Args,
    ) -> LocalBoxFuture<'static, Result<Vec<Args>, BroadcastTimeout>> {
        let (keep, promised) = promise::<Option<Result<Vec<Args>, BroadcastTimeout>>>();
        let finish = Box::new(|gathered: Gathered| keep.keep(Some(gathered.acks())));
        let number = self.begin_gathering(REQUEST_TIMEOUT, finish);
        let what = server_side_emit(namespace, event, args, true);
        self.ask_for(number, what, |gathering, asked| {
            gathering.acks_wanted += asked;
            gathering.asked = Some(0);
        });
        promised
            .map(|acks| acks.unwrap_or_else(|| Err(BroadcastTimeout { acks: Vec::new() })))
            .boxed_local()
    }

    /// Answers a request of another node.
    pub(super) fn answer(&self, request: &Request) {
        let Request { id, from, what } = request;
        match what {
            Ask::Fetch(target) => {
                let sockets = self.describe(target);
                self.respond(from, *id, Answer::Sockets(sockets));
            }
            Ask::Rooms(namespace) => {
                let rooms = self.with(|state| state.rooms.names(namespace));
                self.respond(from, *id, Answer::Rooms(rooms));
            }
            Ask::Broadcast(broadcast, timeout) => {
                let waiting = || Waiting::Node {
                    node: from.clone(),
                    request: *id,
                };
                let count = self.deliver_with_ack(broadcast, *timeout, waiting);
                self.respond(from, *id, Answer::ClientCount(count));
            }
            Ask::ServerSideEmit {
                namespace,
                event,
                args,
                ack,
            } => {
                let event = Event {
                    name: event.clone(),
                    args: args.clone(),
                    ack: ack.then(|| Ack::of_node(self.clone(), from.clone(), *id)),
                    received: self.env().now(),
                };
                let task = self.app().on_server_side_emit(namespace.clone(), event);
                self.spawn(task);
            }
            Ask::Join(..) | Ask::Leave(..) | Ask::Disconnect(..) => {
                // Old servers name one socket, and hear from whoever has it.
                let is_ours = self.obey(what) > 0;
                if is_ours && matches!(from, Node::Far(far) if far.id.is_some()) {
                    self.respond(from, *id, Answer::Done);
                }
            }
        }
    }

    /// The application answered a server-side emit of another node.
    pub(super) fn answer_node(&self, node: &Node, request: u64, args: Args) {
        self.respond(node, request, Answer::Ack(args));
    }

    /// Takes another node's answer.
    pub(super) fn answered(&self, response: &Response) {
        self.gather(response.id, |gathering| match &response.what {
            Answer::Sockets(sockets) => {
                gathering.answered += 1;
                gathering.sockets.extend_from_slice(sockets);
            }
            Answer::ClientCount(count) => {
                gathering.answered += 1;
                // Another's word: however much it claims, the time ends it.
                gathering.acks_wanted = gathering.acks_wanted.saturating_add(*count);
            }
            Answer::Ack(args) => gathering.acks.push(args.clone()),
            // We ask for neither.
            Answer::Rooms(_) | Answer::Done => {}
        });
    }
}

impl Gathering {
    fn is_complete(&self) -> bool {
        let answered = self.asked.is_some_and(|asked| self.answered >= asked);
        answered && self.acks.len() >= self.acks_wanted
    }

    fn finish(self, is_complete: bool) {
        (self.then)(Gathered {
            is_complete,
            acks: self.acks,
            sockets: self.sockets,
        });
    }
}

fn server_side_emit(namespace: &str, event: &str, args: &Args, ack: bool) -> Ask {
    Ask::ServerSideEmit {
        namespace: namespace.into(),
        event: event.into(),
        args: args.clone(),
        ack,
    }
}
