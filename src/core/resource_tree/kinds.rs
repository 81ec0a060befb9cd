//! Which kinds own objects of which others.

use crate::api::names;
use crate::core::look::Looks;
use crate::core::manifest::Gvk;

/// The groups whose kinds are read by controllers that make no object of them.
const READ_ONLY: [&str; 6] = [
    "gateway.networking.k8s.io",
    "monitoring.coreos.com",
    "networking.istio.io",
    "projectcontour.io",
    "security.istio.io",
    "telemetry.istio.io",
];

/// Kinds of `monitoring.coreos.com` and of the Gateway API that workloads are made of.
const MAKERS: [&str; 5] = ["Alertmanager", "Gateway", "Prometheus", "PrometheusAgent", "ThanosRuler"];

/// The kind that a part of a large inventory is kept in.
pub(super) fn shard() -> Gvk {
    Gvk::new(&format!("{}/v1alpha1", names::GROUP), "InventoryShard")
}

/// Kinds by which a Delivery keeps what it knows: they are not what is delivered.
pub(super) fn is_own(gvk: &Gvk) -> bool {
    gvk.group == names::GROUP && matches!(gvk.kind.as_str(), "InventoryShard" | "DriftReport")
}

/// Wishes to see all that an object of this kind may own, and what that may own in turn.
pub(super) fn owned(gvk: &Gvk, namespace: &str, looks: &mut Looks) {
    // What has no namespace owns what may stand anywhere.
    if namespace.is_empty() {
        return;
    }
    for kind in of(gvk) {
        if looks.all(kind.clone(), namespace) {
            owned(&kind, namespace, looks);
        }
    }
}

fn of(gvk: &Gvk) -> Vec<Gvk> {
    let kinds: &[(&str, &str)] = match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("apps" | "extensions", "Deployment") => &[("apps/v1", "ReplicaSet")],
        ("apps", "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("", "ReplicationController")
        | ("batch", "Job") => &[("v1", "Pod")],
        ("batch", "CronJob") => &[("batch/v1", "Job")],
        ("", "Service") => &[("discovery.k8s.io/v1", "EndpointSlice")],
        (names::GROUP, "Application") => &[("apps/v1", "ControllerRevision")],
        (names::GROUP, _) => &[],
        (group, kind) if READ_ONLY.contains(&group) && !MAKERS.contains(&kind) => &[],
        // A kind of an operator's: what it makes of it is mostly what runs.
        (group, _) if !crate::core::health::is_built_in(group) => &[
            ("apps/v1", "Deployment"),
            ("apps/v1", "StatefulSet"),
            ("apps/v1", "DaemonSet"),
            ("batch/v1", "Job"),
            ("v1", "Pod"),
            ("v1", "Service"),
        ],
        _ => &[],
    };
    kinds.iter().map(|(version, kind)| Gvk::new(version, kind)).collect()
}

/// The place of a kind among others below one object.
pub(super) fn rank(kind: &str) -> u8 {
    match kind {
        "Application" | "Delivery" => 0,
        "Deployment" | "StatefulSet" | "DaemonSet" | "CronJob" | "Job" => 1,
        "ReplicaSet" | "Pod" => 2,
        "Service" => 3,
        "EndpointSlice" => 4,
        "ControllerRevision" => 9,
        _ => 5,
    }
}
