//! What late requests of a daemon that works no more left behind: seen by the watch, looked at, and removed or let go.

use super::Scope;
use super::prune::{PutAway, put_away};
use super::work::Memory;
use crate::api::DeliveryStatus;
use crate::api::delivery::RemovedEntry;
use crate::cluster::apply::get;
use crate::core::plan::Removal;
use crate::reconcile::fault;
use jiff::{SignedDuration, Timestamp};

/// How soon one that could not be looked at or removed is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// What the watch shows of what left the inventory a short while ago. What was looked at and left alone is not shown again until
/// it changes.
pub fn seen(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) -> Vec<RemovedEntry> {
    let now = scope.daemon.now();
    let counts = |r: &&RemovedEntry| {
        let id = r.id();
        r.counts(now) && !status.inventory.iter().any(|e| e.is(&id))
    };
    let removed: Vec<&RemovedEntry> = status.removed.iter().filter(counts).collect();
    memory.left_alone.retain(|id, _| removed.iter().any(|r| r.id() == *id));
    let shown = removed.into_iter().filter(|r| {
        let id = r.id();
        scope.live(&r.gvk(), &id).is_some_and(|live| {
            *live.label == *scope.label
                && !live.deleting
                && r.may_be(&live.uid)
                && memory.left_alone.get(&id).is_none_or(|version| **version != *live.resource_version)
        })
    });
    shown.cloned().collect()
}

/// Looks at each, and removes or releases what our own apply put there. Answers when to try again what could not be.
pub async fn remove(scope: &Scope<'_>, memory: &mut Memory, late: &[RemovedEntry]) -> Option<Timestamp> {
    let mut again = None;
    for entry in late {
        let id = entry.id();
        let Ok(Some(resource)) = scope.daemon.discovery.find(&entry.gvk()).await else { continue };
        let there = match get(&scope.access, &resource, &entry.namespace, &entry.name).await {
            Ok(Some(there)) => there,
            // The watch has not shown our own delete yet.
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "what a late request may have left could not be looked at");
                again = Some(scope.daemon.now() + RETRY);
                continue;
            }
        };
        let version = there["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let Some(how) = entry.removal(&there, &scope.label) else {
            memory.left_alone.insert(id, version);
            continue;
        };
        match put_away(&scope.access, &resource, &id, &there, how, None).await {
            Ok(PutAway::Done | PutAway::Deleting) => {
                fault::place(|| "amid late removals".into());
                let what = match how {
                    Removal::Delete => {
                        "was made by a late request after it had left the inventory, and was removed"
                    }
                    Removal::Release => {
                        "got our label by a late request after it had left the inventory, and was let go"
                    }
                };
                scope.notify(true, "LateRequest", &id.to_string(), what);
            }
            // It changed meanwhile, and the watch tells.
            Ok(PutAway::Changed) => {}
            Err(error) => {
                tracing::warn!(%error, "what a late request left could not be removed");
                again = Some(scope.daemon.now() + RETRY);
            }
        }
    }
    again
}
