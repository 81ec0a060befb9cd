//! The traffic policy of an Application in the objects of its router. What the router cannot do is said, never dropped.

use super::notice::{NOT_CARRIED_OUT, Notice, cannot};
use super::{App, contour, retries, set};
use crate::api::application::{CircuitBreaker, GatewayChannel, LoadBalancer, Mtls, Traffic, TrafficRouter};
use serde_json::{Map, Value, json};

const NETWORKING: &str = "networking.istio.io/v1";

/// The policy, where Istio carries it out and there are ports that it could be for.
fn with_istio<'a>(app: &'a App) -> Option<&'a Traffic> {
    let traffic = app.spec.traffic.as_ref()?;
    (traffic.router == TrafficRouter::Istio && !app.ports.is_empty()).then_some(traffic)
}

/// Fields by name, without those that are not there; nothing when none is.
fn fields(all: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Option<Value> {
    let map: Map<String, Value> =
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    (!map.is_empty()).then(|| map.into())
}

/// How pods are chosen, how much each gets, and when one is passed over.
pub(super) fn destination_rule(app: &App) -> Option<Value> {
    let traffic = with_istio(app)?;
    let simple = |name: &str| Some(json!({"simple": name}));
    let balancer = traffic.load_balancer.and_then(|balancer| match balancer {
        LoadBalancer::RoundRobin => simple("ROUND_ROBIN"),
        LoadBalancer::Random => simple("RANDOM"),
        LoadBalancer::LeastRequest => simple("LEAST_REQUEST"),
        LoadBalancer::ConsistentHash => {
            let header = &traffic.consistent_hash.as_ref()?.header;
            Some(json!({"consistentHash": {"httpHeaderName": header}}))
        }
    });
    let breaker = traffic.circuit_breaker.as_ref();
    // Clients of the mesh do as the pods ask by themselves; it is written so that others' rules do not stand in the way.
    let tls = traffic.mtls.filter(|mtls| *mtls == Mtls::Strict).map(|_| json!({"mode": "ISTIO_MUTUAL"}));
    let policy = fields([
        ("loadBalancer", balancer),
        ("connectionPool", breaker.and_then(connection_pool)),
        ("outlierDetection", breaker.and_then(outlier_detection)),
        ("tls", tls),
    ])?;
    let mut object = app.object(NETWORKING, "DestinationRule", &app.name);
    object["spec"] = json!({"host": app.name, "trafficPolicy": policy});
    Some(object)
}

fn connection_pool(breaker: &CircuitBreaker) -> Option<Value> {
    let tcp = fields([("maxConnections", breaker.max_connections.map(Value::from))]);
    let http = fields([
        ("http1MaxPendingRequests", breaker.max_pending_requests.map(Value::from)),
        ("maxRequestsPerConnection", breaker.max_requests_per_connection.map(Value::from)),
    ]);
    fields([("tcp", tcp), ("http", http)])
}

fn outlier_detection(breaker: &CircuitBreaker) -> Option<Value> {
    fields([
        ("consecutive5xxErrors", breaker.consecutive_5xx_errors.map(Value::from)),
        ("interval", breaker.interval.map(|time| time.to_string().into())),
        ("baseEjectionTime", breaker.base_ejection_time.map(|time| time.to_string().into())),
        ("maxEjectionPercent", breaker.max_ejection_percent.map(Value::from)),
    ])
}

/// How long a request may take, and when it is sent again.
pub(super) fn virtual_service(app: &App) -> Option<Value> {
    let traffic = with_istio(app)?;
    let retries = traffic.retries.as_ref().map(retries::mesh_retries);
    let timeout = traffic.timeout.map(|time| Value::from(time.to_string()));
    if retries.is_none() && timeout.is_none() {
        return None;
    }
    let ports: Vec<i32> = app.ports.iter().filter(|p| p.protocol == "TCP").map(|p| p.service).collect();
    let rules = ports.iter().map(|port| {
        let mut rule = json!({"route": [{"destination": {"host": app.name}}]});
        // Of several it has to be said which is meant.
        if app.ports.len() > 1 {
            rule["match"] = json!([{"port": port}]);
            rule["route"][0]["destination"]["port"] = json!({"number": port});
        }
        set(&mut rule, "timeout", timeout.clone());
        set(&mut rule, "retries", retries.clone());
        rule
    });
    let rules: Vec<Value> = rules.collect();
    let mut object = app.object(NETWORKING, "VirtualService", &app.name);
    object["spec"] = json!({"hosts": [app.name], "http": rules});
    (!ports.is_empty()).then_some(object)
}

/// Whether pods refuse who does not prove who he is.
pub(super) fn peer_authentication(app: &App) -> Option<Value> {
    let mode = match with_istio(app)?.mtls? {
        Mtls::Strict => "STRICT",
        Mtls::Permissive => "PERMISSIVE",
    };
    let mut object = app.object("security.istio.io/v1", "PeerAuthentication", &app.name);
    object["spec"] = json!({"selector": {"matchLabels": app.selector()}, "mtls": {"mode": mode}});
    Some(object)
}

/// The time limits of an HTTPRoute's rule. A Gateway obeys its route, not the mesh, so they stand here with Istio too. That of each
/// try only beside more than one: where there is no `retry`, it would be that of the whole.
pub(super) fn timeouts(app: &App) -> Option<Value> {
    let traffic = app.spec.traffic.as_ref()?;
    let retries = traffic.retries.as_ref().filter(|_| retries::route_retry(app).is_some());
    let each = retries.and_then(|retries| retries.per_try_timeout);
    fields([
        ("request", traffic.timeout.map(|time| time.to_string().into())),
        ("backendRequest", each.map(|time| time.to_string().into())),
    ])
}

/// What to do about retries that an HTTPRoute of the standard channel has no field for.
const TO_RETRY: &str = "; for retries set expose.gateway.channel: Experimental, where the cluster has the HTTPRoute of the experimental \
                        channel and the gateway's controller carries out its retry";

/// What the router cannot do.
pub(super) fn notices(app: &App) -> Vec<Notice> {
    let Some(traffic) = &app.spec.traffic else { return Vec::new() };
    let expose = app.spec.expose.as_ref();
    let gateway = expose.and_then(|expose| expose.gateway.as_ref());
    let proxy = expose.is_some_and(|expose| expose.http_proxy.is_some());
    let fields = |times: bool, repeats: bool, rest: bool| -> Vec<&'static str> {
        let all = [
            ("loadBalancer", rest && traffic.load_balancer.is_some()),
            ("circuitBreaker", rest && traffic.circuit_breaker.is_some()),
            ("timeout", times && traffic.timeout.is_some()),
            ("retries", repeats && traffic.retries.is_some()),
            ("mtls", rest && traffic.mtls.is_some()),
        ];
        all.into_iter().filter(|(_, is)| *is).map(|(field, _)| field).collect()
    };
    let told = |fields: Vec<&str>, why: &str| {
        (!fields.is_empty()).then(|| Notice::new(NOT_CARRIED_OUT, cannot(&fields, why)))
    };
    let mesh = traffic.router == TrafficRouter::Istio;
    if app.ports.is_empty() {
        return told(fields(true, true, true), "there are no ports, so nothing sends requests")
            .into_iter()
            .collect();
    }
    if mesh && app.ports.iter().all(|port| port.protocol != "TCP") {
        let why = "there are no ports for TCP, and proxies of a mesh pass on nothing else";
        return told(fields(true, true, true), why).into_iter().collect();
    }
    let of_mesh = traffic.retries.as_ref().filter(|_| mesh).and_then(retries::left_out_of_the_mesh);
    let in_the_mesh = match of_mesh {
        Some(_) => "for the mesh that is told by itself",
        None => "in the mesh it is as asked for",
    };
    let of_mesh = of_mesh.map(|text| Notice::new(NOT_CARRIED_OUT, text));
    let through = |way: &str| format!("for requests that come by the {way}");
    // What a way in cannot do. One that stands beside a mesh leaves out nothing of what the mesh does.
    let by = |way: &str, text: String| {
        let text = match mesh {
            true => format!("{text} ({}; {in_the_mesh})", through(way)),
            false => text,
        };
        Notice::new(NOT_CARRIED_OUT, text)
    };
    if proxy {
        let left_out = contour::left_out(app).into_iter();
        return left_out.map(|text| by("HTTPProxy", text)).chain(of_mesh).collect();
    }
    // An HTTPRoute says what it can whatever router is named.
    let (times, repeats) =
        (gateway.is_none(), gateway.is_none_or(|way| way.channel == GatewayChannel::Standard));
    let to_retry = match traffic.retries.as_ref().filter(|_| gateway.is_some() && repeats) {
        // Another channel cannot say 0 either.
        Some(retries) if retries.attempts > 0 => TO_RETRY,
        _ => "",
    };
    let router = match (traffic.router, gateway) {
        (TrafficRouter::Istio, None) if expose.is_some() => told(
            fields(true, true, false),
            &format!("{}, which has no fields for it; {in_the_mesh}", through("Ingress")),
        ),
        (TrafficRouter::Istio, None) => None,
        (TrafficRouter::Istio, Some(_)) => told(
            fields(false, repeats, false),
            &format!(
                "{}: its route has more than one try, with a time limit for each, only in the experimental fields of the API; \
                 {in_the_mesh}{to_retry}",
                through("Gateway")
            ),
        ),
        (TrafficRouter::HTTPProxy, _) => told(
            fields(times, repeats, true),
            &format!("there is no expose.httpProxy, so no HTTPProxy that could{to_retry}"),
        ),
        (TrafficRouter::GatewayAPI, Some(_)) => {
            let but = if repeats { "a time limit of the whole" } else { "time limits and retries" };
            told(
                fields(false, repeats, true),
                &format!("an HTTPRoute has no fields for it but {but}; router: Istio has{to_retry}"),
            )
        }
        (TrafficRouter::GatewayAPI, None) => told(
            fields(true, true, true),
            "there is no expose.gateway, so no route that could; use router: Istio, or expose it by a Gateway",
        ),
    };
    let route = retries::left_out(app).map(|(fields, why)| by("Gateway", cannot(&fields, &why)));
    router.into_iter().chain(route).chain(of_mesh).collect()
}
