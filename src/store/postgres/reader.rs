//! A reader: pages of history, or what a join, a replay and a repair need, over one connection.
//!
//! What waits is sent together and answered together; nothing here is in a transaction.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use glommio::timer::Timer;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

use super::lane::{Lane, PROBE_EVERY};
use super::link::{Link, Outcome, outcome};
use super::target::cause;
use crate::dial::within;
use crate::store::request::{self, Gathering, Place, Read};
use crate::store::written::Writing;
use crate::store::{Cursor, Form, MessageRef, Page, Written};

/// The most requests in flight on the connection.
pub(super) const TOGETHER_MAX: usize = 64;
/// How long they may be in flight. Then the connection is thrown away.
const READ_WITHIN: Duration = Duration::from_secs(3);

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT seq, id, sender, content, wall_ms, client_msg_id FROM messages ",
            "WHERE room = (SELECT id FROM rooms WHERE name = $1) AND seq ",
            $condition,
            " LIMIT $3"
        )
    };
}

/// The newest below a number, and the oldest above one.
const BEFORE: &str = select!("< $2 ORDER BY seq DESC");
const AFTER: &str = select!("> $2 ORDER BY seq");
const HEADS: &str = "SELECT name, head FROM rooms WHERE name = ANY ($1)";

/// The state of one reader.
pub(super) struct Reader {
    lane: Lane,
    queue: flume::Receiver<Read>,
}

/// A connection with what can be asked of it.
pub(super) struct Prepared {
    pub(super) link: Link,
    before: Statement,
    after: Statement,
    heads: Statement,
}

impl Reader {
    pub(super) fn new(lane: Lane, queue: flume::Receiver<Read>) -> Self {
        Self { lane, queue }
    }

    /// Reads until the last handle is gone.
    pub(super) async fn run(mut self) {
        while !(self.queue.is_disconnected() && self.queue.is_empty()) {
            match self.lane.connect(Prepared::new).await {
                Some(prepared) => self.serve(&prepared).await,
                None if self.lane.circuit.is_open() => {
                    self.queue
                        .drain()
                        .for_each(|read| read.refuse("the database is down"));
                }
                None => {}
            }
        }
    }

    /// Serves until the connection is of no use any more.
    async fn serve(&mut self, prepared: &Prepared) {
        let mut probing = Timer::new(PROBE_EVERY);
        while let Some(first) = self
            .lane
            .next(&self.queue, &prepared.link, &mut probing)
            .await
        {
            let reads = waiting(first, &self.queue);
            let asked = join_all(reads.iter().map(|read| prepared.answer(read, &self.lane)));
            let begun = Instant::now();
            let Some(results) = within(READ_WITHIN, asked).await else {
                for read in reads {
                    read.refuse("no answer in time");
                }
                return self.lane.gave_up(READ_WITHIN);
            };
            let seconds = &self.lane.health.figures.read_seconds;
            seconds.record(begun.elapsed());
            let mut lost = false;
            for (read, result) in reads.iter().zip(results) {
                match result {
                    Ok(()) => self.lane.succeeded(),
                    Err(error) => {
                        self.lane.refused(&cause(&error));
                        read.refuse(&cause(&error));
                        lost |= outcome(&error) == Outcome::Unknown;
                    }
                }
            }
            if lost {
                return;
            }
        }
    }
}

impl Prepared {
    pub(super) async fn new(link: Link) -> Result<Self, Error> {
        let client = &link.client;
        let (before, after, heads) = (
            client.prepare(BEFORE).await?,
            client.prepare(AFTER).await?,
            client.prepare(HEADS).await?,
        );
        Ok(Self {
            link,
            before,
            after,
            heads,
        })
    }

    async fn answer(&self, read: &Read, lane: &Lane) -> Result<(), Error> {
        match read {
            Read::History { place, ticket } => {
                let page = self.page(place).await?;
                lane.note_newest(place, page.messages.last().map(|newest| newest.seq));
                ticket.answer(Ok(page));
            }
            Read::Written {
                place,
                form,
                tickets,
            } => {
                let written = self.written(place, *form).await?;
                lane.note_newest(place, written.span.map(|(_, newest)| newest));
                request::answer(tickets, &Ok(written));
            }
            Read::Heads { rooms, ticket } => {
                let heads = self.heads(rooms).await?;
                for (room, head) in rooms.iter().zip(&heads) {
                    lane.note(room, *head);
                }
                ticket.answer(Ok(heads));
            }
        }
        Ok(())
    }

    pub(super) async fn page(&self, place: &Place) -> Result<Page, Error> {
        let mut gathering = Gathering::new(place.limit);
        self.each(place, |message| gathering.take(message.keep()))
            .await?;
        Ok(gathering.end(place.cursor))
    }

    pub(super) async fn written(&self, place: &Place, form: Form) -> Result<Written, Error> {
        let mut writing = Writing::new(place.cursor, place.limit, form);
        self.each(place, |message| writing.take(message)).await?;
        Ok(writing.end())
    }

    /// Reads the messages of a page, and one more if there are more, in the order of the query.
    async fn each(
        &self,
        place: &Place,
        mut take: impl FnMut(&MessageRef<'_>) -> bool,
    ) -> Result<(), Error> {
        let Place {
            room,
            cursor,
            limit,
        } = place;
        if room.contains('\0') {
            return Ok(());
        }
        let clamp = |seq| i64::try_from(seq).unwrap_or(i64::MAX);
        let (statement, from) = match *cursor {
            Cursor::Newest => (&self.before, i64::MAX),
            Cursor::Before(seq) => (&self.before, clamp(seq)),
            Cursor::After(seq) => (&self.after, clamp(seq)),
        };
        let rows_max = i64::try_from(*limit).unwrap_or(i64::MAX).saturating_add(1);
        let parameters: [&(dyn ToSql + Sync); 3] = [room, &from, &rows_max];
        let mut rows = pin!(self.link.client.query_raw(statement, parameters).await?);
        while let Some(row) = rows.try_next().await? {
            if !take(&message(room, &row)?) {
                // The client throws the rest away.
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn heads(&self, rooms: &[Box<str>]) -> Result<Vec<u64>, Error> {
        let names: Vec<&str> = rooms
            .iter()
            .map(|room| &**room)
            .filter(|room| !room.contains('\0'))
            .collect();
        let rows = self.link.client.query(&self.heads, &[&names]).await?;
        let mut known = std::collections::BTreeMap::new();
        for row in &rows {
            known.insert(
                row.try_get::<_, &str>(0)?,
                row.try_get::<_, i64>(1)?.cast_unsigned(),
            );
        }
        Ok(rooms
            .iter()
            .map(|room| known.get(&**room).copied().unwrap_or(0))
            .collect())
    }
}

/// What waits, up to what one connection takes at a time, without what nobody waits for any more.
pub(super) fn waiting(first: Read, queue: &flume::Receiver<Read>) -> Vec<Read> {
    let waiting = std::iter::once(first).chain(queue.try_iter());
    let taken = waiting
        .take(TOGETHER_MAX)
        .filter_map(|mut read| read.take().then_some(read));
    request::joined(taken)
}

/// A row of `seq, id, sender, content, wall_ms, client_msg_id`.
fn message<'a>(room: &'a str, row: &'a Row) -> Result<MessageRef<'a>, Error> {
    Ok(MessageRef {
        room,
        seq: row.try_get::<_, i64>(0)?.cast_unsigned(),
        id: row.try_get(1)?,
        user: row.try_get(2)?,
        content: row.try_get(3)?,
        wall_ms: row.try_get::<_, i64>(4)?.cast_unsigned(),
        client_msg_id: row.try_get(5)?,
    })
}
