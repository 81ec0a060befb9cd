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

    /// The backends of all rules with their weights, without those that get nothing.
    async fn backends(&self) -> Vec<(String, u64)> {
        let route = self.world.get(API, "httproutes", "web").await;
        let rules = route["spec"]["rules"].as_array().cloned().unwrap_or_default();
        let refs = rules.iter().flat_map(|rule| rule["backendRefs"].as_array().cloned().unwrap_or_default());
        let of = |r: Value| Some((r["name"].as_str()?.to_owned(), r["weight"].as_u64().unwrap_or(1)));
        refs.filter_map(of).filter(|(_, weight)| *weight > 0).collect()
    }

    /// Waits until the candidate has this share, and stable all others.
    async fn divided(&self, share: u64) {
        let wanted = [("web".to_owned(), 100 - share), ("web-canary".to_owned(), share)];
        wait_until(&format!("the route gives {share} % to the candidate"), self.world.limit, || async {
            let found = self.backends().await;
            if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    async fn is_alone(&self) {
        assert_eq!(self.world.names("apps/v1", "deployments").await, ["web"]);
        assert_eq!(self.world.names("v1", "services").await, ["web"]);
        assert_eq!(self.backends().await, [("web".to_owned(), 1)]);
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
    shop.divided(20).await;
    // What the rollout itself changes is no drift.
    let as_wanted = |d: &Delivery| d.status.as_ref().is_some_and(|s| s.drift == Some(0));
    world.wait("shop", "is as the step wants it", as_wanted).await;
    // Everything to the candidate, by hand.
    let refs = json!([{"name": "web-canary", "port": 80, "weight": 1}]);
    let patch = json!([{"op": "replace", "path": "/spec/rules/0/backendRefs", "value": refs}]);
    world.patch(API, "httproutes", "web", patch).await;
    // It is written again at once, and that is told.
    let told = world.wait_event("shop", "Overwritten").await;
    assert!(told.contains("HTTPRoute") && told.contains("/web"), "{told}");
    shop.divided(20).await;
    shop.ask(&["promote", "shop"]);
    let in_next = |d: &Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.step == 4 && r.paused.is_some())
    };
    world.wait("shop", "is in the next step", in_next).await;
    shop.divided(50).await;
    world.delete(API, "httproutes", "web").await;
    // It is put back at once, as the step wants it.
    shop.divided(50).await;
    world.wait_event("shop", "Missing").await;
    world.wait("shop", "is in the step still", in_next).await;
    shop.ask(&["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &second).await;
    shop.is_alone().await;
}
