//! How long a rollout takes at least from where it is: what the steps ahead wait for, summed up. Pods, Jobs and people take the
//! time that they take.

use super::read_stamp;
use super::steps::{Planned, Steps, Then};
use crate::api::rollout::{RolloutStatus, Stage};
use crate::core::analysis::{StepKind, settings};
use jiff::{SignedDuration, Timestamp};

/// What lies ahead of a rollout until its promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// When the step under way may be over; `None` while it is not in effect or waits for a person, or where it waits for no time.
    pub goes_on_at: Option<Timestamp>,
    /// How long the steps after it take at least, and the step itself while it is not in effect.
    pub then: SignedDuration,
    /// Whether a person has to say go before promotion.
    pub asks: bool,
}

/// What lies ahead of a rollout; `None` once the new revision takes its place, or when it is taken back.
pub fn left(rollout: &RolloutStatus, steps: &Steps) -> Option<Left> {
    let at = rollout.at as usize;
    let now = steps.all.get(at).filter(|planned| planned.stage == rollout.stage)?;
    if now.stage == Stage::Promoting {
        return None;
    }
    let ahead: Vec<usize> =
        (at + 1..steps.all.len()).filter(|i| steps.all[*i].stage != Stage::Promoting).collect();
    let asks = |planned: &Planned| planned.then == Then::Pause(None);
    let then =
        ahead.iter().map(|i| takes(steps, *i)).fold(SignedDuration::ZERO, SignedDuration::saturating_add);
    let own = takes(steps, at);
    let settled = rollout.settled.as_deref().filter(|_| rollout.unwell.is_none());
    let effective = settled.map(|settled| read_stamp(settled).max(read_stamp(&rollout.since)));
    let goes_on_at = effective
        .filter(|_| rollout.paused.is_none() && !asks(now) && !own.is_zero())
        .map(|since| since.checked_add(own).unwrap_or(Timestamp::MAX));
    Some(Left {
        goes_on_at,
        then: if effective.is_some() { then } else { then.saturating_add(own) },
        asks: asks(now) || ahead.iter().any(|i| asks(&steps.all[*i])),
    })
}

/// How long one layout is kept at least, from when it is in effect.
fn takes(steps: &Steps, at: usize) -> SignedDuration {
    let planned = &steps.all[at];
    let anew = at == 0 || steps.all[at - 1].layout != planned.layout;
    let settle = if anew { steps.settle } else { SignedDuration::ZERO };
    let pause = match &planned.then {
        Then::Pause(Some(time)) => *time,
        _ => SignedDuration::ZERO,
    };
    let measured = steps.measured(planned).0.map(|(policy, kind)| {
        let of = |metric| {
            let settings = settings(&policy, metric);
            let after_the_first = match kind {
                StepKind::Analysis => settings.count.saturating_sub(1),
                StepKind::Other => 0,
            };
            let after_the_first = i32::try_from(after_the_first).unwrap_or(i32::MAX);
            settings.initial_delay.saturating_add(settings.interval.saturating_mul(after_the_first))
        };
        policy.metrics.iter().map(of).max().unwrap_or(SignedDuration::ZERO)
    });
    settle.max(pause).max(measured.unwrap_or(SignedDuration::ZERO))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::rollout::RolloutPolicy;
    use serde_json::{Value, json};

    /// What lies ahead at a layout, in seconds: until when from its start, after that, and whether a person is asked.
    fn at(policy: &Value, at: usize, more: Value) -> Option<(Option<i64>, i64, bool)> {
        let policy: RolloutPolicy = serde_json::from_value(policy.clone()).unwrap();
        let steps = Steps::new(&policy).unwrap().unwrap();
        let planned = &steps.all[at];
        let revision = json!({"branch": "main", "commit": "b", "inputs": "b"});
        let mut status = json!({
            "stage": planned.stage, "candidate": revision, "router": policy.router, "step": planned.step,
            "steps": steps.steps, "at": at, "layout": planned.layout, "since": "2026-01-01T00:00:00Z",
            "settled": "2026-01-01T00:00:10Z",
        });
        for (field, value) in more.as_object().unwrap() {
            status[field] = value.clone();
        }
        let left = left(&serde_json::from_value(status).unwrap(), &steps)?;
        let began: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        Some((left.goes_on_at.map(|t| t.duration_since(began).as_secs()), left.then.as_secs(), left.asks))
    }

    fn policy(steps: Value, analysis: Value) -> Value {
        json!({"strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
            "settle": "5s", "steps": steps, "analysis": analysis})
    }

    #[test]
    fn pauses_and_measurements_are_summed_up() {
        let metrics = json!([{"name": "rate", "http": {"path": "/"}}]);
        let measured = policy(
            json!([{"weight": 10}, {"pause": "1m"}, {"analysis": {"count": 3}}, {"weight": 50}]),
            json!({"interval": "20s", "initialDelay": "30s", "metrics": metrics}),
        );
        // Starting, 10 %, its pause, three measurements, 50 %, all of it, and promotion.
        let table = [
            (Some(15), 30 + 60 + 70 + 30 + 30),
            (Some(40), 60 + 70 + 30 + 30),
            (Some(70), 70 + 30 + 30),
            (Some(80), 30 + 30),
            (Some(40), 30),
            (Some(40), 0),
        ];
        for (layout, (goes_on, then)) in table.into_iter().enumerate() {
            assert_eq!(at(&measured, layout, json!({})), Some((goes_on, then, false)), "{layout}");
        }
        assert_eq!(at(&measured, 6, json!({})), None, "promoting");
    }

    #[test]
    fn what_is_not_in_effect_and_who_is_asked_have_no_time() {
        let asked =
            policy(json!([{"weight": 10}, {"pause": {}}, {"weight": 50}, {"pause": "1m"}]), json!(null));
        assert_eq!(at(&asked, 1, json!({})), Some((Some(15), 5 + 60 + 5, true)));
        assert_eq!(at(&asked, 1, json!({"settled": null})), Some((None, 5 + 5 + 60 + 5, true)));
        assert_eq!(at(&asked, 2, json!({})), Some((None, 5 + 60 + 5, true)));
        assert_eq!(at(&asked, 4, json!({})), Some((Some(70), 5, false)));
        let paused = json!({"paused": {"reason": "PausedByHand", "object": "", "message": "by hand"}});
        assert_eq!(at(&asked, 4, paused), Some((None, 5, false)));
        assert_eq!(at(&asked, 4, json!({"stage": "Draining"})), None, "taken back");
    }
}
