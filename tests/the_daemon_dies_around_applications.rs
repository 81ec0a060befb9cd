//! The daemon is killed before and after everything that it writes about an Application, and around what its Delivery then does:
//! the next one ends where the dead one would have.

use crate::support::applications::condition_of;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World};
use crate::the_daemon_dies_at_every_step::{arm, around, at_each, dies_and_rises, outcomes};
use serde_json::{Value, json};
use windlass::api::application::ApplicationPhase;
use windlass::api::condition::kind;
use windlass::api::delivery::Outcome;

fn colour(colour: &str) -> Value {
    json!({"config": {"env": {"COLOUR": colour}}})
}

/// What its Delivery put in place so far, the newest first.
async fn put_in_place(world: &World) -> Vec<Outcome> {
    let delivery = world.deliveries().get("web.application").await.unwrap();
    outcomes(&delivery.status.unwrap())
}

/// It runs with this image and nothing else of it is there.
async fn runs(world: &World, place: &str, tag: &str) {
    let status = world.wait_application_runs("web", tag).await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"], "{place}");
    assert_eq!(world.names("v1", "configmaps").await.len(), 1, "{place}");
    let current = status.current_revision.clone().unwrap();
    assert!(world.revisions_of("web").await.contains(&current), "{place}: {current} is kept");
    assert_eq!(condition_of(&status, kind::READY).0, "True", "{place}");
}

async fn the_first(mut world: World, place: String) {
    arm(&world, &place);
    world.start();
    // That it is on its way is told after a second: its pods take three.
    let tag = if place.ends_with("Progressing") { "slow" } else { "ok" };
    world.application("web", tag, colour("blue")).await;
    dies_and_rises(&mut world, &place).await;
    runs(&world, &place, tag).await;
    assert_eq!(put_in_place(&world).await, [Outcome::Deployed], "{place}");
    assert_eq!(world.revisions_of("web").await.len(), 1, "{place}");
}

#[tokio::test]
async fn of_a_first_spec() {
    let steps = [
        "keeping a revision",
        "writing a Delivery",
        "Application status Progressing",
        "Application status Running",
        "status Deploy Applying",
        "Apply Deploy",
    ];
    let places = around(&steps, &["amid writes Deploy"]);
    at_each(&places.iter().map(String::as_str).collect::<Vec<_>>(), the_first).await;
}

async fn one_that_waits_for_a_name(mut world: World, place: String) {
    // Somebody else's Delivery has it.
    let mine = json!({"metadata": {"name": "mine"}});
    let mine = world.space.send("POST", &world.space.path("v1", "configmaps"), &mine).await;
    let uid = &mine["metadata"]["uid"];
    let owner =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "mine", "uid": uid, "controller": true});
    let source = json!({"repository": "config", "path": "shop"});
    let theirs = json!({
        "metadata": {"ownerReferences": [owner]},
        "spec": {"source": source, "targetNamespace": world.space.name},
    });
    world.apply("Delivery", "web.application", theirs).await;
    arm(&world, &place);
    world.start();
    world.application("web", "ok", colour("blue")).await;
    dies_and_rises(&mut world, &place).await;
    world
        .wait_application("web", "it says what it waits for", |s| {
            s.phase == ApplicationPhase::Pending
                && s.conditions.iter().any(|c| c.type_ == kind::READY && c.reason == "DeliveryTaken")
        })
        .await;
    assert!(world.names("apps/v1", "deployments").await.is_empty(), "{place}");
    world.delete("windlass.dev/v1alpha1", "deliveries", "web.application").await;
    world.delete("v1", "configmaps", "mine").await;
    runs(&world, &place, "ok").await;
    assert_eq!(put_in_place(&world).await, [Outcome::Deployed], "{place}");
}

#[tokio::test]
async fn of_a_first_spec_that_waits() {
    let places = around(&["Application status Pending"], &[]);
    at_each(&places.iter().map(String::as_str).collect::<Vec<_>>(), one_that_waits_for_a_name).await;
}

async fn a_change(mut world: World, place: String) {
    world.start();
    world.application("web", "ok", colour("blue")).await;
    world.wait_application_runs("web", "ok").await;
    arm(&world, &place);
    world.application("web", "next", colour("red")).await;
    dies_and_rises(&mut world, &place).await;
    runs(&world, &place, "next").await;
    assert_eq!(put_in_place(&world).await, [Outcome::Deployed, Outcome::Deployed], "{place}");
    assert_eq!(world.revisions_of("web").await.len(), 2, "{place}");
}

#[tokio::test]
async fn of_a_change() {
    let steps = [
        "keeping a revision",
        "Application status Progressing",
        "Application status Running",
        "status Deploy Applying",
        "Apply Deploy",
        "status Deploy Pruning",
        "status Ready",
    ];
    at_each(&around(&steps, &[]).iter().map(String::as_str).collect::<Vec<_>>(), a_change).await;
}

async fn a_change_that_fails(mut world: World, place: String) {
    world.start();
    world.application("web", "ok", colour("blue")).await;
    let good = world.wait_application_runs("web", "ok").await.current_revision;
    arm(&world, &place);
    world.application("web", "missing", colour("red")).await;
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(status.current_revision, good, "{place}");
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok", "{place}");
    assert_eq!(world.names("v1", "configmaps").await.len(), 1, "{place}");
    let expected = [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed];
    assert_eq!(put_in_place(&world).await, expected, "{place}");
    // A newer spec gets through all the same.
    world.application("web", "ok2", colour("green")).await;
    runs(&world, &place, "ok2").await;
}

#[tokio::test]
async fn of_a_change_that_fails() {
    let steps = [
        "keeping a revision",
        "Application status Progressing",
        "Application status RolledBack",
        "status Rollback Applying",
        "Apply Rollback",
        "status Held",
    ];
    at_each(&around(&steps, &[]).iter().map(String::as_str).collect::<Vec<_>>(), a_change_that_fails).await;
}

async fn a_deletion(mut world: World, place: String) {
    world.start();
    world.application("web", "ok", colour("blue")).await;
    world.wait_application_runs("web", "ok").await;
    arm(&world, &place);
    world.delete_application("web").await;
    dies_and_rises(&mut world, &place).await;
    world.wait_gone("web.application").await;
    wait_until("nothing is left", LIMIT, || async {
        let mut left = world.revisions_of("web").await;
        for (api, plural) in [("apps/v1", "deployments"), ("v1", "services"), ("v1", "configmaps")] {
            left.extend(world.names(api, plural).await);
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{place}: {left:?}")) }
    })
    .await;
    // One of the name begins anew.
    world.application("web", "ok2", colour("red")).await;
    runs(&world, &place, "ok2").await;
    assert_eq!(put_in_place(&world).await, [Outcome::Deployed], "{place}");
}

#[tokio::test]
async fn of_a_deletion() {
    let places = around(&["status Deleting", "PruneAll", "RemoveFinalizer"], &["amid removals"]);
    at_each(&places.iter().map(String::as_str).collect::<Vec<_>>(), a_deletion).await;
}

async fn a_canary(mut world: World, place: String) {
    let by_steps = |value: &str| {
        let mut more = colour(value);
        more["rollout"] = json!({
            "strategy": "Canary", "router": {"replicas": {}}, "settle": "300ms",
            "steps": [{"weight": 50}, {"pause": "300ms"}],
        });
        more
    };
    world.start();
    world.application("web", "ok", by_steps("blue")).await;
    world.wait_application_runs("web", "ok").await;
    let before = world.get("apps/v1", "deployments", "web").await["metadata"]["uid"].clone();
    arm(&world, &place);
    world.application("web", "ok2", by_steps("red")).await;
    dies_and_rises(&mut world, &place).await;
    runs(&world, &place, "ok2").await;
    assert_eq!(world.get("apps/v1", "deployments", "web").await["metadata"]["uid"], before, "{place}");
    assert_eq!(put_in_place(&world).await, [Outcome::Deployed, Outcome::Deployed], "{place}");
}

#[tokio::test]
async fn of_its_canary() {
    let steps = [
        "keeping a revision",
        "Application status Progressing",
        "status Deploy Applying",
        "Apply Deploy",
        "status Deploy Pruning",
        "Application status Running",
    ];
    at_each(&around(&steps, &[]).iter().map(String::as_str).collect::<Vec<_>>(), a_canary).await;
}
