//! Removing objects: those that left the bundle, or all of a Delivery that is being deleted. In reverse order, only
//! what still carries our label, each delete guarded by the uid and the version that was looked at.

use crate::api::delivery::{InventoryEntry, Problem};
use crate::api::names;
use crate::cluster::apply::{Deletion, Propagation, delete, get, patch_json};
use crate::cluster::{Access, ApplyError, Discovery};
use crate::core::manifest::Gvk;
use crate::core::plan::{self, Removal};
use crate::core::rollout::{PodRef, Pruned, Refusal};
use crate::reconcile::fault;
use futures::{StreamExt, stream};
use serde_json::json;

/// Objects of one group that are removed at once.
const AT_ONCE: usize = 32;

/// Which objects are to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Those that left the bundle.
    Stale,
    /// Those that left the bundle and that no good revision had.
    Failed,
    /// Those that left the bundle and hold an exclusive resource: they go before the new ones are applied.
    Before,
    /// All.
    All,
    /// None: all are released.
    Orphan,
}

/// Removes objects of an inventory and answers what is left of it. `never_good` tells of an object that left the bundle
/// whether no good revision had it.
pub async fn run(
    access: &Access,
    discovery: &Discovery,
    label: &str,
    inventory: &[InventoryEntry],
    what: What,
    never_good: impl Fn(&InventoryEntry) -> bool,
) -> Pruned {
    let concerned = |e: &InventoryEntry| match what {
        What::Stale => e.stale,
        What::Failed => e.stale && never_good(e),
        What::Before => e.stale && e.prune.as_deref() == Some("before"),
        What::All | What::Orphan => true,
    };
    let (remove, mut left): (Vec<_>, Vec<_>) = inventory.iter().cloned().partition(concerned);
    let mut groups = plan::removal_order(&remove).into_iter();
    let mut refusal: Option<Refusal> = None;
    for group in groups.by_ref() {
        let group: Vec<_> = group
            .into_iter()
            .map(|entry| match what {
                What::Orphan => (entry, Removal::Release),
                What::All => {
                    let how = plan::removal(&entry, false);
                    (entry, how)
                }
                What::Stale | What::Failed | What::Before => {
                    let how = plan::removal(&entry, never_good(&entry));
                    (entry, how)
                }
            })
            .collect();
        let results: Vec<_> = stream::iter(group)
            .map(|(entry, how)| async move {
                let result = remove_one(access, discovery, label, &entry, how).await;
                (entry, result)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (entry, result) in results {
            if let Err(new) = result {
                left.push(entry);
                if refusal.as_ref().is_none_or(|r| r.transient && !new.transient) {
                    refusal = Some(new);
                }
            }
        }
        // What was there first goes last: a group waits until the ones after it are gone. It does not wait for what
        // nobody will ever remove when all is to go.
        if refusal.as_ref().is_some_and(|r| r.transient || what != What::All) {
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
) -> Result<(), Refusal> {
    let failed = |error: ApplyError| Refusal {
        problem: Problem {
            reason: error.cause.reason().into(),
            object: entry.id().to_string(),
            message: error.cause.to_string(),
        },
        transient: error.is_transient() || error.cause.needs_new_plan(),
    };
    let gvk = entry.gvk();
    let resource = match discovery.resource(&gvk).or_else(|| discovery.preferred(&gvk.group, &gvk.kind)) {
        Some(resource) => resource,
        // The kind is gone, and its objects with it.
        None => match discovery.find(&gvk).await {
            Ok(Some(resource)) => resource,
            Ok(None) => return Ok(()),
            Err(error) => {
                return Err(Refusal {
                    problem: Problem {
                        reason: "DiscoveryFailed".into(),
                        object: entry.id().to_string(),
                        message: error.to_string(),
                    },
                    transient: true,
                });
            }
        },
    };
    // Twice: the object may change between the look and the delete, and is looked at again then.
    for _ in 0..2 {
        let there = get(access, &resource, &entry.namespace, &entry.name).await.map_err(failed)?;
        let Some(there) = there else { return Ok(()) };
        let text = |field: &str| there["metadata"][field].as_str().unwrap_or_default();
        let ours = there["metadata"]["labels"][names::DELIVERY_LABEL].as_str() == Some(label);
        if !ours || entry.uid.as_deref().is_some_and(|uid| uid != text("uid")) {
            return Ok(());
        }
        let version = text("resourceVersion");
        match how {
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
                    .map(|_| ())
                    .map_err(failed);
            }
            Removal::Delete => {
                let how = Propagation::Background;
                let uid = text("uid");
                let gone = delete(access, &resource, &entry.namespace, &entry.name, uid, Some(version), how)
                    .await
                    .map_err(failed)?;
                match gone {
                    Deletion::Changed => {}
                    Deletion::Deleting => return Err(being_deleted(entry, &there)),
                    Deletion::Deleted | Deletion::AlreadyGone | Deletion::Replaced => {
                        fault::place(|| "amid removals".into());
                        return Ok(());
                    }
                }
            }
        }
    }
    Err(failed(ApplyError::new(entry.id(), crate::cluster::Cause::Conflict)))
}

/// Finalizers hold it; it is looked at again until it is gone.
fn being_deleted(entry: &InventoryEntry, there: &serde_json::Value) -> Refusal {
    let holders: Vec<&str> = there["metadata"]["finalizers"]
        .as_array()
        .map(|all| all.iter().filter_map(serde_json::Value::as_str).collect())
        .unwrap_or_default();
    let by = if holders.is_empty() { String::new() } else { format!(" by {}", holders.join(", ")) };
    Refusal {
        problem: Problem {
            reason: "BeingDeleted".into(),
            object: entry.id().to_string(),
            message: format!("is being deleted, and still held{by}"),
        },
        transient: true,
    }
}

/// Deletes pods that keep a workload from getting its new template. The controller makes them anew.
pub async fn evict(scope: &super::Scope<'_>, pods: &[PodRef]) {
    let Some(resource) = scope.daemon.discovery.resource(&Gvk::new("v1", "Pod")) else { return };
    for pod in pods {
        let how = Propagation::Background;
        let gone = delete(&scope.access, &resource, &pod.namespace, &pod.name, &pod.uid, None, how).await;
        let object = format!("Pod {}/{}", pod.namespace, pod.name);
        match gone {
            Ok(Deletion::Deleted | Deletion::Deleting) => {
                scope.notify(
                    false,
                    "PodReplaced",
                    &object,
                    "was broken and kept its workload from being updated",
                );
            }
            Ok(_) => {}
            Err(error) => scope.notify(true, "PodNotReplaced", &object, &error.cause.to_string()),
        }
    }
}
