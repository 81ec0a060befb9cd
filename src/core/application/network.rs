//! Who may reach the pods of an Application, and whom they may reach.

use super::{App, value};
use serde_json::{Value, json};

/// The NetworkPolicy, where one is asked for.
pub(super) fn policy(app: &App) -> Option<Value> {
    let access = app.spec.security.network_policy.as_ref()?;
    let expose = app.spec.expose.as_ref();
    let gateway = expose.and_then(|expose| expose.gateway.as_ref()?.namespace.as_ref());
    let gateway = gateway.map(
        |namespace| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}),
    );
    let from: Vec<Value> = access.allow_from.iter().map(value).chain(gateway).collect();
    let mut ports: Vec<Value> =
        app.ports.iter().map(|port| json!({"port": port.number, "protocol": port.protocol})).collect();
    ports.extend(app.metrics_port().map(|port| json!({"port": port, "protocol": "TCP"})));
    // A rule without peers, or without ports, would mean all of them.
    let lets_in = !from.is_empty() && !ports.is_empty();
    let ingress = if lets_in { json!([{"from": from, "ports": ports}]) } else { json!([]) };
    let mut types = vec!["Ingress"];
    let mut spec = json!({"podSelector": {"matchLabels": app.selector()}, "ingress": ingress});
    if let Some(to) = &access.allow_to {
        types.push("Egress");
        let names = ["UDP", "TCP"].map(|protocol| json!({"port": 53, "protocol": protocol}));
        let mut egress = vec![json!({"ports": names})];
        if !to.is_empty() {
            egress.push(json!({"to": to.iter().map(value).collect::<Vec<_>>()}));
        }
        spec["egress"] = egress.into();
    }
    spec["policyTypes"] = json!(types);
    let mut object = app.object("networking.k8s.io/v1", "NetworkPolicy", &app.name);
    object["spec"] = spec;
    Some(object)
}
