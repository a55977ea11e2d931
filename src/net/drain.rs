//! The orderly end of a shard: sessions leave in waves, and nothing that was begun is cut off.

use std::time::{Duration, Instant};

use super::Shard;
use crate::engine::{CloseReason, Key};

/// Sessions that are closed in one second, if there is time enough.
const SESSIONS_PER_SECOND: f64 = 200.0;
/// Of the drain's time, what is kept for all that comes after the last wave.
const RESERVED: Duration = Duration::from_secs(2);
/// Of that, what is left for the end of the process: the last answers of the store, the farewell to
/// other servers, and closing ten thousand connections. A quarter at most of a short drain.
const FOR_THE_END: Duration = Duration::from_secs(1);
/// How long a polling client may take to fetch its close packet after the last wave.
const FETCH: Duration = Duration::from_secs(1);

/// A drain in progress.
pub(super) struct Drain {
    begin: Instant,
    /// What is not over by then is cut off, whoever does not answer.
    end: Instant,
    /// How long the waves take in all.
    waves: Duration,
    /// Mount and key of the sessions that are to leave, in random order.
    sessions: Vec<(usize, Key)>,
    /// How many of them have had their turn.
    begun: usize,
    /// Those whose turn it is and whose handler still runs.
    busy: Vec<(usize, Key)>,
}

impl Drain {
    /// No new sessions are let in any more; those that are open leave one after the other.
    pub(super) fn new(shard: &Shard, now: Instant) -> Self {
        let mounts = shard.site.mounts.iter().enumerate();
        let mut sessions: Vec<(usize, Key)> = mounts
            .flat_map(|(number, mount)| {
                mount
                    .engine
                    .keys()
                    .into_iter()
                    .map(move |key| (number, key))
            })
            .collect();
        // Shuffled, so that clients that came together do not come back together elsewhere.
        for last in (1..sessions.len()).rev() {
            let mut random = [0; 8];
            shard.env.fill(&mut random);
            let pick = u64::from_le_bytes(random) % (last as u64 + 1);
            sessions.swap(last, usize::try_from(pick).expect("below a length"));
        }
        let options = &shard.options;
        #[expect(clippy::cast_precision_loss, reason = "a number of sessions")]
        let wanted = Duration::from_secs_f64(sessions.len() as f64 / SESSIONS_PER_SECOND);
        Self {
            begin: now,
            end: now
                + options
                    .drain
                    .saturating_sub(FOR_THE_END.min(options.drain / 4)),
            waves: wanted.min(options.drain.saturating_sub(RESERVED)),
            sessions,
            begun: 0,
            busy: Vec::new(),
        }
    }

    /// When the shard's connections end at the latest.
    pub(super) fn end(&self) -> Instant {
        self.end
    }

    /// Closes the sessions whose turn it is. Returns whether the shard may end.
    pub(super) fn tick(&mut self, shard: &Shard, now: Instant) -> bool {
        let due = share(self.sessions.len(), now - self.begin, self.waves);
        self.busy.extend(&self.sessions[self.begun..due]);
        self.begun = due;
        self.busy.retain(|&(mount, key)| {
            let engine = &shard.site.mounts[mount].engine;
            let may_leave = engine.drain(key);
            if may_leave {
                engine.close(key, CloseReason::ServerShuttingDown);
            }
            !may_leave
        });
        let all_told = self.begun == self.sessions.len() && self.busy.is_empty();
        let fetched = now >= self.begin + self.waves + FETCH;
        let quiet = shard.busy.get() == 0 && shard.handoffs.is_empty();
        now >= self.end || (all_told && quiet && (fetched || self.sessions.is_empty()))
    }
}

/// How many of `all` have had their turn.
fn share(all: usize, elapsed: Duration, total: Duration) -> usize {
    if elapsed >= total {
        return all;
    }
    let part = elapsed.as_micros() * all as u128 / total.as_micros();
    usize::try_from(part).map_or(all, |part| part.min(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_leave_evenly_over_the_time_there_is() {
        let second = Duration::from_secs(1);
        assert_eq!(share(200, Duration::ZERO, second), 0);
        assert_eq!(share(200, second / 2, second), 100);
        assert_eq!(share(200, second, second), 200);
        assert_eq!(share(3, second, Duration::ZERO), 3);
        assert_eq!(share(0, Duration::ZERO, Duration::ZERO), 0);
    }
}
