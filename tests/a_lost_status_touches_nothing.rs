//! A Delivery whose status was lost, in a restore from a backup or by somebody's hand, neither changes nor removes what
//! carries its label until a person says that it is its own.

use crate::support::cli::windlass_with;
use crate::support::daemon::{World, condition, config_map, deployment};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::names;

const DELIVERY: (&str, &str) = ("windlass.dev/v1alpha1", "deliveries");

async fn deployed(test: &str) -> World {
    let world = World::new(test).await;
    let commit = world.commit(
        "First",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 1)),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/old.yaml", &config_map("old", "1")),
        ],
    );
    world.repository(json!({})).await;
    world.deliver_by_hand("shop", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    world
}

/// Empties the status, as a restore without it does.
pub async fn lose_status(world: &World) {
    // Whatever a daemon writes at the same time.
    let empty = json!([{"op": "replace", "path": "/status", "value": {}}]);
    world.patch(DELIVERY.0, DELIVERY.1, "shop/status", empty).await;
}

async fn told(world: &World) -> String {
    let delivery = world.wait_refused("shop", "InventoryLost").await;
    let (status, reason, message) = condition(&delivery, kind::READY);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InventoryLost"), "{message}");
    assert_eq!(condition(&delivery, kind::STALLED).0, "True");
    message
}

/// `windlass adopt shop --wait`: exit code and what it said.
async fn adopt(world: &World) -> (i32, String) {
    let kubeconfig = world.space.cluster.kubeconfig.clone();
    let namespace = world.space.name.clone();
    tokio::task::spawn_blocking(move || {
        let answer = windlass_with(
            &kubeconfig,
            &["adopt", "shop", "--namespace", &namespace, "--wait", "--timeout", "3m"],
        );
        (answer.code, answer.out + &answer.err)
    })
    .await
    .unwrap()
}

fn label_of(object: &Value) -> Value {
    object["metadata"]["labels"][names::DELIVERY_LABEL].clone()
}

#[tokio::test]
async fn a_person_says_whose_the_objects_are() {
    let mut world = deployed("lost").await;
    world.kill();
    lose_status(&world).await;
    let changed = world.commit(
        "Changed, and one left Git",
        &[("shop/settings.yaml", &config_map("settings", "red")), ("shop/old.yaml", "")],
    );
    let audit = world.space.cluster.audit();
    world.restart().await;
    let message = told(&world).await;
    let namespace = world.space.name.clone();
    for words in [
        format!("Deployment {namespace}/web"),
        format!("ConfigMap {namespace}/settings"),
        format!("not in its source: ConfigMap {namespace}/old"),
        "windlass adopt shop".into(),
    ] {
        assert!(message.contains(&words), "{words}: {message}");
    }
    assert!(!message.contains("kube-root-ca"), "{message}");
    let event = world.wait_event("shop", "InventoryLost").await;
    assert!(event.contains("ConfigMap") && event.contains("nothing was changed"), "{event}");
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));

    let uid = world.get("apps/v1", "deployments", "web").await["metadata"]["uid"].clone();
    let (code, said) = adopt(&world).await;
    assert_eq!(code, 0, "{said}");
    world.wait_for("shop", Phase::Ready, &changed).await;
    world.wait_event("shop", "Adopted").await;
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "red");
    assert_eq!(world.get("apps/v1", "deployments", "web").await["metadata"]["uid"], uid);
    // Nobody knows any more whether it was there before: it stays, and is nobody's.
    let old = world.get("v1", "configmaps", "old").await;
    assert_eq!((&old["data"]["key"], label_of(&old)), (&json!("1"), Value::Null), "{old}");

    // What was said is about that loss only.
    let (code, said) = adopt(&world).await;
    assert!(code == 2 && said.contains("has lost nothing"), "{said}");
    world
        .wait_object(DELIVERY.0, DELIVERY.1, "shop", "what was said is taken off", |d| {
            d["metadata"]["annotations"][names::ADOPT].is_null()
        })
        .await;
    // Also under a daemon that runs.
    let audit = world.space.cluster.audit();
    lose_status(&world).await;
    told(&world).await;
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));
    // The Delivery may go; what it does not know of stays.
    world.delete(DELIVERY.0, DELIVERY.1, "shop").await;
    world.wait_gone("shop").await;
    assert_eq!(world.names("v1", "configmaps").await, ["old", "settings"]);
}

/// Somebody's hand took the inventory alone: what is good and what failed before is known still.
#[tokio::test]
async fn an_inventory_that_was_emptied_is_told_and_adopted_again() {
    let world = deployed("robbed").await;
    let audit = world.space.cluster.audit();
    let empty = json!([{"op": "replace", "path": "/status/inventory", "value": []}]);
    world.patch(DELIVERY.0, DELIVERY.1, "shop/status", empty.clone()).await;
    let message = told(&world).await;
    assert!(message.contains("3 objects"), "{message}");
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));
    let (code, said) = adopt(&world).await;
    assert_eq!(code, 0, "{said}");
    world.wait_event("shop", "Adopted").await;
    let status = world.wait_for("shop", Phase::Ready, &world.repo.head()).await.status.unwrap();
    assert!(status.inventory.len() == 3 && status.inventory.iter().all(|e| e.uid.is_some()), "{status:#?}");

    // Also while a revision is held: that stays so.
    let bad = world.commit("Bad", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    let audit = world.space.cluster.audit();
    world.patch(DELIVERY.0, DELIVERY.1, "shop/status", empty).await;
    world.wait_refused("shop", "InventoryLost").await;
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));
    let (_, said) = adopt(&world).await;
    world
        .wait("shop", "it is held with its objects", |d| {
            d.status.as_ref().is_some_and(|s| {
                s.phase == Phase::Held && s.attempt.is_none() && s.failure.is_none() && s.inventory.len() == 3
            })
        })
        .await;
    let web = world.get("apps/v1", "deployments", "web").await;
    let image = &web["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, "registry.example.com/web:ok", "{said}");
}

/// A person goes back, and does not know that somebody emptied the inventory: what is to be removed then is not known.
#[tokio::test]
async fn a_rollback_that_a_person_asks_for_then_touches_nothing_either() {
    let mut world = deployed("robbed-back").await;
    let first = world.repo.head();
    let second = world.commit(
        "Second",
        &[
            ("shop/web.yaml", &deployment("web", "ok2", 1)),
            ("shop/settings.yaml", &config_map("settings", "red")),
            ("shop/new.yaml", &config_map("new", "1")),
        ],
    );
    world.wait_for("shop", Phase::Ready, &second).await;
    let empty = json!([{"op": "replace", "path": "/status/inventory", "value": []}]);
    for daemon_runs in [true, false] {
        let audit = world.space.cluster.audit();
        if !daemon_runs {
            world.kill();
        }
        world.patch(DELIVERY.0, DELIVERY.1, "shop/status", empty.clone()).await;
        if daemon_runs {
            told(&world).await;
        }
        let request = format!("{first}/{daemon_runs}");
        world.annotate("shop", names::ROLLBACK_REQUEST, &request).await;
        if !daemon_runs {
            world.restart().await;
        }
        let answered = |d: &windlass::api::Delivery| {
            d.status.as_ref().is_some_and(|s| s.handled_rollback.as_ref() == Some(&request))
        };
        world.wait("shop", "has answered the request", answered).await;
        let event = world.wait_event("shop", "RollbackRefused").await;
        assert!(event.contains("windlass adopt"), "{event}");
        let message = told(&world).await;
        assert!(message.contains("4 objects"), "{message}");
        assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));
        let status = world.deliveries().get("shop").await.unwrap().status.unwrap();
        assert_eq!(status.effective.unwrap().commit, second);
        assert!(status.held.is_none() && status.attempt.is_none());
        let (code, said) = adopt(&world).await;
        assert_eq!(code, 0, "{said}");
        world.wait_for("shop", Phase::Ready, &second).await;
    }
    // What is known again can be gone back from.
    world.annotate("shop", names::ROLLBACK_REQUEST, &format!("{first}/again")).await;
    let status = world.wait_for("shop", Phase::Held, &second).await.status.unwrap();
    assert_eq!(status.effective.unwrap().commit, first);
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
    // Whether it was there before nobody knows any more: it stays, and is nobody's.
    assert_eq!(label_of(&world.get("v1", "configmaps", "new").await), Value::Null);
}

/// An object as a backup holds it.
fn backed_up(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in
        ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences"]
    {
        metadata.remove(field);
    }
    object.as_object_mut().unwrap().remove("status");
    object
}

#[tokio::test]
async fn a_namespace_that_was_restored_from_a_backup() {
    let mut world = deployed("restored").await;
    // Said once, about a Delivery that is no more: in the backup it says nothing.
    let uid = world.get(DELIVERY.0, DELIVERY.1, "shop").await["metadata"]["uid"].clone();
    world.kill();
    let mut kept = Vec::new();
    for (api, plural, name) in [
        ("v1", "configmaps", "settings"),
        ("v1", "configmaps", "old"),
        ("apps/v1", "deployments", "web"),
        (DELIVERY.0, DELIVERY.1, "shop"),
    ] {
        let mut object = world.get(api, plural, name).await;
        if plural == DELIVERY.1 {
            object["metadata"]["annotations"] = json!({names::ADOPT: uid});
            world.patch(api, plural, name, json!({"metadata": {"finalizers": null}})).await;
        }
        world.delete(api, plural, name).await;
        kept.push((api, plural, backed_up(&object)));
    }
    for (api, plural, object) in &kept {
        world.space.send("POST", &world.space.path(api, plural), object).await;
    }
    let audit = world.space.cluster.audit();
    world.restart().await;
    let message = told(&world).await;
    assert!(message.contains("3 objects"), "{message}");
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));
    let (code, said) = adopt(&world).await;
    assert_eq!(code, 0, "{said}");
    let status = world.deliveries().get("shop").await.unwrap().status.unwrap();
    assert!(status.inventory.len() == 3 && status.inventory.iter().all(|e| e.uid.is_some()), "{status:#?}");
    let again = world.commit("Goes on", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    world.wait_for("shop", Phase::Ready, &again).await;
}

#[tokio::test]
async fn what_a_deleted_delivery_left_by_order_is_adopted_without_a_question() {
    let world = deployed("left").await;
    world.deliver_by_hand("shop", "shop", json!({"deletionPolicy": "Orphan"})).await;
    world.delete(DELIVERY.0, DELIVERY.1, "shop").await;
    world.wait_gone("shop").await;
    assert_eq!(world.names("v1", "configmaps").await, ["old", "settings"]);
    let commit = world.repo.head();
    world.deliver_by_hand("shop", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
}
