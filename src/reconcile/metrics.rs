//! What is counted while the daemon works. What can be read off the state when somebody asks is not counted here: see
//! [`super::snapshot`].

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// Upper bounds of what takes milliseconds to minutes: a reconcile, a fetch. Seconds.
const WORK: [f64; 11] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

/// Upper bounds of what takes seconds to an hour: a commit's way to health. Seconds.
const DEPLOY: [f64; 11] = [1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// Counters and histograms of one daemon, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_seconds: HistogramVec,
    fetches: IntCounterVec,
    fetch_seconds: HistogramVec,
    commit_to_healthy: Histogram,
}

impl Metrics {
    /// Counts from zero. An error is a mistake in a name that stands here.
    pub fn new() -> Result<Self, prometheus::Error> {
        let labels = ["kind", "result"];
        let metrics = Metrics {
            registry: Registry::new(),
            reconciles: IntCounterVec::new(
                Opts::new("windlass_reconciles_total", "Reconciles by kind of resource and result."),
                &labels,
            )?,
            reconcile_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "windlass_reconcile_duration_seconds",
                    "How long reconciles took; waiting for health is not part of one.",
                )
                .buckets(WORK.to_vec()),
                &labels,
            )?,
            fetches: IntCounterVec::new(
                Opts::new("windlass_fetches_total", "Polls of Git remotes by result."),
                &["result"],
            )?,
            fetch_seconds: HistogramVec::new(
                HistogramOpts::new("windlass_fetch_duration_seconds", "How long polls of Git remotes took.")
                    .buckets(WORK.to_vec()),
                &["result"],
            )?,
            commit_to_healthy: Histogram::with_opts(
                HistogramOpts::new(
                    "windlass_commit_to_healthy_seconds",
                    "From the poll that saw a commit until a Delivery was deployed from it and healthy.",
                )
                .buckets(DEPLOY.to_vec()),
            )?,
        };
        metrics.registry.register(Box::new(metrics.reconciles.clone()))?;
        metrics.registry.register(Box::new(metrics.reconcile_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.fetches.clone()))?;
        metrics.registry.register(Box::new(metrics.fetch_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.commit_to_healthy.clone()))?;
        Ok(metrics)
    }

    /// A reconcile of a resource of this kind ended.
    pub fn reconciled(&self, kind: &str, well: bool, took: Duration) {
        self.reconciles.with_label_values(&[kind, result(well)]).inc();
        self.reconcile_seconds.with_label_values(&[kind, result(well)]).observe(took.as_secs_f64());
    }

    /// A poll of a remote ended.
    pub fn fetched(&self, well: bool, took: Duration) {
        self.fetches.with_label_values(&[result(well)]).inc();
        self.fetch_seconds.with_label_values(&[result(well)]).observe(took.as_secs_f64());
    }

    /// A Delivery is deployed from a commit that was first seen so long ago.
    pub fn deployed(&self, took: Duration) {
        self.commit_to_healthy.observe(took.as_secs_f64());
    }

    /// All of it, for a scrape.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

fn result(well: bool) -> &'static str {
    if well { "success" } else { "error" }
}
