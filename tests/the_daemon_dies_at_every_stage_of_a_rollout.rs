//! The daemon is killed around every state of a rollout that it writes down, and behind every apply: the next one ends where the
//! dead one would have. The places are named in `reconcile/delivery/mod.rs`.

use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployment, image, service, web};
use crate::support::daemon::{World, config_map};
use crate::the_daemon_dies_at_every_step::{arm, at_each, dies_and_rises, outcomes};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::{DeliveryStatus, Outcome, Phase};

/// Around the status that records a stage, behind its apply, and around the status that says that it is in effect.
fn stages(all: &[&str]) -> Vec<String> {
    let of = |stage: &&str| {
        [
            format!("before status stage {stage}"),
            format!("after status stage {stage}"),
            format!("before Apply {stage}"),
            format!("after Apply {stage}"),
            format!("before status settled {stage}"),
            format!("after status settled {stage}"),
        ]
    };
    all.iter().flat_map(of).collect()
}

/// The actions of `stages` carry the goal between their name and the stage.
pub fn places(goal: &str, all: &[&str], also: &[&str]) -> Vec<String> {
    let named = stages(all).into_iter().map(|place| place.replace("Apply ", &format!("Apply {goal} ")));
    named.chain(also.iter().map(|place| (*place).to_owned())).collect()
}

pub async fn at_all<F: Future<Output = ()>>(places: &[String], story: impl Fn(World, String) -> F) {
    at_each(places, story).await;
}

/// A Delivery `shop` that runs a good commit and rolls out the next.
pub async fn deployed(world: &mut World, selector: &str, rollout: Value) -> String {
    world.start();
    let good = world.commit(
        "Good",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service(selector)),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    world.deliver("shop", json!({"rollout": rollout})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    good
}

/// Exactly one variant is there and has all traffic, and runs this image with this configuration.
pub async fn one_variant(world: &World, place: &str, status: &DeliveryStatus, tag: &str, key: &str) {
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"], "{place}");
    assert_eq!(world.names("v1", "services").await, ["web"], "{place}");
    assert_eq!(world.names("v1", "configmaps").await, ["settings"], "{place}");
    let selector = world.get("v1", "services", "web").await["spec"]["selector"].clone();
    assert!(!selector.to_string().contains("web-"), "{place}: {selector}");
    let stable = deployment(world, "web").await;
    assert_eq!(image(&stable), format!("registry.example.com/web:{tag}"), "{place}");
    assert_eq!(stable["status"]["readyReplicas"], 2, "{place}: {stable}");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], key, "{place}");
    assert!(status.attempt.is_none(), "{place}");
    assert!(status.inventory.iter().all(|e| e.uid.is_some() && !e.stale && !e.candidate), "{place}");
}

/// The next commit: this image, and another configuration.
pub fn next(world: &World, tag: &str, more: &[(&str, &str)]) -> String {
    let web = web(tag, 2);
    let red = config_map("settings", "red");
    let files: Vec<(&str, &str)> = [("shop/web.yaml", web.as_str()), ("shop/settings.yaml", red.as_str())]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    world.commit("Next", &files)
}

/// A good revision that the daemon dies over is promoted all the same.
async fn is_promoted(mut world: World, place: String) {
    arm(&world, &place);
    let next = next(&world, "ok2", &[]);
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Ready, &next).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed, Outcome::Deployed], "{place}");
    one_variant(&world, &place, &status, "ok2", "red").await;
}

async fn a_switch(mut world: World, place: String) {
    let mut policy = blue_green();
    policy["steps"] = json!([]);
    deployed(&mut world, "app: web, tier: front", policy).await;
    is_promoted(world, place).await;
}

#[tokio::test]
async fn of_a_switch() {
    let all = ["Starting 0", "Switching 1", "Promoting 2", "Returning 2"];
    let also = [
        "amid writes Deploy",
        "amid removals",
        "before status Deploy Pruning",
        "after Prune",
        "before status Ready",
        "after status Ready",
    ];
    at_all(&places("Deploy", &all, &also), a_switch).await;
}

async fn a_canary(mut world: World, place: String) {
    let steps = json!([{"weight": 30}, {"pause": "300ms"}, {"weight": 50}]);
    deployed(&mut world, "app: web", canary(steps)).await;
    is_promoted(world, place).await;
}

#[tokio::test]
async fn of_a_canary() {
    // The first step is the layout that it starts with, and the second waits in it: neither is applied anew.
    let told = [
        "before status stage Stepping 1",
        "after status stage Stepping 1",
        "before status stage Stepping 2",
        "after status stage Stepping 2",
    ];
    at_all(&places("Deploy", &["Stepping 3", "Promoting 4"], &told), a_canary).await;
}

async fn a_canary_that_breaks(mut world: World, place: String) {
    let good = deployed(&mut world, "app: web", canary(json!([{"weight": 30}, {"pause": "1h"}]))).await;
    let before = deployment(&world, "web").await;
    arm(&world, &place);
    // Well until it has traffic and waits.
    let bad = next(&world, "ok2", &[]);
    let waits = |d: &Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.at == 2)
    };
    world.wait("shop", "waits in its pause", waits).await;
    for pod in world.names("v1", "pods").await.iter().filter(|pod| pod.starts_with("web-canary-")) {
        let image = json!("registry.example.com/web:crash");
        let breaks = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": image}]);
        world.patch("v1", "pods", pod, breaks).await;
    }
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed], "{place}");
    assert_eq!(status.effective.as_ref().unwrap().commit, good, "{place}");
    one_variant(&world, &place, &status, "ok", "blue").await;
    let after = deployment(&world, "web").await;
    assert_eq!(
        after["metadata"]["generation"], before["metadata"]["generation"],
        "{place}: stable is untouched"
    );
}

#[tokio::test]
async fn of_a_canary_that_breaks() {
    let also = ["before status Rollback Pruning", "after Prune", "before status Held", "after status Held"];
    at_all(&places("Rollback", &["Returning 2"], &also), a_canary_that_breaks).await;
}

async fn a_promotion_that_fails(mut world: World, place: String) {
    let mut policy = blue_green();
    policy["steps"] = json!([]);
    let good = deployed(&mut world, "app: web, tier: front", policy).await;
    arm(&world, &place);
    let worker = crate::support::daemon::deployment("worker", "missing", 1);
    let bad = next(&world, "ok2", &[("shop/worker.yaml", &worker)]);
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed], "{place}");
    assert_eq!(status.effective.as_ref().unwrap().commit, good, "{place}");
    one_variant(&world, &place, &status, "ok", "blue").await;
}

#[tokio::test]
async fn of_a_promotion_that_fails() {
    let also = ["before status Rollback Pruning", "after Prune", "before status Held"];
    at_all(&places("Rollback", &["Restoring 2", "Returning 2"], &also), a_promotion_that_fails).await;
}

async fn a_newer_commit(mut world: World, place: String) {
    let policy = canary(json!([{"weight": 30}, {"pause": {}}]));
    deployed(&mut world, "app: web", policy).await;
    let second = next(&world, "ok2", &[]);
    world.wait_for("shop", Phase::Paused, &second).await;
    arm(&world, &place);
    let third = next(&world, "ok3", &[]);
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Paused, &third).await.status.unwrap();
    assert!(status.held.is_none(), "{place}");
    let superseded = |h: &&windlass::api::delivery::HistoryEntry| h.outcome == Outcome::Superseded;
    assert_eq!(status.history.iter().filter(superseded).count(), 1, "{place}: {:?}", status.history);
    let canary = deployment(&world, "web-canary").await;
    assert_eq!(image(&canary), "registry.example.com/web:ok3", "{place}");
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok", "{place}");
    assert_eq!(world.names("apps/v1", "deployments").await, ["web", "web-canary"], "{place}");
    assert_eq!(world.names("v1", "configmaps").await, ["settings", "settings-canary"], "{place}");
}

#[tokio::test]
async fn of_a_rollout_that_a_newer_commit_ends() {
    let all = places(
        "Rollback",
        &["Returning 2"],
        &["after Prune", "before status stage Starting 0", "after status stage Starting 0"],
    );
    at_all(&all, a_newer_commit).await;
}
