//! What differs between what Git wants and what the cluster has, field by field.

mod between;
mod compare;
mod defaults;
mod equal;
mod quantity;
mod secret;

pub use between::changes_between;
pub use compare::diff;
pub use secret::{fold_string_data, hide_secrets, redact};

pub(crate) use defaults::{is_allocated, is_default, is_free_map};
pub(crate) use quantity::is_less;
pub(crate) use secret::redact_values;

use super::fields::Path;
use serde::Serialize;
use serde_json::Value;

/// One field that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// Where.
    pub path: Path,
    /// What is wanted there; `None` for a field that should not be there.
    pub desired: Option<Value>,
    /// What stands there; `None` when nothing does.
    pub live: Option<Value>,
    /// How it differs.
    pub kind: ChangeKind,
    /// Whether it surely differs.
    pub certainty: Certainty,
}

/// How a field differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ChangeKind {
    /// The live value is another one. For a list whose items are all there and stand in another order, the values are the keys in
    /// order.
    Changed,
    /// The field is wanted and missing.
    Added,
    /// The field is there, we own it, and it is not wanted (any more).
    Removed,
    /// The value is the wanted one, but we do not own the field: somebody changed it and changed it back, or it was never ours. An
    /// apply would make it ours and change nothing else. Also a path that we own and that is neither wanted nor there.
    Ownership,
}

/// Whether a difference is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Certainty {
    /// An apply would change the object, or our entry of its `managedFields`.
    Sure,
    /// The two may be one value in two spellings, or what is more may be a default. A dry-run apply tells: remember its answer by the
    /// digest of the object in the bundle and the server's version.
    Doubtful,
}

/// What the comparison needs to know of an object's kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KindOf<'a> {
    /// API group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
}

impl<'a> KindOf<'a> {
    pub(crate) fn new(object: &'a Value) -> Self {
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
        KindOf { group, kind: text("kind") }
    }

    /// Whether the kind is compiled into the API server, which then writes values in its own spelling and drops empty ones. Custom
    /// resources are kept as they were sent.
    pub(crate) fn is_built_in(&self) -> bool {
        match self.group {
            "" | "apps" | "batch" | "autoscaling" | "policy" | "extensions" => true,
            "gateway.networking.k8s.io" | "snapshot.storage.k8s.io" | "metrics.k8s.io" => false,
            group => {
                group.ends_with(".k8s.io")
                    && !group.ends_with(".x-k8s.io")
                    && BUILT_IN.contains(&group.trim_end_matches(".k8s.io"))
            }
        }
    }

    pub(crate) fn is_secret(&self) -> bool {
        self.group.is_empty() && self.kind == "Secret"
    }
}

/// API groups `*.k8s.io` of the API server itself.
const BUILT_IN: [&str; 17] = [
    "admissionregistration",
    "apiextensions",
    "apiregistration",
    "authentication",
    "authorization",
    "certificates",
    "coordination",
    "discovery",
    "events",
    "flowcontrol.apiserver",
    "internal.apiserver",
    "networking",
    "node",
    "rbac.authorization",
    "resource",
    "scheduling",
    "storage",
];
