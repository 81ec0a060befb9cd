//! Routers: what moves traffic between the stable and the candidate Service, as pure functions over objects.
//!
//! A route that is in the bundle is transformed before it is applied ([`shape`]); one outside of it is changed by a JSON patch
//! ([`patch`]), since its lists are atomic to server-side apply. Both are level-based: what comes out depends on what the
//! route's owner wrote and on the split, not on the splits before.

mod accepted;
mod entries;
mod external;
mod gateway;
mod grants;
mod istio;
#[cfg(test)]
mod laws;
mod made;
mod mark;
pub mod replicas;
mod service;
#[cfg(test)]
mod tests;
mod weights;
mod why;

pub use accepted::{Acceptance, accepted};
pub use external::{ANNOTATION, patch};
pub use grants::{GRANTS, Grant, grants_checked, grants_needed};

use crate::api::delivery::Problem;
use crate::api::rollout::{CookieMatch, HeaderMatch, Router};
use crate::core::digest;
use crate::core::manifest::{Gvk, Manifest, ObjectId};
use entries::Written;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use why::Why;

/// How traffic is to be divided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// The Services of the workloads, with those of their candidates.
    pub services: Vec<VariantService>,
    /// The candidate's share, in percent; 0 to 100.
    pub weight: u32,
    /// Requests with this header see the candidate, whatever the weight.
    pub header: Option<HeaderMatch>,
    /// Requests with this cookie do.
    pub cookie: Option<CookieMatch>,
    /// The share of requests, in percent, that the candidate gets a copy of; 0 is none.
    pub mirror: Option<u32>,
}

/// A Service and its candidate's, in one namespace and with the same ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantService {
    /// Their namespace.
    pub namespace: String,
    /// The name that stands in Git.
    pub stable: String,
    /// The candidate's name.
    pub candidate: String,
    /// What they serve. Needed where a VirtualService is made.
    #[serde(skip)]
    pub ports: Vec<ServicePort>,
    /// The label by which the pods of the variants differ. Needed where a selector is switched.
    #[serde(default)]
    pub label: VariantLabel,
}

/// The one label by which the pods of the variants differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantLabel {
    /// Its name.
    pub key: String,
    /// Its value on the stable pods, as it stands in Git.
    pub stable: String,
    /// Its value on the candidate's pods.
    pub candidate: String,
}

/// A port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its number.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// What is spoken on a port, as far as a mesh tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP of any version, gRPC included; also what names no protocol, which Istio finds out.
    Http,
    /// TLS that is not terminated on the way.
    Tls,
    /// Any other stream.
    Tcp,
}

impl ServicePort {
    /// The ports of a Service, with what Istio takes them to speak: `appProtocol`, or the port's name up to a hyphen. Ports
    /// that are no streams are left out: nothing routes them.
    pub fn of(service: &Value) -> Vec<ServicePort> {
        let ports = service.pointer("/spec/ports").and_then(Value::as_array);
        let read = |port: &Value| {
            let text = |field: &str| port.get(field).and_then(Value::as_str).unwrap_or_default();
            if !matches!(text("protocol"), "" | "TCP") {
                return None;
            }
            let number = u16::try_from(port.get("port")?.as_u64()?).ok()?;
            let app = match text("appProtocol") {
                "" => text("name").split('-').next().unwrap_or_default(),
                app => app,
            };
            let protocol = match app.to_ascii_lowercase().as_str() {
                "https" | "tls" | "kubernetes.io/wss" => Protocol::Tls,
                "tcp" | "mongo" | "mysql" | "redis" => Protocol::Tcp,
                _ => Protocol::Http,
            };
            Some(ServicePort { number, protocol })
        };
        ports.into_iter().flatten().filter_map(read).collect()
    }
}

impl Split {
    /// Whether it sends anything to a candidate.
    pub fn moves(&self) -> bool {
        self.weight > 0
            || self.header.is_some()
            || self.cookie.is_some()
            || self.mirror.is_some_and(|percent| percent > 0)
    }

    /// The names of the stable Services, for people.
    fn stables(&self) -> String {
        let names: Vec<&str> = self.services.iter().map(|service| service.stable.as_str()).collect();
        match names.as_slice() {
            [] => "a Service of the workload".into(),
            [one] => format!("Service {one}"),
            names => format!("any of Services {}", names.join(", ")),
        }
    }
}

/// Where the object stands that steers the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Among the objects.
    Bundle(ObjectId),
    /// Not among them: it is read from the cluster and changed by [`patch`].
    External(ObjectId),
    /// Not among them: it is made, and added for as long as traffic moves. Where the cluster has one of this name that is not
    /// ours, that is [`patch`]ed instead ([`shape_beside`]).
    Made(ObjectId),
    /// Nowhere: the numbers of pods steer it ([`replicas`]).
    Pods,
}

/// Objects with a split written into them.
#[derive(Clone, Debug, PartialEq)]
pub struct Shaped {
    /// All objects that were given, in their order, then the route if it was made.
    pub objects: Vec<Manifest>,
    /// Where the route stands.
    pub place: Place,
}

/// What a split wrote into a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    /// For each rule whose weights were written.
    written: Vec<InRule>,
    /// Whether its owner had it name a candidate by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    theirs: bool,
}

/// What was written into one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InRule {
    /// The list that the rule stands in.
    list: String,
    /// Its place there before the split.
    at: usize,
    /// What it matches, as a digest.
    of: String,
    #[serde(flatten)]
    written: Written,
}

impl InRule {
    /// `matches` is what the rule matches, as it is written there.
    fn new(list: &str, at: usize, matches: &[Value], written: Written) -> Self {
        InRule { list: list.into(), at, of: InRule::matching(matches), written }
    }

    fn matching(matches: &[Value]) -> String {
        let mut digest = digest::of_value(&matches.into());
        digest.truncate(8);
        digest
    }
}

impl Changed {
    /// Takes what was written into a rule, wherever others have moved it since: it is known by what it matches, and by its
    /// place among several that match the same.
    fn take(
        &mut self,
        list: &str,
        at: usize,
        matches: &[Value],
        fits: impl Fn(&Written) -> bool,
    ) -> Option<Written> {
        let of = InRule::matching(matches);
        let found = self
            .written
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.list == list && rule.of == of && fits(&rule.written))
            .min_by_key(|(_, rule)| rule.at.abs_diff(at))
            .map(|(found, _)| found)?;
        Some(self.written.remove(found).written)
    }
}

/// The object that a router steers by, where it stands in this namespace; `None` for replicas.
pub fn target(router: &Router, namespace: &str) -> Option<ObjectId> {
    let of = |group: &str, kind: &str, name: &str| ObjectId {
        group: group.into(),
        kind: kind.into(),
        namespace: namespace.into(),
        name: name.into(),
    };
    if let Some(gateway) = &router.gateway_api {
        return Some(of(gateway::GROUP, gateway.kind.as_str(), &gateway.route));
    }
    if let Some(istio) = &router.istio {
        return Some(of(istio::GROUP, "VirtualService", &istio.virtual_service));
    }
    router.service.as_ref().map(|service| of("", "Service", &service.name))
}

/// Whether objects of a kind steer traffic. They are applied to the version that was looked at and to no other: a late request of
/// a daemon that died must not send traffic back to where it has left.
pub fn steers(gvk: &Gvk) -> bool {
    of_steering(&gvk.group, &gvk.kind)
}

/// Whether an object is of such a kind.
pub fn is_steering(id: &ObjectId) -> bool {
    of_steering(&id.group, &id.kind)
}

fn of_steering(group: &str, kind: &str) -> bool {
    match group {
        "" => kind == "Service",
        gateway::GROUP => kind.ends_with("Route"),
        istio::GROUP => kind == "VirtualService",
        _ => false,
    }
}

/// Writes a split into the objects of a bundle. Without one the route is as Git has it.
///
/// A split that sends nothing to the candidate names it all the same, with weight 0: a proxy learns of a backend and of the
/// route to it apart from each other, and answers with 503 in between. So the backend comes long before its first request,
/// and goes long after its last. A selector knows one variant, and is left alone.
///
/// `namespace` is the one in which the route is looked for when it is not among the objects.
pub fn shape(
    router: &Router,
    namespace: &str,
    objects: Vec<Manifest>,
    split: Option<&Split>,
) -> Result<Shaped, Problem> {
    shape_beside(router, namespace, objects, split, false)
}

/// The same where it is known whether the cluster has a route of this name that is somebody else's: then none is made.
pub fn shape_beside(
    router: &Router,
    namespace: &str,
    mut objects: Vec<Manifest>,
    split: Option<&Split>,
    others: bool,
) -> Result<Shaped, Problem> {
    let Some(mut wanted) = target(router, namespace) else {
        if let Some(split) = split {
            only_weight(split).map_err(|why| pods_problem(&why))?;
        }
        return Ok(Shaped { objects, place: Place::Pods });
    };
    let found = find(&wanted, &objects).map_err(|why| why.problem(&wanted, None))?;
    let split = split.filter(|split| writes(router, split));
    let place = match (found, split) {
        (Some(at), None) => Place::Bundle(objects[at].id()),
        (Some(at), Some(split)) => {
            let object = &mut objects[at];
            let (id, mut value) = (object.id(), object.to_value());
            written(router, &mut value, split).map_err(|why| why.problem(&id, Some(&object.origin)))?;
            if let Value::Object(fields) = value {
                *object.fields_mut() = fields;
            }
            Place::Bundle(id)
        }
        (None, split) if router.istio.is_some() && !others => {
            if let Some(split) = split {
                let mut made =
                    made::made(&wanted.name, split, &objects).map_err(|why| why.problem(&wanted, None))?;
                let (id, mut value) = (made.id(), made.to_value());
                written(router, &mut value, split).map_err(|why| why.problem(&id, None))?;
                if let Value::Object(fields) = value {
                    *made.fields_mut() = fields;
                }
                wanted = id;
                objects.push(made);
            }
            Place::Made(wanted)
        }
        (None, _) => Place::External(wanted),
    };
    Ok(Shaped { objects, place })
}

/// Whether a split has something to write into what a router steers by.
fn writes(router: &Router, split: &Split) -> bool {
    router.names_backends() || split.moves()
}

/// Writes a split into a route that is as its owner wrote it.
fn written(router: &Router, route: &mut Value, split: &Split) -> Result<Changed, Why> {
    if router.gateway_api.is_some() {
        gateway::transform(route, split)
    } else if router.istio.is_some() {
        istio::transform(route, split)
    } else if let Some(service) = &router.service {
        let service_of = service::named(&service.name, split)?;
        if service::switched(split)? {
            service::switch(route, service_of)?;
        }
        Ok(Changed::default())
    } else {
        only_weight(split).map(|()| Changed::default())
    }
}

/// What can be known before any pod of a candidate is started: that the route is there, can be given each of these splits
/// (those of all the steps), and is not refused by its controller. `route` is the object as it stands in the cluster, or as Git
/// has it where it is new.
pub fn refers(
    router: &Router,
    namespace: &str,
    route: Option<&Value>,
    splits: &[Split],
) -> Result<(), Problem> {
    let Some(wanted) = target(router, namespace) else {
        return splits.iter().try_for_each(|s| only_weight(s).map_err(|why| pods_problem(&why)));
    };
    let Some(route) = route else {
        // A VirtualService is made where there is none.
        let make = |split: &Split| made::made(&wanted.name, split, &[]).map(drop);
        let result = match router.istio {
            Some(_) => splits.iter().try_for_each(make),
            None => Err(Why::NotFound),
        };
        return result.map_err(|why| why.problem(&wanted, None));
    };
    for split in splits {
        let mut value = external::unsplit(router, route, None);
        // A split that moves nothing still needs a route that could.
        let full = Split { weight: 100, ..split.clone() };
        let split = if split.moves() { split } else { &full };
        written(router, &mut value, split).map_err(|why| why.problem(&wanted, None))?;
    }
    match accepted(route) {
        Acceptance::Refused(problem) => Err(problem),
        Acceptance::Accepted | Acceptance::Waiting(_) => Ok(()),
    }
}

/// Whether a route sends or copies requests to one of these candidates: as long as it does, none of them may go.
pub fn points_at_candidate(router: &Router, route: &Value, services: &[VariantService]) -> bool {
    if router.gateway_api.is_some() {
        gateway::points_at(route, services)
    } else if router.istio.is_some() {
        istio::points_at(route, services)
    } else {
        let selected = |service: &VariantService| {
            route.pointer("/spec/selector").and_then(|s| s.get(&service.label.key)).and_then(Value::as_str)
                == Some(service.label.candidate.as_str())
        };
        let name = route.pointer("/metadata/name").and_then(Value::as_str);
        services.iter().any(|service| name == Some(service.stable.as_str()) && selected(service))
    }
}

/// What a route sends to the Services of a rollout: for each of them, the numbers of its ports that are named; `None` for one
/// that the route does not name.
pub fn ports_used(router: &Router, route: &Value, services: &[VariantService]) -> Vec<Option<BTreeSet<u16>>> {
    let named = if router.gateway_api.is_some() {
        gateway::named(route, services)
    } else if router.istio.is_some() {
        istio::named(route, services)
    } else {
        let name = router.service.as_ref().map(|service| service.name.as_str());
        services
            .iter()
            .position(|s| name == Some(s.stable.as_str()))
            .map(|at| (at, None))
            .into_iter()
            .collect()
    };
    let mut used: Vec<Option<BTreeSet<u16>>> = vec![None; services.len()];
    for (service, port) in named {
        let ports = used[service].get_or_insert_default();
        ports.extend(port.and_then(|port| u16::try_from(port).ok()));
    }
    used
}

/// The place of the route among the objects: the one in the namespace asked for where several have its name.
fn find(wanted: &ObjectId, objects: &[Manifest]) -> Result<Option<usize>, Why> {
    let same = |object: &Manifest| {
        let Gvk { group, kind, .. } = object.gvk();
        group == wanted.group && kind == wanted.kind && object.name() == wanted.name
    };
    let found: Vec<usize> = (0..objects.len()).filter(|&at| same(&objects[at])).collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => {
            let here = several.iter().find(|&&at| objects[at].namespace() == wanted.namespace);
            here.map(|at| Some(*at)).ok_or(Why::Ambiguous(several.len()))
        }
    }
}

/// Numbers of pods know shares and nothing else.
fn only_weight(split: &Split) -> Result<(), Why> {
    let cannot = |what: &'static str| Why::Cannot {
        what,
        because: "numbers of pods make shares of traffic and nothing else",
        instead: "gatewayAPI or istio",
    };
    if split.header.is_some() {
        return Err(cannot("tell requests by a header"));
    }
    if split.cookie.is_some() {
        return Err(cannot("tell requests by a cookie"));
    }
    match split.mirror {
        Some(percent) if percent > 0 => Err(cannot("copy requests")),
        _ => Ok(()),
    }
}

fn pods_problem(why: &Why) -> Problem {
    Problem { reason: why.reason().into(), object: String::new(), message: format!("router replicas {why}") }
}
