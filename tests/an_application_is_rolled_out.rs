//! A change of an Application reaches traffic as its `rollout` says: step by step, with a candidate beside what runs.

use crate::support::applications::condition_of;
use crate::support::cli::windlass_with;
use crate::support::daemon::World;
use serde_json::{Value, json};
use windlass::api::application::ApplicationPhase;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

/// Half of the pods, and then whoever says go.
fn canary() -> Value {
    json!({"rollout": {"strategy": "Canary", "router": {"replicas": {}}, "steps": [{"weight": 50}, {"pause": {}}]}})
}

async fn paused(world: &World) {
    world
        .wait("web.application", "it is paused", |d| {
            d.status.as_ref().is_some_and(|s| s.phase == Phase::Paused)
        })
        .await;
}

#[tokio::test]
async fn a_canary_stands_beside_what_runs_and_takes_its_place() {
    let world = World::new("app-canary").await;
    world.application("web", "ok", canary()).await;
    world.wait_application_runs("web", "ok").await;
    let before = world.get("apps/v1", "deployments", "web").await;
    world.application("web", "ok2", canary()).await;
    paused(&world).await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web", "web-canary"]);
    let candidate = world.image_of("web-canary").await;
    assert_eq!(candidate, "registry.example.com/web:ok2");
    assert_eq!(
        world.get("apps/v1", "deployments", "web").await["spec"],
        before["spec"],
        "stable is untouched"
    );
    let status = world.wait_application_phase("web", ApplicationPhase::Progressing).await;
    assert_eq!(condition_of(&status, kind::READY).0, "False");
    let (cluster, namespace) = (&world.space.cluster.kubeconfig, world.space.name.as_str());
    let promoted = windlass_with(cluster, &["promote", "web", "-n", namespace, "--wait"]);
    assert_eq!(promoted.code, 0, "{promoted:?}");
    world.wait_application_runs("web", "ok2").await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
}

#[tokio::test]
async fn a_canary_that_breaks_goes_and_what_runs_was_never_touched() {
    let world = World::new("app-canary-breaks").await;
    world.application("web", "ok", canary()).await;
    world.wait_application_runs("web", "ok").await;
    let before = world.get("apps/v1", "deployments", "web").await["metadata"]["generation"].clone();
    world.application("web", "crash", canary()).await;
    let status = world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert!(condition_of(&status, kind::HELD).2.contains("web-canary"), "{status:#?}");
    assert_eq!(world.get("apps/v1", "deployments", "web").await["metadata"]["generation"], before);
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
}

#[tokio::test]
async fn how_a_change_is_rolled_out_comes_with_the_change_and_goes_with_it() {
    let world = World::new("app-canary-comes").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    // Image and rollout in one edit: the image is not put in place by what was said before.
    world.application("web", "ok2", canary()).await;
    paused(&world).await;
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok");
    // Without it what is new is put in place at once.
    world.application("web", "ok3", json!({})).await;
    world.wait_application_runs("web", "ok3").await;
    let delivery = world.deliveries().get("web.application").await.unwrap();
    assert_eq!(delivery.spec.template.rollout, None);
    // What people say in its Delivery is theirs, where the Application says nothing.
    let mut theirs = canary()["rollout"].clone();
    theirs["workload"] = json!({"kind": "Deployment", "name": "web"});
    let patch = json!({"spec": {"rollout": theirs}});
    world.patch("windlass.dev/v1alpha1", "deliveries", "web.application", patch).await;
    world.application("web", "ok4", json!({})).await;
    paused(&world).await;
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok3");
}
