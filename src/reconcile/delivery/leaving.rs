//! A Delivery that goes in the middle of a rollout and leaves its objects: what stands under the names of Git gets all traffic
//! back, and what is there for the rollout alone goes. Nobody would steer two variants any more.

use super::work::{Memory, Work};
use super::{Scope, apply, observe, prune, remove, route_last, stage};
use crate::api::delivery::{DeliveryStatus, Goal, InventoryEntry, Problem, Revision};
use crate::api::rollout::Base;
use crate::core::autoscale::AUTOSCALERS;
use crate::core::manifest::ObjectId;
use crate::core::rollout::{ApplyEnd, Health, Refusal, Staging, takes_over};
use crate::reconcile::live::version;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// How long it is tried: a Delivery must not hang for ever on a route that nobody accepts.
const LIMIT: SignedDuration = SignedDuration::from_secs(30);

/// How soon it is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// How far that is, in this life of the daemon; another one begins anew, and finds most of it done.
#[derive(Debug, Default)]
pub struct Leaving {
    since: Option<Timestamp>,
    /// What steers traffic, since it was written to lead to no candidate: as which version.
    steering: Option<BTreeMap<ObjectId, u64>>,
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
    // Once stable is on its way to the new revision, the way back is as long.
    let base = match (attempt.goal, rollout.layout.base) {
        (Goal::Deploy | Goal::Refresh, Base::Stable) if takes_over(attempt).is_none() => {
            status.effective.as_ref()
        }
        _ => Some(&attempt.revision),
    };
    let Some(base) = base.cloned() else { return Ok(None) };
    let steering = match memory.leaving.steering.clone() {
        Some(steering) => steering,
        None => {
            // What stable had before comes with the candidate's end: until then it may have to bear all of it.
            let written = put_whole(scope, memory, status, &base, false).await?;
            memory.leaving.steering.insert(written).clone()
        }
    };
    let settled = match memory.leaving.settled {
        Some(settled) => settled,
        None => {
            in_effect(scope, memory, status, &steering)?;
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
    let removed = remove(scope, &candidates, None, prune::What::Candidates, None).await;
    removed.refusal.map_or(Ok(()), Err)?;
    if status.inventory.iter().any(|e| is_autoscaler(&e.kind) && !e.candidate) {
        put_whole(scope, memory, status, &base, true).await?;
    }
    Ok(None)
}

fn is_autoscaler(kind: &str) -> bool {
    AUTOSCALERS.iter().any(|(_, autoscaler)| *autoscaler == kind)
}

/// Whether who steers by the objects has taken them in as they were written.
fn in_effect(
    scope: &Scope<'_>,
    memory: &Memory,
    status: &DeliveryStatus,
    steering: &BTreeMap<ObjectId, u64>,
) -> Result<(), Refusal> {
    for entry in &status.inventory {
        let Some(written) = steering.get(&entry.id()) else { continue };
        let seen = scope.live(&entry.gvk(), &entry.id()).is_some_and(|live| version(&live) >= *written);
        let problem = match observe::health_of(scope, entry, None, memory) {
            Health::Healthy if seen => continue,
            Health::Progressing(problem) | Health::Degraded(problem) | Health::Broken(problem) => problem,
            Health::Healthy | Health::Unknown => Problem {
                reason: "NotInEffect".into(),
                object: entry.id().to_string(),
                message: "was not seen yet as it was written".into(),
            },
        };
        return Err(Refusal { problem, transient: true });
    }
    Ok(())
}

/// Makes the cluster as a revision says, without a candidate in any route, and with its autoscalers or as these are. Nothing is waited
/// for but that a route of others is accepted. Answers as which version what steers traffic was written.
async fn put_whole(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
    revision: &Revision,
    autoscalers: bool,
) -> Result<BTreeMap<ObjectId, u64>, Refusal> {
    let whole = Some(Staging::Whole);
    let mut work = stage::prepare(scope, memory, status, revision, Goal::Rollback, whole).await?;
    if !autoscalers {
        work.done.extend(work.plan.keys().filter(|id| is_autoscaler(&id.kind)).cloned());
    }
    let (live, owner) = (scope.live_fn(), scope.owner_fn());
    let planner = scope.planner(&live, &owner, None);
    let healthy = |_: &Work, _: &[ObjectId]| Health::Healthy;
    let stopping = || !scope.daemon.may_write();
    let end = match apply::run(&planner, &mut work, healthy, || false, stopping).await {
        ApplyEnd::Done => route_last(scope, &mut work).await,
        other => other,
    };
    match end {
        ApplyEnd::Done => {
            let steers = work.plan.iter().filter(|(_, planned)| planned.version.is_some());
            let version = |id: &ObjectId| work.written.get(id).map_or(0, |written| written.resource_version);
            Ok(steers.map(|(id, _)| (id.clone(), version(id))).collect())
        }
        ApplyEnd::Failed(refusal) => Err(refusal),
        ApplyEnd::Blocked(message) => Err(Refusal {
            problem: Problem { reason: "NotInEffect".into(), object: String::new(), message },
            transient: true,
        }),
    }
}
