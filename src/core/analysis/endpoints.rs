//! Whom a metric asks that goes to the app itself: the ready endpoints of a variant's Service, at one of its ports.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A pod that is ready to serve, as its Service sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its addresses, sorted: one of each family that it has.
    pub addresses: BTreeSet<IpAddr>,
    /// Its ports, by the names that the Service gives them.
    pub ports: BTreeMap<String, u16>,
}

impl Endpoint {
    /// Where it is asked: at a port by its number or by the name that the Service gives it. One address is enough, and of
    /// two families a program may serve only the first.
    pub fn at(&self, port: &IntOrString) -> Option<SocketAddr> {
        let port = match port {
            IntOrString::Int(number) => u16::try_from(*number).ok()?,
            IntOrString::String(name) => *self.ports.get(name)?,
        };
        self.addresses.first().map(|address| SocketAddr::new(*address, port))
    }
}

/// The ready endpoints of an EndpointSlice, by the uids of their pods; one without a pod goes by its address.
pub fn ready(slice: &Value) -> BTreeMap<String, Endpoint> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named = |port: &Value| {
        let number = u16::try_from(port["port"].as_u64()?).ok()?;
        let stream = matches!(port["protocol"].as_str(), None | Some("" | "TCP"));
        stream.then(|| (text(&port["name"]), number))
    };
    let ports: BTreeMap<String, u16> = list(&slice["ports"]).iter().filter_map(named).collect();
    let mut found = BTreeMap::new();
    for endpoint in list(&slice["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false) {
        // All addresses of an endpoint lead to the same: the API asks to use the first alone.
        let Ok(address) = text(&endpoint["addresses"][0]).parse::<IpAddr>() else { continue };
        let pod = match text(&endpoint["targetRef"]["uid"]) {
            uid if uid.is_empty() => address.to_string(),
            uid => uid,
        };
        found.insert(pod, Endpoint { addresses: BTreeSet::from([address]), ports: ports.clone() });
    }
    found
}

/// The endpoints of several slices of one Service: a pod with addresses of two families stands in two of them.
pub fn together(slices: impl IntoIterator<Item = BTreeMap<String, Endpoint>>) -> Vec<Endpoint> {
    let mut all: BTreeMap<String, Endpoint> = BTreeMap::new();
    for (pod, mut endpoint) in slices.into_iter().flatten() {
        let one = all.entry(pod).or_default();
        one.addresses.append(&mut endpoint.addresses);
        one.ports.append(&mut endpoint.ports);
    }
    let mut all: Vec<Endpoint> = all.into_values().collect();
    all.sort();
    all
}

/// The Service of a variant, as far as a metric asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Its name.
    pub name: String,
    /// Its ports that carry streams: name and number.
    pub ports: Vec<(String, u16)>,
    /// The numbers of those that the route sends requests to.
    pub used: BTreeSet<u16>,
}

impl Served {
    /// A Service, and the ports of it that a route names: `None` where it does not name the Service, and none of them where it
    /// leads to all.
    pub fn new(service: &Value, named: Option<BTreeSet<u16>>) -> Self {
        let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let read = |port: &Value| {
            let stream = matches!(port["protocol"].as_str(), None | Some("" | "TCP"));
            let number = u16::try_from(port["port"].as_u64()?).ok()?;
            stream.then(|| (port["name"].as_str().unwrap_or_default().to_owned(), number))
        };
        let ports: Vec<(String, u16)> = ports.iter().filter_map(read).collect();
        let used = match named {
            Some(named) if named.is_empty() => ports.iter().map(|(_, number)| *number).collect(),
            named => named.unwrap_or_default(),
        };
        let name = service["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Served { name, ports, used }
    }

    /// The name that a port of another Service has here, which is the one of the same number: a revision may name it anew.
    pub fn alike<'a>(&'a self, other: &Served, port: &'a str) -> &'a str {
        let number = other.ports.iter().find(|(name, _)| name == port).map(|(_, number)| *number);
        let same = self.ports.iter().find(|(_, here)| Some(*here) == number);
        same.map_or(port, |(name, _)| name)
    }

    /// The port that is asked where a metric names none, by its name: the only one, or the only one that the route uses.
    pub fn port(&self) -> Result<&str, String> {
        match self.ports.as_slice() {
            [] => return Err(format!("Service {} has no port; write http.port", self.name)),
            [(name, _)] => return Ok(name),
            _ => {}
        }
        let mut used = self.ports.iter().filter(|(_, number)| self.used.contains(number));
        match (used.next(), used.next()) {
            (Some((name, _)), None) => Ok(name),
            (first, _) => Err(format!(
                "Service {} has the ports {}, and the route sends requests to {}; name one in http.port",
                self.name,
                self.listed(),
                if first.is_some() { "several of them" } else { "none of them" }
            )),
        }
    }

    /// Whether it has a port of this name.
    pub fn has(&self, port: &str) -> bool {
        self.ports.iter().any(|(name, _)| name == port)
    }

    /// Its ports, for people: `http (80), metrics (9090)`.
    pub fn listed(&self) -> String {
        let each: Vec<String> = self
            .ports
            .iter()
            .map(|(name, number)| match name.as_str() {
                "" => number.to_string(),
                name => format!("{name} ({number})"),
            })
            .collect();
        each.join(", ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoint(address: &str, uid: &str, conditions: Value) -> Value {
        json!({"addresses": [address, "10.9.9.9"], "conditions": conditions, "targetRef": {"uid": uid}})
    }

    #[test]
    fn what_is_ready_is_asked_once_at_the_port_that_is_named() {
        let four = json!({
            "ports": [{"name": "metrics", "port": 9090}, {"name": "http", "port": 8080, "protocol": "TCP"},
                      {"name": "quic", "port": 8443, "protocol": "UDP"}],
            "endpoints": [
                endpoint("10.0.0.2", "b", json!({"ready": true})),
                endpoint("10.0.0.1", "a", json!({})),
                endpoint("10.0.0.3", "c", json!({"ready": false})),
                {"addresses": ["10.0.0.9"]},
            ],
        });
        let six = json!({
            "ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}],
            "endpoints": [endpoint("fd00::1", "a", json!({"ready": true}))],
        });
        // The pods of a Service may have a named port at several numbers: each number has a slice of its own.
        let other = json!({
            "ports": [{"name": "http", "port": 8081}],
            "endpoints": [endpoint("10.0.0.4", "d", json!({"ready": true}))],
        });
        let all = together([ready(&six), ready(&four), ready(&other)]);
        let at = |port: IntOrString| -> BTreeSet<String> {
            all.iter().filter_map(|e| e.at(&port)).map(|a| a.to_string()).collect()
        };
        let name = |name: &str| at(IntOrString::String(name.into()));
        let set = |all: &[&str]| all.iter().map(|a| (*a).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(name("http"), set(&["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.9:8080", "10.0.0.4:8081"]));
        assert_eq!(name("metrics"), set(&["10.0.0.1:9090", "10.0.0.2:9090", "10.0.0.9:9090"]));
        assert!(name("quic").is_empty() && name("").is_empty());
        assert_eq!(at(IntOrString::Int(1)).len(), 4);
        assert!(ready(&json!({"endpoints": null, "ports": null})).is_empty());
    }

    #[test]
    fn a_port_is_the_only_one_or_the_one_that_the_route_uses() {
        let service = |ports: Value| json!({"metadata": {"name": "web"}, "spec": {"ports": ports}});
        let two = service(json!([{"name": "metrics", "port": 9090}, {"name": "http", "port": 80},
                                 {"name": "dns", "port": 53, "protocol": "UDP"}]));
        let port = |service: &Value, used: &[u16]| {
            Served::new(service, Some(used.iter().copied().collect())).port().map(str::to_owned)
        };
        let unnamed = Served::new(&two, None);
        assert_eq!(port(&service(json!([{"port": 80}])), &[]), Ok(String::new()));
        assert_eq!(port(&two, &[80]), Ok("http".into()));
        let said = "Service web has the ports metrics (9090), http (80), and the route sends requests to";
        assert_eq!(
            unnamed.port().map(str::to_owned),
            Err(format!("{said} none of them; name one in http.port"))
        );
        assert_eq!(port(&two, &[]), Err(format!("{said} several of them; name one in http.port")));
        assert_eq!(port(&two, &[80, 9090]), Err(format!("{said} several of them; name one in http.port")));
        assert_eq!(
            port(&service(Value::Null), &[80]),
            Err("Service web has no port; write http.port".to_owned())
        );
        let before = Served::new(&service(json!([{"port": 80}, {"name": "old", "port": 81}])), None);
        assert_eq!(
            ["http", "metrics", "grpc"].map(|name| before.alike(&unnamed, name)),
            ["", "metrics", "grpc"]
        );
    }
}
