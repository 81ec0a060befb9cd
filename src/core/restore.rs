//! Giving an adopted object back as it was: every field that we set on it has the value that it had, or is gone; what
//! others changed meanwhile stays theirs.

use super::fields::{Path, PathSet, Segment, owned_by};
use crate::api::names::FIELD_MANAGER;
use serde_json::{Map, Value};

/// What the API server and controllers write about an object: it is not put back.
const NOT_KEPT: &[&str] = &[
    "managedFields",
    "resourceVersion",
    "uid",
    "generation",
    "creationTimestamp",
    "selfLink",
    "deletionTimestamp",
];

/// What is kept of an object that is about to be adopted.
pub fn to_keep(object: &Value) -> Value {
    let mut kept = object.clone();
    if let Some(fields) = kept.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = kept.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| !NOT_KEPT.contains(&field.as_str()));
    }
    kept
}

/// The object with the values of `before` in all fields that we own or took away (`released`).
pub fn restored(live: &Value, before: &Value, released: &[Path]) -> Value {
    let ours = owned_by(live, FIELD_MANAGER).union(&released.iter().cloned().collect());
    let mut object = live.clone();
    put_back(&ours, &mut object, Some(before));
    object
}

fn put_back(ours: &PathSet, live: &mut Value, before: Option<&Value>) {
    for (segment, below) in ours.children() {
        let then = before.and_then(|b| segment.step(b));
        match (&mut *live, segment) {
            (Value::Object(fields), Segment::Field(name)) => put_back_field(fields, name, below, then),
            (Value::Array(items), _) => put_back_item(items, segment, below, then),
            _ => return,
        }
    }
}

fn put_back_field(fields: &mut Map<String, Value>, name: &str, below: &PathSet, then: Option<&Value>) {
    let whole = below.children().next().is_none();
    match (fields.get_mut(name), then) {
        (Some(now), _) if !whole => {
            put_back(below, now, then);
            let empty =
                now.as_object().is_some_and(Map::is_empty) || now.as_array().is_some_and(Vec::is_empty);
            if empty && then.is_none() {
                fields.remove(name);
            }
        }
        (_, Some(then)) => {
            fields.insert(name.to_owned(), then.clone());
        }
        (_, None) => {
            fields.remove(name);
        }
    }
}

fn put_back_item(items: &mut Vec<Value>, segment: &Segment, below: &PathSet, then: Option<&Value>) {
    let at = items.iter().enumerate().position(|(index, item)| segment.matches(index, item));
    match (at, then) {
        // Ours alone, unless somebody else has made something of it; then their part goes with it all the same, since an
        // item without what we gave it is none.
        (Some(at), None) if below.is_member() => {
            items.remove(at);
        }
        (Some(at), then) => {
            if let Some(item) = items.get_mut(at) {
                put_back(below, item, then);
            }
        }
        (None, Some(then)) => items.push(then.clone()),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owned(fields: Value) -> Value {
        json!([{"manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsV1": fields}])
    }

    #[test]
    fn what_we_set_has_the_value_that_it_had_and_what_others_set_stays() {
        let before = json!({
            "metadata": {"name": "x", "labels": {"a": "1"}, "annotations": {"last": "applied"}},
            "data": {"key": "theirs", "dropped": "theirs"},
        });
        let live = json!({
            "metadata": {"name": "x", "labels": {"a": "2", "ours": "x", "later": "somebody"}, "uid": "u",
                "managedFields": owned(json!({
                    "f:metadata": {"f:labels": {"f:a": {}, "f:ours": {}}},
                    "f:data": {"f:key": {}, "f:new": {}},
                }))},
            "data": {"key": "ours", "new": "ours", "other": "somebody"},
        });
        let released = [Path::fields(["data", "dropped"]), Path::fields(["metadata", "annotations", "last"])];
        let mut object = restored(&live, &before, &released);
        object["metadata"]["managedFields"] = Value::Null;
        assert_eq!(
            object,
            json!({
                "metadata": {"name": "x", "labels": {"a": "1", "later": "somebody"}, "uid": "u", "managedFields": null,
                    "annotations": {"last": "applied"}},
                "data": {"key": "theirs", "dropped": "theirs", "other": "somebody"},
            })
        );
    }

    #[test]
    fn items_of_lists_come_back_by_their_keys() {
        let before = json!({"spec": {"containers": [{"name": "web", "image": "web:1"}, {"name": "log", "image": "log:1"}]}});
        let live = json!({
            "metadata": {"managedFields": owned(json!({"f:spec": {"f:containers": {
                "k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:image": {}},
                "k:{\"name\":\"new\"}": {".": {}, "f:name": {}, "f:image": {}},
            }}}))},
            "spec": {"containers": [
                {"name": "new", "image": "new:1"}, {"name": "web", "image": "web:2", "tty": true}, {"name": "log", "image": "log:2"},
            ]},
        });
        assert_eq!(
            restored(&live, &before, &[])["spec"]["containers"],
            json!([{"name": "web", "image": "web:1", "tty": true}, {"name": "log", "image": "log:2"}])
        );
    }

    #[test]
    fn a_field_that_counts_as_one_and_one_that_was_not_there_come_out_whole() {
        let before = json!({"spec": {"rules": [1, 2]}});
        let live = json!({
            "metadata": {"managedFields": owned(json!({"f:spec": {"f:rules": {}, "f:extra": {"f:deep": {}}}}))},
            "spec": {"rules": [3], "extra": {"deep": 1}},
        });
        assert_eq!(restored(&live, &before, &[])["spec"], json!({"rules": [1, 2]}));
    }

    #[test]
    fn what_the_server_writes_is_not_kept() {
        let object = json!({"metadata": {"name": "x", "uid": "u", "managedFields": []}, "status": {"a": 1}, "data": {}});
        assert_eq!(to_keep(&object), json!({"metadata": {"name": "x"}, "data": {}}));
    }
}
