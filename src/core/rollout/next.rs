//! The transitions.

use super::hooks::Gate;
use super::progress::{ABORTED, takes_over, what_is_left};
use super::put_back::missing;
use super::{
    Action, ApplyEnd, Begin, Decision, HISTORY, Health, Notice, Observation, Refusal, Spec, State, Target,
    back_off, quiet, read_stamp, stamp,
};
use crate::api::delivery::{
    Attempt, DeletionPolicy, Failure, FirstRevision, Goal, Held, HistoryEntry, InventoryEntry, Outcome,
    Problem, Revision, RollbackMode, Step,
};
use crate::api::hook::HookPoint;
use crate::api::rollout::RolloutStatus;
use jiff::{SignedDuration, Timestamp};

/// How soon what a finalizer holds, and what is deleted again and again, is looked at again at first.
pub(super) const SOON: SignedDuration = SignedDuration::from_secs(1);

/// Retries after which something that should pass by itself is told to people.
pub(super) const PATIENCE: u32 = 3;

/// One step in the life of a Delivery: what its state is now, and what is to be done. The state must be written
/// before the actions are performed.
pub fn next(spec: &Spec, state: &State, seen: &Observation, now: Timestamp) -> Decision {
    let mut machine = Machine { spec, seen, now, state: state.clone(), actions: Vec::new() };
    machine.run();
    if !seen.deleting {
        machine.remember_removed(&state.inventory);
    }
    Decision { state: machine.state, actions: machine.actions }
}

pub(super) struct Machine<'a> {
    pub(super) spec: &'a Spec,
    pub(super) seen: &'a Observation,
    pub(super) now: Timestamp,
    pub(super) state: State,
    pub(super) actions: Vec<Action>,
}

impl Machine<'_> {
    fn run(&mut self) {
        if self.seen.deleting {
            self.state.waiting = None;
            if self.seen.dependent.is_none() && self.delete_hooks() {
                self.delete();
            }
            return;
        }
        self.note_revert();
        if self.spec.suspend {
            self.state.waiting = None;
            return;
        }
        if self.state.attempt.is_none()
            && let Some(corrected) = &self.seen.corrected
        {
            self.state.inventory = corrected.clone();
        }
        self.distrust_times();
        self.note_hooks();
        self.requests();
        self.rollback_request();
        self.rollout_requests();
        match self.wanted() {
            Some((goal, revision)) => self.begin(goal, revision),
            // Until Git was read, what was waited for stands.
            None if self.seen.target != Target::Unknown => self.state.waiting = None,
            None => {}
        }
        // What is under way rests for the moment in which a newer revision is prepared: only one is worked on, and a plan must
        // not be out of date before it is used.
        let preparing = self.prepares();
        if self.state.attempt.is_some() {
            if !preparing {
                self.proceed();
            }
        } else if !preparing
            && self.seen.correctable > 0
            && !self.has_lost_its_objects()
            && let Some(effective) = &self.state.effective
        {
            self.actions.push(Action::Correct(effective.clone()));
        }
        // Also in the moment in which a revision has come to its end.
        if self.state.attempt.is_none() && !preparing {
            self.rollback_request();
        }
        if self.state.attempt.is_none() && !preparing {
            self.bake();
            self.revert();
        }
        self.settle_hooks();
        self.late();
        // Who waits for a request reads the phase then: it must tell what the request led to.
        if !self.prepares() {
            self.state.handled_request = self.seen.reconcile.clone();
        }
    }

    fn prepares(&self) -> bool {
        self.actions.iter().any(|a| matches!(a, Action::Prepare(..)))
    }

    fn delete(&mut self) {
        if self.state.inventory.is_empty() {
            return self.actions.push(Action::RemoveFinalizer);
        }
        if self.spec.deletion == DeletionPolicy::Orphan {
            self.actions.push(Action::OrphanAll);
            return self.actions.push(Action::RemoveFinalizer);
        }
        match &self.seen.pruned {
            None if self.failure_rests() => self.wake_for_failure(),
            None => self.actions.push(Action::PruneAll),
            Some(pruned) => {
                self.state.inventory = pruned.inventory.clone();
                match &pruned.refusal {
                    None => self.actions.push(Action::RemoveFinalizer),
                    Some(refusal) if refusal.transient => {
                        let retries = self.state.failure.as_ref().map_or(0, |f| f.retries + 1);
                        // Most finalizers let go at once.
                        let at = self.now + back_off(self.spec.retry_interval.min(SOON), retries);
                        if retries == PATIENCE {
                            self.notify(
                                true,
                                "PruneFailed",
                                &refusal.problem.object,
                                refusal.problem.message.clone(),
                            );
                        }
                        self.state.failure = Some(Failure {
                            revision: None,
                            problem: refusal.problem.clone(),
                            transient: refusal.transient,
                            retries,
                            retry_at: stamp(at),
                        });
                        self.wake_for_failure();
                    }
                    // Nothing will ever remove them: a deleted service account, a right that was taken away. The
                    // Delivery must not hang for ever on that.
                    Some(refusal) => {
                        self.notify(
                            true,
                            "Orphaned",
                            &refusal.problem.object,
                            format!(
                                "{} objects stay in the cluster: {}",
                                pruned.inventory.len(),
                                refusal.problem.message
                            ),
                        );
                        self.actions.push(Action::RemoveFinalizer);
                    }
                }
            }
        }
    }

    /// What people asked for by annotation.
    fn requests(&mut self) {
        if self.seen.reconcile != self.state.handled_request {
            // What rests until it is tried again is due now.
            self.state.failure = None;
            match &mut self.state.attempt {
                Some(attempt) if attempt.step == Step::Failed => {
                    let (goal, revision) = (attempt.goal, attempt.revision.clone());
                    self.start(goal, revision);
                }
                _ => self.retry_now(),
            }
        }
        if let Some(release) = &self.seen.release
            && self.state.handled_release.as_ref() != Some(release)
        {
            self.state.handled_release = Some(release.clone());
            // The value is `<commit>` or `<commit>/<anything>`: one that was meant for an earlier hold releases no other.
            let commit = release.split('/').next().unwrap_or_default();
            let meant = |held: &Held| !commit.is_empty() && held.revision.commit.starts_with(commit);
            match self.state.held.take_if(|held| meant(held)) {
                Some(held) => self.notify(
                    false,
                    "Released",
                    "",
                    format!("{} was released and is tried again", held.revision),
                ),
                None => self.notify(
                    true,
                    "ReleaseRefused",
                    "",
                    format!("no revision is held whose commit begins with \"{commit}\""),
                ),
            }
        }
    }

    /// What rests until it is tried again is due now.
    fn retry_now(&mut self) {
        if let Some(attempt) = &mut self.state.attempt
            && attempt.retry_at.as_deref().is_some_and(|at| read_stamp(at) > self.now)
        {
            attempt.retry_at = Some(stamp(self.now));
        }
    }

    /// Goes back to a revision that ran before, as a person asked by annotation. A rollout is left first, as for a newer revision: the
    /// revision that ran until now has the traffic again, and what was asked for comes after it. Until then it stays unanswered.
    fn rollback_request(&mut self) {
        let Some(rollback) = self.seen.rollback.clone() else { return };
        if self.state.handled_rollback.as_ref() == Some(&rollback) {
            return;
        }
        if self.has_lost_its_objects() {
            let told = format!(
                "a rollback to {rollback} was asked for, and none of this Delivery's objects is known any more, so what to \
                 remove cannot be told; nothing was changed. `windlass adopt` it first, and ask again"
            );
            self.state.handled_rollback = Some(rollback);
            return self.notify(true, "RollbackRefused", "", told);
        }
        // The value is `<commit>` or `<commit>/<anything>`, so that the same commit can be asked for again.
        let commit = rollback.split('/').next().unwrap_or_default();
        let good = self.state.history.iter().find(|h| {
            !commit.is_empty()
                && h.revision.commit.starts_with(commit)
                && matches!(h.outcome, Outcome::Deployed | Outcome::Restored)
        });
        let Some(good) = good.map(|h| h.revision.clone()) else {
            let told = format!("no revision of the history that was deployed begins with {commit}");
            self.state.handled_rollback = Some(rollback);
            return self.notify(true, "RollbackRefused", "", told);
        };
        let is_good = |r: &Revision| r.inputs == good.inputs && r.settings == good.settings;
        let brings_back =
            |a: &Attempt| a.goal == Goal::Rollback && a.rollout.is_some() && is_good(&a.revision);
        let is_on_its_way = self.state.attempt.as_ref().is_some_and(brings_back);
        let by_hand = Problem {
            reason: "RolledBackByHand".into(),
            object: String::new(),
            message: format!("a person asked to go back to {good}"),
        };
        // Where Git was not read, what it wanted last is what is being put in place, or what is held.
        let under_way = self.state.attempt.as_ref().filter(|a| a.goal == Goal::Deploy).map(|a| &a.revision);
        let held = self.state.held.as_ref().map(|held| &held.revision);
        let target = match &self.seen.target {
            Target::Known(target) => Some(target.clone()),
            _ => under_way.or(held).or(self.state.effective.as_ref()).cloned(),
        };
        // Who asks for a revision wants it held no longer.
        self.state.held.take_if(|held| held.revision.inputs == good.inputs);
        // What Git wanted when it was asked: what comes while that waits was not meant. What is being brought back is held when that is
        // over.
        let is_known = self.state.held.as_ref().is_some_and(|held| held.problem == by_hand);
        let waits = self.is_leaving() && !is_on_its_way;
        let comes =
            self.state.attempt.as_ref().filter(|_| waits).map(|attempt| attempt.revision.inputs.clone());
        let is_meant =
            |t: &Revision| t.inputs != good.inputs && !is_known && Some(&t.inputs) != comes.as_ref();
        if let Some(target) = target.filter(is_meant) {
            self.hold(target, by_hand.clone());
        }
        if waits {
            return;
        }
        if is_on_its_way {
            self.state.handled_rollback = Some(rollback);
            return self.retry_now();
        }
        let old = self.state.attempt.take();
        if let Some(old) = &old
            && old.goal == Goal::Deploy
            && old.step != Step::Failed
        {
            self.remember(old.revision.clone(), Outcome::Superseded, Some(by_hand));
        }
        let left = old.as_ref().and_then(|old| old.rollout.clone());
        let runs = self.state.effective.as_ref().is_some_and(is_good);
        if let Some(old) = old
            && self.leave_rollout(old)
        {
            // Nothing more comes after it.
            if runs {
                self.state.handled_rollback = Some(rollback);
            }
            return;
        }
        self.state.handled_rollback = Some(rollback);
        self.state.bake = None;
        self.state.effective = Some(good.clone());
        self.start_rollback(good);
        self.mind_what_was_left(left);
        self.prepare_attempt();
    }

    /// The revision that should be put in place and is not under way, if there is one.
    fn wanted(&mut self) -> Option<(Goal, Revision)> {
        let target = match &self.seen.target {
            Target::Known(target) => target.clone(),
            Target::Failed(problem) => {
                let known = self.state.failure.as_ref().is_some_and(|f| f.problem == *problem);
                // Also beside an older revision that is under way or failed: Git may want another one by now.
                if !known {
                    self.state.failure = None;
                    self.fail_to_begin(None, &Refusal { problem: problem.clone(), transient: true });
                }
                // Nobody tells when a setting that was missing is there.
                self.actions.push(Action::Wake(self.now + self.spec.retry_interval));
                return None;
            }
            Target::Unknown => return None,
        };
        // Where only the settings were to blame, other settings are a new revision like any other.
        let to_blame = |held: &Held| {
            let same_bundle = self.state.effective.as_ref().is_some_and(|e| e.inputs == held.revision.inputs);
            !same_bundle || held.revision.settings == target.settings
        };
        if let Some(held) = &self.state.held
            && held.revision.inputs == target.inputs
            && to_blame(held)
        {
            let effective = self.state.effective.as_ref()?;
            if self.state.attempt.is_some() {
                return None;
            }
            if self.has_lost_its_objects() {
                return Some((Goal::Refresh, effective.clone()));
            }
            if effective.settings == target.settings || held.revision.inputs == effective.inputs {
                self.state.failure = None;
                return None;
            }
            let refreshed = Revision { settings: target.settings, ..effective.clone() };
            // Settings that broke it would break it again.
            let broke = |h: &HistoryEntry| h.outcome == Outcome::RolledBack && h.revision == refreshed;
            if self.state.history.iter().any(broke) {
                return None;
            }
            return Some((Goal::Refresh, refreshed));
        }
        let same = |r: &Revision| r.inputs == target.inputs && r.settings == target.settings;
        match &self.state.attempt {
            Some(attempt) if attempt.goal != Goal::Refresh && same(&attempt.revision) => {
                // Git went back to the revision that a rollback is bringing back: nothing is held then.
                if attempt.goal == Goal::Rollback {
                    self.state.held = None;
                }
                self.state.failure = None;
                None
            }
            Some(_) => Some((Goal::Deploy, target)),
            None if self.state.effective.as_ref().is_some_and(same) && !self.has_lost_its_objects() => {
                self.state.held = None;
                self.state.failure = None;
                None
            }
            None => Some((Goal::Deploy, target)),
        }
    }

    /// A revision is in place, and none of its objects is known: somebody emptied the inventory. It is begun once more, which is
    /// refused (`InventoryLost`) until a person says whose the objects are.
    fn has_lost_its_objects(&self) -> bool {
        self.state.effective.is_some() && self.state.attempt.is_none() && self.state.inventory.is_empty()
    }

    /// Begins a revision once it is prepared; until then whatever is under way goes on.
    fn begin(&mut self, goal: Goal, revision: Revision) {
        if !self.may_begin(goal, &revision) {
            return;
        }
        if self.state.failure.as_ref().is_some_and(|f| f.revision.as_ref() != Some(&revision)) {
            self.state.failure = None;
        }
        // Traffic is being taken back from a candidate: that comes first, and takes no longer than its time.
        if self.is_leaving() {
            return;
        }
        let for_it =
            |p: &&super::Prepared| p.revision == revision && (p.begin.is_some() || p.outcome.is_err());
        let prepared = self.seen.prepared.as_ref().filter(for_it);
        match prepared.map(|p| &p.outcome) {
            None if self.failure_rests() => self.wake_for_failure(),
            None => self.actions.push(Action::Prepare(revision, goal, None)),
            Some(Err(refusal)) => {
                self.fail_to_begin(Some(revision), refusal);
                self.wake_for_failure();
            }
            Some(Ok(inventory)) => {
                let begin = prepared.and_then(|p| p.begin.clone());
                let before = self.state.attempt.take();
                if let Some(old) = &before
                    && old.goal == Goal::Deploy
                    && old.step != Step::Failed
                {
                    self.remember(old.revision.clone(), Outcome::Superseded, None);
                }
                let left = before.as_ref().and_then(|old| old.rollout.clone());
                // Where what was there before could not be brought back, the newest takes its place, unless that is it.
                let is_good =
                    self.state.effective.as_ref().is_some_and(|good| good.inputs == revision.inputs);
                if let Some(old) = before
                    && (is_good || takes_over(&old).is_none())
                    && self.leave_rollout(old)
                {
                    return;
                }
                if goal == Goal::Deploy {
                    self.state.held = None;
                }
                self.state.failure = None;
                self.end_bake_for_newer();
                match begin {
                    // Where a candidate has traffic still, no other takes its place.
                    Some(Begin::Rollout { why, known }) if left.is_none() => {
                        self.start_rollout(revision, &why, known, inventory)
                    }
                    _ => {
                        self.start(goal, revision);
                        match self.mind_what_was_left(left) {
                            // Beside a candidate it is another layout.
                            true => self.prepare_attempt(),
                            false => self.state.inventory = inventory.clone(),
                        }
                    }
                }
            }
        }
    }

    pub(super) fn start(&mut self, goal: Goal, revision: Revision) {
        self.state.attempt = Some(Attempt {
            goal,
            revision,
            step: Step::Applying,
            started_at: stamp(self.now),
            deadline: stamp(self.now + self.spec.timeout),
            retries: 0,
            overwritten: 0,
            excused: Vec::new(),
            retry_at: None,
            problem: None,
            rollout: None,
        });
    }

    /// Takes the attempt on as far as what was seen allows.
    fn proceed(&mut self) {
        if self.leave_unready() {
            return;
        }
        let Some(attempt) = self.state.attempt.clone() else { return };
        if let Some(at) = &attempt.retry_at
            && read_stamp(at) > self.now
            && self.lost_while_pruning(&attempt).is_none()
        {
            return self.actions.push(Action::Wake(read_stamp(at)));
        }
        match attempt.step {
            Step::Applying => self.applying(attempt),
            Step::Waiting => self.waiting(attempt),
            Step::Pruning => self.pruning(attempt),
            Step::Removing => self.removing(attempt),
            // What was refused is tried again when that is due, and what was only not healthy may become so.
            Step::Failed if attempt.retry_at.is_some() => {
                let deadline = stamp(self.now + self.spec.timeout);
                let again = Attempt { step: Step::Applying, deadline, ..attempt };
                self.state.attempt = Some(again.clone());
                self.applying(again);
            }
            Step::Failed => {
                if self.seen.health == Health::Healthy && !self.hook_failed(&attempt) {
                    // What comes after the apply has its time still.
                    let deadline = stamp(self.now + self.spec.timeout);
                    self.waiting(Attempt { step: Step::Waiting, deadline, ..attempt });
                }
            }
        }
    }

    fn applying(&mut self, mut attempt: Attempt) {
        // What is tried again is planned and applied again: what came of it before says nothing.
        let since = attempt.retry_at.as_deref().map(read_stamp);
        let fresh = |at: Timestamp| since.is_none_or(|since| at >= since);
        // Nor does what came of an earlier attempt at the same revision: its hooks run again.
        let begun = read_stamp(&attempt.started_at);
        let staging = self.staging(&attempt);
        let of_attempt = |a: &&super::Applied| {
            a.revision == attempt.revision && a.staging == staging && a.at >= begun && fresh(a.at)
        };
        let applied = self.seen.applied.as_ref().filter(of_attempt);
        if let Some(applied) = applied {
            match &applied.end {
                ApplyEnd::Done => {
                    let quiet_until =
                        quiet::until(applied.at, &self.seen.health, read_stamp(&attempt.deadline));
                    let settled = !matches!(self.seen.health, Health::Unknown | Health::Progressing(_));
                    if settled || quiet_until <= self.now {
                        self.state.inventory = applied.inventory.clone();
                        return self.waiting(attempt);
                    }
                    self.actions.push(Action::Wake(quiet_until));
                }
                ApplyEnd::Blocked(message) => {
                    self.state.inventory = applied.inventory.clone();
                    if let Health::Broken(problem) = self.health_that_counts(&attempt) {
                        let problem = problem.clone();
                        return self.fail(attempt, problem);
                    }
                    if self.time_is_up(&mut attempt) {
                        let problem = self.timed_out(message.clone());
                        return self.fail(attempt, problem);
                    }
                    self.actions.push(Action::Wake(self.due(&attempt)));
                    self.state.attempt = Some(attempt);
                }
                ApplyEnd::Failed(refusal) => {
                    self.state.inventory = applied.inventory.clone();
                    self.refused(attempt, refusal);
                }
            }
            return;
        }
        let for_it = |p: &&super::Prepared| {
            p.revision == attempt.revision && (p.staging == staging || p.outcome.is_err()) && fresh(p.at)
        };
        let prepared = self.seen.prepared.as_ref().filter(for_it);
        match prepared.map(|p| &p.outcome) {
            None => {
                self.actions.push(Action::Prepare(attempt.revision.clone(), attempt.goal, Some(staging)));
                self.state.attempt = Some(attempt);
            }
            Some(Ok(inventory)) => {
                self.state.inventory = inventory.clone();
                self.note_exceptions(attempt.goal);
                self.plan_hooks(&attempt);
                match self.gate(HookPoint::BeforeApply, &attempt) {
                    Gate::Open => {
                        self.actions.push(Action::Apply(attempt.revision.clone(), attempt.goal, staging));
                        self.state.attempt = Some(attempt);
                    }
                    Gate::Closed => {}
                    Gate::Failed(problem) => self.fail(attempt, problem),
                }
            }
            Some(Err(refusal)) => self.refused(attempt, refusal),
        }
    }

    /// The attempt cannot go on: it is tried again if that may help and there is time, and fails otherwise.
    fn refused(&mut self, mut attempt: Attempt, refusal: &Refusal) {
        // No commit is to blame for it, and a wrong one would be if time went on.
        if [super::SOURCE_UNKNOWN, super::INVALID_RULE].contains(&refusal.problem.reason.as_str()) {
            self.put_off(&mut attempt);
        }
        if !refusal.transient || self.due(&attempt) <= self.now {
            return match self.skip_draining(&attempt) {
                true => {}
                false => self.fail(attempt, refusal.problem.clone()),
            };
        }
        let at =
            self.now + back_off(self.spec.retry_interval.min(SignedDuration::from_secs(2)), attempt.retries);
        attempt.retries += 1;
        attempt.retry_at = Some(stamp(at));
        attempt.problem = Some(refusal.problem.clone());
        self.state.attempt = Some(attempt);
        self.actions.push(Action::Wake(at));
    }

    fn waiting(&mut self, mut attempt: Attempt) {
        self.note_exceptions(attempt.goal);
        self.note_completed();
        if attempt.rollout.is_some() && !self.may_end(&mut attempt) {
            return;
        }
        match &self.seen.health {
            Health::Healthy => {
                if let Some(problem) = self.overwritten(&attempt) {
                    return self.put_back(attempt, &problem);
                }
                if let Some(problem) = self.uncompared(&attempt) {
                    self.actions.push(Action::Wake(self.due(&attempt)));
                    attempt.step = Step::Waiting;
                    attempt.problem = Some(problem);
                    attempt.retry_at = None;
                    self.state.attempt = Some(attempt);
                    return;
                }
                match self.gate(HookPoint::AfterApply, &attempt) {
                    Gate::Open => {}
                    Gate::Closed => {
                        attempt.step = Step::Waiting;
                        attempt.problem = None;
                        attempt.retry_at = None;
                        self.state.attempt = Some(attempt);
                        return;
                    }
                    Gate::Failed(problem) => return self.fail(attempt, problem),
                }
                // What only a commit brought that failed or was overtaken goes, whatever is otherwise left in place.
                let goes = |e: &InventoryEntry| e.stale && (self.spec.prune || !e.kept);
                if self.state.inventory.iter().any(goes) {
                    attempt.step = Step::Pruning;
                    attempt.problem = None;
                    attempt.retry_at = None;
                    self.pruning(attempt);
                } else {
                    self.succeed(attempt);
                }
            }
            Health::Broken(problem) => self.fail(attempt, problem.clone()),
            health => {
                if self.time_is_up(&mut attempt) {
                    let problem = match health {
                        Health::Progressing(p) | Health::Degraded(p) => {
                            Problem { object: p.object.clone(), ..self.timed_out(p.message.clone()) }
                        }
                        _ => self.timed_out("its objects were not seen".into()),
                    };
                    return self.fail(attempt, problem);
                }
                if let Some(gone) = missing(health).cloned() {
                    return self.put_back(attempt, &gone);
                }
                let due = self.due(&attempt);
                attempt.step = Step::Waiting;
                attempt.retry_at = None;
                if *health != Health::Unknown {
                    attempt.problem = None;
                }
                if !self.seen.in_the_way.is_empty() {
                    self.actions.push(Action::Evict(self.seen.in_the_way.clone()));
                }
                self.state.attempt = Some(attempt);
                self.actions.push(Action::Wake(due));
            }
        }
    }

    /// A Job that was seen to complete may be gone when a restarted daemon looks.
    fn note_completed(&mut self) {
        let Some(applied) = &self.seen.applied else { return };
        for entry in self.state.inventory.iter_mut().filter(|e| e.unfinished) {
            let same = |e: &&InventoryEntry| e.uid == entry.uid && e.is(&entry.id());
            if let Some(seen) = applied.inventory.iter().find(same) {
                entry.unfinished = seen.unfinished;
            }
        }
    }

    fn pruning(&mut self, mut attempt: Attempt) {
        if let Some(problem) = self.lost_while_pruning(&attempt) {
            // What was removed meanwhile is known still, and what was not is removed in the end.
            if let Some(pruned) = &self.seen.pruned {
                self.state.inventory = pruned.inventory.clone();
            }
            return self.fail(attempt, problem);
        }
        if let Some(pruned) = &self.seen.pruned {
            let left = pruned.inventory.iter().any(|e| e.stale);
            match &pruned.refusal {
                Some(refusal) => {
                    self.state.inventory = pruned.inventory.clone();
                    if refusal.problem.reason == super::NAMES_CANDIDATE {
                        return self.return_again(attempt, &refusal.problem);
                    }
                    attempt.step = Step::Pruning;
                    return self.prune_again(attempt, refusal);
                }
                // Without pruning, what a rollback leaves is what good revisions had.
                None if !left || !self.spec.prune => {
                    self.state.inventory = pruned.inventory.clone();
                    return self.succeed(attempt);
                }
                None => {}
            }
        }
        if !self.state.inventory.iter().any(|e| e.stale) {
            return self.succeed(attempt);
        }
        attempt.step = Step::Pruning;
        self.state.attempt = Some(attempt);
        self.actions.push(Action::Prune);
    }

    /// An object could not be removed, or a finalizer holds it: tried again, more and more seldom.
    pub(super) fn prune_again(&mut self, mut attempt: Attempt, refusal: &Refusal) {
        let interval = match refusal.transient {
            true => self.spec.retry_interval.min(SOON),
            false => self.spec.retry_interval,
        };
        let at = self.now + back_off(interval, attempt.retries);
        let tell = !refusal.transient || attempt.retries >= PATIENCE;
        if tell && attempt.problem.as_ref() != Some(&refusal.problem) {
            self.notify(true, "PruneFailed", &refusal.problem.object, refusal.problem.message.clone());
            attempt.problem = Some(refusal.problem.clone());
        }
        attempt.retries += 1;
        attempt.retry_at = Some(stamp(at));
        self.state.attempt = Some(attempt);
        self.actions.push(Action::Wake(at));
    }

    fn succeed(&mut self, attempt: Attempt) {
        self.hooks_after_success(&attempt);
        self.state.attempt = None;
        let before = self.state.effective.clone();
        self.begin_bake(&attempt, before);
        for entry in &mut self.state.inventory {
            entry.kept = entry.stale && !self.spec.prune;
            // All that is not stale is healthy: its Jobs have completed.
            entry.unfinished &= entry.stale;
        }
        let revision = attempt.revision;
        if self.state.failure.as_ref().is_some_and(|f| f.revision.as_ref().is_none_or(|r| *r == revision)) {
            self.state.failure = None;
        }
        match attempt.goal {
            Goal::Deploy | Goal::Refresh => {
                if attempt.goal == Goal::Deploy {
                    self.state.except.clear();
                }
                self.notify(false, "Deployed", "", format!("{revision} is deployed and healthy"));
                self.remember(revision.clone(), Outcome::Deployed, None);
            }
            Goal::Rollback => {
                self.notify(false, "RolledBack", "", format!("{revision} is back and healthy"));
                self.remember(revision.clone(), Outcome::Restored, None);
                self.tell_exceptions();
            }
        }
        self.actions.push(Action::Keep(revision.clone()));
        self.state.effective = Some(revision);
    }

    pub(super) fn fail(&mut self, mut attempt: Attempt, problem: Problem) {
        let complete = self
            .seen
            .applied
            .as_ref()
            .is_some_and(|a| a.revision == attempt.revision && a.end == ApplyEnd::Done);
        self.hooks_after_failure(&attempt);
        match attempt.goal {
            Goal::Rollback => {
                // Never in silence, and never given up: the last good bundle is tried again, more and more seldom.
                let at = self.now + back_off(self.spec.retry_interval, attempt.retries);
                self.notify(
                    true,
                    "RollbackFailed",
                    &problem.object,
                    format!("{} could not be brought back: {}", attempt.revision, problem.message),
                );
                attempt.retries += 1;
                attempt.step = Step::Applying;
                attempt.retry_at = Some(stamp(at));
                attempt.deadline = stamp(at + self.spec.timeout);
                attempt.problem = Some(problem);
                self.state.attempt = Some(attempt);
                self.actions.push(Action::Wake(at));
            }
            Goal::Deploy | Goal::Refresh => {
                let revision = attempt.revision.clone();
                // What has a candidate is taken back whatever is asked for: only one of two variants can keep the traffic.
                let mode = match attempt.rollout {
                    Some(_) => RollbackMode::Hold,
                    None => self.spec.rollback,
                };
                let back_to = match (&self.state.effective, mode) {
                    (_, RollbackMode::Off) => None,
                    (Some(effective), RollbackMode::Hold | RollbackMode::Revert) => Some(effective.clone()),
                    (None, _) if self.spec.first_revision == FirstRevision::Remove => {
                        return self.remove_first(attempt, problem);
                    }
                    (None, _) => None,
                };
                let Some(effective) = back_to else {
                    // Told once, however often it is tried again.
                    let told = self.state.history.first().is_some_and(|h| {
                        h.outcome == Outcome::Failed
                            && h.revision == revision
                            && h.problem.as_ref() == Some(&problem)
                    });
                    if !told {
                        self.notify(
                            true,
                            "Failed",
                            &problem.object,
                            format!(
                                "{} ({}) failed and stays in place: {}",
                                revision, revision.subject, problem.message
                            ),
                        );
                        self.remember(revision, Outcome::Failed, Some(problem.clone()));
                    }
                    // Not all of it is in place: it cannot become healthy by waiting.
                    let refused = attempt.step == Step::Applying && !complete && !self.hook_failed(&attempt);
                    attempt.retry_at = refused.then(|| {
                        let at = self.now + back_off(self.spec.retry_interval, attempt.retries);
                        self.actions.push(Action::Wake(at));
                        stamp(at)
                    });
                    attempt.retries += u32::from(refused);
                    attempt.step = Step::Failed;
                    attempt.problem = Some(problem);
                    self.state.attempt = Some(attempt);
                    return;
                };
                let rollout = what_is_left(&attempt);
                self.go_back(attempt.goal, revision, effective, problem, rollout);
            }
        }
    }

    /// A revision failed, and the last good one is brought back.
    pub(super) fn go_back(
        &mut self,
        goal: Goal,
        revision: Revision,
        good: Revision,
        problem: Problem,
        rollout: Option<RolloutStatus>,
    ) {
        self.notify(
            true,
            "RollingBack",
            &problem.object,
            format!(
                "{revision} by {} ({}) failed: {}; going back to {good}",
                revision.author, revision.subject, problem.message
            ),
        );
        self.remember(revision.clone(), Outcome::RolledBack, Some(problem.clone()));
        // Who gives a candidate up has not found that it failed: where stable is ill, its pods are those that are healthy.
        let waits = problem.reason == ABORTED && self.stable_is_ill();
        if goal == Goal::Deploy {
            self.hold(revision, problem);
        } else {
            // The held revision stays the one that failed; the new settings are not tried again, as the history says.
            let refusal = Refusal { problem, transient: true };
            self.set_failure(Some(revision), &refusal, 1);
        }
        self.start_rollback(good);
        if let Some(rollout) = rollout {
            self.take_traffic_back(rollout, waits);
        }
        self.prepare_attempt();
    }

    pub(super) fn start_rollback(&mut self, good: Revision) {
        self.state.except.clear();
        self.start(Goal::Rollback, good);
    }

    pub(super) fn hold(&mut self, revision: Revision, problem: Problem) {
        self.state.held = Some(Held { revision, problem, since: stamp(self.now), revert: None });
    }

    fn fail_to_begin(&mut self, revision: Option<Revision>, refusal: &Refusal) {
        let before = self.state.failure.as_ref();
        let retries = before.map_or(0, |f| f.retries + 1);
        if before.is_none_or(|f| f.problem != refusal.problem) {
            let what = revision.as_ref().map_or_else(String::new, |r| format!("{r}: "));
            self.notify(
                true,
                &refusal.problem.reason,
                &refusal.problem.object,
                format!("{what}{}; nothing was changed", refusal.problem.message),
            );
        }
        self.set_failure(revision, refusal, retries);
    }

    fn set_failure(&mut self, revision: Option<Revision>, refusal: &Refusal, retries: u32) {
        // What a commit got wrong only a commit can mend; it is still looked at now and then, since a webhook or a
        // quota may have changed its mind.
        let interval = if refusal.transient {
            self.spec.retry_interval.min(SignedDuration::from_secs(5))
        } else {
            self.spec.retry_interval
        };
        self.state.failure = Some(Failure {
            revision,
            problem: refusal.problem.clone(),
            transient: refusal.transient,
            retries,
            retry_at: stamp(self.now + back_off(interval, retries)),
        });
    }

    /// Whether a failure is recorded whose time to be tried again has not come.
    fn failure_rests(&self) -> bool {
        self.state.failure.as_ref().is_some_and(|f| read_stamp(&f.retry_at) > self.now)
    }

    fn wake_for_failure(&mut self) {
        if let Some(failure) = &self.state.failure {
            self.actions.push(Action::Wake(read_stamp(&failure.retry_at)));
        }
    }

    pub(super) fn remember(&mut self, revision: Revision, outcome: Outcome, problem: Option<Problem>) {
        let at = stamp(self.now);
        self.state.history.insert(0, HistoryEntry { revision, outcome, at, problem, except: Vec::new() });
        while self.state.history.len() > HISTORY {
            // What a person asked for is kept until that is answered.
            let last = self.state.history.len() - 1;
            let oldest = last - usize::from(self.is_asked_for(&self.state.history[last]));
            self.state.history.remove(oldest);
        }
    }

    fn is_asked_for(&self, entry: &HistoryEntry) -> bool {
        let waits = |asked: &&String| self.state.handled_rollback.as_ref() != Some(asked);
        let commit = self.seen.rollback.as_ref().filter(waits).and_then(|asked| asked.split('/').next());
        commit.is_some_and(|commit| !commit.is_empty() && entry.revision.commit.starts_with(commit))
    }

    pub(super) fn notify(&mut self, warning: bool, reason: &str, object: &str, message: String) {
        self.actions.push(Action::Notify(Notice {
            warning,
            reason: reason.into(),
            object: object.into(),
            message,
        }));
    }
}
