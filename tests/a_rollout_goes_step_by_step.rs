//! A revision that changes pods meets traffic step by step, beside what runs, and takes its place or goes without a trace.

use crate::support::cli::windlass_with;
use crate::support::daemon::{World, config_map};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::{Outcome, Phase};

const APPS: &str = "apps/v1";

pub fn web(tag: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web, tier: front}}}}\n  template:\n    \
         metadata: {{labels: {{app: web, tier: front}}}}\n    spec:\n      containers:\n      - name: app\n        \
         image: \"registry.example.com/web:{tag}\"\n        envFrom: [{{configMapRef: {{name: settings}}}}]\n"
    )
}

pub fn service(selector: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  selector: {{{selector}}}\n  ports: [{{port: 80}}]\n"
    )
}

pub async fn deployed(test: &str, selector: &str, rollout: Value) -> (World, String) {
    let world = World::new(test).await;
    let good = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service(selector)),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    world.deliver("shop", json!({"rollout": rollout})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

pub fn blue_green() -> Value {
    json!({
        "strategy": "BlueGreen", "workload": {"name": "web"}, "router": {"service": {"name": "web"}},
        "steps": [{"pause": {}}], "settle": "300ms", "scaleDownDelay": "300ms",
    })
}

pub fn canary(steps: Value) -> Value {
    json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"replicas": {}}, "steps": steps,
        "settle": "300ms",
    })
}

pub async fn deployment(world: &World, name: &str) -> Value {
    world.get(APPS, "deployments", name).await
}

pub fn image(deployment: &Value) -> &str {
    deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn blue_green_tests_a_copy_switches_once_and_leaves_nothing() {
    let (world, good) = deployed("blue-green", "app: web, tier: front", blue_green()).await;
    let before = deployment(&world, "web").await;
    let next = world.commit(
        "Second version, red",
        &[
            ("shop/web.yaml", &web("ok2", 2)),
            ("shop/settings.yaml", &config_map("settings", "red")),
            ("shop/more.yaml", &config_map("more", "1")),
        ],
    );
    let paused = world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(paused.status.as_ref().unwrap().effective.as_ref().unwrap().commit, good);
    let preview = deployment(&world, "web-preview").await;
    assert_eq!(image(&preview), "registry.example.com/web:ok2");
    assert_eq!(preview["status"]["readyReplicas"], 2);
    let stable = deployment(&world, "web").await;
    assert_eq!(stable["spec"], before["spec"], "stable is untouched");
    assert_eq!(stable["metadata"]["uid"], before["metadata"]["uid"]);
    // The copy reads its own configuration, and what only promotion brings is not there.
    let copy = world.get("v1", "configmaps", "settings-preview").await;
    assert_eq!(copy["data"]["key"], "red");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
    assert_eq!(world.get("v1", "configmaps", "more").await, Value::Null);
    let selects = |service: &Value| service["spec"]["selector"].clone();
    let named = world.get("v1", "services", "web").await;
    assert_eq!(selects(&named), json!({"app": "web", "tier": "front"}));
    let own = world.get("v1", "services", "web-preview").await;
    assert_ne!(selects(&own), selects(&named));
    let shown = windlass_with(&world.space.cluster.kubeconfig, &["rollout", "shop", "-n", &world.space.name]);
    assert_eq!(shown.code, 1, "{shown:?}");
    assert!(shown.out.contains("until a person says go"), "{shown:?}");

    let promoted = windlass_with(
        &world.space.cluster.kubeconfig,
        &["promote", "shop", "-n", &world.space.name, "--wait"],
    );
    assert!(promoted.code == 0, "{promoted:?}");
    let ready = world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(ready.status.unwrap().history[0].outcome, Outcome::Deployed);
    let stable = deployment(&world, "web").await;
    assert_eq!(image(&stable), "registry.example.com/web:ok2");
    assert_eq!(stable["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(selects(&world.get("v1", "services", "web").await), json!({"app": "web", "tier": "front"}));
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
    assert_eq!(world.names("v1", "configmaps").await, ["more", "settings"]);
    world.wait_event("shop", "Promoted").await;
}

#[tokio::test]
async fn a_canary_that_breaks_goes_and_stable_was_never_touched() {
    let rollout = canary(json!([{"weight": 30}, {"pause": "1h"}]));
    let (world, good) = deployed("canary-breaks", "app: web", rollout).await;
    let before = deployment(&world, "web").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &web("crash", 2))]);
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, good);
    assert!(held.held.unwrap().problem.object.ends_with("/web-canary"));
    let after = deployment(&world, "web").await;
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    assert!(held.inventory.iter().all(|e| !e.candidate && !e.stale));
}

#[tokio::test]
async fn a_newer_commit_takes_the_place_of_one_that_is_rolled_out() {
    let rollout = canary(json!([{"weight": 30}, {"pause": {}}]));
    let (world, _) = deployed("canary-newer", "app: web", rollout).await;
    let second = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Paused, &second).await;
    let third = world.commit("Third", &[("shop/web.yaml", &web("ok3", 2))]);
    let status = world.wait_for("shop", Phase::Paused, &third).await.status.unwrap();
    assert!(status.held.is_none());
    assert!(status.history.iter().any(|h| h.revision.commit == second && h.outcome == Outcome::Superseded));
    assert_eq!(image(&deployment(&world, "web-canary").await), "registry.example.com/web:ok3");
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");
    // A commit that changes no pods is no rollout, and going back to what runs ends one.
    let back = world.commit(
        "As it was, with more",
        &[("shop/web.yaml", &web("ok", 3)), ("shop/more.yaml", &config_map("more", "1"))],
    );
    world.wait_for("shop", Phase::Ready, &back).await;
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    assert_eq!(deployment(&world, "web").await["spec"]["replicas"], 3);
}

#[tokio::test]
async fn a_rollout_that_cannot_be_is_refused_before_any_pod_is_started() {
    let rollout = json!({
        "strategy": "BlueGreen", "workload": {"name": "web"}, "router": {"service": {"name": "wbe"}},
    });
    let (world, good) = deployed("canary-refused", "app: web, tier: front", rollout).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    // What may pass by itself, such as a server that is slow to answer, is told as well.
    let refused = |d: &Delivery| {
        let failure = d.status.as_ref().filter(|s| s.phase == Phase::Failed).and_then(|s| s.failure.as_ref());
        failure.is_some_and(|f| !f.transient)
    };
    let status = world.wait("shop", "it is refused", refused).await.status.unwrap();
    let failure = status.failure.unwrap();
    assert!(failure.problem.message.contains("wbe"), "{failure:?}");
    assert_eq!(failure.revision.unwrap().commit, next);
    assert_eq!(status.effective.unwrap().commit, good);
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
}

#[tokio::test]
async fn pods_restart_with_the_configuration_that_they_read_once_it_changes() {
    let (world, _) = deployed("config-restarts", "app: web, tier: front", json!({})).await;
    let template = |web: &Value| web["spec"]["template"].clone();
    let adopted = template(&deployment(&world, "web").await);
    assert_eq!(adopted["metadata"]["annotations"], Value::Null, "nothing is written before anything changed");
    let red = world.commit("Red", &[("shop/settings.yaml", &config_map("settings", "red"))]);
    world.wait_for("shop", Phase::Ready, &red).await;
    let first = template(&deployment(&world, "web").await);
    assert!(first["metadata"]["annotations"]["windlass.dev/config"].is_string(), "{first}");
    // Others' configuration, and a second change.
    let other = world.commit("Other", &[("shop/other.yaml", &config_map("other", "1"))]);
    world.wait_for("shop", Phase::Ready, &other).await;
    assert_eq!(template(&deployment(&world, "web").await), first);
    let green = world.commit("Green", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    let ready = world.wait_for("shop", Phase::Ready, &green).await;
    assert_ne!(template(&deployment(&world, "web").await), first);
    assert_eq!(ready.status.unwrap().drift, Some(0));
}
