//! What is measured while traffic reaches a candidate (`spec.rollout.analysis`), and what was measured (in status).

use super::Duration;
use super::repository::LocalRef;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is measured, how often, and when it has passed or failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisPolicy {
    /// How often is measured, 30s by default; at least 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How many measurements of each metric have to succeed before an `analysis` step goes on, 3 by default. In other steps
    /// one is enough, and it is measured for as long as the step lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub count: Option<u32>,
    /// How long is waited before the first measurement of a step, an interval by default: rates need requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<Duration>,
    /// How many measurements of a metric may fail in the whole rollout, 3 by default; one more fails it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100000))]
    pub failure_limit: Option<u32>,
    /// How many measurements in a row may end without a value, 4 by default: there is no data (no requests yet), or what is
    /// asked does not answer. With one more, `onNoData` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100000))]
    pub consecutive_error_limit: Option<u32>,
    /// How many measurements in the whole rollout may be neither success nor failure, 0 by default; one more pauses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100000))]
    pub inconclusive_limit: Option<u32>,
    /// What happens when there is no data for longer than `consecutiveErrorLimit` allows: no series, a value that is no
    /// number, no traffic, or nobody who answers. `Pause` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_no_data: Option<OnNoData>,
    /// The metrics. All of them have to pass. Their names differ.
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

/// One metric: whom to ask, what the answer has to be, and settings that differ from the analysis'.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.prometheus) ? 1 : 0) + (has(self.http) ? 1 : 0) + (has(self.webhook) ? 1 : 0) + (has(self.job) ? 1 : 0) == 1").message("a metric takes one of prometheus, http, webhook and job"),
    validation = Rule::new("!has(self.job) || !(has(self.success) || has(self.failure) || has(self.workload) || has(self.timeout) || has(self.interval) || has(self.count) || has(self.initialDelay) || has(self.failureLimit) || has(self.consecutiveErrorLimit) || has(self.inconclusiveLimit) || has(self.onNoData))").message("a metric with job takes nothing besides: the Job runs once in a step and says itself whether it succeeded; how long it may take is job.timeout"),
    validation = Rule::new("!has(self.prometheus) || has(self.prometheus.builtin) || has(self.success) || has(self.failure)").message("a metric with a query of its own needs success or failure, such as success: \"result >= 0.99\"")
)]
pub struct Metric {
    /// Its name, for people. No other metric of the analysis has it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// With several `workloads`: the one that this metric is about, by its name in Git; the first by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub workload: Option<String>,
    /// Asks Prometheus, or what speaks its API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusMetric>,
    /// Asks the app itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpMetric>,
    /// Asks somebody else to decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookMetric>,
    /// Runs a Job of the revision, once in each step that is measured. The step is not left before it has completed, and
    /// when it fails, the rollout does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOfStep>,
    /// A CEL expression over `result` that is true when the measurement succeeded: `result >= 0.99`. `result` (also called
    /// `candidate`) is what was asked of the candidate, and `stable` the same asked of the stable variant:
    /// `candidate <= stable * 1.2`. With Prometheus they are numbers; with http and webhook, the JSON of the answer. Without
    /// it: whatever `failure` does not hold of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub success: Option<String>,
    /// A CEL expression that is true when the measurement failed. With `success` and `failure`, a measurement for which
    /// neither holds is inconclusive; one for which both hold has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub failure: Option<String>,
    /// How long an answer may take, 10s by default; at most 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Instead of the analysis' `interval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Instead of the analysis' `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub count: Option<u32>,
    /// Instead of the analysis' `initialDelay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<Duration>,
    /// Instead of the analysis' `failureLimit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100000))]
    pub failure_limit: Option<u32>,
    /// Instead of the analysis' `consecutiveErrorLimit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100000))]
    pub consecutive_error_limit: Option<u32>,
    /// Instead of the analysis' `inconclusiveLimit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100000))]
    pub inconclusive_limit: Option<u32>,
    /// Instead of the analysis' `onNoData`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_no_data: Option<OnNoData>,
}

/// A Job that runs once in a step. It stands in the Delivery's directory with the annotation `windlass.dev/hook: rollout-step`,
/// so that it is no object of the bundle, and is made anew for each revision and step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobOfStep {
    /// Its name in Git.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// How long it may take from when the step is in effect; the Delivery's `timeout` by default. The Job's own
    /// `activeDeadlineSeconds` and `backoffLimit` hold as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// A question to Prometheus, by its HTTP API (`/api/v1/query`), or to what speaks it: Thanos, Mimir, VictoriaMetrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.query) != has(self.builtin)").message("prometheus takes one of query and builtin"),
    validation = Rule::new("has(self.builtin) || !(has(self.provider) || has(self.window) || has(self.percentile))").message("provider, window and percentile belong to builtin")
)]
pub struct PrometheusMetric {
    /// Where it is, such as `http://prometheus.monitoring:9090`; a path before `/api` belongs to it.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/?#@ ]+(/[^?#@ ]*)?$"))]
    pub address: String,
    /// PromQL whose answer is one number. `{{ candidate }}`, `{{ stable }}` and `{{ variant }}` stand for names of workloads,
    /// `{{ service }}` for the Service of the variant, and there are `{{ namespace }}`, `{{ revision }}` and `{{ delivery }}`.
    /// One that names `{{ variant }}` or `{{ service }}` is asked for both variants when an expression names `stable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub query: Option<String>,
    /// A ready-made query instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// With `builtin`: who counts the requests, `envoy` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// With `builtin`: the time that rates are taken over, 1m by default. It has to span several scrapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// With `builtin: request-duration`: which percentile, 99 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub percentile: Option<u32>,
    /// A Secret in the Delivery's namespace with `bearerToken`, or `username` and `password`; and `ca.crt` where the
    /// certificate is not publicly trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// Headers besides, such as `X-Scope-OrgID`. Nothing secret belongs here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub headers: BTreeMap<String, String>,
}

/// Ready-made queries about a variant's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Builtin {
    /// The share of requests that were not answered with 5xx (of gRPC: with a status that stands for one), from 0 to 1. Without
    /// `success` and `failure`: at least 0.99.
    RequestSuccessRate,
    /// How long requests take, in seconds, the 99th percentile by default. Without `success` and `failure`: at most 0.5.
    RequestDuration,
}

/// Who counts the requests of a ready-made query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Envoy, steered by Contour: `envoy_cluster_upstream_rq_xx` and `envoy_cluster_upstream_rq_time` of the clusters
    /// `<namespace>_<service>_<port>`.
    #[default]
    Envoy,
    /// The same of gRPC calls, whose failures are 200 in HTTP: `envoy_cluster_grpc_total`, and of the statuses that stand for a
    /// 5xx `envoy_cluster_grpc_2`, `_4`, `_12`, `_13`, `_14` and `_15`. With a GRPCRoute it is the default.
    EnvoyGrpc,
    /// The app: `http_requests_total` with the label `code`, and the histogram `http_request_duration_seconds`, both with the
    /// labels `namespace` and `service` that a scrape of the Service gives them.
    Http,
}

/// A check of the app: each answer has to have one of `status`, and to be as `success` and `failure` say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.path)").message("http takes one of url and path"),
    validation = Rule::new("!has(self.port) || has(self.path)").message("port belongs to path; a url has its own"),
    validation = Rule::new("!has(self.port) || type(self.port) == string || self.port >= 1 && self.port <= 65535").message("port is a number from 1 to 65535, or the name of a port of the Service")
)]
pub struct HttpMetric {
    /// An address, such as one that leads through the route; variables as in queries. It is asked once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/?#@]+([/?].*)?$"))]
    pub url: Option<String>,
    /// A path that each ready endpoint of the candidate is asked for; all have to answer well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^/"))]
    pub path: Option<String>,
    /// With `path`: a port of the pods by its number, or one of their Service by its name. By default the only port of the
    /// Service, or of several the one that the route sends requests to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
    /// Which status codes are well, any 2xx by default. Redirects are not followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 100, max = 599)))]
    pub status: Vec<u16>,
    /// Headers of the request, such as `Host`. Nothing secret belongs here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub headers: BTreeMap<String, String>,
    /// With `url`: a Secret in the Delivery's namespace, as for prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
}

/// A POST with JSON that says which rollout is asked about: `delivery`, `namespace`, `revision`, `step`, `metric`, `stable`,
/// `candidate`, `service` and `metadata`. An answer of 2xx is success, unless `success` or `failure` decide over its JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookMetric {
    /// Where to; variables as in queries.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/?#@]+([/?].*)?$"))]
    pub url: String,
    /// Sent along.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub metadata: BTreeMap<String, String>,
    /// Headers of the request. Nothing secret belongs here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub headers: BTreeMap<String, String>,
    /// A Secret in the Delivery's namespace, as for prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
}

/// What one measurement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// There is a value, and it is as it should be.
    Success,
    /// There is a value, and it is neither success nor failure.
    Inconclusive,
    /// There is no value: no series, NaN, infinite, no traffic, no endpoint.
    NoData,
    /// It could not be measured: nobody answers, or not what was asked.
    Error,
    /// There is a value, and it is not as it should be.
    Failure,
}

/// What was measured of a metric. Kept through restarts of the daemon. `failed` and `inconclusive` count in the whole rollout,
/// the rest in the step. It is written when something changes that decides, and every few minutes besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricRun {
    /// The metric's name.
    pub name: String,
    /// Measurements of the step that succeeded; not counted further than `count`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub succeeded: u32,
    /// Measurements of the rollout that failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u32,
    /// Measurements of the rollout that were neither success nor failure.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inconclusive: u32,
    /// Measurements in a row, up to the last one, that ended without a value; not counted further than the limit and one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unanswered: u32,
    /// What the last measurement of the step came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The last value, such as `0.987 (stable 0.999)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Why the last measurement did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the last measurement was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}
