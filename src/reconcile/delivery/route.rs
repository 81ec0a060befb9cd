//! A route that is not in the Delivery's directory: read, changed by a patch that says which version it was made for, and
//! waited for until its controller has accepted the change.

use super::Scope;
use super::work::Memory;
use crate::api::delivery::{DeliveryStatus, Problem};
use crate::api::rollout::Router;
use crate::cluster::apply::{get, patch_strictly};
use crate::cluster::{ApplyError, Resource};
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::rollout::Refusal;
use crate::core::router::{self, Acceptance, Split};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// How soon it is looked again whether a route is accepted: nothing tells, for routes of others carry no label of ours.
const AGAIN: SignedDuration = SignedDuration::from_millis(500);

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

async fn resource(scope: &Scope<'_>, id: &ObjectId) -> Result<Resource, Refusal> {
    for version in VERSIONS.iter().filter(|v| !v.is_empty()) {
        let gvk = Gvk { group: id.group.clone(), version: (*version).into(), kind: id.kind.clone() };
        if let Some(found) = scope.daemon.discovery.resource(&gvk) {
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
pub async fn read(scope: &Scope<'_>, id: &ObjectId) -> Result<Option<Value>, Refusal> {
    let resource = resource(scope, id).await?;
    get(&scope.access, &resource, &id.namespace, &id.name).await.map_err(|e| refused(id, &e))
}

/// Makes sure that a route divides traffic as wanted. Answers why that is not in effect yet.
pub async fn ensure(scope: &Scope<'_>, external: &External) -> Result<Option<String>, Refusal> {
    let id = &external.id;
    let resource = resource(scope, id).await?;
    let found = get(&scope.access, &resource, &id.namespace, &id.name).await.map_err(|e| refused(id, &e))?;
    let Some(mut live) = found else {
        // Nothing is to be given back.
        return match external.split {
            None => Ok(None),
            Some(_) => {
                Err(refusal(id, "RouteMissing", "spec.rollout.router names it, and it is not there", false))
            }
        };
    };
    let patch = router::patch(&external.router, &live, external.split.as_ref())
        .map_err(|problem| Refusal { problem, transient: false })?;
    if let Some(patch) = patch {
        live = patch_strictly(&scope.access, &resource, &id.namespace, &id.name, &patch)
            .await
            .map_err(|e| refused(id, &e))?;
    }
    match router::accepted(&live) {
        Acceptance::Accepted => Ok(None),
        Acceptance::Waiting(why) => Ok(Some(format!("{id}: {why}"))),
        // What its owner wrote is not our mistake.
        Acceptance::Refused(_) if external.split.is_none() => Ok(None),
        Acceptance::Refused(problem) => Err(Refusal { problem, transient: false }),
    }
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
