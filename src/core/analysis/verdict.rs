//! What the measurements of a step mean for it.

use super::run::at;
use super::{Settings, run_of, settings};
use crate::api::analysis::{AnalysisPolicy, Metric, MetricRun, OnNoData, Outcome};
use crate::api::delivery::Problem;
use jiff::Timestamp;

/// A metric failed more often than it may.
pub const FAILED: &str = "AnalysisFailed";
/// There has been no data for too long.
pub const NO_DATA: &str = "NoData";
/// What is asked has not answered for too long.
pub const ERROR: &str = "AnalysisError";
/// Too many measurements were neither success nor failure.
pub const INCONCLUSIVE: &str = "AnalysisInconclusive";

/// What kind of step it is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// One that goes on when `count` measurements of each metric have succeeded.
    Analysis,
    /// Any other: it is measured for as long as it lasts, and it is not left before one has succeeded.
    Other,
}

/// What the measurements of a step mean for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They do not let the step end yet; the next one is due then.
    Running {
        /// When.
        next_at: Timestamp,
    },
    /// As far as they go, the step may end.
    Passed,
    /// The rollout fails.
    Failed(Problem),
    /// It waits for data, or for a person. It is no end: with data the verdict is another one.
    Paused(Problem),
}

/// What the measurements of a step that settled at `since` mean for it.
pub fn verdict(
    policy: &AnalysisPolicy,
    runs: &[MetricRun],
    kind: StepKind,
    since: Timestamp,
    now: Timestamp,
) -> Verdict {
    let mut paused = None;
    let mut next: Option<Timestamp> = None;
    for metric in &policy.metrics {
        let settings = settings(policy, metric);
        let run = run_of(runs, metric);
        let due = due(&settings, run, since).max(now);
        match of_metric(metric, &settings, run, kind) {
            One::Failed(problem) => return Verdict::Failed(problem),
            One::Paused(problem) => {
                paused.get_or_insert(problem);
            }
            One::Running => next = Some(next.map_or(due, |n| n.min(due))),
            One::Passed => {}
        }
    }
    match (paused, next) {
        (Some(problem), _) => Verdict::Paused(problem),
        (None, Some(next_at)) => Verdict::Running { next_at },
        (None, None) => Verdict::Passed,
    }
}

/// The metrics without data that are passed over for now, since `onNoData: Pass` says so. For an event each.
pub fn waived(policy: &AnalysisPolicy, runs: &[MetricRun]) -> Vec<Problem> {
    let of = |metric: &Metric| {
        let (settings, run) = (settings(policy, metric), run_of(runs, metric)?);
        let passed_over = settings.on_no_data == OnNoData::Pass && run.unanswered > settings.unanswered_limit;
        passed_over
            .then(|| unanswered(metric, run, "onNoData is Pass, so it is passed over, which is no success"))
    };
    policy.metrics.iter().filter_map(of).collect()
}

/// When a metric is measured next.
pub fn due(settings: &Settings, run: Option<&MetricRun>, since: Timestamp) -> Timestamp {
    let (from, wait) = match run.and_then(at) {
        Some(at) => (at, settings.interval),
        None => (since, settings.initial_delay),
    };
    from.checked_add(wait).unwrap_or(Timestamp::MAX)
}

enum One {
    Running,
    Passed,
    Failed(Problem),
    Paused(Problem),
}

fn of_metric(metric: &Metric, settings: &Settings, run: Option<&MetricRun>, kind: StepKind) -> One {
    let Some(run) = run else { return One::Running };
    let told = run.message.as_deref().unwrap_or("why was not kept");
    let value = run.value.as_ref().map(|v| format!(", the last value being {v}")).unwrap_or_default();
    if run.failed > settings.failure_limit {
        let message = match run.outcome {
            Some(Outcome::Failure) => format!("{value}: {told}"),
            _ => String::new(),
        };
        return One::Failed(problem(
            FAILED,
            format!(
                "metric {} failed {}; the limit is {}{message}",
                metric.name,
                times(run.failed),
                settings.failure_limit
            ),
        ));
    }
    if run.unanswered > settings.unanswered_limit {
        match settings.on_no_data {
            OnNoData::Pass => return One::Passed,
            OnNoData::Fail => return One::Failed(unanswered(metric, run, "onNoData is Fail")),
            OnNoData::Pause => {
                let then = "the rollout goes on by itself when there is a value";
                return One::Paused(unanswered(metric, run, then));
            }
        }
    }
    if run.inconclusive > settings.inconclusive_limit {
        return One::Paused(problem(
            INCONCLUSIVE,
            format!(
                "metric {} was neither success nor failure {}; the limit is {}{value}",
                metric.name,
                times(run.inconclusive),
                settings.inconclusive_limit
            ),
        ));
    }
    let enough = match kind {
        StepKind::Analysis => settings.count,
        StepKind::Other => 1,
    };
    match run.succeeded >= enough && run.outcome == Some(Outcome::Success) {
        true => One::Passed,
        false => One::Running,
    }
}

fn unanswered(metric: &Metric, run: &MetricRun, then: &str) -> Problem {
    let (reason, what) = match run.outcome {
        Some(Outcome::Error) => (ERROR, "could not be measured"),
        _ => (NO_DATA, "has had no data"),
    };
    let told = run.message.as_deref().unwrap_or("why was not kept");
    problem(
        reason,
        format!("metric {} {what} {} in a row: {told}; {then}", metric.name, times(run.unanswered)),
    )
}

fn times(n: u32) -> String {
    if n == 1 { "once".into() } else { format!("{n} times") }
}

fn problem(reason: &str, message: String) -> Problem {
    Problem { reason: reason.into(), object: String::new(), message }
}
