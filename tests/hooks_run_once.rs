//! A hook runs once for a revision, at its point, whatever dies meanwhile; its failure is that of the revision.

use crate::support::cli::windlass;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, condition, config_map};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::names;

pub fn hook(name: &str, points: &str, policy: &str, tag: &str) -> String {
    let policy = match policy {
        "" => String::new(),
        policy => format!(", windlass.dev/hook-delete-policy: \"{policy}\""),
    };
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}, annotations: {{windlass.dev/hook: \
         \"{points}\"{policy}}}}}\nspec:\n  backoffLimit: 0\n  ttlSecondsAfterFinished: 1\n  template:\n    spec:\n      \
         restartPolicy: Never\n      containers: [{{name: it, image: \"registry.example.com/it:{tag}\"}}]\n"
    )
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse().unwrap_or(0)
}

/// The Jobs of a hook: name, point, and whether it is complete.
pub async fn jobs(world: &World) -> Vec<(String, String, bool)> {
    let list = world.space.send("GET", &world.space.path("batch/v1", "jobs"), &Value::Null).await;
    let mut found: Vec<(String, String, bool)> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|job| job["metadata"]["deletionTimestamp"].is_null())
        .map(|job| {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let complete = conditions.iter().any(|c| c["type"] == "Complete" && c["status"] == "True");
            (text(&job["metadata"]["name"]), text(&job["metadata"]["labels"][names::HOOK]), complete)
        })
        .collect();
    found.sort();
    found
}

/// Waits until one Job is left: those that succeeded and are to go then go after their revision is Ready.
async fn one_left(world: &World) -> Vec<(String, String, bool)> {
    wait_until("one Job is left", LIMIT, || async {
        let all = jobs(world).await;
        if all.len() == 1 { Ok(all) } else { Err(format!("{all:?}")) }
    })
    .await
}

/// Has the Job that hangs end well, as a kubelet says it.
pub async fn end_well(world: &World) {
    let name = wait_until("its pod runs", LIMIT, || async {
        let path = format!("{}?labelSelector=job-name", world.space.path("v1", "pods"));
        let pods = world.space.send("GET", &path, &Value::Null).await;
        let mut pods = pods["items"].as_array().unwrap().iter();
        let running = pods.find(|pod| pod["status"]["phase"] == "Running");
        running.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).ok_or_else(|| "no".to_owned())
    })
    .await;
    world.patch("v1", "pods", &format!("{name}/status"), json!({"status": {"phase": "Succeeded"}})).await;
}

pub fn created(world: &World, audit: &crate::support::cluster::Audit) -> usize {
    world.writes(audit).iter().filter(|r| r.resource == "jobs" && r.verb == "patch" && r.code == 201).count()
}

#[tokio::test]
async fn hooks_run_before_and_after_the_apply_and_the_old_jobs_make_room() {
    let world = World::new("hooks").await;
    let audit = world.space.cluster.audit();
    let first = world.commit(
        "With hooks",
        &[
            ("shop/migrate.yaml", &hook("migrate", "before-apply", "", "hang")),
            ("shop/test.yaml", &hook("test", "after-apply", "hook-succeeded", "ok")),
            ("shop/it.yaml", &config_map("it", "1")),
        ],
    );
    world.deliver("shop", json!({})).await;
    let running = world
        .wait("shop", "the hook runs", |d| condition_of(d).is_some_and(|m| m.contains("(before-apply) runs")))
        .await;
    assert_eq!(running.status.unwrap().phase, Phase::Applying);
    assert!(world.get("v1", "configmaps", "it").await.is_null(), "not before the hook is done");
    end_well(&world).await;
    let delivery = world.wait_for("shop", Phase::Ready, &first).await;
    // Hooks are no objects of the bundle.
    let status = delivery.status.unwrap();
    assert_eq!(status.inventory.len(), 1);
    let left = one_left(&world).await;
    assert!(left[0].0.starts_with("migrate-") && left[0].1 == "before-apply" && left[0].2, "{left:?}");
    let migrated = version(&world.get("batch/v1", "jobs", &left[0].0).await);
    assert!(migrated < version(&world.get("v1", "configmaps", "it").await));
    assert_eq!(created(&world, &audit), 2);
    for point in ["before-apply", "after-apply"] {
        wait_until("both were told of", LIMIT, || async {
            let events = world.events("shop").await;
            let told = events.iter().any(|(r, text)| r == "HookSucceeded" && text.contains(point));
            if told { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await;
    }

    // What does not change the inputs runs nothing, nor does a correction.
    let audit = world.space.cluster.audit();
    world.patch("v1", "configmaps", "it", json!({"data": {"key": "other"}})).await;
    world.wait_object("v1", "configmaps", "it", "corrected", |o| o["data"]["key"] == "1").await;
    let other = world.commit("Elsewhere", &[("other/read.me", "1")]);
    world.wait_fetched(&other).await;
    world.annotate("shop", names::RECONCILE_REQUEST, "now").await;
    world
        .wait("shop", "looked at", |d| {
            d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some("now"))
        })
        .await;
    assert_eq!((created(&world, &audit), jobs(&world).await), (0, left.clone()));

    // The next revision runs them again, and the old Job makes room.
    let migrate = hook("migrate", "before-apply", "", "slow");
    let second =
        world.commit("Another", &[("shop/it.yaml", &config_map("it", "2")), ("shop/migrate.yaml", &migrate)]);
    world.wait_for("shop", Phase::Ready, &second).await;
    let after = one_left(&world).await;
    assert_eq!(created(&world, &audit), 2);
    assert_ne!(after[0].0, left[0].0);

    // With the Delivery they go.
    world.repository(json!({})).await;
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    world.wait_gone("shop").await;
    assert_eq!(jobs(&world).await, []);
}

fn condition_of(delivery: &windlass::api::Delivery) -> Option<String> {
    let conditions = &delivery.status.as_ref()?.conditions;
    windlass::api::condition::get(conditions, kind::READY).map(|c| c.message.clone())
}

#[tokio::test]
async fn a_hook_that_fails_has_its_revision_rolled_back_and_held() {
    let world = World::new("hookfails").await;
    let first = world.commit("First", &[("shop/it.yaml", &config_map("it", "1"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let bad = world.commit(
        "A migration that fails",
        &[
            ("shop/it.yaml", &config_map("it", "2")),
            ("shop/migrate.yaml", &hook("migrate", "before-apply", "", "fail")),
            ("shop/tell.yaml", &hook("tell", "on-failure", "", "ok")),
        ],
    );
    let held = world.wait_for("shop", Phase::Held, &bad).await;
    let problem = held.status.as_ref().unwrap().held.as_ref().unwrap().problem.clone();
    assert_eq!(problem.reason, "HookFailed");
    assert!(problem.object.contains("/migrate-") && problem.message.contains("its log"), "{problem:?}");
    assert!(world.wait_event("shop", "RollingBack").await.contains("its log"));
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "1");
    wait_until("the hook for a failure ran", LIMIT, || async {
        let all = jobs(&world).await;
        let there = |point: &str, done| all.iter().any(|(_, p, complete)| p == point && *complete == done);
        if all.len() == 2 && there("on-failure", true) && there("before-apply", false) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await;

    // After the apply: what it wrote is taken back, and what came back runs its own hook for that.
    let mended = world.commit(
        "No migration",
        &[
            ("shop/it.yaml", &config_map("it", "3")),
            ("shop/migrate.yaml", ""),
            ("shop/tell.yaml", ""),
            ("shop/undo.yaml", &hook("undo", "on-rollback", "", "ok")),
        ],
    );
    world.wait_for("shop", Phase::Ready, &mended).await;
    wait_until("those of the failed revision are gone", LIMIT, || async {
        let all = jobs(&world).await;
        if all.is_empty() { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    let bad = world.commit(
        "A test that fails",
        &[
            ("shop/it.yaml", &config_map("it", "4")),
            ("shop/new.yaml", &config_map("new", "1")),
            ("shop/undo.yaml", ""),
            ("shop/test.yaml", &hook("test", "after-apply", "hook-failed", "fail")),
        ],
    );
    world.wait_for("shop", Phase::Held, &bad).await;
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "3");
    assert!(world.get("v1", "configmaps", "new").await.is_null());
    wait_until("the hook of what came back ran", LIMIT, || async {
        let all = jobs(&world).await;
        match all.as_slice() {
            [(name, point, true)] if name.starts_with("undo-") && point == "on-rollback" => Ok(()),
            _ => Err(format!("{all:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_hook_runs_once_though_the_daemon_is_killed_over_and_over() {
    let mut world = World::new("hookcrash").await;
    let audit = world.space.cluster.audit();
    let commit = world.commit(
        "Slow hooks",
        &[
            ("shop/migrate.yaml", &hook("migrate", "before-apply", "", "slow")),
            ("shop/test.yaml", &hook("test", "after-apply", "", "slow")),
            ("shop/it.yaml", &config_map("it", "1")),
        ],
    );
    world.deliver("shop", json!({})).await;
    for point in ["before-apply", "after-apply"] {
        wait_until("the hook runs", LIMIT, || async {
            let all = jobs(&world).await;
            // Or has run already, when this test is late.
            if all.iter().any(|(_, p, _)| p == point) { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await;
        world.restart().await;
    }
    world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(created(&world, &audit), 2);
    assert_eq!(jobs(&world).await.len(), 2);
}

#[tokio::test]
async fn a_hook_with_a_mistake_is_refused_before_anything_is_written() {
    let world = World::new("hookwrong").await;
    let traffic = hook("it", "before-lunch", "", "ok");
    world.commit("Too early", &[("shop/it.yaml", &config_map("it", "1")), ("shop/job.yaml", &traffic)]);
    world.deliver("shop", json!({})).await;
    let told = world.wait_refused("shop", "InvalidBundle").await;
    let (_, _, message) = condition(&told, kind::READY);
    assert!(message.contains("shop/job.yaml:1") && message.contains("before-lunch"), "{message}");
    let unknown = hook("it", "before-apply", "", "ok").replace("backoffLimit: 0", "backofLimit: 0");
    world.commit("A field", &[("shop/job.yaml", &unknown)]);
    let told = world.wait_refused("shop", "UnknownField").await;
    assert!(condition(&told, kind::READY).2.contains("shop/job.yaml:1"));
    assert_eq!((world.names("v1", "configmaps").await, jobs(&world).await), (vec![], vec![]));
    let commit = world.commit("Right", &[("shop/job.yaml", &hook("it", "before-apply", "", "ok"))]);
    world.wait_for("shop", Phase::Ready, &commit).await;
}

#[tokio::test]
async fn what_they_would_do_is_told_before_and_that_they_ran_after() {
    let world = World::new("hooktold").await;
    let dir = world.repo.path().join("shop");
    let diff = |form: &[&str]| {
        let mut arguments =
            vec!["diff", dir.to_str().unwrap(), "--delivery", "shop", "-n", &world.space.name];
        arguments.extend(["--installation", world.installation()]);
        arguments.extend(form);
        windlass(&world.space, &arguments)
    };
    let first = world.commit(
        "With hooks",
        &[
            ("shop/it.yaml", &config_map("it", "1")),
            ("shop/migrate.yaml", &hook("migrate", "before-apply", "hook-succeeded", "ok")),
            ("shop/tell.yaml", &hook("tell", "on-failure, on-rollback", "", "ok")),
        ],
    );
    world.deliver("shop", json!({"substitute": {"values": {"REGION": "eu"}}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let answer = diff(&[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let job = |name: &str| format!("Job {}/{name} hook", world.space.name);
    for told in [
        format!(
            "{} before-apply ran for this revision, and does not again  shop/migrate.yaml:1",
            job("migrate")
        ),
        format!("{} on-failure would run if the revision failed  shop/tell.yaml:1", job("tell")),
        format!("{} on-rollback would run if the revision were brought back", job("tell")),
    ] {
        assert!(answer.out.contains(&told), "{told}: {answer:?}");
    }

    // Another value runs them again, whatever is made of it.
    let answer = diff(&["--set", "REGION=us"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let told = format!("{} before-apply would run before anything is applied", job("migrate"));
    assert!(answer.out.contains(&told), "{answer:?}");

    // Another commit runs them again, also one that changes nothing else.
    std::fs::write(dir.join("migrate.yaml"), hook("migrate", "before-apply", "", "two")).unwrap();
    let answer = diff(&[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let told = format!("{} before-apply would run before anything is applied", job("migrate"));
    assert!(answer.out.contains(&told) && answer.out.contains("1 unchanged, 1 hooks to run"), "{answer:?}");
    let report: Value = serde_json::from_str(&diff(&["-o", "json"]).out).unwrap();
    assert_eq!(report["objects"], json!([]), "{report}");
    assert_eq!(report["hooks"][0]["fate"], "Runs", "{report}");

    // With a mistake it is refused, as the daemon would.
    let wrong = hook("migrate", "before-apply", "", "two").replace("backoffLimit: 0", "backofLimit: 0");
    std::fs::write(dir.join("migrate.yaml"), wrong).unwrap();
    let answer = diff(&[]);
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(answer.err.contains("shop/migrate.yaml:1") && answer.err.contains("backofLimit"), "{answer:?}");

    // One that failed is not run again by itself.
    let bad = world.commit("Fails", &[("shop/migrate.yaml", &hook("migrate", "before-apply", "", "fail"))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    let answer = diff(&[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        answer.out.contains(&format!("{} before-apply ran for this revision, and failed", job("migrate")))
    );
}
