//! What controllers make of the objects: workloads get Pods, Pods act out their image's tag, owned objects go with
//! their owner, namespaces go with what is in them.
//!
//! All of them look at what is there, never at what happened. One pass lets each take its next step; what has to
//! wait for a time says when.

mod deployment;
mod garbage;
mod gateway;
mod job;
mod kubelet;
mod node;
mod replica_set;

use super::store::Key;
use super::{Cluster, managed};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// Where the built-in kinds stand among all.
pub(super) mod at {
    pub const NAMESPACE: usize = 0;
    pub const SERVICE: usize = 4;
    pub const CLAIM: usize = 5;
    pub const POD: usize = 6;
    pub const DEPLOYMENT: usize = 7;
    pub const REPLICA_SET: usize = 8;
    pub const JOB: usize = 9;
    pub const AUTOSCALER: usize = 10;
    /// Routes of the Gateway API, wherever they stand.
    pub const ROUTE: usize = usize::MAX;
}

/// What controllers remember.
#[derive(Clone, Debug, Default)]
pub struct Controllers {
    pods: kubelet::Memory,
    nodes: node::Nodes,
    routes: gateway::Memory,
    turns: [Turn; CONTROLLERS.len()],
    /// Whose turn it is.
    current: usize,
}

/// One controller: up to which version it has looked, and when it has something to do next.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    looked: u64,
    due: Option<Timestamp>,
}

/// What a controller does, and the kinds that it looks at; none are those that are being deleted or went.
type Controller = (fn(&mut Cluster, Timestamp), &'static [usize]);

const CONTROLLERS: [Controller; 9] = [
    (deployment::run, &[at::DEPLOYMENT, at::REPLICA_SET, at::POD]),
    (replica_set::run, &[at::REPLICA_SET, at::POD]),
    (job::run, &[at::JOB, at::POD]),
    (autoscale, &[at::AUTOSCALER, at::DEPLOYMENT]),
    (kubelet::run, &[at::POD]),
    (node::run, &[at::POD]),
    (garbage::claims, &[at::CLAIM]),
    (garbage::run, &[]),
    (gateway::run, &[at::SERVICE, at::ROUTE]),
];

impl Controllers {
    /// What is known of a route.
    pub fn route(&self, uid: &str) -> Option<&gateway::Route> {
        self.routes.get(uid)
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.turns.iter().filter_map(|turn| turn.due).min()
    }

    /// All have something to look at.
    fn look_again(&mut self) {
        self.turns.iter_mut().for_each(|turn| turn.looked = 0);
    }

    /// Something is due then.
    fn at(&mut self, time: Timestamp) {
        let due = &mut self.turns[self.current].due;
        if due.is_none_or(|due| time < due) {
            *due = Some(time);
        }
    }
}

/// One step of all controllers; whether anything changed.
pub fn run(cluster: &mut Cluster, now: Timestamp) -> bool {
    let before = cluster.store.version();
    for (i, (work, kinds)) in CONTROLLERS.iter().enumerate() {
        let turn = cluster.controllers.turns[i];
        let store = &cluster.store;
        let routes: &[usize] = if kinds.contains(&at::ROUTE) { &cluster.routes } else { &[] };
        let all = kinds.iter().filter(|at| **at != at::ROUTE).chain(routes);
        let changed = all.map(|at| store.changed(*at)).max();
        let news = changed.unwrap_or(0).max(store.endings());
        if news > turn.looked || turn.due.is_some_and(|due| due <= now) {
            // What it changes itself it looks at again.
            cluster.controllers.turns[i] = Turn { looked: store.version(), due: None };
            cluster.controllers.current = i;
            work(cluster, now);
        }
    }
    cluster.store.version() != before
}

impl Cluster {
    /// The node that runs the Pods of workloads does not answer any more, or answers again.
    pub fn node_answers(&mut self, now: Timestamp, yes: bool) {
        node::answers(self, now, yes);
    }

    /// All Pods of workloads are evicted and none finds room, or there is room again.
    pub fn has_room(&mut self, now: Timestamp, yes: bool) {
        node::room(self, now, yes);
    }

    /// Whether Pods are taken away, or find no room.
    pub fn is_disturbed(&self) -> bool {
        self.controllers.nodes.disturb()
    }
}

/// `maxUnavailable` of a Deployment as a number of Pods.
pub fn may_be_missing(deployment: &Value) -> i64 {
    deployment::limits(&deployment["spec"]).1
}

/// The last version in which Pods, or what makes them, changed.
pub fn workloads_version(store: &super::store::Store) -> u64 {
    [at::POD, at::REPLICA_SET, at::DEPLOYMENT].map(|at| store.changed(at)).into_iter().max().unwrap_or(0)
}

/// An autoscaler without metrics still keeps its limits. What it would measure, an annotation says.
fn autoscale(cluster: &mut Cluster, now: Timestamp) {
    for (key, scaler) in snapshot(cluster, at::AUTOSCALER) {
        let target = &scaler["spec"]["scaleTargetRef"];
        let name = target["name"].as_str().unwrap_or_default();
        let Some(workload) =
            cluster.store.get(at::DEPLOYMENT, &key.1, name).filter(|_| target["kind"] == "Deployment")
        else {
            continue;
        };
        let replicas = number(&workload["spec"], "replicas");
        let least = scaler["spec"]["minReplicas"].as_i64().unwrap_or(1);
        let load = scaler["metadata"]["annotations"]["example.com/load"].as_str();
        let load = load.and_then(|load| load.parse().ok()).unwrap_or(replicas);
        let wanted = load.clamp(least, number(&scaler["spec"], "maxReplicas").max(least));
        if replicas > 0 && wanted != replicas {
            let path = format!(
                "/apis/apps/v1/namespaces/{}/deployments/{name}/scale?fieldManager=kube-controller-manager",
                key.1
            );
            cluster.act(now, "PATCH", &path, &json!({"spec": {"replicas": wanted}}));
        }
    }
}

/// The objects of a kind as they are now.
fn snapshot(cluster: &Cluster, at: usize) -> Vec<(Key, Arc<Value>)> {
    cluster.store.of_kind(at).map(|(key, object)| (key.clone(), object.clone())).collect()
}

/// The objects of a kind in a namespace that an object controls.
fn controlled(cluster: &Cluster, at: usize, namespace: &str, uid: &str) -> Vec<(Key, Arc<Value>)> {
    let all = cluster.store.list(at, namespace);
    let mine = all.filter(|(_, object)| controller_of(object) == Some(uid));
    mine.map(|(key, object)| (key.clone(), object.clone())).collect()
}

fn controller_of(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)?["uid"].as_str()
}

fn number(object: &Value, field: &str) -> i64 {
    object[field].as_i64().unwrap_or(0)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Whether new objects may be made in a namespace.
fn takes_new(cluster: &Cluster, namespace: &str) -> bool {
    cluster.store.get(at::NAMESPACE, "", namespace).is_some_and(|n| !is_deleting(n))
}

fn owner(kind: &str, api_version: &str, object: &Value) -> Value {
    json!([{
        "apiVersion": api_version, "kind": kind, "name": object["metadata"]["name"],
        "uid": object["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }])
}

fn time(now: Timestamp) -> Value {
    managed::time(now).into()
}

fn parsed(time: &Value) -> Option<Timestamp> {
    time.as_str()?.parse().ok()
}

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

/// Stores an object if it is another now.
fn write(cluster: &mut Cluster, key: &Key, old: &Value, new: Value) -> bool {
    let changed = new != *old;
    if changed {
        cluster.store.put(key.clone(), new);
    }
    changed
}

/// Deletes an object as its owner's end asks for, without waiting.
fn delete(cluster: &mut Cluster, key: &Key, now: Timestamp, policy: &str) {
    let kind = cluster.kinds[key.0].clone();
    let root = if kind.group.is_empty() { "/api/v1".into() } else { format!("/apis/{}", kind.api_version()) };
    let place = if key.1.is_empty() { String::new() } else { format!("/namespaces/{}", key.1) };
    let path = format!("{root}{place}/{}/{}?propagationPolicy={policy}", kind.plural, key.2);
    cluster.act(now, "DELETE", &path, &Value::Null);
}

/// A Pod of a workload, from its template.
fn make_pod(cluster: &mut Cluster, owner: &Value, kind: &str, api_version: &str, now: Timestamp) {
    let namespace = text(owner, "namespace").to_string();
    if !takes_new(cluster, &namespace) {
        return;
    }
    let template = &owner["spec"]["template"];
    let uid = cluster.store.uid();
    let ending = super::verbs::suffix(cluster.store.number());
    let base = format!("{}-", text(owner, "name"));
    let name = format!("{base}{ending}");
    let mut meta = json!({
        "name": name, "generateName": base, "namespace": namespace, "uid": uid, "generation": 1,
        "creationTimestamp": time(now), "ownerReferences": self::owner(kind, api_version, owner),
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            meta[field] = value.clone();
        }
    }
    let mut spec = template["spec"].clone();
    spec["enableServiceLinks"] = true.into();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec,
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    });
    cluster.store.put((at::POD, namespace, name), pod);
}

/// A condition with the time of its last change; `old` are the conditions so far.
fn condition(old: &Value, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    let before = old.as_array().into_iter().flatten().find(|c| c["type"] == kind);
    let since = before.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
    let mut out =
        json!({"type": kind, "status": status, "lastTransitionTime": since.unwrap_or_else(|| time(now))});
    for (field, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            out[field] = value.into();
        }
    }
    out
}
