//! `sendMessage`: stored, then seen.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, LocalBoxFuture, select};

use super::event::{Code, Failure, Id, MessageView, SendMessage, Sent, Timestamp};
use super::member::Member;
use super::owed::Due;
use super::permission::Act;
use super::reply::Reply;
use super::{Chat, NAMESPACE, RECEIVE_MESSAGE};
use crate::auth::User;
use crate::hub::{Args, Event};
use crate::planted::{self, Defect};
use crate::store::{Cursor, Draft, Message, Page, Store, StoreError, Stored};

/// Sends of one shard that may wait for the store; a further one is `unavailable`.
pub const WAITING_SENDS_MAX: usize = 1_000;
/// Within this time of being read every send is answered.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
impl Chat {
    pub(super) async fn send_message(
        self: &Rc<Self>,
        event: &Event,
        member: &Member,
        reply: &mut Reply,
    ) -> Result<(), Failure> {
        let request = SendMessage::parse(event.args.first())?;
        let user = member.user();
        self.check_right(&request, &user, member).await?;
        let draft = self.draft(request, &user);
        let stored = self.append(draft, event.received + ANSWER_WITHIN).await?;
        let message = &stored.message;
        reply.ok(&Sent {
            ok: true,
            id: Id(message.id),
            seq: message.seq,
            timestamp: Timestamp(message.wall_ms),
            duplicate: (!stored.fresh).then_some(true),
        });
        let took = self
            .parts
            .env
            .now()
            .saturating_duration_since(event.received);
        self.parts.metrics.ack_seconds.record(took.as_secs_f64());
        Ok(())
    }

    async fn check_right(
        &self,
        request: &SendMessage,
        user: &User,
        member: &Member,
    ) -> Result<(), Failure> {
        if request.user.as_ref().is_some_and(|id| *id != user.id) {
            let message = "userId is not the token's user";
            return Err(Failure::new(Code::Forbidden, message));
        }
        let permissions = &self.parts.permissions;
        permissions.check(user, &request.room, Act::Send).await?;
        if !member.is_in(&request.room) {
            let message = "only members send: join the room first";
            return Err(Failure::new(Code::NotInRoom, message));
        }
        Ok(())
    }

    fn draft(&self, request: SendMessage, user: &User) -> Draft {
        let env = &self.parts.env;
        let wall_ms = env.wall_ms();
        let mut random = [0; 10];
        env.fill(&mut random);
        Draft {
            room: request.room,
            user: user.id.clone(),
            content: request.content,
            client_msg_id: request
                .client_msg_id
                .filter(|_| !planted::has(Defect::StoredTwice)),
            id: uuid::Builder::from_unix_timestamp_millis(wall_ms, &random).into_uuid(),
            wall_ms,
        }
    }

    /// Stores and publishes a message. When the time is over first, that goes on without the sender:
    /// a message that is stored is delivered, whoever was told what.
    async fn append(self: &Rc<Self>, draft: Draft, deadline: Instant) -> Result<Stored, Failure> {
        let late = self.parts.env.now() >= deadline;
        if late || self.waiting.get() >= WAITING_SENDS_MAX {
            let reason = "too many messages wait for the store";
            return Err(StoreError::Unavailable(reason.into()).into());
        }
        let appended = self.append_and_publish(draft);
        match select(appended, self.deadlines.at(deadline)).await {
            Either::Left((outcome, _)) => outcome.map_err(Failure::from),
            Either::Right(((), appended)) => {
                (self.parts.spawn)(Box::pin(async move { drop(appended.await) }));
                Err(StoreError::Timeout.into())
            }
        }
    }

    fn append_and_publish(
        self: &Rc<Self>,
        draft: Draft,
    ) -> LocalBoxFuture<'static, Result<Stored, StoreError>> {
        let chat = self.clone();
        let waiting = Waiting::one_more(&self.waiting);
        Box::pin(async move {
            let room = draft.room.clone();
            let outcome = if planted::has(Defect::AckBeforeCommit) {
                chat.ack_before_commit(draft).await
            } else {
                chat.parts.store.append(draft).await
            };
            drop(waiting);
            if outcome == Err(StoreError::Timeout) && planted::has(Defect::RefusedYetStored) {
                return Err(StoreError::Unavailable("so it is said".into()));
            }
            match &outcome {
                // One that was known before is published again: who has it drops it, and who should
                // have had it, but for a fault between storing and publishing, gets it now.
                Ok(stored) => chat.publish(&stored.message),
                Err(StoreError::Timeout) => chat.owe(&room),
                Err(StoreError::Unavailable(_)) => {}
            }
            outcome
        })
    }

    /// What [`Defect::AckBeforeCommit`] does instead of waiting.
    async fn ack_before_commit(&self, draft: Draft) -> Result<Stored, StoreError> {
        let heads = self.parts.store.heads(vec![draft.room.clone()]).await?;
        let (seq, wall_ms) = (heads[0] + 1, draft.wall_ms);
        let message = draft.clone().numbered(seq, wall_ms);
        let appended = self.parts.store.append(draft);
        (self.parts.spawn)(Box::pin(async move { drop(appended.await) }));
        let fresh = true;
        Ok(Stored { message, fresh })
    }

    /// Delivers a stored message to the members of its room.
    fn publish(&self, message: &Message) {
        let args = Args::one(&MessageView::from(message));
        let room = self.socket_io_room(&message.room);
        let audience = self.parts.hub.of(NAMESPACE).room(&room);
        audience.ordered(message.seq).emit(RECEIVE_MESSAGE, &args);
    }

    /// Notes that a message of the room may be stored without having been published.
    fn owe(&self, room: &str) {
        let now = self.parts.env.now();
        if !self.owed.borrow_mut().owe(now, room) {
            self.parts.metrics.drops.increment("owed_rooms_full");
        }
    }

    /// Publishes the newest message of rooms whose last outcome is unknown. Whoever lacks what lies
    /// before it reads it from the store.
    pub(super) fn tell_owed(self: &Rc<Self>, now: Instant) {
        let due = self.owed.borrow_mut().take(now);
        let rooms = match due {
            None => return,
            // Each node asks the store itself, again and again until it answers.
            Some(Due::All) => return self.parts.hub.compare_everywhere(),
            Some(Due::Rooms(rooms)) => rooms,
        };
        for room in rooms {
            let chat = self.clone();
            let store = self.parts.store.clone();
            (self.parts.spawn)(Box::pin(async move {
                match newest(&*store, &room).await {
                    Ok(page) => page.messages.iter().for_each(|newest| chat.publish(newest)),
                    Err(_) => chat.owe(&room),
                }
            }));
        }
    }
}

/// The newest message of a room, as the head says where: a page of the newest may be a replica's.
async fn newest(store: &dyn Store, room: &str) -> Result<Page, StoreError> {
    let heads = store.heads(vec![room.into()]).await?;
    match heads.first() {
        Some(head @ 1..) => store.history(room, Cursor::After(head - 1), 1).await,
        _ => Ok(Page::default()),
    }
}

/// Counts a send that waits for the store, until it is dropped.
struct Waiting(Rc<Cell<usize>>);

impl Waiting {
    fn one_more(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
