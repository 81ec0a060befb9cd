//! `Application`: a short description of one service, which expands to the objects that it needs.
//!
//! What is left out has a default, and each default is a field: the schema gives it, so that the stored object shows it too.

mod exposure;
mod pods;
mod rollout;
mod security;
mod status;
mod traffic;

pub use exposure::{Autoscaling, Expose, GatewayChannel, GatewayParent, IngressVia, Metrics, PodMonitorUse};
pub use pods::{
    Config, DisruptionBudget, HealthCheck, Name, NamedPort, Resources, RollingUpdate, Shutdown, Spread,
    Transport, Unsatisfied,
};
pub use security::{Capabilities, NetworkAccess, Security, ServiceAccountUse, same_namespace};
pub use status::{ApplicationPhase, ApplicationStatus};
pub use traffic::{CircuitBreaker, ConsistentHash, LoadBalancer, Mtls, Retries, Traffic, TrafficRouter};

use super::delivery::Adopt;
use super::rollout::RolloutPolicy;
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// One service, from its image to its traffic: expands to a Deployment, a Service and what else it asks for.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "windlass.dev",
    version = "v1alpha1",
    kind = "Application",
    plural = "applications",
    shortname = "wapp",
    category = "all",
    category = "windlass",
    namespaced,
    status = "ApplicationStatus",
    doc = "One service, from its image to its traffic: expands to a Deployment, a Service and what else it asks for.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.image"}"#,
    printcolumn = r#"{"name":"Ready","type":"integer","jsonPath":".status.readyReplicas"}"#,
    printcolumn = r#"{"name":"Replicas","type":"integer","jsonPath":".status.replicas"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".status.url","priority":1}"#,
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')").message("the name is that of a Service too: lower-case letters, digits and -, at most 63, a letter first")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.port) && has(self.ports))").message("give port, or ports, not both"),
    validation = Rule::new("!has(self.expose) || has(self.port) || has(self.ports)").message("expose sends traffic to a port; give port or ports"),
    validation = Rule::new(probe_action("liveness")).message("healthCheck.liveness needs one of httpGet, tcpSocket, grpc and exec"),
    validation = Rule::new(probe_action("readiness")).message("healthCheck.readiness needs one of httpGet, tcpSocket, grpc and exec"),
    validation = Rule::new(startup_action()).message("healthCheck.startup needs one of httpGet, tcpSocket, grpc and exec, or another probe that it can do as well"),
    validation = Rule::new("!has(self.metrics) || has(self.metrics.port) || has(self.port) || has(self.ports)").message("metrics needs a port; give metrics.port, port or ports"),
    validation = Rule::new(probe_port("liveness")).message("healthCheck.liveness asks a port that is not one of port, ports and metrics.port"),
    validation = Rule::new(probe_port("readiness")).message("healthCheck.readiness asks a port that is not one of port, ports and metrics.port"),
    validation = Rule::new(probe_port("startup")).message("healthCheck.startup asks a port that is not one of port, ports and metrics.port"),
    validation = Rule::new(rollout::ENOUGH_PODS).message("rollout: a canary by replica counts takes its share in pods, and there is one pod only; give it two at least, or another router")
)]
pub struct ApplicationSpec {
    /// The container image. A tag or digest that changes with its content: an image that changes under its name rolls nothing.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^\S+$"), extend("example" = "registry.example.com/user-service:1.4.2"))]
    pub image: String,
    /// Secrets in this namespace with which the image is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<Name>,
    /// What is started instead of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub command: Vec<String>,
    /// The arguments instead of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub args: Vec<String>,
    /// How many pods run. Left to the autoscaler where there is `autoscaling`.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000), extend("example" = 3))]
    pub replicas: i32,
    /// The port that the container listens on, for HTTP. It is named `http`, and the Service has the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("example" = 8080))]
    pub port: Option<i32>,
    /// Several ports, or one that is not for HTTP, instead of `port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub ports: Vec<NamedPort>,
    /// Environment variables, as in a container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// ConfigMaps and Secrets whose keys become environment variables, as in a container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env_from: Vec<EnvFromSource>,
    /// Configuration that is kept in ConfigMaps. Their names hold a digest of it, so that a change rolls pods, and a pod never
    /// sees another revision's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,
    /// What the container needs, and what it may have at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How it is found out whether a pod lives, is ready, and has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// A number of pods that follows the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How it is reached from outside of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
    /// How requests are spread over the pods, and what becomes of those that fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Where Prometheus finds its metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// What a pod may do, and who may reach it. The defaults are the strict ones.
    #[serde(default)]
    pub security: Security,
    /// How pods are replaced.
    #[serde(default)]
    pub rolling_update: RollingUpdate,
    /// How many pods a drain of nodes may take away at once; an object that says so is made from two pods up.
    #[serde(default)]
    pub disruption_budget: DisruptionBudget,
    /// Over what pods are spread, the first thing first; empty for nothing.
    #[serde(default = "pods::spread")]
    #[schemars(length(max = 8))]
    pub topology_spread: Vec<Spread>,
    /// How a pod ends.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// How a change of its pods reaches traffic, as in a Delivery; without it pods are replaced as `rollingUpdate` says. The
    /// workload is the Application's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rollout::schema")]
    pub rollout: Option<RolloutPolicy>,
    /// What may become of the pods of a Deployment of this name that is there already and selects the same pods. `KeepPods`
    /// (default): they stay, so it is taken over only if their template is the Application's; what differs is told. `Restart`:
    /// they are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
}

fn one() -> i32 {
    1
}

/// An action is there, and one only.
fn probe_action(probe: &str) -> String {
    let it = format!("self.healthCheck.{probe}");
    format!(
        "!has(self.healthCheck) || !has({it}) || \
         [has({it}.httpGet), has({it}.tcpSocket), has({it}.grpc), has({it}.exec)].filter(x, x).size() == 1"
    )
}

/// `startup` may do without an action, since it takes that of another probe.
fn startup_action() -> String {
    let other = "has(self.healthCheck.liveness) || has(self.healthCheck.readiness)";
    let it = "self.healthCheck.startup";
    let none = format!("!has({it}.httpGet) && !has({it}.tcpSocket) && !has({it}.grpc) && !has({it}.exec)");
    format!("{} || ({none} && ({other}))", probe_action("startup"))
}

/// The port that a probe asks is one of the container's, by number or name.
fn probe_port(probe: &str) -> String {
    let one = |action: &str| {
        let (it, port) =
            (format!("self.healthCheck.{probe}"), format!("self.healthCheck.{probe}.{action}.port"));
        format!(
            "(!has(self.healthCheck) || !has({it}) || !has({it}.{action}) || \
             (has(self.port) && ({port} == self.port || {port} == 'http')) || \
             (has(self.ports) && self.ports.exists(p, {port} == p.port || {port} == p.name)) || \
             (has(self.metrics) && has(self.metrics.port) && ({port} == self.metrics.port || {port} == 'metrics')))"
        )
    };
    // A number only: what it is compared with must have its type.
    let grpc = format!(
        "(!has(self.healthCheck) || !has(self.healthCheck.{probe}) || !has(self.healthCheck.{probe}.grpc) || \
         (has(self.port) && self.healthCheck.{probe}.grpc.port == self.port) || \
         (has(self.ports) && self.ports.exists(p, self.healthCheck.{probe}.grpc.port == p.port)) || \
         (has(self.metrics) && has(self.metrics.port) && self.healthCheck.{probe}.grpc.port == self.metrics.port))"
    );
    format!("{} && {} && {grpc}", one("httpGet"), one("tcpSocket"))
}

/// The definition of the resource, as the API server takes it.
pub fn definition() -> serde_json::Value {
    use kube::CustomResourceExt;
    super::definition(&Application::crd())
}
