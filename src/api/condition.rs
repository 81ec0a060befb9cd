//! Conditions in the standard form of Kubernetes, and the types and reasons that we use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition of a resource's status, as in `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about, in CamelCase; see [`kind`].
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in CamelCase; for programs.
    pub reason: String,
    /// Why, as a sentence; for people.
    #[serde(default)]
    pub message: String,
    /// When `status` last changed (RFC 3339).
    pub last_transition_time: String,
    /// The `metadata.generation` that this was said about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The types of condition.
pub mod kind {
    /// All is as Git says, and healthy.
    pub const READY: &str = "Ready";
    /// Work is under way.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing more can be done until a person acts.
    pub const STALLED: &str = "Stalled";
    /// The objects that run are healthy.
    pub const HEALTHY: &str = "Healthy";
    /// The cluster differs from the effective revision.
    pub const DRIFTED: &str = "Drifted";
    /// A revision failed, was rolled back and is not tried again.
    pub const HELD: &str = "Held";
    /// Of an Application: it serves, with some of its pods at least.
    pub const AVAILABLE: &str = "Available";
    /// Of an Application: a change is being put in place.
    pub const PROGRESSING: &str = "Progressing";
    /// Of an Application: something in its spec is not carried out, or may not do what was meant.
    pub const LIMITED: &str = "Limited";
    /// Of an Application: it does not work, or its last change cannot be put in place.
    pub const DEGRADED: &str = "Degraded";
}

/// Sets a condition in a list: the transition time moves only when the status does.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: jiff::Timestamp,
    generation: Option<i64>,
) {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let new = |time| Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: time,
        observed_generation: generation,
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(old) => {
            let time = if old.status == status { old.last_transition_time.clone() } else { time };
            *old = new(time);
        }
        None => conditions.push(new(time)),
    }
}

/// The condition of a type, if it is there.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}
