//! A route that is not in the Delivery's directory: read, changed by a patch that says which version it was made for, and
//! waited for until its controller has accepted the change.

use super::Scope;
use super::beside::Beside;
use super::stage::{self, Eyes};
use super::work::Memory;
use crate::api::delivery::{DeliveryStatus, Goal, Problem, Step};
use crate::api::rollout::{Router, Stage};
use crate::cluster::apply::{get, patch_strictly};
use crate::cluster::{ApplyError, Cause, Discovery, Resource};
use crate::core::manifest::{Gvk, Manifest, ObjectId};
use crate::core::rollout::{NAMES_CANDIDATE, Refusal, Staging, staging};
use crate::core::router::{self, Acceptance, Split, VariantService};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// How soon it is looked again whether a route is accepted: nothing tells, for routes of others carry no label of ours.
const AGAIN: SignedDuration = SignedDuration::from_millis(500);

/// The same where the API server did not answer.
const LATER: SignedDuration = SignedDuration::from_secs(5);

/// The reason of a route that is not there.
pub const MISSING: &str = "RouteMissing";

/// A route outside of the bundle, and how it is to divide traffic; without a split, as its owner has it.
#[derive(Clone, Debug)]
pub struct External {
    /// What moves traffic.
    pub router: Router,
    /// The route.
    pub id: ObjectId,
    /// How.
    pub split: Option<Split>,
    /// Its controller has not answered yet; why, in words.
    pub waits: Option<String>,
}

impl External {
    /// A route that nobody has looked at.
    pub fn new(router: Router, id: ObjectId, split: Option<Split>) -> Self {
        External { router, id, split, waits: None }
    }
}

/// Versions in which routes are served, the newest first.
const VERSIONS: [&str; 5] = ["v1", "v1beta1", "v1alpha3", "v1alpha2", ""];

fn resource(discovery: &Discovery, id: &ObjectId) -> Result<Resource, Refusal> {
    for version in VERSIONS.iter().filter(|v| !v.is_empty()) {
        let gvk = Gvk { group: id.group.clone(), version: (*version).into(), kind: id.kind.clone() };
        if let Some(found) = discovery.resource(&gvk) {
            return Ok(found);
        }
    }
    Err(refusal(id, "KindUnknown", "the cluster does not know this kind of route", false))
}

fn refusal(id: &ObjectId, reason: &str, message: &str, transient: bool) -> Refusal {
    Refusal {
        problem: Problem { reason: reason.into(), object: id.to_string(), message: message.into() },
        transient,
    }
}

/// Why the API server did not do what was asked about a route, or about what belongs to it.
pub fn refused(id: &ObjectId, error: &ApplyError) -> Refusal {
    let transient = error.is_transient() || error.cause.needs_new_plan();
    refusal(id, error.cause.reason(), &error.cause.to_string(), transient)
}

/// The route as it stands in the cluster.
pub async fn read(eyes: &Eyes<'_>, id: &ObjectId) -> Result<Option<Value>, Refusal> {
    let resource = resource(eyes.discovery, id)?;
    get(eyes.access, &resource, &id.namespace, &id.name).await.map_err(|e| refused(id, &e))
}

/// Makes sure that a route divides traffic as wanted. Answers why that is not in effect yet.
pub async fn ensure(scope: &Scope<'_>, external: &External) -> Result<Option<String>, Refusal> {
    ensured(scope, external).await.map(|(_, waits)| waits)
}

/// The same, with the route as it stands then.
async fn ensured(scope: &Scope<'_>, external: &External) -> Result<(Option<Value>, Option<String>), Refusal> {
    let id = &external.id;
    let resource = resource(&scope.daemon.discovery, id)?;
    let found = get(&scope.access, &resource, &id.namespace, &id.name).await.map_err(|e| refused(id, &e))?;
    let Some(mut live) = found else {
        // Nothing is to be given back.
        return match external.split {
            None => Ok((None, None)),
            Some(_) => Err(refusal(id, MISSING, "spec.rollout.router names it, and it is not there", false)),
        };
    };
    let patch = router::patch(&external.router, &live, external.split.as_ref())
        .map_err(|problem| Refusal { problem, transient: false })?;
    if let Some(patch) = patch {
        live = patch_strictly(&scope.access, &resource, &id.namespace, &id.name, &patch)
            .await
            .map_err(|e| refused(id, &e))?;
    }
    let waits = match router::accepted(&live) {
        Acceptance::Accepted => None,
        Acceptance::Waiting(why) => Some(format!("{id}: {why}")),
        // What its owner wrote is not our mistake.
        Acceptance::Refused(_) if external.split.is_none() => None,
        Acceptance::Refused(problem) => return Err(Refusal { problem, transient: false }),
    };
    Ok((Some(live), waits))
}

/// A route of others that a stage of a rollout divides, kept an eye on: an edit of its owner, or that it goes, is known at once.
pub struct Followed {
    of: Staging,
    /// `None` where the route is the Delivery's own, which is watched like everything of it.
    watched: Option<(External, Beside)>,
    trouble: Option<Problem>,
}

impl Followed {
    /// Why it does not divide traffic as wanted.
    pub fn trouble(&self) -> Option<&Problem> {
        self.trouble.as_ref()
    }
}

/// Watches the route of others that the stage under way divides. One that somebody has changed since is divided again; one
/// that cannot be counts as an illness of what stands under the names of Git. Answers when to look again where it could not be
/// done now, such as when its controller wrote in between: no watch tells.
pub async fn follow(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) -> Option<Timestamp> {
    let Some(of) = divided(scope, status) else {
        memory.route = None;
        return None;
    };
    let later = scope.daemon.now() + LATER;
    let before = memory.route.take().filter(|followed| followed.of == of);
    let external = match &before {
        Some(Followed { watched: Some((external, beside)), .. }) if beside.is_outdated() => {
            Some(external.clone())
        }
        Some(_) => {
            memory.route = before;
            return None;
        }
        None => match memory.work.as_ref().filter(|work| work.staging == of) {
            Some(work) => work.route.clone(),
            // Nothing is known of it in this life of the daemon.
            None => match stage::external(scope, memory, &of).await {
                Ok(external) => external,
                Err(_) => return Some(later),
            },
        },
    };
    let Some(external) = external else {
        memory.route = Some(Followed { of, watched: None, trouble: None });
        return None;
    };
    let Ok(resource) = resource(&scope.daemon.discovery, &external.id) else { return Some(later) };
    let (live, trouble) = match ensured(scope, &external).await {
        Ok((live, _)) => (live, None),
        Err(refusal) if refusal.transient => {
            memory.route = before;
            let changed = refusal.problem.reason == Cause::Conflict.reason();
            return Some(if changed { scope.daemon.now() + AGAIN } else { later });
        }
        Err(refusal) if refusal.problem.reason == MISSING => (None, Some(refusal.problem)),
        Err(refusal) => match read(&scope.eyes(), &external.id).await {
            Ok(live) => (live, Some(refusal.problem)),
            Err(_) => return Some(later),
        },
    };
    // The watch of before ends after this one has begun: they are one.
    let beside = Beside::route(scope, &resource, &external.id, live.as_ref());
    memory.route = Some(Followed { of, watched: Some((external, beside)), trouble });
    None
}

/// What a rollout that waits has traffic divided for.
fn divided(scope: &Scope<'_>, status: &DeliveryStatus) -> Option<Staging> {
    let attempt = status.attempt.as_ref()?;
    let stage = attempt.rollout.as_ref()?.stage;
    let going = matches!(stage, Stage::Starting | Stage::Stepping | Stage::Switching | Stage::Promoting);
    let waits = going && attempt.goal == Goal::Deploy && attempt.step == Step::Waiting;
    let acts = !scope.delivery.spec.template.suspend && scope.delivery.metadata.deletion_timestamp.is_none();
    let of = (waits && acts).then(|| staging(attempt, status.effective.as_ref(), &scope.spec()))?;
    (of != Staging::Whole).then_some(of)
}

/// Why candidates must not be removed yet: somebody has the route name one of them again, which Git does not.
pub async fn names_candidate(scope: &Scope<'_>, memory: &Memory, status: &DeliveryStatus) -> Option<Refusal> {
    let rollout = status.attempt.as_ref()?.rollout.as_ref()?;
    let going: Vec<VariantService> = status
        .inventory
        .iter()
        .filter(|e| e.stale && e.candidate && e.kind == "Service" && e.group.is_empty())
        .map(|e| VariantService {
            namespace: e.namespace.clone(),
            candidate: e.name.clone(),
            ..VariantService::default()
        })
        .collect();
    if going.is_empty() || !rollout.router.names_backends() {
        return None;
    }
    let namespace = scope.delivery.spec.template.target_namespace.clone().unwrap_or_default();
    let id = router::target(&rollout.router, &namespace)?;
    let points = |route: &Value| router::points_at_candidate(&rollout.router, route, &going);
    let entry = status.inventory.iter().find(|e| !e.stale && e.is(&id));
    if let Some(entry) = entry {
        // As it was left, it names none: nothing has to be asked.
        let as_left = scope.live(&entry.gvk(), &id).is_some_and(|live| *live.kept.digest == *entry.digest);
        let in_git = memory.work.as_ref().and_then(|w| w.bundle.get(&id)).map(Manifest::to_value);
        if as_left || in_git.as_ref().is_some_and(points) {
            return None;
        }
    }
    let live = match read(&scope.eyes(), &id).await {
        Ok(live) => live?,
        Err(refusal) => return refusal.transient.then_some(refusal),
    };
    // What names a candidate without having been divided is its owner's own doing.
    let ours = entry.is_some() || matches!(router::patch(&rollout.router, &live, None), Ok(Some(_)));
    (ours && points(&live)).then(|| {
        refusal(
            &id,
            NAMES_CANDIDATE,
            "names the candidate, which is about to be removed; it is written back first",
            true,
        )
    })
}

/// The route that a rollout which is under way, or has just ended, has changed, to be given back.
pub fn to_give_back(scope: &Scope<'_>, status: &DeliveryStatus) -> Option<External> {
    let rollout = status.attempt.as_ref()?.rollout.as_ref()?;
    let namespace = scope.delivery.spec.template.target_namespace.clone().unwrap_or_default();
    let id = router::target(&rollout.router, &namespace)?;
    // One of ours is applied like everything else.
    let ours = status.inventory.iter().any(|e| e.is(&id));
    (!ours).then(|| External::new(rollout.router.clone(), id, None))
}

/// When to look again whether a route is accepted.
pub fn looks_again(memory: &Memory, now: Timestamp) -> Option<Timestamp> {
    memory.work.as_ref()?.route.as_ref()?.waits.as_ref().map(|_| now + AGAIN)
}
