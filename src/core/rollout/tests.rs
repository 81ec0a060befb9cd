//! The machine's promises, one at a time, in a small world: a cluster that does what it is told, with objects that are
//! as healthy as the test says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::api::delivery::{EntryOrigin, Outcome, Phase, Step};
use proptest::prelude::*;
use proptest::strategy::Strategy;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn revision(name: &str) -> Revision {
    Revision {
        branch: "main".into(),
        commit: format!("{name:0<40}"),
        inputs: name.into(),
        author: "Ada".into(),
        subject: format!("Change {name}"),
        ..Revision::default()
    }
}

fn entry(name: &str) -> InventoryEntry {
    InventoryEntry {
        group: String::new(),
        version: "v1".into(),
        kind: "ConfigMap".into(),
        namespace: "shop".into(),
        name: name.into(),
        uid: None,
        origin: EntryOrigin::Created,
        applied: String::new(),
        digest: String::new(),
        prune: None,
        stale: false,
        kept: false,
        settled_by: None,
        unfinished: false,
        candidate: false,
        config: None,
        replicas: None,
        wave: 0,
    }
}

pub(super) fn problem(reason: &str) -> Problem {
    Problem {
        reason: reason.into(),
        object: "Deployment shop/web".into(),
        message: format!("it is {reason}"),
    }
}

/// A world around the machine: what a reconciler, an API server and Git do.
pub(super) struct World {
    pub(super) spec: Spec,
    pub(super) state: State,
    pub(super) seen: Observation,
    pub(super) now: Timestamp,
    /// What is in the cluster, and of which revision.
    pub(super) cluster: BTreeMap<String, String>,
    /// The objects of each revision.
    pub(super) bundles: BTreeMap<String, BTreeSet<String>>,
    /// Revisions whose pods break.
    pub(super) broken: BTreeSet<String>,
    /// Revisions, or objects of one (`web=b`), that never become healthy.
    pub(super) slow: BTreeSet<String>,
    /// Revisions that a dry-run refuses, and whether trying again may help.
    pub(super) refused: BTreeMap<String, bool>,
    /// Revisions that fail while they are applied.
    pub(super) fails_applying: BTreeSet<String>,
    pub(super) notices: Vec<Notice>,
    /// What comes of reverting a commit, and which were.
    pub(super) revert: Result<(String, String), Refusal>,
    pub(super) reverts: Vec<String>,
    pub(super) applied: Vec<String>,
    /// The hooks of all revisions.
    pub(super) hooks: Vec<crate::core::hook::Hook>,
    /// Their names in the cluster: none is made twice.
    pub(super) made: BTreeSet<(String, String)>,
    /// Jobs of hooks that were made, in order.
    pub(super) started: Vec<String>,
    pub(super) wake: Option<Timestamp>,
    pub(super) gone: bool,
    /// Objects of a revision (`web=b`) that break.
    pub(super) ill: BTreeSet<String>,
    /// Objects of a revision of which no pod is ready.
    pub(super) unready: BTreeSet<String>,
    /// What a rollout is about.
    pub(super) concerns: BTreeSet<String>,
    /// The sizes of workloads that Git leaves to others, when a rollout begins.
    pub(super) sizes: Vec<WorkloadSize>,
    /// The share of traffic that the candidate gets, and since when.
    pub(super) weight: u32,
    pub(super) weight_since: Timestamp,
    /// The shares that it ever got.
    pub(super) weights: Vec<u32>,
    /// How often somebody has the route name the candidate just before it is removed.
    pub(super) named_again: u32,
    /// Objects that a finalizer holds.
    pub(super) stuck: BTreeSet<String>,
    /// The variant to which requests would find nobody.
    pub(super) unserved: Option<(served::Side, Problem)>,
}

/// The candidate of the small world.
pub(super) const CANDIDATE: &str = "web-canary";

impl World {
    pub(super) fn new() -> Self {
        World {
            spec: Spec {
                timeout: SignedDuration::from_secs(300),
                retry_interval: SignedDuration::from_secs(60),
                prune: true,
                rollback: RollbackMode::Hold,
                bake: SignedDuration::ZERO,
                first_revision: FirstRevision::Keep,
                suspend: false,
                deletion: DeletionPolicy::Prune,
                drift: DriftMode::Correct,
                rollout: None,
            },
            state: State::default(),
            seen: Observation { in_contact_since: Some(Timestamp::MIN), ..Observation::default() },
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            cluster: BTreeMap::new(),
            bundles: BTreeMap::new(),
            broken: BTreeSet::new(),
            slow: BTreeSet::new(),
            refused: BTreeMap::new(),
            fails_applying: BTreeSet::new(),
            notices: Vec::new(),
            revert: Ok(("main".into(), "f".repeat(40))),
            reverts: Vec::new(),
            applied: Vec::new(),
            hooks: Vec::new(),
            made: BTreeSet::new(),
            started: Vec::new(),
            wake: None,
            gone: false,
            ill: BTreeSet::new(),
            unready: BTreeSet::new(),
            concerns: ["Deployment shop/web".to_owned()].into(),
            sizes: Vec::new(),
            weight: 0,
            weight_since: Timestamp::UNIX_EPOCH,
            weights: Vec::new(),
            named_again: 0,
            stuck: BTreeSet::new(),
            unserved: None,
        }
    }

    /// The objects of a staging, with the revision of each.
    pub(super) fn objects(&self, revision: &Revision, staging: &Staging) -> BTreeMap<String, String> {
        let all = |of: &Revision| -> BTreeMap<String, String> {
            self.bundles[&of.inputs].iter().map(|o| (o.clone(), of.inputs.clone())).collect()
        };
        let Staging::Staged(staged) = staging else { return all(revision) };
        let mut objects = match (&staged.over, staged.layout.base) {
            (Some(over), _) => all(over),
            (None, crate::api::rollout::Base::Stable) => all(&staged.stable),
            (None, crate::api::rollout::Base::Target) => all(&staged.candidate),
        };
        if staged.layout.size.is_some() {
            objects.insert(CANDIDATE.into(), staged.candidate.inputs.clone());
        }
        objects
    }

    pub(super) fn push(&mut self, name: &str, objects: &[&str]) {
        self.bundles.insert(name.into(), objects.iter().map(|o| (*o).to_owned()).collect());
        self.seen.target = Target::Known(revision(name));
    }

    /// One round: observe, decide, act.
    pub(super) fn round(&mut self) -> bool {
        self.seen.health = self.health(None);
        self.seen.ill = self.all_ill().into_iter().map(|(_, problem)| problem).collect();
        let stage = self.state.attempt.as_ref().and_then(|a| a.rollout.as_ref()).map(|r| r.stage);
        let next_to = stage.and_then(served::next_to);
        let nobody = self.unserved.as_ref().filter(|(side, _)| Some(*side) == next_to);
        let variants = Variants {
            named: self.health(Some(false)),
            candidate: self.health(Some(true)),
            unready: self.unready(),
        };
        self.seen.variants = served::with_side(variants, nobody);
        let decision = next(&self.spec, &self.state, &self.seen, self.now);
        self.state = decision.state;
        self.forget_what_was_shown();
        self.wake = None;
        let mut acted = false;
        if std::env::var("TELL").is_ok() {
            eprintln!(
                "{} {:?} {:?}",
                self.now,
                self.state.attempt.as_ref().map(|a| (
                    &a.revision.inputs,
                    a.goal,
                    a.step,
                    a.rollout.as_ref().map(|r| (r.stage, r.at, r.layout.weight))
                )),
                decision.actions.iter().map(|a| a.name()).collect::<Vec<_>>()
            );
        }
        for action in decision.actions {
            acted |= self.act(action);
        }
        acted
    }

    pub(super) fn forget_what_was_shown(&mut self) {
        if self.seen.prepared.as_ref().is_some_and(|p| p.outcome.is_err()) {
            self.seen.prepared = None;
        }
        match self.seen.applied.as_ref().map(|a| &a.end) {
            Some(ApplyEnd::Failed(_)) => {
                self.seen.applied = None;
                self.seen.prepared = None;
            }
            Some(ApplyEnd::Blocked(_)) => self.seen.applied = None,
            _ => {}
        }
        self.seen.pruned = None;
        self.seen.corrected = None;
        self.seen.reverted = None;
        self.seen.hooks.removed.clear();
    }

    /// Rounds until nothing is to be done but wait.
    pub(super) fn settle(&mut self) {
        for _ in 0..50 {
            if !self.round() {
                return;
            }
        }
        panic!("the machine does not come to rest: {:?}", self.state);
    }

    /// Lets time pass, as far as the machine asked to be woken, for so long.
    pub(super) fn pass(&mut self, secs: i64) {
        let until = self.now + SignedDuration::from_secs(secs);
        for _ in 0..1000 {
            match self.wake.filter(|at| *at <= until) {
                Some(at) => {
                    self.now = at.max(self.now + SignedDuration::from_millis(1));
                    self.settle();
                }
                None => break,
            }
        }
        self.now = until;
        self.settle();
    }

    /// The process dies: all that was only remembered is lost.
    pub(super) fn crash(&mut self) {
        self.seen.prepared = None;
        self.seen.hooks.planned.clear();
        self.seen.applied = None;
        self.seen.pruned = None;
        self.seen.corrected = None;
    }

    pub(super) fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Wake(at) => {
                self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
                return false;
            }
            Action::Notify(notice) => {
                self.notices.push(notice);
                return false;
            }
            Action::Keep(_) | Action::Evict(_) | Action::RemoveLate(_) => return false,
            Action::Revert(held) => {
                self.reverts.push(held.revision.inputs.clone());
                self.seen.reverted =
                    Some(Reverted { commit: held.revision.commit, outcome: self.revert.clone() });
            }
            Action::RunHook(run) => {
                let run = *run;
                let job = (run.namespace, run.job);
                if self.seen.hooks.jobs.contains_key(&job) {
                    return false;
                }
                assert!(self.made.insert(job.clone()), "a hook ran twice");
                self.started.push(format!("{} {} {}", run.point, run.name, run.revision.inputs));
                self.seen.hooks.jobs.insert(job, JobSeen::Running("u".into()));
            }
            Action::RemoveHooks(runs) => {
                for job in runs.into_iter().map(|run| (run.namespace, run.job)) {
                    self.seen.hooks.jobs.remove(&job);
                    self.seen.hooks.removed.push(job);
                }
            }
            Action::RemoveFinalizer => {
                self.gone = true;
                return false;
            }
            Action::OrphanAll => return false,
            Action::Correct(_) => {
                (self.seen.drifted, self.seen.correctable) = (0, 0);
                self.seen.corrected = Some(self.state.inventory.clone());
            }
            Action::Prepare(revision, goal, staging) => {
                let begin = staging.is_none().then(|| match &self.spec.rollout {
                    Some(_) if goal == Goal::Deploy && self.state.effective.is_some() => Begin::Rollout {
                        why: "its image changed".into(),
                        known: Foreknown {
                            concerns: self.concerns.clone(),
                            sizes: self.sizes.clone(),
                            ..Foreknown::default()
                        },
                    },
                    _ => Begin::Direct(String::new()),
                });
                let staging = match (staging, &self.spec.rollout, &self.state.effective) {
                    (Some(staging), _, _) => staging,
                    (None, Some(steps), Some(effective)) if goal == Goal::Deploy => {
                        Staging::Staged(Box::new(Staged {
                            stable: effective.clone(),
                            candidate: revision.clone(),
                            over: None,
                            layout: steps.all[0].layout.clone(),
                            sizes: self.sizes.clone(),
                            making: steps.making.clone(),
                            others_route: false,
                        }))
                    }
                    _ => Staging::Whole,
                };
                let outcome = match self.refused.get(&revision.inputs) {
                    Some(transient) => Err(Refusal { problem: problem("Refused"), transient: *transient }),
                    None => Ok(self.inventory_for(&revision, &staging)),
                };
                self.seen.applied = None;
                self.seen.hooks.planned = self.hooks.clone();
                self.seen.prepared = Some(Prepared { revision, staging, begin, outcome, at: self.now });
            }
            Action::Apply(revision, _, staging) => {
                // What is written is recorded before.
                let recorded: BTreeSet<_> = self.state.inventory.iter().map(|e| e.name.clone()).collect();
                let objects = self.objects(&revision, &staging);
                assert!(objects.keys().all(|o| recorded.contains(o)), "applied before it was recorded");
                if let Some(held) = &self.state.held {
                    assert_ne!(held.revision.inputs, revision.inputs, "a held revision was applied");
                }
                self.applied.push(revision.inputs.clone());
                let mut inventory = self.state.inventory.clone();
                for entry in inventory.iter_mut() {
                    let Some(of) = objects.get(&entry.name) else { continue };
                    entry.uid = Some("u".into());
                    let before = self.cluster.insert(entry.name.clone(), of.clone());
                    if entry.name == CANDIDATE && before.is_some_and(|b| b != *of) {
                        assert_eq!(self.weight, 0, "a candidate was replaced under traffic");
                    }
                }
                let weight = match &staging {
                    Staging::Whole => 0,
                    Staging::Staged(staged) => staged.layout.weight,
                };
                if weight != self.weight {
                    (self.weight, self.weight_since) = (weight, self.now);
                    self.weights.push(weight);
                }
                let end = if self.fails_applying.contains(&revision.inputs) {
                    ApplyEnd::Failed(Refusal { problem: problem("Denied"), transient: false })
                } else {
                    ApplyEnd::Done
                };
                if let Some(prepared) = &mut self.seen.prepared {
                    prepared.outcome = Ok(inventory.clone());
                }
                self.seen.applied = Some(Applied { revision, staging, inventory, end, at: self.now });
            }
            Action::Prune if self.named_again > 0 => {
                self.named_again -= 1;
                let refusal = Refusal { problem: problem(NAMES_CANDIDATE), transient: true };
                self.seen.pruned =
                    Some(Pruned { inventory: self.state.inventory.clone(), refusal: Some(refusal) });
            }
            Action::Prune => {
                let good = self.state.effective.as_ref().map(|e| &self.bundles[&e.inputs]);
                let goes = |e: &InventoryEntry| {
                    let was_good = e.kept || good.is_some_and(|bundle| bundle.contains(&e.name));
                    e.stale && (self.spec.prune || !was_good)
                };
                let (stuck, free): (Vec<_>, Vec<_>) = self
                    .state
                    .inventory
                    .iter()
                    .cloned()
                    .partition(|e| goes(e) && self.stuck.contains(&e.name));
                let (stale, mut left): (Vec<_>, Vec<_>) = free.into_iter().partition(goes);
                let refusal = (!stuck.is_empty())
                    .then(|| Refusal { problem: problem("BeingDeleted"), transient: true });
                left.extend(stuck);
                for entry in stale {
                    let settled = self.weight_since + SignedDuration::from_secs(5) <= self.now;
                    if entry.name == CANDIDATE {
                        assert!(
                            self.weight == 0 && settled,
                            "a candidate was removed that traffic may reach"
                        );
                    }
                    self.cluster.remove(&entry.name);
                }
                self.seen.pruned = Some(Pruned { inventory: left, refusal });
            }
            Action::PruneAll => {
                for entry in &self.state.inventory {
                    self.cluster.remove(&entry.name);
                }
                self.seen.pruned = Some(Pruned { inventory: Vec::new(), refusal: None });
            }
        }
        true
    }

    pub(super) fn inventory_for(&self, revision: &Revision, staging: &Staging) -> Vec<InventoryEntry> {
        let objects = self.objects(revision, staging);
        let mut all: BTreeMap<String, InventoryEntry> =
            self.state.inventory.iter().map(|e| (e.name.clone(), e.clone())).collect();
        for object in objects.keys() {
            let candidate = object == CANDIDATE;
            all.entry(object.clone()).or_insert_with(|| InventoryEntry { candidate, ..entry(object) });
        }
        all.into_values().map(|e| InventoryEntry { stale: !objects.contains_key(&e.name), ..e }).collect()
    }

    /// The health of all objects, or of one variant's.
    pub(super) fn health(&self, candidate: Option<bool>) -> Health {
        let of = |e: &&InventoryEntry| !e.stale && candidate.is_none_or(|c| e.candidate == c);
        let counts: BTreeSet<&String> = self.state.inventory.iter().filter(of).map(|e| &e.name).collect();
        let excused = match (&self.state.attempt, &self.state.bake) {
            (Some(attempt), _) => attempt.rollout.as_ref().map_or(&attempt.excused[..], |r| &r.excused),
            (None, Some(bake)) => &bake.excused,
            (None, None) => &[],
        };
        let ill = self
            .all_ill()
            .into_iter()
            .find(|(name, p)| counts.contains(name) && !excused.contains(&p.object));
        if let Some((_, problem)) = ill {
            return Health::Broken(problem);
        }
        let running = |set: &BTreeSet<String>| {
            let is = |name: &str, of: &String| set.contains(of) || set.contains(&format!("{name}={of}"));
            self.cluster.iter().any(|(name, of)| counts.contains(name) && is(name, of))
        };
        let gone = |e: &InventoryEntry| {
            !e.stale && counts.contains(&e.name) && e.uid.is_some() && !self.cluster.contains_key(&e.name)
        };
        if running(&self.broken) {
            Health::Broken(problem("CrashLoopBackOff"))
        } else if let Some(gone) = self.state.inventory.iter().find(|e| gone(e)) {
            let object = format!("Deployment shop/{}", gone.name);
            Health::Degraded(Problem { object, ..problem(MISSING) })
        } else if self.cluster.keys().any(|name| counts.contains(name) && self.is_unready(name)) {
            Health::Degraded(problem("Degraded"))
        } else if running(&self.slow) {
            Health::Progressing(problem("Progressing"))
        } else {
            Health::Healthy
        }
    }

    fn is_unready(&self, name: &str) -> bool {
        self.cluster.get(name).is_some_and(|of| self.unready.contains(&format!("{name}={of}")))
    }

    /// A candidate without a pod that is ready, beside a stable one that has some.
    fn unready(&self) -> Option<Problem> {
        let object = format!("Deployment shop/{CANDIDATE}");
        (self.is_unready(CANDIDATE) && !self.is_unready("web"))
            .then(|| Problem { object, ..problem(UNREADY) })
    }

    /// Objects that are broken, each with why.
    fn all_ill(&self) -> Vec<(String, Problem)> {
        let ill = |(name, of): (&String, &String)| {
            let object = format!("Deployment shop/{name}");
            let counts = self.state.inventory.iter().any(|e| !e.stale && e.name == *name);
            (counts && self.ill.contains(&format!("{name}={of}")))
                .then(|| (name.clone(), Problem { object, ..problem("CrashLoopBackOff") }))
        };
        self.cluster.iter().filter_map(ill).collect()
    }

    /// Status, reason and message of a condition.
    pub(super) fn condition(&self, kind: &str) -> (String, String, String) {
        let before = crate::api::DeliveryStatus::default();
        let status = status::status(&self.spec, &self.state, &self.seen, &before, Some(1), self.now);
        let found = crate::api::condition::get(&status.conditions, kind).unwrap().clone();
        (found.status, found.reason, found.message)
    }

    pub(super) fn phase(&self) -> Phase {
        status::phase(&self.spec, &self.state, &self.seen)
    }

    /// What runs, as `object=revision`.
    pub(super) fn runs(&self) -> Vec<String> {
        self.cluster.iter().map(|(o, r)| format!("{o}={r}")).collect()
    }

    pub(super) fn deployed(objects: &[&str]) -> Self {
        let mut world = World::new();
        world.push("a", objects);
        world.settle();
        assert_eq!(world.phase(), Phase::Ready);
        world
    }
}

#[test]
fn a_commit_is_deployed_and_what_left_git_is_removed() {
    let mut world = World::deployed(&["web", "old"]);
    assert_eq!(world.runs(), ["old=a", "web=a"]);
    world.push("b", &["web", "new"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.runs(), ["new=b", "web=b"]);
    assert_eq!(world.state.effective.as_ref().unwrap().inputs, "b");
    assert!(world.state.inventory.iter().all(|e| !e.stale));
}

#[test]
fn nothing_is_done_when_nothing_changed() {
    let mut world = World::deployed(&["web"]);
    let before = world.state.clone();
    // The branch moved, the inputs did not.
    let mut same = revision("a");
    same.commit = "f".repeat(40);
    world.seen.target = Target::Known(same);
    world.settle();
    assert_eq!(world.state, before);
    assert_eq!(world.applied, ["a"]);
}

#[test]
fn a_broken_commit_is_rolled_back_whole_and_held() {
    let mut world = World::deployed(&["web", "old"]);
    world.broken.insert("b".into());
    world.push("b", &["web", "new"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.runs(), ["old=a", "web=a"]);
    let held = world.state.held.as_ref().unwrap();
    assert_eq!((held.revision.inputs.as_str(), held.problem.reason.as_str()), ("b", "CrashLoopBackOff"));
    assert_eq!(
        world.state.history.iter().map(|h| h.outcome).collect::<Vec<_>>(),
        [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed]
    );
    // And it stays so, however long one waits.
    world.pass(100_000);
    assert_eq!(world.applied, ["a", "b", "a"]);
}

#[test]
fn a_revision_that_is_not_healthy_in_time_is_rolled_back() {
    let mut world = World::deployed(&["web"]);
    world.slow.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    world.pass(299);
    assert_eq!(world.phase(), Phase::Waiting);
    world.pass(2);
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.state.held.as_ref().unwrap().problem.reason, "Timeout");
}

#[test]
fn a_revision_whose_time_ran_out_while_nobody_looked_is_looked_at_first() {
    let mut world = World::deployed(&["web"]);
    world.slow.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    assert_eq!(world.phase(), Phase::Waiting);
    world.crash();
    world.slow.clear();
    world.now += SignedDuration::from_secs(3600);
    // Nothing is seen yet in the first round after the restart.
    world.seen.health = Health::Unknown;
    let decision = next(&world.spec, &world.state, &world.seen, world.now);
    world.state = decision.state;
    assert_eq!(world.phase(), Phase::Waiting);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=b".to_owned()]));
}

#[test]
fn without_pruning_what_only_a_bad_commit_brought_is_taken_away_all_the_same() {
    let mut world = World::deployed(&["web"]);
    world.spec.prune = false;
    world.broken.insert("b".into());
    world.push("b", &["web", "new"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=a".to_owned()]));
    world.push("c", &["other"]);
    world.settle();
    assert_eq!(world.runs(), ["other=c", "web=a"]);
    // Nor does what was overtaken leave anything.
    world.slow.insert("d".into());
    world.push("d", &["other", "new"]);
    world.settle();
    world.push("e", &["other"]);
    world.settle();
    assert_eq!(world.runs(), ["other=e", "web=a"]);
}

#[test]
fn a_newer_commit_gets_through_a_wait_a_hold_and_a_rollback() {
    let mut world = World::deployed(&["web"]);
    world.slow.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    world.push("c", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=c".to_owned()]));
    assert_eq!(world.state.history[1].outcome, Outcome::Superseded);

    world.broken.insert("d".into());
    world.push("d", &["web"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Held);
    world.push("e", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=e".to_owned()]));

    // The last good revision has become bad too: its rollback does not end well.
    world.slow.insert("e".into());
    world.broken.insert("f".into());
    world.push("f", &["web"]);
    world.settle();
    assert_eq!(world.phase(), Phase::RollingBack);
    world.push("g", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=g".to_owned()]));
}

#[test]
fn a_rollback_that_fails_says_so_and_is_tried_again_more_and_more_seldom() {
    let mut world = World::deployed(&["web"]);
    world.slow.insert("a".into());
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    world.pass(301);
    assert_eq!(world.phase(), Phase::RollbackFailed);
    assert!(world.notices.iter().any(|n| n.warning && n.reason == "RollbackFailed"));
    let before = world.applied.len();
    world.pass(2 * 3600);
    let tries = world.applied.len() - before;
    assert!((5..=20).contains(&tries), "{tries} tries in two hours");
    world.slow.clear();
    world.pass(1200);
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.runs(), ["web=a"]);
}

#[test]
fn a_first_revision_that_fails_stays_and_counts_when_it_becomes_healthy() {
    let mut world = World::new();
    world.broken.insert("a".into());
    world.push("a", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Failed, vec!["web=a".to_owned()]));
    assert!(world.state.held.is_none());
    world.broken.clear();
    world.settle();
    assert_eq!(world.phase(), Phase::Ready);
}

#[test]
fn with_rollback_off_the_failed_revision_stays() {
    let mut world = World::deployed(&["web"]);
    world.spec.rollback = RollbackMode::Off;
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Failed, vec!["web=b".to_owned()]));
    world.push("c", &["web"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Ready);
}

#[test]
fn what_a_dry_run_refuses_touches_nothing_and_is_told_once() {
    let mut world = World::deployed(&["web"]);
    world.refused.insert("b".into(), false);
    world.push("b", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Failed, vec!["web=a".to_owned()]));
    assert!(world.state.held.is_none() && world.state.attempt.is_none());
    world.pass(3600);
    assert_eq!(world.notices.iter().filter(|n| n.reason == "Refused").count(), 1);
    assert_eq!(world.applied, ["a"]);
    world.push("c", &["web"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Ready);
}

#[test]
fn a_refusal_that_may_pass_is_tried_again() {
    let mut world = World::deployed(&["web"]);
    world.refused.insert("b".into(), true);
    world.push("b", &["web"]);
    world.settle();
    world.pass(20);
    world.refused.clear();
    world.pass(120);
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=b".to_owned()]));
}

#[test]
fn a_failure_while_applying_rolls_back() {
    let mut world = World::deployed(&["web"]);
    world.fails_applying.insert("b".into());
    world.push("b", &["web", "new"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=a".to_owned()]));
}

#[test]
fn git_going_back_to_the_good_revision_clears_the_hold() {
    let mut world = World::deployed(&["web"]);
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    world.seen.target = Target::Known(revision("a"));
    world.settle();
    assert_eq!(world.phase(), Phase::Ready);
    assert!(world.state.held.is_none());
}

#[test]
fn a_release_tries_the_held_revision_once_more() {
    let mut world = World::deployed(&["web"]);
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    world.broken.clear();
    world.seen.release = Some("b/1".into());
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=b".to_owned()]));
    // One that names another commit releases nothing, and the same request is not acted on again.
    world.broken.insert("c".into());
    world.push("c", &["web"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Held);
    world.broken.clear();
    world.seen.release = Some("b/2".into());
    world.settle();
    assert_eq!(world.phase(), Phase::Held);
    assert!(world.notices.iter().any(|n| n.reason == "ReleaseRefused"));
}

#[test]
fn new_settings_render_the_effective_revision_and_do_not_retry_the_held_one() {
    let mut world = World::deployed(&["web"]);
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    let rotated = Revision { settings: "s2".into(), ..revision("b") };
    world.seen.target = Target::Known(rotated);
    world.settle();
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.state.effective.as_ref().unwrap().settings, "s2");
    assert_eq!(world.applied, ["a", "b", "a", "a"]);
}

#[test]
fn settings_that_broke_the_same_commit_are_held_and_others_are_tried() {
    let with = |settings: &str| Revision { settings: settings.into(), ..revision("a") };
    let mut world = World::deployed(&["web"]);
    world.state.held = Some(Held {
        revision: with("s2"),
        problem: problem("CrashLoopBackOff"),
        since: stamp(world.now),
        revert: None,
    });
    world.seen.target = Target::Known(with("s2"));
    world.settle();
    assert_eq!((world.phase(), world.applied.len()), (Phase::Held, 1));
    world.seen.target = Target::Known(with("s3"));
    world.settle();
    assert_eq!((world.phase(), world.applied.len()), (Phase::Ready, 2));
    assert!(world.state.held.is_none());
}

#[test]
fn a_person_can_go_back_and_the_newest_is_held_then() {
    let mut world = World::deployed(&["web"]);
    world.push("b", &["web"]);
    world.settle();
    world.seen.rollback = Some(format!("{}/1", revision("a").commit));
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=a".to_owned()]));
    assert_eq!(world.state.held.as_ref().unwrap().problem.reason, "RolledBackByHand");
}

#[test]
fn a_person_cannot_go_back_while_no_object_is_known() {
    let mut world = World::deployed(&["web"]);
    world.push("b", &["web"]);
    world.settle();
    world.state.inventory.clear();
    world.seen.rollback = Some(format!("{}/1", revision("a").commit));
    let decision = next(&world.spec, &world.state, &world.seen, world.now);
    assert!(decision.actions.iter().any(|a| matches!(a, Action::Notify(n) if n.reason == "RollbackRefused")));
    let rolls_back = |a: &Action| matches!(a, Action::Prepare(_, Goal::Rollback, _) | Action::Apply(..));
    assert!(!decision.actions.iter().any(rolls_back), "{:?}", decision.actions);
    assert_eq!(decision.state.effective, Some(revision("b")));
    assert!(decision.state.held.is_none() && decision.state.attempt.is_none());
    assert_eq!(decision.state.handled_rollback, world.seen.rollback);
}

#[test]
fn drift_is_written_back_as_the_effective_revision_also_while_one_is_held() {
    let mut world = World::deployed(&["web"]);
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    (world.seen.drifted, world.seen.correctable) = (1, 1);
    let decision = next(&world.spec, &world.state, &world.seen, world.now);
    assert_eq!(decision.actions, [Action::Correct(revision("a"))]);
    // Where drift is only reported there is nothing to correct.
    (world.spec.drift, world.seen.correctable) = (DriftMode::Report, 0);
    assert!(next(&world.spec, &world.state, &world.seen, world.now).actions.is_empty());
}

#[test]
fn a_suspended_delivery_does_nothing_and_a_deleted_one_removes_its_objects() {
    let mut world = World::deployed(&["web"]);
    world.spec.suspend = true;
    world.push("b", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Suspended, vec!["web=a".to_owned()]));
    world.seen.deleting = true;
    world.settle();
    assert!(world.gone && world.cluster.is_empty());
}

#[test]
fn orphaned_objects_stay() {
    let mut world = World::deployed(&["web"]);
    world.spec.deletion = DeletionPolicy::Orphan;
    world.seen.deleting = true;
    world.settle();
    assert!(world.gone);
    assert_eq!(world.runs(), ["web=a"]);
}

#[test]
fn asking_to_look_again_ends_a_rest() {
    let mut world = World::deployed(&["web"]);
    world.refused.insert("b".into(), false);
    world.push("b", &["web"]);
    world.settle();
    world.refused.clear();
    world.seen.reconcile = Some("now".into());
    world.settle();
    assert_eq!(world.phase(), Phase::Ready);
}

#[test]
fn what_was_refused_while_applying_is_tried_again_and_does_not_count_as_deployed_before() {
    let mut world = World::deployed(&["web"]);
    world.spec.rollback = RollbackMode::Off;
    world.fails_applying.insert("b".into());
    world.push("b", &["web", "more"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Failed, "healthy is only what was there before");
    let told = world.notices.len();
    world.pass(600);
    assert_eq!((world.phase(), world.notices.len()), (Phase::Failed, told), "told once");
    world.fails_applying.clear();
    world.pass(1200);
    assert_eq!(world.phase(), Phase::Ready);
}

#[test]
fn a_person_who_asks_has_a_failed_first_revision_tried_again() {
    let mut world = World::new();
    world.slow.insert("a".into());
    world.push("a", &["web"]);
    world.settle();
    world.pass(400);
    assert_eq!(world.phase(), Phase::Failed);
    world.seen.reconcile = Some("now".into());
    world.settle();
    world.pass(10);
    assert_eq!(world.phase(), Phase::Waiting);
}

#[test]
fn settings_that_broke_the_effective_revision_are_not_tried_over_and_over() {
    let mut world = World::deployed(&["web"]);
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Held);
    world.seen.target = Target::Known(Revision { settings: "new".into(), ..revision("b") });
    world.broken.insert("a".into());
    world.settle();
    world.broken.remove("a");
    world.pass(3600);
    assert_eq!(world.phase(), Phase::Held);
    let failed = world.state.history.iter().filter(|h| h.outcome == Outcome::RolledBack).count();
    assert_eq!(failed, 2, "{:?}", world.state.history);
}

/// What may happen between two rounds.
#[derive(Clone, Debug)]
enum Happening {
    Push {
        broken: bool,
        slow: bool,
        refused: bool,
        fails: bool,
        objects: u8,
    },
    Crash,
    Pass(i64),
    Rounds(u8),
    Heal,
    Release,
    /// What is watched on loses its health, beyond doubt or not.
    Sicken {
        broken: bool,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), 1u8..8).prop_map(
            |(broken, slow, refused, fails, objects)| Happening::Push {
                broken: broken && slow, slow: slow && fails, refused: refused && broken, fails: fails && refused, objects
            }
        ),
        3 => Just(Happening::Crash),
        3 => (1i64..1000).prop_map(Happening::Pass),
        5 => (1u8..6).prop_map(Happening::Rounds),
        1 => Just(Happening::Heal),
        1 => Just(Happening::Release),
        3 => any::<bool>().prop_map(|broken| Happening::Sicken { broken }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, with the process dying between any two rounds: once a good commit is there and
    /// all is quiet, exactly its objects run; and before that, once quiet, what runs is one revision as a whole.
    #[test]
    fn whatever_happens_it_ends_as_one_whole_revision(
        happenings in prop::collection::vec(happening(), 1..40),
        bake in prop_oneof![Just(0i64), 1i64..2000],
    ) {
        let mut world = World::deployed(&["web"]);
        world.spec.bake = SignedDuration::from_secs(bake);
        let names = ["web", "x", "y", "z"];
        let mut count = 0;
        for happening in happenings {
            match happening {
                Happening::Push { broken, slow, refused, fails, objects } => {
                    count += 1;
                    let name = format!("r{count}");
                    let chosen: Vec<&str> =
                        names.iter().enumerate().filter(|(i, _)| *i == 0 || objects & (1 << (i - 1)) != 0).map(|(_, n)| *n).collect();
                    if broken { world.broken.insert(name.clone()); }
                    if slow { world.slow.insert(name.clone()); }
                    if refused { world.refused.insert(name.clone(), false); }
                    if fails { world.fails_applying.insert(name.clone()); }
                    world.push(&name, &chosen);
                    // Whatever is under way, rests or goes back: it is gone about in the very round that sees it.
                    let decision = next(&world.spec, &world.state, &world.seen, world.now);
                    let begun = |a: &Action| matches!(a, Action::Prepare(r, Goal::Deploy, None) if r.inputs == name);
                    prop_assert!(decision.actions.iter().any(begun), "{:?}", decision.actions);
                }
                Happening::Crash => world.crash(),
                Happening::Pass(secs) => world.pass(secs),
                Happening::Rounds(n) => for _ in 0..n { world.round(); },
                Happening::Heal => { world.slow.clear(); world.broken.clear(); }
                // After its time nobody goes back for that, and before there is a later revision it cannot be gone back to.
                Happening::Sicken { broken } => if world.state.bake.is_some() && world.state.attempt.is_none() {
                    let name = world.state.effective.as_ref().unwrap().inputs.clone();
                    if broken { world.broken.insert(name); } else { world.slow.insert(name); }
                },
                Happening::Release => { world.seen.release = Some(format!("r{count}")); }
            }
        }
        world.settle();
        world.pass(3600);
        let runs: BTreeSet<&String> = world.cluster.values().collect();
        prop_assert!(runs.len() == 1, "a mixture runs: {:?}", world.runs());
        let of = runs.into_iter().next().unwrap().clone();
        let objects: BTreeSet<String> = world.cluster.keys().cloned().collect();
        prop_assert_eq!(&objects, &world.bundles[&of]);

        world.push("good", &["web", "good"]);
        world.settle();
        prop_assert_eq!(world.phase(), Phase::Ready);
        prop_assert_eq!(world.runs(), ["good=good", "web=good"]);
        prop_assert!(world.state.attempt.is_none() || world.state.attempt.as_ref().is_some_and(|a| a.step == Step::Failed));
    }
}

#[test]
fn what_git_wants_and_cannot_be_told_is_said_beside_a_revision_that_is_under_way_or_failed() {
    let mut world = World::new();
    world.slow.insert("a".into());
    world.push("a", &["web"]);
    world.settle();
    world.pass(10);
    assert_eq!(world.phase(), Phase::Waiting);
    // A newer commit is there, and the settings that it would be rendered with are not.
    world.seen.target = Target::Failed(problem("SettingsMissing"));
    world.settle();
    let said = "; what is wanted now cannot be told: Deployment shop/web: it is SettingsMissing";
    let message = world.condition("Ready").2;
    assert!(message.ends_with(said) && message.contains("is applied and not healthy yet"), "{message}");
    world.pass(400);
    assert_eq!(world.phase(), Phase::Failed);
    assert!(world.condition("Ready").2.ends_with(said), "{}", world.condition("Ready").2);
    assert_eq!(world.notices.iter().filter(|n| n.reason == "SettingsMissing").count(), 1);
    // They are there again.
    world.push("b", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=b".to_owned()]));
    assert!(world.state.failure.is_none());
}
