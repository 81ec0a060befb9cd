//! What is seen of a Delivery: what Git wants, and how its objects are.

use super::work::{Memory, Settings, TargetKey, Work};
use super::{Scope, settings};
use crate::api::delivery::{DeliveryStatus, DeliveryTemplate, InventoryEntry, Problem, Revision};
use crate::api::names;
use crate::api::rollout::{WorkloadRef, WorkloadSize};
use crate::core::digest;
use crate::core::health::{Status, is_unobserved};
use crate::core::plan;
use crate::core::rollout::served;
use crate::core::rollout::{
    Applied, CONFLICT, Health, MISSING, Making, NOT_OBSERVED, Observation, Prepared, Staging, Target,
    UNREADY, Variants,
};
use crate::reconcile::directories::NOT_WRITTEN;
use crate::reconcile::live::version;
use crate::reconcile::sources::{Fetched, Store};
use crate::render;
use crate::source::CommitId;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::json;

/// Everything that the machine wants to know.
pub async fn observe(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) -> Observation {
    let deleting = scope.delivery.metadata.deletion_timestamp.is_some();
    let target = if deleting { Target::Unknown } else { target(scope, memory).await };
    let dependencies = super::depends::look(scope, memory);
    note_shown(scope, memory);
    super::sight::note(scope, memory, &status.inventory);
    let hooks = super::hooks::observe(scope, memory, status).await;
    let annotations = scope.delivery.annotations();
    let reverted = memory.reverting.answer();
    let work = memory.work.as_ref();
    let inventory = work.map_or(status.inventory.as_slice(), |w| w.inventory.as_slice());
    // A revision that is only prepared says nothing about the health of what runs.
    let attempted = status.attempt.as_ref().map(|a| &a.revision);
    let under_way = work.filter(|w| Some(&w.revision) == attempted);
    let (seen_of, under_way) = match under_way.is_some() || work.is_none() {
        true => (inventory, under_way),
        false => (status.inventory.as_slice(), None),
    };
    let excused = excused(status);
    let ill = ill(scope, seen_of, under_way, memory);
    let besides_pods = besides_pods(scope, seen_of, under_way, memory, &ill);
    let health = health(scope, seen_of.iter().filter(|e| !excused(e)), under_way, memory);
    let health = super::sight::through(memory, with_route(without_secrets(health, memory), memory));
    let unserved = super::served::unserved(scope, memory, status);
    let health = served::with(health, unserved.as_ref().map(|(_, nobody)| nobody));
    let variants = served::with_side(variants(scope, memory, status), unserved.as_ref());
    Observation {
        deleting,
        target,
        dependencies,
        hooks,
        dependent: if deleting { super::depends::going_before(scope) } else { None },
        prepared: prepared(memory, annotations.get(names::RECONCILE_REQUEST)),
        applied: memory.work.as_ref().and_then(applied),
        pruned: memory.pruned.clone(),
        health,
        ill,
        besides_pods,
        in_contact_since: memory.in_contact_since,
        seen_since: memory.seen_since,
        measured: memory.drift.measured.clone(),
        drifted: memory.drift.count(),
        correctable: memory.drift.correctable(),
        misdirected: memory.drift.misdirected(),
        uncompared: memory.drift.uncompared(),
        contested: memory.drift.contested(),
        corrected: memory.drift.corrected.clone(),
        late: super::late::seen(scope, memory, status),
        disturbed: disturbed(scope, memory, status),
        pods_unseen: pods_unseen(scope, memory, status),
        except: super::except::observed(scope, memory, status),
        reverted,
        in_the_way: memory.pods.in_the_way().to_vec(),
        reconcile: annotations.get(names::RECONCILE_REQUEST).cloned(),
        release: annotations.get(names::RELEASE_REQUEST).cloned(),
        rollback: annotations.get(names::ROLLBACK_REQUEST).cloned(),
        rollout: annotations.get(names::ROLLOUT_REQUEST).cloned(),
        variants,
        analysis: memory.measures.seen(),
        sizes: sizes(scope, status),
    }
}

/// How all objects are but the Deployment whose pods an Application tells of, where the Delivery is that of one.
fn besides_pods(
    scope: &Scope<'_>,
    inventory: &[InventoryEntry],
    work: Option<&Work>,
    memory: &Memory,
    ill: &[Problem],
) -> Option<(Health, Vec<Problem>)> {
    let application = scope.delivery.spec.source.application.as_ref()?;
    let is_its = |e: &InventoryEntry| e.group == "apps" && e.kind == "Deployment" && e.name == *application;
    let its: Vec<String> = inventory.iter().filter(|e| is_its(e)).map(|e| e.id().to_string()).collect();
    let others = health(scope, inventory.iter().filter(|e| !is_its(e)), work, memory);
    let others = super::sight::through(memory, with_route(without_secrets(others, memory), memory));
    Some((others, ill.iter().filter(|problem| !its.contains(&problem.object)).cloned().collect()))
}

/// How many pods the workloads have now that an autoscaler sizes, during a rollout.
fn sizes(scope: &Scope<'_>, status: &DeliveryStatus) -> Vec<Option<i64>> {
    let rollout = status.attempt.as_ref().and_then(|attempt| attempt.rollout.as_ref());
    let now = |size: &WorkloadSize| {
        let its = |e: &&InventoryEntry| {
            let named =
                e.group == "apps" && e.kind == size.workload.kind.as_str() && e.name == size.workload.name;
            named && !e.stale && !e.candidate
        };
        let entry = status.inventory.iter().find(its)?;
        scope
            .live(&entry.gvk(), &entry.id())?
            .kept
            .pods
            .map(|pods| i64::from(pods.wanted))
            .filter(|wanted| *wanted > 0)
    };
    rollout.map(|rollout| rollout.sizes.iter().map(now).collect()).unwrap_or_default()
}

/// The health of a rollout's two variants apart. Objects that its present layout has not recorded yet count for neither.
fn variants(scope: &Scope<'_>, memory: &Memory, status: &DeliveryStatus) -> Variants {
    let Some((attempt, rollout)) = status.attempt.as_ref().and_then(|a| Some((a, a.rollout.as_ref()?)))
    else {
        return Variants::default();
    };
    let under_way = memory.work.as_ref().filter(|w| w.revision == attempt.revision);
    let inventory = under_way.map_or(&status.inventory, |w| &w.inventory);
    let excused = excused(status);
    let of = |candidate: bool| {
        let some = inventory.iter().filter(|e| e.candidate == candidate && !excused(e));
        without_secrets(health(scope, some, under_way, memory), memory)
    };
    let unready = unready(scope, &Making::of(rollout), inventory).filter(|_| memory.seen_since.is_some());
    Variants { named: with_route(of(false), memory), candidate: of(true), unready }
}

/// A workload of the candidate that has no pod ready, while all that are rolled out have some under their names in Git.
fn unready(scope: &Scope<'_>, making: &Making, inventory: &[InventoryEntry]) -> Option<Problem> {
    let policy = making.keep(scope.delivery.spec.template.rollout.as_ref()?);
    let pods = |entry: &InventoryEntry| scope.live(&entry.gvk(), &entry.id())?.kept.pods;
    let there = |candidate: bool| {
        inventory.iter().filter(move |e| e.group == "apps" && !e.stale && e.candidate == candidate)
    };
    let serves = |workload: &WorkloadRef| {
        there(false)
            .filter(|e| e.kind == workload.kind.as_str() && e.name == workload.name)
            .any(|e| pods(e).is_some_and(|pods| pods.ready > 0))
    };
    if !policy.named().all(serves) {
        return None;
    }
    there(true).find_map(|entry| {
        let pods = pods(entry).filter(|pods| pods.wanted > 0 && pods.ready <= 0)?;
        let message = format!("none of its {} pods is ready", pods.wanted);
        Some(Problem { reason: UNREADY.into(), object: entry.id().to_string(), message })
    })
}

/// A route of others that does not divide traffic as wanted counts like one of the Delivery's own.
fn with_route(health: Health, memory: &Memory) -> Health {
    let trouble = memory.route.as_ref().and_then(super::route::Followed::trouble);
    match trouble.map(|problem| Health::Degraded(problem.clone())) {
        Some(ill) if rank(&ill) > rank(&health) => ill,
        _ => health,
    }
}

/// Whether a workload that is not healthy while it is watched on has pods that are not seen yet.
fn pods_unseen(scope: &Scope<'_>, memory: &Memory, status: &DeliveryStatus) -> bool {
    super::pods::is_watched_on(status)
        && status.inventory.iter().any(|entry| {
            !entry.stale
                && memory.pods.is_unseen(&entry.id())
                && !matches!(health_of(scope, entry, None, memory), Health::Healthy)
        })
}

/// What else than the revision explains that objects are not healthy, while it is watched on: if it explains each workload
/// that is not. Other objects follow the workloads.
fn disturbed(scope: &Scope<'_>, memory: &Memory, status: &DeliveryStatus) -> Option<Problem> {
    if !super::pods::is_watched_on(status) {
        return None;
    }
    let (mut found, mut unexplained) = (None, false);
    for entry in status.inventory.iter().filter(|e| !e.stale) {
        if matches!(health_of(scope, entry, None, memory), Health::Healthy | Health::Unknown) {
            continue;
        }
        let id = entry.id();
        let workload = scope.live(&entry.gvk(), &id).is_some_and(|live| live.kept.workload.is_some());
        let (reason, message) = if memory.drift.differs(&id) {
            ("Drifted", "was changed in the cluster and is not as it should be".to_owned())
        } else if let Some(why) = memory.pods.disturbance(&id) {
            ("Disrupted", why.to_owned())
        } else if workload {
            return None;
        } else {
            unexplained = true;
            continue;
        };
        let problem = Problem { reason: reason.into(), object: id.to_string(), message };
        let disrupted = reason == "Disrupted";
        if disrupted || found.is_none() {
            found = Some(problem);
        }
    }
    // Only what happens to pods takes other objects along.
    found.filter(|problem: &Problem| !unexplained || problem.reason == "Disrupted")
}

/// What a controller says about an object may quote the object.
fn without_secrets(health: Health, memory: &Memory) -> Health {
    let redact = |mut problem: Problem| {
        problem.message = memory.redact(&problem.message);
        problem
    };
    match health {
        Health::Progressing(p) => Health::Progressing(redact(p)),
        Health::Degraded(p) => Health::Degraded(redact(p)),
        Health::Broken(p) => Health::Broken(redact(p)),
        Health::Unknown | Health::Healthy => health,
    }
}

/// What became of preparing. Who asked to look again after that is not answered by a refusal: what was wrong may be right by now.
fn prepared(memory: &Memory, request: Option<&String>) -> Option<Prepared> {
    if let Some(refused) = memory.refused.as_ref().filter(|refused| refused.request.as_ref() == request) {
        return Some(Prepared {
            revision: refused.revision.clone(),
            staging: Staging::Whole,
            begin: None,
            outcome: Err(refused.refusal.clone()),
            at: refused.at,
        });
    }
    let work = memory.work.as_ref()?;
    Some(Prepared {
        revision: work.revision.clone(),
        staging: work.staging.clone(),
        begin: work.begin.clone(),
        outcome: Ok(work.inventory.clone()),
        at: work.at,
    })
}

fn applied(work: &Work) -> Option<Applied> {
    let (end, at) = work.end.clone()?;
    Some(Applied {
        revision: work.revision.clone(),
        staging: work.staging.clone(),
        inventory: work.inventory.clone(),
        end,
        at,
    })
}

/// What Git wants of the Delivery. Nothing is computed again while commit and spec are the same.
async fn target(scope: &Scope<'_>, memory: &mut Memory) -> Target {
    let delivery = scope.delivery;
    let problem = |reason: &str, message: String| {
        Target::Failed(Problem { reason: reason.into(), object: String::new(), message })
    };
    // Nothing is deployed or corrected while it cannot be told what is to be left alone.
    if let Err(error) = &scope.rules {
        return Target::Failed(super::leave::problem(error));
    }
    let key = delivery.source_key();
    let Some(known) = scope.daemon.sources.get(&key) else {
        let (namespace, source) = (&key.0, &delivery.spec.source);
        return match (scope.daemon.sources_listed(delivery), &source.application) {
            (false, _) => Target::Unknown,
            (true, None) => {
                let repository = &source.repository;
                let text = format!(
                    "Repository {namespace}/{repository} does not exist; spec.source.repository names it"
                );
                problem("RepositoryMissing", text)
            }
            (true, Some(application)) => {
                let text = format!(
                    "Application {namespace}/{application} does not exist; spec.source.application names it"
                );
                problem("ApplicationMissing", text)
            }
        };
    };
    // One that a person made takes each commit; what the Repository makes of the others is part of the commit.
    let made = delivery.labels().get(names::REPOSITORY_LABEL) == Some(&delivery.spec.source.repository);
    let unexpanded = known.unexpanded.as_ref().filter(|_| made);
    let unwritten = |problem: &&Problem| problem.reason == NOT_WRITTEN;
    if let Some(problem) =
        known.refused(&delivery.name_any()).or(unexpanded.filter(|problem| !unwritten(problem)))
    {
        return Target::Failed(problem.clone());
    }
    // The commit brings another spec: what it was before stays until that is here, too.
    let version = delivery.resource_version().and_then(|text| text.parse().ok()).unwrap_or(0);
    if unexpanded.is_some() || !known.gives(&delivery.name_any(), version) {
        return memory.target.as_ref().map_or(Target::Unknown, |(_, target)| target.clone());
    }
    let Some(fetched) = known.fetched else {
        // What runs is not worse for a remote that is away; that stands on the Repository.
        let runs = delivery.status.as_ref().is_some_and(|s| s.effective.is_some());
        return known.problem.filter(|_| !runs).map_or(Target::Unknown, Target::Failed);
    };
    let Some(store) = known.store else { return Target::Unknown };
    let key = TargetKey {
        commit: fetched.commit.id.as_str().to_owned(),
        branch: fetched.branch.clone(),
        generation: delivery.metadata.generation.unwrap_or_default(),
        request: delivery.annotations().get(names::RECONCILE_REQUEST).cloned().unwrap_or_default(),
    };
    let now = scope.daemon.now();
    let stale = memory.settings.as_ref().is_none_or(|s| s.at + scope.interval() <= now);
    if let Some((known, target)) = &memory.target
        && *known == key
        && !(stale && delivery.spec.template.substitute.is_some())
        && !memory.followed.values().any(crate::cluster::Named::is_outdated)
    {
        return target.clone();
    }
    let target = match settings::read(scope, memory, now).await {
        Err(problem) => {
            memory.target = None;
            memory.settings_missing = true;
            return Target::Failed(problem);
        }
        Ok(settings) => {
            let target = revision(scope, &fetched, &store, &settings).await;
            memory.settings = Some(settings);
            memory.settings_missing = false;
            target
        }
    };
    match target {
        Ok(revision) => {
            let target = Target::Known(revision);
            memory.target = Some((key, target.clone()));
            target
        }
        // Not remembered: what is wrong may be the mirror, which mends itself. Nor is what was wanted before: settings that were
        // read just now are others, and nobody tells of them again.
        Err(problem) => {
            memory.target = None;
            Target::Failed(problem)
        }
    }
}

/// How long the watch may take to show what we wrote before its silence means that it is gone again.
const LAG: SignedDuration = SignedDuration::from_secs(10);

/// Notes what the watch has shown of what was written: an object that it shows no more is gone then, and a Job that it
/// has shown to be complete may go.
fn note_shown(scope: &Scope<'_>, memory: &mut Memory) {
    let inventory = scope.delivery.status.as_ref().map_or(&[][..], |s| &s.inventory);
    memory.before.retain(|id, written| {
        let entry = inventory.iter().find(|e| e.is(id));
        entry.and_then(|e| scope.live(&e.gvk(), id)).is_some_and(|l| version(&l) < written.resource_version)
    });
    let Some(work) = &mut memory.work else { return };
    for entry in &mut work.inventory {
        let id = entry.id();
        if entry.unfinished && scope.completed(entry) == Some(true) {
            entry.unfinished = false;
        }
        if let Some(written) = work.written.get(&id)
            && !work.shown.contains(&id)
            && scope.live(&entry.gvk(), &id).is_some_and(|l| version(&l) >= written.resource_version)
        {
            work.shown.insert(id);
        }
    }
}

/// When to look again at what was written and not shown since.
pub fn looks_again(memory: &Memory) -> Option<Timestamp> {
    let work = memory.work.as_ref()?;
    let (_, at) = work.end.as_ref()?;
    work.written.keys().any(|id| !work.shown.contains(id)).then(|| *at + LAG)
}

/// What tells two revisions apart besides their settings: the trees that a directory is rendered from, and how.
pub fn inputs_digest(template: &DeliveryTemplate, trees: &[(String, String)]) -> String {
    digest::of_value(&json!({
        "trees": trees,
        "targetNamespace": template.target_namespace,
        "render": template.render,
        "substitute": template.substitute.is_some(),
    }))
}

async fn revision(
    scope: &Scope<'_>,
    fetched: &Fetched,
    store: &Store,
    settings: &Settings,
) -> Result<Revision, Problem> {
    let path = scope.delivery.spec.source.path.trim_matches('/').to_owned();
    let failed =
        |reason: &str, message: String| Problem { reason: reason.into(), object: String::new(), message };
    let id: CommitId = fetched.commit.id.clone();
    let at = path.clone();
    let tree = store.mirror.tree(&id).await.map_err(|e| failed(e.reason(), e.to_string()))?;
    let inputs = render::in_tree(tree, move |tree| render::inputs(tree, &at))
        .await
        .map_err(|e| failed("Internal", e.to_string()))?
        .map_err(|e| failed(super::bundle::reason(&e), e.to_string()))?;
    Ok(Revision {
        branch: fetched.branch.clone(),
        commit: fetched.commit.id.as_str().to_owned(),
        path,
        inputs: inputs_digest(&scope.delivery.spec.template, &inputs),
        settings: settings.digest.clone(),
        author: fetched.commit.author_name.clone(),
        subject: fetched.commit.subject.clone(),
    })
}

/// The health of the objects in an inventory together, the worst first. `work` tells what was written in this life of
/// the daemon: what the watch shows from before does not count.
pub fn health<'e>(
    scope: &Scope<'_>,
    inventory: impl IntoIterator<Item = &'e InventoryEntry>,
    work: Option<&Work>,
    memory: &Memory,
) -> Health {
    let mut worst = Health::Healthy;
    for entry in inventory.into_iter().filter(|e| !e.stale) {
        let one = health_of(scope, entry, work, memory);
        if rank(&one) > rank(&worst) {
            worst = one;
        }
    }
    worst
}

/// Which objects of an inventory are degraded or broken.
fn ill(
    scope: &Scope<'_>,
    inventory: &[InventoryEntry],
    work: Option<&Work>,
    memory: &Memory,
) -> Vec<Problem> {
    let of = |entry: &InventoryEntry| {
        let (Health::Degraded(mut problem) | Health::Broken(mut problem)) =
            health_of(scope, entry, work, memory)
        else {
            return None;
        };
        problem.message = memory.redact(&problem.message);
        Some(problem)
    };
    inventory.iter().filter(|e| !e.stale).filter_map(of).collect()
}

/// Which objects were not healthy before the rollout that is under way, or that the revision came by that is watched on.
pub fn excused(status: &DeliveryStatus) -> impl Fn(&InventoryEntry) -> bool + use<> {
    let of_attempt = status.attempt.as_ref().map(|a| a.rollout.as_ref().map_or(&a.excused, |r| &r.excused));
    let names = of_attempt.or(status.bake.as_ref().map(|b| &b.excused)).cloned().unwrap_or_default();
    move |entry| !names.is_empty() && names.contains(&entry.id().to_string())
}

fn rank(health: &Health) -> u8 {
    match health {
        Health::Healthy => 0,
        Health::Unknown => 1,
        Health::Progressing(_) => 2,
        Health::Degraded(_) => 3,
        Health::Broken(_) => 4,
    }
}

/// The health of one object, as it was written or as it has been seen since.
pub fn health_of(
    scope: &Scope<'_>,
    entry: &InventoryEntry,
    work: Option<&Work>,
    Memory { pods, before, .. }: &Memory,
) -> Health {
    let id = entry.id();
    let problem = |reason: &str, message: &str| Problem {
        reason: reason.into(),
        object: id.to_string(),
        message: message.into(),
    };
    if let Some(trouble) = pods.troubles().get(&id) {
        return Health::Broken(trouble.clone());
    }
    let silent = |w: &Work| {
        w.shown.contains(&id) || w.end.as_ref().is_some_and(|(_, at)| *at + LAG <= scope.daemon.now())
    };
    let live = scope.live(&entry.gvk(), &id);
    let written =
        work.and_then(|w| w.written.get(&id)).filter(|_| live.is_some() || !work.is_some_and(silent));
    let written = written.or_else(|| before.get(&id).filter(|_| live.is_some()));
    let verdict = match (&live, written) {
        (Some(live), Some(written)) if version(live) < written.resource_version => written.verdict.clone(),
        (None, Some(written)) => written.verdict.clone(),
        // Two that make one object in the same moment both find nothing there: whose label it carries in the end has it.
        (Some(live), _)
            if plan::is_anothers(&live.label, &scope.label)
                && entry.uid.as_deref().is_none_or(|uid| *uid == *live.uid) =>
        {
            let whose = plan::whose(&live.label, scope.daemon.owner(&live.label).as_deref());
            return Health::Broken(problem(CONFLICT, &whose));
        }
        (Some(live), _) => live.kept.verdict.clone(),
        (None, None) => {
            if entry.uid.is_none() || !scope.synced(&entry.gvk(), &entry.namespace) {
                return Health::Unknown;
            }
            if scope.ended_early(entry) {
                return Health::Degraded(problem("JobGone", "is gone, and was not seen to complete"));
            }
            // One that ran and was cleaned up by its TTL has done its work.
            if entry.group == "batch" && entry.kind == "Job" {
                return Health::Healthy;
            }
            return Health::Degraded(problem(MISSING, "is not in the cluster"));
        }
    };
    if let Some(broken) = &verdict.broken {
        return Health::Broken(problem(broken.reason, &broken.message));
    }
    if verdict.settles() {
        return Health::Healthy;
    }
    match verdict.status {
        Status::Degraded => Health::Degraded(problem("Degraded", &verdict.message)),
        Status::Missing => Health::Degraded(problem("Missing", &verdict.message)),
        _ => {
            if let Some(waits) = pods.waits_for(&id) {
                return Health::Progressing(problem("Progressing", &format!("{}; {waits}", verdict.message)));
            }
            // What was just written and is not shown yet was looked at by nobody either.
            let shown = live.as_ref().filter(|l| written.is_none_or(|w| version(l) >= w.resource_version));
            let looked_at =
                shown.is_some_and(|l| !l.kept.workload.as_ref().is_some_and(|w| is_unobserved(w)));
            let reason = if work.is_some() && !looked_at { NOT_OBSERVED } else { "Progressing" };
            Health::Progressing(problem(reason, &verdict.message))
        }
    }
}
