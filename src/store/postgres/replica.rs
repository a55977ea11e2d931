//! A replica: pages of history over one connection to it, for rooms in which it is not behind what
//! this process has seen. Whatever it cannot answer goes to the primary, so that nobody sees it fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use glommio::timer::Timer;
use tokio_postgres::Error;

use super::lane::{Lane, PROBE_EVERY};
use super::link::{Outcome, outcome};
use super::reader::{Prepared, TOGETHER_MAX};
use super::target::cause;
use crate::dial::within;
use crate::store::request::{self, Place, Read};

/// How long a replica may take. The primary then still has its time before the asker's is over.
const REPLICA_WITHIN: Duration = Duration::from_secs(1);

/// The way to a replica, for every shard.
pub(super) struct Way {
    pub(super) queue: flume::Sender<Read>,
    /// Whether it answers.
    pub(super) up: Arc<AtomicBool>,
}

impl Way {
    /// Whether it answers.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }
}

/// The state of one replica's reader.
pub(super) struct Replica {
    lane: Lane,
    queue: flume::Receiver<Read>,
    up: Arc<AtomicBool>,
    primary: flume::Sender<Read>,
}

/// Why a read is not answered here.
enum Unanswered {
    /// It lacks what this process has seen.
    Behind,
    Failed(Error),
}

impl Replica {
    /// A reader that hands to `primary` what it cannot answer, and the way to it.
    pub(super) fn new(lane: Lane, waiting_max: usize, primary: flume::Sender<Read>) -> (Self, Way) {
        let (sender, queue) = flume::bounded(waiting_max);
        let up = Arc::<AtomicBool>::default();
        let way = Way {
            queue: sender,
            up: up.clone(),
        };
        let replica = Self {
            lane,
            queue,
            up,
            primary,
        };
        (replica, way)
    }

    /// Reads until the last handle is gone.
    pub(super) async fn run(mut self) {
        while !(self.queue.is_disconnected() && self.queue.is_empty()) {
            // It may be behind the making of our tables, too.
            match self.lane.open(Prepared::new).await {
                Ok(prepared) => {
                    self.lane.succeeded();
                    self.up.store(true, Ordering::Release);
                    self.serve(&prepared).await;
                    self.up.store(false, Ordering::Release);
                }
                Err(error) => {
                    self.hand_over_waiting();
                    self.lane.failed_to_connect(&error).await;
                }
            }
            self.hand_over_waiting();
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
            let waiting = std::iter::once(first).chain(self.queue.try_iter());
            // Not taken up: what it cannot answer, the primary takes up.
            let reads = request::joined(waiting.take(TOGETHER_MAX));
            let asked = join_all(reads.iter().map(|read| self.ask(prepared, read)));
            let Some(results) = within(REPLICA_WITHIN, asked).await else {
                for read in reads {
                    self.hand_over_unreachable(read);
                }
                return self.lane.gave_up(REPLICA_WITHIN);
            };
            let mut lost = false;
            for (read, result) in reads.into_iter().zip(results) {
                let figures = &self.lane.health.figures;
                match result {
                    Ok(()) => figures.replica_served.increment(1),
                    Err(Unanswered::Behind) => {
                        figures.replica_behind.increment(1);
                        self.hand_over(read);
                    }
                    Err(Unanswered::Failed(error)) => {
                        tracing::debug!(error = cause(&error), "a replica does not answer");
                        lost |= outcome(&error) == Outcome::Unknown;
                        self.hand_over_unreachable(read);
                    }
                }
            }
            if lost {
                return;
            }
        }
    }

    /// Answers a read, if the replica holds what this process has seen.
    async fn ask(&self, prepared: &Prepared, read: &Read) -> Result<(), Unanswered> {
        match read {
            Read::History { place, ticket } => {
                let page = self.behind_head(prepared, place, prepared.page(place));
                let page = page.await?;
                let newest = page.messages.last().map(|newest| newest.seq);
                self.lane.note_newest(place, newest);
                ticket.answer(Ok(page));
            }
            Read::Written {
                place,
                form,
                tickets,
            } => {
                let written = self.behind_head(prepared, place, prepared.written(place, *form));
                let written = written.await?;
                let newest = written.span.map(|(_, newest)| newest);
                self.lane.note_newest(place, newest);
                request::answer(tickets, &Ok(written));
            }
            Read::Heads { .. } => return Err(Unanswered::Behind),
        }
        Ok(())
    }

    /// The page, if the room's head is not below what this process has seen.
    async fn behind_head<T>(
        &self,
        prepared: &Prepared,
        place: &Place,
        page: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Unanswered> {
        let newest = self.lane.newest_seen(&place.room);
        let newest = newest.ok_or(Unanswered::Behind)?;
        // On one connection the second is run after the first, so it sees no less than that.
        let rooms = [place.room.clone()];
        match join(prepared.heads(&rooms), page).await {
            (Ok(heads), Ok(_)) if heads[0] < newest => Err(Unanswered::Behind),
            (Ok(_), Ok(page)) => Ok(page),
            (Err(error), _) | (_, Err(error)) => Err(Unanswered::Failed(error)),
        }
    }

    fn hand_over(&self, read: Read) {
        if let Err(full) = self.primary.try_send(read) {
            self.lane.health.figures.refused_full.increment(1);
            full.into_inner().refuse("too much waits for it");
        }
    }

    fn hand_over_unreachable(&self, read: Read) {
        self.lane.health.figures.replica_unreachable.increment(1);
        self.hand_over(read);
    }

    fn hand_over_waiting(&self) {
        self.queue
            .drain()
            .for_each(|read| self.hand_over_unreachable(read));
    }
}
