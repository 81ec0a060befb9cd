//! The daemon is killed as by a power cut, at every stage and at any instant; the next one goes on where it stopped.

use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::{gated, open_gates};
use serde_json::{Value, json};
use std::time::Duration;
use windlass::api::delivery::{DeliveryStatus, Goal, Outcome, Phase, Step};

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
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

fn bad_commit(world: &World, new: &str) -> String {
    world.commit(
        "Bad",
        &[
            ("shop/web.yaml", &deployment("web", "missing", 1)),
            ("shop/settings.yaml", &config_map("settings", "red")),
            ("shop/new.yaml", new),
            ("shop/old.yaml", ""),
        ],
    )
}

async fn wait_status(world: &World, what: &str, is: impl Fn(&DeliveryStatus) -> bool) {
    world.wait("shop", what, |d| d.status.as_ref().is_some_and(&is)).await;
}

/// Held, with the good revision back in full.
async fn taken_back(world: &World, good: &str, bad: &str) {
    let delivery = world.wait_for("shop", Phase::Held, bad).await;
    let status = delivery.status.unwrap();
    assert_eq!(status.effective.unwrap().commit, good);
    assert_eq!(status.inventory.len(), 3);
    assert!(status.inventory.iter().all(|e| !e.stale && e.uid.is_some()));
    assert_eq!(status.history.iter().filter(|h| h.outcome == Outcome::RolledBack).count(), 1);
    assert_eq!(world.names("v1", "configmaps").await, ["old", "settings"]);
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
    let web = world.get("apps/v1", "deployments", "web").await;
    let image = &web["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, "registry.example.com/web:ok");
}

#[tokio::test]
async fn while_a_first_revision_is_applied() {
    let mut world = World::new("crash-apply").await;
    let mut files: Vec<(String, String)> =
        (0..20).map(|n| (format!("shop/{n}.yaml"), config_map(&format!("it-{n}"), "1"))).collect();
    files.push(("shop/web.yaml".into(), deployment("web", "ok", 1)));
    let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    let commit = world.commit("Many", &files);
    world.deliver("shop", json!({})).await;
    wait_until("the first objects are there", LIMIT, || async {
        let there = world.names("v1", "configmaps").await.len();
        if there > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    world.restart().await;
    let delivery = world.wait_for("shop", Phase::Ready, &commit).await;
    let inventory = delivery.status.unwrap().inventory;
    assert_eq!(inventory.len(), 21);
    assert!(inventory.iter().all(|e| e.uid.is_some() && !e.digest.is_empty()));
    assert!(inventory.iter().all(|e| e.origin == windlass::api::delivery::EntryOrigin::Created));
}

#[tokio::test]
async fn while_it_waits_for_health() {
    let (mut world, _) = deployed("crash-wait").await;
    // Its pod is ready when this test says so.
    let slow = world.commit("Slow", &[("shop/web.yaml", &gated("slow"))]);
    world.wait_for("shop", Phase::Waiting, &slow).await;
    world.restart().await;
    open_gates(&world).await;
    world.wait_for("shop", Phase::Ready, &slow).await;
}

#[tokio::test]
async fn while_it_waits_for_what_is_broken() {
    let (mut world, good) = deployed("crash-broken").await;
    let bad = bad_commit(&world, &config_map("new", "1"));
    // Told of it also when it has been taken back already, as when this test is late.
    wait_status(&world, "the bad one is begun", |s| s.revision.as_ref().is_some_and(|r| r.ends_with(&bad)))
        .await;
    world.restart().await;
    taken_back(&world, &good, &bad).await;
}

#[tokio::test]
async fn while_it_removes() {
    let (mut world, _) = deployed("crash-prune").await;
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    world.patch("v1", "configmaps", "old", hold).await;
    let next = world.commit("Without old", &[("shop/old.yaml", "")]);
    wait_status(&world, "pruning", |s| s.attempt.as_ref().is_some_and(|a| a.step == Step::Pruning)).await;
    world.restart().await;
    world.patch("v1", "configmaps", "old", json!({"metadata": {"finalizers": null}})).await;
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(world.names("v1", "configmaps").await, ["settings"]);
}

#[tokio::test]
async fn while_it_rolls_back() {
    let (mut world, good) = deployed("crash-back").await;
    // A finalizer keeps the rollback from ending.
    let held = config_map("new", "1").replace("{name: new}", "{name: new, finalizers: [example.com/hold]}");
    let bad = bad_commit(&world, &held);
    wait_status(&world, "rolling back", |s| s.attempt.as_ref().is_some_and(|a| a.goal == Goal::Rollback))
        .await;
    world.restart().await;
    world.patch("v1", "configmaps", "new", json!({"metadata": {"finalizers": null}})).await;
    taken_back(&world, &good, &bad).await;
}

#[tokio::test]
async fn while_it_deletes() {
    let (mut world, _) = deployed("crash-delete").await;
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    world.patch("v1", "configmaps", "old", hold).await;
    world.commit(
        "Gone",
        &[
            ("shop/web.yaml", ""),
            ("shop/settings.yaml", ""),
            ("shop/old.yaml", ""),
            ("other/it.yaml", &config_map("it", "1")),
        ],
    );
    world.repository(json!({"deliveries": []})).await;
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    world
        .wait("shop", "is being deleted", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Deleting))
        .await;
    world.wait_object("v1", "configmaps", "settings", "gone", Value::is_null).await;
    world.restart().await;
    world.patch("v1", "configmaps", "old", json!({"metadata": {"finalizers": null}})).await;
    world.wait_gone("shop").await;
    assert!(world.names("v1", "configmaps").await.is_empty());
    assert!(world.names("apps/v1", "deployments").await.is_empty());
}

#[tokio::test]
async fn at_any_instant_of_a_bad_deploy_and_its_rollback() {
    let (mut world, good) = deployed("crash-any").await;
    let bad = bad_commit(&world, &config_map("new", "1"));
    // From the moment in which the commit is made to well after it is held, in steps that hit another instant each time.
    for step in 0..10_u64 {
        tokio::time::sleep(Duration::from_millis(150 + 37 * step)).await;
        world.restart().await;
    }
    taken_back(&world, &good, &bad).await;
    // And on to the next commit in the same way.
    let fixed = world.commit(
        "Fixed",
        &[
            ("shop/web.yaml", &deployment("web", "fixed", 1)),
            ("shop/settings.yaml", &config_map("settings", "green")),
        ],
    );
    for step in 0..8_u64 {
        tokio::time::sleep(Duration::from_millis(150 + 53 * step)).await;
        world.restart().await;
    }
    let delivery = world.wait_for("shop", Phase::Ready, &fixed).await;
    assert!(delivery.status.unwrap().held.is_none());
    assert_eq!(world.names("v1", "configmaps").await, ["new", "settings"]);
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "green");
}
