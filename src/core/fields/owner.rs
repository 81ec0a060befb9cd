//! The entries of `metadata.managedFields`.

use super::PathSet;
use serde_json::Value;
use std::fmt;

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply: the entry is the whole set of what the manager wants.
    Apply,
    /// By create, update or patch: the entry is what the manager changed, defaults included when it created the object.
    Update,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        })
    }
}

/// One entry of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The field manager: a program's name, not a person's.
    pub manager: String,
    /// How it wrote.
    pub operation: Operation,
    /// The subresource that it wrote through, such as `status` or `scale`; `""` for the object itself.
    pub subresource: String,
    /// When it last changed its set (RFC 3339). An apply that changes nothing does not move it.
    pub time: Option<String>,
    /// The version that the paths are written in.
    pub api_version: String,
    /// What it owns.
    pub fields: PathSet,
}

/// All entries of an object. An entry that cannot be read is left out.
pub fn owners(object: &Value) -> Vec<Owner> {
    entries(object)
        .filter_map(|entry| {
            let text = |field: &str| entry.get(field).and_then(Value::as_str);
            Some(Owner {
                manager: text("manager").unwrap_or_default().into(),
                operation: match text("operation")? {
                    "Apply" => Operation::Apply,
                    _ => Operation::Update,
                },
                subresource: text("subresource").unwrap_or_default().into(),
                time: text("time").map(Into::into),
                api_version: text("apiVersion").unwrap_or_default().into(),
                fields: PathSet::decode(entry.get("fieldsV1")?),
            })
        })
        .collect()
}

/// What `manager` owns by server-side apply of the object itself. There is at most one such entry: its version is not part of
/// an applier's identity.
pub fn owned_by(object: &Value, manager: &str) -> PathSet {
    applied(object, manager).map(PathSet::decode).unwrap_or_default()
}

/// The `fieldsV1` of the apply entry of `manager`.
pub(super) fn applied<'a>(object: &'a Value, manager: &str) -> Option<&'a Value> {
    let is = |entry: &Value, field: &str, text: &str| {
        entry.get(field).and_then(Value::as_str).unwrap_or_default() == text
    };
    entries(object)
        .find(|e| is(e, "manager", manager) && is(e, "operation", "Apply") && is(e, "subresource", ""))?
        .get("fieldsV1")
}

fn entries(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten()
}
