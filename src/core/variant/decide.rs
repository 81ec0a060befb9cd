//! Whether a new revision needs a rollout, and why.

use super::reads::{Standing, reads, standing};
use super::{changes, problem};
use crate::api::delivery::Problem;
use crate::api::rollout::{RolloutPolicy, Strategy, WorkloadKind, WorkloadRef};
use crate::core::bundle::Bundle;
use crate::core::manifest::{Manifest, ObjectId};
use std::collections::BTreeSet;

/// How a new revision is put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// At once.
    Direct {
        /// Why, as sentences for people.
        why: Vec<String>,
    },
    /// Through a candidate.
    Rollout {
        /// Why, as sentences for people.
        why: Vec<String>,
        /// The workloads that change: those get a candidate.
        workloads: Vec<ObjectId>,
    },
}

/// Whether a new revision needs a rollout: it changes the pod template of a workload that the policy names, or the content of a
/// ConfigMap or Secret of the bundle that the template reads. Replicas, the workload's own labels and annotations, its update
/// strategy and every other object are applied directly, or wait for promotion when something else needs a rollout.
///
/// A Problem says why a rollout cannot be decided on: `WorkloadNotFound`, `WorkloadRemoved`, `WorkloadAmbiguous`,
/// `WorkloadNotSupported`, `SelectorChanged`, `ImmutableFieldChanged`, `NoVariantLabel`.
pub fn needs_rollout(stable: &Bundle, target: &Bundle, policy: &RolloutPolicy) -> Result<Decision, Problem> {
    if policy.strategy == Strategy::Rolling {
        let why = vec!["the strategy is Rolling: a revision is applied at once".into()];
        return Ok(Decision::Direct { why });
    }
    let (mut why, mut workloads, mut direct, mut fresh) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let wanted: BTreeSet<&WorkloadRef> = policy.named().collect();
    for named in wanted {
        let (old, new) = (find(stable, named)?, find(target, named)?);
        let new = match (old, new) {
            (_, Some(new)) => new,
            (Some(old), None) => return Err(removed(old, target)),
            (None, None) => return Err(missing(named)),
        };
        supported(policy, new)?;
        let Some(old) = old.filter(|old| old.id() == new.id()) else {
            fresh.push(new.id());
            continue;
        };
        if let Some(problem) = changes::immutable(old, new) {
            return Err(problem);
        }
        let mut changed = changes::of_template(old, new);
        let template = super::template(new);
        for (config, reaches) in reads(&template, new.namespace()) {
            let standing = standing(stable, target, &config);
            let (true, Some(now)) = (reaches, target.get(&config)) else { continue };
            // One with a new name comes with a change of the template, which says it.
            let was_read = || reads(&super::template(old), old.namespace()).contains_key(&config);
            if standing == Standing::Changed || (standing == Standing::New && was_read()) {
                changed.push(changes::of_config(stable.get(&config), now, new));
            }
        }
        if changed.is_empty() {
            direct.push(format!("{}: neither its pods change nor what they read", new.id()));
        } else {
            super::label::keys(old, new)?;
            why.append(&mut changed);
            workloads.push(new.id());
        }
    }
    let new = |id: ObjectId, then: &str| format!("{id} is new: {then}");
    if workloads.is_empty() {
        direct.extend(fresh.into_iter().map(|id| new(id, "there is nothing to compare a candidate with")));
        return Ok(Decision::Direct { why: direct });
    }
    why.extend(
        fresh
            .into_iter()
            .map(|id| new(id, "it comes at promotion, with everything else that has no candidate")),
    );
    Ok(Decision::Rollout { why, workloads })
}

/// The workload of a bundle that a policy names.
pub(super) fn find<'a>(bundle: &'a Bundle, named: &WorkloadRef) -> Result<Option<&'a Manifest>, Problem> {
    let mut found = bundle.objects().iter().filter(|object| {
        let gvk = object.gvk();
        gvk.group == "apps" && gvk.kind == named.kind.as_str() && object.name() == named.name
    });
    let first = found.next();
    match (first, found.next()) {
        (Some(first), Some(second)) => Err(problem(
            "WorkloadAmbiguous",
            first,
            &format!(
                "has the name that spec.rollout gives, and so has {} ({}); a rollout needs one workload of the name: give one \
                 of the two another, or a Delivery of its own",
                second.id(),
                second.origin
            ),
        )),
        _ => Ok(first),
    }
}

fn supported(policy: &RolloutPolicy, workload: &Manifest) -> Result<(), Problem> {
    if workload.gvk().kind == WorkloadKind::StatefulSet.as_str() && policy.strategy != Strategy::BlueGreen {
        let text = "cannot be rolled out by Canary: a share of traffic for a second set with volumes of its own would answer from \
                    other data; use strategy BlueGreen or Rolling";
        return Err(problem("WorkloadNotSupported", workload, text));
    }
    Ok(())
}

fn removed(old: &Manifest, target: &Bundle) -> Problem {
    let kind = old.gvk().kind;
    let same = |object: &&Manifest| object.gvk().kind == kind && object.gvk().group == "apps";
    let others: Vec<String> =
        target.objects().iter().filter(same).map(|object| object.id().to_string()).collect();
    let there = match others.as_slice() {
        [] => format!("the revision has no {kind} at all"),
        all => format!("it has {}", all.join(", ")),
    };
    let text = format!(
        "is what spec.rollout names, and is not in the new revision any more ({there}). Where it was renamed, name the new one in \
         spec.rollout in the same change; where it is to go, take spec.rollout out first"
    );
    problem("WorkloadRemoved", old, &text)
}

fn missing(named: &WorkloadRef) -> Problem {
    let object = format!("{} {}", named.kind.as_str(), named.name);
    let message = format!(
        "{object} is named in spec.rollout, and the revision has none of that name; correct the name or the kind"
    );
    Problem { reason: "WorkloadNotFound".into(), object, message }
}
