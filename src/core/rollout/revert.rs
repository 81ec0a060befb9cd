//! `rollback.mode: Revert`: once a failed revision is rolled back in the cluster, Git is given a commit that takes it
//! back. What came of it stands with the held revision, so that it is done once for each.

use super::next::Machine;
use super::{Action, back_off, read_stamp, stamp};
use crate::api::delivery::{Held, Revert, RollbackMode};
use jiff::SignedDuration;

/// A revision that a person had taken back; what becomes of it in Git is that person's to say.
const BY_HAND: &str = "RolledBackByHand";

impl Machine<'_> {
    /// Notes what came of a revert, whatever else is under way: it is shown once.
    pub(super) fn note_revert(&mut self) {
        let Some(mut held) = self.state.held.clone() else { return };
        if let Some(reverted) = self.seen.reverted.as_ref().filter(|r| r.commit == held.revision.commit) {
            let before = held.revert.take().unwrap_or_default();
            let revert = match &reverted.outcome {
                Ok((branch, commit)) => {
                    let place = short(commit);
                    self.notify(
                        false,
                        "Reverted",
                        "",
                        format!("{} is taken back on branch {branch} by {place}", held.revision),
                    );
                    Revert { branch: branch.clone(), commit: commit.clone(), ..Revert::default() }
                }
                Err(refusal) => {
                    if before.problem.as_ref().is_none_or(|p| p.reason != refusal.problem.reason) {
                        self.notify(true, &refusal.problem.reason, "", refusal.problem.message.clone());
                    }
                    let interval = match refusal.transient {
                        true => self.spec.retry_interval.min(SignedDuration::from_secs(5)),
                        false => self.spec.retry_interval,
                    };
                    let at = self.now + back_off(interval, before.retries);
                    Revert {
                        problem: Some(refusal.problem.clone()),
                        retries: before.retries.saturating_add(1),
                        retry_at: Some(stamp(at)),
                        ..Revert::default()
                    }
                }
            };
            held.revert = Some(revert);
            self.state.held = Some(held);
        }
    }

    /// Sees to the revert of the held revision.
    pub(super) fn revert(&mut self) {
        let Some(effective) =
            self.state.effective.as_ref().filter(|_| self.spec.rollback == RollbackMode::Revert)
        else {
            return;
        };
        // Where only settings were to blame there is no commit to take back.
        let meant = |held: &Held| held.problem.reason != BY_HAND && held.revision.inputs != effective.inputs;
        let Some(held) = self.state.held.clone().filter(meant) else { return };
        match &held.revert {
            None => self.actions.push(Action::Revert(Box::new(held))),
            Some(revert) => {
                let Some(at) = revert.retry_at.as_deref().map(read_stamp) else { return };
                let asked = self.seen.reconcile != self.state.handled_request;
                if at <= self.now || asked && self.seen.reverted.is_none() {
                    self.actions.push(Action::Revert(Box::new(held)));
                } else {
                    self.actions.push(Action::Wake(at));
                }
            }
        }
    }
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Reverted;
    use super::super::tests::{World, revision};
    use super::*;

    #[test]
    fn what_came_of_a_revert_is_noted_whatever_else_is_under_way() {
        let mut world = World::deployed(&["web"]);
        world.broken.insert("b".into());
        world.push("b", &["web"]);
        world.settle();
        world.spec.rollback = RollbackMode::Revert;
        world.spec.suspend = true;
        let outcome = Ok(("main".to_owned(), "f".repeat(40)));
        world.seen.reverted = Some(Reverted { commit: revision("b").commit, outcome });
        world.settle();
        world.spec.suspend = false;
        world.settle();
        assert_eq!(world.state.held.as_ref().unwrap().revert.as_ref().unwrap().branch, "main");
        assert!(world.reverts.is_empty(), "it is not ordered once more");
    }
}
