//! An Application whose objects are there already, as somebody else made them.

use crate::support::daemon::World;
use serde_json::{Value, json};
use windlass::api::application::ApplicationPhase;
use windlass::api::condition::kind;

/// A Deployment as it was before anybody thought of an Application.
async fn deployed(world: &World, labels: Value) -> Value {
    let path = world.space.path("apps/v1", "deployments");
    let body = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "registry.example.com/web:ok"}]},
            },
        },
    });
    world.space.send("POST", &path, &body).await
}

#[tokio::test]
async fn a_deployment_with_its_selector_becomes_its_own() {
    let world = World::new("app-adopts").await;
    let labels = json!({"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "web"});
    let before = deployed(&world, labels).await;
    world.application("web", "ok2", json!({})).await;
    world.wait_application_runs("web", "ok2").await;
    let after = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
}

#[tokio::test]
async fn a_delivery_of_its_delivery_s_name_is_nobody_else_s() {
    let world = World::new("app-taken").await;
    let source = json!({"repository": "elsewhere", "path": "web"});
    world.apply("Delivery", "web.application", json!({"spec": {"source": source}})).await;
    world.application("web", "ok", json!({})).await;
    let status = world
        .wait_application("web", "it is told", |s| {
            s.conditions.iter().any(|c| c.type_ == kind::READY && c.reason == "DeliveryNotWritten")
        })
        .await;
    assert_eq!(status.phase, ApplicationPhase::Pending);
    let delivery = world.deliveries().get("web.application").await.unwrap();
    assert_eq!(delivery.spec.source.repository, "elsewhere");
    assert!(delivery.metadata.owner_references.is_none());
    // Once it is out of the way, the Application comes by itself.
    world.delete("windlass.dev/v1alpha1", "deliveries", "web.application").await;
    world.wait_application_runs("web", "ok").await;
}
