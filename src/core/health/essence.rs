//! What the rules read of a Pod or ReplicaSet, so that whoever watches many keeps no more of them than that.

use super::live::Live;
use super::pod::without_environment;
use crate::core::digest;
use serde_json::{Map, Value, json};

/// Longest text of a container or its runtime that is kept, in characters: the kubelet's own limit for last words.
const LONGEST_TEXT: usize = 4096;

/// The label that tells the pods of one ReplicaSet from those of another; the only difference between the template of a
/// Deployment and that of the ReplicaSet made for it.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What is kept of the pod template of a Deployment or ReplicaSet: a digest, by which the one made for the other is found.
/// `None` where there is no template.
pub fn template_essence(object: &Value) -> Option<Value> {
    Some(json!({"digest": template_digest(&Live::new(object))?}))
}

/// The digest of the pod template, of the whole object or of its essence.
pub(super) fn template_digest(live: &Live<'_>) -> Option<String> {
    let kept = live.text("/spec/template/digest");
    if !kept.is_empty() {
        return Some(kept.to_owned());
    }
    let mut template = live.get("/spec/template")?.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        // Typed clients write it although it is not set.
        metadata.remove("creationTimestamp");
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(TEMPLATE_HASH);
        }
    }
    Some(digest::of_value(&template))
}

/// A Pod or ReplicaSet without what no rule reads. Every rule of this module says the same about it as about the whole
/// object, with one condition: what selects its pods must have been compared with the whole object's labels. Values of
/// environment variables are taken out of what containers said, since the variables themselves are not kept.
pub fn essence(object: &Value) -> Value {
    let live = Live::new(object);
    let mut metadata = take(
        &object["metadata"],
        &["name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp"],
    );
    let owners = live.items("/metadata/ownerReferences").map(|o| part(o.get(""), &["kind", "name", "uid"]));
    metadata.insert("ownerReferences".into(), owners.collect());
    for (map, keys) in [
        ("labels", &["controller-revision-hash", "pod-template-generation"][..]),
        ("annotations", &["deployment.kubernetes.io/revision"][..]),
    ] {
        let kept = take(&object["metadata"][map], keys);
        if !kept.is_empty() {
            metadata.insert(map.into(), kept.into());
        }
    }
    let mut spec = take(&object["spec"], &["nodeName", "replicas"]);
    if let Some(template) = template_essence(object) {
        spec.insert("template".into(), template);
    }
    for list in ["containers", "initContainers"] {
        let named = |container: Live<'_>| {
            let mut kept = take(container.get("").unwrap_or(&Value::Null), &["name"]);
            if container.get("/readinessProbe").is_some() {
                // That there is one is what counts.
                kept.insert("readinessProbe".into(), Map::new().into());
            }
            Value::Object(kept)
        };
        let kept: Vec<Value> = live.items(&format!("/spec/{list}")).map(named).collect();
        if !kept.is_empty() {
            spec.insert(list.into(), kept.into());
        }
    }
    let gates: Vec<Value> =
        live.items("/spec/schedulingGates").map(|gate| part(gate.get(""), &["name"])).collect();
    if !gates.is_empty() {
        spec.insert("schedulingGates".into(), gates.into());
    }
    let mut kept = take(object, &["apiVersion", "kind"]);
    kept.insert("metadata".into(), metadata.into());
    kept.insert("spec".into(), spec.into());
    kept.insert("status".into(), status(&live).into());
    Value::Object(kept)
}

fn status(live: &Live<'_>) -> Map<String, Value> {
    let none = Value::Null;
    let of = live.get("/status").unwrap_or(&none);
    let mut kept = take(of, &["phase", "reason", "replicas", "observedGeneration"]);
    said(live, of, &mut kept);
    let condition = |c: Live<'_>| {
        part(
            c.get(""),
            &[
                "type",
                "status",
                "reason",
                "message",
                "lastUpdateTime",
                "lastTransitionTime",
                "observedGeneration",
            ],
        )
    };
    let conditions: Vec<Value> = live.items("/status/conditions").map(condition).collect();
    if !conditions.is_empty() {
        kept.insert("conditions".into(), conditions.into());
    }
    for list in ["containerStatuses", "initContainerStatuses"] {
        let container = |container: Live<'_>| {
            let none = Value::Null;
            let of = container.get("").unwrap_or(&none);
            let mut kept = take(of, &["name", "image", "ready", "restartCount"]);
            for state in ["state", "lastState"] {
                let mut states = Map::new();
                for (which, fields) in [
                    ("running", &[][..]),
                    ("waiting", &["reason"][..]),
                    ("terminated", &["exitCode", "signal", "reason", "finishedAt"][..]),
                ] {
                    if let Some(of) = container.get(&format!("/{state}/{which}")) {
                        let mut kept = take(of, fields);
                        said(live, of, &mut kept);
                        states.insert(which.into(), kept.into());
                    }
                }
                if !states.is_empty() {
                    kept.insert(state.into(), states.into());
                }
            }
            Value::Object(kept)
        };
        let kept_list: Vec<Value> = live.items(&format!("/status/{list}")).map(container).collect();
        if !kept_list.is_empty() {
            kept.insert(list.into(), kept_list.into());
        }
    }
    kept
}

/// Keeps a message, without the values of the pod's environment.
fn said(pod: &Live<'_>, of: &Value, kept: &mut Map<String, Value>) {
    if let Some(message) = of["message"].as_str() {
        let message: String = without_environment(pod, message).chars().take(LONGEST_TEXT).collect();
        kept.insert("message".into(), message.into());
    }
}

fn take(from: &Value, fields: &[&str]) -> Map<String, Value> {
    fields.iter().filter_map(|f| Some(((*f).to_owned(), from.get(*f)?.clone()))).collect()
}

fn part(from: Option<&Value>, fields: &[&str]) -> Value {
    Value::Object(from.map(|from| take(from, fields)).unwrap_or_default())
}
