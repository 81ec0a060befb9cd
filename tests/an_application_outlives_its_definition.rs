//! The definition of Applications may come after the daemon, and a newer one may take its place: what is stored runs on.

use crate::support::applications::condition_of;
use crate::support::cluster::{Cluster, try_send, wait_until};
use crate::support::daemon::{LIMIT, World};
use crate::support::faults::Fault;
use crate::support::gateway::MONITORS;
use serde_json::{Value, json};
use windlass::api::application::definition;
use windlass::api::condition::kind;
use windlass::cluster::crds;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Fields that an older definition does not know.
const NEW: [&str; 3] = ["rollout", "adopt", "disruptionBudget"];

/// The definition as it was before some fields were thought of.
fn older() -> Value {
    let mut old = definition();
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

#[tokio::test]
async fn it_comes_after_the_daemon_and_a_newer_one_takes_its_place() {
    let mut world = World::stopped_in(Cluster::own(), "app-definition").await;
    let path = format!("{DEFINITIONS}/applications.windlass.dev");
    world.space.send("DELETE", &path, &Value::Null).await;
    wait_gone(&world, "there are no Applications", &path).await;
    world.start();
    wait_until("the daemon runs without", LIMIT, || async {
        if world.log().contains("the cluster has no Applications") {
            Ok(())
        } else {
            Err("it does not say so".into())
        }
    })
    .await;
    world.space.send("POST", DEFINITIONS, &older()).await;
    let all = world.space.path("windlass.dev/v1alpha1", "applications");
    wait_until("Applications are served", LIMIT, || get(&world, &all)).await;
    world.application("web", "ok", json!({})).await;
    let before = world.wait_application_runs("web", "ok").await;
    let one = format!("{all}/web");
    let stored = get(&world, &one).await.unwrap();
    assert!(stored["spec"]["disruptionBudget"].is_null(), "{stored}");
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
    world.application("web", "ok2", json!({})).await;
    world.wait_application_runs("web", "ok2").await;
}

/// Waits until an object is gone: another refusal or a lost connection does not say so.
async fn wait_gone(world: &World, what: &str, path: &str) {
    wait_until(what, LIMIT, || async {
        match try_send(&world.space.connection.client, "GET", path, &Value::Null).await {
            Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_daemon_that_begins_while_the_definition_goes_takes_nothing_for_unseen() {
    let mut world = World::stopped("app-definition-goes").await;
    let faults = world.behind_faults().await;
    // As of a kind that is still in the list of what the cluster has.
    faults.set(|request| request.uri().path().ends_with("/applications").then_some(Fault::Status(404, None)));
    world.start();
    wait_until("the daemon says that there are none", LIMIT, || async {
        if world.log().contains("the cluster has no Applications") { Ok(()) } else { Err(world.log()) }
    })
    .await;
    faults.set(|_| None);
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
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
    wait_gone(&world, "no PodMonitors are known", &definition).await;
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
    wait_gone(&world, "it is gone, too", &one).await;
}
