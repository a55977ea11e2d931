//! What the service manager is told, if there is one (`sd_notify`, as systemd speaks it).
//!
//! Without `NOTIFY_SOCKET` nothing happens here. Nobody waits: a datagram that the manager does not
//! take is logged, and the next one tells more.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How often the line for people is looked at.
const STATUS: Duration = Duration::from_secs(1);

/// The server serves; also after a reload.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The settings are being read again. [`ready`] says when that is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager is not told of the reload"),
    }
}

/// The server goes away.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Signs of life, as often as the manager wants them.
pub struct Pulse {
    /// Half of what the manager waits for; `None`: it does not.
    every: Option<Duration>,
    beat: Option<Instant>,
    looked: Option<Instant>,
    status: String,
}

impl Pulse {
    /// As the environment asks for it (`WATCHDOG_USEC`).
    #[must_use]
    pub fn new() -> Self {
        Self {
            every: sd_notify::watchdog_enabled().map(|wait| wait / 2),
            beat: None,
            looked: None,
            status: String::new(),
        }
    }

    /// How long the caller may sleep between two steps.
    #[must_use]
    pub fn longest_step(&self) -> Duration {
        self.every.map_or(Duration::MAX, |every| every / 2)
    }

    /// Says that every shard ticks, when it is time; and how the server is, when that has changed.
    pub fn step(&mut self, now: Instant, all_tick: bool, status: impl FnOnce() -> String) {
        let is_due = |last: Option<Instant>, every| {
            last.is_none_or(|last| now.saturating_duration_since(last) >= every)
        };
        if let Some(every) = self.every
            && all_tick
            && is_due(self.beat, every)
        {
            send(&[NotifyState::Watchdog]);
            self.beat = Some(now);
        }
        if is_due(self.looked, STATUS) {
            self.looked = Some(now);
            let status = status();
            if status != self.status {
                send(&[NotifyState::Status(&status)]);
                self.status = status;
            }
        }
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}
