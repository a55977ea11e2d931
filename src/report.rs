//! Errors that are bugs, told to Sentry: panics, and what is refused as `internal`.
//!
//! A report is put into a bounded queue, and a thread of its own sends it; a shard never waits for
//! it. Only a panic, after which nothing goes on, waits a moment for its report to leave. A report
//! has the id that the log's line and the client's message carry, and nothing of what people write:
//! the event's class, its place, the release, the environment and the shard.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use sentry::integrations::backtrace::{ProcessStacktraceIntegration, current_stacktrace};
use sentry::integrations::contexts::ContextIntegration;
use sentry::protocol::{Event, Exception, Level, Values};
use sentry::types::{Dsn, Uuid};
use sentry::{Client, ClientOptions, Envelope, Transport, TransportFactory, TransportOptions};
use tracing::field::{Field, Visit};
use tracing::{Level as Severity, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::metrics::REPORTS;

/// Reports that wait to be sent; more are dropped and counted.
const REPORTS_MAX: usize = 32;
/// How long sending one report may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of a process waits for its reports.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The field of a log event that makes it a report.
pub const ID_FIELD: &str = "error.id";

enum Item {
    Report(Box<Event<'static>>),
    Flush(SyncSender<()>),
}

/// Where reports go. A clone goes to the same place.
#[derive(Clone)]
pub struct Reporter {
    queue: SyncSender<Item>,
}

impl Reporter {
    /// Starts the thread that sends.
    pub fn start(dsn: &Dsn, environment: &str) -> std::io::Result<Self> {
        let (queue, items) = sync_channel(REPORTS_MAX);
        let mut options = ClientOptions::default();
        options.dsn = Some(dsn.clone());
        options.release = Some(concat!("project-yum@", env!("CARGO_PKG_VERSION")).into());
        options.environment = Some(Cow::Owned(environment.to_owned()));
        options.default_integrations = false;
        options.integrations = vec![
            Arc::new(ContextIntegration::new()),
            Arc::new(ProcessStacktraceIntegration::new()),
        ];
        options.in_app_include = vec![env!("CARGO_CRATE_NAME")];
        options.transport = Some(Arc::new(Factory));
        std::thread::Builder::new()
            .name("reports".to_owned())
            .spawn(move || send_all(&items, &Client::with_options(options)))?;
        Ok(Self { queue })
    }

    /// Tells of a panic of this thread.
    pub fn panicked(&self, id: &str, text: &str, place: Option<&str>) {
        let mut event = event(id, "panic", Level::Fatal, text, place);
        if let Some(exception) = event.exception.values.first_mut() {
            exception.stacktrace = current_stacktrace();
        }
        self.put(event);
    }

    /// Waits until what was put so far is sent, at most [`FLUSH_TIMEOUT`].
    pub fn flush(&self) {
        let (done, sent) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = sent.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    fn put(&self, event: Event<'static>) {
        if self.queue.try_send(Item::Report(Box::new(event))).is_err() {
            count("dropped");
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!(REPORTS, "outcome" => outcome).increment(1);
}

fn event(id: &str, kind: &str, level: Level, text: &str, place: Option<&str>) -> Event<'static> {
    let thread = std::thread::current().name().unwrap_or("none").to_owned();
    let mut tags = BTreeMap::from([("error.id".to_owned(), id.to_owned())]);
    if let Some(shard) = thread.strip_prefix("shard-") {
        tags.insert("shard".to_owned(), shard.to_owned());
    }
    tags.insert("thread".to_owned(), thread);
    Event {
        event_id: id.parse().unwrap_or_else(|_| Uuid::now_v7()),
        level,
        culprit: place.map(str::to_owned),
        exception: Values::from(vec![Exception {
            ty: kind.to_owned(),
            value: Some(text.to_owned()),
            ..Exception::default()
        }]),
        tags,
        ..Event::default()
    }
}

fn send_all(items: &Receiver<Item>, client: &Client) {
    for item in items {
        match item {
            // The transport below sends at once, on this thread.
            Item::Report(event) => drop(client.capture_event(*event, None)),
            Item::Flush(done) => drop(done.send(())),
        }
    }
}

struct Factory;

impl TransportFactory for Factory {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(SEND_TIMEOUT))
            .http_status_as_error(true)
            .build()
            .new_agent();
        Arc::new(Http {
            agent,
            url: options.dsn.envelope_api_url().to_string(),
            auth: options.dsn.to_auth(Some(&options.user_agent)).to_string(),
        })
    }
}

/// Posts an envelope, and waits for the answer.
struct Http {
    agent: ureq::Agent,
    url: String,
    auth: String,
}

impl Transport for Http {
    fn send_envelope(&self, envelope: Envelope) {
        let mut body = Vec::new();
        let sent = envelope.to_writer(&mut body).is_ok()
            && self
                .agent
                .post(&self.url)
                .header("X-Sentry-Auth", &self.auth)
                .header("Content-Type", "application/x-sentry-envelope")
                .send(&body)
                .is_ok();
        count(if sent { "sent" } else { "failed" });
    }
}

impl<S: Subscriber> Layer<S> for Reporter {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() != Severity::ERROR || !is_bug(metadata) {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let text = format!("{}: {}", said.message, said.what);
        let report = self::event(
            &said.id,
            "internal",
            Level::Error,
            &text,
            Some(metadata.target()),
        );
        self.put(report);
    }
}

/// Whether a line tells of a bug. One of a panic has no `what`: it was reported by itself.
fn is_bug(metadata: &tracing::Metadata<'_>) -> bool {
    let fields = metadata.fields();
    fields.field(ID_FIELD).is_some() && fields.field("what").is_some()
}

/// What a line says of a bug, in words of this program's.
#[derive(Default)]
struct Said {
    id: String,
    message: String,
    what: String,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let place = match field.name() {
            ID_FIELD => &mut self.id,
            "message" => &mut self.message,
            "what" => &mut self.what,
            _ => return,
        };
        *place = format!("{value:?}");
    }
}

/// Longest text of a panic that is shown, in bytes.
const TEXT_BYTES_MAX: usize = 300;

/// A panic's text without what it quotes: that may be what somebody wrote, or a secret. What is quoted may
/// hold quotes itself, so all goes from the first to the last.
#[must_use]
pub fn without_quotes(text: &str) -> String {
    let quote = |c| matches!(c, '"' | '`');
    let Some(first) = text.find(quote) else {
        return shortened(text);
    };
    let last = text.rfind(quote).filter(|last| *last > first);
    let behind = last.map_or("", |last| &text[last..]);
    shortened(&format!("{}…{behind}", &text[..=first]))
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_quotes_is_left_out() {
        let slice = "byte index 1 is not a char boundary; it is inside 'é' of `émile's secret`";
        assert_eq!(
            without_quotes(slice),
            "byte index 1 is not a char boundary; it is inside 'é' of `…`"
        );
        assert_eq!(without_quotes("it failed: \"hunter2"), "it failed: \"…");
        for written in [
            "hunter2\"hunter2\"hunter2",
            "hunter2`hunter2",
            "`hunter2\"",
            "\"",
            "\n\"\n",
        ] {
            for text in [
                format!("inside 'é' of `{written}`[...]"),
                format!("an `Err` value: Odd({written:?}, 7)"),
            ] {
                let shown = without_quotes(&text);
                assert!(!shown.contains("hunter2"), "{shown}");
                assert!(shown.contains('…'), "{shown}");
            }
        }
        assert_eq!(without_quotes("index 7 out of 3"), "index 7 out of 3");
        for long in [
            "x".repeat(9000),
            "ü".repeat(9000),
            format!("`{}`", "ü".repeat(9000)),
        ] {
            assert!(without_quotes(&long).len() <= TEXT_BYTES_MAX);
        }
    }

    #[test]
    fn a_full_queue_drops_reports() {
        let (queue, items) = sync_channel(1);
        let reporter = Reporter { queue };
        for _ in 0..3 {
            reporter.panicked("0", "text", None);
        }
        assert_eq!(items.try_iter().count(), 1);
    }
}
