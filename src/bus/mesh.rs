//! The bus between the shards of one process.
//!
//! Every shard has one bounded ring that all others push into, pointers only. Nobody ever waits for a
//! ring: when one is full, the numbers of ordered rooms are noted and told at a later tick (the
//! receiver then reads the messages from the store); requests, answers, and the news that a user
//! entered or left a room wait in a bounded queue of the sender; other broadcasts are dropped and
//! counted. The task that receives never sends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use flume::{Receiver, Sender, TrySendError};
use futures_lite::future::yield_now;
use futures_util::future::{LocalBoxFuture, ready};

use super::directory::{Directory, SHARDS_MAX, ShardDirectory};
use super::heads::{Notice, OwedHeads};
use crate::hub::broadcast::{Broadcast, RoomKey};
use crate::hub::envelope::{Envelope, Node, Request, Response};
use crate::hub::{Bus, Hub, Task};
use crate::metrics::Metrics;
use crate::planted::{self, Defect};

/// Slots of a ring for each shard of the process.
const SLOTS_PER_SHARD: usize = 1_024;
/// Requests, answers and news of users that wait for one shard's ring to have room.
pub(super) const LETTERS_MAX: usize = 1_024;
/// Envelopes taken before other tasks of the shard get their turn.
const BURST: usize = 64;

/// One shard's end of the mesh while it is being set up: it may be sent to the shard's thread.
#[derive(Debug)]
pub struct Seat {
    shard: u8,
    rings: Vec<Sender<Envelope>>,
    own: Receiver<Envelope>,
    directory: Arc<Directory>,
}

/// Seats for `shards` shards.
///
/// # Panics
/// When there are more shards than [`SHARDS_MAX`].
#[must_use]
pub fn seats(shards: u8, directory: &Arc<Directory>) -> Vec<Seat> {
    seats_with_slots(shards, directory, SLOTS_PER_SHARD * usize::from(shards))
}

/// Seats whose rings have `slots` slots each: for those who must save memory, and for tests of full rings.
///
/// # Panics
/// When there are more shards than [`SHARDS_MAX`].
#[must_use]
pub fn seats_with_slots(shards: u8, directory: &Arc<Directory>, slots: usize) -> Vec<Seat> {
    assert!(shards <= SHARDS_MAX, "a set of shards holds 64");
    let rings: Vec<_> = (0..shards).map(|_| flume::bounded(slots)).collect();
    let senders: Vec<_> = rings.iter().map(|(sender, _)| sender.clone()).collect();
    let seat = |(shard, (_, own))| Seat {
        shard,
        rings: senders.clone(),
        own,
        directory: directory.clone(),
    };
    (0..shards).zip(rings).map(seat).collect()
}

impl Seat {
    /// Takes the seat on the shard's own thread.
    #[must_use]
    pub fn sit(self) -> Rc<Mesh> {
        let rings = self.rings.into_iter().map(Ring::new).collect();
        Rc::new(Mesh {
            shard: self.shard,
            rings,
            own: self.own,
            directory: ShardDirectory::new(self.directory, self.shard),
            metrics: Metrics::new(usize::from(self.shard)),
        })
    }
}

/// One shard's end of the mesh; give it to [`Hub::set_bus`].
pub struct Mesh {
    shard: u8,
    /// The way into each shard, by number.
    rings: Vec<Ring>,
    own: Receiver<Envelope>,
    directory: ShardDirectory,
    metrics: Metrics,
}

/// The way into one shard, and what waits for room in it.
struct Ring {
    sender: Sender<Envelope>,
    owed: RefCell<Owed>,
}

#[derive(Default)]
struct Owed {
    heads: OwedHeads,
    letters: VecDeque<Envelope>,
}

impl Owed {
    fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.letters.is_empty()
    }
}

impl Ring {
    fn new(sender: Sender<Envelope>) -> Self {
        let owed = RefCell::default();
        Self { sender, owed }
    }

    /// Sends what cannot be read later, now or at a tick. `false`: it is lost.
    fn post(&self, envelope: Envelope) -> bool {
        let mut owed = self.owed.borrow_mut();
        if owed.letters.len() >= LETTERS_MAX {
            return false;
        }
        owed.letters.push_back(envelope);
        self.send_letters(&mut owed);
        true
    }

    fn send_letters(&self, owed: &mut Owed) {
        while let Some(letter) = owed.letters.pop_front() {
            match self.sender.try_send(letter) {
                Ok(()) => {}
                Err(TrySendError::Full(letter)) => return owed.letters.push_front(letter),
                // That shard is ending, and so is the process.
                Err(TrySendError::Disconnected(_)) => owed.letters.clear(),
            }
        }
    }

    /// Tells the heads that are owed. `true`: a notice was sent.
    fn send_heads(&self, owed: &mut Owed) -> bool {
        let notice = match owed.heads.notice() {
            None => return false,
            Some(Notice::All) => Envelope::AllHeads,
            Some(Notice::Heads(heads)) => Envelope::Heads(Arc::new(heads)),
        };
        if matches!(self.sender.try_send(notice), Err(TrySendError::Full(_))) {
            return false;
        }
        owed.heads.clear();
        true
    }
}

impl Mesh {
    /// The directory's handle of this shard.
    #[must_use]
    pub fn directory(&self) -> &ShardDirectory {
        &self.directory
    }

    /// Receives until the process ends. Spawn it once for each shard; it makes itself the hub's bus,
    /// if that has none.
    pub async fn run(self: Rc<Self>, hub: Hub) {
        hub.set_bus(self.clone());
        let mut taken = 0;
        while let Ok(envelope) = self.own.recv_async().await {
            self.take(&hub, envelope);
            taken += 1;
            if taken % BURST == 0 {
                yield_now().await;
            }
        }
    }

    /// Takes what has arrived, without waiting: for tests and simulations.
    pub fn drain(&self, hub: &Hub) -> usize {
        let mut count = 0;
        for envelope in self.own.try_iter() {
            self.take(hub, envelope);
            count += 1;
        }
        count
    }

    fn take(&self, hub: &Hub, envelope: Envelope) {
        if let Envelope::Broadcast(broadcast) = &envelope
            && let (Some(news), [RoomKey::Named(room), ..]) =
                (&broadcast.presence, &*broadcast.target.rooms)
        {
            let namespace = &broadcast.target.namespace;
            if !self.directory.is_news(namespace, room, news.version) {
                return;
            }
        }
        hub.on_bus(envelope);
    }

    /// Sends what is owed. [`Hub::tick`] does it, once this is its bus.
    pub fn tick(&self, _now: Instant) {
        for ring in &self.rings {
            let mut owed = ring.owed.borrow_mut();
            if owed.is_empty() {
                continue;
            }
            ring.send_letters(&mut owed);
            if ring.send_heads(&mut owed) {
                self.metrics.bus_notices.increment(1);
            }
        }
    }

    /// Takes a broadcast to those of these shards that have members, a bit for each shard.
    pub(super) fn publish_to(&self, shards: u64, broadcast: &Arc<Broadcast>) {
        let mut shards = self.shards_of(broadcast) & shards & !(1 << self.shard);
        while shards != 0 {
            let shard = shards.trailing_zeros();
            shards &= shards - 1;
            if let Some(ring) = self.rings.get(shard as usize) {
                self.push(ring, broadcast);
            }
        }
    }

    /// Asks those of the other shards that have a bit here; returns how many.
    pub(super) fn ask(&self, shards: u64, request: &Arc<Request>) -> usize {
        let mut asked = 0;
        for (shard, ring) in self.others() {
            if shards & (1 << shard) == 0 {
                continue;
            }
            // Whoever cannot be reached counts too: its answer will not come in time.
            if !ring.post(Envelope::Request(Arc::clone(request))) {
                self.metrics.drops.increment("mesh_full");
            }
            asked += 1;
        }
        asked
    }

    fn others(&self) -> impl Iterator<Item = (usize, &Ring)> {
        let rings = self.rings.iter().enumerate();
        rings.filter(|(shard, _)| *shard != usize::from(self.shard))
    }

    /// The other shards that a broadcast is for, a bit for each.
    fn shards_of(&self, broadcast: &Broadcast) -> u64 {
        let target = &broadcast.target;
        if target.rooms.is_empty() {
            return u64::MAX;
        }
        let shards = target.rooms.iter().map(|room| match room {
            RoomKey::Named(room) => self.directory.others(&target.namespace, room),
            // Any shard may be meant by an id that another host made.
            RoomKey::Private(id) => 1u64.checked_shl(id.place().1.into()).unwrap_or(0),
        });
        shards.fold(0, |all, some| all | some)
    }

    fn push(&self, ring: &Ring, broadcast: &Arc<Broadcast>) {
        if broadcast.presence.is_some() {
            // Nobody could read it later, and whoever is told of a user's coming must hear of the going.
            if ring.post(Envelope::Broadcast(Arc::clone(broadcast))) {
                self.metrics.bus_published.increment(1);
            } else {
                self.metrics.drops.increment("mesh_full");
            }
            return;
        }
        if planted::has(Defect::LostBroadcast)
            && broadcast.order.is_some_and(|order| order.seq % 4 == 0)
        {
            return;
        }
        match ring
            .sender
            .try_send(Envelope::Broadcast(Arc::clone(broadcast)))
        {
            Ok(()) => self.metrics.bus_published.increment(1),
            Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                if let (Some(order), [RoomKey::Named(room)]) =
                    (broadcast.order, &*broadcast.target.rooms)
                {
                    let mut owed = ring.owed.borrow_mut();
                    owed.heads.owe(&broadcast.target.namespace, room, order.seq);
                    self.metrics.bus_owed.increment(1);
                } else {
                    self.metrics.drops.increment("mesh_full");
                }
            }
        }
    }
}

impl Bus for Mesh {
    fn publish(&self, broadcast: Arc<Broadcast>) {
        self.publish_to(u64::MAX, &broadcast);
    }

    fn subscribe(&self, namespace: &str, room: &str) -> Task {
        self.directory.subscribe(namespace, room);
        Box::pin(ready(()))
    }

    fn unsubscribe(&self, namespace: &str, room: &str) {
        self.directory.unsubscribe(namespace, room);
    }

    fn request(&self, request: Arc<Request>) -> LocalBoxFuture<'static, usize> {
        let asked = self.ask(u64::MAX, &request);
        Box::pin(ready(asked))
    }

    fn respond(&self, to: &Node, response: Response) {
        let Node::Shard(shard) = to else { return };
        let answer = Envelope::Response(Arc::new(response));
        let ring = self.rings.get(usize::from(*shard));
        if !ring.is_some_and(|ring| ring.post(answer)) {
            self.metrics.drops.increment("mesh_full");
        }
    }

    fn owe_all(&self) {
        for (_, ring) in self.others() {
            ring.owed.borrow_mut().heads.owe_again(Notice::All);
        }
    }

    fn tick(&self, now: Instant) {
        Mesh::tick(self, now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        // Whatever is owed is tried again at the next tick, whenever that is: a busy shard ticks often.
        None
    }
}
