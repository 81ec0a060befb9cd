//! The daemon is killed before and after everything that it writes about an Application, and around what its Delivery then does:
//! the next one ends where the dead one would have.

use crate::an_application_is_kept_running::break_pods;
use crate::an_application_meets_what_is_there::as_expanded;
use crate::an_application_that_fails_is_taken_back::manifest;
use crate::support::applications::condition_of;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World};
use crate::the_daemon_dies_at_every_step::{arm, around, at_each, dies_and_rises, outcomes};
use serde_json::{Value, json};
use windlass::api::application::{ApplicationPhase, ApplicationStatus};
use windlass::api::condition::kind;
use windlass::api::delivery::{Outcome, Phase};

fn colour(colour: &str) -> Value {
    json!({"config": {"env": {"COLOUR": colour}}})
}

/// It runs before anything happens to it.
async fn begun(world: &mut World, more: Value) -> ApplicationStatus {
    world.start();
    world.application("web", "ok", more).await;
    world.wait_application_runs("web", "ok").await
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
    at_each(&places, the_first).await;
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
    at_each(&places, one_that_waits_for_a_name).await;
}

async fn a_change(mut world: World, place: String) {
    begun(&mut world, colour("blue")).await;
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
    at_each(&around(&steps, &[]), a_change).await;
}

async fn a_change_that_fails(mut world: World, place: String) {
    let good = begun(&mut world, colour("blue")).await.current_revision;
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
    at_each(&around(&steps, &[]), a_change_that_fails).await;
}

async fn a_first_spec_that_fails(mut world: World, place: String) {
    world.start();
    arm(&world, &place);
    world.application("web", "missing", colour("red")).await;
    dies_and_rises(&mut world, &place).await;
    world.wait_application_phase("web", ApplicationPhase::Degraded).await;
    world.application("web", "ok", colour("blue")).await;
    runs(&world, &place, "ok").await;
}

#[tokio::test]
async fn of_a_first_spec_that_fails() {
    at_each(&around(&["Application status Degraded"], &[]), a_first_spec_that_fails).await;
}

async fn one_whose_pods_break(mut world: World, place: String) {
    begun(&mut world, colour("blue")).await;
    let pods = world.names("v1", "pods").await;
    let (broken, phase) = match place.ends_with("Degraded") {
        true => (&pods[..], ApplicationPhase::Degraded),
        false => (&pods[1..], ApplicationPhase::PartiallyRunning),
    };
    arm(&world, &place);
    break_pods(&world, broken).await;
    dies_and_rises(&mut world, &place).await;
    world.wait_application_phase("web", phase).await;
    for pod in broken {
        world.delete("v1", "pods", pod).await;
    }
    runs(&world, &place, "ok").await;
    assert_eq!(put_in_place(&world).await, [Outcome::Deployed], "{place}: nothing was put in place anew");
}

#[tokio::test]
async fn of_pods_that_break() {
    let steps = ["Application status PartiallyRunning", "Application status Degraded"];
    at_each(&around(&steps, &[]), one_whose_pods_break).await;
}

async fn what_nothing_needs(mut world: World, place: String) {
    begun(&mut world, colour("blue")).await;
    // What was kept first may yet be tidied up after: then it dies over that.
    arm(&world, &place);
    world.stale_revision_of("web").await;
    world.application("web", "next", colour("red")).await;
    dies_and_rises(&mut world, &place).await;
    runs(&world, &place, "next").await;
    // What the dead one left goes with the next revision that is kept.
    world.application("web", "ok", colour("green")).await;
    runs(&world, &place, "ok").await;
    world.wait_stale_revision_gone("web").await;
    assert_eq!(world.revisions_of("web").await.len(), 3, "{place}: what a rollback needs stays");
}

#[tokio::test]
async fn of_a_revision_that_nothing_needs() {
    at_each(&around(&["removing a revision"], &[]), what_nothing_needs).await;
}

async fn a_deletion(mut world: World, place: String) {
    begun(&mut world, colour("blue")).await;
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
    at_each(&places, a_deletion).await;
}

fn by_steps(value: &str) -> Value {
    let mut more = colour(value);
    more["rollout"] = json!({
        "strategy": "Canary", "router": {"replicas": {}}, "settle": "300ms",
        "steps": [{"weight": 50}, {"pause": "300ms"}],
    });
    more
}

async fn a_canary(mut world: World, place: String) {
    begun(&mut world, by_steps("blue")).await;
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
    at_each(&around(&steps, &[]), a_canary).await;
}

async fn a_canary_that_breaks(mut world: World, place: String) {
    let good = begun(&mut world, by_steps("blue")).await.current_revision;
    let before = world.get("apps/v1", "deployments", "web").await["metadata"]["generation"].clone();
    arm(&world, &place);
    world.application("web", "crash", by_steps("red")).await;
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(status.current_revision, good, "{place}");
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"], "{place}");
    assert_eq!(world.names("v1", "configmaps").await.len(), 1, "{place}");
    let after = world.get("apps/v1", "deployments", "web").await["metadata"]["generation"].clone();
    assert_eq!(after, before, "{place}: what runs is untouched");
    world.application("web", "ok2", by_steps("green")).await;
    runs(&world, &place, "ok2").await;
}

#[tokio::test]
async fn of_its_canary_that_breaks() {
    let steps = ["Application status RolledBack", "Apply Rollback", "status Rollback Pruning", "status Held"];
    at_each(&around(&steps, &["after Prune"]), a_canary_that_breaks).await;
}

async fn a_takeover(mut world: World, place: String) {
    let before = as_expanded(&world).await;
    arm(&world, &place);
    world.start();
    world.application("web", "ok", json!({})).await;
    dies_and_rises(&mut world, &place).await;
    world.wait_application_runs("web", "ok").await;
    let after = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "{place}");
    assert_eq!(after["metadata"]["labels"]["team"], "shop", "{place}: what others say of it stays");
    assert_eq!(put_in_place(&world).await, [Outcome::Deployed], "{place}");
    world.application("web", "ok2", json!({})).await;
    world.wait_application_runs("web", "ok2").await;
}

#[tokio::test]
async fn of_a_takeover() {
    let steps = [
        "keeping a revision",
        "status Deploy Applying",
        "keeping adopted values",
        "Apply Deploy",
        "status Ready",
    ];
    at_each(&around(&steps, &["amid writes Deploy"]), a_takeover).await;
}

async fn an_orphan(mut world: World, place: String) {
    begun(&mut world, colour("blue")).await;
    let before = world.get("apps/v1", "deployments", "web").await["metadata"]["uid"].clone();
    // As the garbage collector does for `kubectl delete --cascade=orphan`, which knows kinds that are new after a while only.
    world.kill();
    let free = json!({"metadata": {"ownerReferences": null}});
    world.patch("windlass.dev/v1alpha1", "deliveries", "web.application", free.clone()).await;
    for revision in world.revisions_of("web").await {
        world.patch("apps/v1", "controllerrevisions", &revision, free.clone()).await;
    }
    world.delete_application("web").await;
    world.give_away().await;
    arm(&world, &place);
    world.start();
    world.application("web", "ok2", colour("red")).await;
    dies_and_rises(&mut world, &place).await;
    runs(&world, &place, "ok2").await;
    assert_eq!(world.get("apps/v1", "deployments", "web").await["metadata"]["uid"], before, "{place}");
    let owner = world.applications().get("web").await.unwrap().metadata.uid;
    let delivery = world.deliveries().get("web.application").await.unwrap();
    let owners = delivery.metadata.owner_references.unwrap();
    assert_eq!(Some(&owners[0].uid), owner.as_ref(), "{place}: it is its own again");
}

#[tokio::test]
async fn of_an_orphan_that_is_taken_up_again() {
    let steps =
        ["keeping a revision", "writing a Delivery", "status Deploy Applying", "Application status Running"];
    at_each(&around(&steps, &[]), an_orphan).await;
}

async fn one_in_a_directory(mut world: World, place: String) {
    world.start();
    let good = world.commit("Good", &[("shop/web.yaml", &manifest("ok"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    arm(&world, &place);
    let bad = world.commit("Bad", &[("shop/web.yaml", &manifest("crash"))]);
    dies_and_rises(&mut world, &place).await;
    let outer = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(outer.effective.unwrap().commit, good, "{place}");
    world.wait_application_runs("web", "ok").await;
    assert!(
        !put_in_place(&world).await.contains(&Outcome::RolledBack),
        "{place}: only the directory goes back"
    );
}

#[tokio::test]
async fn of_one_in_a_directory_that_goes_back() {
    let steps = ["Application status Degraded", "status Rollback Applying", "Apply Rollback", "status Held"];
    at_each(&around(&steps, &[]), one_in_a_directory).await;
}
