//! Secrets: `stringData` becomes `data`, and values never leave.

use super::FieldChange;
use crate::core::fields::{Path, Segment};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The copy of the manifest that client-side apply keeps on the object. It holds every value, those of Secrets too.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Turns the `stringData` of a Secret into `data`, where it wins over the same key, as it does in the API server.
///
/// The server does this itself and forgets `stringData`, but records ownership of `stringData`: a key that leaves Git would
/// stay in `data` for ever. So this is done before anything else looks at the object. Other kinds, and `stringData` with
/// values that are no strings (which the server refuses), are left alone.
pub fn fold_string_data(object: &mut Map<String, Value>) {
    if object.get("kind") != Some(&json!("Secret")) || object.get("apiVersion") != Some(&json!("v1")) {
        return;
    }
    let folds = match object.get("stringData") {
        Some(Value::Object(texts)) => texts.values().all(Value::is_string),
        Some(Value::Null) => true,
        _ => false,
    };
    if !folds || !matches!(object.get("data"), None | Some(Value::Null | Value::Object(_))) {
        return;
    }
    let Some(Value::Object(texts)) = object.remove("stringData") else { return };
    if texts.is_empty() {
        return;
    }
    let data = object.entry("data").or_insert(Value::Null);
    if data.is_null() {
        *data = Value::Object(Map::new());
    }
    if let Value::Object(data) = data {
        for (key, text) in texts {
            data.insert(key, json!(STANDARD.encode(text.as_str().unwrap_or_default())));
        }
    }
}

/// Replaces what must not be shown: values in `data` and `stringData` of a Secret, and the copy of the manifest that
/// `kubectl apply` leaves in an annotation. Names of keys stay.
pub fn redact(kind: &str, change: &mut FieldChange) {
    redact_values(kind, &change.path, &mut change.desired, &mut change.live);
}

/// The same for the two values at a path.
pub(crate) fn redact_values(kind: &str, path: &Path, desired: &mut Option<Value>, live: &mut Option<Value>) {
    let both = desired.is_some() && live.is_some();
    let mark = if both && desired != live { "<redacted: differs>" } else { "<redacted>" };
    for value in [desired, live].into_iter().flatten() {
        hide(kind, &mut path.segments().to_vec(), value, mark);
    }
}

/// The same for two states of a whole object (`Null` for none) that are to be shown side by side: each value of a Secret
/// becomes a mark, another one on each side where the two differ. The manifest that `kubectl apply` keeps goes.
pub fn hide_secrets(before: &mut Value, after: &mut Value) {
    for object in [&mut *before, &mut *after] {
        if let Some(notes) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            notes.remove(LAST_APPLIED);
            if notes.is_empty()
                && let Some(metadata) = object["metadata"].as_object_mut()
            {
                metadata.remove("annotations");
            }
        }
    }
    if ![&*before, &*after].iter().any(|o| o["kind"] == "Secret") {
        return;
    }
    for field in ["data", "stringData"] {
        let (old, new) = (before[field].clone(), after[field].clone());
        for (object, own, other, mark) in
            [(&mut *before, &old, &new, "<redacted: before>"), (&mut *after, &new, &old, "<redacted: after>")]
        {
            let marked = |value: &Value, counterpart: Option<&Value>| match counterpart {
                Some(counterpart) if counterpart != value => json!(mark),
                _ => json!("<redacted>"),
            };
            match own {
                Value::Null => {}
                Value::Object(values) => {
                    let hidden: Map<String, Value> =
                        values.iter().map(|(key, v)| (key.clone(), marked(v, other.get(key)))).collect();
                    object[field] = Value::Object(hidden);
                }
                value => object[field] = marked(value, Some(other).filter(|o| !o.is_null())),
            }
        }
    }
}

fn hide(kind: &str, at: &mut Vec<Segment>, value: &mut Value, mark: &str) {
    let path: Vec<&str> = at
        .iter()
        .map(|step| match step {
            Segment::Field(name) => name.as_str(),
            _ => "",
        })
        .collect();
    let secret = match path.as_slice() {
        ["data" | "stringData", _, ..] => kind == "Secret",
        ["metadata", "annotations", name, ..] => *name == LAST_APPLIED,
        _ => false,
    };
    if secret {
        *value = json!(mark);
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, below) in fields {
                at.push(Segment::field(name.as_str()));
                hide(kind, at, below, mark);
                at.pop();
            }
        }
        // A Secret's data is a map of strings; anything else in its place may be a value all the same.
        other
            if kind == "Secret" && matches!(path.as_slice(), ["data" | "stringData"]) && !other.is_null() =>
        {
            *other = json!(mark);
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Certainty, ChangeKind};
    use super::*;

    #[test]
    fn string_data_wins_over_data() {
        let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "new", "c": ""}});
        fold_string_data(secret.as_object_mut().unwrap());
        assert_eq!(
            secret,
            json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA==", "b": "bmV3", "c": ""}})
        );
        for same in [
            json!({"apiVersion": "v1", "kind": "ConfigMap", "stringData": {"a": "b"}}),
            json!({"apiVersion": "example.com/v1", "kind": "Secret", "stringData": {"a": "b"}}),
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": 1}}),
        ] {
            let mut folded = same.clone();
            fold_string_data(folded.as_object_mut().unwrap());
            assert_eq!(folded, same);
        }
    }

    #[test]
    fn no_value_of_a_secret_is_left() {
        let hidden = "hunter2";
        let table = [
            (Path::fields(["data", "password"]), json!(hidden)),
            (Path::fields(["data"]), json!({"password": hidden})),
            (Path::fields(["data"]), json!(hidden)),
            (Path::fields(["stringData", "a"]), json!(hidden)),
            (Path::default(), json!({"kind": "Secret", "data": {"a": hidden}})),
            (Path::fields(["metadata", "annotations", LAST_APPLIED]), json!(hidden)),
            (Path::fields(["metadata", "annotations"]), json!({LAST_APPLIED: hidden})),
            (Path::fields(["metadata"]), json!({"annotations": {LAST_APPLIED: hidden}})),
        ];
        for (path, value) in table {
            let mut change = FieldChange {
                path,
                desired: Some(value.clone()),
                live: Some(json!("other")),
                kind: ChangeKind::Changed,
                certainty: Certainty::Sure,
            };
            redact("Secret", &mut change);
            assert!(!format!("{change:?}").contains(hidden), "{change:?}");
        }
    }

    #[test]
    fn side_by_side_a_secret_shows_which_keys_differ_and_no_value() {
        let hidden = "aHVudGVyMg==";
        let mut before = json!({"kind": "Secret", "data": {"same": hidden, "old": hidden, "changed": hidden},
            "metadata": {"annotations": {LAST_APPLIED: hidden}}});
        let mut after =
            json!({"kind": "Secret", "data": {"same": hidden, "new": hidden, "changed": "aHVudGVyMw=="}});
        hide_secrets(&mut before, &mut after);
        let mark = |m: &str| json!(format!("<redacted{m}>"));
        assert_eq!(
            before,
            json!({"kind": "Secret", "data": {"same": mark(""), "old": mark(""), "changed": mark(": before")},
                "metadata": {}})
        );
        assert_eq!(
            after,
            json!({"kind": "Secret", "data": {"same": mark(""), "new": mark(""), "changed": mark(": after")}})
        );
        let (mut nothing, mut made) = (Value::Null, json!({"kind": "Secret", "data": hidden}));
        hide_secrets(&mut nothing, &mut made);
        assert_eq!((nothing, made), (Value::Null, json!({"kind": "Secret", "data": mark("")})));
    }

    #[test]
    fn other_kinds_are_shown() {
        let mut change = FieldChange {
            path: Path::fields(["data", "k"]),
            desired: Some(json!("a")),
            live: None,
            kind: ChangeKind::Added,
            certainty: Certainty::Sure,
        };
        redact("ConfigMap", &mut change);
        assert_eq!(change.desired, Some(json!("a")));
    }
}
