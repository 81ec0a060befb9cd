//! Laws of analysis, tried with many histories: what is no success never counts as one, limits hold, and every step ends.
#![allow(clippy::unwrap_used)]

use super::run::runs_of;
use super::*;
use crate::api::analysis::{Builtin, HttpMetric, PrometheusMetric};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

fn bare(name: &str, success: Option<&str>, failure: Option<&str>) -> Metric {
    Metric {
        name: name.into(),
        success: success.map(Into::into),
        failure: failure.map(Into::into),
        ..Metric::default()
    }
}

fn prometheus(success: Option<&str>, failure: Option<&str>) -> Metric {
    Metric { prometheus: Some(PrometheusMetric::default()), ..bare("m", success, failure) }
}

/// Rules of every form that people write, those that are true of NaN included.
const RULES: [&str; 12] = [
    "result >= 0.99",
    "!(result < 0.99)",
    "result != 0.5",
    "!(result > 0.1)",
    "candidate <= stable * 1.2",
    "!(candidate > stable * 1.2)",
    "candidate / stable < 1.2",
    "!(candidate / stable > 1.2)",
    "candidate - stable != 1.0",
    "stable > 0 ? candidate / stable < 2 : true",
    "true",
    "result == result || result != result",
];

fn without_a_value() -> impl Strategy<Value = Reading> {
    prop_oneof![
        Just(Reading::Number(f64::NAN)),
        Just(Reading::Number(f64::INFINITY)),
        Just(Reading::Number(f64::NEG_INFINITY)),
        Just(Reading::NoData("no series".into())),
        Just(Reading::Error("2 series".into())),
        Just(Reading::Bad("answers 302".into())),
    ]
}

proptest! {
    #[test]
    fn without_a_value_there_is_no_success(
        reading in without_a_value(),
        stable in prop::option::of(0.0..2.0f64),
        success in prop::option::of(0..RULES.len()),
        failure in prop::option::of(0..RULES.len()),
        kind in 0..3,
    ) {
        let mut metric = prometheus(success.map(|i| RULES[i]), failure.map(|i| RULES[i]));
        match kind {
            1 => metric.prometheus.as_mut().unwrap().builtin = Some(Builtin::RequestDuration),
            2 => (metric.prometheus, metric.http) = (None, Some(HttpMetric::default())),
            _ => {}
        }
        let measurement = Measurement { stable: stable.map(Reading::Number), ..Measurement::of(reading) };
        let judged = judge(&metric, &measurement);
        prop_assert_ne!(judged.outcome, Outcome::Success);
        prop_assert!(!judged.message.is_empty());
    }

    #[test]
    fn one_endpoint_without_a_value_is_enough(
        reading in without_a_value(),
        before in 0..4usize,
        after in 0..4usize,
    ) {
        let metric = Metric { http: Some(HttpMetric::default()), ..bare("m", None, None) };
        let well = || (String::new(), Reading::Well("answers 200".into()));
        let mut candidate: Vec<_> = (0..before).map(|_| well()).collect();
        candidate.push((String::new(), reading));
        candidate.extend((0..after).map(|_| well()));
        prop_assert_ne!(judge(&metric, &Measurement { candidate, stable: None }).outcome, Outcome::Success);
    }

    /// A relative rule about a stable variant without a value, and a ratio with nothing below the line.
    #[test]
    fn nothing_is_compared_with_nothing(
        candidate in prop_oneof![Just(0.0), 0.0..2.0f64],
        stable in without_a_value(),
        rule in 4..9usize,
        negated in any::<bool>(),
    ) {
        let (success, failure) = if negated { (None, Some(RULES[rule])) } else { (Some(RULES[rule]), None) };
        let metric = prometheus(success, failure);
        let of = |stable| judge(&metric, &Measurement { stable, ..Measurement::of(Reading::Number(candidate)) }).outcome;
        prop_assert_ne!(of(Some(stable)), Outcome::Success);
        prop_assert_ne!(of(None), Outcome::Success);
        if matches!(rule, 6 | 7) {
            prop_assert_eq!(of(Some(Reading::Number(0.0))), Outcome::NoData);
        }
    }

    #[test]
    fn what_answers_anything_is_never_taken_for_json_that_fits(text in "\\PC{0,20}", n in any::<i64>()) {
        let metric = Metric { http: Some(HttpMetric::default()), ..bare("m", Some("result.status == 'ok'"), None) };
        for value in [Value::from(text), Value::from(n), Value::Null, json!([]), json!({}), json!({"status": n})] {
            prop_assert_ne!(judge(&metric, &Measurement::of(Reading::Json(value))).outcome, Outcome::Success);
        }
    }
}

fn policy(
    failure: u32,
    unanswered: u32,
    inconclusive: u32,
    count: u32,
    on_no_data: OnNoData,
) -> AnalysisPolicy {
    AnalysisPolicy {
        count: Some(count),
        failure_limit: Some(failure),
        consecutive_error_limit: Some(unanswered),
        inconclusive_limit: Some(inconclusive),
        on_no_data: Some(on_no_data),
        metrics: vec![bare("a", None, None), bare("b", None, None)],
        ..AnalysisPolicy::default()
    }
}

fn on_no_data() -> impl Strategy<Value = OnNoData> {
    prop_oneof![Just(OnNoData::Pause), Just(OnNoData::Fail), Just(OnNoData::Pass)]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Success),
        1 => Just(Outcome::Failure),
        1 => Just(Outcome::Inconclusive),
        1 => Just(Outcome::NoData),
        1 => Just(Outcome::Error),
    ]
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn judged(outcome: Outcome) -> Judged {
    Judged {
        outcome,
        value: None,
        message: if outcome == Outcome::Success { String::new() } else { "why".into() },
    }
}

fn measured(
    policy: &AnalysisPolicy,
    runs: &[MetricRun],
    which: usize,
    outcome: Outcome,
    now: Timestamp,
) -> Vec<MetricRun> {
    let mut runs = runs_of(policy, runs);
    runs[which] = step(&settings(policy, &policy.metrics[which]), &runs[which], &judged(outcome), now);
    runs
}

proptest! {
    #[test]
    fn verdicts_follow_from_what_was_measured(
        failure in 0..4u32, unanswered in 0..4u32, inconclusive in 0..3u32, count in 1..5u32, none in on_no_data(),
        analysis in any::<bool>(),
        history in prop::collection::vec((0..2usize, outcome()), 0..60),
    ) {
        let policy = policy(failure, unanswered, inconclusive, count, none);
        let kind = if analysis { StepKind::Analysis } else { StepKind::Other };
        let wanted = if analysis { count } else { 1 };
        let mut runs = Vec::new();
        let mut seen: [Vec<Outcome>; 2] = [Vec::new(), Vec::new()];
        for (second, (which, outcome)) in history.into_iter().enumerate() {
            let now = at(second as i64);
            runs = measured(&policy, &runs, which, outcome, now);
            seen[which].push(outcome);
            let of = |which: usize, what: Outcome| seen[which].iter().filter(|o| **o == what).count() as u32;
            let row = |which: usize| seen[which].iter().rev().take_while(|o| matches!(o, Outcome::NoData | Outcome::Error)).count() as u32;
            let fails = (0..2).any(|i| of(i, Outcome::Failure) > failure);
            let without = (0..2).any(|i| row(i) > unanswered);
            match verdict(&policy, &runs, kind, at(0), now) {
                Verdict::Failed(problem) => {
                    prop_assert!(fails || (without && none == OnNoData::Fail));
                    prop_assert!(problem.message.starts_with("metric "));
                    break;
                }
                Verdict::Paused(_) => {
                    prop_assert!(!fails);
                    prop_assert!((without && none == OnNoData::Pause) || (0..2).any(|i| of(i, Outcome::Inconclusive) > inconclusive));
                }
                Verdict::Passed => {
                    prop_assert!(!fails);
                    for (i, seen) in seen.iter().enumerate() {
                        let passed_over = none == OnNoData::Pass && row(i) > unanswered;
                        prop_assert!(passed_over || (of(i, Outcome::Success) >= wanted && seen.last() == Some(&Outcome::Success)));
                        prop_assert_eq!(passed_over, waived(&policy, &runs).iter().any(|p| p.message.starts_with(&format!("metric {} ", policy.metrics[i].name))));
                    }
                }
                Verdict::Running { next_at } => {
                    prop_assert!(!fails && next_at >= now);
                }
            }
        }
    }

    /// However it goes, a step that is measured comes to an end or says why it waits.
    #[test]
    fn every_step_ends(
        failure in 0..4u32, unanswered in 0..4u32, inconclusive in 0..3u32, count in 1..5u32, none in on_no_data(),
        outcomes in prop::collection::vec(outcome(), 200),
    ) {
        let policy = policy(failure, unanswered, inconclusive, count, none);
        let mut runs = Vec::new();
        let mut ended = false;
        for (second, outcome) in outcomes.into_iter().enumerate() {
            for which in 0..2 {
                runs = measured(&policy, &runs, which, outcome, at(second as i64));
            }
            ended |= !matches!(verdict(&policy, &runs, StepKind::Analysis, at(0), at(second as i64)), Verdict::Running { .. });
        }
        prop_assert!(ended);
    }

    /// What was shown leads to the same verdict as what is known, few things are shown, and a restart forgets no failure.
    #[test]
    fn what_is_shown_is_enough(
        failure in 0..4u32, unanswered in 0..4u32, inconclusive in 0..3u32, none in on_no_data(), analysis in any::<bool>(),
        history in prop::collection::vec((0..2usize, outcome()), 0..80),
    ) {
        let policy = policy(failure, unanswered, inconclusive, 3, none);
        let kind = if analysis { StepKind::Analysis } else { StepKind::Other };
        let (mut runs, mut shown) = (Vec::new(), Vec::new());
        for (second, (which, outcome)) in history.into_iter().enumerate() {
            let now = at(second as i64 * 5);
            runs = measured(&policy, &runs, which, outcome, now);
            if worth_showing(&policy, kind, &shown, &runs, at(0), now) {
                shown = runs.clone();
            }
            let of = |runs: &[MetricRun]| std::mem::discriminant(&verdict(&policy, runs, kind, at(0), now));
            prop_assert_eq!(of(&shown), of(&runs));
            for (a, b) in runs_of(&policy, &shown).iter().zip(&runs) {
                prop_assert_eq!((a.failed, a.inconclusive), (b.failed, b.inconclusive));
            }
        }
    }
}

#[test]
fn an_hour_of_good_measurements_is_few_writes() {
    let policy = policy(3, 4, 0, 1000, OnNoData::Pause);
    let (mut runs, mut shown, mut writes) = (Vec::new(), Vec::new(), 0);
    for second in (0..3600).step_by(5) {
        for which in 0..2 {
            runs = measured(&policy, &runs, which, Outcome::Success, at(second));
        }
        if worth_showing(&policy, StepKind::Other, &shown, &runs, at(0), at(second)) {
            (shown, writes) = (runs.clone(), writes + 1);
        }
    }
    assert!((10..=13).contains(&writes), "{writes}");
    // A provider that is down for an hour: a few until the limit, then the same as ever.
    writes = 0;
    for second in (3600..7200).step_by(5) {
        runs = measured(&policy, &runs, 0, Outcome::Error, at(second));
        if worth_showing(&policy, StepKind::Other, &shown, &runs, at(0), at(second)) {
            (shown, writes) = (runs.clone(), writes + 1);
        }
    }
    assert!((10..=18).contains(&writes), "{writes}");
}

#[test]
fn failures_count_in_the_whole_rollout() {
    let policy = policy(3, 4, 0, 3, OnNoData::Pause);
    let mut runs = Vec::new();
    for round in 0..2 {
        for which in 0..2 {
            for outcome in [Outcome::Failure, Outcome::Failure, Outcome::Success] {
                runs = measured(&policy, &runs, which, outcome, at(round));
            }
        }
        let seen = verdict(&policy, &runs, StepKind::Other, at(0), at(round));
        match round {
            0 => assert_eq!(seen, Verdict::Passed),
            _ => assert!(
                matches!(seen, Verdict::Failed(p) if p.message == "metric a failed 4 times; the limit is 3")
            ),
        }
        runs = next_step(&runs);
        assert!(matches!(
            verdict(&policy, &runs, StepKind::Other, at(9), at(9)),
            Verdict::Running { .. } | Verdict::Failed(_)
        ));
    }
}

#[test]
fn a_step_with_metrics_of_its_own_makes_the_rollouts_not_forget() {
    let general = policy(3, 4, 0, 3, OnNoData::Pause);
    let own = AnalysisPolicy { metrics: vec![bare("own", None, None)], ..general.clone() };
    let mut runs = Vec::new();
    for second in 0..3 {
        runs = measured(&general, &runs, 0, Outcome::Failure, at(second));
        runs = measured(&general, &runs, 1, Outcome::Success, at(second));
    }
    runs = measured(&own, &next_step(&runs), 0, Outcome::Success, at(3));
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["own", "a"], "b has nothing to remember");
    assert!(matches!(verdict(&own, &runs, StepKind::Other, at(3), at(3)), Verdict::Passed));
    runs = measured(&general, &next_step(&runs), 0, Outcome::Failure, at(4));
    assert!(matches!(verdict(&general, &runs, StepKind::Other, at(4), at(4)), Verdict::Failed(_)));
}

#[test]
fn defaults_and_overrides() {
    let general = AnalysisPolicy { failure_limit: Some(1), ..AnalysisPolicy::default() };
    let metric = Metric { interval: Some(Duration::from_secs(0)), count: Some(7), ..bare("a", None, None) };
    let of = settings(&general, &metric);
    assert_eq!((of.interval.as_secs(), of.initial_delay.as_secs(), of.count, of.failure_limit), (1, 1, 7, 1));
    let of = settings(&AnalysisPolicy::default(), &bare("a", None, None));
    assert_eq!(
        (of.interval.as_secs(), of.count, of.failure_limit, of.unanswered_limit, of.inconclusive_limit),
        (30, 3, 3, 4, 0)
    );
    let general = AnalysisPolicy { metrics: vec![metric], ..general };
    let own = policy_of_step(Some(&general), &AnalysisPolicy { count: Some(2), ..AnalysisPolicy::default() });
    assert_eq!((own.count, own.failure_limit, own.metrics.len()), (Some(2), Some(1), 1));
}

#[test]
fn a_pause_for_lack_of_data_ends_with_data() {
    let policy = policy(3, 1, 0, 1, OnNoData::Pause);
    let mut runs = Vec::new();
    for second in 0..2 {
        runs = measured(&policy, &runs, 0, Outcome::Success, at(second));
        runs = measured(&policy, &runs, 1, Outcome::NoData, at(second));
    }
    let Verdict::Paused(problem) = verdict(&policy, &runs, StepKind::Analysis, at(0), at(2)) else {
        unreachable!()
    };
    assert_eq!(
        (problem.reason.as_str(), problem.message.as_str()),
        (
            "NoData",
            "metric b has had no data 2 times in a row: why; the rollout goes on by itself when there is a value",
        )
    );
    runs = measured(&policy, &runs, 1, Outcome::Success, at(3));
    assert_eq!(verdict(&policy, &runs, StepKind::Analysis, at(0), at(3)), Verdict::Passed);
}
