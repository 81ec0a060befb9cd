//! Services of the candidate: copies that select its pods and claim nothing that only one can have.

use super::build::{Of, ServicePair, copy};
use super::names::Names;
use super::selects::{Form, matches};
use super::{at, at_mut, is, items_mut, problem};
use crate::api::delivery::Problem;
use crate::core::manifest::Manifest;
use serde_json::{Value, json};

/// Fields of a Service that hold an address or a way in from outside.
const CLAIMS: [&str; 9] = [
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "allocateLoadBalancerNodePorts",
];

/// Annotations by which a Service is published to the outside: a second one would take over a name or an address.
const PUBLISHES: [&str; 7] = [
    "external-dns.alpha.kubernetes.io/",
    "service.beta.kubernetes.io/",
    "metallb.universe.tf/",
    "metallb.io/",
    "lbipam.cilium.io/",
    "io.cilium/",
    "tailscale.com/",
];

/// Copies the Services of the target that select the pods of the workloads.
pub(super) fn copies(
    of: &Of,
    names: &mut Names,
    out: &mut Vec<Manifest>,
) -> Result<Vec<ServicePair>, Problem> {
    let mut pairs = Vec::new();
    for service in of.target.objects().iter().filter(|object| is(&object.id(), "", "Service")) {
        let selector = at(service, &["spec", "selector"]);
        let sees = |labels: &_| matches(Form::Map, selector, labels) == Some(true);
        let mut twins = of.twins.iter().filter(|twin| {
            twin.namespace() == service.namespace() && sees(&twin.ours[1]) && !sees(&twin.theirs)
        });
        let Some(twin) = twins.next() else { continue };
        if let Some(other) = twins.next() {
            let text = format!(
                "selects the pods of {} and of {}, both of which are rolled out: no one selector means the candidates of both. \
                 Give each a Service of its own, or roll them out by Deliveries of their own",
                twin.new.id(),
                other.new.id()
            );
            return Err(problem("ServiceOfTwoWorkloads", service, &text));
        }
        let name = names.fresh(&service.id());
        let mut made = plain(copy(service, &name));
        for path in [&["metadata", "labels"], &["spec", "selector"]] {
            twin.rewrite().map(at_mut(&mut made, path));
        }
        out.push(made);
        pairs.push(ServicePair {
            namespace: service.namespace().into(),
            stable: service.name().into(),
            candidate: name,
            label: twin.label(),
        });
    }
    Ok(pairs)
}

/// A Service that is reached within the cluster alone. A headless one stays headless.
fn plain(mut service: Manifest) -> Manifest {
    if let Some(Value::Object(annotations)) = at_mut(&mut service, &["metadata", "annotations"]) {
        annotations.retain(|key, _| !PUBLISHES.iter().any(|prefix| key.starts_with(prefix)));
    }
    let Some(Value::Object(spec)) = at_mut(&mut service, &["spec"]) else { return service };
    let headless = spec.get("clusterIP") == Some(&json!("None"));
    spec.retain(|field, _| !CLAIMS.contains(&field.as_str()));
    if !headless {
        spec.remove("clusterIP");
    }
    spec.insert("type".into(), json!("ClusterIP"));
    for port in items_mut(spec.get_mut("ports")) {
        if let Value::Object(port) = port {
            port.remove("nodePort");
        }
    }
    service
}
