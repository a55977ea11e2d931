//! The one answer that an event gets.

use std::rc::Rc;

use serde::Serialize;

use super::event::{Code, Exception, Failed, Failure};
use crate::hub::{Ack, Args, Socket};
use crate::metrics::Metrics;

/// The events of the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    JoinRoom,
    LeaveRoom,
    SendMessage,
    Authenticate,
}

impl Kind {
    pub(super) fn of(event: &str) -> Option<Self> {
        let all = [
            Self::JoinRoom,
            Self::LeaveRoom,
            Self::SendMessage,
            Self::Authenticate,
        ];
        all.into_iter().find(|kind| kind.name() == event)
    }

    fn name(self) -> &'static str {
        match self {
            Self::JoinRoom => "joinRoom",
            Self::LeaveRoom => "leaveRoom",
            Self::SendMessage => "sendMessage",
            Self::Authenticate => "authenticate",
        }
    }
}

/// The right to answer one event: with an ack if one was asked for, else a failure as `exception`.
pub(super) struct Reply {
    socket: Socket,
    kind: Kind,
    ack: Option<Ack>,
    metrics: Rc<Metrics>,
}

impl Reply {
    pub(super) fn new(socket: Socket, kind: Kind, ack: Option<Ack>, metrics: Rc<Metrics>) -> Self {
        Self {
            socket,
            kind,
            ack,
            metrics,
        }
    }

    /// Whose event it is.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Says that it succeeded. Whoever has said so does not fail afterwards.
    pub(super) fn ok(&mut self, answer: &impl Serialize) {
        self.note("ok");
        if let Some(ack) = self.ack.take() {
            ack.send(&Args::one(answer));
        }
    }

    /// Counts and logs the outcome.
    fn note(&self, outcome: &'static str) {
        let event = self.kind.name();
        self.metrics.events.increment_pair(event, outcome);
        tracing::debug!(socket = %self.socket.id(), event, outcome, "event answered");
    }

    /// Says that it failed.
    pub(super) fn fail(&mut self, failure: &Failure) {
        self.note(failure.code.as_str());
        if let Some(ack) = self.ack.take() {
            ack.send(&failed(failure));
            return;
        }
        let exception = Exception {
            event: self.kind.name(),
            error: failure,
        };
        self.socket.emit("exception", &Args::one(&exception));
    }
}

/// Answers an event that the chat does not know, if an answer is asked for. Its name is the client's,
/// so it is counted under a name of ours.
pub(super) fn unknown(ack: Option<Ack>, metrics: &Metrics) {
    let outcome = Code::InvalidPayload.as_str();
    metrics.events.increment_pair("other", outcome);
    if let Some(ack) = ack {
        let failure = Failure::new(Code::InvalidPayload, "event is not known");
        ack.send(&failed(&failure));
    }
}

fn failed(failure: &Failure) -> Args {
    Args::one(&Failed {
        ok: Some(false),
        error: failure,
    })
}
