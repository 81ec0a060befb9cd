//! What others need goes first, what can refuse others goes last, and what cannot be changed is made anew where that is
//! wanted.

use crate::support::cluster::suffix;
use crate::support::daemon::{World, condition, config_map, deployment};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::{gated, open_gates};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::{Outcome, Phase};

fn job(tag: &str, ttl: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: migrate}}\nspec:\n{ttl}  template:\n    spec:\n      restartPolicy: \
         Never\n      containers: [{{name: it, image: \"registry.example.com/it:{tag}\"}}]\n"
    )
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse().unwrap_or(0)
}

#[tokio::test]
async fn a_namespace_a_kind_and_what_is_in_them_come_in_one_commit() {
    let mut world = World::new("together").await;
    let mark = suffix();
    let (group, space) = (format!("{mark}.example.com"), format!("together-more-{mark}"));
    let crd = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: gadgets.{group}}}\nspec:\n  group: \
         {group}\n  scope: Namespaced\n  names: {{kind: Gadget, plural: gadgets, singular: gadget}}\n  versions:\n  - name: v1\n    \
         served: true\n    storage: true\n    schema: {{openAPIV3Schema: {{type: object, properties: {{spec: {{type: object, \
         properties: {{size: {{type: integer}}}}}}}}}}}}\n"
    );
    let gadget = format!("apiVersion: {group}/v1\nkind: Gadget\nmetadata: {{name: it}}\nspec: {{size: 1}}\n");
    let far = config_map("far", "1").replace("{name: far}", &format!("{{name: far, namespace: {space}}}"));
    world.space.forget_later(&format!("/api/v1/namespaces/{space}"));
    world
        .space
        .forget_later(&format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.{group}"));
    let commit = world.commit(
        "All at once",
        &[
            ("shop/a-gadget.yaml", &gadget),
            ("shop/b-far.yaml", &far),
            ("shop/crd.yaml", &crd),
            ("shop/space.yaml", &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {space}}}\n")),
        ],
    );
    world.deliver("shop", json!({})).await;
    let delivery = world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(delivery.status.unwrap().inventory.len(), 4);
    assert_eq!(world.get(&format!("{group}/v1"), "gadgets", "it").await["spec"]["size"], 1);
    // A field that the new definition brings, and an object that has it, in one commit.
    let wider = crd.replace("size: {type: integer}", "size: {type: integer}, color: {type: string}");
    let commit = world.commit(
        "A new field",
        &[
            ("shop/crd.yaml", &wider),
            ("shop/a-gadget.yaml", &gadget.replace("size: 1", "size: 1, color: red")),
        ],
    );
    world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(world.get(&format!("{group}/v1"), "gadgets", "it").await["spec"]["color"], "red");
    // A mistake in it is known before anything is written, now that the definition stays.
    world.commit("A mistake", &[("shop/a-gadget.yaml", &gadget.replace("size: 1", "size: large"))]);
    let refused =
        |d: &Delivery| d.status.as_ref().and_then(|s| s.failure.as_ref()).is_some_and(|f| !f.transient);
    let delivery = world.wait("shop", "refused", refused).await;
    assert!(condition(&delivery, kind::READY).2.contains("shop/a-gadget.yaml:1"));
}

#[tokio::test]
async fn waves_rise_and_each_waits_for_the_one_before() {
    let world = World::new("waves").await;
    let wave = |name: &str, wave: &str| {
        config_map(name, "1").replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: {name}, annotations: {{windlass.dev/wave: \"{wave}\"}}}}"),
        )
    };
    let web = gated("ok");
    let commit = world.commit(
        "Waves",
        &[
            ("shop/a-last.yaml", &wave("last", "5")),
            ("shop/b-first.yaml", &wave("first", "-1")),
            ("shop/c-middle.yaml", &config_map("middle", "1")),
            ("shop/web.yaml", &web),
        ],
    );
    world.deliver("shop", json!({})).await;
    world.wait_object("apps/v1", "deployments", "web", "there", Value::is_object).await;
    assert!(world.get("v1", "configmaps", "last").await.is_null(), "it waits until web is healthy");
    open_gates(&world).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let mut versions = Vec::new();
    for name in ["first", "middle", "last"] {
        versions.push(version(&world.get("v1", "configmaps", name).await));
    }
    assert!(versions.is_sorted(), "{versions:?}");
    let web = world.get("apps/v1", "deployments", "web").await;
    assert!(version(&web) < versions[2], "made healthy before the last wave");
}

#[tokio::test]
async fn a_webhook_waits_for_its_backend() {
    let mut world = World::new("webhook").await;
    let name = format!("hook-{}", suffix());
    let hook = format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: {name}}}\nwebhooks:\n- \
         name: it.example.com\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  clientConfig: {{service: {{name: web, namespace: {}}}}}\n  \
         namespaceSelector: {{matchLabels: {{nobody: has-this}}}}\n  rules: [{{apiGroups: [example.com], apiVersions: [v1], resources: \
         [nothings], operations: [CREATE]}}]\n",
        world.space.name
    );
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    world.space.forget_later(&format!("{path}/{name}"));
    let commit = world.commit("A webhook", &[("shop/a-hook.yaml", &hook), ("shop/web.yaml", &gated("ok"))]);
    world.deliver("shop", json!({})).await;
    world.wait_object("apps/v1", "deployments", "web", "there", Value::is_object).await;
    let client = &world.space.connection.client;
    let there =
        crate::support::cluster::try_send(client, "GET", &format!("{path}/{name}"), &Value::Null).await;
    assert!(there.is_err(), "it is there before its backend is healthy");
    open_gates(&world).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    world.space.send("GET", &format!("{path}/{name}"), &Value::Null).await;
}

#[tokio::test]
async fn a_job_is_made_anew_when_it_changes_and_not_when_its_time_ran_out() {
    let world = World::new("jobs").await;
    let first = world.commit("A job", &[("shop/job.yaml", &job("one", ""))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let uid = world.get("batch/v1", "jobs", "migrate").await["metadata"]["uid"].clone();
    let second =
        world.commit("Another image", &[("shop/job.yaml", &job("two", "  ttlSecondsAfterFinished: 0\n"))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    world
        .wait_object("batch/v1", "jobs", "migrate", "cleaned up", |o| {
            o.is_null() || o["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    world.wait_object("batch/v1", "jobs", "migrate", "gone", Value::is_null).await;
    assert!(!uid.is_null());
    let audit = world.space.cluster.audit();
    let third = world.commit("Beside it", &[("shop/it.yaml", &config_map("it", "1"))]);
    let delivery = world.wait_for("shop", Phase::Ready, &third).await;
    assert_eq!(delivery.status.unwrap().drift, Some(0));
    assert!(world.get("batch/v1", "jobs", "migrate").await.is_null(), "it has done its work");
    assert!(world.writes(&audit).iter().all(|r| r.resource == "configmaps"));
}

#[tokio::test]
async fn what_cannot_be_changed_is_made_anew_where_it_says_so() {
    let world = World::new("anew").await;
    let web = deployment("web", "ok", 1);
    let first = world.commit("It", &[("shop/web.yaml", &web)]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let uid = world.get("apps/v1", "deployments", "web").await["metadata"]["uid"].clone();
    let other = web.replace("app: web", "app: shop").replace(
        "metadata: {name: web}",
        "metadata: {name: web, annotations: {windlass.dev/recreate: enabled}}",
    );
    let second = world.commit("Another selector", &[("shop/web.yaml", &other)]);
    world.wait_for("shop", Phase::Ready, &second).await;
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["selector"]["matchLabels"]["app"], "shop");
    assert_ne!(web["metadata"]["uid"], uid);
}

#[tokio::test]
async fn what_holds_a_port_goes_before_what_wants_it() {
    let world = World::new("port").await;
    // Of those that the server gives to nobody who does not ask for them.
    let port = 30000 + fastrand::u32(0..80);
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{windlass.dev/prune: before}}}}\nspec:\n  type: \
             NodePort\n  ports: [{{port: 80, nodePort: {port}}}]\n"
        )
    };
    let first =
        world.commit("One", &[("shop/one.yaml", &service("one")), ("shop/it.yaml", &config_map("it", "1"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit("Two", &[("shop/one.yaml", ""), ("shop/two.yaml", &service("two"))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    let mut names = world.names("v1", "services").await;
    names.retain(|n| n != "kubernetes");
    assert_eq!(names, ["two"]);
    // And back again when what follows is broken.
    let bad = world.commit(
        "Three, and broken",
        &[
            ("shop/two.yaml", ""),
            ("shop/three.yaml", &service("three")),
            ("shop/web.yaml", &deployment("web", "missing", 1)),
        ],
    );
    world.wait_for("shop", Phase::Held, &bad).await;
    assert_eq!(world.names("v1", "services").await, ["two"]);
}

/// What the cluster serves is asked no more than every few seconds: a definition may be there before its kind is known.
#[tokio::test]
async fn many_kinds_that_come_with_their_objects_at_once_are_no_mistake() {
    let mut world = World::new("kinds").await;
    let mut files = Vec::new();
    for n in 0..8 {
        let group = format!("{}.example.com", suffix());
        world
            .space
            .forget_later(&format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}"));
        let definition = format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: things.{group}}}\nspec:\n  \
             group: {group}\n  scope: Namespaced\n  names: {{plural: things, singular: thing, kind: Thing}}\n  versions:\n  \
             - {{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, \
             x-kubernetes-preserve-unknown-fields: true}}}}}}\n"
        );
        let thing = format!("apiVersion: {group}/v1\nkind: Thing\nmetadata: {{name: one}}\n");
        files.push((format!("apps/app-{n}/definition.yaml"), definition));
        files.push((format!("apps/app-{n}/thing.yaml"), thing));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let commit = world.commit("Kinds and objects", &files);
    world.deliver("apps/*", json!({})).await;
    for n in 0..8 {
        let status = world.wait_for(&format!("app-{n}"), Phase::Ready, &commit).await.status.unwrap();
        let outcomes: Vec<Outcome> = status.history.iter().map(|h| h.outcome).collect();
        assert_eq!(outcomes, [Outcome::Deployed], "app-{n}: not taken for a failure on the way");
    }
}
