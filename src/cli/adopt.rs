//! `windlass adopt NAME`: objects that carry the label of a Delivery whose status was lost are its own again.

use super::WELL;
use super::connect::ClusterArgs;
use super::find::{self, ScopeArgs, full_name};
use super::request::{WaitArgs, annotate, is_ready, must_act, token, wait};
use crate::api::names;
use crate::core::lost;
use anyhow::{Context, bail};

/// Give a Delivery whose status was lost its objects back.
///
/// After a restore from a backup a Delivery may know nothing of the objects that carry its label. It then says InventoryLost
/// and touches none of them. This makes those that are in its source its own again, and lets the others go as they are.
/// With --wait, exit code 0: it is ready. 1: it failed, or is not done in time.
#[derive(clap::Args, Clone, Debug)]
pub struct AdoptArgs {
    /// Name of the Delivery, as NAME or NAMESPACE/NAME
    name: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Asks, and waits where that is wanted.
pub async fn run(args: AdoptArgs) -> anyhow::Result<i32> {
    let connection = args.cluster.connect().await?;
    let delivery = find::delivery(&connection.client, &args.scope, &args.name).await?;
    must_act(&delivery)?;
    let name = full_name(&delivery);
    let failure = delivery.status.as_ref().and_then(|s| s.failure.as_ref());
    if failure.is_none_or(|f| f.problem.reason != lost::REASON) {
        bail!("{name} has lost nothing; `windlass status {}` says how it is", args.name);
    }
    let uid = delivery.metadata.uid.clone().context("the Delivery has no uid")?;
    let token = token();
    annotate(&connection.client, &delivery, &token, Some((names::ADOPT, &uid))).await?;
    anstream::eprintln!(
        "{name}: what carries its label and is in its source is its own again; the rest is let go"
    );
    match args.wait.wait {
        true => wait(&connection.client, &delivery, &token, args.wait.timeout, is_ready).await,
        false => Ok(WELL),
    }
}
