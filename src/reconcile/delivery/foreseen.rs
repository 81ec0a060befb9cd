//! What is asked of the cluster before the first pod of a candidate is started: whether the route that is to divide traffic can
//! be had, and may.

use super::route;
use super::stage::Eyes;
use crate::api::delivery::{InventoryEntry, Problem};
use crate::api::names;
use crate::api::rollout::Router;
use crate::cluster::apply::list;
use crate::core::bundle::Bundle;
use crate::core::manifest::{Manifest, ObjectId, Origin};
use crate::core::rollout::Refusal;
use crate::core::router::{self, GRANTS, Grant, Place, Split};
use serde_json::Value;
use std::collections::BTreeSet;

/// What all layouts of a rollout need of the cluster.
#[derive(Default)]
pub struct Foreseen {
    route: Option<(Router, ObjectId)>,
    made: Option<ObjectId>,
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
            (Place::Made(id), _) => self.made = Some(id.clone()),
            (Place::Bundle(id), Some(split)) => {
                let route = bundle.get(id);
                self.need(route.map(|route| router::grants_needed(route, split)).unwrap_or_default());
            }
            (Place::Bundle(_) | Place::Pods, _) => {}
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

    fn need(&mut self, grants: Vec<Grant>) {
        for grant in grants {
            if !self.needed.contains(&grant) {
                self.needed.push(grant);
            }
        }
    }

    /// Asks the cluster.
    pub async fn ask(mut self, eyes: &Eyes<'_>, inventory: &[InventoryEntry]) -> Result<(), Refusal> {
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
        if let Some(id) = self.made.take().filter(|id| !inventory.iter().any(|e| e.is(id)))
            && let Some(live) = route::read(eyes, &id).await?
            && live
                .pointer("/metadata/labels")
                .and_then(|l| l.get(names::DELIVERY_LABEL))
                .and_then(Value::as_str)
                != Some(eyes.label)
        {
            return Err(wrong(Problem {
                reason: "RouteConflict".into(),
                object: id.to_string(),
                message: format!(
                    "{id} is in the cluster and somebody else's, and one of that name would be made for the rollout: \
                     it is not in the directory. Write it there, or name another in spec.rollout.router.istio"
                ),
            }));
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
