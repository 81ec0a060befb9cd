//! Kustomizations, and values that come from elsewhere than Git: what they are made of is what is watched, a rollback
//! takes both back, and no value of a Secret shows anywhere.

use crate::support::daemon::{World, condition, config_map, deployment};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use windlass::api::delivery::{Outcome, Phase};

#[tokio::test]
async fn a_change_of_the_base_is_deployed_and_one_elsewhere_is_not() {
    let world = World::new("base").await;
    let overlay = "resources: [../../base]\nnamePrefix: shop-\n";
    let first = world.commit(
        "First",
        &[
            ("base/kustomization.yaml", "resources: [settings.yaml]\n"),
            ("base/settings.yaml", &config_map("settings", "blue")),
            ("overlays/shop/kustomization.yaml", overlay),
        ],
    );
    world.deliver("overlays/*", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    assert_eq!(world.value("shop-settings").await, "blue");

    let elsewhere = world.commit("Elsewhere", &[("overlays/readme.txt", "hello")]);
    world.wait_fetched(&elsewhere).await;
    let second = world.commit("Second", &[("base/settings.yaml", &config_map("settings", "green"))]);
    let delivery = world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(world.value("shop-settings").await, "green");
    let commits: Vec<_> = delivery.status.unwrap().history.into_iter().map(|h| h.revision.commit).collect();
    assert_eq!(commits, [second, first], "the commit elsewhere was no revision of it");
}

/// Copies a directory of real manifests into the repository of a test.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_people_keep_in_git_is_delivered() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/repos");
    let root = std::env::var_os("WINDLASS_TEST_REPOS").map_or(beside, PathBuf::from);
    let all = [("podinfo", "kustomize", "podinfo"), ("microservices-demo", "kustomize/base", "frontend")];
    let world = World::new("real").await;
    let mut delivered = Vec::new();
    for (name, path, deployment) in all {
        if root.join(name).is_dir() {
            copy(&root.join(name).join(path), &world.repo.path().join("apps").join(name));
            delivered.push((name, deployment));
        } else {
            eprintln!("SKIPPED: {} is not there", root.join(name).display());
        }
    }
    if delivered.is_empty() {
        return;
    }
    let commit = world.commit("What people keep", &[]);
    world.deliver("apps/*", json!({"timeout": "5m"})).await;
    for (name, deployment) in delivered {
        if name == "microservices-demo" {
            // Nobody else in the test's cluster gives addresses to load balancers.
            let balancer = "frontend-external";
            world.wait_object("v1", "services", balancer, "is there", |o| !o.is_null()).await;
            let path = format!("{}/{balancer}/status", world.space.path("v1", "services"));
            let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
            world.space.send("PATCH", &path, &address).await;
        }
        let delivery = world.wait_for(name, Phase::Ready, &commit).await;
        let (healthy, ..) = condition(&delivery, "Healthy");
        assert_eq!(healthy, "True", "{name}");
        let found = world.get("apps/v1", "deployments", deployment).await;
        assert!(found["status"]["readyReplicas"].as_i64().unwrap_or(0) >= 1, "{found}");
    }
}

fn substituted() -> Value {
    json!({"substitute": {
        "values": {"region": "eu"},
        "from": [{"configMap": "vars"}, {"secret": "login"}],
    }})
}

/// A ConfigMap whose `key` is this text.
fn shows(text: &str) -> String {
    config_map("shown", text)
}

#[tokio::test]
async fn values_come_from_the_spec_a_config_map_and_a_secret_and_their_changes_are_followed() {
    let world = World::new("values").await;
    let text = "${region} ${size} ${password}";
    let first = world.commit("First", &[("shop/shown.yaml", &shows(text))]);
    world.repository(json!({})).await;
    // The interval is far away: what is noticed is noticed by watching.
    world.delivery("config", "shop", substituted()).await;
    let delivery = world.wait_refused("shop", "SettingsMissing").await;
    let (_, _, message) = condition(&delivery, "Ready");
    assert!(message.contains(&format!("ConfigMap {}/vars", world.space.name)), "{message}");

    world.texts("Secret", "login", json!({"password": "horse-1"})).await;
    world.texts("ConfigMap", "vars", json!({"other": "x", "region": "the spec wins"})).await;
    let delivery = world.wait_refused("shop", "SettingMissing").await;
    let (_, _, message) = condition(&delivery, "Ready");
    for word in ["${size}", "shop/shown.yaml", "data.key"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(world.value("shown").await.is_empty());

    world.texts("ConfigMap", "vars", json!({"size": "small", "region": "the spec wins"})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    assert_eq!(world.value("shown").await, "eu small horse-1");
    world.texts("Secret", "login", json!({"password": "horse-2"})).await;
    world.wait_value("shown", "eu small horse-2").await;
    world.texts("ConfigMap", "vars", json!({"size": "large"})).await;
    world.wait_value("shown", "eu large horse-2").await;
    // What runs goes on without them, and says so.
    world.delete("v1", "secrets", "login").await;
    world.wait_refused("shop", "SettingsMissing").await;
    assert_eq!(world.value("shown").await, "eu large horse-2");
    world.texts("Secret", "login", json!({"password": "horse-3"})).await;
    world.wait_value("shown", "eu large horse-3").await;
    world.wait_for("shop", Phase::Ready, &first).await;
}

#[tokio::test]
async fn an_account_that_may_only_read_one_name_is_enough_to_follow_it() {
    let world = World::new("named").await;
    let everything = json!(["get", "list", "watch", "create", "patch", "update", "delete"]);
    let rules = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": everything},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["login"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["shop.windlass-settings"],
            "verbs": ["get", "create", "patch"]},
    ]);
    world.space.account("deployer", rules).await;
    world.texts("Secret", "login", json!({"password": "horse-1"})).await;
    let first = world.commit("First", &[("shop/shown.yaml", &shows("${password}"))]);
    world.repository(json!({})).await;
    let template = json!({
        "substitute": {"from": [{"secret": "login"}]}, "serviceAccountName": "deployer",
    });
    world.delivery("config", "shop", template).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    world.texts("Secret", "login", json!({"password": "horse-2"})).await;
    world.wait_value("shown", "horse-2").await;
}

#[tokio::test]
async fn a_rollback_takes_the_settings_back_and_new_ones_do_not_retry_what_is_held() {
    let mut world = World::new("rotated").await;
    let shop = |tag: &str, text: &str| {
        [("shop/web.yaml", deployment("web", tag, 1)), ("shop/shown.yaml", shows(text))]
    };
    let commit = |world: &World, subject: &str, tag: &str, text: &str| {
        let files = shop(tag, text);
        let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (*p, c.as_str())).collect();
        world.commit(subject, &files)
    };
    world.texts("Secret", "login", json!({"password": "horse-1"})).await;
    let good = commit(&world, "Good", "ok", "good ${password}");
    world.repository(json!({})).await;
    world.delivery("config", "shop", json!({"substitute": {"from": [{"secret": "login"}]}})).await;
    let before = world.wait_for("shop", Phase::Ready, &good).await.status.unwrap();

    // Both change at once, as far as the daemon can see.
    world.kill();
    let bad = commit(&world, "Bad", "crash", "bad ${password}");
    world.texts("Secret", "login", json!({"password": "horse-2"})).await;
    world.restart().await;
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    let restored = held.history.iter().find(|h| h.outcome == Outcome::Restored).unwrap();
    assert_eq!(restored.revision, before.effective.unwrap(), "as it was, settings included");
    // The Secret was changed on purpose, so the good revision gets it.
    world.wait_value("shown", "good horse-2").await;

    world.texts("Secret", "login", json!({"password": "horse-3"})).await;
    world.wait_value("shown", "good horse-3").await;
    let still = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    let tried = still.history.iter().filter(|h| h.outcome == Outcome::RolledBack).count();
    assert_eq!(tried, 1, "{:?}", still.history);
    let kept = world.get("v1", "secrets", "shop.windlass-settings").await;
    assert_eq!(kept["metadata"]["ownerReferences"][0]["kind"], "Delivery");
}

#[tokio::test]
async fn settings_that_break_the_same_commit_are_rolled_back_and_not_tried_again() {
    let world = World::new("badvalue").await;
    world.texts("ConfigMap", "vars", json!({"tag": "ok"})).await;
    let good = world.commit("Good", &[("shop/web.yaml", &deployment("web", "${tag}", 1))]);
    world.repository(json!({})).await;
    world.delivery("config", "shop", json!({"substitute": {"from": [{"configMap": "vars"}]}})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    world.texts("ConfigMap", "vars", json!({"tag": "crash"})).await;
    world.wait_for("shop", Phase::Held, &good).await;
    // Looking again finds nothing to do.
    world.annotate("shop", windlass::api::names::RECONCILE_REQUEST, "1").await;
    let delivery = world
        .wait("shop", "looked again", |d| {
            let status = d.status.clone().unwrap_or_default();
            status.handled_request.as_deref() == Some("1") && status.phase == Phase::Held
        })
        .await;
    let history = delivery.status.unwrap().history;
    assert_eq!(history.iter().filter(|h| h.outcome == Outcome::RolledBack).count(), 1, "{history:?}");
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example.com/web:ok");
    world.texts("ConfigMap", "vars", json!({"tag": "fixed"})).await;
    let delivery = world.wait_for("shop", Phase::Ready, &good).await;
    assert!(delivery.status.unwrap().held.is_none());
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example.com/web:fixed");
}

#[tokio::test]
async fn no_value_of_a_secret_is_in_status_events_reports_or_the_log() {
    let world = World::new("hidden").await;
    let secret = "correct-horse-battery";
    world.texts("Secret", "login", json!({"password": secret})).await;
    let good = world.commit("Good", &[("shop/shown.yaml", &shows("${password}"))]);
    world.repository(json!({})).await;
    let template = json!({"substitute": {"from": [{"secret": "login"}]}, "drift": {"mode": "Report"}});
    world.delivery("config", "shop", template).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // A drift report shows values of both sides.
    world.patch("v1", "configmaps", "shown", json!({"data": {"key": "by hand"}})).await;
    let report = world.wait_report("one differs", |r| r.count == 1).await;
    let field = &report.objects[0].fields[0];
    assert_eq!(field.live.as_deref(), Some("\"by hand\""));
    assert_eq!(field.desired.as_deref(), Some("\"(value of password)\""));
    // The API server quotes what it does not take.
    let wrong = deployment("web", "ok", 1).replace("replicas: 1", "replicas: \"${password}\"");
    world.commit("Quoted by the server", &[("shop/web.yaml", &wrong)]);
    let refused = |d: &windlass::api::Delivery| {
        d.status.as_ref().and_then(|s| s.failure.as_ref()).is_some_and(|f| !f.transient)
    };
    let delivery = world.wait("shop", "refused", refused).await;
    let (_, _, message) = condition(&delivery, "Ready");
    assert!(message.contains("Deployment") && message.contains("replicas"), "{message}");
    let long =
        deployment("web", "ok", 1).replace("metadata: {name: web}", "metadata: {name: \"${password}_\"}");
    world.commit("A name that is none", &[("shop/web.yaml", &long)]);
    world
        .wait("shop", "refused", |d| {
            let failure = d.status.as_ref().and_then(|s| s.failure.as_ref());
            failure.is_some_and(|f| f.revision.as_ref().is_some_and(|r| r.subject.starts_with("A name")))
        })
        .await;
    let status = json!(world.deliveries().get("shop").await.unwrap().status).to_string();
    let reports = json!(world.reports().get("shop").await.unwrap()).to_string();
    let events = world.space.send("GET", &world.space.path("events.k8s.io/v1", "events"), &json!(null)).await;
    for text in [status, reports, events.to_string(), world.log()] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Has the Delivery made with settings, and waits until its revisions have so many seconds to become healthy.
async fn give(world: &World, seconds: u64) {
    let from = json!({"from": [{"configMap": "vars"}]});
    world.give_time(seconds, json!({"retryInterval": "1s", "substitute": from})).await;
}

#[tokio::test]
async fn settings_that_could_not_be_kept_are_told_and_without_them_a_rollback_touches_nothing() {
    let mut world = World::stopped("notkept").await;
    // Room for the installation's key, and none for the Secret that would keep them.
    let quota = json!({"metadata": {"name": "full"}, "spec": {"hard": {"count/secrets": "1"}}});
    world.space.send("POST", &world.space.path("v1", "resourcequotas"), &quota).await;
    world
        .wait_object("v1", "resourcequotas", "full", "is in force", |q| q["status"]["hard"].is_object())
        .await;
    world.texts("ConfigMap", "vars", json!({"color": "blue"})).await;
    world.start();
    let files = |tag: &str| [deployment("web", tag, 1), config_map("paint", "${color}")];
    let commit = |world: &World, subject: &str, tag: &str| {
        let [web, paint] = files(tag);
        world.commit(subject, &[("shop/web.yaml", &web), ("shop/paint.yaml", &paint)])
    };
    let good = commit(&world, "Good", "ok");
    give(&world, 180).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let told = world.wait_event("shop", "SettingsNotKept").await;
    assert!(told.contains("403") && told.contains("Secrets"), "{told}");

    // Nobody remembers them when they would be needed, and soon going back has taken too long.
    give(&world, 4).await;
    world.kill();
    world.texts("ConfigMap", "vars", json!({"color": "red"})).await;
    commit(&world, "Bad", "missing");
    world.restart().await;
    let failed = |d: &windlass::api::Delivery| {
        d.status.as_ref().is_some_and(|s| {
            let attempt = s.attempt.as_ref().and_then(|a| a.problem.as_ref());
            s.phase == Phase::RollbackFailed && attempt.is_some_and(|p| p.reason == "SettingsLost")
        })
    };
    world.wait("shop", "cannot go back without them", failed).await;
    assert_eq!(world.get("v1", "configmaps", "paint").await["data"]["key"], "red", "nothing was touched");
    give(&world, 180).await;
    let fixed = commit(&world, "Fixed", "ok");
    world.wait_for("shop", Phase::Ready, &fixed).await;
}
