//! The API server is killed and comes back: whatever a Delivery was doing ends where it should. Nothing is lost, no
//! commit is blamed for it, and what happened meanwhile is noticed.

use crate::a_bad_commit_is_rolled_back_and_held::hurry;
use crate::support::cluster::{Cluster, try_send, wait_until};
use crate::support::daemon::{World, config_map, deployment};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::{gated, open_gates};
use serde_json::{Value, json};
use std::time::Duration;
use windlass::api::Delivery;
use windlass::api::delivery::{Goal, Outcome, Phase, Step};

/// Longer than the timeout of the Deliveries that wait.
const AWAY: Duration = Duration::from_secs(70);

/// Longer than anything here takes: Kubernetes' controllers, too, may begin two minutes after the API server is back.
const LIMIT: Duration = Duration::from_secs(420);

/// Of the Deliveries that wait: long enough for all of them to be seen waiting on a busy machine.
const TIMEOUT: &str = "1m";

async fn started(cluster: &'static Cluster, test: &str) -> World {
    let mut world = World::stopped_in(cluster, test).await;
    world.limit = LIMIT;
    world.start();
    world
}

/// A Delivery `shop` that runs a good commit.
async fn deployed(cluster: &'static Cluster, test: &str, files: &[(&str, &str)]) -> (World, String) {
    let world = started(cluster, test).await;
    let good = world.commit("Good", files);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

fn outcomes(delivery: &Delivery) -> Vec<Outcome> {
    delivery.status.iter().flat_map(|s| &s.history).map(|h| h.outcome).collect()
}

/// Deletes an object in the very moment in which the server is back, before the daemon has asked it anything.
async fn delete_as_soon_as_possible(world: &World, name: &str) {
    let path = format!("{}/{name}", world.space.path("v1", "configmaps"));
    wait_until("the server is back", LIMIT, || async {
        let gone = try_send(&world.space.connection.client, "DELETE", &path, &Value::Null).await;
        gone.map(|_| ()).map_err(|e| e.to_string())
    })
    .await;
}

async fn is_back(world: &World, name: &str, uid: &Value) {
    world
        .wait_object("v1", "configmaps", name, "made anew", |o| {
            o["metadata"]["uid"].is_string() && o["metadata"]["uid"] != *uid
        })
        .await;
}

#[tokio::test]
async fn for_a_minute_in_the_middle_of_everything() {
    let cluster = Cluster::own();
    let controllers = cluster.be_patient_with_nodes();

    // At rest.
    let files = [("shop/a.yaml", &*config_map("a", "1")), ("shop/b.yaml", &*config_map("b", "1"))];
    let (resting, at_rest) = deployed(cluster, "rest", &files).await;

    // At rest, seconds only: the daemon goes on with the watches that it has.
    let uid = resting.get("v1", "configmaps", "a").await["metadata"]["uid"].clone();
    let stopped = cluster.kill_api_server();
    let again = stopped.start();
    delete_as_soon_as_possible(&resting, "a").await;
    is_back(&resting, "a", &uid).await;

    // In the middle of a deployment: the second wave waits for the first.
    let web = |tag: &str| deployment("web", tag, 1);
    let later = |value: &str| {
        let annotated = "{name: later, annotations: {windlass.dev/wave: \"5\"}}";
        config_map("later", value).replace("{name: later}", annotated)
    };
    let files = [("shop/web.yaml", &*web("ok")), ("shop/later.yaml", &*later("1"))];
    let (deploying, _) = deployed(cluster, "deploying", &files).await;
    hurry(&deploying, TIMEOUT).await;
    // In the middle of a wait.
    let files = [("shop/web.yaml", &*web("ok"))];
    let (waiting, _) = deployed(cluster, "waiting", &files).await;
    hurry(&waiting, TIMEOUT).await;
    // In the middle of a rollback, which goes on when this test says so.
    let returning = started(cluster, "returning").await;
    let files = [("shop/web.yaml", &*gated("ok")), ("shop/old.yaml", &*config_map("old", "1"))];
    let good = returning.commit("Good", &files);
    returning.deliver("shop", json!({})).await;
    open_gates(&returning).await;
    returning.wait_for("shop", Phase::Ready, &good).await;
    hurry(&returning, TIMEOUT).await;
    // Nothing would ever become of this one: it is still taken back.
    let files = [("shop/web.yaml", &*web("ok"))];
    let (hopeless, last) = deployed(cluster, "hopeless", &files).await;
    hurry(&hopeless, TIMEOUT).await;

    let bad = returning.commit(
        "Bad",
        &[
            ("shop/web.yaml", &gated("missing")),
            ("shop/old.yaml", ""),
            ("shop/new.yaml", &config_map("new", "1")),
        ],
    );
    let goes_back = |d: &Delivery| d.status.iter().flat_map(|s| &s.attempt).any(|a| a.goal == Goal::Rollback);
    returning.wait("shop", "goes back", goes_back).await;
    // No pod becomes ready any more.
    let pods = cluster.kill_pod_player();
    let never = hopeless.commit("Never ready", &[("shop/web.yaml", &web("unready"))]);
    let begun =
        deploying.commit("Two waves", &[("shop/web.yaml", &web("slow")), ("shop/later.yaml", &later("2"))]);
    let slow = waiting.commit("Slow", &[("shop/web.yaml", &web("slow"))]);
    let applying = |d: &Delivery| {
        d.status
            .iter()
            .flat_map(|s| &s.attempt)
            .any(|a| a.step == Step::Applying && a.revision.commit == begun)
    };
    deploying.wait("shop", "is being applied", applying).await;
    waiting.wait_for("shop", Phase::Waiting, &slow).await;
    hopeless.wait_for("shop", Phase::Waiting, &never).await;
    returning.wait("shop", "still goes back", goes_back).await;

    let uid = resting.get("v1", "configmaps", "b").await["metadata"]["uid"].clone();
    let stopped = again.kill();
    // That it is away so long is the point.
    tokio::time::sleep(AWAY).await;
    // A commit comes meanwhile.
    let meanwhile = resting.commit("Meanwhile", &[("shop/c.yaml", &config_map("c", "1"))]);
    let again = stopped.start();
    delete_as_soon_as_possible(&resting, "b").await;
    let pods = pods.start();

    resting.wait_for("shop", Phase::Ready, &meanwhile).await;
    is_back(&resting, "b", &uid).await;
    assert_eq!(resting.names("v1", "configmaps").await, ["a", "b", "c"]);
    let delivery = resting.deliveries().get("shop").await.unwrap();
    assert_eq!(outcomes(&delivery), [Outcome::Deployed, Outcome::Deployed], "{at_rest}");

    let delivery = waiting.wait_for("shop", Phase::Ready, &slow).await;
    assert_eq!(outcomes(&delivery), [Outcome::Deployed, Outcome::Deployed]);
    let delivery = deploying.wait_for("shop", Phase::Ready, &begun).await;
    assert_eq!(outcomes(&delivery), [Outcome::Deployed, Outcome::Deployed]);
    assert_eq!(deploying.get("v1", "configmaps", "later").await["data"]["key"], "2");

    open_gates(&returning).await;
    let delivery = returning.wait_for("shop", Phase::Held, &bad).await;
    assert_eq!(outcomes(&delivery), [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed]);
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good);
    assert_eq!(returning.names("v1", "configmaps").await, ["old"]);

    let given_up = |d: &Delivery| d.status.iter().flat_map(|s| &s.held).any(|h| h.revision.commit == never);
    let status = hopeless.wait("shop", "is taken back", given_up).await.status.unwrap();
    assert_eq!(status.effective.unwrap().commit, last);
    assert_eq!(status.held.unwrap().problem.reason, "Timeout");

    drop((resting, deploying, waiting, returning, hopeless, controllers, pods, again));
    cluster.stop();
}
