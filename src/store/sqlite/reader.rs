//! The thread that reads: pages of history, replay and repair, and the rooms' heads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures_lite::future::{block_on, or};
use rusqlite::{Connection, OptionalExtension, Row};

use super::{READS, schema};
use crate::store::health::Health;
use crate::store::request::{Gathering, Place, Read};
use crate::store::ticket::Ticket;
use crate::store::{Cursor, Message, Page, StoreError, Written};

/// The thread's state.
pub(super) struct Reader {
    path: PathBuf,
    /// `None` after a failure: opened again for the next request.
    connection: Option<Connection>,
    /// What is urgent, and what comes when nothing is.
    queues: [flume::Receiver<Read>; 2],
    health: Arc<Health>,
}

impl Reader {
    pub(super) fn new(
        path: &Path,
        connection: Connection,
        queues: [flume::Receiver<Read>; 2],
        health: Arc<Health>,
    ) -> Self {
        Self {
            path: path.into(),
            connection: Some(connection),
            queues,
            health,
        }
    }

    /// Serves until the last handle is gone.
    pub(super) fn run(mut self) {
        while let Some(request) = self.next() {
            match request {
                Read::History { place, ticket } => {
                    self.serve(&ticket, |connection| page(connection, &place));
                }
                Read::Written {
                    place,
                    form,
                    tickets,
                } => {
                    for ticket in tickets {
                        self.serve(&ticket, |connection| {
                            Ok(Written::of(&page(connection, &place)?, place.cursor, form))
                        });
                    }
                }
                Read::Heads { rooms, ticket } => {
                    self.serve(&ticket, |connection| heads(connection, &rooms));
                }
            }
        }
    }

    /// The next request; `None` when nobody can make one any more.
    fn next(&self) -> Option<Read> {
        let [urgent, pages] = &self.queues;
        // The first is looked at first: whoever asks for pages without a pause keeps nobody from joining.
        let either = block_on(or(urgent.recv_async(), pages.recv_async()));
        either.or_else(|_| pages.recv()).ok()
    }

    fn serve<T: Send>(
        &mut self,
        ticket: &Ticket<T>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) {
        if !ticket.take() {
            return;
        }
        let begun = Instant::now();
        match self.read(read) {
            Ok(value) => {
                self.health.figures.read_seconds.record(begun.elapsed());
                self.health.succeeded(READS);
                ticket.answer(Ok(value));
            }
            Err(reason) => {
                self.connection = None;
                self.health.failed(READS, &reason);
                ticket.answer(Err(StoreError::Unavailable(reason.into())));
            }
        }
    }

    fn read<T>(
        &mut self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, String> {
        if self.connection.is_none() {
            let opened = schema::open_for_reading(&self.path).map_err(|error| error.to_string())?;
            self.connection = Some(opened);
        }
        let connection = self.connection.as_ref().expect("opened above");
        read(connection).map_err(|error| error.to_string())
    }
}

/// Where a cursor starts, as the `seq` that the page begins beyond, and its direction.
fn statement(cursor: Cursor) -> (&'static str, i64) {
    macro_rules! select {
        ($condition:literal) => {
            concat!(
                "SELECT seq, id, sender, content, wall_ms, client_msg_id FROM messages ",
                "WHERE room = (SELECT id FROM rooms WHERE name = ?1) AND seq ",
                $condition,
                " LIMIT ?3"
            )
        };
    }
    let clamp = |seq| i64::try_from(seq).unwrap_or(i64::MAX);
    match cursor {
        Cursor::Newest => (select!("<= ?2 ORDER BY seq DESC"), i64::MAX),
        Cursor::Before(seq) => (select!("< ?2 ORDER BY seq DESC"), clamp(seq)),
        Cursor::After(seq) => (select!("> ?2 ORDER BY seq"), clamp(seq)),
    }
}

fn page(connection: &Connection, place: &Place) -> rusqlite::Result<Page> {
    let (sql, from) = statement(place.cursor);
    let room = &*place.room;
    // One more than asked tells whether there are more.
    let rows_max = i64::try_from(place.limit)
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((room, from, rows_max))?;
    let mut gathering = Gathering::new(place.limit);
    while let Some(row) = rows.next()? {
        if !gathering.take(message(room, row)?) {
            break;
        }
    }
    Ok(gathering.end(place.cursor))
}

/// A row of `seq, id, sender, content, wall_ms, client_msg_id`.
pub(super) fn message(room: &str, row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        room: room.into(),
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        id: uuid::Uuid::from_bytes(row.get(1)?),
        user: row.get(2)?,
        content: row.get(3)?,
        wall_ms: row.get::<_, i64>(4)?.cast_unsigned(),
        client_msg_id: row.get(5)?,
    })
}

fn heads(connection: &Connection, rooms: &[Box<str>]) -> rusqlite::Result<Vec<u64>> {
    let mut statement = connection.prepare_cached("SELECT head FROM rooms WHERE name = ?1")?;
    let mut head = |room: &str| {
        let head: Option<i64> = statement.query_row([room], |row| row.get(0)).optional()?;
        Ok(head.unwrap_or(0).cast_unsigned())
    };
    rooms.iter().map(|room| head(room)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_one_range_of_the_clustered_table() {
        let home = tempfile::tempdir().unwrap();
        let mut connection = schema::open_for_writing(&home.path().join("chat.db")).unwrap();
        schema::migrate(&mut connection).unwrap();
        for cursor in [Cursor::Newest, Cursor::Before(9), Cursor::After(9)] {
            let sql = format!("EXPLAIN QUERY PLAN {}", statement(cursor).0);
            let mut plan = connection.prepare(&sql).unwrap();
            let steps: Vec<String> = plan
                .query_map(("r", 9, 10), |row| row.get("detail"))
                .unwrap()
                .collect::<rusqlite::Result<_>>()
                .unwrap();
            let plan = steps.join("\n");
            assert!(
                plan.contains("messages USING PRIMARY KEY (room=? AND seq"),
                "{plan}"
            );
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
