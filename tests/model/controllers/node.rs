//! Nodes that do not answer, and nodes that are full: what becomes of the Pods of ReplicaSets. Pods of Jobs run
//! somewhere else.

use super::*;

/// How the nodes are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nodes {
    /// Since when the first node does not answer.
    away: Option<Timestamp>,
    /// No node has room for one more.
    full: bool,
}

/// The node that is lost.
const FIRST: &str = "node-0";

/// Where Pods go meanwhile.
const SECOND: &str = "node-1";

/// A node that does not answer for so long has its Pods taken away; minutes in a real cluster.
const PATIENCE: SignedDuration = SignedDuration::from_secs(40);

impl Nodes {
    /// Where a new Pod goes, if there is room for it.
    pub fn place(&self, pod: &Value) -> Option<&'static str> {
        let first = if self.away.is_some() { SECOND } else { FIRST };
        (!self.full || !is_served(pod)).then_some(first)
    }

    /// Whether nobody looks after a Pod.
    pub fn lost(&self, pod: &Value) -> bool {
        self.away.is_some() && is_on_first(pod)
    }

    /// Whether Pods are taken away, or find no room.
    pub fn disturb(&self) -> bool {
        self.away.is_some() || self.full
    }
}

/// One of a workload that serves.
fn is_served(pod: &Value) -> bool {
    pod["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet"
}

fn is_on_first(pod: &Value) -> bool {
    is_served(pod) && pod["spec"]["nodeName"] == FIRST
}

fn has_ended(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default())
}

/// Writes a condition of a Pod, whose others stay.
fn mark(cluster: &mut Cluster, key: &Key, kind: &str, status: &str, reason: &str, now: Timestamp) {
    let Some(pod) = cluster.store.get(key.0, &key.1, &key.2).cloned() else { return };
    let mut new = pod.as_ref().clone();
    let changed = condition(&pod["status"]["conditions"], kind, status, reason, "", now);
    let mut all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.retain(|c| c["type"] != kind);
    all.push(changed);
    new["status"]["conditions"] = all.into();
    write(cluster, key, &pod, new);
}

/// The first node does not answer any more, or answers again. Only `Ready` is said of its Pods: nobody knows more.
pub fn answers(cluster: &mut Cluster, now: Timestamp, yes: bool) {
    cluster.controllers.nodes.away = (!yes).then_some(now);
    cluster.controllers.look_again();
    if yes {
        return;
    }
    for (key, pod) in snapshot(cluster, at::POD) {
        if is_on_first(&pod) && !has_ended(&pod) && !is_deleting(&pod) {
            mark(cluster, &key, "Ready", "False", "", now);
        }
    }
}

/// All Pods are evicted, and none finds room; or there is room again.
pub fn room(cluster: &mut Cluster, now: Timestamp, yes: bool) {
    cluster.controllers.nodes.full = !yes;
    cluster.controllers.look_again();
    if !yes {
        for (key, pod) in snapshot(cluster, at::POD) {
            if is_served(&pod) && !pod["spec"]["nodeName"].is_null() {
                take_away(cluster, &key, &pod, "EvictionByEvictionAPI", now);
            }
        }
    }
}

fn take_away(cluster: &mut Cluster, key: &Key, pod: &Value, why: &str, now: Timestamp) {
    if has_ended(pod) || is_deleting(pod) {
        return;
    }
    mark(cluster, key, "DisruptionTarget", "True", why, now);
    delete(cluster, key, now, "Background");
}

/// Takes Pods away from a node that has not answered for long.
pub fn run(cluster: &mut Cluster, now: Timestamp) {
    let Some(since) = cluster.controllers.nodes.away else { return };
    if now < since + PATIENCE {
        return cluster.controllers.at(since + PATIENCE);
    }
    for (key, pod) in snapshot(cluster, at::POD) {
        if is_on_first(&pod) {
            take_away(cluster, &key, &pod, "DeletionByTaintManager", now);
        }
    }
}
