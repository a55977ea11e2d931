//! Rooms as broadcasts see them: subscribing, the lossless join, and delivery in order.
//!
//! A shard's first join of a room makes its channel: the bus is asked for what others broadcast, then
//! the application for the room's newest number, and what arrives meanwhile is held
//! ([`order`](super::order)). Everybody who joins until then waits for the same answer; who joins later
//! takes the last number delivered. The last member's leave ends the channel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};

use super::broadcast::{Broadcast, Flags, RoomKey, Target};
use super::envelope::{Envelope, Head};
use super::order::RoomOrder;
use super::promise::{Promise, promise};
use super::timers::TimerId;
use super::{Due, Hub, Joined, Missed, Socket, State};
use crate::engine::{CloseReason, Key};
use crate::planted::{self, Defect};
use crate::wire::Text;
use crate::wire::engine_io::Encoded;
use crate::wire::socket_io::encode_event;

/// Packets read from the application at once.
const REPAIR_PAGE: usize = 500;
/// Rooms whose newest numbers are asked for at once.
const HEADS_PAGE: usize = 1_000;

/// A namespace and a room in it.
pub(super) type RoomName = (Text, Text);

/// A room that has members here.
pub(super) struct Channel {
    /// A room that emptied and filled again is another channel.
    generation: u64,
    /// Who waits for the channel to open; `None` once it has.
    waiters: Option<Vec<Promise<Option<u64>>>>,
    /// Who waits until a number is delivered, or turns out not to exist.
    behind: Vec<(u64, Promise<()>)>,
    order: Option<RoomOrder<Item>>,
    timer: Option<TimerId>,
}

impl Channel {
    /// How many broadcasts wait for their predecessor, in an ordered room.
    pub(super) fn held(&self) -> Option<usize> {
        self.order.as_ref().map(RoomOrder::held)
    }
}

/// A broadcast to one room, ready to be sent.
pub(super) struct Item {
    packets: Vec<Encoded>,
    flags: Flags,
    /// When it was published, unless it was read from the store.
    published: Option<Instant>,
}

/// A repair to make: what to ask, and of which channel.
struct Repair {
    name: RoomName,
    generation: u64,
    after: u64,
}

impl Hub {
    /// Puts a socket into a room. What must happen at once happens before this returns.
    pub(super) fn join(&self, socket: &Socket, room: &Text) -> LocalBoxFuture<'static, Joined> {
        let name = (socket.namespace().clone(), room.clone());
        let nothing = Joined {
            seq: None,
            already: false,
        };
        if !socket.is_connected() {
            return ready(nothing).boxed_local();
        }
        let is_ordered = self.app().is_ordered(&name.0, &name.1);
        let now = self.env().now();
        let (generation, joined, wait) = self.with(|state| {
            let entered = state.rooms.join(&name.0, socket.key(), room);
            let Some(entered) = entered else {
                return (None, nothing, None);
            };
            let generation = entered.first.then(|| {
                state.generation += 1;
                let channel = Channel {
                    generation: state.generation,
                    waiters: Some(Vec::new()),
                    behind: Vec::new(),
                    order: is_ordered.then(|| RoomOrder::new(now)),
                    timer: None,
                };
                state.channels.insert(name.clone(), Box::new(channel));
                state.generation
            });
            let channel = state.channels.get_mut(&name);
            let channel = channel.expect("a room with members has a channel");
            let joined = Joined {
                seq: channel.order.as_ref().and_then(RoomOrder::delivered),
                already: entered.already,
            };
            let wait = channel.waiters.as_mut().map(|waiters| {
                let (keep, promised) = promise();
                waiters.push(keep);
                promised
            });
            (generation, joined, wait)
        });
        if let Some(generation) = generation {
            self.metrics().rooms.set(self.room_count());
            self.run_or_spawn(self.clone().open_channel(name, generation, is_ordered));
        }
        match wait {
            None => ready(joined).boxed_local(),
            Some(seq) => seq.map(move |seq| Joined { seq, ..joined }).boxed_local(),
        }
    }

    async fn open_channel(self, name: RoomName, generation: u64, is_ordered: bool) {
        let early = planted::has(Defect::HeadBeforeSubscribe);
        let mut head = None;
        if early && is_ordered {
            head = self.head(&name).await;
            if self.with(|state| state.channel(&name, generation).is_none()) {
                return;
            }
        }
        if let Some(bus) = self.bus() {
            bus.subscribe(&name.0, &name.1).await;
        }
        if is_ordered && !early {
            self.settle(&name);
            head = self.head(&name).await;
        }
        let now = self.env().now();
        let opened = self.with(|state| {
            let channel = state.channel(&name, generation)?;
            let waiters = channel.waiters.take()?;
            let order = channel.order.as_mut();
            Some((
                waiters,
                order.map_or_else(Vec::new, |order| order.open(now, head)),
            ))
        });
        if let Some((waiters, items)) = opened {
            for waiter in waiters {
                waiter.keep(head);
            }
            self.deliver_items(&name, items);
            self.settle(&name);
        }
    }

    /// A room's newest number, if it can be known now.
    async fn head(&self, name: &RoomName) -> Option<u64> {
        let heads = self.app().heads(&name.0, vec![name.1.clone()]).await;
        heads.and_then(|heads| heads.first().copied())
    }

    /// Ends channels whose last member has left.
    pub(super) fn close_channels(&self, namespace: &Text, rooms: Vec<Text>) {
        for room in rooms {
            let name = (namespace.clone(), room);
            let channel = self.with(|state| {
                let channel = state.channels.remove(&name);
                if let Some(timer) = channel.as_ref().and_then(|channel| channel.timer) {
                    state.timers.cancel(timer);
                }
                channel
            });
            // Whoever still waits is answered by this.
            drop(channel);
            if let Some(bus) = self.bus()
                && !planted::has(Defect::ForgottenUnsubscribe)
            {
                bus.unsubscribe(&name.0, &name.1);
            }
            self.metrics().rooms.set(self.room_count());
        }
    }

    /// Takes a socket out of a room.
    pub(super) fn leave(&self, socket: &Socket, room: &str) -> bool {
        let left = self.with(|state| state.rooms.leave(socket.namespace(), socket.key(), room));
        if left.last {
            self.close_channels(socket.namespace(), vec![room.into()]);
        }
        left.was_in
    }

    /// Sends a broadcast to everybody it is for.
    pub(super) fn publish(&self, broadcast: &Arc<Broadcast>, is_local: bool) {
        self.metrics().broadcasts.increment(1);
        if !is_local && let Some(bus) = self.bus() {
            bus.publish(Arc::clone(broadcast));
        }
        self.take(broadcast.published, broadcast, broadcast.packets.clone());
    }

    /// Takes what the bus brought from another node.
    pub fn on_bus(&self, envelope: Envelope) {
        self.metrics().bus_received.increment(1);
        match envelope {
            Envelope::Broadcast(broadcast) => {
                if self.came_already(&broadcast) {
                    return;
                }
                // Their reference counts are to stay on this shard's core.
                let packets = broadcast.packets.iter().map(Encoded::copy).collect();
                self.take(self.env().now(), &broadcast, packets);
            }
            Envelope::Request(request) => {
                // The task that receives from the bus never sends on it.
                let hub = self.clone();
                self.spawn(Box::pin(async move { hub.answer(&request) }));
            }
            Envelope::Response(response) => self.answered(&response),
            Envelope::Heads(heads) => {
                for Head {
                    namespace,
                    room,
                    seq,
                } in heads.iter()
                {
                    self.notice(&(namespace.clone(), room.clone()), *seq);
                }
            }
            Envelope::AllHeads => self.compare_heads(),
        }
    }

    /// Takes a broadcast of another host, decoded on this shard when it was published as far as we know.
    pub fn on_far_broadcast(&self, mut broadcast: Broadcast) {
        self.metrics().bus_received.increment(1);
        if !self.came_already(&broadcast) {
            let packets = std::mem::take(&mut broadcast.packets);
            self.take(broadcast.published, &broadcast, packets);
        }
    }

    /// Whether another way of the bus has brought a broadcast before. Stored messages are judged by
    /// their numbers alone.
    fn came_already(&self, broadcast: &Broadcast) -> bool {
        let origin = broadcast.origin.as_ref();
        let Some(origin) = origin.filter(|_| broadcast.order.is_none()) else {
            return false;
        };
        let (is_full, is_new) = self.with(|state| {
            let is_full = state.windows.is_full_for(origin);
            (is_full, state.windows.accept(origin))
        });
        if is_full {
            self.metrics().bounds.increment("nodes");
        }
        if !is_new {
            self.metrics().bus_duplicates.increment(1);
        }
        !is_new
    }

    /// Delivers a broadcast to our own sockets, in its turn.
    fn take(&self, now: Instant, broadcast: &Broadcast, packets: Vec<Encoded>) {
        let Broadcast { target, flags, .. } = broadcast;
        if let (Some(news), [RoomKey::Named(room), ..]) = (&broadcast.presence, &*target.rooms) {
            let room = (target.namespace.clone(), room.clone());
            let said = (news.version, &broadcast.event);
            let (is_full, is_new) = self.with(|state| {
                let is_full = state.presence.is_full();
                let members = state.channels.get(&room).map(|channel| channel.generation);
                let name = (room.0, room.1, news.user.clone());
                let is_new = state.presence.accept(now, name, members, said);
                (is_full, is_new)
            });
            if is_full {
                self.metrics().bounds.increment("presence");
            }
            if !is_new {
                return;
            }
        }
        let (Some(order), [RoomKey::Named(room)]) = (broadcast.order, &*target.rooms) else {
            self.deliver(target, &packets, *flags, false);
            return self.delivered(Some(broadcast.published));
        };
        let name = (target.namespace.clone(), room.clone());
        let item = Item {
            packets,
            flags: *flags,
            published: Some(broadcast.published),
        };
        let ready = self.with(|state| {
            let channel = state.channels.get_mut(&name)?;
            Some(match &mut channel.order {
                Some(order_of_room) => order_of_room.receive(now, order.seq, item),
                // The application has not called the room an ordered one.
                None => vec![item],
            })
        });
        if let Some(items) = ready {
            if items.is_empty() && self.bus().is_some_and(|bus| bus.is_away()) {
                self.with(|state| {
                    let channel = state.channels.get_mut(&name)?;
                    channel.order.as_mut()?.hurry(now);
                    Some(())
                });
            }
            self.deliver_items(&name, items);
            self.settle(&name);
        }
    }

    fn deliver_items(&self, name: &RoomName, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let target = Target {
            namespace: name.0.clone(),
            rooms: vec![RoomKey::Named(name.1.clone())],
            except: Vec::new(),
        };
        let is_ordered = self.with(|state| {
            let channel = state.channels.get(name);
            channel.is_some_and(|channel| channel.order.is_some())
        });
        for item in items {
            self.deliver(&target, &item.packets, item.flags, is_ordered);
            self.delivered(item.published);
        }
    }

    /// Measures how long a broadcast was on its way, its wait for a predecessor included.
    fn delivered(&self, published: Option<Instant>) {
        if let Some(published) = published {
            let way = self.env().now().saturating_duration_since(published);
            self.metrics().delivery_seconds.record(way.as_secs_f64());
        }
    }

    /// Sends packets to those of our own sockets that a target means.
    fn deliver(&self, target: &Target, packets: &[Encoded], flags: Flags, is_numbered: bool) {
        let (engine, bytes_max) = (self.engine(), self.options().outbox_bytes_max);
        let (keys, late) = self.with(|state| {
            // Kept from one delivery to the next, so that a fan-out allocates nothing.
            let mut keys = std::mem::take(&mut state.scratch);
            let mut late = Vec::new();
            let State { rooms, .. } = state;
            rooms.select(target, &mut keys);
            if rooms.has_gates() {
                keys.retain(|key| {
                    // What a replay puts into the outbox has to fit beside what is held.
                    let held = rooms.hold(target, *key, packets, is_numbered, bytes_max / 2);
                    let bytes = held.map(|held| held + engine.outbox_bytes(*key));
                    if bytes.is_some_and(|bytes| bytes > bytes_max) {
                        late.push(*key);
                    }
                    held.is_none()
                });
            }
            (keys, late)
        });
        self.send(&keys, packets, flags);
        for key in late {
            engine.close(key, CloseReason::SlowConsumer);
        }
        self.with(|state| {
            state.scratch = keys;
            state.scratch.clear();
        });
    }

    /// Sends packets to sessions.
    pub(super) fn send(&self, keys: &[Key], packets: &[Encoded], flags: Flags) {
        let engine = self.engine();
        let writable: Vec<_>;
        let keys = if flags.volatile {
            let of_all = keys.iter().copied();
            writable = of_all.filter(|key| engine.is_writable(*key)).collect();
            &writable
        } else {
            keys
        };
        engine.send_all(keys, packets);
        self.metrics().deliveries.increment(keys.len() as u64);
    }

    /// It became known that a room has a broadcast of this number.
    fn notice(&self, name: &RoomName, head: u64) {
        self.learn(name, |order, now| order.notice(now, head));
    }

    /// Tells a room's order something, and does what follows of it.
    fn learn(&self, name: &RoomName, tell: impl FnOnce(&mut RoomOrder<Item>, Instant)) {
        let now = self.env().now();
        let is_known = self.with(|state| {
            tell(state.channels.get_mut(name)?.order.as_mut()?, now);
            Some(())
        });
        if is_known.is_some() {
            self.settle(name);
        }
    }

    /// Waits until a number that a room is known to have is delivered, or the store says that it has
    /// none; then forgets what a gate has held, and returns the last number delivered.
    pub(super) async fn catch_up(self, name: RoomName, head: u64, gate: (Key, u64)) -> Option<u64> {
        self.notice(&name, head);
        let waits = self.with(|state| {
            let channel = state.channels.get_mut(&name)?;
            let order = channel.order.as_ref()?;
            order.lacks(head).then(|| {
                let (keep, promised) = promise();
                channel.behind.push((head, keep));
                promised
            })
        });
        if let Some(waits) = waits {
            waits.await;
        }
        self.with(|state| {
            let channel = state.channels.get(&name)?;
            let delivered = channel.order.as_ref()?.delivered()?;
            state.rooms.pass_gate(gate.0, gate.1);
            Some(delivered)
        })
    }

    /// The last number delivered, if a gate has forgotten numbers up to it. From then on it holds again.
    pub(super) fn forgotten(&self, name: &RoomName, gate: (Key, u64)) -> Option<u64> {
        let delivered = self.with(|state| {
            if !state.rooms.has_forgotten(gate.0, gate.1) {
                return None;
            }
            let channel = state.channels.get(name)?;
            let delivered = channel.order.as_ref()?.delivered()?;
            state.rooms.pass_gate(gate.0, gate.1);
            Some(delivered)
        })?;
        self.metrics().bounds.increment("replay_held");
        Some(delivered)
    }

    /// After a change of a room's order: sets its deadline, repairs what is due, and tells who waited.
    pub(super) fn settle(&self, name: &RoomName) {
        let now = self.env().now();
        let mut caught_up = Vec::new();
        let mut is_in_doubt = false;
        let repair = self.with(|state| {
            let channel = state.channels.get_mut(name)?;
            let order = channel.order.as_mut()?;
            let behind = channel.behind.extract_if(.., |(seq, _)| !order.lacks(*seq));
            caught_up.extend(behind);
            let after = order.poll_repair(now);
            let counts = order.take_counts();
            let next = order.next_timeout();
            if channel.timer.map(|(at, _)| at) != next {
                if let Some(timer) = channel.timer.take() {
                    state.timers.cancel(timer);
                }
                let due = Due::Channel(name.clone());
                channel.timer = next.map(|at| state.timers.set(at, due));
            }
            let metrics = self.metrics();
            metrics.order_held.increment(counts.held);
            metrics.order_repaired.increment(counts.repaired);
            metrics.order_gaps.increment(counts.gaps);
            metrics.order_bogus.increment(counts.bogus);
            metrics.order_duplicates.increment(counts.duplicates);
            is_in_doubt = counts.doubts > 0;
            Some(Repair {
                name: name.clone(),
                generation: channel.generation,
                after: after?,
            })
        });
        drop(caught_up);
        if is_in_doubt {
            self.compare_later();
        }
        if let Some(repair) = repair {
            self.spawn(self.clone().repair(repair).boxed_local());
        }
    }

    async fn repair(self, repair: Repair) {
        let Repair {
            name,
            generation,
            after,
        } = repair;
        let missed = self.app().missed(&name.0, &name.1, after, REPAIR_PAGE);
        let items = missed.await.map(|missed| {
            let item = |missed: Missed| {
                let packets = encode_event(&name.0, &missed.event, &missed.args, None);
                let flags = Flags::default();
                (
                    missed.seq,
                    Item {
                        packets,
                        flags,
                        published: None,
                    },
                )
            };
            missed.into_iter().map(item).collect()
        });
        let now = self.env().now();
        let ready = self.with(|state| {
            let order = state.channel(&name, generation)?.order.as_mut()?;
            Some(order.repaired(now, items))
        });
        if let Some(items) = ready {
            self.deliver_items(&name, items);
            self.settle(&name);
        }
    }

    /// A room's deadline has passed.
    pub(super) fn channel_due(&self, name: &RoomName) {
        let now = self.env().now();
        let (items, waiters) = self.with(|state| {
            let Some(channel) = state.channels.get_mut(name) else {
                return (Vec::new(), None);
            };
            channel.timer = None;
            let Some(order) = channel.order.as_mut() else {
                return (Vec::new(), None);
            };
            let is_silent = order.is_silent(now);
            let items = order.handle_timeout(now);
            let is_open = !order.is_opening();
            if is_silent {
                // Whoever comes back does not wait for the store any longer.
                channel.behind.clear();
            }
            (items, channel.waiters.take_if(|_| is_open))
        });
        // Whoever waited is told that the number is not known.
        drop(waiters);
        self.deliver_items(name, items);
        self.settle(name);
    }

    /// Any room may have more than was published: every node of the fleet compares the newest numbers of
    /// its rooms with the store's.
    pub fn compare_everywhere(&self) {
        self.compare_heads();
        if let Some(bus) = self.bus() {
            bus.owe_all();
        }
    }

    /// Asks for the newest numbers of all rooms: too much was lost to name it.
    pub(super) fn compare_heads(&self) {
        let mut pages: Vec<(Text, Vec<Text>, Vec<Option<u64>>)> = Vec::new();
        self.with(|state| {
            // By namespace, which of the pages was begun last.
            let mut open: BTreeMap<&Text, usize> = BTreeMap::new();
            for ((namespace, room), channel) in state.channels.iter() {
                let Some(order) = &channel.order else {
                    continue;
                };
                let page = open.get(namespace).map(|nth| &mut pages[*nth]);
                let page = page.filter(|(_, rooms, _)| rooms.len() < HEADS_PAGE);
                if let Some((_, rooms, asked)) = page {
                    rooms.push(room.clone());
                    asked.push(order.delivered());
                } else {
                    open.insert(namespace, pages.len());
                    let (rooms, asked) = (vec![room.clone()], vec![order.delivered()]);
                    pages.push((namespace.clone(), rooms, asked));
                }
            }
        });
        let hub = self.clone();
        self.spawn(Box::pin(async move {
            for (namespace, rooms, asked) in pages {
                let Some(heads) = hub.app().heads(&namespace, rooms.clone()).await else {
                    hub.compare_later();
                    return;
                };
                for ((room, asked), head) in rooms.into_iter().zip(asked).zip(heads) {
                    let name = (namespace.clone(), room);
                    hub.learn(&name, |order, now| order.compare(now, asked, head));
                }
            }
        }));
    }
}

impl State {
    fn channel(&mut self, name: &RoomName, generation: u64) -> Option<&mut Channel> {
        let channel = self.channels.get_mut(name)?;
        (channel.generation == generation).then_some(channel)
    }
}
