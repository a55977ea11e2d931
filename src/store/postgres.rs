//! PostgreSQL: rooms that many hosts share, in one order.
//!
//! A few connections for the whole process, each on one shard's ring: W writers (a room always goes
//! through the same one, so that its messages keep their order), one for pages of history, one for
//! what a join, a replay or a repair needs. The other shards hand requests over bounded queues, and
//! a watching thread answers what takes too long, so no shard waits for another's.

mod batch;
mod endpoint;
mod lane;
mod link;
mod passfile;
mod reader;
mod replica;
mod schema;
mod seen;
mod stream;
mod target;
mod tls;
mod writer;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use glommio::{LocalExecutorBuilder, Placement};

use self::lane::{Circuit, Lane};
pub use self::link::LinkError;
use self::link::Needs;
use self::reader::Reader;
use self::replica::{Replica, Way};
pub use self::schema::{Found, OpenError};
use self::seen::Seen;
pub use self::target::{Target, UrlError};
use self::writer::Writer;
use super::health::Health;
use super::load::Bound;
use super::request::{Place, Read, Write};
use super::ticket::{Asks, Deadlines, Ticket};
use super::{
    ANSWER_WITHIN, Condition, Cursor, Draft, Form, Page, Store, StoreError, Stored, Written,
};

/// The most messages of one shard that wait to be stored; a further one is refused.
pub const WRITES_WAITING_MAX: usize = 1_000;
/// The most bytes of all shards that wait to be stored or are in flight.
pub const WRITE_BYTES_MAX: usize = 64 << 20;
/// The most reads of all shards that wait for one connection; a further one is refused.
pub const READS_WAITING_MAX: usize = 1_024;
/// The most writers of a process, and so the most connections that it writes with.
pub const WRITERS_MAX: usize = 4;

/// The most replicas of a process.
pub const REPLICAS_MAX: usize = 8;

/// The writers' names in `/health`.
const WRITERS: [&str; WRITERS_MAX] = ["writer 1", "writer 2", "writer 3", "writer 4"];
/// The replicas' names in the log.
const REPLICAS: [&str; REPLICAS_MAX] = [
    "replica 1",
    "replica 2",
    "replica 3",
    "replica 4",
    "replica 5",
    "replica 6",
    "replica 7",
    "replica 8",
];
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
    replicas: Vec<Way>,
    /// Which replica is asked next.
    turn: AtomicUsize,
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
    replicas: Vec<Replica>,
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
        for replica in self.replicas {
            glommio::spawn_local(replica.run()).detach();
        }
        Seated {
            staying: self.staying,
        }
    }
}

impl PostgresStore {
    /// The store of a process with this many shards, and what each of them has to begin.
    pub fn new(target: Target, shards: usize) -> io::Result<(Self, Vec<Seat>)> {
        Self::with_replicas(target, &[], shards)
    }

    /// The same with replicas, at most [`REPLICAS_MAX`], that pages of history are read from.
    pub fn with_replicas(
        target: Target,
        replicas: &[Target],
        shards: usize,
    ) -> io::Result<(Self, Vec<Seat>)> {
        let target = Arc::new(target);
        let health = Health::new();
        let seen = (!replicas.is_empty()).then(Arc::<Seen>::default);
        let lane = |part, needs| Lane::new(&target, needs, part, &health, seen.clone());
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
        let spare = Health::of_replicas();
        let mut ways = Vec::new();
        for (nth, (replica, part)) in replicas.iter().zip(REPLICAS).enumerate() {
            let place = Arc::new(replica.clone());
            let (lane, _) = Lane::new(&place, Needs::Reading, part, &spare, seen.clone());
            let (replica, way) = Replica::new(lane, READS_WAITING_MAX, history.0.clone());
            seats[shards - 1 - nth % shards].replicas.push(replica);
            ways.push(way);
        }
        let watched = health.clone();
        let deadlines = Deadlines::watch(ANSWER_WITHIN, move |_| {
            watched.figures.refused_timeout.increment(1);
        })?;
        let shared = Shared {
            writers,
            history,
            repair,
            replicas: ways,
            turn: AtomicUsize::new(0),
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

    /// Connects as the writers do and says what is there. Changes nothing. Not for a shard's thread.
    pub fn look(target: &Target) -> Result<Found, OpenError> {
        let target = target.clone();
        apart(async move { schema::look(&target).await })
    }

    /// Brings the schema up to date and returns the names of the steps that it took. Servers that do
    /// so at the same moment wait for each other. Not for a shard's thread.
    pub fn migrate(target: &Target) -> Result<Vec<&'static str>, OpenError> {
        let target = target.clone();
        apart(async move { schema::migrate(&target).await })
    }

    /// Has a page read by the next replica that answers. `Err`: there is none, or too much waits.
    fn read_from_replica(&self, read: Read) -> Result<(), Read> {
        let ways = &self.shared.replicas;
        if ways.is_empty() {
            return Err(read);
        }
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = (0..ways.len()).map(|nth| &ways[turn.wrapping_add(nth) % ways.len()]);
        let sent = match in_turn.find(|way| way.is_up()) {
            Some(way) => way
                .queue
                .try_send(read)
                .map_err(flume::TrySendError::into_inner),
            None => Err(read),
        };
        if sent.is_err() {
            self.shared.health.figures.replica_unreachable.increment(1);
        }
        sent
    }

    /// Has a page of history read by whoever is there for such.
    fn page<T: Send + 'static>(
        &self,
        cursor: Cursor,
        request: impl FnOnce(Arc<Ticket<T>>) -> Read,
    ) -> LocalBoxFuture<'static, Result<T, StoreError>> {
        // What is above a number may be newer than what a replica holds.
        if matches!(cursor, Cursor::After(_)) {
            return self.read(&self.shared.history, request);
        }
        let ticket = Ticket::new(Asks::ToRead);
        match self.read_from_replica(request(ticket.clone())) {
            Ok(()) => {
                self.shared.deadlines.add(&ticket);
                ticket.wait().boxed_local()
            }
            Err(read) => self.submit(&self.shared.history, read, &ticket),
        }
    }

    fn read<T: Send + 'static>(
        &self,
        way: &(flume::Sender<Read>, Arc<Circuit>),
        request: impl FnOnce(Arc<Ticket<T>>) -> Read,
    ) -> LocalBoxFuture<'static, Result<T, StoreError>> {
        let ticket = Ticket::new(Asks::ToRead);
        self.submit(way, request(ticket.clone()), &ticket)
    }

    /// Has it read over this connection; the ticket is the request's.
    fn submit<T: Send + 'static>(
        &self,
        (queue, circuit): &(flume::Sender<Read>, Arc<Circuit>),
        read: Read,
        ticket: &Arc<Ticket<T>>,
    ) -> LocalBoxFuture<'static, Result<T, StoreError>> {
        if circuit.is_open() {
            return self.shared.health.down();
        }
        if queue.try_send(read).is_err() {
            return self.shared.health.full();
        }
        self.shared.deadlines.add(ticket);
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
            return self.shared.health.down();
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
        let place = Place::new(room, cursor, limit);
        let request = |ticket| Read::History { place, ticket };
        // What is above a number is asked to close a gap: not behind a storm of pages.
        match cursor {
            Cursor::After(_) => self.read(&self.shared.repair, request),
            Cursor::Newest | Cursor::Before(_) => self.page(cursor, request),
        }
    }

    fn history_written(
        &self,
        room: &str,
        cursor: Cursor,
        limit: usize,
        form: Form,
    ) -> LocalBoxFuture<'static, Result<Written, StoreError>> {
        let place = Place::new(room, cursor, limit);
        self.page(cursor, |ticket| Read::written(place, form, ticket))
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
