//! What changes in a pod template, as sentences for people. Values are told of images alone: anything else may be a secret.

use super::problem;
use crate::api::names;
use crate::core::diff::{ChangeKind, FieldChange, KindOf, changes_between, is_default, is_less};
use crate::core::fields::Segment;
use crate::core::manifest::Manifest;
use serde_json::{Value, json};

/// How many changes of one object are told.
const TOLD: usize = 5;

/// What of a workload's template would give it new pods. What only spells a value or a default in another way does not.
pub(super) fn of_template(stable: &Manifest, target: &Manifest) -> Vec<String> {
    let skeleton = |workload: &Manifest| {
        let mut template = super::template(workload);
        if let Some(annotations) =
            template.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
        {
            // Told by what is read, where it can be said what changed.
            annotations.remove(names::CONFIG);
        }
        json!({"apiVersion": workload.gvk().api_version(), "kind": workload.gvk().kind, "spec": {"template": template}})
    };
    let (before, after) = (skeleton(stable), skeleton(target));
    let kind = KindOf::new(&after);
    let changes: Vec<FieldChange> =
        changes_between(&before, &after).into_iter().filter(|change| counts(kind, change)).collect();
    let mut told: Vec<String> =
        changes.iter().take(TOLD).map(|change| format!("{}: {}", target.id(), sentence(change))).collect();
    if changes.len() > TOLD {
        told.push(format!("{}: {} more changes of its pod template", target.id(), changes.len() - TOLD));
    }
    told
}

/// Whether a change is one to the API server.
fn counts(kind: KindOf, change: &FieldChange) -> bool {
    let path = change.path.segments();
    let left_out = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        // An empty struct may be a choice, such as `emptyDir: {}`; an empty map of labels is none.
        Value::Object(fields) => {
            let map = matches!(path.last(), Some(Segment::Field(f)) if f == "labels" || f == "annotations");
            fields.is_empty() && map
        }
        value => is_default(kind, path, value),
    };
    let amounts = change.path.field_names().any(|name| name == "resources" || name == "sizeLimit");
    match (&change.desired, &change.live) {
        (None, Some(value)) | (Some(value), None) => !left_out(value) && !is_default(kind, path, value),
        (Some(a), Some(b)) if amounts => is_less(a, b) != Some(false) || is_less(b, a) != Some(false),
        _ => true,
    }
}

/// One change.
fn sentence(change: &FieldChange) -> String {
    let path = change.path.segments().get(2..).unwrap_or_default();
    let container = path.iter().find_map(|step| match step {
        Segment::Key(keys) => keys.get("name").and_then(Value::as_str),
        _ => None,
    });
    let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).unwrap_or("none").to_owned();
    if let ([.., Segment::Field(last)], Some(container)) = (path, container)
        && last == "image"
    {
        return format!(
            "image of container {container}: {} -> {}",
            text(&change.live),
            text(&change.desired)
        );
    }
    let what = match change.kind {
        ChangeKind::Added => "is added",
        ChangeKind::Removed => "is removed",
        ChangeKind::Changed | ChangeKind::Ownership => "changes",
    };
    let short = crate::core::fields::Path(path.to_vec());
    format!("{short} of its pod template {what}")
}

/// What changes in a ConfigMap or Secret that a workload reads: names of keys, never values.
pub(super) fn of_config(stable: Option<&Manifest>, target: &Manifest, reader: &Manifest) -> String {
    let of = format!("{}, which {} reads", target.id(), reader.id());
    let Some(stable) = stable else { return format!("{of}: is added") };
    let (before, after) = (super::reads::content(stable), super::reads::content(target));
    let mut keys = Vec::new();
    for field in ["data", "binaryData", "stringData"] {
        let (old, new) = (before[field].as_object(), after[field].as_object());
        let get =
            |map: Option<&serde_json::Map<String, Value>>, key: &str| map.and_then(|m| m.get(key)).cloned();
        let all: std::collections::BTreeSet<&String> =
            old.into_iter().chain(new).flat_map(serde_json::Map::keys).collect();
        for key in all {
            match (get(old, key), get(new, key)) {
                (None, Some(_)) => keys.push(format!("{key} is added")),
                (Some(_), None) => keys.push(format!("{key} is removed")),
                (a, b) if a != b => keys.push(format!("{key} changes")),
                _ => {}
            }
        }
    }
    if keys.is_empty() {
        keys.push("type changes".into());
    }
    let more = keys.len().saturating_sub(TOLD);
    keys.truncate(TOLD);
    if more > 0 {
        keys.push(format!("{more} more"));
    }
    format!("{of}: {}", keys.join(", "))
}

/// Fields of a workload that the API server does not let anybody change, among those that differ.
pub(super) fn immutable(stable: &Manifest, target: &Manifest) -> Option<crate::api::delivery::Problem> {
    let fields: &[&str] = match target.gvk().kind.as_str() {
        "StatefulSet" => &["selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"],
        _ => &["selector"],
    };
    let field = fields.iter().find(|field| {
        let (old, new) = (super::at(stable, &["spec", field]), super::at(target, &["spec", field]));
        // Who says the default says nothing new.
        let plain = |value: &Value| if *value == "OrderedReady" { Value::Null } else { value.clone() };
        plain(old) != plain(new)
    })?;
    let reason = if *field == "selector" { "SelectorChanged" } else { "ImmutableFieldChanged" };
    let text = format!(
        "changes spec.{field}, which Kubernetes does not allow for a {} that is there; take the change back, or give it a new \
         name and name that in spec.rollout",
        target.gvk().kind
    );
    Some(problem(reason, target, &text))
}
