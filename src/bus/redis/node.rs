//! What a node does: publishing, receiving, and what is due at a tick.

use std::str;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, ready};

use super::convert::{Ignored, one_room};
use super::hosts::BEAT_EVERY;
use super::link::{Event, Parcel, Phase};
use super::{HEADS, HOSTS, Redis, SCRATCH_KEPT, State};
use crate::bus::heads::Notice;
use crate::hub::broadcast::{Broadcast, Origin, RoomKey, Target};
use crate::hub::envelope::{Envelope, Head, Node, Request, Response};
use crate::hub::{Bus, Hub, SocketId, Task};
use crate::wire::Text;
use crate::wire::adapter::{self, Channel, HostNews, HostNotice};

impl Redis {
    fn hub(&self) -> &Hub {
        let hub = self.hub.get();
        hub.expect("a node is attached to its hub before anything comes")
    }

    /// Whether only sockets of this very shard are meant. An id alone does not say so: another host may
    /// have drawn the same tag.
    fn is_only_ours(&self, target: &Target) -> bool {
        let ours = (self.identity.tag, self.shard);
        let is_ours = |key: &RoomKey| match key {
            RoomKey::Private(id) if id.place() == ours => {
                self.hub().socket(&target.namespace, id).is_some()
            }
            _ => false,
        };
        !target.rooms.is_empty() && target.rooms.iter().all(is_ours)
    }

    /// Publishes a broadcast; `is_pushed`: the siblings get it by the mesh, too. `false`: not now.
    fn publish_on_link(&self, now: Instant, broadcast: &Arc<Broadcast>, is_pushed: bool) -> bool {
        let channels = self.channels_of(&broadcast.target.namespace);
        let Some(channels) = channels.filter(|_| self.phase() == Phase::Up) else {
            return false;
        };
        let room = one_room(&broadcast.target).map(|room| channels.room_parts(room));
        let common = [&*channels.broadcast];
        let channel = room.as_ref().map_or(&common[..], |room| room);
        let parcel = Parcel::Broadcast(Arc::clone(broadcast), is_pushed);
        self.with(|state| {
            let State { link, scratch, .. } = state;
            scratch.clear();
            scratch.shrink_to(SCRATCH_KEPT);
            *scratch = self
                .identity
                .write_broadcast(std::mem::take(scratch), broadcast);
            link.publish(now, channel, scratch, Some(parcel))
        })
    }

    /// Other hosts do not have this: they are told of it later, or never. `is_doubtful`: they may have it.
    fn owe(&self, broadcast: &Arc<Broadcast>, is_doubtful: bool) {
        let target = &broadcast.target;
        if self.channels_of(&target.namespace).is_none() {
            return;
        }
        match (broadcast.order, &*target.rooms) {
            (Some(order), [RoomKey::Named(room)]) => {
                self.with(|state| state.owed.owe(&target.namespace, room, order.seq));
                self.metrics.bus_owed.increment(1);
            }
            _ if self.with(|state| state.news.owe(broadcast, is_doubtful)) => {
                self.metrics.bus_owed.increment(1);
            }
            _ => self.metrics.drops.increment("redis"),
        }
    }

    /// Tells the news of users that could not be told when it was new.
    fn tell_news(&self, now: Instant) {
        for news in self.with(|state| state.news.take(now)) {
            // Under its old name others may count it among what is too old to be looked at.
            let named = Arc::new(Broadcast {
                origin: self.origin(),
                ..Broadcast::clone(&news)
            });
            if self.publish_on_link(now, &named, true) {
                self.metrics.redis_published.increment(1);
            } else {
                self.owe(&news, false);
            }
        }
    }

    /// Gives the siblings by the mesh what Redis does not answer.
    fn push_late(&self, now: Instant) {
        for (broadcast, is_pushed) in self.with(|state| state.link.late(now)) {
            self.metrics.redis_late.increment(1);
            if !is_pushed {
                self.mesh.publish(broadcast);
            }
        }
    }

    /// There is a connection.
    pub fn connected(&self) {
        let now = self.env.now();
        self.with(|state| state.link.connected(now));
        self.metrics.redis_connections.increment(1);
    }

    /// The connection is of no use any more, or could not be made.
    pub fn lost(&self, reason: &str) {
        let now = self.env.now();
        let (was_up, is_news, parcels, waker) = self.with(|state| {
            let was_up = state.link.phase() == Phase::Up;
            let is_news = state.told.as_deref() != Some(reason) && !state.is_over;
            state.told = Some(reason.into());
            state.epoch += 1;
            // Whoever waits goes on: what is missed is repaired when the link is back.
            state.waiters.clear();
            state.counts.clear();
            state.news.link_is_down();
            let parcels = state.link.lost();
            (was_up, is_news, parcels, state.waker.take())
        });
        let place = &self.target;
        let shown = format!("Redis at {place}: {reason}");
        self.fleet.set_down(self.shard, &shown);
        if is_news {
            let words = "no link to Redis: the rooms of this host go on without it";
            tracing::warn!(shard = self.shard, %place, reason, "{words}");
        }
        if was_up {
            self.metrics.bus_up.set(0.0);
            // What siblings published before they knew.
            self.compare_soon(now);
        }
        for parcel in parcels {
            match parcel {
                Parcel::Broadcast(broadcast, is_pushed) => {
                    if !is_pushed {
                        self.mesh.publish(Arc::clone(&broadcast));
                    }
                    self.owe(&broadcast, true);
                }
                Parcel::Heads(heads) => {
                    self.with(|state| state.owed.owe_again(Notice::Heads(heads)));
                }
                Parcel::AllHeads => self.with(|state| state.owed.owe_again(Notice::All)),
                // Some may have carried it out: a second time might undo what came between.
                Parcel::Command => self.metrics.drops.increment("redis"),
            }
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes what was read from the connection.
    pub fn received(&self, bytes: &[u8]) {
        let now = self.env.now();
        let (outcome, mut events) = self.with(|state| {
            let mut events = std::mem::take(&mut state.events);
            (state.link.receive(now, bytes, &mut events), events)
        });
        for event in events.drain(..) {
            self.handle(now, event);
        }
        self.with(|state| state.events = events);
        if let Err(error) = outcome {
            self.lost(&error.to_string());
        }
    }

    fn handle(&self, now: Instant, event: Event) {
        match event {
            Event::Up => self.is_up(now),
            Event::Confirmed(channel) => {
                drop(self.with(|state| state.waiters.remove(&channel)));
            }
            Event::Counted(number, count) => {
                let asked = self.with(|state| state.counts.remove(&number));
                // Whoever asked may have gone.
                asked.map(|asked| asked.try_send(count));
            }
            Event::RoundTrip(time) => {
                self.metrics
                    .redis_round_trip_seconds
                    .record(time.as_secs_f64());
            }
            Event::Message(channel, message) => {
                self.metrics.redis_received.increment(1);
                match self.take(now, &channel, &message) {
                    Ok(()) | Err(Ignored::Own) => {}
                    Err(Ignored::For(cause)) => self.metrics.redis_ignored.increment(cause),
                }
            }
        }
    }

    fn is_up(&self, now: Instant) {
        tracing::info!(shard = self.shard, place = %self.target, "the link to Redis is up");
        self.metrics.bus_up.set(1.0);
        self.with(|state| {
            state.told = None;
            state.backoff.succeeded();
            state.hosts.hear_again(now);
            state.news.link_is_up(now);
        });
        self.fleet.set_up(self.shard);
        self.compare_soon(now);
        if self.fleet.announce() {
            self.say(now, HostNews::Start);
        }
    }

    /// Tells the fleet something of this host.
    pub(super) fn say(&self, now: Instant, news: HostNews) {
        let notice = HostNotice {
            host: self.identity.host,
            news,
        };
        let message = adapter::encode_host_notice(&notice);
        self.with(|state| state.link.publish(now, &[HOSTS], &message, None));
    }

    /// Takes a message.
    fn take(&self, now: Instant, channel: &Bytes, message: &Bytes) -> Result<(), Ignored> {
        let channel = str::from_utf8(channel).map_err(|_| Ignored::For("channel"))?;
        match channel {
            HEADS => return self.take_heads(now, message),
            HOSTS => {
                let notice = adapter::decode_host_notice(message)?;
                if notice.host != self.identity.host {
                    self.take_host_notice(now, &notice);
                }
                return Ok(());
            }
            _ => {}
        }
        let known = self.namespaces.iter();
        let mut known = known.filter_map(|(name, channels)| Some((name, channels.parse(channel)?)));
        match known.next() {
            Some((namespace, Channel::Broadcast | Channel::Room(_))) => {
                self.take_broadcast(now, namespace, message)
            }
            Some((namespace, Channel::Request)) => {
                let request = self.identity.read_request(now, namespace, message)?;
                self.hub().on_bus(Envelope::Request(Arc::new(request)));
                Ok(())
            }
            Some((_, Channel::Response)) => {
                let response = self.identity.read_response(message)?;
                self.hub().on_bus(Envelope::Response(Arc::new(response)));
                Ok(())
            }
            None => Err(Ignored::For("channel")),
        }
    }

    fn take_host_notice(&self, now: Instant, notice: &HostNotice) {
        let (is_full, compare) = self.with(|state| {
            let is_full = state.hosts.is_full_for(notice);
            (is_full, state.hosts.receive(now, notice))
        });
        if is_full {
            self.metrics.bounds.increment("hosts");
        }
        if compare {
            self.compare_soon(now);
        }
    }

    fn take_heads(&self, now: Instant, message: &Bytes) -> Result<(), Ignored> {
        let heads = adapter::decode_heads(message)?;
        if heads.len() == 0 {
            self.compare_soon(now);
            return Ok(());
        }
        let heads = heads.map(|head| Head {
            namespace: head.namespace,
            room: head.room,
            seq: head.seq,
        });
        self.hub()
            .on_bus(Envelope::Heads(Arc::new(heads.collect())));
        Ok(())
    }

    fn take_broadcast(
        &self,
        now: Instant,
        namespace: &Text,
        message: &Bytes,
    ) -> Result<(), Ignored> {
        let (broadcast, is_own_news) = self.identity.read_broadcast(now, namespace, message)?;
        // The news of this host's users comes through the mesh in any case, and in time.
        if !is_own_news {
            self.hub().on_far_broadcast(broadcast);
        }
        Ok(())
    }

    fn tell_heads(&self, now: Instant) {
        self.with(|state| {
            if state.owed.is_empty() || state.link.phase() != Phase::Up {
                return;
            }
            let Some(notice) = state.owed.notice() else {
                return;
            };
            let (heads, parcel) = match notice {
                Notice::All => (Vec::new(), Parcel::AllHeads),
                Notice::Heads(heads) => (heads.iter().map(of_wire).collect(), Parcel::Heads(heads)),
            };
            let message = adapter::encode_heads(&heads);
            if state.link.publish(now, &[HEADS], &message, Some(parcel)) {
                state.owed.clear();
                self.metrics.bus_notices.increment(1);
            }
        });
    }

    fn beat(&self, now: Instant) {
        let is_due = self.with(|state| {
            let is_due = now >= state.beat_at && state.link.phase() == Phase::Up;
            if is_due {
                state.beat_at = now + BEAT_EVERY;
            }
            is_due
        });
        if is_due && self.fleet.speaks(self.shard) {
            self.say(now, HostNews::Beat);
        }
    }

    fn compare_if_due(&self, now: Instant) {
        let is_due = self.with(|state| {
            let is_due = state.compare_at.take_if(|at| now >= *at).is_some();
            if is_due {
                state.compared = Some(now);
            }
            is_due
        });
        if is_due {
            self.hub().on_bus(Envelope::AllHeads);
        }
    }
}

fn of_wire(head: &Head) -> adapter::Head {
    adapter::Head {
        namespace: head.namespace.clone(),
        room: head.room.clone(),
        seq: head.seq,
    }
}

impl Bus for Redis {
    fn publish(&self, broadcast: Arc<Broadcast>) {
        if self.is_only_ours(&broadcast.target) {
            return;
        }
        let now = broadcast.published;
        let is_late = self.with(|state| state.link.is_suspect(now));
        if is_late {
            self.push_late(now);
        }
        // What Redis does not answer soon the siblings get at once, not a tick later. And news of a user
        // in any case: nobody can read it later, and a sibling's link may break with it under way.
        let is_pushed = is_late || broadcast.presence.is_some();
        let is_behind = self.with(|state| state.news.is_behind(&broadcast));
        if !is_behind && self.publish_on_link(now, &broadcast, is_pushed) {
            self.metrics.redis_published.increment(1);
            let suspects = self.fleet.suspects();
            if is_pushed {
                self.mesh.publish(Arc::clone(&broadcast));
            } else if suspects != 0 {
                self.mesh.publish_to(suspects, &broadcast);
            }
            self.wake();
        } else {
            self.owe(&broadcast, false);
            self.mesh.publish(broadcast);
        }
    }

    fn owe_all(&self) {
        self.mesh.owe_all();
        self.with(|state| state.owed.owe_again(Notice::All));
    }

    fn origin(&self) -> Option<Origin> {
        self.broadcasts.set(self.broadcasts.get() + 1);
        Some(Origin {
            uid: self.identity.uid.clone(),
            count: self.broadcasts.get(),
        })
    }

    fn subscribe(&self, namespace: &str, room: &str) -> Task {
        let on_this_host = self.mesh.subscribe(namespace, room);
        let Some(channels) = self.channels_of(namespace) else {
            return on_this_host;
        };
        let (channel, now) = (channels.room(room), self.env.now());
        let wait = self.with(|state| {
            if state.link.subscribe(now, &channel) {
                return None;
            }
            let (waiter, confirmed) = flume::bounded(1);
            let waiters = state.waiters.entry(channel.into()).or_default();
            waiters.push(waiter);
            Some(confirmed)
        });
        self.wake();
        match wait {
            None => Box::pin(ready(())),
            // It ends when the waiter is dropped.
            Some(confirmed) => Box::pin(async move {
                let _ = confirmed.recv_async().await;
            }),
        }
    }

    fn unsubscribe(&self, namespace: &str, room: &str) {
        self.mesh.unsubscribe(namespace, room);
        if let Some(channels) = self.channels_of(namespace) {
            let (channel, now) = (channels.room(room), self.env.now());
            self.with(|state| {
                state.link.unsubscribe(now, &channel);
                state.waiters.remove(&*channel);
            });
            self.wake();
        }
    }

    fn is_away(&self) -> bool {
        let now = self.env.now();
        self.with(|state| state.hosts.any() && state.link.is_away(now))
    }

    fn attach(&self, namespace: &str, socket: SocketId) {
        if let Some(channels) = self.channels_of(namespace) {
            let (channel, now) = (channels.room(socket.as_str()), self.env.now());
            self.with(|state| state.link.subscribe(now, &channel));
            self.wake();
        }
    }

    fn detach(&self, namespace: &str, socket: SocketId) {
        if let Some(channels) = self.channels_of(namespace) {
            let (channel, now) = (channels.room(socket.as_str()), self.env.now());
            self.with(|state| state.link.unsubscribe(now, &channel));
            self.wake();
        }
    }

    fn request(&self, request: Arc<Request>) -> LocalBoxFuture<'static, usize> {
        self.ask(&request)
    }

    fn respond(&self, to: &Node, response: Response) {
        self.answer(to, response);
    }

    fn tick(&self, now: Instant) {
        self.mesh.tick(now);
        let (is_crowded, outcome) = self.with(|state| {
            let is_crowded = state.link.take_crowded();
            (is_crowded, state.link.handle_timeout(now))
        });
        if is_crowded {
            self.metrics.bounds.increment("subscriptions");
        }
        self.push_late(now);
        if let Err(error) = outcome {
            self.lost(&error.to_string());
        }
        let is_suspect = self.with(|state| state.link.is_suspect(now));
        self.fleet.set_suspect(self.shard, is_suspect);
        self.tell_heads(now);
        self.tell_news(now);
        self.beat(now);
        if self.phase() == Phase::Up && self.with(|state| state.hosts.forget_missing(now)) {
            tracing::warn!("a host of the fleet has fallen silent");
            self.metrics.bounds.increment("host_time");
            self.compare_soon(now);
        }
        self.compare_if_due(now);
        self.wake();
    }

    fn next_deadline(&self) -> Option<Instant> {
        let speaks = self.fleet.speaks(self.shard);
        self.with(|state| {
            let link = state.link.next_timeout();
            let beat = speaks.then_some(state.beat_at);
            let all = [link, beat, state.compare_at, state.news.next()];
            all.into_iter().flatten().min()
        })
    }
}
