//! What is measured while traffic reaches a candidate (`spec.rollout.analysis`), and what was measured (in status).

use super::Duration;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is measured, how often, and when it has passed or failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisPolicy {
    /// How often is measured, 30s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How many measurements each metric takes in an `analysis` step, 3 by default; elsewhere it is measured for as long as
    /// the step lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub count: Option<u32>,
    /// How long is waited before the first measurement, an interval by default: rates need requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<Duration>,
    /// How many measurements of a metric may fail, 3 by default; one more fails the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100000))]
    pub failure_limit: Option<u32>,
    /// How many measurements in a row may end in an error (the provider is down), 4 by default; with one more, `onNoData`
    /// decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100000))]
    pub consecutive_error_limit: Option<u32>,
    /// How many measurements may be neither success nor failure, 0 by default; one more pauses the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100000))]
    pub inconclusive_limit: Option<u32>,
    /// What happens when there is no data: no series, a value that is no number, no traffic.
    #[serde(default)]
    pub on_no_data: OnNoData,
    /// The metrics. All of them have to pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub metrics: Vec<Metric>,
}

/// What happens when there is no data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNoData {
    /// The rollout pauses, with the reason, until there is some or a person decides.
    #[default]
    Pause,
    /// It fails.
    Fail,
    /// It goes on: said in an event, and never counted as a success.
    Pass,
}

/// One metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// Its name, for people.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// What was measured of a metric in a step. Kept through restarts of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricRun {
    /// The metric's name.
    pub name: String,
}
