//! Health: one live object in, one verdict out.
//!
//! A verdict says three things apart: how the object is ([`Status`]), whether the wait for it is over
//! ([`Verdict::settles`]), and whether waiting is pointless ([`Broken`]). `docs/reference/health.md` lists
//! the rules by kind. Everything here takes what the API server said and returns a value; a field of an
//! unexpected shape counts as absent, so no object can bring the daemon down.

mod application;
mod custom;
mod definitions;
mod disturbance;
mod essence;
mod gateway;
mod jobs;
mod live;
mod network;
mod pod;
mod policies;
mod storage;
mod summary;
mod workload_pods;
mod workloads;

#[cfg(test)]
mod tests;

pub use definitions::is_built_in;
pub use disturbance::{disturbance, pod_disturbance};
pub use essence::{essence, template_essence};
pub use jobs::job_completed;
pub use pod::{PodRules, pod_trouble, pod_waits_for};
pub use summary::summarize;
pub use workload_pods::{new_pods, pods_in_the_way, workload_trouble, workload_waits_for};

use crate::api::names;
use live::Live;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// How an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// It does what its manifest asks for.
    Healthy,
    /// It is on its way; more time may be all it needs.
    Progressing,
    /// Something is wrong with it.
    Degraded,
    /// Somebody asked it to stand still.
    Suspended,
    /// It is not in the cluster.
    Missing,
    /// It has a shape that no rule covers.
    Unknown,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Healthy => "Healthy",
            Status::Progressing => "Progressing",
            Status::Degraded => "Degraded",
            Status::Suspended => "Suspended",
            Status::Missing => "Missing",
            Status::Unknown => "Unknown",
        })
    }
}

/// Why an object will not become healthy however long one waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// For programs, in CamelCase: `ProgressDeadlineExceeded`, `JobFailed`, `CrashLoopBackOff`,
    /// `ImagePullBackOff`, `QuotaExceeded` and so on.
    pub reason: &'static str,
    /// For people: which pod or container, and what happened to it. Holds no value of an environment
    /// variable.
    pub message: String,
}

/// What is to be thought of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How it is.
    pub status: Status,
    /// What waits for what, with counts, as a sentence without the object's name.
    pub message: String,
    /// Set when waiting is pointless; the status is then `Degraded`.
    pub broken: Option<Broken>,
    /// Whether a rollout waits while the status is what it is. `false` where waiting could last for ever
    /// without anything being wrong with the commit: a claim that waits for its first pod, an autoscaler
    /// without metrics, a resource of a shape that no rule covers.
    pub blocks: bool,
}

impl Verdict {
    /// Whether nothing is left to wait for. `Healthy` and `Suspended` settle; so does what does not block
    /// ([`Verdict::blocks`]): it keeps its honest status and is never counted as healthy in silence, but it
    /// cannot hold a good commit until the time-out and have it rolled back.
    pub fn settles(&self) -> bool {
        matches!(self.status, Status::Healthy | Status::Suspended) || !self.blocks
    }

    fn new(status: Status, message: impl Into<String>) -> Self {
        Verdict { status, message: message.into(), broken: None, blocks: true }
    }

    fn healthy(message: impl Into<String>) -> Self {
        Verdict::new(Status::Healthy, message)
    }

    fn progressing(message: impl Into<String>) -> Self {
        Verdict::new(Status::Progressing, message)
    }

    fn degraded(message: impl Into<String>) -> Self {
        Verdict::new(Status::Degraded, message)
    }

    fn suspended(message: impl Into<String>) -> Self {
        Verdict::new(Status::Suspended, message)
    }

    fn broken(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Verdict {
            status: Status::Degraded,
            message: message.clone(),
            broken: Some(Broken { reason, message }),
            blocks: true,
        }
    }

    fn without_blocking(self) -> Self {
        Verdict { blocks: false, ..self }
    }
}

/// Whether a workload's controller still has to look at it as it is now: until then its status says nothing.
pub fn is_unobserved(workload: &Value) -> bool {
    Live::new(workload).is_unobserved()
}

/// The verdict about a live object; `null` stands for one that the cluster does not have.
pub fn verdict(object: &Value) -> Verdict {
    if object.is_null() {
        return Verdict::new(Status::Missing, "is not in the cluster");
    }
    let live = Live::new(object);
    let (api_version, kind) = (live.text("/apiVersion"), live.text("/kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Verdict::new(Status::Unknown, "is no Kubernetes object: apiVersion or kind is missing");
    }
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    if !live.text("/metadata/deletionTimestamp").is_empty() {
        return definitions::being_deleted(&live, group, kind);
    }
    by_kind(&live, group, kind)
}

fn by_kind(live: &Live<'_>, group: &str, kind: &str) -> Verdict {
    match (group, kind) {
        ("apps" | "extensions", "Deployment") => workloads::deployment(live),
        ("apps", "StatefulSet") => workloads::stateful_set(live),
        ("apps" | "extensions", "DaemonSet") => workloads::daemon_set(live),
        ("apps" | "extensions", "ReplicaSet") | ("", "ReplicationController") => workloads::replica_set(live),
        ("", "Pod") => pod::verdict(live),
        ("batch", "Job") => jobs::job(live),
        ("batch", "CronJob") => jobs::cron_job(live),
        ("", "Service") => network::service(live),
        ("networking.k8s.io" | "extensions", "Ingress") => network::ingress(live),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(live),
        ("", "PersistentVolumeClaim") => storage::claim(live),
        ("", "PersistentVolume") => storage::volume(live),
        ("autoscaling", "HorizontalPodAutoscaler") => policies::autoscaler(live),
        ("policy", "PodDisruptionBudget") => policies::disruption_budget(live),
        ("", "Namespace") => definitions::namespace(live),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definitions::custom_resource_definition(live),
        ("apiregistration.k8s.io", "APIService") => definitions::api_service(live),
        ("gateway.networking.k8s.io", kind) => gateway::verdict(live, kind),
        ("projectcontour.io", "HTTPProxy") => network::http_proxy(live),
        (names::GROUP, "Application") => application::verdict(live),
        // A Node and a few others of the core group carry conditions; they are read as those of a custom
        // resource.
        (group, kind) if is_built_in(group) && kind != "Node" => {
            Verdict::healthy(format!("a {kind} is healthy by being there"))
        }
        (group, kind) => custom::verdict(live, group, kind),
    }
}
