//! The daemon is killed where a rollout waits for a route, in the directory or somebody else's: the next one ends where the dead
//! one would have, and the route as its owner wrote it.

use crate::a_rollout_goes_step_by_step::deployment;
use crate::support::daemon::World;
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use crate::the_daemon_dies_at_every_stage_of_a_rollout::{at_all, deployed, next, one_variant, places};
use crate::the_daemon_dies_at_every_step::{arm, dies_and_rises, outcomes};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::{Outcome, Phase};

fn canary(steps: Value) -> Value {
    json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": steps, "settle": "300ms",
    })
}

/// A route of somebody else stands there, a good commit runs, and a controller answers.
async fn behind_a_route(world: &mut World, steps: Value) -> (Controller, String) {
    world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &route()).await;
    let controller = Controller::of(world);
    let good = deployed(world, "app: web", canary(steps)).await;
    (controller, good)
}

/// The route is as its owner wrote it.
async fn given_back(world: &World, place: &str) {
    let live = world.get(GATEWAY, ROUTES, "web").await;
    assert_eq!(live["spec"], route()["spec"], "{place}");
    assert_eq!(live["metadata"]["annotations"], Value::Null, "{place}");
}

/// Of a route in the directory.
async fn a_promotion(mut world: World, place: String) {
    let controller = Controller::of(&world);
    deployed(&mut world, "app: web", json!({})).await;
    let with = world.commit("A route", &[("shop/route.yaml", &route().to_string())]);
    world.deliver("shop", json!({"rollout": canary(json!([{"weight": 30}]))})).await;
    world.wait_for("shop", Phase::Ready, &with).await;
    let rolls = |d: &Delivery| d.spec.template.rollout.as_ref().is_some_and(|r| r.workload.is_some());
    world.wait("shop", "has a rollout", rolls).await;
    let in_git = world.get(GATEWAY, ROUTES, "web").await;
    arm(&world, &place);
    let next = next(&world, "ok2", &[]);
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Ready, &next).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed; 3], "{place}");
    one_variant(&world, &place, &status, "ok2", "red").await;
    assert_eq!(world.get(GATEWAY, ROUTES, "web").await["spec"], in_git["spec"], "{place}");
    drop(controller);
}

#[tokio::test]
async fn of_a_promotion_by_a_route_of_ones_own() {
    know_routes().await;
    let also = ["before status Deploy Pruning", "after Prune"];
    let all = ["Starting 0", "Stepping 1", "Switching 2", "Draining 3", "Returning 3"];
    at_all(&places("Deploy", &all, &also), a_promotion).await;
}

/// Of a route of somebody else, also while stable takes the new template.
async fn a_promotion_by_anothers(mut world: World, place: String) {
    let (_controller, _) = behind_a_route(&mut world, json!([{"weight": 30}])).await;
    let before = deployment(&world, "web").await;
    arm(&world, &place);
    let next = next(&world, "ok2", &[]);
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Ready, &next).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed; 2], "{place}");
    one_variant(&world, &place, &status, "ok2", "red").await;
    given_back(&world, &place).await;
    let after = deployment(&world, "web").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "{place}");
}

#[tokio::test]
async fn of_a_promotion_by_a_route_of_others() {
    know_routes().await;
    let all = ["Switching 2", "Promoting 3", "Draining 3", "Returning 3"];
    at_all(&places("Deploy", &all, &["after Prune"]), a_promotion_by_anothers).await;
}

/// Of a route of somebody else.
async fn a_canary_that_breaks(mut world: World, place: String) {
    let steps = json!([{"weight": 30}, {"pause": "1h"}]);
    let (_controller, good) = behind_a_route(&mut world, steps).await;
    let before = deployment(&world, "web").await;
    arm(&world, &place);
    let bad = next(&world, "ok2", &[]);
    let waits = |d: &Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.at == 2)
    };
    world.wait("shop", "waits in its pause", waits).await;
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30), "{place}");
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
    given_back(&world, &place).await;
    let after = deployment(&world, "web").await;
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"], "{place}");
}

#[tokio::test]
async fn of_a_canary_that_breaks_on_a_route_of_others() {
    know_routes().await;
    let also = ["before status Rollback Pruning", "after Prune", "before status Held"];
    at_all(&places("Rollback", &["Draining 2", "Returning 2"], &also), a_canary_that_breaks).await;
}

/// The same, and stable was touched.
async fn a_promotion_that_fails(mut world: World, place: String) {
    let (_controller, good) = behind_a_route(&mut world, json!([{"weight": 30}])).await;
    arm(&world, &place);
    let worker = crate::support::daemon::deployment("worker", "missing", 1);
    let bad = next(&world, "ok2", &[("shop/worker.yaml", &worker)]);
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed], "{place}");
    assert_eq!(status.effective.as_ref().unwrap().commit, good, "{place}");
    one_variant(&world, &place, &status, "ok", "blue").await;
    given_back(&world, &place).await;
}

#[tokio::test]
async fn of_a_promotion_that_fails_on_a_route_of_others() {
    know_routes().await;
    at_all(&places("Rollback", &["Restoring 3", "Draining 3"], &["after Prune"]), a_promotion_that_fails)
        .await;
}
