//! On a real node: a GRPCRoute leads calls to a canary as an HTTPRoute does requests. A good release loses no call, a bad one
//! is taken back by the statuses that stand in trailers, where HTTP says 200.

use crate::support::cli::windlass_with;
use crate::support::daemon::condition;
use crate::support::load::Load;
use crate::support::plane::{self, Plane};
use crate::support::shop::{RATE, Shop, none_failed};
use serde_json::json;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

#[tokio::test]
async fn explore() {
    let Some(plane) = plane::shared("grpc_calls_meet_a_canary::explore") else { return };
    let rollout = json!({
        "strategy": "Canary", "workload": {"name": "web"},
        "router": {"gatewayAPI": {"route": "web", "kind": "GRPCRoute"}},
        "steps": [{"weight": 20}, {"pause": {}}],
        "settle": "1s",
    });
    let shop = Shop::grpc(plane, "grpc-canary", rollout).await;
    let load = Load::start(plane, &shop.host, RATE, &["--grpc"]);
    let next = shop.commit("errors");
    shop.awaits_a_person(&next).await;
    load.wait("", |c| c.requests > 2500).await;
    println!("{:?}", load.so_far());
    let ns = &shop.world.space.name;
    println!("{:#?}", plane.query(&format!("{{__name__=~\".*grpc.*\"}}")).await.unwrap().iter().filter(|(l, _)| !l.to_string().contains("bucket")).collect::<Vec<_>>());
    println!("{:#?}", plane.query(&format!("envoy_cluster_upstream_rq_xx{{envoy_cluster_name=~\"{ns}.*\"}}")).await);
    let _ = (windlass_with, none_failed, condition, kind::HELD, Phase::Held, &plane as &&Plane);
}
