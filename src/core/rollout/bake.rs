//! Watching on after success (`rollback.bake`): a revision that loses its health within that time is rolled back like
//! any other that failed.
//!
//! What is broken beyond doubt is enough at once, but for a deadline of its own controller that passed. What is only not
//! healthy gets the time that a revision gets to become healthy, for pods are restarted and moved all the time. What a
//! lost node, an eviction or somebody's change explains ([`Observation::disturbed`](super::Observation::disturbed))
//! counts for nothing, however long it lasts: the last good revision would be hit the same way. Until the pods are seen
//! that could tell ([`Observation::pods_unseen`](super::Observation::pods_unseen)), nothing is held against it. The
//! watch ends in health that was seen, never by time alone.
//!
//! While objects that left Git are being removed, the revision is still an attempt, and is looked after as one.

use super::next::Machine;
use super::{Action, Health, read_stamp, stamp};
use crate::api::delivery::{Attempt, Bake, Goal, Outcome, Problem, Revision, RollbackMode, Step};
use jiff::SignedDuration;

/// What a Deployment says whose time is up. It counts the time in which its node was lost, and goes on saying it until the
/// pod that replaces the lost one is ready: a matter of time here, too.
const TIME_UP: &str = "ProgressDeadlineExceeded";

impl Machine<'_> {
    /// A revision succeeded: it is watched on, if there is one to go back to.
    pub(super) fn begin_bake(&mut self, attempt: &Attempt, before: Option<Revision>) {
        self.state.bake = None;
        let differs =
            |b: &Revision| b.inputs != attempt.revision.inputs || b.settings != attempt.revision.settings;
        if attempt.goal == Goal::Rollback || !self.bakes() {
            return;
        }
        self.state.bake = before.filter(differs).map(|good| Bake {
            goal: attempt.goal,
            good,
            since: attempt.started_at.clone(),
            until: stamp(self.now + self.spec.bake),
            lost_at: None,
            problem: None,
            excused: attempt.rollout.as_ref().map(|r| r.excused.clone()).unwrap_or_default(),
        });
    }

    fn bakes(&self) -> bool {
        self.spec.bake > SignedDuration::ZERO && self.spec.rollback != RollbackMode::Off
    }

    /// A newer revision takes the place of one that is watched on. Where that one was not healthy any more, it is not
    /// what is gone back to should the newer one fail as well.
    pub(super) fn end_bake_for_newer(&mut self) {
        let Some(bake) = self.state.bake.take() else { return };
        let well = match self.seen.health {
            Health::Healthy => true,
            Health::Unknown => bake.lost_at.is_none(),
            Health::Progressing(_) | Health::Degraded(_) | Health::Broken(_) => {
                self.seen.disturbed.is_some() || self.seen.pods_unseen && bake.lost_at.is_none()
            }
        };
        if well {
            return;
        }
        if let Some(effective) = self.state.effective.replace(bake.good) {
            self.remember(effective, Outcome::Superseded, bake.problem);
        }
    }

    /// Looks after the effective revision while it is watched on.
    pub(super) fn bake(&mut self) {
        let Some(mut bake) = self.state.bake.take() else { return };
        let Some(effective) = self.state.effective.clone() else { return };
        if !self.bakes() {
            return self.actions.push(Action::Keep(effective));
        }
        let until = read_stamp(&bake.until);
        let problem = match &self.seen.health {
            Health::Healthy if until <= self.now => return self.actions.push(Action::Keep(effective)),
            Health::Healthy => {
                bake.lost_at = None;
                bake.problem = None;
                self.actions.push(Action::Wake(until));
                self.state.bake = Some(bake);
                return;
            }
            // After its time, too: health has to be seen.
            Health::Unknown => {
                if until > self.now {
                    self.actions.push(Action::Wake(until));
                }
                self.state.bake = Some(bake);
                return;
            }
            Health::Progressing(p) | Health::Degraded(p) | Health::Broken(p) => p.clone(),
        };
        if let Some(disturbed) = &self.seen.disturbed {
            bake.lost_at = None;
            note(&mut bake, disturbed);
            self.state.bake = Some(bake);
            return;
        }
        // The watch of the pods wakes us.
        if self.seen.pods_unseen {
            self.state.bake = Some(bake);
            return;
        }
        if matches!(&self.seen.health, Health::Broken(p) if p.reason != TIME_UP) {
            return self.lose(bake, effective, problem);
        }
        let lost_at = bake.lost_at.as_deref().map_or(self.now, read_stamp);
        let deadline = lost_at + self.spec.timeout;
        if deadline <= self.now {
            let message = format!(
                "was healthy and has not been for {}: {}",
                crate::api::Duration(self.spec.timeout.unsigned_abs()),
                problem.message
            );
            let problem = Problem { reason: "HealthLost".into(), message, ..problem };
            return self.lose(bake, effective, problem);
        }
        if bake.lost_at.is_none() {
            bake.lost_at = Some(stamp(self.now));
        }
        note(&mut bake, &problem);
        self.state.bake = Some(bake);
        self.actions.push(Action::Wake(deadline));
    }

    /// What broke in a revision that was healthy, while what left Git is still being removed: a finalizer that nobody takes off may
    /// hold that up for ever. What is only not healthy had its time, and pods are restarted and moved all the time.
    pub(super) fn lost_while_pruning(&self, attempt: &Attempt) -> Option<Problem> {
        let explained = self.seen.disturbed.is_some() || self.seen.pods_unseen;
        match self.health_that_counts(attempt) {
            Health::Broken(p) if attempt.step == Step::Pruning && !explained && p.reason != TIME_UP => {
                Some(p.clone())
            }
            _ => None,
        }
    }

    fn lose(&mut self, bake: Bake, revision: Revision, problem: Problem) {
        self.hooks_after_loss(&revision);
        self.state.effective = Some(bake.good.clone());
        self.go_back(bake.goal, revision, bake.good, problem, None);
        if let Some(attempt) = &mut self.state.attempt {
            attempt.excused = bake.excused;
        }
    }
}

/// Counts in a message change all the time; status is not written for each.
fn note(bake: &mut Bake, problem: &Problem) {
    let same = |p: &Problem| p.reason == problem.reason && p.object == problem.object;
    if !bake.problem.as_ref().is_some_and(same) {
        bake.problem = Some(problem.clone());
    }
}
