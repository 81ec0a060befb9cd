//! A former leader's request that arrives late leaves nothing behind: what it makes after a rollback or a prune is removed,
//! and nothing else that looks alike is.

use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use serde_json::{Value, json};
use windlass::api::delivery::Phase;
use windlass::api::names;

pub fn label(world: &World) -> String {
    names::delivery_label(world.installation(), &world.space.name, "shop")
}

/// A ConfigMap by server-side apply, as a daemon's request would; with the uid that it was planned against.
pub async fn apply_late(world: &World, manager: &str, name: &str, uid: Option<&str>) -> Value {
    let mut body = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "late"},
        "metadata": {"name": name, "namespace": world.space.name, "labels": {names::DELIVERY_LABEL: label(world)}},
    });
    if let Some(uid) = uid {
        body["metadata"]["uid"] = uid.into();
    }
    let path = format!(
        "{}/{name}?fieldManager={manager}&force={}",
        world.space.path("v1", "configmaps"),
        uid.is_some()
    );
    world.space.send("APPLY", &path, &body).await
}

async fn deployed(test: &str) -> (World, String) {
    let world = World::new(test).await;
    let good = world.commit(
        "Good",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 1)),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/old.yaml", &config_map("old", "1")),
        ],
    );
    world.repository(json!({})).await;
    world.deliver_by_hand("shop", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

pub async fn wait_names(world: &World, names: &[&str]) {
    wait_until("the ConfigMaps are as wanted", LIMIT, || async {
        let there = world.names("v1", "configmaps").await;
        if there == names { Ok(()) } else { Err(there.join(", ")) }
    })
    .await;
}

#[tokio::test]
async fn after_a_prune_and_after_a_rollback_also_by_the_next_daemon() {
    let (mut world, _) = deployed("late").await;
    let second = world.commit("One leaves Git", &[("shop/old.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &second).await;
    wait_names(&world, &["settings"]).await;
    apply_late(&world, names::FIELD_MANAGER, "old", None).await;
    wait_names(&world, &["settings"]).await;
    let event = world.wait_event("shop", "LateRequest").await;
    assert!(event.contains(&format!("ConfigMap {}/old", world.space.name)), "{event}");

    let bad = world.commit(
        "Bad",
        &[("shop/web.yaml", &deployment("web", "missing", 1)), ("shop/new.yaml", &config_map("new", "1"))],
    );
    world.wait_for("shop", Phase::Held, &bad).await;
    wait_names(&world, &["settings"]).await;
    // Nobody works when it arrives; the next one finds it.
    world.kill();
    apply_late(&world, names::FIELD_MANAGER, "new", None).await;
    world.restart().await;
    wait_names(&world, &["settings"]).await;
    // Git may bring back what was removed; `new` stands in it all the time.
    let third = world.commit(
        "Back, and mended",
        &[("shop/web.yaml", &deployment("web", "fixed", 1)), ("shop/old.yaml", &config_map("old", "2"))],
    );
    let delivery = world.wait_for("shop", Phase::Ready, &third).await;
    wait_names(&world, &["new", "old", "settings"]).await;
    let removed = delivery.status.unwrap().removed;
    assert!(removed.is_empty(), "{removed:#?}");
}

#[tokio::test]
async fn what_was_let_go_is_let_go_again() {
    let (world, _) = deployed("late-adopted").await;
    let body = json!({"metadata": {"name": "theirs"}, "data": {"key": "theirs", "other": "1"}});
    let made = world.space.send("POST", &world.space.path("v1", "configmaps"), &body).await;
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    let bad = world.commit(
        "Adopts, and is broken",
        &[
            ("shop/web.yaml", &deployment("web", "missing", 1)),
            ("shop/theirs.yaml", &config_map("theirs", "1")),
        ],
    );
    world.wait_for("shop", Phase::Held, &bad).await;
    apply_late(&world, names::FIELD_MANAGER, "theirs", Some(&uid)).await;
    world.wait_event("shop", "LateRequest").await;
    let there = world
        .wait_object("v1", "configmaps", "theirs", "without our label", |o| {
            o["metadata"]["labels"][names::DELIVERY_LABEL].is_null()
        })
        .await;
    assert_eq!((&there["metadata"]["uid"], &there["data"]["other"]), (&json!(uid), &json!("1")), "{there}");
}

#[tokio::test]
async fn what_people_and_controllers_made_stays() {
    let (world, _) = deployed("late-others").await;
    let second = world.commit("One leaves Git", &[("shop/old.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &second).await;
    wait_names(&world, &["settings"]).await;
    // By hand, with the label copied along; and by our name, but never in the inventory.
    let old = apply_late(&world, "carol", "old", None).await;
    apply_late(&world, names::FIELD_MANAGER, "stranger", None).await;
    // Something that the daemon does after it saw both.
    let third = world.commit("Goes on", &[("shop/settings.yaml", &config_map("settings", "red"))]);
    world.wait_for("shop", Phase::Ready, &third).await;
    world.annotate("shop", names::RECONCILE_REQUEST, "again").await;
    world
        .wait("shop", "looked at again", |d| {
            d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some("again"))
        })
        .await;
    assert_eq!(world.names("v1", "configmaps").await, ["old", "settings", "stranger"]);
    let there = world.get("v1", "configmaps", "old").await;
    assert_eq!(there["metadata"]["resourceVersion"], old["metadata"]["resourceVersion"], "{there}");
}
