//! Printing: `-o json|yaml|wide`, and `--watch`.

use super::connect::ClusterArgs;
use super::find::ScopeArgs;
use crate::api::{Delivery, DriftReport, Repository};
use crate::cluster::Connection;
use anyhow::Context;
use futures::stream::{BoxStream, select_all};
use futures::{FutureExt, StreamExt};
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use serde::Serialize;
use std::cell::Cell;
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

/// On a terminal ages move on this often while nothing changes.
const TICK: Duration = Duration::from_secs(10);

/// Changes that come within this time are shown together.
pub const TOGETHER: Duration = Duration::from_millis(150);

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For programs.
    Json,
    /// For programs.
    Yaml,
    /// The table, with more columns and nothing shortened.
    Wide,
}

/// How a report is printed, and how often.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct OutputArgs {
    /// How to print: a table without it, with more columns, or for programs
    #[arg(short = 'o', long = "output", value_enum)]
    pub output: Option<Output>,
    /// Print again whenever something changes, until Ctrl-C
    #[arg(short = 'w', long)]
    pub watch: bool,
}

/// A report in the form that was asked for. `text` gets whether the table is to be wide.
pub fn form<T: Serialize>(
    output: Option<Output>,
    report: &T,
    text: impl FnOnce(bool) -> String,
) -> anyhow::Result<String> {
    Ok(match output {
        Some(Output::Json) => format!("{}\n", serde_json::to_string_pretty(report)?),
        Some(Output::Yaml) => {
            let text = serde_saphyr::to_string(report)?;
            if text.ends_with('\n') { text } else { text + "\n" }
        }
        Some(Output::Wide) => text(true),
        None => text(false),
    })
}

/// Writes to standard output; colours go where nobody sees them. A reader that went away is no error.
pub fn emit(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(super::WELL),
        other => other.context("cannot write to standard output"),
    }
}

/// Prints what `look` answers (text and exit code), once, or again whenever it is another one.
pub async fn show(
    args: &OutputArgs,
    cluster: &ClusterArgs,
    scope: &ScopeArgs,
    look: impl AsyncFn(&Connection) -> anyhow::Result<(String, i32)>,
) -> anyhow::Result<i32> {
    show_each(TICK, args, cluster, scope, look).await
}

/// The same, looking this often on a terminal while nothing of ours changes.
pub async fn show_each(
    tick: Duration,
    args: &OutputArgs,
    cluster: &ClusterArgs,
    scope: &ScopeArgs,
    look: impl AsyncFn(&Connection) -> anyhow::Result<(String, i32)>,
) -> anyhow::Result<i32> {
    let connection = cluster.connect().await?;
    let (mut text, mut code) = look(&connection).await?;
    if !args.watch {
        emit(&text)?;
        return Ok(code);
    }
    let terminal = std::io::stdout().is_terminal();
    let mut changes = changes(&connection, scope);
    let shown = Cell::new(code);
    let printing = async {
        loop {
            if terminal {
                emit("\u{1b}[H\u{1b}[2J")?;
            }
            emit(&text)?;
            shown.set(code);
            let before = text;
            loop {
                tokio::select! {
                    _ = changes.next() => {}
                    () = tokio::time::sleep(tick), if terminal => {}
                }
                tokio::time::sleep(TOGETHER).await;
                while changes.next().now_or_never().flatten().is_some() {}
                match look(&connection).await {
                    Ok(new) => (text, code) = new,
                    // The API server may be away for a while; the last answer stays on the screen.
                    Err(error) => {
                        anstream::eprintln!("error: {error:#}");
                        continue;
                    }
                }
                if text != before {
                    break;
                }
            }
            if !terminal && !matches!(args.output, Some(Output::Json)) {
                emit(if args.output == Some(Output::Yaml) { "---\n" } else { "\n" })?;
            }
        }
    };
    // Heard at any moment, also while an answer is waited for.
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(shown.get()),
        ended = printing => ended,
    }
}

/// Something of ours changed.
fn changes(connection: &Connection, scope: &ScopeArgs) -> BoxStream<'static, ()> {
    fn of<K>(connection: &Connection, scope: &ScopeArgs) -> BoxStream<'static, ()>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Send
            + serde::de::DeserializeOwned
            + 'static,
        K::DynamicType: Default,
    {
        let api: Api<PartialObjectMeta<K>> = match &scope.namespace {
            Some(namespace) => Api::namespaced(connection.client.clone(), namespace),
            None => Api::all(connection.client.clone()),
        };
        watcher(api, watcher::Config::default().any_semantic())
            .default_backoff()
            .filter_map(async |event| match event {
                // What happened between the first look and the list is not told again.
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => {
                    Some(())
                }
                _ => None,
            })
            .boxed()
    }
    select_all([
        of::<Delivery>(connection, scope),
        of::<Repository>(connection, scope),
        of::<DriftReport>(connection, scope),
    ])
    .boxed()
}
