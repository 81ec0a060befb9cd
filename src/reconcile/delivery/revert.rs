//! The revert of a held commit: made and pushed beside the rounds, so that a newer commit does not wait for a server that
//! hangs.

use super::Scope;
use super::bundle::refusal;
use super::work::Memory;
use crate::api::delivery::{Held, Revision};
use crate::core::rollout::status::told;
use crate::core::rollout::{Refusal, Reverted};
use crate::lock::lock;
use crate::reconcile::fault;
use crate::render;
use crate::source::{CommitId, RevertOrder};
use kube::ResourceExt;
use std::sync::{Arc, Mutex};
use tokio::task::AbortHandle;

/// The longest reason that is put into Git, in characters.
const REASON: usize = 300;

/// A revert under way, and what came of it.
#[derive(Default)]
pub struct Reverting {
    running: Option<(String, AbortHandle)>,
    answer: Arc<Mutex<Option<Reverted>>>,
    shown: Option<Reverted>,
}

impl Drop for Reverting {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.running {
            task.abort();
        }
    }
}

impl Reverting {
    /// What came of it. Shown until it is forgotten.
    pub fn answer(&mut self) -> Option<Reverted> {
        if let Some(answer) = lock(&self.answer).take() {
            self.running = None;
            self.shown = Some(answer);
        }
        self.shown.clone()
    }

    /// Forgets what was shown.
    pub fn forget_answer(&mut self) {
        self.shown = None;
    }

    /// Whether the revert of a commit is being pushed, or was and what came of it is not shown yet: a round that began
    /// before the answer came has nothing to order.
    fn is_under_way(&self, commit: &str) -> bool {
        self.running.as_ref().is_some_and(|(of, task)| {
            of.as_str() == commit && (!task.is_finished() || lock(&self.answer).is_some())
        })
    }
}

/// Begins to revert the held commit, unless that is under way.
pub fn begin(scope: &Scope<'_>, memory: &mut Memory, held: &Held) {
    let commit = held.revision.commit.clone();
    let reverting = &mut memory.reverting;
    if reverting.is_under_way(&commit) {
        return;
    }
    if let Some((_, task)) = reverting.running.take() {
        task.abort();
    }
    let answer = Arc::new(Mutex::new(None));
    reverting.answer = answer.clone();
    let wake = scope.daemon.waker(&scope.label);
    let tell = move |outcome: Result<(String, String), Refusal>| {
        *lock(&answer) = Some(Reverted { commit, outcome });
        wake();
    };
    let delivery = scope.delivery;
    let repository = delivery.source_key();
    let store = scope.daemon.sources.get(&repository).and_then(|known| known.store);
    let effective = delivery.status.as_ref().and_then(|s| s.effective.clone());
    let (Some(store), Some(effective)) = (store, effective) else {
        return tell(Err(refusal("RevertFailed", "the Repository was not read yet", true)));
    };
    let order = match order(scope, held, &effective) {
        Ok(order) => order,
        Err(error) => return tell(Err(error)),
    };
    let poll = scope.daemon.poller(&repository);
    let task = tokio::spawn(async move {
        fault::place(|| "before push".into());
        let outcome = store.mirror.revert(&order, &store.credentials, &store.limits).await;
        fault::place(|| "after push".into());
        // What was pushed is what the next poll would find, however far off that is.
        if outcome.is_ok() {
            poll();
        }
        tell(match outcome {
            Ok(at) => Ok((at.branch, at.commit.to_string())),
            Err(error) => Err(refusal(error.reason(), error.to_string(), error.is_transient())),
        });
    });
    reverting.running = Some((held.revision.commit.clone(), task.abort_handle()));
}

fn order(scope: &Scope<'_>, held: &Held, effective: &Revision) -> Result<RevertOrder, Refusal> {
    let revision = &held.revision;
    if revision.branch.is_empty() {
        let text = "the Repository follows a commit and no branch, so there is nothing to push a revert to";
        return Err(refusal("RevertNotPossible", text, false));
    }
    let id = |commit: &str| -> Result<CommitId, Refusal> {
        commit.parse().map_err(|e| refusal("RevertFailed", format!("{e}"), false))
    };
    let path = revision.path.clone();
    let matters = move |new: &crate::source::GitTree, old: &crate::source::GitTree| {
        render::inputs(new, &path).ok() != render::inputs(old, &path).ok()
    };
    let name = scope.daemon.name(scope.delivery);
    Ok(RevertOrder {
        branch: revision.branch.clone(),
        good: id(&effective.commit)?,
        bad: id(&revision.commit)?,
        side_branch: format!(
            "windlass/revert-{}-{}",
            scope.delivery.name_any(),
            &revision.commit[..12.min(revision.commit.len())]
        ),
        message: message(&name, held, effective),
        name: "Windlass".into(),
        email: format!("windlass@{}.invalid", scope.daemon.options.installation),
        time: scope.daemon.now().as_second(),
        matters: Arc::new(matters),
    })
}

/// What the commit says; the trailer that names the commit comes last.
fn message(delivery: &str, held: &Held, effective: &Revision) -> String {
    let revision = &held.revision;
    let reason: String =
        told(&held.problem).lines().next().unwrap_or_default().chars().take(REASON).collect();
    format!(
        "Revert \"{}\"\n\nThis reverts commit {} by {}.\n\nIt was rolled back by Windlass in Delivery {delivery}, which runs {} \
         again:\n{reason}\n\nWindlass-Delivery: {delivery}\nWindlass-Reason: {}\n",
        revision.subject, revision.commit, revision.author, effective.commit, held.problem.reason
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::delivery::Problem;

    #[tokio::test]
    async fn a_revert_whose_answer_is_not_shown_yet_is_not_made_once_more() {
        let mut reverting = Reverting::default();
        let (commit, other) = ("b".repeat(40), "c".repeat(40));
        assert!(!reverting.is_under_way(&commit));
        let task = tokio::spawn(async {});
        reverting.running = Some((commit.clone(), task.abort_handle()));
        task.await.unwrap();
        assert!(!reverting.is_under_way(&commit), "it ended and tells nothing");
        let outcome = Ok(("main".into(), "f".repeat(40)));
        *lock(&reverting.answer) = Some(Reverted { commit: commit.clone(), outcome });
        assert!(reverting.is_under_way(&commit));
        assert!(!reverting.is_under_way(&other));
        assert!(reverting.answer().is_some());
        assert!(!reverting.is_under_way(&commit), "what came of it is shown");
    }

    #[test]
    fn it_says_who_what_and_why() {
        let held = Held {
            revision: Revision {
                commit: "b".repeat(40),
                author: "Ada".into(),
                subject: "Faster".into(),
                ..Revision::default()
            },
            problem: Problem {
                reason: "CrashLoopBackOff".into(),
                object: "Deployment shop/web".into(),
                message: "container app restarted 3 times\nand more".into(),
            },
            since: String::new(),
            revert: None,
        };
        let good = Revision { commit: "a".repeat(40), ..Revision::default() };
        let text = message("apps/shop", &held, &good);
        assert!(text.starts_with("Revert \"Faster\"\n\nThis reverts commit bbbb"), "{text}");
        assert!(
            text.contains("by Ada") && text.contains("Deployment shop/web: container app restarted"),
            "{text}"
        );
        assert!(
            text.ends_with("\nWindlass-Delivery: apps/shop\nWindlass-Reason: CrashLoopBackOff\n"),
            "{text}"
        );
        assert!(!text.contains("and more"), "one line");
    }
}
