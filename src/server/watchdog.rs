//! Sees from outside when a shard stands still.
//!
//! A shard that has not ticked for 2 s is reported; after 10 s the process ends, so that whoever
//! runs it starts a new one: a server missing one shard is worse than one restarting. The time is
//! counted in the watchdog's own steps, so a process that was stopped as a whole is no stall. While all
//! shards tick, and only then, the service manager gets its signs of life.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::notify::Pulse;
use super::status::Status;
use crate::metrics::{SHARD_STALLED, SHARD_STALLS};

/// A tick older than this is reported.
pub const STALL: Duration = Duration::from_secs(2);
/// A tick older than this ends the process.
pub const STALL_MAX: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(250);

/// Starts the watchdog's thread. `give_up` is called when a shard has stood still for too long.
pub fn start(status: Arc<Status>, give_up: impl Fn(usize) + Send + 'static) -> std::io::Result<()> {
    for shard in 0..status.shards() {
        // So that both are there to be watched before anything has happened.
        let label = shard.to_string();
        metrics::gauge!(SHARD_STALLED, "shard" => label.clone()).set(0);
        metrics::counter!(SHARD_STALLS, "shard" => label).increment(0);
    }
    let name = "watchdog".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        let mut watch = vec![Watched::default(); status.shards()];
        let mut pulse = Pulse::new();
        let mut started = false;
        let pause = STEP.min(pulse.longest_step());
        let mut before = Instant::now();
        loop {
            std::thread::sleep(pause);
            let now = Instant::now();
            let step = now.duration_since(before).min(pause * 2);
            before = now;
            started |= status.is_started();
            let mut all_tick = started;
            for (shard, watched) in watch.iter_mut().enumerate() {
                let age = watched.step(status.last_tick(shard), step);
                report(&status, shard, age);
                all_tick &= age < STALL;
                if age >= STALL_MAX {
                    give_up(shard);
                }
            }
            pulse.step(now, all_tick, || status.summary());
        }
    })?;
    Ok(())
}

fn report(status: &Status, shard: usize, age: Duration) {
    let stalled = age >= STALL;
    if !status.set_stalled(shard, stalled) {
        return;
    }
    let label = shard.to_string();
    metrics::gauge!(SHARD_STALLED, "shard" => label.clone()).set(f64::from(u8::from(stalled)));
    if stalled {
        metrics::counter!(SHARD_STALLS, "shard" => label).increment(1);
        tracing::error!(shard, "the shard has not ticked for 2 s");
    } else {
        tracing::warn!(shard, "the shard ticks again");
    }
}

#[derive(Debug, Clone, Default)]
struct Watched {
    tick: u64,
    age: Duration,
}

impl Watched {
    fn step(&mut self, tick: u64, step: Duration) -> Duration {
        // A shard that has not begun is waited for by whoever starts it.
        if tick != self.tick || tick == 0 {
            self.age = Duration::ZERO;
        } else {
            self.age += step;
        }
        self.tick = tick;
        self.age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tick_that_does_not_change_ages() {
        let mut watched = Watched::default();
        let step = Duration::from_secs(1);
        assert_eq!(watched.step(0, step), Duration::ZERO);
        assert_eq!(watched.step(5, step), Duration::ZERO);
        assert_eq!(watched.step(5, step), step);
        assert_eq!(watched.step(5, step), STALL);
        assert_eq!(watched.step(6, step), Duration::ZERO);
    }
}
