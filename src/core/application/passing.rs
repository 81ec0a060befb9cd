//! What an Application says on its way from nothing to running is soon said otherwise: it waits a little for better words.

use super::status::{Seen, is_on_its_way};
use crate::api::application::{ApplicationPhase, ApplicationStatus};
use jiff::{SignedDuration, Timestamp};

/// How long such words wait.
const MOMENT: SignedDuration = SignedDuration::from_secs(1);

/// How long they wait at most where the cluster has its hands full with the objects of many.
const LONGEST: SignedDuration = SignedDuration::from_secs(30);

/// How long a status that is not the one that stands there (`before`) waits yet, since the next one may follow at once; `None` when it
/// is to be written now. That is so of whatever somebody has to know or do, and of whatever is said of one that ran before.
/// `since` is when it was first found to say something else; `busy` tells that what others ask for is more than can be done at once.
pub fn waits(
    seen: &Seen<'_>,
    before: &ApplicationStatus,
    since: Timestamp,
    busy: impl FnOnce() -> bool,
    now: Timestamp,
) -> Option<SignedDuration> {
    let passes = before.phase == ApplicationPhase::Pending && is_on_its_way(seen, before);
    let waited = now.duration_since(since);
    // A clock that was put back must not silence it.
    if !passes || waited.is_negative() {
        return None;
    }
    let left = if busy() { LONGEST } else { MOMENT } - waited;
    // Whether it is still busy is looked at again and again.
    left.is_positive().then(|| left.min(MOMENT))
}

#[cfg(test)]
mod tests {
    use super::super::status::status;
    use super::*;
    use crate::api::delivery::{DeliveryStatus, Phase, Problem, Revision};

    const ID: &str = "2222222222222222222222222222222222222222";

    fn at(phase: Phase, effective: Option<&str>) -> DeliveryStatus {
        let effective = effective.map(|id| Revision { commit: id.into(), ..Revision::default() });
        DeliveryStatus { phase, effective, ..DeliveryStatus::default() }
    }

    fn seen(delivery: Option<&DeliveryStatus>) -> Seen<'_> {
        Seen {
            name: "web",
            generation: Some(1),
            wanted: Ok(ID),
            hindrance: None,
            delay: None,
            notices: Some(&[]),
            delivery,
            pods: None,
            url: None,
        }
    }

    fn after(millis: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1) + SignedDuration::from_millis(millis)
    }

    /// How long it waits, in milliseconds, when it has waited for so long.
    fn left(seen: &Seen<'_>, before: &ApplicationStatus, busy: bool, waited: i64) -> Option<i128> {
        waits(seen, before, after(0), || busy, after(waited)).map(|left| left.as_millis())
    }

    #[test]
    fn the_first_words_wait_a_second() {
        let (none, applying) = (ApplicationStatus::default(), at(Phase::Applying, None));
        for seen in [seen(None), seen(Some(&applying))] {
            assert_eq!(left(&seen, &none, false, 0), Some(1000));
            assert_eq!(left(&seen, &none, false, 999), Some(1));
            assert_eq!(left(&seen, &none, false, 1000), None);
        }
    }

    #[test]
    fn from_pending_to_progressing_is_no_news_at_once() {
        let pending = status(&seen(None), &ApplicationStatus::default(), after(0));
        assert_eq!(pending.phase, ApplicationPhase::Pending);
        let applying = at(Phase::Applying, None);
        assert_eq!(left(&seen(Some(&applying)), &pending, false, 0), Some(1000));
        let progressing = status(&seen(Some(&applying)), &pending, after(1000));
        assert_eq!(progressing.phase, ApplicationPhase::Progressing);
        let waiting = at(Phase::Waiting, None);
        assert_eq!(left(&seen(Some(&waiting)), &progressing, false, 0), None, "why it takes long is news");
    }

    #[test]
    fn where_the_cluster_is_busy_they_wait_for_thirty_and_look_again_each_second() {
        let none = ApplicationStatus::default();
        assert_eq!(left(&seen(None), &none, true, 0), Some(1000));
        assert_eq!(left(&seen(None), &none, true, 29_500), Some(500));
        assert_eq!(left(&seen(None), &none, true, 30_000), None);
        assert_eq!(left(&seen(None), &none, false, 29_500), None, "it is not any more");
    }

    #[test]
    fn what_runs_or_is_in_somebody_s_way_is_told_at_once() {
        let none = ApplicationStatus::default();
        let problem = Problem { reason: "Taken".into(), object: String::new(), message: "why".into() };
        let runs = at(Phase::Ready, Some(ID));
        let (failed, suspended) = (at(Phase::RollbackFailed, None), at(Phase::Suspended, None));
        for told in [
            seen(Some(&runs)),
            seen(Some(&failed)),
            seen(Some(&suspended)),
            Seen { wanted: Err(&problem), ..seen(None) },
            Seen { hindrance: Some(&problem), ..seen(None) },
            Seen { delay: Some(&problem), ..seen(None) },
        ] {
            assert_eq!(left(&told, &none, true, 0), None, "{told:?}");
        }
    }

    #[test]
    fn of_one_that_ran_before_everything_is_told_at_once() {
        let changes = at(Phase::Applying, Some("1111111111111111111111111111111111111111"));
        for before in [ApplicationPhase::Running, ApplicationPhase::Pending] {
            let before = ApplicationStatus { phase: before, ..ApplicationStatus::default() };
            assert_eq!(left(&seen(Some(&changes)), &before, true, 0), None, "{before:?}");
        }
    }

    #[test]
    fn a_clock_that_is_put_back_silences_nothing() {
        assert_eq!(left(&seen(None), &ApplicationStatus::default(), false, -1), None);
    }
}
