//! `stepWeight`, `maxWeight` and `interval` stand for steps, which are walked one after the other.

use crate::a_mesh_is_steered_by_its_hosts::{API, ROUTES, hosts, meshed};
use crate::a_rollout_goes_step_by_step::{service, web};
use crate::support::daemon::config_map;
use crate::support::values::follow;
use serde_json::{Value, json};
use windlass::api::delivery::Phase;

/// The candidate's share in a route of which stable has the rest; `None` where it is not named.
fn share(route: &Value) -> Option<u64> {
    let rules = hosts(route);
    rules[0].iter().find(|(host, _)| host == "web-canary").map(|(_, weight)| weight.unwrap_or(0))
}

#[tokio::test]
async fn each_weight_has_its_turn_and_the_last_one_is_the_most() {
    let (_alone, world) = meshed("shorthand").await;
    let route = json!({
        "apiVersion": API, "kind": "VirtualService", "metadata": {"name": "web"},
        "spec": {"hosts": ["shop.example.com"], "http": [{"route": [{"destination": {"host": "web"}}]}]},
    });
    let good = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &web("ok", 1)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/route.yaml", &route.to_string()),
        ],
    );
    let canary = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"istio": {"virtualService": "web"}},
        "stepWeight": 20, "maxWeight": 50, "interval": "700ms", "settle": "300ms",
    });
    world.deliver("shop", json!({"rollout": canary})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let route = world.get(API, ROUTES, "web").await;
    let since = route["metadata"]["resourceVersion"].as_str().unwrap();
    let seen = follow(&world, (API, ROUTES, "web"), since, share);
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 1))]);
    world.wait_for("shop", Phase::Ready, &next).await;
    let walked = [Some(0), Some(20), Some(40), Some(50), Some(100), Some(0), None];
    world
        .wait("shop", "all shares are seen", |_| {
            let seen = seen.lock().unwrap();
            assert!(walked.starts_with(&seen), "{seen:?}");
            seen.len() == walked.len()
        })
        .await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
}
