//! One session above its machine ([`client`](super::client)): runs the application's handlers, and
//! says good-bye in the right order.

use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::client::{Client, Incoming, Step, Violation};
use super::socket::Phase;
use super::timers::TimerId;
use super::{Ack, DisconnectReason, Due, Event, Hub, Refusal, Socket, SocketId};
use crate::engine::{CloseReason, Flow, Handler, Handshake, Key};
use crate::planted::{self, Defect};
use crate::sorted::SortedMap;
use crate::wire::socket_io::{Kind, Packet, encode};
use crate::wire::{Content, Text};

/// How long the attachments of a packet may take to arrive.
pub const ATTACHMENTS_TIMEOUT: Duration = Duration::from_secs(30);

/// One session's sockets.
pub(super) struct Session {
    client: Client,
    handshake: Rc<Handshake>,
    pub(super) sockets: SortedMap<Text, Socket>,
    /// While no namespace is joined.
    connect_timer: Option<TimerId>,
    attachments_timer: Option<TimerId>,
    /// Whose handler runs.
    running: Option<SocketId>,
    /// Sockets that went while their handler ran.
    farewells: Vec<Farewell>,
    /// The client has closed, but what it sent before is still to be handled.
    closing: Option<CloseReason>,
    is_closed: bool,
}

impl Session {
    /// Whether it is open, in no namespace, and nothing bounds that yet.
    fn is_idle(&self) -> bool {
        let is_open = !self.is_closed && self.closing.is_none();
        is_open && self.sockets.is_empty() && self.connect_timer.is_none()
    }

    /// How many packets of its client wait for their turn.
    pub(super) fn parked(&self) -> usize {
        self.client.parked()
    }
}

/// A socket of which the application has not been told yet that it is gone.
struct Farewell {
    socket: Socket,
    reason: DisconnectReason,
    rooms: Vec<Text>,
}

#[derive(Serialize)]
struct Granted<'a> {
    sid: &'a str,
}

#[derive(Serialize)]
struct Refused<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

impl Handler for Hub {
    fn on_open(&self, key: Key, handshake: Handshake) {
        let at = self.env().now() + self.options().connect_timeout;
        let max_payload = self.options().max_payload;
        self.with(|state| {
            let session = Session {
                client: Client::new(max_payload),
                handshake: Rc::new(handshake),
                sockets: SortedMap::default(),
                connect_timer: Some(state.timers.set(at, Due::Connect(key))),
                attachments_timer: None,
                running: None,
                farewells: Vec::new(),
                closing: None,
                is_closed: false,
            };
            state.sessions.insert(key, Box::new(session));
        });
    }

    fn on_message(&self, key: Key, content: Content) -> Flow {
        let now = self.env().now();
        let at = now + ATTACHMENTS_TIMEOUT;
        let step = self.with(|state| {
            let session = state.sessions.get_mut(&key)?;
            if session.closing.is_some() || session.is_closed {
                return None;
            }
            let step = session.client.receive(now, content);
            match (session.client.is_gathering(), session.attachments_timer) {
                (true, None) => {
                    let timer = state.timers.set(at, Due::Attachments(key));
                    session.attachments_timer = Some(timer);
                }
                (false, Some(timer)) => {
                    state.timers.cancel(timer);
                    session.attachments_timer = None;
                }
                _ => {}
            }
            Some(step)
        });
        match step {
            None => Flow::Continue,
            Some(Ok(Step::Full)) => {
                self.metrics().events_parked.increment(1);
                Flow::Pause
            }
            Some(Ok(step)) => {
                if let Some(incoming) = self.act(key, step) {
                    self.run_or_spawn(self.clone().work(key, incoming));
                }
                Flow::Continue
            }
            Some(Err(violation)) => {
                let reason = match violation {
                    Violation::Packet(_) => CloseReason::ForcedClose,
                    Violation::State => CloseReason::ForcedServerClose,
                };
                self.engine().close(key, reason);
                Flow::Continue
            }
        }
    }

    fn on_drain(&self, key: Key) -> bool {
        self.with(|state| {
            let session = state.sessions.get_mut(&key);
            session.is_none_or(|session| session.client.drain())
        })
    }

    fn on_close(&self, key: Key, reason: CloseReason) {
        if reason == CloseReason::PingTimeout && planted::has(Defect::LeakedSession) {
            return;
        }
        let is_over = self.with(|state| {
            let session = state.sessions.get_mut(&key)?;
            // A client may send and leave at once: what it sent first still counts.
            if reason == CloseReason::TransportClose && session.client.has_parked() {
                session.closing = Some(reason);
                return None;
            }
            Some(())
        });
        if is_over.is_some() {
            self.end(key, reason);
        }
    }
}

impl Hub {
    /// Does what a packet asks for, but for an event: that is returned, for a handler.
    fn act(&self, key: Key, step: Step) -> Option<Incoming> {
        match step {
            Step::Nothing | Step::Full => {}
            Step::Handle(incoming) => return Some(incoming),
            Step::Connect { namespace, payload } => self.connect(key, namespace, payload.as_ref()),
            Step::Leave { namespace } => {
                self.detach(key, &namespace, CloseReason::ClientNamespaceDisconnect);
            }
            Step::Answer {
                namespace,
                id,
                args,
            } => {
                if let Some(socket) = self.socket_of(key, &namespace) {
                    self.acked(socket.id(), id, args);
                }
            }
        }
        None
    }

    fn socket_of(&self, key: Key, namespace: &str) -> Option<Socket> {
        self.with(|state| state.socket(namespace, key))
    }

    /// A client asks for a namespace.
    fn connect(&self, key: Key, namespace: Text, payload: Option<&Text>) {
        if !self.app().admits(&namespace) {
            let refusal = Refusal {
                message: "Invalid namespace".into(),
                data: None,
            };
            return self.refuse(key, &namespace, &refusal);
        }
        let engine = self.engine().options();
        let id = SocketId::draw(self.env(), engine.host, engine.shard);
        let socket = self.with(|state| {
            let session = state.sessions.get_mut(&key)?;
            let handshake = Rc::clone(&session.handshake);
            let socket = Socket::new(self.clone(), key, namespace.clone(), id, handshake);
            session.sockets.insert(namespace, socket.clone());
            Some(socket)
        });
        let Some(socket) = socket else { return };
        let auth = payload.map_or("{}", |payload| payload).to_owned();
        let auth = RawValue::from_string(auth).expect("the decoder has checked the JSON");
        let hub = self.clone();
        self.run_or_spawn(async move {
            let decision = hub.app().on_connect(socket.clone(), auth).await;
            hub.decided(&socket, decision);
        });
    }

    fn decided(&self, socket: &Socket, decision: Result<(), Refusal>) {
        // It may have vanished while the application decided.
        let (key, namespace) = (socket.key(), socket.namespace());
        let current = self.socket_of(key, namespace);
        if socket.phase() != Phase::Deciding || current.is_none_or(|now| now.id() != socket.id()) {
            return;
        }
        if let Err(refusal) = decision {
            socket.set_phase(Phase::Gone);
            return self.refuse(key, namespace, &refusal);
        }
        let keeps_handshake = self.app().keeps_handshake();
        self.with(|state| {
            let Some(session) = state.sessions.get_mut(&key) else {
                return;
            };
            session.client.joined(namespace);
            if !keeps_handshake {
                session.handshake = Rc::new(session.handshake.without_request());
                socket.set_handshake(Rc::clone(&session.handshake));
            }
            if let Some(timer) = session.connect_timer.take() {
                state.timers.cancel(timer);
            }
            state.rooms.add(namespace, key, socket.id());
        });
        let granted = json(&Granted {
            sid: socket.id().as_str(),
        });
        let payload = Some(granted);
        self.say(key, namespace, Kind::Connect { payload });
        // That may have been more than the client leaves unread, and have ended the session.
        if socket.phase() != Phase::Deciding {
            return;
        }
        socket.set_phase(Phase::Connected);
        if let Some(bus) = self.bus() {
            bus.attach(namespace, socket.id());
        }
        self.metrics().sockets.increment(1.0);
        self.app().on_connected(socket);
    }

    fn refuse(&self, key: Key, namespace: &Text, refusal: &Refusal) {
        let payload = json(&Refused {
            message: &refusal.message,
            data: refusal.data.as_deref(),
        });
        self.say(key, namespace, Kind::ConnectError { payload });
        let is_too_often = self.with(|state| {
            let session = state.sessions.get_mut(&key)?;
            session.sockets.remove(namespace);
            Some(session.client.refused(namespace))
        });
        if is_too_often == Some(true) {
            self.metrics().bounds.increment("refusals");
            self.engine().close(key, CloseReason::ForcedServerClose);
        }
    }

    /// Sends a packet without arguments.
    fn say(&self, key: Key, namespace: &Text, kind: Kind) {
        let namespace = namespace.clone();
        let packets = encode(&Packet { namespace, kind });
        self.engine().send(key, &packets);
    }

    /// Runs the handlers of a session's events, one after the other, until none waits.
    async fn work(self, key: Key, first: Incoming) {
        let mut next = Some(first);
        while let Some(incoming) = next {
            let Incoming {
                namespace,
                name,
                args,
                ack,
                received,
            } = incoming;
            if let Some(socket) = self.begin(key, &namespace) {
                let ack = ack.map(|id| Ack::of_client(socket.clone(), id));
                let event = Event {
                    name,
                    args,
                    ack,
                    received,
                };
                self.app().on_event(socket, event).await;
            }
            next = self.finished(key);
        }
    }

    fn begin(&self, key: Key, namespace: &str) -> Option<Socket> {
        let socket = self.socket_of(key, namespace)?;
        self.with(|state| {
            if let Some(session) = state.sessions.get_mut(&key) {
                session.running = Some(socket.id());
            }
        });
        Some(socket)
    }

    /// A handler has finished: says the good-byes that waited for it, and finds the next event.
    fn finished(&self, key: Key) -> Option<Incoming> {
        loop {
            let (farewells, step, resume, closing) = self.with(|state| {
                let session = state.sessions.get_mut(&key)?;
                session.running = None;
                let (step, resume) = session.client.next();
                let closing = session.closing.take_if(|_| step.is_none());
                let farewells = std::mem::take(&mut session.farewells);
                Some((farewells, step, resume, closing))
            })?;
            for farewell in farewells {
                self.say_farewell(&farewell);
            }
            if resume {
                self.engine().resume(key);
            }
            match (step, closing) {
                (Some(step), _) => {
                    if let Some(incoming) = self.act(key, step) {
                        return Some(incoming);
                    }
                }
                (None, Some(reason)) => {
                    self.end(key, reason);
                    return None;
                }
                (None, None) => {
                    self.with(|state| {
                        if state
                            .sessions
                            .get(&key)
                            .is_some_and(|session| session.is_closed)
                        {
                            state.sessions.remove(&key);
                        }
                    });
                    return None;
                }
            }
        }
    }

    /// The session is over for all its sockets.
    fn end(&self, key: Key, reason: CloseReason) {
        let namespaces = self.with(|state| {
            let session = state.sessions.get_mut(&key)?;
            session.is_closed = true;
            session.closing = None;
            session.client.forget_parked();
            let timers = [
                session.connect_timer.take(),
                session.attachments_timer.take(),
            ];
            let namespaces: Vec<Text> = session.sockets.keys().cloned().collect();
            for timer in timers.into_iter().flatten() {
                state.timers.cancel(timer);
            }
            Some(namespaces)
        });
        for namespace in namespaces.into_iter().flatten() {
            self.detach(key, &namespace, reason);
        }
        self.with(|state| {
            if state
                .sessions
                .get(&key)
                .is_some_and(|session| !session.client.is_busy())
            {
                state.sessions.remove(&key);
            }
        });
    }

    /// Ends one socket.
    fn detach(&self, key: Key, namespace: &str, reason: DisconnectReason) {
        let Some(socket) = self.socket_of(key, namespace) else {
            return;
        };
        let was_connected = socket.phase() == Phase::Connected;
        if socket.phase() == Phase::Leaving {
            return;
        }
        if was_connected {
            socket.set_phase(Phase::Leaving);
            self.app().on_disconnecting(&socket, reason);
        }
        let at = self.env().now() + self.options().connect_timeout;
        let removed = self.with(|state| {
            if let Some(session) = state.sessions.get_mut(&key) {
                session.sockets.remove(namespace);
                session.client.forget(namespace);
                if session.is_idle() {
                    // Nobody is there any more: it is as when the connection was made.
                    session.connect_timer = Some(state.timers.set(at, Due::Connect(key)));
                }
            }
            state.rooms.remove(namespace, key)
        });
        socket.set_phase(Phase::Gone);
        self.close_channels(socket.namespace(), removed.emptied);
        self.acks_failed(socket.id());
        if !was_connected {
            return;
        }
        if let Some(bus) = self.bus() {
            bus.detach(namespace, socket.id());
        }
        self.metrics().sockets.decrement(1.0);
        let farewell = Farewell {
            socket,
            reason,
            rooms: removed.rooms,
        };
        let now = self.with(|state| match state.sessions.get_mut(&key) {
            Some(session) if session.running == Some(farewell.socket.id()) => {
                session.farewells.push(farewell);
                None
            }
            _ => Some(farewell),
        });
        if let Some(farewell) = now {
            self.say_farewell(&farewell);
        }
    }

    fn say_farewell(&self, farewell: &Farewell) {
        let Farewell {
            socket,
            reason,
            rooms,
        } = farewell;
        self.app().on_disconnect(socket, *reason, rooms);
    }

    /// We end one socket.
    pub(super) fn disconnect(&self, socket: &Socket) {
        self.say(socket.key(), socket.namespace(), Kind::Disconnect);
        let reason = CloseReason::ServerNamespaceDisconnect;
        self.detach(socket.key(), socket.namespace(), reason);
    }

    /// We end all sockets of a session, and then the session.
    pub(super) fn disconnect_all(&self, key: Key) {
        let sockets: Vec<Socket> = self.with(|state| {
            let session = state.sessions.get(&key);
            session.map_or_else(Vec::new, |session| {
                session.sockets.values().cloned().collect()
            })
        });
        for socket in sockets.iter().filter(|socket| socket.is_connected()) {
            self.disconnect(socket);
        }
        self.engine().close(key, CloseReason::ForcedServerClose);
    }

    /// No namespace was joined in time, or attachments did not come.
    pub(super) fn session_due(&self, key: Key, reason: CloseReason) {
        self.with(|state| {
            if let Some(session) = state.sessions.get_mut(&key) {
                session.connect_timer = None;
                session.attachments_timer = None;
            }
        });
        self.engine().close(key, reason);
    }

    /// Runs a task as far as it gets now, and leaves the rest to the executor.
    pub(super) fn run_or_spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut task = task.boxed_local();
        if (&mut task).now_or_never().is_none() {
            self.spawn(task);
        }
    }
}

fn json(value: &impl Serialize) -> Text {
    let json = to_raw_value(value).expect("our own packets have a JSON form");
    Text::from(json.get())
}
