//! A change that nobody made in Git is seen at once, named with its field manager, and taken back where that is wanted.

use crate::support::daemon::{World, condition, config_map, deployment};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::names;

async fn deployed(test: &str, mode: &str) -> (World, String) {
    let world = World::new(test).await;
    let commit = world.commit(
        "It",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 1)),
            ("shop/settings.yaml", &config_map("settings", "1")),
        ],
    );
    world.deliver("shop", json!({"drift": {"mode": mode}})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    (world, commit)
}

#[tokio::test]
async fn reported_with_its_manager_and_left_alone() {
    let (mut world, commit) = deployed("report", "Report").await;
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "2", "theirs": "1"}})).await;
    let seen = world.wait_report("one object", |r| r.count == 1).await;
    assert!(seen.revision.ends_with(&commit) && seen.since.is_some());
    let object = &seen.objects[0];
    assert_eq!(
        (object.kind.as_str(), object.name.as_str(), object.state.as_str()),
        ("ConfigMap", "settings", "Modified")
    );
    assert_eq!(object.fields.len(), 1, "a key that we never had is nobody's drift: {object:?}");
    let field = &object.fields[0];
    assert!(field.path.contains("key"), "{field:?}");
    assert_eq!((field.desired.as_deref(), field.live.as_deref()), (Some("\"1\""), Some("\"2\"")));
    assert_eq!(field.manager, "hand");
    let delivery =
        world.wait("shop", "drift", |d| d.status.as_ref().is_some_and(|s| s.drift == Some(1))).await;
    assert_eq!(condition(&delivery, kind::DRIFTED).0, "True");
    world.wait_event("shop", "Drifted").await;
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "2");
    // What somebody else undoes was an episode, too, and not of our making.
    let label =
        world.get("v1", "configmaps", "settings").await["metadata"]["labels"][names::DELIVERY_LABEL].clone();
    let copy = json!({"metadata": {"name": "copy", "labels": {names::DELIVERY_LABEL: label}}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &copy).await;
    let both = world.wait_report("two objects", |r| r.count == 2).await;
    assert!(both.episodes.is_empty(), "{both:?}");
    world.delete("v1", "configmaps", "copy").await;
    let over = world.wait_report("one object", |r| r.count == 1).await;
    assert_eq!(over.episodes.len(), 1, "{over:?}");
    let episode = &over.episodes[0];
    assert_eq!((&episode.mended_by, episode.object.name.as_str()), (&None, "copy"));
    assert_eq!(episode.object.state, "Foreign");
    // Nobody wants to know any more, said while nobody looks: the report that stands is not left behind.
    world.kill();
    let ignore = json!({"drift": {"mode": "Ignore"}});
    world.deliver("shop", ignore.clone()).await;
    let patch = kube::api::Patch::Merge(json!({"spec": ignore}));
    world.deliveries().patch("shop", &kube::api::PatchParams::default(), &patch).await.unwrap();
    world.restart().await;
    world.wait_report("nothing differs", |r| r.count == 0).await;
}

#[tokio::test]
async fn written_back_and_kept_as_an_episode() {
    let (world, _) = deployed("correct", "Correct").await;
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "2", "theirs": "1"}})).await;
    let seen = world.wait_report("an episode", |r| !r.episodes.is_empty()).await;
    assert_eq!(seen.count, 0);
    assert_eq!(seen.episodes[0].mended_by.as_deref(), Some("windlass"));
    let field = &seen.episodes[0].object.fields[0];
    assert_eq!((field.live.as_deref(), field.manager.as_str()), (Some("\"2\""), "hand"));
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"], json!({"key": "1", "theirs": "1"}));
    // Deleted: it comes back.
    world.delete("v1", "configmaps", "settings").await;
    world.wait_object("v1", "configmaps", "settings", "back", |o| o["data"]["key"] == "1").await;
    let seen = world.wait_report("it was missing", |r| r.episodes.len() == 2).await;
    assert_eq!(seen.episodes[0].object.state, "Missing");
    // Our label taken away: it is put back.
    let none = json!({"metadata": {"labels": {names::DELIVERY_LABEL: null}}});
    world.patch("v1", "configmaps", "settings", none).await;
    world
        .wait_object("v1", "configmaps", "settings", "labelled", |o| {
            o["metadata"]["labels"][names::DELIVERY_LABEL].is_string()
        })
        .await;
    let seen = world.wait_report("it had no label", |r| r.episodes.len() == 3).await;
    assert_eq!(seen.episodes[0].object.state, "Unlabelled");
    let delivery = world
        .wait("shop", "in sync", |d| {
            d.status.as_ref().is_some_and(|s| s.drift == Some(0) && s.phase == Phase::Ready)
        })
        .await;
    assert_eq!(condition(&delivery, kind::READY).0, "True");
}

#[tokio::test]
async fn measured_against_what_runs_while_a_newer_one_is_held() {
    let (world, _) = deployed("held-drift", "Correct").await;
    let bad = world.commit(
        "Broken",
        &[
            ("shop/web.yaml", &deployment("web", "missing", 1)),
            ("shop/settings.yaml", &config_map("settings", "bad")),
        ],
    );
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    assert_eq!(delivery.status.unwrap().drift, Some(0), "a newer commit in Git is no drift");
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "2"}})).await;
    world.wait_object("v1", "configmaps", "settings", "as the good one", |o| o["data"]["key"] == "1").await;
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    assert!(delivery.status.unwrap().held.is_some());
}

#[tokio::test]
async fn values_of_a_secret_are_shown_to_nobody() {
    let world = World::new("secret").await;
    let secret = |value: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: it}}\nstringData: {{key: {value}}}\n")
    };
    let first = world.commit("A Secret", &[("shop/it.yaml", &secret("hunter-one"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    // base64 of hunter-two.
    world.patch("v1", "secrets", "it", json!({"data": {"key": "aHVudGVyLXR3bw=="}})).await;
    world.wait_report("an episode", |r| !r.episodes.is_empty()).await;
    let second = world.commit("Another value", &[("shop/it.yaml", &secret("hunter-three"))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    // And a mistake right beside the value.
    world.commit("Refused", &[("shop/it.yaml", &secret("hunter-four").replace("stringData", "data"))]);
    let delivery =
        world.wait("shop", "refused", |d| d.status.as_ref().is_some_and(|s| s.failure.is_some())).await;
    let report = world.reports().get("shop").await.unwrap();
    let events = world.space.send("GET", &world.space.path("events.k8s.io/v1", "events"), &Value::Null).await;
    let shown = [json!(delivery).to_string(), json!(report).to_string(), events.to_string(), world.log()];
    for text in &shown {
        for value in ["hunter", "aHVudGVy"] {
            assert!(!text.contains(value), "{value} stands in {text}");
        }
    }
}
