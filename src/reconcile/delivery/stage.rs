//! Preparing a stage of a rollout: the bundle that the cluster is made like, and whether a revision needs a rollout at all.

use super::work::{Memory, Work};
use super::{Scope, bundle_of, prepare as prepare_bundle};
use crate::api::delivery::{DeliveryStatus, Goal, Revision};
use crate::core::rollout::{Begin, Refusal, Staging};

/// Prepares a revision as a stage wants it. Without a staging it is new: it is prepared whole, so that nothing of it is
/// begun that the API server would refuse, and then as its first stage wants it if it needs a rollout.
pub async fn prepare(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
    revision: &Revision,
    goal: Goal,
    staging: Option<Staging>,
) -> Result<Work, Refusal> {
    let bundle = bundle_of(scope, memory, revision).await?;
    let mut work = prepare_bundle(scope, memory, status, revision, goal, bundle).await?;
    if staging.is_none() {
        work.begin = Some(Begin::Direct(String::new()));
    }
    Ok(work)
}
