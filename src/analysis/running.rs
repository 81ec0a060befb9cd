//! The measurements of one Delivery's step: a task beside the rounds, so that no round waits for a provider.
//!
//! Each metric is measured on its own, at its own pace. What was measured is shown to the state machine when it says something
//! (`worth_showing`), and only then is the Delivery woken: two hundred canaries that are well cost their queries and little else.

use super::{Clients, Inputs, measure};
use crate::api::analysis::{AnalysisPolicy, Metric, MetricRun};
use crate::core::analysis::{AnalysisSeen, StepKind, due, judge, runs_of, settings, step, worth_showing};
use crate::lock::lock;
use jiff::{SignedDuration, Timestamp};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::AbortHandle;

/// The first measurements of steps that begin together are spread over this part of their interval, and so many seconds at most:
/// with an interval of hours, nobody waits minutes longer than `initialDelay` says.
const SPREAD: (f64, f64) = (0.1, 5.0);

/// The longest that is slept without looking at the clock, which may have been set.
const NAP: Duration = Duration::from_secs(60);

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which step of which rollout: a new key ends what is measured for the old one.
    pub key: String,
    /// What is measured.
    pub policy: AnalysisPolicy,
    /// In what kind of step.
    pub kind: StepKind,
    /// When the step settled.
    pub since: Timestamp,
    /// What was measured of it before, as the status says; looked at when the key is new.
    pub runs: Vec<MetricRun>,
    /// What it is measured with.
    pub inputs: Inputs,
}

/// The measurements under way for one Delivery, and what they came to. They end when it is dropped.
#[derive(Default)]
pub struct Running(Option<Current>);

struct Current {
    task: AbortHandle,
    work: Arc<Work>,
}

struct Work {
    key: String,
    policy: AnalysisPolicy,
    kind: StepKind,
    since: Timestamp,
    inputs: Mutex<Arc<Inputs>>,
    measured: Mutex<Measured>,
}

#[derive(Default)]
struct Measured {
    runs: Vec<MetricRun>,
    shown: Vec<MetricRun>,
}

impl Drop for Current {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    /// Measures what is ordered, and nothing else from now on. `now` is the daemon's clock; `wake` makes the reconciler look
    /// at [`seen`](Self::seen). Both are kept only when something new begins. Called on a runtime.
    pub fn ensure(
        &mut self,
        clients: &Clients,
        order: Order,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        wake: impl Fn() + Send + Sync + 'static,
    ) {
        if let Some(current) = &self.0 {
            let work = &current.work;
            let same = work.key == order.key
                && work.policy == order.policy
                && work.kind == order.kind
                && work.since == order.since;
            if same && !current.task.is_finished() {
                *lock(&work.inputs) = Arc::new(order.inputs);
                return;
            }
        }
        let runs = runs_of(&order.policy, &order.runs);
        let work = Arc::new(Work {
            key: order.key,
            policy: order.policy,
            kind: order.kind,
            since: order.since,
            inputs: Mutex::new(Arc::new(order.inputs)),
            measured: Mutex::new(Measured { shown: runs.clone(), runs }),
        });
        let task = tokio::spawn(all(clients.clone(), work.clone(), now, wake)).abort_handle();
        self.0 = Some(Current { task, work });
    }

    /// Ends what is measured and forgets what came of it.
    pub fn end(&mut self) {
        self.0 = None;
    }

    /// What was measured as far as it says something; it changes only then.
    pub fn seen(&self) -> Option<AnalysisSeen> {
        let work = &self.0.as_ref()?.work;
        Some(AnalysisSeen { key: work.key.clone(), runs: lock(&work.measured).shown.clone() })
    }

    /// All that was measured up to now, for people who watch.
    pub fn live(&self) -> Vec<MetricRun> {
        self.0.as_ref().map(|current| lock(&current.work.measured).runs.clone()).unwrap_or_default()
    }
}

async fn all(
    clients: Clients,
    work: Arc<Work>,
    now: impl Fn() -> Timestamp + Send + Sync,
    wake: impl Fn() + Send + Sync,
) {
    let each = work.policy.metrics.iter().map(|metric| follow(&clients, &work, metric, &now, &wake));
    futures::future::join_all(each).await;
}

/// Measures one metric for as long as it is asked for.
async fn follow(
    clients: &Clients,
    work: &Work,
    metric: &Metric,
    now: &(impl Fn() -> Timestamp + Sync),
    wake: &(impl Fn() + Sync),
) {
    let settings = settings(&work.policy, metric);
    let before = lock(&work.measured).runs.iter().find(|run| run.name == metric.name).cloned();
    let spread = (settings.interval.as_secs_f64() * SPREAD.0).min(SPREAD.1) * fastrand::f64();
    let spread = SignedDuration::try_from_secs_f64(spread).unwrap_or_default();
    let first = due(&settings, before.as_ref(), work.since).max(now());
    let mut at = first.checked_add(spread).unwrap_or(first);
    loop {
        while let Some(wait) =
            Duration::try_from(at.duration_since(now())).ok().filter(|wait| !wait.is_zero())
        {
            tokio::time::sleep(wait.min(NAP)).await;
        }
        let begun = now();
        let inputs = lock(&work.inputs).clone();
        let judged = judge(metric, &measure(clients, metric, &settings, &inputs).await);
        tracing::debug!(metric = %metric.name, step = %work.key, outcome = ?judged.outcome, value = judged.value, "measured");
        let told = {
            let mut measured = lock(&work.measured);
            let time = now();
            for run in measured.runs.iter_mut().filter(|run| run.name == metric.name) {
                *run = step(&settings, run, &judged, time);
            }
            let Measured { runs, shown } = &mut *measured;
            let worth = worth_showing(&work.policy, work.kind, shown, runs, work.since, time);
            if worth {
                shown.clone_from(runs);
            }
            worth
        };
        if told {
            wake();
        }
        at = begun.checked_add(settings.interval).unwrap_or(begun);
    }
}
