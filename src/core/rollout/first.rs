//! A first revision that fails with `rollback.firstRevision: Remove`: there is nothing to go back to, so what it made is
//! removed, what it adopted is released, and it is held.

use super::Action;
use super::next::Machine;
use crate::api::delivery::{Attempt, Outcome, Problem, Step};

impl Machine<'_> {
    /// The first revision failed: it is taken away.
    pub(super) fn remove_first(&mut self, mut attempt: Attempt, problem: Problem) {
        let revision = &attempt.revision;
        let told = format!(
            "{revision} by {} ({}) failed: {}; it was the first revision and is removed",
            revision.author, revision.subject, problem.message
        );
        self.notify(true, "RollingBack", &problem.object, told);
        self.remember(attempt.revision.clone(), Outcome::RolledBack, Some(problem.clone()));
        for entry in &mut self.state.inventory {
            entry.stale = true;
        }
        self.state.except.clear();
        self.list_exceptions();
        attempt.step = Step::Removing;
        attempt.retries = 0;
        attempt.retry_at = None;
        attempt.problem = Some(problem.clone());
        // Kept through a restart, and what says why when all is gone.
        self.hold(attempt.revision.clone(), problem);
        self.state.attempt = Some(attempt);
        self.actions.push(Action::Prune);
    }

    pub(super) fn removing(&mut self, attempt: Attempt) {
        let Some(pruned) = &self.seen.pruned else {
            return match self.state.inventory.is_empty() {
                true => self.removed(&attempt),
                false => self.actions.push(Action::Prune),
            };
        };
        self.state.inventory = pruned.inventory.clone();
        match &pruned.refusal {
            Some(refusal) => self.prune_again(attempt, refusal),
            None => self.removed(&attempt),
        }
    }

    fn removed(&mut self, attempt: &Attempt) {
        self.state.attempt = None;
        self.notify(false, "Removed", "", format!("what {} had made is removed", attempt.revision));
        self.tell_exceptions();
    }
}
