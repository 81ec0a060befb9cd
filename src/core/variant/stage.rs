//! The objects of a stage.

use super::autoscaler::{held, scales};
use super::build::{Candidate, ServicePair, Variant, candidate, reference, replicas};
use crate::api::delivery::Problem;
use crate::api::rollout::{Base, Layout, RolloutPolicy, WorkloadSize};
use crate::core::bundle::Bundle;
use crate::core::manifest::{Manifest, ObjectId};
use std::collections::BTreeSet;

/// What the cluster is to have in a stage, before routes are made for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageObjects {
    /// All objects, each once.
    pub objects: Vec<Manifest>,
    /// The workloads that have a candidate in this stage.
    pub variants: Vec<Variant>,
    /// Services that stand under the names of Git in this stage, with the candidate's own. One that is new with the target has
    /// a copy from the start, and is listed once it stands itself.
    pub services: Vec<ServicePair>,
}

/// The objects of a stage: those of the base as they are, and, while the layout has a candidate, its objects and what it needs
/// of the target. The autoscaler of a workload that has a candidate is held at the size that the workload had before,
/// and with the target as the base at that of both variants together, so that traffic finds the capacity wherever it goes.
/// `sizes` holds those sizes; without one, the autoscaler is left alone.
///
/// Hooks are no objects: they are not among these. The Problems are those of [`candidate`].
pub fn stage(
    stable: &Bundle,
    target: &Bundle,
    policy: &RolloutPolicy,
    layout: &Layout,
    sizes: &[WorkloadSize],
) -> Result<StageObjects, Problem> {
    let base = match layout.base {
        Base::Stable => stable,
        Base::Target => target,
    };
    stage_over([stable, target, base], policy, layout, sizes)
}

/// The same with another bundle as the base than one of the two that the candidate is made of: what takes the place of the stable
/// one while a candidate stays as it is.
pub fn stage_over(
    [stable, target, base]: [&Bundle; 3],
    policy: &RolloutPolicy,
    layout: &Layout,
    sizes: &[WorkloadSize],
) -> Result<StageObjects, Problem> {
    let Candidate { variants, objects: copies, needs, services } =
        candidate(stable, target, policy, layout, sizes)?;
    let least = |scaled: &ObjectId| {
        let size = layout.size?;
        variants.iter().find(|variant| variant.stable == *scaled)?;
        let counted = sizes.iter().find(|size| size.workload == reference(scaled))?;
        let now = counted.counted();
        Some(match layout.base {
            Base::Stable => counted.replicas,
            Base::Target => now.saturating_add(replicas(now, size)),
        })
    };
    let mut objects: Vec<Manifest> = Vec::with_capacity(base.objects().len() + copies.len() + needs.len());
    for object in base.objects() {
        let held_at = scales(object).and_then(|scaled| least(&scaled));
        objects.push(held_at.map_or_else(|| object.clone(), |least| held(object, least)));
    }
    let there: BTreeSet<ObjectId> = base.objects().iter().map(Manifest::id).collect();
    objects.extend(needs.into_iter().chain(copies).filter(|object| !there.contains(&object.id())));
    let stands = |pair: &ServicePair| {
        let group = String::new();
        let id = ObjectId {
            group,
            kind: "Service".into(),
            namespace: pair.namespace.clone(),
            name: pair.stable.clone(),
        };
        there.contains(&id)
    };
    let services = services.into_iter().filter(stands).collect();
    Ok(StageObjects { objects, variants, services })
}
