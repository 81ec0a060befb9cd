//! The way in from outside of the cluster: an HTTPRoute or an Ingress.

use super::{App, Port, retries, set, traffic};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

/// The port that requests from outside are for.
pub(super) fn port<'a>(app: &'a App) -> Option<&'a Port> {
    let tcp = || app.ports.iter().filter(|port| port.protocol == "TCP");
    match &app.spec.expose.as_ref()?.port {
        None => app.first_port(),
        Some(IntOrString::Int(number)) => tcp().find(|port| port.number == *number),
        Some(IntOrString::String(name)) => tcp().find(|port| port.name == *name),
    }
}

/// The route, where a Gateway is the way in.
pub(super) fn route(app: &App) -> Option<Value> {
    let expose = app.spec.expose.as_ref()?;
    let (gateway, port) = (expose.gateway.as_ref()?, port(app)?);
    let mut parent = json!({"name": gateway.name});
    set(&mut parent, "namespace", gateway.namespace.clone().map(Value::from));
    set(&mut parent, "sectionName", gateway.section_name.clone().map(Value::from));
    let mut rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": expose.path}}],
        "backendRefs": [{"name": app.name, "port": port.service}],
    });
    set(&mut rule, "timeouts", traffic::timeouts(app));
    set(&mut rule, "retry", retries::route_retry(app));
    let mut object = app.object("gateway.networking.k8s.io/v1", "HTTPRoute", &app.name);
    object["spec"] = json!({"parentRefs": [parent], "hostnames": [expose.host], "rules": [rule]});
    Some(object)
}

/// The ingress, where an ingress controller is the way in.
pub(super) fn ingress(app: &App) -> Option<Value> {
    let expose = app.spec.expose.as_ref()?;
    let (ingress, port) = (expose.ingress.as_ref()?, port(app)?);
    let mut object = app.object("networking.k8s.io/v1", "Ingress", &app.name);
    let annotations = (!ingress.annotations.is_empty()).then(|| json!(ingress.annotations));
    set(&mut object["metadata"], "annotations", annotations);
    let backend = json!({"service": {"name": app.name, "port": {"name": port.name}}});
    object["spec"] = json!({
        "rules": [{
            "host": expose.host,
            "http": {"paths": [{"path": expose.path, "pathType": "Prefix", "backend": backend}]},
        }],
    });
    let tls =
        ingress.tls_secret.as_ref().map(|secret| json!([{"hosts": [expose.host], "secretName": secret}]));
    set(&mut object["spec"], "tls", tls);
    set(&mut object["spec"], "ingressClassName", ingress.class_name.clone().map(Value::from));
    Some(object)
}
