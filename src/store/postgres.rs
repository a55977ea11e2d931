//! PostgreSQL: rooms that many hosts share, in one order.
//!
//! A few connections for the whole process, each on one shard's ring: W writers (a room always goes
//! through the same one, so that its messages keep their order), one for pages of history, one for
//! what a join, a replay or a repair needs. The other shards hand requests over bounded queues, and
//! a watching thread answers what takes too long, so no shard waits for another's.

mod backoff;
mod batch;
mod endpoint;
mod lane;
mod link;
mod passfile;
mod reader;
mod schema;
mod stream;
mod target;
mod tls;
mod verifier;
mod writer;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use glommio::{LocalExecutorBuilder, Placement};

use self::backoff::Backoff;
use self::lane::{Circuit, Lane};
pub use self::link::LinkError;
use self::link::Needs;
use self::reader::Reader;
pub use self::schema::OpenError;
pub use self::target::{Target, UrlError};
use self::writer::Writer;
use super::health::Health;
use super::load::Bound;
use super::request::{Read, Write, refused};
use super::ticket::{Asks, Deadlines, Ticket};
use super::{ANSWER_WITHIN, Condition, Cursor, Draft, Page, Store, StoreError, Stored};

/// The most messages of one shard that wait to be stored; a further one is refused.
pub const WRITES_WAITING_MAX: usize = 1_000;
/// The most bytes of all shards that wait to be stored or are in flight.
pub const WRITE_BYTES_MAX: usize = 64 << 20;
/// The most reads of all shards that wait for one connection; a further one is refused.
pub const READS_WAITING_MAX: usize = 1_024;
/// The most writers of a process, and so the most connections that it writes with.
pub const WRITERS_MAX: usize = 4;

/// The writers' names in `/health`.
const WRITERS: [&str; WRITERS_MAX] = ["writer 1", "writer 2", "writer 3", "writer 4"];
const HISTORY: &str = "history";
const REPAIR: &str = "repair";

/// The process's database, of which each shard takes a handle with [`PostgresStore::handle`].
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
    /// What waits of this handle's shard.
    waiting: Arc<Bound>,
}

struct Shared {
    writers: Vec<(flume::Sender<Write>, Arc<Circuit>)>,
    history: (flume::Sender<Read>, Arc<Circuit>),
    repair: (flume::Sender<Read>, Arc<Circuit>),
    bytes: Arc<Bound>,
    deadlines: Arc<Deadlines>,
    health: Arc<Health>,
    /// Which writer a room goes through: the same for every shard.
    hasher: RandomState,
}

/// How long a shard that has done its work stays for what the others still store through it.
const LEAVE_WITHIN: Duration = Duration::from_secs(6);
/// How often it looks whether they have done theirs.
const LEAVE_LOOK: Duration = Duration::from_millis(10);

/// The connections that live on one shard. Sent to it, and begun there. Empty, it keeps none.
#[derive(Default)]
pub struct Seat {
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    staying: Arc<Staying>,
}

/// How many shards still use each other's connections.
#[derive(Debug, Default)]
struct Staying(AtomicUsize);

/// A seat that was taken. Its shard leaves it when it stores nothing more.
#[derive(Debug)]
pub struct Seated {
    staying: Arc<Staying>,
}

impl Seated {
    /// Waits until no shard stores anything more through this one's connections.
    pub async fn leave(self) {
        let begun = Instant::now();
        let staying = &self.staying.0;
        let _ = staying.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            count.checked_sub(1)
        });
        while staying.load(Ordering::Acquire) > 0 && begun.elapsed() < LEAVE_WITHIN {
            glommio::timer::sleep(LEAVE_LOOK).await;
        }
    }
}

impl Seat {
    /// Begins to keep the connections, on this executor.
    #[must_use = "the shard has to leave it when it ends"]
    pub fn take(self) -> Seated {
        for writer in self.writers {
            glommio::spawn_local(writer.run()).detach();
        }
        for reader in self.readers {
            glommio::spawn_local(reader.run()).detach();
        }
        Seated {
            staying: self.staying,
        }
    }
}

impl PostgresStore {
    /// The store of a process with this many shards, and what each of them has to begin.
    pub fn new(target: Target, shards: usize) -> io::Result<(Self, Vec<Seat>)> {
        let target = Arc::new(target);
        let health = Health::new();
        let lane = |part, needs| {
            let circuit = Arc::<Circuit>::default();
            let lane = Lane {
                target: target.clone(),
                needs,
                part,
                health: health.clone(),
                circuit: circuit.clone(),
                backoff: Backoff::default(),
            };
            (lane, circuit)
        };
        let staying = Arc::new(Staying(AtomicUsize::new(shards)));
        let seat = |_| Seat {
            staying: staying.clone(),
            ..Seat::default()
        };
        let mut seats: Vec<Seat> = (0..shards).map(seat).collect();
        let mut writers = Vec::new();
        for (shard, part) in WRITERS.into_iter().enumerate().take(shards) {
            let (sender, queue) = flume::bounded(WRITES_WAITING_MAX * shards);
            let (lane, circuit) = lane(part, Needs::Writing);
            seats[shard].writers.push(Writer::new(lane, queue));
            writers.push((sender, circuit));
        }
        // On the last shards, because the first have writers.
        let mut reader = |part, shard: usize| {
            let (sender, queue) = flume::bounded(READS_WAITING_MAX);
            let (lane, circuit) = lane(part, Needs::Reading);
            seats[shard].readers.push(Reader::new(lane, queue));
            (sender, circuit)
        };
        let history = reader(HISTORY, shards - 1);
        let repair = reader(REPAIR, shards.saturating_sub(2));
        let watched = health.clone();
        let deadlines = Deadlines::watch(ANSWER_WITHIN, move |_| {
            watched.figures.refused_timeout.increment(1);
        })?;
        let shared = Shared {
            writers,
            history,
            repair,
            bytes: Bound::new(WRITE_BYTES_MAX),
            deadlines,
            health,
            hasher: RandomState::new(),
        };
        let waiting = Bound::new(WRITES_WAITING_MAX);
        Ok((
            Self {
                shared: Arc::new(shared),
                waiting,
            },
            seats,
        ))
    }

    /// A handle for one more shard, with a bound of its own.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            waiting: Bound::new(WRITES_WAITING_MAX),
        }
    }

    /// The names of the steps that the database lacks. Changes nothing. Not for a shard's thread.
    pub fn pending_migrations(target: &Target) -> Result<Vec<&'static str>, OpenError> {
        let target = target.clone();
        apart(async move { schema::pending(&target).await })
    }

    /// Brings the schema up to date and returns the names of the steps that it took. Servers that do
    /// so at the same moment wait for each other. Not for a shard's thread.
    pub fn migrate(target: &Target) -> Result<Vec<&'static str>, OpenError> {
        let target = target.clone();
        apart(async move { schema::migrate(&target).await })
    }

    fn read<T: Send + 'static>(
        &self,
        (queue, circuit): &(flume::Sender<Read>, Arc<Circuit>),
        request: impl FnOnce(Arc<Ticket<T>>) -> Read,
    ) -> LocalBoxFuture<'static, Result<T, StoreError>> {
        if circuit.is_open() {
            return refused("the database is down");
        }
        let ticket = Ticket::new(Asks::ToRead);
        if queue.try_send(request(ticket.clone())).is_err() {
            return self.shared.health.full();
        }
        self.shared.deadlines.add(&ticket);
        ticket.wait().boxed_local()
    }
}

/// Runs a future on an executor of its own, before there are shards.
fn apart<T: 'static>(
    future: impl Future<Output = Result<T, OpenError>> + 'static,
) -> Result<T, OpenError> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(0)
        .ring_depth(128);
    let executor = executor
        .make()
        .map_err(|error| OpenError::Thread(io::Error::other(error.to_string())))?;
    executor.run(future)
}

impl Store for PostgresStore {
    fn append(&self, draft: Draft) -> LocalBoxFuture<'static, Result<Stored, StoreError>> {
        let shared = &self.shared;
        let nth = shared.hasher.hash_one(&*draft.room) % shared.writers.len() as u64;
        let nth = usize::try_from(nth).expect("there are few writers");
        let (queue, circuit) = &shared.writers[nth];
        if circuit.is_open() {
            return refused("the database is down");
        }
        let (Some(one), Some(bytes)) = (self.waiting.hold(1), shared.bytes.hold(draft.weight()))
        else {
            return shared.health.full();
        };
        let ticket = Ticket::new(Asks::ToStore);
        let loads = [Some(one), Some(bytes)];
        if queue
            .try_send(Write {
                draft,
                ticket: ticket.clone(),
                loads,
            })
            .is_err()
        {
            return shared.health.full();
        }
        shared.deadlines.add(&ticket);
        ticket.wait().boxed_local()
    }

    fn history(
        &self,
        room: &str,
        cursor: Cursor,
        limit: usize,
    ) -> LocalBoxFuture<'static, Result<Page, StoreError>> {
        // What is above a number is asked to close a gap: not behind a storm of pages.
        let reader = match cursor {
            Cursor::After(_) => &self.shared.repair,
            Cursor::Newest | Cursor::Before(_) => &self.shared.history,
        };
        let room = room.into();
        self.read(reader, |ticket| Read::History {
            room,
            cursor,
            limit,
            ticket,
        })
    }

    fn heads(&self, rooms: Vec<Box<str>>) -> LocalBoxFuture<'static, Result<Vec<u64>, StoreError>> {
        self.read(&self.shared.repair, |ticket| Read::Heads { rooms, ticket })
    }

    fn condition(&self) -> Condition {
        self.shared.health.condition()
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }
}
