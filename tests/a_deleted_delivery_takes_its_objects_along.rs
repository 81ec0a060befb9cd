//! A Delivery that is deleted removes its objects in reverse, or leaves them where it says so, and never hangs.

use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use serde_json::json;
use windlass::api::delivery::Phase;
use windlass::api::names;

async fn by_hand(test: &str, more: serde_json::Value) -> World {
    let world = World::new(test).await;
    let commit = world.commit(
        "It",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 1)),
            ("shop/settings.yaml", &config_map("settings", "1")),
        ],
    );
    world.repository(json!({})).await;
    world.deliver_by_hand("shop", "shop", more).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    world
}

async fn remove(world: &World) {
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    world.wait_gone("shop").await;
}

#[tokio::test]
async fn in_reverse_order_also_without_its_repository() {
    let world = by_hand("delete", json!({})).await;
    world.delete("windlass.dev/v1alpha1", "repositories", "config").await;
    let audit = world.space.cluster.audit();
    remove(&world).await;
    let removed: Vec<_> =
        world.writes(&audit).into_iter().filter(|r| r.verb == "delete").map(|r| r.resource).collect();
    assert_eq!(removed, ["deployments", "configmaps"]);
    assert!(world.names("v1", "configmaps").await.is_empty());
    assert!(world.names("apps/v1", "deployments").await.is_empty());
}

#[tokio::test]
async fn with_a_repository_that_cannot_be_read() {
    let world = by_hand("broken", json!({})).await;
    world.repository(json!({"url": "/nowhere/at/all"})).await;
    remove(&world).await;
    assert!(world.names("v1", "configmaps").await.is_empty());
}

#[tokio::test]
async fn orphans_keep_nothing_of_ours() {
    let world = by_hand("orphan", json!({"deletionPolicy": "Orphan"})).await;
    remove(&world).await;
    for (version, plural, name) in [("v1", "configmaps", "settings"), ("apps/v1", "deployments", "web")] {
        let left = world.get(version, plural, name).await;
        assert!(left.is_object(), "{name} stays");
        assert!(left["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "{left}");
        let managers = left["metadata"]["managedFields"].as_array();
        assert!(!managers.into_iter().flatten().any(|m| m["manager"] == names::FIELD_MANAGER), "{left}");
    }
}

#[tokio::test]
async fn with_an_account_that_may_do_nothing_any_more() {
    let world = World::new("account").await;
    let rules = json!([{"apiGroups": ["", "apps"], "resources": ["configmaps", "deployments"],
        "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"]}]);
    world.space.account("deployer", rules).await;
    let commit = world.commit("It", &[("shop/it.yaml", &config_map("it", "1"))]);
    world.repository(json!({})).await;
    world.deliver_by_hand("shop", "shop", json!({"serviceAccountName": "deployer"})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    world.delete("v1", "serviceaccounts", "deployer").await;
    let bindings = world.space.path("rbac.authorization.k8s.io/v1", "rolebindings");
    world.space.send("DELETE", &bindings, &serde_json::Value::Null).await;
    // The server decides by what it has heard of bindings itself.
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": format!("system:serviceaccount:{}:deployer", world.space.name),
        "resourceAttributes": {"namespace": world.space.name, "verb": "delete", "resource": "configmaps"},
    }});
    wait_until("its rights are gone", LIMIT, || async {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = world.space.send("POST", path, &review).await;
        if answer["status"]["allowed"] == false { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    remove(&world).await;
    assert_eq!(world.names("v1", "configmaps").await, ["it"], "it stays, since nobody may remove it");
    let text = world.wait_event("shop", "Orphaned").await;
    assert!(text.contains("ConfigMap") && text.contains("1 object"), "{text}");
}
