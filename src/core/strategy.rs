//! A change to an update strategy that takes no `rollingUpdate`, over an object that has one by default.
//!
//! The API server gives a Deployment that names no strategy `rollingUpdate` with two defaults, owned by nobody. An apply of
//! `strategy: {type: Recreate}` leaves them standing, and the whole is refused: "may not be specified when strategy `type` is
//! 'Recreate'". Neither `rollingUpdate: null` nor a forced apply helps, and a removal alone is undone by the defaults of the type
//! that still stands (all tried on 1.36). So type and defaults are changed together by a patch, and the apply comes after it.

use crate::api::names::FIELD_MANAGER;
use serde_json::{Value, json};

/// Of a kind with an update strategy, the field that holds it and the type that takes no `rollingUpdate`.
fn strategy_of(manifest: &Value) -> Option<(&'static str, &'static str)> {
    match (manifest["apiVersion"].as_str()?, manifest["kind"].as_str()?) {
        ("apps/v1", "Deployment") => Some(("strategy", "Recreate")),
        ("apps/v1", "StatefulSet") => Some(("updateStrategy", "OnDelete")),
        _ => None,
    }
}

/// The field below `spec` by which a manifest asks for a strategy without `rollingUpdate`; `None` when it does not, or names both.
fn asks(manifest: &Value) -> Option<&'static str> {
    let (field, alone) = strategy_of(manifest)?;
    let strategy = &manifest["spec"][field];
    (strategy["type"] == alone && strategy["rollingUpdate"].is_null()).then_some(field)
}

/// Whether a refusal that names these fields is about the defaults that a manifest's strategy does not go with.
pub fn is_in_the_way<'a>(manifest: &Value, fields: impl IntoIterator<Item = &'a str>) -> bool {
    let Some(field) = asks(manifest) else { return false };
    let (whole, part) = (format!("spec.{field}"), format!("spec.{field}.rollingUpdate"));
    fields.into_iter().any(|f| f == whole || f == part)
}

/// The manifest without its strategy: everything else of it can be tried by a dry-run.
pub fn without(manifest: &Value) -> Value {
    let mut rest = manifest.clone();
    if let (Some(field), Some(spec)) = (asks(manifest), rest["spec"].as_object_mut()) {
        spec.remove(field);
    }
    rest
}

/// Gives the answer of a dry-run [`without`] the strategy that the manifest asks for, as ours.
pub fn put_back(manifest: &Value, answer: &mut Value) {
    let Some(field) = asks(manifest) else { return };
    answer["spec"][field] = json!({ "type": manifest["spec"][field]["type"] });
    let entries = answer["metadata"]["managedFields"].as_array_mut();
    for entry in entries.into_iter().flatten() {
        if entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply" {
            entry["fieldsV1"]["f:spec"][format!("f:{field}")] = json!({ "f:type": {} });
        }
    }
}

/// The operations of a JSON patch (RFC 6902) of `live`, the very object and version, that change its strategy to the
/// manifest's; empty when it has that already.
pub fn patch(manifest: &Value, live: &Value) -> Vec<Value> {
    let Some(field) = asks(manifest) else { return Vec::new() };
    let wanted = json!({ "type": manifest["spec"][field]["type"] });
    if live["spec"][field] == wanted {
        return Vec::new();
    }
    vec![
        json!({"op": "test", "path": "/metadata/uid", "value": live["metadata"]["uid"]}),
        json!({"op": "add", "path": format!("/spec/{field}"), "value": wanted}),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(strategy: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"uid": "u"},
            "spec": {"replicas": 1, "strategy": strategy}})
    }

    #[test]
    fn only_a_strategy_without_rolling_update_is_cleared_of_it() {
        let live = deployment(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}));
        let recreate = deployment(json!({"type": "Recreate"}));
        let field = ["spec.strategy.rollingUpdate"];
        assert!(is_in_the_way(&recreate, field));
        assert!(!is_in_the_way(&recreate, ["spec.replicas"]));
        assert_eq!(without(&recreate)["spec"], json!({"replicas": 1}));
        let mut answer = json!({"spec": {"replicas": 1}, "metadata": {"managedFields": [
            {"manager": "other", "operation": "Apply", "fieldsV1": {}},
            {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ]}});
        put_back(&recreate, &mut answer);
        assert_eq!(answer["spec"]["strategy"], json!({"type": "Recreate"}));
        let fields = &answer["metadata"]["managedFields"];
        assert_eq!(fields[0]["fieldsV1"], json!({}));
        assert_eq!(
            fields[1]["fieldsV1"],
            json!({"f:spec": {"f:replicas": {}, "f:strategy": {"f:type": {}}}})
        );
        let patch = patch(&recreate, &live);
        assert_eq!(patch[1], json!({"op": "add", "path": "/spec/strategy", "value": {"type": "Recreate"}}));
        assert!(super::patch(&recreate, &recreate).is_empty());
        // Git's own mistake stays one.
        let both = deployment(json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}));
        assert!(!is_in_the_way(&both, field));
        let rolling = deployment(json!({"type": "RollingUpdate"}));
        assert!(!is_in_the_way(&rolling, field) && super::patch(&rolling, &live).is_empty());
    }
}
