//! On a real node: a GRPCRoute leads calls to a canary as an HTTPRoute does requests. A good release loses no call; a bad one
//! is taken back by the statuses that stand in trailers, where HTTP says 200.

use crate::support::daemon::condition;
use crate::support::load::Load;
use crate::support::plane::{self, say};
use crate::support::shop::{RATE, Shop, none_failed};
use serde_json::json;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

#[tokio::test]
async fn a_good_release_loses_no_call_and_a_bad_one_is_seen_though_http_says_200() {
    let Some(plane) = plane::shared("grpc_calls_meet_a_canary") else { return };
    // Who counts is not said: with a GRPCRoute it is calls.
    let metric = json!({"name": "success-rate", "prometheus": {
        "address": plane.prometheus(), "builtin": "request-success-rate", "window": "10s",
    }});
    let rollout = json!({
        "strategy": "Canary", "workload": {"name": "web"},
        "router": {"gatewayAPI": {"route": "web", "kind": "GRPCRoute"}},
        "steps": [{"weight": 20}, {"analysis": {"count": 2}}, {"weight": 50}, {"pause": "2s"}],
        "settle": "1s",
        "analysis": {
            "interval": "2s", "initialDelay": "4s", "failureLimit": 1, "consecutiveErrorLimit": 10,
            "metrics": [metric],
        },
    });
    let shop = Shop::grpc(plane, "grpc-canary", rollout).await;
    let url = format!("{}/any.Service/Any", plane.gateway);
    let calls = ["--grpc", "--url", &url];
    let load = Load::start(plane, &shop.host, RATE, &calls);
    let next = shop.commit("v2");
    shop.world.wait_for("shop", Phase::Ready, &next).await;
    shop.is_alone().await;
    load.wait("the new version answers", |c| c.of("v2") > 0).await;
    let counts = load.stop();
    say(&format!("gRPC canary: {counts:?}"));
    none_failed(&shop, &counts).await;
    assert!(counts.counts.keys().all(|key| key.starts_with("grpc 0 ")), "{counts:?}");

    // Half of its calls end with INTERNAL.
    let load = Load::start(plane, &shop.host, RATE, &calls);
    let bad = shop.commit("errors");
    let held = shop.world.wait_for("shop", Phase::Held, &bad).await;
    shop.is_alone().await;
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("success-rate"), "{message}");
    let counts = load.stop();
    say(&format!("gRPC canary that fails half of its calls: {counts:?}"));
    let internal = counts.counts.get("grpc 13 errors").copied().unwrap_or(0);
    assert!(internal > 0 && internal == counts.failed, "{counts:?}");
}
