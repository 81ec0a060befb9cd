//! A correction sends the objects that drifted and no others, waits for what a rollout or a person is doing, and never puts
//! anything else in place than the effective revision.

use crate::support::daemon::{World, condition, config_map, deployment};
use serde_json::json;
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

const OBJECTS: usize = 10;

async fn deployed(test: &str) -> World {
    let world = World::new(test).await;
    let files: Vec<(String, String)> = (0..OBJECTS)
        .map(|n| (format!("shop/{n}.yaml"), config_map(&format!("it-{n}"), "1")))
        .chain([("shop/web.yaml".to_owned(), deployment("web", "ok", 1))])
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    let first = world.commit("It", &files);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    world
}

async fn by_hand(world: &World, name: &str) {
    world.patch("v1", "configmaps", name, json!({"data": {"key": "by hand"}})).await;
}

async fn corrected(world: &World, name: &str) {
    world.wait_object("v1", "configmaps", name, "corrected", |o| o["data"]["key"] == "1").await;
}

async fn drifts(world: &World, count: i64) {
    world.wait("shop", "drift", |d| d.status.as_ref().is_some_and(|s| s.drift == Some(count))).await;
}

async fn suspend(world: &World, suspend: bool) {
    let patch = kube::api::Patch::Merge(json!({"spec": {"suspend": suspend}}));
    world.deliveries().patch("shop", &kube::api::PatchParams::default(), &patch).await.unwrap();
    let told = |d: &Delivery| d.status.as_ref().is_some_and(|s| (s.phase == Phase::Suspended) == suspend);
    world.wait("shop", "whether it is suspended", told).await;
}

#[tokio::test]
async fn one_apply_for_each_object_that_drifted() {
    let world = deployed("onlydrifted").await;
    let audit = world.space.cluster.audit();
    by_hand(&world, "it-3").await;
    corrected(&world, "it-3").await;
    world.delete("v1", "configmaps", "it-7").await;
    corrected(&world, "it-7").await;
    drifts(&world, 0).await;
    // An object shows a write before the audit log does, and before the daemon has its answer; it reports what was answered.
    world.wait_report("both were mended", |r| r.count == 0 && r.episodes.len() == 2).await;
    let writes = world.writes(&audit);
    let mut names: Vec<&str> = writes.iter().map(|w| w.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["it-3", "it-7"], "{writes:#?}");
    let asked = audit.in_namespace(&world.space.name);
    let others: Vec<_> = asked
        .iter()
        .filter(|r| r.resource == "configmaps" && r.verb != "watch" && r.verb != "list")
        .filter(|r| !["it-3", "it-7"].contains(&r.name.as_str()))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test]
async fn a_suspended_delivery_reports_and_corrects_when_it_goes_on() {
    let world = deployed("suspended").await;
    suspend(&world, true).await;
    let audit = world.space.cluster.audit();
    by_hand(&world, "it-3").await;
    drifts(&world, 1).await;
    world.delete("v1", "configmaps", "it-7").await;
    drifts(&world, 2).await;
    world.wait_report("two objects", |r| r.count == 2).await;
    let writes = world.writes(&audit);
    assert!(writes.is_empty(), "{writes:#?}");
    suspend(&world, false).await;
    corrected(&world, "it-3").await;
    corrected(&world, "it-7").await;
}

#[tokio::test]
async fn what_drifts_while_a_revision_is_put_in_place_is_told_then_and_corrected_after_it() {
    let world = deployed("whilerolling").await;
    // Its pods never become ready by themselves.
    let files =
        [("shop/web.yaml", deployment("web", "unready", 1)), ("shop/0.yaml", config_map("it-0", "2"))];
    let second = world.commit("Slow", &files.each_ref().map(|(path, text)| (*path, text.as_str())));
    world.wait_for("shop", Phase::Waiting, &second).await;
    let audit = world.space.cluster.audit();
    by_hand(&world, "it-3").await;
    let report = world.wait_report("what drifted, and not what the commit changed", |r| r.count == 1).await;
    assert_eq!((report.objects[0].name.as_str(), report.objects[0].state.as_str()), ("it-3", "Modified"));
    assert!(report.revision.contains(&second), "{report:?}");
    let delivery = world.wait("shop", "drift", |d| condition(d, kind::DRIFTED).0 == "True").await;
    let (_, _, message) = condition(&delivery, kind::DRIFTED);
    assert!(message.contains(&second), "{message}");
    assert_eq!(delivery.status.unwrap().phase, Phase::Waiting);
    // So it is with one that is suspended in the midst of it.
    suspend(&world, true).await;
    by_hand(&world, "it-5").await;
    drifts(&world, 2).await;
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));
    suspend(&world, false).await;
    let third = world.commit("Well", &[("shop/web.yaml", &deployment("web", "ok", 2))]);
    world.wait_for("shop", Phase::Ready, &third).await;
    corrected(&world, "it-3").await;
    corrected(&world, "it-5").await;
    drifts(&world, 0).await;
}

#[tokio::test]
async fn a_failed_revision_that_stays_in_place_is_what_drift_is_measured_against() {
    let world = deployed("failedoff").await;
    world.give_time(10, json!({"rollback": {"mode": "Off"}})).await;
    let files =
        [("shop/web.yaml", deployment("web", "unready", 1)), ("shop/0.yaml", config_map("it-0", "2"))];
    let bad = world.commit("Slow", &files.each_ref().map(|(path, text)| (*path, text.as_str())));
    world.wait_for("shop", Phase::Failed, &bad).await;
    let audit = world.space.cluster.audit();
    by_hand(&world, "it-3").await;
    world.patch("v1", "configmaps", "it-0", json!({"data": {"key": "1"}})).await;
    let report = world.wait_report("what drifted", |r| r.count == 2).await;
    assert!(report.revision.contains(&bad), "{report:?}");
    let wanted = |name: &str| {
        let object = report.objects.iter().find(|o| o.name == name).unwrap();
        (object.fields[0].desired.clone().unwrap(), object.fields[0].live.clone().unwrap())
    };
    let text = |text: &str| json!(text).to_string();
    assert_eq!(wanted("it-3"), (text("1"), text("by hand")));
    assert_eq!(wanted("it-0"), (text("2"), text("1")), "as the failed revision has it");
    drifts(&world, 2).await;
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));
    let good = world.commit("Well", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.wait_for("shop", Phase::Ready, &good).await;
    corrected(&world, "it-3").await;
    drifts(&world, 0).await;
}

#[tokio::test]
async fn while_a_revision_is_held_the_effective_one_is_restored() {
    let world = deployed("restored").await;
    let bad = world.commit(
        "Broken",
        &[
            ("shop/web.yaml", &deployment("web", "missing", 1)),
            ("shop/3.yaml", &config_map("it-3", "bad")),
            ("shop/new.yaml", &config_map("new", "bad")),
        ],
    );
    world.wait_for("shop", Phase::Held, &bad).await;
    corrected(&world, "it-3").await;
    world.delete("v1", "configmaps", "it-3").await;
    world.patch("apps/v1", "deployments", "web", json!({"spec": {"replicas": 2}})).await;
    corrected(&world, "it-3").await;
    let web =
        world.wait_object("apps/v1", "deployments", "web", "corrected", |o| o["spec"]["replicas"] == 1).await;
    let image = &web["spec"]["template"]["spec"]["containers"][0]["image"];
    assert!(image.as_str().unwrap().ends_with(":ok"), "{web}");
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    assert!(delivery.status.unwrap().held.is_some());
    assert!(world.get("v1", "configmaps", "new").await.is_null());
}

#[tokio::test]
async fn one_that_is_refused_keeps_no_other_from_being_corrected() {
    let world = deployed("refused").await;
    // Nothing but its deletion takes this back.
    let sealed = json!({"data": {"key": "by hand"}, "immutable": true});
    world.patch("v1", "configmaps", "it-3", sealed).await;
    let event = world.wait_event("shop", "DriftNotCorrected").await;
    assert!(event.contains("it-3"), "{event}");
    for name in ["it-5", "it-7"] {
        by_hand(&world, name).await;
        corrected(&world, name).await;
    }
    drifts(&world, 1).await;
    assert_eq!(world.get("v1", "configmaps", "it-3").await["data"]["key"], "by hand");
}
