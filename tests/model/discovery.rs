//! Which kinds there are, in the aggregated form, and the version.

use super::kinds::Kind;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The answer to a path of discovery.
pub fn answer(kinds: &[Arc<Kind>], path: &[&str]) -> Option<Value> {
    match path {
        ["version"] => Some(json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "", "goVersion": "", "compiler": "gc", "platform": "linux/amd64",
        })),
        ["api"] => Some(groups(kinds, true)),
        ["apis"] => Some(groups(kinds, false)),
        ["readyz" | "livez" | "healthz"] => Some(json!("ok")),
        _ => None,
    }
}

fn groups(kinds: &[Arc<Kind>], core: bool) -> Value {
    let mut groups: BTreeMap<&str, BTreeMap<&str, Vec<Value>>> = BTreeMap::new();
    for kind in kinds.iter().filter(|k| k.group.is_empty() == core) {
        let about = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let mut subresources = Vec::new();
        if kind.status {
            let verbs = ["get", "patch", "update"];
            subresources.push(json!({"subresource": "status", "responseKind": about, "verbs": verbs}));
        }
        let resource = json!({
            "resource": kind.plural, "responseKind": about, "singularResource": kind.kind.to_lowercase(),
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" }, "verbs": verbs,
            "subresources": subresources,
        });
        groups.entry(&kind.group).or_default().entry(&kind.version).or_default().push(resource);
    }
    let items = groups.into_iter().map(|(group, versions)| {
        let versions: Vec<Value> = versions
            .into_iter()
            .map(|(version, resources)| {
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let meta = if group.is_empty() { json!({}) } else { json!({"name": group}) };
        json!({"metadata": meta, "versions": versions})
    });
    let items: Vec<Value> = items.collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    })
}
