//! When a repository is polled again: with jitter while it answers, ever later while it does not.

use std::time::Duration;

/// No repository waits longer than this for its next try, whatever its interval: somebody who mends a remote
/// should see it noticed.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The wait before try number `attempt` (1 after the first failure) of a repository that is polled each `interval`.
///
/// Doubles from `interval` and is capped at fifteen minutes (or at `interval`, where that is longer). `random` in
/// `0.0..1.0` takes up to half of it away, so that many repositories of one broken host do not come back together.
pub fn backoff(attempt: u32, interval: Duration, random: f64) -> Duration {
    let cap = LONGEST.max(interval);
    let doubled = interval.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1).min(31)));
    doubled.min(cap).mul_f64(1.0 - 0.5 * clamp(random))
}

/// The wait before the next poll of a repository that answers: `interval`, a tenth more or less. `random` is in
/// `0.0..1.0`.
pub fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * clamp(random))
}

/// NaN and numbers outside count as the nearest end, so that no caller can make a [`Duration`] overflow.
fn clamp(random: f64) -> f64 {
    if random.is_nan() { 0.0 } else { random.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_until_the_cap() {
        let seconds: Vec<u64> =
            (1..=8).map(|attempt| backoff(attempt, Duration::from_secs(30), 0.0).as_secs()).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 480, 900, 900, 900]);
        assert_eq!(backoff(1, Duration::from_secs(3600), 0.0), Duration::from_secs(3600));
    }

    proptest! {
        #[test]
        fn is_bounded_for_any_input(attempt in any::<u32>(), seconds in 0u64..1_000_000, random in any::<f64>()) {
            let interval = Duration::from_secs(seconds);
            let wait = backoff(attempt, interval, random);
            prop_assert!(wait <= LONGEST.max(interval));
            prop_assert!(wait >= interval.min(LONGEST).mul_f64(0.49));
            let next = jittered(interval, random);
            prop_assert!(next >= interval.mul_f64(0.89) && next <= interval.mul_f64(1.11));
        }

        #[test]
        fn never_comes_back_sooner_after_one_more_failure(attempt in 1u32..100, random in 0.0f64..1.0) {
            let interval = Duration::from_secs(30);
            prop_assert!(backoff(attempt + 1, interval, random) >= backoff(attempt, interval, random));
        }
    }
}
