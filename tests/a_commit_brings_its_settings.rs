//! What a commit says of its own delivery, in `windlass.yaml`, is in force for this very commit: neither is taken without the
//! other.

use crate::a_rollout_goes_step_by_step::{canary, deployment, image, service, web};
use crate::support::daemon::{World, config_map};
use crate::support::faults::Fault;
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::{DriftMode, Phase};
use windlass::api::names;

#[tokio::test]
async fn and_is_not_deployed_before_they_are_written() {
    let mut world = World::stopped("settings").await;
    let faults = world.behind_faults().await;
    world.start();
    let good = world
        .commit("Good", &[("shop/web.yaml", &web("ok", 2)), ("shop/service.yaml", &service("app: web"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    faults.set(|request| {
        let spec = request.method() == "PATCH" && request.uri().path().ends_with("/deliveries/shop");
        spec.then_some(Fault::Status(500, None))
    });
    let settings = json!({"rollout": canary(json!([{"weight": 30}, {"pause": {}}]))}).to_string();
    let next =
        world.commit("Step by step", &[("shop/web.yaml", &web("ok2", 2)), ("shop/windlass.yaml", &settings)]);
    world.wait_repository("DeliveriesNotWritten").await;
    // Looked at for another reason.
    world.annotate("shop", names::RECONCILE_REQUEST, "now").await;
    let looked = world
        .wait("shop", "looked at", |d| {
            d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some("now"))
        })
        .await;
    let status = looked.status.unwrap();
    assert_eq!((status.phase, status.effective.unwrap().commit), (Phase::Ready, good.clone()));
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");

    faults.set(|_| None);
    let delivery = world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");
    assert_eq!(image(&deployment(&world, "web-canary").await), "registry.example.com/web:ok2");
}

/// What the Delivery says of being ready.
fn ready(delivery: &Delivery) -> (String, String) {
    let conditions = delivery.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready").unwrap();
    (ready.reason, ready.message)
}

#[tokio::test]
async fn settings_that_cannot_be_used_keep_their_directory_where_it_is_and_no_other_from_its_commit() {
    let world = World::new("unusable").await;
    let key = |value: &'static str| move |o: &Value| o["data"]["key"] == value;
    let good = world.commit(
        "Good",
        &[("apps/shop/it.yaml", &config_map("shop", "1")), ("apps/blog/it.yaml", &config_map("blog", "1"))],
    );
    world.deliver("apps/*", json!({})).await;
    for name in ["shop", "blog"] {
        world.wait_for(name, Phase::Ready, &good).await;
    }
    // The second is refused by the API server only.
    for (settings, reason, word) in [
        ("drift: {mode: Somehow}\n", "InvalidWindlassYaml", "Somehow"),
        ("rollout: {strategy: Canary, steps: [{weight: 500}]}\n", "DeliveriesNotWritten", "500"),
    ] {
        let next = world.commit(
            word,
            &[
                ("apps/shop/it.yaml", &config_map("shop", word)),
                ("apps/shop/windlass.yaml", settings),
                ("apps/blog/it.yaml", &config_map("blog", word)),
            ],
        );
        let told = world.wait_repository(reason).await;
        assert!(told.contains(word), "{told}");
        world.wait_for("blog", Phase::Ready, &next).await;
        let shop = world.wait("shop", "tells it", |d| ready(d).0 == reason).await;
        assert!(ready(&shop).1.contains(word), "{:?}", ready(&shop));
        assert_eq!(shop.status.unwrap().effective.unwrap().commit, good);
        assert!(key("1")(&world.get("v1", "configmaps", "shop").await));
        // What runs is looked after all the same.
        world.patch("v1", "configmaps", "shop", json!({"data": {"key": "by hand"}})).await;
        world.wait_object("v1", "configmaps", "shop", "corrected", key("1")).await;
    }
    let mended = world.commit("Mended", &[("apps/shop/windlass.yaml", "drift: {mode: Report}\n")]);
    let shop = world.wait_for("shop", Phase::Ready, &mended).await;
    assert_eq!(shop.spec.template.drift.unwrap().mode, DriftMode::Report);
    world.wait_repository("Fetched").await;
}

#[tokio::test]
async fn a_commit_that_removes_most_directories_is_not_taken_by_those_that_stay() {
    let world = World::new("unexpanded").await;
    let file = |name: &str| format!("apps/{name}/it.yaml");
    let all = ["one", "two", "three"];
    let files: Vec<(String, String)> = all.iter().map(|n| (file(n), config_map(n, "1"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let good = world.commit("Good", &files);
    world.deliver("apps/*", json!({})).await;
    for name in all {
        world.wait_for(name, Phase::Ready, &good).await;
    }
    let next = world.commit(
        "Moved",
        &[(&file("one"), ""), (&file("two"), ""), (&file("three"), &config_map("three", "2"))],
    );
    world.wait_repository("MassRemoval").await;
    for name in all {
        let delivery = world.wait(name, "tells it", |d| ready(d).0 == "MassRemoval").await;
        assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good, "{name}");
    }
    assert_eq!(world.get("v1", "configmaps", "three").await["data"]["key"], "1");
    let note = json!({"metadata": {"annotations": {names::CONFIRM_REMOVAL: &next[..12]}}});
    let patch = kube::api::Patch::Merge(note);
    world.repositories().patch("config", &kube::api::PatchParams::default(), &patch).await.unwrap();
    world.wait_for("three", Phase::Ready, &next).await;
    world.wait_gone("one").await;
}
