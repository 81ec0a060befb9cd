//! `windlass endpoints` tells who serves for a Delivery or an Application: each endpoint by variant, and the policy in force.

use crate::a_mesh_is_steered_by_its_hosts::meshed;
use crate::a_rollout_goes_step_by_step::{service, web};
use crate::support::cli::{Answer, Watching, windlass};
use crate::support::cluster::wait_until;
use crate::support::daemon::{World, config_map};
use crate::support::gateway::know_routes;
use serde_json::{Value, json};
use windlass::api::application::ApplicationPhase;
use windlass::api::delivery::Phase;

fn endpoints(world: &World, arguments: &[&str]) -> Answer {
    windlass(&world.space, &[&["endpoints", "-n", &world.space.name], arguments].concat())
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e}: {answer:?}"))
}

/// Waits until what is told is as wanted: endpoints follow pods a moment later.
async fn wait(world: &World, what: &str, name: &str, is: impl Fn(&Value) -> bool) -> (Value, i32) {
    wait_until(what, world.limit, || async {
        let answer = endpoints(world, &[name, "-o", "json"]);
        let told = parsed(&answer);
        if is(&told) { Ok((told, answer.code)) } else { Err(format!("{told:#}")) }
    })
    .await
}

fn count(told: &Value, variant: &str, service: &str) -> usize {
    let all = told["endpoints"].as_array().unwrap();
    all.iter().filter(|e| e["variant"] == variant && e["service"] == service && e["ready"] == true).count()
}

#[tokio::test]
async fn each_variant_of_a_rollout_with_its_share() {
    let rollout = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"istio": {"virtualService": "web"}}, "settle": "300ms",
        "steps": [{"weight": 20}, {"pause": {}}],
    });
    let (_alone, world) = meshed("served").await;
    let first = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    world.deliver("shop", json!({"rollout": rollout})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let (told, code) =
        wait(&world, "both pods serve", "shop", |told| count(told, "stable", "web") == 2).await;
    assert_eq!(code, 0, "{told:#}");
    let one = &told["endpoints"][0];
    assert!(one["pod"].as_str().unwrap().starts_with("web-") && one["node"].is_string(), "{told:#}");
    assert_eq!(one["terminating"], false);
    assert!(told["policies"].as_array().unwrap().is_empty(), "{told:#}");

    world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world
        .wait("shop", "a person is asked", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Paused))
        .await;
    let both =
        |told: &Value| count(told, "stable", "web") == 2 && count(told, "candidate", "web-canary") == 2;
    let (told, code) = wait(&world, "the candidate serves, too", "shop", both).await;
    assert_eq!(code, 0, "{told:#}");
    let backends = &told["policies"][0]["rules"][0]["backends"];
    let shares: Vec<(&Value, &Value)> =
        backends.as_array().unwrap().iter().map(|b| (&b["variant"], &b["percent"])).collect();
    assert_eq!(shares, [(&json!("stable"), &json!(80.0)), (&json!("candidate"), &json!(20.0))], "{told:#}");
    let table = endpoints(&world, &["shop"]);
    assert!(table.out.contains("web 80% (stable), web-canary 20% (candidate)"), "{table:?}");

    // A pod that ends is told as long as it is there.
    let mut watching = Watching::of(&world, &["endpoints", "shop", "-n", &world.space.name, "--watch"]);
    let four = |screen: &str| screen.matches("   ready").count() == 4;
    watching.screen("VARIANT", "four that are ready", four).await;
    assert_eq!(windlass(&world.space, &["abort", "shop", "-n", &world.space.name]).code, 0);
    let two = |screen: &str| screen.matches("   ready").count() == 2 && !screen.contains("candidate");
    watching.screen("VARIANT", "that the candidate went", two).await;
    assert_eq!(watching.interrupt().await, Some(0));
}

#[tokio::test]
async fn an_application_with_what_is_asked_for_and_not_in_force() {
    know_routes().await;
    let world = World::new("servedapp").await;
    let more = json!({
        "expose": {"host": "web.example.com", "gateway": {"name": "public"}},
        "traffic": {"timeout": "10s", "retries": {"attempts": 3, "perTryTimeout": "2s"}, "loadBalancer": "leastRequest"},
    });
    world.application("web", "unready", more).await;
    let idle =
        |told: &Value| told["endpoints"].as_array().unwrap().len() == 2 && told["policies"][0].is_object();
    let (told, code) = wait(&world, "its pods are told", "web", idle).await;
    assert_eq!((code, &told["idle"]), (1, &json!(["web"])), "{told:#}");
    assert!(told["endpoints"][0]["ready"] == false && told["endpoints"][0]["node"].is_string(), "{told:#}");
    let route = &told["policies"][0];
    assert_eq!(route["object"], format!("HTTPRoute {}/web", world.space.name));
    assert_eq!(route["rules"][0]["says"], json!({"timeout": "10s"}));
    let left_out = told["notInForce"][0].as_str().unwrap();
    assert!(left_out.starts_with("spec.traffic.loadBalancer, spec.traffic.retries cannot"), "{told:#}");
    let table = endpoints(&world, &["application", "web"]);
    assert!(table.code == 1 && table.out.contains("Service web has none that is ready"), "{table:?}");
    assert!(table.out.contains("not in force: spec.traffic.loadBalancer"), "{table:?}");
}

#[tokio::test]
async fn an_application_as_it_grows_and_goes_back() {
    let world = World::new("servedgrow").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    let mut watching = Watching::of(&world, &["endpoints", "web", "-n", &world.space.name, "--watch"]);
    let ready = |count: usize| move |screen: &str| screen.matches("   ready").count() == count;
    watching.screen("VARIANT", "two that are ready", ready(2)).await;
    world.application("web", "ok", json!({"replicas": 3})).await;
    watching.screen("VARIANT", "three that are ready", ready(3)).await;
    // A fourth comes, and is never ready.
    world.application("web", "crash", json!({"replicas": 3})).await;
    let beside = |screen: &str| ready(3)(screen) && screen.contains("not ready");
    watching.screen("VARIANT", "one more that is not ready", beside).await;
    world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(watching.interrupt().await, Some(0));
    let alone = |told: &Value| told["endpoints"].as_array().unwrap().len() == 3;
    let (told, code) = wait(&world, "three endpoints, and no other", "web", alone).await;
    assert_eq!((code, count(&told, "stable", "web")), (0, 3), "{told:#}");
}
