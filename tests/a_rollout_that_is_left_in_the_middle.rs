//! Nobody goes on with a rollout that is in its middle: it is switched off, its policy names another strategy, a person rolls back,
//! the route is gone, or its Delivery is deleted, with its objects or without. What is there afterwards has all traffic, and no
//! route names what is gone.

use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployment, image};
use crate::support::cli::windlass;
use crate::support::daemon::World;
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use crate::support::git::git;
use crate::the_daemon_dies_at_every_stage_of_a_rollout::{deployed, next};
use serde_json::{Value, json};
use windlass::api::delivery::{DeliveryStatus, Outcome, Phase};
use windlass::api::names;
use windlass::api::rollout::Stage;

fn by_route() -> Value {
    let mut policy = canary(json!([{"weight": 30}, {"pause": {}}]));
    policy["router"] = json!({"gatewayAPI": {"route": "web"}});
    policy
}

/// A route of somebody else, and a good commit; the next one has a share of its traffic, and waits.
async fn behind_a_route_of_others(world: &mut World) -> (Controller, String) {
    world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &route()).await;
    let controller = Controller::of(world);
    deployed(world, "app: web", by_route()).await;
    let second = next(world, "ok2", &[]);
    world.wait_for("shop", Phase::Paused, &second).await;
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30));
    (controller, second)
}

/// Nobody else deletes a Delivery of a Repository for good.
async fn delete(world: &World) {
    world.repository(json!({"deliveries": []})).await;
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    world.wait_gone("shop").await;
}

/// The route is as its owner wrote it, and was so before the candidate's Service went.
async fn given_back_first(world: &World, audit: &crate::support::cluster::Audit) {
    let live = world.get(GATEWAY, ROUTES, "web").await;
    assert_eq!(live["spec"], route()["spec"]);
    assert_eq!(live["metadata"]["annotations"], Value::Null);
    let mut all = world.writes(audit);
    all.sort_by(|a, b| a.at.cmp(&b.at));
    let given = all.iter().rposition(|r| r.resource == ROUTES && r.name == "web").unwrap();
    let gone = all.iter().position(|r| r.verb == "delete" && r.name == "web-canary").unwrap();
    assert!(given < gone, "{all:#?}");
}

#[tokio::test]
async fn switched_off_it_gives_a_route_of_others_back_and_the_rest_is_one_step() {
    know_routes().await;
    let mut world = World::stopped("left-off").await;
    let (_controller, second) = behind_a_route_of_others(&mut world).await;
    let audit = world.space.cluster.audit();
    world.deliver("shop", json!({"rollout": {}})).await;
    let status = world.wait_for("shop", Phase::Ready, &second).await.status.unwrap();
    assert_eq!(status.history[0].outcome, Outcome::Deployed);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2");
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
    assert_eq!(world.names("v1", "configmaps").await, ["settings"]);
    given_back_first(&world, &audit).await;
}

#[tokio::test]
async fn reverted_in_git_it_gives_a_route_of_others_back_and_stable_was_not_touched() {
    know_routes().await;
    let mut world = World::stopped("left-reverted").await;
    let _controller = behind_a_route_of_others(&mut world).await;
    let before = deployment(&world, "web").await;
    let audit = world.space.cluster.audit();
    git(&world.repo.path(), &["revert", "--no-edit", "HEAD"]);
    let ready = |d: &windlass::api::Delivery| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready);
    let status = world.wait("shop", "is ready again", ready).await.status.unwrap();
    assert!(status.held.is_none());
    stands_alone(&world, &before).await;
    let generation = &deployment(&world, "web").await["metadata"]["generation"];
    assert_eq!(*generation, before["metadata"]["generation"]);
    given_back_first(&world, &audit).await;
}

#[tokio::test]
async fn given_another_router_it_ends_with_its_own_and_divides_no_other_route() {
    know_routes().await;
    let mut world = World::stopped("left-rerouted").await;
    let mut other = route();
    other["metadata"]["name"] = json!("other");
    let other = world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &other).await;
    let (_controller, second) = behind_a_route_of_others(&mut world).await;
    let mut policy = by_route();
    policy["router"]["gatewayAPI"]["route"] = json!("other");
    world.deliver("shop", json!({"rollout": policy})).await;
    let told = |d: &windlass::api::Delivery| {
        let router = d.spec.template.rollout.as_ref().and_then(|r| r.router.as_ref());
        router.and_then(|r| r.gateway_api.as_ref()).is_some_and(|g| g.route == "other")
    };
    world.wait("shop", "is told of another route", told).await;
    let promoted = windlass(&world.space, &["promote", "shop", "-n", &world.space.name]);
    assert_eq!(promoted.code, 0, "{promoted:?}");
    world.wait_for("shop", Phase::Ready, &second).await;
    let now = world.get(GATEWAY, ROUTES, "other").await;
    assert_eq!(now["metadata"]["generation"], other["metadata"]["generation"], "{now}");
    assert_eq!(now["metadata"]["annotations"], Value::Null);
    let own = world.get(GATEWAY, ROUTES, "web").await;
    assert_eq!((&own["spec"], &own["metadata"]["annotations"]), (&route()["spec"], &Value::Null));
    // The next one has it.
    let third = next(&world, "ok3", &[]);
    world.wait_for("shop", Phase::Paused, &third).await;
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "other").await), Some(30));
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), None);
}

/// Waits until a rollout goes no further for a reason; why, in words.
async fn paused(world: &World, reason: &str) -> String {
    let why = |d: &windlass::api::Delivery| {
        let rollout = d.status.as_ref()?.attempt.as_ref()?.rollout.as_ref()?;
        rollout.paused.as_ref().filter(|p| p.reason == reason).map(|p| p.message.clone())
    };
    why(&world.wait("shop", &format!("is paused: {reason}"), |d| why(d).is_some()).await).unwrap()
}

#[tokio::test]
async fn with_steps_that_cannot_be_read_it_stays_as_it_is_until_they_can() {
    know_routes().await;
    let mut world = World::stopped("left-unreadable").await;
    let (_controller, second) = behind_a_route_of_others(&mut world).await;
    let mut policy = by_route();
    policy["steps"] = json!([{"weight": 20, "pause": "5m"}]);
    world.deliver("shop", json!({"rollout": policy})).await;
    let why = paused(&world, "PolicyChanged").await;
    assert!(why.contains("spec.rollout.steps[0]") && why.contains("windlass promote"), "{why}");
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30));
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");
    world.deliver("shop", json!({"rollout": by_route()})).await;
    paused(&world, "AwaitsPromotion").await;
    let promoted = windlass(&world.space, &["promote", "shop", "-n", &world.space.name]);
    assert_eq!(promoted.code, 0, "{promoted:?}");
    world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2");
}

#[tokio::test]
async fn given_another_strategy_and_workload_it_ends_with_the_candidate_that_it_has() {
    know_routes().await;
    let mut world = World::stopped("left-renamed").await;
    let (_controller, second) = behind_a_route_of_others(&mut world).await;
    let candidate = world.get("apps/v1", "deployments", "web-canary").await;
    let audit = world.space.cluster.audit();
    let other = json!({
        "strategy": "BlueGreen", "workload": {"name": "other"}, "router": {"gatewayAPI": {"route": "web"}},
        "scaleDownDelay": "1s", "settle": "300ms",
    });
    world.deliver("shop", json!({"rollout": other})).await;
    paused(&world, "PolicyChanged").await;
    let promoted = windlass(&world.space, &["promote", "shop", "-n", &world.space.name]);
    assert_eq!(promoted.code, 0, "{promoted:?}");
    let status = world.wait_for("shop", Phase::Ready, &second).await.status.unwrap();
    assert!(status.inventory.iter().all(|e| !e.candidate && !e.stale), "{status:?}");
    let writes = world.writes(&audit);
    assert!(!writes.iter().any(|r| r.name.ends_with("-preview")), "one candidate is enough: {writes:#?}");
    let deployments = writes.iter().filter(|r| r.resource == "deployments");
    assert!(deployments.clone().all(|r| ["web", "web-canary"].contains(&r.name.as_str())), "{writes:#?}");
    let gone = writes.iter().find(|r| r.verb == "delete" && r.resource == "deployments").unwrap();
    assert_eq!(gone.name, candidate["metadata"]["name"], "{gone:?}");
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2");
    given_back_first(&world, &audit).await;
}

#[tokio::test]
async fn whose_route_of_others_stays_away_it_is_taken_back_when_its_time_is_up() {
    know_routes().await;
    let mut world = World::stopped("left-routeless").await;
    let (_controller, second) = behind_a_route_of_others(&mut world).await;
    let before = deployment(&world, "web").await;
    let good = effective(&world).await;
    world.give_time(5, json!({"rollout": by_route()})).await;
    world.delete(GATEWAY, ROUTES, "web").await;
    let status = world.wait_for("shop", Phase::Held, &second).await.status.unwrap();
    let problem = status.held.unwrap().problem;
    assert_eq!(problem.reason, "RouteMissing", "{problem:?}");
    assert!(problem.object.starts_with("HTTPRoute ") && problem.object.ends_with("/web"), "{problem:?}");
    assert_eq!(status.effective.unwrap().commit, good);
    assert!(status.inventory.iter().all(|e| !e.candidate && !e.stale));
    stands_alone(&world, &before).await;
    let generation = &deployment(&world, "web").await["metadata"]["generation"];
    assert_eq!(*generation, before["metadata"]["generation"]);
    assert_eq!(world.get(GATEWAY, ROUTES, "web").await, Value::Null, "nobody else's is made");
}

#[tokio::test]
async fn deleted_it_gives_a_route_of_others_back_before_anything_goes() {
    know_routes().await;
    let mut world = World::stopped("left-deleted").await;
    let _controller = behind_a_route_of_others(&mut world).await;
    let audit = world.space.cluster.audit();
    delete(&world).await;
    for (api, plural) in [("apps/v1", "deployments"), ("v1", "services"), ("v1", "configmaps")] {
        assert!(world.names(api, plural).await.is_empty(), "{plural}");
    }
    given_back_first(&world, &audit).await;
}

/// A person goes back, to the revision that ran before or to a commit.
fn roll_back(world: &World, to: &[&str]) {
    let all: Vec<&str> =
        ["rollback", "shop", "-n", &world.space.name].into_iter().chain(to.iter().copied()).collect();
    let answer = windlass(&world.space, &all);
    assert_eq!(answer.code, 0, "{answer:?}");
}

/// This one is held, since a person went back to what ran.
fn held_by_hand(status: &DeliveryStatus, good: &str, held: &str) {
    assert_eq!(status.effective.as_ref().unwrap().commit, good);
    let now = status.held.as_ref().unwrap();
    assert_eq!((now.revision.commit.as_str(), now.problem.reason.as_str()), (held, "RolledBackByHand"));
    assert!(status.inventory.iter().all(|e| !e.candidate && !e.stale));
}

#[tokio::test]
async fn rolled_back_by_hand_it_gives_a_route_of_others_back_and_stable_was_not_touched() {
    know_routes().await;
    let mut world = World::stopped("left-by-hand").await;
    let (_controller, second) = behind_a_route_of_others(&mut world).await;
    let before = deployment(&world, "web").await;
    let good = effective(&world).await;
    let audit = world.space.cluster.audit();
    roll_back(&world, &[]);
    let status = world.wait_for("shop", Phase::Held, &second).await.status.unwrap();
    held_by_hand(&status, &good, &second);
    let outcomes: Vec<Outcome> = status.history.iter().map(|h| h.outcome).collect();
    assert_eq!(outcomes, [Outcome::Restored, Outcome::Superseded, Outcome::Deployed]);
    stands_alone(&world, &before).await;
    let generation = &deployment(&world, "web").await["metadata"]["generation"];
    assert_eq!(*generation, before["metadata"]["generation"]);
    given_back_first(&world, &audit).await;
}

#[tokio::test]
async fn rolled_back_by_hand_in_its_promotion_stable_is_back_before_it_has_traffic_again() {
    know_routes().await;
    let mut world = World::stopped("left-promoting").await;
    world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &route()).await;
    let _controller = Controller::of(&world);
    let good = deployed(&mut world, "app: web", by_route()).await;
    let before = deployment(&world, "web").await;
    // What comes with promotion only gets healthy late.
    let worker = crate::support::daemon::deployment("worker", "unready", 1);
    let second = next(&world, "ok2", &[("shop/worker.yaml", &worker)]);
    world.wait_for("shop", Phase::Paused, &second).await;
    let promoted = windlass(&world.space, &["promote", "shop", "-n", &world.space.name]);
    assert_eq!(promoted.code, 0, "{promoted:?}");
    let new = |d: &Value| image(d).ends_with("web:ok2") && d["status"]["updatedReplicas"] == 2;
    world.wait_object("apps/v1", "deployments", "web", "has the new template", new).await;
    let promoting = |d: &windlass::api::Delivery| {
        let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
        attempt.and_then(|a| a.rollout.as_ref()).is_some_and(|r| r.stage == Stage::Promoting)
    };
    world.wait("shop", "is being promoted", promoting).await;
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(100));
    let audit = world.space.cluster.audit();
    roll_back(&world, &["--to", &good]);
    let status = world.wait_for("shop", Phase::Held, &second).await.status.unwrap();
    held_by_hand(&status, &good, &second);
    stands_alone(&world, &before).await;
    given_back_first(&world, &audit).await;
    let mut all = world.writes(&audit);
    all.sort_by(|a, b| a.at.cmp(&b.at));
    let back = all.iter().position(|r| r.resource == "deployments" && r.name == "web").unwrap();
    let traffic = all.iter().position(|r| r.resource == ROUTES && r.name == "web").unwrap();
    assert!(back < traffic, "{all:#?}");
}

async fn effective(world: &World) -> String {
    world.deliveries().get("shop").await.unwrap().status.unwrap().effective.unwrap().commit
}

/// Stable has all traffic and stands alone, as the last good revision says.
async fn stands_alone(world: &World, before: &Value) {
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
    assert_eq!(world.names("v1", "configmaps").await, ["settings"]);
    let stable = deployment(world, "web").await;
    assert_eq!(stable["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(image(&stable), image(before));
    let service = world.get("v1", "services", "web").await;
    assert!(!service["spec"]["selector"].to_string().contains("web-"), "{service}");
    let settings = world.get("v1", "configmaps", "settings").await;
    assert_eq!(settings["data"]["key"], "blue");
}

/// The same, and it is nobody's.
async fn left_alone(world: &World, before: &Value) {
    stands_alone(world, before).await;
    assert_eq!(deployment(world, "web").await["spec"], before["spec"]);
    for (api, plural, name) in
        [("apps/v1", "deployments", "web"), ("v1", "services", "web"), ("v1", "configmaps", "settings")]
    {
        let object = world.get(api, plural, name).await;
        assert!(object["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "{object}");
    }
}

#[tokio::test]
async fn deleted_without_its_objects_stable_has_all_traffic_of_a_route_of_others() {
    know_routes().await;
    let mut world = World::stopped("left-orphans").await;
    let (_controller, _) = behind_a_route_of_others(&mut world).await;
    let before = deployment(&world, "web").await;
    let audit = world.space.cluster.audit();
    world.deliver("shop", json!({"rollout": by_route(), "deletionPolicy": "Orphan"})).await;
    leaves(&world).await;
    delete(&world).await;
    left_alone(&world, &before).await;
    given_back_first(&world, &audit).await;
}

#[tokio::test]
async fn deleted_without_its_objects_stable_has_all_traffic_of_a_route_of_its_own() {
    know_routes().await;
    let mut world = World::stopped("left-own-route").await;
    let _controller = Controller::of(&world);
    deployed(&mut world, "app: web", json!({})).await;
    let with = world.commit("A route", &[("shop/route.yaml", &route().to_string())]);
    world.deliver("shop", json!({"rollout": by_route(), "deletionPolicy": "Orphan"})).await;
    world.wait_for("shop", Phase::Ready, &with).await;
    leaves(&world).await;
    let in_git = world.get(GATEWAY, ROUTES, "web").await;
    let before = deployment(&world, "web").await;
    let second = next(&world, "ok2", &[]);
    world.wait_for("shop", Phase::Paused, &second).await;
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30));
    delete(&world).await;
    left_alone(&world, &before).await;
    assert_eq!(world.get(GATEWAY, ROUTES, "web").await["spec"], in_git["spec"]);
}

/// It has been told to leave its objects.
async fn leaves(world: &World) {
    let told = |d: &windlass::api::Delivery| {
        d.spec.template.deletion_policy == Some(windlass::api::delivery::DeletionPolicy::Orphan)
    };
    world.wait("shop", "leaves its objects", told).await;
}

#[tokio::test]
async fn deleted_without_its_objects_stable_has_all_traffic_of_a_switch_and_of_shares_by_pods() {
    // After the switch, while the old pods are kept.
    let mut switch = blue_green();
    (switch["steps"], switch["scaleDownDelay"]) = (json!([]), json!("1h"));
    let shares = canary(json!([{"weight": 30}, {"pause": {}}]));
    for (test, selector, policy) in
        [("left-switch", "app: web, tier: front", switch), ("left-shares", "app: web", shares)]
    {
        let mut world = World::stopped(test).await;
        deployed(&mut world, selector, policy.clone()).await;
        let before = deployment(&world, "web").await;
        world.deliver("shop", json!({"rollout": policy, "deletionPolicy": "Orphan"})).await;
        leaves(&world).await;
        let second = next(&world, "ok2", &[]);
        let has_traffic = |d: &windlass::api::Delivery| {
            let status = d.status.as_ref().unwrap();
            let rollout = status.attempt.as_ref().and_then(|a| a.rollout.as_ref());
            status.attempt.as_ref().is_some_and(|a| a.revision.commit == second)
                && rollout.is_some_and(|r| r.layout.weight > 0 && r.settled.is_some())
        };
        world.wait("shop", "has a candidate with traffic", has_traffic).await;
        delete(&world).await;
        left_alone(&world, &before).await;
    }
}
