//! `stepWeight`, `maxWeight` and `interval` stand for steps, which are walked one after the other.

use crate::a_mesh_is_steered_by_its_hosts::{API, ROUTES, hosts, meshed};
use crate::a_rollout_goes_step_by_step::{service, web};
use crate::support::daemon::{World, config_map};
use futures::{StreamExt, TryStreamExt};
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use kube::core::ApiResource;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use windlass::api::delivery::Phase;

/// The candidate's share in a route of which stable has the rest; `None` where it is not named.
fn share(route: &Value) -> Option<u64> {
    let rules = hosts(route);
    rules[0].iter().find(|(host, _)| host == "web-canary").map(|(_, weight)| weight.unwrap_or(0))
}

/// Every share that the candidate has from now on, in order: also one that lasts a moment.
async fn shares(world: &World) -> Arc<Mutex<Vec<Option<u64>>>> {
    let kind = ApiResource {
        group: "networking.istio.io".into(),
        version: "v1".into(),
        api_version: API.into(),
        kind: "VirtualService".into(),
        plural: ROUTES.into(),
    };
    let client = world.space.connection.client.clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &world.space.name, &kind);
    let route = api.get("web").await.unwrap();
    let seen = Arc::new(Mutex::new(vec![share(&serde_json::to_value(&route).unwrap())]));
    let (mut from, all) = (route.resource_version().unwrap(), Arc::clone(&seen));
    // It ends with the runtime of the test. A watch that ends goes on from where it was.
    tokio::spawn(async move {
        loop {
            let Ok(events) = api.watch(&WatchParams::default(), &from).await else { continue };
            let mut events = events.into_stream().boxed();
            while let Some(Ok(event)) = events.next().await {
                let WatchEvent::Modified(route) = event else { continue };
                from = route.resource_version().unwrap();
                let share = share(&serde_json::to_value(&route).unwrap());
                let mut seen = all.lock().unwrap();
                if seen.last() != Some(&share) {
                    seen.push(share);
                }
            }
        }
    });
    seen
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
    let seen = shares(&world).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 1))]);
    world.wait_for("shop", Phase::Ready, &next).await;
    let walked = [None, Some(0), Some(20), Some(40), Some(50), Some(100), Some(0), None];
    world
        .wait("shop", "all shares are seen", |_| {
            let seen = seen.lock().unwrap();
            assert!(walked.starts_with(&seen), "{seen:?}");
            seen.len() == walked.len()
        })
        .await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
}
