//! The endpoints of the Services that a rollout sends traffic to, watched while it is under way: pods that are ready are endpoints
//! a moment later, and nothing that carries our label tells when.

use super::Scope;
use super::stage;
use super::work::Memory;
use crate::api::delivery::{DeliveryStatus, Problem};
use crate::api::rollout::Stage;
use crate::cluster::{EndpointWatch, ServicesOf};
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::rollout::served::{Endpoints, Side, next_to, nobody};
use crate::core::rollout::{NOT_OBSERVED, Staging, staging};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// How soon it is looked again whose endpoints are to be watched, where that could not be told.
const AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// A Service of a workload that is rolled out, and its candidate's.
#[derive(Clone, Debug)]
pub struct Served {
    /// The namespace of all.
    pub namespace: String,
    /// The Service that stands in Git; `None` where it is a name for something else.
    pub named: Option<String>,
    /// The candidate's.
    pub candidate: String,
    /// The workload that stands in Git.
    pub workload: (Gvk, ObjectId),
}

/// What is known of the endpoints in a stage.
pub struct Serving {
    of: Staging,
    /// The Services, or why they could not be told.
    services: Result<Vec<Served>, Problem>,
    /// By namespace.
    watches: BTreeMap<String, EndpointWatch>,
}

/// The stage of a rollout that is under way and moves traffic.
fn stage_of(status: &DeliveryStatus) -> Option<Stage> {
    let stage = status.attempt.as_ref()?.rollout.as_ref()?.stage;
    next_to(stage).map(|_| stage)
}

/// Watches the endpoints of both variants for as long as traffic may go to one of them. Answers when to look again.
pub async fn follow(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) -> Option<Timestamp> {
    let known = scope.daemon.discovery.preferred("discovery.k8s.io", "EndpointSlice").is_some();
    let of = status.attempt.as_ref().filter(|_| known && stage_of(status).is_some());
    let of = of.map(|attempt| staging(attempt, status.effective.as_ref(), &scope.spec()));
    let Some(of) = of.filter(|of| *of != Staging::Whole) else {
        memory.serving = None;
        return None;
    };
    let before = memory.serving.take();
    let services = match &before {
        Some(Serving { of: known, services: Ok(services), .. }) if *known == of => Ok(services.clone()),
        _ => stage::served(scope, memory, &of).await.map_err(|refusal| refusal.problem),
    };
    let mut watches = before.map(|before| before.watches).unwrap_or_default();
    if let Ok(services) = &services {
        let mut wanted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for one in services {
            let names = wanted.entry(&one.namespace).or_default();
            names.extend(one.named.iter().chain([&one.candidate]).cloned());
        }
        watches.retain(|namespace, _| wanted.contains_key(namespace.as_str()));
        for (namespace, services) in wanted {
            let of = ServicesOf { account: scope.account(), namespace: namespace.to_owned(), services };
            if watches.get(namespace).is_none_or(|watch| *watch.of() != of) {
                let wake = scope.daemon.waker(&scope.label);
                let started =
                    EndpointWatch::start(&scope.daemon.connection, &scope.daemon.discovery, of, wake);
                watches.insert(namespace.to_owned(), started);
            }
        }
    }
    let again = services.is_err().then(|| scope.daemon.now() + AGAIN);
    memory.serving = Some(Serving { of, services, watches });
    again
}

/// The variant to which traffic goes next, where requests would find nobody there, and why. What the account may not see is not
/// waited for.
pub fn unserved(scope: &Scope<'_>, memory: &Memory, status: &DeliveryStatus) -> Option<(Side, Problem)> {
    let side = next_to(stage_of(status)?)?;
    let serving = memory.serving.as_ref()?;
    let services = match &serving.services {
        Ok(services) => services,
        Err(problem) => return Some((side, Problem { reason: NOT_OBSERVED.into(), ..problem.clone() })),
    };
    let of = |served: &Served| {
        let name = match side {
            Side::Candidate => &served.candidate,
            // Who wants no pods has no endpoints.
            Side::Named if wants_none(scope, served) => return None,
            Side::Named => served.named.as_ref()?,
        };
        let watch = serving.watches.get(&served.namespace).filter(|watch| watch.failing().is_none())?;
        let ready = watch.ready(name).map(|endpoints| endpoints.len());
        Some(Endpoints { service: format!("Service {}/{name}", served.namespace), ready })
    };
    let seen: Vec<Endpoints> = services.iter().filter_map(of).collect();
    Some((side, nobody(&seen)?))
}

/// Whether a workload is scaled to nothing.
fn wants_none(scope: &Scope<'_>, served: &Served) -> bool {
    let (gvk, id) = &served.workload;
    scope.live(gvk, id).and_then(|live| live.kept.pods).is_some_and(|pods| pods.wanted == 0)
}
