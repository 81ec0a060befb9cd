//! What moves traffic, and what belongs to it, whatever its kind: its manifest, what people make of it, and how it divides
//! requests, told in the form of an HTTPRoute's rules.

use super::super::things::{Key, Kind, Thing};
use super::{FRONT, SHARED, labels};
use serde_json::{Value, json};
use std::borrow::Cow;

/// The kinds whose rules name Services.
pub const ROUTES: [Kind; 3] = [Kind::Route, Kind::Grpc, Kind::Mesh];

/// Whether an object is one of these, or a Service.
pub fn steers(kind: Kind) -> bool {
    kind == Kind::Service || ROUTES.contains(&kind)
}

/// What of a manifest is peculiar to these kinds.
pub fn manifest(key: &Key, thing: &Thing, object: &mut Value) {
    object["metadata"]["labels"] = json!({"value": thing.value.to_string()});
    object["spec"] = match key.0 {
        Kind::Service => {
            let selector = if key.1 == SHARED { json!({"app": FRONT}) } else { labels(&key.1) };
            json!({"selector": selector, "ports": [{"port": 80, "targetPort": 8080}]})
        }
        Kind::Mesh => {
            let mut rules = vec![json!({"route": [{"destination": {"host": FRONT}}]})];
            if thing.more {
                let path = json!([{"uri": {"prefix": "/more"}}]);
                rules.insert(0, json!({"match": path, "route": [{"destination": {"host": FRONT}}]}));
            }
            if let Some(other) = &thing.reads {
                let path = json!([{"uri": {"prefix": format!("/{other}")}}]);
                rules.insert(0, json!({"match": path, "route": [{"destination": {"host": other}}]}));
            }
            json!({"hosts": ["front.example.com"], "http": rules})
        }
        Kind::Rule => json!({"host": FRONT, "trafficPolicy": {"loadBalancer": {"simple": "LEAST_REQUEST"}}}),
        Kind::Scaler => json!({
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": FRONT},
            "minReplicas": thing.replicas, "maxReplicas": 8,
        }),
        kind => {
            let to = |name: &str| json!([{"name": name, "port": 80}]);
            let below = |name: &str| match kind {
                Kind::Grpc => json!([{"method": {"type": "Exact", "service": name}}]),
                _ => json!([{"path": {"type": "PathPrefix", "value": format!("/{name}")}}]),
            };
            let mut rules = vec![json!({"backendRefs": to(FRONT)})];
            if thing.more {
                rules.push(json!({"matches": below("more"), "backendRefs": to(FRONT)}));
            }
            if let Some(other) = &thing.reads {
                rules.push(json!({"matches": below(other), "backendRefs": to(other)}));
            }
            json!({"parentRefs": [{"name": "gateway"}], "rules": rules})
        }
    };
}

/// What a person makes of a route: all traffic for stable, under a name of his own; and of an autoscaler: more load.
pub fn edited(kind: Kind) -> Value {
    match kind {
        Kind::Scaler => json!({"metadata": {"annotations": {"example.com/load": "6"}}}),
        Kind::Mesh => json!({"spec": {
            "hosts": ["edited.example.com"],
            "http": [{"route": [{"destination": {"host": FRONT}, "weight": 100}]}],
        }}),
        _ => json!({"spec": {
            "hostnames": ["edited.example.com"],
            "rules": [{"backendRefs": [{"name": FRONT, "port": 80, "weight": 7}]}],
        }}),
    }
}

/// The rules of a route.
pub fn rules(kind: Kind, object: &Value) -> Cow<'_, Value> {
    match kind {
        Kind::Mesh => {
            let rules = object["spec"]["http"].as_array().into_iter().flatten();
            Cow::Owned(rules.map(meshed).collect())
        }
        _ => Cow::Borrowed(&object["spec"]["rules"]),
    }
}

/// A rule of a VirtualService.
fn meshed(rule: &Value) -> Value {
    let list = |field: &str| rule[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let entries = list("route");
    let alone = u64::from(entries.len() == 1);
    let backend = |entry: &Value| {
        let weight = entry["weight"].as_u64().unwrap_or(alone);
        json!({"name": entry["destination"]["host"], "weight": weight})
    };
    let marked = list("match").iter().filter(|m| m["headers"].is_object()).map(|_| json!({"headers": [{}]}));
    let copies = list("mirrors").iter().map(|m| &m["destination"]["host"]).chain([&rule["mirror"]["host"]]);
    let copies = copies.filter(|host| host.is_string());
    json!({
        "backendRefs": entries.iter().map(backend).collect::<Vec<_>>(),
        "matches": marked.collect::<Vec<_>>(),
        "filters": copies.map(|host| json!({"requestMirror": {"backendRef": {"name": host}}})).collect::<Vec<_>>(),
    })
}
