//! On a real node, behind a real proxy: an A/B test gives the candidate the requests that carry a header, and no other, for its
//! time, and promotes it then. A route that people turn or delete in the middle of a rollout is told and ends right.

use crate::support::cli::windlass_with;
use crate::support::cluster::wait_until;
use crate::support::daemon::World;
use crate::support::load::Load;
use crate::support::plane::{self, Plane, Told, server, service};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::Phase;

const API: &str = "gateway.networking.k8s.io/v1";

struct Shop {
    plane: &'static Plane,
    world: World,
    host: String,
    _told: Told,
}

impl Shop {
    async fn new(plane: &'static Plane, test: &str, rollout: Value) -> Self {
        let mut world = World::stopped_in(plane.cluster, test).await;
        world.limit = std::time::Duration::from_secs(180);
        let told = plane.told(&world.space);
        world.start();
        let host = format!("{}.test", world.space.name);
        let shop = Shop { plane, world, host, _told: told };
        let good = shop.commit("v1");
        shop.world.deliver("shop", json!({"rollout": rollout})).await;
        shop.world.wait_for("shop", Phase::Ready, &good).await;
        wait_until("the gateway leads to the application", shop.world.limit, || async {
            match plane.get(&shop.host, "/").await? {
                (200, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        shop
    }

    fn commit(&self, tag: &str) -> String {
        let route = json!({
            "apiVersion": API, "kind": "HTTPRoute", "metadata": {"name": "web"},
            "spec": {
                "parentRefs": [self.plane.parent], "hostnames": [self.host],
                "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
            },
        });
        // JSON is YAML.
        let files = [server("web", tag, 1), service("web", "http"), route].map(|object| object.to_string());
        self.world.commit(&format!("The image {tag}"), &[("shop/web.yaml", &files.join("\n---\n"))])
    }

    /// Names of the backends of all rules.
    async fn backends(&self) -> Vec<String> {
        let route = self.world.get(API, "httproutes", "web").await;
        let rules = route["spec"]["rules"].as_array().cloned().unwrap_or_default();
        let refs = rules.iter().flat_map(|rule| rule["backendRefs"].as_array().cloned().unwrap_or_default());
        refs.filter(|r| r["weight"] != 0).filter_map(|r| Some(r["name"].as_str()?.to_owned())).collect()
    }

    async fn is_alone(&self) {
        assert_eq!(self.world.names("apps/v1", "deployments").await, ["web"]);
        assert_eq!(self.world.names("v1", "services").await, ["web"]);
        assert_eq!(self.backends().await, ["web"]);
    }

    fn ask(&self, arguments: &[&str]) {
        let all: Vec<&str> = arguments.iter().copied().chain(["-n", &self.world.space.name]).collect();
        let answer = windlass_with(&self.plane.cluster.kubeconfig, &all);
        assert_eq!(answer.code, 0, "{answer:?}");
    }
}

#[tokio::test]
async fn for_its_time_and_is_promoted_then() {
    let Some(plane) = plane::shared("an_ab_test_serves_marked_requests::for_its_time") else { return };
    let rollout = |duration: &str| {
        json!({
            "strategy": "AB", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}}, "settle": "1s",
            "ab": {"header": {"name": "x-beta", "value": "1"}, "duration": duration},
        })
    };
    let shop = Shop::new(plane, "ab", rollout("1h")).await;
    let next = shop.commit("v2");
    let in_effect = |d: &Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.step == 2 && r.settled.is_some())
    };
    shop.world.wait("shop", "is tried out", in_effect).await;
    // How soon a proxy takes a route that was accepted is its own affair.
    let first = Load::start(plane, &shop.host, 20, &["--header", "x-beta=1"]);
    first.wait("the proxy has the route", |c| c.of("v2") > 0).await;
    first.stop();
    let marked = Load::start(plane, &shop.host, 20, &["--header", "x-beta=1"]);
    let plain = Load::start(plane, &shop.host, 20, &[]);
    marked.wait("marked requests see the candidate", |c| c.of("v2") > 20).await;
    plain.wait("others are served", |c| c.of("v1") > 20).await;
    let (marked, plain) = (marked.stop(), plain.stop());
    assert_eq!((marked.of("v1"), plain.of("v2")), (0, 0), "{marked:?} {plain:?}");
    // Only now its time is one that ends.
    shop.world.deliver("shop", json!({"rollout": rollout("8s")})).await;
    shop.world.wait_for("shop", Phase::Ready, &next).await;
    shop.is_alone().await;
}

#[tokio::test]
async fn and_a_route_that_people_change_or_delete_meanwhile_ends_right() {
    let Some(plane) = plane::shared("an_ab_test_serves_marked_requests::a_route_that_people_change") else {
        return;
    };
    let rollout = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}}, "settle": "1s",
        "steps": [{"weight": 20}, {"pause": {}}, {"weight": 50}, {"pause": {}}],
    });
    let shop = Shop::new(plane, "turned-route", rollout).await;
    let world = &shop.world;
    let second = shop.commit("v2");
    world.wait_for("shop", Phase::Paused, &second).await;
    assert_eq!(shop.backends().await, ["web", "web-canary"]);
    // What the rollout itself changes is no drift.
    let drifts = |n| move |d: &Delivery| d.status.as_ref().is_some_and(|s| s.drift == Some(n));
    world.wait("shop", "is as the step wants it", drifts(0)).await;
    // Everything to the candidate, by hand.
    let refs = json!([{"name": "web-canary", "port": 80, "weight": 1}]);
    let patch = json!([{"op": "replace", "path": "/spec/rules/0/backendRefs", "value": refs}]);
    world.patch(API, "httproutes", "web", patch).await;
    world.wait("shop", "tells that the route was changed", drifts(1)).await;
    let report = world.wait_report("one object", |r| r.count == 1).await;
    assert_eq!((report.objects[0].kind.as_str(), report.objects[0].name.as_str()), ("HTTPRoute", "web"));
    shop.ask(&["promote", "shop"]);
    let in_next = |d: &Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.step == 4 && r.paused.is_some())
    };
    world.wait("shop", "is in the next step", in_next).await;
    assert_eq!(shop.backends().await, ["web", "web-canary"], "the step says what stands there");
    world.delete(API, "httproutes", "web").await;
    // It is put back at once, as the step wants it.
    wait_until("the route is put back", world.limit, || async {
        let found = shop.backends().await;
        if found == ["web", "web-canary"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    world.wait_event("shop", "Missing").await;
    world.wait("shop", "is in the step still", in_next).await;
    shop.ask(&["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &second).await;
    shop.is_alone().await;
}
