//! An Application at rest costs nothing, a change what it must, and a burst of edits not one change each.

use crate::support::cluster::{Audited, wait_until};
use crate::support::daemon::{LIMIT, World};
use crate::support::faults::{Fault, Faults, is_watch};
use axum::extract::Request;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Requests that make Applications at the same time.
const AT_ONCE: usize = 32;

fn besides_watches_and_lease(requests: Vec<Audited>) -> Vec<Audited> {
    requests.into_iter().filter(|r| r.resource != "leases" && r.verb != "watch").collect()
}

/// Waits until the daemon has asked for nothing for so long.
async fn quiet_for(world: &World, time: Duration) {
    wait_until("it is quiet", LIMIT, || async {
        let audit = world.space.cluster.audit();
        tokio::time::sleep(time).await;
        let requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
        if requests.is_empty() { Ok(()) } else { Err(format!("{requests:?}")) }
    })
    .await;
}

#[tokio::test]
async fn at_rest_nothing_is_asked_and_a_restart_writes_nothing() {
    let mut world = World::new("app-rest").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    world.application("other", "ok", json!({})).await;
    world.wait_application_runs("other", "ok").await;
    // Longer than words wait.
    quiet_for(&world, Duration::from_secs(6)).await;
    let audit = world.space.cluster.audit();
    let annotated = json!({"metadata": {"annotations": {"example.com/seen": "by somebody"}}});
    world.patch("windlass.dev/v1alpha1", "applications", "web", annotated).await;
    // What somebody asked of another one after that is done, so that was looked at: its spec is the same.
    world.patch("windlass.dev/v1alpha1", "applications", "other", json!({"spec": {"replicas": 3}})).await;
    world
        .wait_object("windlass.dev/v1alpha1", "applications", "other", "has three pods", |a| {
            a["status"]["readyReplicas"] == 3 && a["status"]["phase"] == "Running"
        })
        .await;
    let mut requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    // Of the pods that come for the other one, there is a list.
    let others = |r: &Audited| {
        r.name.starts_with("other") || ["events", "pods", "replicasets"].contains(&r.resource.as_str())
    };
    requests.retain(|r| !others(r));
    assert!(requests.is_empty(), "{requests:#?}");
    quiet_for(&world, Duration::from_secs(2)).await;
    let audit = world.space.cluster.audit();
    let version = |of: Option<String>| of.unwrap();
    let before = version(world.applications().get("web").await.unwrap().metadata.resource_version);
    world.restart().await;
    wait_until("the new daemon reads the Applications", LIMIT, || async {
        let requests = audit.in_namespace(&world.space.name);
        let seen = requests.iter().any(|r| r.resource == "applications" && r.verb == "list");
        if seen { Ok(()) } else { Err(format!("{} requests", requests.len())) }
    })
    .await;
    quiet_for(&world, Duration::from_millis(1500)).await;
    let mut writes = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    writes.retain(|r| !r.is_read());
    assert!(writes.is_empty(), "{writes:#?}");
    assert_eq!(version(world.applications().get("web").await.unwrap().metadata.resource_version), before);
}

#[tokio::test]
async fn a_change_of_its_deployment_s_status_costs_at_most_one_request() {
    let world = World::new("app-status").await;
    // A pod of it takes a while to be ready.
    world.application("web", "slow", json!({"replicas": 3})).await;
    world.wait_application_runs("web", "slow").await;
    quiet_for(&world, Duration::from_millis(1500)).await;
    let audit = world.space.cluster.audit();
    // One pod less for a while: the Deployment's status changes, and nothing else does.
    let pods = world.names("v1", "pods").await;
    world.delete("v1", "pods", &pods[0]).await;
    let changes = || {
        let is = |r: &Audited| {
            r.resource == "deployments"
                && r.subresource == "status"
                && r.namespace == world.space.name
                && r.code == 200
        };
        audit.all().into_iter().filter(is).count()
    };
    wait_until("a pod is missed, and there again", LIMIT, || async {
        let status = world.get("apps/v1", "deployments", "web").await["status"].clone();
        let whole = status["availableReplicas"] == 3 && status["replicas"] == 3;
        if whole && changes() >= 2 { Ok(()) } else { Err(format!("{} changes, {status}", changes())) }
    })
    .await;
    // Words that wait come within this time.
    quiet_for(&world, Duration::from_secs(6)).await;
    let (changes, requests) = (changes(), besides_watches_and_lease(audit.in_namespace(&world.space.name)));
    assert!(requests.len() <= changes, "{changes} changes of its status, and {requests:#?}");
    let told = requests.iter().any(|r| r.resource == "applications" && r.subresource == "status");
    assert!(told, "its status tells of it: {requests:#?}");
    // And nobody else does.
    assert!(requests.iter().all(|r| r.resource == "applications"), "{requests:#?}");
}

/// How often each kind of request was sent.
fn counted(requests: &[Audited]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for r in requests {
        let part = if r.subresource.is_empty() { String::new() } else { format!("/{}", r.subresource) };
        let tried = if r.uri.contains("dryRun=All") { " (dry-run)" } else { "" };
        *counts.entry(format!("{} {}{part}{tried}", r.verb, r.resource)).or_default() += 1;
    }
    counts
}

/// A daemon that has nothing to do, and reaches the API server through faults.
async fn behind_faults(
    test: &str,
    rule: impl FnMut(&Request) -> Option<Fault> + Send + 'static,
) -> (World, Faults) {
    let mut world = World::stopped(test).await;
    let faults = world.behind_faults().await;
    faults.set(rule);
    world.start();
    wait_until("revisions are watched", LIMIT, || async {
        let begun = faults.count(|_, uri| uri.contains("/controllerrevisions") && uri.contains("watch=true"));
        if begun > 0 { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    (world, faults)
}

/// One as people write them, but without pods.
fn without_pods() -> serde_json::Value {
    json!({
        "replicas": 0,
        "config": {"env": {"FEATURE_X": "on"}},
        "healthCheck": {"readiness": {"httpGet": {"path": "/ready", "port": "http"}}},
    })
}

#[tokio::test]
async fn a_new_one_costs_its_writes() {
    each_new_one_costs_its_writes("app-new", 8).await;
}

#[tokio::test]
async fn of_five_hundred_at_once_each_object_is_tried_and_written_once() {
    each_new_one_costs_its_writes("app-many", 500).await;
}

async fn each_new_one_costs_its_writes(test: &str, count: usize) {
    let (world, _faults) = behind_faults(test, |_| None).await;
    quiet_for(&world, Duration::from_millis(1500)).await;
    let audit = world.space.cluster.audit();
    let names: Vec<String> = (0..count).map(|number| format!("web{number}")).collect();
    let made = names.iter().map(|name| world.application(name, "ok", without_pods()));
    stream::iter(made).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    for name in &names {
        world.wait_application_runs(name, "ok").await;
    }
    // Words that wait, and Events, come within this time.
    quiet_for(&world, Duration::from_secs(6)).await;
    let mut requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    for name in &names {
        let its = |r: &&Audited| r.resource == "applications" && r.verb == "patch" && r.name == *name;
        let times: Vec<Timestamp> = requests.iter().filter(its).map(|r| r.at.parse().unwrap()).collect();
        // The first is the test's own, and makes it.
        let took = times.iter().max().unwrap().duration_since(*times.iter().min().unwrap());
        // What it says on its way, and while pods are waited for, is said where that takes more than a second.
        let statuses = times.len() - 1;
        assert!(statuses >= 1, "{name} says nothing");
        assert!(statuses == 1 || took.as_millis() >= 1000, "{name}: {statuses} statuses in {took:#}");
    }
    // The test's own.
    requests.retain(|r| r.resource != "applications" || !r.subresource.is_empty());
    let counts = counted(&requests);
    let of = |what: &str| counts.get(what).copied().unwrap_or(0);
    assert_eq!(of("create controllerrevisions"), count, "{counts:#?}");
    assert_eq!(of("list controllerrevisions"), 0, "there is nothing to tidy up: {counts:#?}");
    for object in ["configmaps", "deployments", "services"] {
        assert_eq!(of(&format!("patch {object}")), count, "{counts:#?}");
        assert_eq!(of(&format!("patch {object} (dry-run)")), count, "{counts:#?}");
    }
    // One may be written again as long as its watch is behind.
    assert!(of("patch deliveries") >= count, "{counts:#?}");
}

#[tokio::test]
async fn what_a_watch_does_not_show_yet_is_neither_missing_nor_asked_for() {
    let behind = Arc::new(Notify::new());
    let held = behind.clone();
    // Revisions are listed, and what comes after that is not shown.
    let (world, faults) = behind_faults("app-behind", move |request| {
        let of_revisions = request.uri().path().ends_with("/controllerrevisions") && is_watch(request);
        of_revisions.then(|| Fault::PassLater(held.clone()))
    })
    .await;
    world.application("web", "ok", without_pods()).await;
    world.wait_application_runs("web", "ok").await;
    world.stale_revision_of("web").await;
    world.application("web", "ok2", without_pods()).await;
    world.wait_application_runs("web", "ok2").await;
    quiet_for(&world, Duration::from_secs(6)).await;
    let asked = |method: &str| {
        faults.count(|m, uri| {
            m == method && uri.contains("/controllerrevisions") && !uri.contains("watch=true")
        })
    };
    assert_eq!((asked("GET"), asked("POST"), asked("DELETE")), (1, 2, 0), "listed once, each kept once");
    assert_eq!(world.revisions_of("web").await.len(), 3);
    // Once it is shown, what nothing needs goes, though nothing else happens.
    behind.notify_one();
    world.wait_stale_revision_gone("web").await;
    assert_eq!(world.revisions_of("web").await.len(), 2, "a rollback needs the one before");
    assert_eq!((asked("GET"), asked("POST"), asked("DELETE")), (1, 2, 1));
}

#[tokio::test]
async fn where_revisions_may_not_be_watched_they_are_listed() {
    let forbidden = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "not yours",
    });
    // As with the roles of an older installation.
    let (world, _faults) = behind_faults("app-unwatched", move |request| {
        let of_revisions = request.uri().path().ends_with("/controllerrevisions") && is_watch(request);
        of_revisions.then(|| Fault::Refuse(403, forbidden.to_string()))
    })
    .await;
    world.stale_revision_of("web").await;
    world.application("web", "ok", without_pods()).await;
    world.wait_application_runs("web", "ok").await;
    wait_until("what nothing needs is gone", LIMIT, || async {
        let left = world.revisions_of("web").await;
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_revision_that_somebody_changes_meanwhile_is_not_removed_as_it_was() {
    let held = Arc::new(Notify::new());
    let later = held.clone();
    let mut first = true;
    let (world, faults) = behind_faults("app-preconditions", move |request| {
        let removes = request.method() == "DELETE" && request.uri().path().ends_with("/web-stale");
        (removes && std::mem::replace(&mut first, false)).then(|| Fault::PassLater(later.clone()))
    })
    .await;
    let removed = || faults.count(|m, uri| m == "DELETE" && uri.contains("/web-stale"));
    world.stale_revision_of("web").await;
    world.application("web", "ok", without_pods()).await;
    wait_until("it is about to be removed", LIMIT, || async {
        if removed() == 1 { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    // Somebody makes it theirs.
    let mine = json!({"metadata": {"name": "mine"}});
    let mine = world.space.send("POST", &world.space.path("v1", "configmaps"), &mine).await;
    let uid = &mine["metadata"]["uid"];
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "mine", "uid": uid});
    let theirs = json!({"metadata": {"ownerReferences": [owner]}});
    world.patch("apps/v1", "controllerrevisions", "web-stale", theirs).await;
    held.notify_one();
    world.wait_application_runs("web", "ok").await;
    quiet_for(&world, Duration::from_secs(2)).await;
    assert!(world.revisions_of("web").await.contains(&"web-stale".to_owned()));
    assert_eq!(removed(), 1, "it is another's");
}

#[tokio::test]
async fn a_hundred_edits_in_a_burst_are_a_few_changes() {
    let world = World::new("app-burst").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    quiet_for(&world, Duration::from_millis(1500)).await;
    let audit = world.space.cluster.audit();
    let begin = std::time::Instant::now();
    for edit in 0..100 {
        world.application("web", "ok", json!({"env": [{"name": "EDIT", "value": edit.to_string()}]})).await;
    }
    world.wait_application_runs("web", "ok").await;
    let deployment = world.get("apps/v1", "deployments", "web").await;
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[0]["value"], "99", "the last one counts");
    let took = begin.elapsed();
    quiet_for(&world, Duration::from_millis(1500)).await;
    let requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    let begun = requests.iter().filter(|r| r.resource == "controllerrevisions" && r.verb == "create").count();
    // One at once, and one for each second until the last was there: a new one waits for a second after the one before.
    let most = usize::try_from(took.as_secs()).unwrap() + 1;
    assert!(begun <= most, "{begun} revisions in {took:?}");
}
