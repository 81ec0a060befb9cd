//! Digests of an object: of what we own in it (equal ones mean that nobody has touched that), and of all of it.

use super::{Segment, owner};
use crate::api::names::FIELD_MANAGER;
use crate::core::digest;
use serde_json::{Value, json};

/// Digest over the paths of our apply entry and the values that stand there.
///
/// It is the same for two states of an object exactly when our entry and every value under it are the same: the order of keys,
/// items that others put into a list, and everything outside of what we own do not matter. The order in which our own items
/// follow each other does, since an apply would restore it (containers start and variables expand in that order); the
/// order of a set does not. Values of a Secret need `secret_key`; other kinds ignore it.
///
/// `None` when we own nothing, or for a Secret without a key. Computed for each watch event, so nothing is copied.
pub fn owned_digest(object: &Value, secret_key: Option<&[u8]>) -> Option<String> {
    let fields = owner::applied(object, FIELD_MANAGER)?;
    if fields.as_object()?.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(2048);
    write(fields, Some(object), &mut out);
    if is_secret(object) {
        secret_key.map(|key| digest::of_bytes_keyed(&out, key))
    } else {
        Some(digest::of_bytes(&out))
    }
}

/// Digest over all of an object and whose its fields are, but for what is written all the time by those who look after it: status,
/// versions and times. It is neither keyed nor stable over versions of Windlass: to be kept in memory only.
pub fn whole_digest(object: &Value) -> String {
    let part = |object: &Value, without: &[&str]| -> Value {
        let fields = object.as_object().into_iter().flatten();
        let kept = fields.filter(|(name, _)| !without.contains(&name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let owners = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let owners: Vec<Value> =
        owners.filter(|o| o["subresource"] != "status").map(|o| part(o, &["time"])).collect();
    digest::of_value(&json!([
        part(object, &["metadata", "status"]),
        part(&object["metadata"], &["managedFields", "resourceVersion"]),
        owners,
    ]))
}

fn is_secret(object: &Value) -> bool {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    text("kind") == "Secret" && text("apiVersion") == "v1"
}

/// Writes one node of `fieldsV1` and the live value under it. Every part is closed by a byte that no text holds, so that different
/// trees write different bytes.
fn write(fields: &Value, live: Option<&Value>, out: &mut Vec<u8>) {
    const END: u8 = 0xff;
    let Some(map) = fields.as_object() else { return };
    if map.is_empty() {
        match live {
            Some(value) => digest::write_canonical(value, out),
            None => out.push(0xfe),
        }
        out.push(END);
        return;
    }
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_unstable();
    let mut places = Vec::new();
    for (rank, key) in keys.into_iter().enumerate() {
        out.extend_from_slice(key.as_bytes());
        out.push(END);
        let below = &map[key];
        match key.strip_prefix("f:") {
            // `labels: {}` in Git asks for a map; whatever others put into it does not count.
            Some("labels" | "annotations") if below.as_object().is_some_and(serde_json::Map::is_empty) => {
                out.push(b'{');
            }
            Some(name) => write(below, live.and_then(|v| v.get(name)), out),
            None if key == "." => out.push(if live.is_some() { b'+' } else { b'-' }),
            None => {
                let segment = Segment::decode(key);
                let place = live.and_then(|v| segment.as_ref()?.position(v));
                if let (Some(place), Some(Segment::Key(_))) = (place, &segment) {
                    places.push((place, rank));
                }
                write(below, place.and_then(|i| live?.get(i)), out);
            }
        }
    }
    places.sort_unstable();
    for (_, rank) in places {
        out.extend_from_slice(&u32::try_from(rank).unwrap_or(u32::MAX).to_be_bytes());
    }
    out.push(END);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": kind,
            "metadata": {"name": "web", "labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"], "managedFields": [
                {"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:data": {"f:k": {}}}},
                {"manager": "windlass", "operation": "Update", "fieldsV1": {"f:data": {"f:k": {}}}},
                {"manager": "windlass", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {}}},
                {"manager": "windlass", "operation": "Apply", "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x\"": {}, "v:\"y\"": {}}},
                    "f:spec": {"f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}},
                                          "k:{\"name\":\"B\"}": {".": {}, "f:name": {}}},
                               "f:args": {}}}},
            ]},
            "spec": {"args": ["x", "y"], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}], "other": 1},
        })
    }

    #[test]
    fn only_what_we_own_counts() {
        let digest = |o: &Value| owned_digest(o, None).unwrap();
        let base = digest(&object("Thing"));
        let with = |pointer: &str, value: Value| {
            let mut object = object("Thing");
            *object.pointer_mut(pointer).unwrap() = value;
            digest(&object)
        };
        // Others' fields, others' items between ours, the order of a set.
        assert_eq!(base, with("/metadata/labels/b", json!("3")));
        assert_eq!(base, with("/spec/other", json!(2)));
        assert_eq!(base, with("/metadata/finalizers", json!(["y", "z", "x"])));
        assert_eq!(base, with("/spec/env/1", json!({"name": "B", "value": "theirs"})));
        assert_eq!(
            base,
            with(
                "/spec/env",
                json!([{"name": "Z"}, {"name": "A", "value": "1"}, {"name": "Y"}, {"name": "B"}])
            )
        );
        // Ours.
        let changed = [
            with("/metadata/labels/a", json!("x")),
            with("/spec/args", json!(["y", "x"])),
            with("/spec/args", json!(["xy"])),
            with("/spec/env", json!([{"name": "B"}, {"name": "A", "value": "1"}])),
            with("/spec/env", json!([{"name": "A", "value": "1"}])),
            with("/spec/env/0/value", json!(null)),
            with("/metadata/finalizers", json!(["x"])),
            with("/metadata/managedFields/3/fieldsV1/f:spec", json!({"f:args": {}})),
        ];
        for (i, digest) in changed.iter().enumerate() {
            assert_ne!(&base, digest, "change {i}");
        }
    }

    #[test]
    fn all_counts_but_what_is_written_all_the_time() {
        let base = object("Thing");
        let with = |pointer: &str, value: Value| {
            let mut object = base.clone();
            let (above, name) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(above).unwrap()[name] = value;
            whole_digest(&object)
        };
        let whole = whole_digest(&base);
        for (pointer, value) in [
            ("/status", json!({"phase": "Running"})),
            ("/metadata/resourceVersion", json!("7")),
            ("/metadata/managedFields/0/time", json!("2026-01-01T00:00:00Z")),
            ("/metadata/managedFields/2/fieldsV1", json!({"f:status": {"f:phase": {}}})),
        ] {
            assert_eq!(whole, with(pointer, value), "{pointer}");
        }
        for (pointer, value) in [
            ("/spec/other", json!(2)),
            ("/data", json!({"key": "2"})),
            ("/metadata/labels/b", json!("3")),
            ("/metadata/annotations", json!({"note": "x"})),
            ("/metadata/generation", json!(2)),
            ("/metadata/managedFields/0/manager", json!("helm")),
            ("/metadata/managedFields", json!([])),
        ] {
            assert_ne!(whole, with(pointer, value), "{pointer}");
        }
    }

    #[test]
    fn what_others_put_into_an_empty_map_of_ours_does_not_count() {
        let object = |annotations: Value| {
            json!({"metadata": {"annotations": annotations, "managedFields": [
                {"manager": "windlass", "operation": "Apply", "fieldsV1": {"f:metadata": {"f:annotations": {}}}}]}})
        };
        assert_eq!(
            owned_digest(&object(json!({})), None),
            owned_digest(&object(json!({"deployment.kubernetes.io/revision": "2"})), None)
        );
    }

    #[test]
    fn secrets_are_keyed_and_nothing_owned_has_no_digest() {
        let secret = object("Secret");
        assert_eq!(owned_digest(&secret, None), None);
        let (a, b) =
            (owned_digest(&secret, Some(b"k1")).unwrap(), owned_digest(&secret, Some(b"k2")).unwrap());
        assert_ne!(a, b);
        let mut nobody = object("Thing");
        nobody["metadata"]["managedFields"].as_array_mut().unwrap().pop();
        assert_eq!(owned_digest(&nobody, None), None);
        assert_eq!(owned_digest(&json!({}), None), None);
    }
}
