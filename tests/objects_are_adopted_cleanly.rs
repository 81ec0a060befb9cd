//! Objects that others made before are taken over: what left Git is really gone, what is others' is left alone.

use crate::support::daemon::{World, config_map, deployment};
use serde_json::{Value, json};
use windlass::api::delivery::{EntryOrigin, Phase};
use windlass::api::names;

/// Makes a ConfigMap as a manager does that creates and updates.
async fn made_by(world: &World, manager: &str, annotations: Value) {
    let path = format!("{}?fieldManager={manager}", world.space.path("v1", "configmaps"));
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "it", "annotations": annotations}, "data": {"key": "1", "left": "Git"},
    });
    world.space.send("POST", &path, &map).await;
}

async fn adopted(manager: &str, annotations: Value) -> Value {
    let world = World::stopped("adopt").await;
    made_by(&world, manager, annotations).await;
    let uid = world.get("v1", "configmaps", "it").await["metadata"]["uid"].clone();
    let mut world = world;
    world.start();
    let commit = world.commit("It", &[("shop/it.yaml", &config_map("it", "2"))]);
    world.deliver("shop", json!({})).await;
    let delivery = world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(delivery.status.unwrap().inventory[0].origin, EntryOrigin::Adopted);
    let it = world.get("v1", "configmaps", "it").await;
    assert_eq!(it["metadata"]["uid"], uid, "it is the same object");
    assert!(it["metadata"]["labels"][names::DELIVERY_LABEL].is_string());
    // And what leaves Git later goes as well.
    let empty = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: it}\ndata: {other: \"3\"}\n";
    let next = world.commit("Another key", &[("shop/it.yaml", empty)]);
    world.wait_for("shop", Phase::Ready, &next).await;
    let later = world.get("v1", "configmaps", "it").await;
    assert!(later["data"]["key"].is_null(), "{later}");
    it
}

#[tokio::test]
async fn made_by_kubectl_apply() {
    let last = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "it"}, "data": {"key": "1", "left": "Git"}});
    let notes = json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    let it = adopted("kubectl-client-side-apply", notes).await;
    assert_eq!(it["data"], json!({"key": "2"}));
}

#[tokio::test]
async fn made_by_kubectl_create_and_edit() {
    assert_eq!(adopted("kubectl-create", json!({})).await["data"], json!({"key": "2"}));
    assert_eq!(adopted("kubectl-edit", json!({})).await["data"], json!({"key": "2"}));
}

#[tokio::test]
async fn made_by_helm() {
    let notes = json!({"meta.helm.sh/release-name": "it", "meta.helm.sh/release-namespace": "shop"});
    assert_eq!(adopted("helm", notes).await["data"], json!({"key": "2"}));
}

#[tokio::test]
async fn what_a_controller_wrote_is_left_alone() {
    let it = adopted("some-controller", json!({"example.com/note": "theirs"})).await;
    assert_eq!(it["data"], json!({"key": "2", "left": "Git"}));
    assert_eq!(it["metadata"]["annotations"]["example.com/note"], "theirs");
}

#[tokio::test]
async fn replicas_that_git_does_not_name_belong_to_the_autoscaler() {
    let world = World::new("replicas").await;
    let web = deployment("web", "ok", 1).replace("  replicas: 1\n", "");
    let first = world.commit("Without replicas", &[("shop/web.yaml", &web)]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    world.patch("apps/v1", "deployments", "web", json!({"spec": {"replicas": 3}})).await;
    let second = world.commit("Another image", &[("shop/web.yaml", &web.replace(":ok", ":new"))]);
    let delivery = world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(delivery.status.unwrap().drift, Some(0));
    assert_eq!(world.get("apps/v1", "deployments", "web").await["spec"]["replicas"], 3);
}

#[tokio::test]
async fn what_was_edited_by_hand_and_then_left_git_is_gone() {
    let world = World::new("edited").await;
    let both = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: it}\ndata: {key: \"1\", other: \"1\"}\n";
    let first = world.commit("Two", &[("shop/it.yaml", both)]);
    world.deliver("shop", json!({"drift": {"mode": "Report"}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    // The same manager as `kubectl edit`: it owns the field besides us from now on.
    let path = format!("{}/it?fieldManager=kubectl-edit", world.space.path("v1", "configmaps"));
    world.space.send("PATCH", &path, &json!({"data": {"other": "2"}})).await;
    let second = world.commit("One", &[("shop/it.yaml", &config_map("it", "1"))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(world.get("v1", "configmaps", "it").await["data"], json!({"key": "1"}));
}
