//! Hooks: Jobs that run once at a point of a revision's life.

use super::delivery::{Problem, Revision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum HookPoint {
    /// Before the first object of a new revision is written.
    BeforeApply,
    /// When a candidate of a new revision is healthy, before the first request reaches it. Only with a rollout.
    BeforeTraffic,
    /// When all of a new revision is written and healthy, before it counts as deployed.
    AfterApply,
    /// In each step of a rollout that names it, with `job` or with a metric's `job`, once.
    RolloutStep,
    /// When a new revision has failed.
    OnFailure,
    /// When a revision was brought back and is healthy.
    OnRollback,
}

impl HookPoint {
    /// As it is written in the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            HookPoint::BeforeApply => "before-apply",
            HookPoint::BeforeTraffic => "before-traffic",
            HookPoint::AfterApply => "after-apply",
            HookPoint::RolloutStep => "rollout-step",
            HookPoint::OnFailure => "on-failure",
            HookPoint::OnRollback => "on-rollback",
        }
    }
}

impl std::fmt::Display for HookPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When the Job of a hook is deleted. Whatever is chosen, it goes when the hook runs again for a newer revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookDelete {
    /// Not before the hook runs again.
    BeforeHookCreation,
    /// When it has succeeded.
    HookSucceeded,
    /// When it has failed; the end of its log is in the event.
    HookFailed,
}

/// How far a hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookStep {
    /// Its time has not come.
    Planned,
    /// Its Job is made, or about to be.
    Running,
    /// Its Job is complete.
    Succeeded,
    /// Its Job failed, could not be made, or was not done in time.
    Failed,
}

/// What becomes of the Job of a hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookJob {
    /// It stays.
    #[default]
    Kept,
    /// It is being deleted.
    Removing,
    /// It is gone.
    Gone,
}

/// A hook of one attempt at a revision: it runs once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookRun {
    /// When it runs.
    pub point: HookPoint,
    /// Namespace of the Job.
    pub namespace: String,
    /// Name of the Job in Git.
    pub name: String,
    /// Name of the Job in the cluster: the same for one attempt, however often it is made sure that it runs.
    pub job: String,
    /// `windlass.dev/wave` of the Job: hooks of one point run in rising waves.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wave: i32,
    /// The revision whose hook it is.
    pub revision: Revision,
    /// When the attempt began.
    pub since: String,
    /// Of a `RolloutStep`: which layout of the rollout it runs in, as in `rollout.at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u32>,
    /// How far it is.
    pub step: HookStep,
    /// What becomes of the Job.
    #[serde(default, skip_serializing_if = "is_kept")]
    pub state: HookJob,
    /// The Job's uid, once it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// When the Job is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<HookDelete>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

fn is_kept(state: &HookJob) -> bool {
    *state == HookJob::Kept
}

impl HookRun {
    /// The Job, as people read it.
    pub fn object(&self) -> String {
        format!("Job {}/{}", self.namespace, self.job)
    }
}
