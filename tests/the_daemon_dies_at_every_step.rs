//! The daemon is killed before and after every status that it writes and every action that it performs, and between two
//! objects: the next one ends where the dead one would have. Where it dies is chosen by name; see `reconcile/fault.rs`.

use crate::a_lost_status_touches_nothing::lose_status;
use crate::support::daemon::{World, config_map, deployment};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::{gated, open_gates};
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use std::fs;
use std::panic::AssertUnwindSafe;
use windlass::api::delivery::{DeliveryStatus, EntryOrigin, Outcome, Phase};
use windlass::api::drift_report::DriftReportSpec;
use windlass::api::names;

/// Daemons that die and rise at once.
const AT_ONCE: usize = 4;

/// Has a story told once for each place, and says at which ones it did not end well.
pub async fn at_each<F: Future<Output = ()>>(places: &[impl AsRef<str>], story: impl Fn(World, String) -> F) {
    let all = places.iter().map(|place| {
        let (story, place) = (&story, place.as_ref());
        async move {
            let mut world = World::stopped("dies").await;
            world.environment.push(("WINDLASS_STOP_AT", world.file("place").display().to_string()));
            let ended = AssertUnwindSafe(story(world, place.to_owned())).catch_unwind().await;
            ended.is_err().then_some(place)
        }
    });
    let failed: Vec<&str> =
        stream::iter(all).buffer_unordered(AT_ONCE).filter_map(async |f| f).collect().await;
    assert!(failed.is_empty(), "did not end well: {failed:?}");
}

/// Both sides of each.
pub fn around<'a>(steps: &[&'a str], also: &[&'a str]) -> Vec<String> {
    let both = steps.iter().flat_map(|step| [format!("before {step}"), format!("after {step}")]);
    both.chain(also.iter().map(|place| (*place).to_owned())).collect()
}

pub fn arm(world: &World, place: &str) {
    fs::write(world.file("place"), place).unwrap();
}

/// Waits until the daemon has died where it was told to, and starts the next one.
pub async fn dies_and_rises(world: &mut World, place: &str) {
    let ended = world.wait_ended(&format!("the daemon dies {place}")).await;
    assert!(ended.code().is_none(), "{place}: killed, and not ended by itself: {ended}");
    fs::remove_file(world.file("place")).unwrap();
    world.give_away().await;
    world.start();
}

/// A Delivery `shop` that runs a good commit.
async fn deployed(world: &mut World, template: Value) -> String {
    let good = begun(world, &deployment("web", "ok", 1), template).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    good
}

/// A Delivery `shop` whose first commit is on its way.
async fn begun(world: &mut World, web: &str, template: Value) -> String {
    world.start();
    let good = world.commit(
        "Good",
        &[
            ("shop/web.yaml", web),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/old.yaml", &config_map("old", "1")),
        ],
    );
    world.deliver("shop", template).await;
    good
}

fn next_commit(world: &World, web: &str) -> String {
    world.commit(
        "Next",
        &[
            ("shop/web.yaml", web),
            ("shop/settings.yaml", &config_map("settings", "red")),
            ("shop/new.yaml", &config_map("new", "1")),
            ("shop/theirs.yaml", &config_map("theirs", "1")),
            ("shop/old.yaml", ""),
        ],
    )
}

/// An object that is there before any commit names it.
async fn somebody_made(world: &World, name: &str) {
    let object = json!({"metadata": {"name": name}, "data": {"own": "1", "key": "theirs"}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &object).await;
}

pub fn outcomes(status: &DeliveryStatus) -> Vec<Outcome> {
    status.history.iter().map(|h| h.outcome).collect()
}

fn origin(status: &DeliveryStatus, name: &str) -> EntryOrigin {
    status.inventory.iter().find(|e| e.name == name).unwrap().origin
}

async fn a_change(mut world: World, place: String) {
    // A wait is recorded after seconds only: it lasts until this test says so.
    let waits = place.ends_with("status Deploy Waiting");
    let web = |tag: &str| if waits { gated(tag) } else { deployment("web", tag, 1) };
    let good = begun(&mut world, &web("ok"), json!({})).await;
    if waits {
        open_gates(&world).await;
    }
    world.wait_for("shop", Phase::Ready, &good).await;
    somebody_made(&world, "theirs").await;
    arm(&world, &place);
    let next = next_commit(&world, &web("next"));
    dies_and_rises(&mut world, &place).await;
    if waits {
        open_gates(&world).await;
    }
    let status = world.wait_for("shop", Phase::Ready, &next).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed, Outcome::Deployed], "{place}");
    assert_eq!(world.names("v1", "configmaps").await, ["new", "settings", "theirs"], "{place}");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "red", "{place}");
    assert!(status.inventory.iter().all(|e| e.uid.is_some() && !e.digest.is_empty() && !e.stale), "{place}");
    assert_eq!(status.inventory.len(), 4, "{place}");
    assert_eq!(origin(&status, "new"), EntryOrigin::Created, "{place}");
    assert_eq!(origin(&status, "theirs"), EntryOrigin::Adopted, "{place}");
}

#[tokio::test]
async fn of_a_change() {
    let steps = [
        "Prepare Deploy",
        "status Deploy Applying",
        "Apply Deploy",
        "status Deploy Waiting",
        "status Deploy Pruning",
        "Prune",
        "status Ready",
        "Keep",
        "Notify Deployed",
        "keeping adopted values",
        "forgetting adopted values",
    ];
    let places = around(&steps, &["amid writes Deploy", "amid removals"]);
    at_each(&places, a_change).await;
}

async fn a_rollback(mut world: World, place: String) {
    let good = deployed(&mut world, json!({})).await;
    somebody_made(&world, "theirs").await;
    arm(&world, &place);
    let bad = next_commit(&world, &deployment("web", "missing", 1));
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed], "{place}");
    assert_eq!(status.effective.unwrap().commit, good, "{place}");
    assert_eq!(world.names("v1", "configmaps").await, ["old", "settings", "theirs"], "{place}");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue", "{place}");
    let theirs = world.get("v1", "configmaps", "theirs").await;
    assert_eq!(theirs["data"], json!({"own": "1", "key": "theirs"}), "{place}: as it was: {theirs}");
    assert!(theirs["metadata"]["labels"].is_null(), "{place}: released: {theirs}");
    let web = world.get("apps/v1", "deployments", "web").await;
    let image = &web["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, "registry.example.com/web:ok", "{place}");
    assert_eq!(status.inventory.len(), 3, "{place}");
    assert!(status.inventory.iter().all(|e| e.uid.is_some() && !e.stale), "{place}");
}

#[tokio::test]
async fn of_a_rollback() {
    let steps = [
        "status Deploy Applying",
        "Apply Deploy",
        "status Rollback Applying",
        "Notify RollingBack",
        "Prepare Rollback",
        "Apply Rollback",
        "status Rollback Pruning",
        "Prune",
        "status Held",
        "Notify RolledBack",
        "Keep",
        "keeping adopted values",
    ];
    let places = around(&steps, &["amid writes Deploy", "amid writes Rollback", "amid removals"]);
    at_each(&places, a_rollback).await;
}

async fn a_first_revision_that_fails(mut world: World, place: String) {
    arm(&world, &place);
    world.start();
    let bad = world.commit("Bad", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    world.deliver("shop", json!({})).await;
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Failed, &bad).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Failed], "{place}");
    let fixed = world.commit("Fixed", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.wait_for("shop", Phase::Ready, &fixed).await;
}

#[tokio::test]
async fn of_a_first_revision_that_fails() {
    let steps =
        ["Prepare Deploy", "status Deploy Applying", "Apply Deploy", "status Deploy Failed", "Notify Failed"];
    let places = around(&steps, &["amid writes Deploy"]);
    at_each(&places, a_first_revision_that_fails).await;
}

async fn a_correction(mut world: World, place: String) {
    let good = deployed(&mut world, json!({})).await;
    arm(&world, &place);
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "by hand"}})).await;
    dies_and_rises(&mut world, &place).await;
    world.wait_object("v1", "configmaps", "settings", "mended", |o| o["data"]["key"] == "blue").await;
    let status = world.wait_for("shop", Phase::Ready, &good).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed], "{place}");
    // How often a field comes back is known, and that it was mended, whoever did it: never lost, and counted once more at most.
    let mended = |r: &DriftReportSpec| r.count == 0 && !r.episodes.is_empty();
    let report = world.wait_report(&format!("{place}: mended"), mended).await;
    let [of] = report.recurring.as_slice() else { panic!("{place}: {:?}", report.recurring) };
    assert!(of.path == "data.key" && (1..=2).contains(&of.times), "{place}: {of:?}");
    assert!((1..=2).contains(&report.episodes.len()), "{place}: {:?}", report.episodes);
}

#[tokio::test]
async fn of_a_correction() {
    let steps = ["status drift told", "DriftReport", "Correct", "status drift over"];
    let places = around(&steps, &["amid writes Deploy"]);
    at_each(&places, a_correction).await;
}

async fn deletion(world: &mut World, place: &str, template: Value) {
    deployed(world, template).await;
    arm(world, place);
    // Nobody makes it anew.
    world.repository(json!({"deliveries": []})).await;
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    dies_and_rises(world, place).await;
    world.wait_gone("shop").await;
}

async fn a_deletion(mut world: World, place: String) {
    deletion(&mut world, &place, json!({})).await;
    assert!(world.names("v1", "configmaps").await.is_empty(), "{place}");
    assert!(world.names("apps/v1", "deployments").await.is_empty(), "{place}");
}

async fn a_deletion_that_leaves_everything(mut world: World, place: String) {
    deletion(&mut world, &place, json!({"deletionPolicy": "Orphan"})).await;
    assert_eq!(world.names("v1", "configmaps").await, ["old", "settings"], "{place}");
    for name in ["old", "settings"] {
        let object = world.get("v1", "configmaps", name).await;
        assert!(object["metadata"]["labels"].is_null(), "{place}: {object}");
    }
}

#[tokio::test]
async fn of_a_deletion() {
    let places = around(&["status Deleting", "PruneAll", "RemoveFinalizer"], &["amid removals"]);
    at_each(&places, a_deletion).await;
    let places = around(&["OrphanAll", "RemoveFinalizer"], &[]);
    at_each(&places, a_deletion_that_leaves_everything).await;
}

async fn an_adoption_after_a_loss(mut world: World, place: String) {
    let good = deployed(&mut world, json!({})).await;
    let uid = world.get("apps/v1", "deployments", "web").await["metadata"]["uid"].clone();
    lose_status(&world).await;
    let lost = world.wait_refused("shop", "InventoryLost").await;
    arm(&world, &place);
    world.annotate("shop", names::ADOPT, &lost.metadata.uid.unwrap()).await;
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Ready, &good).await.status.unwrap();
    assert_eq!(world.names("v1", "configmaps").await, ["old", "settings"], "{place}");
    assert_eq!(world.get("apps/v1", "deployments", "web").await["metadata"]["uid"], uid, "{place}");
    for name in ["web", "settings", "old"] {
        // Whether it was there before, nobody knows any more.
        assert_eq!(origin(&status, name), EntryOrigin::Adopted, "{place}: {name}");
    }
    let answered = |d: &Value| d["metadata"]["annotations"][names::ADOPT].is_null();
    world
        .wait_object("windlass.dev/v1alpha1", "deliveries", "shop", "what was said is taken off", answered)
        .await;
}

#[tokio::test]
async fn of_an_adoption_after_a_loss() {
    let steps = ["Prepare Deploy", "status Deploy Applying", "Apply Deploy", "status Ready"];
    let places = around(&steps, &["amid writes Deploy"]);
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    at_each(&places, an_adoption_after_a_loss).await;
}
