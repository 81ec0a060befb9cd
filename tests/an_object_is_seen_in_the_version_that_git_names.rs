//! A kind that the API server serves in two versions: the one that Git names counts, whichever others write. What only the other
//! version has is no drift, and a real change is told as the version of Git spells it.

use crate::support::cluster::{SOON, Space, suffix, try_send, wait_until};
use crate::support::daemon::{World, condition, deployment};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::drift_report::DriftReportSpec;

/// The paths that differ, with what is wanted and what is there.
fn fields(report: &DriftReportSpec) -> Vec<(String, Value, Value)> {
    let read =
        |text: &Option<String>| text.as_ref().map_or(Value::Null, |t| serde_json::from_str(t).unwrap());
    let all = report.objects.iter().flat_map(|o| o.fields.iter());
    all.map(|f| (f.path.clone(), read(&f.desired), read(&f.live))).collect()
}

async fn in_sync(world: &World) {
    let told = |d: &windlass::api::Delivery| condition(d, kind::DRIFTED).0 == "False";
    world.wait("shop", "in sync", told).await;
}

#[tokio::test]
async fn an_autoscaler_of_autoscaling_v1_that_others_write_as_v2() {
    let world = World::new("oldscaler").await;
    let scaler = "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  scaleTargetRef: \
                  {apiVersion: apps/v1, kind: Deployment, name: web}\n  minReplicas: 1\n  maxReplicas: 3\n  \
                  targetCPUUtilizationPercentage: 80\n";
    let web = deployment("web", "ok", 1).replace("  replicas: 1\n", "");
    let first = world.commit("It", &[("shop/scaler.yaml", scaler), ("shop/web.yaml", &web)]);
    world.deliver("shop", json!({"drift": {"mode": "Report"}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    // What only the newer version can say, which the older one keeps in an annotation.
    let behavior = json!({"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 7}}}});
    world.patch("autoscaling/v2", "horizontalpodautoscalers", "web", behavior).await;
    world
        .patch("autoscaling/v2", "horizontalpodautoscalers", "web", json!({"spec": {"maxReplicas": 9}}))
        .await;
    let report = world.wait_report("the real change", |r| r.count > 0).await;
    assert_eq!(fields(&report), [("spec.maxReplicas".to_owned(), json!(3), json!(9))], "{report:#?}");
    assert_eq!(report.objects[0].api_version, "autoscaling/v1");
    assert_eq!(report.objects[0].fields[0].manager, "hand");
    // Spelled otherwise in the newer version.
    let metrics = json!({"spec": {"maxReplicas": 3, "metrics": [{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    world.patch("autoscaling/v2", "horizontalpodautoscalers", "web", metrics).await;
    let path = "spec.targetCPUUtilizationPercentage";
    let is = |r: &DriftReportSpec| fields(r).contains(&(path.to_owned(), json!(80), json!(50)));
    world.wait_report("the other change", is).await;
    world.deliver("shop", json!({"drift": {"mode": "Correct"}})).await;
    let cpu = |o: &Value| o["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"].clone();
    let corrected = |o: &Value| o["spec"]["maxReplicas"] == 3 && cpu(o) == 80;
    let scalers = ("autoscaling/v2", "horizontalpodautoscalers");
    let now = world.wait_object(scalers.0, scalers.1, "web", "corrected", corrected).await;
    assert_eq!(
        now["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 7,
        "what nobody asked for stays"
    );
    in_sync(&world).await;
}

/// A kind whose newer version has more fields, and defaults of its own.
async fn define(space: &mut Space, group: &str) {
    let size = json!({"type": "integer"});
    let version = |name: &str, storage: bool, fields: Value| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": fields}}}}})
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("gadgets.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"}, "versions": [
            version("v1alpha1", false, json!({"size": size})),
            version("v1", true, json!({"size": size, "extra": {"type": "string"}, "mode": {"type": "string", "default": "slow"}})),
        ]},
    });
    space.make_cluster_object("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    let client = &space.connection.client;
    for version in ["v1alpha1", "v1"] {
        let path = space.path(&format!("{group}/{version}"), "gadgets");
        wait_until("it is served", SOON, || async {
            try_send(client, "GET", &path, &Value::Null).await.map(|_| ()).map_err(|e| e.to_string())
        })
        .await;
    }
}

#[tokio::test]
async fn a_custom_resource_of_an_older_version_than_others_write() {
    let group = format!("{}.example.com", suffix());
    let (old, new) = (format!("{group}/v1alpha1"), format!("{group}/v1"));
    let mut world = World::stopped("oldgadget").await;
    define(&mut world.space, &group).await;
    world.start();
    let gadget = format!("apiVersion: {old}\nkind: Gadget\nmetadata: {{name: one}}\nspec: {{size: 1}}\n");
    let first = world.commit("It", &[("shop/gadget.yaml", &gadget)]);
    world.deliver("shop", json!({"drift": {"mode": "Report"}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    world.patch(&new, "gadgets", "one", json!({"spec": {"extra": "more", "mode": "fast"}})).await;
    world.patch(&new, "gadgets", "one", json!({"spec": {"size": 2}})).await;
    let report = world.wait_report("the real change", |r| r.count > 0).await;
    assert_eq!(fields(&report), [("spec.size".to_owned(), json!(1), json!(2))], "{report:#?}");
    assert_eq!(report.objects[0].api_version, old);
    world.deliver("shop", json!({"drift": {"mode": "Correct"}})).await;
    // What the older version does not know the API server drops with whatever is written through that.
    world.wait_object(&new, "gadgets", "one", "corrected", |o| o["spec"]["size"] == 1).await;
    in_sync(&world).await;
    world.delete(&new, "gadgets", "one").await;
    world.wait_object(&new, "gadgets", "one", "is made again", |o| o["spec"]["size"] == 1).await;
    in_sync(&world).await;
}
