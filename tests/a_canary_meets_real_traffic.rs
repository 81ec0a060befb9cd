//! On a real node, behind a real proxy: a good revision is promoted, by canary and by blue-green, and no request fails; a
//! bad one is taken back by what Prometheus says, and costs no more than its share of traffic for as long as that takes.

use crate::support::cli::windlass_with;
use crate::support::cluster::wait_until;
use crate::support::daemon::{World, condition};
use crate::support::load::{Counts, Load};
use crate::support::plane::{self, Plane, Told, server, service};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

/// Requests a second.
const RATE: u32 = 100;

/// How often Prometheus asks Envoy, and the window of the rates that are taken, in seconds.
const SCRAPE: f64 = 2.0;
const WINDOW: f64 = 10.0;

struct Shop {
    plane: &'static Plane,
    world: World,
    host: String,
    _told: Told,
}

impl Shop {
    /// The version v1 behind the gateway, delivered with this rollout.
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

    fn route(&self) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
            "spec": {
                "parentRefs": [self.plane.parent], "hostnames": [self.host],
                "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
            },
        })
    }

    fn commit(&self, tag: &str) -> String {
        // JSON is YAML.
        let files =
            [server("web", tag, 2), service("web", "http"), self.route()].map(|object| object.to_string());
        self.world.commit(&format!("The image {tag}"), &[("shop/web.yaml", &files.join("\n---\n"))])
    }

    async fn is_alone(&self) {
        assert_eq!(self.world.names("apps/v1", "deployments").await, ["web"]);
        assert_eq!(self.world.names("v1", "services").await, ["web"]);
        let route = self.world.get("gateway.networking.k8s.io/v1", "httproutes", "web").await;
        let refs = route["spec"]["rules"][0]["backendRefs"].as_array().unwrap();
        assert_eq!(refs.len(), 1, "{route}");
        assert_eq!(refs[0]["name"], "web");
    }
}

/// No request failed. Of those that did, it is said why Envoy had no answer.
async fn none_failed(shop: &Shop, counts: &Counts) {
    if counts.failed == 0 {
        return;
    }
    let noted = wait_until("Envoy writes down why", shop.world.limit, || async {
        let noted = shop.plane.failures(&shop.host);
        if noted.is_empty() { Err("nothing yet".to_owned()) } else { Ok(noted) }
    });
    panic!("{counts:?}\n{}", noted.await.join("\n"));
}

fn canary(plane: &Plane) -> Value {
    json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 20}, {"analysis": {"count": 2}}, {"weight": 50}, {"pause": "2s"}],
        "settle": "1s",
        "analysis": {
            "interval": "2s", "initialDelay": "4s", "failureLimit": 1, "consecutiveErrorLimit": 10,
            "metrics": [{"name": "success-rate", "prometheus": {
                "address": plane.prometheus(), "builtin": "request-success-rate", "window": "10s",
            }}],
        },
    })
}

#[tokio::test]
async fn a_good_canary_is_promoted_and_a_bad_one_costs_no_more_than_its_share() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::canary") else { return };
    let shop = Shop::new(plane, "canary", canary(plane)).await;
    let load = Load::start(plane, &shop.host, RATE, &[]);
    let next = shop.commit("v2");
    shop.world.wait_for("shop", Phase::Ready, &next).await;
    shop.is_alone().await;
    let counts = load.stop();
    println!("canary: {counts:?}");
    none_failed(&shop, &counts).await;
    assert!(counts.of("v1") > 0 && counts.of("v2") > 0, "{counts:?}");

    // Half of its answers are a 500.
    let load = Load::start(plane, &shop.host, RATE, &[]);
    let bad = shop.commit("errors");
    let held = shop.world.wait_for("shop", Phase::Held, &bad).await;
    shop.is_alone().await;
    let counts = load.stop();
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("success-rate"), "{message}");
    // Settle, first measurement, failures that are borne and one more; until a failure shows: the scrape and the window. And
    // two seconds in which the daemon decides and the proxy follows.
    let seconds = 1.0 + 4.0 + 2.0 * 2.0 + SCRAPE + WINDOW + 2.0;
    let (weight, errors) = (0.2, 0.5);
    let most = f64::from(RATE) * seconds * weight * errors;
    println!(
        "bad canary: {} of {} requests failed; at most {most:.0} ({weight} of traffic, {errors} of it, for {seconds} s)",
        counts.failed, counts.requests
    );
    assert!(counts.failed as f64 <= most + 4.0 * most.sqrt(), "{counts:?}");
}

#[tokio::test]
async fn blue_green_switches_to_what_is_well_and_never_to_what_crashes() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::blue_green") else { return };
    let rollout = json!({
        "strategy": "BlueGreen", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "settle": "1s", "scaleDownDelay": "3s",
    });
    let shop = Shop::new(plane, "blue-green", rollout).await;
    let load = Load::start(plane, &shop.host, RATE, &[]);
    let next = shop.commit("v2");
    shop.world.wait_for("shop", Phase::Ready, &next).await;
    shop.is_alone().await;
    load.wait("the new version answers", |c| c.of("v2") > 0).await;
    let counts = load.stop();
    println!("blue-green: {counts:?}");
    none_failed(&shop, &counts).await;

    // One that crashes is never switched to.
    let load = Load::start(plane, &shop.host, RATE, &[]);
    let bad = shop.commit("crash");
    shop.world.wait_for("shop", Phase::Held, &bad).await;
    let counts = load.stop();
    assert_eq!((counts.failed, counts.of("crash")), (0, 0), "{counts:?}");
    shop.is_alone().await;
}

#[tokio::test]
async fn a_route_of_others_is_divided_and_given_back_as_it_was() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::route_of_others") else { return };
    let mut world = World::stopped_in(plane.cluster, "others-route").await;
    world.limit = std::time::Duration::from_secs(120);
    let _told = plane.told(&world.space);
    world.start();
    let host = format!("{}.test", world.space.name);
    let commit = |tag: &str| {
        let files = [server("web", tag, 1), service("web", "http")].map(|object| object.to_string());
        world.commit(&format!("The image {tag}"), &[("shop/web.yaml", &files.join("\n---\n"))])
    };
    let (api, routes) = ("gateway.networking.k8s.io/v1", "httproutes");
    let header = json!({"type": "Exact", "name": "x-old", "value": "1"});
    let route = json!({
        "apiVersion": api, "kind": "HTTPRoute", "metadata": {"name": "edge"},
        "spec": {
            "parentRefs": [plane.parent], "hostnames": [host],
            "rules": [
                {"matches": [{"headers": [header]}], "backendRefs": [{"name": "web", "port": 80, "weight": 3}]},
                {"backendRefs": [{"name": "web", "port": 80}]},
            ],
        },
    });
    world.space.send("POST", &world.space.path(api, routes), &route).await;
    let before = world.get(api, routes, "edge").await;
    let good = commit("v1");
    world
        .deliver("shop", json!({"rollout": {
            "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "edge"}},
            "steps": [{"weight": 20}, {"pause": {}}], "settle": "1s",
        }}))
        .await;
    world.wait_for("shop", Phase::Ready, &good).await;
    for (tag, verb, phase) in [("v2", "promote", Phase::Ready), ("v3", "abort", Phase::Held)] {
        let next = commit(tag);
        world.wait_for("shop", Phase::Paused, &next).await;
        let divided = world.get(api, routes, "edge").await;
        let refs = divided["spec"]["rules"][1]["backendRefs"].as_array().unwrap();
        let weights: Vec<_> =
            refs.iter().map(|r| (r["name"].as_str().unwrap(), r["weight"].as_i64())).collect();
        assert_eq!(weights, [("web", Some(80)), ("web-canary", Some(20))], "{divided}");
        let asked = windlass_with(&plane.cluster.kubeconfig, &[verb, "shop", "-n", &world.space.name]);
        assert_eq!(asked.code, 0, "{asked:?}");
        world.wait_for("shop", phase, &next).await;
        let after = world.get(api, routes, "edge").await;
        assert_eq!(after["spec"], before["spec"], "{verb}");
        assert_eq!(after["metadata"]["annotations"], before["metadata"]["annotations"], "{verb}");
        assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    }
    // With the Delivery in the middle of a rollout, too.
    let next = commit("v4");
    world.wait_for("shop", Phase::Paused, &next).await;
    world.delete("windlass.dev/v1alpha1", "repositories", "config").await;
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    world.wait_gone("shop").await;
    assert_eq!(world.get(api, routes, "edge").await["spec"], before["spec"]);
}
