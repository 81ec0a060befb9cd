//! The first Delivery that has an object keeps it; a second one that names it is told.

use crate::support::daemon::{World, condition, config_map};
use serde_json::json;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

fn job(tag: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: migrate}}\nspec:\n  template:\n    spec:\n      restartPolicy: \
         Never\n      containers: [{{name: it, image: \"registry.example.com/it:{tag}\"}}]\n"
    )
}

#[tokio::test]
async fn the_second_is_told_and_touches_nothing() {
    let world = World::new("owner").await;
    let first = world.commit(
        "One and two",
        &[
            ("one/it.yaml", &config_map("it", "one")),
            ("one/job.yaml", &job("ok")),
            ("two/it.yaml", &config_map("it", "two")),
            ("two/own.yaml", &config_map("own", "two")),
            ("three/job.yaml", &job("other")),
        ],
    );
    world.repository(json!({})).await;
    world.deliver_by_hand("one", "one", json!({})).await;
    world.wait_for("one", Phase::Ready, &first).await;
    let uid = world.get("batch/v1", "jobs", "migrate").await["metadata"]["uid"].clone();
    let audit = world.space.cluster.audit();
    for (name, object) in [("two", "ConfigMap"), ("three", "Job")] {
        world.deliver_by_hand(name, name, json!({})).await;
        let delivery = world.wait_refused(name, "Conflict").await;
        let (_, reason, message) = condition(&delivery, kind::READY);
        assert_eq!(reason, "Conflict");
        assert!(message.contains(object) && message.contains(&format!("{name}/")), "{message}");
        world.wait_event(name, "Conflict").await;
    }
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "one");
    assert_eq!(
        world.get("batch/v1", "jobs", "migrate").await["metadata"]["uid"],
        uid,
        "it was not made anew"
    );
    // The second one gets it once the first has let it go.
    let second = world.commit("One gives it up", &[("one/it.yaml", "")]);
    world.wait_for("one", Phase::Ready, &second).await;
    world.wait("two", "ready", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)).await;
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "two");
    // Deleting the one that was refused takes nothing along.
    world.delete("windlass.dev/v1alpha1", "deliveries", "three").await;
    world.wait_gone("three").await;
    assert_eq!(world.get("batch/v1", "jobs", "migrate").await["metadata"]["uid"], uid);
}
