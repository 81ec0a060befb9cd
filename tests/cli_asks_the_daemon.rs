//! What people ask for on the command line happens, and what they are told is what is.

use crate::support::cli::{Answer, windlass, windlass_with};
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::support::faults::Fault;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use windlass::api::delivery::Phase;
use windlass::api::{Delivery, names};

fn ask(world: &World, arguments: &[&str]) -> Answer {
    windlass(&world.space, &[arguments, &["-n", &world.space.name]].concat())
}

async fn colour(world: &World) -> String {
    let map = world.get("v1", "configmaps", "settings").await;
    map["data"]["key"].as_str().unwrap_or_default().to_owned()
}

async fn delivered(test: &str, template: Value) -> (World, String) {
    let world = World::new(test).await;
    let good = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 1)),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    world.deliver("shop", template).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

#[tokio::test]
async fn sync_release_and_rollback_do_what_they_say_and_tell_how_it_ended() {
    let (world, good) = delivered("cliasks", json!({})).await;
    let status = ask(&world, &["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(status.out.contains(&format!("main@{}", &good[..7])), "{status:?}");
    let release = ask(&world, &["release", "shop"]);
    assert_eq!(release.code, 2, "nothing is held: {release:?}");

    let bad = world.commit(
        "Red, and broken",
        &[
            ("shop/web.yaml", &deployment("web", "crash", 1)),
            ("shop/settings.yaml", &config_map("settings", "red")),
        ],
    );
    let sync = ask(&world, &["sync", "shop", "--wait", "--timeout", "5m"]);
    assert_eq!(sync.code, 1, "{sync:?}");
    for word in
        [&bad[..7], "Held", "Ada", "Red, and broken", "Deployment", "CrashLoopBackOff", "which is not drift"]
    {
        assert!(sync.out.contains(word), "{word}: {sync:?}");
    }
    assert_eq!(colour(&world).await, "blue");
    let status = ask(&world, &["status", "shop"]);
    assert_eq!(status.code, 1, "{status:?}");
    assert!(!status.out.contains('\u{1b}'), "no colours where nobody sees them: {status:?}");
    assert_eq!(ask(&world, &["drift"]).code, 0, "Git being ahead is not drift");
    let rollback = ask(&world, &["rollback", "shop"]);
    assert_eq!(rollback.code, 2);
    assert!(rollback.err.contains("is held already"), "{rollback:?}");

    let release = ask(&world, &["release", "shop", "--wait", "--timeout", "5m"]);
    assert_eq!(release.code, 1, "it fails again: {release:?}");
    assert!(release.err.contains("is tried again"), "{release:?}");
    let history = ask(&world, &["history", "shop", "-o", "json"]);
    let history: Value = serde_json::from_str(&history.out).unwrap();
    let outcomes: Vec<&str> =
        history["revisions"].as_array().unwrap().iter().filter_map(|r| r["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["Restored", "RolledBack", "Restored", "RolledBack", "Deployed"]);

    let mended = world.commit(
        "Green",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 1)),
            ("shop/settings.yaml", &config_map("settings", "green")),
        ],
    );
    let sync = ask(&world, &["sync", "shop", "--wait", "--timeout", "5m"]);
    assert_eq!(sync.code, 0, "{sync:?}");
    assert!(sync.out.contains(&mended[..7]), "{sync:?}");
    assert_eq!(colour(&world).await, "green");

    let back = ask(&world, &["rollback", "shop", "--wait", "--timeout", "5m"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(colour(&world).await, "blue");
    assert!(back.out.contains("a person asked to go back"), "{back:?}");
    let wrong = ask(&world, &["rollback", "shop", "--to", "abcdef0"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("begins with abcdef0"), "{wrong:?}");

    let missing = ask(&world, &["status", "shpo"]);
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains(&format!("there are: {}/shop", world.space.name)), "{missing:?}");
}

/// Somebody puts right what is refused and says so, while the daemon still waits for the answer to what it asked before.
#[tokio::test]
async fn who_asks_meanwhile_is_not_answered_by_what_was_found_before() {
    let mut world = World::stopped("asks-meanwhile").await;
    let faults = world.behind_faults().await;
    let labels = json!({names::DELIVERY_LABEL: "another.1"});
    let anothers = json!({"metadata": {"name": "settings", "labels": labels}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &anothers).await;
    world.start();
    let commit = world.commit("First", &[("shop/settings.yaml", &config_map("settings", "blue"))]);
    // Time enough in which a refusal would stand there.
    world.deliver("shop", json!({"retryInterval": "10s"})).await;
    world.wait_refused("shop", "Conflict").await;
    let (told, asked) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    faults.set({
        let (told, asked) = (told.clone(), asked.clone());
        move |request| {
            let reads = request.method() == "GET" && request.uri().path().ends_with("/configmaps/settings");
            let first = reads && !asked.swap(true, Ordering::SeqCst);
            first.then(|| Fault::AnswerLater(told.clone()))
        }
    });
    world.annotate("shop", names::RECONCILE_REQUEST, "look").await;
    wait_until("the daemon looks at what is there", LIMIT, || async {
        if asked.load(Ordering::SeqCst) { Ok(()) } else { Err("it does not ask".to_owned()) }
    })
    .await;
    world.delete("v1", "configmaps", "settings").await;
    world.annotate("shop", names::RECONCILE_REQUEST, "now it is right").await;
    told.notify_one();
    let answered = |d: &Delivery| {
        d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some("now it is right"))
    };
    let delivery = world.wait("shop", "has answered", answered).await;
    assert!(delivery.status.as_ref().unwrap().failure.is_none(), "{:#?}", delivery.status);
    world.wait_for("shop", Phase::Ready, &commit).await;
}

#[tokio::test]
async fn what_is_suspended_by_hand_stays_so_through_commits() {
    let (world, good) = delivered("clisuspend", json!({})).await;
    assert_eq!(ask(&world, &["suspend", "shop"]).code, 0);
    world.wait_for("shop", Phase::Suspended, &good).await;
    let next = world.commit("Green", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    // The Repository has seen the commit and written what it asks of the Delivery.
    wait_until("the commit is fetched", LIMIT, || async {
        let repository = world.repositories().get("config").await.map_err(|e| e.to_string())?;
        let revision = repository.status.and_then(|s| s.revision).unwrap_or_default();
        if revision.ends_with(&next) { Ok(()) } else { Err(revision) }
    })
    .await;
    let delivery = world.deliveries().get("shop").await.unwrap();
    assert!(delivery.spec.template.suspend, "a new commit does not take it back");
    assert_eq!(colour(&world).await, "blue");
    let sync = ask(&world, &["sync", "shop"]);
    assert_eq!(sync.code, 2);
    assert!(sync.err.contains("windlass resume shop"), "{sync:?}");
    let status = ask(&world, &["status", "shop"]);
    assert!(status.code == 1 && status.out.contains("Suspended"), "{status:?}");
    assert_eq!(ask(&world, &["resume", "shop"]).code, 0);
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(colour(&world).await, "green");

    world.commit("Stop", &[("shop/windlass.yaml", "suspend: true\n")]);
    world.wait("shop", "suspended by Git", |d| d.spec.template.suspend).await;
    let resume = ask(&world, &["resume", "shop"]);
    assert_eq!(resume.code, 2);
    assert!(resume.err.contains("suspended by Git"), "{resume:?}");
    world.commit("Go on", &[("shop/windlass.yaml", "")]);
    world.wait("shop", "not suspended", |d| !d.spec.template.suspend).await;
}

#[tokio::test]
async fn drift_tells_field_values_and_manager_and_what_was_mended() {
    let (world, good) = delivered("clidrift", json!({"drift": {"mode": "Report"}})).await;
    let path = format!("{}/settings", world.space.path("v1", "configmaps"));
    world.space.send("PATCH", &path, &json!({"data": {"key": "mauve"}})).await;
    world.wait("shop", "drifted", |d| d.status.as_ref().is_some_and(|s| s.drift == Some(1))).await;
    let drift = ask(&world, &["drift", "shop"]);
    assert_eq!(drift.code, 1, "{drift:?}");
    for word in ["1 object differs", &good[..7], "data.key", "\"blue\"", "\"mauve\"", "windlass-test"] {
        assert!(drift.out.contains(word), "{word}: {drift:?}");
    }
    let object = format!("ConfigMap {}/settings", world.space.name);
    let status = ask(&world, &["status", "shop"]);
    assert!(status.out.contains("windlass drift shop"), "{status:?}");
    let diff = ask(
        &world,
        &[
            "diff",
            world.repo.path().join("shop").to_str().unwrap(),
            "--delivery",
            "shop",
            "--installation",
            world.installation(),
        ],
    );
    assert_eq!(diff.code, 1, "{diff:?}");
    assert!(diff.out.contains(&format!("{object} would be changed")), "{diff:?}");
    std::fs::remove_file(world.repo.path().join("shop/settings.yaml")).unwrap();
    let diff = ask(
        &world,
        &[
            "diff",
            world.repo.path().join("shop").to_str().unwrap(),
            "--delivery",
            "shop",
            "--installation",
            world.installation(),
        ],
    );
    assert!(diff.out.contains(&format!("{object} would be deleted")), "{diff:?}");
    std::fs::write(world.repo.path().join("shop/settings.yaml"), config_map("settings", "blue")).unwrap();

    world.deliver("shop", json!({"drift": {"mode": "Correct"}})).await;
    wait_until("mended", LIMIT, || async {
        let drift = ask(&world, &["drift", "shop", "-o", "json"]);
        let list: Value = serde_json::from_str(&drift.out).map_err(|e| e.to_string())?;
        if list["drifted"] == 0 && list["mended"][0]["object"]["name"] == "settings" {
            Ok(())
        } else {
            Err(drift.out)
        }
    })
    .await;
    assert_eq!(colour(&world).await, "blue");
    let drift = ask(&world, &["drift", "shop"]);
    assert_eq!(drift.code, 0, "{drift:?}");
    assert!(drift.out.contains("mended lately") && drift.out.contains("\"mauve\""), "{drift:?}");
}

/// A kubeconfig of an account.
async fn kubeconfig_of(world: &World, account: &str) -> std::path::PathBuf {
    let path = format!("{}/{account}/token", world.space.path("v1", "serviceaccounts"));
    let answer = world.space.send("POST", &path, &json!({"spec": {"expirationSeconds": 3600}})).await;
    let text = std::fs::read_to_string(&world.space.cluster.kubeconfig).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let user = config["contexts"][0]["context"]["user"].clone();
    config["users"] = json!([{"name": user, "user": {"token": answer["status"]["token"]}}]);
    let file = world.file(account);
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

#[tokio::test]
async fn who_may_not_list_applications_sees_the_deliveries_and_why_not_the_rest() {
    let (world, good) = delivered("clitenant", json!({})).await;
    world.application("api", "ok", json!({})).await;
    world.wait_application_runs("api", "ok").await;
    // As a Role of before there were Applications.
    let read = ["get", "list", "watch"];
    let some = ["deliveries", "repositories", "driftreports"];
    let rules = json!([{"apiGroups": ["windlass.dev"], "resources": some, "verbs": read}]);
    world.space.account("tenant", rules).await;
    let kubeconfig = kubeconfig_of(&world, "tenant").await;
    let status =
        |more: &[&str]| windlass_with(&kubeconfig, &[&["status", "-n", &world.space.name], more].concat());
    // The authorizer learns of new roles a moment after they were made.
    let answer = wait_until("it sees the Deliveries", LIMIT, || async {
        let answer = status(&[]);
        if answer.out.contains("shop") { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert!(answer.out.contains(&format!("main@{}", &good[..7])), "{answer:?}");
    assert!(answer.out.contains("api.application"), "{answer:?}");
    for word in [
        "Applications could not be listed",
        "applications.windlass.dev is forbidden",
        "tenant",
        "is not known",
    ] {
        assert!(answer.err.contains(word), "{word}: {answer:?}");
    }
    assert_eq!(answer.code, 2, "whether all is well could not be found out: {answer:?}");
    // What has nothing to do with Applications is known.
    let shop = status(&["shop"]);
    assert_eq!((shop.code, shop.err.as_str()), (0, ""), "{shop:?}");
    // And for programs nothing stands between.
    let json: Value = serde_json::from_str(&status(&["-o", "json"]).out).unwrap();
    assert_eq!(json["deliveries"].as_array().unwrap().len(), 2);
    world
        .space
        .grant(
            "tenant",
            json!([{"apiGroups": ["windlass.dev"], "resources": ["applications"], "verbs": read}]),
        )
        .await;
    wait_until("with the right to it all is known", LIMIT, || async {
        let answer = status(&[]);
        if (answer.code, answer.err.as_str()) == (0, "") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}
