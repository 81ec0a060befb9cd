//! An Application at rest costs nothing, a change what it must, and a burst of edits not one change each.

use crate::support::cluster::{Audited, wait_until};
use crate::support::daemon::{LIMIT, World};
use serde_json::json;
use std::time::Duration;

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
    world.patch("windlass.dev/v1alpha1", "applications", "other", json!({"spec": {"replicas": 2}})).await;
    world
        .wait_object("windlass.dev/v1alpha1", "applications", "other", "has two pods", |a| {
            a["status"]["readyReplicas"] == 2 && a["status"]["phase"] == "Running"
        })
        .await;
    let mut requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    requests.retain(|r| !r.name.starts_with("other") && r.resource != "events");
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
    let took = begin.elapsed();
    world.wait_application_runs("web", "ok").await;
    let deployment = world.get("apps/v1", "deployments", "web").await;
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[0]["value"], "99", "the last one counts");
    quiet_for(&world, Duration::from_millis(1500)).await;
    let requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    let begun = requests.iter().filter(|r| r.resource == "controllerrevisions" && r.verb == "create").count();
    // One at once, one for each second that the burst takes, and the last.
    let most = usize::try_from(took.as_secs()).unwrap() + 3;
    assert!(begun <= most, "{begun} revisions in {took:?}");
    assert!(begun < 50, "{begun} revisions");
}
