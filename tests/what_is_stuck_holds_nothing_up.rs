//! What left Git and is held by somebody's finalizer keeps neither a revision that breaks from being rolled back, nor the rest of
//! that rollback from being done.

use crate::a_rollback_is_complete::crash;
use crate::support::daemon::{World, config_map, deployment};
use serde_json::{Value, json};
use windlass::api::delivery::{Outcome, Phase, Step};

fn image(web: &Value) -> &Value {
    &web["spec"]["template"]["spec"]["containers"][0]["image"]
}

#[tokio::test]
async fn what_breaks_while_a_prune_is_stuck_goes_back_at_once() {
    let world = World::new("stuck").await;
    let good = world.commit(
        "Good",
        &[("shop/web.yaml", &deployment("web", "ok", 1)), ("shop/old.yaml", &config_map("old", "1"))],
    );
    world.deliver("shop", json!({"retryInterval": "1s"})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    world.patch("v1", "configmaps", "old", json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    let bad = world.commit(
        "Breaks after a while",
        &[
            ("shop/web.yaml", &deployment("web", "two", 1)),
            ("shop/old.yaml", ""),
            ("shop/new.yaml", &config_map("new", "1")),
        ],
    );
    world
        .wait("shop", "was healthy, and is stuck", |d| {
            let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
            attempt.is_some_and(|a| a.revision.commit == bad && a.step == Step::Pruning)
        })
        .await;
    crash(&world, "registry.example.com/web:two").await;
    world
        .wait_object("apps/v1", "deployments", "web", "is back", |web| {
            image(web) == "registry.example.com/web:ok"
        })
        .await;
    let old = world.get("v1", "configmaps", "old").await;
    assert!(old["metadata"]["deletionTimestamp"].is_string(), "it is held still: {old}");
    world.patch("v1", "configmaps", "old", json!({"metadata": {"finalizers": null}})).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(status.held.unwrap().problem.reason, "CrashLoopBackOff");
    let outcomes: Vec<Outcome> = status.history.iter().map(|h| h.outcome).collect();
    assert_eq!(outcomes, [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed]);
    assert_eq!(world.names("v1", "configmaps").await, ["old"]);
    assert!(world.get("v1", "configmaps", "old").await["metadata"]["deletionTimestamp"].is_null());
}
