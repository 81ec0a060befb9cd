//! While a rollout stands at a step, the candidate answers the share of requests that the step asks for: each of `n` requests is
//! drawn by itself, so the count is binomial, and it agrees within four deviations (see `traffic_follows_the_weights`).

use crate::support::cli::windlass;
use crate::support::cluster::wait_until;
use crate::support::load::Load;
use crate::support::plane;
use crate::support::shop::{GATEWAY, Shop, none_failed};
use crate::traffic_follows_the_weights::agrees;
use serde_json::json;
use windlass::api::Delivery;
use windlass::api::delivery::Phase;

/// Waits until the proxy has all that was written to routes so far: it is told of them together and in order, so a route that is
/// written now is the last that it learns of.
async fn proxy_has_all(shop: &Shop, name: &str) {
    let host = format!("{name}.{}", shop.host);
    let route = json!({
        "apiVersion": GATEWAY, "kind": "HTTPRoute", "metadata": {"name": name},
        "spec": {
            "parentRefs": [shop.plane.parent], "hostnames": [host],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        },
    });
    let space = &shop.world.space;
    space.send("POST", &space.path(GATEWAY, "httproutes"), &route).await;
    wait_until("the proxy has the route that was written last", shop.world.limit, || async {
        match shop.plane.get(&host, "/").await? {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn at_each_step_the_measured_share_is_the_asked_one() {
    let Some(plane) = plane::shared("a_step_has_the_share_that_it_asks_for") else { return };
    let rollout = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 20}, {"pause": {}}, {"weight": 50}, {"pause": {}}], "settle": "1s",
    });
    let shop = Shop::new(plane, "shares", rollout).await;
    let all_the_time = Load::start(plane, &shop.host, 50, &[]);
    let next = shop.commit("v2");
    for percent in [20_u32, 50] {
        let stands = |d: &Delivery| {
            let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
            attempt.and_then(|a| a.rollout.as_ref()).is_some_and(|r| {
                r.layout.weight == percent && r.paused.as_ref().is_some_and(|p| p.reason == "AwaitsPromotion")
            })
        };
        shop.world.wait("shop", &format!("stands at {percent} %"), stands).await;
        proxy_has_all(&shop, &format!("after-{percent}")).await;
        let load = Load::start(plane, &shop.host, 300, &[]);
        load.wait("enough requests are answered", |c| c.requests >= 1500).await;
        let counts = load.stop();
        none_failed(&shop, &counts).await;
        assert_eq!(counts.of("v1") + counts.of("v2"), counts.requests, "{counts:?}");
        let what = format!("the candidate's share at {percent} %");
        agrees(&what, counts.of("v2"), counts.requests, f64::from(percent) / 100.0);
        let asked = windlass(&shop.world.space, &["promote", "shop", "-n", &shop.world.space.name]);
        assert_eq!(asked.code, 0, "{asked:?}");
    }
    shop.world.wait_for("shop", Phase::Ready, &next).await;
    shop.is_alone().await;
    none_failed(&shop, &all_the_time.stop()).await;
}
