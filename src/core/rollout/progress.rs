//! A rollout on its way: from one layout to the next, frozen while stable is not healthy, taken back when the candidate
//! fails, and what people ask of it.
//!
//! ```text
//! Starting ──▶ Stepping ──▶ Switching ──▶ Promoting ──▶ Draining ──▶ Returning ──▶ pruned, effective
//!     │            │            │             │ new stable fails
//!     └────────────┴────────────┘             ▼
//!       candidate fails: a rollback      Restoring (a rollback) ──▶ Draining ──▶ Returning ──▶ pruned, held
//!       that is Draining from its
//!       start: stable was not touched
//! ```
//!
//! A candidate whose pods have all stopped being ready while requests are sent to it is left sooner: see `serving`.
//!
//! Every stage is a bundle that is prepared and applied like any other. Nothing that traffic may still reach is removed
//! before the route that has left it was accepted, and a settle time after it. Routes name the candidate, without a share,
//! from Starting until Draining is over: no proxy gets a share of a backend that it does not know. A router that names no
//! backends has no Draining.

use super::hooks::Gate;
use super::next::Machine;
use super::put_back::{UNCOMPARED, answers_nothing, missing};
use super::status::told;
use super::steps::{Planned, SETTLE, Steps, Then};
use super::{
    Action, CONFLICT, Foreknown, Health, Making, SOURCE_UNKNOWN, Spec, Staged, Staging, read_stamp, stamp,
};
use crate::api::analysis::AnalysisPolicy;
use crate::api::delivery::{Attempt, Goal, InventoryEntry, Problem, Revision, Step};
use crate::api::hook::HookPoint;
use crate::api::rollout::{Base, Layout, RolloutStatus, Size, Stage, WorkloadSize};
use crate::core::analysis::{self, ERROR, INCONCLUSIVE, NO_DATA, StepKind, Verdict};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// The reason of a pause that a person asked for.
const BY_HAND: &str = "PausedByHand";

/// The reason of a rollout that a person gave up.
pub(super) const ABORTED: &str = "Aborted";

/// The reason of a pause that a step asks for.
const AWAITS: &str = "AwaitsPromotion";

/// The reason of a pause because the policy is not the one that the rollout began with.
const CHANGED: &str = "PolicyChanged";

/// The reason of a freeze because stable is not healthy by itself.
const STABLE_UNHEALTHY: &str = "StableUnhealthy";

/// Kinds whose refusal is a mistake of the rollout, not an illness of stable.
const ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "VirtualService", "DestinationRule"];

/// Kinds under the names of Git whose pods may be missing through no fault of the rollout, which does not touch them.
const WORKLOADS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

impl Machine<'_> {
    fn steps(&self) -> Option<std::sync::Arc<Steps>> {
        self.spec.rollout.clone()
    }

    /// What the cluster is to be made like for an attempt.
    pub(super) fn staging(&self, attempt: &Attempt) -> Staging {
        staging(attempt, self.state.effective.as_ref(), self.spec)
    }

    /// What is under way is prepared as its stage wants it.
    pub(super) fn prepare_attempt(&mut self) {
        let Some(attempt) = &self.state.attempt else { return };
        let prepare = Action::Prepare(attempt.revision.clone(), attempt.goal, Some(self.staging(attempt)));
        self.actions.push(prepare);
    }

    /// The health that decides about an attempt: stable may be ill by itself, which is not held against a candidate.
    pub(super) fn health_that_counts(&self, attempt: &Attempt) -> &Health {
        let Some(rollout) = attempt.rollout.as_ref().filter(|r| r.stage != Stage::Returning) else {
            return &self.seen.health;
        };
        match (rollout.layout.base, attempt.goal) {
            (Base::Stable, Goal::Deploy | Goal::Refresh) if takes_over(attempt).is_none() => {
                &self.seen.variants.candidate
            }
            _ => &self.seen.variants.named,
        }
    }

    /// Begins a revision with its first layout. Where something is not healthy that it is about there is nothing to be careful
    /// with: the revision may be what heals it. What else is not healthy says nothing of it, before and after.
    pub(super) fn start_rollout(
        &mut self,
        revision: Revision,
        why: &str,
        known: Foreknown,
        inventory: &[InventoryEntry],
    ) {
        let first = self.steps().and_then(|s| Some((s.all.first()?.clone(), s.steps, s.making.clone())));
        let worst = match &self.seen.health {
            Health::Degraded(p) | Health::Broken(p) => Some(p),
            _ => None,
        };
        // An object that another Delivery has says nothing of the pods.
        let all = || self.seen.ill.iter().chain(worst).filter(|p| p.reason != CONFLICT);
        let ill = all().find(|p| known.concerns.contains(&p.object)).map(told);
        let excused: BTreeSet<String> = all().map(|p| p.object.clone()).collect();
        let Some((first, steps, making)) = first.filter(|_| ill.is_none()) else {
            if let Some(ill) = ill {
                self.notify(
                    true,
                    STABLE_UNHEALTHY,
                    "",
                    format!(
                        "{revision} is applied at once, without a rollout: what runs is not healthy ({ill})"
                    ),
                );
            }
            self.start(Goal::Deploy, revision);
            return;
        };
        self.notify(false, "RollingOut", "", format!("{revision} is rolled out: {why}"));
        if !excused.is_empty() {
            let names: Vec<&str> = excused.iter().map(String::as_str).collect();
            let text = format!(
                "{} was not healthy before, and {revision} does not change it: it is not waited for, and not held against it",
                names.join(", ")
            );
            self.notify(true, "UnhealthyBefore", "", text);
        }
        self.state.inventory = inventory.to_vec();
        self.start(Goal::Deploy, revision.clone());
        if let Some(attempt) = &mut self.state.attempt {
            attempt.rollout = Some(RolloutStatus {
                stage: first.stage,
                candidate: revision,
                router: making.router,
                strategy: making.strategy,
                workloads: making.workloads,
                step: first.step,
                steps,
                at: 0,
                layout: first.layout,
                since: stamp(self.now),
                settled: None,
                unwell: None,
                unready: None,
                paused: None,
                go: false,
                analysis: Vec::new(),
                full: false,
                sizes: known.sizes,
                others_route: known.others_route,
                excused: excused.into_iter().collect(),
            });
        }
    }

    /// Whether traffic is being taken back from a candidate, so that a newer revision waits for that. One that cannot be
    /// brought back in its time is waited for no longer; that Git was not read yet says nothing about that.
    pub(super) fn is_leaving(&self) -> bool {
        self.state.attempt.as_ref().is_some_and(|a| {
            let says_nothing = [SOURCE_UNKNOWN, UNCOMPARED];
            let stuck = a.problem.as_ref().is_some_and(|p| !says_nothing.contains(&p.reason.as_str()));
            a.goal == Goal::Rollback && a.rollout.is_some() && !stuck && a.step != Step::Failed
        })
    }

    /// A newer revision, or one that a person goes back to, takes the place of one that is rolled out: traffic goes back first.
    /// Answers whether there was one.
    pub(super) fn leave_rollout(&mut self, old: Attempt) -> bool {
        let (Some(rollout), Goal::Deploy, Some(good)) =
            (what_is_left(&old), old.goal, self.state.effective.clone())
        else {
            return false;
        };
        let ill = self.stable_is_ill();
        self.start_rollback(good);
        self.take_traffic_back(rollout, ill);
        self.prepare_attempt();
        true
    }

    /// Stable may be ill by itself: what stands beside it did not fail, and has the healthy pods.
    pub(super) fn stable_is_ill(&self) -> bool {
        matches!(self.seen.variants.named, Health::Broken(_) | Health::Degraded(_))
    }

    /// The rollback that has just begun ends a rollout: where stable was touched (or is `ill`, and the candidate did not fail),
    /// traffic stays with the candidate until it is back, unless that is not healthy either.
    pub(super) fn take_traffic_back(&mut self, mut rollout: RolloutStatus, ill: bool) {
        let touched = rollout.layout.base == Base::Target || rollout.stage == Stage::Restoring || ill;
        rollout.stage = match touched && self.candidate_is_well() && rollout.layout.has_traffic() {
            true => Stage::Restoring,
            false => self.way_back(&rollout),
        };
        rollout.layout.base = Base::Stable;
        let anew = self.anew(rollout);
        if let Some(attempt) = &mut self.state.attempt {
            attempt.rollout = Some(anew);
        }
    }

    fn candidate_is_well(&self) -> bool {
        !matches!(self.seen.variants.candidate, Health::Broken(_) | Health::Degraded(_))
            && self.seen.variants.unready.is_none()
    }

    /// How traffic leaves a candidate: where requests may have reached it, routes name it until none does.
    fn way_back(&self, rollout: &RolloutStatus) -> Stage {
        let named = rollout.router.names_backends() && self.spec.rollout.is_some();
        match rollout.stage {
            Stage::Starting | Stage::Returning => Stage::Returning,
            _ if named => Stage::Draining,
            _ => Stage::Returning,
        }
    }

    /// A revision is begun at once although a candidate stands there still, because what was there before it cannot be brought
    /// back. A candidate that is well keeps its traffic until the revision is healthy in its place; any other goes like one that
    /// has lost its traffic. Answers whether it keeps it.
    pub(super) fn mind_what_was_left(&mut self, left: Option<RolloutStatus>) -> bool {
        let Some(left) = left else { return false };
        let waits = left.stage == Stage::Restoring && left.layout.has_traffic() && self.candidate_is_well();
        let (stage, layout) = match waits {
            true => (left.stage, left.layout.clone()),
            false => (Stage::Returning, Layout::default()),
        };
        let anew = self.anew(RolloutStatus { stage, layout, excused: Vec::new(), ..left });
        if let Some(attempt) = &mut self.state.attempt {
            attempt.rollout.get_or_insert(anew);
        }
        waits
    }

    /// A rollout that begins another way from where it is: what was waited for, asked and measured says nothing any more.
    fn anew(&self, rollout: RolloutStatus) -> RolloutStatus {
        RolloutStatus {
            since: stamp(self.now),
            settled: None,
            unwell: None,
            unready: None,
            paused: None,
            go: false,
            full: false,
            analysis: Vec::new(),
            ..rollout
        }
    }

    /// All of a layout is written. Answers whether the attempt may come to its end; otherwise it was taken on from here.
    pub(super) fn may_end(&mut self, attempt: &mut Attempt) -> bool {
        let Some(rollout) = attempt.rollout.clone() else { return true };
        match (rollout.stage, self.steps()) {
            (Stage::Returning, _) => self.settled(attempt, rollout),
            // It was switched off meanwhile: the rest is one step.
            (_, None) => {
                self.give_back(attempt.clone(), rollout);
                false
            }
            (Stage::Promoting | Stage::Restoring | Stage::Draining, _) => {
                self.touched(attempt.clone(), rollout);
                false
            }
            (Stage::Starting | Stage::Stepping | Stage::Switching, Some(steps)) => {
                self.untouched(attempt.clone(), rollout, &steps);
                false
            }
        }
    }

    /// Somebody has the route name the candidate again: it is written as Git has it once more, and that is waited for, before
    /// anything is removed.
    pub(super) fn return_again(&mut self, mut attempt: Attempt, problem: &Problem) {
        self.notify(true, &problem.reason, &problem.object, problem.message.clone());
        if let Some(rollout) = &mut attempt.rollout {
            rollout.settled = None;
        }
        attempt.step = Step::Applying;
        attempt.retry_at = Some(stamp(self.now));
        attempt.deadline = stamp(self.now + self.spec.timeout);
        self.state.attempt = Some(attempt);
        self.prepare_attempt();
    }

    /// Traffic is where it stays: a settle time later nothing reaches what is about to be removed.
    fn settled(&mut self, attempt: &mut Attempt, mut rollout: RolloutStatus) -> bool {
        if self.seen.health != Health::Healthy {
            return true;
        }
        let since = rollout.settled.get_or_insert_with(|| stamp(self.now)).clone();
        let until = read_stamp(&since) + self.settle_time();
        if until <= self.now {
            return true;
        }
        attempt.rollout = Some(rollout);
        attempt.step = Step::Waiting;
        attempt.retry_at = None;
        self.state.attempt = Some(attempt.clone());
        self.actions.push(Action::Wake(until));
        false
    }

    pub(super) fn settle_time(&self) -> SignedDuration {
        self.spec.rollout.as_ref().map_or(SETTLE, |s| s.settle)
    }

    /// What stands under the names of Git decides: it takes a template, new or old, while traffic stays with the candidate,
    /// or has all the traffic again.
    fn touched(&mut self, mut attempt: Attempt, mut rollout: RolloutStatus) {
        let named = self.seen.variants.named.clone();
        if !matches!(named, Health::Broken(_))
            && let Some(changed) = self.misdirected(&attempt)
        {
            return self.put_back(attempt, &changed);
        }
        match named {
            Health::Healthy => {
                if let Some(problem) = self.overwritten(&attempt) {
                    return self.put_back(attempt, &problem);
                }
                if let Some(problem) = self.uncompared(&attempt) {
                    let due = self.due(&attempt);
                    attempt.problem = Some(problem);
                    return self.stay(attempt, rollout, Some(due));
                }
                attempt.problem = attempt.problem.take().filter(|p| p.reason != UNCOMPARED);
                let since = read_stamp(rollout.settled.get_or_insert_with(|| stamp(self.now)));
                let effect = match rollout.stage {
                    Stage::Draining => since + self.settle_time(),
                    _ => since + self.steps().map_or(SignedDuration::ZERO, |s| s.known),
                };
                match effect > self.now {
                    true => self.stay(attempt, rollout, Some(effect)),
                    false => self.give_back(attempt, rollout),
                }
            }
            Health::Broken(problem) => self.fail(attempt, problem),
            health => {
                if self.time_is_up(&mut attempt) {
                    let problem = self.not_in_time(&health);
                    return self.fail(attempt, problem);
                }
                // Both are ill, and nothing is gained by waiting with traffic where it is.
                let lost = matches!(self.seen.variants.candidate, Health::Broken(_));
                if rollout.stage == Stage::Restoring && lost {
                    return self.give_back(attempt, rollout);
                }
                (rollout.settled, rollout.unwell) = (None, None);
                if let Some(gone) = missing(&health) {
                    return self.put_back(Attempt { rollout: Some(rollout), ..attempt }, gone);
                }
                self.stay(attempt, rollout, None);
            }
        }
    }

    /// Stable is untouched: the candidate decides, and stable's own illness freezes everything.
    fn untouched(&mut self, mut attempt: Attempt, mut rollout: RolloutStatus, steps: &Steps) {
        let (named, candidate) = (self.seen.variants.named.clone(), self.seen.variants.candidate.clone());
        if let Health::Broken(problem) = candidate {
            return self.fail(attempt, problem);
        }
        if let Some(gone) = missing(&candidate) {
            return match answers_nothing(&rollout, gone) {
                true => self.fail(attempt, gone.clone()),
                false => self.put_back(Attempt { rollout: Some(rollout), ..attempt }, gone),
            };
        }
        if let Some(gone) = missing(&named) {
            return self.put_back(Attempt { rollout: Some(rollout), ..attempt }, gone);
        }
        if let Some(changed) = self.misdirected(&attempt) {
            return self.put_back(attempt, &changed);
        }
        let ill = match &named {
            Health::Degraded(p) | Health::Broken(p) => Some(p.clone()),
            _ => None,
        };
        if candidate != Health::Healthy || named != Health::Healthy {
            let refused = ill.as_ref().filter(|p| is_route(p)).cloned();
            let mut frozen = ill.filter(|p| !is_route(p));
            // What its pods do in between, such as starting again and again, does not save a candidate whose metrics fail.
            if frozen.is_none()
                && let Some(Verdict::Failed(problem)) = self.measured(&attempt.revision, &mut rollout, steps)
            {
                return self.fail(attempt, problem);
            }
            if rollout.settled.is_some() && rollout.unwell.is_none() {
                rollout.unwell = Some(stamp(self.now));
                attempt.deadline = stamp(self.now + self.spec.timeout);
            }
            // Whose fault it is that time passes: a candidate that is well waits for stable as long as it takes.
            let waits_for_stable = candidate == Health::Healthy && frozen.is_some();
            if !waits_for_stable && self.time_is_up(&mut attempt) {
                // So does one beside which a part of stable's pods is missing for longer than a moment.
                frozen = match &named {
                    Health::Progressing(p) if candidate == Health::Healthy && is_workload(p) => {
                        Some(p.clone())
                    }
                    _ => None,
                };
                if frozen.is_none() {
                    let problem = match refused {
                        Some(problem) => problem,
                        None if candidate == Health::Healthy => self.not_in_time(&named),
                        None => self.not_in_time(&candidate),
                    };
                    return self.fail(attempt, problem);
                }
            }
            if let Some(problem) = frozen {
                self.pause(&mut rollout, STABLE_UNHEALTHY, &problem.object, &format!(
                    "stable is not healthy by itself ({}); weights stay as they are. A healthy candidate can be promoted \
                     by hand: windlass promote --full",
                    problem.message
                ));
                if (rollout.go || rollout.full) && candidate == Health::Healthy {
                    let since = read_stamp(rollout.settled.get_or_insert_with(|| stamp(self.now)));
                    let effect = since + steps.settle;
                    return match rollout.stage == Stage::Switching && effect > self.now {
                        true => self.stay(attempt, rollout, Some(effect)),
                        false => self.advance(attempt, rollout, steps),
                    };
                }
            }
            return self.stay(attempt, rollout, None);
        }
        rollout.unwell = None;
        attempt.problem = None;
        let over = |p: &Problem| p.reason == STABLE_UNHEALTHY || p.reason == CHANGED && steps.waits.is_none();
        rollout.paused = rollout.paused.take().filter(|p| !over(p));
        let since = read_stamp(rollout.settled.get_or_insert_with(|| stamp(self.now)));
        let effect = match rollout.layout.has_traffic() || rollout.stage != Stage::Starting {
            true => since + steps.settle,
            false => since + steps.known,
        };
        if effect > self.now {
            return self.stay(attempt, rollout, Some(effect));
        }
        if rollout.stage == Stage::Starting {
            match self.gate(HookPoint::BeforeTraffic, &attempt) {
                Gate::Open => {}
                Gate::Closed => return self.stay(attempt, rollout, None),
                Gate::Failed(problem) => return self.fail(attempt, problem),
            }
        }
        let planned = steps.all.get(rollout.at as usize);
        let measured = self.measured(&attempt.revision, &mut rollout, steps);
        if let Some(Verdict::Failed(problem)) = measured {
            return self.fail(attempt, problem);
        }
        if rollout.paused.as_ref().is_some_and(|p| p.reason == BY_HAND) {
            return self.stay(attempt, rollout, None);
        }
        let jobs = match planned.filter(|p| p.stage == rollout.stage) {
            Some(planned) if !(rollout.go || rollout.full) => steps.measured(planned).1,
            _ => Vec::new(),
        };
        let effective = since.max(read_stamp(&rollout.since));
        let jobs = self.gate_of_step(&attempt, rollout.at, effective, &jobs);
        if let Gate::Failed(problem) = jobs {
            return self.fail(attempt, problem);
        }
        if rollout.go || rollout.full {
            return self.advance(attempt, rollout, steps);
        }
        match measured {
            Some(Verdict::Paused(problem)) => {
                self.pause(&mut rollout, &problem.reason, &problem.object, &problem.message);
                return self.stay(attempt, rollout, None);
            }
            // Whoever measures wakes us.
            Some(Verdict::Running { .. }) => {
                unpause_measured(&mut rollout);
                return self.stay(attempt, rollout, None);
            }
            Some(Verdict::Passed | Verdict::Failed(_)) | None => unpause_measured(&mut rollout),
        }
        if matches!(jobs, Gate::Closed) {
            return self.stay(attempt, rollout, None);
        }
        match planned.map(|p| &p.then) {
            None | Some(Then::Go | Then::Analysis(_) | Then::Job(_)) => self.advance(attempt, rollout, steps),
            Some(Then::Pause(Some(time))) => {
                let until = since.max(read_stamp(&rollout.since)) + *time;
                match until <= self.now {
                    true => self.advance(attempt, rollout, steps),
                    false => self.stay(attempt, rollout, Some(until)),
                }
            }
            Some(Then::Pause(None)) => {
                match &steps.waits {
                    None => self.pause(
                        &mut rollout,
                        AWAITS,
                        "",
                        "waits until a person says go: windlass promote",
                    ),
                    Some(why) => self.pause(&mut rollout, CHANGED, "", &format!(
                        "{why}; the one under way stays as it is until a person says go (windlass promote) or takes it back \
                         (windlass abort)"
                    )),
                }
                self.stay(attempt, rollout, None);
            }
        }
    }

    /// What was measured in this step, and what that means; `None` where nothing is measured.
    fn measured(
        &mut self,
        revision: &Revision,
        rollout: &mut RolloutStatus,
        steps: &Steps,
    ) -> Option<Verdict> {
        let measuring = measuring(revision, rollout, steps)?;
        let seen = self.seen.analysis.as_ref().filter(|seen| seen.key == measuring.key);
        let runs = analysis::runs_of(&measuring.policy, seen.map_or(&rollout.analysis, |s| &s.runs));
        if analysis::worth_showing(
            &measuring.policy,
            measuring.kind,
            &rollout.analysis,
            &runs,
            measuring.since,
            self.now,
        ) {
            // Passed over, which is told once and is no success.
            let before = analysis::waived(&measuring.policy, &rollout.analysis);
            for problem in analysis::waived(&measuring.policy, &runs).iter().skip(before.len()) {
                self.notify(true, &problem.reason, "", problem.message.clone());
            }
            rollout.analysis = runs.clone();
        }
        let verdict = analysis::verdict(&measuring.policy, &runs, measuring.kind, measuring.since, self.now);
        Some(verdict)
    }

    /// The sizes that candidates are counted by, where stable has grown since. It does not shrink below what it had before.
    fn grown(&self, rollout: &RolloutStatus) -> Option<Vec<WorkloadSize>> {
        let mut sizes = rollout.sizes.clone();
        for (size, seen) in sizes.iter_mut().zip(&self.seen.sizes) {
            size.now = size.now.max(seen.filter(|pods| *pods > size.replicas));
        }
        (sizes != rollout.sizes).then_some(sizes)
    }

    /// Before a candidate gets another share it has to be of another size: its step stays, and is put in place once more.
    fn again(&mut self, mut attempt: Attempt, rollout: RolloutStatus) {
        attempt.rollout = Some(rollout);
        attempt.step = Step::Applying;
        attempt.deadline = stamp(self.now + self.spec.timeout);
        (attempt.retry_at, attempt.retries) = (None, 0);
        self.state.attempt = Some(attempt);
        self.prepare_attempt();
    }

    /// The next layout, or the end of the steps.
    fn advance(&mut self, attempt: Attempt, rollout: RolloutStatus, steps: &Steps) {
        if let Some(sizes) = self.grown(&rollout) {
            return self.again(attempt, RolloutStatus { sizes, ..rollout });
        }
        if rollout.full && (rollout.at as usize) < steps.promotion() {
            return self.promote_whole(attempt, rollout, steps);
        }
        let next = rollout.at as usize + 1;
        // Where steps were taken away meanwhile, traffic leaves stable before it is touched all the same.
        let at = match rollout.stage {
            Stage::Starting | Stage::Stepping => next.min(steps.promotion()),
            _ => next,
        };
        let Some(planned) = steps.all.get(at) else { return self.give_back(attempt, rollout) };
        match steps.between(&rollout.layout, &planned.layout) {
            Some(layout) => self.again(attempt, RolloutStatus { layout, settled: None, ..rollout }),
            None => self.go_to(attempt, rollout, at, &planned.clone()),
        }
    }

    /// Traffic goes to the names that stand in Git. The layout stays on record: should they fail, it is what is gone back to.
    pub(super) fn give_back(&mut self, attempt: Attempt, rollout: RolloutStatus) {
        let layout = rollout.layout.clone();
        let stage = match rollout.stage {
            Stage::Draining => Stage::Returning,
            _ => self.way_back(&rollout),
        };
        self.go_on(attempt, rollout, stage, layout, None);
    }

    /// What only eases the way back must not block it: a candidate that cannot be applied any more leaves the route at once, and one
    /// that a revision cannot stand beside makes way for it.
    pub(super) fn skip_draining(&mut self, attempt: &Attempt) -> bool {
        let eases = |r: &RolloutStatus| {
            r.stage == Stage::Draining || r.stage == Stage::Restoring && takes_over(attempt).is_some()
        };
        let Some(mut rollout) = attempt.rollout.clone().filter(eases) else { return false };
        // What comes after it is as Git has it.
        if rollout.stage == Stage::Restoring {
            rollout.stage = Stage::Draining;
        }
        self.give_back(attempt.clone(), rollout);
        true
    }

    /// To promotion, by a person's word: whole first, then all traffic.
    fn promote_whole(&mut self, attempt: Attempt, rollout: RolloutStatus, steps: &Steps) {
        let switch = steps.all.iter().position(|p| p.stage == Stage::Switching && p.layout.weight == 100);
        let whole = Some(Size::Percent(100));
        match switch {
            Some(at) if rollout.layout.size != whole => {
                let layout = Layout { size: whole, ..rollout.layout.clone() };
                let at = u32::try_from(at.saturating_sub(1)).unwrap_or(u32::MAX);
                self.go_on(attempt, rollout, Stage::Switching, layout, Some((at, steps.steps)));
            }
            _ => {
                let at = switch.unwrap_or_else(|| steps.promotion());
                match steps.all.get(at) {
                    Some(planned) => self.go_to(attempt, rollout, at, &planned.clone()),
                    None => self.give_back(attempt, rollout),
                }
            }
        }
    }

    fn go_to(&mut self, attempt: Attempt, rollout: RolloutStatus, at: usize, planned: &Planned) {
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        self.go_on(attempt, rollout, planned.stage, planned.layout.clone(), Some((at, planned.step)));
    }

    /// Goes on to another stage or layout. One that is as before needs no apply: only its wait begins.
    fn go_on(
        &mut self,
        mut attempt: Attempt,
        mut rollout: RolloutStatus,
        stage: Stage,
        layout: Layout,
        at: Option<(u32, u32)>,
    ) {
        let leaves = matches!(stage, Stage::Draining | Stage::Returning);
        let same = !leaves && rollout.layout == layout;
        self.stop_jobs_of_steps(&attempt);
        let step = rollout.step;
        rollout.stage = stage;
        rollout.layout = layout;
        if let Some((at, step)) = at {
            rollout.at = at;
            rollout.step = step;
        }
        rollout.since = stamp(self.now);
        rollout.settled = rollout.settled.filter(|_| same);
        rollout.unwell = None;
        rollout.paused = rollout.paused.filter(|p| p.reason == BY_HAND);
        // A person's word is for one step of the policy, which may take two layouts.
        rollout.go &= rollout.step == step && stage == Stage::Stepping;
        rollout.analysis = analysis::next_step(&rollout.analysis);
        attempt.rollout = Some(rollout);
        attempt.deadline = stamp(self.now + self.spec.timeout);
        attempt.problem = None;
        attempt.retry_at = None;
        attempt.retries = 0;
        attempt.overwritten = 0;
        match same {
            true => {
                attempt.step = Step::Waiting;
                self.state.attempt = Some(attempt);
                // What is seen now is about this layout as well.
                self.actions.push(Action::Wake(self.now));
            }
            false => {
                attempt.step = Step::Applying;
                self.state.attempt = Some(attempt);
                self.prepare_attempt();
            }
        }
    }

    /// Stays where it is.
    fn stay(&mut self, mut attempt: Attempt, rollout: RolloutStatus, until: Option<Timestamp>) {
        let waits = rollout.settled.is_none() || rollout.unwell.is_some();
        attempt.rollout = Some(rollout);
        attempt.step = Step::Waiting;
        attempt.retry_at = None;
        // Where that is over, and it stays all the same, only what happens takes it on.
        let due = self.due(&attempt);
        if waits && due > self.now {
            self.actions.push(Action::Wake(due));
        }
        if let Some(until) = until {
            self.actions.push(Action::Wake(until));
        }
        if !self.seen.in_the_way.is_empty() {
            self.actions.push(Action::Evict(self.seen.in_the_way.clone()));
        }
        self.state.attempt = Some(attempt);
    }

    fn pause(&mut self, rollout: &mut RolloutStatus, reason: &str, object: &str, message: &str) {
        let known = rollout.paused.as_ref().is_some_and(|p| p.reason == reason && p.object == object);
        if !known {
            let warning = reason != AWAITS && reason != BY_HAND;
            self.notify(warning, reason, object, message.to_owned());
            rollout.paused =
                Some(Problem { reason: reason.into(), object: object.into(), message: message.into() });
        }
    }

    /// What is told of a layout that was not in effect in time.
    fn not_in_time(&self, health: &Health) -> Problem {
        match health {
            Health::Progressing(p) | Health::Degraded(p) | Health::Broken(p) => {
                Problem { object: p.object.clone(), ..self.timed_out(p.message.clone()) }
            }
            _ => self.timed_out("its objects were not seen".into()),
        }
    }

    /// What people ask of a rollout by annotation; see [`crate::api::names::ROLLOUT_REQUEST`].
    pub(super) fn rollout_requests(&mut self) {
        let Some(text) = self.seen.rollout.clone() else { return };
        if self.state.handled_rollout.as_ref() == Some(&text) {
            return;
        }
        self.state.handled_rollout = Some(text.clone());
        let mut parts = text.splitn(4, ':');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (verb, commit, _, user) = (part(), part(), part(), part());
        let who = if user.is_empty() { "a person".to_owned() } else { user };
        let refuse = |machine: &mut Self, why: String| {
            machine.notify(true, "RolloutRequestRefused", "", format!("{verb} by {who}: {why}"));
        };
        if verb == "retry" {
            let meant = |held: &crate::api::delivery::Held| {
                !commit.is_empty() && held.revision.commit.starts_with(&commit)
            };
            return match self.state.held.take_if(|held| meant(held)) {
                Some(held) => {
                    let told = format!("{} is tried again, as {who} asked", held.revision);
                    self.notify(false, "Released", "", told);
                }
                None => refuse(self, format!("no revision is held whose commit begins with \"{commit}\"")),
            };
        }
        let under_way = |a: &Attempt| {
            a.goal == Goal::Deploy && !commit.is_empty() && a.revision.commit.starts_with(&commit)
        };
        let Some((attempt, mut rollout)) = self
            .state
            .attempt
            .clone()
            .filter(under_way)
            .and_then(|a| a.rollout.clone().map(|rollout| (a, rollout)))
        else {
            return refuse(self, format!("no revision is rolled out whose commit begins with \"{commit}\""));
        };
        let told = |what: &str| format!("{who} {what} the rollout of {}", attempt.revision);
        match verb.as_str() {
            "promote" => {
                self.notify(false, "Promoted", "", told("lets go on"));
                (rollout.go, rollout.paused) = (true, None);
            }
            "promote-full" => {
                self.notify(false, "Promoted", "", told("promotes"));
                (rollout.full, rollout.paused) = (true, None);
            }
            "pause" => {
                self.notify(false, BY_HAND, "", told("pauses"));
                (rollout.go, rollout.full) = (false, false);
                rollout.paused = Some(Problem {
                    reason: BY_HAND.into(),
                    object: String::new(),
                    message: format!("{who} paused it; windlass resume goes on"),
                });
            }
            "resume" => {
                self.notify(false, "Resumed", "", told("resumes"));
                rollout.paused = None;
            }
            "abort" => {
                let problem = Problem {
                    reason: ABORTED.into(),
                    object: String::new(),
                    message: format!("{who} aborted its rollout"),
                };
                return self.fail(attempt, problem);
            }
            _ => {
                return refuse(
                    self,
                    "the verb is one of promote, promote-full, pause, resume, abort and retry".into(),
                );
            }
        }
        self.state.attempt = Some(Attempt { rollout: Some(rollout), ..attempt });
    }
}

/// What the cluster is to be made like for an attempt.
pub fn staging(attempt: &Attempt, effective: Option<&Revision>, spec: &Spec) -> Staging {
    let Some(rollout) = attempt.rollout.as_ref().filter(|r| r.stage != Stage::Returning) else {
        return Staging::Whole;
    };
    let stable = match attempt.goal {
        Goal::Rollback => Some(attempt.revision.clone()),
        Goal::Deploy | Goal::Refresh => effective.cloned(),
    };
    let Some(stable) = stable.filter(|_| spec.rollout.is_some()) else { return Staging::Whole };
    Staging::Staged(Box::new(Staged {
        stable,
        candidate: rollout.candidate.clone(),
        over: takes_over(attempt).cloned(),
        layout: match rollout.stage {
            Stage::Draining => rollout.layout.without_traffic(),
            _ => rollout.layout.clone(),
        },
        sizes: rollout.sizes.clone(),
        making: Making::of(rollout),
        others_route: rollout.others_route,
    }))
}

/// The revision of an attempt, where a candidate of another one has traffic until it is in place.
pub fn takes_over(attempt: &Attempt) -> Option<&Revision> {
    let rollout = attempt.rollout.as_ref().filter(|_| attempt.goal != Goal::Rollback)?;
    let of = |r: &Revision| (r.commit.clone(), r.inputs.clone());
    (of(&rollout.candidate) != of(&attempt.revision)).then_some(&attempt.revision)
}

/// What there is of the rollout of an attempt that ends before its time. A candidate that is being removed already gets no traffic
/// again.
pub(super) fn what_is_left(attempt: &Attempt) -> Option<RolloutStatus> {
    let rollout = attempt.rollout.clone()?;
    Some(match attempt.step {
        Step::Pruning => RolloutStatus { layout: rollout.layout.without_traffic(), ..rollout },
        _ => rollout,
    })
}

/// What is to be measured in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Measuring {
    /// Names the step: what was measured in another says nothing about it.
    pub key: String,
    /// What, how often, and what it has to be.
    pub policy: AnalysisPolicy,
    /// Whether it is what the step is about.
    pub kind: StepKind,
    /// When the step was in effect.
    pub since: Timestamp,
}

/// What is to be measured where a rollout stands; `None` where nothing is.
pub fn measuring(revision: &Revision, rollout: &RolloutStatus, steps: &Steps) -> Option<Measuring> {
    let since = read_stamp(rollout.settled.as_deref()?).max(read_stamp(&rollout.since));
    let planned = steps.all.get(rollout.at as usize).filter(|p| p.stage == rollout.stage)?;
    let (policy, kind) = steps.measured(planned).0?;
    let key = format!("{}:{}:{}", revision.commit, rollout.at, rollout.since);
    Some(Measuring { key, policy, kind, since })
}

/// What could not be measured for a while can be again.
fn unpause_measured(rollout: &mut RolloutStatus) {
    let by_measuring = |p: &Problem| [NO_DATA, ERROR, INCONCLUSIVE].contains(&p.reason.as_str());
    rollout.paused = rollout.paused.take().filter(|p| !by_measuring(p));
}

fn is_workload(problem: &Problem) -> bool {
    WORKLOADS.iter().any(|kind| problem.object.starts_with(kind))
}

fn is_route(problem: &Problem) -> bool {
    ROUTES.iter().any(|kind| problem.object.starts_with(kind))
}
