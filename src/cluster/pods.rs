//! The Pods and ReplicaSets of one workload, while its revision is unsettled.
//!
//! They carry only the labels of the workload's template, not ours, so they are watched by its selector. Small
//! values are kept: what tells a new Pod from an old one and a broken one from a slow one.

use super::connect::{Connection, ServiceAccount};
use super::discovery::Discovery;
use super::error::Cause;
use super::follow::{Seen, Source, follow};
use crate::core::manifest::Gvk;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use tokio::task::AbortHandle;

/// Why a workload's Pods cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum PodWatchError {
    /// The selector is none, or selects everything.
    #[error("the workload's selector cannot be used to watch its Pods: {0}")]
    Selector(String),
}

/// Watches the Pods and ReplicaSets that a selector matches in one namespace, until it is dropped.
#[must_use = "the watch ends when this is dropped"]
pub struct PodWatch {
    pods: Kind,
    replica_sets: Kind,
}

struct Kind {
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Arc<Value>>,
    listing: Option<HashSet<String>>,
    synced: bool,
    failing: Option<Cause>,
}

impl Drop for Kind {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PodWatch {
    /// Begins to watch as an account. `selector` is the workload's `spec.selector`. `changed` is called after
    /// each change, on the runtime; it should only wake somebody.
    pub fn start(
        connection: &Connection,
        discovery: &Discovery,
        account: Option<&ServiceAccount>,
        namespace: &str,
        selector: &Value,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, PodWatchError> {
        let labels = label_selector(selector)?;
        let changed: Arc<dyn Fn() + Send + Sync> = Arc::new(changed);
        let client = match account {
            Some(account) => connection.as_service_account(account),
            None => connection.client.clone(),
        };
        let share = connection.share();
        let kind = |api_version, kind| {
            let source = Source {
                client: client.clone(),
                discovery: discovery.clone(),
                share: share.clone(),
                gvk: Gvk::new(api_version, kind),
                namespace: Some(namespace.to_string()),
                labels: Some(labels.clone()),
                fields: None,
            };
            Kind::start(source, changed.clone())
        };
        Ok(PodWatch { pods: kind("v1", "Pod"), replica_sets: kind("apps/v1", "ReplicaSet") })
    }

    /// The Pods by name, trimmed (see [`trim`]).
    pub fn pods(&self) -> Vec<Arc<Value>> {
        self.pods.state().objects.values().cloned().collect()
    }

    /// The ReplicaSets by name, trimmed (see [`trim`]).
    pub fn replica_sets(&self) -> Vec<Arc<Value>> {
        self.replica_sets.state().objects.values().cloned().collect()
    }

    /// Whether both are known.
    pub fn synced(&self) -> bool {
        self.pods.state().synced && self.replica_sets.state().synced
    }

    /// Why one of them is not seen at the moment.
    pub fn failing(&self) -> Option<Cause> {
        let pods = self.pods.state().failing.clone();
        pods.or_else(|| self.replica_sets.state().failing.clone())
    }
}

impl Kind {
    fn start(source: Source, changed: Arc<dyn Fn() + Send + Sync>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let seen = {
            let state = state.clone();
            move |seen| {
                if state.lock().unwrap_or_else(|e| e.into_inner()).take(seen) {
                    changed();
                }
                ControlFlow::Continue(())
            }
        };
        Kind { state, task: tokio::spawn(follow(source, seen)).abort_handle() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    /// Whether something is different now.
    fn take(&mut self, seen: Seen) -> bool {
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_string();
        let recovered = !matches!(seen, Seen::Failed(_) | Seen::Begin) && self.failing.take().is_some();
        let changed = match seen {
            Seen::Begin => {
                self.listing = Some(HashSet::new());
                false
            }
            Seen::Listed(object) | Seen::Applied(object) => {
                let name = name(&object);
                if let Some(listing) = &mut self.listing {
                    listing.insert(name.clone());
                }
                let new = Arc::new(trim(object));
                let old = self.objects.insert(name, new.clone());
                old.is_none_or(|old| old != new)
            }
            Seen::Complete => {
                let listed = self.listing.take().unwrap_or_default();
                let before = self.objects.len();
                self.objects.retain(|name, _| listed.contains(name));
                let first = !std::mem::replace(&mut self.synced, true);
                first || self.objects.len() != before
            }
            Seen::Calm => false,
            Seen::Gone(object) => self.objects.remove(&name(&object)).is_some(),
            Seen::Failed(cause) => {
                let new = self.failing.as_ref() != Some(&cause);
                self.failing = Some(cause);
                new
            }
        };
        changed || recovered
    }
}

/// What is kept of a Pod or ReplicaSet: name, uid, labels, revision, owners, creation and deletion times; of the
/// spec `nodeName`, `replicas` and the names of containers; the status but for what changes without meaning
/// (probe times, IP addresses, image digests).
pub fn trim(object: Value) -> Value {
    let take = |from: &Value, fields: &[&str]| {
        let kept = fields.iter().filter_map(|f| Some((f.to_string(), from.get(*f)?.clone())));
        kept.collect::<Map<String, Value>>()
    };
    let mut metadata = take(
        &object["metadata"],
        &[
            "name",
            "namespace",
            "uid",
            "generation",
            "labels",
            "ownerReferences",
            "creationTimestamp",
            "deletionTimestamp",
        ],
    );
    let annotations = take(&object["metadata"]["annotations"], &["deployment.kubernetes.io/revision"]);
    if !annotations.is_empty() {
        metadata.insert("annotations".into(), annotations.into());
    }
    let mut spec = take(&object["spec"], &["nodeName", "replicas"]);
    for list in ["containers", "initContainers"] {
        if let Some(containers) = object["spec"][list].as_array() {
            // A sidecar is an init container that restarts; its status is read differently.
            let named = |c: &Value| Value::Object(take(c, &["name", "image", "restartPolicy"]));
            spec.insert(list.into(), containers.iter().map(named).collect());
        }
    }
    let mut status = match &object["status"] {
        Value::Object(status) => status.clone(),
        _ => Map::new(),
    };
    for field in ["podIP", "podIPs", "hostIP", "hostIPs", "qosClass", "resourceClaimStatuses"] {
        status.remove(field);
    }
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("lastProbeTime");
            condition.remove("lastHeartbeatTime");
        }
    }
    for list in ["containerStatuses", "initContainerStatuses"] {
        for container in status.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                for field in
                    ["imageID", "containerID", "volumeMounts", "resources", "allocatedResources", "user"]
                {
                    container.remove(field);
                }
            }
        }
    }
    let mut kept = take(&object, &["apiVersion", "kind"]);
    kept.insert("metadata".into(), metadata.into());
    kept.insert("spec".into(), spec.into());
    kept.insert("status".into(), status.into());
    Value::Object(kept)
}

fn label_selector(selector: &Value) -> Result<String, PodWatchError> {
    let refuse = |e: &dyn std::fmt::Display| PodWatchError::Selector(e.to_string());
    let selector: LabelSelector = serde_json::from_value(selector.clone()).map_err(|e| refuse(&e))?;
    let selector = Selector::try_from(selector).map_err(|e| refuse(&e))?.to_string();
    if selector.is_empty() {
        return Err(refuse(&"it is empty"));
    }
    Ok(selector)
}
