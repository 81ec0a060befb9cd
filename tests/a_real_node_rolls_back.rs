//! A plain Deployment on a real node: what a kubelet reports of a bad image is understood as it is of simulated pods, and
//! while a bad commit comes and goes, no request is lost.

use crate::a_bad_commit_is_rolled_back_and_held::restarts;
use crate::support::cluster::wait_until;
use crate::support::daemon::{World, condition, config_map};
use crate::support::load::Load;
use crate::support::plane::{self, Plane, server, service};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::{Outcome, Phase};

/// The files of an application behind the gateway.
fn web(plane: &Plane, host: &str, tag: &str) -> String {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [plane.parent],
            "hostnames": [host],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        },
    });
    // JSON is YAML.
    [server("web", tag, 2), service("web", "http"), route].map(|object| object.to_string()).join("\n---\n")
}

/// The version that the gateway leads to, once it leads anywhere.
async fn version(plane: &Plane, host: &str) -> String {
    wait_until("the gateway leads to the application", crate::support::daemon::LIMIT, || async {
        match plane.get(host, "/").await? {
            (200, headers) => Ok(headers["x-version"].clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn an_image_that_is_missing_and_one_that_crashes_are_rolled_back_and_lose_no_request() {
    let Some(plane) = plane::shared("a_real_node_rolls_back") else { return };
    let mut world = World::stopped_in(plane.cluster, "real").await;
    let _told = plane.told(&world.space);
    world.start();
    let host = format!("{}.test", world.space.name);
    let commit = |tag: &str, colour: &str| {
        let settings = config_map("settings", colour);
        let subject = format!("The image {tag}");
        world.commit(
            &subject,
            &[("shop/web.yaml", &web(plane, &host, tag)), ("shop/settings.yaml", &settings)],
        )
    };
    let good = commit("v1", "blue");
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    assert_eq!(version(plane, &host).await, "v1");

    let load = Load::start(plane, &host, 50, &[]);
    for (tag, said) in [("missing", "not found"), ("crash", " times")] {
        let bad = commit(tag, "red");
        let delivery = world.wait_for("shop", Phase::Held, &bad).await;
        let (status, reason, message) = condition(&delivery, kind::HELD);
        assert_eq!((status.as_str(), reason.as_str()), ("True", "RevisionHeld"));
        assert!(message.contains(said), "{tag}: {message}");
        assert!(tag != "crash" || restarts(&message) >= 3, "{message}");
        let status = delivery.status.unwrap();
        assert_eq!(status.held.unwrap().problem.object, format!("Deployment {}/web", world.space.name));
        assert_eq!(status.effective.unwrap().commit, good);
        assert_eq!(status.history[0].outcome, Outcome::Restored);
        assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
        runs(&world, &["registry.example.com/web:v1"; 2]).await;
    }
    let better = commit("v2", "green");
    world.wait_for("shop", Phase::Ready, &better).await;
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "green");
    load.wait("the new version answers", |c| c.of("v2") > 0).await;
    let counts = load.stop();
    assert_eq!(counts.failed, 0, "{counts:?}");
    assert_eq!(counts.of("v1") + counts.of("v2"), counts.requests, "{counts:?}");
    assert!(counts.of("v1") > 0 && counts.of("v2") > 0, "{counts:?}");
}

#[tokio::test]
async fn a_release_that_leaks_is_taken_back_once_the_kernel_has_killed_it() {
    let Some(plane) = plane::shared("a_real_node_rolls_back::a_release_that_leaks") else { return };
    let mut world = World::stopped_in(plane.cluster, "leak").await;
    let _told = plane.told(&world.space);
    world.start();
    let commit = |tag: &str| {
        let mut web = server("web", tag, 1);
        web["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "48Mi"}});
        world.commit(&format!("The image {tag}"), &[("shop/web.yaml", &web.to_string())])
    };
    let good = commit("v1");
    world.deliver("shop", json!({"rollback": {"bake": "10m"}})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // It is ready at first, and takes 16 MiB more each second.
    let bad = commit("leak");
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    let (_, _, message) = condition(&delivery, kind::HELD);
    assert!(message.contains("OOMKilled"), "{message}");
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good);
    runs(&world, &["registry.example.com/web:v1"]).await;
}

#[tokio::test]
async fn the_end_of_a_hooks_log_is_told() {
    let Some(plane) = plane::shared("a_real_node_rolls_back::the_end_of_a_hooks_log") else { return };
    let mut world = World::stopped_in(plane.cluster, "logs").await;
    let _told = plane.told(&world.space);
    world.start();
    let good = world.commit("Good", &[("shop/map.yaml", &config_map("map", "1"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // Its pod stays there to be read from.
    let hook = crate::hooks_run_once::hook("migrate", "before-apply", "", "fail")
        .replace("Finished: 1\n", "Finished: 900\n");
    let bad = world.commit(
        "A migration that fails",
        &[("shop/map.yaml", &config_map("map", "2")), ("shop/migrate.yaml", &hook)],
    );
    let held = world.wait_for("shop", Phase::Held, &bad).await;
    // What the process said last before it ended.
    let said = "its log ends: ";
    let last = "crashing, as told";
    let problem = held.status.unwrap().held.unwrap().problem;
    assert!(problem.message.contains(said) && problem.message.contains(last), "{problem:?}");
    let event = world.wait_event("shop", "RollingBack").await;
    assert!(event.contains(said) && event.contains(last), "{event}");
    assert_eq!(world.get("v1", "configmaps", "map").await["data"]["key"], "1");
}

/// Waits until these images run: on a busy machine a probe that comes too late calls a pod unready for a while.
async fn runs(world: &World, images: &[&str]) {
    wait_until(&format!("{images:?} run"), crate::support::daemon::LIMIT, || async {
        let now = running(world).await;
        if now == images { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

/// The images of the pods that are ready and there to stay.
async fn running(world: &World) -> Vec<String> {
    let list = world.space.send("GET", &world.space.path("v1", "pods"), &Value::Null).await;
    let ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let stays = pod["metadata"]["deletionTimestamp"].is_null();
        stays && conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let pods = list["items"].as_array().unwrap().iter().filter(ready);
    pods.map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()).collect()
}
