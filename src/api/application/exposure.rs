//! How an Application meets the world: routes, ingresses, the autoscaler, metrics.

use crate::api::Duration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A number of pods that follows the load, by a HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("minReplicas is more than maxReplicas"))]
pub struct Autoscaling {
    /// At least so many pods.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10000))]
    pub min_replicas: i32,
    /// At most so many pods.
    #[schemars(range(min = 1, max = 10000), extend("example" = 10))]
    pub max_replicas: i32,
    /// The use of CPU that is aimed at, in percent of `resources.requests`; 80 when no target is given.
    #[serde(default, rename = "targetCPUUtilization", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("example" = 70))]
    pub target_cpu_utilization: Option<i32>,
    /// The use of memory that is aimed at, in percent of `resources.requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_memory_utilization: Option<i32>,
}

fn one() -> i32 {
    1
}

/// How an Application is reached from outside of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.gateway), has(self.ingress), has(self.httpProxy)].filter(x, x).size() == 1").message("expose takes one of gateway, ingress and httpProxy"))]
pub struct Expose {
    /// The name that it is asked by; `*.example.com` for all below.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"), extend("example" = "users.example.com"))]
    pub host: String,
    /// The path that requests begin with.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub path: String,
    /// The port that requests are for, by the number or name in `port` or `ports`: the first by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
    /// By a Gateway: an HTTPRoute is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayParent>,
    /// By an ingress controller: an Ingress is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressVia>,
    /// By Contour: an HTTPProxy is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<HttpProxyVia>,
}

fn root() -> String {
    "/".into()
}

/// A Gateway of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayParent {
    /// Its name.
    #[schemars(length(min = 1, max = 253), extend("example" = "public"))]
    pub name: String,
    /// Its namespace, the Application's by default. It has to let routes of this one in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The one of its listeners that is meant; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// Which channel of the Gateway API the HTTPRoute of the cluster is of: what only the experimental one has is written where it
    /// is said here. That the gateway's controller carries it out (its GatewayClass names `HTTPRouteRetry` among
    /// `status.supportedFeatures`) is taken as said, too: neither is read from the cluster.
    #[serde(default)]
    pub channel: GatewayChannel,
}

/// A release channel of the Gateway API: which fields its definitions have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayChannel {
    /// What every cluster with the API has.
    #[default]
    Standard,
    /// That and more: `retry` of an HTTPRoute, which `traffic.retries` becomes.
    Experimental,
}

/// What an Ingress says besides host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressVia {
    /// The IngressClass; the cluster's default without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// A Secret with a certificate for the host, for TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret: Option<String>,
    /// Annotations, by which controllers take settings of their own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What an HTTPProxy of Contour says besides host, path and traffic policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpProxyVia {
    /// The class by which one of several Contours is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// A Secret with a certificate for the host, for TLS. Requests without it are sent there then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret: Option<String>,
}

/// Where Prometheus finds the metrics: as annotations of the pods, and as a PodMonitor where the cluster has that kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// The number of the port, the first of `port` and `ports` by default. One of its own is named `metrics`, and is in no Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("example" = 9090))]
    pub port: Option<i32>,
    /// The path.
    #[serde(default = "metrics_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub path: String,
    /// The PodMonitor that is made too, for the Prometheus Operator; left out where the cluster does not have that kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_monitor: Option<PodMonitorUse>,
}

/// A PodMonitor of the Prometheus Operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PodMonitorUse {
    /// Whether there is to be one. A Prometheus that goes by the annotations too would ask each pod twice.
    #[serde(default = "is_enabled")]
    pub enabled: bool,
    /// Its labels besides ours: those that a Prometheus selects its monitors by, such as `release: prometheus`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How often the pods are asked; as the Prometheus says without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
}

impl Default for PodMonitorUse {
    fn default() -> Self {
        PodMonitorUse { enabled: true, labels: BTreeMap::new(), interval: None }
    }
}

fn is_enabled() -> bool {
    true
}

fn metrics_path() -> String {
    "/metrics".into()
}
