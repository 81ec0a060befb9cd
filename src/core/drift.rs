//! Changes in the cluster that nobody asked for in Git, and who made them.

use super::diff::{Certainty, ChangeKind, diff, redact_values};
use super::fields::{Operation, Owner, Path, owned_by, owners};
use crate::api::names::{DELIVERY_LABEL, FIELD_MANAGER};
use serde_json::Value;

/// How one object of the effective bundle stands in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum ObjectDrift {
    /// As Git says.
    InSync,
    /// Fields differ.
    Modified(Vec<DriftedField>),
    /// It is not there.
    Missing,
    /// It has lost the label that says whose it is, or has another one, and perhaps other fields differ: the label comes first.
    Unlabelled(Vec<DriftedField>),
}

impl ObjectDrift {
    /// The fields that differ.
    pub fn fields(&self) -> &[DriftedField] {
        match self {
            ObjectDrift::Modified(fields) | ObjectDrift::Unlabelled(fields) => fields,
            _ => &[],
        }
    }

    /// Whether a dry-run has to tell: fields differ, and none of them surely.
    pub fn is_doubtful(&self) -> bool {
        matches!(self, ObjectDrift::Modified(fields) if fields.iter().all(|f| f.certainty == Certainty::Doubtful))
    }
}

impl ObjectDrift {
    /// Whether a dry-run has to tell of some fields whether they differ.
    pub fn has_doubt(&self) -> bool {
        self.fields().iter().any(|f| f.certainty == Certainty::Doubtful)
    }

    /// Leaves out doubtful fields that an apply, which answered with `after`, would leave as they are in `live`: a spelling of
    /// the server's, or what admission makes of them each time. Where that is all that is known they stay.
    pub fn settle(&mut self, live: &Value, after: &Value) {
        if let ObjectDrift::Modified(fields) | ObjectDrift::Unlabelled(fields) = self {
            let stays =
                |f: &DriftedField| f.certainty == Certainty::Sure || f.path.get(live) != f.path.get(after);
            if fields.iter().any(stays) {
                fields.retain(stays);
            }
        }
    }
}

/// One field that is not as Git says.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftedField {
    /// Where.
    pub path: Path,
    /// What the effective bundle wants; `None` for a field that it does not have.
    pub desired: Option<Value>,
    /// What stands there. Equal to `desired` when only the ownership was lost.
    pub live: Option<Value>,
    /// How it differs.
    pub kind: ChangeKind,
    /// The field manager that has the field now: a program, not a person. `None` where Kubernetes keeps no record: nobody owns what
    /// was removed, and a time is kept only for the last change of a whole entry.
    pub manager: Option<String>,
    /// How that manager wrote.
    pub operation: Option<Operation>,
    /// The subresource that it wrote through, such as `scale`; `""` for the object itself.
    pub subresource: String,
    /// When that manager last changed anything in the object (RFC 3339): not before this change.
    pub at: Option<String>,
    /// Whether it surely differs.
    pub certainty: Certainty,
}

impl DriftedField {
    /// Replaces values that must not be shown, see [`super::diff::redact`].
    pub fn redact(&mut self, kind: &str) {
        redact_values(kind, &self.path, &mut self.desired, &mut self.live);
    }
}

/// How `live` differs from `desired`, an object of the effective bundle with our label, as it was applied last.
///
/// A desired path that we do not own or whose value differs, and a path that we own and that is not desired. Where we own a path
/// and its value differs nobody has edited it (an edit takes the path from us), so that is doubtful: a
/// mutating webhook, a spelling of the server's, or a bundle that was not applied yet. When we own nothing at all (someone
/// cleared `managedFields`) only values are told, or, if none differs, the loss itself at `metadata.managedFields`.
pub fn drift(desired: &Value, live: Option<&Value>) -> ObjectDrift {
    let Some(live) = live else { return ObjectDrift::Missing };
    let label = |object: &Value| {
        let labels = object.pointer("/metadata/labels")?;
        labels.get(DELIVERY_LABEL).and_then(Value::as_str).map(str::to_owned)
    };
    let wanted_label = label(desired);
    let unlabelled = wanted_label.is_some() && wanted_label != label(live);
    let owned = owned_by(live, FIELD_MANAGER);
    let others: Vec<Owner> = owners(live)
        .into_iter()
        .filter(|o| {
            o.manager != FIELD_MANAGER || o.operation != Operation::Apply || !o.subresource.is_empty()
        })
        .collect();
    let label_path = Path::fields(["metadata", "labels", DELIVERY_LABEL]);
    let mut changes = diff(desired, live, &owned);
    if owned.is_empty() {
        changes.retain(|c| c.kind != ChangeKind::Ownership);
        if changes.is_empty() {
            return ObjectDrift::Modified(vec![unrecorded()]);
        }
    }
    let mut fields: Vec<DriftedField> = changes
        .into_iter()
        .map(|change| {
            let ours = owned.contains(&change.path);
            let who = if ours { None } else { who(&others, &change.path) };
            let certainty = if ours && change.kind == ChangeKind::Changed {
                Certainty::Doubtful
            } else {
                change.certainty
            };
            DriftedField {
                desired: change.desired,
                live: change.live,
                kind: change.kind,
                manager: who.map(|o| o.manager.clone()),
                operation: who.map(|o| o.operation),
                subresource: who.map(|o| o.subresource.clone()).unwrap_or_default(),
                at: who.and_then(|o| o.time.clone()),
                certainty,
                path: change.path,
            }
        })
        .collect();
    if unlabelled {
        fields.sort_by_key(|f| f.path != label_path);
        return ObjectDrift::Unlabelled(fields);
    }
    if fields.is_empty() { ObjectDrift::InSync } else { ObjectDrift::Modified(fields) }
}

fn unrecorded() -> DriftedField {
    DriftedField {
        path: Path::fields(["metadata", "managedFields"]),
        desired: None,
        live: None,
        kind: ChangeKind::Ownership,
        manager: None,
        operation: None,
        subresource: String::new(),
        at: None,
        certainty: Certainty::Sure,
    }
}

/// Whether a dry-run of our apply of `desired`, which made `after` of `live`, says that nothing differs: neither a value nor what we
/// own. Whose an empty map or list is, is nobody's business.
pub fn is_unchanged(desired: &Value, live: &Value, after: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
        }
        object
    };
    let owned = |object: &Value| -> Vec<Path> {
        let empty = |value: &Value| match value {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            other => other.is_null(),
        };
        let all = owned_by(object, FIELD_MANAGER).paths().into_iter();
        all.filter(|path| !path.get(desired).is_some_and(empty)).collect()
    };
    bare(live) == bare(after) && owned(live) == owned(after)
}

/// The label that says that an object is a Delivery's, and who put it there, for one that is in no bundle.
pub fn label_of(live: &Value) -> Option<DriftedField> {
    let path = Path::fields(["metadata", "labels", DELIVERY_LABEL]);
    let label = path.get(live)?.clone();
    let all = owners(live);
    let who = who(&all, &path);
    Some(DriftedField {
        desired: None,
        live: Some(label),
        kind: ChangeKind::Removed,
        manager: who.map(|o| o.manager.clone()),
        operation: who.map(|o| o.operation),
        subresource: who.map(|o| o.subresource.clone()).unwrap_or_default(),
        at: who.and_then(|o| o.time.clone()),
        certainty: Certainty::Sure,
        path,
    })
}

/// The last of the managers that have a field.
fn who<'a>(others: &'a [Owner], path: &Path) -> Option<&'a Owner> {
    others.iter().filter(|owner| owner.fields.touches(path)).max_by(|a, b| a.time.cmp(&b.time))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::diff::changes_between;
    use crate::core::removal::{removal_patch, removals};
    use std::fmt::Write;

    #[test]
    fn doubtful_fields_that_an_apply_would_leave_are_not_told_beside_sure_ones() {
        let field = |name: &str, certainty| DriftedField {
            path: Path::fields(["spec", name]),
            desired: None,
            live: None,
            kind: ChangeKind::Changed,
            manager: None,
            operation: None,
            subresource: String::new(),
            at: None,
            certainty,
        };
        let live = serde_json::json!({"spec": {"a": 1, "b": "by admission", "c": 3}});
        let after = serde_json::json!({"spec": {"a": 2, "b": "by admission", "c": 4}});
        let all = vec![
            field("a", Certainty::Sure),
            field("b", Certainty::Doubtful),
            field("c", Certainty::Doubtful),
        ];
        let mut found = ObjectDrift::Modified(all.clone());
        assert!(found.has_doubt());
        found.settle(&live, &after);
        let names: Vec<String> = found.fields().iter().map(|f| f.path.to_string()).collect();
        assert_eq!(names, ["spec.a", "spec.c"]);
        // Where nothing else is known what is known stays.
        let mut found = ObjectDrift::Modified(all[1..2].to_vec());
        found.settle(&live, &after);
        assert_eq!(found.fields().len(), 1);
    }

    /// One line for each difference.
    fn lines(drift: &ObjectDrift) -> String {
        let mut out = match drift {
            ObjectDrift::InSync => "in sync\n".to_owned(),
            ObjectDrift::Modified(_) => String::new(),
            other => format!("{}\n", format!("{other:?}").split('(').next().unwrap()),
        };
        for f in drift.fields() {
            let text = |v: &Option<Value>| v.as_ref().map_or("-".to_owned(), Value::to_string);
            let doubt = if f.certainty == Certainty::Doubtful { " (doubtful)" } else { "" };
            let who = f.manager.as_deref().map_or("unknown".to_owned(), |m| {
                format!(
                    "{m} {}{}{}",
                    f.operation.unwrap(),
                    if f.subresource.is_empty() { "" } else { " " },
                    f.subresource
                )
            });
            writeln!(
                out,
                "{:?}{doubt} {}: {} -> {} by {who}",
                f.kind,
                f.path,
                text(&f.desired),
                text(&f.live)
            )
            .unwrap();
        }
        out
    }

    /// Objects recorded from an API server: what Git wants, what stood there after somebody's doing, and what a dry-run of our apply
    /// answered. The verdict made here must agree with that answer.
    #[test]
    fn verdicts_on_recorded_objects_agree_with_the_api_server() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fields");
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "json"));
        files.sort();
        let mut report = String::new();
        for file in files {
            let golden: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            let (desired, live, after) = (&golden["desired"], &golden["live"], &golden["after"]);
            let name = file.file_stem().unwrap().to_string_lossy();
            writeln!(report, "{name}: {}", golden["about"].as_str().unwrap()).unwrap();
            let verdict = drift(desired, Some(live));
            for line in lines(&verdict).lines() {
                writeln!(report, "  {line}").unwrap();
            }
            let moved = !changes_between(live, after).is_empty()
                || owned_by(live, FIELD_MANAGER) != owned_by(after, FIELD_MANAGER);
            if !verdict.is_doubtful() {
                assert_eq!(verdict != ObjectDrift::InSync, moved, "{name}:\n{}", lines(&verdict));
            }
            let settled = drift(desired, Some(after));
            assert!(
                settled == ObjectDrift::InSync || settled.is_doubtful(),
                "{name} after the apply: {settled:?}"
            );
            let adopting = golden["adopting"] == true;
            for path in removals(golden.get("previous"), desired, after, adopting) {
                assert_eq!(removal_patch(live, std::slice::from_ref(&path)).len(), 3, "{name} {path}");
                writeln!(report, "  remove {path}").unwrap();
            }
        }
        insta::assert_snapshot!(report);
    }
}
