//! What is measured: samples of latency, and the server's process as `/proc` shows it.

use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

use super::Faults;

/// CPU time of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// In its own code.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl Cpu {
    /// What was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }

    /// Both together, in seconds.
    #[must_use]
    pub fn seconds(self) -> f64 {
        (self.user + self.system).as_secs_f64()
    }
}

/// A process on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Process(u32);

impl Process {
    /// The process of this id.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// What all its threads have used.
    pub fn cpu(&self) -> io::Result<Cpu> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name in parentheses may hold spaces; the state follows it.
        let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut fields = rest.split(' ').skip(11).map(str::parse::<u64>);
        let (Some(Ok(user)), Some(Ok(system))) = (fields.next(), fields.next()) else {
            return Err(io::Error::other("/proc/PID/stat has another form"));
        };
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let time = |count| Duration::from_millis(count * 1000 / ticks);
        Ok(Cpu {
            user: time(user),
            system: time(system),
        })
    }

    /// Its proportional share of memory (PSS), in bytes.
    pub fn memory(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        let kib = kib.ok_or_else(|| io::Error::other("smaps_rollup has no Pss"))?;
        Ok(kib * 1024)
    }
}

/// Latencies in microseconds, every one of them.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<u32>);

impl Samples {
    /// Notes one.
    pub fn push(&mut self, latency: Duration) {
        self.0
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// The value in milliseconds that this share of the samples does not exceed.
    #[must_use]
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a length is a place in it"
        )]
        let place = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
        if sorted.is_empty() {
            return None;
        }
        let (_, value, _) = sorted.select_nth_unstable(place);
        Some(f64::from(*value) / 1000.0)
    }
}

/// What came of a scenario.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Length of the measured period.
    pub seconds: f64,
    /// What was done in it: deliveries, handshakes, requests, cycles, connections.
    pub units: u64,
    /// Messages sent in it.
    pub messages: u64,
    /// CPU of the server in it.
    pub cpu: Option<Cpu>,
    /// Memory that the server took for it.
    pub memory_bytes: Option<i64>,
    /// What went wrong.
    pub faults: Faults,
    /// Latencies.
    #[serde(skip)]
    pub samples: Samples,
}

impl Report {
    /// CPU of one unit, in microseconds.
    #[must_use]
    pub fn cpu_us_per_unit(&self) -> Option<f64> {
        Some(self.cpu?.seconds() * 1e6 / float(self.units))
    }

    /// Units a second.
    #[must_use]
    pub fn units_per_second(&self) -> f64 {
        float(self.units) / self.seconds
    }

    /// Memory of one unit, in bytes.
    #[must_use]
    pub fn memory_per_unit(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "memory is below 2^52 bytes")]
        let bytes = self.memory_bytes? as f64;
        Some(bytes / float(self.units))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are below 2^52"
)]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_raw_samples() {
        let mut samples = Samples::default();
        (1..=50).for_each(|ms| samples.push(Duration::from_millis(ms)));
        let mut more = Samples::default();
        (51..=100).for_each(|ms| more.push(Duration::from_millis(ms)));
        samples.merge(&more);
        assert_eq!(samples.quantile_ms(0.5), Some(50.0));
        assert_eq!(samples.quantile_ms(0.99), Some(99.0));
        assert_eq!(Samples::default().quantile_ms(0.5), None);
    }

    #[test]
    fn a_process_has_memory_and_time() {
        let own = Process::new(std::process::id());
        assert!(own.memory().unwrap() > 100_000);
        own.cpu().unwrap();
    }
}
