//! What the other promises about traffic stand on, tried without a daemon: on the real node, requests follow the weights
//! of a route, a change of weights loses none of them, and Prometheus tells which backend fails how often.
//!
//! Envoy draws the backend of each request by itself, so of `n` requests the count of one backend with share `p` is
//! binomial, with a deviation of `sqrt(n p (1 - p))`. A count is taken as agreeing within four deviations: of 16,000
//! right counts one is called wrong. A share of nothing or everything must be exact.

use crate::support::cluster::{Space, wait_until};
use crate::support::daemon::LIMIT;
use crate::support::load::{Counts, Load};
use crate::support::plane::{self, Plane, Told, say, server, service};
use serde_json::{Value, json};

/// A namespace with two servers and a route between them.
struct Split {
    plane: &'static Plane,
    space: Space,
    host: String,
    kind: &'static str,
    backends: [String; 2],
    _told: Told,
}

impl Split {
    async fn new(
        plane: &'static Plane,
        test: &str,
        kind: &'static str,
        protocol: &str,
        tags: [&str; 2],
    ) -> Self {
        let space = plane.space(test).await;
        let told = plane.told(&space);
        let backends = tags.map(|tag| format!("web-{tag}"));
        for (name, tag) in backends.iter().zip(tags) {
            space.send("POST", &space.path("apps/v1", "deployments"), &server(name, tag, 2)).await;
            space.send("POST", &space.path("v1", "services"), &service(name, protocol)).await;
        }
        for name in &backends {
            wait_until(&format!("the pods of {name} are ready"), LIMIT, || async {
                let path = format!("{}/{name}", space.path("apps/v1", "deployments"));
                let status = space.send("GET", &path, &Value::Null).await["status"].clone();
                if status["availableReplicas"] == 2 { Ok(()) } else { Err(status.to_string()) }
            })
            .await;
        }
        let host = format!("{}.test", space.name);
        Split { plane, space, host, kind, backends, _told: told }
    }

    /// Gives the two these weights, and waits until Envoy has them: a header that the route adds comes with them, and
    /// Envoy has one worker, so that no later request is routed by what was before.
    async fn weigh(&self, weights: [u32; 2]) {
        let stamp = format!("{}-{}", weights[0], weights[1]);
        let refs: Vec<Value> = self
            .backends
            .iter()
            .zip(weights)
            .map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}))
            .collect();
        let filter = json!({
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [{"name": "x-weights", "value": stamp}]},
        });
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": self.kind,
            "metadata": {"name": "web"},
            "spec": {
                "parentRefs": [self.plane.parent],
                "hostnames": [self.host],
                "rules": [{"backendRefs": refs, "filters": [filter]}],
            },
        });
        let plural = if self.kind == "GRPCRoute" { "grpcroutes" } else { "httproutes" };
        let path = format!(
            "{}/web?fieldManager=test&force=true",
            self.space.path("gateway.networking.k8s.io/v1", plural)
        );
        self.space.send("APPLY", &path, &route).await;
        wait_until(&format!("Envoy has the weights {stamp}"), LIMIT, || async {
            let (status, headers) = self.plane.get(&self.host, "/any.Service/Any").await?;
            // Without an endpoint known to Envoy, the header comes with a 503.
            match headers.get("x-weights") {
                Some(found) if *found == stamp && status != 503 => Ok(()),
                _ => Err(format!("{status} {headers:?}")),
            }
        })
        .await;
    }

    /// Sends so many requests at least, and holds their shares against the weights.
    async fn measure(&self, requests: u64, weights: [u32; 2], more: &[&str]) {
        let load = Load::start(self.plane, &self.host, 300, more);
        load.wait("enough requests are answered", |c| c.requests >= requests).await;
        let counts = load.stop();
        assert_eq!(counts.failed, 0, "{counts:?}");
        let p = f64::from(weights[1]) / f64::from(weights[0] + weights[1]);
        let found = counts.of(self.version(1));
        assert_eq!(counts.of(self.version(0)) + found, counts.requests, "{counts:?}");
        agrees(&format!("the share of {}", self.backends[1]), found, counts.requests, p);
    }

    fn version(&self, backend: usize) -> &str {
        self.backends[backend].strip_prefix("web-").unwrap()
    }

    /// The name of a backend in Envoy's metrics.
    fn cluster(&self, backend: usize) -> String {
        format!("{}_{}_80", self.space.name, self.backends[backend])
    }
}

/// Fails unless `found` of `n` agrees with the share `p` within four deviations.
pub fn agrees(what: &str, found: u64, n: u64, p: f64) {
    let (found, n) = (found as f64, n as f64);
    let allowed = 4.0 * (n * p * (1.0 - p)).sqrt();
    say(&format!("{what}: asked {:.1} %, measured {:.1} % of {n}", p * 100.0, found / n * 100.0));
    assert!((found - n * p).abs() <= allowed, "{what}: {found} of {n} is not {p} within {allowed:.0}");
}

#[tokio::test]
async fn measured_shares_are_the_asked_ones_and_no_change_loses_a_request() {
    let Some(plane) = plane::shared("traffic_follows_the_weights::measured_shares") else { return };
    let split = Split::new(plane, "weights", "HTTPRoute", "http", ["v1", "v2"]).await;
    split.weigh([100, 0]).await;
    let all_the_time = Load::start(plane, &split.host, 50, &[]);
    for weights in [[90, 10], [50, 50], [0, 100]] {
        split.weigh(weights).await;
        split.measure(1500, weights, &[]).await;
    }
    // Quickly to and fro, as when a rollout is stopped and begun again.
    for _ in 0..10 {
        split.weigh([100, 0]).await;
        split.weigh([90, 10]).await;
    }
    let counts = all_the_time.stop();
    assert_eq!(counts.failed, 0, "{counts:?}");
    assert!(counts.requests > 500, "{counts:?}");
    assert_eq!(counts.of("v1") + counts.of("v2"), counts.requests, "{counts:?}");
}

#[tokio::test]
async fn grpc_calls_follow_them_too() {
    let Some(plane) = plane::shared("traffic_follows_the_weights::grpc_calls") else { return };
    let protocol = "kubernetes.io/h2c";
    let split = Split::new(plane, "grpc", "GRPCRoute", protocol, ["v1", "v2"]).await;
    split.weigh([80, 20]).await;
    split.measure(1000, [80, 20], &["--grpc"]).await;
}

/// What Prometheus says of the last ten seconds of a backend, asked until these hold enough requests: how many there
/// were, and the share of those that did not fail.
async fn rate(plane: &Plane, counter: &str, failed: &str) -> (u64, f64) {
    let sum = |what: &str, of: &str| {
        format!("label_replace(sum(increase({of}[10s])), \"what\", \"{what}\", \"\", \"\")")
    };
    // In one query, so that both are about the same ten seconds.
    let both = format!("{} or {}", sum("all", counter), sum("failed", failed));
    wait_until(&format!("Prometheus has enough of {counter}"), LIMIT, || async {
        let found = plane.query(&both).await?;
        let value = |what: &str| found.iter().find(|(labels, _)| labels["what"] == what).map(|(_, v)| *v);
        let n = value("all").filter(|n| *n >= 400.0).ok_or_else(|| format!("{found:?}"))?;
        Ok((n as u64, value("failed").unwrap_or(0.0) / n))
    })
    .await
}

#[tokio::test]
async fn prometheus_tells_which_backend_fails_and_how_often() {
    let Some(plane) = plane::shared("traffic_follows_the_weights::prometheus_tells") else { return };
    // Of the image `errors` half of the answers are a 500.
    let split = Split::new(plane, "failing", "HTTPRoute", "http", ["v1", "errors"]).await;
    split.weigh([50, 50]).await;
    let load = Load::start(plane, &split.host, 200, &[]);
    // Longer than the window and a scrape: `increase` does not count what a series had when it was first seen.
    load.wait("the window is full", |c| c.requests >= 200 * 14).await;
    for (backend, share) in [(0, 0.0), (1, 0.5)] {
        // As the proxy sees it, and as the server itself does.
        let by_proxy =
            format!("envoy_cluster_upstream_rq_xx{{envoy_cluster_name=\"{}\"", split.cluster(backend));
        let service = &split.backends[backend];
        let by_server =
            format!("http_requests_total{{namespace=\"{}\",service=\"{service}\"", split.space.name);
        for (counter, failed) in [
            (format!("{by_proxy}}}"), format!("{by_proxy},envoy_response_code_class=\"5\"}}")),
            (format!("{by_server}}}"), format!("{by_server},code=~\"5..\"}}")),
        ] {
            let (n, measured) = rate(plane, &counter, &failed).await;
            agrees(&counter, (measured * n as f64).round() as u64, n, share);
        }
    }
    let counts: Counts = load.stop();
    let failing = counts.of("errors");
    agrees("requests that failed", counts.failed, failing, 0.5);
    assert_eq!(counts.counts.get("500 v1"), None, "{counts:?}");
}
