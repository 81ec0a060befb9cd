//! On a real node, the `traffic` of an Application that Contour lets in is in effect: real requests through a real Envoy are spread,
//! cut off, sent again and kept from a pod that is ill, as its HTTPProxy says.

use crate::support::cluster::{Audited, wait_until};
use crate::support::daemon::{LIMIT, World};
use crate::support::load::{Counts, Load};
use crate::support::plane::{self, Plane, say};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PROXIES: (&str, &str) = ("projectcontour.io/v1", "httpproxies");

/// An Application of two pods behind Contour.
struct Steered {
    plane: &'static Plane,
    world: World,
    host: String,
}

impl Steered {
    async fn new(plane: &'static Plane, test: &str, traffic: Value) -> Self {
        let mut world = World::stopped_in(plane.cluster, test).await;
        world.start();
        let host = format!("{}.test", world.space.name);
        let steered = Steered { plane, world, host };
        steered.asks(traffic).await;
        steered.world.wait_application_runs("web", "ok").await;
        let pods = |answers: &[(u16, String)]| {
            answers.iter().all(|(status, _)| *status == 200)
                && answers.iter().map(|(_, pod)| pod).collect::<BTreeSet<_>>().len() == 2
        };
        steered.answers("both pods answer", 20, pods).await;
        steered
    }

    /// Writes the Application with this policy.
    async fn asks(&self, traffic: Value) {
        // What the kubelet sees of a pod that is ill must not take it out: that is left to Envoy.
        let readiness = json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 10000});
        let more = json!({
            "healthCheck": {"readiness": readiness},
            "expose": {"host": self.host, "httpProxy": {}},
            "traffic": traffic,
        });
        self.world.application("web", "ok", more).await;
    }

    /// Waits until the HTTPProxy is as wanted, and Contour has said of that that it is valid. Envoy learns of it a moment later.
    async fn has(&self, what: &str, is: impl Fn(&Value) -> bool) {
        let (api, plural) = PROXIES;
        let valid = |proxy: &Value| {
            let generation = &proxy["metadata"]["generation"];
            let mut all = proxy["status"]["conditions"].as_array().into_iter().flatten();
            all.any(|c| {
                c["type"] == "Valid" && c["status"] == "True" && c["observedGeneration"] == *generation
            })
        };
        self.world
            .wait_object(api, plural, "web", what, |proxy| is(&proxy["spec"]["routes"][0]) && valid(proxy))
            .await;
    }

    /// Asks so often in a row, until the answers are as wanted: statuses, and the pods that answered.
    async fn answers(
        &self,
        what: &str,
        times: usize,
        is: impl Fn(&[(u16, String)]) -> bool,
    ) -> Vec<(u16, String)> {
        wait_until(what, LIMIT, || async {
            let mut answers = Vec::new();
            for _ in 0..times {
                let (status, headers) = self.plane.get(&self.host, "/").await?;
                answers.push((status, headers.get("x-pod").cloned().unwrap_or_default()));
            }
            if is(&answers) { Ok(answers) } else { Err(format!("{answers:?}")) }
        })
        .await
    }

    /// Gives one of the pods other settings. Answers which.
    async fn odd(&self, settings: &str) -> String {
        let (status, headers) = self.plane.get(&self.host, &format!("/settings?{settings}")).await.unwrap();
        assert_eq!(status, 200);
        headers["x-pod"].clone()
    }

    /// The share of requests that the pod got which calls itself odd.
    async fn share(&self) -> (f64, Counts) {
        self.share_of(600, &[]).await
    }

    /// The same of so many requests, with more arguments for who sends them.
    async fn share_of(&self, requests: u64, more: &[&str]) -> (f64, Counts) {
        let load = Load::start(self.plane, &self.host, 60, more);
        load.wait("enough requests are answered", |c| c.requests >= requests).await;
        let counts = load.stop();
        (counts.of("odd") as f64 / counts.requests as f64, counts)
    }
}

#[tokio::test]
async fn requests_are_spread_cut_off_and_sent_again_as_it_says() {
    let Some(plane) = plane::shared("an_application_is_steered_by_contour::spread") else { return };
    let steered =
        Steered::new(plane, "steered", json!({"router": "HTTPProxy", "loadBalancer": "roundRobin"})).await;
    let odd = steered.odd("LATENCY=1s&VERSION=odd").await;

    // One after the other, however long each takes.
    let (share, counts) = steered.share().await;
    assert_eq!(counts.failed, 0, "{counts:?}");
    assert!((0.48..=0.52).contains(&share), "round robin: {share}, {counts:?}");

    // Of two that are drawn, the one with fewer requests under way: both are the slow one in a quarter of the draws.
    steered.asks(json!({"router": "HTTPProxy", "loadBalancer": "leastRequest"})).await;
    steered
        .has("least request", |route| route["loadBalancerPolicy"]["strategy"] == "WeightedLeastRequest")
        .await;
    let fewer = wait_until("the slow pod gets less", LIMIT, || async {
        let (share, counts) = steered.share().await;
        // Within four deviations of a quarter, for 600 requests.
        if share < 0.33 && counts.failed == 0 { Ok(share) } else { Err(format!("{share}, {counts:?}")) }
    })
    .await;
    say(&format!("the slow one of two pods got {share:.2} by round robin and {fewer:.2} by least request"));

    // Each user comes to one pod, and not all to the same one.
    let hash = json!({"router": "HTTPProxy", "loadBalancer": "consistentHash", "consistentHash": {"header": "x-user"}});
    steered.asks(hash).await;
    steered.has("a hash", |route| route["loadBalancerPolicy"]["strategy"] == "RequestHash").await;
    let of = async |user: u32| steered.share_of(30, &["--header", &format!("x-user=user-{user}")]).await;
    wait_until("a user comes to one pod", LIMIT, || async {
        let (share, counts) = of(0).await;
        if share == 0.0 || share == 1.0 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    let mut pods = BTreeSet::new();
    for user in 1..=16 {
        let (share, counts) = of(user).await;
        assert!((share == 0.0 || share == 1.0) && counts.failed == 0, "{user}: {counts:?}");
        pods.insert(share == 1.0);
    }
    assert_eq!(pods.len(), 2, "of sixteen users none comes to one of the pods");

    // At random, so about half: within four deviations, for 600 requests.
    steered.asks(json!({"router": "HTTPProxy", "loadBalancer": "random"})).await;
    steered.has("random", |route| route["loadBalancerPolicy"]["strategy"] == "Random").await;
    wait_until("both pods are drawn", LIMIT, || async {
        // Of one user: by its hash all would come to one pod.
        let (share, counts) = steered.share_of(600, &["--header", "x-user=user-0"]).await;
        if (0.42..=0.58).contains(&share) && counts.failed == 0 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;

    // A time limit that the slow pod does not keep.
    let spread = json!({"router": "HTTPProxy", "loadBalancer": "roundRobin", "timeout": "500ms"});
    steered.asks(spread).await;
    let cut = |answers: &[(u16, String)]| {
        let of = |status: u16| answers.iter().filter(|(s, _)| *s == status).count();
        of(504) > 0 && of(200) > 0 && answers.iter().all(|(status, pod)| *status == 504 || *pod != odd)
    };
    steered.answers("what takes longer than the time limit is cut off", 20, cut).await;

    // Each try has its limit, and the next one comes to the other pod.
    let again = json!({
        "router": "HTTPProxy", "loadBalancer": "roundRobin", "timeout": "10s",
        "retries": {"attempts": 3, "perTryTimeout": "500ms", "retryOn": "5xx"},
    });
    steered.asks(again).await;
    let all = |answers: &[(u16, String)]| answers.iter().all(|(status, pod)| *status == 200 && *pod != odd);
    steered.answers("what is cut off is sent again", 20, all).await;
    let endpoints = steered.world.get("v1", "pods", &odd).await;
    let ready = endpoints["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    assert!(ready, "no one but Envoy keeps requests from it: {endpoints}");
}

#[tokio::test]
async fn a_pod_that_answers_500_is_passed_over_and_comes_back() {
    let Some(plane) = plane::shared("an_application_is_steered_by_contour::passed_over") else { return };
    let breaker =
        json!({"consecutive5xxErrors": 2, "interval": "3s", "baseEjectionTime": "3s", "maxConnections": 100});
    let steered =
        Steered::new(plane, "passed", json!({"router": "HTTPProxy", "circuitBreaker": breaker})).await;
    let audit = plane.cluster.audit();
    // For a time that is long beside two checks, and over before this test gives up.
    let ill = steered.odd("ERROR_SHARE=1&for=60s").await;
    let fails = |answers: &[(u16, String)]| answers.iter().any(|(status, pod)| *status == 500 && *pod == ill);
    steered.answers("it answers 500", 4, fails).await;
    let others =
        |answers: &[(u16, String)]| answers.iter().all(|(status, pod)| *status == 200 && *pod != ill);
    steered.answers("it is passed over", 20, others).await;
    // It is Envoy that does: for Kubernetes the pod is as ready as before.
    let path = steered.world.space.path("discovery.k8s.io/v1", "endpointslices");
    let slices = steered.world.space.send("GET", &path, &Value::Null).await;
    let endpoints = slices["items"][0]["endpoints"].as_array().unwrap();
    assert!(endpoints.len() == 2 && endpoints.iter().all(|e| e["conditions"]["ready"] == true), "{slices}");
    let back = |answers: &[(u16, String)]| {
        answers.iter().all(|(status, _)| *status == 200) && answers.iter().any(|(_, pod)| *pod == ill)
    };
    steered.answers("it is well, and back", 20, back).await;
    let touched = |r: &Audited| r.resource == "httpproxies" && !r.is_read();
    let touched: Vec<Audited> =
        audit.in_namespace(&steered.world.space.name).into_iter().filter(touched).collect();
    assert!(touched.is_empty(), "nobody had to write anything: {touched:?}");
    let service = steered.world.get("v1", "services", "web").await;
    assert_eq!(service["metadata"]["annotations"]["projectcontour.io/max-connections"], "100");
}
