//! `windlass status`.

use super::connect::ClusterArgs;
use super::find::{self, ScopeArgs};
use super::output::{OutputArgs, form, show};
use super::{ERROR, NOT_WELL, WELL};
use crate::api::{Application, Delivery, Repository};
use crate::report::status::{report, tell_of_pods, text};
use jiff::Timestamp;
use kube::ResourceExt;
use std::cell::Cell;
use std::collections::BTreeSet;

/// Show Repositories and Deliveries: revision, health, what is held and why.
///
/// Exit code 0: all are ready. 1: at least one is not. 2: it could not be found out, as where Applications may not be listed.
#[derive(clap::Args, Clone, Debug)]
pub struct StatusArgs {
    /// Names of Deliveries, as NAME or NAMESPACE/NAME; all of them when none is given
    names: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Prints the status; the answer is the exit code.
pub async fn run(args: StatusArgs) -> anyhow::Result<i32> {
    // Said once, however often it is printed.
    let told = Cell::new(false);
    show(&args.output, &args.cluster, &args.scope, async |connection| {
        let mut repositories: Vec<Repository> = find::list(&connection.client, &args.scope).await?;
        let all: Vec<Delivery> = find::list(&connection.client, &args.scope).await?;
        let mut deliveries = find::select(all, &args.names)?;
        let mut unknown = false;
        if deliveries.iter().any(|d| d.spec.source.application.is_some()) {
            match find::list_if_allowed::<Application>(&connection.client, &args.scope).await? {
                Ok(applications) => tell_of_pods(&mut deliveries, &applications),
                Err(error) => {
                    unknown = true;
                    if !told.replace(true) {
                        anstream::eprintln!(
                            "Applications could not be listed: {error}; whether their pods still run is not known"
                        );
                    }
                }
            }
        }
        if !args.names.is_empty() {
            let of: BTreeSet<_> =
                deliveries.iter().map(|d| (d.namespace(), d.spec.source.repository.clone())).collect();
            repositories.retain(|r| of.contains(&(r.namespace(), r.name_any())));
        }
        if repositories.is_empty() && deliveries.is_empty() {
            anstream::eprintln!("nothing is delivered yet; `windlass run --repo URL|DIR` begins");
        }
        let report = report(&repositories, &deliveries);
        let code = match (report.ready, unknown) {
            (false, _) => NOT_WELL,
            (true, true) => ERROR,
            (true, false) => WELL,
        };
        Ok((form(args.output.output, &report, |wide| text(&report, wide, Timestamp::now()))?, code))
    })
    .await
}
