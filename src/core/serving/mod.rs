//! Who serves for a Delivery or an Application, and by which policy requests are spread: the endpoints of its Services by variant, and
//! what the objects of its router say.

mod policy;

#[cfg(test)]
mod tests;

pub use policy::{Backend, Policy, Rule};

use super::analysis::endpoints::SERVICE_NAME;
use super::look::{Look, Seen, Shown};
use super::manifest::{Gvk, ObjectId};
use super::resource_tree::{self, Known, Node, Root, grow};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Kinds that tell who serves, and how it is found out whose pods these are.
const NEEDED: [&str; 17] = [
    "Application",
    "DaemonSet",
    "Delivery",
    "Deployment",
    "DestinationRule",
    "EndpointSlice",
    "GRPCRoute",
    "HTTPProxy",
    "HTTPRoute",
    "Ingress",
    "InventoryShard",
    "PeerAuthentication",
    "Pod",
    "ReplicaSet",
    "Service",
    "StatefulSet",
    "VirtualService",
];

/// Kinds of which all is kept: it is what is told.
const WHOLE: [&str; 8] = [
    "DestinationRule",
    "EndpointSlice",
    "GRPCRoute",
    "HTTPProxy",
    "HTTPRoute",
    "PeerAuthentication",
    "Service",
    "VirtualService",
];

/// Kinds that say something of requests, in the order in which that is told.
const TOLD: [&str; 7] = [
    "HTTPRoute",
    "GRPCRoute",
    "HTTPProxy",
    "VirtualService",
    "DestinationRule",
    "PeerAuthentication",
    "Service",
];

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    known: Known,
    whole: Option<Value>,
}

/// What is kept of an object: all of what tells who serves, and of others whose they are.
pub fn keep(object: &Value) -> Kept {
    let whole = WHOLE.contains(&object["kind"].as_str().unwrap_or_default());
    Kept { known: resource_tree::keep(object), whole: whole.then(|| object.clone()) }
}

/// A variant of what serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Variant {
    /// What stands under the names of Git.
    Stable,
    /// The copy of a new revision beside it.
    Candidate,
}

/// Somebody whom a Service sends requests to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Of which variant it is.
    pub variant: Variant,
    /// The Service.
    pub service: String,
    /// The pod; empty for one that is written by hand.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The node that it runs on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The zone of the node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Its addresses, with the ports where it listens.
    pub addresses: Vec<String>,
    /// It takes requests.
    pub ready: bool,
    /// It would answer, though it may be about to end.
    pub serving: bool,
    /// It is about to end.
    pub terminating: bool,
}

/// Who serves, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    /// The kind of what was asked for: a Delivery, or an Application.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// By variant, Service and pod.
    pub endpoints: Vec<Endpoint>,
    /// Services without any endpoint that is ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<String>,
    /// What the router's objects say.
    pub policies: Vec<Policy>,
    /// What is asked for, and no router carries out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_in_force: Vec<String>,
    /// What could not be looked at, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

impl Serving {
    /// Whether every Service has somebody to send requests to.
    pub fn is_well(&self) -> bool {
        self.idle.is_empty() && self.unseen.is_empty()
    }
}

/// What has to be looked at; `routes` are those that stand beside the Delivery.
pub fn wanted(root: &Root, routes: &BTreeSet<Look>, seen: &Seen<Kept>) -> BTreeSet<Look> {
    let mut looks = resource_tree::wanted(root, &known(seen));
    looks.retain(|look| NEEDED.contains(&look.gvk.kind.as_str()));
    for route in routes {
        let all = Look { name: None, ..route.clone() };
        if !looks.contains(&all) {
            looks.insert(route.clone());
        }
    }
    looks
}

fn known(seen: &Seen<Kept>) -> Seen<Known> {
    let each = |(look, shown): (&Look, &Shown<Kept>)| {
        let objects = shown.objects.iter().map(|(place, kept)| (place.clone(), kept.known.clone()));
        let shown = Shown {
            objects: objects.collect(),
            complete: shown.complete,
            failing: shown.failing.clone(),
            unknown: shown.unknown,
        };
        (look.clone(), shown)
    };
    seen.iter().map(each).collect()
}

/// Who serves, from what was seen of [`wanted`].
pub fn serving(root: &Root, routes: &BTreeSet<Look>, seen: &Seen<Kept>) -> Serving {
    let tree = grow(root, &known(seen));
    let mut found = Found::default();
    found.walk(&tree.root, false);
    let whole = |kind: &str| -> Vec<&Value> {
        let of_kind = seen.iter().filter(|(look, _)| look.gvk.kind == kind);
        of_kind.flat_map(|(_, shown)| shown.objects.values()).filter_map(|kept| kept.whole.as_ref()).collect()
    };
    let slices = whole("EndpointSlice");
    let (mut endpoints, mut idle) = (Vec::new(), Vec::new());
    let blind = seen.iter().any(|(look, shown)| look.gvk.kind == "EndpointSlice" && shown.failing.is_some());
    for (id, candidate) in &found.services {
        let of_service: Vec<&&Value> = slices
            .iter()
            .filter(|slice| {
                slice["metadata"]["namespace"] == *id.namespace
                    && slice["metadata"]["labels"][SERVICE_NAME] == *id.name
            })
            .collect();
        let here = read(&of_service, &id.name, *candidate, &found.pods, &id.namespace);
        if !here.iter().any(|endpoint| endpoint.ready) && !blind && is_selecting(&whole("Service"), id) {
            idle.push(id.name.clone());
        }
        endpoints.extend(here);
    }
    endpoints.sort();
    let beside = routes.iter().filter_map(|look| Some(id(&look.gvk, &look.namespace, look.name.as_ref()?)));
    let delivered: BTreeSet<ObjectId> = found.others.into_iter().chain(beside).collect();
    let candidates = found.services.iter().filter(|(_, candidate)| **candidate).map(|(id, _)| id.clone());
    let candidates: BTreeSet<ObjectId> = candidates.collect();
    let mut policies = Vec::new();
    for kind in TOLD {
        let ours = whole(kind).into_iter().filter(|object| delivered.contains(&ObjectId::of(object)));
        policies.extend(ours.filter_map(|object| policy::read(object, &candidates)));
    }
    Serving {
        kind: root.gvk.kind.clone(),
        namespace: root.namespace.clone(),
        name: root.name.clone(),
        endpoints,
        idle,
        policies,
        not_in_force: Vec::new(),
        unseen: tree.unseen,
    }
}

/// Whether a Service is one that has endpoints: one that is a name for something else has none.
fn is_selecting(services: &[&Value], id: &ObjectId) -> bool {
    let here = services.iter().find(|service| ObjectId::of(service) == *id);
    here.is_some_and(|service| service["spec"]["type"] != "ExternalName")
}

/// What a tree tells of Services, pods and routes.
#[derive(Default)]
struct Found {
    services: BTreeMap<ObjectId, bool>,
    // By namespace and name: whether it is a candidate's.
    pods: BTreeMap<(String, String), bool>,
    others: BTreeSet<ObjectId>,
}

impl Found {
    fn walk(&mut self, node: &Node, candidate: bool) {
        let candidate = candidate || node.candidate;
        match (node.api_version.as_str(), node.kind.as_str()) {
            ("v1", "Service") => {
                self.services.insert(node.id(), candidate);
                self.others.insert(node.id());
            }
            ("v1", "Pod") => {
                self.pods.insert((node.namespace.clone(), node.name.clone()), candidate);
            }
            (_, kind) if WHOLE.contains(&kind) => {
                self.others.insert(node.id());
            }
            _ => {}
        }
        node.children.iter().for_each(|child| self.walk(child, candidate));
    }
}

/// The endpoints in the slices of a Service. A pod with addresses of two families stands in two of them.
fn read(
    slices: &[&&Value],
    service: &str,
    candidate: bool,
    pods: &BTreeMap<(String, String), bool>,
    namespace: &str,
) -> Vec<Endpoint> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all: BTreeMap<String, Endpoint> = BTreeMap::new();
    for slice in slices {
        let ports: Vec<u64> =
            items(&slice["ports"]).iter().filter_map(|port| port["port"].as_u64()).collect();
        for endpoint in items(&slice["endpoints"]) {
            // All addresses of an endpoint lead to the same: the API asks to use the first alone.
            let address = text(&endpoint["addresses"][0]);
            let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
            let pod = match endpoint["targetRef"]["kind"].as_str() {
                Some("Pod") | None => text(&endpoint["targetRef"]["name"]),
                Some(_) => String::new(),
            };
            let of_candidate = pods.get(&(namespace.to_owned(), pod.clone())).copied().unwrap_or(false);
            let is = |condition: &str, otherwise: bool| {
                endpoint["conditions"][condition].as_bool().unwrap_or(otherwise)
            };
            let ready = is("ready", true);
            let found = Endpoint {
                variant: if candidate || of_candidate { Variant::Candidate } else { Variant::Stable },
                service: service.to_owned(),
                pod: pod.clone(),
                node: text(&endpoint["nodeName"]),
                zone: text(&endpoint["zone"]),
                addresses: match ports.as_slice() {
                    [] => vec![address.clone()],
                    ports => ports.iter().map(|port| format!("{host}:{port}")).collect(),
                },
                ready,
                serving: is("serving", ready),
                terminating: is("terminating", false),
            };
            let key = if pod.is_empty() { address } else { pod };
            match all.get_mut(&key) {
                Some(same) => same.addresses.extend(found.addresses),
                None => {
                    all.insert(key, found);
                }
            }
        }
    }
    let mut all: Vec<Endpoint> = all.into_values().collect();
    all.iter_mut().for_each(|endpoint| {
        endpoint.addresses.sort();
        endpoint.addresses.dedup();
    });
    all
}

fn id(gvk: &Gvk, namespace: &str, name: &str) -> ObjectId {
    ObjectId {
        group: gvk.group.clone(),
        kind: gvk.kind.clone(),
        namespace: namespace.into(),
        name: name.into(),
    }
}
