//! `DriftReport`: what differs between a Delivery's effective bundle and the cluster.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What differs between a Delivery's effective bundle and the cluster, field by field, with who changed it.
/// One for each Delivery that drifted, of the same name, owned by it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "windlass.dev",
    version = "v1alpha1",
    kind = "DriftReport",
    plural = "driftreports",
    shortname = "drift",
    category = "windlass",
    namespaced,
    doc = "What differs between a Delivery's effective bundle and the cluster, field by field, with who changed it.",
    printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".spec.revision"}"#,
    printcolumn = r#"{"name":"Objects","type":"integer","jsonPath":".spec.count"}"#,
    printcolumn = r#"{"name":"Since","type":"date","jsonPath":".spec.since"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct DriftReportSpec {
    /// The effective revision that the cluster was compared with.
    #[serde(default)]
    pub revision: String,
    /// How many objects differ now.
    #[serde(default)]
    pub count: i64,
    /// Since when something differs; absent while all is in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The objects that differ now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<DriftedObject>,
    /// The last drifts that were mended, newest first, 20 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub episodes: Vec<DriftEpisode>,
}

/// An object that differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftedObject {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace, absent for a cluster-scoped one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `Modified`, `Missing`, `Unlabelled` or `Foreign`.
    pub state: String,
    /// When the difference was first seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// The fields that differ, 50 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<DriftedField>,
}

/// A field that differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftedField {
    /// Where it is, such as `spec.template.spec.containers[name=web].image`.
    pub path: String,
    /// The value that Git wants, as JSON; absent when Git does not name the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// The value in the cluster, as JSON; absent when it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<String>,
    /// The field manager that changed it; `unknown` where Kubernetes does not record it.
    pub manager: String,
    /// `Apply` or `Update`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// When that manager last wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// A drift that was mended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftEpisode {
    /// When it was mended.
    pub mended_at: String,
    /// What it was.
    pub object: DriftedObject,
}
