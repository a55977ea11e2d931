//! The chat: rooms, messages, and who is told.
//!
//! [`Chat`] is what runs on a shard's hub. It checks who a client is, what it may do and what it
//! sent, stores a message before anybody sees it, and tells the members of a room. A message's place
//! in its room is the store's `seq`; the hub delivers in that order and asks [`App::missed`] for what
//! the bus lost. Nothing here knows how packets travel.

mod deadline;
pub mod event;
mod expiry;
mod limit;
mod member;
mod owed;
pub mod permission;
mod reply;
pub mod rest;
mod room;
mod send;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{LocalBoxFuture, ready};
use serde_json::value::RawValue;

pub use self::send::WAITING_SENDS_MAX;

use self::deadline::Deadlines;
use self::event::{Authenticate, Authenticated, Code, Exception, Failure, MessageView, Timestamp};
use self::expiry::Expiries;
use self::member::Member;
use self::owed::Owed;
use self::permission::Permissions;
use self::reply::{Kind, Reply};
use crate::auth::{self, AuthError, Verifier};
use crate::bus::directory::ShardDirectory;
use crate::bus::usage::MessageRate;
use crate::env::Env;
use crate::hub::{
    App, Args, DisconnectReason, Event, Hub, Missed, Refusal, Socket, SocketId, Spawn, Task,
};
use crate::metrics::Metrics;
use crate::planted::{self, Defect};
use crate::store::{Cursor, Message, SharedStore};
use crate::wire::Text;

/// The one namespace of the chat.
pub const NAMESPACE: &str = "/";
/// The event that carries a message.
const RECEIVE_MESSAGE: &str = "receiveMessage";
/// Tokens that one tick looks at, so that a thousand that run out at once do not stop the shard.
const EXPIRED_PER_TICK: usize = 256;

/// The chat's settings.
#[derive(Debug, Clone, Default)]
pub struct ChatOptions {
    /// What the name of a room's Socket.IO room begins with.
    pub room_prefix: Box<str>,
    /// The bound of one connection's unsent output, which a replay must stay well below.
    pub outbox_bytes_max: usize,
    /// How much a user may send and join; [`Chat::set_message_rate`] changes it.
    pub message_rate: MessageRate,
}

/// What the chat of a shard stands on.
pub struct Parts {
    /// Time and random bytes.
    pub env: Rc<Env>,
    /// The shard's sockets.
    pub hub: Hub,
    /// Where messages are kept.
    pub store: SharedStore,
    /// Who clients are.
    pub verifier: Rc<Verifier>,
    /// Who may do what in a room.
    pub permissions: Rc<dyn Permissions>,
    /// Who is where on this host.
    pub directory: ShardDirectory,
    /// The shard's figures.
    pub metrics: Rc<Metrics>,
    /// Runs what outlives its event.
    pub spawn: Spawn,
}

/// The chat of one shard.
pub struct Chat {
    options: ChatOptions,
    parts: Parts,
    draining: Cell<bool>,
    expiries: RefCell<Expiries>,
    deadlines: Rc<Deadlines>,
    /// Sends that wait for the store.
    waiting: Rc<Cell<usize>>,
    owed: RefCell<Owed>,
    message_rate: Cell<MessageRate>,
    next_sweep: Cell<Instant>,
}

impl Chat {
    /// The chat over these parts. Give it to [`Hub::set_app`], and call [`Chat::tick`] at each tick.
    #[must_use]
    pub fn new(options: ChatOptions, parts: Parts) -> Rc<Self> {
        Rc::new(Self {
            message_rate: Cell::new(options.message_rate),
            next_sweep: Cell::new(parts.env.now()),
            options,
            draining: Cell::new(false),
            expiries: RefCell::default(),
            deadlines: Deadlines::new(parts.env.clone()),
            waiting: Rc::default(),
            owed: RefCell::new(Owed::new(parts.env.now())),
            parts,
        })
    }

    /// From now on every CONNECT is refused with `draining`.
    pub fn set_draining(&self) {
        self.draining.set(true);
    }

    /// How many sends wait for the store: a drain waits for none.
    #[must_use]
    pub fn waiting_sends(&self) -> usize {
        self.waiting.get()
    }

    /// Does what is due: ends sockets whose tokens have run out, and waits whose time is over.
    pub fn tick(self: &Rc<Self>, now: Instant) {
        self.deadlines.tick(now);
        self.tell_owed(now);
        self.sweep_usages(now);
        let wall_ms = self.parts.env.wall_ms();
        for _ in 0..EXPIRED_PER_TICK {
            let due = self.expiries.borrow_mut().pop_due(wall_ms);
            let Some(id) = due else { return };
            if planted::has(Defect::EndlessToken) {
                continue;
            }
            if let Some(socket) = self.parts.hub.socket(NAMESPACE, &id) {
                dismiss(&socket, &AuthError::Expired.into());
            }
        }
    }

    /// When [`Chat::tick`] next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let now = self.parts.env.now();
        let expiry = self.expiries.borrow().next().map(|at| {
            let wait = at.saturating_sub(self.parts.env.wall_ms());
            // A day is soon enough to look again, and does not overflow.
            now + Duration::from_millis(wait.min(86_400_000))
        });
        let owed = self.owed.borrow().next();
        [expiry, self.deadlines.next(), owed]
            .into_iter()
            .flatten()
            .min()
    }

    /// Checks a CONNECT.
    fn admit(&self, socket: &Socket, auth: &RawValue) -> Result<Member, Failure> {
        if self.draining.get() {
            let message = "this server is going away; connect again";
            return Err(Failure::new(Code::Draining, message));
        }
        let token = match event::connect_token(auth)? {
            Some(token) => token,
            None => handshake_token(socket).ok_or(AuthError::Missing)?,
        };
        let wall_ms = self.parts.env.wall_ms();
        let user = self.parts.verifier.verify(&token, wall_ms)?;
        self.check_cut_off(&user.id)?;
        Ok(Member::new(user, wall_ms))
    }

    async fn handle(
        self: &Rc<Self>,
        event: &Event,
        kind: Kind,
        reply: &mut Reply,
    ) -> Result<(), Failure> {
        let member = reply.socket().data::<Member>();
        let member = member.ok_or_else(|| bug(&self.parts.env, "a socket without user"))?;
        // Before anything else is looked at: this is what a flood may cost.
        match kind {
            Kind::SendMessage => self.take_message(&member)?,
            Kind::JoinRoom => self.take_join(&member, "join", "too many joins")?,
            Kind::Authenticate => self.take_join(&member, "authenticate", "too many tokens")?,
            Kind::LeaveRoom => {}
        }
        let is_expired = self.parts.env.wall_ms() >= member.expires_wall_ms();
        if kind != Kind::Authenticate && is_expired && !planted::has(Defect::EndlessToken) {
            return Err(AuthError::Expired.into());
        }
        match kind {
            Kind::JoinRoom => self.join_room(event, &member, reply).await,
            Kind::LeaveRoom => self.leave_room(event, &member, reply),
            Kind::SendMessage => self.send_message(event, &member, reply).await,
            Kind::Authenticate => self.authenticate(event, &member, reply),
        }
    }

    fn authenticate(
        &self,
        event: &Event,
        member: &Member,
        reply: &mut Reply,
    ) -> Result<(), Failure> {
        let request = Authenticate::parse(event.args.first())?;
        let wall_ms = self.parts.env.wall_ms();
        let user = self.parts.verifier.verify(&request.token, wall_ms)?;
        if user.id != member.user().id {
            let message = "the token is another user's";
            return Err(Failure::new(Code::Forbidden, message));
        }
        let id = reply.socket().id();
        let expires_at = Timestamp(user.expires_wall_ms);
        let before = member.expires_wall_ms();
        member.renew(user, wall_ms);
        {
            let mut expiries = self.expiries.borrow_mut();
            expiries.remove(before, id);
            expiries.insert(member.expires_wall_ms(), id);
        }
        reply.ok(&Authenticated {
            ok: true,
            expires_at,
        });
        Ok(())
    }

    /// The Socket.IO room of a room of the chat.
    fn socket_io_room(&self, room: &str) -> Text {
        Text::from(format!("{}{room}", self.options.room_prefix))
    }

    /// The room of the chat that a Socket.IO room is, if it is one.
    fn chat_room<'a>(&self, room: &'a str) -> Option<&'a str> {
        room.strip_prefix(&*self.options.room_prefix)
    }
}

/// The refusal for what only a bug of ours can cause. It is logged, and reported, under the id that
/// the message carries.
#[must_use]
pub fn bug(env: &Env, what: &'static str) -> Failure {
    let mut id = [0; 16];
    env.fill(&mut id);
    let id = format!("{:032x}", u128::from_be_bytes(id));
    tracing::error!(error.id = id, what, "a bug of this server");
    let message = format!("this is a bug of the server; whoever runs it finds it by {id}");
    Failure::new(Code::Internal, message)
}

/// The token of the request that opened the connection, for clients that cannot send it later.
fn handshake_token(socket: &Socket) -> Option<Box<str>> {
    let handshake = socket.handshake();
    let fields = &handshake.headers;
    let mut values = fields
        .iter()
        .filter(|(name, _)| &**name == "authorization")
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => auth::bearer(value).map(Box::from),
        _ => None,
    }
}

/// Tells a socket why its connection ends, and ends it.
fn dismiss(socket: &Socket, failure: &Failure) {
    let exception = Exception {
        event: "disconnect",
        error: failure,
    };
    socket.emit("exception", &Args::one(&exception));
    socket.disconnect(true);
}

fn refusal(failure: &Failure) -> Refusal {
    let data = serde_json::value::to_raw_value(failure).expect("a refusal has a JSON form");
    Refusal {
        message: Text::from(failure.message.as_ref()),
        data: Some(data),
    }
}

fn missed(message: &Message) -> Missed {
    Missed {
        seq: message.seq,
        event: Text::from(RECEIVE_MESSAGE),
        args: Args::one(&MessageView::from(message)),
    }
}

impl App for Chat {
    fn on_connect(
        self: Rc<Self>,
        socket: Socket,
        auth: Box<RawValue>,
    ) -> LocalBoxFuture<'static, Result<(), Refusal>> {
        let outcome = match self.admit(&socket, &auth) {
            Ok(member) => {
                socket.set_data(Rc::new(member));
                Ok(())
            }
            Err(failure) => {
                let errors = &self.parts.metrics.connect_errors;
                errors.increment(failure.code.as_str());
                Err(refusal(&failure))
            }
        };
        Box::pin(ready(outcome))
    }

    /// The token and the address are all that is wanted of it.
    fn keeps_handshake(&self) -> bool {
        false
    }

    fn on_connected(&self, socket: &Socket) {
        tracing::debug!(socket = %socket.id(), "connected");
        if let Some(member) = socket.data::<Member>() {
            let mut expiries = self.expiries.borrow_mut();
            expiries.insert(member.expires_wall_ms(), socket.id());
            drop(expiries);
            self.begin_usage(&member);
        }
    }

    fn on_event(self: Rc<Self>, socket: Socket, mut event: Event) -> Task {
        Box::pin(async move {
            let ack = event.ack.take();
            let Some(kind) = Kind::of(&event.name) else {
                // Unknown events are nobody's; but who asks gets an answer.
                reply::unknown(ack, &self.parts.metrics);
                return;
            };
            let mut reply = Reply::new(socket, kind, ack, self.parts.metrics.clone());
            if let Err(failure) = self.handle(&event, kind, &mut reply).await {
                reply.fail(&failure);
                if failure.code == Code::RateLimited {
                    self.cut_off_if_flooding(reply.socket());
                }
            }
        })
    }

    fn on_disconnect(&self, socket: &Socket, reason: DisconnectReason, _rooms: &[Text]) {
        let (socket_id, reason) = (socket.id(), reason.label());
        if reason == DisconnectReason::SlowConsumer.label() {
            tracing::warn!(socket = %socket_id, "closed: it does not read what is sent to it");
        } else {
            tracing::debug!(socket = %socket_id, reason, "disconnected");
        }
        let Some(member) = socket.data::<Member>() else {
            return;
        };
        let id: SocketId = socket.id();
        let mut expiries = self.expiries.borrow_mut();
        expiries.remove(member.expires_wall_ms(), id);
        drop(expiries);
        self.end_usage(&member);
        for room in member.take_rooms() {
            self.exit(&member, &room);
        }
    }

    fn is_ordered(&self, namespace: &str, room: &str) -> bool {
        namespace == NAMESPACE && self.chat_room(room).is_some()
    }

    fn heads(
        &self,
        _namespace: &str,
        rooms: Vec<Text>,
    ) -> LocalBoxFuture<'static, Option<Vec<u64>>> {
        let rooms: Option<Vec<Box<str>>> = rooms
            .iter()
            .map(|room| self.chat_room(room).map(Box::from))
            .collect();
        let Some(rooms) = rooms else {
            return Box::pin(ready(None));
        };
        let heads = self.parts.store.heads(rooms);
        Box::pin(async move { heads.await.ok() })
    }

    fn missed(
        &self,
        _namespace: &str,
        room: &str,
        after: u64,
        limit: usize,
    ) -> LocalBoxFuture<'static, Option<Vec<Missed>>> {
        let Some(room) = self.chat_room(room) else {
            return Box::pin(ready(None));
        };
        let page = self.parts.store.history(room, Cursor::After(after), limit);
        Box::pin(async move { Some(page.await.ok()?.messages.iter().map(missed).collect()) })
    }
}
