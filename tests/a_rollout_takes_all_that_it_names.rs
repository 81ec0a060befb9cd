//! A rollout takes along what it names and what belongs to it: several workloads as one, a StatefulSet, the configuration alone, a
//! disruption budget; and gives the candidate the size that is asked for.

use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployment, image, service, web};
use crate::support::cli::windlass;
use crate::support::daemon::{World, config_map};
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::Phase;
use windlass::api::names;

const APPS: &str = "apps/v1";

/// What the test of another application is, under the name `api`.
fn api(text: &str) -> String {
    text.replace("web", "api")
}

fn ask(world: &World, verb: &str) {
    let answer = windlass(&world.space, &[verb, "shop", "-n", &world.space.name]);
    assert_eq!(answer.code, 0, "{verb}: {answer:?}");
}

async fn deployed(test: &str, rollout: Value, files: &[(&str, &str)]) -> (World, String) {
    let world = World::new(test).await;
    let settings = config_map("settings", "blue");
    let all: Vec<(&str, &str)> =
        files.iter().copied().chain([("shop/settings.yaml", settings.as_str())]).collect();
    let good = world.commit("First version", &all);
    world.deliver("shop", json!({"rollout": rollout})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

#[tokio::test]
async fn several_workloads_are_promoted_and_taken_back_as_one() {
    let mut policy = canary(json!([{"weight": 50}, {"pause": {}}]));
    policy["workload"] = Value::Null;
    policy["workloads"] = json!([{"name": "web"}, {"name": "api"}]);
    let files = [
        ("shop/web.yaml", web("ok", 2)),
        ("shop/api.yaml", api(&web("ok", 1))),
        ("shop/web-service.yaml", service("app: web")),
        ("shop/api-service.yaml", api(&service("app: web"))),
    ];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let (world, good) = deployed("rollout-several", policy, &files).await;
    let both = ["api", "web"];
    let next = world.commit(
        "Both are new",
        &[("shop/web.yaml", &web("ok2", 2)), ("shop/api.yaml", &api(&web("ok2", 1)))],
    );
    world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(world.names(APPS, "deployments").await, ["api", "api-canary", "web", "web-canary"]);
    for name in both {
        let tagged = |tag: &str| format!("registry.example.com/{name}:{tag}");
        assert_eq!(image(&deployment(&world, name).await), tagged("ok"), "{name} is untouched");
        assert_eq!(image(&deployment(&world, &format!("{name}-canary")).await), tagged("ok2"));
    }
    ask(&world, "promote");
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(world.names(APPS, "deployments").await, both);
    for name in both {
        let wanted = format!("registry.example.com/{name}:ok2");
        assert_eq!(image(&deployment(&world, name).await), wanted);
    }

    // One of them is broken: the other does not stay either.
    let before = deployment(&world, "web").await;
    let bad = world.commit(
        "One is broken",
        &[("shop/web.yaml", &web("ok3", 2)), ("shop/api.yaml", &api(&web("crash", 1)))],
    );
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, next);
    assert_ne!(good, next);
    let problem = held.held.unwrap().problem;
    assert!(problem.object.ends_with("/api-canary"), "{problem:?}");
    assert_eq!(world.names(APPS, "deployments").await, both);
    let after = deployment(&world, "web").await;
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
}

fn set(tag: &str) -> String {
    let text = web(tag, 2).replace("kind: Deployment", "kind: StatefulSet");
    text.replace("  replicas: 2\n", "  replicas: 2\n  serviceName: web\n")
}

#[tokio::test]
async fn a_stateful_set_is_switched() {
    let mut policy = blue_green();
    policy["workload"] = json!({"kind": "StatefulSet", "name": "web"});
    let selector = "app: web, tier: front";
    let files = [("shop/web.yaml", set("ok")), ("shop/service.yaml", service(selector))];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let (world, _) = deployed("rollout-set", policy, &files).await;
    let next = world.commit("Second", &[("shop/web.yaml", &set("ok2"))]);
    world.wait_for("shop", Phase::Paused, &next).await;
    let get = async |name: &str| world.get(APPS, "statefulsets", name).await;
    assert_eq!(image(&get("web").await), "registry.example.com/web:ok", "stable is untouched");
    let preview = get("web-preview").await;
    assert_eq!(image(&preview), "registry.example.com/web:ok2");
    assert_eq!(preview["status"]["readyReplicas"], 2);
    ask(&world, "promote");
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(image(&get("web").await), "registry.example.com/web:ok2");
    assert_eq!(world.names(APPS, "statefulsets").await, ["web"]);
    let back = world.get("v1", "services", "web").await;
    assert_eq!(back["spec"]["selector"], json!({"app": "web", "tier": "front"}));
}

/// A volume for a claim: nobody makes any by himself here.
async fn volume_for(world: &mut World, claim: &str) {
    let (space, all) = (&mut world.space, "/api/v1/persistentvolumes");
    let name = format!("{}-{claim}", space.name);
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/data"},
            "claimRef": {"namespace": space.name, "name": claim},
        },
    });
    space.send("POST", all, &volume).await;
    space.forget_later(&format!("{all}/{name}"));
}

#[tokio::test]
async fn a_stateful_set_that_fails_goes_and_stable_was_not_touched() {
    let mut policy = blue_green();
    policy["workload"] = json!({"kind": "StatefulSet", "name": "web"});
    let files = [("shop/web.yaml", set("ok")), ("shop/service.yaml", service("app: web, tier: front"))];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let (world, good) = deployed("rollout-set-fails", policy, &files).await;
    let before = world.get(APPS, "statefulsets", "web").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &set("crash"))]);
    set_is_held(&world, &bad, &good, &before).await;
}

/// The candidate of a set has failed and is gone, and stable is as it was.
async fn set_is_held(world: &World, bad: &str, good: &str, before: &Value) {
    let held = world.wait_for("shop", Phase::Held, bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, good);
    let problem = held.held.unwrap().problem;
    assert!(problem.object.ends_with("/web-preview"), "{problem:?}");
    let after = world.get(APPS, "statefulsets", "web").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
    assert_eq!(world.names(APPS, "statefulsets").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
}

#[tokio::test]
async fn a_stateful_set_that_fails_takes_the_claims_along_that_its_controller_has_taken() {
    // Of pods that start one after the other, the controller takes no claim before they are ready.
    let set = |tag: &str| {
        set(tag).replace("  serviceName: web\n", "  serviceName: web\n  podManagementPolicy: Parallel\n")
            + "  volumeClaimTemplates:\n  - metadata: {name: data}\n    spec: {accessModes: [ReadWriteOnce], \
               storageClassName: \"\", resources: {requests: {storage: 1Gi}}}\n"
    };
    let mut policy = blue_green();
    policy["workload"] = json!({"kind": "StatefulSet", "name": "web"});
    let mut world = World::new("rollout-set-claims").await;
    for of in ["web-0", "web-1", "web-preview-0", "web-preview-1"] {
        volume_for(&mut world, &format!("data-{of}")).await;
    }
    let good = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &set("ok")),
            ("shop/service.yaml", &service("app: web, tier: front")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let before = world.get(APPS, "statefulsets", "web").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &set("crash"))]);
    let claims = "persistentvolumeclaims";
    let there = |claim: &Value| !claim.is_null();
    world.wait_object("v1", claims, "data-web-preview-0", "is made", there).await;
    set_is_held(&world, &bad, &good, &before).await;
    for claim in ["data-web-preview-0", "data-web-preview-1"] {
        world.wait_object("v1", claims, claim, "goes", Value::is_null).await;
    }
    assert_eq!(world.names("v1", claims).await, ["data-web-0", "data-web-1"]);
}

#[tokio::test]
async fn configuration_alone_is_one_with_a_budget_and_the_size_that_a_step_asks_for() {
    let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web}\nspec:\n  minAvailable: 1\n  \
                  selector: {matchLabels: {app: web, tier: front}}\n";
    let mut policy = blue_green();
    policy["steps"] = json!([{"scale": {"replicas": 3}}, {"pause": {}}]);
    let files = [
        ("shop/web.yaml", web("ok", 2)),
        ("shop/service.yaml", service("app: web, tier: front")),
        ("shop/budget.yaml", budget.to_owned()),
    ];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let (world, _) = deployed("rollout-settings", policy, &files).await;
    let before = deployment(&world, "web").await;
    let red = world.commit("Red", &[("shop/settings.yaml", &config_map("settings", "red"))]);
    world.wait_for("shop", Phase::Paused, &red).await;
    let preview = deployment(&world, "web-preview").await;
    assert_eq!((&preview["spec"]["replicas"], &preview["status"]["readyReplicas"]), (&json!(3), &json!(3)));
    let reads = &preview["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"];
    assert_eq!(reads, "settings-preview");
    assert_eq!(world.get("v1", "configmaps", "settings-preview").await["data"]["key"], "red");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
    assert_eq!(deployment(&world, "web").await["spec"], before["spec"], "stable is untouched");
    assert_eq!(world.names("policy/v1", "poddisruptionbudgets").await, ["web", "web-preview"]);

    // A person stops it, and it goes on only when that is taken back.
    ask(&world, "pause");
    let reason = |d: &windlass::api::Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.clone());
        rollout.and_then(|r| r.paused).map(|paused| paused.reason).unwrap_or_default()
    };
    world.wait("shop", "is paused by hand", |d| reason(d) == "PausedByHand").await;
    ask(&world, "resume");
    world.wait("shop", "waits in its step again", |d| reason(d) == "AwaitsPromotion").await;
    ask(&world, "promote");
    world.wait_for("shop", Phase::Ready, &red).await;
    let after = deployment(&world, "web").await;
    assert!(after["spec"]["template"]["metadata"]["annotations"][names::CONFIG].is_string(), "{after}");
    assert_eq!(after["spec"]["replicas"], 2);
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "configmaps").await, ["settings"]);
    assert_eq!(world.names("policy/v1", "poddisruptionbudgets").await, ["web"]);
}

/// One pod takes its share, and no more pods are started for it; for all traffic there are as many as stable has.
#[tokio::test]
async fn a_candidate_of_a_fixed_size_is_whole_before_it_has_all_traffic() {
    let steps = json!([{"weight": 30}, {"pause": {}}, {"weight": 60}, {"pause": {}}]);
    one_pod_until_all_traffic("fixed-size", json!({"size": "Fixed", "replicas": 1}), steps, 2).await;
}

/// The same where a step says it: the weights after it start no pods, but for a weight of 100.
#[tokio::test]
async fn a_candidate_that_a_step_scales_stays_so_and_is_whole_before_it_has_all_traffic() {
    let steps = json!([
        {"scale": {"replicas": 1}}, {"weight": 30}, {"pause": {}}, {"weight": 60}, {"pause": {}}, {"weight": 100},
    ]);
    one_pod_until_all_traffic("scaled", Value::Null, steps, 3).await;
}

/// Waits in the step `first` and in the second after it.
async fn one_pod_until_all_traffic(test: &str, candidate: Value, steps: Value, first: u32) {
    know_routes().await;
    let world = World::new(test).await;
    world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &route()).await;
    let controller = Controller::of(&world);
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 3)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "candidate": candidate, "settle": "300ms", "steps": steps,
    });
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let before = deployment(&world, "web").await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 3))]);
    let divided = async || share(&world.get(GATEWAY, ROUTES, "web").await);
    let size = async || {
        let canary = deployment(&world, "web-canary").await;
        (canary["spec"]["replicas"].clone(), canary["status"]["readyReplicas"].clone())
    };
    for (step, weight) in [(first, 30), (first + 2, 60)] {
        let waits = |d: &Delivery| {
            let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
            rollout.is_some_and(|r| r.step == step && r.paused.is_some())
        };
        world.wait("shop", &format!("waits at step {step}"), waits).await;
        assert_eq!((size().await, divided().await), ((json!(1), json!(1)), Some(weight)));
        // Nothing is heard of the switch until this test says so.
        controller.keep_silent(Some(100));
        ask(&world, "promote");
    }
    let all = |route: &Value| share(route) == Some(100);
    world.wait_object(GATEWAY, ROUTES, "web", "sends all traffic to the candidate", all).await;
    assert_eq!(size().await, (json!(3), json!(3)), "it was whole before");
    let stable = deployment(&world, "web").await;
    assert_eq!(stable["metadata"]["generation"], before["metadata"]["generation"], "stable is untouched");
    controller.answer_all();
    world.wait_for("shop", Phase::Ready, &next).await;
    let stable = deployment(&world, "web").await;
    assert_eq!(
        (image(&stable), &stable["status"]["readyReplicas"]),
        ("registry.example.com/web:ok2", &json!(3))
    );
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    assert_eq!(world.get(GATEWAY, ROUTES, "web").await["spec"], route()["spec"]);
}
