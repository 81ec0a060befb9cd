//! When a status is worth a write. What decides is written at once. What only changed its words waits: the longer a
//! revision is under way, the longer, so that its words cost a handful of writes however slow it is.

use crate::api::DeliveryStatus;
use crate::api::delivery::Step;
use crate::core::rollout::read_stamp;
use jiff::{SignedDuration, Timestamp};

/// The least time between two writes for words while no revision is under way.
const SETTLED: SignedDuration = SignedDuration::from_secs(5);

/// The least time while one is. Most revisions end before, and that end is written anyway.
const UNDER_WAY: SignedDuration = SignedDuration::from_secs(10);

/// The most: whoever looks at something that takes hours sees words that are no older than this.
const LONGEST: SignedDuration = SignedDuration::from_mins(5);

/// When words may be written, given when status was written last. While a revision is under way the pause grows with its
/// age, so its words are written after 10, 20, 40, 80 seconds and so on.
pub fn due(status: &DeliveryStatus, written: Timestamp) -> Timestamp {
    let pause = match &status.attempt {
        Some(attempt) => written.duration_since(read_stamp(&attempt.started_at)).clamp(UNDER_WAY, LONGEST),
        None => SETTLED,
    };
    written + pause
}

/// Whether a status says more than the one that stands. While objects are being applied their health comes and goes; that
/// waits like words, for what becomes of it is written anyway.
pub fn must_write(before: &DeliveryStatus, after: &DeliveryStatus, words_are_due: bool) -> bool {
    if before == after {
        return false;
    }
    if words_are_due {
        return true;
    }
    let applying = after.attempt.as_ref().is_some_and(|a| a.step == Step::Applying);
    let bare = |status: &DeliveryStatus| {
        let mut status = status.clone();
        status.observed_generation = None;
        if let Some(waiting) = &mut status.waiting {
            waiting.problem.message.clear();
        }
        for condition in &mut status.conditions {
            condition.message.clear();
            condition.observed_generation = None;
        }
        if applying {
            status.conditions.clear();
            // That all is in sync can wait for what becomes of it, that something is not cannot.
            status.drift = status.drift.filter(|objects| *objects > 0);
        }
        status
    };
    bare(before) != bare(after)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::condition;
    use crate::api::delivery::{Attempt, Goal, Revision};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn under_way(step: Step) -> DeliveryStatus {
        let attempt = Attempt {
            goal: Goal::Deploy,
            revision: Revision::default(),
            step,
            started_at: at(0).to_string(),
            deadline: at(300).to_string(),
            retries: 0,
            overwritten: 0,
            excused: Vec::new(),
            retry_at: None,
            problem: None,
            rollout: None,
        };
        DeliveryStatus { attempt: Some(attempt), ..DeliveryStatus::default() }
    }

    fn saying(mut status: DeliveryStatus, reason: &str, message: &str) -> DeliveryStatus {
        condition::set(&mut status.conditions, "Ready", "False", reason, message, at(0), None);
        status
    }

    #[test]
    fn words_of_a_revision_under_way_are_written_ever_more_rarely() {
        let status = under_way(Step::Waiting);
        let mut written = vec![at(0)];
        while let Some(last) = written.last().copied().filter(|t| *t < at(3600)) {
            written.push(due(&status, last));
        }
        let seconds: Vec<i64> = written.iter().map(|t| t.as_second() - at(0).as_second()).collect();
        assert_eq!(seconds[..7], [0, 10, 20, 40, 80, 160, 320]);
        assert_eq!(seconds[7..9], [620, 920], "and no more rarely than this");
    }

    #[test]
    fn words_wait_and_what_decides_does_not() {
        let before = saying(under_way(Step::Waiting), "WaitingForHealth", "0 of 3");
        let words = saying(before.clone(), "WaitingForHealth", "1 of 3");
        assert!(!must_write(&before, &words, false));
        assert!(must_write(&before, &words, true));
        let reason = saying(before.clone(), "RevisionHeld", "0 of 3");
        assert!(must_write(&before, &reason, false));
        let mut step = before.clone();
        step.attempt.as_mut().unwrap().step = Step::Pruning;
        assert!(must_write(&before, &step, false));
        assert!(!must_write(&before, &before.clone(), true), "nothing is said twice");
        // While objects are applied, their health comes and goes.
        let applying = saying(under_way(Step::Applying), "Applying", "a");
        assert!(!must_write(&applying, &saying(applying.clone(), "Other", "b"), false));
        let in_sync = DeliveryStatus { drift: Some(0), ..applying.clone() };
        assert!(!must_write(&applying, &in_sync, false));
        assert!(must_write(&in_sync, &DeliveryStatus { drift: Some(1), ..applying.clone() }, false));
    }
}
