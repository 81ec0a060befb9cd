//! Objects that somebody deletes while a revision is put in place: they are put back at once. Until then nothing else is waited for
//! in vain, and a revision does not fail for it.

use super::next::{Machine, SOON};
use super::{Action, Health, MISSING, back_off, stamp};
use crate::api::delivery::{Attempt, Problem, Step};
use crate::api::rollout::RolloutStatus;

/// Kinds without which requests that are sent to a variant get no answer.
const ANSWER: [&str; 3] = ["Deployment", "StatefulSet", "Service"];

/// What is gone, if that is the worst of it.
pub(super) fn missing(health: &Health) -> Option<&Problem> {
    match health {
        Health::Degraded(problem) if problem.reason == MISSING => Some(problem),
        _ => None,
    }
}

/// Whether requests to the candidate fail until what is gone is back and its pods are ready.
pub(super) fn answers_nothing(rollout: &RolloutStatus, gone: &Problem) -> bool {
    rollout.layout.has_traffic() && ANSWER.iter().any(|kind| gone.object.starts_with(&format!("{kind} ")))
}

impl Machine<'_> {
    /// Everything that the attempt wants is ensured again; what is there as it should be costs nothing. Its time goes on.
    pub(super) fn put_back(&mut self, mut attempt: Attempt, gone: &Problem) {
        // Who deletes again and again is not answered as often.
        let at = match attempt.retries {
            0 => self.now,
            more => self.now + back_off(SOON, more),
        };
        if attempt.retries == 0 {
            let told = format!("{}; it is put back", gone.message);
            self.notify(true, MISSING, &gone.object, told);
        }
        attempt.retries += 1;
        attempt.step = Step::Applying;
        // What came of the last apply says nothing any more.
        attempt.retry_at = Some(stamp(at));
        self.state.attempt = Some(attempt);
        match at <= self.now {
            true => self.prepare_attempt(),
            false => self.actions.push(Action::Wake(at)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::progress_tests::canary;
    use super::super::tests::{CANDIDATE, World};
    use crate::api::delivery::Phase;

    #[test]
    fn what_is_deleted_while_a_revision_gets_healthy_is_put_back() {
        let mut world = World::deployed(&["web", "old"]);
        world.slow.insert("b".into());
        world.push("b", &["web", "old", "new"]);
        world.settle();
        for _ in 0..3 {
            world.cluster.remove("new");
            world.settle();
            world.pass(20);
            assert_eq!(world.runs(), ["new=b", "old=b", "web=b"]);
        }
        let told = world.notices.iter().filter(|n| n.reason == "Missing").count();
        assert_eq!(told, 1, "{:?}", world.notices);
        world.slow.clear();
        world.pass(20);
        assert_eq!(world.phase(), Phase::Ready);
    }

    #[test]
    fn a_candidate_that_is_deleted_before_it_has_traffic_and_a_stable_one_at_any_time_are_put_back() {
        let mut world = canary();
        world.slow.insert("b".into());
        world.push("b", &["web", "new"]);
        world.settle();
        world.cluster.remove(CANDIDATE);
        world.pass(5);
        assert_eq!(world.runs(), ["old=a", "web=a", "web-canary=b"]);
        world.slow.clear();
        world.pass(10);
        assert_eq!(world.weight, 10);
        world.cluster.remove("web");
        world.pass(5);
        assert_eq!(world.runs(), ["old=a", "web=a", "web-canary=b"]);
        assert_eq!((world.weight, world.phase()), (10, Phase::RollingOut));
    }

    #[test]
    fn a_candidate_that_is_deleted_under_traffic_is_taken_back() {
        let mut world = canary();
        world.push("b", &["web", "new"]);
        world.settle();
        world.pass(10);
        assert_eq!(world.weight, 10);
        world.cluster.remove(CANDIDATE);
        world.settle();
        assert_eq!(world.weights, [10, 0]);
        world.pass(10);
        assert_eq!(world.phase(), Phase::Held);
        assert_eq!(world.runs(), ["old=a", "web=a"]);
    }
}
