//! Objects that carry a Delivery's label and are in no bundle: somebody copied one, or put the label there. They are told, and
//! neither adopted nor deleted.
//!
//! Seen are the kinds that the Delivery has, where its account watches them: in the whole cluster if it may, otherwise in the
//! namespaces where objects of the kind are. Copies that Kubernetes makes are not foreign: it copies the labels of a Service to
//! its EndpointSlices and Endpoints, and what has a controller is its controller's.

use super::Scope;
use super::drift::told;
use super::work::Memory;
use crate::api::DeliveryStatus;
use crate::api::delivery::DriftMode;
use crate::cluster::apply::get;
use crate::cluster::watch::Filter;
use crate::core::drift::label_of;
use crate::core::manifest::{Gvk, ObjectId};
use std::collections::{BTreeMap, BTreeSet};

/// Looks at what carries the label and is not in the inventory; at each such object once. Answers whether all could be looked at.
pub async fn look(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) -> bool {
    let candidates = candidates(scope, memory, status);
    memory.drift.foreign.retain(|id, (uid, _)| candidates.get(id).is_some_and(|(_, of)| of == uid));
    let mut all = true;
    for (id, (gvk, uid)) in candidates {
        if memory.drift.foreign.contains_key(&id) {
            continue;
        }
        // The watch may show what was deleted a moment ago, and it does not keep who put the label there.
        let Ok(Some(resource)) = scope.daemon.discovery.find(&gvk).await else { continue };
        let Ok(there) = get(&scope.access, &resource, &id.namespace, &id.name).await else {
            all = false;
            continue;
        };
        let Some(there) = there.filter(|o| o["metadata"]["uid"].as_str() == Some(&*uid)) else { continue };
        let fields: Vec<_> = label_of(&there).into_iter().collect();
        let found = told(&id, &gvk, "Foreign", fields, scope.daemon.now(), &|text| memory.redact(text));
        memory.drift.foreign.insert(id, (uid, found));
    }
    all
}

fn candidates(
    scope: &Scope<'_>,
    memory: &Memory,
    status: &DeliveryStatus,
) -> BTreeMap<ObjectId, (Gvk, String)> {
    let mut found = BTreeMap::new();
    if scope.spec().drift == DriftMode::Ignore {
        return found;
    }
    let account = scope.account();
    let known: BTreeSet<ObjectId> = status.inventory.iter().map(|e| e.id()).collect();
    let services: BTreeSet<(&str, &str)> = known
        .iter()
        .filter(|id| id.group.is_empty() && id.kind == "Service")
        .map(|id| (id.namespace.as_str(), id.name.as_str()))
        .collect();
    let now = scope.daemon.now();
    let is_removed = |id: &ObjectId| {
        let removed = status.removed.iter().any(|r| r.counts(now) && r.id() == *id);
        removed && !memory.left_alone.contains_key(id)
    };
    let is_hook = |id: &ObjectId| {
        id.group == "batch"
            && id.kind == "Job"
            && status.hooks.iter().any(|run| run.namespace == id.namespace && run.job == id.name)
    };
    for gvk in memory.interests.keys() {
        for (id, entry) in
            scope.daemon.watches.labelled(account.as_ref(), gvk, Filter::Labelled, &scope.label)
        {
            let copied = id.group.is_empty()
                && id.kind == "Endpoints"
                && services.contains(&(id.namespace.as_str(), id.name.as_str()));
            if entry.controlled
                || entry.deleting
                || copied
                || known.contains(&id)
                || is_hook(&id)
                || is_removed(&id)
            {
                continue;
            }
            found.insert(id, (gvk.clone(), entry.uid.into()));
        }
    }
    found
}
