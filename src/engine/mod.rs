//! The sessions of one shard.
//!
//! [`Engine`] is a handle that everything on the shard may hold. Every entry borrows the table, steps
//! it, and ends the borrow before anybody else is called, so no borrow crosses an `await` or a call
//! back into the engine. Sessions that got something to send are marked dirty; the transport layer
//! flushes them all at once ([`Engine::poll_dirty`], [`Engine::take_dirty`]).

mod outbox;
mod session;
mod sid;
mod spares;
mod table;
mod terms;
#[cfg(test)]
pub(crate) mod testing;
mod watch;

#[cfg(test)]
mod tests;

use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::env::Env;
use crate::metrics::Metrics;
use crate::wire::Content;
use crate::wire::engine_io::{Encoded, Packet};
use outbox::Outbox;
pub use outbox::Waiting;
use session::{Session, Step};
pub use sid::Sid;
use spares::Spares;
use table::Table;
pub use terms::{CloseReason, Handshake, Outcome, Payload, Refusal, Transport};
use watch::{Watch, Watches};

/// Names a session on its shard. A key is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Place in the table.
    pub index: u32,
    /// How often that place was used before.
    pub generation: u32,
}

/// Timings and bounds of the sessions.
#[derive(Debug, Clone)]
pub struct Options {
    /// Silence between the open packet, or a pong, and the next ping.
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping.
    pub ping_timeout: Duration,
    /// How long an upgrade to WebSocket may take.
    pub upgrade_timeout: Duration,
    /// Whether the handshake of a polling session offers WebSocket.
    pub upgrades: bool,
    /// Bytes of one polling body or one WebSocket message.
    pub max_payload: usize,
    /// Unsent output of one session in bytes, each packet counted as its bytes + 64.
    pub outbox_bytes_max: usize,
    /// Names this host in session ids.
    pub host: u16,
    /// Names this shard in session ids.
    pub shard: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            upgrades: true,
            max_payload: 1_000_000,
            outbox_bytes_max: 1 << 20,
            host: 0,
            shard: 0,
        }
    }
}

/// What sits on top of the sessions: the Socket.IO hub, or an echo. Every method may call back into
/// the [`Engine`], for the same session too.
pub trait Handler {
    /// A session began. Its open packet is queued already.
    fn on_open(&self, key: Key, handshake: Handshake);
    /// Takes one message. `Flow::Pause` asks the transport to read nothing more of this session
    /// until [`Engine::resume`].
    fn on_message(&self, key: Key, content: Content) -> Flow;
    /// The session is to leave: nothing more is begun for it. Returns whether what was begun has
    /// finished, so that the session may be closed.
    fn on_drain(&self, key: Key) -> bool {
        let _ = key;
        true
    }
    /// A session ended: the last call for this key, made exactly once.
    fn on_close(&self, key: Key, reason: CloseReason);
}

/// Whether a handler can take more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The next message may come.
    Continue,
    /// Nothing more until [`Engine::resume`].
    Pause,
}

/// A shard's handle to its sessions.
#[derive(Clone)]
pub struct Engine {
    inner: Rc<Inner>,
}

struct Inner {
    env: Rc<Env>,
    options: Options,
    table: RefCell<Table>,
    spares: Rc<Spares>,
    ping: Rc<Encoded>,
    handler: RefCell<Option<Rc<dyn Handler>>>,
    metrics: OnceCell<Rc<Metrics>>,
    /// Who waits for [`Engine::poll_dirty`].
    flush: RefCell<Option<Waker>>,
    watches: Watches,
}

impl Engine {
    /// No sessions yet, and nobody above: call [`Engine::set_handler`] before the first
    /// [`Engine::open`].
    #[must_use]
    pub fn new(env: Rc<Env>, options: Options) -> Self {
        let table = Table::new(env.now(), options.ping_interval);
        let spares = Rc::new(Spares::new(env.now()));
        Self {
            inner: Rc::new(Inner {
                env,
                options,
                table: RefCell::new(table),
                spares,
                ping: Rc::new(Encoded::text('2', "")),
                handler: RefCell::new(None),
                metrics: OnceCell::new(),
                flush: RefCell::new(None),
                watches: Watches::default(),
            }),
        }
    }

    /// Says who sits above.
    pub fn set_handler(&self, handler: Rc<dyn Handler>) {
        *self.inner.handler.borrow_mut() = Some(handler);
    }

    /// Says where sessions are counted. Without it they are not.
    pub fn set_metrics(&self, metrics: Rc<Metrics>) {
        let _ = self.inner.metrics.set(metrics);
    }

    fn count(&self, count: impl FnOnce(&Metrics)) {
        if let Some(metrics) = self.inner.metrics.get() {
            count(metrics);
        }
    }

    fn handler(&self) -> Rc<dyn Handler> {
        let handler = self.inner.handler.borrow();
        Rc::clone(handler.as_ref().expect("a handler is set at start"))
    }

    /// Timings and bounds.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Steps one session at the present time.
    fn step<R>(&self, key: Key, step: impl FnOnce(&mut Session, Instant) -> R) -> Option<R> {
        let now = self.inner.env.now();
        self.change(key, |session| step(session, now))
    }

    /// Changes one session, then tells whoever waits for what came of it. The only place where a
    /// session is borrowed for a change.
    fn change<R>(&self, key: Key, change: impl FnOnce(&mut Session) -> R) -> Option<R> {
        let mut table = self.inner.table.borrow_mut();
        let result = change(table.get_mut(key)?);
        let news = table.settle(key);
        let dirty = table.has_dirty();
        drop(table);
        if dirty {
            self.wake_flush();
        }
        if news {
            self.inner.watches.fire(key);
        }
        Some(result)
    }

    fn wake_flush(&self) {
        let waker = self.inner.flush.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Looks at one session.
    fn look<R>(&self, key: Key, look: impl FnOnce(&Session) -> R) -> Option<R> {
        self.inner.table.borrow().get(key).map(look)
    }

    /// Begins a session: queues its open packet, then tells the handler.
    #[expect(
        clippy::must_use_candidate,
        reason = "a session lives on its own; a test may open one and look at its handler"
    )]
    pub fn open(&self, transport: Transport, handshake: Handshake) -> Key {
        let Options { host, shard, .. } = *self.options();
        let sid = Sid::new(&self.inner.env, host, shard);
        let now = self.inner.env.now();
        let outbox = Outbox::new(Rc::clone(&self.inner.spares));
        let session = Session::new(now, sid, transport, outbox, self.options());
        let key = self.inner.table.borrow_mut().insert(session);
        self.step(key, |_, _| ());
        self.count(|metrics| {
            metrics.sessions_opened.increment(transport.as_str());
            sessions(metrics, transport).increment(1.0);
        });
        self.handler().on_open(key, handshake);
        key
    }

    /// The session of this id, if a request may still name it. A pong deadline that has passed is
    /// noticed here, whatever the timers say.
    #[must_use]
    pub fn find(&self, sid: &Sid) -> Option<Key> {
        let key = self.inner.table.borrow().find(sid)?;
        let now = self.inner.env.now();
        if self.look(key, |session| session.is_overdue(now, self.options()))? {
            self.close(key, CloseReason::PingTimeout);
            return None;
        }
        Some(key)
    }

    /// The id of a session.
    #[must_use]
    pub fn sid(&self, key: Key) -> Option<Sid> {
        self.look(key, |session| *session.sid())
    }

    /// How a session's packets travel now.
    #[must_use]
    pub fn transport(&self, key: Key) -> Option<Transport> {
        self.look(key, Session::transport)
    }

    /// Whether the session is neither closed nor closing.
    #[must_use]
    pub fn is_open(&self, key: Key) -> bool {
        self.look(key, Session::is_open).unwrap_or(false)
    }

    /// Why the session is closing, while what is queued, and a close packet or frame after it, still
    /// has to be sent.
    #[must_use]
    pub fn closing(&self, key: Key) -> Option<CloseReason> {
        self.look(key, Session::closing)?
    }

    /// How many sessions are open.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.inner.table.borrow().open_count()
    }

    /// The open sessions, in the order of their places: for draining.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.inner.table.borrow().open_keys().collect()
    }

    // What the layer above calls.

    /// Queues packets. For a session that is closing or gone they are dropped; over
    /// [`Options::outbox_bytes_max`] the session closes with [`CloseReason::SlowConsumer`].
    pub fn send(&self, key: Key, packets: &[Encoded]) {
        self.send_all(&[key], packets);
    }

    /// Does what [`Engine::send`] does for each of these sessions, which share the packets.
    pub fn send_all(&self, keys: &[Key], packets: &[Encoded]) {
        let bytes_max = self.options().outbox_bytes_max;
        let packets: Vec<_> = packets.iter().cloned().map(Rc::new).collect();
        let mut slow = Vec::new();
        let mut table = self.inner.table.borrow_mut();
        for key in keys {
            let sent = table.output(*key, |session| session.send(&packets, bytes_max));
            if let Some((Err(reason), _)) = sent {
                slow.push((*key, reason));
            }
        }
        let dirty = table.has_dirty();
        drop(table);
        if dirty {
            self.wake_flush();
        }
        if !self.inner.watches.is_empty() {
            for key in keys {
                self.inner.watches.fire(*key);
            }
        }
        for (key, reason) in slow {
            self.close(key, reason);
        }
    }

    /// Ends a session. When it is we who want it, what is queued is still sent, then a close packet
    /// or frame. The handler is told at once, unless it was before.
    pub fn close(&self, key: Key, reason: CloseReason) {
        self.close_answering(key, reason, '1');
    }

    fn close_answering(&self, key: Key, reason: CloseReason, answer: char) {
        let closed = self.step(key, |session, now| {
            let first = session.close(now, reason, answer);
            first.then(|| session.transport())
        });
        if let Some(Some(transport)) = closed {
            self.inner.table.borrow_mut().count_closed();
            self.count(|metrics| {
                metrics.sessions_closed.increment(reason.label());
                sessions(metrics, transport).decrement(1.0);
                if reason == CloseReason::SlowConsumer {
                    metrics.slow_consumers.increment(1);
                }
            });
            self.handler().on_close(key, reason);
        }
    }

    /// Asks the handler to begin nothing more for a session. Returns whether it may be closed now.
    #[must_use]
    pub fn drain(&self, key: Key) -> bool {
        self.change(key, Session::leave);
        self.handler().on_drain(key)
    }

    /// Whether the session is neither gone, closing, nor asked to go by [`Engine::drain`].
    #[must_use]
    pub fn is_staying(&self, key: Key) -> bool {
        self.look(key, Session::is_staying).unwrap_or(false)
    }

    /// The handler can take messages again.
    pub fn resume(&self, key: Key) {
        self.step(key, |session, _| session.resume());
    }

    /// Unsent output, each packet counted as its bytes + 64.
    #[must_use]
    pub fn outbox_bytes(&self, key: Key) -> usize {
        self.look(key, Session::outbox_bytes).unwrap_or(0)
    }

    /// Whether a volatile packet would leave now: a GET is pending, or the WebSocket has taken all
    /// that was sent before.
    #[must_use]
    pub fn is_writable(&self, key: Key) -> bool {
        self.look(key, Session::is_writable).unwrap_or(false)
    }

    /// Resolves when at most `below` bytes are unsent, or the session no longer stays: until its client
    /// fetches its output, or is given up, may take longer than a drain.
    pub fn drained(&self, key: Key, below: usize) -> impl Future<Output = ()> + 'static {
        let engine = self.clone();
        async move {
            while engine.is_staying(key) && engine.outbox_bytes(key) > below {
                engine.changed(key).await;
            }
        }
    }

    // What the transport layer calls.

    /// Takes one packet of the client, that came `via` a transport. Messages go on to the handler.
    pub fn receive(&self, key: Key, via: Transport, packet: Packet) -> Outcome {
        let closes = packet == Packet::Close;
        let step = self.step(key, |session, now| {
            session.receive(now, via, packet, self.options())
        });
        match step {
            None => Outcome::Closed,
            Some(Step::Done(outcome)) => {
                // One that is closing was counted out as it was.
                if outcome == Outcome::Upgraded && self.is_open(key) {
                    self.count(|metrics| {
                        metrics.sessions_polling.decrement(1.0);
                        metrics.sessions_websocket.increment(1.0);
                    });
                }
                outcome
            }
            Some(Step::Close(reason)) => {
                // A client that closes stops polling: its GET is let go without a close packet.
                self.close_answering(key, reason, if closes { '6' } else { '1' });
                Outcome::Closed
            }
            Some(Step::Message(content)) => {
                let flow = self.handler().on_message(key, content);
                if flow == Flow::Pause {
                    self.step(key, |session, _| session.pause());
                }
                if self.is_open(key) {
                    Outcome::Taken(flow)
                } else {
                    Outcome::Closed
                }
            }
        }
    }

    /// Whether the handler asked for a pause.
    #[must_use]
    pub fn is_paused(&self, key: Key) -> bool {
        self.look(key, Session::is_paused).unwrap_or(false)
    }

    /// Resolves when something happened to the session since this call: output, a close, a resume,
    /// progress of an upgrade.
    pub fn changed(&self, key: Key) -> impl Future<Output = ()> + use<> {
        Watch::new(Rc::clone(&self.inner), key)
    }

    /// A GET came. [`Refusal::Overlap`]: the session is closed by that.
    pub fn begin_poll(&self, key: Key) -> Result<(), Refusal> {
        let begun = self.step(key, |session, _| session.begin_poll());
        self.close_on_overlap(key, begun.unwrap_or(Err(Refusal::Unknown)))
    }

    fn close_on_overlap(&self, key: Key, begun: Result<(), Refusal>) -> Result<(), Refusal> {
        if begun == Err(Refusal::Overlap) {
            self.close(key, CloseReason::TransportError);
        }
        begun
    }

    /// What the pending GET must answer now; `None`: it has to wait. Ends the poll.
    #[must_use]
    pub fn take_payload(&self, key: Key) -> Option<Payload> {
        self.step(key, |session, _| session.take_payload())?
    }

    /// The client left before its GET was answered, or before it had the answer.
    pub fn abort_poll(&self, key: Key) {
        self.step(key, |session, _| session.forget_poll());
        self.abort(key);
    }

    /// The client left a request. That ends a session which polls; one that was upgraded meanwhile
    /// has left that transport behind.
    fn abort(&self, key: Key) {
        if self.transport(key) == Some(Transport::Polling) {
            self.close(key, CloseReason::TransportError);
        }
    }

    /// A POST came: its body is about to be read. [`Refusal::Overlap`]: the session is closed.
    pub fn begin_post(&self, key: Key) -> Result<(), Refusal> {
        let begun = self.step(key, |session, _| session.begin_post());
        self.close_on_overlap(key, begun.unwrap_or(Err(Refusal::Unknown)))
    }

    /// The POST's packets were all taken, or it was refused without harm to the session.
    pub fn end_post(&self, key: Key) {
        self.step(key, |session, _| session.end_post());
    }

    /// The client left in the midst of its POST.
    pub fn abort_post(&self, key: Key) {
        self.end_post(key);
        self.abort(key);
    }

    /// A WebSocket came that wants to take over a polling session. Whoever is let in must call
    /// [`Engine::detach`] in the end.
    pub fn begin_probe(&self, key: Key) -> Result<(), Refusal> {
        let timeout = self.options().upgrade_timeout;
        let begun = self.step(key, |session, now| session.begin_probe(now, timeout));
        begun.unwrap_or(Err(Refusal::Unknown))
    }

    /// Whether a WebSocket may still take over.
    #[must_use]
    pub fn is_probing(&self, key: Key) -> bool {
        self.look(key, Session::is_probing).unwrap_or(false)
    }

    /// Shows `look` what waits for the session's WebSocket: nothing, while it polls or when it is gone.
    /// `look` must not call the engine.
    pub fn transmit<R>(&self, key: Key, look: impl FnOnce(Waiting<'_>) -> R) -> R {
        let table = self.inner.table.borrow();
        look(table.get(key).map(Session::waiting).unwrap_or_default())
    }

    /// `bytes` of the waiting frames were sent.
    pub fn transmitted(&self, key: Key, bytes: usize) {
        let mut table = self.inner.table.borrow_mut();
        let done = table.output(key, |session| session.transmitted(bytes));
        drop(table);
        if let Some(((), true)) = done {
            self.inner.watches.fire(key);
        }
    }

    /// The WebSocket lets go of the session. An upgrade that was not done is abandoned, and polling
    /// goes on; a session that travelled on this WebSocket ends.
    pub fn detach(&self, key: Key) {
        if self.transport(key) == Some(Transport::WebSocket) {
            self.close(key, CloseReason::TransportClose);
        }
        self.step(key, |session, _| session.detach());
    }

    /// Ready when sessions wait for a flush.
    pub fn poll_dirty(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.inner.table.borrow().has_dirty() {
            return Poll::Ready(());
        }
        *self.inner.flush.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Moves the keys of the sessions that wait for a flush into `dirty`. Only sessions that a
    /// WebSocket is attached to are among them: a waiting GET has [`Engine::changed`].
    pub fn take_dirty(&self, dirty: &mut Vec<Key>) {
        self.inner.table.borrow_mut().take_dirty(dirty);
    }

    /// Does what is due: pings, time-outs.
    pub fn tick(&self) {
        let now = self.inner.env.now();
        self.inner.spares.trim(now);
        #[expect(clippy::cast_precision_loss, reason = "a gauge needs no last digit")]
        self.count(|metrics| {
            let bytes = self.inner.table.borrow().outbox_bytes();
            metrics.outbox_bytes.set(bytes as f64);
        });
        let due = self.inner.table.borrow_mut().take_due(now);
        for key in due {
            let timeout = self.step(key, |session, now| {
                let was_closing = session.closing().is_some();
                let reason = session.handle_timeout(now, &self.inner.ping, self.options());
                (reason, was_closing && session.closing().is_none())
            });
            let Some((reason, gave_up)) = timeout else {
                continue;
            };
            if gave_up {
                self.count(|metrics| metrics.bounds.increment("farewell_time"));
            }
            if let Some(reason) = reason {
                self.close(key, reason);
            }
        }
    }

    /// When [`Engine::tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.inner.table.borrow().next_deadline()
    }
}

fn sessions(metrics: &Metrics, transport: Transport) -> &metrics::Gauge {
    match transport {
        Transport::Polling => &metrics.sessions_polling,
        Transport::WebSocket => &metrics.sessions_websocket,
    }
}
