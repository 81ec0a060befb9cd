//! What steers a mesh: VirtualServices and DestinationRules, as far as the daemon can tell them from those of Istio.

use super::gateway::custom;
use serde_json::{Value, json};

/// Their definitions.
pub fn definitions() -> [Value; 2] {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let rules = json!({"type": "array", "items": open});
    let object = |spec: Value| json!({"type": "object", "properties": {"spec": {"type": "object", "properties": spec}, "status": open}});
    let routes = object(json!({
        "hosts": texts, "gateways": texts, "http": rules, "tls": rules, "tcp": rules,
    }));
    let policies = object(json!({"host": {"type": "string"}, "trafficPolicy": open}));
    let group = "networking.istio.io";
    [custom(group, "VirtualService", &routes), custom(group, "DestinationRule", &policies)]
}
