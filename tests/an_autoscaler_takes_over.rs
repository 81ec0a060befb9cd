//! `replicas` leave Git as an autoscaler comes: the workload keeps its size until the autoscaler decides.

use crate::routes_are_valid::{crds, definitions};
use crate::support::cluster::{Cluster, wait_until};
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use serde_json::{Value, json};
use windlass::api::delivery::Phase;

fn without_replicas(tag: &str) -> String {
    deployment("web", tag, 0).replace("  replicas: 0\n", "")
}

fn autoscaler(minimum: u32) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: web}}\nspec:\n  \
         scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}\n  minReplicas: {minimum}\n  maxReplicas: 9\n  \
         metrics: [{{type: Resource, resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 80}}}}}}]\n"
    )
}

#[tokio::test]
async fn a_workload_is_never_scaled_to_one_on_the_way() {
    let world = World::new("autoscaler").await;
    let first = world.commit("Three by hand", &[("shop/web.yaml", &deployment("web", "ok", 3))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let replicas = || async {
        let web = world.get("apps/v1", "deployments", "web").await;
        (web["spec"]["replicas"].as_i64().unwrap(), web["metadata"]["generation"].as_i64().unwrap())
    };
    let (_, generation) = replicas().await;

    let second = world.commit(
        "An autoscaler",
        &[("shop/web.yaml", &without_replicas("ok")), ("shop/scaler.yaml", &autoscaler(2))],
    );
    world.wait_for("shop", Phase::Ready, &second).await;
    // The same generation: nothing in its spec was changed, not even for a moment.
    assert_eq!(replicas().await, (3, generation));

    let third = world.commit("Another image", &[("shop/web.yaml", &without_replicas("two"))]);
    world.wait_for("shop", Phase::Ready, &third).await;
    assert_eq!(replicas().await, (3, generation + 1));

    let fourth = world.commit("Four at least", &[("shop/scaler.yaml", &autoscaler(4))]);
    world.wait_for("shop", Phase::Ready, &fourth).await;
    wait_until("the autoscaler scales to four", LIMIT, || async {
        let (now, _) = replicas().await;
        if now == 4 { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    let fifth = world.commit("A third image", &[("shop/web.yaml", &without_replicas("three"))]);
    world.wait_for("shop", Phase::Ready, &fifth).await;
    assert_eq!(replicas().await.0, 4);
}

/// As KEDA publishes it, and what its operator does played by hand: the operator makes an autoscaler that the ScaledObject owns, and
/// scales to nothing and back by itself, through the subresource.
#[tokio::test]
async fn a_scaled_object_takes_over_too_and_may_scale_to_nothing() {
    // Of its own: the kind is the whole cluster's, and the requests of other tests are counted.
    let cluster = Cluster::own();
    let mut world = World::stopped_in(cluster, "keda").await;
    let collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = definitions(&crds().join("keda.yaml"), &["scaledobjects"]).remove(0);
    world.space.send("POST", collection, &definition).await;
    world.start();
    let three = world.commit("Three by hand", &[("shop/web.yaml", &deployment("web", "ok", 3))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &three).await;
    let generation = |o: &Value| o["metadata"]["generation"].as_i64().unwrap();
    let web = || world.get("apps/v1", "deployments", "web");
    let before = generation(&web().await);

    // The operator has made no autoscaler yet.
    let scaler = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: web}\nspec:\n  \
                  scaleTargetRef: {name: web}\n  minReplicaCount: 0\n  maxReplicaCount: 9\n  \
                  triggers: [{type: cron, metadata: {timezone: Etc/UTC, start: 0 6 * * *, end: 0 20 * * *, desiredReplicas: \"5\"}}]\n";
    let without = world.commit(
        "KEDA decides",
        &[
            ("shop/web.yaml", &without_replicas("ok")),
            ("shop/scaler.yaml", scaler),
            ("shop/marker.yaml", &config_map("marker", "1")),
        ],
    );
    world.wait_for("shop", Phase::Ready, &without).await;
    let now = web().await;
    assert_eq!((now["spec"]["replicas"].as_i64(), generation(&now)), (Some(3), before));

    let owner = world.get("keda.sh/v1alpha1", "scaledobjects", "web").await;
    let mut made: Value = serde_saphyr::from_str(&autoscaler(5)).unwrap();
    made["metadata"] = json!({
        "name": "keda-hpa-web",
        "ownerReferences": [{
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "web",
            "uid": owner["metadata"]["uid"], "controller": true,
        }],
    });
    world.space.send("POST", &world.space.path("autoscaling/v2", "horizontalpodautoscalers"), &made).await;
    let replicas = |count: i64| move |o: &Value| o["spec"]["replicas"].as_i64() == Some(count);
    world.wait_object("apps/v1", "deployments", "web", "scaled to five", replicas(5)).await;

    // An idle one: the operator takes it to nothing, also where Git names an amount.
    let amount = world.commit("An amount", &[("shop/web.yaml", &deployment("web", "ok", 2))]);
    world.wait_for("shop", Phase::Ready, &amount).await;
    assert!(replicas(5)(&web().await));
    world.delete("autoscaling/v2", "horizontalpodautoscalers", "keda-hpa-web").await;
    let scale = format!("{}/web/scale?fieldManager=keda", world.space.path("apps/v1", "deployments"));
    let mut idle = world.space.send("GET", &scale, &Value::Null).await;
    idle["spec"]["replicas"] = 0.into();
    world.space.send("PUT", &scale, &idle).await;
    // What is changed after it and corrected shows that it was looked at.
    world.patch("v1", "configmaps", "marker", json!({"data": {"key": "by hand"}})).await;
    world.wait_object("v1", "configmaps", "marker", "corrected", |o| o["data"]["key"] == "1").await;
    world.wait("shop", "in sync", |d| d.status.as_ref().is_some_and(|s| s.drift == Some(0))).await;
    assert!(replicas(0)(&web().await));
    let told = world.reports().get("shop").await.unwrap().spec;
    assert!(told.episodes.iter().all(|e| e.object.name == "marker"), "{:?}", told.episodes);

    // Without it Git counts again.
    let gone = world.commit("By hand again", &[("shop/scaler.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &gone).await;
    world.wait_object("apps/v1", "deployments", "web", "as Git says", replicas(2)).await;
    drop(world);
    cluster.stop();
}
