//! What is asked of the cluster before the first pod of a candidate is started: whether the route that is to divide traffic can
//! be had, and may.

use super::route;
use super::stage::Eyes;
use crate::api::delivery::{InventoryEntry, Problem};
use crate::api::names;
use crate::api::rollout::Router;
use crate::cluster::apply::list;
use crate::cluster::{ApplyError, Cause, Resource};
use crate::core::bundle::Bundle;
use crate::core::manifest::{Manifest, ObjectId, Origin};
use crate::core::rollout::Refusal;
use crate::core::router::{self, Acceptance, GRANTS, Grant, Place, Split};
use crate::core::variant;
use futures::future::join_all;
use serde_json::Value;
use std::collections::BTreeSet;

/// Whether the route that would be made where there is none is there, and somebody else's: it is divided instead. Only Istio's is
/// made.
pub async fn is_others(
    eyes: &Eyes<'_>,
    router: &Router,
    bundles: [&Bundle; 2],
    inventory: &[InventoryEntry],
) -> Result<bool, Refusal> {
    let id = router.istio.as_ref().and_then(|_| router::target(router, eyes.namespace));
    let Some(id) = id.filter(|id| !id.namespace.is_empty()) else { return Ok(false) };
    let in_git = bundles.iter().any(|bundle| bundle.get(&id).is_some());
    if in_git || inventory.iter().any(|entry| entry.is(&id)) {
        return Ok(false);
    }
    let live = route::read(eyes, &id).await?;
    let ours = |live: &Value| live["metadata"]["labels"][names::DELIVERY_LABEL].as_str() == Some(eyes.label);
    Ok(live.is_some_and(|live| !ours(&live)))
}

/// The objects of others where the workloads are, of the kinds that a rollout has to mind, and what could not be looked at.
pub async fn others(
    eyes: &Eyes<'_>,
    workloads: &[ObjectId],
    bundles: [&Bundle; 2],
    inventory: &[InventoryEntry],
) -> Result<(Vec<Manifest>, Vec<String>), Refusal> {
    let namespaces: BTreeSet<&str> = workloads.iter().map(|id| id.namespace.as_str()).collect();
    let (mut found, mut unchecked) = (Vec::new(), Vec::new());
    for namespace in namespaces {
        let served = variant::minded().filter_map(|(group, kind)| eyes.discovery.preferred(group, kind));
        let look = |resource: Resource| async move {
            let all = list(eyes.access, &resource, namespace).await;
            (resource.gvk, all)
        };
        let mut unseen: Vec<(String, String)> = Vec::new();
        for (gvk, all) in join_all(served.map(look)).await {
            match all {
                Ok(all) => {
                    found.extend(all.into_iter().filter_map(|o| Manifest::new(o, Origin::default()).ok()))
                }
                // A kind that has just gone has no objects.
                Err(ApplyError { cause: Cause::NotFound | Cause::KindUnknown { .. }, .. }) => {}
                Err(error) if error.is_transient() => {
                    let (group, kind) = (gvk.group, gvk.kind);
                    let id = ObjectId { group, kind, namespace: namespace.into(), name: String::new() };
                    return Err(route::refused(&id, &error));
                }
                Err(error) => unseen.push((gvk.kind, error.cause.to_string())),
            }
        }
        if let Some((_, why)) = unseen.first() {
            let kinds: Vec<&str> = unseen.iter().map(|(kind, _)| kind.as_str()).collect();
            unchecked.push(format!(
                "whether objects of others in {namespace} mean the candidate as they mean the workload is not known of {}: {why}",
                kinds.join(", ")
            ));
        }
    }
    found.retain(|object| variant::is_others(object, bundles, inventory, eyes.label));
    Ok((found, unchecked))
}

/// What all layouts of a rollout need of the cluster.
#[derive(Default)]
pub struct Foreseen {
    route: Option<(Router, ObjectId)>,
    /// The route of the Delivery itself.
    own: Option<ObjectId>,
    splits: Vec<Split>,
    needed: Vec<Grant>,
    /// ReferenceGrants that stand beside the candidate.
    brought: Vec<Value>,
}

impl Foreseen {
    /// Adds what a layout needs, whose objects and route are these.
    pub fn add(&mut self, router: &Router, place: &Place, split: Option<&Split>, bundle: &Bundle) {
        match (place, split) {
            (Place::External(id), split) => {
                self.route = Some((router.clone(), id.clone()));
                self.splits.extend(split.cloned());
            }
            (Place::Bundle(id), Some(split)) => {
                let route = bundle.get(id);
                self.need(route.map(|route| router::grants_needed(route, split)).unwrap_or_default());
            }
            (Place::Bundle(_) | Place::Made(_) | Place::Pods, _) => {}
        }
        for object in
            bundle.objects().iter().filter(|o| o.gvk().kind == GRANTS.1 && o.gvk().group == GRANTS.0)
        {
            let value = object.to_value();
            if !self.brought.contains(&value) {
                self.brought.push(value);
            }
        }
    }

    /// The route is in the directory, and stays as it is: what its controller says of it holds for the rollout.
    pub fn own(&mut self, route: &ObjectId) {
        self.own = Some(route.clone());
    }

    fn need(&mut self, grants: Vec<Grant>) {
        for grant in grants {
            if !self.needed.contains(&grant) {
                self.needed.push(grant);
            }
        }
    }

    /// Asks the cluster.
    pub async fn ask(mut self, eyes: &Eyes<'_>) -> Result<(), Refusal> {
        let wrong = |problem: Problem| Refusal { problem, transient: false };
        if let Some((router, id)) = self.route.take() {
            let live = route::read(eyes, &id).await?;
            router::refers(&router, &id.namespace, live.as_ref(), &self.splits).map_err(wrong)?;
            if let Some(route) = live.and_then(|live| Manifest::new(live, Origin::default()).ok()) {
                for split in std::mem::take(&mut self.splits) {
                    self.need(router::grants_needed(&route, &split));
                }
            }
        }
        if let Some(id) = self.own.take()
            && let Some(live) = route::read(eyes, &id).await?
            && let Acceptance::Refused(problem) = router::accepted(&live)
        {
            return Err(wrong(problem));
        }
        self.grants(eyes).await
    }

    /// Whether routes may send traffic to candidates in other namespaces.
    async fn grants(self, eyes: &Eyes<'_>) -> Result<(), Refusal> {
        let namespaces: BTreeSet<&str> = self.needed.iter().map(|grant| grant.namespace.as_str()).collect();
        let mut grants = self.brought;
        let mut unknown = BTreeSet::new();
        for namespace in namespaces {
            let Some(resource) = eyes.discovery.preferred(GRANTS.0, GRANTS.1) else { break };
            match list(eyes.access, &resource, namespace).await {
                Ok(found) => grants.extend(found),
                Err(error) if error.is_transient() => {
                    let id = ObjectId {
                        group: GRANTS.0.into(),
                        kind: GRANTS.1.into(),
                        namespace: namespace.into(),
                        name: String::new(),
                    };
                    return Err(route::refused(&id, &error));
                }
                // Where we may not look the route's controller tells, before the candidate gets any traffic.
                Err(_) => {
                    unknown.insert(namespace.to_owned());
                }
            }
        }
        let needed: Vec<Grant> =
            self.needed.iter().filter(|grant| !unknown.contains(&grant.namespace)).cloned().collect();
        router::grants_checked(&needed, &grants).map_err(|problem| Refusal { problem, transient: false })
    }
}
