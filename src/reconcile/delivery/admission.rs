//! Admission at a rollback: webhooks and policies that the failed revision brought could refuse everything that is about to
//! be put back, so they go, and those that it changed are put back, before anything else is tried.

use super::Scope;
use super::prepare::refused;
use super::prune;
use crate::api::delivery::InventoryEntry;
use crate::cluster::apply::{Guard, apply};
use crate::core::bundle::{Bundle, Stage, stage};
use crate::core::plan::{self, Known};
use crate::core::rollout::Refusal;

/// Whether it decides about other objects.
fn decides(group: &str, kind: &str) -> bool {
    stage(group, kind) == Stage::Admission
}

/// Removes what of admission is not in the good bundle, and puts back what is.
pub async fn first(scope: &Scope<'_>, good: &Bundle, inventory: &[InventoryEntry]) -> Result<(), Refusal> {
    let brought: Vec<InventoryEntry> = inventory
        .iter()
        .filter(|e| decides(&e.group, &e.kind) && good.get(&e.id()).is_none())
        .map(|e| InventoryEntry { stale: true, ..e.clone() })
        .collect();
    // The entries stay in the inventory until all that is stale is removed.
    if !brought.is_empty() {
        let removed = super::remove(scope, &brought, prune::What::Stale, Some(good)).await;
        if let Some(refusal) = removed.refusal {
            return Err(refusal);
        }
    }
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
    Ok(())
}
