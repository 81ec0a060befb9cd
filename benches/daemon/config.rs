//! What is delivered: directories of four objects each, the same for the daemon (from Git) and for the bare loop.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The name of a directory, and of its namespace and its Delivery.
pub fn name(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number:03}")
}

/// The objects of a directory. In another `round` all but the ServiceAccount are others; `more` adds ConfigMaps.
pub fn objects(namespace: &str, round: u32, more: usize) -> Vec<Value> {
    let labels = json!({"app": "web", "team": "shop"});
    let meta = |name: &str| json!({"name": name, "namespace": namespace, "labels": labels});
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("web")}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings"),
            "data": {"round": round.to_string(), "app.properties": "colour=blue\nsize=12\ntimeout=30s\n"}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web"), "spec": {
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80 + round, "targetPort": "http"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("web"), "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": labels}, "spec": {
            "serviceAccountName": "web",
            "containers": [{
                "name": "web",
                "image": format!("registry.example.com/web:1.{round}"),
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "ROUND", "value": round.to_string()}],
                "envFrom": [{"configMapRef": {"name": "settings"}}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
            }],
        }}}}),
    ];
    objects.extend((0..more).map(|n| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(&format!("more-{n:02}")),
            "data": {"key": "value", "app.properties": "colour=blue\nsize=12\ntimeout=30s\n"}})
    }));
    objects
}

/// The objects of a tenant: one of each of eight kinds.
pub fn tenant(namespace: &str) -> Vec<Value> {
    let mut objects = objects(namespace, 0, 0);
    let meta = json!({"name": "web", "namespace": namespace});
    objects.extend([
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"key": "value"}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta,
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta,
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta,
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
    ]);
    objects
}

/// Which of the four differ between rounds.
pub fn changes(object: &Value) -> bool {
    object["kind"] != "ServiceAccount"
}

/// Ways to fail: the name that stands in the names of Deliveries, and what it is.
pub const FAILURES: [(&str, &str); 3] =
    [("crash", "crash loop"), ("image", "missing image"), ("job", "failed Job")];

/// A directory that fails in this way in each `round` but the first one, 0, whose pods are well.
pub fn failing(namespace: &str, way: &str, round: u32) -> Vec<Value> {
    let tag = match (round, way) {
        (0, _) | (_, "job") => "ok",
        (_, "image") => "missing",
        _ => "crash",
    };
    let labels = json!({"app": "web", "round": round.to_string()});
    let containers = |name: &str, tag: &str| json!([{"name": "app", "image": format!("registry.example.com/{name}:{tag}")}]);
    let mut objects = vec![json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers("web", tag)}},
        },
    })];
    if way == "job" && round > 0 {
        objects.push(json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": format!("task-{round}"), "namespace": namespace, "labels": labels},
            "spec": {"backoffLimit": 0, "template": {
                "spec": {"restartPolicy": "Never", "containers": containers("task", "fail")}}},
        }));
    }
    objects
}

/// A directory that is rolled out. With `shared` the Service reaches both variants, otherwise it is switched.
pub fn rolled_out(namespace: &str, shared: bool, round: u32) -> Vec<Value> {
    let labels = json!({"app": "web", "tier": "front"});
    let selector = if shared { json!({"app": "web"}) } else { labels.clone() };
    let meta = json!({"name": "web", "namespace": namespace});
    let image = format!("registry.example.com/web:1.{round}");
    vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": {"selector": selector, "ports": [{"port": 80}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": image}]}},
        }}),
    ]
}

/// A directory that fails for ever: in a crash loop, never ready, or refused by the API server, in turn.
pub fn hopeless(namespace: &str, number: usize) -> Vec<Value> {
    let deployment = |tag: &str, label: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": label}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                    "containers": [{"name": "app", "image": format!("registry.example.com/web:{tag}")}]}},
            },
        })
    };
    vec![match number % 3 {
        0 => deployment("crash", "web"),
        1 => deployment("unready", "web"),
        _ => deployment("ok", "another"),
    }]
}

/// Writes the directories of a round into a working directory.
pub fn write(root: &Path, prefix: &str, count: usize, round: u32, more: usize) {
    for number in 1..=count {
        let name = name(prefix, number);
        write_objects(root, &name, &objects(&name, round, more));
    }
}

/// Writes a directory anew, a file for each object.
pub fn write_objects(root: &Path, name: &str, objects: &[Value]) {
    let directory = root.join("apps").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    for object in objects {
        let text = |field: &Value| field.as_str().unwrap().to_lowercase();
        let file = format!("{}-{}.yaml", text(&object["kind"]), text(&object["metadata"]["name"]));
        fs::write(directory.join(file), serde_saphyr::to_string(object).unwrap()).unwrap();
    }
}
