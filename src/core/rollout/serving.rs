//! Requests are not left with a candidate that has no pod to answer them while stable has.
//!
//! Time heals many a pod, and the time for that is `timeout`; but as long as requests are sent to a candidate, each of them fails
//! until then. So the moment is noted in which none of its pods is ready any more while every workload that is rolled out has
//! some that are under its name in Git, and once that has lasted for [`GRACE`] (or for `settle`, where that is longer) its
//! traffic goes there. What begins anew in between, such as one pod that is restarted, is forgotten. What becomes of the
//! candidate depends on what stands under the names of Git:
//!
//! | stage | what is there | what happens |
//! |---|---|---|
//! | `Starting` | stable, untouched | nothing: nothing is sent to the candidate yet, and its pods have their time |
//! | `Stepping`, `Switching` | stable, untouched | the revision has failed: traffic to stable, candidate removed, held; also where it is paused |
//! | `Promoting` | pods of both templates, the old ones until the new ones are ready | traffic to them, at once instead of once all are new. Whether the new ones get healthy decides about the revision as before |
//! | `Restoring` | the same, on the way back | traffic to them; the rollback goes on |
//! | `Draining`, `Returning` | | nothing: traffic has left, or is about to |
//!
//! Traffic never leaves a candidate for pods that are not ready: where stable has none, nothing is noted. So it is where a
//! candidate has some pods and others fail, which is what its health and its metrics are for.

use super::next::Machine;
use super::{Action, UNREADY, read_stamp, stamp};
use crate::api::delivery::{Goal, Problem};
use crate::api::rollout::Stage;
use jiff::SignedDuration;

/// How long it lasts at least: a pod that is restarted or moved is ready again by then more often than not.
pub(super) const GRACE: SignedDuration = SignedDuration::from_secs(10);

impl Machine<'_> {
    /// Notes whether requests that are sent to the candidate find no pod, and takes them to where they find some once that has
    /// lasted. Answers whether it did.
    pub(super) fn leave_unready(&mut self) -> bool {
        let grace = self.settle_time().max(GRACE);
        let Some(attempt) = &mut self.state.attempt else { return false };
        let goal = attempt.goal;
        let Some(rollout) = &mut attempt.rollout else { return false };
        let untouched = match (rollout.stage, goal) {
            (Stage::Stepping | Stage::Switching, Goal::Deploy | Goal::Refresh) => true,
            (Stage::Promoting | Stage::Restoring, _) => false,
            _ => {
                rollout.unready = None;
                return false;
            }
        };
        let unready = self.seen.variants.unready.as_ref().filter(|_| rollout.layout.has_traffic());
        let Some(unready) = unready else {
            rollout.unready = None;
            return false;
        };
        let since = read_stamp(rollout.unready.get_or_insert_with(|| stamp(self.now)));
        let until = since + grace;
        if until > self.now {
            self.actions.push(Action::Wake(until));
            return false;
        }
        let lasted = crate::api::Duration(grace.unsigned_abs());
        let problem = Problem {
            reason: UNREADY.into(),
            object: unready.object.clone(),
            message: format!("{}, for {lasted} now, while requests are sent to it", unready.message),
        };
        let Some(mut attempt) = self.state.attempt.clone() else { return false };
        match untouched {
            true => self.fail(attempt, problem),
            false => {
                let told = format!("{}; traffic goes to the pods under the stable names", problem.message);
                self.notify(true, UNREADY, &problem.object, told);
                let Some(rollout) = attempt.rollout.take() else { return false };
                self.give_back(attempt, rollout);
            }
        }
        true
    }
}
