//! Replicas that left Git because an autoscaler takes over.
//!
//! Where only we own `spec.replicas`, an apply without it makes the server fall back to its default: one. Adding an
//! autoscaler while dropping `replicas` from the manifest, as its documentation asks for, would so scale to one. While
//! an autoscaler targets the workload and nobody else has taken `replicas` over, the live value is applied instead.

use super::fields::{Path, owners};
use super::manifest::{Manifest, ObjectId};
use crate::api::delivery::InventoryEntry;
use crate::api::names::FIELD_MANAGER;
use serde_json::Value;

/// Kinds of autoscaler: what they name is what they scale.
pub const AUTOSCALERS: [(&str, &str); 2] =
    [("autoscaling/v2", "HorizontalPodAutoscaler"), ("keda.sh/v1alpha1", "ScaledObject")];

/// The workload that an autoscaler scales.
pub fn target(autoscaler: &Value) -> Option<ObjectId> {
    let kind = autoscaler["kind"].as_str()?;
    AUTOSCALERS.iter().find(|(_, k)| *k == kind)?;
    let target = &autoscaler["spec"]["scaleTargetRef"];
    // A ScaledObject names a Deployment when it does not say what it names.
    let api = target["apiVersion"].as_str().unwrap_or("apps/v1");
    Some(ObjectId {
        group: api.split_once('/').map_or("", |(group, _)| group).into(),
        kind: target["kind"].as_str().unwrap_or("Deployment").into(),
        namespace: autoscaler["metadata"]["namespace"].as_str().unwrap_or_default().into(),
        name: target["name"].as_str()?.into(),
    })
}

/// Whether applying a manifest may take `replicas` away: it names none, and what was applied before did.
pub fn may_drop_replicas(
    manifest: &Manifest,
    previous: Option<&Manifest>,
    entry: Option<&InventoryEntry>,
) -> bool {
    let names = |m: &Manifest| m.fields().get("spec").is_some_and(|spec| spec.get("replicas").is_some());
    let kept = entry.is_some_and(|e| e.replicas.is_some());
    manifest.fields().get("spec").is_some() && !names(manifest) && (kept || previous.is_some_and(names))
}

/// The replicas to go on applying: those that are live, unless somebody else has taken the field over.
pub fn replicas_to_keep(live: &Value) -> Option<i64> {
    let path = Path::fields(["spec", "replicas"]);
    let taken = owners(live).iter().any(|o| o.manager != FIELD_MANAGER && o.fields.contains(&path));
    if taken { None } else { live["spec"]["replicas"].as_i64() }
}

/// A manifest with the replicas that are kept for it.
pub fn with_replicas(mut manifest: Value, replicas: Option<i64>) -> Value {
    if let (Some(replicas), Some(spec)) = (replicas, manifest.get_mut("spec").and_then(Value::as_object_mut))
    {
        spec.entry("replicas").or_insert_with(|| replicas.into());
    }
    manifest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::tree::Origin;
    use serde_json::json;

    fn web(replicas: Option<i64>) -> Manifest {
        let value =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {}});
        Manifest::new(with_replicas(value, replicas), Origin::default()).unwrap()
    }

    #[test]
    fn replicas_may_be_dropped_only_when_they_were_applied_before() {
        let (with, without) = (web(Some(3)), web(None));
        assert!(may_drop_replicas(&without, Some(&with), None));
        assert!(!may_drop_replicas(&without, Some(&without), None));
        assert!(!may_drop_replicas(&with, Some(&with), None));
        assert!(!may_drop_replicas(&without, None, None));
    }

    #[test]
    fn the_live_value_is_kept_until_somebody_else_owns_it() {
        let live = |manager: &str| {
            json!({
                "metadata": {"managedFields": [
                    {"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1",
                     "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                ]},
                "spec": {"replicas": 7},
            })
        };
        assert_eq!(replicas_to_keep(&live("windlass")), Some(7));
        assert_eq!(replicas_to_keep(&live("kube-controller-manager")), None);
    }

    #[test]
    fn an_object_without_a_spec_is_left_alone() {
        let map = json!({"kind": "ConfigMap", "data": {"a": "b"}});
        assert_eq!(with_replicas(map.clone(), None), map);
        assert_eq!(with_replicas(map.clone(), Some(3)), map);
    }

    #[test]
    fn autoscalers_name_what_they_scale() {
        let hpa = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
        });
        assert_eq!(target(&hpa).unwrap().to_string(), "Deployment shop/web");
        let keda = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"scaleTargetRef": {"name": "web"}},
        });
        assert_eq!(target(&keda), target(&hpa));
        assert_eq!(target(&json!({"kind": "Service"})), None);
    }
}
