//! `windlass drift`.

use super::connect::ClusterArgs;
use super::find::{self, ScopeArgs};
use super::output::{OutputArgs, form, show};
use super::{NOT_WELL, WELL};
use crate::api::DriftReport;
use crate::report::drift::{report, text};
use jiff::Timestamp;

/// Show each field that is not as Git says, who changed it, and what was mended lately.
///
/// Exit code 0: nothing differs. 1: something does. 2: it could not be found out.
#[derive(clap::Args, Clone, Debug)]
pub struct DriftArgs {
    /// Names of Deliveries, as NAME or NAMESPACE/NAME; all of them when none is given
    names: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Prints the drift; the answer is the exit code.
pub async fn run(args: DriftArgs) -> anyhow::Result<i32> {
    show(&args.output, &args.cluster, &args.scope, async |connection| {
        let deliveries = find::select(find::list(&connection.client, &args.scope).await?, &args.names)?;
        let reports: Vec<DriftReport> = find::list(&connection.client, &args.scope).await?;
        let list = report(&deliveries, &reports);
        let code = if list.drifted == 0 { WELL } else { NOT_WELL };
        Ok((form(args.output.output, &list, |wide| text(&list, wide, Timestamp::now()))?, code))
    })
    .await
}
