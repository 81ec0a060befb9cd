//! How requests are spread over the pods of an Application, and what becomes of those that fail.

use crate::api::Duration;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How requests are spread over the pods, and what becomes of those that fail. Written into objects of the router; what it
/// cannot do is told and left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.loadBalancer) && self.loadBalancer == 'consistentHash') == has(self.consistentHash)").message("loadBalancer: consistentHash needs consistentHash, which says what is hashed; no other takes it"))]
pub struct Traffic {
    /// What carries it out: the Gateway or the Contour of `expose`, for requests from outside of the cluster, or an Istio mesh,
    /// for all. An HTTPProxy of `expose` says what it can whatever stands here.
    #[serde(default)]
    pub router: TrafficRouter,
    /// Which pod a request goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// With `loadBalancer: consistentHash`: what is hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    /// How much a pod gets at once, and when it is passed over for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How long a request may take, with all that is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// When a request is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Whether pods and their clients must prove who they are: mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
}

/// What carries the traffic policy out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrafficRouter {
    /// The Gateway of `expose`, by the fields of an HTTPRoute.
    #[default]
    GatewayAPI,
    /// An Istio mesh, by a DestinationRule and a VirtualService.
    Istio,
    /// Contour, by the HTTPProxy of `expose`, and annotations of the Service.
    HTTPProxy,
}

/// Which pod a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LoadBalancer {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The one with the fewest requests under way, of two.
    LeastRequest,
    /// Always the same one, by what `consistentHash` names.
    ConsistentHash,
}

/// What of a request decides which pod it goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsistentHash {
    /// A header.
    #[schemars(length(min = 1, max = 256), extend("example" = "x-user"))]
    pub header: String,
}

/// How much a pod gets at once, and when it is passed over for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Connections to all pods together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483647))]
    pub max_connections: Option<i32>,
    /// Requests that wait for a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483647))]
    pub max_pending_requests: Option<i32>,
    /// Requests over one connection, after which it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483647))]
    pub max_requests_per_connection: Option<i32>,
    /// Answers of 500 and above in a row after which a pod is passed over.
    #[serde(default, rename = "consecutive5xxErrors", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483647))]
    pub consecutive_5xx_errors: Option<i32>,
    /// How often pods are looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How long a pod is passed over the first time; longer each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<Duration>,
    /// How many of the pods are passed over at most, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<i32>,
}

/// When a request is sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// How often at most.
    #[schemars(range(min = 0, max = 100), extend("example" = 3))]
    pub attempts: i32,
    /// How long each may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Duration>,
    /// After which failures, as Envoy names them, and status codes; the router's default without. (Not `on`, which YAML reads as `true`.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("example" = "5xx,connect-failure"))]
    pub retry_on: Option<String>,
}

/// Whether mutual TLS is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mtls {
    /// Requests without it are refused.
    Strict,
    /// Requests with and without it are taken.
    Permissive,
}
