//! A change of an Application that fails is taken back to the last good spec; where a directory delivers the Application, the
//! directory goes back, and never both.

use crate::support::applications::condition_of;
use crate::support::cli::windlass_with;
use crate::support::cluster::{wait_gone, wait_until};
use crate::support::daemon::{LIMIT, World};
use serde_json::{Value, json};
use windlass::api::application::ApplicationPhase;
use windlass::api::condition::kind;
use windlass::api::delivery::{Outcome, Phase, RollbackMode};
use windlass::api::names;

async fn running(test: &str) -> (World, String) {
    let world = World::new(test).await;
    world.application("web", "ok", json!({"config": {"env": {"COLOUR": "blue"}}})).await;
    let status = world.wait_application_runs("web", "ok").await;
    (world, status.current_revision.unwrap())
}

#[tokio::test]
async fn the_last_good_spec_comes_back_and_a_newer_one_gets_through() {
    let (world, good) = running("app-back").await;
    world.application("web", "crash", json!({"config": {"env": {"COLOUR": "red"}}})).await;
    let status = world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(status.current_revision.as_deref(), Some(good.as_str()));
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok");
    let (held, _, why) = condition_of(&status, kind::HELD);
    assert!(held == "True" && why.contains("registry.example.com/web:crash"), "{why}");
    assert_eq!(condition_of(&status, kind::READY).0, "False");
    assert_eq!(condition_of(&status, kind::AVAILABLE).0, "True");
    let why = world.wait_application_event("web", "RollingBack").await;
    assert!(why.contains("(registry.example.com/web:crash) failed: "), "{why}");
    world.wait_application_event("web", "RolledBack").await;
    // The history shows both: what failed, and what runs again.
    let inner = world.deliveries().get("web.application").await.unwrap().status.unwrap();
    let failed = windlass::core::application::revision_name("web", &inner.held.unwrap().revision.commit);
    let mut kept = world.revisions_of("web").await;
    kept.sort();
    let mut both = vec![good.clone(), failed];
    both.sort();
    assert_eq!(kept, both);
    let arguments = ["history", "web", "-n", &world.space.name, "-o", "json"];
    let history = windlass_with(&world.space.cluster.kubeconfig, &arguments);
    assert_eq!(history.code, 0, "{history:?}");
    let history: Value = serde_json::from_str(&history.out).unwrap();
    let told = history["revisions"].as_array().unwrap().iter();
    let told: Vec<_> =
        told.map(|r| (r["revision"]["subject"].as_str().unwrap(), r["outcome"].as_str().unwrap())).collect();
    for entry in [
        ("registry.example.com/web:ok", "Restored"),
        ("registry.example.com/web:crash", "RolledBack"),
        ("registry.example.com/web:ok", "Deployed"),
    ] {
        assert!(told.contains(&entry), "{told:?}");
    }
    world.application("web", "ok2", json!({})).await;
    let status = world.wait_application_runs("web", "ok2").await;
    assert_eq!(condition_of(&status, kind::HELD).0, "False");
}

/// The ConfigMap that the pods take their environment from, and what is in it.
async fn environment(world: &World) -> (String, Value) {
    let deployment = world.get("apps/v1", "deployments", "web").await;
    let from = &deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"];
    let name = from[0]["configMapRef"]["name"].as_str().unwrap().to_owned();
    let data = world.get("v1", "configmaps", &name).await["data"].clone();
    (name, data)
}

#[tokio::test]
async fn other_configuration_alone_replaces_pods_and_a_rollback_brings_the_old_one() {
    let (world, first) = running("app-config").await;
    let (blue, of_blue) = environment(&world).await;
    assert_eq!(of_blue, json!({"COLOUR": "blue"}));
    let before = world.names("v1", "pods").await;
    world.application("web", "ok", json!({"config": {"env": {"COLOUR": "red"}}})).await;
    wait_until("other pods serve", LIMIT, || async {
        let now = world.names("v1", "pods").await;
        let others = now.len() == 2 && now.iter().all(|pod| !before.contains(pod));
        if others { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let status = world.wait_application_runs("web", "ok").await;
    assert_ne!(status.current_revision.as_ref(), Some(&first));
    let (red, of_red) = environment(&world).await;
    assert!(red != blue && of_red == json!({"COLOUR": "red"}), "{red}: {of_red}");
    assert_eq!(world.get("v1", "configmaps", &blue).await, Value::Null, "nobody reads it any more");
    // Back, by the name that the status shows.
    let arguments = ["rollback", "web", "--to", &first, "-n", &world.space.name, "--wait"];
    let back = windlass_with(&world.space.cluster.kubeconfig, &arguments);
    assert_eq!(back.code, 0, "{back:?}");
    let status = world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(status.current_revision, Some(first));
    assert_eq!(environment(&world).await, (blue, of_blue));
    assert_eq!(world.get("v1", "configmaps", &red).await, Value::Null);
}

#[tokio::test]
async fn a_restarted_daemon_takes_back_what_it_did_not_begin() {
    let (mut world, good) = running("app-again").await;
    world.kill();
    world.application("web", "crash", json!({})).await;
    world.give_away().await;
    world.start();
    let status = world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(status.current_revision, Some(good));
    // And one that begins when all is over knows it.
    world.restart().await;
    world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok");
}

#[tokio::test]
async fn a_spec_that_contradicts_itself_is_told_and_nothing_of_it_is_applied() {
    let (world, good) = running("app-invalid").await;
    // The schema does not say this: what a pod asks for is elsewhere.
    let wrong = json!({"autoscaling": {"maxReplicas": 3}});
    world.application("web", "ok2", wrong.clone()).await;
    let status = world.wait_application("web", "it is told", |s| {
        s.conditions.iter().any(|c| c.reason == "InvalidApplication")
    });
    let status = status.await;
    let (ready, reason, message) = condition_of(&status, kind::READY);
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "InvalidApplication"));
    assert!(message.contains("spec.resources.requests has no cpu"), "{message}");
    assert_eq!(status.phase, ApplicationPhase::Running, "what was there before runs");
    assert_eq!(status.current_revision, Some(good));
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok");
    world.wait_application_event("web", "InvalidApplication").await;
    // What was good is looked after meanwhile.
    world.delete("v1", "services", "web").await;
    world
        .wait_object("v1", "services", "web", "it is there again", |s| s["metadata"]["uid"].is_string())
        .await;
    // One that is invalid from the beginning is not begun.
    world.application("other", "ok", wrong).await;
    let status = world.wait_application("other", "it is told", |s| !s.conditions.is_empty()).await;
    assert_eq!(status.phase, ApplicationPhase::Pending);
    assert_eq!(world.get("apps/v1", "deployments", "other").await, Value::Null);
    assert_eq!(world.deliveries().get_opt("other.application").await.unwrap().map(|d| d.spec), None);
    world.application("web", "ok2", json!({})).await;
    world.wait_application_runs("web", "ok2").await;
}

/// A file with an Application.
pub fn manifest(tag: &str) -> String {
    format!(
        "apiVersion: windlass.dev/v1alpha1\nkind: Application\nmetadata: {{name: web}}\n\
         spec: {{image: \"registry.example.com/web:{tag}\", port: 8080, replicas: 2}}\n"
    )
}

#[tokio::test]
async fn one_that_was_copied_out_of_a_directory_goes_back_by_itself() {
    let world = World::new("app-copied").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    // As whoever copies it has it: the label of the Delivery that has put the other one there.
    let label = json!({"metadata": {"labels": {(names::DELIVERY_LABEL): "the-others"}}});
    world.patch("windlass.dev/v1alpha1", "applications", "web", label).await;
    world.application("web", "crash", json!({})).await;
    world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok");
    let labels = world.applications().get("web").await.unwrap().metadata.labels.unwrap();
    assert_eq!(labels[names::DELIVERY_LABEL], "the-others");
}

#[tokio::test]
async fn a_directory_that_delivers_it_goes_back_and_it_does_not() {
    let world = World::new("app-in-git").await;
    let good = world.commit("Good", &[("shop/web.yaml", &manifest("ok"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    world.wait_application_runs("web", "ok").await;
    let inner = world.wait("web.application", "it leaves going back to the directory", |d| {
        d.spec.template.rollback.as_ref().is_some_and(|r| r.mode == RollbackMode::Off)
    });
    inner.await;
    let bad = world.commit("Bad", &[("shop/web.yaml", &manifest("crash"))]);
    let outer = world.wait_for("shop", Phase::Held, &bad).await;
    let held = outer.status.unwrap().held.unwrap();
    assert!(held.problem.object.contains("Application"), "{:?}", held.problem);
    world.wait_application_runs("web", "ok").await;
    let inner = world.wait("web.application", "it is ready", |d| {
        d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)
    });
    let history = inner.await.status.unwrap().history;
    assert!(
        history.iter().all(|h| h.outcome != Outcome::RolledBack && h.outcome != Outcome::Restored),
        "{history:#?}"
    );
    let fixed = world.commit("Fixed", &[("shop/web.yaml", &manifest("ok2"))]);
    world.wait_for("shop", Phase::Ready, &fixed).await;
    world.wait_application_runs("web", "ok2").await;
    // It leaves Git, and everything goes.
    world.commit(
        "Gone",
        &[("shop/web.yaml", ""), ("shop/other.yaml", &crate::support::daemon::config_map("other", "1"))],
    );
    world.wait_gone("web.application").await;
    let path = format!("{}/web", world.space.path("apps/v1", "deployments"));
    wait_gone(&world.space.connection.client, &path, LIMIT).await;
}

#[tokio::test]
async fn a_directory_goes_back_as_soon_as_its_canary_did() {
    let world = World::new("app-in-git-canary").await;
    let canary = |tag: &str| {
        format!(
            "{}  rollout:\n    strategy: Canary\n    router: {{replicas: {{}}}}\n    steps: [{{weight: 50}}, {{pause: 1s}}]\n",
            manifest(tag)
                .replace("spec: {image", "spec:\n  image")
                .replace(", port: 8080, replicas: 2}", "\n  port: 8080\n  replicas: 2")
        )
    };
    let good = world.commit("Good", &[("shop/web.yaml", &canary("ok"))]);
    // Nobody waits for this: the test would not, either.
    world.deliver("shop", json!({"timeout": "30m"})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let before = world.get("apps/v1", "deployments", "web").await["metadata"]["generation"].clone();
    let bad = world.commit("Bad", &[("shop/web.yaml", &canary("crash"))]);
    let outer = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    let held = outer.held.unwrap();
    assert_eq!(held.problem.reason, "RolledBack", "{:?}", held.problem);
    assert!(held.problem.object.contains("Application") && held.problem.message.contains("web-canary"));
    assert_eq!(outer.effective.unwrap().commit, good);
    // The spec is the good one again, so nothing of it is held.
    let status = world.wait_application_runs("web", "ok").await;
    assert_eq!(condition_of(&status, kind::HELD).0, "False");
    let inner = world.wait("web.application", "it is ready", |d| {
        d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)
    });
    assert_eq!(inner.await.status.unwrap().held, None);
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.get("apps/v1", "deployments", "web").await["metadata"]["generation"], before);
    // What was held says nothing of what comes next.
    let fixed = world.commit("Fixed", &[("shop/web.yaml", &canary("ok2"))]);
    world.wait_for("shop", Phase::Ready, &fixed).await;
    world.wait_application_runs("web", "ok2").await;
}

#[tokio::test]
async fn a_directory_whose_application_cannot_be_begun_goes_back_and_says_why() {
    let world = World::new("app-in-git-refused").await;
    let other = crate::support::daemon::config_map("other", "1");
    let good = world.commit("Good", &[("shop/other.yaml", &other)]);
    world.deliver("shop", json!({"timeout": "30m"})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // Somebody else's, with the selector of an Application's.
    let labels = json!({"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "web"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "registry.example.com/web:ok"}]},
            },
        },
    });
    let before = world.space.send("POST", &world.space.path("apps/v1", "deployments"), &deployment).await;
    let bad = world.commit("Bad", &[("shop/web.yaml", &manifest("ok2"))]);
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap().held.unwrap();
    assert!(held.problem.object.contains("Application"), "{:?}", held.problem);
    let why = &held.problem.message;
    assert!(why.contains("Deployment") && why.contains("adopting it would replace its pods"), "{why}");
    world.wait_gone("web.application").await;
    let after = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
}

#[tokio::test]
async fn a_revision_that_somebody_removed_is_kept_again_when_it_comes_back() {
    let (world, first) = running("app-removed").await;
    world.application("web", "ok2", json!({})).await;
    world.wait_application_runs("web", "ok2").await;
    world.delete("apps/v1", "controllerrevisions", &first).await;
    assert!(!world.revisions_of("web").await.contains(&first));
    // Back to what it was: the history names it, and it is not there.
    world.application("web", "ok", json!({"config": {"env": {"COLOUR": "blue"}}})).await;
    let status = world.wait_application_runs("web", "ok").await;
    assert_eq!(status.current_revision.as_ref(), Some(&first));
    assert!(world.revisions_of("web").await.contains(&first));
    // A rollback to it finds it.
    world.application("web", "crash", json!({})).await;
    let status = world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(status.current_revision, Some(first));
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok");
}

#[tokio::test]
async fn what_runs_is_kept_again_when_somebody_removes_it() {
    let (mut world, first) = running("app-kept").await;
    let there = async |world: &World| {
        wait_until("it is kept again", LIMIT, || async {
            let kept = world.revisions_of("web").await;
            if kept.contains(&first) { Ok(()) } else { Err(format!("{kept:?}")) }
        })
        .await;
    };
    world.delete("apps/v1", "controllerrevisions", &first).await;
    there(&world).await;
    // And when nobody was there to see it.
    world.kill();
    world.delete("apps/v1", "controllerrevisions", &first).await;
    world.give_away().await;
    world.start();
    there(&world).await;
    // A rollback to it finds it, though the spec is another one by then.
    world.application("web", "crash", json!({})).await;
    let status = world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(status.current_revision, Some(first));
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok");
}

#[tokio::test]
async fn pods_that_find_no_node_take_no_directory_back() {
    let world = World::new("app-no-node").await;
    // Its pods run on nodes with this label alone.
    let key = format!("example.com/{}", world.space.name);
    let nodes = world.space.send("GET", "/api/v1/nodes", &Value::Null).await;
    let node = nodes["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let label = async |value: Value| {
        let patch = json!({"metadata": {"labels": {key.as_str(): value}}});
        world.space.send("PATCH", &format!("/api/v1/nodes/{node}"), &patch).await
    };
    label(json!("here")).await;
    let web = |tag: &str| {
        format!(
            "apiVersion: windlass.dev/v1alpha1\nkind: Application\nmetadata: {{name: web}}\nspec:\n  \
             image: registry.example.com/web:{tag}\n  port: 8080\n  replicas: 2\n  \
             topologySpread: [{{maxSkew: 1, topologyKey: {key}, whenUnsatisfiable: DoNotSchedule}}]\n"
        )
    };
    let first = world.commit("First", &[("shop/web.yaml", &web("ok"))]);
    world.deliver("shop", json!({"rollback": {"bake": "10m"}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit("Second", &[("shop/web.yaml", &web("ok2"))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    world.wait_application_runs("web", "ok2").await;

    label(Value::Null).await;
    for pod in world.names("v1", "pods").await {
        world.delete("v1", "pods", &pod).await;
    }
    let bake = |d: &windlass::api::Delivery| d.status.as_ref().and_then(|s| s.bake.clone());
    let disrupted = |d: &windlass::api::Delivery| {
        bake(d).is_some_and(|b| b.lost_at.is_none() && b.problem.is_some_and(|p| p.reason == "Disrupted"))
    };
    let delivery = world.wait("shop", "its pods find no node", disrupted).await;
    let problem = bake(&delivery).unwrap().problem.unwrap();
    assert!(
        problem.object.contains("Application") && problem.message.contains("no room on any node"),
        "{problem:?}"
    );
    label(json!("here")).await;
    world.wait_application_runs("web", "ok2").await;
    let well = |d: &windlass::api::Delivery| bake(d).is_some_and(|b| b.problem.is_none());
    let status = world.wait("shop", "it is well again", well).await.status.unwrap();
    assert!(status.held.is_none() && status.effective.unwrap().commit == second);
    label(Value::Null).await;
}
