//! One Engine.IO session: handshake, heartbeat, polling, upgrade, outbox and close, as a machine that
//! takes packets and instants.
//!
//! It knows both transports and no socket. A polling GET and a WebSocket are two ways to drain one
//! outbox, and an upgrade is a state of the session, not of whoever carries its bytes. Nothing here
//! waits or reads a clock.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::outbox::{Outbox, Waiting};
use super::{CloseReason, Flow, Options, Outcome, Payload, Refusal, Sid, Transport};
use crate::planted::{self, Defect};
use crate::wire::Content;
use crate::wire::engine_io::{Encoded, Packet};

/// How long a close packet waits for the GET that fetches it.
const LINGER: Duration = Duration::from_secs(30);

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The handler is told; what is queued, and a close packet, still wait for their transport.
    Closing(CloseReason),
    /// Nothing is owed but the answer of a pending GET.
    Closed {
        /// The one packet of that answer.
        answer: char,
    },
}

/// How far a WebSocket is that wants to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    None,
    /// It is there; `2probe` is awaited.
    Connected,
    /// It was answered `3probe`; `5` is awaited.
    Granted {
        /// GETs that were answered with a noop since then.
        noops: u8,
    },
}

/// GETs of a session that closes while a probe is granted that are answered with a noop. A client
/// that stops polling asks twice at most: what was pending, and what was on its way.
const CLOSING_NOOPS_MAX: u8 = 3;

/// What a packet of the client means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A message for the handler.
    Message(Content),
    /// Nothing for the handler.
    Done(Outcome),
    /// The session must close.
    Close(CloseReason),
}

/// One session.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others, and there are ten thousand sessions"
)]
pub(super) struct Session {
    sid: Sid,
    transport: Transport,
    phase: Phase,
    probe: Probe,
    /// A WebSocket refers to this session, so its place in the table must not be reused.
    attached: bool,
    poll_pending: bool,
    post_pending: bool,
    paused: bool,
    /// The server wants it to go as soon as its handler has finished.
    leaving: bool,
    /// [`Session::resume`] was called since the last message was handed on.
    resumed: bool,
    /// A ping is out, and `heartbeat` is the deadline of its pong. Else it is the next ping.
    awaiting_pong: bool,
    heartbeat: Instant,
    /// Of the upgrade, or of the close packet: never both.
    deadline: Option<Instant>,
    outbox: Outbox,
    news: News,
}

/// Whom a step concerns besides its caller.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct News {
    /// The transport has something to do: output, a close, a resume.
    pub(super) transport: bool,
    /// Output has left.
    pub(super) progress: bool,
}

impl Session {
    /// A session whose open packet is queued in `outbox`.
    pub(super) fn new(
        now: Instant,
        sid: Sid,
        transport: Transport,
        outbox: Outbox,
        options: &Options,
    ) -> Self {
        let mut session = Self {
            sid,
            transport,
            phase: Phase::Open,
            probe: Probe::None,
            attached: transport == Transport::WebSocket,
            poll_pending: false,
            post_pending: false,
            paused: false,
            leaving: false,
            resumed: false,
            awaiting_pong: false,
            heartbeat: now + options.ping_interval,
            deadline: None,
            outbox,
            news: News::default(),
        };
        session.push(Rc::new(open_packet(sid, transport, options)));
        session
    }

    pub(super) fn sid(&self) -> &Sid {
        &self.sid
    }

    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Why it is closing, while something is still owed to the client.
    pub(super) fn closing(&self) -> Option<CloseReason> {
        match self.phase {
            Phase::Closing(reason) => Some(reason),
            Phase::Open | Phase::Closed { .. } => None,
        }
    }

    fn is_closing(&self) -> bool {
        self.closing().is_some()
    }

    /// Whether a request may still name it: a closing session's next GET fetches the close packet.
    pub(super) fn is_known(&self) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::Closing(_) => self.transport == Transport::Polling,
            Phase::Closed { .. } => false,
        }
    }

    /// Whether nobody will ask for it any more.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. }) && !self.attached && !self.poll_pending
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attached
    }

    pub(super) fn is_probing(&self) -> bool {
        self.attached && self.probe != Probe::None && !matches!(self.phase, Phase::Closed { .. })
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn outbox_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    pub(super) fn is_writable(&self) -> bool {
        self.is_open()
            && match self.transport {
                Transport::Polling => self.poll_pending,
                Transport::WebSocket => self.outbox.is_empty(),
            }
    }

    /// What happened since this was asked last.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    // Output.

    fn push(&mut self, packet: Rc<Encoded>) {
        self.outbox.push(packet);
        self.news.transport = true;
    }

    /// Queues packets; `Err` when the client does not keep up.
    pub(super) fn send(
        &mut self,
        packets: &[Rc<Encoded>],
        bytes_max: usize,
    ) -> Result<(), CloseReason> {
        if !self.is_open() {
            return Ok(());
        }
        for packet in packets {
            self.push(Rc::clone(packet));
            if self.outbox.bytes() > bytes_max && !planted::has(Defect::UnboundedOutbox) {
                return Err(CloseReason::SlowConsumer);
            }
        }
        Ok(())
    }

    /// See [`super::Engine::transmit`].
    pub(super) fn waiting(&self) -> Waiting<'_> {
        match self.transport {
            Transport::WebSocket => self.outbox.waiting(),
            Transport::Polling => Waiting::default(),
        }
    }

    /// `bytes` of what waits for the WebSocket were sent.
    pub(super) fn transmitted(&mut self, bytes: usize) {
        self.news.progress |= bytes > 0;
        self.outbox.transmitted(bytes);
    }

    // Polling.

    pub(super) fn begin_poll(&mut self) -> Result<(), Refusal> {
        self.check_request()?;
        if self.poll_pending {
            return Err(Refusal::Overlap);
        }
        self.poll_pending = true;
        Ok(())
    }

    pub(super) fn begin_post(&mut self) -> Result<(), Refusal> {
        self.check_request()?;
        if self.post_pending {
            return Err(Refusal::Overlap);
        }
        self.post_pending = true;
        Ok(())
    }

    fn check_request(&self) -> Result<(), Refusal> {
        match (self.is_known(), self.transport) {
            (false, _) => Err(Refusal::Unknown),
            (true, Transport::WebSocket) => Err(Refusal::WrongTransport),
            (true, Transport::Polling) => Ok(()),
        }
    }

    pub(super) fn end_post(&mut self) {
        self.post_pending = false;
    }

    /// The client left its GET: nothing is owed for it any more.
    pub(super) fn forget_poll(&mut self) {
        self.poll_pending = false;
    }

    /// See [`super::Engine::take_payload`].
    pub(super) fn take_payload(&mut self) -> Option<Payload> {
        if !self.poll_pending {
            return None;
        }
        let payload = match (self.phase, self.transport) {
            (Phase::Closed { answer }, _) => single(answer),
            // What is queued belongs to the WebSocket now.
            (_, Transport::WebSocket) => single('6'),
            // Also while closing, and the close packet goes with the next GET: official clients end
            // the connection at a close packet before they look at what came in front of it.
            (_, Transport::Polling) if !self.outbox.is_empty() => self.drain_payload(),
            // A client that polls on all the same will not say `5`: it hears the close.
            (phase, Transport::Polling) if self.takes_noop(phase) => single('6'),
            (Phase::Closing(reason), Transport::Polling) => {
                // Some clients stay away after a close packet (python-engineio). Those of a server that
                // goes away shall come back: nothing is said, and their next request is unknown.
                let goes_away = reason == CloseReason::ServerShuttingDown;
                let answer = if goes_away { '6' } else { '1' };
                self.end_probe();
                self.phase = Phase::Closed { answer };
                self.deadline = None;
                single(answer)
            }
            (Phase::Open, Transport::Polling) => return None,
        };
        self.poll_pending = false;
        Some(payload)
    }

    /// Whether a GET is released only so that the client can go over to its WebSocket.
    fn takes_noop(&mut self, phase: Phase) -> bool {
        let Probe::Granted { noops } = &mut self.probe else {
            return false;
        };
        *noops = noops.saturating_add(1);
        phase == Phase::Open || *noops <= CLOSING_NOOPS_MAX
    }

    fn drain_payload(&mut self) -> Payload {
        let mut body = Vec::with_capacity(self.outbox.bytes());
        for packet in self.outbox.packets() {
            packet.append_to_payload(&mut body);
        }
        let compress = self.outbox.packets().all(|packet| packet.compress());
        if !planted::has(Defect::PayloadTwice) {
            self.outbox.clear();
        }
        self.news.progress = true;
        Payload { body, compress }
    }

    // Input.

    /// Takes one packet of the client.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        via: Transport,
        packet: Packet,
        options: &Options,
    ) -> Step {
        match (self.phase, &packet) {
            (Phase::Open, _) => {}
            // It does not want to hear our close packet any more.
            (Phase::Closing(_), Packet::Close) => return Step::Close(CloseReason::TransportClose),
            // It may have stopped polling already: what is owed to it then goes by the WebSocket.
            (Phase::Closing(_), _) if via == Transport::WebSocket && self.is_probing() => {}
            _ => return Step::Done(Outcome::Closed),
        }
        if via == Transport::WebSocket && self.transport == Transport::Polling {
            return Step::Done(self.receive_probe(now, &packet));
        }
        match packet {
            Packet::Message(content) => {
                self.resumed = false;
                Step::Message(content)
            }
            Packet::Pong { .. } => {
                self.awaiting_pong = false;
                self.heartbeat = now + options.ping_interval;
                Step::Done(Outcome::Taken(Flow::Continue))
            }
            Packet::Close => Step::Close(CloseReason::TransportClose),
            // Only the server of Engine.IO v4 pings.
            Packet::Ping { .. } => Step::Close(CloseReason::TransportError),
            Packet::Open | Packet::Upgrade | Packet::Noop => {
                Step::Done(Outcome::Taken(Flow::Continue))
            }
        }
    }

    /// A packet on a WebSocket that is not the transport yet.
    fn receive_probe(&mut self, now: Instant, packet: &Packet) -> Outcome {
        match (self.probe, packet) {
            (Probe::Connected, Packet::Ping { probe: true }) => {
                self.probe = Probe::Granted { noops: 0 };
                // Whoever waits in a GET is released, so that the client can stop polling.
                self.news.transport = true;
                Outcome::AnswerProbe
            }
            (Probe::Granted { .. }, Packet::Upgrade) => {
                self.forget_probe();
                self.transport = Transport::WebSocket;
                if planted::has(Defect::UpgradeLosesOutput) {
                    self.outbox.clear();
                }
                self.news.transport = true;
                if self.awaiting_pong {
                    // The pong may have been lost with the old transport: no deadline for it, and
                    // another ping instead of none for ever.
                    self.awaiting_pong = false;
                    self.heartbeat = now.max(self.heartbeat);
                }
                Outcome::Upgraded
            }
            _ => {
                self.end_probe();
                Outcome::ProbeRefused
            }
        }
    }

    /// The handler can take no more for now, unless it has said otherwise meanwhile.
    pub(super) fn pause(&mut self) {
        self.paused = !self.resumed;
    }

    /// The server wants it to go: nothing is worth a wait for its client any more.
    pub(super) fn leave(&mut self) {
        self.news.transport |= !std::mem::replace(&mut self.leaving, true);
    }

    /// Whether it is neither closing nor about to.
    pub(super) fn is_staying(&self) -> bool {
        self.is_open() && !self.leaving
    }

    pub(super) fn resume(&mut self) {
        self.resumed = true;
        if self.paused {
            self.paused = false;
            self.news.transport = true;
        }
    }

    // Upgrade.

    pub(super) fn begin_probe(&mut self, now: Instant, timeout: Duration) -> Result<(), Refusal> {
        if !self.is_known() {
            return Err(Refusal::Unknown);
        }
        if self.transport == Transport::WebSocket || self.attached || !self.is_open() {
            return Err(Refusal::AlreadyUpgrading);
        }
        self.attached = true;
        self.probe = Probe::Connected;
        self.deadline = Some(now + timeout);
        Ok(())
    }

    fn end_probe(&mut self) {
        if self.is_probing() {
            self.forget_probe();
            self.news.transport = true;
        }
    }

    fn forget_probe(&mut self) {
        self.probe = Probe::None;
        if self.is_open() {
            self.deadline = None;
        }
    }

    /// The WebSocket lets go of the session.
    pub(super) fn detach(&mut self) {
        self.end_probe();
        self.attached = false;
        if self.is_closing() && self.transport == Transport::WebSocket {
            self.phase = Phase::Closed { answer: '1' };
        }
    }

    // Time.

    /// When [`Session::handle_timeout`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        if self.is_open() {
            let deadline = self.deadline.unwrap_or(self.heartbeat);
            Some(deadline.min(self.heartbeat))
        } else {
            self.deadline
        }
    }

    /// Does what is due; `ping` is the packet of all heartbeats. `Some`: the session must close.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        ping: &Rc<Encoded>,
        options: &Options,
    ) -> Option<CloseReason> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            if self.is_closing() {
                self.phase = Phase::Closed { answer: '1' };
                self.outbox.clear();
                // Whoever waits for the output to leave, or carries it, waits for nothing now.
                self.news.transport = true;
            }
            self.end_probe();
        }
        if !self.is_open() || now < self.heartbeat {
            return None;
        }
        if self.awaiting_pong {
            return Some(CloseReason::PingTimeout);
        }
        self.push(Rc::clone(ping));
        self.awaiting_pong = true;
        // The deadline follows the schedule, not the moment our timer fired; but a client must not
        // pay for a shard that stood still.
        let scheduled = self.heartbeat + options.ping_timeout;
        self.heartbeat = scheduled.max(now + options.ping_timeout / 2);
        None
    }

    /// Whether a request comes too late, even if no timer has fired yet.
    pub(super) fn is_overdue(&self, now: Instant, options: &Options) -> bool {
        let deadline = if self.awaiting_pong {
            self.heartbeat
        } else {
            self.heartbeat + options.ping_timeout
        };
        self.is_open() && now >= deadline
    }

    // The end.

    /// Closes; `true` when the handler has to be told. `answer` is what a pending GET gets when
    /// nothing else is owed to the client.
    pub(super) fn close(&mut self, now: Instant, reason: CloseReason, answer: char) -> bool {
        let first = self.is_open();
        match self.phase {
            Phase::Closed { .. } => return false,
            Phase::Closing(_) if reason.is_graceful() => return false,
            Phase::Open | Phase::Closing(_) => {}
        }
        if !(reason.is_graceful() && matches!(self.probe, Probe::Granted { .. })) {
            self.end_probe();
        }
        self.paused = false;
        self.news.transport = true;
        if reason.is_graceful() {
            self.phase = Phase::Closing(reason);
            self.deadline = Some(now + LINGER);
        } else {
            self.phase = Phase::Closed { answer };
            self.deadline = None;
            self.outbox.clear();
        }
        first
    }
}

fn open_packet(sid: Sid, transport: Transport, options: &Options) -> Encoded {
    let upgrades = match transport {
        Transport::Polling if options.upgrades => r#"["websocket"]"#,
        _ => "[]",
    };
    let body = format!(
        r#"{{"sid":"{}","upgrades":{upgrades},"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
        sid.as_str(),
        options.ping_interval.as_millis(),
        options.ping_timeout.as_millis(),
        options.max_payload,
    );
    Encoded::text('0', &body)
}

fn single(kind: char) -> Payload {
    Payload {
        body: kind.to_string().into_bytes(),
        compress: false,
    }
}
