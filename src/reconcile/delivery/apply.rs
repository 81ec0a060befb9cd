//! Applying a prepared revision: wave by wave, recording what was written.

use super::leave;
use super::prepare::{Planner, refused, unknown};
use super::work::{Act, Planned, Work, Written};
use crate::api::delivery::{EntryOrigin, Goal, Problem};
use crate::api::names::FIELD_MANAGER;
use crate::cluster::apply::{Guard, Propagation, apply, delete, get, patch_json};
use crate::cluster::{Access, ApplyError, Cause, Deletion, Resource};
use crate::core::autoscale::with_replicas;
use crate::core::health::{job_completed, verdict};
use crate::core::manifest::{Manifest, ObjectId};
use crate::core::plan;
use crate::core::removal::removal_patch;
use crate::core::rollout::{ApplyEnd, Health, Refusal};
use crate::reconcile::fault;
use crate::reconcile::live::digest;
use futures::{StreamExt, stream};
use serde_json::Value;

/// Objects of one wave that are written at once.
const AT_ONCE: usize = 32;

/// The reason of an object that takes no apply, since it is about to be gone.
const BEING_DELETED: &str = "BeingDeleted";

/// Writes what differs. `healthy` tells the health of some of the objects, `superseded` whether a newer revision makes
/// going on pointless, `stopping` whether nothing more is to be begun.
pub async fn run(
    planner: &Planner<'_>,
    work: &mut Work,
    healthy: impl Fn(&Work, &[ObjectId]) -> Health,
    superseded: impl Fn() -> bool,
    stopping: impl Fn() -> bool + Sync,
) -> ApplyEnd {
    let bundle = work.bundle.clone();
    let waves = plan::waves(&bundle);
    let brings = plan::brings(bundle.objects());
    // A kind or a namespace that an earlier wave brought may take a moment to be known everywhere.
    let is_fresh = |manifest: &Manifest| {
        brings.kinds.iter().any(|(_, kind)| *kind == manifest.gvk().kind)
            || brings.namespaces.contains(manifest.namespace())
    };
    let passes = |manifest: &Manifest, refusal: &Refusal, reasons: &[&str]| {
        is_fresh(manifest) && reasons.contains(&refusal.problem.reason.as_str())
    };
    let stopping = &stopping;
    let mut before: Vec<ObjectId> = Vec::new();
    let mut last = None;
    let mut held = None;
    let goal = work.goal;
    for (wave, objects) in &waves {
        if let Some(last) = last
            && plan::barrier(last, *wave)
            && objects.iter().any(|o| to_do(work, o))
        {
            match healthy(work, &before) {
                Health::Healthy => {}
                Health::Unknown => {
                    return ApplyEnd::Blocked("what was applied so far was not seen yet".into());
                }
                Health::Progressing(p) | Health::Degraded(p) | Health::Broken(p) => {
                    return ApplyEnd::Blocked(format!("{}: {}", p.object, p.message));
                }
            }
        }
        if superseded() {
            return ApplyEnd::Blocked("a newer revision is there".into());
        }
        let later: Vec<&Manifest> =
            objects.iter().copied().filter(|o| matches!(act(work, o), Some(Act::Later))).collect();
        for manifest in later {
            let id = manifest.id();
            let entry = work.inventory.iter().find(|e| e.is(&id)).filter(|e| e.uid.is_some()).cloned();
            match planner
                .plan_object(manifest, entry.as_ref(), &plan::Brings::default(), false, work.goal)
                .await
            {
                Ok(planned) => {
                    if let (Some(origin), Some(entry)) = (planned.origin, work.entry_mut(&manifest.id())) {
                        entry.origin = origin;
                    }
                    work.plan.insert(manifest.id(), planned);
                }
                Err(mut refusal) => {
                    // So may a field: the retry is planned against the new definition, and refused if it does not help.
                    let reasons = ["KindUnknown", "NamespaceMissing", "UnknownField", "Invalid"];
                    refusal.transient |= passes(manifest, &refusal, &reasons);
                    return ApplyEnd::Failed(refusal);
                }
            }
        }
        // Collected first: a closure over borrowed objects is not general enough for a future that is sent to a thread.
        let mut writes = Vec::new();
        for manifest in objects.iter().copied().filter(|o| to_do(work, o)) {
            if let Some(planned) = work.plan.get(&manifest.id()).cloned() {
                writes.push(async move {
                    match stopping() {
                        true => None,
                        false => Some((manifest, write(planner, manifest, &planned, goal).await)),
                    }
                });
            }
        }
        let results: Vec<_> = stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
        let mut failed = None;
        for (manifest, result) in results.into_iter().flatten() {
            match result {
                Ok(done) => record(work, manifest, done),
                Err(mut refusal) => {
                    refusal.transient |= passes(manifest, &refusal, &["KindUnknown", "NamespaceMissing"]);
                    // A mistake says more than an outage, and both more than what only takes its time to go.
                    let better = failed.as_ref().is_none_or(|f: &Refusal| {
                        f.problem.reason == BEING_DELETED || f.transient && !refusal.transient
                    });
                    if better {
                        failed = Some(refusal);
                    }
                }
            }
        }
        match failed {
            // A finalizer may keep what the failed revision removed for long: the pods that fail do not run on for that.
            Some(refusal) if work.goal == Goal::Rollback && refusal.problem.reason == BEING_DELETED => {
                held.get_or_insert(refusal);
            }
            Some(refusal) => return ApplyEnd::Failed(refusal),
            None => {}
        }
        if stopping() {
            return ApplyEnd::Blocked("the daemon is stopping".into());
        }
        before.extend(objects.iter().map(|o| o.id()));
        last = Some(*wave);
    }
    held.map_or(ApplyEnd::Done, ApplyEnd::Failed)
}

fn act<'a>(work: &'a Work, manifest: &Manifest) -> Option<&'a Act> {
    work.plan.get(&manifest.id()).map(|p| &p.act)
}

fn to_do(work: &Work, manifest: &Manifest) -> bool {
    !work.done.contains(&manifest.id()) && act(work, manifest).is_some_and(|a| !matches!(a, Act::Unchanged))
}

/// What came of one object.
enum Done {
    /// Nothing was sent.
    Recorded { uid: String, digest: String, left: bool },
    /// It was written.
    Written { object: Box<Value>, digest: String, created: bool, left: bool },
}

async fn write(
    planner: &Planner<'_>,
    manifest: &Manifest,
    planned: &Planned,
    goal: Goal,
) -> Result<Done, Refusal> {
    let refuse = |error: ApplyError| refused(manifest, &error);
    let missing = || ApplyError::new(manifest.id(), Cause::KindUnknown { kind: manifest.gvk().to_string() });
    let found = planner.discovery.find(&manifest.gvk()).await.map_err(|e| unknown(&manifest.id(), &e))?;
    let resource = found.ok_or_else(|| refuse(missing()))?;
    let (namespace, name) = (manifest.namespace(), manifest.name());
    let value = match &planned.instead {
        Some(value) => (**value).clone(),
        None => with_replicas(manifest.to_value(), planned.replicas),
    };
    let mut version = planned.version.clone();
    let guard = match &planned.act {
        Act::Unchanged | Act::Later => Guard::Any,
        Act::Record { uid, digest } => {
            return Ok(Done::Recorded { uid: uid.clone(), digest: digest.clone(), left: planned.left });
        }
        // It may have been a while, such as for a hook before the apply.
        Act::Create => match (planner.live)(manifest).map(|live| live.label) {
            Some(label) if plan::is_anothers(&label, planner.label) => {
                return Err(planner.conflict(manifest, &label));
            }
            _ => Guard::Absent,
        },
        Act::Update { uid, release } => {
            if !release.is_empty() {
                let there = get(planner.access, &resource, namespace, name)
                    .await
                    .map_err(refuse)?
                    .ok_or_else(|| refuse(ApplyError::new(manifest.id(), Cause::UidChanged)))?;
                let mut there = there;
                let patch = removal_patch(&there, release);
                if !patch.is_empty() {
                    let read = resource_version(&there).to_owned();
                    there = patch_json(planner.access, &resource, namespace, name, &read, &patch)
                        .await
                        .map_err(refuse)?;
                }
                version = version.map(|_| resource_version(&there).to_owned());
            }
            Guard::Uid(uid)
        }
        Act::Recreate { uid } => {
            match make_room(planner.access, &resource, namespace, name, uid).await.map_err(refuse)? {
                Deletion::Deleting => return Err(being_deleted(manifest)),
                Deletion::Changed => return Err(refuse(ApplyError::new(manifest.id(), Cause::Conflict))),
                Deletion::Deleted | Deletion::AlreadyGone | Deletion::Replaced => Guard::Absent,
            }
        }
    };
    let (applied, left) = match (guard, planned.reads) {
        (Guard::Uid(uid), true) => planner.apply_leaving(&resource, &value, uid).await.map_err(refuse)?,
        (Guard::Uid(uid), false) if let Some(version) = version => {
            (planner.apply_to(&resource, value, uid, version).await.map_err(refuse)?, false)
        }
        _ => (apply(planner.access, &resource, &value, guard).await.map_err(refuse)?, false),
    };
    fault::place(|| format!("amid writes {goal:?}"));
    if applied.object["metadata"]["deletionTimestamp"].is_string() {
        return Err(being_deleted(manifest));
    }
    let digest = digest(&applied.object, planner.key);
    Ok(Done::Written { created: applied.created, digest, object: Box::new(applied.object), left })
}

/// Deletes an object that is made anew, as it was looked at right before: a delete that is late finds another version, and does
/// nothing. Twice, for it may change between the look and the delete.
async fn make_room(
    access: &Access,
    resource: &Resource,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<Deletion, ApplyError> {
    for _ in 0..2 {
        let Some(there) = get(access, resource, namespace, name).await? else {
            return Ok(Deletion::AlreadyGone);
        };
        let version = Some(resource_version(&there));
        let gone = delete(access, resource, namespace, name, uid, version, Propagation::Background).await?;
        if gone != Deletion::Changed {
            return Ok(gone);
        }
    }
    Ok(Deletion::Changed)
}

/// Whether somebody else has written an object, its status apart. One that only we have written was made by us: by a request whose
/// answer was lost, or by another daemon of ours at the same time. Where nobody was recorded, the API server notes that.
fn others_wrote(object: &Value) -> bool {
    let managers = object["metadata"]["managedFields"].as_array();
    managers.into_iter().flatten().any(|m| m["manager"] != FIELD_MANAGER && m["subresource"].is_null())
}

fn resource_version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

/// An object that is being deleted takes an apply and is gone afterwards all the same.
fn being_deleted(manifest: &Manifest) -> Refusal {
    Refusal {
        problem: Problem {
            reason: BEING_DELETED.into(),
            object: manifest.id().to_string(),
            message: "is being deleted; it is applied again when it is gone".into(),
        },
        transient: true,
    }
}

fn record(work: &mut Work, manifest: &Manifest, done: Done) {
    let id = manifest.id();
    let planned = work.plan.get(&id);
    let applied = planned.map(|p| p.digest.clone()).unwrap_or_default();
    work.done.insert(id.clone());
    let planned = work.plan.get(&id);
    let replicas = planned.and_then(|p| p.replicas);
    let expected_nothing = planned.is_some_and(|p| matches!(p.act, Act::Create));
    match done {
        Done::Recorded { uid, digest, left } => {
            if let Some(entry) = work.entry_mut(&id) {
                entry.uid = Some(uid);
                entry.digest = leave::marked(digest, left);
                entry.settled_by = None;
                entry.applied = applied;
                entry.replicas = replicas;
            }
        }
        Done::Written { object, digest, created, left } => {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let written = Written {
                resource_version: text("resourceVersion").parse().unwrap_or(0),
                verdict: verdict(&object),
            };
            if let Some(entry) = work.entry_mut(&id) {
                // The server knows better than the plan whether something stood there.
                if expected_nothing && !created && others_wrote(&object) {
                    entry.origin = EntryOrigin::Adopted;
                }
                entry.uid = Some(text("uid"));
                entry.unfinished = job_completed(&object) == Some(false);
                entry.digest = leave::marked(digest, left);
                entry.settled_by = None;
                entry.applied = applied;
                entry.replicas = replicas;
            }
            work.written.insert(id, written);
        }
    }
}
