//! What waits to be sent to one client: whole packets, and how much of the first one has left.
//!
//! An idle session holds no memory for it. The list of what waits comes from the shard's [`Spares`] with
//! the first packet and goes back when all was sent: a fan-out that goes on allocates nothing for a member.

use std::rc::Rc;

use super::spares::{List, Spares};
use crate::wire::engine_io::Encoded;

/// What a queued packet counts beside its bytes.
const PACKET_OVERHEAD: usize = 64;

/// The packets of one session that were not sent yet.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Shared with the outboxes of all who are sent the same.
    packets: List,
    bytes: usize,
    /// How much of the first packet's frame was sent.
    sent: usize,
    spares: Rc<Spares>,
}

impl Outbox {
    /// An empty one, of the shard that has these spare lists.
    pub(super) fn new(spares: Rc<Spares>) -> Self {
        Self {
            packets: List::new(),
            bytes: 0,
            sent: 0,
            spares,
        }
    }

    /// The bytes of what waits, each packet counted as its bytes + [`PACKET_OVERHEAD`].
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn packets(&self) -> impl Iterator<Item = &Rc<Encoded>> {
        self.packets.iter()
    }

    pub(super) fn push(&mut self, packet: Rc<Encoded>) {
        if self.packets.capacity() == 0 {
            self.packets = self.spares.take();
        }
        self.bytes += packet.frame().len() + PACKET_OVERHEAD;
        self.packets.push_back(packet);
    }

    /// Empties it, and gives its list back: most sessions are idle most of the time.
    pub(super) fn clear(&mut self) {
        self.bytes = 0;
        self.sent = 0;
        self.spares.put(std::mem::take(&mut self.packets));
    }

    pub(super) fn waiting(&self) -> Waiting<'_> {
        Waiting {
            packets: self.packets.as_slices(),
            sent: self.sent,
        }
    }

    /// Takes out what has left with `bytes` more of the frames.
    pub(super) fn transmitted(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent + self.packets.len() * PACKET_OVERHEAD == self.bytes {
            return self.clear();
        }
        while let Some(first) = self.packets.front().map(|packet| packet.frame().len()) {
            if self.sent < first {
                return;
            }
            self.sent -= first;
            self.bytes -= first + PACKET_OVERHEAD;
            self.packets.pop_front();
        }
        debug_assert!(false, "no more was sent than was waiting");
        self.clear();
    }
}

/// What waits for a session's WebSocket, in the order in which it is sent.
#[derive(Debug, Default, Clone, Copy)]
pub struct Waiting<'a> {
    packets: (&'a [Rc<Encoded>], &'a [Rc<Encoded>]),
    sent: usize,
}

impl<'a> Waiting<'a> {
    /// How many packets wait.
    #[must_use]
    pub fn len(self) -> usize {
        self.packets.0.len() + self.packets.1.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.packets.0.is_empty()
    }

    /// How many bytes of the first packet's frame were sent already.
    #[must_use]
    pub fn sent(self) -> usize {
        self.sent
    }

    /// The packets, whole.
    pub fn packets(self) -> impl Iterator<Item = &'a Rc<Encoded>> {
        let (first, second) = self.packets;
        first.iter().chain(second)
    }

    /// What is left of their frames: the first without what was sent of it.
    pub fn frames(self) -> impl Iterator<Item = &'a [u8]> {
        let mut sent = self.sent;
        self.packets()
            .map(move |packet| &packet.frame()[std::mem::take(&mut sent)..])
    }

    /// Whether the very same packets come first, none of them sent in part.
    #[must_use]
    pub fn begins_with(self, packets: &[Rc<Encoded>]) -> bool {
        let (first, _) = self.packets;
        // Where the queue has turned round its memory they are laid out anew.
        self.sent == 0
            && first.len() >= packets.len()
            && first.iter().zip(packets).all(|(a, b)| Rc::ptr_eq(a, b))
    }
}
