//! Defects on purpose, one of which the simulation of a cluster (`tests/simulation`) may switch on for its
//! own thread, to see that it would be found.
//!
//! Only a build with debug assertions has them. In the release profile [`has`] is a constant `false`, and
//! nothing of this is left in the binary; `tests/run` looks for [`MARKER`] in it.

/// One thing that the code then does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// `bus/mesh.rs`: every fourth number of a room is not pushed, and is not owed.
    LostBroadcast,
    /// `hub/order.rs`: a broadcast that was delivered is delivered again.
    DeliveredTwice,
    /// `hub/order.rs`: a broadcast that overtook its predecessor is not held.
    SwappedOrder,
    /// `hub/order.rs`: the news of a greater number is not followed up.
    MissedRepair,
    /// `hub/order.rs`: the first answer without messages counts as final.
    GapSkipped,
    /// `hub/channel.rs`: the room's newest number is read before the room is subscribed to, and a room that goes
    /// meanwhile is subscribed to all the same. It is this that is found.
    HeadBeforeSubscribe,
    /// `hub/channel.rs`: a room without members stays subscribed.
    ForgottenUnsubscribe,
    /// `hub/client.rs`: of several events that wait one is lost, and its ack with it.
    LostAck,
    /// `hub/session.rs`: whoever falls silent stays in its rooms.
    LeakedSession,
    /// `engine/session.rs`: what waits when a WebSocket takes over is lost.
    UpgradeLosesOutput,
    /// `engine/session.rs`: the next poll gets what the last one got.
    PayloadTwice,
    /// `engine/session.rs`: unsent output has no bound.
    UnboundedOutbox,
    /// `chat/send.rs`: the ack does not wait for the store.
    AckBeforeCommit,
    /// `chat/send.rs`: an unknown outcome is called a refusal.
    RefusedYetStored,
    /// `chat/send.rs`: the client's key is not stored.
    StoredTwice,
    /// `hub/rooms.rs`: live messages do not wait for a replay.
    LiveBeforeReplay,
    /// `chat/room.rs`: nobody hears that a user has come.
    LostUserJoined,
    /// `chat/room.rs`: nobody hears that a user has left.
    LostUserLeft,
    /// `chat/mod.rs`: a token that has run out still serves.
    EndlessToken,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::LostBroadcast,
        Self::DeliveredTwice,
        Self::SwappedOrder,
        Self::MissedRepair,
        Self::GapSkipped,
        Self::HeadBeforeSubscribe,
        Self::ForgottenUnsubscribe,
        Self::LostAck,
        Self::LeakedSession,
        Self::UpgradeLosesOutput,
        Self::PayloadTwice,
        Self::UnboundedOutbox,
        Self::AckBeforeCommit,
        Self::RefusedYetStored,
        Self::StoredTwice,
        Self::LiveBeforeReplay,
        Self::LostUserJoined,
        Self::LostUserLeft,
        Self::EndlessToken,
    ];
}

/// A binary that can be given defects holds this text.
pub const MARKER: &str = "defects can be planted in this binary";

#[cfg(debug_assertions)]
mod switch {
    use std::cell::Cell;

    use super::{Defect, MARKER};

    #[used]
    static MARKED: &str = MARKER;

    thread_local! {
        static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    /// Gives this thread a defect, or takes it away.
    pub fn plant(defect: Option<Defect>) {
        PLANTED.set(defect);
    }

    /// Whether this thread has the defect.
    pub(crate) fn has(defect: Defect) -> bool {
        PLANTED.get() == Some(defect)
    }
}

#[cfg(debug_assertions)]
pub(crate) use switch::has;
#[cfg(debug_assertions)]
pub use switch::plant;

/// Never, in this build.
#[cfg(not(debug_assertions))]
pub(crate) const fn has(_: Defect) -> bool {
    false
}
