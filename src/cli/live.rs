//! What is seen of the cluster with one's own rights, printed once or as it changes.

use super::find::Owner;
use super::output::{Output, OutputArgs, TOGETHER, emit};
use crate::cluster::{Cause, Connection, Looking};
use crate::core::look::Look;
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::resource_tree::Root;
use anyhow::Context;
use serde_json::Value;
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Duration;

/// What changed between two looks, in lines.
type Changes<T> = dyn Fn(&T, &T) -> String;

/// On a terminal ages move on this often while nothing changes.
const TICK: Duration = Duration::from_secs(10);

/// Prints what `look` sees, once, or again whenever it is another: on a terminal as one screen, elsewhere as `lines` tells what
/// changed, where it can. Answers the exit code of what was shown last.
pub async fn watched<K, T>(
    output: &OutputArgs,
    mut looking: Looking<K>,
    look: impl AsyncFn(&mut Looking<K>) -> anyhow::Result<T>,
    print: impl Fn(&T) -> anyhow::Result<String>,
    code: impl Fn(&T) -> i32,
    lines: Option<&Changes<T>>,
) -> anyhow::Result<i32>
where
    K: Clone + PartialEq + Send + 'static,
    T: PartialEq,
{
    let mut news = looking.changes();
    let first = look(&mut looking).await?;
    if !output.watch {
        emit(&print(&first)?)?;
        return Ok(code(&first));
    }
    let terminal = std::io::stdout().is_terminal();
    let shown = Cell::new(code(&first));
    let printing = async {
        let mut before = first;
        let mut told = None;
        screen(terminal, &print(&before)?)?;
        loop {
            tokio::select! {
                _ = news.changed() => tokio::time::sleep(TOGETHER).await,
                () = tokio::time::sleep(TICK), if terminal => {}
            }
            news.mark_unchanged();
            tell(looking.away(), &mut told);
            let now = look(&mut looking).await?;
            match (output.output, lines) {
                _ if terminal => screen(true, &print(&now)?)?,
                (None | Some(Output::Wide), Some(lines)) => emit(&lines(&before, &now))?,
                (form, _) if now != before => {
                    emit(match form {
                        Some(Output::Json) => "",
                        Some(Output::Yaml) => "---\n",
                        _ => "\n",
                    })?;
                    emit(&print(&now)?)?;
                }
                _ => {}
            }
            shown.set(code(&now));
            before = now;
        }
    };
    // Heard at any moment, also while an answer is waited for.
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(shown.get()),
        ended = printing => ended,
    }
}

/// A screen, or what is printed in its stead where nobody looks.
fn screen(terminal: bool, text: &str) -> anyhow::Result<()> {
    if terminal {
        emit("\u{1b}[H\u{1b}[2J")?;
    }
    emit(text)
}

/// Says once that what is shown may be old.
fn tell(away: Option<Cause>, told: &mut Option<Cause>) {
    if let Some(cause) = &away
        && told.as_ref() != Some(cause)
    {
        anstream::eprintln!("error: {cause}");
    }
    *told = away;
}

/// What is meant, and a look at the cluster that knows already what was read to find it.
pub fn begin<K: Clone + PartialEq + Send + 'static>(
    connection: &Connection,
    owner: &Owner,
    keep: fn(&Value) -> K,
    goes_on: bool,
) -> anyhow::Result<(Root, Looking<K>)> {
    let application = owner.application.as_ref().map(serde_json::to_value).transpose()?;
    let delivery = owner.delivery.as_ref().map(serde_json::to_value).transpose()?;
    let mut looking = Looking::new(connection, keep, goes_on);
    let mut root = None;
    for object in application.into_iter().chain(delivery) {
        let id = ObjectId::of(&object);
        let gvk = Gvk::new(object["apiVersion"].as_str().unwrap_or_default(), &id.kind);
        if !goes_on {
            let look =
                Look { gvk: gvk.clone(), namespace: id.namespace.clone(), name: Some(id.name.clone()) };
            looking.given(look, std::slice::from_ref(&object));
        }
        root = root.or(Some(Root { gvk, namespace: id.namespace, name: id.name }));
    }
    // One of the two was found.
    Ok((root.context("nothing was found")?, looking))
}
