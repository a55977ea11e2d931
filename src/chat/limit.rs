//! How many messages a user may send, and how many rooms join, on all connections to this process
//! together.
//!
//! What is over the rate is refused, and costs nothing else. Whoever goes on sending regardless is cut
//! off: the connection ends, and CONNECT is refused until the refusals are forgotten.
//!
//! Joins have a rate because each may tell all members of a room, and the leave after it once more:
//! who comes and goes as fast as it can would fill everybody's connection. Refused ones end no
//! connection: a client that comes back joins all its rooms at once, before it can know. Tokens count with
//! them, good ones and bad ones: a signature costs more than anything else that a client may ask for.

use std::time::{Duration, Instant};

use super::event::Failure;
use super::member::Member;
use super::{Chat, dismiss};
use crate::bus::usage::MessageRate;
use crate::hub::Socket;

/// How often absent users are looked at.
const SWEEP: Duration = Duration::from_secs(1);

impl Chat {
    /// Changes how much a user may send and join, from now on.
    pub fn set_message_rate(&self, limit: MessageRate) {
        self.message_rate.set(limit);
    }

    /// A socket is connected.
    pub(super) fn begin_usage(&self, member: &Member) {
        let usage = self.parts.directory.arrive(&member.user().id);
        member.set_usage(usage);
    }

    /// It is gone.
    pub(super) fn end_usage(&self, member: &Member) {
        if member.take_usage().is_some() {
            let now = self.parts.env.now();
            if self.parts.directory.leave(&member.user().id, now) {
                self.parts.metrics.bounds.increment("absent_users");
            }
        }
    }

    /// Takes one message from what the user may send.
    pub(super) fn take_message(&self, member: &Member) -> Result<(), Failure> {
        let Some(usage) = member.usage() else {
            return Ok(());
        };
        let (limit, now) = (self.message_rate.get(), self.parts.env.now());
        let taken = self.parts.directory.take_message(&usage, limit, now);
        taken.map_err(|wait| {
            self.parts.metrics.rate_limited.increment("message");
            Failure::rate_limited("too many messages", wait)
        })
    }

    /// Takes one join, or one token, from what the user may do; `what` it is for the figures.
    pub(super) fn take_join(
        &self,
        member: &Member,
        what: &'static str,
        message: &'static str,
    ) -> Result<(), Failure> {
        let Some(usage) = member.usage() else {
            return Ok(());
        };
        let (limit, now) = (self.message_rate.get(), self.parts.env.now());
        let taken = self.parts.directory.take_join(&usage, limit, now);
        taken.map_err(|wait| {
            self.parts.metrics.rate_limited.increment(what);
            Failure::rate_limited(message, wait)
        })
    }

    /// Refuses a user who was refused too often.
    pub(super) fn check_cut_off(&self, user: &str) -> Result<(), Failure> {
        let (limit, now) = (self.message_rate.get(), self.parts.env.now());
        match self.parts.directory.cut_off(user, limit, now) {
            None => Ok(()),
            Some(wait) => Err(Failure::rate_limited("too many refused messages", wait)),
        }
    }

    /// Ends the connection of a user who was refused too often.
    pub(super) fn cut_off_if_flooding(&self, socket: &Socket) {
        let Some(member) = socket.data::<Member>() else {
            return;
        };
        let Err(failure) = self.check_cut_off(&member.user().id) else {
            return;
        };
        self.parts.metrics.rate_limited.increment("flood");
        dismiss(socket, &failure);
    }

    /// Forgets absent users, now and then.
    pub(super) fn sweep_usages(&self, now: Instant) {
        if now >= self.next_sweep.get() {
            self.next_sweep.set(now + SWEEP);
            self.parts.directory.sweep(now);
        }
    }
}
