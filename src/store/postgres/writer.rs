//! A writer: group commit over one connection.
//!
//! While a batch is in flight the next messages gather; each batch is one statement and one round
//! trip. A batch that fails for one row's sake is halved until the row stands alone. What is stored is
//! answered when the next batch is on its way: the database works on that one while the shard acks and
//! delivers this one.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use glommio::timer::Timer;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::batch::{Answer, Columns, PENDING_MAX, Pending};
use super::lane::{Lane, PROBE_EVERY};
use super::link::{Link, Outcome, outcome};
use super::target::cause;
use crate::dial::within;
use crate::store::health::count;
use crate::store::load::Load;
use crate::store::request::Write;
use crate::store::ticket::Ticket;
use crate::store::{Draft, StoreError, Stored};

/// How long a batch may be in flight. Then the connection is thrown away, and a message that came
/// while the batch was out still has a second on the next one.
const BATCH_WITHIN: Duration = Duration::from_secs(4);

const APPEND: &str = "SELECT place, number, at_ms, known_id, known_content \
    FROM append_messages_1($1, $2, $3, $4, $5, $6, $7)";

/// The state of one writer.
pub(super) struct Writer {
    lane: Lane,
    queue: flume::Receiver<Write>,
    pending: Pending,
    /// What is stored, and not answered yet.
    untold: Vec<(Waiter, Result<Stored, StoreError>)>,
    /// What the figure of the queue says of this one.
    shown_waiting: f64,
}

/// Why a batch did not go through.
enum Failure {
    Statement(tokio_postgres::Error),
    Silence,
}

impl Writer {
    pub(super) fn new(lane: Lane, queue: flume::Receiver<Write>) -> Self {
        Self {
            lane,
            queue,
            pending: Pending::default(),
            untold: Vec::new(),
            shown_waiting: 0.0,
        }
    }

    /// Stores until the last handle is gone.
    pub(super) async fn run(mut self) {
        while !(self.queue.is_disconnected() && self.queue.is_empty() && self.pending.is_empty()) {
            let prepare = async |link: Link| {
                let append = link.client.prepare(APPEND).await?;
                Ok((link, append))
            };
            match self.lane.connect(prepare).await {
                Some((link, append)) => self.serve(&link, &append).await,
                None if self.lane.circuit.is_open() => self.refuse_waiting(),
                None => {}
            }
        }
    }

    fn refuse_waiting(&mut self) {
        let waiting = self.pending.drain().chain(self.queue.drain());
        for write in waiting {
            write
                .ticket
                .answer(Err(StoreError::Unavailable("the database is down".into())));
        }
    }

    /// Serves until the connection is of no use any more.
    async fn serve(&mut self, link: &Link, append: &Statement) {
        let mut probing = Timer::new(PROBE_EVERY);
        while self.gather(link, &mut probing).await {
            let batch = self.pending.next_batch(Instant::now());
            let mut parts = vec![batch];
            while let Some(part) = parts.pop() {
                match self.store(link, append, part).await {
                    Next::Done => {}
                    Next::Halves(first, second) => parts.extend([second, first]),
                    Next::Lost => {
                        let error = StoreError::Unavailable("the connection was lost".into());
                        for write in parts.into_iter().flatten() {
                            write.ticket.answer(Err(error.clone()));
                        }
                        return;
                    }
                }
            }
        }
    }

    /// Waits until something is to be sent. `false`: the connection has ended, or nobody can send.
    async fn gather(&mut self, link: &Link, probing: &mut Timer) -> bool {
        if link.is_lost() || (self.pending.is_empty() && self.queue.is_empty()) {
            self.tell();
        }
        if self.pending.is_empty() {
            let Some(first) = self.lane.next(&self.queue, link, probing).await else {
                return false;
            };
            self.pending.push(first);
        }
        while self.pending.len() < PENDING_MAX
            && let Ok(next) = self.queue.try_recv()
        {
            self.pending.push(next);
        }
        !link.is_lost()
    }

    /// Stores one batch, or a part of one, and answers it.
    async fn store(&mut self, link: &Link, append: &Statement, batch: Vec<Write>) -> Next {
        let (drafts, tickets): (Vec<_>, Waiting) = batch
            .into_iter()
            .map(|write| (write.draft, (write.ticket, write.loads)))
            .unzip();
        let columns = Columns::of(&drafts);
        self.show_queue();
        let begun = Instant::now();
        // What cannot be sent is answered without the database, and says nothing of it.
        let sent = if columns.is_empty() {
            self.tell();
            Ok(Vec::new())
        } else {
            let mut sending = pin!(send(link, append, &columns));
            let at_once = poll_once(&mut sending).await;
            self.tell();
            match at_once {
                Some(sent) => sent,
                None => sending.await,
            }
        };
        let rows = match sent {
            Ok(rows) => rows,
            Err(Failure::Silence) => {
                self.lane.gave_up(BATCH_WITHIN);
                self.answer_all(tickets, &StoreError::Timeout);
                return Next::Lost;
            }
            Err(Failure::Statement(error)) => return self.failed(&error, drafts, tickets),
        };
        if !rows.is_empty() {
            let figures = &self.lane.health.figures;
            figures.batches.increment(1);
            figures.batch_rows.record(count(drafts.len()));
            figures.commit_seconds.record(begun.elapsed());
            self.lane.succeeded();
            self.note_contended(&rows, &columns);
        }
        let answers = read(&rows, columns.ids.len());
        let settled = columns.into_places().settle(drafts, &answers);
        self.untold = tickets.into_iter().zip(settled).collect();
        Next::Done
    }

    /// Answers what the last batch has stored.
    fn tell(&mut self) {
        for ((ticket, _loads), answer) in self.untold.drain(..) {
            // Before the answer: whoever has it must not be shown a page without the message.
            if let Ok(stored) = &answer {
                self.lane.note(&stored.message.room, stored.message.seq);
            }
            ticket.answer(answer);
        }
    }

    /// Tells those who wait what is known after the statement has failed.
    fn failed(
        &mut self,
        error: &tokio_postgres::Error,
        drafts: Vec<Draft>,
        tickets: Waiting,
    ) -> Next {
        let outcome = outcome(error);
        if outcome == Outcome::RefusedForARow && tickets.len() > 1 {
            let write = |(draft, (ticket, loads))| Write {
                draft,
                ticket,
                loads,
            };
            let mut first: Vec<Write> = drafts.into_iter().zip(tickets).map(write).collect();
            let second = first.split_off(first.len() / 2);
            return Next::Halves(first, second);
        }
        let reason = cause(error);
        // A row that is to blame says nothing of the database.
        if outcome != Outcome::RefusedForARow {
            self.lane.refused(&reason);
        }
        let answer = match outcome {
            Outcome::Unknown => StoreError::Timeout,
            _ => StoreError::Unavailable(reason.into()),
        };
        self.answer_all(tickets, &answer);
        match outcome {
            Outcome::ReadOnly | Outcome::Unknown => Next::Lost,
            Outcome::Refused | Outcome::RefusedForARow => Next::Done,
        }
    }

    fn answer_all(&self, waiting: Waiting, error: &StoreError) {
        let figures = &self.lane.health.figures;
        figures.refused_failed.increment(waiting.len() as u64);
        for (ticket, _loads) in waiting {
            ticket.answer(Err(error.clone()));
        }
    }

    /// Corrects the sum of all writers' queues by what this one's has changed.
    fn show_queue(&mut self) {
        let waiting = count(self.queue.len() + self.pending.len());
        self.lane
            .health
            .figures
            .queue
            .increment(waiting - self.shown_waiting);
        self.shown_waiting = waiting;
    }

    fn note_contended(&mut self, rows: &[Row], columns: &Columns<'_>) {
        for row in rows {
            let place: i64 = row.get(0);
            if let Ok(nth) = usize::try_from(-place - 1)
                && let Some(room) = columns.names.get(nth)
            {
                tracing::debug!(
                    waited_ms = row.get::<_, i64>(1),
                    "a room's lock was waited for"
                );
                self.pending.contended((*room).into(), Instant::now());
            }
        }
    }
}

/// Who waits, with the shares of what may wait.
type Waiter = (Arc<Ticket<Stored>>, [Option<Load>; 2]);
type Waiting = Vec<Waiter>;

/// What is to be done after a part of a batch.
enum Next {
    Done,
    /// One row is to blame: each half is to be tried, the first one first.
    Halves(Vec<Write>, Vec<Write>),
    /// The connection is of no use any more.
    Lost,
}

async fn send(link: &Link, append: &Statement, columns: &Columns<'_>) -> Result<Vec<Row>, Failure> {
    let parameters: [&(dyn ToSql + Sync); 7] = [
        &columns.names,
        &columns.room_of,
        &columns.ids,
        &columns.senders,
        &columns.contents,
        &columns.times,
        &columns.keys,
    ];
    // The rows end with the server's ReadyForQuery, which comes after the commit.
    match within(BATCH_WITHIN, link.client.query(append, &parameters)).await {
        Some(Ok(rows)) => Ok(rows),
        Some(Err(error)) => Err(Failure::Statement(error)),
        None => Err(Failure::Silence),
    }
}

/// The answers in the order of the columns.
fn read(rows: &[Row], count: usize) -> Vec<Option<Answer>> {
    let mut answers = vec![None; count];
    for row in rows {
        let place: i64 = row.get(0);
        let Some(answer) = usize::try_from(place - 1)
            .ok()
            .and_then(|at| answers.get_mut(at))
        else {
            continue;
        };
        let known = row.get::<_, Option<uuid::Uuid>>(3);
        *answer = Some(Answer {
            seq: row.get::<_, i64>(1).cast_unsigned(),
            wall_ms: row.get::<_, i64>(2).cast_unsigned(),
            known: known.map(|id| (id, row.get::<_, &str>(4).into())),
        });
    }
    answers
}
