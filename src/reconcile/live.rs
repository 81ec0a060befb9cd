//! What is kept of a live object: not the object, but what is needed to know whether it is as we left it and healthy.

use crate::cluster::watch::Entry;
use crate::core::application::{Pods, is_application, pod_labels};
use crate::core::fields::owned_digest;
use crate::core::health::{Verdict, job_completed, template_essence, verdict};
use crate::core::plan::is_secret;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a watch keeps of an object that carries our label, besides its identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Digest of the fields that we own, with their values; empty when we own none. Keyed for Secrets.
    pub digest: Box<str>,
    /// Its health.
    pub verdict: Verdict,
    /// A workload that is not healthy, of its template only a digest: what tells its new pods from its old ones. Of an
    /// Application, what finds its pods.
    pub workload: Option<Arc<Value>>,
    /// How many pods a Deployment or StatefulSet has; `None` for what is neither.
    pub pods: Option<Pods>,
    /// Whether a Job has completed, be it marked for deletion or not; `None` for what is no Job.
    pub completed: Option<bool>,
}

/// Digests an object of a watch or of an answer.
pub fn keep(object: &Value, key: &[u8]) -> Kept {
    let verdict = verdict(object);
    let workload = match object {
        _ if verdict.settles() => None,
        object if is_workload(object) => Some(Arc::new(trimmed(object))),
        object if is_application(object) => Some(Arc::new(finds_pods(object))),
        _ => None,
    };
    Kept {
        digest: digest(object, key).into(),
        verdict,
        workload,
        pods: pods(object),
        completed: job_completed(object),
    }
}

fn pods(object: &Value) -> Option<Pods> {
    let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
    if version != Some("apps/v1") || !matches!(kind, Some("Deployment" | "StatefulSet")) {
        return None;
    }
    let count = |field: &Value| field.as_i64().and_then(|n| i32::try_from(n).ok());
    let of = |name: &str| count(&object["status"][name]).unwrap_or(0);
    Some(Pods {
        wanted: count(&object["spec"]["replicas"]).unwrap_or(1),
        there: of("replicas"),
        ready: of("readyReplicas"),
        available: of("availableReplicas"),
    })
}

/// Digest of the fields that we own; empty when we own none.
pub fn digest(object: &Value, key: &[u8]) -> String {
    owned_digest(object, is_secret(object).then_some(key)).unwrap_or_default()
}

/// The version of an entry as a number: versions of one kind can be compared.
pub fn version(entry: &Entry<Kept>) -> u64 {
    entry.resource_version.parse().unwrap_or(0)
}

fn is_workload(object: &Value) -> bool {
    matches!(
        (object["apiVersion"].as_str(), object["kind"].as_str()),
        (Some("apps/v1"), Some("Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet"))
            | (Some("batch/v1"), Some("Job"))
    )
}

/// An Application as what has the pods of its Deployment.
fn finds_pods(application: &Value) -> Value {
    let metadata = &application["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    json!({
        "apiVersion": application["apiVersion"], "kind": application["kind"],
        "metadata": {"name": name, "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "spec": {"replicas": application["spec"]["replicas"], "selector": {"matchLabels": pod_labels(name)}},
    })
}

fn trimmed(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut spec = object["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("template");
        if let Some(template) = template_essence(object) {
            spec.insert("template".into(), template);
        }
    }
    let mut small = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "spec": spec, "status": object["status"],
        "metadata": {},
    });
    for field in ["name", "namespace", "uid", "generation", "deletionTimestamp", "ownerReferences"] {
        if !metadata[field].is_null() {
            small["metadata"][field] = metadata[field].clone();
        }
    }
    for note in ["deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"] {
        if let Some(text) = metadata["annotations"].get(note) {
            small["metadata"]["annotations"][note] = text.clone();
        }
    }
    small
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn object(n: usize) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": format!("web-{n}"), "namespace": format!("team-{}", n / 10), "generation": 1,
                "uid": format!("0b4f5f36-7a0e-4c53-9f0a-{n:012}"), "resourceVersion": (1_000_000 + n).to_string(),
                "managedFields": [{"manager": "windlass", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}],
            },
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
                "conditions": [{"type": "Available", "status": "True"}, {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]},
        })
    }

    /// Resident memory of this process, in bytes.
    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// A measurement, not a test: `cargo test --lib bytes_that_are_kept -- --ignored --nocapture --test-threads 1`.
    #[test]
    #[ignore = "a measurement; Linux only"]
    fn bytes_that_are_kept_of_an_object() {
        const OBJECTS: usize = 200_000;
        type Place = (Arc<str>, Box<str>);
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let entries = (0..OBJECTS).map(|n| {
            let object = object(n);
            let metadata = &object["metadata"];
            let entry = Entry {
                uid: text(&metadata["uid"]).into(),
                resource_version: text(&metadata["resourceVersion"]).into(),
                generation: 1,
                label: format!("{:032x}", n / 10).into(),
                deleting: false,
                controlled: false,
                kept: keep(&object, b"key"),
            };
            let place: Place = (text(&metadata["namespace"]).into(), text(&metadata["name"]).into());
            (place, entry)
        });
        // As a watch keeps them: by place, and by label; texts of namespaces and labels are shared.
        let before = resident();
        let mut by_place: HashMap<Place, Entry<Kept>> = HashMap::new();
        let mut by_label: HashMap<Arc<str>, HashSet<Place>> = HashMap::new();
        let (mut label, mut namespace): (Arc<str>, Arc<str>) = (Arc::from(""), Arc::from(""));
        for (mut place, mut entry) in entries {
            if entry.label == label {
                entry.label = label.clone();
                place.0 = namespace.clone();
            } else {
                label = entry.label.clone();
                namespace = place.0.clone();
            }
            assert!(!entry.kept.digest.is_empty() && entry.kept.workload.is_none());
            by_label.entry(label.clone()).or_default().insert(place.clone());
            by_place.insert(place, entry);
        }
        let each = (resident() - before) / OBJECTS;
        println!("{each} bytes for each of {} objects", by_place.len());
        assert!(each < 1024, "{each}");
    }
}
