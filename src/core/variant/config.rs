//! A digest of the configuration that a workload reads, on its pod template: pods restart when the configuration changes.
//!
//! It is first written when the configuration first changes, never at adoption: writing it is a change of the template, and
//! so a restart.

use super::reads::{Standing, config_id, content, reads, standing};
use crate::api::names;
use crate::core::bundle::Bundle;
use crate::core::digest;
use crate::core::manifest::{Manifest, ObjectId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Whether pods of a workload can be restarted by its template.
fn restarts(id: &ObjectId) -> bool {
    id.group == "apps" && matches!(id.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet")
}

/// The workloads of `target` that carry a digest of their configuration: those that carried one in `stable` (`already`), and
/// those whose configuration says something else than in `stable`.
pub fn stamped(stable: &Bundle, target: &Bundle, already: &BTreeSet<ObjectId>) -> BTreeSet<ObjectId> {
    let workloads = target.objects().iter().filter(|object| restarts(&object.id()));
    let carries = |workload: &&Manifest| {
        let id = workload.id();
        if already.contains(&id) {
            return true;
        }
        let Some(old) = stable.get(&id) else { return false };
        let before = reads(&super::template(old), old.namespace());
        let now = reads(&super::template(workload), workload.namespace());
        now.into_iter().any(|(config, reaches)| {
            let standing = standing(stable, target, &config);
            let changed =
                standing == Standing::Changed || (standing == Standing::New && before.contains_key(&config));
            reaches && changed
        })
    };
    workloads.filter(carries).map(Manifest::id).collect()
}

/// A bundle whose `workloads` carry a digest, under a key, of the ConfigMaps and Secrets of the bundle that they read.
pub fn stamp(bundle: &Bundle, workloads: &BTreeSet<ObjectId>, key: &[u8]) -> Bundle {
    let digests = workloads.iter().filter(|id| restarts(id)).filter_map(|id| {
        let workload = bundle.get(id)?;
        Some((id.clone(), of_workload(bundle, workload, key)))
    });
    carry(bundle, &digests.collect())
}

/// A bundle whose workloads carry the digests that are given, for whoever does not have the key.
pub fn carry(bundle: &Bundle, digests: &BTreeMap<ObjectId, String>) -> Bundle {
    if digests.is_empty() {
        return bundle.clone();
    }
    let hooks = bundle.hooks().iter().map(|hook| hook.manifest.clone());
    let objects = bundle.objects().iter().map(|object| {
        let mut object = object.clone();
        if let Some(digest) = digests.get(&object.id()) {
            put(&mut object, digest);
        }
        object
    });
    // What was a bundle is one with other annotations on pod templates too: what can be wrong stands elsewhere.
    Bundle::new(objects.chain(hooks).collect()).unwrap_or_else(|_| bundle.clone())
}

/// The digest of what a workload reads.
fn of_workload(bundle: &Bundle, workload: &Manifest, key: &[u8]) -> String {
    let reads = reads(&super::template(workload), workload.namespace());
    let contents: Vec<Value> = reads
        .into_iter()
        .filter(|(_, reaches)| *reaches)
        .filter_map(|(id, _)| bundle.get(&config_id(&id.kind, &id.namespace, &id.name)))
        .map(|config| json!([config.id().kind, config.name(), content(config)]))
        .collect();
    digest::of_value_keyed(&Value::Array(contents), key)
}

fn put(workload: &mut Manifest, digest: &str) {
    let Some(Value::Object(template)) = super::at_mut(workload, &["spec", "template"]) else { return };
    let metadata = template.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    if let Value::Object(metadata) = metadata {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[names::CONFIG] = json!(digest);
    }
}
