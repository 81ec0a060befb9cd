//! Whom a rollout's measurements are about: the variants of its workloads, with the Service of each and the port of it that is
//! asked. Of several Services of a workload it is the one that the route leads to.

use super::Scope;
use super::route;
use super::stage::{Eyes, Shape, shape_of};
use super::work::Memory;
use crate::api::rollout::RolloutPolicy;
use crate::core::analysis::endpoints::Served;
use crate::core::analysis::{Pair, Subject, Subjects, Variant};
use crate::core::manifest::{Manifest, ObjectId};
use crate::core::rollout::{Refusal, Staged};
use crate::core::router::{self, Place, VariantService};
use crate::core::variant;
use serde_json::Value;

/// A workload with its candidate, and how both are asked.
struct Found<'a> {
    variant: &'a variant::Variant,
    /// The Services of both, where the candidate has one.
    service: Option<Pairing<'a>>,
}

/// A Service of a workload and its candidate's: a revision may have changed its ports.
struct Pairing<'a> {
    names: &'a VariantService,
    stable: Served,
    candidate: Served,
}

/// Whom metrics may be about in a layout with a candidate.
pub(super) async fn subjects(
    eyes: &Eyes<'_>,
    policy: &RolloutPolicy,
    shape: &Shape,
) -> Result<Subjects, Refusal> {
    let found = found(eyes, shape).await?;
    let of = |found: Found<'_>| Subject {
        workload: found.variant.stable.name.clone(),
        // People know it by the name that it has in Git.
        service: found.service.map(|pair| Served { name: pair.names.stable.clone(), ..pair.candidate }),
    };
    Ok(Subjects {
        named: policy.named().map(|workload| workload.name.clone()).collect(),
        rolled: found.into_iter().map(of).collect(),
    })
}

/// Who is compared with whom in a stage: the namespace, and the pairs.
pub(super) async fn pairs(
    scope: &Scope<'_>,
    memory: &Memory,
    staged: &Staged,
) -> Result<(String, Vec<Pair>), Refusal> {
    let Some(policy) = &scope.delivery.spec.template.rollout else { return Ok((String::new(), Vec::new())) };
    let shape = shape_of(scope, memory, policy, staged).await?;
    let found = found(&scope.eyes(), &shape).await?;
    let namespace = found.first().map(|f| f.variant.stable.namespace.clone()).unwrap_or_default();
    let side = |workload: &ObjectId, service: &str, port: &str| Variant {
        workload: workload.name.clone(),
        service: service.to_owned(),
        port: port.to_owned(),
        ..Variant::default()
    };
    let pair = |found: Found<'_>| {
        let (stable, candidate) = (&found.variant.stable, &found.variant.candidate);
        let Some(service) = &found.service else {
            return Pair { stable: side(stable, "", ""), candidate: side(candidate, "", "") };
        };
        // Where none is meant, no metric asks for it: that was looked at before the rollout began.
        let port = service.candidate.port().unwrap_or_default();
        let before = service.stable.alike(&service.candidate, port);
        Pair {
            stable: side(stable, &service.names.stable, before),
            candidate: side(candidate, &service.names.candidate, port),
        }
    };
    Ok((namespace, found.into_iter().map(pair).collect()))
}

async fn found<'a>(eyes: &Eyes<'_>, shape: &'a Shape) -> Result<Vec<Found<'a>>, Refusal> {
    let services = shape.split.as_ref().map_or(&[][..], |split| split.services.as_slice());
    let of = |variant: &variant::Variant| {
        let its = |service: &&VariantService| {
            service.namespace == variant.stable.namespace
                && service.label.key == variant.label.key
                && service.label.candidate == variant.label.candidate
        };
        services.iter().filter(its).collect::<Vec<_>>()
    };
    let manifest = |service: &VariantService, name: &str| {
        let (group, namespace) = (String::new(), service.namespace.clone());
        let id = ObjectId { group, kind: "Service".into(), namespace, name: name.to_owned() };
        shape.bundle.get(&id).map(Manifest::to_value).unwrap_or_default()
    };
    // One Service with one port is meant whatever the route says, and a route of others need not be read.
    let clear = |variant: &variant::Variant| match of(variant).as_slice() {
        [] => true,
        [one] => Served::new(&manifest(one, &one.candidate), None).ports.len() < 2,
        _ => false,
    };
    let route = match shape.variants.iter().all(clear) {
        true => None,
        false => the_route(eyes, shape).await?,
    };
    let used = route.map(|route| router::ports_used(&shape.router, &route, services)).unwrap_or_default();
    let used_of = |service: &VariantService| {
        let at = services.iter().position(|s| s == service)?;
        used.get(at)?.clone()
    };
    let found = shape.variants.iter().map(|variant| {
        let its = of(variant);
        let named = its.iter().copied().find(|service| used_of(service).is_some()).or(its.first().copied());
        let pairing = |names: &'a VariantService| Pairing {
            names,
            stable: Served::new(&manifest(names, &names.stable), None),
            candidate: Served::new(&manifest(names, &names.candidate), used_of(names)),
        };
        Found { variant, service: named.map(pairing) }
    });
    Ok(found.collect())
}

/// The route as the layout has it, or as others have it in the cluster.
async fn the_route(eyes: &Eyes<'_>, shape: &Shape) -> Result<Option<Value>, Refusal> {
    match &shape.place {
        Place::Bundle(id) | Place::Made(id) => Ok(shape.bundle.get(id).map(Manifest::to_value)),
        Place::External(id) => route::read(eyes, id).await,
        Place::Pods => Ok(None),
    }
}
