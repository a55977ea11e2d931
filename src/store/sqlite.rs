//! The embedded store: `SQLite` in one file, for one process.
//!
//! One thread writes, one reads. The writer takes what waits, of all shards, into one transaction
//! (group commit), so that many senders share one `fsync`; the reader has a connection of its own,
//! so that a storm of reconnecting clients does not stop sends. Shards hand requests over bounded
//! queues and never wait for a lock or for the disk.

mod reader;
mod schema;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use self::reader::Reader;
pub use self::schema::OpenError;
use self::writer::Writer;
use super::health::Health;
use super::load::Bound;
use super::request::{Place, Read, Write};
use super::ticket::{Asks, Deadlines, Ticket};
use super::{
    ANSWER_WITHIN, Condition, Cursor, Draft, Form, Page, Store, StoreError, Stored, Written,
};

/// The most messages that wait for the writer, over all shards; a further one is refused.
pub const WRITES_WAITING_MAX: usize = 4_096;
/// The most bytes that wait for the writer or are in its hands, over all shards.
pub const WRITE_BYTES_MAX: usize = 64 << 20;
/// The most requests of either kind that wait for the reader, over all shards; a further one is refused.
pub const READS_WAITING_MAX: usize = 1_024;

/// The names under which `/health` speaks of the two threads.
const WRITES: &str = "writes";
const READS: &str = "reads";

/// A handle to the process's database. Each shard has a clone; the threads end with the last.
#[derive(Clone)]
pub struct SqliteStore {
    writes: flume::Sender<Write>,
    /// What a join, a replay or a repair waits for.
    urgent: flume::Sender<Read>,
    /// Pages of history.
    pages: flume::Sender<Read>,
    write_bytes: Arc<Bound>,
    deadlines: Arc<Deadlines>,
    health: Arc<Health>,
}

impl SqliteStore {
    /// Opens the database, once for the process: makes the directory (for this user only) and the
    /// file when they are missing, brings the schema up to date, and starts the two threads.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let mut connection = schema::open_for_writing(path)?;
        schema::migrate(&mut connection)?;
        let reading = schema::open_for_reading(path)?;

        let health = Health::new();
        let (to_writer, writes) = flume::bounded(WRITES_WAITING_MAX);
        let (urgent, first) = flume::bounded(READS_WAITING_MAX);
        let (pages, then) = flume::bounded(READS_WAITING_MAX);
        let writing = Writer::new(path, connection, writes, health.clone());
        let reads = Reader::new(path, reading, [first, then], health.clone());
        let spawn = |name: &str| thread::Builder::new().name(name.into());
        spawn("store-writer")
            .spawn(move || writing.run())
            .map_err(OpenError::Thread)?;
        spawn("store-reader")
            .spawn(move || reads.run())
            .map_err(OpenError::Thread)?;

        let watched = health.clone();
        let deadlines = Deadlines::watch(ANSWER_WITHIN, move |asks| {
            let part = if asks == Asks::ToStore { WRITES } else { READS };
            watched.figures.refused_timeout.increment(1);
            watched.failed(part, "no answer in time");
        })
        .map_err(OpenError::Thread)?;
        let write_bytes = Bound::new(WRITE_BYTES_MAX);
        Ok(Self {
            writes: to_writer,
            urgent,
            pages,
            write_bytes,
            deadlines,
            health,
        })
    }

    /// The names of the steps that the database lacks. Changes nothing: a missing file lacks all.
    pub fn pending_migrations(path: &Path) -> Result<Vec<&'static str>, OpenError> {
        schema::pending(path)
    }

    /// Brings the schema up to date and returns the names of the steps that it took.
    pub fn migrate(path: &Path) -> Result<Vec<&'static str>, OpenError> {
        schema::migrate(&mut schema::open_for_writing(path)?)
    }

    fn read<T: Send + 'static>(
        &self,
        queue: &flume::Sender<Read>,
        request: impl FnOnce(Arc<Ticket<T>>) -> Read,
    ) -> LocalBoxFuture<'static, Result<T, StoreError>> {
        let ticket = Ticket::new(Asks::ToRead);
        if queue.try_send(request(ticket.clone())).is_err() {
            return self.health.full();
        }
        self.deadlines.add(&ticket);
        ticket.wait().boxed_local()
    }
}

impl Store for SqliteStore {
    fn append(&self, draft: Draft) -> LocalBoxFuture<'static, Result<Stored, StoreError>> {
        let Some(load) = self.write_bytes.hold(draft.weight()) else {
            return self.health.full();
        };
        let ticket = Ticket::new(Asks::ToStore);
        let write = Write {
            draft,
            ticket: ticket.clone(),
            loads: [Some(load), None],
        };
        if self.writes.try_send(write).is_err() {
            return self.health.full();
        }
        self.deadlines.add(&ticket);
        ticket.wait().boxed_local()
    }

    fn history(
        &self,
        room: &str,
        cursor: Cursor,
        limit: usize,
    ) -> LocalBoxFuture<'static, Result<Page, StoreError>> {
        let place = Place::new(room, cursor, limit);
        self.read(&self.urgent, |ticket| Read::History { place, ticket })
    }

    fn history_written(
        &self,
        room: &str,
        cursor: Cursor,
        limit: usize,
        form: Form,
    ) -> LocalBoxFuture<'static, Result<Written, StoreError>> {
        let place = Place::new(room, cursor, limit);
        self.read(&self.pages, |ticket| Read::written(place, form, ticket))
    }

    fn heads(&self, rooms: Vec<Box<str>>) -> LocalBoxFuture<'static, Result<Vec<u64>, StoreError>> {
        self.read(&self.urgent, |ticket| Read::Heads { rooms, ticket })
    }

    fn condition(&self) -> Condition {
        self.health.condition()
    }

    fn kind(&self) -> &'static str {
        "sqlite"
    }
}
