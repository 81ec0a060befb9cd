//! The daemon is killed beside the steps of a revision: around its hooks, around the revert that it pushes, while it
//! repairs (a pod that is in the way, what a late request left), and while a Delivery or a rollback waits. The next one
//! ends where the dead one would have. How a place is told: `reconcile/fault.rs`.

use crate::a_failed_commit_is_reverted_in_git::{push, served, subjects};
use crate::hooks_run_once::{created, hook, jobs};
use crate::late_requests_leave_nothing_behind::{apply_late, wait_names};
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::the_daemon_dies_at_every_step::{arm, around, at_each, dies_and_rises, outcomes};
use serde_json::{Value, json};
use windlass::api::delivery::{Outcome, Phase};
use windlass::api::names;

/// The same story at each place.
pub async fn everywhere<F: Future<Output = ()>>(
    steps: &[&str],
    also: &[&str],
    story: impl Fn(World, String) -> F,
) {
    let places = around(steps, also);
    at_each(&places, story).await;
}

/// Waits until the Jobs of hooks that are left have these points.
async fn wait_hooks(world: &World, place: &str, points: &[&str]) {
    wait_until(&format!("{place}: Jobs of {points:?} are left"), LIMIT, || async {
        let all = jobs(world).await;
        let mut there: Vec<&str> = all.iter().map(|(_, point, _)| point.as_str()).collect();
        there.sort_unstable();
        if there == points { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
}

async fn hooks_of_a_change(mut world: World, place: String) {
    world.start();
    let first = world.commit("First", &[("shop/it.yaml", &config_map("it", "1"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let audit = world.space.cluster.audit();
    arm(&world, &place);
    let second = world.commit(
        "With hooks",
        &[
            ("shop/it.yaml", &config_map("it", "2")),
            ("shop/migrate.yaml", &hook("migrate", "before-apply", "", "ok")),
            ("shop/test.yaml", &hook("test", "after-apply", "hook-succeeded", "ok")),
        ],
    );
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Ready, &second).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed, Outcome::Deployed], "{place}");
    wait_hooks(&world, &place, &["before-apply"]).await;
    assert_eq!(created(&world, &audit), 2, "{place}: each ran once");
}

#[tokio::test]
async fn around_the_hooks_of_a_change() {
    let steps = [
        "status hook before-apply Running",
        "RunHook",
        "status hook before-apply Succeeded",
        "Notify HookSucceeded",
        "status hook after-apply Running",
        "status hook after-apply Succeeded",
        "RemoveHooks",
    ];
    everywhere(&steps, &["amid removals"], hooks_of_a_change).await;
}

async fn hooks_of_a_failure(mut world: World, place: String) {
    world.start();
    let undo = hook("undo", "on-rollback", "", "ok");
    let good = world.commit("Good", &[("shop/it.yaml", &config_map("it", "1")), ("shop/undo.yaml", &undo)]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let audit = world.space.cluster.audit();
    arm(&world, &place);
    let bad = world.commit(
        "A test that fails",
        &[
            ("shop/it.yaml", &config_map("it", "2")),
            ("shop/test.yaml", &hook("test", "after-apply", "", "fail")),
            ("shop/tell.yaml", &hook("tell", "on-failure", "", "ok")),
        ],
    );
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed], "{place}");
    assert_eq!(status.held.unwrap().problem.reason, "HookFailed", "{place}");
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "1", "{place}");
    wait_hooks(&world, &place, &["after-apply", "on-failure", "on-rollback"]).await;
    wait_until(&format!("{place}: all have ended"), LIMIT, || async {
        let all = jobs(&world).await;
        let done = all.iter().all(|(_, point, complete)| *complete || point == "after-apply");
        if done { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    assert_eq!(created(&world, &audit), 3, "{place}: each ran once");
}

#[tokio::test]
async fn around_the_hooks_of_a_failure() {
    let steps = [
        "status hook after-apply Failed",
        "status hook on-failure Running",
        "RunHook",
        "status hook on-failure Succeeded",
        "status hook on-rollback Running",
        "status hook on-rollback Succeeded",
    ];
    everywhere(&steps, &[], hooks_of_a_failure).await;
}

async fn a_revert(mut world: World, place: String) {
    world.start();
    let good = world.commit("Good", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    let bare = served(&world);
    world.remote("config", &bare.to_string_lossy(), None, json!({"interval": "1h"})).await;
    world.delivery("config", "shop", json!({"rollback": {"mode": "Revert"}})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    arm(&world, &place);
    world.commit("Bad", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    push(&world, &bare);
    dies_and_rises(&mut world, &place).await;
    let taken_back = |d: &windlass::api::Delivery| {
        d.status.as_ref().is_some_and(|s| {
            s.phase == Phase::Ready && s.held.is_none() && s.history[0].outcome == Outcome::Restored
        })
    };
    world.wait("shop", &format!("{place}: is ready since Git went back"), taken_back).await;
    assert_eq!(subjects(&bare, "main"), ["Revert \"Bad\"", "Bad", "Good"], "{place}: once");
    let more = crate::support::git::git(&bare, &["branch", "--list", "windlass/*"]);
    assert_eq!(more, "", "{place}: and nowhere else");
}

#[tokio::test]
async fn around_the_push_of_a_revert() {
    everywhere(&["Revert", "push"], &[], a_revert).await;
}

async fn a_revert_beside(mut world: World, place: String) {
    world.start();
    let good = world.commit("Good", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    // The branch that is checked out takes no push, so the revert goes to one of its own, and stays in the status.
    world.deliver("shop", json!({"rollback": {"mode": "Revert"}})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    arm(&world, &place);
    let bad = world.commit("Bad", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    dies_and_rises(&mut world, &place).await;
    let branch = format!("windlass/revert-shop-{}", &bad[..12]);
    world
        .wait("shop", &format!("{place}: is taken back on a branch"), |d| {
            let held = d.status.as_ref().and_then(|s| s.held.as_ref());
            held.and_then(|h| h.revert.as_ref()).is_some_and(|r| r.branch == branch)
        })
        .await;
    let repo = world.repo.path();
    assert_eq!(subjects(&repo, &branch), ["Revert \"Bad\"", "Bad", "Good"], "{place}");
    assert_eq!(subjects(&repo, "main"), ["Bad", "Good"], "{place}");
}

#[tokio::test]
async fn around_the_record_of_a_revert() {
    everywhere(&["push", "status reverted", "Notify Reverted"], &[], a_revert_beside).await;
}

async fn a_late_request(mut world: World, place: String) {
    world.start();
    let files =
        [("shop/settings.yaml", config_map("settings", "1")), ("shop/old.yaml", config_map("old", "1"))];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let first = world.commit("First", &files);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit("One leaves Git", &[("shop/old.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &second).await;
    wait_names(&world, &["settings"]).await;
    arm(&world, &place);
    apply_late(&world, names::FIELD_MANAGER, "old", None).await;
    dies_and_rises(&mut world, &place).await;
    wait_names(&world, &["settings"]).await;
    let third = world.commit("Goes on", &[("shop/settings.yaml", &config_map("settings", "2"))]);
    let status = world.wait_for("shop", Phase::Ready, &third).await.status.unwrap();
    assert_eq!(status.inventory.len(), 1, "{place}");
    wait_names(&world, &["settings"]).await;
}

#[tokio::test]
async fn while_what_a_late_request_left_is_removed() {
    everywhere(&["RemoveLate"], &["amid late removals"], a_late_request).await;
}

async fn an_eviction(mut world: World, place: String) {
    let database = |tag: &str| {
        deployment("database", tag, 2)
            .replace("kind: Deployment", "kind: StatefulSet")
            .replace("  replicas: 2\n", "  replicas: 2\n  serviceName: database\n")
    };
    world.start();
    let good = world.commit("A database", &[("shop/database.yaml", &database("ok"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    arm(&world, &place);
    let bad = world.commit("A broken database", &[("shop/database.yaml", &database("crash"))]);
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed], "{place}");
    let set = world.get("apps/v1", "statefulsets", "database").await;
    let counts = ["readyReplicas", "updatedReplicas"].map(|count| set["status"][count].clone());
    assert_eq!(counts, [json!(2), json!(2)], "{place}: {set}");
}

#[tokio::test]
async fn while_a_broken_pod_is_evicted() {
    everywhere(&["Evict"], &["amid evictions"], an_eviction).await;
}

/// Opens the gate of each pod that has none open yet.
pub async fn open_gates(world: &World) {
    wait_until("a pod waits at its gate, and is let through", LIMIT, || async {
        let pods = world.space.send("GET", &world.space.path("v1", "pods"), &Value::Null).await;
        let shut = |pod: &&Value| {
            let none = Vec::new();
            let conditions = pod["status"]["conditions"].as_array().unwrap_or(&none);
            let has = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
            pod["spec"]["readinessGates"].is_array() && has("ContainersReady") && !has("example.com/open")
        };
        let Some(pod) = pods["items"].as_array().unwrap().iter().find(shut) else {
            return Err(pods["items"].to_string());
        };
        let name = pod["metadata"]["name"].as_str().unwrap();
        let open = json!([{"op": "add", "path": "/status/conditions/-", "value": {"type": "example.com/open", "status": "True"}}]);
        world.patch("v1", "pods", &format!("{name}/status"), open).await;
        Ok(())
    })
    .await;
}

/// A Deployment whose pod is ready when [`open_gates`] says so.
pub fn gated(tag: &str) -> String {
    deployment("web", tag, 1).replace("  selector:", "  strategy: {type: Recreate}\n  selector:").replace(
        "spec: {containers",
        "spec: {readinessGates: [{conditionType: example.com/open}], containers",
    )
}

async fn a_rollback_that_waits(mut world: World, place: String) {
    // What goes back gets a new pod, which is ready when this test says so.
    let web = gated;
    world.start();
    let good = world.commit("Good", &[("shop/web.yaml", &web("ok"))]);
    world.deliver("shop", json!({})).await;
    open_gates(&world).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    arm(&world, &place);
    let bad = world.commit("Bad", &[("shop/web.yaml", &web("missing"))]);
    dies_and_rises(&mut world, &place).await;
    open_gates(&world).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed], "{place}");
    assert_eq!(status.effective.unwrap().commit, good, "{place}");
}

#[tokio::test]
async fn while_a_rollback_waits_for_health() {
    everywhere(&["status Rollback Waiting"], &[], a_rollback_that_waits).await;
}

async fn a_dependent(mut world: World, place: String) {
    arm(&world, &place);
    world.start();
    let commit = world.commit(
        "Both",
        &[
            // Ready when this test says so.
            ("apps/db/db.yaml", &gated("ok").replace("web", "db")),
            ("apps/web/web.yaml", &config_map("web", "1")),
            ("apps/web/windlass.yaml", "dependsOn: [{name: db}]\nretryInterval: 1h\n"),
        ],
    );
    world.deliver("apps/*", json!({})).await;
    let waits = place.ends_with("waiting for another");
    if waits {
        dies_and_rises(&mut world, &place).await;
    }
    assert!(world.get("v1", "configmaps", "web").await.is_null(), "{place}: db is not healthy yet");
    open_gates(&world).await;
    if !waits {
        dies_and_rises(&mut world, &place).await;
    }
    world.wait_for("db", Phase::Ready, &commit).await;
    let status = world.wait_for("web", Phase::Ready, &commit).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed], "{place}");
    let version = |object: &Value| -> u64 {
        object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse().unwrap()
    };
    // What follows of the Deployment's status says nothing of when; its pod changes last when it becomes ready.
    let pods = world.space.send("GET", &world.space.path("v1", "pods"), &Value::Null).await;
    let web = world.get("v1", "configmaps", "web").await;
    assert_eq!(world.get("apps/v1", "deployments", "db").await["status"]["availableReplicas"], 1, "{place}");
    assert!(version(&pods["items"][0]) < version(&web), "{place}: db was healthy before");

    // They go in reverse.
    world.repository(json!({"deliveries": []})).await;
    for name in ["db", "web"] {
        world.delete("windlass.dev/v1alpha1", "deliveries", name).await;
    }
    world.wait_gone("db").await;
    world.wait_gone("web").await;
    assert!(world.names("apps/v1", "deployments").await.is_empty(), "{place}");
}

#[tokio::test]
async fn while_a_delivery_waits_for_another() {
    // The first that becomes Ready is the one that is waited for.
    everywhere(&["status waiting for another", "status Ready", "Notify Deployed"], &[], a_dependent).await;
}
