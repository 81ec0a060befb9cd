//! How an Application is: from how its Delivery stands, and how many pods its Deployment has, to what people read.

use super::notice::{self, Notice};
use crate::api::application::{ApplicationPhase, ApplicationStatus};
use crate::api::condition::{self, kind};
use crate::api::delivery::{DeliveryStatus, Phase, Problem, Step};
use crate::core::rollout::status::told;
use jiff::Timestamp;

/// How many pods a Deployment has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// How many are wanted.
    pub wanted: i32,
    /// How many there are.
    pub there: i32,
    /// How many are ready.
    pub ready: i32,
    /// How many have been ready for a while.
    pub available: i32,
}

/// What is seen of an Application.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// The revision that its spec is, or why it is none or could not be kept.
    pub wanted: Result<&'a str, &'a Problem>,
    /// What keeps the revision from being delivered, though it is one.
    pub hindrance: Option<&'a Problem>,
    /// What has failed several times and may work a little later: it is tried again.
    pub delay: Option<&'a Problem>,
    /// What of the spec is not carried out, or may not do what was meant; `None` where it is no revision.
    pub notices: Option<&'a [Notice]>,
    /// How its Delivery stands; `None` before there is one.
    pub delivery: Option<&'a DeliveryStatus>,
    /// Its pods; `None` while they were not seen.
    pub pods: Option<Pods>,
    /// Where it is reached.
    pub url: Option<String>,
}

/// Reason of `Degraded` and of a phase: the revision could not be put in place.
const FAILED: &str = "RolloutFailed";

/// Reason of `Degraded`: the revision could not even be begun.
const REFUSED: &str = "RolloutRefused";

/// The status to write. `before` is what stands there now: its conditions keep their times, and its numbers stand while nothing
/// was seen.
pub fn status(seen: &Seen<'_>, before: &ApplicationStatus, now: Timestamp) -> ApplicationStatus {
    let none = DeliveryStatus::default();
    let delivery = seen.delivery.unwrap_or(&none);
    let pods = seen.pods.map(|p| (p.there, p.ready, p.available));
    let numbers = pods.map_or((before.replicas, before.ready_replicas, before.available_replicas), |p| {
        (Some(p.0), Some(p.1), Some(p.2))
    });
    let standing = Standing::of(seen, delivery, before);
    let effective = delivery.effective.as_ref().map(|r| super::revision_name(seen.name, &r.commit));
    let mut status = ApplicationStatus {
        observed_generation: seen.generation,
        phase: standing.phase(delivery, before),
        replicas: numbers.0,
        ready_replicas: numbers.1,
        available_replicas: numbers.2,
        selector: Some(super::selector(seen.name)),
        current_revision: effective
            .or_else(|| before.current_revision.clone().filter(|_| seen.delivery.is_none())),
        url: seen.url.clone(),
        conditions: before.conditions.clone(),
    };
    let phase = status.phase;
    let mut say = |kind: &str, is: &str, reason: &str, message: &str| {
        condition::set(&mut status.conditions, kind, is, reason, message, now, seen.generation);
    };
    let (ready, reason, message) = standing.ready(delivery, phase);
    say(kind::READY, ready, &reason, &message);
    let (wanted, available) = (standing.wanted, standing.available);
    let (serves, why, counted) = match (wanted, available) {
        (Some(wanted), Some(available)) => (
            if available > 0 || wanted == 0 { "True" } else { "False" },
            if available >= wanted { "AllPodsAvailable" } else { "PodsUnavailable" },
            format!("{available} of {wanted} pods are available"),
        ),
        _ => ("Unknown", "NotSeen", String::new()),
    };
    // While nothing was seen, what was known before stands.
    if serves != "Unknown" || condition::get(&before.conditions, kind::AVAILABLE).is_none() {
        say(kind::AVAILABLE, serves, why, &counted);
    }
    match phase {
        ApplicationPhase::Progressing => say(kind::PROGRESSING, "True", &reason, &message),
        _ => say(kind::PROGRESSING, "False", "Settled", ""),
    }
    match (&standing.doing, phase) {
        (Doing::Refused(problem), _) => say(kind::DEGRADED, "True", &problem.reason, &told(problem)),
        (Doing::Failed, _) => say(kind::DEGRADED, "True", FAILED, &message),
        (Doing::NotBegun { refused: true }, _) => say(kind::DEGRADED, "True", REFUSED, &message),
        (_, ApplicationPhase::Degraded) => say(kind::DEGRADED, "True", "PodsUnavailable", &message),
        _ => say(kind::DEGRADED, "False", "NotDegraded", ""),
    }
    // Of a spec that came after it, it says nothing: whoever delivers that must not take it for this one's failure.
    let of_this = match (seen.wanted, &delivery.held) {
        (Ok(id), Some(held)) => held.revision.commit == id,
        (Err(_), _) | (Ok(_), None) => false,
    };
    match condition::get(&delivery.conditions, kind::HELD).filter(|c| c.status == "True" && of_this) {
        Some(held) => say(kind::HELD, "True", &held.reason, &held.message),
        None => say(kind::HELD, "False", "NothingHeld", ""),
    }
    match seen.notices {
        Some([]) => say(kind::LIMITED, "False", "NothingLimited", ""),
        Some(all @ [first, ..]) => say(kind::LIMITED, "True", first.reason, &notice::sentences(all)),
        // What is said is about the spec that runs.
        None => {}
    }
    status
}

/// Whether nothing of an Application ran yet, and all that can be said is that it is on its way.
pub(super) fn is_on_its_way(seen: &Seen<'_>, before: &ApplicationStatus) -> bool {
    let none = DeliveryStatus::default();
    let delivery = seen.delivery.unwrap_or(&none);
    let doing = Standing::of(seen, delivery, before).doing;
    delivery.effective.is_none() && matches!(doing, Doing::Awaited | Doing::UnderWay)
}

/// What becomes of the spec.
enum Doing {
    /// It is no revision, or could not be kept, or cannot be delivered.
    Refused(Problem),
    /// A call that it needs fails for now.
    Delayed(Problem),
    /// Its Delivery has not taken it yet.
    Awaited,
    /// It is being put in place, or taken back.
    UnderWay,
    /// It could not be put in place, and stays as it is.
    Failed,
    /// It was taken back; what was good before runs, unless there was nothing.
    Held,
    /// Nothing of it was begun, and what was good before runs: it waits, or its Delivery is suspended, or somebody has to do
    /// something about it (`refused`).
    NotBegun { refused: bool },
    /// It runs.
    Runs,
}

struct Standing {
    doing: Doing,
    wanted: Option<i32>,
    available: Option<i32>,
}

impl Standing {
    fn of(seen: &Seen<'_>, delivery: &DeliveryStatus, before: &ApplicationStatus) -> Self {
        let wanted = seen.pods.map(|p| p.wanted);
        let available = seen.pods.map(|p| p.available).or(before.available_replicas);
        let doing = match (seen.wanted, seen.hindrance, seen.delay) {
            (Err(problem), ..) | (Ok(_), Some(problem), _) => Doing::Refused(problem.clone()),
            (Ok(_), None, Some(problem)) => Doing::Delayed(problem.clone()),
            (Ok(id), None, None) => doing(id, delivery),
        };
        Standing {
            doing,
            wanted: wanted.or(before.replicas.filter(|_| before.phase == ApplicationPhase::Running)),
            available,
        }
    }

    fn phase(&self, delivery: &DeliveryStatus, before: &ApplicationStatus) -> ApplicationPhase {
        let by_pods = match (self.wanted, self.available) {
            (Some(wanted), Some(available)) if available >= wanted => ApplicationPhase::Running,
            (Some(_), Some(0)) => ApplicationPhase::Degraded,
            (Some(_), Some(_)) => ApplicationPhase::PartiallyRunning,
            _ => before.phase,
        };
        let nothing = delivery.effective.is_none();
        match &self.doing {
            Doing::Refused(_) | Doing::NotBegun { .. } if nothing => ApplicationPhase::Pending,
            Doing::Awaited | Doing::Delayed(_) if nothing && delivery.attempt.is_none() => {
                ApplicationPhase::Pending
            }
            Doing::Awaited | Doing::Delayed(_) | Doing::UnderWay => ApplicationPhase::Progressing,
            Doing::Failed => ApplicationPhase::Degraded,
            Doing::Held if nothing => ApplicationPhase::Degraded,
            Doing::Held if by_pods == ApplicationPhase::Degraded => ApplicationPhase::Degraded,
            Doing::Held => ApplicationPhase::RolledBack,
            Doing::Refused(_) | Doing::NotBegun { .. } | Doing::Runs => by_pods,
        }
    }

    /// Status, reason and message of `Ready`: in the words of the Delivery, where it speaks of this spec.
    fn ready(&self, delivery: &DeliveryStatus, phase: ApplicationPhase) -> (&'static str, String, String) {
        let words = condition::get(&delivery.conditions, kind::READY);
        let words =
            words.map_or(("Pending".into(), String::new()), |c| (c.reason.clone(), c.message.clone()));
        match &self.doing {
            Doing::Refused(problem) => {
                let runs =
                    if delivery.effective.is_some() { "; what was there before goes on running" } else { "" };
                ("False", problem.reason.clone(), format!("{}{runs}", told(problem)))
            }
            Doing::Delayed(problem) => {
                ("False", problem.reason.clone(), format!("{}; it is tried again", told(problem)))
            }
            Doing::Awaited => ("False", "Pending".into(), "the spec is about to be taken".into()),
            Doing::Runs if phase == ApplicationPhase::Running => {
                let ready =
                    condition::get(&delivery.conditions, kind::READY).is_some_and(|c| c.status == "True");
                match ready {
                    true => ("True", "Running".into(), words.1),
                    false => ("False", words.0, words.1),
                }
            }
            Doing::Runs => {
                let counted = match (self.wanted, self.available) {
                    (Some(wanted), Some(available)) => format!("{available} of {wanted} pods are available"),
                    _ => "its pods were not seen yet".into(),
                };
                ("False", "PodsUnavailable".into(), counted)
            }
            Doing::NotBegun { .. } => {
                let message = words.1 + channel_hint(delivery).unwrap_or_default();
                ("False", words.0, message)
            }
            Doing::UnderWay | Doing::Failed | Doing::Held => ("False", words.0, words.1),
        }
    }
}

/// What to do where the cluster's HTTPRoute has no `retry`: that of an Application has it only where its spec asks for the channel.
fn channel_hint(delivery: &DeliveryStatus) -> Option<&'static str> {
    let problem = &delivery.failure.as_ref()?.problem;
    let is = problem.reason == "UnknownField"
        && problem.object.starts_with("HTTPRoute ")
        && problem.message.contains("].retry");
    is.then_some(
        ". spec.expose.gateway.channel is Experimental, and the cluster's HTTPRoute is not of that channel: install the experimental \
         one, or set Standard, with which the route says nothing of retries",
    )
}

fn doing(id: &str, delivery: &DeliveryStatus) -> Doing {
    let is = |revision: &crate::api::delivery::Revision| revision.commit == id;
    match (delivery.phase, &delivery.attempt) {
        (Phase::Applying | Phase::Waiting | Phase::RollingOut | Phase::Paused | Phase::RollingBack, _) => {
            return Doing::UnderWay;
        }
        (Phase::RollbackFailed, _) => return Doing::Failed,
        (_, Some(attempt)) if !is(&attempt.revision) => return Doing::Awaited,
        (_, Some(attempt)) if attempt.step == Step::Failed => return Doing::Failed,
        (_, Some(_)) => return Doing::UnderWay,
        (_, None) => {}
    }
    if delivery.held.as_ref().is_some_and(|held| is(&held.revision)) {
        return Doing::Held;
    }
    if delivery.effective.as_ref().is_some_and(is) {
        return Doing::Runs;
    }
    let failure = delivery.failure.as_ref().filter(|f| f.revision.as_ref().is_none_or(is));
    let waits = delivery.waiting.as_ref().is_some_and(|w| is(&w.revision));
    match (delivery.phase, failure) {
        (Phase::Suspended, _) => Doing::NotBegun { refused: false },
        (_, Some(failure)) => Doing::NotBegun { refused: !failure.transient },
        _ if waits => Doing::NotBegun { refused: false },
        _ => Doing::Awaited,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::delivery::{Attempt, Failure, Goal, Held, Revision};

    const OLD: &str = "1111111111111111111111111111111111111111";
    const NEW: &str = "2222222222222222222222222222222222222222";

    fn revision(id: &str) -> Revision {
        Revision { commit: id.into(), ..Revision::default() }
    }

    fn problem(reason: &str) -> Problem {
        Problem { reason: reason.into(), object: String::new(), message: "why".into() }
    }

    fn attempt(id: &str, step: Step) -> Option<Attempt> {
        Some(Attempt {
            goal: Goal::Deploy,
            revision: revision(id),
            step,
            started_at: String::new(),
            deadline: String::new(),
            retries: 0,
            retry_at: None,
            problem: None,
            overwritten: 0,
            excused: Vec::new(),
            rollout: None,
        })
    }

    fn at(phase: Phase, effective: Option<&str>) -> DeliveryStatus {
        let mut delivery =
            DeliveryStatus { phase, effective: effective.map(revision), ..DeliveryStatus::default() };
        let ready = if phase == Phase::Ready { "True" } else { "False" };
        condition::set(
            &mut delivery.conditions,
            kind::READY,
            ready,
            "Word",
            "said",
            Timestamp::UNIX_EPOCH,
            None,
        );
        delivery
    }

    fn of(delivery: &DeliveryStatus, wanted: i32, available: i32) -> ApplicationStatus {
        let pods = Pods { wanted, there: wanted, ready: available, available };
        let seen = Seen {
            name: "web",
            generation: Some(2),
            wanted: Ok(NEW),
            hindrance: None,
            delay: None,
            notices: Some(&[]),
            delivery: Some(delivery),
            pods: Some(pods),
            url: None,
        };
        status(&seen, &ApplicationStatus::default(), Timestamp::UNIX_EPOCH)
    }

    /// As [`of`], with this told besides.
    fn seen<'a>(delivery: &'a DeliveryStatus, delay: Option<&'a Problem>, notices: &'a [Notice]) -> Seen<'a> {
        Seen {
            name: "web",
            generation: Some(2),
            wanted: Ok(NEW),
            hindrance: None,
            delay,
            notices: Some(notices),
            delivery: Some(delivery),
            pods: Some(Pods { wanted: 3, there: 3, ready: 3, available: 3 }),
            url: None,
        }
    }

    #[test]
    fn what_cannot_be_begun_is_degraded_unless_it_passes_by_itself() {
        for (transient, degraded) in [(false, "True"), (true, "False")] {
            let failure = Failure {
                revision: Some(revision(NEW)),
                problem: problem("PodsWouldRestart"),
                transient,
                retries: 1,
                retry_at: String::new(),
            };
            let refused = DeliveryStatus { failure: Some(failure), ..at(Phase::Failed, Some(OLD)) };
            let status = of(&refused, 3, 3);
            assert_eq!(is(&status, kind::DEGRADED).0, degraded);
            assert_eq!(status.phase, ApplicationPhase::Running, "what was good before runs");
            assert_eq!(is(&status, kind::READY), ("False".into(), "Word".into()));
        }
        let suspended = at(Phase::Suspended, Some(OLD));
        assert_eq!(is(&of(&suspended, 3, 3), kind::DEGRADED).0, "False");
    }

    #[test]
    fn a_route_that_the_cluster_has_no_field_for_is_told_with_the_setting() {
        let ready = |reason: &str, object: &str, message: &str| {
            let failure = Failure {
                revision: Some(revision(NEW)),
                problem: Problem { reason: reason.into(), object: object.into(), message: message.into() },
                transient: false,
                retries: 1,
                retry_at: String::new(),
            };
            let refused = DeliveryStatus { failure: Some(failure), ..at(Phase::Failed, Some(OLD)) };
            condition::get(&of(&refused, 3, 3).conditions, kind::READY).unwrap().message.clone()
        };
        let (route, field) = ("HTTPRoute shop/web", "unknown field spec.rules[0].retry; check it");
        assert!(
            ready("UnknownField", route, field).contains(". spec.expose.gateway.channel is Experimental")
        );
        for other in [
            ready("UnknownField", route, "unknown field spec.rules[0].timeouts; check it"),
            ready("UnknownField", "Deployment shop/web", field),
            ready("Invalid", route, field),
        ] {
            assert!(!other.contains("channel"), "{other}");
        }
    }

    #[test]
    fn what_fails_for_now_is_told_and_nobody_has_to_do_anything() {
        let (runs, away) = (at(Phase::Ready, Some(OLD)), problem("RevisionNotKept"));
        let status =
            status(&seen(&runs, Some(&away), &[]), &ApplicationStatus::default(), Timestamp::UNIX_EPOCH);
        let ready = condition::get(&status.conditions, kind::READY).unwrap();
        assert_eq!(
            (ready.reason.as_str(), ready.message.as_str()),
            ("RevisionNotKept", "why; it is tried again")
        );
        assert_eq!(is(&status, kind::DEGRADED).0, "False");
        assert_eq!(status.phase, ApplicationPhase::Progressing);
    }

    #[test]
    fn what_is_limited_is_told_until_it_is_not_and_an_invalid_spec_says_nothing_of_it() {
        let (runs, wrong) = (at(Phase::Ready, Some(NEW)), problem("InvalidApplication"));
        let notices = [
            notice::Notice { reason: "One", text: "first".into() },
            notice::Notice { reason: "Two", text: "second".into() },
        ];
        let none = ApplicationStatus::default();
        let limited = status(&seen(&runs, None, &notices), &none, Timestamp::UNIX_EPOCH);
        let told = condition::get(&limited.conditions, kind::LIMITED).unwrap();
        assert_eq!((told.reason.as_str(), told.message.as_str()), ("One", "first. second"));
        let invalid = Seen { wanted: Err(&wrong), notices: None, ..seen(&runs, None, &[]) };
        assert_eq!(is(&status(&invalid, &limited, Timestamp::UNIX_EPOCH), kind::LIMITED).0, "True");
        assert_eq!(
            is(&status(&seen(&runs, None, &[]), &limited, Timestamp::UNIX_EPOCH), kind::LIMITED).0,
            "False"
        );
    }

    fn is(status: &ApplicationStatus, kind: &str) -> (String, String) {
        let c = condition::get(&status.conditions, kind).unwrap();
        (c.status.clone(), c.reason.clone())
    }

    #[test]
    fn pods_decide_once_the_spec_runs() {
        use ApplicationPhase::{Degraded, PartiallyRunning, Running};
        for (wanted, available, phase, ready) in [
            (3, 3, Running, "True"),
            (3, 1, PartiallyRunning, "False"),
            (3, 0, Degraded, "False"),
            (0, 0, Running, "True"),
        ] {
            let status = of(&at(Phase::Ready, Some(NEW)), wanted, available);
            assert_eq!(
                (status.phase, is(&status, kind::READY).0.as_str()),
                (phase, ready),
                "{available} of {wanted}"
            );
            assert_eq!(status.current_revision.as_deref(), Some("web-2222222222"));
            assert_eq!(status.available_replicas, Some(available));
        }
    }

    #[test]
    fn a_spec_that_was_not_taken_yet_is_not_ready_by_the_one_before() {
        let status = of(&at(Phase::Ready, Some(OLD)), 3, 3);
        assert_eq!(status.phase, ApplicationPhase::Progressing);
        assert_eq!(status.observed_generation, Some(2));
        assert_eq!(is(&status, kind::READY), ("False".into(), "Pending".into()));
        assert_eq!(of(&at(Phase::Pending, None), 0, 0).phase, ApplicationPhase::Pending);
        // The one before failed and is still there: it says nothing of this one.
        let failed = DeliveryStatus { attempt: attempt(OLD, Step::Failed), ..at(Phase::Failed, Some(OLD)) };
        assert_eq!(is(&of(&failed, 3, 3), kind::DEGRADED).0, "False");
    }

    #[test]
    fn while_its_pods_are_not_seen_it_is_not_better_than_before() {
        let delivery = at(Phase::Ready, Some(NEW));
        let before = of(&delivery, 3, 0);
        assert_eq!(before.phase, ApplicationPhase::Degraded);
        let without = ApplicationStatus { replicas: Some(0), ..before.clone() };
        let seen = Seen {
            name: "web",
            generation: Some(2),
            wanted: Ok(NEW),
            hindrance: None,
            delay: None,
            notices: Some(&[]),
            delivery: Some(&delivery),
            pods: None,
            url: None,
        };
        assert_eq!(status(&seen, &without, Timestamp::UNIX_EPOCH).phase, ApplicationPhase::Degraded);
    }

    #[test]
    fn what_is_held_is_held_until_another_spec_comes() {
        let held = |id: &str| {
            let held = Held {
                revision: revision(id),
                problem: problem("Broken"),
                since: String::new(),
                revert: None,
            };
            let mut delivery = DeliveryStatus { held: Some(held), ..at(Phase::Held, Some(OLD)) };
            let (conditions, now) = (&mut delivery.conditions, Timestamp::UNIX_EPOCH);
            condition::set(conditions, kind::HELD, "True", "RevisionHeld", "why", now, None);
            is(&of(&delivery, 3, 3), kind::HELD).0
        };
        assert_eq!(held(NEW), "True");
        assert_eq!(held("3333333333333333333333333333333333333333"), "False", "it has seen a newer one");
    }

    #[test]
    fn what_fails_is_told_apart() {
        let held =
            Held { revision: revision(NEW), problem: problem("Broken"), since: String::new(), revert: None };
        let back = DeliveryStatus { held: Some(held.clone()), ..at(Phase::Held, Some(OLD)) };
        let status = of(&back, 3, 3);
        assert_eq!(status.phase, ApplicationPhase::RolledBack);
        assert_eq!(status.current_revision.as_deref(), Some("web-1111111111"));
        assert_eq!(is(&status, kind::DEGRADED).0, "False", "what runs is good");
        assert_eq!(of(&back, 3, 0).phase, ApplicationPhase::Degraded);
        let first = DeliveryStatus { held: Some(held), ..at(Phase::Held, None) };
        assert_eq!(of(&first, 0, 0).phase, ApplicationPhase::Degraded);
        let left = DeliveryStatus { attempt: attempt(NEW, Step::Failed), ..at(Phase::Failed, Some(OLD)) };
        let status = of(&left, 3, 3);
        assert_eq!(status.phase, ApplicationPhase::Degraded);
        assert_eq!(is(&status, kind::DEGRADED), ("True".into(), FAILED.into()));
        let under_way =
            DeliveryStatus { attempt: attempt(NEW, Step::Waiting), ..at(Phase::Waiting, Some(OLD)) };
        assert_eq!(is(&of(&under_way, 3, 3), kind::PROGRESSING).0, "True");
    }

    #[test]
    fn an_invalid_spec_is_told_and_what_runs_counts_on() {
        let wrong = problem("InvalidApplication");
        let runs = at(Phase::Ready, Some(OLD));
        let mut seen = Seen {
            name: "web",
            generation: Some(3),
            wanted: Err(&wrong),
            hindrance: None,
            delay: None,
            notices: Some(&[]),
            delivery: Some(&runs),
            pods: Some(Pods { wanted: 2, there: 2, ready: 2, available: 2 }),
            url: None,
        };
        let of = |seen: &Seen<'_>| status(seen, &ApplicationStatus::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(of(&seen).phase, ApplicationPhase::Running);
        assert_eq!(is(&of(&seen), kind::READY), ("False".into(), "InvalidApplication".into()));
        assert_eq!(is(&of(&seen), kind::DEGRADED), ("True".into(), "InvalidApplication".into()));
        seen.delivery = None;
        seen.pods = None;
        assert_eq!(of(&seen).phase, ApplicationPhase::Pending);
    }

    #[test]
    fn while_nothing_is_seen_what_was_known_stands() {
        let runs = at(Phase::Ready, Some(NEW));
        let before = of(&runs, 3, 3);
        let seen = Seen {
            name: "web",
            generation: Some(2),
            wanted: Ok(NEW),
            hindrance: None,
            delay: None,
            notices: Some(&[]),
            delivery: Some(&runs),
            pods: None,
            url: None,
        };
        assert_eq!(status(&seen, &before, Timestamp::MAX), before);
    }
}
