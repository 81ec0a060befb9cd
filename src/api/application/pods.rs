//! What the pods of an Application are like: ports, configuration, resources, probes, how they are replaced, spread and ended.

use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of an object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Name {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A port that the container listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedPort {
    /// Its name. Istio tells the protocol by its beginning, such as `grpc` or `http-admin`.
    #[schemars(length(min = 1, max = 15), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), extend("example" = "http"))]
    pub name: String,
    /// The number that the container listens on.
    #[schemars(range(min = 1, max = 65535), extend("example" = 8080))]
    pub port: i32,
    /// The number that the Service has, that of the container by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("example" = 80))]
    pub service_port: Option<i32>,
    /// The transport.
    #[serde(default)]
    pub protocol: Transport,
    /// What is spoken on it, as in a Service: `http`, `kubernetes.io/h2c`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub app_protocol: Option<String>,
}

/// A transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// TCP.
    #[default]
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
}

impl Transport {
    /// As manifests name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::TCP => "TCP",
            Transport::UDP => "UDP",
            Transport::SCTP => "SCTP",
        }
    }
}

/// Configuration that is kept in ConfigMaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Files by name, in the directory `mountPath`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub files: BTreeMap<String, String>,
    /// Environment variables by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub env: BTreeMap<String, String>,
    /// The directory that the files are in, with nothing else.
    #[serde(default = "mount_path")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/"))]
    pub mount_path: String,
}

fn mount_path() -> String {
    "/etc/config".into()
}

/// What a container needs, and what it may have at most.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// What is set aside for each pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What a pod cannot exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// How it is found out whether a pod lives, is ready, and has started. The probes are those of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HealthCheck {
    /// A container that fails it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
    /// A pod that fails it gets no traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// Until it has passed once, the others wait. Without an action (`{}`) it does what `liveness` does, else what `readiness`
    /// does, and may fail 30 times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
}

/// How pods are replaced by newer ones, as in a Deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(self.maxSurge in [dyn(0), dyn('0%')] && self.maxUnavailable in [dyn(0), dyn('0%')])").message("with maxSurge and maxUnavailable both 0 no pod could ever be replaced"))]
pub struct RollingUpdate {
    /// How many pods more than wanted, as a number or in percent.
    #[serde(default = "quarter")]
    pub max_surge: IntOrString,
    /// How many pods fewer than wanted, as a number or in percent.
    #[serde(default = "none")]
    pub max_unavailable: IntOrString,
}

impl Default for RollingUpdate {
    fn default() -> Self {
        RollingUpdate { max_surge: quarter(), max_unavailable: none() }
    }
}

fn quarter() -> IntOrString {
    IntOrString::String("25%".into())
}

fn none() -> IntOrString {
    IntOrString::Int(0)
}

/// How many pods a drain of nodes may take away at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudget {
    /// A number, or percent of the pods; with `100%` there is no budget.
    #[serde(default = "one")]
    pub max_unavailable: IntOrString,
}

impl Default for DisruptionBudget {
    fn default() -> Self {
        DisruptionBudget { max_unavailable: one() }
    }
}

fn one() -> IntOrString {
    IntOrString::Int(1)
}

/// Something that pods are spread over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// The label of nodes whose values they are spread over.
    #[schemars(length(min = 1, max = 316), extend("example" = "topology.kubernetes.io/zone"))]
    pub topology_key: String,
    /// How many pods one value may have more than another.
    #[serde(default = "skew")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_skew: i32,
    /// What becomes of a pod that would exceed it.
    #[serde(default)]
    pub when_unsatisfiable: Unsatisfied,
}

fn skew() -> i32 {
    1
}

/// What becomes of a pod that cannot be placed evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unsatisfied {
    /// It runs where it can.
    #[default]
    ScheduleAnyway,
    /// It waits.
    DoNotSchedule,
}

impl Unsatisfied {
    /// As manifests name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Unsatisfied::ScheduleAnyway => "ScheduleAnyway",
            Unsatisfied::DoNotSchedule => "DoNotSchedule",
        }
    }
}

pub(super) fn spread() -> Vec<Spread> {
    let over = |key: &str| Spread {
        topology_key: key.into(),
        max_skew: skew(),
        when_unsatisfiable: Unsatisfied::default(),
    };
    vec![over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")]
}

/// How a pod ends: it serves on until no proxy sends it anything, then its process is told to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    /// For how long it serves on after its endpoint is taken out, in seconds; only where it has ports.
    #[serde(default = "drain")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: i64,
    /// How long the process may take after it was told to end, in seconds; then it is killed.
    #[serde(default = "grace")]
    #[schemars(range(min = 0, max = 86400))]
    pub grace_period_seconds: i64,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { drain_seconds: drain(), grace_period_seconds: grace() }
    }
}

fn drain() -> i64 {
    10
}

fn grace() -> i64 {
    30
}
