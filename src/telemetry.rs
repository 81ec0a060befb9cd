//! Logs: for people on a terminal, JSON lines otherwise. Each line carries what the spans around it know, so one that
//! is about a Delivery says which, and at which revision.

use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::IsTerminal;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `level` is a filter such as `info` or `windlass=debug`; `WINDLASS_LOG` wins over it.
/// Without a format: text on a terminal, JSON otherwise.
pub fn start(level: &str, format: Option<LogFormat>) {
    let wanted = std::env::var("WINDLASS_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = EnvFilter::try_new(filter(&wanted))
        .unwrap_or_else(|_| EnvFilter::try_new(self::filter("info")).unwrap_or_default());
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let colours = format == LogFormat::Text && terminal && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .fmt_fields(JsonFields::new())
        .event_format(Lines(format));
    // A second start (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}

/// What is logged, when this much is wanted.
fn filter(wanted: &str) -> String {
    // The client logs whole bodies when decoding fails; they may hold secrets.
    let mut filter = format!("{wanted},kube_client::client=off");
    // Its span around each reconcile says again what ours says.
    if !wanted.contains("kube_runtime") {
        filter.push_str(",kube_runtime=warn");
    }
    filter
}

/// Writes an event with the fields of the spans around it, those of the innermost winning.
struct Lines(LogFormat);

impl<S> FormatEvent<S, JsonFields> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut fields = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(text) = span.extensions().get::<FormattedFields<JsonFields>>() {
                fields.extend(read(&text.fields));
            }
        }
        let mut own = String::new();
        JsonFields::new().format_fields(Writer::new(&mut own), event)?;
        let mut own = read(&own);
        let message = own.remove("message").unwrap_or_default();
        fields.extend(own);
        let now = jiff::Timestamp::now();
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        match self.0 {
            LogFormat::Json => {
                let mut line = json!({
                    "time": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
                    "level": level.as_str().to_lowercase(),
                    "message": message,
                    "target": target,
                });
                if let Some(line) = line.as_object_mut() {
                    for (name, value) in fields {
                        line.entry(name).or_insert(value);
                    }
                }
                writeln!(writer, "{line}")
            }
            LogFormat::Text => {
                let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let colour = if writer.has_ansi_escapes() { colour(level) } else { anstyle::Style::new() };
                let dim = if writer.has_ansi_escapes() {
                    anstyle::Style::new().dimmed()
                } else {
                    anstyle::Style::new()
                };
                write!(writer, "{dim}{time}{dim:#} {colour}{level:>5}{colour:#} {}", plain(&message))?;
                for (name, value) in fields.iter().filter(|(_, value)| **value != "") {
                    write!(writer, " {dim}{name}={dim:#}{}", plain(value))?;
                }
                writeln!(writer)
            }
        }
    }
}

fn read(fields: &str) -> Map<String, Value> {
    serde_json::from_str(fields).unwrap_or_default()
}

fn colour(level: Level) -> anstyle::Style {
    let colour = match level {
        Level::ERROR => anstyle::AnsiColor::Red,
        Level::WARN => anstyle::AnsiColor::Yellow,
        Level::INFO => anstyle::AnsiColor::Green,
        _ => anstyle::AnsiColor::Blue,
    };
    colour.on_default()
}

/// A value on one line; what comes from elsewhere must not steer the terminal.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "{}", c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, wanted: &str, work: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(JsonFields::new())
            .event_format(Lines(format));
        let subscriber =
            tracing_subscriber::registry().with(EnvFilter::try_new(filter(wanted)).unwrap()).with(lines);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn reconcile() {
        let outer =
            tracing::info_span!(target: "kube_runtime::controller", "reconciling object", object.ref = "x");
        outer.in_scope(|| {
            let span =
                tracing::info_span!("delivery", delivery = "team/shop", revision = tracing::field::Empty);
            span.in_scope(|| {
                span.record("revision", "main@sha1:1");
                tracing::info!(object = "Deployment shop/web", "first");
                span.record("revision", "main@sha1:2");
                tracing::warn!("second\n\u{1b}[31m line");
            });
        });
    }

    #[test]
    fn every_line_says_which_delivery_and_at_which_revision() {
        let text = logged(LogFormat::Json, "info", reconcile);
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["delivery"], "team/shop");
        assert_eq!(lines[0]["revision"], "main@sha1:1");
        assert_eq!(lines[0]["object"], "Deployment shop/web");
        assert_eq!(lines[0]["message"], "first");
        assert_eq!(lines[1]["revision"], "main@sha1:2", "the newest one");
        assert!(!text.contains("object.ref"), "{text}");
    }

    #[test]
    fn a_line_for_people_is_one_line_without_steering_the_terminal() {
        let text = logged(LogFormat::Text, "info", reconcile);
        assert_eq!(text.lines().count(), 2, "{text}");
        let second = text.lines().nth(1).unwrap();
        assert!(
            second.ends_with(r" WARN second\n\u{1b}[31m line delivery=team/shop revision=main@sha1:2"),
            "{second}"
        );
    }

    #[test]
    fn bodies_that_the_client_could_not_read_are_never_logged() {
        let text = logged(LogFormat::Json, "trace,kube_client=trace", || {
            tracing::warn!(target: "kube_client::client", "body: hunter2");
        });
        assert_eq!(text, "");
    }
}
