//! Rereads the settings on SIGHUP, and the file of public keys whenever it changes.
//!
//! A thread of its own does it, so that neither a shard nor the end of the process waits for a file.
//! What may change is given to the shards ([`live`](super::live)); what needs a restart is named, and
//! settings that are wrong change nothing. Values are never logged.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::live::{Current, Live};
use crate::commands::auth_options;
use crate::config::{Config, JwksFile, files, jwks_file};
use crate::log;
use crate::metrics::RELOADS;

/// How often the file of public keys is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Reads all sources of the settings anew; the error says what is wrong with them.
pub type Source = Box<dyn Fn() -> Result<Config, String> + Send>;

/// Where a reload is, for whoever supervises the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// SIGHUP has come.
    Begun,
    /// What was to change has changed, or nothing has.
    Done,
}

/// See [`Reloader::on_phase`].
pub type OnPhase = Box<dyn Fn(Phase) + Send>;

/// What a reload works with.
pub struct Reloader {
    /// Where settings come from.
    pub source: Source,
    /// The settings that hold.
    pub config: Config,
    /// What the shards go by.
    pub current: Arc<Current>,
    /// Whose level may change.
    pub log: log::Guard,
    /// Called at the begin and at the end of each reload that SIGHUP asked for.
    pub on_phase: OnPhase,
}

/// Starts the thread. What is sent asks it to reread the settings; one request waits at most.
pub fn start(mut reloader: Reloader) -> io::Result<SyncSender<()>> {
    let (ask, asked) = sync_channel(1);
    for outcome in ["done", "refused"] {
        metrics::counter!(RELOADS, "outcome" => outcome).increment(0);
    }
    if let Some(file) = &reloader.config.jwt_jwks {
        warn_of_keys(file);
    }
    let name = "reload".to_owned();
    std::thread::Builder::new()
        .name(name)
        .spawn(move || reloader.run(&asked))?;
    Ok(ask)
}

/// By what a file is known to be another than before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    /// Device, inode, size, and when it was changed; `None`: it is not there.
    state: Option<(u64, u64, u64, i64, i64)>,
}

impl Stamp {
    fn of(path: &Path) -> Self {
        let state = std::fs::metadata(path).ok().map(|file| {
            let (seconds, nanoseconds) = (file.mtime(), file.mtime_nsec());
            (file.dev(), file.ino(), file.size(), seconds, nanoseconds)
        });
        let path = path.to_owned();
        Self { path, state }
    }
}

impl Reloader {
    fn run(&mut self, asked: &Receiver<()>) {
        let mut stamp = self.stamp();
        loop {
            match asked.recv_timeout(LOOK) {
                Ok(()) => {
                    (self.on_phase)(Phase::Begun);
                    // Before it is read: what changes meanwhile is seen the next time.
                    stamp = self.stamp();
                    count(self.reload());
                    (self.on_phase)(Phase::Done);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.stamp();
                    if now != stamp {
                        stamp = now;
                        count(self.reread_keys());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let file = self.config.jwt_jwks.as_ref()?;
        Some(Stamp::of(&file.path))
    }

    /// Rereads all settings. Whether they are right.
    fn reload(&mut self) -> bool {
        let new = match (self.source)() {
            Ok(new) => new,
            Err(problems) => {
                tracing::error!(problems, "the settings are wrong: the old ones stay");
                return false;
            }
        };
        let mut config = self.config.clone();
        let found = config.take_over(new);
        if !self.apply(config) {
            return false;
        }
        let changed = found.taken.join(", ");
        let waiting = found.waiting.join(", ");
        if changed.is_empty() {
            tracing::info!("the settings were reread: nothing has changed");
        } else {
            tracing::info!(changed, "the settings were reread");
        }
        if !waiting.is_empty() {
            tracing::warn!(
                settings = waiting,
                "these settings need a restart to change"
            );
        }
        if found.taken.contains(&"JWT_JWKS_FILE")
            && let Some(file) = &self.config.jwt_jwks
        {
            warn_of_keys(file);
        }
        true
    }

    /// Rereads the public keys. Whether they are good.
    fn reread_keys(&mut self) -> bool {
        let Some(old) = &self.config.jwt_jwks else {
            return true;
        };
        let file = match jwks_file(&old.path, &files::read) {
            Ok(file) => file,
            Err(problem) => {
                tracing::error!(problem, "JWT_JWKS_FILE is wrong: the old keys stay");
                return false;
            }
        };
        if file.is_same(old) {
            return true;
        }
        warn_of_keys(&file);
        let keys = file.set.keys.len();
        let mut config = self.config.clone();
        config.jwt_jwks = Some(file);
        let is_applied = self.apply(config);
        if is_applied {
            tracing::info!(keys, "JWT_JWKS_FILE has changed: its keys hold");
        }
        is_applied
    }

    /// Gives the shards what these settings say.
    fn apply(&mut self, config: Config) -> bool {
        let auth = match auth_options(&config) {
            Ok(auth) => auth,
            Err(error) => {
                tracing::error!(%error, "the demo's key cannot be read: the old settings stay");
                return false;
            }
        };
        self.current.replace(Live::new(&config, &auth));
        if config.log_level != self.config.log_level && !self.log.set_level(&config.log_level) {
            tracing::error!("LOG_LEVEL cannot be changed");
        }
        self.config = config;
        true
    }
}

fn count(is_done: bool) {
    let outcome = if is_done { "done" } else { "refused" };
    metrics::counter!(RELOADS, "outcome" => outcome).increment(1);
}

/// Names the keys of the file that are of no use.
fn warn_of_keys(file: &JwksFile) {
    for warning in &file.set.warnings {
        tracing::warn!(warning, "JWT_JWKS_FILE");
    }
}
