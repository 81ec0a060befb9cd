//! The definition of Applications may come after the daemon, and a newer one may take its place: what is stored runs on.

use crate::support::applications::condition_of;
use crate::support::cluster::{Cluster, try_send, wait_gone, wait_until};
use crate::support::daemon::{LIMIT, World};
use crate::support::faults::Fault;
use crate::support::gateway::MONITORS;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;
use windlass::api::application::definition;
use windlass::api::condition::kind;
use windlass::cluster::crds;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Fields that an older definition does not know.
const NEW: [&str; 3] = ["rollout", "adopt", "disruptionBudget"];

/// The definition as it was before some fields were thought of, and while the API server noted of each field of a status who wrote it.
fn older() -> Value {
    let mut old = definition();
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status";
    let status = old.pointer_mut(status).and_then(Value::as_object_mut).unwrap();
    assert!(status.remove("x-kubernetes-map-type").is_some());
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let spec = old.pointer_mut(spec).unwrap();
    let fields = spec["properties"].as_object_mut().unwrap();
    for field in NEW {
        assert!(fields.remove(field).is_some(), "{field}");
    }
    let rules = spec["x-kubernetes-validations"].as_array_mut().unwrap();
    rules.retain(|rule| NEW.iter().all(|field| !rule["rule"].as_str().unwrap().contains(field)));
    old
}

async fn get(world: &World, path: &str) -> Result<Value, String> {
    try_send(&world.space.connection.client, "GET", path, &Value::Null).await.map_err(|e| e.to_string())
}

/// What the API server notes of who wrote which fields of the status.
fn noted_of_status(object: &Value) -> Vec<Value> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
    entries.filter(|entry| entry["subresource"] == "status").map(|entry| entry["fieldsV1"].clone()).collect()
}

#[tokio::test]
async fn it_comes_after_the_daemon_and_a_newer_one_takes_its_place() {
    let mut world = World::stopped_in(Cluster::own(), "app-definition").await;
    let path = format!("{DEFINITIONS}/applications.windlass.dev");
    let client = world.space.connection.client.clone();
    // The kind goes after the daemon read which there are, and before it lists them.
    let faults = world.behind_faults().await;
    let gone = Arc::new(Notify::new());
    let waits = gone.clone();
    let of_applications = |path: &str| path.ends_with("/applications");
    faults.set(move |request| of_applications(request.uri().path()).then(|| Fault::PassLater(waits.clone())));
    world.start();
    wait_until("the daemon asks for Applications", LIMIT, || async {
        let asked = faults.count(|_, uri| of_applications(uri.split('?').next().unwrap()));
        if asked > 0 { Ok(()) } else { Err(world.log()) }
    })
    .await;
    world.space.send("DELETE", &path, &Value::Null).await;
    wait_gone(&client, &path, LIMIT).await;
    // A moment longer it may be served all the same: then all were listed, and there is nothing to notice.
    let all = world.space.path("windlass.dev/v1alpha1", "applications");
    wait_gone(&client, &all, LIMIT).await;
    faults.set(|_| None);
    gone.notify_waiters();
    let says_so = async |world: &World, daemons: usize| {
        wait_until("the daemon runs without", LIMIT, || async {
            let said = world.log().matches("the cluster has no Applications").count();
            if said == daemons { Ok(()) } else { Err(format!("{said} of {daemons} say so")) }
        })
        .await;
    };
    says_so(&world, 1).await;
    // And one that begins without.
    world.restart().await;
    says_so(&world, 2).await;
    world.space.send("POST", DEFINITIONS, &older()).await;
    wait_until("Applications are served", LIMIT, || get(&world, &all)).await;
    world.application("web", "ok", json!({})).await;
    let before = world.wait_application_runs("web", "ok").await;
    let one = format!("{all}/web");
    let stored = get(&world, &one).await.unwrap();
    assert!(stored["spec"]["disruptionBudget"].is_null(), "{stored}");
    let of_status = noted_of_status(&stored);
    assert!(of_status.iter().any(|fields| fields["f:status"]["f:phase"].is_object()), "{of_status:?}");
    let deployment = world.get("apps/v1", "deployments", "web").await;

    let ours = windlass::api::crds();
    crds::install(&world.space.access, &world.space.discovery, &ours, LIMIT).await.unwrap();
    wait_until("what is stored has the new defaults", LIMIT, || async {
        let found = get(&world, &one).await?;
        if found["spec"]["disruptionBudget"].is_object() { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    world.restart().await;
    // What is new can be used, and with that the daemon has read all anew.
    world.application("web", "ok", json!({"adopt": "Restart"})).await;
    let restart =
        |d: &windlass::api::Delivery| d.spec.template.adopt == Some(windlass::api::delivery::Adopt::Restart);
    world.wait("web.application", "it has what is new", restart).await;
    let after = world.wait_application_runs("web", "ok").await;
    assert_eq!(after.current_revision, before.current_revision, "it is the same revision");
    assert_eq!(condition_of(&after, kind::HELD).0, "False");
    let now = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(now["metadata"]["generation"], deployment["metadata"]["generation"], "no pod is replaced");
    // And its status has become one field.
    let of_status = noted_of_status(&get(&world, &one).await.unwrap());
    assert_eq!(of_status, [json!({"f:status": {}})]);
    world.application("web", "ok2", json!({})).await;
    world.wait_application_runs("web", "ok2").await;
}

/// The kind of the Prometheus Operator, as far as it matters here.
fn pod_monitors() -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "podmonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "PodMonitor", "listKind": "PodMonitorList", "plural": "podmonitors", "singular": "podmonitor"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": any}}],
        },
    })
}

#[tokio::test]
async fn a_pod_monitor_comes_once_the_cluster_has_the_kind() {
    let _alone = MONITORS.lock().await;
    let mut world = World::new("app-monitor").await;
    // Those of a test before this one take a moment to go.
    let definition = format!("{DEFINITIONS}/podmonitors.monitoring.coreos.com");
    wait_gone(&world.space.connection.client, &definition, LIMIT).await;
    let metrics = json!({"metrics": {"port": 9090, "podMonitor": {"labels": {"release": "prometheus"}}}});
    world.application("web", "ok", metrics).await;
    let status = world.wait_application_runs("web", "ok").await;
    let (limited, _, message) = condition_of(&status, kind::LIMITED);
    assert!(limited == "True" && message.contains("spec.metrics.podMonitor is left out"), "{message}");
    let pods = world.names("v1", "pods").await;
    world.space.forget_later(&definition);
    world.space.send("POST", DEFINITIONS, &pod_monitors()).await;
    let all = world.space.path("monitoring.coreos.com/v1", "podmonitors");
    wait_until("PodMonitors are served", LIMIT, || get(&world, &all)).await;
    world.restart().await;
    let one = format!("{all}/web");
    let monitor = wait_until("there is one", LIMIT, || get(&world, &one)).await;
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    let said = |s: &windlass::api::application::ApplicationStatus| {
        let limited = s.conditions.iter().find(|c| c.type_ == kind::LIMITED);
        limited.is_some_and(|c| !c.message.contains("podMonitor"))
    };
    world.wait_application("web", "nothing is left out", said).await;
    world.wait_application_runs("web", "ok").await;
    assert_eq!(world.names("v1", "pods").await, pods, "no pod is replaced");
    world.delete_application("web").await;
    wait_gone(&world.space.connection.client, &one, LIMIT).await;
}
