//! Routes of the Gateway API: the custom kind, and how its rules read.

use serde_json::{Value, json};

/// The definition of HTTPRoutes, as far as the daemon can tell it from the one that is installed: shapes, atomic lists,
/// defaults.
pub fn http_routes() -> Value {
    definition("HTTPRoute", json!([{"path": {"type": "PathPrefix", "value": "/"}}]))
}

/// The same of GRPCRoutes, in which a rule without matches has none.
pub fn grpc_routes() -> Value {
    definition("GRPCRoute", Value::Null)
}

fn definition(kind: &str, all: Value) -> Value {
    let text = json!({"type": "string"});
    let or = |default: &str| json!({"type": "string", "default": default});
    let backend = json!({"type": "object", "properties": {
        "group": or(""), "kind": or("Service"), "name": text, "namespace": text, "port": {"type": "integer"},
        "weight": {"type": "integer", "default": 1},
    }});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let list = |items: &Value| json!({"type": "array", "x-kubernetes-list-type": "atomic", "items": items});
    let mut matches = list(&open);
    if !all.is_null() {
        matches["default"] = all;
    }
    let rule = json!({"type": "object", "properties": {
        "matches": matches, "filters": list(&open), "backendRefs": list(&backend),
    }});
    let parent = json!({"type": "object", "properties": {
        "group": or("gateway.networking.k8s.io"), "kind": or("Gateway"), "name": text, "namespace": text,
    }});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "parentRefs": list(&parent), "hostnames": list(&text), "rules": list(&rule),
        }},
        "status": open,
    }});
    custom("gateway.networking.k8s.io", kind, &schema)
}

/// The definition of a namespaced kind of one version.
pub(super) fn custom(group: &str, kind: &str, schema: &Value) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

/// The backends of rules, with their weights.
pub fn named(rules: &Value) -> impl Iterator<Item = (&str, u64)> {
    let all = rules.as_array().into_iter().flatten().flat_map(|rule| rule["backendRefs"].as_array());
    let weight = |backend: &Value| backend["weight"].as_u64().unwrap_or(1);
    all.flatten().filter_map(move |backend| Some((backend["name"].as_str()?, weight(backend))))
}

/// Those that get traffic.
pub fn backends(rules: &Value) -> impl Iterator<Item = (&str, u64)> {
    named(rules).filter(|(_, weight)| *weight > 0)
}
