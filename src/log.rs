//! Log lines: JSON with the names of the Elastic Common Schema, or a form for people.
//!
//! A shard only formats a line and hands it to a bounded queue; a thread of its own writes it. When
//! the queue is full the line is dropped and counted: a full disk or a slow reader of the log must
//! not stop a message. Nobody logs tokens, secrets or what people write to each other.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::{LookupSpan, Scope};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;
use crate::metrics::LOG_LINES_DROPPED;

/// Lines that wait to be written.
const LINES_MAX: usize = 8192;
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
}

impl Guard {
    /// Waits until what was logged so far is written, at most a second.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Starts the log on standard error. From then on a panic is logged and ends the process.
#[must_use]
pub fn start(level: &str, format: Option<LogFormat>) -> Guard {
    let filter: Targets = level.parse().unwrap_or_default();
    let terminal = io::stderr().is_terminal();
    let pretty = match format {
        Some(format) => format == LogFormat::Pretty,
        None => terminal,
    };
    let (queue, lines) = sync_channel(LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let writer = MakeLine {
        queue: queue.clone(),
        dropped: dropped.clone(),
    };
    // Without its thread the log would be silent; the server itself can go on.
    let _ = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&lines, &dropped));
    let base = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(|event| {
            is_loggable(event.target(), *event.level())
        }));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    // A second start (in tests) keeps the first.
    let _ = if pretty {
        base.with(layer.with_ansi(terminal).with_target(true))
            .try_init()
    } else {
        let fields = tracing_subscriber::fmt::format::JsonFields::new();
        base.with(layer.fmt_fields(fields).event_format(Ecs))
            .try_init()
    };
    let guard = Guard { queue };
    log_panics(guard.clone());
    guard
}

/// Whether lines of a module may be logged at all. Libraries show what passes through them, tokens,
/// messages and statements' parameters, from `debug` on.
fn is_loggable(target: &str, level: Level) -> bool {
    level <= Level::INFO || target.starts_with(env!("CARGO_CRATE_NAME"))
}

fn log_panics(guard: Guard) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        let text = panic.payload_as_str().unwrap_or("no text");
        tracing::error!(place, panic = text, "a thread panicked");
        guard.flush();
        // A server missing a thread is worse than one restarting.
        std::process::exit(1);
    }));
}

fn write_lines(lines: &Receiver<Item>, dropped: &AtomicU64) {
    let mut told = 0;
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(Item::Line(line)) => {
                let _ = io::stderr().write_all(&line);
            }
            Ok(Item::Flush(done)) => {
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = dropped.load(Ordering::Relaxed);
        if now != told {
            metrics::counter!(LOG_LINES_DROPPED).absolute(now);
            told = now;
        }
    }
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

/// One JSON object a line, in the names of the Elastic Common Schema.
struct Ecs;

impl<S, N> FormatEvent<S, N> for Ecs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Map::new();
        // Outer spans first, so that what is nearer to the event wins.
        for span in ctx.event_scope().into_iter().flat_map(Scope::from_root) {
            if let Some(formatted) = span.extensions().get::<FormattedFields<N>>()
                && let Ok(Value::Object(more)) = serde_json::from_str(&formatted.fields)
            {
                fields.extend(more);
            }
        }
        event.record(&mut Collect(&mut fields));
        let line = ecs_line(
            OffsetDateTime::now_utc(),
            *event.metadata().level(),
            event.metadata().target(),
            std::thread::current().name(),
            fields,
        );
        writeln!(writer, "{line}")
    }
}

fn ecs_line(
    at: OffsetDateTime,
    level: tracing::Level,
    logger: &str,
    thread: Option<&str>,
    mut fields: Map<String, Value>,
) -> Value {
    let mut line = Map::new();
    let at = at.format(&Rfc3339).unwrap_or_default();
    line.insert("@timestamp".to_owned(), at.into());
    let level = level.as_str().to_ascii_lowercase();
    line.insert("log.level".to_owned(), level.into());
    let message = fields.remove("message").unwrap_or(Value::from(""));
    line.insert("message".to_owned(), message);
    line.insert("ecs.version".to_owned(), "8.11.0".into());
    line.insert("service.name".to_owned(), "project-yum".into());
    line.insert("log.logger".to_owned(), logger.into());
    if let Some(thread) = thread {
        line.insert("process.thread.name".to_owned(), thread.into());
    }
    if !fields.is_empty() {
        // What ECS has no name for belongs under `labels`.
        line.insert("labels".to_owned(), Value::Object(fields));
    }
    Value::Object(line)
}

struct Collect<'a>(&'a mut Map<String, Value>);

impl Collect<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Collect<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
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
    fn a_line_is_one_json_object_whatever_is_in_it() {
        let mut fields = Map::new();
        fields.insert("message".to_owned(), "two\nlines \"quoted\"".into());
        fields.insert("shard".to_owned(), 3.into());
        let at = OffsetDateTime::UNIX_EPOCH;
        let line = ecs_line(at, tracing::Level::WARN, "project_yum::net", None, fields);
        let text = line.to_string();
        assert!(!text.contains('\n'));
        assert_eq!(line["@timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(line["log.level"], "warn");
        assert_eq!(line["message"], "two\nlines \"quoted\"");
        assert_eq!(line["labels"]["shard"], 3);
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
