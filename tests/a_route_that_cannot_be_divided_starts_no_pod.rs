//! A rollout whose route is not there, leads elsewhere or is refused by its controller is told so, by the route's name and what to do,
//! before any pod of a candidate is started; once that is mended it goes on.

use crate::a_rollout_goes_step_by_step::{blue_green, deployed, service, web};
use crate::support::daemon::{World, config_map};
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::Phase;

fn canary() -> Value {
    json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 30}, {"pause": {}}], "settle": "300ms",
    })
}

/// A route to somebody else.
fn elsewhere() -> Value {
    let mut elsewhere = route();
    elsewhere["spec"]["rules"][0]["backendRefs"] = json!([{"name": "other", "port": 80}]);
    elsewhere
}

/// Waits until the revision is refused for this, and nothing of it was begun: what is said of the route.
async fn refused(world: &World, good: &str, reason: &str) -> String {
    let status = world.wait_refused("shop", reason).await.status.unwrap();
    assert!(status.attempt.is_none(), "{:?}", status.attempt);
    assert_eq!(status.effective.unwrap().commit, good);
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
    status.failure.unwrap().problem.message
}

/// The status by which a controller refuses a route.
fn denied(route: &Value) -> Value {
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "NoMatchingListenerHostname", "message": "no listener takes its hostname",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": route["metadata"]["generation"],
        })
    };
    let conditions = [condition("Accepted", "False"), condition("ResolvedRefs", "True")];
    json!({"status": {"parents": [{
        "parentRef": route["spec"]["parentRefs"][0], "controllerName": "example.com/played", "conditions": conditions,
    }]}})
}

#[tokio::test]
async fn one_of_others_that_is_missing_leads_elsewhere_or_is_refused() {
    know_routes().await;
    let (world, good) = deployed("route-of-others", "app: web", canary()).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let named = format!("HTTPRoute {}/web", world.space.name);
    let said = refused(&world, &good, "RouteNotFound").await;
    let expected =
        "is neither in the revision nor in the cluster; write it, or name another in spec.rollout.router";
    assert_eq!(said, format!("{named} {expected}"));

    // Somebody makes one: to somebody else.
    world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &elsewhere()).await;
    let said = refused(&world, &good, "RouteUnrelated").await;
    assert!(
        said.starts_with(&format!("{named} sends no traffic to Service web; it names Service other")),
        "{said}"
    );
    assert_eq!(world.get(GATEWAY, ROUTES, "web").await["spec"], elsewhere()["spec"], "it is left as it is");

    let to_web = json!({"spec": route()["spec"]});
    let there = world.patch(GATEWAY, ROUTES, "web", to_web).await;
    world.patch(GATEWAY, ROUTES, "web/status", denied(&there)).await;
    let said = refused(&world, &good, "RouteRefused").await;
    assert!(said.contains(&named) && said.contains("no listener takes its hostname"), "{said}");

    let _controller = Controller::of(&world);
    world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30));
}

#[tokio::test]
async fn one_of_the_directory_that_leads_elsewhere_is_named_with_its_line() {
    know_routes().await;
    let mut world = World::stopped("route-elsewhere").await;
    let _controller = Controller::of(&world);
    world.start();
    let file = |route: &Value| format!("# The way in\n---\n{route}\n");
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/route.yaml", &file(&elsewhere())),
        ],
    );
    world.deliver("shop", json!({"rollout": canary()})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let said = refused(&world, &good, "RouteUnrelated").await;
    let place = format!("HTTPRoute {}/web (shop/route.yaml:3)", world.space.name);
    assert!(said.starts_with(&place), "{said}");
    assert!(said.contains("Have one of its rules send traffic there"), "{said}");

    // What runs still has it, and stays until promotion.
    world.commit("With its route", &[("shop/route.yaml", &file(&route()))]);
    let says = |d: &Delivery| {
        let failure = d.status.as_ref().and_then(|s| s.failure.as_ref());
        failure.is_some_and(|f| {
            f.problem.message.contains("Bring that difference in a change of its own before")
        })
    };
    world.wait("shop", "says that the route has to come first", says).await;
    let first = world.commit("The route alone", &[("shop/web.yaml", &web("ok", 2))]);
    world.wait_for("shop", Phase::Ready, &first).await;
    let then = world.commit("And then the pods", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Paused, &then).await;
}

#[tokio::test]
async fn a_service_to_be_switched_has_to_be_the_workloads() {
    let mut policy = blue_green();
    policy["router"] = json!({"service": {"name": "front"}});
    let (world, good) = deployed("service-to-switch", "app: web, tier: front", policy).await;
    world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let said = refused(&world, &good, "RouteNotFound").await;
    assert!(said.starts_with(&format!("Service {}/front ", world.space.name)), "{said}");

    // One that is there, and selects somebody else's pods.
    let other = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]},
    });
    world.space.send("POST", &world.space.path("v1", "services"), &other).await;
    let says = |d: &Delivery| {
        let failure = d.status.as_ref().and_then(|s| s.failure.as_ref());
        failure
            .is_some_and(|f| f.problem.message.contains("selects no pods of the workload, Service web does"))
    };
    world.wait("shop", "names the Service that does", says).await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
}

/// Gateway API has no portable match for cookies, and the rollout says so before it begins: there, and in the directory.
#[tokio::test]
async fn one_that_cannot_do_what_a_step_asks_for() {
    know_routes().await;
    for (test, in_git) in [("route-cookie", true), ("route-cookie-others", false)] {
        let world = World::new(test).await;
        let _controller = Controller::of(&world);
        let with = |step: Value| {
            let mut policy = canary();
            policy["steps"] = json!([{"weight": 30}, step, {"pause": {}}]);
            policy
        };
        let cookie = with(json!({"cookie": {"name": "tester", "value": "1"}}));
        let (web_, service_, settings) = (web("ok", 2), service("app: web"), config_map("settings", "blue"));
        let own = if in_git { route().to_string() } else { config_map("more", "1") };
        let good = world.commit(
            "First",
            &[
                ("shop/web.yaml", &web_),
                ("shop/service.yaml", &service_),
                ("shop/settings.yaml", &settings),
                ("shop/more.yaml", &own),
            ],
        );
        if !in_git {
            world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &route()).await;
        }
        world.deliver("shop", json!({"rollout": cookie})).await;
        world.wait_for("shop", Phase::Ready, &good).await;
        let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
        let said = refused(&world, &good, "RouterCannot").await;
        assert!(said.starts_with(&format!("HTTPRoute {}/web", world.space.name)), "{said}");
        let why = "cannot tell requests by a cookie: Gateway API has no portable match for cookies; use a header, or Istio";
        assert!(said.contains(why), "{said}");
        assert_eq!(
            world.get(GATEWAY, ROUTES, "web").await["spec"],
            route()["spec"],
            "{test}: it is left as it is"
        );

        // With a header it goes on.
        let header = with(json!({"header": {"name": "x-tester", "value": "1"}}));
        world.deliver("shop", json!({"rollout": header})).await;
        world.wait_for("shop", Phase::Paused, &next).await;
        let rules = world.get(GATEWAY, ROUTES, "web").await["spec"]["rules"].clone();
        assert_eq!(rules[1]["matches"][0]["headers"][0]["name"], "x-tester", "{test}: {rules}");
        assert_eq!(rules[1]["backendRefs"][0]["name"], "web-canary", "{test}: {rules}");
    }
}
