//! Analysis: what a measurement means for a rollout. Values in, values out; who measures is `crate::analysis`.
//!
//! ```text
//! metric + variables ── template ──▶ question ── asked elsewhere ──▶ Measurement
//! Measurement ── judge ──▶ Judged ── step ──▶ MetricRun (in status) ── verdict ──▶ Verdict
//! ```
//!
//! What holds throughout: only a value that was measured, is a finite number (or the JSON that was asked for), and of which
//! the rules are true is a success. Nothing else is ever counted as one.

pub mod builtin;
mod check;
pub mod endpoints;
mod judge;
#[cfg(test)]
mod laws;
mod run;
pub mod template;
mod verdict;

pub use crate::api::analysis::Outcome;
pub use check::{Subject, Subjects, problems};
pub use judge::{Judged, Measurement, Reading, judge, names_stable};
pub use run::{SHOWN_EVERY, next_step, runs_of, step, worth_showing};
pub use template::{Pair, Variables, Variant};
pub use verdict::{ERROR, FAILED, INCONCLUSIVE, NO_DATA, StepKind, Verdict, due, verdict, waived};

use crate::api::Duration;
use crate::api::analysis::{AnalysisPolicy, Metric, MetricRun, OnNoData};
use jiff::SignedDuration;
use std::collections::BTreeSet;

/// What is seen of the measurements of a step, for the state machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnalysisSeen {
    /// The step that they are of, as the reconciler named it.
    pub key: String,
    /// They.
    pub runs: Vec<MetricRun>,
}

/// The settings of a metric: its own, else those of the analysis, else the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From measurement to measurement.
    pub interval: SignedDuration,
    /// From the start of the step to the first one.
    pub initial_delay: SignedDuration,
    /// How many have to succeed in an `analysis` step.
    pub count: u32,
    /// How many may fail.
    pub failure_limit: u32,
    /// How many in a row may have no value.
    pub unanswered_limit: u32,
    /// How many may be neither success nor failure.
    pub inconclusive_limit: u32,
    /// What happens without data.
    pub on_no_data: OnNoData,
    /// How long an answer may take.
    pub timeout: SignedDuration,
}

/// The settings of a metric.
pub fn settings(policy: &AnalysisPolicy, metric: &Metric) -> Settings {
    let second = SignedDuration::from_secs(1);
    let time = |own: Option<Duration>, general: Option<Duration>| own.or(general).map(Duration::signed);
    let interval =
        time(metric.interval, policy.interval).unwrap_or(SignedDuration::from_secs(30)).max(second);
    Settings {
        interval,
        initial_delay: time(metric.initial_delay, policy.initial_delay).unwrap_or(interval),
        count: metric.count.or(policy.count).unwrap_or(3).max(1),
        failure_limit: metric.failure_limit.or(policy.failure_limit).unwrap_or(3),
        unanswered_limit: metric.consecutive_error_limit.or(policy.consecutive_error_limit).unwrap_or(4),
        inconclusive_limit: metric.inconclusive_limit.or(policy.inconclusive_limit).unwrap_or(0),
        on_no_data: metric.on_no_data.or(policy.on_no_data).unwrap_or_default(),
        timeout: time(metric.timeout, None)
            .unwrap_or(SignedDuration::from_secs(10))
            .clamp(second, SignedDuration::from_secs(60)),
    }
}

/// The policy of a step with one of its own: what it leaves out is as the rollout's says, the metrics too.
pub fn policy_of_step(general: Option<&AnalysisPolicy>, own: &AnalysisPolicy) -> AnalysisPolicy {
    let Some(general) = general else { return own.clone() };
    AnalysisPolicy {
        interval: own.interval.or(general.interval),
        count: own.count.or(general.count),
        initial_delay: own.initial_delay.or(general.initial_delay),
        failure_limit: own.failure_limit.or(general.failure_limit),
        consecutive_error_limit: own.consecutive_error_limit.or(general.consecutive_error_limit),
        inconclusive_limit: own.inconclusive_limit.or(general.inconclusive_limit),
        on_no_data: own.on_no_data.or(general.on_no_data),
        metrics: if own.metrics.is_empty() { general.metrics.clone() } else { own.metrics.clone() },
    }
}

/// The names of the Secrets that a policy names.
pub fn secrets(policy: &AnalysisPolicy) -> BTreeSet<String> {
    policy.metrics.iter().filter_map(secret).map(str::to_owned).collect()
}

/// The name of the Secret that a metric names.
pub fn secret(metric: &Metric) -> Option<&str> {
    let of = metric.prometheus.as_ref().and_then(|p| p.secret_ref.as_ref());
    let of = of.or(metric.http.as_ref().and_then(|h| h.secret_ref.as_ref()));
    of.or(metric.webhook.as_ref().and_then(|w| w.secret_ref.as_ref())).map(|r| r.name.as_str())
}

/// What has been measured of a metric.
fn run_of<'r>(runs: &'r [MetricRun], metric: &Metric) -> Option<&'r MetricRun> {
    runs.iter().find(|run| run.name == metric.name)
}
