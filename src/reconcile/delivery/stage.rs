//! Preparing a revision, whole or as a stage of a rollout: the bundle that the cluster is made like, and whether a new
//! revision needs a rollout at all.

use super::bundle::refusal;
use super::foreseen::{self, Foreseen};
use super::prepare::refused;
use super::route::{self, External};
use super::served::Served;
use super::subjects::subjects;
use super::work::{Memory, Work};
use super::{Scope, bundle_of, prepare as prepare_bundle, previous};
use crate::api::delivery::{DeliveryStatus, Goal, InventoryEntry, Problem, Revision};
use crate::api::hook::HookPoint;
use crate::api::names;
use crate::api::rollout::{Base, Layout, RolloutPolicy, Router, Strategy, WorkloadSize};
use crate::cluster::apply::get;
use crate::cluster::{Access, Discovery};
use crate::core::analysis::{StepKind, Subjects, policy_of_step, problems};
use crate::core::autoscale;
use crate::core::bundle::Bundle;
use crate::core::hook::Hook;
use crate::core::manifest::{Manifest, ObjectId};
use crate::core::rollout::hooks::no_such_job;
use crate::core::rollout::steps::{Steps, Then};
use crate::core::rollout::{Begin, Foreknown, Measure, Refusal, Staged, Staging};
use crate::core::router::{self, Place, ServicePort, Split, VariantLabel, VariantService};
use crate::core::variant::{self, Decision, MENDED_LATER, StageObjects};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Prepares a revision as a stage wants it. Without a staging it is new: it is prepared whole first, so that nothing of it is
/// begun that the API server would refuse, and then as its first stage wants it, if it needs a rollout.
pub async fn prepare(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
    revision: &Revision,
    goal: Goal,
    staging: Option<Staging>,
) -> Result<Work, Refusal> {
    match staging {
        Some(Staging::Staged(staged)) => staged_work(scope, memory, status, revision, goal, *staged).await,
        Some(Staging::Whole) => whole(scope, memory, status, revision, goal).await,
        None => begin(scope, memory, status, revision, goal).await,
    }
}

async fn whole(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
    revision: &Revision,
    goal: Goal,
) -> Result<Work, Refusal> {
    let bundle = bundle_of(scope, memory, revision).await?;
    // Without the last good bundle nothing is known to have changed; what carries a digest goes on doing so.
    let good = match goal {
        Goal::Rollback => None,
        Goal::Deploy | Goal::Refresh => previous(scope, memory, status).await,
    };
    let bundle = match good {
        Some(good) => restarting(scope, &good, bundle),
        None => bundle,
    };
    let mut work = prepare_bundle(scope, memory, status, revision, goal, bundle).await?;
    note_digests(&mut work);
    work.route = route::to_give_back(scope, status);
    Ok(work)
}

/// The new bundle, with a digest on each workload whose configuration it changes.
fn restarting(scope: &Scope<'_>, good: &Bundle, target: Arc<Bundle>) -> Arc<Bundle> {
    let carry = variant::stamped(good, &target, &carrying(scope));
    with_digests(target, &carry, &scope.daemon.secret_key)
}

/// The bundle with digests on the workloads that carry one already, of their configuration in it.
pub(super) fn still_restarting(scope: &Scope<'_>, bundle: Arc<Bundle>) -> Arc<Bundle> {
    with_digests(bundle, &carrying(scope), &scope.daemon.secret_key)
}

/// The workloads that carry a digest of their configuration.
fn carrying(scope: &Scope<'_>) -> BTreeSet<ObjectId> {
    let inventory = scope.delivery.status.as_ref().map_or(&[][..], |s| &s.inventory);
    inventory.iter().filter(|e| e.config.is_some()).map(InventoryEntry::id).collect()
}

fn with_digests(bundle: Arc<Bundle>, carry: &BTreeSet<ObjectId>, key: &[u8]) -> Arc<Bundle> {
    match carry.is_empty() {
        true => bundle,
        false => Arc::new(variant::stamp(&bundle, carry, key)),
    }
}

/// Records which workloads carry a digest: they go on doing so.
fn note_digests(work: &mut Work) {
    let bundle = work.bundle.clone();
    for entry in work.inventory.iter_mut().filter(|e| !e.stale) {
        let template =
            bundle.get(&entry.id()).and_then(|m| m.fields().get("spec")?.pointer("/template/metadata"));
        let digest = template.and_then(|meta| meta.get("annotations")?.get(names::CONFIG)?.as_str());
        entry.config = digest.map(str::to_owned);
    }
}

async fn begin(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
    revision: &Revision,
    goal: Goal,
) -> Result<Work, Refusal> {
    let mut work = whole(scope, memory, status, revision, goal).await?;
    work.begin = Some(Begin::Direct(String::new()));
    let policy = scope.delivery.spec.template.rollout.as_ref().filter(|p| p.strategy != Strategy::Rolling);
    let (Some(policy), Some(effective), Goal::Deploy) = (policy, &status.effective, goal) else {
        return Ok(work);
    };
    let wrong = |problem: Problem| Refusal { problem, transient: false };
    let Some(steps) = Steps::new(policy).map_err(wrong)? else { return Ok(work) };
    let target = work.bundle.clone();
    let stable = bundle_of(scope, memory, effective).await?;
    let (why, workloads) = match variant::needs_rollout(&stable, &target, policy).map_err(wrong)? {
        Decision::Direct { why } => {
            work.begin = Some(Begin::Direct(why.join("; ")));
            return Ok(work);
        }
        Decision::Rollout { why, workloads } => (why, workloads),
    };
    let mut known =
        foresee(&scope.eyes(), policy, &steps, [&stable, &target], &workloads, &status.inventory).await?;
    let staged = Staged {
        stable: effective.clone(),
        candidate: revision.clone(),
        over: None,
        layout: steps.all.first().map(|p| p.layout.clone()).unwrap_or_default(),
        sizes: known.sizes.clone(),
        making: steps.making.clone(),
        others_route: known.others_route,
    };
    let mut work = staged_work(scope, memory, status, revision, goal, staged).await?;
    let shares = shares(&steps, &stable, &workloads, &known.sizes);
    let of_others = [&mut known.notices, &mut known.unchecked].map(std::mem::take);
    let said = shares.into_iter().chain(of_others.into_iter().flatten());
    let why = why.into_iter().chain(said).collect::<Vec<_>>().join("; ");
    known.concerns = concerns(&stable, &target, &workloads, &work);
    work.begin = Some(Begin::Rollout { why, known });
    Ok(work)
}

/// The objects that a rollout is about: those that the revision changes, and those that traffic reaches the workloads by. Who has
/// a candidate is among the first; its Service and its route are changed or copied.
fn concerns(stable: &Bundle, target: &Bundle, workloads: &[ObjectId], work: &Work) -> BTreeSet<String> {
    let ids: BTreeSet<ObjectId> = stable.objects().iter().chain(target.objects()).map(Manifest::id).collect();
    let same = |id: &ObjectId| match (stable.get(id), target.get(id)) {
        (Some(old), Some(new)) => old.fields() == new.fields(),
        _ => false,
    };
    let steers = |id: &ObjectId| target.get(id).is_some_and(|object| router::steers(&object.gvk()));
    let its = ids.into_iter().filter(|id| !same(id) || steers(id) || workloads.contains(id));
    its.chain(work.route.iter().map(|route| route.id.clone())).map(|id| id.to_string()).collect()
}

/// Who looks at the cluster before a rollout, and for which Delivery.
pub struct Eyes<'a> {
    /// As whom.
    pub access: &'a Access,
    /// The kinds that it knows.
    pub discovery: &'a Discovery,
    /// The value of the Delivery's label.
    pub label: &'a str,
    /// Where its objects go.
    pub namespace: &'a str,
}

/// Whether a rollout can be begun, so that it does not fail for that half-way: each of its layouts is made of the two bundles, and
/// what the cluster has to have for them is looked at. Answers what has to be known of it later on.
pub async fn foresee(
    eyes: &Eyes<'_>,
    policy: &RolloutPolicy,
    steps: &Steps,
    [stable, target]: [&Bundle; 2],
    workloads: &[ObjectId],
    inventory: &[InventoryEntry],
) -> Result<Foreknown, Refusal> {
    let wrong = |problem: Problem| Refusal { problem, transient: false };
    let sizes = sizes(eyes, stable, workloads).await?;
    let others_route = foreseen::is_others(eyes, &steps.making.router, [stable, target], inventory).await?;
    // Every layout is tried before the first pod is started.
    let mut foreseen = Foreseen::default();
    let mut first = None;
    for planned in &steps.all {
        let shape = |layout: &Layout| {
            shaped(eyes, policy, [stable, target], None, (layout, sizes.as_slice(), others_route))
        };
        // Who has done what was asked, together with what is to be rolled out, would be asked for it again.
        let explained = |problem: Problem| {
            let promoted = Layout { base: Base::Target, ..planned.layout.clone() };
            match planned.layout.base == Base::Stable && shape(&promoted).is_ok() {
                true => Problem { message: format!("{} {MENDED_LATER}", problem.message), ..problem },
                false => problem,
            }
        };
        let shape = shape(&planned.layout).map_err(|problem| wrong(explained(problem)))?;
        foreseen.add(&steps.making.router, &shape.place, shape.split.as_ref(), &shape.bundle);
        first.get_or_insert(shape);
    }
    let unchanged = |id: &ObjectId| match (stable.get(id), target.get(id)) {
        (Some(old), Some(new)) => old.fields() == new.fields(),
        _ => false,
    };
    if let Some(Shape { place: Place::Bundle(id), .. }) = &first
        && steps.making.router.names_backends()
        && unchanged(id)
    {
        foreseen.own(id);
    }
    foreseen.ask(eyes).await?;
    let subjects = match &first {
        Some(shape) => subjects(eyes, policy, shape).await?,
        None => Subjects::default(),
    };
    check_measures(steps, &subjects)?;
    check_jobs(steps, target).map_err(wrong)?;
    let (others, unchecked) = foreseen::others(eyes, workloads, [stable, target], inventory).await?;
    let notices = variant::followed(stable, target, policy, &others).map_err(wrong)?;
    Ok(Foreknown { sizes, others_route, unchecked, notices, ..Foreknown::default() })
}

/// What is to be said of the shares of traffic that numbers of pods cannot make.
fn shares(steps: &Steps, stable: &Bundle, workloads: &[ObjectId], sizes: &[WorkloadSize]) -> Vec<String> {
    if steps.making.router.replicas.is_none() {
        return Vec::new();
    }
    let weights: BTreeSet<u32> = steps.all.iter().map(|planned| planned.layout.weight).collect();
    let of = |id: &ObjectId| {
        let pods = u32::try_from(variant::pods(stable.get(id)?, sizes)).unwrap_or(0);
        let said: Vec<String> = weights.iter().filter_map(|w| router::replicas::said(pods, *w)).collect();
        (!said.is_empty()).then(|| format!("{id}: {}", said.join(", ")))
    };
    workloads.iter().filter_map(of).collect()
}

/// What is to be measured has to be something that can be.
fn check_measures(steps: &Steps, subjects: &Subjects) -> Result<(), Refusal> {
    let general = steps.analysis.iter().map(|policy| (policy.clone(), StepKind::Other));
    let own = steps.all.iter().filter_map(|planned| match &planned.then {
        Then::Analysis(own) => Some((policy_of_step(steps.analysis.as_ref(), own), StepKind::Analysis)),
        _ => None,
    });
    let all = general.chain(own);
    let found: Vec<String> = all.flat_map(|(policy, kind)| problems(&policy, kind, subjects)).collect();
    match found.is_empty() {
        true => Ok(()),
        false => Err(refusal("InvalidAnalysis", format!("spec.rollout: {}", found.join("; ")), false)),
    }
}

/// The Jobs that steps name have to be there.
fn check_jobs(steps: &Steps, target: &Bundle) -> Result<(), Problem> {
    let there = |name: &str| {
        let is = |h: &Hook| h.manifest.name() == name && h.points.contains(&HookPoint::RolloutStep);
        target.hooks().iter().any(is)
    };
    let named = steps.all.iter().flat_map(|planned| steps.measured(planned).1);
    named.map(|job| job.name).find(|name| !there(name)).map_or(Ok(()), |name| Err(no_such_job(&name)))
}

/// How many pods the workloads have, where an autoscaler decides.
async fn sizes(
    eyes: &Eyes<'_>,
    stable: &Bundle,
    workloads: &[ObjectId],
) -> Result<Vec<WorkloadSize>, Refusal> {
    let scaled: BTreeSet<ObjectId> =
        stable.objects().iter().filter_map(|o| autoscale::target(&o.to_value())).collect();
    let mut sizes = Vec::new();
    for id in workloads {
        let Some(manifest) = stable.get(id) else { continue };
        let named = manifest.fields()["spec"].get("replicas").is_some();
        let Some(resource) = eyes.discovery.resource(&manifest.gvk()) else { continue };
        if named && !scaled.contains(id) {
            continue;
        }
        let live = get(eyes.access, &resource, &id.namespace, &id.name)
            .await
            .map_err(|error| refused(manifest, &error))?;
        if let Some(replicas) = live.as_ref().and_then(|l| l["spec"]["replicas"].as_i64()) {
            sizes.push(WorkloadSize { workload: variant::reference(id), replicas, now: None });
        }
    }
    Ok(sizes)
}

/// The objects of a layout, with traffic as it says.
pub(super) struct Shape {
    pub(super) bundle: Bundle,
    /// Those that are there for the rollout only.
    candidates: BTreeSet<ObjectId>,
    /// The workloads that have a candidate.
    pub(super) variants: Vec<variant::Variant>,
    /// What moves traffic.
    pub(super) router: Router,
    /// Where the route stands.
    pub(super) place: Place,
    /// How it divides traffic; `None` where there is no candidate.
    pub(super) split: Option<Split>,
}

impl Shape {
    /// The route, where it is not among the objects.
    fn external(&self) -> Option<External> {
        match &self.place {
            Place::External(id) => Some(External::new(self.router.clone(), id.clone(), self.split.clone())),
            Place::Bundle(_) | Place::Made(_) | Place::Pods => None,
        }
    }
}

/// The objects of a layout, with traffic as it says.
fn shaped(
    eyes: &Eyes<'_>,
    policy: &RolloutPolicy,
    [stable, target]: [&Bundle; 2],
    over: Option<&Bundle>,
    (layout, sizes, others_route): (&Layout, &[WorkloadSize], bool),
) -> Result<Shape, Problem> {
    let staged = match over {
        Some(over) => variant::stage_over([stable, target, over], policy, layout, sizes)?,
        None => variant::stage(stable, target, policy, layout, sizes)?,
    };
    let split = layout.size.map(|_| split(&staged, layout));
    let over_them = over.into_iter().flat_map(Bundle::objects);
    let known: BTreeSet<ObjectId> =
        stable.objects().iter().chain(target.objects()).chain(over_them).map(Manifest::id).collect();
    let router = policy.router.clone().unwrap_or_default();
    let namespace = eyes.namespace;
    let mut shaped = router::shape_beside(&router, namespace, staged.objects, split.as_ref(), others_route)?;
    if let Place::Made(id) = &shaped.place
        && let Some(made) = shaped.objects.iter_mut().find(|object| object.id() == *id)
    {
        // Without it nobody would know it for the Delivery's again.
        made.set_label(names::DELIVERY_LABEL, eyes.label);
    }
    if let Place::External(id) = &shaped.place
        && namespace.is_empty()
    {
        return Err(Problem {
            reason: "RouteMissing".into(),
            object: id.to_string(),
            message:
                "spec.rollout.router names a route that is not in the directory, which is looked for in \
                      spec.targetNamespace; set it, or add the route to the directory"
                    .into(),
        });
    }
    let candidates = shaped.objects.iter().map(Manifest::id).filter(|id| !known.contains(id)).collect();
    // The hooks of what is put in place run at its stages, too.
    let hooks = over.unwrap_or(target).hooks().iter().map(|hook| hook.manifest.clone());
    let bundle = Bundle::new(shaped.objects.into_iter().chain(hooks).collect()).map_err(|error| Problem {
        reason: "InvalidRollout".into(),
        object: String::new(),
        message: error.to_string(),
    })?;
    Ok(Shape { bundle, candidates, variants: staged.variants, router, place: shaped.place, split })
}

/// The objects of a stage.
pub(super) async fn shape_of(
    scope: &Scope<'_>,
    memory: &Memory,
    policy: &RolloutPolicy,
    staged: &Staged,
) -> Result<Shape, Refusal> {
    let stable = bundle_of(scope, memory, &staged.stable).await?;
    let target = restarting(scope, &stable, bundle_of(scope, memory, &staged.candidate).await?);
    let over = match &staged.over {
        Some(over) => Some(restarting(scope, &stable, bundle_of(scope, memory, over).await?)),
        None => None,
    };
    let about = (&staged.layout, staged.sizes.as_slice(), staged.others_route);
    // What is named meanwhile is for the next rollout: what this one has divided is what it has to give back.
    shaped(&scope.eyes(), &staged.making.keep(policy), [&stable, &target], over.as_deref(), about)
        .map_err(|problem| Refusal { problem, transient: false })
}

/// What drift is measured against: a revision as Git says, or a stage of a rollout.
pub(super) async fn standing(
    scope: &Scope<'_>,
    memory: &Memory,
    measure: &Measure,
) -> Result<Arc<Bundle>, Refusal> {
    let (Staging::Staged(staged), Some(policy)) = (&measure.staging, &scope.delivery.spec.template.rollout)
    else {
        return bundle_of(scope, memory, &measure.revision).await;
    };
    if let Some(work) = memory.work.as_ref().filter(|w| w.staging == measure.staging) {
        return Ok(work.bundle.clone());
    }
    let shape = shape_of(scope, memory, policy, staged).await?;
    Ok(Arc::new(shape.bundle))
}

/// The route that a stage divides, where it is not among its objects.
pub(super) async fn external(
    scope: &Scope<'_>,
    memory: &Memory,
    staging: &Staging,
) -> Result<Option<External>, Refusal> {
    match (staging, &scope.delivery.spec.template.rollout) {
        (Staging::Staged(staged), Some(policy)) => {
            Ok(shape_of(scope, memory, policy, staged).await?.external())
        }
        _ => Ok(None),
    }
}

/// The Services that a stage sends traffic to.
pub(super) async fn served(
    scope: &Scope<'_>,
    memory: &Memory,
    staging: &Staging,
) -> Result<Vec<Served>, Refusal> {
    let (Staging::Staged(staged), Some(policy)) = (staging, &scope.delivery.spec.template.rollout) else {
        return Ok(Vec::new());
    };
    let shape = shape_of(scope, memory, policy, staged).await?;
    let services = shape.split.as_ref().map_or(&[][..], |split| split.services.as_slice());
    let of = |service: &VariantService| {
        let its = |variant: &&variant::Variant| {
            variant.stable.namespace == service.namespace
                && variant.label.candidate == service.label.candidate
        };
        let workload = shape.variants.iter().find(its)?.stable.clone();
        let (group, kind) = (String::new(), "Service".to_owned());
        let (namespace, name) = (service.namespace.clone(), service.stable.clone());
        let named = shape.bundle.get(&ObjectId { group, kind, namespace, name })?;
        let is_alias = named.to_value()["spec"]["type"] == "ExternalName";
        Some(Served {
            namespace: service.namespace.clone(),
            named: (!is_alias).then(|| service.stable.clone()),
            candidate: service.candidate.clone(),
            workload: (shape.bundle.get(&workload)?.gvk(), workload),
        })
    };
    Ok(services.iter().filter_map(of).collect())
}

/// How a layout divides traffic between the Services of a stage.
fn split(staged: &StageObjects, layout: &Layout) -> Split {
    let services = staged.services.iter().map(|pair| {
        let service = staged.objects.iter().find(|o| {
            o.gvk().kind == "Service" && o.namespace() == pair.namespace && o.name() == pair.stable
        });
        VariantService {
            namespace: pair.namespace.clone(),
            stable: pair.stable.clone(),
            candidate: pair.candidate.clone(),
            ports: service.map(|s| ServicePort::of(&s.to_value())).unwrap_or_default(),
            label: VariantLabel {
                key: pair.label.key.clone(),
                stable: pair.label.stable.clone(),
                candidate: pair.label.candidate.clone(),
            },
        }
    });
    Split {
        services: services.collect(),
        weight: layout.weight,
        header: layout.header.clone(),
        cookie: layout.cookie.clone(),
        mirror: layout.mirror,
    }
}

async fn staged_work(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
    revision: &Revision,
    goal: Goal,
    staged: Staged,
) -> Result<Work, Refusal> {
    let Some(policy) = &scope.delivery.spec.template.rollout else {
        return Err(refusal("InvalidRollout", "spec.rollout is gone", true));
    };
    let shape = shape_of(scope, memory, policy, &staged).await?;
    let external = shape.external();
    let Shape { bundle, candidates, .. } = shape;
    let mut work = prepare_bundle(scope, memory, status, revision, goal, Arc::new(bundle)).await?;
    for entry in work.inventory.iter_mut().filter(|e| !e.stale) {
        entry.candidate = candidates.contains(&InventoryEntry::id(entry));
    }
    note_digests(&mut work);
    work.route = external;
    work.staging = Staging::Staged(Box::new(staged));
    Ok(work)
}
