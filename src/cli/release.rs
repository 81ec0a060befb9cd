//! `windlass release NAME`: a held revision is tried again.

use super::WELL;
use super::find::{DeliveryArgs, full_name};
use super::request::{WaitArgs, annotate, is_ready, must_act, token, wait};
use crate::api::names;
use crate::report::short;
use anyhow::bail;

/// Try a held revision again.
///
/// With --wait, exit code 0: it is ready. 1: it failed again, or is not done in time.
#[derive(clap::Args, Clone, Debug)]
pub struct ReleaseArgs {
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    of: DeliveryArgs,
}

/// Asks, and waits where that is wanted.
pub async fn run(args: ReleaseArgs) -> anyhow::Result<i32> {
    let (connection, delivery) = args.of.find().await?;
    must_act(&delivery)?;
    let name = full_name(&delivery);
    let Some(held) = delivery.status.as_ref().and_then(|s| s.held.as_ref()) else {
        bail!("{name} holds no revision; `windlass sync {}` tries again what failed to begin", args.of.name);
    };
    let token = token();
    let value = format!("{}/{token}", held.revision.commit);
    annotate(&connection.client, &delivery, &token, Some((names::RELEASE_REQUEST, &value))).await?;
    anstream::eprintln!("{name}: {} ({}) is tried again", short(&held.revision), held.revision.subject);
    match args.wait.wait {
        true => wait(&connection.client, &delivery, &token, args.wait.timeout, is_ready).await,
        false => Ok(WELL),
    }
}
