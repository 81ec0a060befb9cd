//! What drift is measured against, and when: the effective revision, or the one that is being put in place. While objects are
//! being applied nothing is measured, and nothing is claimed of what was seen before.

use super::{Spec, Staging, read_stamp, staging};
use crate::api::delivery::{Attempt, Goal, Revision, Step};
use jiff::Timestamp;

/// What the objects of a Delivery are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// The revision; of a stage of a rollout, the one that the candidate stands beside.
    pub revision: Revision,
    /// What of it.
    pub staging: Staging,
}

/// What drift is measured against: the revision that is put in place or brought back, else what the cluster should be running.
/// `None` before the first one.
pub fn measure(attempt: Option<&Attempt>, effective: Option<&Revision>, spec: &Spec) -> Option<Measure> {
    let Some(attempt) = attempt else {
        return Some(Measure { revision: effective?.clone(), staging: Staging::Whole });
    };
    let staging = staging(attempt, effective, spec);
    let revision = match &staging {
        Staging::Staged(staged) => staged.stable.clone(),
        Staging::Whole => attempt.revision.clone(),
    };
    Some(Measure { revision, staging })
}

/// Whether nothing is written for an attempt at the moment, so that what differs was not changed by it. `applied`: all of it
/// was written, which status may not say yet.
pub fn rests(attempt: &Attempt, applied: bool, spec: &Spec, now: Timestamp) -> bool {
    match attempt.step {
        Step::Waiting | Step::Pruning | Step::Failed => true,
        Step::Applying => applied || spec.suspend || is_between_tries(attempt, now),
        Step::Removing => false,
    }
}

/// Whether the last good revision could not be brought back in full, perhaps: what it was not applied to differs then, although
/// nobody but us has changed it.
pub fn is_strict(attempt: Option<&Attempt>) -> bool {
    attempt.is_some_and(|a| a.goal == Goal::Rollback && a.step == Step::Applying)
}

/// What could not be brought back is tried again later. A new revision that could not be applied in full is soon.
fn is_between_tries(attempt: &Attempt, now: Timestamp) -> bool {
    attempt.goal == Goal::Rollback && attempt.retry_at.as_deref().is_some_and(|at| read_stamp(at) > now)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::ApplyEnd;
    use super::super::progress_tests::canary;
    use super::super::tests::{World, revision};
    use super::*;
    use crate::api::condition::kind;
    use crate::api::delivery::Phase;
    use jiff::SignedDuration;

    /// Looks as the reconciler does before each round. Answers whether drift was measured.
    fn look(world: &mut World) -> bool {
        let state = &world.state;
        let measure = measure(state.attempt.as_ref(), state.effective.as_ref(), &world.spec);
        let done = |m: &Measure| {
            let of = |a: &&super::super::Applied| a.end == ApplyEnd::Done && a.staging == m.staging;
            let applied = world.seen.applied.as_ref().filter(of);
            applied.is_some_and(|a| state.attempt.as_ref().is_some_and(|t| t.revision == a.revision))
        };
        let applied = measure.as_ref().is_some_and(done);
        let rests = |a: &Attempt| rests(a, applied, &world.spec, world.now);
        world.seen.measured = measure.filter(|_| state.attempt.as_ref().is_none_or(rests));
        world.seen.measured.is_some()
    }

    /// Rounds for so many seconds. Answers what each said of drift, with the step that it led to.
    fn told(world: &mut World, seconds: usize) -> Vec<(Option<Step>, String)> {
        let mut told = Vec::new();
        for _ in 0..seconds * 10 {
            look(world);
            world.round();
            let (status, reason, _) = world.condition(kind::DRIFTED);
            told.push((world.state.attempt.as_ref().map(|a| a.step), format!("{status} {reason}")));
            world.now += SignedDuration::from_millis(100);
        }
        told.dedup();
        told
    }

    fn are(told: &[(Option<Step>, &str)]) -> Vec<(Option<Step>, String)> {
        told.iter().map(|(step, what)| (*step, (*what).to_owned())).collect()
    }

    #[test]
    fn what_was_in_sync_before_is_not_claimed_of_what_is_being_applied() {
        let mut world = World::deployed(&["web"]);
        world.slow.insert("b".into());
        world.push("b", &["web"]);
        // It is measured once all is written, so that its first health is told together with it.
        let begun = [
            (Some(Step::Applying), "Unknown Progressing"),
            (Some(Step::Applying), "False InSync"),
            (Some(Step::Waiting), "False InSync"),
        ];
        assert_eq!(told(&mut world, 20)[1..], are(&begun));
        assert_eq!(world.seen.measured.as_ref().unwrap().revision, revision("b"));
        world.seen.drifted = 1;
        let (status, _, message) = world.condition(kind::DRIFTED);
        assert_eq!(
            (status.as_str(), message.contains(&revision("b").to_string())),
            ("True", true),
            "{message}"
        );
        world.seen.drifted = 0;
        world.slow.clear();
        assert_eq!(told(&mut world, 1).last().unwrap(), &(None, "False InSync".into()));
    }

    #[test]
    fn what_cannot_be_brought_back_is_measured_between_two_tries() {
        let mut world = World::deployed(&["web"]);
        world.fails_applying.extend(["a".into(), "b".into()]);
        world.push("b", &["web"]);
        told(&mut world, 1);
        assert_eq!(world.phase(), Phase::RollbackFailed);
        assert!(look(&mut world), "{:?}", world.state.attempt);
        assert_eq!(world.seen.measured.as_ref().unwrap().revision, revision("a"));
        assert!(is_strict(world.state.attempt.as_ref()));
        world.now += SignedDuration::from_mins(2);
        assert!(!look(&mut world), "it is tried again");
    }

    #[test]
    fn one_that_is_suspended_in_mid_attempt_is_measured() {
        let mut world = World::deployed(&["web"]);
        world.push("b", &["web"]);
        while world.state.attempt.is_none() {
            world.round();
        }
        // Nobody knows how much of it was written.
        world.crash();
        assert!(!look(&mut world));
        world.spec.suspend = true;
        world.round();
        assert!(look(&mut world), "{:?}", world.state.attempt);
        assert!(!is_strict(world.state.attempt.as_ref()), "what is still to be applied is no drift");
    }

    #[test]
    fn a_stage_is_measured_against_what_it_wants() {
        let mut world = canary();
        world.push("b", &["web"]);
        world.settle();
        assert!(look(&mut world));
        let Measure { revision: of, staging } = world.seen.measured.clone().unwrap();
        assert_eq!(of, revision("a"));
        assert!(matches!(staging, Staging::Staged(staged) if staged.candidate == revision("b")));
        // Of the step before, nothing is claimed of the next one.
        let before = world.seen.measured.clone();
        world.pass(70);
        world.seen.measured = before;
        let (status, reason, _) = world.condition(kind::DRIFTED);
        assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "Progressing"));
    }
}
