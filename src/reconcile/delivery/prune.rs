//! Removing objects: those that left the bundle, or all of a Delivery that is being deleted. In reverse order, only
//! what still carries our label, each delete guarded by the uid and the version that was looked at.

use super::adopted::{self, Before, Befores};
use super::prepare::unknown;
use crate::api::delivery::{InventoryEntry, Problem};
use crate::api::names;
use crate::cluster::apply::{Deletion, Propagation, delete, get, patch_json};
use crate::cluster::{Access, ApplyError, Cause, Discovery, Resource, crds};
use crate::core::health::pod_trouble;
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::plan::{self, Removal};
use crate::core::restore::restored;
use crate::core::rollout::{PodRef, Pruned, Refusal};
use crate::reconcile::fault;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

/// Objects of one group that are removed at once.
const AT_ONCE: usize = 32;

/// Which objects are to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Those that left the bundle.
    Stale,
    /// Those that left the bundle and that no good revision had.
    Failed,
    /// Those that left the bundle and were there for a rollout only.
    Candidates,
    /// Those that left the bundle and hold an exclusive resource: they go before the new ones are applied.
    Before,
    /// All.
    All,
    /// None: all are released.
    Orphan,
}

/// Removes objects of an inventory and answers what is left of it. `undone` tells of an object that left the bundle whether the
/// commit that brought it is undone ([`plan::removal`]): no good revision had it, or somebody goes back to before it; `befores` what
/// adopted ones are given back as.
pub async fn run(
    access: &Access,
    discovery: &Discovery,
    label: &str,
    inventory: &[InventoryEntry],
    what: What,
    undone: impl Fn(&InventoryEntry) -> bool,
    befores: &Befores,
) -> Pruned {
    let concerned = |e: &InventoryEntry| match what {
        What::Stale => e.stale,
        What::Failed => e.stale && undone(e),
        What::Candidates => e.stale && e.candidate,
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
                What::Stale | What::Failed | What::Candidates | What::Before => {
                    let how = plan::removal(&entry, undone(&entry));
                    (entry, how)
                }
            })
            .collect();
        let results: Vec<_> = stream::iter(group)
            .map(|(entry, how)| async move {
                let gives_back = what != What::All && what != What::Orphan;
                let before = adopted::of(befores, &entry.id()).filter(|_| gives_back);
                let result = remove_one(access, discovery, label, &entry, how, before).await;
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
    before: Option<&Before>,
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
            Err(error) => return Err(unknown(&entry.id(), &error)),
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
        match put_away(access, &resource, &entry.id(), &there, how, before).await.map_err(failed)? {
            PutAway::Done => {
                fault::place(|| "amid removals".into());
                return Ok(());
            }
            PutAway::Deleting => {
                // It was so before, too.
                if entry.kind == "CustomResourceDefinition" && !text("deletionTimestamp").is_empty() {
                    crds::look_again(access, &there).await.map_err(failed)?;
                }
                return Err(being_deleted(entry, &there));
            }
            PutAway::Changed => {}
        }
    }
    Err(failed(ApplyError::new(entry.id(), crate::cluster::Cause::Conflict)))
}

/// What came of putting an object away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutAway {
    /// It is gone, or let go.
    Done,
    /// It is marked for deletion, and held.
    Deleting,
    /// It changed since it was looked at, and was left alone.
    Changed,
}

/// Deletes or releases an object as it was when it was looked at (`there`). A released one gets the values back that
/// it had `before` it was adopted, where these are known.
pub(super) async fn put_away(
    access: &Access,
    resource: &Resource,
    id: &ObjectId,
    there: &Value,
    how: Removal,
    before: Option<&Before>,
) -> Result<PutAway, ApplyError> {
    let text = |field: &str| there["metadata"][field].as_str().unwrap_or_default();
    let version = text("resourceVersion");
    match how {
        Removal::Release => {
            let managers = there["metadata"]["managedFields"].as_array();
            let ours = managers.and_then(|m| {
                m.iter().position(|e| e["manager"] == names::FIELD_MANAGER && e["operation"] == "Apply")
            });
            let release = async |mut operations: Vec<Value>| {
                if let Some(at) = ours {
                    operations.push(json!({"op": "remove", "path": format!("/metadata/managedFields/{at}")}));
                }
                patch_json(access, resource, &id.namespace, &id.name, version, &operations).await
            };
            if let Some(before) = before {
                match release(given_back(there, before)).await {
                    // Made anew since, it cannot get all of its old values any more: it is let go as it is.
                    Err(ApplyError { cause: Cause::Immutable { .. } | Cause::Invalid { .. }, .. }) => {}
                    Err(error) => return Err(error),
                    Ok(_) => return Ok(PutAway::Done),
                }
            }
            // Our entry of ownership goes, the values stay.
            release(vec![json!({
                "op": "remove",
                "path": format!("/metadata/labels/{}", names::DELIVERY_LABEL.replace('/', "~1")),
            })])
            .await?;
            Ok(PutAway::Done)
        }
        Removal::Delete => {
            let how = Propagation::Background;
            let uid = text("uid");
            let gone = delete(access, resource, &id.namespace, &id.name, uid, Some(version), how).await?;
            Ok(match gone {
                Deletion::Changed => PutAway::Changed,
                Deletion::Deleting => PutAway::Deleting,
                Deletion::Deleted | Deletion::AlreadyGone | Deletion::Replaced => PutAway::Done,
            })
        }
    }
}

/// A JSON patch that gives an adopted object the values that it had.
fn given_back(there: &Value, before: &Before) -> Vec<Value> {
    let after = restored(there, &before.object, &before.released());
    let mut operations = Vec::new();
    let mut fields = |at: &str, old: &Value, new: &Value| {
        let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return };
        for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
            let path = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            let server = matches!(name.as_str(), "metadata" | "status" | "managedFields");
            match (old.get(name), new.get(name)) {
                (old, new) if old == new || server => {}
                (_, Some(value)) => operations.push(json!({"op": "add", "path": path, "value": value})),
                (_, None) => operations.push(json!({"op": "remove", "path": path})),
            }
        }
    };
    fields("/metadata", &there["metadata"], &after["metadata"]);
    fields("", there, &after);
    operations
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

/// Deletes pods that keep a workload from getting its new template, and that are broken still. The controller makes them anew.
pub async fn evict(scope: &super::Scope<'_>, pods: &[PodRef]) {
    let Some(resource) = scope.daemon.discovery.resource(&Gvk::new("v1", "Pod")) else { return };
    for pod in pods {
        let gone = evict_one(scope, &resource, pod).await;
        fault::place(|| "amid evictions".into());
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
            Ok(Deletion::AlreadyGone | Deletion::Replaced | Deletion::Changed) => {}
            Err(error) => scope.notify(true, "PodNotReplaced", &object, &error.cause.to_string()),
        }
    }
}

/// Deletes a pod as it was looked at right before, so that none goes that has become ready since. Twice, for it may change between
/// the look and the delete; one that changes faster is tried again when the watch shows it.
async fn evict_one(
    scope: &super::Scope<'_>,
    resource: &Resource,
    pod: &PodRef,
) -> Result<Deletion, ApplyError> {
    let (access, rules) = (&scope.access, super::pods::rules(scope));
    for _ in 0..2 {
        let Some(there) = get(access, resource, &pod.namespace, &pod.name).await? else {
            return Ok(Deletion::AlreadyGone);
        };
        if there["metadata"]["uid"] != pod.uid.as_str() {
            return Ok(Deletion::Replaced);
        }
        if pod_trouble(&there, &rules).is_none() {
            return Ok(Deletion::Changed);
        }
        let (version, how) = (there["metadata"]["resourceVersion"].as_str(), Propagation::Background);
        let gone = delete(access, resource, &pod.namespace, &pod.name, &pod.uid, version, how).await?;
        if gone != Deletion::Changed {
            return Ok(gone);
        }
    }
    Ok(Deletion::Changed)
}
