//! When a revision's time is up. Time in which nobody could see what became of it does not count: the daemon was
//! stopped, the API server was away. And times in the status are not trusted blindly: they were written by a clock that
//! may have been wrong.

use super::next::Machine;
use super::{Health, read_stamp, stamp};
use crate::api::delivery::{Attempt, Problem};
use jiff::{SignedDuration, Timestamp};

/// How long controllers and kubelets take at most to begin again after an outage: client-go asks again after up to 30
/// seconds, which its jitter doubles, and once more as long where a server that was started anew has forgotten what it
/// showed last.
const CONTROLLERS: SignedDuration = SignedDuration::from_secs(120);

/// What a revision gets beyond [`CONTROLLERS`], once its objects can be seen, when its time passed while they could not;
/// less if its `timeout` is shorter.
const UNSEEN: SignedDuration = SignedDuration::from_secs(60);

/// Watches of new kinds begin within this time after a revision; what takes longer is a gap.
const BEGINNING: SignedDuration = SignedDuration::from_secs(5);

/// How often the longest pause between two tries is the interval; see [`super::back_off`].
const LONGEST: i32 = 10;

impl Machine<'_> {
    /// Brings back what lies further ahead than this machine ever puts it: the clock was ahead when it was written, or
    /// a person chose shorter times since.
    pub(super) fn distrust_times(&mut self) {
        let pause = self.spec.retry_interval.checked_mul(LONGEST).unwrap_or(SignedDuration::MAX);
        let latest_retry = self.now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        let (now, longest) = (self.now, self.spec.timeout.max(self.grace()));
        if let Some(attempt) = &mut self.state.attempt {
            if read_stamp(&attempt.started_at) > now {
                attempt.started_at = stamp(now);
            }
            if attempt.retry_at.as_deref().is_some_and(|at| read_stamp(at) > latest_retry) {
                attempt.retry_at = Some(stamp(now));
            }
            let begins = attempt.retry_at.as_deref().map_or(now, read_stamp).max(now);
            let latest = begins.saturating_add(longest).unwrap_or(Timestamp::MAX);
            if read_stamp(&attempt.deadline) > latest {
                attempt.deadline = stamp(latest);
            }
        }
        if let Some(failure) = &mut self.state.failure
            && read_stamp(&failure.retry_at) > latest_retry
        {
            failure.retry_at = stamp(now);
        }
    }

    /// When the attempt's time is up, as far as is known now. What cannot be seen for another reason than that nobody was
    /// there to see it counts as seen: a watch that fails for ever must not prolong anything for ever.
    pub(super) fn due(&self, attempt: &Attempt) -> Timestamp {
        let deadline = read_stamp(&attempt.deadline);
        let Some(contact) = self.seen.in_contact_since else { return deadline.max(self.now + self.grace()) };
        let since = self.seen.seen_since.unwrap_or(contact);
        match since > deadline.min(read_stamp(&attempt.started_at) + BEGINNING) {
            true => deadline.max(since + self.grace()),
            false => deadline,
        }
    }

    /// What a revision gets from the moment on in which its objects are seen again.
    fn grace(&self) -> SignedDuration {
        CONTROLLERS + UNSEEN.min(self.spec.timeout)
    }

    /// Whether the attempt's time is up. Puts it off once if nothing is seen of its objects.
    pub(super) fn time_is_up(&self, attempt: &mut Attempt) -> bool {
        if self.due(attempt) > self.now {
            return false;
        }
        if self.seen.health == Health::Unknown && attempt.problem.is_none() {
            attempt.deadline = stamp(self.now + self.grace());
            attempt.problem = Some(self.timed_out("its objects were not seen".into()));
            return false;
        }
        true
    }

    /// As long as Git was not read no time passes for an attempt: it cannot go on, and nothing could go back either. So it is while
    /// a rule cannot be used: going back would overwrite what it leaves to others.
    pub(super) fn put_off(&self, attempt: &mut Attempt) {
        let deadline = read_stamp(&attempt.deadline).max(self.now + self.grace());
        attempt.deadline = stamp(deadline);
    }

    /// What is told of a revision that was not healthy in time.
    pub(super) fn timed_out(&self, what: String) -> Problem {
        Problem {
            reason: "Timeout".into(),
            object: String::new(),
            message: format!(
                "not healthy within {}: {what}",
                crate::api::Duration(self.spec.timeout.unsigned_abs())
            ),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{World, revision};
    use super::super::{INVALID_RULE, Prepared, Refusal, SOURCE_UNKNOWN, Staging, next};
    use super::*;
    use crate::api::delivery::{Phase, Step};

    #[test]
    fn no_time_passes_before_git_is_read_and_while_a_rule_cannot_be_used() {
        for (reason, waits) in [(SOURCE_UNKNOWN, true), (INVALID_RULE, true), ("Refused", false)] {
            let mut world = waiting();
            world.now += SignedDuration::from_secs(100_000);
            if let Some(attempt) = &mut world.state.attempt {
                attempt.step = Step::Applying;
            }
            let problem = Problem { reason: reason.into(), ..Problem::default() };
            let outcome = Err(Refusal { problem, transient: true });
            world.seen.applied = None;
            world.seen.prepared = Some(Prepared {
                revision: revision("b"),
                staging: Staging::Whole,
                begin: None,
                outcome,
                at: world.now,
            });
            let state = next(&world.spec, &world.state, &world.seen, world.now).state;
            let attempt = state.attempt.unwrap();
            assert_eq!(attempt.revision == revision("b"), waits, "{reason}: {attempt:?}");
            assert_eq!(state.held.is_none(), waits, "{reason}");
            assert!(!waits || read_stamp(&attempt.deadline) > world.now);
        }
    }

    /// A Delivery whose second revision is on its way.
    fn waiting() -> World {
        let mut world = World::deployed(&["web"]);
        world.slow.insert("b".into());
        world.push("b", &["web"]);
        world.settle();
        world.pass(10);
        assert_eq!(world.phase(), Phase::Waiting);
        world
    }

    #[test]
    fn time_in_which_nothing_was_seen_does_not_count() {
        // How long the gap was, how long it takes from then on, and whether that is soon enough.
        for (gap, takes, in_time) in
            [(3600, 170, true), (3600, 190, false), (280, 170, true), (280, 190, false)]
        {
            let mut world = waiting();
            world.now += SignedDuration::from_secs(gap);
            // What cannot be had yet, in the first moments of a new life, is held against nobody either.
            world.seen.in_contact_since = None;
            world.settle();
            world.seen.in_contact_since = Some(world.now);
            world.settle();
            world.seen.seen_since = Some(world.now);
            world.settle();
            world.pass(takes);
            world.slow.clear();
            world.settle();
            let expected = if in_time { Phase::Ready } else { Phase::Held };
            assert_eq!(world.phase(), expected, "{gap} s away, then {takes} s");
        }
        // Without a gap the time is what was asked for.
        let mut world = waiting();
        world.seen.seen_since = Some(world.now - SignedDuration::from_secs(3600));
        world.pass(300);
        assert_eq!(world.phase(), Phase::Held);
    }

    #[test]
    fn what_cannot_be_had_in_the_first_moments_of_a_new_life_fails_nothing() {
        for (takes, in_time) in [(120, true), (240, false)] {
            let mut world = waiting();
            // Objects of a later wave are still to be applied.
            world.state.attempt.as_mut().unwrap().step = Step::Applying;
            world.seen.prepared = None;
            world.seen.applied = None;
            // The daemon was away for longer than there was time; the Repository is not read yet.
            world.refused.insert("b".into(), true);
            world.now += SignedDuration::from_hours(1);
            world.seen.in_contact_since = Some(world.now);
            world.settle();
            world.pass(takes);
            world.refused.clear();
            world.slow.clear();
            world.pass(10);
            assert_eq!(world.state.held.is_none(), in_time, "{takes} s: {:?}", world.phase());
        }
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_written_binds_nobody() {
        let mut world = waiting();
        world.now -= SignedDuration::from_hours(5);
        world.settle();
        world.pass(301);
        assert_eq!(world.phase(), Phase::Held, "the timeout is no longer than it was");
    }
}
