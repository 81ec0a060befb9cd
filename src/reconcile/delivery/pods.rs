//! The pods of workloads that are not healthy while a revision is being put in place or watched on: watched from the
//! moment in which the workload is seen, so that one event of the API server is all that lies between a pod that cannot
//! start and what is done about it.

use super::Scope;
use super::work::Memory;
use crate::api::DeliveryStatus;
use crate::api::delivery::{Problem, Step};
use crate::cluster::PodWatch;
use crate::core::application::is_application;
use crate::core::health::{
    PodRules, disturbance, pod_disturbance, pods_in_the_way, workload_trouble, workload_waits_for,
};
use crate::core::manifest::ObjectId;
use crate::core::rollout::{PodRef, read_stamp};
use crate::reconcile::live::version;
use jiff::SignedDuration;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far back restarts are counted at least while what left Git is being removed.
const LOOKED_BACK: SignedDuration = SignedDuration::from_mins(10);

/// The pods of a Delivery's unsettled workloads.
#[derive(Default)]
pub struct Pods {
    watches: BTreeMap<ObjectId, (String, PodWatch)>,
    troubles: BTreeMap<ObjectId, Problem>,
    waits: BTreeMap<ObjectId, String>,
    disturbed: BTreeMap<ObjectId, String>,
    unseen: BTreeSet<ObjectId>,
    in_the_way: Vec<PodRef>,
}

impl Pods {
    /// Workloads that are broken beyond doubt, by what their new pods show.
    pub fn troubles(&self) -> &BTreeMap<ObjectId, Problem> {
        &self.troubles
    }

    /// What the new pods of a workload wait for.
    pub fn waits_for(&self, id: &ObjectId) -> Option<&str> {
        self.waits.get(id).map(String::as_str)
    }

    /// Why a workload's pods are not ready although its template is not to blame, while it is watched on.
    pub fn disturbance(&self, id: &ObjectId) -> Option<&str> {
        self.disturbed.get(id).map(String::as_str)
    }

    /// Whether the pods of a workload that is watched on are not all seen yet.
    pub fn is_unseen(&self, id: &ObjectId) -> bool {
        self.unseen.contains(id)
    }

    /// Broken pods of an older revision that keep a workload from getting the new one.
    pub fn in_the_way(&self) -> &[PodRef] {
        &self.in_the_way
    }

    /// Ends all watches.
    pub fn clear(&mut self) {
        *self = Pods::default();
    }
}

/// Whether a revision that was healthy is looked after: what a lost node or an eviction explains is not held against it.
pub fn is_watched_on(status: &DeliveryStatus) -> bool {
    match &status.attempt {
        Some(attempt) => attempt.step == Step::Pruning,
        None => status.bake.is_some(),
    }
}

/// When a pod is broken, however old it is.
pub fn rules(scope: &Scope<'_>) -> PodRules {
    let max_restarts = scope.delivery.spec.template.health.as_ref().and_then(|h| h.max_restarts);
    let usual = PodRules::default();
    PodRules { max_restarts: max_restarts.unwrap_or(usual.max_restarts), ..usual }
}

/// Watches the pods of each workload that is not healthy, and looks at what they show.
pub fn follow(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) {
    let attempt = status.attempt.as_ref().filter(|a| a.step != Step::Removing);
    let bake = status.bake.as_ref().filter(|_| status.attempt.is_none());
    let Some(since) = attempt.map(|a| &a.started_at).or_else(|| bake.map(|b| &b.since)) else {
        return memory.pods.clear();
    };
    let now = scope.daemon.now();
    let since = match is_watched_on(status) && attempt.is_some() {
        // What a finalizer holds up may last for weeks, and what happens in these is not all the revision's doing.
        true => read_stamp(since).max(now - scope.spec().timeout.max(LOOKED_BACK)),
        false => read_stamp(since),
    };
    let rules = PodRules { since: Some(since), ..rules(scope) };
    let work = memory.work.as_ref().filter(|w| attempt.is_some_and(|a| w.revision == a.revision));
    let inventory = work.map_or(status.inventory.as_slice(), |w| w.inventory.as_slice());
    let mut unsettled: BTreeMap<ObjectId, Arc<Value>> = BTreeMap::new();
    for entry in inventory.iter().filter(|e| !e.stale && e.uid.is_some()) {
        let id = entry.id();
        let Some(live) = scope.live(&entry.gvk(), &id) else { continue };
        let written = work.and_then(|w| w.written.get(&id));
        if written.is_some_and(|w| version(&live) < w.resource_version) {
            continue;
        }
        // One that wants no pods has none to look at.
        if let Some(workload) = &live.kept.workload
            && workload["spec"]["replicas"] != 0
            // How its pods are told apart is its own Delivery's business, but for those that are taken away.
            && (!is_application(workload) || is_watched_on(status))
        {
            unsettled.insert(id, workload.clone());
        }
    }
    let pods = &mut memory.pods;
    pods.watches.retain(|id, (uid, _)| {
        unsettled.get(id).is_some_and(|w| w["metadata"]["uid"].as_str() == Some(uid.as_str()))
    });
    pods.troubles.clear();
    pods.waits.clear();
    pods.disturbed.clear();
    pods.unseen.clear();
    pods.in_the_way.clear();
    let account = scope.account();
    for (id, workload) in unsettled {
        if !pods.watches.contains_key(&id) {
            let started = scope.daemon.pods.watch(
                account.as_ref(),
                &id.namespace,
                &workload["spec"]["selector"],
                scope.daemon.waker(&scope.label),
            );
            match started {
                Ok(watch) => {
                    let uid = workload["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                    pods.watches.insert(id.clone(), (uid, watch));
                }
                Err(error) => tracing::debug!(object = %id, %error, "pods are not watched"),
            }
        }
        let Some((_, watch)) = pods.watches.get(&id) else { continue };
        // What is not seen yet is missing: that can hide what is wrong, never make it up.
        let (sets, mut all) = (watch.replica_sets(), watch.pods());
        if is_watched_on(status) {
            if !watch.is_complete() {
                pods.unseen.insert(id.clone());
            }
            if let Some(why) = disturbance(&workload, &sets, &all) {
                pods.disturbed.insert(id.clone(), why);
            }
            // What such a pod says of its containers may be from before.
            all.retain(|pod| pod_disturbance(pod).is_none());
        }
        if is_application(&workload) {
            continue;
        }
        // An older pod is what it is since before this attempt.
        let any_time = PodRules { since: None, ..rules.clone() };
        pods.in_the_way.extend(pods_in_the_way(&workload, &all, &any_time).into_iter().map(|pod| {
            let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
            PodRef { namespace: text("namespace"), name: text("name"), uid: text("uid") }
        }));
        if let Some(broken) = workload_trouble(&workload, &sets, &all, &rules) {
            let problem =
                Problem { reason: broken.reason.into(), object: id.to_string(), message: broken.message };
            pods.troubles.insert(id.clone(), problem);
        } else if let Some(waits) = workload_waits_for(&workload, &sets, &all) {
            pods.waits.insert(id, waits);
        } else if let Some(cause) = watch.failing().filter(|c| !c.is_transient()) {
            pods.waits.insert(id, format!("its pods are not seen: {cause}"));
        }
    }
}
