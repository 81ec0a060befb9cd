//! `windlass history NAME`.

use super::WELL;
use super::connect::ClusterArgs;
use super::find::{self, ScopeArgs};
use super::output::{OutputArgs, form, show};
use crate::report::history::{report, text};
use jiff::Timestamp;

/// Show the last revisions of a Delivery and what became of each; * marks the one that runs.
#[derive(clap::Args, Clone, Debug)]
pub struct HistoryArgs {
    /// Name of the Delivery, as NAME or NAMESPACE/NAME
    name: String,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Prints the history.
pub async fn run(args: HistoryArgs) -> anyhow::Result<i32> {
    show(&args.output, &args.cluster, &args.scope, async |connection| {
        let delivery = find::delivery(&connection.client, &args.scope, &args.name).await?;
        let history = report(&delivery);
        Ok((form(args.output.output, &history, |wide| text(&history, wide, Timestamp::now()))?, WELL))
    })
    .await
}
