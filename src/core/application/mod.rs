//! An Application becomes the objects that it is short for.
//!
//! A pure function: the same Application gives the same objects under the same names. Nothing is dropped in silence: what
//! contradicts itself is refused with the field ([`Invalid`]), and what may not do what was meant is told
//! ([`Expansion::notices`]).
//!
//! Pods are selected by two labels. The Service goes by the first alone, so that the pods of a second variant can be kept away
//! from it by that label, and put behind it by the other one.

mod config;
mod contour;
mod defaulted;
mod deployment;
mod error;
mod exposure;
mod faults;
mod monitor;
mod network;
mod notice;
mod passing;
mod read;
mod retries;
mod revision;
mod rollout;
mod scaling;
mod service;
mod status;
mod traffic;

#[cfg(test)]
mod tests;

pub use defaulted::{Defaulted, defaulted};
pub use error::{ApplicationError, Invalid};
pub use monitor::Kinds;
pub use notice::Notice;
pub use passing::waits;
pub use read::{is_application, read};
pub use revision::{Revision, revision, revision_name};
pub use rollout::rollout;
pub use status::{Pods, Seen, status};

use super::manifest::{Manifest, Origin};
use crate::api::application::{Application, ApplicationSpec};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

/// The objects that an Application is short for.
#[derive(Clone, Debug, PartialEq)]
pub struct Expansion {
    /// The objects, by kind and name.
    pub objects: Vec<Manifest>,
    /// What may not do what was meant, each with its field and what to do; what is not carried out at all comes first.
    pub notices: Vec<Notice>,
}

/// Expands an Application, without what only some clusters have. The objects stand where it does: in its namespace, and at its
/// place in Git.
pub fn expand(application: &Application, origin: &Origin) -> Result<Expansion, Invalid> {
    expand_for(application, origin, Kinds::default())
}

/// Expands an Application for a cluster that has these kinds.
pub fn expand_for(application: &Application, origin: &Origin, kinds: Kinds) -> Result<Expansion, Invalid> {
    let spec = completed(application.spec.clone());
    let app = App::new(application, &spec);
    let errors = faults::find(&app);
    if !errors.is_empty() {
        return Err(Invalid { application: app.to_string(), errors });
    }
    let mut objects = config::config_maps(&app);
    objects.push(deployment::deployment(&app));
    objects.extend(service::service(&app));
    objects.extend(service::service_account(&app));
    objects.extend(scaling::autoscaler(&app));
    objects.extend(scaling::budget(&app));
    objects.extend(exposure::route(&app));
    objects.extend(exposure::ingress(&app));
    objects.extend(contour::proxy(&app));
    objects.extend(network::policy(&app));
    objects.extend(traffic::destination_rule(&app));
    objects.extend(traffic::virtual_service(&app));
    objects.extend(traffic::peer_authentication(&app));
    objects.extend(monitor::pod_monitor(&app, kinds));
    // All have a kind and a name: they are made here.
    let objects = objects.into_iter().filter_map(|object| Manifest::new(object, origin.clone()).ok());
    let mut objects: Vec<Manifest> = objects.collect();
    objects.sort_by_key(Manifest::id);
    let mut notices = faults::notices(&app);
    notices.extend(monitor::notice(&app, kinds));
    Ok(Expansion { objects, notices })
}

/// The spec with what is left out and follows from other fields.
pub fn completed(mut spec: ApplicationSpec) -> ApplicationSpec {
    if let Some(checks) = &mut spec.health_check
        && let Some(startup) = &mut checks.startup
        && !faults::has_action(startup)
        && let Some(other) = checks.liveness.as_ref().or(checks.readiness.as_ref())
    {
        startup.http_get.clone_from(&other.http_get);
        startup.tcp_socket.clone_from(&other.tcp_socket);
        startup.grpc.clone_from(&other.grpc);
        startup.exec.clone_from(&other.exec);
        startup.failure_threshold = startup.failure_threshold.or(Some(30));
    }
    if let Some(scaling) = &mut spec.autoscaling
        && scaling.target_memory_utilization.is_none()
    {
        scaling.target_cpu_utilization = scaling.target_cpu_utilization.or(Some(80));
    }
    spec
}

/// The selector of an Application's pods as text.
pub fn selector(name: &str) -> String {
    let labels = pod_labels(name);
    labels.keys().map(|key| format!("{key}={name}")).collect::<Vec<_>>().join(",")
}

/// The labels that the Deployment of an Application selects its pods by.
pub fn pod_labels(name: &str) -> Map<String, Value> {
    ["app.kubernetes.io/instance", "app.kubernetes.io/name"]
        .map(|key| (key.to_owned(), name.into()))
        .into_iter()
        .collect()
}

/// Where an Application is reached from outside of the cluster: by its first path, and encrypted where an Ingress or an HTTPProxy says so. (A
/// Gateway's listener is not known here.) None for a name that stands for many.
pub fn url(spec: &ApplicationSpec) -> Option<String> {
    let expose = spec.expose.as_ref().filter(|expose| !expose.host.starts_with('*'))?;
    let by_ingress = expose.ingress.as_ref().and_then(|ingress| ingress.tls_secret.as_ref());
    let by_proxy = expose.http_proxy.as_ref().and_then(|proxy| proxy.tls_secret.as_ref());
    let secure = by_ingress.or(by_proxy).is_some();
    let scheme = if secure { "https" } else { "http" };
    Some(format!("{scheme}://{}{}", expose.host, expose.path))
}

/// An Application, and what follows from it for more than one object.
struct App<'a> {
    name: String,
    namespace: String,
    spec: &'a ApplicationSpec,
    ports: Vec<Port>,
}

/// A port of the container.
#[derive(Clone, Debug, PartialEq)]
struct Port {
    name: String,
    number: i32,
    service: i32,
    protocol: &'static str,
    app_protocol: Option<String>,
}

impl std::fmt::Display for App<'_> {
    /// `Application shop/web`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "Application {}", self.name),
            namespace => write!(f, "Application {namespace}/{}", self.name),
        }
    }
}

impl<'a> App<'a> {
    fn new(application: &Application, spec: &'a ApplicationSpec) -> Self {
        let short = spec.port.map(|number| Port {
            name: "http".into(),
            number,
            service: number,
            protocol: "TCP",
            app_protocol: None,
        });
        let named = spec.ports.iter().map(|port| Port {
            name: port.name.clone(),
            number: port.port,
            service: port.service_port.unwrap_or(port.port),
            protocol: port.protocol.as_str(),
            app_protocol: port.app_protocol.clone(),
        });
        App {
            name: application.name_any(),
            namespace: application.namespace().unwrap_or_default(),
            spec,
            ports: short.into_iter().chain(named).collect(),
        }
    }

    /// The port that is meant where none is named: the first that can be asked by HTTP.
    fn first_port(&self) -> Option<&Port> {
        self.ports.iter().find(|port| port.protocol == "TCP")
    }

    /// The port of the metrics where it is one of its own.
    fn metrics_port(&self) -> Option<i32> {
        let number = self.spec.metrics.as_ref()?.port?;
        let known = self.ports.iter().any(|port| port.number == number && port.protocol == "TCP");
        (!known).then_some(number)
    }

    /// Labels of every object.
    fn labels(&self) -> Map<String, Value> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/managed-by".into(), "windlass".into());
        labels
    }

    /// The labels that the Deployment selects its pods by, and everything that means them.
    fn selector(&self) -> Map<String, Value> {
        pod_labels(&self.name)
    }

    /// The label that the Service selects pods by.
    fn serving(&self) -> Map<String, Value> {
        Map::from_iter([("app.kubernetes.io/name".to_owned(), self.name.clone().into())])
    }

    /// An object of it.
    fn object(&self, api: &str, kind: &str, name: &str) -> Value {
        let mut metadata = json!({"name": name, "labels": self.labels()});
        if !self.namespace.is_empty() {
            metadata["namespace"] = self.namespace.clone().into();
        }
        json!({"apiVersion": api, "kind": kind, "metadata": metadata})
    }
}

/// A typed part as a value. (They are plain data; writing one cannot fail.)
fn value(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

/// Sets a field where there is something to set.
fn set(object: &mut Value, field: &str, part: Option<Value>) {
    if let Some(part) = part {
        object[field] = part;
    }
}
