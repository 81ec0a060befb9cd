//! A definition whose conversion webhook answers nobody lets no object of its kind be read or written: a rollback puts the
//! definition back before it looks at them.

use crate::support::cluster::{suffix, try_send};
use crate::support::daemon::{World, config_map, deployment};
use serde_json::{Value, json};
use windlass::api::delivery::{Outcome, Phase};

#[tokio::test]
async fn and_its_objects_are_back_with_the_values_that_they_had() {
    let mut world = World::new("conversion").await;
    let group = format!("{}.example.com", suffix());
    let definition = |conversion: &str| {
        let version = |name: &str| {
            format!(
                "  - {{name: {name}, served: true, storage: {}, schema: {{openAPIV3Schema: {{type: object, \
                 x-kubernetes-preserve-unknown-fields: true}}}}}}\n",
                name == "v2"
            )
        };
        format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: things.{group}}}\nspec:\n  \
             group: {group}\n  scope: Namespaced\n  names: {{plural: things, singular: thing, kind: Thing, listKind: ThingList}}\n\
             {conversion}  versions:\n{}{}",
            version("v1"),
            version("v2")
        )
    };
    let webhook = format!(
        "  conversion:\n    strategy: Webhook\n    webhook:\n      conversionReviewVersions: [v1]\n      \
         clientConfig: {{service: {{namespace: {}, name: nobody, path: /convert}}}}\n",
        world.space.name
    );
    let thing = |size: u32| {
        format!("apiVersion: {group}/v1\nkind: Thing\nmetadata: {{name: one}}\nspec: {{size: {size}}}\n")
    };
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}");
    world.space.forget_later(&path);
    let good = world.commit(
        "Good",
        &[
            ("shop/definition.yaml", &definition("")),
            ("shop/thing.yaml", &thing(1)),
            ("shop/settings.yaml", &config_map("settings", "good")),
        ],
    );
    world.deliver("shop", json!({"retryInterval": "1s"})).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    // The object is written while that still works, then comes the webhook, and then what breaks: as with a webhook whose
    // own pods break.
    let wave = |text: &str, wave: u32| {
        text.replacen(
            "metadata: {name: ",
            &format!("metadata: {{annotations: {{windlass.dev/wave: \"{wave}\"}}, name: "),
            1,
        )
    };
    let bad = world.commit(
        "Converts by a webhook that is not there",
        &[
            ("shop/thing.yaml", &thing(2)),
            ("shop/settings.yaml", &config_map("settings", "bad")),
            ("shop/definition.yaml", &wave(&definition(&webhook), 1)),
            ("shop/web.yaml", &wave(&deployment("web", "missing", 1), 2)),
        ],
    );
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(status.held.unwrap().problem.object, format!("Deployment {}/web", world.space.name));
    assert_eq!((status.history[0].outcome, &status.history[0].revision.commit), (Outcome::Restored, &good));
    let there = world.space.send("GET", &path, &Value::Null).await;
    assert_eq!(there["spec"]["conversion"]["strategy"], "None", "{there}");
    let one = format!("{}/one", world.space.path(&format!("{group}/v1"), "things"));
    let one = try_send(&world.space.connection.client, "GET", &one, &Value::Null).await.unwrap();
    assert_eq!(one["spec"]["size"], 1, "{one}");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "good");
}
