//! What a value's paths are: which lists have keys, and what an apply of a manifest would own.
//!
//! Whether a list is compared item by item or as one value stands in the API's schema. It also shows in every entry of
//! `managedFields`: items of an associative list are owned by key, of a set by value, and a list or map
//! that counts as one value is a member without children. So no schema is needed.

use super::{PathSet, Segment, same_scalar};
use serde_json::Value;
use std::collections::BTreeMap;

/// How the items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListShape {
    /// By the values of these fields.
    Keyed(Vec<String>),
    /// By value.
    Set,
    /// Not at all: the list is one value.
    Atomic,
    /// No entry tells.
    Unknown,
}

/// The shape that an entry shows.
pub(crate) fn list_shape(known: Option<&PathSet>) -> ListShape {
    let Some(known) = known else { return ListShape::Unknown };
    for (segment, _) in known.children() {
        match segment {
            Segment::Key(keys) => return ListShape::Keyed(keys.keys().cloned().collect()),
            Segment::Value(_) => return ListShape::Set,
            Segment::Field(_) | Segment::Index(_) => {}
        }
    }
    if known.is_leaf() { ListShape::Atomic } else { ListShape::Unknown }
}

impl ListShape {
    /// Where no entry tells: by the first keys that commonly tell items apart and do so in both lists.
    pub(crate) fn or_obvious(self, a: &[Value], b: &[Value]) -> Self {
        const OBVIOUS: [&[&str]; 6] = [
            &["containerPort", "protocol"],
            &["port", "protocol"],
            &["mountPath"],
            &["devicePath"],
            &["topologyKey", "whenUnsatisfiable"],
            &["name"],
        ];
        if self != ListShape::Unknown || (a.is_empty() && b.is_empty()) {
            return self;
        }
        OBVIOUS
            .iter()
            .map(|keys| keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>())
            .find(|keys| tells_apart(keys, a) && tells_apart(keys, b))
            .map_or(self, ListShape::Keyed)
    }
}

fn tells_apart(keys: &[String], items: &[Value]) -> bool {
    items.iter().enumerate().all(|(i, item)| {
        item.get(&keys[0]).is_some() && find_item(keys, item, items).is_some_and(|(first, _)| first == i)
    })
}

/// The value that the API server gives to a key that a manifest leaves out.
fn default_key(name: &str) -> Option<Value> {
    (name == "protocol").then(|| Value::String("TCP".into()))
}

/// The step to an item of an associative list, with defaults for keys that it leaves out. A key without a default that is
/// left out is not part of the step.
pub(crate) fn item_segment(keys: &[String], item: &Value) -> Segment {
    let values = keys.iter().filter_map(|key| {
        let value = item.get(key).filter(|v| !v.is_null()).cloned().or_else(|| default_key(key))?;
        Some((key.clone(), value))
    });
    Segment::Key(values.collect::<BTreeMap<_, _>>())
}

/// The item of `list` that `wanted`, an item of a manifest, stands for.
pub(crate) fn find_item<'a>(
    keys: &[String],
    wanted: &Value,
    list: &'a [Value],
) -> Option<(usize, &'a Value)> {
    list.iter().enumerate().find(|(_, item)| {
        keys.iter().all(|key| {
            let wanted = wanted.get(key).filter(|v| !v.is_null()).cloned().or_else(|| default_key(key));
            let found = item.get(key).filter(|v| !v.is_null()).cloned().or_else(|| default_key(key));
            match (wanted, found) {
                (Some(a), Some(b)) => same_scalar(&a, &b),
                (None, None) => true,
                _ => false,
            }
        })
    })
}

/// Whether a path is written by the API server alone: identity and bookkeeping in `metadata`, and `apiVersion` and `kind`, which
/// no entry of `managedFields` holds.
pub fn is_server_metadata(path: &[Segment]) -> bool {
    match path {
        [Segment::Field(top)] => matches!(top.as_str(), "apiVersion" | "kind"),
        [Segment::Field(top), Segment::Field(name), ..] if top == "metadata" => matches!(
            name.as_str(),
            "name"
                | "namespace"
                | "generateName"
                | "uid"
                | "resourceVersion"
                | "generation"
                | "creationTimestamp"
                | "deletionTimestamp"
                | "deletionGracePeriodSeconds"
                | "selfLink"
                | "clusterName"
                | "managedFields"
        ),
        _ => false,
    }
}

/// The paths that an apply of `manifest` owns, where `like` (what anybody owns of the object) tells how lists are keyed.
///
/// A list that `like` does not know counts as one value. `metadata` that the server alone writes is left out, and `status` unless
/// `like` has it: main resources with a status subresource drop it.
pub fn desired_paths(manifest: &Value, like: &PathSet) -> PathSet {
    let mut out = PathSet::default();
    walk(manifest, Some(like), &mut Vec::new(), &mut out);
    out
}

fn walk(value: &Value, like: Option<&PathSet>, at: &mut Vec<Segment>, out: &mut PathSet) {
    let leaf = like.is_some_and(PathSet::is_leaf);
    match value {
        Value::Object(map) if !map.is_empty() && (!leaf || at.is_empty()) => {
            // In a map with free keys and in values without a schema, each step is a member; in a struct none is.
            if like.is_some_and(PathSet::is_member) {
                out.insert(at);
            }
            for (name, below) in map {
                let segment = Segment::Field(name.clone());
                let next = like.and_then(|l| l.child(&segment));
                at.push(segment);
                let skipped = is_server_metadata(at) || (at.len() == 1 && name == "status" && next.is_none());
                if !skipped {
                    walk(below, next, at, out);
                }
                at.pop();
            }
        }
        Value::Array(items) => match list_shape(like) {
            ListShape::Keyed(keys) => {
                for item in items {
                    let segment = item_segment(&keys, item);
                    let next = like.and_then(|l| l.child(&segment));
                    at.push(segment);
                    out.insert(at);
                    walk(item, next, at, out);
                    at.pop();
                }
            }
            ListShape::Set => {
                for item in items {
                    at.push(Segment::Value(item.clone()));
                    out.insert(at);
                    at.pop();
                }
            }
            // An empty list with keys owns nothing, and an empty one that is one value owns itself.
            ListShape::Unknown if items.is_empty() => {}
            ListShape::Atomic | ListShape::Unknown => out.insert(at),
        },
        _ => out.insert(at),
    }
}
