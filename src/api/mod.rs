//! The resources that Windlass defines, and the names that stand on other objects. Data only.

pub mod analysis;
pub mod application;
pub mod condition;
pub mod delivery;
pub mod dependency;
pub mod drift_report;
pub mod duration;
pub mod hook;
pub mod ignore;
pub mod inventory_shard;
pub mod names;
pub mod repository;
pub mod rollout;

pub use application::{Application, ApplicationSpec};
pub use condition::Condition;
pub use delivery::{Delivery, DeliverySpec, DeliveryStatus, Phase};
pub use drift_report::{DriftReport, DriftReportSpec};
pub use duration::Duration;
pub use inventory_shard::InventoryShard;
pub use repository::{Repository, RepositorySpec, RepositoryStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde::Serialize;
use serde_json::{Value, json};

/// The definitions of our resources, as they are written to `manifests/crds/` and applied by `windlass install`.
pub fn crds() -> Vec<Value> {
    [Repository::crd(), Delivery::crd(), Application::crd(), DriftReport::crd(), InventoryShard::crd()]
        .iter()
        .map(definition)
        .collect()
}

/// A definition as the API server takes it, with our labels.
fn definition(crd: &CustomResourceDefinition) -> Value {
    let mut crd = serde_json::to_value(crd).unwrap_or_default();
    if let Some(map) = crd.as_object_mut() {
        map.remove("status");
    }
    crd["metadata"]["labels"] = json!({
        "app.kubernetes.io/name": "windlass",
        "app.kubernetes.io/part-of": "windlass",
    });
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        // Nobody shares a status with the daemon. That the API server notes of each of its fields whose it is would make the object
        // larger, and each write dearer.
        if let Some(status) = version.pointer_mut("/schema/openAPIV3Schema/properties/status") {
            status["x-kubernetes-map-type"] = "atomic".into();
        }
    }
    whole_numbers(&mut crd);
    crd
}

/// A status as a merge patch over the one before: what it has no more is taken out.
pub fn status_over<S: Serialize>(before: &S, new: &S) -> Value {
    let (before, mut new) = (json!(before), json!(new));
    for field in before.as_object().into_iter().flat_map(|map| map.keys()) {
        if new.get(field).is_none() {
            new[field.as_str()] = Value::Null;
        }
    }
    new
}

/// Bounds of a schema are floating-point numbers for the types, and whole ones for whoever reads the manifest.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15);
            if let Some(whole) = whole.filter(|_| number.is_f64()) {
                // Exact: below 2^53.
                *value = Value::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::application::ApplicationStatus;

    #[test]
    fn what_a_status_has_no_more_is_taken_out() {
        let before = ApplicationStatus { url: Some("http://a/".into()), ..ApplicationStatus::default() };
        let patch = status_over(&before, &ApplicationStatus::default());
        assert_eq!(patch["url"], Value::Null);
        assert!(patch.as_object().unwrap().contains_key("url"));
    }

    #[test]
    fn the_status_of_each_resource_is_one_field() {
        let with_status = crds().into_iter().filter_map(|crd| {
            let status = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status")?;
            Some((crd["spec"]["names"]["kind"].clone(), status["x-kubernetes-map-type"].clone()))
        });
        let expected = ["Repository", "Delivery", "Application"].map(|kind| (json!(kind), json!("atomic")));
        assert_eq!(with_status.collect::<Vec<_>>(), expected);
    }
}
