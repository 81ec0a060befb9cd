//! What of a Delivery's objects is left to others.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Fields that others are in charge of, once an object is there: they are neither reported nor corrected, and a new revision
/// does not overwrite them either. What Git says counts when the object is created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("(has(self.paths) && size(self.paths) > 0) || (has(self.managers) && size(self.managers) > 0)").message("an ignore rule names paths or managers; the path '' stands for the whole object")
)]
pub struct IgnoreRule {
    /// The objects that the rule is about; all of the Delivery without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<IgnoreTarget>,
    /// JSON pointers (RFC 6901) to the fields, such as `/spec/replicas`. `*` stands for any text within a segment, and alone
    /// for one segment. Items of a list are named by their keys (`/spec/template/spec/containers/name=web/image`), by their
    /// position in Git's list, or by `*`. With `managers`: only where one of these has the field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024), regex(pattern = r"^(/([^~]|~[01])*)?$")))]
    pub paths: Vec<String>,
    /// Field managers, as `kubectl get --show-managed-fields` shows them: what one of these has is left to it. `*` stands for
    /// any text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    pub managers: Vec<String>,
    /// A CEL expression over `object`, as it stands in the cluster, such as `object.spec.replicas > 1`: the rule counts where
    /// it is true. Where it has no value (a field is not there) it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub cel: Option<String>,
}

/// Which objects a rule is about. All that is given must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IgnoreTarget {
    /// The API group, `""` for the core group; any without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// The kind, such as `Deployment`; any without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// The name; `*` stands for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// The namespace; any without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Labels that the object has in Git, as `kubectl -l` takes them: `app=web,tier in (a, b),!old`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub label_selector: Option<String>,
}
