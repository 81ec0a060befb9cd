//! A promotion fails, and the last good revision does not become healthy again either: the candidate keeps all traffic, for its
//! pods are those that are well, and `RollbackFailed` is said until somebody helps or a newer commit comes.

use crate::a_rollout_goes_step_by_step::{deployment, image, service, web};
use crate::support::daemon::{World, condition, config_map};
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::open_gates;
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::{Outcome, Phase};
use windlass::api::rollout::Stage;

/// The last good revision: its pods are ready when the test lets them through.
fn gated() -> String {
    let gates = "      readinessGates: [{conditionType: example.com/open}]\n      containers:";
    web("ok", 2).replace("      containers:", gates)
}

/// A world in which neither revision is healthy under the names of Git, and the candidate is. The commits of both.
async fn stuck(test: &str) -> (World, Controller, String, String) {
    know_routes().await;
    let mut world = World::stopped(test).await;
    let controller = Controller::of(&world);
    world.start();
    let good = world.commit(
        "Good",
        &[
            ("shop/web.yaml", &gated()),
            ("shop/service.yaml", &service("app: web")),
            ("shop/route.yaml", &route().to_string()),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    let policy = json!({"rollout": {
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 30}], "settle": "300ms",
    }});
    world.deliver("shop", policy.clone()).await;
    for _ in 0..2 {
        open_gates(&world).await;
    }
    world.wait_for("shop", Phase::Ready, &good).await;

    let worker = crate::support::daemon::deployment("worker", "unready", 1);
    let bad = world.commit(
        "Bad",
        &[
            ("shop/web.yaml", &web("ok2", 2)),
            ("shop/settings.yaml", &config_map("settings", "red")),
            ("shop/worker.yaml", &worker),
        ],
    );
    let promoting = |d: &Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.stage == Stage::Promoting)
    };
    world.wait("shop", "is promoted", promoting).await;
    let whole = |d: &Value| image(d).ends_with("web:ok2") && d["status"]["updatedReplicas"] == 2;
    world.wait_object("apps/v1", "deployments", "web", "has the new template", whole).await;
    // From here on nothing is to be healthy in its time but the newer commit of a test.
    world.give_time(5, policy).await;
    let runs = |d: &Value| d["status"]["replicas"] == 1;
    world.wait_object("apps/v1", "deployments", "worker", "has its pod", runs).await;
    for pod in world.names("v1", "pods").await.iter().filter(|pod| pod.starts_with("worker-")) {
        let image = json!("registry.example.com/worker:crash");
        let breaks = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": image}]);
        world.patch("v1", "pods", pod, breaks).await;
    }
    let failed = |d: &Delivery| d.status.as_ref().is_some_and(|s| s.phase == Phase::RollbackFailed);
    let delivery = world.wait("shop", "cannot be brought back", failed).await;
    let (ready, reason, message) = condition(&delivery, kind::READY);
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "RollbackFailed"));
    assert!(message.contains("Deployment") && message.contains("/web"), "{message}");
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good);
    world.wait_event("shop", "RollbackFailed").await;
    // The candidate is whole, and has all traffic.
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(100));
    let candidate = deployment(&world, "web-canary").await;
    assert_eq!(
        (image(&candidate), &candidate["status"]["readyReplicas"]),
        ("registry.example.com/web:ok2", &json!(2))
    );
    (world, controller, good, bad)
}

async fn alone(world: &World, tag: &str, key: &str) {
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
    assert_eq!(world.names("v1", "configmaps").await, ["settings"]);
    assert_eq!(image(&deployment(world, "web").await), format!("registry.example.com/web:{tag}"));
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], key);
    assert_eq!(world.get(GATEWAY, ROUTES, "web").await["spec"], route()["spec"]);
}

#[tokio::test]
async fn until_somebody_helps() {
    let (world, _controller, good, bad) = stuck("rollback-stuck").await;
    // One after the other, as the workload replaces its pods.
    for _ in 0..2 {
        open_gates(&world).await;
    }
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, good);
    let outcomes: Vec<Outcome> = held.history.iter().map(|h| h.outcome).collect();
    assert_eq!(outcomes, [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed]);
    alone(&world, "ok", "blue").await;
}

#[tokio::test]
async fn until_a_newer_commit_comes() {
    let (world, _controller, _, _) = stuck("rollback-newer").await;
    // It may take its time again.
    let policy = world.deliveries().get("shop").await.unwrap().spec.template.rollout;
    world.give_time(180, json!({"rollout": policy})).await;
    let newer = world.commit("Mended", &[("shop/web.yaml", &web("ok3", 2)), ("shop/worker.yaml", "")]);
    let ready = world.wait_for("shop", Phase::Ready, &newer).await.status.unwrap();
    assert!(ready.held.is_none());
    assert_eq!(ready.history[0].outcome, Outcome::Deployed);
    alone(&world, "ok3", "red").await;
}
