//! `joinRoom`, with the replay of what was missed, and `leaveRoom`.

use std::rc::Rc;

use super::event::{Code, Failure, JoinRoom, Joined, LeaveRoom, Left, MessageView, UserNotice};
use super::member::Member;
use super::permission::Act;
use super::reply::Reply;
use super::{Chat, NAMESPACE, RECEIVE_MESSAGE};
use crate::engine::CloseReason;
use crate::hub::{Args, Event, Replay, Socket};
use crate::planted::{self, Defect};
use crate::store::{Cursor, Message, StoreError};

/// Rooms of one connection.
pub(super) const ROOMS_MAX: usize = 1_000;
/// The most missed messages that a join replays.
pub(super) const REPLAY_MAX: u64 = 500;
/// Messages that a replay reads at once.
const REPLAY_PAGE: u64 = 100;

/// What a socket gets again after it joined: the messages above `after` up to `until`.
struct Replayed {
    after: u64,
    until: u64,
    /// The first of them, read before the join was acknowledged.
    first: Vec<Message>,
}

impl Replayed {
    /// Nothing is sent again of the messages up to `seq`.
    fn nothing(seq: u64) -> Self {
        Self {
            after: seq,
            until: seq,
            first: Vec::new(),
        }
    }
}

impl Chat {
    pub(super) async fn join_room(
        self: &Rc<Self>,
        event: &Event,
        member: &Member,
        reply: &mut Reply,
    ) -> Result<(), Failure> {
        let request = JoinRoom::parse(event.args.first())?;
        let permissions = &self.parts.permissions;
        let user = member.user();
        permissions.check(&user, &request.room, Act::Join).await?;
        if let Some(coverage) = member.coverage(&request.room) {
            return self.join_again(&request, coverage, reply).await;
        }
        if member.rooms() >= ROOMS_MAX {
            let message = "a connection may be in 1000 rooms";
            return Err(Failure::new(Code::TooManyRooms, message));
        }
        match request.last_seq {
            None => {
                let name = self.socket_io_room(&request.room);
                let joined = reply.socket().join(&name).await;
                self.enter(&request.room, joined.seq, member, reply);
                reply.ok(&acked(&request.room, joined.seq, None, 0));
                Ok(())
            }
            Some(last_seq) => self.resume(&request.room, last_seq, member, reply).await,
        }
    }

    /// Already in the room: nothing is sent again. What follows `coverage` was sent when it came.
    async fn join_again(
        &self,
        request: &JoinRoom,
        coverage: Option<u64>,
        reply: &mut Reply,
    ) -> Result<(), Failure> {
        let name = self.socket_io_room(&request.room);
        let seq = reply.socket().join(&name).await.seq;
        let recovered = request.last_seq.map(|last_seq| {
            coverage.is_some_and(|from| from <= last_seq) && seq.is_some_and(|seq| last_seq <= seq)
        });
        reply.ok(&acked(&request.room, seq, recovered, 0));
        Ok(())
    }

    /// Joins, and sends what the client has missed before anything newer.
    async fn resume(
        &self,
        room: &str,
        last_seq: u64,
        member: &Member,
        reply: &mut Reply,
    ) -> Result<(), Failure> {
        let name = self.socket_io_room(room);
        let (joined, held) = reply.socket().join_with_replay(&name).await;
        let missed = match joined.seq {
            Some(seq) => self.missed(room, last_seq, seq, &held).await,
            None => Err(unknown()),
        };
        let Ok((seq, missed)) = missed else {
            reply.socket().leave(&name);
            drop(held);
            return Err(unread());
        };
        let is_recovered = missed.is_some();
        let missed = missed.unwrap_or_else(|| Replayed::nothing(seq));
        self.enter(room, Some(missed.after), member, reply);
        let count = missed.until - missed.after;
        reply.ok(&acked(room, Some(seq), Some(is_recovered), count));
        if let Err(reason) = self.replay_and_follow(room, missed, &held).await {
            // It was promised; a client that comes back asks for it again.
            reply.socket().close_transport(reason);
        }
        held.finish();
        Ok(())
    }

    /// Replays, and goes on with what came meanwhile and was too large to be held back.
    async fn replay_and_follow(
        &self,
        room: &str,
        mut missed: Replayed,
        held: &Replay,
    ) -> Result<(), CloseReason> {
        loop {
            let until = missed.until;
            self.replay(room, missed, held.socket()).await?;
            let Some(newest) = held.missed() else {
                return Ok(());
            };
            let count = newest.saturating_sub(until);
            if count > REPLAY_MAX {
                // It reads more slowly than the others write.
                return Err(CloseReason::SlowConsumer);
            }
            let first = self.replay_page(room, until, count).await;
            missed = Replayed {
                after: until,
                until: newest.max(until),
                first: first.map_err(|_| CloseReason::ForcedClose)?,
            };
        }
    }

    /// The newest number here, and what there is to replay. A client may have seen more elsewhere than
    /// this shard has delivered yet: then the store says whether that is so, and the shard catches up.
    async fn missed(
        &self,
        room: &str,
        after: u64,
        seq: u64,
        held: &Replay,
    ) -> Result<(u64, Option<Replayed>), StoreError> {
        let mut seq = seq;
        if seq < after {
            let heads = self.parts.store.heads(vec![room.into()]).await?;
            if let Some(head) = heads.first().filter(|head| **head >= after) {
                seq = held.catch_up(*head).await.ok_or_else(unknown)?;
            }
        }
        Ok((seq, self.missed_since(room, after, seq).await?))
    }

    /// What there is to replay; `None` if it is too much, or what the client has is not ours.
    async fn missed_since(
        &self,
        room: &str,
        after: u64,
        until: u64,
    ) -> Result<Option<Replayed>, StoreError> {
        let Some(count) = until.checked_sub(after).filter(|n| *n <= REPLAY_MAX) else {
            self.parts.metrics.bounds.increment("replay");
            return Ok(None);
        };
        let first = self.replay_page(room, after, count).await?;
        // A store that keeps only the newest may have forgotten them.
        if count > 0 && first.first().is_none_or(|message| message.seq != after + 1) {
            return Ok(None);
        }
        Ok(Some(Replayed {
            after,
            until,
            first,
        }))
    }

    async fn replay_page(
        &self,
        room: &str,
        after: u64,
        count: u64,
    ) -> Result<Vec<Message>, StoreError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let limit = usize::try_from(count.min(REPLAY_PAGE)).expect("a page is small");
        let page = self.parts.store.history(room, Cursor::After(after), limit);
        Ok(page.await?.messages)
    }

    /// Emits the missed messages, no faster than the connection takes them. `Err`: not all were.
    async fn replay(
        &self,
        room: &str,
        missed: Replayed,
        socket: &Socket,
    ) -> Result<(), CloseReason> {
        let mut outlet = Pace::new(self.options.outbox_bytes_max);
        let (mut after, mut page) = (missed.after, missed.first);
        while after < missed.until && socket.is_connected() {
            // There is no gap in a history that can be read.
            if page.first().is_none_or(|message| message.seq != after + 1) {
                return Err(CloseReason::ForcedClose);
            }
            for message in &page {
                let args = Args::one(&MessageView::from(message));
                outlet.wait_for_room(socket, args.bytes()).await;
                if !socket.is_staying() {
                    // It is asked to go; where it comes back it gets the rest.
                    return Err(CloseReason::ServerShuttingDown);
                }
                socket.emit(RECEIVE_MESSAGE, &args);
                after = message.seq;
            }
            let page_after = self.replay_page(room, after, missed.until - after);
            page = page_after.await.map_err(|_| CloseReason::ForcedClose)?;
        }
        Ok(())
    }

    pub(super) fn leave_room(
        &self,
        event: &Event,
        member: &Member,
        reply: &mut Reply,
    ) -> Result<(), Failure> {
        let request = LeaveRoom::parse(event.args.first())?;
        if member.leave(&request.room) {
            reply.socket().leave(&self.socket_io_room(&request.room));
            self.exit(member, &request.room);
        }
        reply.ok(&Left {
            ok: true,
            room_id: &request.room,
        });
        Ok(())
    }

    /// Notes that the socket is in the room, and tells the others if its user is new there.
    fn enter(&self, room: &str, coverage: Option<u64>, member: &Member, reply: &Reply) {
        let socket = reply.socket();
        // Whoever went while the join waited is in no room; nobody would undo this for it.
        if !socket.is_connected() {
            return;
        }
        member.enter(room, coverage);
        let user = member.user();
        let name = self.socket_io_room(room);
        let change = self.parts.directory.enter(NAMESPACE, &name, &user.id);
        if change.edge && !planted::has(Defect::LostUserJoined) {
            let audience = socket.to(&name).presence(&user.id, change.version);
            audience.emit("userJoined", &notice(room, &user.id));
        }
    }

    /// Notes that one of the user's sockets is out of the room, and tells the others if it was the
    /// last.
    pub(super) fn exit(&self, member: &Member, room: &str) {
        let user = member.user();
        let name = self.socket_io_room(room);
        let change = self.parts.directory.exit(NAMESPACE, &name, &user.id);
        if change.edge && !planted::has(Defect::LostUserLeft) {
            let audience = self.parts.hub.of(NAMESPACE).room(&name);
            let audience = audience.presence(&user.id, change.version);
            audience.emit("userLeft", &notice(room, &user.id));
        }
    }
}

/// Keeps a replay's unsent output well below the bound at which a connection is closed.
struct Pace {
    /// Bytes that may wait before the next wait.
    burst: usize,
    waiting: usize,
}

impl Pace {
    fn new(outbox_bytes_max: usize) -> Self {
        Self {
            burst: outbox_bytes_max / 4,
            waiting: 0,
        }
    }

    async fn wait_for_room(&mut self, socket: &Socket, bytes: usize) {
        if self.waiting > 0 && self.waiting + bytes > self.burst {
            socket.drained(self.burst / 2).await;
            self.waiting = 0;
        }
        self.waiting += bytes;
    }
}

fn acked(room: &str, seq: Option<u64>, recovered: Option<bool>, replayed: u64) -> Joined<'_> {
    Joined {
        ok: true,
        room_id: room,
        seq,
        recovered,
        replayed,
    }
}

fn notice(room: &str, user: &str) -> Args {
    Args::one(&UserNotice {
        room_id: room,
        user_id: user,
    })
}

fn unknown() -> StoreError {
    StoreError::Unavailable("its newest number is not known".into())
}

fn unread() -> Failure {
    let message = "what was missed cannot be read now; join again";
    Failure::new(Code::Unavailable, message)
}
