//! What the objects of a router say about requests, in the words that an Application's `traffic` has for it.

use super::Variant;
use crate::core::manifest::ObjectId;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What one object says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// The object, such as `HTTPRoute shop/web`.
    pub object: String,
    /// The hosts that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// What holds for all requests, by the name that it has in `traffic`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub says: BTreeMap<&'static str, String>,
    /// Its rules, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// A rule of a route.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Which requests it is for, in words; empty for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub matches: String,
    /// Where they go.
    pub backends: Vec<Backend>,
    /// What holds for them, by the name that it has in `traffic`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub says: BTreeMap<&'static str, String>,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// A Service, or a host.
    pub name: String,
    /// Which variant that is.
    pub variant: Variant,
    /// Its weight, as it is written.
    pub weight: u64,
    /// Its share of the rule's requests, in percent.
    pub percent: f64,
}

/// Annotations of a Service that Contour reads, with the name of the same in `traffic`.
const LIMITS: [(&str, &str); 2] = [
    ("projectcontour.io/max-connections", "maxConnections"),
    ("projectcontour.io/max-pending-requests", "maxPendingRequests"),
];

/// What an object says; nothing where it says nothing of requests. `candidates` are the Services of candidates.
pub(super) fn read(object: &Value, candidates: &BTreeSet<ObjectId>) -> Option<Policy> {
    let id = ObjectId::of(object);
    let spec = &object["spec"];
    let mut policy =
        Policy { object: id.to_string(), hosts: Vec::new(), says: BTreeMap::new(), rules: Vec::new() };
    let of = |host: &str| {
        let name = host.split('.').next().unwrap_or(host);
        let is = |service: &ObjectId| service.namespace == id.namespace && service.name == name;
        if candidates.iter().any(is) { Variant::Candidate } else { Variant::Stable }
    };
    match id.kind.as_str() {
        "HTTPRoute" | "GRPCRoute" => {
            policy.hosts = texts(&spec["hostnames"]);
            policy.rules = items(spec, "rules").map(|rule| gateway(rule, &of)).collect();
        }
        "VirtualService" => {
            policy.hosts = texts(&spec["hosts"]);
            let kinds = ["http", "tls", "tcp"];
            policy.rules =
                kinds.iter().flat_map(|kind| items(spec, kind)).map(|rule| istio(rule, &of)).collect();
        }
        "HTTPProxy" => {
            policy.hosts = spec["virtualhost"]["fqdn"].as_str().map(str::to_owned).into_iter().collect();
            policy.rules = items(spec, "routes").map(|rule| contour(rule, &of)).collect();
        }
        "DestinationRule" => {
            policy.hosts = spec["host"].as_str().map(str::to_owned).into_iter().collect();
            policy.says = destination(&spec["trafficPolicy"]);
        }
        "PeerAuthentication" => add(&mut policy.says, "mtls", &spec["mtls"]["mode"]),
        _ => {
            for (annotation, name) in LIMITS {
                add(&mut policy.says, name, &object["metadata"]["annotations"][annotation]);
            }
            add(&mut policy.says, "sessionAffinity", &spec["sessionAffinity"]);
            policy.says.retain(|_, value| value != "None");
        }
    }
    (!policy.says.is_empty() || !policy.rules.is_empty()).then_some(policy)
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Notes a text, a number or a list of them, where there is one.
fn add(says: &mut BTreeMap<&'static str, String>, name: &'static str, value: &Value) {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => {
            let all: Vec<String> = items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                .collect();
            all.join(",")
        }
        _ => return,
    };
    if !text.is_empty() {
        says.insert(name, text);
    }
}

/// Backends with their weights as shares.
fn shares(all: Vec<(String, Variant, u64)>) -> Vec<Backend> {
    let sum: u64 = all.iter().map(|(_, _, weight)| weight).sum();
    let share = |weight: u64| if sum == 0 { 0.0 } else { weight as f64 / sum as f64 * 100.0 };
    all.into_iter()
        .map(|(name, variant, weight)| Backend {
            name,
            variant,
            weight,
            percent: (share(weight) * 10.0).round() / 10.0,
        })
        .collect()
}

fn named(name: &Value, port: &Value) -> String {
    let name = name.as_str().unwrap_or_default();
    port.as_u64().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

fn gateway(rule: &Value, of: &impl Fn(&str) -> Variant) -> Rule {
    let mut says = BTreeMap::new();
    add(&mut says, "timeout", &rule["timeouts"]["request"]);
    add(&mut says, "perTryTimeout", &rule["timeouts"]["backendRequest"]);
    add(&mut says, "retries", &rule["retry"]["attempts"]);
    add(&mut says, "retryOn", &rule["retry"]["codes"]);
    add(&mut says, "sessionPersistence", &rule["sessionPersistence"]["type"]);
    let backend = |backend: &Value| {
        let variant = of(backend["name"].as_str().unwrap_or_default());
        (named(&backend["name"], &backend["port"]), variant, backend["weight"].as_u64().unwrap_or(1))
    };
    let each = items(rule, "matches").map(|wanted| {
        let mut words = Vec::new();
        let path = &wanted["path"];
        if let Some(value) = path["value"].as_str() {
            words.push(if path["type"] == "Exact" { format!("= {value}") } else { value.to_owned() });
        }
        words.extend(wanted["method"].as_str().map(str::to_owned));
        for header in items(wanted, "headers") {
            let text = |field: &str| header[field].as_str().unwrap_or_default();
            words.push(format!("header {}: {}", text("name"), text("value")));
        }
        words.join(" ")
    });
    let matches: Vec<String> = each.filter(|words| !words.is_empty()).collect();
    Rule {
        matches: matches.join(", or "),
        backends: shares(items(rule, "backendRefs").map(backend).collect()),
        says,
    }
}

fn istio(rule: &Value, of: &impl Fn(&str) -> Variant) -> Rule {
    let mut says = BTreeMap::new();
    add(&mut says, "timeout", &rule["timeout"]);
    add(&mut says, "retries", &rule["retries"]["attempts"]);
    add(&mut says, "perTryTimeout", &rule["retries"]["perTryTimeout"]);
    add(&mut says, "retryOn", &rule["retries"]["retryOn"]);
    let routes: Vec<&Value> = items(rule, "route").collect();
    // One destination has everything; among several, what is left out is 0.
    let otherwise = u64::from(routes.len() == 1);
    let backend = |route: &&Value| {
        let destination = &route["destination"];
        let variant = of(destination["host"].as_str().unwrap_or_default());
        let name = named(&destination["host"], &destination["port"]["number"]);
        (name, variant, route["weight"].as_u64().unwrap_or(otherwise))
    };
    let each = items(rule, "match").map(|wanted| {
        let mut words = Vec::new();
        for (name, value) in wanted["uri"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            words.push(if name == "exact" { format!("= {value}") } else { value.to_owned() });
        }
        for (name, value) in wanted["headers"].as_object().into_iter().flatten() {
            let value = value.as_object().and_then(|all| all.values().next()?.as_str()).unwrap_or_default();
            words.push(format!("header {name}: {value}"));
        }
        words.extend(wanted["port"].as_u64().map(|port| format!("port {port}")));
        words.join(" ")
    });
    let matches: Vec<String> = each.filter(|words| !words.is_empty()).collect();
    Rule { matches: matches.join(", or "), backends: shares(routes.iter().map(backend).collect()), says }
}

fn contour(rule: &Value, of: &impl Fn(&str) -> Variant) -> Rule {
    let mut says = BTreeMap::new();
    add(&mut says, "timeout", &rule["timeoutPolicy"]["response"]);
    add(&mut says, "retries", &rule["retryPolicy"]["count"]);
    add(&mut says, "perTryTimeout", &rule["retryPolicy"]["perTryTimeout"]);
    add(&mut says, "retryOn", &rule["retryPolicy"]["retryOn"]);
    let balancer = &rule["loadBalancerPolicy"];
    add(&mut says, "loadBalancer", &balancer["strategy"]);
    for policy in items(balancer, "requestHashPolicies") {
        add(&mut says, "consistentHash", &policy["headerHashOptions"]["headerName"]);
    }
    let check = &rule["healthCheckPolicy"];
    if let Some(path) = check["path"].as_str() {
        let number = |field: &str, otherwise: u64| match check[field].as_u64() {
            None | Some(0) => otherwise,
            Some(number) => number,
        };
        // What is left out is Contour's default.
        let told = format!(
            "{path} each {}s, passed over after {} failures, back after {}",
            number("intervalSeconds", 10),
            number("unhealthyThresholdCount", 3),
            number("healthyThresholdCount", 2)
        );
        says.insert("healthCheck", told);
    }
    let services: Vec<&Value> = items(rule, "services").collect();
    // Without any weight all get the same.
    let equal = services.iter().all(|service| service["weight"].as_u64().unwrap_or(0) == 0);
    let backend = |service: &&Value| {
        let variant = of(service["name"].as_str().unwrap_or_default());
        let weight = if equal { 1 } else { service["weight"].as_u64().unwrap_or(0) };
        (named(&service["name"], &service["port"]), variant, weight)
    };
    let each = items(rule, "conditions").map(|condition| {
        let text = |field: &str| condition[field].as_str();
        match (text("prefix"), text("exact"), condition["header"]["name"].as_str()) {
            (Some(prefix), _, _) => prefix.to_owned(),
            (_, Some(exact), _) => format!("= {exact}"),
            (_, _, Some(header)) => format!("header {header}"),
            _ => String::new(),
        }
    });
    let matches: Vec<String> = each.filter(|words| !words.is_empty()).collect();
    Rule { matches: matches.join(" "), backends: shares(services.iter().map(backend).collect()), says }
}

fn destination(policy: &Value) -> BTreeMap<&'static str, String> {
    let mut says = BTreeMap::new();
    add(&mut says, "loadBalancer", &policy["loadBalancer"]["simple"]);
    add(&mut says, "consistentHash", &policy["loadBalancer"]["consistentHash"]["httpHeaderName"]);
    let pool = &policy["connectionPool"];
    add(&mut says, "maxConnections", &pool["tcp"]["maxConnections"]);
    add(&mut says, "maxPendingRequests", &pool["http"]["http1MaxPendingRequests"]);
    add(&mut says, "maxRequestsPerConnection", &pool["http"]["maxRequestsPerConnection"]);
    let ejects = &policy["outlierDetection"];
    for name in ["consecutive5xxErrors", "interval", "baseEjectionTime", "maxEjectionPercent"] {
        add(&mut says, name, &ejects[name]);
    }
    add(&mut says, "tls", &policy["tls"]["mode"]);
    says
}
