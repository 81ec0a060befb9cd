//! What is done stands on what was seen and written down: a status that somebody else wrote meanwhile ends the round before
//! anything is done, and a delete that is late finds another version and does nothing.

use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::support::faults::{Fault, Faults, is_dry_run};
use axum::extract::Request;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use windlass::api::delivery::Phase;

/// A daemon behind an API server that can be made to fail.
async fn behind(test: &str) -> (World, Faults) {
    let mut world = World::stopped(test).await;
    let faults = world.behind_faults().await;
    world.start();
    (world, faults)
}

/// The next statuses are refused as written by somebody else. What came to the API server, in order: a status that was `refused`,
/// a status that was `taken`, or an object that was `written`.
fn refuse_statuses(faults: &Faults, mut count: usize) -> Arc<Mutex<Vec<&'static str>>> {
    let came: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let noted = Arc::clone(&came);
    faults.set(move |request: &Request| {
        let path = request.uri().path();
        if request.method() == "GET" || is_dry_run(request) {
            return None;
        }
        if path.ends_with("/deliveries/shop/status") {
            let refused = count > 0;
            count -= usize::from(refused);
            noted.lock().unwrap().push(if refused { "refused" } else { "taken" });
            let conflict = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409, "reason": "Conflict",
                "message": "the object has been modified; please apply your changes to the latest version and try again"});
            return refused.then(|| Fault::Refuse(409, conflict.to_string()));
        }
        let theirs = ["/deployments/", "/deployments", "/configmaps/", "/configmaps"];
        if theirs.iter().any(|part| path.contains(part)) {
            noted.lock().unwrap().push("written");
        }
        None
    });
    came
}

/// Holds that nothing was written before the first status that was taken, and something after it.
fn is_in_order(came: &[&str], refused: usize) {
    let first = came.iter().position(|what| *what == "taken").unwrap_or(came.len());
    assert_eq!(came[..first], vec!["refused"; refused], "{came:?}");
    assert!(came[first..].contains(&"written"), "{came:?}");
}

#[tokio::test]
async fn a_status_that_was_written_by_another_ends_the_round_before_anything_is_done() {
    let (world, faults) = behind("refused").await;
    let files = [("shop/web.yaml", deployment("web", "ok", 1)), ("shop/it.yaml", config_map("it", "1"))];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let good = world.commit("Good", &files);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    let came = refuse_statuses(&faults, 4);
    let broken = deployment("web", "unready", 1);
    let bad = world.commit("Bad", &[("shop/web.yaml", &broken), ("shop/it.yaml", &config_map("it", "2"))]);
    world.wait_for("shop", Phase::Waiting, &bad).await;
    is_in_order(&came.lock().unwrap(), 4);

    // So it is with the way back. What breaks is a pod: a workload that somebody edits would be drift, which a status tells, too.
    let came = refuse_statuses(&faults, 4);
    let pods = world.space.send("GET", &world.space.path("v1", "pods"), &Value::Null).await;
    let unready =
        |pod: &&Value| pod["spec"]["containers"][0]["image"].as_str().unwrap().ends_with(":unready");
    let pod = pods["items"].as_array().unwrap().iter().find(unready).expect("a pod of the new revision");
    let path =
        format!("{}/{}/status", world.space.path("v1", "pods"), pod["metadata"]["name"].as_str().unwrap());
    let crashing = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}});
    let last = json!({"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": jiff::Timestamp::now().to_string()}});
    let container = json!({"name": "app", "image": "registry.example.com/web:unready", "imageID": "", "ready": false,
        "restartCount": 5, "state": crashing, "lastState": last});
    world.space.send("PATCH", &path, &json!({"status": {"containerStatuses": [container]}})).await;
    world.wait_for("shop", Phase::Held, &bad).await;
    is_in_order(&came.lock().unwrap(), 4);
}

/// Holds the first delete of an object until it is told.
fn hold_delete(faults: &Faults, of: &'static str) -> (Arc<Mutex<usize>>, Arc<Notify>) {
    let (seen, go) = (Arc::new(Mutex::new(0)), Arc::new(Notify::new()));
    let (count, told) = (Arc::clone(&seen), Arc::clone(&go));
    faults.set(move |request: &Request| {
        if request.method() != "DELETE" || !request.uri().path().ends_with(of) {
            return None;
        }
        let mut count = count.lock().unwrap();
        *count += 1;
        (*count == 1).then(|| Fault::PassLater(Arc::clone(&told)))
    });
    (seen, go)
}

async fn wait_deletes(seen: &Mutex<usize>, wanted: usize) {
    wait_until("it is about to be deleted", LIMIT, || async {
        let seen = *seen.lock().unwrap();
        if seen >= wanted { Ok(()) } else { Err(format!("{seen} deletes")) }
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_has_become_ready_is_not_taken_for_a_broken_one() {
    let (world, faults) = behind("readypod").await;
    let database = |tag: &str| {
        deployment("database", tag, 1)
            .replace("kind: Deployment", "kind: StatefulSet")
            .replace("  replicas: 1\n", "  replicas: 1\n  serviceName: database\n")
    };
    let good = world.commit("Good", &[("shop/database.yaml", &database("ok"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let (seen, go) = hold_delete(&faults, "/pods/database-0");
    let bad = world.commit("Bad", &[("shop/database.yaml", &database("missing"))]);
    wait_deletes(&seen, 1).await;
    let broken = world.get("v1", "pods", "database-0").await;
    // It gets well after all, in the last moment.
    let path = format!("{}/database-0/status", world.space.path("v1", "pods"));
    let now = jiff::Timestamp::now().to_string();
    let mut statuses = broken["status"]["containerStatuses"].clone();
    statuses[0]["ready"] = true.into();
    statuses[0]["state"] = json!({"running": {"startedAt": now}});
    let conditions = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
    let well =
        json!({"status": {"phase": "Running", "containerStatuses": statuses, "conditions": conditions}});
    let well = world.space.send("PATCH", &path, &well).await;
    go.notify_one();
    world.wait_for("shop", Phase::Held, &bad).await;
    // Its controller replaces it, which waits for nothing now: by then it is another delete than ours.
    assert_eq!(*seen.lock().unwrap(), 1, "{well}");
}

#[tokio::test]
async fn what_is_made_anew_is_looked_at_again_where_it_changed_meanwhile() {
    let (world, faults) = behind("anewlate").await;
    let web = deployment("web", "ok", 1);
    let first = world.commit("It", &[("shop/web.yaml", &web)]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let (seen, go) = hold_delete(&faults, "/deployments/web");
    let other = web.replace("app: web", "app: shop").replace(
        "metadata: {name: web}",
        "metadata: {name: web, annotations: {windlass.dev/recreate: enabled}}",
    );
    let second = world.commit("Another selector", &[("shop/web.yaml", &other)]);
    wait_deletes(&seen, 1).await;
    let patch = json!({"metadata": {"labels": {"team": "them"}}});
    let changed: Value = world.patch("apps/v1", "deployments", "web", patch).await;
    go.notify_one();
    wait_deletes(&seen, 2).await;
    world.wait_for("shop", Phase::Ready, &second).await;
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_ne!(web["metadata"]["uid"], changed["metadata"]["uid"]);
    assert_eq!(*seen.lock().unwrap(), 2);
}
