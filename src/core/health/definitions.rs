//! What other objects need to exist: Namespace, CustomResourceDefinition, APIService; and what is built in
//! without a status.

use super::Verdict;
use super::live::{Condition, Live};
use serde_json::Value;

/// Whether a group is one of Kubernetes itself. What has no rule of its own in them (ConfigMap, Role, NetworkPolicy,
/// StorageClass, admission webhooks and so on) has no health: it is what it says.
pub fn is_built_in(group: &str) -> bool {
    matches!(
        group,
        "" | "apps"
            | "autoscaling"
            | "batch"
            | "extensions"
            | "policy"
            | "admissionregistration.k8s.io"
            | "authentication.k8s.io"
            | "authorization.k8s.io"
            | "certificates.k8s.io"
            | "coordination.k8s.io"
            | "discovery.k8s.io"
            | "events.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "internal.apiserver.k8s.io"
            | "networking.k8s.io"
            | "node.k8s.io"
            | "rbac.authorization.k8s.io"
            | "resource.k8s.io"
            | "scheduling.k8s.io"
            | "storage.k8s.io"
            | "storagemigration.k8s.io"
    )
}

/// Any object with a deletion time: what it still waits for.
pub(super) fn being_deleted(live: &Live<'_>, group: &str, kind: &str) -> Verdict {
    let finalizers: Vec<&str> = live
        .get("/metadata/finalizers")
        .or_else(|| live.get("/spec/finalizers").filter(|_| group.is_empty() && kind == "Namespace"))
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let mut message = "is being deleted".to_owned();
    if !finalizers.is_empty() {
        message.push_str(&format!(" and waits for {}", finalizers.join(", ")));
    }
    // A Namespace tells in its conditions which content or which API holds it up.
    let held_up: Vec<String> = match (group, kind) {
        ("", "Namespace") => live.conditions().filter(Condition::is_true).map(|c| c.why()).collect(),
        _ => Vec::new(),
    };
    if !held_up.is_empty() {
        message.push_str(&format!(": {}", held_up.join("; ")));
    }
    Verdict::progressing(message)
}

/// A Namespace.
pub(super) fn namespace(live: &Live<'_>) -> Verdict {
    match live.text("/status/phase") {
        "Terminating" => being_deleted(live, "", "Namespace"),
        "Active" => Verdict::healthy("is active"),
        _ => Verdict::progressing("is not active yet"),
    }
}

/// A CustomResourceDefinition is healthy once its resources can be written.
pub(super) fn custom_resource_definition(live: &Live<'_>) -> Verdict {
    if let Some(names) = live.condition("NamesAccepted").filter(Condition::is_false) {
        return Verdict::broken("NamesNotAccepted", format!("its names are taken: {}", names.why()));
    }
    if live.condition("Terminating").is_some_and(|c| c.is_true()) {
        return Verdict::progressing("is being deleted with its resources");
    }
    match live.condition("Established") {
        Some(established) if established.is_true() => Verdict::healthy("is established"),
        Some(established) if established.is_false() && established.reason != "Installing" => {
            Verdict::degraded(format!("is not established: {}", established.why()))
        }
        _ => Verdict::progressing("is not established yet: its resources cannot be written"),
    }
}

/// An APIService is healthy when its server answers.
pub(super) fn api_service(live: &Live<'_>) -> Verdict {
    match live.condition("Available") {
        Some(available) if available.is_true() => Verdict::healthy("its API is available"),
        Some(available) if available.is_false() => {
            Verdict::progressing(format!("its API is not available: {}", available.why()))
        }
        _ => Verdict::progressing("has not been checked yet"),
    }
}
