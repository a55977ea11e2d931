//! The thread that writes: group commit.
//!
//! It takes what waits into one transaction. A row that cannot be stored is refused alone; a
//! transaction that fails is rolled back and refused as a whole, and the next batch tries again, so
//! that a disk that was full is written to as soon as it has space.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::{WRITES, reader, schema};
use crate::store::health::{Health, count};
use crate::store::request::Write;
use crate::store::{Draft, Message, StoreError, Stored};

/// The most rows in one transaction.
const BATCH_ROWS_MAX: usize = 512;
/// The most bytes in one transaction; one message alone may be larger.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What became of one row of a transaction that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Row {
    Fresh { seq: u64, wall_ms: u64 },
    Known(Message),
    Refused(Box<str>),
}

/// Why a transaction was not committed.
#[derive(Debug)]
enum Failure {
    /// It is surely not in the database.
    NotStored(String),
    /// The commit itself failed: what was written may come back when the log is read after a crash.
    Unknown(String),
}

/// The thread's state.
pub(super) struct Writer {
    path: PathBuf,
    /// `None` after a failure: opened again for the next batch.
    connection: Option<Connection>,
    waiting: flume::Receiver<Write>,
    /// What did not fit into the last batch.
    carried: Option<Write>,
    health: Arc<Health>,
}

impl Writer {
    pub(super) fn new(
        path: &Path,
        connection: Connection,
        waiting: flume::Receiver<Write>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            path: path.into(),
            connection: Some(connection),
            waiting,
            carried: None,
            health,
        }
    }

    /// Stores until the last handle is gone and nothing waits.
    pub(super) fn run(mut self) {
        while let Some(batch) = self.gather() {
            self.settle(batch);
        }
    }

    /// Waits for a first message and takes what waits behind it. `None`: nobody can send any more.
    fn gather(&mut self) -> Option<Vec<Write>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_ROWS_MAX {
            let next = self.carried.take().or_else(|| self.waiting.try_recv().ok());
            let next = match next {
                Some(next) => next,
                None if batch.is_empty() => self.waiting.recv().ok()?,
                None => break,
            };
            let weight = next.draft.weight();
            if !batch.is_empty() && bytes + weight > BATCH_BYTES_MAX {
                self.carried = Some(next);
                break;
            }
            // Refused here and now, or surely taken: its deadline has not answered in between.
            if next.ticket.take() {
                bytes += weight;
                batch.push(next);
            }
        }
        Some(batch)
    }

    fn settle(&mut self, batch: Vec<Write>) {
        let (drafts, tickets): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|write| (write.draft, (write.ticket, write.loads)))
            .unzip();
        self.health.figures.queue.set(count(self.waiting.len()));
        let (begun, rows) = (Instant::now(), count(drafts.len()));
        let result = self.store(&drafts);
        let figures = &self.health.figures;
        match result {
            Ok(stored_rows) => {
                figures.batches.increment(1);
                figures.batch_rows.record(rows);
                figures.commit_seconds.record(begun.elapsed());
                self.health.succeeded(WRITES);
                for ((draft, row), (ticket, _load)) in
                    drafts.into_iter().zip(stored_rows).zip(tickets)
                {
                    ticket.answer(stored(draft, row));
                }
            }
            Err(failure) => {
                let (reason, error) = match failure {
                    Failure::NotStored(reason) => {
                        let error = StoreError::Unavailable(reason.as_str().into());
                        (reason, error)
                    }
                    Failure::Unknown(reason) => (reason, StoreError::Timeout),
                };
                figures.refused_failed.increment(drafts.len() as u64);
                self.health.failed(WRITES, &reason);
                for (ticket, _load) in tickets {
                    ticket.answer(Err(error.clone()));
                }
            }
        }
    }

    fn store(&mut self, drafts: &[Draft]) -> Result<Vec<Row>, Failure> {
        if self.connection.is_none() {
            let opened = schema::reopen_for_writing(&self.path)
                .map_err(|error| Failure::NotStored(error.to_string()))?;
            self.connection = Some(opened);
        }
        let connection = self.connection.as_ref().expect("opened above");
        let (failure, error) = match transact(connection, drafts) {
            Ok(rows) => return Ok(rows),
            Err(failed) => failed,
        };
        // After a failed write or sync the connection's view of the log is not trusted again. A full
        // disk is no such case: what did not fit was never part of the log.
        let rolled_back =
            connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        let trusted = matches!(error, Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy));
        if !(rolled_back && trusted) {
            self.connection = None;
        }
        Err(failure)
    }
}

fn stored(draft: Draft, row: Row) -> Result<Stored, StoreError> {
    match row {
        Row::Fresh { seq, wall_ms } => Ok(Stored {
            message: draft.numbered(seq, wall_ms),
            fresh: true,
        }),
        Row::Known(message) => Ok(Stored {
            message,
            fresh: false,
        }),
        Row::Refused(reason) => Err(StoreError::Unavailable(reason)),
    }
}

/// One transaction, from begin to commit.
fn transact(
    connection: &Connection,
    drafts: &[Draft],
) -> Result<Vec<Row>, (Failure, Option<ErrorCode>)> {
    let inserted = connection.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
        Batch {
            connection,
            rooms: BTreeMap::new(),
        }
        .insert_all(drafts)
    });
    let rows = inserted.map_err(|error| {
        (
            Failure::NotStored(error.to_string()),
            error.sqlite_error_code(),
        )
    })?;
    match connection.execute_batch("COMMIT") {
        Ok(()) => Ok(rows),
        Err(error) => {
            let code = error.sqlite_error_code();
            // A log without room for the commit record has none. After any other error it may have:
            // written, but perhaps not synced.
            let failure = match code {
                Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) => Failure::NotStored,
                _ => Failure::Unknown,
            };
            Err((failure(error.to_string()), code))
        }
    }
}

/// A room as this transaction sees it.
struct Room {
    id: i64,
    head: i64,
    newest_ms: i64,
    grown: bool,
}

/// A transaction under way.
struct Batch<'a> {
    connection: &'a Connection,
    rooms: BTreeMap<&'a str, Room>,
}

impl<'a> Batch<'a> {
    /// Inserts every row that can be, in their order, then writes the rooms' new heads.
    fn insert_all(&mut self, drafts: &'a [Draft]) -> rusqlite::Result<Vec<Row>> {
        let rows = drafts.iter().map(|draft| match self.insert(draft) {
            Err(error) if is_of_the_row(&error) => Ok(Row::Refused(error.to_string().into())),
            row => row,
        });
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        let mut grow = self
            .connection
            .prepare_cached("UPDATE rooms SET head = ?2, newest_ms = ?3 WHERE id = ?1")?;
        for room in self.rooms.values().filter(|room| room.grown) {
            grow.execute((room.id, room.head, room.newest_ms))?;
        }
        Ok(rows)
    }

    fn insert(&mut self, draft: &'a Draft) -> rusqlite::Result<Row> {
        let connection = self.connection;
        let room = self.room(&draft.room)?;
        if let Some(known) = known(connection, room.id, draft)? {
            return Ok(Row::Known(known));
        }
        let Ok(wall_ms) = i64::try_from(draft.wall_ms) else {
            return Ok(Row::Refused("the time is out of range".into()));
        };
        let (seq, wall_ms) = (room.head + 1, wall_ms.max(room.newest_ms));
        let mut insert = connection.prepare_cached(
            "INSERT INTO messages (room, seq, id, sender, content, wall_ms, client_msg_id) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let key = draft.client_msg_id.as_deref();
        insert.execute((
            room.id,
            seq,
            draft.id.as_bytes(),
            &*draft.user,
            &*draft.content,
            wall_ms,
            key,
        ))?;
        room.head = seq;
        room.newest_ms = wall_ms;
        room.grown = true;
        Ok(Row::Fresh {
            seq: seq.cast_unsigned(),
            wall_ms: wall_ms.cast_unsigned(),
        })
    }

    /// The room, read or made once a transaction.
    fn room(&mut self, name: &'a str) -> rusqlite::Result<&mut Room> {
        if !self.rooms.contains_key(name) {
            let room = read_or_make(self.connection, name)?;
            self.rooms.insert(name, room);
        }
        Ok(self.rooms.get_mut(name).expect("inserted above"))
    }
}

fn read_or_make(connection: &Connection, name: &str) -> rusqlite::Result<Room> {
    let found = connection
        .prepare_cached("SELECT id, head, newest_ms FROM rooms WHERE name = ?1")?
        .query_row([name], |row| {
            Ok(Room {
                id: row.get(0)?,
                head: row.get(1)?,
                newest_ms: row.get(2)?,
                grown: false,
            })
        })
        .optional()?;
    if let Some(room) = found {
        return Ok(room);
    }
    let mut make =
        connection.prepare_cached("INSERT INTO rooms (name, head, newest_ms) VALUES (?1, 0, 0)")?;
    Ok(Room {
        id: make.insert([name])?,
        head: 0,
        newest_ms: 0,
        grown: false,
    })
}

/// The message that the sender has already stored under this key, in this batch or before.
fn known(connection: &Connection, room: i64, draft: &Draft) -> rusqlite::Result<Option<Message>> {
    let Some(key) = &draft.client_msg_id else {
        return Ok(None);
    };
    connection
        .prepare_cached(
            "SELECT seq, id, sender, content, wall_ms, client_msg_id FROM messages \
             WHERE room = ?1 AND sender = ?2 AND client_msg_id = ?3",
        )?
        .query_row((room, &*draft.user, &**key), |row| {
            reader::message(&draft.room, row)
        })
        .optional()
}

/// Whether only this row is to blame, and the transaction can go on without it.
fn is_of_the_row(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ticket::{Asks, Ticket};
    use futures_lite::future::block_on;

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

    struct Fixture {
        writer: Writer,
        sender: flume::Sender<Write>,
        _home: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("chat.db");
        let mut connection = schema::open_for_writing(&path).unwrap();
        schema::migrate(&mut connection).unwrap();
        let (sender, waiting) = flume::unbounded();
        let writer = Writer::new(&path, connection, waiting, Health::new());
        Fixture {
            writer,
            sender,
            _home: home,
        }
    }

    impl Fixture {
        fn send(&self, draft: Draft) -> Arc<Ticket<Stored>> {
            let ticket = Ticket::new(Asks::ToStore);
            self.sender
                .send(Write {
                    draft,
                    ticket: ticket.clone(),
                    loads: [None, None],
                })
                .unwrap();
            ticket
        }
    }

    #[test]
    fn a_batch_is_bounded_by_rows_and_by_bytes() {
        let mut fixture = fixture();
        for _ in 0..=BATCH_ROWS_MAX {
            fixture.send(draft("r", "x", None));
        }
        assert_eq!(fixture.writer.gather().unwrap().len(), BATCH_ROWS_MAX);
        assert_eq!(fixture.writer.gather().unwrap().len(), 1);
        let large = "x".repeat(BATCH_BYTES_MAX / 3);
        for _ in 0..4 {
            fixture.send(draft("r", &large, None));
        }
        assert_eq!(
            fixture.writer.gather().unwrap().len(),
            2,
            "three and their heads are too many"
        );
        assert_eq!(fixture.writer.gather().unwrap().len(), 2);
    }

    #[test]
    fn what_was_refused_by_time_is_not_taken() {
        let mut fixture = fixture();
        fixture
            .send(draft("r", "late", None))
            .answer(Err(StoreError::Timeout));
        fixture.send(draft("r", "in time", None));
        let batch = fixture.writer.gather().unwrap();
        assert_eq!(batch.len(), 1);
        assert_eq!(&*batch[0].draft.content, "in time");
    }

    #[test]
    fn a_row_that_cannot_be_stored_does_not_fail_the_others() {
        let mut fixture = fixture();
        let mut bad = draft("r", "bad", None);
        bad.wall_ms = u64::MAX;
        let rows = fixture
            .writer
            .store(&[draft("r", "a", None), bad, draft("r", "b", None)])
            .unwrap();
        assert_eq!(
            rows[0],
            Row::Fresh {
                seq: 1,
                wall_ms: 1_000
            }
        );
        assert!(matches!(rows[1], Row::Refused(_)));
        assert_eq!(
            rows[2],
            Row::Fresh {
                seq: 2,
                wall_ms: 1_000
            }
        );
    }

    #[test]
    fn a_key_is_known_again_within_the_batch() {
        let mut fixture = fixture();
        let rows = fixture
            .writer
            .store(&[
                draft("r", "a", Some("k")),
                draft("r", "b", Some("k")),
                draft("r", "c", None),
            ])
            .unwrap();
        let Row::Known(first) = &rows[1] else {
            panic!("{rows:?}")
        };
        assert_eq!((first.seq, &*first.content), (1, "a"));
        assert_eq!(
            rows[2],
            Row::Fresh {
                seq: 2,
                wall_ms: 1_000
            }
        );
    }

    #[test]
    fn a_full_disk_refuses_the_batch_and_takes_the_next_once_there_is_space() {
        let mut fixture = fixture();
        fixture.writer.store(&[draft("r", "before", None)]).unwrap();
        let limit = |writer: &Writer, pages: i64| {
            let connection = writer
                .connection
                .as_ref()
                .expect("a full disk keeps the connection");
            connection
                .pragma_update(None, "max_page_count", pages)
                .unwrap();
        };
        // No fewer than it has: one message of many pages does not fit any more.
        limit(&fixture.writer, 1);
        let large = "x".repeat(60_000);
        let tickets = [
            fixture.send(draft("r", "small", None)),
            fixture.send(draft("r", &large, None)),
        ];
        let batch = fixture.writer.gather().unwrap();
        fixture.writer.settle(batch);
        for ticket in tickets {
            let answer = block_on(ticket.wait());
            assert!(
                matches!(answer, Err(StoreError::Unavailable(_))),
                "{answer:?}"
            );
        }
        assert!(matches!(
            fixture.writer.health.condition(),
            crate::store::Condition::Degraded(reason) if reason.contains("full")
        ));
        limit(&fixture.writer, 1 << 30);
        let ticket = fixture.send(draft("r", &large, None));
        let batch = fixture.writer.gather().unwrap();
        fixture.writer.settle(batch);
        assert_eq!(
            block_on(ticket.wait()).unwrap().message.seq,
            2,
            "the refused ones left no trace"
        );
        assert_eq!(
            fixture.writer.health.condition(),
            crate::store::Condition::Ok
        );
    }

    #[test]
    fn a_connection_that_failed_is_opened_again() {
        let mut fixture = fixture();
        fixture.writer.store(&[draft("r", "a", None)]).unwrap();
        let connection = fixture.writer.connection.as_ref().unwrap();
        connection.pragma_update(None, "query_only", true).unwrap();
        assert!(matches!(
            fixture.writer.store(&[draft("r", "b", None)]),
            Err(Failure::NotStored(_))
        ));
        assert!(fixture.writer.connection.is_none());
        let rows = fixture.writer.store(&[draft("r", "c", None)]).unwrap();
        assert_eq!(
            rows,
            [Row::Fresh {
                seq: 2,
                wall_ms: 1_000
            }]
        );
    }
}
