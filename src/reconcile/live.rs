//! What is kept of a live object: not the object, but what is needed to know whether it is as we left it and healthy.

use crate::cluster::watch::Entry;
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
    /// A workload that is not healthy, of its template only a digest: what tells its new pods from its old ones.
    pub workload: Option<Arc<Value>>,
    /// Whether a Job has completed, be it marked for deletion or not; `None` for what is no Job.
    pub completed: Option<bool>,
}

/// Digests an object of a watch or of an answer.
pub fn keep(object: &Value, key: &[u8]) -> Kept {
    let verdict = verdict(object);
    let workload = (!verdict.settles() && is_workload(object)).then(|| Arc::new(trimmed(object)));
    Kept { digest: digest(object, key).into(), verdict, workload, completed: job_completed(object) }
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
