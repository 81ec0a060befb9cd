//! Removing objects: those that left the bundle, or all of a Delivery that is being deleted. In reverse order, only
//! what still carries our label, each delete guarded by the uid and the version that was looked at.

use crate::api::delivery::{InventoryEntry, Problem};
use crate::api::names;
use crate::cluster::apply::{Deletion, Propagation, delete, get, patch_json};
use crate::cluster::{Access, ApplyError, Discovery};
use crate::core::plan::{self, Removal};
use crate::core::rollout::{Pruned, Refusal};
use futures::{StreamExt, stream};
use serde_json::json;

/// Objects of one group that are removed at once.
const AT_ONCE: usize = 32;

/// Which objects are to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Those that left the bundle. `failed`: because the commit that brought them was rolled back.
    Stale {
        /// See [`plan::removal`].
        failed: bool,
    },
    /// Those that left the bundle and hold an exclusive resource: they go before the new ones are applied.
    Before,
    /// All.
    All,
    /// None: all are released.
    Orphan,
}

/// Removes objects of an inventory and answers what is left of it.
pub async fn run(
    access: &Access,
    discovery: &Discovery,
    label: &str,
    inventory: &[InventoryEntry],
    what: What,
) -> Pruned {
    let concerned = |e: &InventoryEntry| match what {
        What::Stale { .. } => e.stale,
        What::Before => e.stale && e.prune.as_deref() == Some("before"),
        What::All | What::Orphan => true,
    };
    let (remove, mut left): (Vec<_>, Vec<_>) = inventory.iter().cloned().partition(concerned);
    let mut groups = plan::removal_order(&remove).into_iter();
    let mut refusal: Option<Refusal> = None;
    for group in groups.by_ref() {
        let results: Vec<_> = stream::iter(group)
            .map(|entry| async move {
                let mut how = plan::removal(&entry, what == What::Stale { failed: true });
                if what == What::Orphan {
                    how = Removal::Release;
                }
                let result = remove_one(access, discovery, label, &entry, how).await;
                (entry, result)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (entry, result) in results {
            if let Err(error) = result {
                let new = Refusal {
                    problem: Problem {
                        reason: error.cause.reason().into(),
                        object: entry.id().to_string(),
                        message: error.cause.to_string(),
                    },
                    transient: error.is_transient() || error.cause.needs_new_plan(),
                };
                left.push(entry);
                if refusal.as_ref().is_none_or(|r| r.transient && !new.transient) {
                    refusal = Some(new);
                }
            }
        }
        // What was there first goes last: a group waits until the ones after it are gone.
        if refusal.is_some() {
            break;
        }
    }
    left.extend(groups.flatten());
    Pruned { inventory: left, refusal }
}

async fn remove_one(
    access: &Access,
    discovery: &Discovery,
    label: &str,
    entry: &InventoryEntry,
    how: Removal,
) -> Result<(), ApplyError> {
    let gvk = entry.gvk();
    let resource = match discovery.resource(&gvk).or_else(|| discovery.preferred(&gvk.group, &gvk.kind)) {
        Some(resource) => resource,
        // The kind is gone, and its objects with it.
        None => match discovery.find(&gvk).await {
            Ok(Some(resource)) => resource,
            _ => return Ok(()),
        },
    };
    // Twice: the object may change between the look and the delete, and is looked at again then.
    for _ in 0..2 {
        let Some(there) = get(access, &resource, &entry.namespace, &entry.name).await? else { return Ok(()) };
        let text = |field: &str| there["metadata"][field].as_str().unwrap_or_default();
        let ours = there["metadata"]["labels"][names::DELIVERY_LABEL].as_str() == Some(label);
        if !ours || entry.uid.as_deref().is_some_and(|uid| uid != text("uid")) {
            return Ok(());
        }
        let version = text("resourceVersion");
        match how {
            Removal::Forget => return Ok(()),
            Removal::Release => {
                let mut operations = vec![json!({
                    "op": "remove",
                    "path": format!("/metadata/labels/{}", names::DELIVERY_LABEL.replace('/', "~1")),
                })];
                // Our entry of ownership goes, the values stay.
                let managers = there["metadata"]["managedFields"].as_array();
                if let Some(at) = managers.and_then(|m| {
                    m.iter().position(|e| e["manager"] == names::FIELD_MANAGER && e["operation"] == "Apply")
                }) {
                    operations.push(json!({"op": "remove", "path": format!("/metadata/managedFields/{at}")}));
                }
                return patch_json(access, &resource, &entry.namespace, &entry.name, version, &operations)
                    .await
                    .map(|_| ());
            }
            Removal::Delete => {
                let how = Propagation::Background;
                let uid = text("uid");
                let gone =
                    delete(access, &resource, &entry.namespace, &entry.name, uid, Some(version), how).await?;
                if gone != Deletion::Changed {
                    return Ok(());
                }
            }
        }
    }
    Err(ApplyError::new(entry.id(), crate::cluster::Cause::Conflict))
}
