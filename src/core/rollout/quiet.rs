//! How long a wait for health stays unrecorded after everything was applied. Recording it is a write of status that most
//! revisions do not need: they are healthy by then. A crash in between repeats the apply, which finds nothing to write.

use super::{Health, NOT_OBSERVED};
use jiff::{SignedDuration, Timestamp};

/// While something can be told of the wait, such as which pods are not ready.
const TOLD: SignedDuration = SignedDuration::from_secs(2);

/// While the objects' own controllers have not even looked at them. In a cluster that is short of breath, most revisions
/// would be recorded as waiting for no more than that.
const UNTOLD: SignedDuration = SignedDuration::from_secs(10);

/// When a wait is recorded, given when everything was applied; no later than the time of the revision is over.
pub(super) fn until(applied: Timestamp, health: &Health, deadline: Timestamp) -> Timestamp {
    let pause = match health {
        Health::Unknown => UNTOLD,
        Health::Progressing(problem) if problem.reason == NOT_OBSERVED => UNTOLD,
        _ => TOLD,
    };
    (applied + pause).min(deadline)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::delivery::Problem;

    #[test]
    fn a_wait_is_recorded_soon_where_something_can_be_told_of_it() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let waits = |reason: &str| {
            Health::Progressing(Problem {
                reason: reason.into(),
                object: "Deployment shop/web".into(),
                message: String::new(),
            })
        };
        let far = at(1000);
        assert_eq!(until(at(100), &waits("Progressing"), far), at(102));
        assert_eq!(until(at(100), &waits(NOT_OBSERVED), far), at(110));
        assert_eq!(until(at(100), &Health::Unknown, far), at(110));
        assert_eq!(until(at(100), &Health::Unknown, at(105)), at(105), "a time-out is a time-out");
    }
}
