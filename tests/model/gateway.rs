//! Routes of the Gateway API: the custom kind, and how its rules read.

use serde_json::{Value, json};

/// The definition of HTTPRoutes, as far as the daemon can tell it from the one that is installed: shapes, atomic lists,
/// defaults.
pub fn http_routes() -> Value {
    let text = json!({"type": "string"});
    let or = |default: &str| json!({"type": "string", "default": default});
    let backend = json!({"type": "object", "properties": {
        "group": or(""), "kind": or("Service"), "name": text, "namespace": text, "port": {"type": "integer"},
        "weight": {"type": "integer", "default": 1},
    }});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let list = |items: &Value| json!({"type": "array", "x-kubernetes-list-type": "atomic", "items": items});
    let mut matches = list(&open);
    matches["default"] = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
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
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "httproutes.gateway.networking.k8s.io"},
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "plural": "httproutes"},
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
