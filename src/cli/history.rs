//! `windlass history NAME`.

use super::WELL;
use super::find::{self, DeliveryArgs};
use super::output::{OutputArgs, form, show};
use crate::report::history::{report, text};
use jiff::Timestamp;

/// Show the last revisions of a Delivery and what became of each; * marks the one that runs.
#[derive(clap::Args, Clone, Debug)]
pub struct HistoryArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    of: DeliveryArgs,
}

/// Prints the history.
pub async fn run(args: HistoryArgs) -> anyhow::Result<i32> {
    show(&args.output, &args.of.cluster, &args.of.scope, async |connection| {
        let delivery = find::delivery(&connection.client, &args.of.scope, &args.of.name).await?;
        let history = report(&delivery);
        Ok((form(args.output.output, &history, |wide| text(&history, wide, Timestamp::now()))?, WELL))
    })
    .await
}
