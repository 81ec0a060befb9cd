//! An Application whose objects are there already, as somebody else made them.

use crate::support::applications::condition_of;
use crate::support::daemon::World;
use serde_json::{Value, json};
use windlass::api::application::ApplicationPhase;
use windlass::api::condition::kind;
use windlass::core::application::{expand, read};
use windlass::core::manifest::Origin;

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

fn labels() -> Value {
    json!({"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "web"})
}

async fn pods(world: &World) -> Vec<String> {
    let path = world.space.path("v1", "pods");
    let all = world.space.send("GET", &path, &Value::Null).await;
    let uids = all["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["uid"].to_string());
    uids.collect()
}

/// Just what an Application becomes, written by somebody else, with another number of pods and a label of its own.
pub async fn as_expanded(world: &World) -> Value {
    let document = json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Application", "metadata": {"name": "web"},
        "spec": {"image": "registry.example.com/web:ok", "port": 8080, "replicas": 1},
    });
    let expansion = expand(&read(&document).unwrap(), &Origin::default()).unwrap();
    let deployment = expansion.objects.iter().find(|object| object.gvk().kind == "Deployment").unwrap();
    let mut deployment = deployment.to_value();
    deployment["metadata"]["labels"]["team"] = json!("shop");
    world.space.send("POST", &world.space.path("apps/v1", "deployments"), &deployment).await
}

#[tokio::test]
async fn a_deployment_whose_pods_would_be_replaced_is_left_alone_until_somebody_says_so() {
    let world = World::new("app-adopts").await;
    let before = deployed(&world, labels()).await;
    world.application("web", "ok2", json!({})).await;
    let status = world
        .wait_application("web", "it is told", |s| {
            s.conditions.iter().any(|c| c.type_ == kind::READY && c.reason == "PodsWouldRestart")
        })
        .await;
    let message = condition_of(&status, kind::READY).2;
    let image = "spec.template.spec.containers[name=web].image is registry.example.com/web:ok and would be \
                 registry.example.com/web:ok2";
    assert!(message.contains(image) && message.contains("adopt: Restart"), "{message}");
    let told = world.wait_application_event("web", "PodsWouldRestart").await;
    assert!(told.contains(image), "{told}");
    assert_eq!(condition_of(&status, kind::DEGRADED), ("True".into(), "RolloutRefused".into(), message));
    let there = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(there["metadata"]["generation"], before["metadata"]["generation"]);
    assert_eq!(there["metadata"]["labels"], Value::Null, "nothing of it is touched");
    assert_eq!(world.get("v1", "services", "web").await, Value::Null, "nothing else is begun");
    world.application("web", "ok2", json!({"adopt": "Restart"})).await;
    world.wait_application_runs("web", "ok2").await;
    let after = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
}

#[tokio::test]
async fn a_deployment_with_the_same_pods_becomes_its_own_and_none_of_them_ends() {
    let world = World::new("app-adopts-same").await;
    let before = as_expanded(&world).await;
    world
        .wait_object("apps/v1", "deployments", "web", "its pod runs", |d| {
            d["status"]["availableReplicas"] == 1
        })
        .await;
    let its_pods = pods(&world).await;
    world.application("web", "ok", json!({})).await;
    let status = world.wait_application_runs("web", "ok").await;
    assert_eq!(status.available_replicas, Some(2));
    let after = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["labels"]["team"], "shop", "what others say of it stays");
    let now = pods(&world).await;
    assert!(now.len() == 2 && its_pods.iter().all(|uid| now.contains(uid)), "{its_pods:?}, now {now:?}");
    // It is the Application's own now, and a change of it replaces pods as ever.
    world.application("web", "ok2", json!({})).await;
    world.wait_application_runs("web", "ok2").await;
}

#[tokio::test]
async fn a_deployment_that_selects_its_pods_otherwise_is_never_taken() {
    let world = World::new("app-selects").await;
    let before = deployed(&world, json!({"app": "web"})).await;
    world
        .wait_object("apps/v1", "deployments", "web", "its pod runs", |d| {
            d["status"]["availableReplicas"] == 1
        })
        .await;
    let its_pods = pods(&world).await;
    for adopt in ["KeepPods", "Restart"] {
        world.application("web", "ok", json!({"adopt": adopt})).await;
        let status = world
            .wait_application("web", "it is told", |s| {
                s.conditions.iter().any(|c| c.type_ == kind::READY && c.message.contains("spec.selector"))
            })
            .await;
        let (ready, reason, message) = condition_of(&status, kind::READY);
        assert_eq!((ready.as_str(), reason.as_str()), ("False", "ImmutableField"), "{adopt}: {message}");
        assert!(
            message.contains("Deployment") && message.contains("cannot be changed"),
            "{adopt}: {message}"
        );
        assert_eq!(condition_of(&status, kind::DEGRADED).1, "RolloutRefused", "{adopt}");
        assert_eq!(status.phase, ApplicationPhase::Pending, "{adopt}");
        let there = world.get("apps/v1", "deployments", "web").await;
        assert_eq!(there["metadata"]["uid"], before["metadata"]["uid"], "{adopt}");
        assert_eq!(there["metadata"]["generation"], before["metadata"]["generation"], "{adopt}");
        assert_eq!(there["metadata"]["labels"], Value::Null, "{adopt}: nothing of it is touched");
        assert_eq!(world.get("v1", "services", "web").await, Value::Null, "{adopt}: nothing else is begun");
        assert_eq!(pods(&world).await, its_pods, "{adopt}");
    }
    // Under another name it is no matter.
    world.application("shop", "ok", json!({})).await;
    world.wait_application_runs("shop", "ok").await;
    assert_eq!(
        world.get("apps/v1", "deployments", "web").await["metadata"]["uid"],
        before["metadata"]["uid"]
    );
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
