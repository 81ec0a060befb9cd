//! On a real node, behind a real proxy: a good revision is promoted, by canary and by blue-green, and no request fails; a
//! bad one is taken back by what Prometheus says, and costs no more than its share of traffic for as long as that takes.

use crate::support::cli::windlass_with;
use crate::support::daemon::{World, condition};
use crate::support::load::{Counts, Load};
use crate::support::plane::{self, Plane, say, server, service};
use crate::support::shop::{RATE, Shop, none_failed};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

/// How often Prometheus asks Envoy, and the window of the rates that are taken, in seconds.
const SCRAPE: f64 = 2.0;
const WINDOW: f64 = 10.0;

/// How often it is measured, in seconds, and how many failures are borne.
const INTERVAL: f64 = 2.0;
const FAILURE_LIMIT: u32 = 1;

/// The share of traffic that a candidate gets while it is measured first.
pub const WEIGHT: f64 = 0.2;

/// The longest that a bad release may last, in seconds: until it has failed once more than is borne, and until a failure shows
/// at all. Nothing is added for the time in which a step settles, the daemon decides and the proxy follows: that is less than
/// what a failure needs less than a whole window to show.
const SECONDS: f64 = (FAILURE_LIMIT as f64 + 1.0) * INTERVAL + SCRAPE + WINDOW;

/// What a bad release did, and the most that it may: its weight, times its rate of errors, for as long as it takes to see them;
/// beyond that four deviations of a count of independent requests.
pub fn within(what: &str, bad: u64, weight: f64, errors: f64, counts: &Counts) {
    let most = f64::from(RATE) * SECONDS * weight * errors;
    say(&format!(
        "{what}: expected at most {most:.0} of {} requests ({weight} of traffic, {errors} of it, for {SECONDS} s), measured {bad}",
        counts.requests
    ));
    assert!(bad as f64 <= most + 4.0 * most.sqrt(), "{counts:?}");
}

/// What is measured of it.
fn analysis(metric: Value) -> Value {
    // `initialDelay` is the interval: the first measurement is one of those that are counted.
    json!({
        "interval": format!("{INTERVAL}s"), "failureLimit": FAILURE_LIMIT, "consecutiveErrorLimit": 10, "metrics": [metric],
    })
}

fn success_rate(plane: &Plane) -> Value {
    json!({"name": "success-rate", "prometheus": {
        "address": plane.prometheus(), "builtin": "request-success-rate", "window": format!("{WINDOW}s"),
    }})
}

/// A canary in two steps that is measured by what the proxy counts.
pub fn canary(plane: &Plane) -> Value {
    measured_canary(success_rate(plane))
}

fn measured_canary(metric: Value) -> Value {
    json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 20}, {"analysis": {"count": 2}}, {"weight": 50}, {"pause": "2s"}],
        "settle": "1s", "analysis": analysis(metric),
    })
}

/// That nothing of stable was touched: the uid and the generation of its workload.
async fn untouched(shop: &Shop) -> (Value, Value) {
    let web = shop.world.get("apps/v1", "deployments", "web").await;
    (web["metadata"]["uid"].clone(), web["metadata"]["generation"].clone())
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
    say(&format!("canary: {counts:?}"));
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
    within("canary that fails half of its requests", counts.failed, WEIGHT, 0.5, &counts);
}

#[tokio::test]
async fn what_the_app_counts_itself_decides_and_no_request_at_all_is_waited_for() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::counts_itself") else { return };
    let builtin = |name: &str| json!({"address": plane.prometheus(), "builtin": name, "provider": "http", "window": "10s"});
    let mut rollout = canary(plane);
    rollout["analysis"]["consecutiveErrorLimit"] = json!(2);
    rollout["analysis"]["metrics"] = json!([
        {"name": "rate", "prometheus": builtin("request-success-rate")},
        // Against stable, whose time is asked at the same moment.
        {"name": "duration", "prometheus": builtin("request-duration"), "success": "candidate <= stable * 3 + 0.5"},
    ]);
    let shop = Shop::new(plane, "counts", rollout).await;
    let next = shop.commit("v2");
    // Nobody asks the application anything: that is no success, and it is said.
    let silent = |d: &Delivery| {
        let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
        let paused = attempt.and_then(|a| a.rollout.as_ref()?.paused.as_ref());
        paused.is_some_and(|p| p.message.contains("no requests were "))
    };
    let waits = shop.world.wait("shop", "waits for requests", silent).await;
    let status = waits.status.unwrap();
    assert_eq!(status.phase, Phase::Paused);
    let runs = &status.attempt.as_ref().unwrap().rollout.as_ref().unwrap().analysis;
    assert!(runs.iter().all(|run| run.succeeded == 0), "{runs:?}");
    let load = Load::start(plane, &shop.host, RATE, &[]);
    shop.world.wait_for("shop", Phase::Ready, &next).await;
    shop.is_alone().await;
    let bad = shop.commit("errors");
    let held = shop.world.wait_for("shop", Phase::Held, &bad).await;
    shop.is_alone().await;
    load.stop();
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("rate"), "{message}");
}

#[tokio::test]
async fn a_slow_canary_is_taken_back_by_how_long_requests_take() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::slow") else { return };
    let metric = json!({"name": "duration", "success": "result <= 0.4", "prometheus": {
        "address": plane.prometheus(), "builtin": "request-duration", "percentile": 90, "window": "10s",
    }});
    let shop = Shop::new(plane, "slow", measured_canary(metric)).await;
    let load = Load::start(plane, &shop.host, RATE, &[]);
    // Each answer takes half a second.
    let bad = shop.commit("late");
    let held = shop.world.wait_for("shop", Phase::Held, &bad).await;
    shop.is_alone().await;
    let counts = load.stop();
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("duration"), "{message}");
    none_failed(&shop, &counts).await;
    assert!(counts.of("late") > 0, "{counts:?}");
    within("slow canary", counts.of("late"), WEIGHT, 1.0, &counts);
}

#[tokio::test]
async fn a_canary_that_leaks_is_taken_back_when_the_kernel_kills_it() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::leak") else { return };
    // 16 MiB more each second: it is killed some seconds after it got traffic, well within the step.
    let limits = json!({"limits": {"memory": "128Mi"}});
    let mut rollout = canary(plane);
    rollout["steps"] = json!([{"weight": 20}, {"pause": "1h"}]);
    let shop = Shop::with(plane, "leak", rollout, json!({"resources": limits})).await;
    let load = Load::start(plane, &shop.host, RATE, &[]);
    let bad = shop.commit("leak");
    let held = shop.world.wait_for("shop", Phase::Held, &bad).await;
    shop.is_alone().await;
    let counts = load.stop();
    let (_, _, message) = condition(&held, kind::HELD);
    say(&format!("leaking canary: {message}"));
    assert!(message.contains("OOMKilled") || message.contains("success-rate"), "{message}");
    assert!(counts.of("leak") > 0, "{counts:?}");
    // Without endpoints, all that it gets fails.
    within("leaking canary", counts.failed, WEIGHT, 1.0, &counts);
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
    say(&format!("blue-green: {counts:?}"));
    none_failed(&shop, &counts).await;

    // What crashes, or has no image, is never switched to.
    let load = Load::start(plane, &shop.host, RATE, &[]);
    for (tag, said) in [("crash", " times"), ("missing", "not found")] {
        let before = untouched(&shop).await;
        let bad = shop.commit(tag);
        let held = shop.world.wait_for("shop", Phase::Held, &bad).await;
        let (_, _, message) = condition(&held, kind::HELD);
        assert!(message.contains(said), "{tag}: {message}");
        assert!(held.status.unwrap().held.unwrap().problem.object.ends_with("/web-preview"), "{tag}");
        shop.is_alone().await;
        assert_eq!(untouched(&shop).await, before, "{tag}");
    }
    let counts = load.stop();
    assert_eq!((counts.failed, counts.of("v2")), (0, counts.requests), "{counts:?}");
    assert!(counts.are_good(), "{counts:?}");
}

#[tokio::test]
async fn blue_green_that_fails_after_the_switch_is_switched_back_by_one_change() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::switched_back") else { return };
    let rollout = json!({
        "strategy": "BlueGreen", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "settle": "1s", "scaleDownDelay": "1h", "analysis": analysis(success_rate(plane)),
    });
    let shop = Shop::new(plane, "switched-back", rollout).await;
    let generation = async || shop.route().await["metadata"]["generation"].as_i64().unwrap();
    let (route, before) = (generation().await, untouched(&shop).await);
    let load = Load::start(plane, &shop.host, RATE, &[]);
    // It is ready, and fails when it has traffic: half of its answers are a 500.
    let bad = shop.commit("errors");
    let held = shop.world.wait_for("shop", Phase::Held, &bad).await;
    let counts = load.stop();
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("success-rate"), "{message}");
    assert!(counts.of("errors") > 0, "{counts:?}");
    within("blue-green that fails half of its requests after the switch", counts.failed, 1.0, 0.5, &counts);
    assert_eq!(counts.counts.get("500 v1"), None, "{counts:?}");
    shop.is_alone().await;
    assert_eq!(untouched(&shop).await, before, "the old pods stand as they stood");
    // Named, switched to, switched back, named no more.
    assert_eq!(generation().await, route + 4);
}

#[tokio::test]
async fn a_canary_that_is_measured_well_and_crashes_later_is_taken_back_by_what_is_measured() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::crashes_later") else { return };
    let mut rollout = canary(plane);
    rollout["steps"] = json!([{"weight": 20}, {"analysis": {"count": 2}}, {"pause": "1h"}]);
    let shop = Shop::new(plane, "crashes-later", rollout.clone()).await;
    // Restarts are not what takes it back: they may take minutes to be enough of them.
    shop.world.deliver("shop", json!({"rollout": rollout, "health": {"maxRestarts": 1000}})).await;
    let forgiving =
        |d: &Delivery| d.spec.template.health.as_ref().is_some_and(|h| h.max_restarts == Some(1000));
    shop.world.wait("shop", "bears restarts", forgiving).await;
    let before = untouched(&shop).await;
    let load = Load::start(plane, &shop.host, RATE, &[]);
    let bad = shop.commit("v2");
    let measured_well = |d: &Delivery| {
        let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
        let rollout = attempt.filter(|a| a.revision.commit == bad).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.step == 3)
    };
    shop.world.wait("shop", "was measured well, and waits", measured_well).await;
    let counts = load.so_far();
    assert!(counts.failed == 0 && counts.are_good(), "{counts:?}");
    // From now on its processes die again and again.
    for pod in shop.world.names("v1", "pods").await.iter().filter(|pod| pod.starts_with("web-canary-")) {
        let image = json!("registry.example.com/web:crash");
        let crashes = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": image}]);
        shop.world.patch("v1", "pods", pod, crashes).await;
    }
    let held = shop.world.wait_for("shop", Phase::Held, &bad).await;
    shop.is_alone().await;
    let counts = load.stop();
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("success-rate"), "{message}");
    assert!(counts.of("v2") > 0, "{counts:?}");
    // Without endpoints, all that it gets fails.
    within("canary that crashes later", counts.failed, WEIGHT, 1.0, &counts);
    assert_eq!(untouched(&shop).await, before);
}

#[tokio::test]
async fn a_route_of_others_is_divided_and_given_back_as_it_was() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::route_of_others") else { return };
    let mut world = World::stopped_in(plane.cluster, "others-route").await;
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
    let next = commit("v4");
    world.wait_for("shop", Phase::Paused, &next).await;
    // What somebody does to it meanwhile is seen at once.
    let shares = |route: &Value| {
        let refs = route["spec"]["rules"][1]["backendRefs"].as_array().cloned().unwrap_or_default();
        refs.iter().map(|r| r["weight"].as_i64()).collect::<Vec<_>>()
    };
    let weigh = json!([{"op": "replace", "path": "/spec/rules/1/backendRefs/1/weight", "value": 90}]);
    world.patch(api, routes, "edge", weigh).await;
    let again = "the step's shares stand again";
    world.wait_object(api, routes, "edge", again, |r| shares(r) == [Some(80), Some(20)]).await;
    world.delete(api, routes, "edge").await;
    world
        .wait("shop", "that the route is gone is told", |delivery| {
            condition(delivery, kind::HEALTHY).2.contains("it is not there")
        })
        .await;
    world.space.send("POST", &world.space.path(api, routes), &route).await;
    world.wait_object(api, routes, "edge", again, |r| shares(r) == [Some(80), Some(20)]).await;
    // With the Delivery in the middle of a rollout, too.
    world.delete("windlass.dev/v1alpha1", "repositories", "config").await;
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    world.wait_gone("shop").await;
    assert_eq!(world.get(api, routes, "edge").await["spec"], before["spec"]);
}

#[tokio::test]
async fn a_route_in_another_namespace_needs_a_grant_that_covers_the_candidate() {
    let Some(plane) = plane::shared("a_canary_meets_real_traffic::grants") else { return };
    let edge = plane.space("edge").await;
    let mut world = World::stopped_in(plane.cluster, "grants").await;
    world.limit = std::time::Duration::from_secs(180);
    let _told = plane.told(&world.space);
    world.start();
    let host = format!("{}.test", world.space.name);
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": edge.name},
        "spec": {
            "parentRefs": [plane.parent], "hostnames": [host],
            "rules": [{"backendRefs": [{"name": "web", "namespace": world.space.name, "port": 80}]}],
        },
    });
    let (api, grants) = ("gateway.networking.k8s.io/v1beta1", "referencegrants");
    let grant = json!({
        "apiVersion": api, "kind": "ReferenceGrant", "metadata": {"name": "from-edge"},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": edge.name}],
            "to": [{"group": "", "kind": "Service", "name": "web"}],
        },
    });
    world.space.send("POST", &world.space.path(api, grants), &grant).await;
    let commit = |tag: &str| {
        let files =
            [server("web", tag, 1), service("web", "http"), route.clone()].map(|object| object.to_string());
        world.commit(&format!("The image {tag}"), &[("shop/web.yaml", &files.join("\n---\n"))])
    };
    let good = commit("v1");
    world
        .deliver(
            "shop",
            json!({"retryInterval": "5s", "rollout": {
                "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
                "steps": [{"weight": 20}], "settle": "1s",
            }}),
        )
        .await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let next = commit("v2");
    let refused = world.wait_refused("shop", "ReferenceGrantMissing").await;
    let failure = refused.status.unwrap().failure.unwrap();
    assert!(failure.problem.message.contains("from-edge covers Service web alone"), "{failure:?}");
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"], "before any pod is started");
    let all = json!({"spec": {"to": [{"group": "", "kind": "Service"}]}});
    world.patch(api, grants, "from-edge", all).await;
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
}
