//! Objects that somebody deletes or overwrites while a revision is put in place: they are put back. Until then nothing else is waited
//! for in vain, a revision does not fail for it, and none is taken for good for what is not of it.

use super::next::{Machine, PATIENCE, SOON};
use super::{Action, Health, MISSING, back_off, measure, read_stamp, stamp};
use crate::api::delivery::{Attempt, Problem, Step};
use crate::api::rollout::RolloutStatus;

/// Reason: see [`Machine::overwritten`].
const OVERWRITTEN: &str = "Overwritten";

/// Reason: see [`Machine::uncompared`].
pub(super) const UNCOMPARED: &str = "NotCompared";

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
    /// What is healthy is not what was applied: somebody wrote over it, perhaps by a request that came late. Not said for ever:
    /// what another controller keeps writing is left to the correction of drift, which gives such fights up. Nor of what failed
    /// already, which people may help.
    pub(super) fn overwritten(&self, attempt: &Attempt) -> Option<Problem> {
        let differs =
            self.seen.correctable > 0 && attempt.overwritten < PATIENCE && self.was_compared(attempt);
        differs.then(|| Problem {
            reason: OVERWRITTEN.into(),
            object: String::new(),
            message: "what was applied was changed before it was known to be healthy".into(),
        })
    }

    /// What steers traffic was changed by somebody while the rollout waits, which nothing else would mend before the next step. What
    /// another controller keeps writing is left to it for this layout.
    pub(super) fn misdirected(&self, attempt: &Attempt) -> Option<Problem> {
        let object = self.seen.misdirected.as_ref()?;
        let mended = attempt.overwritten < PATIENCE && self.was_compared(attempt);
        mended.then(|| Problem {
            reason: OVERWRITTEN.into(),
            object: object.clone(),
            message: "was changed in the cluster, and traffic goes by it".into(),
        })
    }

    /// What is healthy may not be what was applied: an object was changed since and could not be compared. It is waited for as
    /// long as the revision has time; what can never be compared keeps none from being deployed.
    pub(super) fn uncompared(&self, attempt: &Attempt) -> Option<Problem> {
        let why = self.seen.uncompared.as_ref()?;
        let waits = self.due(attempt) > self.now && self.was_compared(attempt);
        waits.then(|| match &attempt.problem {
            // One answer differs from the next; status has the first.
            Some(before) if before.reason == UNCOMPARED => before.clone(),
            _ => Problem { reason: UNCOMPARED.into(), object: String::new(), message: why.clone() },
        })
    }

    /// Whether the objects were compared with what the attempt wants now. What failed is not asked about.
    fn was_compared(&self, attempt: &Attempt) -> bool {
        let failed = self.state.attempt.as_ref().is_some_and(|a| a.step == Step::Failed);
        let of = measure(Some(attempt), self.state.effective.as_ref(), self.spec);
        !failed && of.is_some() && self.seen.measured == of
    }

    /// Everything that the attempt wants is ensured again; what is there as it should be costs nothing. Its time goes on, but for
    /// one that had become healthy in time.
    pub(super) fn put_back(&mut self, mut attempt: Attempt, gone: &Problem) {
        let overwritten = gone.reason == OVERWRITTEN;
        let times = if overwritten { &mut attempt.overwritten } else { &mut attempt.retries };
        // Who deletes again and again is not answered as often.
        let at = match *times {
            0 => self.now,
            more => self.now + back_off(SOON, more),
        };
        *times += 1;
        if *times == 1 {
            let told = format!("{}; it is put back", gone.message);
            self.notify(true, &gone.reason, &gone.object, told);
        }
        attempt.step = Step::Applying;
        if overwritten {
            attempt.deadline = stamp(read_stamp(&attempt.deadline).max(at + self.spec.timeout));
        }
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
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::super::measure;
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
    fn what_is_overwritten_before_it_is_healthy_is_not_taken_for_good() {
        let mut world = World::deployed(&["web"]);
        world.slow.insert("b".into());
        world.push("b", &["web"]);
        world.settle();
        world.pass(5);
        assert_eq!(world.phase(), Phase::Waiting);
        // A request that was sent for the revision before comes now.
        world.cluster.insert("web".into(), "a".into());
        let measure = |world: &World| {
            measure(world.state.attempt.as_ref(), world.state.effective.as_ref(), &world.spec)
        };
        world.seen.measured = measure(&world);
        (world.seen.drifted, world.seen.correctable) = (1, 1);
        world.round();
        (world.seen.drifted, world.seen.correctable) = (0, 0);
        world.pass(5);
        assert!(world.state.attempt.is_some(), "it is not healthy");
        assert_eq!(world.runs(), ["web=b"]);
        assert_eq!(
            world.notices.iter().filter(|n| n.reason == "Overwritten").count(),
            1,
            "{:?}",
            world.notices
        );
        world.pass(400);
        assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=a".to_owned()]));

        // One that another controller keeps writing is deployed all the same.
        world.push("c", &["web"]);
        world.seen.correctable = 1;
        for _ in 0..20 {
            world.seen.measured = measure(&world);
            world.round();
            if world.state.attempt.is_none()
                && world.state.effective.as_ref().is_some_and(|e| e.inputs == "c")
            {
                return;
            }
            world.pass(20);
        }
        panic!("{:?}", world.state);
    }

    #[test]
    fn what_was_refused_before_does_not_keep_what_is_overwritten_from_being_put_back() {
        let mut world = World::deployed(&["web"]);
        world.slow.insert("b".into());
        world.push("b", &["web"]);
        world.settle();
        // Refusals before it, as of a webhook that was away.
        world.state.attempt.as_mut().unwrap().retries = 7;
        world.slow.clear();
        world.cluster.insert("web".into(), "a".into());
        world.seen.measured =
            measure(world.state.attempt.as_ref(), world.state.effective.as_ref(), &world.spec);
        (world.seen.drifted, world.seen.correctable) = (1, 1);
        world.round();
        (world.seen.drifted, world.seen.correctable) = (0, 0);
        world.pass(5);
        assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=b".to_owned()]));
        assert_eq!(world.notices.iter().filter(|n| n.reason == "Overwritten").count(), 1);
    }

    #[test]
    fn what_could_not_be_compared_is_not_taken_for_good_while_there_is_time() {
        // What never can be compared does not keep it from being deployed.
        for comparable in [true, false] {
            let mut world = World::deployed(&["web"]);
            world.slow.insert("b".into());
            world.push("b", &["web"]);
            world.settle();
            world.pass(5);
            world.slow.clear();
            world.seen.measured =
                measure(world.state.attempt.as_ref(), world.state.effective.as_ref(), &world.spec);
            world.seen.uncompared = Some("Deployment shop/web could not be compared: 503".into());
            world.pass(5);
            assert_eq!(world.phase(), Phase::Waiting);
            let (_, _, message) = world.condition(crate::api::condition::kind::READY);
            assert!(message.contains("could not be compared: 503"), "{message}");
            if comparable {
                world.seen.uncompared = None;
            }
            world.pass(if comparable { 1 } else { 600 });
            assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=b".to_owned()]));
        }
    }

    #[test]
    fn a_rollback_that_cannot_be_compared_has_not_failed() {
        let mut world = World::deployed(&["web"]);
        world.broken.insert("b".into());
        world.push("b", &["web"]);
        while world.state.attempt.as_ref().is_none_or(|a| a.goal != crate::api::delivery::Goal::Rollback) {
            world.round();
            world.now += jiff::SignedDuration::from_millis(100);
        }
        for _ in 0..20 {
            world.seen.measured =
                measure(world.state.attempt.as_ref(), world.state.effective.as_ref(), &world.spec);
            world.seen.uncompared = Some("Deployment shop/web could not be compared: 503".into());
            world.round();
            world.now += jiff::SignedDuration::from_millis(100);
        }
        let problem = world.state.attempt.as_ref().and_then(|a| a.problem.as_ref());
        assert_eq!(problem.map(|p| p.reason.as_str()), Some("NotCompared"));
        assert_eq!(world.phase(), Phase::RollingBack);
        world.seen.uncompared = None;
        world.pass(5);
        assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=a".to_owned()]));
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
