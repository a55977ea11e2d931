//! Log lines: JSON with the names of the Elastic Common Schema, or a form for people.
//!
//! A shard only formats a line and hands it to a bounded queue; a thread of its own writes it. When
//! the queue is full the line is dropped and counted: a full disk or a slow reader of the log must
//! not stop a message. A place that repeats itself is cut short ([`repetition`]). Nobody logs tokens, secrets or what people write to each other.

mod ecs;
mod repetition;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};
use uuid::Uuid;

use crate::config::LogFormat;
use crate::metrics::{LOG_LINES_DROPPED, LOG_LINES_REPEATED};
use crate::report::{Reporter, without_quotes};
use repetition::{Filtered, LeftOut, Repetition};

/// Lines that wait to be written.
const LINES_MAX: usize = 8192;
/// How often the writer looks at what was dropped or left out.
const LOOK: Duration = Duration::from_secs(1);
/// How long [`Guard::flush`] waits for the writer.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Keeps the log going; writes what waits when it is dropped.
#[derive(Clone)]
pub struct Guard {
    queue: SyncSender<Item>,
    level: reload::Handle<Targets, Registry>,
}

impl Guard {
    /// Waits until what was logged so far is written, at most a second.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    /// Logs from now on what `level` says, as [`start`] takes it. Returns whether it could be done.
    #[must_use]
    pub fn set_level(&self, level: &str) -> bool {
        level
            .parse()
            .is_ok_and(|targets: Targets| self.level.reload(targets).is_ok())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Starts the log on standard error. From then on a panic is logged, reported and ends the process.
#[must_use]
pub fn start(level: &str, format: Option<LogFormat>, reporter: Option<Reporter>) -> Guard {
    let terminal = io::stderr().is_terminal();
    let is_pretty = match format {
        Some(format) => format == LogFormat::Pretty,
        None => terminal,
    };
    let (queue, lines) = sync_channel(LINES_MAX);
    let repetition = Arc::new(Repetition::default());
    let out = Output {
        dropped: Arc::default(),
        repetition: repetition.clone(),
        is_pretty,
    };
    let writer = MakeLine {
        queue: queue.clone(),
        dropped: out.dropped.clone(),
    };
    // Without its thread the log would be silent; the server itself can go on.
    let _ = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&lines, &out));
    let (targets, level) = reload::Layer::new(level.parse::<Targets>().unwrap_or_default());
    let filter = targets
        .and(filter_fn(|event| {
            is_loggable(event.target(), *event.level())
        }))
        .and(Filtered(repetition));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if is_pretty {
        layer.with_ansi(terminal).with_target(true).boxed()
    } else {
        let fields = tracing_subscriber::fmt::format::JsonFields::new();
        layer.fmt_fields(fields).event_format(ecs::Ecs).boxed()
    };
    // A bug is reported whatever is logged. A second start (in tests) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .with(reporter.clone().with_filter(LevelFilter::ERROR))
        .try_init();
    let guard = Guard { queue, level };
    log_panics(guard.clone(), reporter);
    guard
}

/// Whether lines of a module may be logged at all. Libraries show what passes through them, tokens,
/// messages and statements' parameters, from `debug` on.
fn is_loggable(target: &str, level: Level) -> bool {
    level <= Level::INFO || target.starts_with(env!("CARGO_CRATE_NAME"))
}

fn log_panics(guard: Guard, reporter: Option<Reporter>) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        let text = without_quotes(panic.payload_as_str().unwrap_or("no text"));
        let id = Uuid::now_v7().simple().to_string();
        tracing::error!(error.id = id, place, panic = text, "a thread panicked");
        if let Some(reporter) = &reporter {
            reporter.panicked(&id, &text, place.as_deref());
            reporter.flush();
        }
        guard.flush();
        // A server missing a thread is worse than one restarting.
        std::process::exit(1);
    }));
}

/// What the thread that writes knows.
struct Output {
    dropped: Arc<AtomicU64>,
    repetition: Arc<Repetition>,
    is_pretty: bool,
}

fn write_lines(lines: &Receiver<Item>, out: &Output) {
    let dropped = metrics::counter!(LOG_LINES_DROPPED);
    let repeated = metrics::counter!(LOG_LINES_REPEATED);
    let mut looked = Instant::now();
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(Item::Line(line)) => {
                let _ = io::stderr().write_all(&line);
            }
            Ok(Item::Flush(done)) => {
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        if now.saturating_duration_since(looked) < LOOK {
            continue;
        }
        looked = now;
        dropped.absolute(out.dropped.load(Ordering::Relaxed));
        repeated.absolute(out.repetition.total());
        for left_out in out.repetition.take(now) {
            let _ = io::stderr().write_all(told(&left_out, out.is_pretty).as_bytes());
        }
    }
}

/// The line that stands for those left out.
fn told(left_out: &LeftOut, is_pretty: bool) -> String {
    let LeftOut {
        target,
        place,
        count,
    } = left_out;
    let at = OffsetDateTime::now_utc();
    if is_pretty {
        let at = at.format(&Rfc3339).unwrap_or_default();
        return format!("{at}  WARN {target}: {count} lines of {place} were left out\n");
    }
    let fields = [
        (
            "message",
            Value::from("lines were left out: the same place had logged often"),
        ),
        ("count", Value::from(*count)),
        ("place", Value::from(place.as_str())),
    ];
    let fields: Map<_, _> = fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
    let thread = std::thread::current();
    format!(
        "{}\n",
        ecs::line(at, Level::WARN, target, thread.name(), fields)
    )
}

#[derive(Clone)]
struct MakeLine {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for MakeLine {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Takes one event's line: the formatting layer writes each in one piece.
struct Line<'a>(&'a MakeLine);

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.queue.try_send(Item::Line(bytes.to_vec())).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_never_show_what_passes_through_them() {
        assert!(is_loggable("project_yum::net", Level::TRACE));
        assert!(is_loggable("tungstenite::protocol", Level::WARN));
        assert!(!is_loggable("tungstenite::protocol", Level::TRACE));
        assert!(!is_loggable("tokio_postgres::query", Level::DEBUG));
    }

    #[test]
    fn what_was_left_out_is_told_in_the_form_of_the_log() {
        let left_out = LeftOut {
            target: "project_yum::chat",
            place: "src/chat/mod.rs:7".to_owned(),
            count: 4,
        };
        let json: Value = serde_json::from_str(&told(&left_out, false)).expect("JSON");
        assert_eq!(json["log.logger"], "project_yum::chat");
        assert_eq!(json["labels"]["count"], 4);
        let pretty = told(&left_out, true);
        assert!(
            pretty.ends_with("4 lines of src/chat/mod.rs:7 were left out\n"),
            "{pretty}"
        );
    }

    #[test]
    fn a_full_queue_drops_and_counts_instead_of_waiting() {
        let (queue, _lines) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let make = MakeLine {
            queue,
            dropped: dropped.clone(),
        };
        for _ in 0..3 {
            make.make_writer()
                .write_all(b"line\n")
                .expect("never fails");
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }
}
