//! The candidate: copies of the workloads that change, and of what belongs to them.

use super::decide::{Decision, needs_rollout};
use super::label::{self, Reach};
use super::names::Names;
use super::reads::{Named, Standing, config_id, reads, standing, visit};
use super::selects::{Labels, Rewrite, labels};
use super::{autoscaler, follow, needs, network, others, services};
use crate::api::delivery::Problem;
use crate::api::names as marks;
use crate::api::rollout::{Layout, RolloutPolicy, Size, Strategy, WorkloadKind, WorkloadRef, WorkloadSize};
use crate::core::bundle::Bundle;
use crate::core::manifest::{Manifest, ObjectId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The label that tells the pods of a workload and of its candidate apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value on the workload's pods, as it stands in Git.
    pub stable: String,
    /// Its value on the candidate's pods.
    pub candidate: String,
}

/// A workload and its candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The workload, under the name that stands in Git.
    pub stable: ObjectId,
    /// Its renamed copy.
    pub candidate: ObjectId,
    /// What tells their pods apart.
    pub label: Label,
}

/// A Service of a workload, and the candidate's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePair {
    /// The namespace of both.
    pub namespace: String,
    /// The name that stands in Git.
    pub stable: String,
    /// The name of the copy.
    pub candidate: String,
    /// What their selectors differ by.
    pub label: Label,
}

/// What a candidate consists of. Empty for a revision that needs no rollout, and where the layout has no candidate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// The workloads that have a candidate.
    pub variants: Vec<Variant>,
    /// Its objects: neither bundle has one of these names.
    pub objects: Vec<Manifest>,
    /// Objects of the target, as they stand there, that the last good bundle does not have and the candidate cannot be
    /// without.
    pub needs: Vec<Manifest>,
    /// The Services that were copied for it.
    pub services: Vec<ServicePair>,
}

/// One workload that is rolled out, and what the making of its candidate needs to know.
pub(super) struct Twin<'a> {
    /// As it is in the target.
    pub(super) new: &'a Manifest,
    /// The candidate's name, and the value of its label.
    pub(super) name: String,
    key: String,
    from: String,
    /// The labels of its pods in the last good bundle, in the target, and of the candidate's.
    pub(super) ours: [Labels; 2],
    /// See `ours`.
    pub(super) theirs: Labels,
    /// How many pods the workload has.
    pub(super) wanted: i64,
    /// How many the candidate has.
    pub(super) replicas: i64,
}

impl Twin<'_> {
    /// The label that tells the variants apart.
    pub(super) fn rewrite(&self) -> Rewrite<'_> {
        Rewrite { key: &self.key, from: &self.from, to: &self.name }
    }

    /// The same, to be handed out.
    pub(super) fn label(&self) -> Label {
        Label { key: self.key.clone(), stable: self.from.clone(), candidate: self.name.clone() }
    }

    /// The namespace of both.
    pub(super) fn namespace(&self) -> &str {
        self.new.namespace()
    }
}

/// What a candidate is made from.
pub(super) struct Of<'a> {
    /// The last good bundle.
    pub(super) stable: &'a Bundle,
    /// The new one.
    pub(super) target: &'a Bundle,
    /// The layout of the stage.
    pub(super) layout: &'a Layout,
    /// The workloads.
    pub(super) twins: Vec<Twin<'a>>,
}

/// The copy of an object under another name. What Git says about its removal is about the original.
pub(super) fn copy(object: &Manifest, name: &str) -> Manifest {
    let mut copy = object.clone();
    copy.set_metadata("name", json!(name));
    if let Some(Value::Object(annotations)) = super::at_mut(&mut copy, &["metadata", "annotations"]) {
        annotations.remove(marks::PRUNE);
        if annotations.is_empty()
            && let Some(Value::Object(metadata)) = super::at_mut(&mut copy, &["metadata"])
        {
            metadata.remove("annotations");
        }
    }
    copy
}

/// How many pods a workload has: as was counted when the step began where that is known, else as Git says.
pub fn pods(workload: &Manifest, sizes: &[WorkloadSize]) -> i64 {
    let counted = sizes.iter().find(|size| {
        size.workload.name == workload.name() && size.workload.kind.as_str() == workload.gvk().kind
    });
    counted
        .map(WorkloadSize::counted)
        .or_else(|| super::at(workload, &["spec", "replicas"]).as_i64())
        .unwrap_or(1)
}

/// How many pods a candidate has, one at least. `wanted` is how many the workload has: the new one's for a share of it, which is
/// rounded up; the old one's where pods are the traffic.
pub(super) fn replicas(wanted: i64, size: Size) -> i64 {
    match size {
        Size::Percent(percent) => {
            wanted.saturating_mul(i64::from(percent)).saturating_add(99).div_euclid(100).max(1)
        }
        Size::OfAll(weight) => {
            let stable = u32::try_from(wanted).unwrap_or(if wanted < 0 { 0 } else { u32::MAX });
            i64::from(crate::core::router::replicas::beside(stable, weight))
        }
        Size::Replicas(replicas) => i64::from(replicas).max(1),
    }
}

/// The candidate of a stage; see [`super`] for what it is. `sizes` holds how many pods the workloads have, where an
/// autoscaler decides.
///
/// A Problem names the object that stands in the way, where in Git it is, and what to do: those of [`needs_rollout`],
/// and `NoVariantLabel`, `LabelTaken`, `SelectsCandidate`, `ServiceSeesBothVariants`, `ServiceSeesOneVariant`, `ServiceOfTwoWorkloads`,
/// `BudgetSeesBothVariants`, `ClaimOfOnePod`, `SelectorNotUnderstood`, `CannotFollowCandidate`.
pub fn candidate(
    stable: &Bundle,
    target: &Bundle,
    policy: &RolloutPolicy,
    layout: &Layout,
    sizes: &[WorkloadSize],
) -> Result<Candidate, Problem> {
    let Some(size) = layout.size else { return Ok(Candidate::default()) };
    let mut names = names(stable, target, policy);
    let twins = twins([stable, target], policy, size, sizes, &mut names)?;
    if twins.is_empty() {
        return Ok(Candidate::default());
    }
    let of = Of { stable, target, layout, twins };
    let mut made = Candidate::default();
    let configs = configs(&of, &mut names, &mut made);
    made.services = services::copies(&of, &mut names, &mut made.objects)?;
    for twin in &of.twins {
        needs::shareable(&of, twin)?;
        made.objects.push(workload(twin, &configs, &made.services));
        made.variants.push(Variant {
            stable: twin.new.id(),
            candidate: ObjectId { name: twin.name.clone(), ..twin.new.id() },
            label: twin.label(),
        });
    }
    needs::roles(&of, &mut names, &mut made);
    follow::copies(&of, &mut names, &mut made)?;
    network::peers(&of, &mut names, &mut made);
    autoscaler::copies(&of, &mut names, &mut made);
    needs::close(&of, &mut made);
    Ok(made)
}

/// Whether objects that stand in the cluster, and in neither bundle, mean the workloads' pods and Services as they mean their
/// candidates'. They are somebody else's and are not copied: `others` are those of the kinds that are [minded](super::minded).
/// Answers what people are to be told of them. The Problem is `CannotFollowCandidate`, `ServiceSeesBothVariants`, or one of
/// [`candidate`]'s.
pub fn followed(
    stable: &Bundle,
    target: &Bundle,
    policy: &RolloutPolicy,
    others: &[Manifest],
) -> Result<Vec<String>, Problem> {
    let mut names = names(stable, target, policy);
    let size = Size::Percent(100);
    let layout = Layout { size: Some(size), ..Layout::default() };
    let twins = twins([stable, target], policy, size, &[], &mut names)?;
    let of = Of { stable, target, layout: &layout, twins };
    let mut copies = Vec::new();
    let pairs = services::copies(&of, &mut names, &mut copies)?;
    others::told(&of, &pairs, &copies, reach(policy), others)
}

/// Which variants' pods a Service may see.
fn reach(policy: &RolloutPolicy) -> Reach {
    match policy.router.as_ref().is_some_and(|router| router.replicas.is_some()) {
        true => Reach::Both,
        false => Reach::One,
    }
}

fn names(stable: &Bundle, target: &Bundle, policy: &RolloutPolicy) -> Names {
    let suffix = if policy.strategy == Strategy::BlueGreen { "-preview" } else { "-canary" };
    Names::new(suffix, [stable, target])
}

/// The workloads that get a candidate; none where no rollout is needed.
fn twins<'a>(
    [stable, target]: [&'a Bundle; 2],
    policy: &RolloutPolicy,
    size: Size,
    sizes: &[WorkloadSize],
    names: &mut Names,
) -> Result<Vec<Twin<'a>>, Problem> {
    let Decision::Rollout { workloads, .. } = needs_rollout(stable, target, policy)? else {
        return Ok(Vec::new());
    };
    let reach = reach(policy);
    let by_counts = reach == Reach::Both;
    let mut twins = Vec::new();
    for id in &workloads {
        let (Some(old), Some(new)) = (stable.get(id), target.get(id)) else { continue };
        let name = names.fresh(id);
        let (key, from) = label::choose([stable, target], old, new, &name, reach)?;
        let wanted = pods(new, sizes);
        let measure = if by_counts { pods(old, sizes) } else { wanted };
        let mut twin = Twin {
            new,
            name,
            key,
            from,
            ours: [old, new].map(|workload| labels(&super::template(workload))),
            theirs: Labels::new(),
            wanted,
            replicas: replicas(measure, size),
        };
        twin.theirs = label::rewritten(&super::template(new), &twin.rewrite());
        twins.push(twin);
    }
    Ok(twins)
}

/// Copies the ConfigMaps and Secrets that say something else now; those with a new name are needed as they are. The
/// answer says which name stands for which on the candidate.
fn configs(of: &Of, names: &mut Names, made: &mut Candidate) -> BTreeMap<ObjectId, String> {
    let mut copies = BTreeMap::new();
    let mut needed = BTreeSet::new();
    // A name that pods of the last good bundle read already is not new to them: making it would reach them.
    let workloads = of.stable.objects().iter();
    let known: BTreeSet<ObjectId> = workloads
        .flat_map(|object| reads(&super::template(object), object.namespace()).into_keys())
        .collect();
    for twin in &of.twins {
        for id in reads(&super::template(twin.new), twin.namespace()).into_keys() {
            let Some(config) = of.target.get(&id) else { continue };
            let standing = match standing(of.stable, of.target, &id) {
                Standing::New if known.contains(&id) => Standing::Changed,
                other => other,
            };
            match standing {
                Standing::Changed if !copies.contains_key(&id) => {
                    let name = names.fresh(&id);
                    made.objects.push(copy(config, &name));
                    copies.insert(id, name);
                }
                Standing::New if needed.insert(id) => made.needs.push(config.clone()),
                _ => {}
            }
        }
    }
    copies
}

/// The candidate of a workload.
fn workload(twin: &Twin, configs: &BTreeMap<ObjectId, String>, services: &[ServicePair]) -> Manifest {
    let (rewrite, namespace) = (twin.rewrite(), twin.namespace());
    let mut made = copy(twin.new, &twin.name);
    let own = |name: &str| services.iter().find(|pair| pair.namespace == namespace && pair.stable == name);
    rewrite.map(super::at_mut(&mut made, &["metadata", "labels"]));
    if let Some(selector) = super::at_mut(&mut made, &["spec", "selector"]) {
        rewrite.only(super::selects::Form::Selector, selector);
    }
    if let Some(template) = super::at_mut(&mut made, &["spec", "template"]) {
        rewrite.map(template.pointer_mut("/metadata/labels"));
        if let Some(spec) = template.get_mut("spec") {
            rewrite.placement(spec, namespace, [&twin.ours[1], &twin.theirs]);
            visit(spec, &mut |named, name| {
                let kind = match named {
                    Named::Config(kind) => kind,
                    Named::Pull => "Secret",
                };
                let copied = name.as_str().and_then(|name| configs.get(&config_id(kind, namespace, name)));
                if let Some(copied) = copied {
                    *name = json!(copied);
                }
            });
            if let Some(pair) = spec["subdomain"].as_str().and_then(own) {
                spec["subdomain"] = json!(pair.candidate);
            }
        }
    }
    if let Some(spec) = super::at_mut(&mut made, &["spec"]) {
        spec["replicas"] = json!(twin.replicas);
        if let Some(pair) = spec["serviceName"].as_str().and_then(own) {
            spec["serviceName"] = json!(pair.candidate);
        }
        if spec["volumeClaimTemplates"].as_array().is_some_and(|claims| !claims.is_empty()) {
            // Volumes that were made for a candidate go with it: the next one would find its data in them.
            spec["persistentVolumeClaimRetentionPolicy"] =
                json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
        }
    }
    made
}

/// The reference of a workload.
pub fn reference(id: &ObjectId) -> WorkloadRef {
    let kind = if id.kind == "StatefulSet" { WorkloadKind::StatefulSet } else { WorkloadKind::Deployment };
    WorkloadRef { kind, name: id.name.clone() }
}
