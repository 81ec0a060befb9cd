//! `replicas` leave Git as an autoscaler comes: the workload keeps its size until the autoscaler decides.

use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, deployment};
use serde_json::json;
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
