//! Admission at a rollback: webhooks and policies that the failed revision brought could refuse everything that is about to
//! be put back, so they go, and those that it changed are put back, before anything else is tried. The same holds for
//! how a definition converts its objects: a webhook that converts nothing lets nobody read or write any of them.

use super::Scope;
use super::prepare::refused;
use super::prune;
use crate::api::delivery::{Goal, InventoryEntry};
use crate::cluster::ApplyError;
use crate::cluster::apply::{Guard, apply, get};
use crate::core::bundle::{Bundle, Stage, stage};
use crate::core::closest::closest;
use crate::core::manifest::Manifest;
use crate::core::plan::{self, Known};
use crate::core::rollout::Refusal;
use crate::reconcile::fault;
use serde_json::Value;

/// Whether it decides about other objects.
fn decides(group: &str, kind: &str) -> bool {
    stage(group, kind) == Stage::Admission
}

/// Removes what of admission is not in the good bundle, and puts back what is.
pub async fn first(scope: &Scope<'_>, good: &Bundle, inventory: &[InventoryEntry]) -> Result<(), Refusal> {
    fault::place(|| "before admission".into());
    let brought: Vec<InventoryEntry> = inventory
        .iter()
        .filter(|e| decides(&e.group, &e.kind) && good.get(&e.id()).is_none())
        .map(|e| InventoryEntry { stale: true, ..e.clone() })
        .collect();
    // The entries stay in the inventory until all that is stale is removed.
    if !brought.is_empty() {
        let removed =
            super::remove(scope, &brought, Some(Goal::Rollback), prune::What::Stale, Some(good)).await;
        if let Some(refusal) = removed.refusal {
            return Err(refusal);
        }
    }
    fault::place(|| "amid admission".into());
    for manifest in good.objects().iter().filter(|m| decides(&m.gvk().group, &m.gvk().kind)) {
        let id = manifest.id();
        let entry = inventory.iter().find(|e| e.is(&id));
        // What is not there any more comes when it is its turn.
        let Some(live) = scope.live_fn()(manifest).filter(|live| live.label == scope.label) else { continue };
        let digest = plan::manifest_digest(manifest, &scope.daemon.secret_key);
        if plan::known(manifest, &digest, entry, Some(&live)) == Known::Unchanged {
            continue;
        }
        let Some(resource) = scope.daemon.discovery.resource(&manifest.gvk()) else { continue };
        match apply(&scope.access, &resource, &manifest.to_value(), Guard::Uid(&live.uid)).await {
            Ok(_) => {}
            Err(error) if error.cause.needs_new_plan() => {}
            Err(error) => return Err(refused(manifest, &error)),
        }
    }
    for manifest in good.objects().iter().filter(|m| is_definition(m)) {
        let Some(live) = scope.live_fn()(manifest).filter(|live| live.label == scope.label) else { continue };
        let entry = inventory.iter().find(|e| e.is(&manifest.id()));
        let digest = plan::manifest_digest(manifest, &scope.daemon.secret_key);
        if plan::known(manifest, &digest, entry, Some(&live)) != Known::Unchanged {
            conversion(scope, manifest, &live.uid).await?;
        }
    }
    fault::place(|| "after admission".into());
    Ok(())
}

fn is_definition(manifest: &Manifest) -> bool {
    let gvk = manifest.gvk();
    (gvk.group.as_str(), gvk.kind.as_str()) == ("apiextensions.k8s.io", "CustomResourceDefinition")
}

/// Puts a definition back that converts its objects in another way than the good one, as far as Kubernetes takes it back.
async fn conversion(scope: &Scope<'_>, good: &Manifest, uid: &str) -> Result<(), Refusal> {
    let refuse = |error: ApplyError| refused(good, &error);
    let Some(resource) = scope.daemon.discovery.resource(&good.gvk()) else { return Ok(()) };
    let there = get(&scope.access, &resource, "", good.name()).await.map_err(refuse)?;
    let wanted = good.to_value();
    let Some(there) = there.filter(|there| !converts_alike(there, &wanted)) else { return Ok(()) };
    let guard = Guard::Uid(uid);
    let answer = match apply(&scope.access, &resource, &wanted, guard).await {
        Err(error) if !error.is_transient() => match closest(&wanted, &there) {
            Some((value, _)) => apply(&scope.access, &resource, &value, guard).await,
            None => Err(error),
        },
        answer => answer,
    };
    match answer {
        Err(error) if error.is_transient() => Err(refuse(error)),
        // What cannot be put back is told by the plan.
        _ => Ok(()),
    }
}

/// Whether two definitions say the same about conversion; to say nothing is to convert nothing.
fn converts_alike(a: &Value, b: &Value) -> bool {
    let none = |definition: &Value| {
        let strategy = &definition["spec"]["conversion"]["strategy"];
        strategy.is_null() || strategy == "None"
    };
    none(a) && none(b) || a["spec"]["conversion"] == b["spec"]["conversion"]
}
