//! The daemon is killed while a revision is watched on after its success, while new settings are brought to what runs, while a first
//! revision is taken away again, while a rollback that failed waits for its next try, and while it answers what a person asked for.
//! The next one ends where the dead one would have. The places are named in `reconcile/delivery/mod.rs`.

use crate::a_rollback_is_complete::crash;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::the_daemon_dies_at_every_step::{arm, dies_and_rises, outcomes};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::{everywhere, gated, open_gates};
use serde_json::{Value, json};
use windlass::api::delivery::{DeliveryStatus, Outcome, Phase};
use windlass::api::names;

/// A Delivery `shop` that runs a good commit.
async fn deployed(world: &mut World, template: Value) -> String {
    world.start();
    let good = world.commit("Good", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.deliver("shop", template).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    good
}

async fn runs(world: &World, place: &str, tag: &str) {
    let web = world.get("apps/v1", "deployments", "web").await;
    let image = &web["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, format!("registry.example.com/web:{tag}"), "{place}");
}

async fn a_watch_that_ends_in_health(mut world: World, place: String) {
    deployed(&mut world, json!({"rollback": {"bake": "2s"}})).await;
    arm(&world, &place);
    let next = world.commit("Next", &[("shop/web.yaml", &deployment("web", "ok2", 1))]);
    dies_and_rises(&mut world, &place).await;
    let over =
        |s: &DeliveryStatus| s.bake.is_none() && s.effective.as_ref().is_some_and(|e| e.commit == next);
    let delivery = world.wait("shop", "is watched no longer", |d| d.status.as_ref().is_some_and(over)).await;
    let status = delivery.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed, Outcome::Deployed], "{place}");
    runs(&world, &place, "ok2").await;
}

#[tokio::test]
async fn over_a_watch_that_ends_in_health() {
    everywhere(&["status bake begun", "status bake over"], &[], a_watch_that_ends_in_health).await;
}

async fn a_watch_that_ends_in_a_rollback(mut world: World, place: String) {
    let good = deployed(&mut world, json!({"rollback": {"bake": "10m"}})).await;
    let begins = place.ends_with("bake begun");
    if begins {
        arm(&world, &place);
    }
    let bad = world.commit(
        "Breaks after a while",
        &[("shop/web.yaml", &deployment("web", "ok2", 1)), ("shop/new.yaml", &config_map("new", "1"))],
    );
    if begins {
        dies_and_rises(&mut world, &place).await;
    }
    world.wait_for("shop", Phase::Ready, &bad).await;
    if !begins {
        arm(&world, &place);
    }
    crash(&world, "registry.example.com/web:ok2").await;
    if !begins {
        dies_and_rises(&mut world, &place).await;
    }
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    let expected = [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed, Outcome::Deployed];
    assert_eq!(outcomes(&status), expected, "{place}");
    assert_eq!(status.effective.unwrap().commit, good, "{place}");
    assert!(world.names("v1", "configmaps").await.is_empty(), "{place}");
    runs(&world, &place, "ok").await;
}

#[tokio::test]
async fn over_a_watch_that_ends_in_a_rollback() {
    everywhere(&["status bake begun", "status Rollback Applying"], &[], a_watch_that_ends_in_a_rollback)
        .await;
}

async fn new_settings_for_what_runs(mut world: World, place: String) {
    world.texts("ConfigMap", "vars", json!({"word": "one"})).await;
    let good = deployed(&mut world, json!({"substitute": {"from": [{"configMap": "vars"}]}})).await;
    let files = [
        ("shop/web.yaml", deployment("web", "missing", 1)),
        ("shop/shown.yaml", config_map("shown", "bad ${word}")),
    ];
    let bad = world.commit("Bad", &files.each_ref().map(|(path, text)| (*path, text.as_str())));
    world.wait_for("shop", Phase::Held, &bad).await;
    arm(&world, &place);
    world.texts("ConfigMap", "vars", json!({"word": "two"})).await;
    dies_and_rises(&mut world, &place).await;
    let newest = |s: &DeliveryStatus| {
        let effective = s.effective.as_ref();
        s.phase == Phase::Held
            && effective.is_some_and(|e| s.history.iter().any(|h| h.revision.settings != e.settings))
    };
    let delivery =
        world.wait("shop", "has its new settings", |d| d.status.as_ref().is_some_and(newest)).await;
    let status = delivery.status.unwrap();
    assert_eq!(status.effective.as_ref().unwrap().commit, good, "{place}");
    assert_eq!(status.held.as_ref().unwrap().revision.commit, bad, "{place}");
    let tried = status.history.iter().filter(|h| h.outcome == Outcome::RolledBack).count();
    assert_eq!(tried, 1, "{place}: what is held is not tried again: {:?}", status.history);
    runs(&world, &place, "ok").await;
}

#[tokio::test]
async fn while_new_settings_are_brought_to_what_runs() {
    let steps = ["Prepare Refresh", "status Refresh Applying", "Apply Refresh"];
    everywhere(&steps, &[], new_settings_for_what_runs).await;
}

async fn new_settings_that_take_their_time(mut world: World, place: String) {
    world.texts("ConfigMap", "vars", json!({"word": "one"})).await;
    world.start();
    // Its pod is made anew with the settings, and ready when this test says so.
    let web = gated("ok").replace(
        "labels: {app: web}}\n    spec",
        "labels: {app: web}, annotations: {word: \"${word}\"}}\n    spec",
    );
    let good = world.commit("Good", &[("shop/web.yaml", &web)]);
    world.deliver("shop", json!({"substitute": {"from": [{"configMap": "vars"}]}})).await;
    open_gates(&world).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let bad = world.commit("Bad", &[("shop/worker.yaml", &deployment("worker", "missing", 1))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    arm(&world, &place);
    world.texts("ConfigMap", "vars", json!({"word": "two"})).await;
    dies_and_rises(&mut world, &place).await;
    open_gates(&world).await;
    let newest = |s: &DeliveryStatus| s.phase == Phase::Held && s.history.len() == 4 && s.attempt.is_none();
    let delivery =
        world.wait("shop", "has its new settings", |d| d.status.as_ref().is_some_and(newest)).await;
    let status = delivery.status.unwrap();
    let expected = [Outcome::Deployed, Outcome::Restored, Outcome::RolledBack, Outcome::Deployed];
    assert_eq!(outcomes(&status), expected, "{place}: once, and what is held is not tried again");
    let (newest, first) = (&status.history[0].revision, &status.history[3].revision);
    assert_eq!((&newest.commit, &first.commit), (&good, &good), "{place}");
    assert_ne!(newest.settings, first.settings, "{place}");
    assert_eq!(status.effective.as_ref(), Some(newest), "{place}");
    assert_eq!(status.held.as_ref().unwrap().revision.commit, bad, "{place}");
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["template"]["metadata"]["annotations"]["word"], "two", "{place}");
    assert_eq!(web["status"]["readyReplicas"], 1, "{place}: {web}");
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"], "{place}");
}

#[tokio::test]
async fn while_new_settings_are_waited_for() {
    everywhere(&["status Refresh Waiting"], &[], new_settings_that_take_their_time).await;
}

async fn a_first_revision_that_is_removed(mut world: World, place: String) {
    arm(&world, &place);
    world.start();
    let files =
        [("shop/web.yaml", deployment("web", "missing", 1)), ("shop/map.yaml", config_map("map", "1"))];
    let bad = world.commit("Bad", &files.each_ref().map(|(path, text)| (*path, text.as_str())));
    world.deliver("shop", json!({"rollback": {"firstRevision": "Remove"}})).await;
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert!(status.inventory.is_empty() && status.effective.is_none(), "{place}: {:?}", status.inventory);
    assert!(world.names("apps/v1", "deployments").await.is_empty(), "{place}");
    assert!(world.names("v1", "configmaps").await.is_empty(), "{place}");
    let fixed = world.commit("Fixed", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.wait_for("shop", Phase::Ready, &fixed).await;
}

#[tokio::test]
async fn while_a_first_revision_is_removed() {
    everywhere(&["status Deploy Removing", "Prune", "status Held"], &[], a_first_revision_that_is_removed)
        .await;
}

async fn a_rollback_that_fails(mut world: World, place: String) {
    world.start();
    let good = world.commit("Good", &[("shop/web.yaml", &gated("ok"))]);
    world.deliver("shop", json!({})).await;
    open_gates(&world).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // It is never ready, and has its time still when a person goes back.
    let next = world.commit("Next", &[("shop/web.yaml", &gated("unready"))]);
    wait_until("the old pod has made room", LIMIT, || async {
        let pods = world.space.send("GET", &world.space.path("v1", "pods"), &Value::Null).await;
        let images: Vec<&str> = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pod| pod["spec"]["containers"][0]["image"].as_str())
            .collect();
        if images == ["registry.example.com/web:unready"] { Ok(()) } else { Err(format!("{images:?}")) }
    })
    .await;
    // What comes back gets a new pod, which is not ready within this time.
    world.give_time(3, json!({"retryInterval": "1s"})).await;
    arm(&world, &place);
    world.annotate("shop", names::ROLLBACK_REQUEST, &good).await;
    dies_and_rises(&mut world, &place).await;
    open_gates(&world).await;
    let status = world.wait_for("shop", Phase::Held, &next).await.status.unwrap();
    assert_eq!(outcomes(&status)[0], Outcome::Restored, "{place}: {:?}", status.history);
    assert_eq!(status.effective.unwrap().commit, good, "{place}");
    runs(&world, &place, "ok").await;
}

#[tokio::test]
async fn while_a_rollback_that_failed_waits_for_its_next_try() {
    everywhere(&["status rollback failed", "Notify RollbackFailed"], &[], a_rollback_that_fails).await;
}

async fn a_release(mut world: World, place: String) {
    let good = deployed(&mut world, json!({})).await;
    let bad = world.commit("Bad", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    arm(&world, &place);
    world.annotate("shop", names::RELEASE_REQUEST, &format!("{bad}/1")).await;
    dies_and_rises(&mut world, &place).await;
    let again = |s: &DeliveryStatus| {
        let tried = s.history.iter().filter(|h| h.outcome == Outcome::RolledBack).count();
        s.phase == Phase::Held && tried == 2
    };
    let delivery = world.wait("shop", "was tried once more", |d| d.status.as_ref().is_some_and(again)).await;
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good, "{place}");
    runs(&world, &place, "ok").await;
}

#[tokio::test]
async fn while_a_held_revision_is_released() {
    everywhere(&["status release handled", "Notify Released"], &[], a_release).await;
}

async fn a_rollback_by_hand(mut world: World, place: String) {
    let good = deployed(&mut world, json!({})).await;
    let next = world.commit("Next", &[("shop/web.yaml", &deployment("web", "ok2", 1))]);
    world.wait_for("shop", Phase::Ready, &next).await;
    arm(&world, &place);
    world.annotate("shop", names::ROLLBACK_REQUEST, &good).await;
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &next).await.status.unwrap();
    assert_eq!(status.effective.as_ref().unwrap().commit, good, "{place}");
    assert_eq!(status.held.as_ref().unwrap().problem.reason, "RolledBackByHand", "{place}");
    assert_eq!(outcomes(&status)[0], Outcome::Restored, "{place}: {:?}", status.history);
    runs(&world, &place, "ok").await;
}

#[tokio::test]
async fn while_a_person_goes_back() {
    everywhere(&["status rollback handled", "Prepare Rollback"], &[], a_rollback_by_hand).await;
}
