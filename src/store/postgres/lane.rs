//! What a writer and a reader have in common: a connection that is made again whenever it is lost,
//! and a circuit that is open while that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_lite::future::or;
use glommio::timer::Timer;
use tokio_postgres::Error;

use super::link::{Link, LinkError, Needs};
use super::seen::Seen;
use super::target::{Target, cause};
use crate::dial::backoff::Backoff;
use crate::dial::within;
use crate::store::health::Health;
use crate::store::request::Place;

/// How often a connection is asked whether it still is one. A silent one is found out by this, and
/// not by the first who needs it.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long it has to answer that.
const PROBE_WITHIN: Duration = Duration::from_millis(1_500);
/// How long a new one may take until its statements are prepared.
const PREPARE_WITHIN: Duration = Duration::from_secs(2);

/// The part of a lane that every thread may look at.
#[derive(Debug, Default)]
pub(super) struct Circuit(AtomicBool);

impl Circuit {
    /// Whether requests are to be refused at once.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One connection's keeper.
pub(super) struct Lane {
    pub(super) target: Arc<Target>,
    pub(super) needs: Needs,
    /// Its name in `/health`.
    pub(super) part: &'static str,
    pub(super) health: Arc<Health>,
    pub(super) circuit: Arc<Circuit>,
    pub(super) backoff: Backoff,
    /// What a replica must hold; none without replicas.
    pub(super) seen: Option<Arc<Seen>>,
}

impl Lane {
    /// A lane without a connection yet, and the circuit that it shows to others.
    pub(super) fn new(
        target: &Arc<Target>,
        needs: Needs,
        part: &'static str,
        health: &Arc<Health>,
        seen: Option<Arc<Seen>>,
    ) -> (Self, Arc<Circuit>) {
        let circuit = Arc::<Circuit>::default();
        let lane = Self {
            target: target.clone(),
            needs,
            part,
            health: health.clone(),
            circuit: circuit.clone(),
            backoff: Backoff::default(),
            seen,
        };
        (lane, circuit)
    }

    /// A connection on which all is prepared. `None`, after a while: there is none.
    pub(super) async fn connect<T>(
        &mut self,
        prepare: impl AsyncFnOnce(Link) -> Result<T, Error>,
    ) -> Option<T> {
        match self.open(prepare).await {
            Ok(prepared) => {
                self.health.figures.reconnects.increment(1);
                self.succeeded();
                Some(prepared)
            }
            Err(error) => {
                self.failed_to_connect(&error).await;
                None
            }
        }
    }

    /// Connects, and prepares what is to be asked. A server that lets us in and then does not answer, or
    /// that lacks the tables, is as good as none.
    pub(super) async fn open<T>(
        &self,
        prepare: impl AsyncFnOnce(Link) -> Result<T, Error>,
    ) -> Result<T, LinkError> {
        let link = Link::open(&self.target, self.needs).await?;
        let place = self.target.to_string();
        match within(PREPARE_WITHIN, prepare(link)).await {
            Some(Ok(prepared)) => Ok(prepared),
            Some(Err(error)) => Err(LinkError::Refused {
                place,
                cause: cause(&error),
            }),
            None => Err(LinkError::Unreachable {
                place,
                cause: "no answer in time".to_owned(),
            }),
        }
    }

    /// Notes that there is no connection, and waits as long as is good before the next try.
    pub(super) async fn failed_to_connect(&mut self, error: &LinkError) {
        self.health.failed(self.part, &error.to_string());
        let wait = self.backoff.failed(chance());
        self.show_circuit();
        glommio::timer::sleep(wait).await;
    }

    /// The next of a queue. `None`: the connection has ended, or nobody can ask any more.
    pub(super) async fn next<T>(
        &mut self,
        queue: &flume::Receiver<T>,
        link: &Link,
        probing: &mut Timer,
    ) -> Option<T> {
        loop {
            let next = async { Wake::Next(queue.recv_async().await.ok()) };
            let lost = async {
                link.lost().await;
                Wake::Next(None)
            };
            let probe = async {
                (&mut *probing).await;
                Wake::Probe
            };
            match or(next, or(lost, probe)).await {
                Wake::Next(next) => return next,
                Wake::Probe => {
                    if !self.probe(link).await {
                        return None;
                    }
                    *probing = Timer::new(PROBE_EVERY);
                }
            }
        }
    }

    /// Asks the connection whether it still is one. `false`: it is of no use any more.
    async fn probe(&mut self, link: &Link) -> bool {
        match within(PROBE_WITHIN, link.client.check_connection()).await {
            Some(Ok(())) => true,
            Some(Err(_)) => false,
            None => {
                self.gave_up(PROBE_WITHIN);
                false
            }
        }
    }

    /// Notes that the database did what it was asked.
    pub(super) fn succeeded(&mut self) {
        self.health.succeeded(self.part);
        self.backoff.succeeded();
        self.show_circuit();
    }

    /// Notes that it refused.
    pub(super) fn refused(&self, reason: &str) {
        self.health.failed(self.part, reason);
    }

    /// Notes that it was silent for so long that waiting for it again is of no use.
    pub(super) fn gave_up(&mut self, silence: Duration) {
        self.health
            .failed(self.part, &format!("no answer within {silence:?}"));
        self.backoff.gave_up();
        self.show_circuit();
    }

    /// Notes that a message of the room was seen.
    pub(super) fn note(&self, room: &str, seq: u64) {
        if let Some(seen) = &self.seen {
            seen.note(room, seq);
        }
    }

    /// Notes the newest message of a page.
    pub(super) fn note_newest(&self, place: &Place, newest: Option<u64>) {
        if let Some(newest) = newest {
            self.note(&place.room, newest);
        }
    }

    /// The newest number that was seen in a room; `None`: not known.
    pub(super) fn newest_seen(&self, room: &str) -> Option<u64> {
        self.seen.as_ref()?.newest(room)
    }

    fn show_circuit(&self) {
        let open = self.backoff.is_open();
        if self.circuit.is_open() != open {
            self.circuit.0.store(open, Ordering::Relaxed);
            let change = if open { 1.0 } else { -1.0 };
            self.health.figures.circuits_open.increment(change);
        }
    }
}

/// What ends the wait of a lane.
enum Wake<T> {
    Next(Option<T>),
    Probe,
}

fn chance() -> u8 {
    let mut byte = [0];
    // Without randomness the servers come back in step, which is no reason to stop.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
