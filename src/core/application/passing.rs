//! What an Application says on its way from nothing to running is soon said otherwise: it waits a little for better words. Where the
//! cluster has its hands full, objects come before words.

use super::status::{Seen, is_on_its_way};
use crate::api::application::{ApplicationPhase, ApplicationStatus};
use crate::api::condition::{self, kind};
use jiff::{SignedDuration, Timestamp};

/// How long words wait that say no more than that it is on its way.
const MOMENT: SignedDuration = SignedDuration::from_secs(1);

/// How long a new Application says nothing at most where the cluster has its hands full with the objects of many.
const LONGEST: SignedDuration = SignedDuration::from_secs(30);

/// How much is asked of the cluster besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rush {
    /// No more than it can do at once.
    None,
    /// Many Applications are on their way.
    Many,
    /// Objects: at least half of what it takes at once.
    Full,
}

/// How long a status (`new`) that is not the one that stands there (`before`) waits yet; `None` when it is to be written now. That is so
/// of whatever somebody has to know or do, and of whatever is said of one that said something before: only that a new one is on its way
/// may wait, since the next word may follow at once, and, where all hands are full, that it runs.
/// `since` is when it was first found to say something else.
pub fn waits(
    seen: &Seen<'_>,
    before: &ApplicationStatus,
    new: &ApplicationStatus,
    since: Timestamp,
    rush: impl FnOnce() -> Rush,
    now: Timestamp,
) -> Option<SignedDuration> {
    let waited = now.duration_since(since);
    // A clock that was put back must not silence it.
    if before.phase != ApplicationPhase::Pending || waited.is_negative() {
        return None;
    }
    let long = if is_on_its_way(seen, before) {
        if rush() == Rush::None { MOMENT } else { LONGEST }
    } else if before.conditions.is_empty() && is_well(new) && rush() == Rush::Full {
        LONGEST
    } else {
        return None;
    };
    let left = long - waited;
    // How much is asked is looked at again and again.
    left.is_positive().then(|| left.min(MOMENT))
}

/// Whether it runs with all that was asked for.
fn is_well(status: &ApplicationStatus) -> bool {
    let is = |kind| condition::get(&status.conditions, kind).is_some_and(|c| c.status == "True");
    status.phase == ApplicationPhase::Running && is(kind::READY) && !is(kind::LIMITED)
}

#[cfg(test)]
mod tests {
    use super::super::notice::Notice;
    use super::super::status::Pods;
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
    fn left(seen: &Seen<'_>, before: &ApplicationStatus, rush: Rush, waited: i64) -> Option<i128> {
        let new = status(seen, before, after(waited));
        waits(seen, before, &new, after(0), || rush, after(waited)).map(|left| left.as_millis())
    }

    #[test]
    fn the_first_words_wait_a_second() {
        let (none, applying) = (ApplicationStatus::default(), at(Phase::Applying, None));
        for seen in [seen(None), seen(Some(&applying))] {
            assert_eq!(left(&seen, &none, Rush::None, 0), Some(1000));
            assert_eq!(left(&seen, &none, Rush::None, 999), Some(1));
            assert_eq!(left(&seen, &none, Rush::None, 1000), None);
        }
    }

    #[test]
    fn from_pending_to_progressing_is_no_news_at_once() {
        let pending = status(&seen(None), &ApplicationStatus::default(), after(0));
        assert_eq!(pending.phase, ApplicationPhase::Pending);
        let applying = at(Phase::Applying, None);
        assert_eq!(left(&seen(Some(&applying)), &pending, Rush::None, 0), Some(1000));
        let progressing = status(&seen(Some(&applying)), &pending, after(1000));
        assert_eq!(progressing.phase, ApplicationPhase::Progressing);
        let waiting = at(Phase::Waiting, None);
        assert_eq!(
            left(&seen(Some(&waiting)), &progressing, Rush::None, 0),
            None,
            "why it takes long is news"
        );
    }

    #[test]
    fn where_the_cluster_is_busy_they_wait_for_thirty_and_look_again_each_second() {
        let none = ApplicationStatus::default();
        for rush in [Rush::Many, Rush::Full] {
            assert_eq!(left(&seen(None), &none, rush, 0), Some(1000));
            assert_eq!(left(&seen(None), &none, rush, 29_500), Some(500));
            assert_eq!(left(&seen(None), &none, rush, 30_000), None);
        }
        assert_eq!(left(&seen(None), &none, Rush::None, 29_500), None, "it is not any more");
    }

    #[test]
    fn what_somebody_has_to_know_is_told_at_once() {
        let none = ApplicationStatus::default();
        let problem = Problem { reason: "Taken".into(), object: String::new(), message: "why".into() };
        let (failed, suspended) = (at(Phase::RollbackFailed, None), at(Phase::Suspended, None));
        for told in [
            seen(Some(&failed)),
            seen(Some(&suspended)),
            Seen { wanted: Err(&problem), ..seen(None) },
            Seen { hindrance: Some(&problem), ..seen(None) },
            Seen { delay: Some(&problem), ..seen(None) },
        ] {
            assert_eq!(left(&told, &none, Rush::Full, 0), None, "{told:?}");
        }
    }

    #[test]
    fn that_a_new_one_runs_waits_only_where_all_hands_are_full() {
        let mut runs = at(Phase::Ready, Some(ID));
        condition::set(&mut runs.conditions, kind::READY, "True", "Ready", "", after(0), None);
        let pods = |available| Some(Pods { wanted: 2, there: 2, ready: available, available });
        let (all, some) =
            (Seen { pods: pods(2), ..seen(Some(&runs)) }, Seen { pods: pods(1), ..seen(Some(&runs)) });
        let silent = ApplicationStatus::default();
        assert_eq!(left(&all, &silent, Rush::Full, 0), Some(1000));
        assert_eq!(left(&all, &silent, Rush::Full, 29_500), Some(500));
        assert_eq!(left(&all, &silent, Rush::Full, 30_000), None);
        assert_eq!(
            left(&all, &silent, Rush::Many, 0),
            None,
            "its own words would keep others waiting, and these it"
        );
        assert_eq!(left(&all, &silent, Rush::None, 0), None);
        assert_eq!(left(&some, &silent, Rush::Full, 0), None, "a pod that is missing is news");
        let notices = [Notice { reason: "UnsupportedByRouter", text: "why".into() }];
        let limited = Seen { notices: Some(&notices), ..all.clone() };
        assert_eq!(left(&limited, &silent, Rush::Full, 0), None, "what is not carried out is news");
        let applying = at(Phase::Applying, None);
        let told = status(&seen(Some(&applying)), &silent, after(0));
        assert_eq!(told.phase, ApplicationPhase::Progressing);
        assert_eq!(
            left(&all, &told, Rush::Full, 0),
            None,
            "who said that it is on its way says that it runs"
        );
    }

    #[test]
    fn of_one_that_ran_before_everything_is_told_at_once() {
        let changes = at(Phase::Applying, Some("1111111111111111111111111111111111111111"));
        for before in [ApplicationPhase::Running, ApplicationPhase::Pending] {
            let before = ApplicationStatus { phase: before, ..ApplicationStatus::default() };
            assert_eq!(left(&seen(Some(&changes)), &before, Rush::Full, 0), None, "{before:?}");
        }
    }

    #[test]
    fn a_clock_that_is_put_back_silences_nothing() {
        assert_eq!(left(&seen(None), &ApplicationStatus::default(), Rush::None, -1), None);
    }
}
