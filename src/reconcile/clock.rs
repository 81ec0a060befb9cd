//! The time, handed in: everything that decides asks the daemon's clock, so that a simulation can move it.
//!
//! The default one follows the machine's clock, but is never set: when that one jumps (it was wrong and was put right,
//! the machine slept), ours runs a tenth faster or slower until both agree. So a jump of hours ends no wait and
//! prolongs none, within one life of the daemon; only stamps are off for a while.

use super::fault;
use crate::lock::lock;
use jiff::{SignedDuration, Timestamp};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Tells the time; by default the machine's, without its jumps.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that shows what the function answers.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        let steady = Mutex::new((Steady { shown: fault::machine_clock() }, Instant::now()));
        Clock::new(move || {
            let mut steady = lock(&steady);
            let (machine, at) = (fault::machine_clock(), Instant::now());
            let passed = SignedDuration::try_from(at - steady.1).unwrap_or_default();
            steady.1 = at;
            steady.0.tell(machine, passed)
        })
    }
}

/// A clock that is never set.
struct Steady {
    shown: Timestamp,
}

impl Steady {
    /// Parts of the time that passed by which it may be faster or slower.
    const SLEW: i32 = 10;

    /// What it shows when so much has really passed since it was last asked, and the machine's clock shows this.
    fn tell(&mut self, machine: Timestamp, passed: SignedDuration) -> Timestamp {
        let expected = self.shown.saturating_add(passed).unwrap_or(Timestamp::MAX);
        let most = passed / Self::SLEW;
        let correction = machine.duration_since(expected).clamp(-most, most);
        self.shown = expected.saturating_add(correction).unwrap_or(expected);
        self.shown
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_followed_slowly_and_a_clock_that_runs_well_exactly() {
        let begin = Timestamp::UNIX_EPOCH;
        let secs = SignedDuration::from_secs;
        // By how much the machine's clock jumps, and what is shown of the next 100 s.
        for (jump, shown) in [(0, 100), (3, 103), (-3, 97), (3600, 110), (-3600, 90)] {
            let mut steady = Steady { shown: begin };
            for second in 1..=100 {
                steady.tell(begin + secs(jump) + secs(second), secs(1));
            }
            assert_eq!(steady.shown.duration_since(begin), secs(shown), "a jump of {jump} s");
        }
        let mut steady = Steady { shown: begin };
        assert_eq!(steady.tell(Timestamp::MAX, secs(0)), begin);
        assert_eq!(steady.tell(Timestamp::MIN, secs(10)), begin + secs(9));
    }
}
