//! Values that the API server fills in by itself.
//!
//! Two uses: what is more inside a value that counts as one is no difference when it is a default; and a field that somebody owns only
//! since the server filled it in at creation did not come from a manifest. Wrong or missing entries cost a dry-run or a removal
//! that has no effect.

use super::KindOf;
use crate::core::fields::Segment;
use serde_json::{Value, json};

/// Whether `value` is what the API server would put at this path by itself.
pub(crate) fn is_default(of: KindOf, at: &[Segment], value: &Value) -> bool {
    let mut names = at.iter().rev().filter_map(|step| match step {
        Segment::Field(name) => Some(name.as_str()),
        _ => None,
    });
    let name = names.next().unwrap_or_default();
    let parent = names.next().unwrap_or_default();
    match of.group {
        "gateway.networking.k8s.io" => gateway(parent, name, value),
        _ if of.is_built_in() => by_place(of, parent, name, value) || by_name(name, value),
        _ => false,
    }
}

fn by_place(of: KindOf, parent: &str, name: &str, value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    match (parent, name) {
        ("fieldRef", "apiVersion") => text == "v1",
        ("resourceFieldRef", "divisor") => text == "0",
        ("serviceAccountToken", "expirationSeconds") => *value == 3600,
        ("volumeClaimTemplates", "apiVersion") => text == "v1",
        ("volumeClaimTemplates", "kind") => text == "PersistentVolumeClaim",
        ("volumeClaimTemplates", "status") => *value == json!({"phase": "Pending"}),
        ("subjects" | "roleRef", "apiGroup") => text == "rbac.authorization.k8s.io",
        ("rules", "scope") if of.group == "admissionregistration.k8s.io" => text == "*",
        ("strategy" | "updateStrategy", "type") => text == "RollingUpdate",
        ("rollingUpdate", "maxSurge") => {
            if of.kind == "DaemonSet" {
                *value == 0
            } else {
                text == "25%"
            }
        }
        ("rollingUpdate", "maxUnavailable") => {
            if of.kind == "DaemonSet" {
                *value == 1
            } else {
                text == "25%"
            }
        }
        ("spec", "replicas") => *value == 1,
        ("spec", "minReplicas") => *value == 1,
        ("spec", "type") => of.kind == "Service" && text == "ClusterIP",
        (_, "type") if of.is_secret() => text == "Opaque",
        ("hostPath", "type") => text.is_empty(),
        ("httpGet", "path") => text == "/",
        _ => false,
    }
}

fn by_name(name: &str, value: &Value) -> bool {
    let defaults: &[&str] = match name {
        "protocol" => &["TCP"],
        "terminationMessagePath" => &["/dev/termination-log"],
        "terminationMessagePolicy" => &["File"],
        "imagePullPolicy" => &["Always", "IfNotPresent"],
        "dnsPolicy" => &["ClusterFirst"],
        "restartPolicy" => &["Always"],
        "schedulerName" => &["default-scheduler"],
        "scheme" => &["HTTP"],
        "podManagementPolicy" => &["OrderedReady"],
        "whenDeleted" | "whenScaled" => &["Retain"],
        "completionMode" => &["NonIndexed"],
        "podReplacementPolicy" => &["TerminatingOrFailed"],
        "concurrencyPolicy" => &["Allow"],
        "sessionAffinity" => &["None"],
        "internalTrafficPolicy" | "externalTrafficPolicy" => &["Cluster"],
        "ipFamilyPolicy" => &["SingleStack"],
        "volumeMode" => &["Filesystem"],
        "persistentVolumeReclaimPolicy" => &["Retain"],
        _ => {
            let number = match name {
                "terminationGracePeriodSeconds" => 30,
                "defaultMode" => 420,
                "successThreshold"
                | "timeoutSeconds"
                | "failedJobsHistoryLimit"
                | "completions"
                | "parallelism" => 1,
                "failureThreshold" | "successfulJobsHistoryLimit" => 3,
                "periodSeconds" | "revisionHistoryLimit" => 10,
                "progressDeadlineSeconds" => 600,
                "backoffLimit" => 6,
                "partition" => 0,
                "securityContext" | "resources" => return *value == json!({}),
                "suspend" => return *value == json!(false),
                "allocateLoadBalancerNodePorts" => return *value == json!(true),
                "creationTimestamp" => return value.is_null(),
                _ => return false,
            };
            return *value == number;
        }
    };
    value.as_str().is_some_and(|text| defaults.contains(&text))
}

fn gateway(parent: &str, name: &str, value: &Value) -> bool {
    let text = value.as_str();
    match (parent, name) {
        ("parentRefs", "group") => text == Some("gateway.networking.k8s.io"),
        ("parentRefs", "kind") => text == Some("Gateway"),
        ("backendRefs" | "backendRef", "group") => text == Some(""),
        ("backendRefs" | "backendRef", "kind") => text == Some("Service"),
        ("backendRefs", "weight") => *value == 1,
        ("rules", "matches") => *value == json!([{"path": {"type": "PathPrefix", "value": "/"}}]),
        ("path", "type") => text == Some("PathPrefix"),
        ("path", "value") => text == Some("/"),
        ("headers" | "queryParams", "type") => text == Some("Exact"),
        _ => false,
    }
}

/// Whether a field is given out by the API server or a controller once and for all, so that it is never ours to take away.
pub(crate) fn is_allocated(of: KindOf, at: &[Segment]) -> bool {
    let names: Vec<&str> = at
        .iter()
        .filter_map(|step| match step {
            Segment::Field(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    match (of.group, of.kind, names.as_slice()) {
        (
            "",
            "Service",
            [
                "spec",
                "clusterIP" | "clusterIPs" | "ipFamilies" | "ipFamilyPolicy" | "healthCheckNodePort",
                ..,
            ]
            | ["spec", "ports", "nodePort", ..],
        ) => true,
        ("", "PersistentVolumeClaim" | "Pod" | "Namespace", ["spec", ..]) => true,
        ("", "PersistentVolume", ["spec", "claimRef", ..]) => true,
        ("", "ServiceAccount", ["secrets", ..]) => true,
        ("batch", "Job", ["spec", "selector" | "template", ..]) => true,
        (_, _, ["metadata", "labels", name]) => name.starts_with("kubernetes.io/metadata."),
        (_, _, ["metadata", "annotations", name]) => {
            name.starts_with("pv.kubernetes.io/")
                || name.starts_with("deployment.kubernetes.io/")
                || name.starts_with("volume.kubernetes.io/")
                || name.starts_with("volume.beta.kubernetes.io/")
        }
        (_, _, ["metadata", "finalizers" | "ownerReferences", ..]) => true,
        // A second name of `serviceAccountName`, kept by the server.
        (_, _, [.., "serviceAccount"]) => of.is_built_in(),
        _ => false,
    }
}

/// Whether an empty scalar is no value to a built-in type: texts, and the numbers of probes. Other numbers and switches with a default
/// other than zero tell zero from nothing (`replicas: 0`).
pub(super) fn is_unset(at: &[Segment], value: &Value) -> bool {
    let probe = matches!(at.last(), Some(Segment::Field(name)) if matches!(name.as_str(), "periodSeconds" | "timeoutSeconds" | "successThreshold" | "failureThreshold"));
    value.as_str() == Some("") || (probe && *value == 0)
}

/// Whether a path is that of a map whose keys are free (labels, data, limits), rather than of a struct; or a part of `metadata`.
pub(crate) fn is_free_map(at: &[Segment]) -> bool {
    const FREE: [&str; 11] = [
        "labels",
        "annotations",
        "data",
        "binaryData",
        "stringData",
        "nodeSelector",
        "matchLabels",
        "limits",
        "requests",
        "hard",
        "parameters",
    ];
    match at {
        [Segment::Field(top), _] if top == "metadata" => true,
        [.., Segment::Field(name)] => FREE.contains(&name.as_str()),
        _ => false,
    }
}
