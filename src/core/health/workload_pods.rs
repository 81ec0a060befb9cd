//! The pods of a workload: which of them belong to the revision that is being rolled out, and what is wrong
//! with those.
//!
//! Old pods do not count: that the last revision crashes is often why there is a new one.

use super::essence::template_digest;
use super::live::{Condition, Live};
use super::pod::{PodRules, pod_image_trouble, pod_trouble, pod_waits_for};
use super::workloads::refusal;
use super::{Broken, verdict};
use serde_json::Value;
use std::borrow::Borrow;

/// The label by which StatefulSets and DaemonSets mark a pod with its revision.
const REVISION_HASH: &str = "controller-revision-hash";
/// The number that a Deployment shares with its newest ReplicaSet.
const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";
/// The number of the pod template of a DaemonSet, which the API server raises at each change of it, and the
/// label of the pods that were made from it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const POD_TEMPLATE_GENERATION: &str = "pod-template-generation";

/// The newest ReplicaSet of a Deployment. A change of the template back to an older one gives that ReplicaSet
/// the new number. Until the controller has said that it looked, it is the one with the Deployment's template: that is how
/// the controller itself finds it, and a busy one says so seconds after the pods were made.
fn new_replica_set<'a, V: Borrow<Value>>(deployment: &Live<'_>, replica_sets: &'a [V]) -> Option<Live<'a>> {
    let mut own =
        replica_sets.iter().map(|set| Live::new(set.borrow())).filter(|set| set.is_controlled_by(deployment));
    if deployment.is_unobserved() {
        let template = template_digest(deployment)?;
        return own.find(|set| template_digest(set).as_ref() == Some(&template));
    }
    let revision = deployment.keyed("/metadata/annotations", DEPLOYMENT_REVISION)?;
    own.find(|set| set.keyed("/metadata/annotations", DEPLOYMENT_REVISION) == Some(revision))
}

/// The pods of a workload's newest revision. Pods that are being deleted are left out.
///
/// - Deployment: those of the ReplicaSet whose revision annotation is the Deployment's, or, while the controller has not
///   observed the current generation, whose template is.
/// - StatefulSet: those with the label of `status.updateRevision`; a partition keeps the others old on
///   purpose. None while the controller has not observed the current generation, since until then the newest
///   revision it knows is the last one.
/// - DaemonSet: those with the template generation of the DaemonSet's annotation. A pod made from an equal
///   template of an earlier generation is left out, although the controller keeps it: doubt is never called
///   broken.
/// - Job: all that it controls. ReplicaSet, ReplicationController: the same, once they are observed. Pod: itself.
pub fn new_pods<'a, V: Borrow<Value>>(
    workload: &'a Value,
    replica_sets: &[V],
    pods: &'a [V],
) -> Vec<&'a Value> {
    let live = Live::new(workload);
    let kind = live.text("/kind");
    if kind == "Pod" {
        return vec![workload];
    }
    let controlled_by = |owner: &Live<'_>| -> Vec<&'a Value> {
        let counts = |pod: &Live<'_>| {
            pod.is_controlled_by(owner) && pod.text("/metadata/deletionTimestamp").is_empty()
        };
        pods.iter().map(V::borrow).filter(|pod| counts(&Live::new(pod))).collect()
    };
    let labelled =
        |label: &'static str, wanted: Option<&str>| match wanted.filter(|wanted| !wanted.is_empty()) {
            None => Vec::new(),
            Some(wanted) => controlled_by(&live)
                .into_iter()
                .filter(|pod| Live::new(pod).keyed("/metadata/labels", label) == Some(wanted))
                .collect(),
        };
    match kind {
        "Deployment" => match new_replica_set(&live, replica_sets) {
            Some(set) => controlled_by(&set),
            None => Vec::new(),
        },
        "StatefulSet" | "ReplicaSet" | "ReplicationController" if live.is_unobserved() => Vec::new(),
        "StatefulSet" => labelled(REVISION_HASH, Some(live.text("/status/updateRevision"))),
        "DaemonSet" => {
            labelled(POD_TEMPLATE_GENERATION, live.keyed("/metadata/annotations", TEMPLATE_GENERATION))
        }
        "Job" | "ReplicaSet" | "ReplicationController" => controlled_by(&live),
        _ => Vec::new(),
    }
}

/// Pods of an older revision that stand in the way of the newest one: a StatefulSet that replaces its pods in order waits for
/// each to become ready before it goes on, so one that is broken keeps it from ever getting the mended template
/// (Kubernetes calls deleting it by hand a forced rollback). Pods that a partition keeps old are left out.
pub fn pods_in_the_way<'a, V: Borrow<Value>>(
    workload: &Value,
    pods: &'a [V],
    rules: &PodRules,
) -> Vec<&'a Value> {
    let live = Live::new(workload);
    let in_order = live.text("/kind") == "StatefulSet"
        && live.text("/spec/podManagementPolicy") != "Parallel"
        && live.text("/spec/updateStrategy/type") != "OnDelete";
    let newest = live.text("/status/updateRevision");
    if !in_order || live.is_unobserved() || newest.is_empty() {
        return Vec::new();
    }
    let partition = live.count("/spec/updateStrategy/rollingUpdate/partition");
    let ordinal =
        |pod: &Live<'_>| -> Option<i64> { pod.text("/metadata/name").rsplit('-').next()?.parse().ok() };
    let stuck = |pod: &Live<'_>| {
        pod.is_controlled_by(&live)
            && pod.text("/metadata/deletionTimestamp").is_empty()
            && pod.keyed("/metadata/labels", REVISION_HASH).is_some_and(|hash| hash != newest)
            && ordinal(pod).is_some_and(|n| n >= partition)
    };
    let broken = |pod: &&Value| stuck(&Live::new(pod)) && pod_trouble(pod, rules).is_some();
    pods.iter().map(V::borrow).filter(broken).collect()
}

/// Why a workload's newest revision will not become healthy however long one waits, from the workload itself,
/// its ReplicaSets and its pods (more of both may be handed in: owners are compared). The Pods of the newest
/// revision come first, since they know the cause where the workload knows only that time ran out.
pub fn workload_trouble<V: Borrow<Value>>(
    workload: &Value,
    replica_sets: &[V],
    pods: &[V],
    rules: &PodRules,
) -> Option<Broken> {
    let live = Live::new(workload);
    if !live.text("/metadata/deletionTimestamp").is_empty() {
        return None;
    }
    let kind = live.text("/kind");
    let of_pods = new_pods(workload, replica_sets, pods).into_iter().find_map(|pod| match kind {
        "Job" => pod_image_trouble(&Live::new(pod)),
        _ => pod_trouble(pod, rules),
    });
    if of_pods.is_some() {
        return of_pods;
    }
    let own = verdict(workload).broken;
    if kind != "Deployment" || live.is_unobserved() {
        return own;
    }
    let Some(set) = new_replica_set(&live, replica_sets) else { return own };
    // The condition is kept when the template goes back to an older ReplicaSet, but still names the one that
    // timed out.
    let own = own.filter(|broken| {
        broken.reason != "ProgressDeadlineExceeded"
            || live
                .condition("Progressing")
                .is_none_or(|c| names_no_other(c.message, set.text("/metadata/name")))
    });
    own.or_else(|| {
        let failure = set.condition("ReplicaFailure").filter(Condition::is_true)?;
        // Old pods that still run may make room; the Deployment's verdict knows, and repeats the ReplicaSet's
        // condition.
        let room = live.count("/status/replicas") > live.count("/status/updatedReplicas");
        refusal(failure.message, room || live.count("/status/terminatingReplicas") > 0)
    })
}

/// Whether a message quotes no ReplicaSet but the given one: `ReplicaSet "web-5d4f" has timed out
/// progressing.`
fn names_no_other(message: &str, name: &str) -> bool {
    match message.strip_prefix("ReplicaSet \"").and_then(|rest| rest.split_once('"')) {
        Some((named, _)) => named == name,
        None => true,
    }
}

/// What the first pod of the newest revision that is not ready waits for: the cause to show beside a verdict
/// such as `0 of 3 pods are available`, also when nothing is beyond doubt broken.
pub fn workload_waits_for<V: Borrow<Value>>(
    workload: &Value,
    replica_sets: &[V],
    pods: &[V],
) -> Option<String> {
    let new = new_pods(workload, replica_sets, pods);
    let rules = PodRules::default();
    new.iter()
        .find_map(|pod| pod_trouble(pod, &rules).map(|broken| broken.message))
        .or_else(|| new.iter().find_map(|pod| pod_waits_for(pod)))
}
