//! Contour's HTTPProxy: a way in, and the traffic policy in it. As of Contour 1.33 it has no outlier detection: what comes nearest
//! are health checks that Envoy makes by itself. What it cannot do is said, never dropped.

use super::notice::cannot;
use super::retries::Named;
use super::{App, Port, exposure, set};
use crate::api::Duration;
use crate::api::application::{CircuitBreaker, LoadBalancer, Retries, Traffic, TrafficRouter};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

/// How often Contour has pods checked where nothing else is said.
const INTERVAL_SECONDS: u64 = 10;

/// The HTTPProxy, where Contour is the way in.
pub(super) fn proxy(app: &App) -> Option<Value> {
    let expose = app.spec.expose.as_ref()?;
    let (via, port) = (expose.http_proxy.as_ref()?, exposure::port(app)?);
    let mut route = json!({"services": [{"name": app.name, "port": port.service}]});
    if let Some(traffic) = &app.spec.traffic {
        let timeout = traffic.timeout.map(|time| json!({"response": time.to_string()}));
        set(&mut route, "timeoutPolicy", timeout);
        set(&mut route, "retryPolicy", traffic.retries.as_ref().map(retry_policy));
        set(&mut route, "loadBalancerPolicy", balancer(traffic));
        set(&mut route, "healthCheckPolicy", health_check(app, port).ok().flatten());
    }
    // A prefix is one of letters, not of segments: /api would be that of /apis, too.
    let conditions = match expose.path.trim_end_matches('/') {
        "" => vec![json!({"prefix": "/"})],
        path => vec![json!({"exact": path}), json!({"prefix": format!("{path}/")})],
    };
    let routes: Vec<Value> = conditions
        .into_iter()
        .map(|condition| {
            let mut route = route.clone();
            route["conditions"] = json!([condition]);
            route
        })
        .collect();
    let mut host = json!({"fqdn": expose.host});
    set(&mut host, "tls", via.tls_secret.as_ref().map(|secret| json!({"secretName": secret})));
    let mut object = app.object("projectcontour.io/v1", "HTTPProxy", &app.name);
    object["spec"] = json!({"virtualhost": host, "routes": routes});
    set(&mut object["spec"], "ingressClassName", via.class_name.clone().map(Value::from));
    Some(object)
}

/// The limits that Contour reads from the Service.
pub(super) fn annotations(app: &App) -> Option<Value> {
    app.spec.expose.as_ref()?.http_proxy.as_ref()?;
    let breaker = app.spec.traffic.as_ref()?.circuit_breaker.as_ref()?;
    let limits = [
        ("projectcontour.io/max-connections", breaker.max_connections),
        ("projectcontour.io/max-pending-requests", breaker.max_pending_requests),
    ];
    let all: Map<String, Value> = limits
        .into_iter()
        .filter_map(|(name, limit)| Some((name.to_owned(), limit?.to_string().into())))
        .collect();
    (!all.is_empty()).then(|| all.into())
}

/// A `retryOn` in the words of an HTTPProxy, which takes any code.
fn by_proxy(asked: &Retries) -> Named<'_> {
    Named::of(asked, |_| true)
}

fn retry_policy(asked: &Retries) -> Value {
    // 0 would mean Contour's default, and so would no words: requests would be sent again after what nobody named. A limit of the only
    // try would be that of the whole.
    let named = by_proxy(asked);
    if asked.attempts == 0 || named.is_all_unknown() {
        return json!({"count": -1});
    }
    let mut policy = json!({"count": asked.attempts});
    set(&mut policy, "perTryTimeout", asked.per_try_timeout.map(|time| time.to_string().into()));
    let Named { mut words, codes, .. } = named;
    if !codes.is_empty() && !words.contains(&"retriable-status-codes") {
        words.push("retriable-status-codes");
    }
    set(&mut policy, "retryOn", (!words.is_empty()).then(|| json!(words)));
    set(&mut policy, "retriableStatusCodes", (!codes.is_empty()).then(|| json!(codes)));
    policy
}

fn balancer(traffic: &Traffic) -> Option<Value> {
    Some(match traffic.load_balancer? {
        LoadBalancer::RoundRobin => json!({"strategy": "RoundRobin"}),
        LoadBalancer::Random => json!({"strategy": "Random"}),
        LoadBalancer::LeastRequest => json!({"strategy": "WeightedLeastRequest"}),
        LoadBalancer::ConsistentHash => {
            let header = &traffic.consistent_hash.as_ref()?.header;
            let by = json!({"headerHashOptions": {"headerName": header}, "terminal": true});
            json!({"strategy": "RequestHash", "requestHashPolicies": [by]})
        }
    })
}

fn seconds(time: Duration) -> u64 {
    time.0.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1)
}

/// The checks by which a pod is passed over: those of `healthCheck.readiness`, as often as the circuit breaker says. `None` where
/// none are asked for; an error is why there can be none.
fn health_check(app: &App, port: &Port) -> Result<Option<Value>, String> {
    let breaker = app.spec.traffic.as_ref().and_then(|traffic| traffic.circuit_breaker.as_ref());
    let Some((breaker, failures)) = breaker.and_then(|b| Some((b, b.consecutive_5xx_errors?))) else {
        return Ok(None);
    };
    let probe = app.spec.health_check.as_ref().and_then(|checks| checks.readiness.as_ref());
    let Some((probe, http)) = probe.and_then(|probe| Some((probe, probe.http_get.as_ref()?))) else {
        return Err("the checks would be those of healthCheck.readiness.httpGet, which is not there".into());
    };
    let same = match &http.port {
        IntOrString::Int(number) => *number == port.number,
        IntOrString::String(name) => *name == port.name,
    };
    if !same {
        return Err(format!(
            "healthCheck.readiness.httpGet asks another port than {}, which is the one that requests go to",
            port.name
        ));
    }
    let headers = http.http_headers.as_deref().unwrap_or_default();
    if http.scheme.as_deref() == Some("HTTPS") || headers.iter().any(|h| !h.name.eq_ignore_ascii_case("host"))
    {
        return Err(
            "its checks speak HTTP without headers, and healthCheck.readiness.httpGet asks for more".into()
        );
    }
    let interval = breaker.interval.map_or(INTERVAL_SECONDS, seconds);
    let host = headers.first().map(|header| header.value.clone()).or_else(|| http.host.clone());
    let mut check = json!({
        "path": http.path.as_deref().unwrap_or("/"),
        "intervalSeconds": interval,
        "unhealthyThresholdCount": failures,
        // As the kubelet takes it.
        "expectedStatuses": [{"start": 200, "end": 400}],
    });
    set(&mut check, "host", host.map(Value::from));
    set(&mut check, "timeoutSeconds", probe.timeout_seconds.map(Value::from));
    // Well for so long, and it is back.
    let back = breaker.base_ejection_time.map(|time| seconds(time).div_ceil(interval));
    set(&mut check, "healthyThresholdCount", back.map(Value::from));
    Ok(Some(check))
}

/// What an HTTPProxy cannot do of what is asked for, or does otherwise.
pub(super) fn left_out(app: &App) -> Vec<String> {
    let (Some(traffic), Some(port)) = (&app.spec.traffic, exposure::port(app)) else { return Vec::new() };
    let mut notices = Vec::new();
    let breaker = traffic.circuit_breaker.clone().unwrap_or_default();
    let ejects = ejection(&breaker);
    match health_check(app, port) {
        Ok(Some(check)) => {
            if breaker.max_ejection_percent.is_some() {
                notices.push(cannot(
                    &["circuitBreaker.maxEjectionPercent"],
                    "Contour has every pod passed over that fails its checks, and answers 503 where no other is left",
                ));
            }
            let path = check["path"].as_str().unwrap_or_default();
            notices.push(format!(
                "spec.traffic.circuitBreaker.consecutive5xxErrors counts failed checks of {path} and not requests: an HTTPProxy has \
                 no outlier detection"
            ));
        }
        Ok(None) if ejects.is_empty() => {}
        Ok(None) => {
            let why = "without consecutive5xxErrors there is nothing that a pod would be passed over for";
            notices.push(cannot(&ejects, why));
        }
        Err(why) => {
            let why = format!("an HTTPProxy has no outlier detection but health checks, and {why}");
            notices.push(cannot(&ejects, &why));
        }
    }
    if breaker.max_requests_per_connection.is_some() {
        notices.push(cannot(
            &["circuitBreaker.maxRequestsPerConnection"],
            "Contour has it for all that it serves (cluster.max-requests-per-connection in its configuration), not for one HTTPProxy",
        ));
    }
    // Beside a mesh it says what it can; what only the mesh can is not asked of it.
    if traffic.mtls.is_some() && traffic.router != TrafficRouter::Istio {
        notices.push(cannot(&["mtls"], "it is up to a mesh; router: Istio has it"));
    }
    let again = traffic.retries.as_ref();
    notices.extend(again.and_then(|asked| by_proxy(asked).left_out(asked, "an HTTPProxy")));
    notices
}

/// The fields that say when a pod is passed over, as far as they are there.
fn ejection(breaker: &CircuitBreaker) -> Vec<&'static str> {
    let all = [
        ("circuitBreaker.consecutive5xxErrors", breaker.consecutive_5xx_errors.is_some()),
        ("circuitBreaker.interval", breaker.interval.is_some()),
        ("circuitBreaker.baseEjectionTime", breaker.base_ejection_time.is_some()),
        ("circuitBreaker.maxEjectionPercent", breaker.max_ejection_percent.is_some()),
    ];
    all.into_iter().filter(|(_, is)| *is).map(|(field, _)| field).collect()
}
