//! `windlass suspend NAME` and `windlass resume NAME`: `spec.suspend` of a Delivery. `resume` also goes on with a rollout that
//! is paused.
//!
//! The daemon writes the spec of Deliveries that it makes of directories by server-side apply, and names `suspend` only
//! where Git does. So what is set here stays through new commits, and where Git says `suspend: true` it is Git's.

use super::WELL;
use super::find::{DeliveryArgs, explained, full_name};
use super::request::{MANAGER, WaitArgs};
use super::rollout::ask_of;
use crate::api::{Delivery, names};
use crate::core::fields::{Path, owned_by};
use anyhow::bail;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

/// Stop reconciling a Delivery. What runs stays as it is; drift is still reported, and nothing is changed.
#[derive(clap::Args, Clone, Debug)]
pub struct SuspendArgs {
    #[command(flatten)]
    of: DeliveryArgs,
}

/// Go on reconciling a Delivery, with the newest revision; or with a rollout that is paused.
#[derive(clap::Args, Clone, Debug)]
pub struct ResumeArgs {
    #[command(flatten)]
    of: DeliveryArgs,
}

/// Suspends.
pub async fn suspend(args: SuspendArgs) -> anyhow::Result<i32> {
    set(&args.of, true).await
}

/// Resumes.
pub async fn resume(args: ResumeArgs) -> anyhow::Result<i32> {
    set(&args.of, false).await
}

async fn set(of: &DeliveryArgs, suspend: bool) -> anyhow::Result<i32> {
    let (connection, delivery) = of.find().await?;
    let full = full_name(&delivery);
    let word = if suspend { "suspended" } else { "resumed" };
    let waits = |d: &Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()?.rollout.as_ref());
        rollout.is_some_and(|r| r.paused.is_some())
    };
    if !suspend && !delivery.spec.template.suspend && waits(&delivery) {
        let told = "goes on; a step that waits for a person goes on with `windlass promote`";
        return ask_of(&connection.client, &delivery, WaitArgs::default(), "resume", told).await;
    }
    if delivery.spec.template.suspend == suspend {
        anstream::println!("{full} {}", if suspend { "is suspended already" } else { "is not suspended" });
        return Ok(WELL);
    }
    if !suspend && by_git(&delivery) {
        bail!(
            "{full} is suspended by Git: suspend: true stands in the windlass.yaml of \"{}\", or in the template of \
             Repository {}; take it out there",
            delivery.spec.source.path,
            delivery.spec.source.repository
        );
    }
    let api: Api<Delivery> =
        Api::namespaced(connection.client.clone(), &delivery.namespace().unwrap_or_default());
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    // Taken out rather than set to false: then it is nobody's, as before.
    let value = if suspend { json!(true) } else { json!(null) };
    let patch = json!({"spec": {"suspend": value}});
    api.patch(&delivery.name_any(), &params, &Patch::Merge(patch)).await.map_err(explained)?;
    anstream::println!("{full} {word}");
    Ok(WELL)
}

/// Whether the daemon wrote `suspend`, as Git says.
fn by_git(delivery: &Delivery) -> bool {
    let fields = json!({"metadata": {"managedFields": delivery.metadata.managed_fields}});
    owned_by(&fields, names::FIELD_MANAGER).contains(&Path::fields(["spec", "suspend"]))
}
