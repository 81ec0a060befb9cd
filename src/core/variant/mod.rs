//! The candidate of a rollout: a renamed copy of what a new revision changes, as pure values.
//!
//! A rollout is a sequence of stages. What is wanted in each is a set of objects, computed here from the last good bundle
//! ("stable"), the new one ("target"), the policy and the layout of the stage; putting it in place is nobody's special case.
//! Candidate objects are objects that neither bundle has under that name: once a stage is without them they are stale, and are
//! pruned like everything else that left.
//!
//! The two variants of a workload are told apart by exactly one label of its selector, whose value is the candidate's name on
//! the candidate. What selects the stable pods by that label is copied for the candidate; what selects them without it would
//! see both, which is refused where it would give the candidate traffic or count its pods as the workload's own.

mod autoscaler;
mod build;
mod changes;
mod config;
mod decide;
mod follow;
mod label;
mod monitors;
mod names;
mod needs;
mod network;
mod others;
mod reads;
mod selects;
mod services;
mod stage;

#[cfg(test)]
mod tests;

pub use build::{Candidate, Label, ServicePair, Variant, candidate, followed, pods, reference};
pub use config::{carry, stamp, stamped};
pub use decide::{Decision, needs_rollout};
pub use label::MENDED_LATER;
pub use others::{is_others, minded};
pub use stage::{StageObjects, stage, stage_over};

use super::manifest::{Manifest, ObjectId};
use crate::api::delivery::Problem;
use serde_json::Value;

/// What is wrong about an object of a bundle, and where in Git it stands.
fn problem(reason: &str, manifest: &Manifest, text: &str) -> Problem {
    let (id, origin) = (manifest.id(), &manifest.origin);
    let place = if origin.file.is_empty() { String::new() } else { format!(" ({origin})") };
    Problem { reason: reason.into(), object: id.to_string(), message: format!("{id}{place} {text}") }
}

/// The value at a path of an object; `Null` where nothing stands.
fn at<'a>(manifest: &'a Manifest, path: &[&str]) -> &'a Value {
    let mut names = path.iter();
    let first = names.next().and_then(|name| manifest.fields().get(*name));
    names.try_fold(first.unwrap_or(&Value::Null), |value, name| value.get(name)).unwrap_or(&Value::Null)
}

/// The value at a path of an object, to be changed.
fn at_mut<'a>(manifest: &'a mut Manifest, path: &[&str]) -> Option<&'a mut Value> {
    let (first, rest) = path.split_first()?;
    let value = manifest.fields_mut().get_mut(*first)?;
    rest.iter().try_fold(value, |value, name| value.get_mut(name))
}

/// The items of a list; none when it is no list.
fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The items of a list, to be changed.
fn items_mut(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_array_mut).into_iter().flatten()
}

/// Whether an identity is of a group and kind.
fn is(id: &ObjectId, group: &str, kind: &str) -> bool {
    id.group == group && id.kind == kind
}

/// Where the pod template of a workload stands; `None` for what runs no pods.
fn template_path(id: &ObjectId) -> Option<&'static [&'static str]> {
    match (id.group.as_str(), id.kind.as_str()) {
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        ("", "Pod") => Some(&[]),
        _ => None,
    }
}

/// The pod template of a workload (a Pod is its own); `Null` for what runs no pods.
fn template(manifest: &Manifest) -> Value {
    match template_path(&manifest.id()) {
        Some([]) => manifest.to_value(),
        Some(path) => at(manifest, path).clone(),
        None => Value::Null,
    }
}
