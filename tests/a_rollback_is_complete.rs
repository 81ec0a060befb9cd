//! After a rollback nothing of the bad commit is left but what Kubernetes cannot undo and what was never its own; and a
//! rollback needs neither the remote nor luck.

use crate::support::cluster::{try_send, wait_until};
use crate::support::daemon::{LIMIT, World, condition, config_map, deployment};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::{Outcome, Phase, Step};
use windlass::api::names;

fn claim(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  accessModes: \
         [ReadWriteOnce]\n  resources: {{requests: {{storage: 1Gi}}}}\n"
    )
}

fn job(name: &str, tag: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  backoffLimit: 0\n  template:\n    spec:\n      \
         restartPolicy: Never\n      containers: [{{name: it, image: \"registry.example.com/{name}:{tag}\"}}]\n"
    )
}

async fn deployed(test: &str) -> (World, String) {
    let world = World::new(test).await;
    let good = world.commit("Good", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

/// A quota that lets so many ConfigMaps in and no Secret, as soon as the API server goes by it.
async fn quota(world: &World, maps: &str) {
    let hard = json!({"count/configmaps": maps, "count/secrets": "0"});
    let quota = json!({"metadata": {"name": "full"}, "spec": {"hard": hard}});
    world.space.send("POST", &world.space.path("v1", "resourcequotas"), &quota).await;
    // What Kubernetes itself makes in each namespace is counted too, and may come late.
    world.wait_object("v1", "configmaps", "kube-root-ca.crt", "is there", Value::is_object).await;
    let there = (world.names("v1", "configmaps").await.len() + 1).to_string();
    world
        .wait_object("v1", "resourcequotas", "full", "counts", |q| {
            q["status"]["used"]["count/configmaps"] == there.as_str()
        })
        .await;
    let probe = json!({"metadata": {"name": "probe"}});
    let path = format!("{}?dryRun=All", world.space.path("v1", "secrets"));
    wait_until("the quota is in force", LIMIT, || async {
        match try_send(&world.space.connection.client, "POST", &path, &probe).await {
            Err(kube::Error::Api(e)) if e.code == 403 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The image is not to be had any more: broken beyond doubt, whatever the time.
async fn break_by_hand(world: &World) {
    let container = json!({"name": "app", "image": "registry.example.com/web:missing"});
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    world.patch("apps/v1", "deployments", "web", patch).await;
}

#[tokio::test]
async fn what_it_adopted_is_released_and_its_data_stays() {
    let (world, _) = deployed("adopted").await;
    let theirs = json!({
        "metadata": {"name": "theirs", "labels": {"whose": "theirs"}}, "data": {"key": "theirs", "other": "theirs"},
    });
    world.space.send("POST", &world.space.path("v1", "configmaps"), &theirs).await;
    let password = json!({"metadata": {"name": "password"}, "data": {"key": "b2xkLXBhc3N3b3Jk"}});
    world.space.send("POST", &world.space.path("v1", "secrets"), &password).await;
    let ours =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: password}\nstringData: {key: new, more: new}\n";
    let bad = world.commit(
        "Adopts, creates and breaks",
        &[
            ("shop/web.yaml", &deployment("web", "crash", 1)),
            ("shop/theirs.yaml", &config_map("theirs", "ours")),
            ("shop/password.yaml", ours),
            ("shop/new.yaml", &config_map("new", "1")),
            ("shop/data.yaml", &claim("data")),
        ],
    );
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    assert_eq!(delivery.status.as_ref().unwrap().inventory.len(), 1);
    assert_eq!(world.names("v1", "configmaps").await, ["theirs"]);
    let theirs = world.get("v1", "configmaps", "theirs").await;
    assert!(theirs["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "{theirs}");
    assert_eq!(theirs["metadata"]["labels"], json!({"whose": "theirs"}));
    assert_eq!(theirs["data"], json!({"key": "theirs", "other": "theirs"}), "with the values that it had");
    let password = world.get("v1", "secrets", "password").await;
    assert_eq!(password["data"], json!({"key": "b2xkLXBhc3N3b3Jk"}));
    let written = serde_json::to_string(&delivery).unwrap();
    assert!(!written.contains("b2xkLXBhc3N3b3Jk") && !world.log().contains("old-password"));
    assert!(world.get("v1", "persistentvolumeclaims", "data").await.is_object(), "data is not thrown away");
    let except = delivery.status.unwrap().rolled_back_except;
    let data = format!("PersistentVolumeClaim {}/data", world.space.name);
    assert!(
        except.iter().any(|e| e.object == data && e.message.contains("no data is deleted")),
        "{except:?}"
    );
}

/// Kept in Secrets of the Delivery's namespace, which its account may not be allowed to write, or which have no room.
#[tokio::test]
async fn what_cannot_be_kept_of_an_adopted_object_is_told_and_it_is_released_as_it_is() {
    let (world, _) = deployed("notkept").await;
    quota(&world, "9").await;
    let theirs = json!({"metadata": {"name": "theirs"}, "data": {"key": "theirs", "other": "theirs"}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &theirs).await;
    let bad = world.commit(
        "Adopts and breaks",
        &[
            ("shop/web.yaml", &deployment("web", "missing", 1)),
            ("shop/theirs.yaml", &config_map("theirs", "ours")),
        ],
    );
    world.wait_for("shop", Phase::Held, &bad).await;
    let told = world.wait_event("shop", "AdoptedNotKept").await;
    assert!(told.contains(&format!("ConfigMap {}/theirs", world.space.name)), "{told}");
    assert!(
        told.contains("403") && told.contains("values of this revision"),
        "why, and what follows: {told}"
    );
    let theirs = world.get("v1", "configmaps", "theirs").await;
    assert!(theirs["metadata"]["labels"].is_null(), "{theirs}");
    assert_eq!(theirs["data"], json!({"key": "ours", "other": "theirs"}));
    // Nobody wants it any more; with room again, what is adopted next is kept.
    world.delete("v1", "resourcequotas", "full").await;
    let bad = world.commit("Again", &[("shop/theirs.yaml", &config_map("theirs", "ours again"))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    let theirs = world.get("v1", "configmaps", "theirs").await;
    assert_eq!(theirs["data"], json!({"key": "ours", "other": "theirs"}));
}

#[tokio::test]
async fn what_an_overtaken_commit_adopted_is_released_too() {
    let (world, _) = deployed("overtaken").await;
    let theirs = json!({"metadata": {"name": "theirs"}, "data": {"other": "theirs"}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &theirs).await;
    let stuck = world.commit(
        "Adopts and is never ready",
        &[
            ("shop/web.yaml", &deployment("web", "unready", 1)),
            ("shop/theirs.yaml", &config_map("theirs", "ours")),
        ],
    );
    world.wait_for("shop", Phase::Waiting, &stuck).await;
    let fixed =
        world.commit("Neither", &[("shop/web.yaml", &deployment("web", "ok", 2)), ("shop/theirs.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &fixed).await;
    let theirs = world.get("v1", "configmaps", "theirs").await;
    assert!(theirs["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "{theirs}");
    assert_eq!(theirs["data"]["other"], "theirs");
}

#[tokio::test]
async fn a_job_that_fails_is_a_broken_commit() {
    let (world, good) = deployed("job").await;
    let bad = world.commit("A job that fails", &[("shop/migrate.yaml", &job("migrate", "fail"))]);
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    let held = delivery.status.as_ref().unwrap().held.clone().unwrap();
    assert_eq!(held.problem.object, format!("Job {}/migrate", world.space.name));
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good);
    world.wait_object("batch/v1", "jobs", "migrate", "gone", Value::is_null).await;
}

/// A StatefulSet that replaces its pods in order waits for a broken one to become ready before it touches it again, also
/// when its template has gone back.
#[tokio::test]
async fn a_stateful_set_gets_rid_of_its_broken_pod() {
    let database = |tag: &str| {
        deployment("database", tag, 2)
            .replace("kind: Deployment", "kind: StatefulSet")
            .replace("  replicas: 2\n", "  replicas: 2\n  serviceName: database\n")
    };
    let (world, _) = deployed("stateful").await;
    let good = world.commit("A database", &[("shop/database.yaml", &database("ok"))]);
    world.wait_for("shop", Phase::Ready, &good).await;
    let bad = world.commit("A broken database", &[("shop/database.yaml", &database("crash"))]);
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    let held = delivery.status.unwrap().held.unwrap();
    assert_eq!(held.problem.object, format!("StatefulSet {}/database", world.space.name));
    let set = world.get("apps/v1", "statefulsets", "database").await;
    assert_eq!(
        (&set["status"]["readyReplicas"], &set["status"]["updatedReplicas"]),
        (&json!(2), &json!(2)),
        "{set}"
    );
}

#[tokio::test]
async fn a_recreation_is_taken_back_by_one() {
    let (world, _) = deployed("recreated").await;
    let bad_web = deployment("web", "crash", 1).replace("app: web", "app: shop").replace(
        "metadata: {name: web}",
        "metadata: {name: web, annotations: {windlass.dev/recreate: enabled}}",
    );
    let bad = world.commit("Another selector, and broken", &[("shop/web.yaml", &bad_web)]);
    world.wait_for("shop", Phase::Held, &bad).await;
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["selector"]["matchLabels"]["app"], "web");
}

#[tokio::test]
async fn a_newer_commit_gets_through_in_the_middle_of_it() {
    let (world, _) = deployed("middle").await;
    // A finalizer keeps the rollback from ending.
    let held = config_map("bad", "1").replace("{name: bad}", "{name: bad, finalizers: [example.com/hold]}");
    let bad = world
        .commit("Broken", &[("shop/web.yaml", &deployment("web", "missing", 1)), ("shop/bad.yaml", &held)]);
    world.wait_for("shop", Phase::RollingBack, &bad).await;
    let fixed =
        world.commit("Fixed", &[("shop/web.yaml", &deployment("web", "fixed", 1)), ("shop/bad.yaml", "")]);
    world
        .wait("shop", "the newer one is under way", |d| {
            let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
            attempt.is_some_and(|a| a.revision.commit == fixed)
        })
        .await;
    world.patch("v1", "configmaps", "bad", json!({"metadata": {"finalizers": null}})).await;
    let delivery = world.wait_for("shop", Phase::Ready, &fixed).await;
    let status = delivery.status.unwrap();
    assert!(status.held.is_none());
    let outcomes: Vec<_> = status.history.iter().map(|h| h.outcome).collect();
    assert!(!outcomes.contains(&Outcome::Restored), "{outcomes:?}");
    assert!(world.names("v1", "configmaps").await.is_empty());
}

#[tokio::test]
async fn git_going_back_to_what_was_good_ends_the_hold() {
    let (world, good) = deployed("reverted").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    let audit = world.space.cluster.audit();
    world.repo.git(&["revert", "--no-edit", "HEAD"]);
    let delivery = world.wait_for("shop", Phase::Ready, &good).await;
    assert!(delivery.status.unwrap().held.is_none());
    let writes = world.writes(&audit);
    assert!(writes.is_empty(), "it was back already: {writes:#?}");
}

#[tokio::test]
async fn a_first_revision_that_fails_stays_and_counts_once_it_is_healthy() {
    let world = World::new("first").await;
    let first = world.commit("Not ready yet", &[("shop/web.yaml", &deployment("web", "unready", 1))]);
    world.deliver("shop", json!({"timeout": "2s"})).await;
    let delivery = world.wait_for("shop", Phase::Failed, &first).await;
    assert!(delivery.status.as_ref().unwrap().held.is_none());
    let (_, reason, message) = condition(&delivery, kind::READY);
    assert_eq!(reason, "Timeout");
    assert!(message.contains("first revision"), "{message}");
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    // Somebody helps it, such as by scaling it to what does run.
    world.patch("apps/v1", "deployments", "web", json!({"spec": {"replicas": 0}})).await;
    let delivery = world.wait_for("shop", Phase::Ready, &first).await;
    assert_eq!(delivery.status.unwrap().history[0].outcome, Outcome::Deployed);
}

#[tokio::test]
async fn one_that_fails_says_so_and_goes_on_trying() {
    let (mut world, good) = deployed("stuck").await;
    let with = world.commit("With a map", &[("shop/map.yaml", &config_map("map", "1"))]);
    world.wait_for("shop", Phase::Ready, &with).await;
    let bad = world.commit(
        "Broken, and without the map",
        &[("shop/web.yaml", &deployment("web", "unready", 1)), ("shop/map.yaml", "")],
    );
    world.wait_for("shop", Phase::Waiting, &bad).await;
    // Nobody is at work until what was good is refused.
    world.kill();
    world.delete("v1", "configmaps", "map").await;
    quota(&world, "1").await;
    break_by_hand(&world).await;
    world.restart().await;
    let delivery = world
        .wait("shop", "RollbackFailed", |d| {
            d.status.as_ref().is_some_and(|s| s.phase == Phase::RollbackFailed)
        })
        .await;
    let (status, reason, message) = condition(&delivery, kind::READY);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "RollbackFailed"));
    assert!(message.contains("quota"), "{message}");
    world.wait_event("shop", "RollbackFailed").await;
    // What is not back is told, as it differs from what was good.
    world
        .wait_report("what is not back", |r| {
            let gone = r.objects.iter().any(|o| o.name == "map" && o.state == "Missing");
            gone && r.revision.contains(&with)
        })
        .await;
    let drifted = |d: &windlass::api::Delivery| condition(d, kind::DRIFTED).0 == "True";
    world.wait("shop", "drift", drifted).await;
    world.delete("v1", "resourcequotas", "full").await;
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, with);
    assert_ne!(good, with);
    world.wait("shop", "all is back", |d| condition(d, kind::DRIFTED).0 == "False").await;
    assert_eq!(world.names("v1", "configmaps").await, ["map"]);
}

#[tokio::test]
async fn it_needs_no_remote() {
    let (mut world, good) = deployed("remote").await;
    let bad = world.commit(
        "Never ready",
        &[("shop/web.yaml", &deployment("web", "unready", 1)), ("shop/new.yaml", &config_map("new", "1"))],
    );
    world.wait_for("shop", Phase::Waiting, &bad).await;
    world.kill();
    let aside = world.repo.root().join("gone");
    std::fs::rename(world.repo.path(), &aside).unwrap();
    // Broken beyond doubt, noticed by a daemon that has never seen the remote.
    break_by_hand(&world).await;
    world.restart().await;
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good);
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example.com/web:ok");
    assert!(world.names("v1", "configmaps").await.is_empty());
    std::fs::rename(&aside, world.repo.path()).unwrap();
}

#[tokio::test]
async fn a_person_can_ask_for_one() {
    let (world, good) = deployed("asked").await;
    let second = world.commit("Second", &[("shop/web.yaml", &deployment("web", "ok", 2))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    world.annotate("shop", names::ROLLBACK_REQUEST, &good).await;
    let delivery = world.wait_for("shop", Phase::Held, &second).await;
    let status = delivery.status.unwrap();
    assert_eq!(status.effective.unwrap().commit, good);
    assert_eq!(status.held.unwrap().problem.reason, "RolledBackByHand");
    assert_eq!(world.get("apps/v1", "deployments", "web").await["spec"]["replicas"], 1);
}

#[tokio::test]
async fn what_was_refused_while_applying_is_no_success_with_rollback_off() {
    let (world, _) = deployed("off").await;
    world.deliver("shop", json!({"rollback": {"mode": "Off"}, "retryInterval": "1s"})).await;
    quota(&world, "2").await;
    // Each fits into the quota, not both: that shows only while they are applied.
    let bad = world.commit(
        "Too many",
        &[("shop/one.yaml", &config_map("one", "1")), ("shop/two.yaml", &config_map("two", "1"))],
    );
    let delivery = world.wait_for("shop", Phase::Failed, &bad).await;
    assert_eq!(delivery.status.unwrap().attempt.unwrap().step, Step::Failed);
    world.delete("v1", "resourcequotas", "full").await;
    world.wait_for("shop", Phase::Ready, &bad).await;
    assert_eq!(world.names("v1", "configmaps").await, ["one", "two"]);
}

/// Has the containers with this image crash over and over, as a kubelet says it.
pub async fn crash(world: &World, image: &str) {
    let pods = world.space.send("GET", &world.space.path("v1", "pods"), &Value::Null).await;
    let with = |pod: &&Value| pod["spec"]["containers"][0]["image"] == image;
    for pod in pods["items"].as_array().unwrap().iter().filter(with) {
        let mut conditions = pod["status"]["conditions"].clone();
        for condition in conditions.as_array_mut().unwrap() {
            if condition["type"] == "Ready" || condition["type"] == "ContainersReady" {
                condition["status"] = json!("False");
            }
        }
        let mut container = pod["status"]["containerStatuses"][0].clone();
        (container["ready"], container["started"]) = (json!(false), json!(false));
        container["restartCount"] = json!(3);
        container["lastState"] = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        container["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let status = json!({"conditions": conditions, "containerStatuses": [container]});
        let name = format!("{}/status", pod["metadata"]["name"].as_str().unwrap());
        world.patch("v1", "pods", &name, json!({"status": status})).await;
    }
}

/// A webhook that nobody answers, for the Deployments of this namespace.
pub fn webhook_of_nobody(world: &World, name: &str, policy: &str) -> String {
    format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: {name}}}\n\
         webhooks:\n- name: nobody.example.com\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  \
         failurePolicy: {policy}\n  timeoutSeconds: 2\n  clientConfig: {{service: {{namespace: {ns}, name: nobody}}}}\n  \
         namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {ns}}}}}\n  \
         rules: [{{apiGroups: [apps], apiVersions: [v1], resources: [deployments], operations: [CREATE, UPDATE]}}]\n",
        ns = world.space.name
    )
}

#[tokio::test]
async fn a_webhook_of_the_bad_commit_does_not_keep_it_from_going_back() {
    let mut world = World::new("webhook").await;
    let name = world.space.name.clone();
    let webhook = |name: &str, policy: &str| webhook_of_nobody(&world, name, policy);
    let (changed, policy) =
        (webhook(&format!("{name}-old"), "Fail"), webhook(&format!("{name}-old"), "Ignore"));
    let webhook = webhook(&name, "Fail");
    let good =
        world.commit("Good", &[("shop/web.yaml", &deployment("web", "ok", 1)), ("shop/old.yaml", &policy)]);
    world.deliver("shop", json!({"rollback": {"bake": "10m"}})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let old = format!("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}-old");
    world.space.forget_later(&old);
    let path = format!("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}");
    world.space.forget_later(&path);
    // Ready until the webhook has come, which waits for what is before it.
    let bad = world.commit(
        "Breaks, and lets nobody mend it",
        &[
            ("shop/web.yaml", &deployment("web", "two", 1)),
            ("shop/webhook.yaml", &webhook),
            ("shop/old.yaml", &changed),
        ],
    );
    world.wait_for("shop", Phase::Ready, &bad).await;
    crash(&world, "registry.example.com/web:two").await;
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    assert!(
        !delivery
            .status
            .unwrap()
            .history
            .iter()
            .any(|h| h.revision.commit == bad && h.outcome == Outcome::Restored)
    );
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example.com/web:ok");
    let left =
        crate::support::cluster::try_send(&world.space.connection.client, "GET", &path, &json!(null)).await;
    assert!(left.is_err(), "{left:?}");
    let old = world.space.send("GET", &old, &json!(null)).await;
    assert_eq!(old["webhooks"][0]["failurePolicy"], "Ignore");
}

#[tokio::test]
async fn a_first_revision_that_fails_is_removed_where_that_is_asked_for() {
    let world = World::new("remove").await;
    let first = world.commit(
        "Broken",
        &[("shop/web.yaml", &deployment("web", "missing", 1)), ("shop/map.yaml", &config_map("map", "1"))],
    );
    world.deliver("shop", json!({"rollback": {"firstRevision": "Remove"}})).await;
    let delivery = world.wait_for("shop", Phase::Held, &first).await;
    let (_, _, message) = condition(&delivery, kind::READY);
    assert!(message.contains("was removed and is held") && message.contains("first revision"), "{message}");
    assert!(world.names("apps/v1", "deployments").await.is_empty());
    assert!(world.names("v1", "configmaps").await.is_empty());
    let fixed = world.commit("Fixed", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.wait_for("shop", Phase::Ready, &fixed).await;
}

/// The cache is gone and so is the branch: the commit is fetched by its id as long as the server has it, and nothing is touched
/// when it does not.
#[tokio::test]
async fn the_good_commit_is_fetched_by_its_id_or_said_to_be_missing() {
    for server_has_it in [true, false] {
        let mut world = World::new("lost").await;
        let good = world.commit("Good", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
        world.deliver("shop", json!({"retryInterval": "1s"})).await;
        world.wait_for("shop", Phase::Ready, &good).await;
        let bad = world.commit("Never ready", &[("shop/web.yaml", &deployment("web", "unready", 1))]);
        world.wait_for("shop", Phase::Waiting, &bad).await;
        if !server_has_it {
            world.give_time(15, json!({"retryInterval": "1s"})).await;
        }
        world.kill();
        world.lose_cache();
        break_by_hand(&world).await;
        // History is rewritten: one commit with the bad files, and nothing before it.
        world.repo.git(&["checkout", "--quiet", "--orphan", "other"]);
        world.repo.git(&["commit", "--quiet", "--message", "Rewritten"]);
        world.repo.git(&["branch", "--quiet", "-M", "main"]);
        if !server_has_it {
            world.repo.git(&["reflog", "expire", "--expire=now", "--all"]);
            world.repo.git(&["gc", "--quiet", "--prune=now"]);
        }
        world.restart().await;
        if server_has_it {
            let held =
                |d: &windlass::api::Delivery| d.status.as_ref().is_some_and(|s| s.phase == Phase::Held);
            world.wait("shop", "is back", held).await;
            let web = world.get("apps/v1", "deployments", "web").await;
            assert_eq!(
                web["spec"]["template"]["spec"]["containers"][0]["image"],
                "registry.example.com/web:ok"
            );
            continue;
        }
        // That the Repository was not read yet may be told first.
        let failed = |d: &windlass::api::Delivery| {
            let failed = d.status.as_ref().is_some_and(|s| s.phase == Phase::RollbackFailed);
            failed && condition(d, kind::READY).2.contains("cannot be had")
        };
        let delivery = world.wait("shop", "cannot go back", failed).await;
        let (_, _, message) = condition(&delivery, kind::READY);
        assert!(message.contains(&good), "{message}");
        let web = world.get("apps/v1", "deployments", "web").await;
        assert_eq!(
            web["spec"]["template"]["spec"]["containers"][0]["image"],
            "registry.example.com/web:missing"
        );
        // A newer commit gets through.
        world.give_time(180, json!({"retryInterval": "1s"})).await;
        let fixed = world.commit("Fixed", &[("shop/web.yaml", &deployment("web", "fixed", 1))]);
        world.wait_for("shop", Phase::Ready, &fixed).await;
    }
}
