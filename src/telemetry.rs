//! Logs: for people on a terminal, JSON lines otherwise.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
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
    // The client logs whole bodies when decoding fails; they may hold secrets.
    let filter = EnvFilter::try_new(format!("{wanted},kube_client::client=off"))
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client::client=off"));
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let registry = tracing_subscriber::registry().with(filter);
    // A second start (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none())
                    .with_target(false),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
    };
}
