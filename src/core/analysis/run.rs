//! What is counted of a metric's measurements, and which changes of it are worth a write.
//!
//! A status is written for what decides: a failure, a value that is missing or back, a step that may end. A measurement that is
//! as good as the one before is not, or a canary of an hour would be hundreds of writes; what a restart forgets is at most
//! [`SHOWN_EVERY`] of successes, and never a failure.

use super::judge::Judged;
use super::verdict::{StepKind, verdict};
use super::{Settings, run_of, settings};
use crate::api::analysis::{AnalysisPolicy, Metric, MetricRun, Outcome};
use crate::core::rollout::stamp;
use jiff::{SignedDuration, Timestamp};

/// How old what is shown may become while nothing happens that decides.
pub const SHOWN_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// A metric's counts after one more measurement.
pub fn step(settings: &Settings, run: &MetricRun, judged: &Judged, now: Timestamp) -> MetricRun {
    let mut run = run.clone();
    match judged.outcome {
        Outcome::Success => {
            run.succeeded = run.succeeded.saturating_add(1).min(settings.count.max(run.succeeded))
        }
        Outcome::Failure => run.failed = run.failed.saturating_add(1),
        Outcome::Inconclusive => run.inconclusive = run.inconclusive.saturating_add(1),
        // Further than this nothing hangs on it, and a provider that is down for a day is not a thousand writes.
        Outcome::NoData | Outcome::Error => {
            let most = settings.unanswered_limit.saturating_add(1).max(run.unanswered);
            run.unanswered = run.unanswered.saturating_add(1).min(most);
        }
    }
    if !matches!(judged.outcome, Outcome::NoData | Outcome::Error) {
        run.unanswered = 0;
    }
    run.outcome = Some(judged.outcome);
    run.value = judged.value.clone();
    run.message = Some(judged.message.clone()).filter(|m| !m.is_empty());
    run.at = Some(stamp(now));
    run
}

/// The counts that a new step begins with: what failed counts in the whole rollout, or each of its steps could end before the
/// limit is reached.
pub fn next_step(runs: &[MetricRun]) -> Vec<MetricRun> {
    runs.iter().map(carried).collect()
}

fn carried(run: &MetricRun) -> MetricRun {
    MetricRun {
        name: run.name.clone(),
        failed: run.failed,
        inconclusive: run.inconclusive,
        ..MetricRun::default()
    }
}

/// The counts of a policy's metrics in their order, those that there are no counts of yet included. Behind them stand those of
/// other metrics that failed: a step with metrics of its own does not make the rollout's forget.
pub fn runs_of(policy: &AnalysisPolicy, runs: &[MetricRun]) -> Vec<MetricRun> {
    let of = |metric: &Metric| {
        run_of(runs, metric)
            .cloned()
            .unwrap_or_else(|| MetricRun { name: metric.name.clone(), ..MetricRun::default() })
    };
    let is_other = |run: &&MetricRun| policy.metrics.iter().all(|metric| metric.name != run.name);
    let counts = |run: &MetricRun| run.failed > 0 || run.inconclusive > 0;
    let others = runs.iter().filter(is_other).map(carried).filter(counts);
    policy.metrics.iter().map(of).chain(others).collect()
}

/// Whether `current` says something that hangs on it, or that is too long ago, compared with what was shown last.
pub fn worth_showing(
    policy: &AnalysisPolicy,
    kind: StepKind,
    shown: &[MetricRun],
    current: &[MetricRun],
    since: Timestamp,
    now: Timestamp,
) -> bool {
    let decides = |runs: &[MetricRun]| std::mem::discriminant(&verdict(policy, runs, kind, since, now));
    let counts = |runs: &[MetricRun]| -> Vec<(u32, u32, u32)> {
        let of = |run: &MetricRun| (run.failed, run.inconclusive, run.unanswered);
        runs_of(policy, runs).iter().map(of).collect()
    };
    let oldest = |metric: &Metric| {
        let (shown, current) = (run_of(shown, metric), run_of(current, metric));
        let at = shown.and_then(at).unwrap_or(since);
        shown != current && now.duration_since(at) >= SHOWN_EVERY.max(settings(policy, metric).interval)
    };
    counts(shown) != counts(current)
        || decides(shown) != decides(current)
        || policy.metrics.iter().any(oldest)
}

/// When it was measured last.
pub(super) fn at(run: &MetricRun) -> Option<Timestamp> {
    run.at.as_deref().and_then(|at| at.parse().ok())
}
