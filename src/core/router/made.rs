//! The VirtualService that is made where Git has none.

use super::why::Why;
use super::{Protocol, Split, VariantService, istio};
use crate::core::manifest::{Manifest, ObjectId, Origin};
use serde_json::{Value, json};

/// A VirtualService that does what the mesh does without one: everything for a Service's host goes to that Service.
pub(super) fn made(name: &str, split: &Split, objects: &[Manifest]) -> Result<Manifest, Why> {
    let [service] = split.services.as_slice() else {
        return Err(Why::CannotMake(format!("several Services: {}", split.stables())));
    };
    if let Some(other) = taken(service, objects) {
        return Err(Why::HostTaken { host: service.stable.clone(), other: other.to_string() });
    }
    let host = json!({"host": service.stable});
    let sole = service.ports.len() < 2;
    let (mut http, mut tcp) = (Vec::new(), Vec::new());
    for port in &service.ports {
        let number = json!({"number": port.number});
        let to = if sole { host.clone() } else { json!({"host": service.stable, "port": number}) };
        let mut rule = json!({"route": [{"destination": to}]});
        if !sole {
            rule["match"] = json!([{"port": port.number}]);
        }
        match port.protocol {
            Protocol::Http => http.push(rule),
            Protocol::Tcp => tcp.push(rule),
            Protocol::Tls => {
                return Err(Why::CannotMake(format!(
                    "Service {}, whose port {} speaks TLS: its routes need the names that clients ask for",
                    service.stable, port.number
                )));
            }
        }
    }
    if service.ports.is_empty() {
        http.push(json!({"route": [{"destination": host}]}));
    }
    let mut spec = json!({"hosts": [service.stable]});
    for (list, rules) in [("http", http), ("tcp", tcp)] {
        if !rules.is_empty() {
            spec[list] = rules.into();
        }
    }
    let value = json!({
        "apiVersion": format!("{}/{}", istio::GROUP, version(objects)),
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": service.namespace},
        "spec": spec,
    });
    Manifest::new(value, origin(service, objects)).map_err(|e| Why::CannotMake(e.to_string()))
}

/// The version that the bundle uses already, so that both are served.
fn version(objects: &[Manifest]) -> String {
    let group = objects.iter().map(Manifest::gvk).find(|gvk| gvk.group == istio::GROUP);
    group.map_or_else(|| "v1".into(), |gvk| gvk.version)
}

/// Where the Service stands in Git: what is made for it has no place of its own.
fn origin(service: &VariantService, objects: &[Manifest]) -> Origin {
    let id = ObjectId {
        group: String::new(),
        kind: "Service".into(),
        namespace: service.namespace.clone(),
        name: service.stable.clone(),
    };
    objects.iter().find(|object| object.id() == id).map(|o| o.origin.clone()).unwrap_or_default()
}

/// The VirtualService that routes a Service's host within the mesh already. Two of them for one host make no sense: Istio
/// takes the older.
fn taken(service: &VariantService, objects: &[Manifest]) -> Option<ObjectId> {
    let routes = |object: &&Manifest| {
        let spec = object.fields().get("spec").cloned().unwrap_or_default();
        let texts = |field: &str| -> Vec<String> {
            let list = spec.get(field).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let gateways = texts("gateways");
        (gateways.is_empty() || gateways.iter().any(|gateway| gateway == "mesh"))
            && texts("hosts")
                .iter()
                .any(|host| istio::names(host, &service.stable, &service.namespace, object.namespace()))
    };
    let kind = |object: &&Manifest| {
        let gvk = object.gvk();
        gvk.group == istio::GROUP && gvk.kind == "VirtualService"
    };
    objects.iter().filter(kind).find(routes).map(Manifest::id)
}
