//! What a rule, an annotation or its rightful owner keeps from us is neither reported nor corrected, and neither a correction
//! of the same object nor a new revision overwrites it.

use crate::support::daemon::{World, condition, config_map, deployment};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::{gated, open_gates};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::{Outcome, Phase};
use windlass::api::drift_report::DriftReportSpec;

/// The fields of an object that a report tells of, now or as mended.
fn told(report: &DriftReportSpec, name: &str) -> Vec<String> {
    let mended = report.episodes.iter().map(|e| &e.object);
    let objects = report.objects.iter().chain(mended).filter(|o| o.name == name);
    objects.flat_map(|o| o.fields.iter().map(|f| f.path.clone())).collect()
}

/// Changes an object that is corrected, and waits until it is: what was changed before has been looked at then.
async fn a_round(world: &World, marker: &str) {
    world.patch("v1", "configmaps", marker, json!({"data": {"key": "by hand"}})).await;
    world.wait_object("v1", "configmaps", marker, "corrected", |o| o["data"]["key"] != "by hand").await;
    world
        .wait("shop", "in sync", |d| {
            d.status.as_ref().is_some_and(|s| s.drift == Some(0) && s.attempt.is_none())
        })
        .await;
}

fn annotated(name: &str, mode: &str) -> String {
    config_map(name, "1").replace(
        &format!("{{name: {name}}}"),
        &format!("{{name: {name}, annotations: {{windlass.dev/drift: {mode}}}}}"),
    )
}

#[tokio::test]
async fn an_object_says_itself_what_is_done_about_it() {
    let world = World::new("driftmode").await;
    let first = world.commit(
        "It",
        &[
            ("shop/a.yaml", &annotated("reported", "report")),
            ("shop/b.yaml", &annotated("ignored", "ignore")),
            ("shop/c.yaml", &annotated("corrected", "correct")),
            ("shop/d.yaml", &config_map("marker", "1")),
        ],
    );
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    for name in ["reported", "ignored", "corrected"] {
        world.patch("v1", "configmaps", name, json!({"data": {"key": "2"}})).await;
    }
    let seen =
        world.wait_report("one differs and one was mended", |r| r.count == 1 && r.episodes.len() == 1).await;
    assert_eq!(
        (seen.objects[0].name.as_str(), seen.episodes[0].object.name.as_str()),
        ("reported", "corrected")
    );
    let value =
        |name: &'static str| async { world.get("v1", "configmaps", name).await["data"]["key"].clone() };
    assert_eq!((value("ignored").await, value("reported").await), (json!("2"), json!("2")));
    // What the Delivery says is said for the others.
    let world2 = &world;
    let mode = |mode: &'static str| async move {
        let patch = kube::api::Patch::Merge(json!({"spec": {"drift": {"mode": mode}}}));
        world2.deliveries().patch("shop", &kube::api::PatchParams::default(), &patch).await.unwrap();
    };
    world.deliver("shop", json!({"drift": {"mode": "Ignore"}})).await;
    mode("Ignore").await;
    world
        .wait("shop", "its spec is seen", |d| {
            d.status.as_ref().is_some_and(|s| s.observed_generation == d.metadata.generation)
        })
        .await;
    world.patch("v1", "configmaps", "marker", json!({"data": {"key": "2"}})).await;
    world.patch("v1", "configmaps", "corrected", json!({"data": {"key": "3"}})).await;
    world.wait_object("v1", "configmaps", "corrected", "corrected", |o| o["data"]["key"] == "1").await;
    assert_eq!(value("marker").await, "2");
    // A new revision is deployed as Git has it, whatever is done about drift.
    let second =
        world.commit("Two", &[("shop/b.yaml", &annotated("ignored", "ignore").replace("\"1\"", "\"9\""))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(value("ignored").await, "9");
    // What cannot be read is told with its place.
    world.commit("Three", &[("shop/b.yaml", &annotated("ignored", "never"))]);
    let refused =
        |d: &Delivery| d.status.as_ref().and_then(|s| s.failure.as_ref()).is_some_and(|f| !f.transient);
    let message = condition(&world.wait("shop", "refused", refused).await, kind::READY).2;
    assert!(message.contains("shop/b.yaml") && message.contains("correct, report or ignore"), "{message}");
}

fn web(image: &str, log: &str, replicas: u32) -> String {
    deployment("web", image, replicas).replace(
        "}]}",
        &format!(", args: [\"--a\", \"--b\"]}}, {{name: log, image: \"registry.example.com/log:{log}\"}}]}}"),
    )
}

#[tokio::test]
async fn what_is_left_to_one_manager_is_not_left_to_the_next() {
    let world = World::new("nextmanager").await;
    let commit = world.commit(
        "It",
        &[("shop/it.yaml", &config_map("it", "1")), ("shop/marker.yaml", &config_map("marker", "1"))],
    );
    world.deliver("shop", json!({"drift": {"ignore": [{"managers": ["tuner-*"]}]}})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let path = format!("{}/it?fieldManager=tuner-1", world.space.path("v1", "configmaps"));
    world.space.send("PATCH", &path, &json!({"data": {"key": "2"}})).await;
    a_round(&world, "marker").await;
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "2");
    // Nothing of what we own changes now.
    world.patch("v1", "configmaps", "it", json!({"data": {"key": "3"}})).await;
    world.wait_object("v1", "configmaps", "it", "corrected", |o| o["data"]["key"] == "1").await;
}

#[tokio::test]
async fn fields_that_a_rule_names_are_left_alone_by_corrections_and_deployments() {
    let world = World::new("ignore").await;
    let first = world.commit(
        "It",
        &[("shop/web.yaml", &web("ok", "ok", 1)), ("shop/marker.yaml", &config_map("marker", "1"))],
    );
    let rules = json!([
        {"target": {"kind": "Deployment", "name": "w*"}, "paths": [
            "/spec/replicas",
            "/spec/template/spec/containers/name=log/image",
            "/spec/template/spec/containers/name=app/args/1",
        ]},
        {"target": {"labelSelector": "app.kubernetes.io/part-of=nothing"}, "paths": [""]},
        {"managers": ["tuner-*"]},
        {"target": {"kind": "ConfigMap"}, "paths": ["/metadata/annotations/example.com~1*"], "cel": "object.data.key == '1'"},
    ]);
    world.deliver("shop", json!({"drift": {"ignore": rules}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let containers = |o: &Value| o["spec"]["template"]["spec"]["containers"].clone();
    // By hand: replicas, one image, one argument, all of which are left alone.
    let patch = json!([
        {"op": "replace", "path": "/spec/replicas", "value": 2},
        {"op": "replace", "path": "/spec/template/spec/containers/1/image", "value": "registry.example.com/log:two"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/args/1", "value": "--c"},
    ]);
    world.patch("apps/v1", "deployments", "web", patch).await;
    // A tuner, whatever it has.
    let path = format!("{}/web?fieldManager=tuner-1", world.space.path("apps/v1", "deployments"));
    world
        .space
        .send(
            "PATCH",
            &path,
            &json!({"spec": {"minReadySeconds": 1, "template": {"metadata": {"labels": {"tuned": "yes"}}}}}),
        )
        .await;
    a_round(&world, "marker").await;
    let now = world.get("apps/v1", "deployments", "web").await;
    assert_eq!((&now["spec"]["replicas"], &containers(&now)[0]["args"][1]), (&json!(2), &json!("--c")));
    assert_eq!(
        told(&world.wait_report("an episode", |r| !r.episodes.is_empty()).await, "web"),
        Vec::<String>::new()
    );

    // Something else about the same object is corrected, and only that.
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "registry.example.com/web:two"}]);
    world.patch("apps/v1", "deployments", "web", patch).await;
    let image = |o: &Value, n: usize| containers(o)[n]["image"].as_str().unwrap_or_default().to_owned();
    let now = world
        .wait_object("apps/v1", "deployments", "web", "corrected", |o| image(o, 0).ends_with(":ok"))
        .await;
    let left = |o: &Value| {
        assert_eq!(
            (&o["spec"]["replicas"], image(o, 1).as_str()),
            (&json!(2), "registry.example.com/log:two")
        );
        assert_eq!(containers(o)[0]["args"], json!(["--a", "--c"]));
        assert_eq!(o["spec"]["template"]["metadata"]["labels"]["tuned"], "yes");
    };
    left(&now);

    // A new revision changes what is ours, and nothing of what is left, also where Git changes that, too.
    let second = world.commit("Two", &[("shop/web.yaml", &web("two", "three", 4))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    let now = world.get("apps/v1", "deployments", "web").await;
    assert!(image(&now, 0).ends_with(":two"), "{now}");
    left(&now);

    // After a restart as before.
    let mut world = world;
    world.restart().await;
    a_round(&world, "marker").await;
    left(&world.get("apps/v1", "deployments", "web").await);

    // What is created anew is as Git says.
    world.delete("apps/v1", "deployments", "web").await;
    let now = world
        .wait_object("apps/v1", "deployments", "web", "back", |o| o["spec"]["replicas"].is_number())
        .await;
    assert_eq!(
        (&now["spec"]["replicas"], image(&now, 1).as_str()),
        (&json!(4), "registry.example.com/log:three")
    );

    // Without its rule a field counts again, though nothing else happens.
    world.patch("apps/v1", "deployments", "web", json!({"spec": {"replicas": 2}})).await;
    a_round(&world, "marker").await;
    assert_eq!(world.get("apps/v1", "deployments", "web").await["spec"]["replicas"], 2);
    world.deliver("shop", json!({"drift": {"mode": "Correct", "ignore": []}})).await;
    world.wait_object("apps/v1", "deployments", "web", "corrected", |o| o["spec"]["replicas"] == 4).await;
    let replicas = "spec.replicas".to_owned();
    world.wait_report("the replicas were mended", |r| told(r, "web").contains(&replicas)).await;
}

#[tokio::test]
async fn a_field_that_nobody_changed_does_not_vanish_by_being_ignored() {
    let world = World::new("ignorekept").await;
    let first = world.commit(
        "It",
        &[("shop/it.yaml", &config_map("it", "1")), ("shop/web.yaml", &deployment("web", "ok", 2))],
    );
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let rules = json!([{"paths": ["/data/key", "/spec/replicas"]}]);
    world.deliver("shop", json!({"drift": {"ignore": rules}})).await;
    world
        .wait("shop", "the rules are seen", |d| {
            let ruled = d.spec.template.drift.as_ref().is_some_and(|d| !d.ignore.is_empty());
            ruled && d.status.as_ref().is_some_and(|s| s.observed_generation == d.metadata.generation)
        })
        .await;
    // Git changes one, and drops the other.
    let without = deployment("web", "two", 2).replace("  replicas: 2\n", "");
    let second =
        world.commit("Two", &[("shop/it.yaml", &config_map("it", "2")), ("shop/web.yaml", &without)]);
    world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "1");
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["replicas"], 2);
    assert!(web["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().ends_with(":two"));
}

#[tokio::test]
async fn a_rule_that_cannot_be_used_is_told_and_nothing_is_overwritten_meanwhile() {
    let world = World::new("badrule").await;
    let first = world.commit("It", &[("shop/it.yaml", &config_map("it", "1"))]);
    world.repository(json!({})).await;
    world.deliver_by_hand("shop", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let set = |rules: Value| {
        let patch = kube::api::Patch::Merge(json!({"spec": {"drift": {"ignore": rules}}}));
        let api = world.deliveries();
        async move { api.patch("shop", &kube::api::PatchParams::default(), &patch).await }
    };
    // What the schema can tell is refused where it is written.
    for (rules, why) in [
        (json!([{"paths": ["data/key"]}]), "spec.drift.ignore[0].paths[0]"),
        (json!([{"paths": ["/data~2"]}]), "spec.drift.ignore[0].paths[0]"),
        (json!([{"target": {"kind": "ConfigMap"}}]), "names paths or managers"),
    ] {
        let refused = set(rules).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    set(json!([{"paths": ["/data/key"], "cel": "object.data.key ="}])).await.unwrap();
    let delivery = world.wait("shop", "not ready", |d| condition(d, kind::READY).0 == "False").await;
    let (_, reason, message) = condition(&delivery, kind::READY);
    assert_eq!(reason, "InvalidIgnoreRule");
    assert!(message.contains("spec.drift.ignore[0].cel: the expression is not valid CEL"), "{message}");
    world.patch("v1", "configmaps", "it", json!({"data": {"key": "2"}})).await;
    world.commit("Two", &[("shop/it.yaml", &config_map("it", "3"))]);
    world.wait("shop", "not compared", |d| condition(d, kind::DRIFTED).0 == "Unknown").await;
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "2");
    // Mended, all goes on, and the rule counts.
    set(json!([{"paths": ["/data/key"], "cel": "object.data.key == '2'"}])).await.unwrap();
    world.wait("shop", "ready", |d| condition(d, kind::READY).0 == "True").await;
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "2");
}

#[tokio::test]
async fn a_rule_that_becomes_unusable_while_a_revision_is_under_way_is_waited_for() {
    let world = World::new("rulemid").await;
    let later = |data: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: later, annotations: {{windlass.dev/wave: \"5\"}}}}\n\
             data: {data}\n"
        )
    };
    let files = [("shop/web.yaml", &*gated("ok")), ("shop/later.yaml", &*later("{key: ours}"))];
    let first = world.commit("It", &files);
    world.repository(json!({})).await;
    let rules = json!([{"target": {"kind": "ConfigMap"}, "paths": ["/data/key"]}]);
    world.deliver_by_hand("shop", "shop", json!({"drift": {"ignore": rules}})).await;
    open_gates(&world).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    world.patch("v1", "configmaps", "later", json!({"data": {"key": "theirs"}})).await;
    let set = |rules: Value| {
        let patch = kube::api::Patch::Merge(json!({"spec": {"drift": {"ignore": rules}}}));
        let api = world.deliveries();
        async move { api.patch("shop", &kube::api::PatchParams::default(), &patch).await.unwrap() }
    };

    let files = [("shop/web.yaml", &*gated("two")), ("shop/later.yaml", &*later("{key: ours, more: new}"))];
    let second = world.commit("Two", &files);
    let image = |o: &Value| o["spec"]["template"]["spec"]["containers"][0]["image"].to_string();
    world.wait_object("apps/v1", "deployments", "web", "new", |o| image(o).ends_with(":two\"")).await;
    set(json!([{"paths": ["/data/key"], "cel": "object.data.key ="}])).await;
    let waits = |d: &Delivery| {
        let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
        attempt.and_then(|a| a.problem.as_ref()).is_some_and(|p| p.reason == "InvalidIgnoreRule")
    };
    world.wait("shop", "the attempt waits for the rule", waits).await;
    open_gates(&world).await;
    let ready = |o: &Value| o["status"]["readyReplicas"] == 1;
    world.wait_object("apps/v1", "deployments", "web", "ready", ready).await;
    // Looked at, whatever it waited for.
    world.annotate("shop", windlass::api::names::RECONCILE_REQUEST, "now").await;
    let looked =
        |d: &Delivery| d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some("now"));
    assert!(waits(&world.wait("shop", "looked at", looked).await));
    let data = world.get("v1", "configmaps", "later").await["data"].clone();
    assert_eq!(data, json!({"key": "theirs"}), "nothing is overwritten");

    set(json!([{"paths": ["/data/key"], "cel": "object.data.key == 'theirs'"}])).await;
    let status = world.wait_for("shop", Phase::Ready, &second).await.status.unwrap();
    let data = world.get("v1", "configmaps", "later").await["data"].clone();
    assert_eq!(data, json!({"key": "theirs", "more": "new"}));
    let outcomes: Vec<_> = status.history.iter().map(|h| h.outcome).collect();
    assert_eq!(outcomes, [Outcome::Deployed, Outcome::Deployed], "no commit is to blame");
}
