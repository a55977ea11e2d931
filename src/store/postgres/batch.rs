//! Which of the waiting messages go together, and how they lie in the statement. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::store::request::Write;
use crate::store::{Draft, Message, StoreError, Stored};

/// The most rows in one transaction.
pub(super) const ROWS_MAX: usize = 512;
/// The most bytes in one transaction; one message alone may be larger.
const BYTES_MAX: usize = 4 << 20;
/// The most messages looked through for a batch. The others wait in their queue.
pub(super) const PENDING_MAX: usize = 2 * ROWS_MAX;
/// How long a room whose lock was waited for goes into batches of its own.
const CONTENDED_FOR: Duration = Duration::from_secs(1);

/// The messages taken from the queue and not yet sent.
#[derive(Debug, Default)]
pub(super) struct Pending {
    writes: VecDeque<Write>,
    /// Rooms whose lock another host held for long, and until when they go alone.
    contended: BTreeMap<Box<str>, Instant>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    pub(super) fn push(&mut self, write: Write) {
        self.writes.push_back(write);
    }

    /// Takes everything out, to be refused.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Write> {
        self.writes.drain(..)
    }

    /// Notes that a room's lock was waited for.
    pub(super) fn contended(&mut self, room: Box<str>, now: Instant) {
        self.contended.insert(room, now + CONTENDED_FOR);
    }

    /// Takes the next batch: the first message and what can go with it, in the order of coming. What
    /// has run out of time is left out, the rest is surely taken.
    pub(super) fn next_batch(&mut self, now: Instant) -> Vec<Write> {
        self.contended.retain(|_, until| *until > now);
        let alone = self
            .writes
            .front()
            .filter(|first| self.contended.contains_key(&first.draft.room))
            .map(|first| first.draft.room.clone());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut left = VecDeque::new();
        // A room with a message left behind is left behind as a whole, or its order would change.
        let mut closed = BTreeSet::new();
        while let Some(write) = self.writes.pop_front() {
            let room = &write.draft.room;
            let weight = write.draft.weight();
            let belongs = match &alone {
                Some(alone) => room == alone,
                None => !self.contended.contains_key(room),
            };
            let fits = batch.is_empty() || (batch.len() < ROWS_MAX && bytes + weight <= BYTES_MAX);
            if !(belongs && fits) || closed.contains(room) {
                closed.insert(room.clone());
                left.push_back(write);
            } else if write.ticket.take() {
                bytes += weight;
                batch.push(write);
            }
        }
        self.writes = left;
        batch
    }
}

/// A batch as the statement takes it: one array a column.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub(super) names: Vec<&'a str>,
    pub(super) room_of: Vec<i32>,
    pub(super) ids: Vec<uuid::Uuid>,
    pub(super) senders: Vec<&'a str>,
    pub(super) contents: Vec<&'a str>,
    pub(super) times: Vec<i64>,
    pub(super) keys: Vec<Option<&'a str>>,
    /// For each message of the batch, where it stands in the columns.
    places: Vec<Place>,
}

/// Where a message of the batch has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Into the columns.
    At(usize),
    /// Nowhere: the one at this place has the same key.
    SameAs(usize),
    /// Nowhere: it cannot be stored.
    Refused(&'static str),
}

/// What the database answers for one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) seq: u64,
    pub(super) wall_ms: u64,
    /// The id and content of the message stored before under the same key.
    pub(super) known: Option<(uuid::Uuid, Box<str>)>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(drafts: &'a [Draft]) -> Self {
        let mut rooms: BTreeMap<&str, i32> = drafts.iter().map(|draft| (&*draft.room, 0)).collect();
        for (number, place) in rooms.values_mut().zip(1..) {
            *number = place;
        }
        let mut columns = Self::default();
        let mut keyed = HashMap::new();
        for draft in drafts {
            let place = columns.add(draft, &rooms, &mut keyed);
            columns.places.push(place);
        }
        columns.names = rooms.into_keys().collect();
        columns
    }

    fn add(
        &mut self,
        draft: &'a Draft,
        rooms: &BTreeMap<&str, i32>,
        keyed: &mut HashMap<(&'a str, &'a str, &'a str), usize>,
    ) -> Place {
        let key = draft.client_msg_id.as_deref();
        let texts = [
            &*draft.room,
            &draft.user,
            &draft.content,
            key.unwrap_or_default(),
        ];
        if texts.iter().any(|text| text.contains('\0')) {
            return Place::Refused("PostgreSQL keeps no U+0000");
        }
        let Ok(wall_ms) = i64::try_from(draft.wall_ms) else {
            return Place::Refused("the time is out of range");
        };
        let at = self.ids.len();
        if let Some(key) = key {
            let first = *keyed.entry((&draft.room, &draft.user, key)).or_insert(at);
            if first != at {
                return Place::SameAs(first);
            }
        }
        self.room_of.push(rooms[&*draft.room]);
        self.ids.push(draft.id);
        self.senders.push(&draft.user);
        self.contents.push(&draft.content);
        self.times.push(wall_ms);
        self.keys.push(key);
        Place::At(at)
    }

    /// Whether nothing is left to send.
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The places, for the answers.
    pub(super) fn into_places(self) -> Places {
        Places(self.places)
    }
}

/// Where each message of a batch stands in the columns that were sent.
#[derive(Debug)]
pub(super) struct Places(Vec<Place>);

impl Places {
    /// What each message of the batch is answered, in the batch's order.
    pub(super) fn settle(
        self,
        drafts: Vec<Draft>,
        answers: &[Option<Answer>],
    ) -> Vec<Result<Stored, StoreError>> {
        let mut stored: Vec<Option<Message>> = vec![None; answers.len()];
        let settle = |(draft, place): (Draft, Place)| {
            let (at, first) = match place {
                Place::At(at) => (at, true),
                Place::SameAs(at) => (at, false),
                Place::Refused(reason) => return Err(StoreError::Unavailable(reason.into())),
            };
            let Some(answer) = answers.get(at).and_then(Option::as_ref) else {
                return Err(StoreError::Timeout);
            };
            let fresh = first && answer.known.is_none();
            let message = match &stored[at] {
                Some(message) => message.clone(),
                None => stored[at].insert(message(draft, answer)).clone(),
            };
            Ok(Stored { message, fresh })
        };
        drafts.into_iter().zip(self.0).map(settle).collect()
    }
}

fn message(draft: Draft, answer: &Answer) -> Message {
    let mut message = draft.numbered(answer.seq, answer.wall_ms);
    if let Some((id, content)) = &answer.known {
        message.id = *id;
        message.content.clone_from(content);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ticket::{Asks, Ticket};

    fn draft(room: &str, content: &str, key: Option<&str>) -> Draft {
        Draft {
            room: room.into(),
            user: "ann".into(),
            content: content.into(),
            client_msg_id: key.map(Into::into),
            id: uuid::Uuid::now_v7(),
            wall_ms: 1_000,
        }
    }

    fn pending(messages: &[(&str, &str)]) -> Pending {
        let mut pending = Pending::default();
        for (room, content) in messages {
            let ticket = Ticket::new(Asks::ToStore);
            pending.push(Write {
                draft: draft(room, content, None),
                ticket,
                loads: [None, None],
            });
        }
        pending
    }

    fn contents(batch: &[Write]) -> Vec<&str> {
        batch.iter().map(|write| &*write.draft.content).collect()
    }

    #[test]
    fn a_contended_room_goes_alone_and_keeps_its_order() {
        let now = Instant::now();
        let mut pending = pending(&[("b", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("a", "5")]);
        pending.contended("a".into(), now);
        assert_eq!(contents(&pending.next_batch(now)), ["1", "3", "4"]);
        assert_eq!(contents(&pending.next_batch(now)), ["2", "5"]);
        assert!(pending.is_empty());
        pending.contended("a".into(), now);
        let mut later = super::tests::pending(&[("a", "6"), ("b", "7")]);
        later.contended = std::mem::take(&mut pending.contended);
        assert_eq!(
            later.next_batch(now + CONTENDED_FOR).len(),
            2,
            "it is forgotten after a while"
        );
    }

    #[test]
    fn what_does_not_fit_keeps_the_order_of_its_room() {
        let large = "x".repeat(BYTES_MAX - 50);
        let mut pending = pending(&[("a", "1"), ("b", &large), ("b", "2"), ("a", "3")]);
        assert_eq!(contents(&pending.next_batch(Instant::now())), ["1", "3"]);
        assert_eq!(contents(&pending.next_batch(Instant::now())), [&*large]);
        assert_eq!(contents(&pending.next_batch(Instant::now())), ["2"]);
        let many = vec![("r", "x"); ROWS_MAX + 1];
        let mut pending = super::tests::pending(&many);
        assert_eq!(pending.next_batch(Instant::now()).len(), ROWS_MAX);
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn what_ran_out_of_time_is_left_out() {
        let mut pending = pending(&[("a", "1"), ("a", "2")]);
        pending.writes[0].ticket.answer(Err(StoreError::Timeout));
        assert_eq!(contents(&pending.next_batch(Instant::now())), ["2"]);
    }

    #[test]
    fn a_repeated_key_is_sent_once_and_answered_each_time() {
        let drafts = vec![
            draft("b", "first", Some("k")),
            draft("a", "other", None),
            draft("b", "again", Some("k")),
            draft("b", "nul\0", None),
        ];
        let columns = Columns::of(&drafts);
        assert_eq!(columns.names, ["a", "b"], "each room once, in byte order");
        assert_eq!(columns.room_of, [2, 1]);
        assert_eq!(columns.contents, ["first", "other"]);
        let answers = [(7, 70), (8, 80)].map(|(seq, wall_ms)| {
            Some(Answer {
                seq,
                wall_ms,
                known: None,
            })
        });
        let settled = columns.into_places().settle(drafts.clone(), &answers);
        let first = drafts[0].clone().numbered(7, 70);
        assert_eq!(
            settled[0],
            Ok(Stored {
                message: first.clone(),
                fresh: true
            })
        );
        assert_eq!(
            settled[2],
            Ok(Stored {
                message: first,
                fresh: false
            })
        );
        assert!(matches!(settled[3], Err(StoreError::Unavailable(_))));
    }

    #[test]
    fn a_known_message_is_answered_as_it_was_stored() {
        let drafts = vec![draft("r", "again", Some("k"))];
        let id = uuid::Uuid::now_v7();
        let answer = Answer {
            seq: 3,
            wall_ms: 5,
            known: Some((id, "first".into())),
        };
        let settled = Columns::of(&drafts)
            .into_places()
            .settle(drafts, &[Some(answer)]);
        let stored = settled.into_iter().next().unwrap().unwrap();
        assert_eq!(
            (stored.fresh, stored.message.id, &*stored.message.content),
            (false, id, "first")
        );
    }
}
