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
    /// The revision that the cluster was compared with: the effective one, or the one that is being put in place.
    #[serde(default)]
    pub revision: String,
    /// Generation of the Delivery's spec that counted.
    #[serde(default)]
    pub generation: i64,
    /// How many objects differ now.
    #[serde(default)]
    pub count: i64,
    /// Since when something differs; absent while all is in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The objects that differ now, as many as fit into 192 KiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<DriftedObject>,
    /// What is not listed for want of room; absent when everything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// The last drifts that ended, newest first, 20 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub episodes: Vec<DriftEpisode>,
    /// Fields that were written back, the last first, those that are left to another first of all; 50 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recurring: Vec<RecurringField>,
}

/// What a report does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// Objects that differ and are not listed.
    pub objects: i64,
    /// Fields that differ and are not listed, those of objects that are not listed included.
    pub fields: i64,
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
    /// `Modified`: fields differ. `Missing`: it is not there. `Unlabelled`: our label was taken off it or changed, and perhaps
    /// more. `Foreign`: it carries our label and is in no bundle; it is neither adopted nor deleted.
    pub state: String,
    /// When the difference was first seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// The fields that differ, 50 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<DriftedField>,
    /// How many more of its fields differ.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fields_left_out: i64,
}

/// A field that differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftedField {
    /// Where it is, such as `spec.template.spec.containers[name=web].image`.
    pub path: String,
    /// The same as a rule in `spec.drift.ignore` names it, such as `/spec/template/spec/containers/name=web/image`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pointer: String,
    /// The value that Git wants, as JSON; absent when Git does not name the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// The value in the cluster, as JSON; absent when it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<String>,
    /// The field manager that changed it; `unknown` where Kubernetes does not record it.
    pub manager: String,
    /// How it wrote: `Apply`, or `Update` for everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The subresource that it wrote through, such as `scale`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subresource: String,
    /// When that manager last wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// A drift that ended while the revision and the settings stayed the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftEpisode {
    /// When the difference was first seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub started_at: String,
    /// When it was mended, or first seen to be over.
    pub mended_at: String,
    /// `windlass` where it was written back; absent where somebody else undid it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended_by: Option<String>,
    /// What it was.
    pub object: DriftedObject,
}

/// A field that was written back, and how often it came back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecurringField {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace, absent for a cluster-scoped one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The field; empty for the object itself, which was deleted.
    pub path: String,
    /// The same as a rule in `spec.drift.ignore` names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pointer: String,
    /// The field manager that wrote it last, `unknown` where Kubernetes does not record it.
    pub manager: String,
    /// How often it was written back.
    pub times: i64,
    /// Of these, how often without five minutes of peace in between.
    #[serde(default)]
    pub in_a_row: i64,
    /// When it was written back first.
    pub first_at: String,
    /// When it was written back last.
    pub last_at: String,
    /// Since when it is left to the other, who keeps writing it: until a newer revision or another spec. An object that is deleted again
    /// and again (`path` is empty) is left for five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<String>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}
