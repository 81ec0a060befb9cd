//! What differs between two states of one object, such as before and after a dry-run.

use super::{Certainty, ChangeKind, FieldChange};
use crate::core::fields::{
    ListShape, Path, PathSet, Segment, find_item, is_server_metadata, item_segment, list_shape, owners,
};
use serde_json::Value;

/// What differs between two states of one object; `desired` of each change is what `after` has, `live` what `before` has.
///
/// Bookkeeping of the API server (`managedFields`, `resourceVersion`, `generation`, ...) and `status` are left out. Items of lists
/// are matched by key where the `managedFields` of one of the two shows the keys or where they are obvious; other lists are
/// compared whole. Each change is sure.
pub fn changes_between(before: &Value, after: &Value) -> Vec<FieldChange> {
    let known = owners(before)
        .iter()
        .chain(&owners(after))
        .fold(PathSet::default(), |set, owner| set.union(&owner.fields));
    let mut out = Vec::new();
    walk(before, after, Some(&known), &mut Vec::new(), &mut out);
    out
}

fn push(
    out: &mut Vec<FieldChange>,
    at: &[Segment],
    kind: ChangeKind,
    after: Option<&Value>,
    before: Option<&Value>,
) {
    out.push(FieldChange {
        path: Path(at.to_vec()),
        desired: after.cloned(),
        live: before.cloned(),
        kind,
        certainty: Certainty::Sure,
    });
}

fn step(
    segment: Segment,
    before: Option<&Value>,
    after: Option<&Value>,
    known: Option<&PathSet>,
    at: &mut Vec<Segment>,
    out: &mut Vec<FieldChange>,
) {
    let known = known.and_then(|k| k.child(&segment));
    at.push(segment);
    let ignored = is_server_metadata(at) || matches!(at.as_slice(), [Segment::Field(top)] if top == "status");
    if !ignored {
        match (before, after) {
            (Some(a), Some(b)) => walk(a, b, known, at, out),
            (None, Some(_)) => push(out, at, ChangeKind::Added, after, before),
            (Some(_), None) => push(out, at, ChangeKind::Removed, after, before),
            (None, None) => {}
        }
    }
    at.pop();
}

fn walk(
    before: &Value,
    after: &Value,
    known: Option<&PathSet>,
    at: &mut Vec<Segment>,
    out: &mut Vec<FieldChange>,
) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))).collect();
            names.sort_unstable();
            for name in names {
                step(Segment::field(name.as_str()), a.get(name), b.get(name), known, at, out);
            }
        }
        (Value::Array(a), Value::Array(b)) => match list_shape(known).or_obvious(a, b) {
            ListShape::Keyed(keys) => {
                let before_len = out.len();
                for item in a {
                    let other = find_item(&keys, item, b).map(|(_, v)| v);
                    step(item_segment(&keys, item), Some(item), other, known, at, out);
                }
                for item in b.iter().filter(|item| find_item(&keys, item, a).is_none()) {
                    step(item_segment(&keys, item), None, Some(item), known, at, out);
                }
                if out.len() == before_len {
                    push(out, at, ChangeKind::Changed, Some(after), Some(before));
                }
            }
            // A set has no order.
            ListShape::Set => {
                for item in a.iter().filter(|item| !b.contains(item)) {
                    step(Segment::Value(item.clone()), Some(item), None, known, at, out);
                }
                for item in b.iter().filter(|item| !a.contains(item)) {
                    step(Segment::Value(item.clone()), None, Some(item), known, at, out);
                }
            }
            _ => push(out, at, ChangeKind::Changed, Some(after), Some(before)),
        },
        // An object that is made or goes is told field by field.
        (Value::Null, Value::Object(b)) if at.is_empty() => {
            for (name, value) in b {
                step(Segment::field(name.as_str()), None, Some(value), known, at, out);
            }
        }
        _ => push(out, at, ChangeKind::Changed, Some(after), Some(before)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_are_matched_by_key_and_bookkeeping_is_left_out() {
        let before = json!({"metadata": {"resourceVersion": "1", "labels": {"a": "1"}}, "status": {"x": 1},
            "spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b"}], "args": ["1", "2"]}});
        let after = json!({"metadata": {"resourceVersion": "2", "labels": {"a": "1", "b": "2"}}, "status": {"x": 2},
            "spec": {"containers": [{"name": "a", "image": "x:2"}, {"name": "c"}], "args": ["1"]}});
        let lines: Vec<String> =
            changes_between(&before, &after).iter().map(|c| format!("{:?} {}", c.kind, c.path)).collect();
        assert_eq!(
            lines,
            [
                "Added metadata.labels.b",
                "Changed spec.args",
                "Changed spec.containers[name=a].image",
                "Removed spec.containers[name=b]",
                "Added spec.containers[name=c]",
            ]
        );
        assert!(changes_between(&after, &after).is_empty());
        assert_eq!(changes_between(&Value::Null, &json!({"kind": "A", "spec": {}, "data": {}})).len(), 2);
    }
}
