//! `windlass tree [KIND] NAME`: what a Delivery or an Application has in the cluster, what that owns, and how it is.

use super::connect::ClusterArgs;
use super::find::{self, Meant, Owner, ScopeArgs};
use super::output::{Output, OutputArgs, TOGETHER, emit, form};
use super::{NOT_WELL, WELL};
use crate::cluster::{Cause, Looking};
use crate::core::look::Look;
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::resource_tree::{Known, Root, Tree, changes, grow, keep, wanted};
use crate::report::tree::{change, text};
use anyhow::Context;
use jiff::Timestamp;
use serde_json::Value;
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Duration;

/// On a terminal ages move on this often while nothing changes.
const TICK: Duration = Duration::from_secs(10);

/// Show what a Delivery or an Application has in the cluster, what that owns (ReplicaSets, Pods, EndpointSlices), and how it is.
///
/// Exit code 0: all that is shown is Healthy or Suspended. 1: something is not, or could not be looked at. 2: it could not be found
/// out.
#[derive(clap::Args, Clone, Debug)]
pub struct TreeArgs {
    #[command(flatten)]
    of: Meant,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Prints the tree; the answer is the exit code.
pub async fn run(args: TreeArgs) -> anyhow::Result<i32> {
    let connection = args.cluster.connect().await?;
    let owner = find::owner(&connection.client, &args.scope, &args.of).await?;
    let (root, known) = read(&owner)?;
    let mut looking = Looking::new(&connection, keep, args.output.watch);
    if !args.output.watch {
        // The lists that it was found by tell enough.
        for (root, object) in &known {
            let Root { gvk, namespace, name } = root.clone();
            looking.given(Look { gvk, namespace, name: Some(name) }, std::slice::from_ref(object));
        }
    }
    let mut news = looking.changes();
    let tree = look(&mut looking, &root).await?;
    let code = |tree: &Tree| if tree.root.is_well() { WELL } else { NOT_WELL };
    let print = |tree: &Tree| form(args.output.output, tree, |wide| text(tree, wide, Timestamp::now()));
    if !args.output.watch {
        emit(&print(&tree)?)?;
        return Ok(code(&tree));
    }
    let terminal = std::io::stdout().is_terminal();
    let shown = Cell::new(code(&tree));
    let printing = async {
        let mut tree = tree;
        whole(terminal, &print(&tree)?)?;
        let mut told = None;
        loop {
            tokio::select! {
                _ = news.changed() => tokio::time::sleep(TOGETHER).await,
                () = tokio::time::sleep(TICK), if terminal => {}
            }
            tell(looking.away(), &mut told);
            let new = look(&mut looking, &root).await?;
            match args.output.output {
                None | Some(Output::Wide) if !terminal => {
                    let lines: String =
                        changes(&tree, &new).into_iter().map(|(what, node)| change(what, node)).collect();
                    emit(&lines)?;
                }
                _ if terminal => whole(true, &print(&new)?)?,
                output if new != tree => {
                    emit(if output == Some(Output::Yaml) { "---\n" } else { "" })?;
                    emit(&print(&new)?)?;
                }
                _ => {}
            }
            shown.set(code(&new));
            tree = new;
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
fn whole(terminal: bool, text: &str) -> anyhow::Result<()> {
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

/// What the tree is of, and what is known of it already.
fn read(owner: &Owner) -> anyhow::Result<(Root, Vec<(Root, Value)>)> {
    let application = owner.application.as_ref().map(serde_json::to_value).transpose()?;
    let delivery = owner.delivery.as_ref().map(serde_json::to_value).transpose()?;
    let known: Vec<(Root, Value)> = application
        .into_iter()
        .chain(delivery)
        .map(|object| {
            let id = ObjectId::of(&object);
            let gvk = Gvk::new(object["apiVersion"].as_str().unwrap_or_default(), &id.kind);
            (Root { gvk, namespace: id.namespace, name: id.name }, object)
        })
        .collect();
    // One of the two was found.
    let root = known.first().map(|(root, _)| root.clone()).context("nothing was found")?;
    Ok((root, known))
}

/// Looks until nothing more is to be looked at.
async fn look(looking: &mut Looking<Known>, root: &Root) -> anyhow::Result<Tree> {
    let mut looks = wanted(root, &looking.settled().await?);
    loop {
        looking.only(&looks);
        let seen = looking.settled().await?;
        let more = wanted(root, &seen);
        if more == looks {
            return Ok(grow(root, &seen));
        }
        looks = more;
    }
}
