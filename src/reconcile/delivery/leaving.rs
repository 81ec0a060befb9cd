//! A Delivery that goes in the middle of a rollout and leaves its objects: what stands under the names of Git gets all traffic
//! back, and what is there for the rollout alone goes. Nobody would steer two variants any more.

use super::work::{Memory, Work};
use super::{Scope, apply, prune, remove, route_last, stage};
use crate::api::delivery::{DeliveryStatus, Goal, InventoryEntry, Problem, Revision};
use crate::api::rollout::Base;
use crate::core::manifest::ObjectId;
use crate::core::rollout::{ApplyEnd, Health, Refusal, Staging};
use jiff::{SignedDuration, Timestamp};

/// How long it is tried: a Delivery must not hang for ever on a route that nobody accepts.
const LIMIT: SignedDuration = SignedDuration::from_secs(30);

/// How soon it is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// How far that is, in this life of the daemon; another one begins anew, and finds most of it done.
#[derive(Debug, Default)]
pub struct Leaving {
    since: Option<Timestamp>,
    /// From when on no proxy sends a candidate anything.
    settled: Option<Timestamp>,
    /// The Delivery stays until then.
    pub waits: bool,
}

/// Ends a rollout that is under way, as far as that is possible. Answers when to go on with it; `None` when it is over.
pub async fn end_rollout(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
) -> Option<Timestamp> {
    let now = scope.daemon.now();
    let since = *memory.leaving.since.get_or_insert(now);
    let ended = ended(scope, memory, status).await;
    let again = match ended {
        Ok(again) => again,
        Err(refusal) if refusal.transient && now < since + LIMIT => Some(now + AGAIN),
        Err(refusal) => {
            let told = format!("the candidate stays, with its share of traffic: {}", refusal.problem.message);
            scope.notify(true, "CandidateLeft", &refusal.problem.object, &told);
            None
        }
    };
    memory.leaving.waits = again.is_some();
    again
}

async fn ended(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
) -> Result<Option<Timestamp>, Refusal> {
    let Some(attempt) = &status.attempt else { return Ok(None) };
    let Some(rollout) = &attempt.rollout else { return Ok(None) };
    let settled = match memory.leaving.settled {
        Some(settled) => settled,
        None => {
            // Once stable is on its way to the new revision, the way back is as long.
            let base = match (attempt.goal, rollout.layout.base) {
                (Goal::Deploy | Goal::Refresh, Base::Stable) => status.effective.as_ref(),
                _ => Some(&attempt.revision),
            };
            let Some(base) = base.cloned() else { return Ok(None) };
            put_whole(scope, memory, status, &base).await?;
            let settle = scope.spec().rollout.map_or(SignedDuration::ZERO, |steps| steps.settle);
            *memory.leaving.settled.insert(scope.daemon.now() + settle)
        }
    };
    if settled > scope.daemon.now() {
        return Ok(Some(settled));
    }
    let stale = |e: &InventoryEntry| InventoryEntry { stale: true, ..e.clone() };
    let candidates: Vec<InventoryEntry> =
        status.inventory.iter().filter(|e| e.candidate).map(stale).collect();
    let removed = remove(scope, &candidates, prune::What::Candidates, None).await;
    removed.refusal.map_or(Ok(None), Err)
}

/// Makes the cluster as a revision says, without a candidate in any route. Nothing is waited for but that its route is accepted.
async fn put_whole(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
    revision: &Revision,
) -> Result<(), Refusal> {
    let whole = Some(Staging::Whole);
    let mut work = stage::prepare(scope, memory, status, revision, Goal::Rollback, whole).await?;
    let (live, owner) = (scope.live_fn(), scope.owner_fn());
    let planner = scope.planner(&live, &owner, None);
    let healthy = |_: &Work, _: &[ObjectId]| Health::Healthy;
    let stopping = || !scope.daemon.may_write();
    let end = match apply::run(&planner, &mut work, healthy, || false, stopping).await {
        ApplyEnd::Done => route_last(scope, &mut work).await,
        other => other,
    };
    match end {
        ApplyEnd::Done => Ok(()),
        ApplyEnd::Failed(refusal) => Err(refusal),
        ApplyEnd::Blocked(message) => Err(Refusal {
            problem: Problem { reason: "NotInEffect".into(), object: String::new(), message },
            transient: true,
        }),
    }
}
