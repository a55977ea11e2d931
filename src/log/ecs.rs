//! Lines as JSON, one object each, in the names of the Elastic Common Schema.

use std::fmt;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

/// One JSON object a line, in the names of the Elastic Common Schema.
pub(super) struct Ecs;

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
        let line = line(
            OffsetDateTime::now_utc(),
            *event.metadata().level(),
            event.metadata().target(),
            std::thread::current().name(),
            fields,
        );
        writeln!(writer, "{line}")
    }
}

pub(super) fn line(
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
    // A name with a point is one of ECS's; what it has no name for belongs under `labels`.
    let (named, fields): (Map<_, _>, Map<_, _>) =
        fields.into_iter().partition(|(name, _)| name.contains('.'));
    line.extend(named);
    if !fields.is_empty() {
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
    fn a_line_is_one_json_object_whatever_is_in_it() {
        let mut fields = Map::new();
        fields.insert("message".to_owned(), "two\nlines \"quoted\"".into());
        fields.insert("shard".to_owned(), 3.into());
        fields.insert("error.id".to_owned(), "7f".into());
        let at = OffsetDateTime::UNIX_EPOCH;
        let line = line(at, tracing::Level::WARN, "project_yum::net", None, fields);
        let text = line.to_string();
        assert!(!text.contains('\n'));
        assert_eq!(line["@timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(line["log.level"], "warn");
        assert_eq!(line["message"], "two\nlines \"quoted\"");
        assert_eq!(line["labels"], serde_json::json!({"shard": 3}));
        assert_eq!(line["error.id"], "7f");
    }
}
