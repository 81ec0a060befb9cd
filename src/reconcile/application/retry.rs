//! When a call about an Application that failed is made again. Time and chance are handed in.

use crate::api::delivery::Problem;
use crate::source::backoff;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// The first wait; a part of it is taken away by chance, and it doubles with each failure.
const FIRST: Duration = Duration::from_secs(1);

/// The longest: an API server that is back is noticed soon.
const LAST: Duration = Duration::from_secs(60);

/// Failures in a row from which on people are told: one or two of them are everyday.
const TOLD: u32 = 3;

/// What failed in a row about one Application, though nobody has to do anything about it.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    due: Option<Timestamp>,
    problem: Option<Problem>,
}

impl Retry {
    /// Notes that it failed. `random` is in `0.0..1.0`; `least` is what the API server asks for.
    pub(super) fn failed(&mut self, problem: Problem, now: Timestamp, random: f64, least: Duration) {
        self.failures += 1;
        let wait = backoff(self.failures, FIRST, random).min(LAST).max(least.min(LAST));
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_secs(1));
        self.due = Some(now.saturating_add(wait).unwrap_or(now));
        self.problem = Some(problem);
    }

    /// How long it is waited yet; `None` when it may be tried.
    pub(super) fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.due?.duration_since(now);
        // A clock that was put back makes nobody wait for longer than ever.
        Duration::try_from(left).ok().filter(|left| !left.is_zero()).map(|left| left.min(LAST))
    }

    /// What people are told, once it lasts.
    pub(super) fn told(&self) -> Option<&Problem> {
        self.problem.as_ref().filter(|_| self.failures >= TOLD)
    }

    /// How often it failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem { reason: "Unavailable".into(), object: String::new(), message: "away".into() }
    }

    #[test]
    fn waits_double_up_to_a_minute_and_chance_takes_up_to_half() {
        let (now, mut retry) = (Timestamp::UNIX_EPOCH, Retry::default());
        assert_eq!(retry.left(now), None);
        let mut waits = Vec::new();
        for _ in 0..9 {
            retry.failed(problem(), now, 0.0, Duration::ZERO);
            waits.push(retry.left(now).unwrap().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let mut early = Retry::default();
        early.failed(problem(), now, 1.0, Duration::ZERO);
        assert_eq!(early.left(now), Some(Duration::from_millis(500)));
        assert_eq!(early.left(now + SignedDuration::from_secs(1)), None, "it is due");
    }

    #[test]
    fn the_api_server_s_own_wish_counts_and_a_clock_that_is_put_back_does_not() {
        let (now, mut retry) = (Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1), Retry::default());
        retry.failed(problem(), now, 0.0, Duration::from_secs(7));
        assert_eq!(retry.left(now), Some(Duration::from_secs(7)));
        assert_eq!(retry.left(Timestamp::UNIX_EPOCH), Some(LAST));
    }

    #[test]
    fn what_lasts_is_told() {
        let mut retry = Retry::default();
        for failure in 1..=4 {
            retry.failed(problem(), Timestamp::UNIX_EPOCH, 0.5, Duration::ZERO);
            assert_eq!(retry.told().is_some(), failure >= 3, "{failure}");
        }
    }
}
