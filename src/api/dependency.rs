//! What a Delivery waits for before it begins a revision.

use super::delivery::{Problem, Revision};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that must be ready before a new revision is begun: another Delivery (without `kind`), a Repository
/// (`kind: Repository`), or any object of the cluster (with `apiVersion`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.kind) || self.kind in ['Delivery', 'Repository'] || has(self.apiVersion)").message("dependsOn needs apiVersion besides kind, unless that is Delivery or Repository"),
    validation = Rule::new("!has(self.apiVersion) || has(self.kind)").message("dependsOn needs kind besides apiVersion")
)]
pub struct Dependency {
    /// The apiVersion of an object of the cluster, such as `apps/v1`. Not for Deliveries and Repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub api_version: Option<String>,
    /// `Delivery` (default), `Repository`, or with `apiVersion` any other kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; that of this Delivery without. A Delivery of another namespace must name this one in its
    /// `allowDependentsFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub namespace: Option<String>,
    /// When an object of the cluster counts as ready: a CEL expression over `object`, such as
    /// `object.status.phase == 'Running'`. Without it our own verdict of its health decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub ready: Option<String>,
}

/// A revision that waits for what the Delivery depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// The revision that is not begun.
    pub revision: Revision,
    /// What it waits for, and why: `DependencyNotReady`, or `DependencyCycle` and `InvalidDependency`, which only a
    /// person can mend.
    pub problem: Problem,
}
