//! What stands in the cluster and in neither bundle, and goes by a workload's label or by the name of its Service: it is somebody
//! else's, and nobody copies it for the candidate. Where that would give the candidate traffic that nobody asked for, keep it from
//! what the workload has, or leave it without what guards or measures the workload, the rollout is refused; the rest is told. So is
//! one whose workload somebody else's autoscaler sizes: nobody keeps that from taking away the pods that going back needs.

use super::autoscaler::scales;
use super::build::{Of, ServicePair, Twin};
use super::follow::{SELECTING, of_host, of_reference};
use super::label::Reach;
use super::selects::{Form, Labels, Rewrite, matches};
use super::{at, items, monitors, network, problem};
use crate::api::delivery::{InventoryEntry, Problem};
use crate::api::names;
use crate::core::bundle::Bundle;
use crate::core::manifest::{Gvk, Manifest, ObjectId};

/// Kinds that go by the name of a Service, by labels of Services, select pods to send requests to them, or name a workload.
const MORE: [(&str, &str); 6] = [
    ("", "Service"),
    ("monitoring.coreos.com", "ServiceMonitor"),
    ("networking.istio.io", "DestinationRule"),
    ("gateway.networking.k8s.io", "BackendTLSPolicy"),
    ("keda.sh", "ScaledObject"),
    ("autoscaling", "HorizontalPodAutoscaler"),
];

/// The kinds that are looked at, each by its group and its name.
pub fn minded() -> impl Iterator<Item = (&'static str, &'static str)> {
    MORE.into_iter().chain(SELECTING.into_iter().map(|(group, kind, ..)| (group, kind)))
}

/// Whether an object of a minded kind that is in the cluster is to be minded: it is not one that a rollout copies, holds or has made.
/// `stable` is the last good bundle, `target` the new one, `label` the value of the Delivery's label.
pub fn is_others(
    object: &Manifest,
    [stable, target]: [&Bundle; 2],
    inventory: &[InventoryEntry],
    label: &str,
) -> bool {
    let id = object.id();
    if scales(object).is_some() {
        // It is held as the last good revision has it. One that only the new one has is not, though it would be copied, nor one that
        // left Git and was kept, though it has the label.
        let has = inventory.iter().any(|entry| entry.is(&id));
        return !has || stable.get(&id).is_none();
    }
    let ours = at(object, &["metadata", "labels", names::DELIVERY_LABEL]).as_str() == Some(label);
    !ours && stable.get(&id).is_none() && target.get(&id).is_none()
}

/// What objects of others mean for the candidates: the first that refuses the rollout, else what people are told. `pairs` are the
/// Services that have a copy, `copies` those copies.
pub(super) fn told(
    of: &Of,
    pairs: &[ServicePair],
    copies: &[Manifest],
    reach: Reach,
    others: &[Manifest],
) -> Result<Vec<String>, Problem> {
    let mut notices = Vec::new();
    for object in others {
        for twin in &of.twins {
            notices.extend(by_labels(object, twin, reach)?);
        }
        by_labels_of_services(object, of, pairs, copies)?;
        by_name(object, pairs, others)?;
        by_workload(object, of, others)?;
    }
    Ok(notices)
}

/// What is said of an object that goes by the label of a workload's pods.
fn outside(object: &Manifest, twin: &Twin, why: &str) -> Problem {
    let Rewrite { key, from, .. } = twin.rewrite();
    let text = format!(
        "is in the cluster and not in the directory, and goes by the label {key}: {from} of the pods of {}: {why}. Add it to \
         the directory, where it is copied for the candidate, or have it go by another label",
        twin.new.id()
    );
    problem("CannotFollowCandidate", object, &text)
}

/// An object that selects pods.
fn by_labels(object: &Manifest, twin: &Twin, reach: Reach) -> Result<Option<String>, Problem> {
    let (group, kind) = (object.gvk().group, object.gvk().kind);
    if (group.as_str(), kind.as_str()) == ("", "Service") {
        return service(object, twin, reach);
    }
    if (group.as_str(), kind.as_str()) == ("networking.istio.io", "DestinationRule") {
        let sees = |labels| matches(Form::SelectorOrAll, at(object, &["spec", "workloadSelector"]), labels);
        let here = object.namespace() == twin.namespace();
        return match here && sees(&twin.ours[1]) != sees(&twin.theirs) {
            true => Err(outside(
                object,
                twin,
                "what it says of calls that they make would not hold for the candidate's",
            )),
            false => Ok(None),
        };
    }
    let Some((_, _, path, form)) = SELECTING.iter().find(|(g, k, ..)| *g == group && *k == kind) else {
        return Ok(None);
    };
    let here = monitors::looks_into(object, twin.namespace());
    let sees = |labels| here && matches(*form, at(object, path), labels) == Some(true);
    let (ours, theirs) = (sees(&twin.ours[1]), sees(&twin.theirs));
    let measures = group.starts_with("monitoring.");
    let refused = |why: &str| Err(outside(object, twin, why));
    match (kind.as_str(), ours, theirs) {
        ("PodDisruptionBudget", true, false) => Ok(Some(format!(
            "{}, which is not in the directory, covers the pods of {} and not the candidate's",
            object.id(),
            twin.new.id()
        ))),
        ("PodDisruptionBudget", ..) => Ok(None),
        ("NetworkPolicy", true, false) => refused("it isolates them, and would not isolate the candidate's"),
        ("NetworkPolicy", false, true) => refused("it leaves them out, and would isolate the candidate's"),
        ("NetworkPolicy", ..) if network::lets_in(object, twin) => {
            refused("it lets them through, and would not let the candidate's")
        }
        (_, true, false) if measures => refused("it measures them, and would not measure the candidate's"),
        // Who is measured besides loses nothing.
        _ if measures => Ok(None),
        (_, true, false) => refused("what it says of them would not hold for the candidate's"),
        (_, false, true) => refused("it leaves them out, and would hold for the candidate's"),
        _ => Ok(None),
    }
}

/// A Service that is not divided by any route.
fn service(object: &Manifest, twin: &Twin, reach: Reach) -> Result<Option<String>, Problem> {
    let here = object.namespace() == twin.namespace();
    let sees =
        |labels: &Labels| here && matches(Form::Map, at(object, &["spec", "selector"]), labels) == Some(true);
    let Rewrite { key, from, .. } = twin.rewrite();
    let (id, named) = (object.id(), twin.new.id());
    match (reach, twin.ours.iter().any(sees), sees(&twin.theirs)) {
        (Reach::One, true, true) => {
            let text = format!(
                "is in the cluster and not in the directory, and selects the pods of {named} by labels that its candidate's have, too, \
                 so it would give the candidate a share of traffic that nobody asked for; add {key}: {from} to its selector"
            );
            Err(problem("ServiceSeesBothVariants", object, &text))
        }
        (_, true, false) => Ok(Some(format!(
            "{id}, which is not in the directory, sends requests to the pods of {named} and none to the candidate's"
        ))),
        (_, false, true) => Ok(Some(format!(
            "{id}, which is not in the directory, sends requests to the pods of {named}'s candidate, whatever its share is"
        ))),
        _ => Ok(None),
    }
}

/// A monitor that selects Services.
fn by_labels_of_services(
    object: &Manifest,
    of: &Of,
    pairs: &[ServicePair],
    copies: &[Manifest],
) -> Result<(), Problem> {
    if object.gvk().kind != "ServiceMonitor" {
        return Ok(());
    }
    let seen = monitors::seen(of, object, pairs, copies).unwrap_or_default();
    let means = |labels| matches(Form::Selector, at(object, &["spec", "selector"]), labels) == Some(true);
    let Some(one) = seen.iter().find(|one| means(&one.labels[0])) else { return Ok(()) };
    let ServicePair { stable, candidate, .. } = &pairs[one.service];
    let text = format!(
        "is in the cluster and not in the directory, and goes by labels of Service {stable} that the candidate's, {candidate}, does not \
         have: it would not measure the candidate. Add it to the directory, where it is copied for the candidate, or have it go by a \
         label that both have"
    );
    Err(problem("CannotFollowCandidate", object, &text))
}

/// What is about a Service by its name says nothing of the candidate's, unless somebody has said that, too.
fn by_name(object: &Manifest, pairs: &[ServicePair], others: &[Manifest]) -> Result<(), Problem> {
    let named = services(object, pairs);
    let candidates: Vec<ServicePair> =
        pairs.iter().map(|pair| ServicePair { stable: pair.candidate.clone(), ..pair.clone() }).collect();
    let is_said = |pair: &ServicePair| {
        let same = |other: &&Manifest| other.gvk().kind == object.gvk().kind;
        let mut names = others.iter().filter(same).flat_map(|other| services(other, &candidates));
        names.any(|said| said.candidate == pair.candidate && said.namespace == pair.namespace)
    };
    let Some(pair) = named.into_iter().find(|pair| !is_said(pair)) else { return Ok(()) };
    let ServicePair { namespace, stable, candidate, .. } = pair;
    let text = format!(
        "is in the cluster and not in the directory, and is about Service {namespace}/{stable} by its name, while the candidate has \
         a Service of its own, {candidate}, about which nothing says the same. Add it to the directory, where it is copied for the \
         candidate, or have one for {candidate} beside it"
    );
    Err(problem("CannotFollowCandidate", object, &text))
}

/// An autoscaler that nobody holds while the candidate has traffic.
fn by_workload(object: &Manifest, of: &Of, others: &[Manifest]) -> Result<(), Problem> {
    let Some(scaled) = scales(object).filter(|scaled| of.twins.iter().any(|twin| twin.new.id() == *scaled))
    else {
        return Ok(());
    };
    let maker = maker(object);
    // KEDA makes an autoscaler for a ScaledObject, and has it do what that says: that one is held, or is named itself.
    let known = |maker: &ObjectId| {
        let held = of.stable.get(maker).is_some_and(|maker| scales(maker).is_some());
        held || others.iter().any(|other| other.id() == *maker && scales(other).is_some())
    };
    if maker.as_ref().is_some_and(known) {
        return Ok(());
    }
    let harm = format!("scales {scaled}: it could take away the pods that going back needs");
    let text = match (of.target.get(&object.id()), maker) {
        (Some(_), _) => format!(
            "is in the cluster and not in the directory of the last good revision, and {harm}, as long as this revision, which adds it, is \
             not promoted. Add it in a change of its own before, or take it out of the cluster until promotion makes it"
        ),
        (None, Some(maker)) if maker.kind != "ScaledObject" => format!(
            "is in the cluster and not in the directory, and {harm}, and would not scale the candidate. It belongs to {maker}: have that \
             make none for the rollout. One in the directory is held and copied"
        ),
        (None, maker) => {
            let (whose, it) = match maker {
                Some(maker) => (format!("It belongs to {maker}. "), "that"),
                None => (String::new(), "it"),
            };
            format!(
                "is in the cluster and not in the directory, and {harm}, and would not scale the candidate. {whose}Add {it} to the \
                 directory in a change of its own before, where rollouts hold and copy it, or take {it} away for the rollout"
            )
        }
    };
    Err(problem("CannotFollowCandidate", object, &text))
}

/// What made an object and keeps it as it is.
fn maker(object: &Manifest) -> Option<ObjectId> {
    let owner =
        items(at(object, &["metadata", "ownerReferences"])).find(|owner| owner["controller"] == true)?;
    let Gvk { group, kind, .. } = Gvk::new(owner["apiVersion"].as_str()?, owner["kind"].as_str()?);
    let namespace = object.namespace().to_owned();
    Some(ObjectId { group, kind, namespace, name: owner["name"].as_str()?.to_owned() })
}

/// The Services, of those that have a copy, that an object is about by their names.
fn services<'a>(object: &Manifest, pairs: &'a [ServicePair]) -> Vec<&'a ServicePair> {
    let ObjectId { group, kind, namespace, .. } = object.id();
    if (group.as_str(), kind.as_str()) == ("networking.istio.io", "DestinationRule") {
        let host = at(object, &["spec", "host"]).as_str().unwrap_or_default();
        return of_host(host, &namespace, pairs).into_iter().collect();
    }
    let several = items(at(object, &["spec", "targetRefs"]));
    let all = several.chain(std::iter::once(at(object, &["spec", "targetRef"])));
    all.filter_map(|reference| of_reference(reference, &namespace, pairs)).collect()
}
