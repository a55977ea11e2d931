//! One shard's connection to Redis, as a machine: what to send, what is owed, who has been confirmed.
//!
//! RESP3, so one connection publishes and subscribes. Redis answers in the order of the commands, and a
//! SUBSCRIBE with its push alone: so replies and confirmations are one queue. Nothing here waits, reads a
//! clock or knows a stream; whoever drives it hands in the bytes and the time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::reply::{Push, Reply};
use super::subscriptions::{Change, Subscriptions};
use super::target::Login;
use crate::hub::broadcast::Broadcast;
use crate::hub::envelope::Head;
use crate::wire::resp::{Replies, RespError, write_publish};

/// After so much silence Redis is asked whether it is there.
const SILENCE: Duration = Duration::from_millis(500);
/// A link that owes a reply for so long, and gives no other either, is down.
pub(super) const REPLY_WITHIN: Duration = Duration::from_secs(1);
/// What is not answered by then goes to the siblings by the mesh too.
pub(super) const LATE: Duration = Duration::from_millis(5);
/// When a reply is so late, what others publish cannot be expected either.
const AWAY: Duration = Duration::from_millis(25);
/// Bytes of messages that are not answered yet.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Bytes of answers that wait beside them: one describes all sockets of a shard, and cannot be in parts.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// What a message counts beside its bytes.
const OVERHEAD: usize = 64;
/// Subscriptions that may wait for their confirmation at once.
const UNCONFIRMED_MAX: usize = 2_048;
/// Channels of one SUBSCRIBE.
const CHANNELS_AT_ONCE: usize = 256;
/// Bytes of one reply: the largest message that anybody may publish, with room to spare. A larger one
/// cannot harm by this bound: Redis ends the connection of whoever is to get it before that
/// (`client-output-buffer-limit pubsub`, 32 MiB unless set otherwise).
const REPLY_BYTES_MAX: usize = 32 << 20;
/// What is kept allocated for output.
const OUTPUT_KEPT: usize = 256 << 10;

/// Why a link is given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// What came is none of Redis's.
    #[error("it does not speak Redis's protocol: {0}")]
    Protocol(#[from] RespError),
    /// A reply that does not answer what was asked.
    #[error("a reply that answers nothing")]
    Unexpected,
    /// Redis refuses a command.
    #[error("it refuses {command}: {message}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What Redis says.
        message: String,
    },
    /// It is a node of a cluster, or a sentinel.
    #[error("it is a Redis {0}, which is not supported yet: name a single Redis or Valkey server")]
    Unsupported(&'static str),
    /// A reply did not come.
    #[error("no answer in time")]
    Silent,
}

/// How far a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is no connection.
    Down,
    /// We have said who we are.
    Greeting,
    /// The channels of before are being subscribed again.
    Syncing,
    /// Everything published reaches us, and what we publish the others.
    Up,
}

/// What must not be lost with a link.
#[derive(Debug, Clone)]
pub(super) enum Parcel {
    /// A broadcast. `true`: the siblings have it by the mesh.
    Broadcast(Arc<Broadcast>, bool),
    /// Heads of rooms.
    Heads(Vec<Head>),
    /// The word that all rooms are to be compared.
    AllHeads,
    /// A request that nobody answers, so that nobody would miss an answer.
    Command,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Every channel of before is subscribed.
    Up,
    /// The last SUBSCRIBE of a channel is confirmed.
    Confirmed(Box<str>),
    /// A message on a channel.
    Message(Bytes, Bytes),
    /// How many subscribers the channel asked about has.
    Counted(u64, usize),
    /// How long a message took to be answered.
    RoundTrip(Duration),
}

/// A reply that is owed.
#[derive(Debug)]
struct Owed {
    since: Instant,
    of: Command,
}

#[derive(Debug)]
enum Command {
    Hello,
    Select,
    Ping,
    /// PUBLISH: what its message weighs, and what it was.
    Publish(usize, Option<Parcel>),
    /// PUBLISH of an answer to somebody's request, and what it weighs.
    Answer(usize),
    /// PUBSUB NUMSUB, with the number of who asked.
    Count(u64),
    /// `true`: of those from before the connection.
    Subscribe(Box<str>, bool),
    Unsubscribe(Box<str>),
}

/// A shard's connection to Redis.
#[derive(Debug)]
pub(super) struct Link {
    login: Login,
    phase: Phase,
    replies: Replies,
    output: Vec<u8>,
    written: usize,
    owed: VecDeque<Owed>,
    /// How many of the owed replies have been found late.
    looked: usize,
    unconfirmed: usize,
    /// Since it was last asked, something had to wait because so many were not confirmed.
    was_crowded: bool,
    subscriptions: Subscriptions,
    queued: usize,
    /// Bytes of answers that are not answered themselves.
    answers: usize,
    heard: Instant,
    /// When the last reply came.
    answered: Instant,
}

impl Link {
    /// A link that is down.
    #[must_use]
    pub(super) fn new(login: Login, now: Instant) -> Self {
        Self {
            login,
            phase: Phase::Down,
            replies: Replies::new(REPLY_BYTES_MAX),
            output: Vec::new(),
            written: 0,
            owed: VecDeque::new(),
            looked: 0,
            unconfirmed: 0,
            was_crowded: false,
            subscriptions: Subscriptions::default(),
            queued: 0,
            answers: 0,
            heard: now,
            answered: now,
        }
    }

    /// How far it is.
    #[must_use]
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether nothing is owed and everything is written.
    #[must_use]
    pub(super) fn is_idle(&self) -> bool {
        self.owed.is_empty() && self.output().is_empty()
    }

    /// Whether a reply is late, or there is no link: others had better find another way to us.
    #[must_use]
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        let oldest = self.owed.front();
        let is_late = oldest.is_some_and(|owed| now >= owed.since + LATE);
        self.phase != Phase::Up || is_late
    }

    /// Whether what others publish had better not be waited for.
    #[must_use]
    pub(super) fn is_away(&self, now: Instant) -> bool {
        let oldest = self.owed.front();
        self.phase != Phase::Up || oldest.is_some_and(|owed| now >= owed.since + AWAY)
    }

    /// There is a connection: says who we are.
    pub(super) fn connected(&mut self, now: Instant) {
        debug_assert_eq!(self.phase, Phase::Down, "of one connection at a time");
        self.phase = Phase::Greeting;
        (self.heard, self.answered) = (now, now);
        let hello = hello(&self.login);
        self.send(now, &hello, Command::Hello);
        if self.login.database > 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(self.login.database);
            self.send(now, &select, Command::Select);
        }
    }

    /// The connection is gone. Returns what was published and not answered.
    pub(super) fn lost(&mut self) -> Vec<Parcel> {
        self.phase = Phase::Down;
        self.replies = Replies::new(REPLY_BYTES_MAX);
        self.output = Vec::new();
        self.written = 0;
        (self.looked, self.unconfirmed) = (0, 0);
        (self.queued, self.answers) = (0, 0);
        self.subscriptions.lost();
        let owed = self.owed.drain(..).filter_map(|owed| match owed.of {
            Command::Publish(_, parcel) => parcel,
            _ => None,
        });
        owed.collect()
    }

    /// What is to be written.
    #[must_use]
    pub(super) fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// So much of the output was written.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.output.len() {
            self.output.clear();
            self.output.shrink_to(OUTPUT_KEPT);
            self.written = 0;
        } else if self.written > OUTPUT_KEPT {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    fn send(&mut self, now: Instant, command: &redis::Cmd, of: Command) {
        command.write_packed_command(&mut self.output);
        self.owed.push_back(Owed { since: now, of });
    }

    /// Publishes a message. `false`: not now, since there is no link or too much waits.
    pub(super) fn publish(
        &mut self,
        now: Instant,
        channel: &[&str],
        message: &[u8],
        parcel: Option<Parcel>,
    ) -> bool {
        let weight = weight(channel, message);
        if self.phase != Phase::Up || self.queued + weight > QUEUE_BYTES_MAX {
            return false;
        }
        self.queued += weight;
        self.put(now, channel, message, Command::Publish(weight, parcel));
        true
    }

    /// Publishes an answer to somebody's request. `false`: not now.
    pub(super) fn respond(&mut self, now: Instant, channel: &[&str], message: &[u8]) -> bool {
        let weight = weight(channel, message);
        if self.phase != Phase::Up || self.answers + weight > ANSWER_BYTES_MAX {
            return false;
        }
        self.answers += weight;
        self.put(now, channel, message, Command::Answer(weight));
        true
    }

    fn put(&mut self, now: Instant, channel: &[&str], message: &[u8], of: Command) {
        write_publish(&mut self.output, channel, message);
        self.owed.push_back(Owed { since: now, of });
    }

    /// Asks how many subscribers a channel has; the number comes with the answer.
    pub(super) fn count(&mut self, now: Instant, channel: &str, number: u64) -> bool {
        if self.phase != Phase::Up {
            return false;
        }
        let mut count = redis::cmd("PUBSUB");
        count.arg("NUMSUB").arg(channel);
        self.send(now, &count, Command::Count(number));
        true
    }

    /// One more wants the channel. `true`: it is subscribed and confirmed, or there is no link, so that
    /// nothing is to be waited for.
    pub(super) fn subscribe(&mut self, now: Instant, channel: &str) -> bool {
        let is_confirmed = self.subscriptions.want(channel);
        self.pump(now);
        is_confirmed || matches!(self.phase, Phase::Down | Phase::Greeting)
    }

    /// One less wants the channel.
    pub(super) fn unsubscribe(&mut self, now: Instant, channel: &str) {
        self.subscriptions.want_no_more(channel);
        self.pump(now);
    }

    /// How many channels are wanted.
    #[must_use]
    pub(super) fn channels(&self) -> usize {
        self.subscriptions.wanted()
    }

    /// Sends the SUBSCRIBEs and UNSUBSCRIBEs that are due, as many as may be under way.
    fn pump(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Syncing | Phase::Up) {
            return;
        }
        while self.unconfirmed < UNCONFIRMED_MAX {
            let changes = self.subscriptions.take(CHANNELS_AT_ONCE);
            let Some(first) = changes.first() else { return };
            let subscribes = matches!(first, Change::Subscribe(..));
            let mut command = redis::cmd(if subscribes {
                "SUBSCRIBE"
            } else {
                "UNSUBSCRIBE"
            });
            self.unconfirmed += changes.len();
            for change in changes {
                let of = match change {
                    Change::Subscribe(channel, of_before) => {
                        command.arg(&*channel);
                        Command::Subscribe(channel, of_before)
                    }
                    Change::Unsubscribe(channel) => {
                        command.arg(&*channel);
                        Command::Unsubscribe(channel)
                    }
                };
                self.owed.push_back(Owed { since: now, of });
            }
            command.write_packed_command(&mut self.output);
        }
        self.was_crowded |= self.subscriptions.has_changes();
    }

    /// Whether a subscription had to wait for the confirmation of others since the last call.
    pub(super) fn take_crowded(&mut self) -> bool {
        std::mem::take(&mut self.was_crowded)
    }

    /// Takes what was read. After an error the connection is of no use.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        bytes: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), LinkError> {
        self.heard = now;
        self.replies.push(bytes);
        let mut round_trip = None;
        while let Some(reply) = self.replies.next_reply()? {
            match Reply::parse(&reply) {
                Reply::Push(Push::Message(channel, message)) => {
                    events.push(Event::Message(channel, message));
                }
                Reply::Push(Push::Other) => {}
                Reply::Push(push) => {
                    self.answered = now;
                    self.confirmed(push, events)?;
                }
                reply => {
                    self.answered = now;
                    if let Some(since) = self.answered(now, reply, events)? {
                        round_trip = Some(now.saturating_duration_since(since));
                    }
                }
            }
        }
        events.extend(round_trip.map(Event::RoundTrip));
        self.pump(now);
        self.look_whether_up(events);
        Ok(())
    }

    fn pop(&mut self) -> Option<Owed> {
        self.looked = self.looked.saturating_sub(1);
        self.owed.pop_front()
    }

    /// A push that answers a SUBSCRIBE or an UNSUBSCRIBE.
    fn confirmed(&mut self, push: Push, events: &mut Vec<Event>) -> Result<(), LinkError> {
        let owed = self.pop().ok_or(LinkError::Unexpected)?;
        match (push, owed.of) {
            (Push::Subscribed(pushed), Command::Subscribe(channel, of_before))
                if *pushed == *channel.as_bytes() =>
            {
                if self.subscriptions.subscribed(&channel, of_before) {
                    events.push(Event::Confirmed(channel));
                }
            }
            (Push::Unsubscribed(pushed), Command::Unsubscribe(channel))
                if *pushed == *channel.as_bytes() =>
            {
                self.subscriptions.unsubscribed(&channel);
            }
            _ => return Err(LinkError::Unexpected),
        }
        self.unconfirmed -= 1;
        Ok(())
    }

    /// Any other reply. Returns since when an answered message had been under way.
    fn answered(
        &mut self,
        now: Instant,
        reply: Reply,
        events: &mut Vec<Event>,
    ) -> Result<Option<Instant>, LinkError> {
        if let Reply::Error(message) = reply {
            let command = self.owed.front().map_or("", |owed| owed.of.name());
            return Err(refusal(command, message));
        }
        let owed = self.pop().ok_or(LinkError::Unexpected)?;
        match (owed.of, reply) {
            (Command::Publish(weight, _), Reply::Number(_)) => {
                self.queued -= weight;
                return Ok(Some(owed.since));
            }
            (Command::Answer(weight), Reply::Number(_)) => self.answers -= weight,
            (Command::Count(number), Reply::Counted(count)) => {
                events.push(Event::Counted(number, count));
            }
            (Command::Hello, Reply::Hello(mode)) => match &*mode {
                "cluster" => return Err(LinkError::Unsupported("Cluster")),
                "sentinel" => return Err(LinkError::Unsupported("Sentinel")),
                _ if self.login.database == 0 => self.begin_sync(now),
                _ => {}
            },
            (Command::Select, Reply::Other) => self.begin_sync(now),
            (Command::Ping, Reply::Other) => {}
            _ => return Err(LinkError::Unexpected),
        }
        Ok(None)
    }

    fn begin_sync(&mut self, now: Instant) {
        self.phase = Phase::Syncing;
        self.subscriptions.begin();
        self.pump(now);
    }

    fn look_whether_up(&mut self, events: &mut Vec<Event>) {
        if self.phase == Phase::Syncing && self.subscriptions.is_as_before() {
            self.phase = Phase::Up;
            events.push(Event::Up);
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        if self.phase == Phase::Down {
            return Ok(());
        }
        match self.owed.front() {
            Some(owed) if now >= owed.since.max(self.answered) + REPLY_WITHIN => {
                Err(LinkError::Silent)
            }
            None if now >= self.heard + SILENCE => {
                self.send(now, &redis::cmd("PING"), Command::Ping);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// When [`Link::handle_timeout`] or [`Link::late`] has something to do.
    #[must_use]
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Down {
            return None;
        }
        let late = self.owed.get(self.looked).map(|owed| owed.since + LATE);
        let reply = match self.owed.front() {
            Some(owed) => owed.since.max(self.answered) + REPLY_WITHIN,
            None => self.heard + SILENCE,
        };
        Some(late.map_or(reply, |late| late.min(reply)))
    }

    /// The broadcasts that have become late, each once, with those behind them: nothing is to overtake them
    /// on another way. `true`: the siblings have it by the mesh.
    pub(super) fn late(&mut self, now: Instant) -> Vec<(Arc<Broadcast>, bool)> {
        let mut late = Vec::new();
        if self.owed.front().is_none_or(|owed| now < owed.since + LATE) {
            return late;
        }
        while let Some(owed) = self.owed.get_mut(self.looked) {
            if let Command::Publish(_, Some(Parcel::Broadcast(broadcast, pushed))) = &mut owed.of {
                late.push((Arc::clone(broadcast), std::mem::replace(pushed, true)));
            }
            self.looked += 1;
        }
        late
    }
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Select => "SELECT",
            Self::Ping => "PING",
            Self::Publish(..) | Self::Answer(_) => "PUBLISH",
            Self::Count(_) => "PUBSUB",
            Self::Subscribe(..) => "SUBSCRIBE",
            Self::Unsubscribe(_) => "UNSUBSCRIBE",
        }
    }
}

/// The first command of a connection: RESP3, and who we are.
pub(super) fn hello(login: &Login) -> redis::Cmd {
    let mut hello = redis::cmd("HELLO");
    hello.arg("3");
    if let Some(password) = &login.password {
        let user = login.user.as_deref().unwrap_or("default");
        hello.arg("AUTH").arg(user).arg(password.as_str());
    }
    hello.arg("SETNAME").arg("project-yum");
    hello
}

/// What a message counts until it is answered.
fn weight(channel: &[&str], message: &[u8]) -> usize {
    let channel = channel.iter().map(|piece| piece.len()).sum::<usize>();
    channel + message.len() + OVERHEAD
}

fn refusal(command: &'static str, message: String) -> LinkError {
    if message.starts_with("MOVED") || message.starts_with("CROSSSLOT") {
        return LinkError::Unsupported("Cluster");
    }
    LinkError::Refused { command, message }
}

#[cfg(test)]
mod tests;
