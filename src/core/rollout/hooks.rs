//! Hooks: Jobs that run once for each attempt at a revision. Those before and after the apply decide about it, those on a
//! failure and after a rollback are only told of.
//!
//! All hooks of an attempt are recorded with it, so that which of them ran is known whatever happens to the process, and
//! no Job is made that was not recorded before.

use super::next::Machine;
use super::{Action, Refusal, read_stamp};
use crate::api::analysis::JobOfStep;
use crate::api::delivery::{Attempt, Goal, Problem, Revision};
use crate::api::hook::{HookDelete, HookJob, HookPoint, HookRun, HookStep};
use crate::core::hook::{Hook, job_name};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// The reason when a hook failed.
pub const FAILED: &str = "HookFailed";

/// How soon a revision that could not be rendered anew is rendered again.
const SOON: SignedDuration = SignedDuration::from_secs(5);

/// What is seen of hooks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hooks {
    /// The hooks of the revision that is prepared.
    pub planned: Vec<Hook>,
    /// What is seen of Jobs, by namespace and name in the cluster. One that is not in it was not looked at, or its
    /// watch has not shown yet what was made of it.
    pub jobs: BTreeMap<(String, String), JobSeen>,
    /// Jobs that were deleted; shown once.
    pub removed: Vec<(String, String)>,
    /// Why others could not be deleted; shown once.
    pub stuck: Option<Refusal>,
}

/// What is seen of a hook's Job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobSeen {
    /// It runs.
    Running(String),
    /// It is complete.
    Succeeded(String),
    /// It failed, and why, with the end of its log.
    Failed(String, Problem),
    /// It is not there.
    Absent,
    /// It could not be made, and will not be.
    Refused(Problem),
}

/// Whether what a hook stands before may happen.
pub(super) enum Gate {
    /// It may.
    Open,
    /// The hook runs.
    Closed,
    /// The hook failed.
    Failed(Problem),
}

fn key(run: &HookRun) -> (String, String) {
    (run.namespace.clone(), run.job.clone())
}

fn same_hook(a: &HookRun, b: &HookRun) -> bool {
    (a.point, &a.namespace, &a.name) == (b.point, &b.namespace, &b.name)
}

/// The points whose hooks decide about a revision.
const DECIDES: [HookPoint; 4] =
    [HookPoint::BeforeApply, HookPoint::BeforeTraffic, HookPoint::RolloutStep, HookPoint::AfterApply];

/// Whether a hook is one of an attempt.
fn is_of(run: &HookRun, attempt: &Attempt) -> bool {
    run.since == attempt.started_at
        && run.revision == attempt.revision
        && points(attempt.goal).contains(&run.point)
}

/// The points of an attempt's hooks. A rollback brings back what has run its hooks already, and so does a refresh.
fn points(goal: Goal) -> &'static [HookPoint] {
    match goal {
        Goal::Deploy => &[
            HookPoint::BeforeApply,
            HookPoint::BeforeTraffic,
            HookPoint::RolloutStep,
            HookPoint::AfterApply,
            HookPoint::OnFailure,
        ],
        Goal::Rollback => &[HookPoint::OnRollback],
        Goal::Refresh => &[],
    }
}

impl Machine<'_> {
    /// Notes what became of the Jobs that run, and of those that were to go.
    pub(super) fn note_hooks(&mut self) {
        let mut told = Vec::new();
        for run in &mut self.state.hooks {
            if run.state == HookJob::Removing && self.seen.hooks.removed.contains(&key(run)) {
                run.state = HookJob::Gone;
            }
            if run.step != HookStep::Running || run.state != HookJob::Kept {
                continue;
            }
            let failed = |problem: &Problem| (HookStep::Failed, Some(problem.clone()));
            let (uid, (step, problem)) = match self.seen.hooks.jobs.get(&key(run)) {
                None => continue,
                Some(JobSeen::Running(uid)) => (Some(uid), (HookStep::Running, None)),
                Some(JobSeen::Succeeded(uid)) => (Some(uid), (HookStep::Succeeded, None)),
                Some(JobSeen::Failed(uid, problem)) => (Some(uid), failed(problem)),
                Some(JobSeen::Refused(problem)) => (None, failed(problem)),
                // Not made yet, as far as is recorded.
                Some(JobSeen::Absent) if run.uid.is_none() => continue,
                Some(JobSeen::Absent) => {
                    let message = "was deleted before it was done".into();
                    (None, failed(&Problem { reason: FAILED.into(), object: run.object(), message }))
                }
            };
            run.uid = uid.cloned().or(run.uid.take());
            run.step = step;
            run.problem = problem;
            match run.step {
                HookStep::Succeeded => told.push(run.clone()),
                // The failure of another is told as that of its revision.
                HookStep::Failed if matches!(run.point, HookPoint::OnFailure | HookPoint::OnRollback) => {
                    told.push(run.clone());
                }
                _ => {}
            }
        }
        for run in told {
            let (reason, message) = match &run.problem {
                None => ("HookSucceeded", format!("{} of {} succeeded", run.point, run.revision)),
                Some(problem) => (FAILED, format!("{} of {}: {}", run.point, run.revision, problem.message)),
            };
            self.notify(run.problem.is_some(), reason, &run.object(), message);
        }
    }

    /// What is left to do about hooks whatever the attempt comes to: making sure that those run which should, and
    /// deleting the Jobs that are not needed any more. Called at the end of a step.
    pub(super) fn settle_hooks(&mut self) {
        let current = self.state.attempt.clone();
        let is_current = |run: &HookRun| current.as_ref().is_some_and(|attempt| is_of(run, attempt));
        for run in &mut self.state.hooks {
            let due = match run.step {
                HookStep::Succeeded => run.delete.contains(&HookDelete::HookSucceeded),
                HookStep::Failed => run.delete.contains(&HookDelete::HookFailed),
                HookStep::Planned | HookStep::Running => false,
            };
            if due && run.state == HookJob::Kept {
                run.state = HookJob::Removing;
            }
        }
        // What runs and is watched on may fail yet.
        let watched = self.state.effective.as_ref().filter(|_| self.state.bake.is_some());
        let may_fail = |run: &HookRun| run.point == HookPoint::OnFailure && watched == Some(&run.revision);
        // While its attempt goes on, what ran is remembered, so that it does not run again.
        self.state.hooks.retain(|run| {
            let over = run.step == HookStep::Planned || run.state == HookJob::Gone;
            is_current(run) || may_fail(run) || !over
        });
        // One that a newer revision overtook before it was made is not made any more.
        for run in &mut self.state.hooks {
            let decides = DECIDES.contains(&run.point);
            let overtaken = decides && !is_current(run);
            if overtaken && run.step == HookStep::Running && run.uid.is_none() && run.state == HookJob::Kept {
                run.state = HookJob::Removing;
            }
        }
        let starts =
            self.state.hooks.iter().filter(|run| {
                run.step == HookStep::Running && run.state == HookJob::Kept && run.uid.is_none()
            });
        let starts: Vec<Action> = starts.map(|run| Action::RunHook(Box::new(run.clone()))).collect();
        self.remove_hooks();
        self.actions.extend(starts);
    }

    fn remove_hooks(&mut self) {
        let going: Vec<HookRun> =
            self.state.hooks.iter().filter(|run| run.state == HookJob::Removing).cloned().collect();
        if !going.is_empty() {
            self.actions.push(Action::RemoveHooks(going));
        }
    }

    /// Records the hooks of an attempt that is prepared.
    pub(super) fn plan_hooks(&mut self, attempt: &Attempt) {
        for hook in &self.seen.hooks.planned {
            // Those of a step are planned when it is reached.
            let planned = |p: &HookPoint| *p != HookPoint::RolloutStep && hook.points.contains(p);
            for point in points(attempt.goal).iter().copied().filter(planned) {
                let run = planned_run(hook, point, attempt, None);
                if !self.state.hooks.iter().any(|known| known.job == run.job && same_hook(known, &run)) {
                    self.state.hooks.push(run);
                }
            }
        }
    }

    /// Whether the Jobs of the step that is in effect since then have completed; starts those whose turn it is.
    pub(super) fn gate_of_step(
        &mut self,
        attempt: &Attempt,
        at: u32,
        effective: Timestamp,
        jobs: &[JobOfStep],
    ) -> Gate {
        let of = |run: &HookRun, job: &JobOfStep| {
            is_of(run, attempt)
                && run.point == HookPoint::RolloutStep
                && run.at == Some(at)
                && run.name == job.name
        };
        for job in jobs {
            if self.state.hooks.iter().any(|run| of(run, job)) {
                continue;
            }
            let named = |hook: &&Hook| {
                hook.manifest.name() == job.name && hook.points.contains(&HookPoint::RolloutStep)
            };
            if let Some(hook) = self.seen.hooks.planned.iter().find(named) {
                self.state.hooks.push(planned_run(hook, HookPoint::RolloutStep, attempt, Some(at)));
                continue;
            }
            let prepared = self.seen.prepared.as_ref().filter(|p| p.revision == attempt.revision);
            match prepared.map(|p| &p.outcome) {
                Some(Ok(_)) => return Gate::Failed(no_such_job(&job.name)),
                Some(Err(refusal)) if !refusal.transient => return Gate::Failed(refusal.problem.clone()),
                Some(Err(_)) => {
                    self.actions.push(Action::Wake(self.now + self.spec.retry_interval.min(SOON)))
                }
                // A daemon that was just started has not rendered the revision yet.
                None => self.prepare_attempt(),
            }
            return Gate::Closed;
        }
        let mine: Vec<(&HookRun, &JobOfStep)> = jobs
            .iter()
            .filter_map(|job| Some((self.state.hooks.iter().find(|run| of(run, job))?, job)))
            .collect();
        if let Some(problem) = mine.iter().find_map(|(run, _)| run.problem.as_ref()) {
            return Gate::Failed(problem.clone());
        }
        let open: Vec<_> = mine.iter().filter(|(run, _)| run.step != HookStep::Succeeded).collect();
        let Some(wave) = open.iter().map(|(run, _)| run.wave).min() else { return Gate::Open };
        let limit = |job: &JobOfStep| job.timeout.map_or(self.spec.timeout, crate::api::Duration::signed);
        let late = open.iter().find(|(_, job)| effective + limit(job) <= self.now);
        if let Some((run, job)) = late {
            let limit = crate::api::Duration(limit(job).unsigned_abs());
            return Gate::Failed(Problem {
                reason: FAILED.into(),
                object: run.object(),
                message: format!("the Job {} of the step was not done within {limit}", job.name),
            });
        }
        let deadline = open.iter().map(|(_, job)| effective + limit(job)).min();
        self.actions.extend(deadline.map(Action::Wake));
        self.start_hooks(|run| run.wave == wave && jobs.iter().any(|job| of(run, job)));
        Gate::Closed
    }

    /// A step is left: what it ran and waited for is not needed any more.
    pub(super) fn stop_jobs_of_steps(&mut self, attempt: &Attempt) {
        for run in self.state.hooks.iter_mut().filter(|run| run.point == HookPoint::RolloutStep) {
            if is_of(run, attempt) && run.step == HookStep::Running && run.state == HookJob::Kept {
                run.state = HookJob::Removing;
            }
        }
    }

    /// Whether the hooks of a point let an attempt go on; starts those whose turn it is.
    pub(super) fn gate(&mut self, point: HookPoint, attempt: &Attempt) -> Gate {
        let of = |run: &HookRun| is_of(run, attempt) && run.point == point;
        let mine = || self.state.hooks.iter().filter(|run| of(run));
        if let Some(problem) = mine().find_map(|run| run.problem.as_ref()) {
            return Gate::Failed(problem.clone());
        }
        let Some(wave) = mine().filter(|r| r.step != HookStep::Succeeded).map(|r| r.wave).min() else {
            return Gate::Open;
        };
        let deadline = read_stamp(&attempt.deadline);
        if deadline <= self.now {
            let late: Vec<String> =
                mine().filter(|r| r.step == HookStep::Running).map(HookRun::object).collect();
            let limit = crate::api::Duration(self.spec.timeout.unsigned_abs());
            return Gate::Failed(Problem {
                reason: FAILED.into(),
                object: late.first().cloned().unwrap_or_default(),
                message: format!("the {point} hook was not done within {limit}, the time of its revision"),
            });
        }
        self.start_hooks(|run| of(run) && run.wave == wave);
        self.actions.push(Action::Wake(deadline));
        Gate::Closed
    }

    fn start_hooks(&mut self, which: impl Fn(&HookRun) -> bool) {
        let mut started: Vec<HookRun> = Vec::new();
        for run in &mut self.state.hooks {
            if run.step == HookStep::Planned && which(run) {
                run.step = HookStep::Running;
                started.push(run.clone());
            }
        }
        // What ran for an older revision goes first: two of them at once would be two migrations at once.
        for run in &mut self.state.hooks {
            let older = |new: &HookRun| same_hook(new, run) && new.job != run.job;
            if run.state == HookJob::Kept && run.step != HookStep::Planned && started.iter().any(older) {
                run.state = HookJob::Removing;
            }
        }
    }

    /// Whether a hook of an attempt failed: it does not count as deployed then, however healthy it is.
    pub(super) fn hook_failed(&self, attempt: &Attempt) -> bool {
        let failed = |run: &HookRun| {
            let stopped = run.step == HookStep::Running && run.state != HookJob::Kept;
            is_of(run, attempt) && DECIDES.contains(&run.point) && (stopped || run.step == HookStep::Failed)
        };
        self.state.hooks.iter().any(failed)
    }

    /// An attempt has succeeded: what ran for older ones is not needed any more.
    pub(super) fn hooks_after_success(&mut self, attempt: &Attempt) {
        match attempt.goal {
            Goal::Rollback => {
                self.start_hooks(|run| is_of(run, attempt) && run.point == HookPoint::OnRollback);
            }
            Goal::Deploy => {
                for run in &mut self.state.hooks {
                    if !is_of(run, attempt) && run.state == HookJob::Kept {
                        run.state = HookJob::Removing;
                    }
                }
            }
            Goal::Refresh => {}
        }
    }

    /// An attempt has failed: its own hooks are stopped, and those for this case run.
    pub(super) fn hooks_after_failure(&mut self, attempt: &Attempt) {
        if attempt.goal != Goal::Deploy {
            return;
        }
        for run in &mut self.state.hooks {
            let stops = is_of(run, attempt) && run.step == HookStep::Running && DECIDES.contains(&run.point);
            if stops && run.state == HookJob::Kept {
                run.state = HookJob::Removing;
            }
        }
        self.start_hooks(|run| is_of(run, attempt) && run.point == HookPoint::OnFailure);
    }

    /// A revision that was deployed has lost its health while it was watched on: its hooks for a failure run.
    pub(super) fn hooks_after_loss(&mut self, revision: &Revision) {
        self.start_hooks(|run| run.revision == *revision && run.point == HookPoint::OnFailure);
    }

    /// Deletes the Jobs of all hooks of a Delivery that is being deleted. Answers whether they are gone, or will never
    /// be.
    pub(super) fn delete_hooks(&mut self) -> bool {
        self.note_hooks();
        for run in &mut self.state.hooks {
            if run.state == HookJob::Kept {
                run.state = HookJob::Removing;
            }
        }
        self.state.hooks.retain(|run| run.step != HookStep::Planned && run.state != HookJob::Gone);
        if self.state.hooks.is_empty() {
            return true;
        }
        if let Some(refusal) = self.seen.hooks.stuck.as_ref().filter(|refusal| !refusal.transient) {
            let message =
                format!("{} Jobs of hooks stay: {}", self.state.hooks.len(), refusal.problem.message);
            self.notify(true, "Orphaned", &refusal.problem.object, message);
            self.state.hooks.clear();
            return true;
        }
        self.remove_hooks();
        false
    }
}

fn planned_run(hook: &Hook, point: HookPoint, attempt: &Attempt, at: Option<u32>) -> HookRun {
    let (namespace, name) = (hook.manifest.namespace(), hook.manifest.name());
    let since = at.map_or(attempt.started_at.clone(), |at| format!("{}/{at}", attempt.started_at));
    HookRun {
        point,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        job: job_name(namespace, name, point, &attempt.revision, &since),
        wave: hook.wave,
        revision: attempt.revision.clone(),
        since: attempt.started_at.clone(),
        at,
        step: HookStep::Planned,
        state: HookJob::Kept,
        uid: None,
        delete: hook.delete.clone(),
        problem: None,
    }
}

/// What is told of a step that names a Job which its revision does not have.
pub fn no_such_job(name: &str) -> Problem {
    Problem {
        reason: "InvalidRollout".into(),
        object: String::new(),
        message: format!(
            "spec.rollout names the Job {name}, and the directory has none of that name with the annotation {}: {}",
            crate::api::names::HOOK,
            HookPoint::RolloutStep
        ),
    }
}

/// What an attempt waits for besides health: the hook that runs.
pub fn running<'s>(hooks: &'s [HookRun], attempt: &Attempt) -> Option<&'s HookRun> {
    let runs = |run: &&HookRun| run.step == HookStep::Running && run.state == HookJob::Kept;
    hooks.iter().filter(runs).find(|run| is_of(run, attempt))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::super::tests::{World, revision};
    use super::super::{RollbackMode, stamp};
    use super::*;
    use crate::api::delivery::Phase;
    use crate::core::manifest::Manifest;
    use crate::core::tree::Origin;
    use proptest::prelude::*;
    use serde_json::json;

    pub(in crate::core::rollout) fn hook(name: &str, points: &[HookPoint]) -> Hook {
        let value =
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "shop"}});
        Hook {
            manifest: Manifest::new(value, Origin::default()).unwrap(),
            points: points.to_vec(),
            delete: vec![HookDelete::BeforeHookCreation],
            wave: 0,
        }
    }

    fn with(hooks: Vec<Hook>) -> World {
        let mut world = World::deployed(&["web"]);
        world.hooks = hooks;
        world
    }

    /// Ends the Jobs that run.
    fn end(world: &mut World, well: bool) {
        for (_, job) in world.seen.hooks.jobs.iter_mut() {
            if let JobSeen::Running(uid) = job {
                let problem = Problem {
                    reason: FAILED.into(),
                    object: "Job shop/it".into(),
                    message: "no luck".into(),
                };
                *job = match well {
                    true => JobSeen::Succeeded(uid.clone()),
                    false => JobSeen::Failed(uid.clone(), problem),
                };
            }
        }
        world.settle();
    }

    fn steps(world: &World) -> Vec<(HookPoint, HookStep)> {
        world.state.hooks.iter().map(|run| (run.point, run.step)).collect()
    }

    #[test]
    fn before_and_after_an_apply_hooks_run_once_whatever_dies() {
        let mut world =
            with(vec![hook("migrate", &[HookPoint::BeforeApply]), hook("test", &[HookPoint::AfterApply])]);
        world.push("b", &["web"]);
        world.settle();
        assert_eq!(world.started, ["before-apply migrate b"]);
        assert_eq!((world.phase(), world.runs()), (Phase::Applying, vec!["web=a".to_owned()]));
        let (_, _, message) = world.condition("Ready");
        assert!(message.contains("(before-apply) runs"), "{message}");
        world.crash();
        world.settle();
        assert_eq!(world.started.len(), 1);
        end(&mut world, true);
        assert_eq!(world.started, ["before-apply migrate b", "after-apply test b"]);
        assert_eq!((world.phase(), world.runs()), (Phase::Waiting, vec!["web=b".to_owned()]));
        world.crash();
        world.settle();
        end(&mut world, true);
        assert_eq!(world.phase(), Phase::Ready);
        world.crash();
        world.pass(100_000);
        assert_eq!(world.started.len(), 2);
        // The Jobs stay until the hooks run again; then they go first.
        assert_eq!(world.state.hooks.len(), 2);
        world.push("c", &["web"]);
        world.settle();
        assert_eq!(steps(&world).iter().filter(|(p, _)| *p == HookPoint::BeforeApply).count(), 1);
        end(&mut world, true);
        end(&mut world, true);
        assert_eq!((world.phase(), world.state.hooks.len()), (Phase::Ready, 2));
        assert!(world.state.hooks.iter().all(|run| run.revision == revision("c")));
        assert_eq!(world.seen.hooks.jobs.len(), 2, "those of b are gone");
    }

    #[test]
    fn a_hook_that_fails_before_the_apply_leaves_what_runs_and_holds_the_revision() {
        let mut world =
            with(vec![hook("migrate", &[HookPoint::BeforeApply]), hook("tell", &[HookPoint::OnFailure])]);
        world.push("b", &["web"]);
        world.settle();
        end(&mut world, false);
        assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=a".to_owned()]));
        assert_eq!(world.applied, ["a", "a"], "b was never applied");
        assert_eq!(world.state.held.as_ref().unwrap().problem.reason, FAILED);
        assert_eq!(world.started, ["before-apply migrate b", "on-failure tell b"]);
        // That it fails as well changes nothing, and is told.
        end(&mut world, false);
        assert_eq!(world.phase(), Phase::Held);
        assert!(
            world
                .notices
                .iter()
                .any(|n| n.warning && n.reason == FAILED && n.message.contains("on-failure of"))
        );
        // The failed one is there to be looked at until a newer revision has done better.
        assert_eq!(world.state.hooks.len(), 2);
        world.push("c", &["web"]);
        world.settle();
        end(&mut world, true);
        assert_eq!(world.phase(), Phase::Ready);
        assert!(world.state.hooks.iter().all(|run| run.revision == revision("c")));
    }

    #[test]
    fn a_hook_that_fails_after_the_apply_rolls_back_and_what_came_back_tells_so() {
        let mut world =
            with(vec![hook("test", &[HookPoint::AfterApply]), hook("undo", &[HookPoint::OnRollback])]);
        world.push("b", &["web", "more"]);
        world.settle();
        assert_eq!(world.runs(), ["more=b", "web=b"]);
        end(&mut world, false);
        assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=a".to_owned()]));
        assert_eq!(world.started, ["after-apply test b", "on-rollback undo a"]);
        end(&mut world, true);
        assert!(
            world.notices.iter().any(|n| n.reason == "HookSucceeded" && n.message.contains("on-rollback of"))
        );
        world.crash();
        world.pass(100_000);
        assert_eq!(world.started.len(), 2);
    }

    #[test]
    fn a_revision_that_fails_while_it_is_watched_on_runs_its_hooks_for_that() {
        let mut world = with(vec![hook("tell", &[HookPoint::OnFailure])]);
        world.spec.bake = jiff::SignedDuration::from_secs(600);
        world.push("b", &["web"]);
        world.settle();
        assert_eq!((world.phase(), world.started.len()), (Phase::Ready, 0));
        world.crash();
        world.broken.insert("b".into());
        world.settle();
        world.pass(10);
        assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=a".to_owned()]));
        assert_eq!(world.started, ["on-failure tell b"]);
        // One that was good until the end has none left.
        world.push("c", &["web"]);
        world.settle();
        world.pass(700);
        assert_eq!(world.phase(), Phase::Ready);
        assert!(world.state.hooks.iter().all(|run| run.step != HookStep::Planned), "{:?}", world.state.hooks);
    }

    #[test]
    fn hooks_of_one_point_run_in_waves() {
        let late = Hook { wave: 1, ..hook("late", &[HookPoint::BeforeApply]) };
        let mut world =
            with(vec![late, hook("a", &[HookPoint::BeforeApply]), hook("b", &[HookPoint::BeforeApply])]);
        world.push("b", &["web"]);
        world.settle();
        assert_eq!(world.started, ["before-apply a b", "before-apply b b"]);
        end(&mut world, true);
        assert_eq!(world.started.len(), 3);
        end(&mut world, true);
        assert_eq!(world.phase(), Phase::Ready);
    }

    #[test]
    fn jobs_go_when_their_policy_says_so_and_are_not_run_again_for_that() {
        let policy = |delete| Hook { delete: vec![delete], ..hook("it", &[HookPoint::BeforeApply]) };
        let mut world = with(vec![policy(HookDelete::HookSucceeded)]);
        world.push("b", &["web"]);
        world.slow.insert("b".into());
        world.settle();
        end(&mut world, true);
        world.pass(10);
        assert_eq!((world.phase(), world.seen.hooks.jobs.len()), (Phase::Waiting, 0));
        world.crash();
        world.settle();
        world.slow.clear();
        world.settle();
        assert_eq!((world.phase(), world.started.len(), world.state.hooks.len()), (Phase::Ready, 1, 0));
        let mut world = with(vec![policy(HookDelete::HookFailed)]);
        world.push("b", &["web"]);
        world.settle();
        end(&mut world, false);
        assert_eq!((world.phase(), world.seen.hooks.jobs.len()), (Phase::Held, 0));
    }

    #[test]
    fn a_hook_has_the_time_of_its_revision_and_a_newer_commit_gets_through() {
        let mut world = with(vec![hook("migrate", &[HookPoint::BeforeApply])]);
        world.push("b", &["web"]);
        world.settle();
        world.pass(301);
        assert_eq!(world.phase(), Phase::Held);
        assert!(world.state.held.as_ref().unwrap().problem.message.contains("was not done within 5m"));
        assert!(world.seen.hooks.jobs.is_empty(), "it is stopped");
        world.push("c", &["web"]);
        world.settle();
        world.now += jiff::SignedDuration::from_secs(1);
        world.push("d", &["web"]);
        world.settle();
        assert_eq!(world.started[1..], ["before-apply migrate c", "before-apply migrate d"]);
        assert_eq!(world.seen.hooks.jobs.len(), 1, "that of c is gone");
        end(&mut world, true);
        assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=d".to_owned()]));
    }

    #[test]
    fn a_first_revision_whose_hook_failed_does_not_count_until_a_person_has_it_tried_again() {
        let mut world = World::new();
        world.hooks = vec![hook("test", &[HookPoint::AfterApply])];
        world.push("a", &["web"]);
        world.settle();
        end(&mut world, false);
        world.pass(100_000);
        assert_eq!((world.phase(), world.started.len()), (Phase::Failed, 1), "healthy as it is");
        assert_eq!(world.condition("Stalled").1, FAILED);
        world.now += jiff::SignedDuration::from_secs(1);
        world.seen.reconcile = Some("now".into());
        world.settle();
        assert_eq!(world.started.len(), 2);
        end(&mut world, true);
        assert_eq!((world.phase(), world.state.hooks.len()), (Phase::Ready, 1));
    }

    #[test]
    fn one_that_somebody_deletes_has_failed_and_new_settings_are_a_new_revision() {
        let mut world = with(vec![hook("migrate", &[HookPoint::BeforeApply])]);
        world.push("b", &["web"]);
        world.settle();
        world.seen.hooks.jobs.values_mut().for_each(|job| *job = JobSeen::Absent);
        world.settle();
        assert_eq!(world.phase(), Phase::Held);
        assert!(world.state.held.as_ref().unwrap().problem.message.contains("was deleted"));
        // New settings while it is held render what runs, and that has run its hooks.
        let rotated = crate::api::delivery::Revision { settings: "s2".into(), ..revision("b") };
        world.seen.target = super::super::Target::Known(rotated);
        world.settle();
        assert_eq!((world.phase(), world.started.len()), (Phase::Held, 1));
        world.push("c", &["web"]);
        world.settle();
        end(&mut world, true);
        let settings = crate::api::delivery::Revision { settings: "s3".into(), ..revision("c") };
        world.now += jiff::SignedDuration::from_secs(1);
        world.seen.target = super::super::Target::Known(settings);
        world.settle();
        assert_eq!(world.started.len(), 3);
        end(&mut world, true);
        assert_eq!(world.phase(), Phase::Ready);
    }

    /// What may happen between two rounds.
    #[derive(Clone, Debug)]
    enum Happening {
        Push { broken: bool, fails: bool },
        Crash,
        Pass(i64),
        Rounds(u8),
        JobsEnd(bool),
        JobsVanish,
        Ready(bool),
        Heal,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            3 => (any::<bool>(), any::<bool>()).prop_map(|(broken, fails)| Happening::Push { broken, fails: broken && fails }),
            3 => Just(Happening::Crash),
            2 => (1i64..1000).prop_map(Happening::Pass),
            5 => (1u8..6).prop_map(Happening::Rounds),
            4 => any::<bool>().prop_map(Happening::JobsEnd),
            1 => Just(Happening::JobsVanish),
            2 => any::<bool>().prop_map(Happening::Ready),
            1 => Just(Happening::Heal),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// Whatever happens in whatever order, with the process dying between any two rounds: no Job is made twice,
        /// nothing of a revision is applied before its hooks are done and its dependencies ready, and once all is well
        /// again the newest revision runs, and only the Jobs of its own hooks are left.
        #[test]
        fn whatever_happens_hooks_run_once_and_it_ends_well(happenings in prop::collection::vec(happening(), 1..40)) {
            let policy = |name, points: &[HookPoint], delete| Hook { delete: vec![delete], ..hook(name, points) };
            let all = [HookPoint::BeforeApply, HookPoint::AfterApply, HookPoint::OnFailure, HookPoint::OnRollback];
            let mut world = with(vec![
                policy("every", &all, HookDelete::BeforeHookCreation),
                policy("brief", &all[..2], HookDelete::HookSucceeded),
                Hook { wave: 1, ..policy("late", &all[..1], HookDelete::HookFailed) },
            ]);
            let mut count = 0;
            for happening in happenings {
                // Two attempts never begin at the same instant.
                world.now += jiff::SignedDuration::from_millis(1);
                match happening {
                    Happening::Push { broken, fails } => {
                        count += 1;
                        let name = format!("r{count}");
                        if broken { world.broken.insert(name.clone()); }
                        if fails { world.fails_applying.insert(name.clone()); }
                        world.push(&name, &["web", "more"]);
                    }
                    Happening::Crash => world.crash(),
                    Happening::Pass(secs) => world.pass(secs),
                    Happening::Rounds(n) => for _ in 0..n { world.round(); },
                    Happening::JobsEnd(well) => end(&mut world, well),
                    Happening::JobsVanish => world.seen.hooks.jobs.values_mut().for_each(|job| *job = JobSeen::Absent),
                    Happening::Ready(ready) => world.seen.dependencies = match ready {
                        true => super::super::Dependencies::Ready,
                        false => super::super::Dependencies::Waiting(Problem::default()),
                    },
                    Happening::Heal => world.broken.clear(),
                }
                for of in world.applied.iter().filter(|of| of.starts_with('r')) {
                    let began = world.started.iter().filter(|s| s.ends_with(&format!(" {of}")) && s.starts_with("before-apply"));
                    prop_assert!(began.count() >= 3, "{of} was applied before its hooks: {:?}", world.started);
                }
            }
            world.now += jiff::SignedDuration::from_millis(1);
            world.seen.dependencies = super::super::Dependencies::Ready;
            world.push("good", &["web", "good"]);
            world.settle();
            for _ in 0..8 {
                end(&mut world, true);
                world.pass(10);
            }
            prop_assert_eq!(world.phase(), Phase::Ready);
            prop_assert_eq!(world.runs(), ["good=good", "web=good"]);
            prop_assert!(world.state.hooks.iter().all(|run| run.revision == revision("good")), "{:?}", world.state.hooks);
        }
    }

    #[test]
    fn a_deleted_delivery_takes_the_jobs_of_its_hooks_along() {
        let mut world =
            with(vec![hook("test", &[HookPoint::AfterApply]), hook("x", &[HookPoint::OnFailure])]);
        world.spec.rollback = RollbackMode::Off;
        world.push("b", &["web"]);
        world.settle();
        world.seen.deleting = true;
        world.settle();
        assert!(world.gone && world.cluster.is_empty() && world.seen.hooks.jobs.is_empty());
        assert!(!stamp(world.now).is_empty());
    }
}
