//! What is known of an Application.

use crate::api::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of an Application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How it is, in a word.
    #[serde(default)]
    pub phase: ApplicationPhase,
    /// How many pods there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many of them are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// How many of them have been ready for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
    /// The selector of its pods as text, for whoever scales it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The revision of the spec that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// Where it is reached from outside of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Available, Progressing, Degraded, Ready, Held, Limited.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How an Application is, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApplicationPhase {
    /// Nothing of it runs yet.
    #[default]
    Pending,
    /// A change is being put in place.
    Progressing,
    /// All pods that are wanted are available.
    Running,
    /// Some of the pods that are wanted are available.
    PartiallyRunning,
    /// It does not work, and nothing is under way that would mend it.
    Degraded,
    /// The last change failed; what was good before runs.
    RolledBack,
}
