//! What left Git is removed: in reverse order, once what replaces it is healthy, and never by surprise.

use crate::support::cluster::{suffix, wait_until};
use crate::support::daemon::{LIMIT, World, condition, config_map, deployment};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::{gated, open_gates};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::names;

fn ingress(name: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec:\n  defaultBackend: {{service: \
         {{name: it, port: {{number: 80}}}}}}\n"
    )
}

fn claim(name: &str, prune: &str) -> String {
    let note = if prune.is_empty() {
        String::new()
    } else {
        format!(", annotations: {{windlass.dev/prune: {prune}}}")
    };
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}{note}}}\nspec:\n  accessModes: \
         [ReadWriteOnce]\n  resources: {{requests: {{storage: 1Gi}}}}\n"
    )
}

#[tokio::test]
async fn in_reverse_order_once_the_new_ones_are_healthy() {
    let world = World::new("prune").await;
    let first = world.commit(
        "First",
        &[
            ("shop/settings.yaml", &config_map("settings", "1")),
            ("shop/web.yaml", &gated("ok")),
            (
                "shop/public.yaml",
                &ingress("public")
                    .replace("{name: public}", "{name: public, annotations: {windlass.dev/wave: \"0\"}}"),
            ),
        ],
    );
    world.deliver("shop", json!({})).await;
    open_gates(&world).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let audit = world.space.cluster.audit();
    let second = world.commit(
        "Another app",
        &[
            ("shop/settings.yaml", ""),
            ("shop/web.yaml", ""),
            ("shop/public.yaml", ""),
            ("shop/next.yaml", &gated("ok").replace("web", "next")),
        ],
    );
    world.wait_for("shop", Phase::Waiting, &second).await;
    assert_eq!(
        world.names("v1", "configmaps").await,
        ["settings"],
        "nothing goes before the new one is healthy"
    );
    assert_eq!(world.names("apps/v1", "deployments").await, ["next", "web"]);
    open_gates(&world).await;
    let delivery = world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(delivery.status.unwrap().inventory.len(), 1);
    assert!(world.names("v1", "configmaps").await.is_empty());
    assert_eq!(world.names("apps/v1", "deployments").await, ["next"]);
    let mut removed = world.writes(&audit);
    removed.retain(|r| r.verb == "delete");
    let removed: Vec<_> = removed.iter().map(|r| r.resource.as_str()).collect();
    assert_eq!(removed, ["ingresses", "deployments", "configmaps"]);
}

#[tokio::test]
async fn data_stays_unless_asked_and_what_says_so_stays_too() {
    let world = World::new("kept").await;
    let keep = config_map("keep", "1")
        .replace("{name: keep}", "{name: keep, annotations: {windlass.dev/prune: disabled}}");
    let first = world.commit(
        "First",
        &[
            ("shop/stays.yaml", &config_map("stays", "1")),
            ("shop/keep.yaml", &keep),
            ("shop/go.yaml", &config_map("go", "1")),
            ("shop/data.yaml", &claim("data", "")),
            ("shop/scratch.yaml", &claim("scratch", "enabled")),
        ],
    );
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit(
        "Gone",
        &[("shop/keep.yaml", ""), ("shop/go.yaml", ""), ("shop/data.yaml", ""), ("shop/scratch.yaml", "")],
    );
    world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(world.names("v1", "configmaps").await, ["keep", "stays"]);
    for (plural, name) in [("configmaps", "keep"), ("persistentvolumeclaims", "data")] {
        let kept = world.get("v1", plural, name).await;
        assert!(kept["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "{kept}");
        let managers = kept["metadata"]["managedFields"].as_array();
        assert!(!managers.into_iter().flatten().any(|m| m["manager"] == names::FIELD_MANAGER), "{kept}");
    }
    // Kubernetes itself holds a claim until its protection lets it go.
    world
        .wait_object("v1", "persistentvolumeclaims", "scratch", "gone", |o| {
            o.is_null() || o["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
}

#[tokio::test]
async fn what_somebody_took_out_of_our_hands_is_left_alone() {
    let world = World::new("taken").await;
    let first = world.commit(
        "First",
        &[
            ("shop/a.yaml", &config_map("a", "1")),
            ("shop/b.yaml", &config_map("b", "1")),
            ("shop/c.yaml", &config_map("c", "1")),
        ],
    );
    world.deliver("shop", json!({"drift": {"mode": "Report"}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    world
        .patch("v1", "configmaps", "a", json!({"metadata": {"labels": {names::DELIVERY_LABEL: null}}}))
        .await;
    world.delete("v1", "configmaps", "b").await;
    let theirs = json!({"metadata": {"name": "b"}, "data": {"key": "theirs"}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &theirs).await;
    let second = world.commit("Gone", &[("shop/a.yaml", ""), ("shop/b.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(world.names("v1", "configmaps").await, ["a", "b", "c"]);
    assert_eq!(world.get("v1", "configmaps", "b").await["data"]["key"], "theirs");
}

#[tokio::test]
async fn a_directory_that_is_empty_or_moved_removes_nothing() {
    let world = World::new("empty").await;
    let first =
        world.commit("First", &[("apps/shop/a.yaml", &config_map("a", "1")), ("apps/shop/read.me", "It")]);
    world.repository(json!({})).await;
    world.deliver_by_hand("shop", "apps/shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    world.commit("Empty", &[("apps/shop/a.yaml", "")]);
    let delivery = world.wait_refused("shop", "EmptyBundle").await;
    assert!(condition(&delivery, kind::READY).2.contains("apps/shop"));
    assert_eq!(world.names("v1", "configmaps").await, ["a"]);
    world.commit("Moved", &[("apps/shop/read.me", ""), ("apps/store/a.yaml", &config_map("a", "1"))]);
    world.wait_refused("shop", "PathNotFound").await;
    assert_eq!(world.names("v1", "configmaps").await, ["a"]);
    // The Delivery follows the directory: the object is the same one.
    let uid = world.get("v1", "configmaps", "a").await["metadata"]["uid"].clone();
    world.deliver_by_hand("shop", "apps/store", json!({})).await;
    let delivery = world
        .wait("shop", "ready again", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready))
        .await;
    assert_eq!(delivery.status.unwrap().inventory.len(), 1);
    assert_eq!(world.get("v1", "configmaps", "a").await["metadata"]["uid"], uid);
}

async fn three(test: &str) -> World {
    let world = World::new(test).await;
    let first = world.commit(
        "Three",
        &[
            ("apps/one/it.yaml", &config_map("one", "1")),
            ("apps/two/it.yaml", &config_map("two", "1")),
            ("apps/three/it.yaml", &config_map("three", "1")),
        ],
    );
    world.deliver("apps/*", json!({})).await;
    for name in ["one", "two", "three"] {
        world.wait_for(name, Phase::Ready, &first).await;
    }
    world
}

#[tokio::test]
async fn a_directory_that_goes_takes_its_delivery_and_objects_along_and_may_come_back() {
    let world = three("directory").await;
    world.commit("Two is gone", &[("apps/two/it.yaml", "")]);
    world.wait_gone("two").await;
    assert_eq!(world.names("v1", "configmaps").await, ["one", "three"]);
    let back = world.commit("Two is back", &[("apps/two/it.yaml", &config_map("two", "2"))]);
    world.wait_for("two", Phase::Ready, &back).await;
    assert_eq!(world.names("v1", "configmaps").await, ["one", "three", "two"]);
}

#[tokio::test]
async fn a_delivery_whose_directory_is_back_before_it_was_gone_is_made_anew() {
    let world = three("flicker").await;
    let params = kube::api::PatchParams::default();
    let hold = json!({"metadata": {"finalizers": ["example.com/hold", names::FINALIZER]}});
    world.deliveries().patch("two", &params, &kube::api::Patch::Merge(hold)).await.unwrap();
    world.commit("Two is gone", &[("apps/two/it.yaml", "")]);
    world.wait("two", "is being deleted", |d| d.metadata.deletion_timestamp.is_some()).await;
    let back = world.commit("Two is back", &[("apps/two/it.yaml", &config_map("two", "2"))]);
    world.wait_fetched(&back).await;
    let none = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    wait_until("the old one lets its object go", LIMIT, || async {
        match world.get("v1", "configmaps", "two").await {
            Value::Null => Ok(()),
            there => Err(there.to_string()),
        }
    })
    .await;
    world.deliveries().patch("two", &params, &none).await.unwrap();
    world.wait_for("two", Phase::Ready, &back).await;
}

#[tokio::test]
async fn most_directories_gone_at_once_removes_nothing_until_a_person_confirms() {
    let world = three("mass").await;
    let audit = world.space.cluster.audit();
    let gone = world.commit("Moved", &[("apps/one/it.yaml", ""), ("apps/two/it.yaml", "")]);
    let message = world.wait_repository("MassRemoval").await;
    for word in ["2 of 3", names::CONFIRM_REMOVAL, &gone[..12]] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(world.names("v1", "configmaps").await, ["one", "three", "two"]);
    assert!(world.writes(&audit).is_empty());
    let note = json!({"metadata": {"annotations": {names::CONFIRM_REMOVAL: &gone[..12]}}});
    world
        .repositories()
        .patch("config", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(note))
        .await
        .unwrap();
    world.wait_gone("one").await;
    world.wait_gone("two").await;
    assert_eq!(world.names("v1", "configmaps").await, ["three"]);
}

#[tokio::test]
async fn where_no_directories_are_asked_for_any_more_none_is_counted() {
    let world = three("none").await;
    let first = world.repo.head();
    let patch = async |patch: Value| {
        let params = kube::api::PatchParams::default();
        world.repositories().patch("config", &params, &kube::api::Patch::Merge(patch)).await.unwrap();
    };
    let counted = async |request: Option<&str>, count: Option<i64>| {
        wait_until(&format!("{count:?} after {request:?}"), LIMIT, || async {
            let repository = world.repositories().get("config").await.map_err(|e| e.to_string())?;
            let status = repository.status.unwrap_or_default();
            let is = status.handled_request.as_deref() == request && status.deliveries == count;
            if is { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    };
    counted(None, Some(3)).await;
    let confirmed = json!({names::CONFIRM_REMOVAL: &first[..12], names::RECONCILE_REQUEST: "none"});
    patch(json!({"metadata": {"annotations": confirmed}, "spec": {"deliveries": []}})).await;
    counted(Some("none"), Some(0)).await;
    patch(json!({"metadata": {"annotations": {names::RECONCILE_REQUEST: "again"}}})).await;
    counted(Some("again"), None).await;
}

#[tokio::test]
async fn a_branch_without_the_directories_removes_nothing() {
    let world = three("branch").await;
    let main = world.repo.head();
    world.repo.git(&["checkout", "--quiet", "--orphan", "other"]);
    world.repo.git(&["rm", "-r", "--quiet", "--force", "."]);
    world.commit("Something else", &[("read.me", "Hello")]);
    world.repo.git(&["checkout", "--quiet", "main"]);
    let set = json!([{"path": "apps/*", "template": {"targetNamespace": world.space.name, "timeout": "3m", "retryInterval": "2s"}}]);
    world.repository(json!({"ref": {"branch": "other"}, "deliveries": set})).await;
    world.wait_repository("MassRemoval").await;
    assert_eq!(world.names("v1", "configmaps").await, ["one", "three", "two"]);
    world.repository(json!({"ref": {"branch": "main"}, "deliveries": set})).await;
    for name in ["one", "two", "three"] {
        world.wait_for(name, Phase::Ready, &main).await;
    }
    world.wait_repository("Fetched").await;
}

#[tokio::test]
async fn a_directory_sets_what_it_may_and_nothing_that_decides_what_a_tenant_may_do() {
    let world = World::new("own").await;
    let first = world.commit(
        "First",
        &[
            ("shop/it.yaml", &config_map("it", "1")),
            ("shop/windlass.yaml", "timeout: 7m\ndrift: {mode: Report}\n"),
        ],
    );
    world.deliver("shop", json!({})).await;
    let delivery = world.wait_for("shop", Phase::Ready, &first).await;
    let template = delivery.spec.template;
    assert_eq!(template.timeout.unwrap().to_string(), "7m");
    assert_eq!(template.drift.unwrap().mode, windlass::api::delivery::DriftMode::Report);
    for (text, word) in [
        ("serviceAccountName: admin\n", "serviceAccountName"),
        ("targetNamespace: kube-system\n", "targetNamespace"),
        ("source: {repository: other}\n", "source"),
        ("tiemout: 7s\n", "tiemout"),
        ("timeout: soon\n", "soon"),
        ("timeout: [\n", "line"),
    ] {
        let mark = suffix();
        world.commit(word, &[("shop/windlass.yaml", text), ("shop/mark.txt", &mark)]);
        wait_until(&format!("the Repository refuses {word}"), LIMIT, || async {
            let repository = world.repositories().get("config").await.map_err(|e| e.to_string())?;
            let conditions = repository.status.unwrap_or_default().conditions;
            let told = conditions.iter().any(|c| {
                c.reason == "InvalidWindlassYaml"
                    && c.message.contains("shop/windlass.yaml")
                    && c.message.contains(word)
            });
            if told { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }
    let delivery = world.deliveries().get("shop").await.unwrap();
    assert_eq!(delivery.spec.template.target_namespace.as_deref(), Some(world.space.name.as_str()));
    assert!(delivery.spec.template.service_account_name.is_none());
}

#[tokio::test]
async fn without_pruning_a_rollback_takes_only_what_the_bad_commit_brought() {
    let world = World::new("no-prune").await;
    let web = |tag: &str| deployment("web", tag, 1);
    let first = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok")),
            ("shop/left.yaml", &config_map("left", "1")),
            ("shop/stays.yaml", &config_map("stays", "1")),
        ],
    );
    world.deliver("shop", json!({"prune": false})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit("It left Git on purpose", &[("shop/left.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(world.names("v1", "configmaps").await, ["left", "stays"]);

    // An object that was there already is only adopted.
    let path = world.space.path("v1", "configmaps");
    world.space.send("POST", &path, &json!({"metadata": {"name": "theirs"}, "data": {"own": "1"}})).await;
    let bad = world.commit(
        "Bad",
        &[
            ("shop/web.yaml", &web("missing")),
            ("shop/stays.yaml", ""),
            ("shop/new.yaml", &config_map("new", "1")),
            ("shop/theirs.yaml", &config_map("theirs", "1")),
        ],
    );
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, second);
    assert_eq!(world.names("v1", "configmaps").await, ["left", "stays", "theirs"]);
    let theirs = world.get("v1", "configmaps", "theirs").await;
    assert_eq!(theirs["data"]["own"], "1");
    assert!(theirs["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "released: {theirs}");

    // And it is no accident that the next good one leaves them alone as well.
    let fixed = world.commit("Fixed", &[("shop/web.yaml", &web("fixed")), ("shop/theirs.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &fixed).await;
    assert_eq!(world.names("v1", "configmaps").await, ["left", "new", "stays", "theirs"]);
}
