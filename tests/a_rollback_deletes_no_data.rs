//! What holds data is never deleted to roll back, and what Kubernetes does not take back stays: it is left and listed.

use crate::support::daemon::{World, condition, deployment};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::{Exception, Phase};
use windlass::api::names;

async fn deployed(test: &str, more: &[(&str, &str)]) -> (World, String) {
    let world = World::new(test).await;
    let mut files = vec![("shop/web.yaml".to_owned(), deployment("web", "ok", 1))];
    files.extend(more.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let good = world.commit("Good", &files);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

/// Breaks a revision that is being waited for beyond doubt.
async fn broken(world: &World) {
    let image = json!({"name": "app", "image": "registry.example.com/web:missing"});
    let patch = json!({"spec": {"template": {"spec": {"containers": [image]}}}});
    world.patch("apps/v1", "deployments", "web", patch).await;
}

fn about<'e>(except: &'e [Exception], object: &str) -> &'e str {
    let found = except.iter().find(|e| e.object == object);
    &found.unwrap_or_else(|| panic!("{object} is not listed: {except:?}")).message
}

fn claim(world: &World, size: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: data, labels: {{which: {label}}}}}\nspec:\n  \
         accessModes: [ReadWriteOnce]\n  storageClassName: {}\n  resources: {{requests: {{storage: {size}}}}}\n",
        world.space.name
    )
}

#[tokio::test]
async fn a_claim_that_grew_keeps_its_size_and_the_rest_goes_back() {
    let (mut world, _) = deployed("grown", &[]).await;
    let name = world.space.name.clone();
    let class = json!({
        "metadata": {"name": name}, "provisioner": "example.com/none", "allowVolumeExpansion": true,
    });
    world.space.forget_later(&format!("/apis/storage.k8s.io/v1/storageclasses/{name}"));
    world.space.send("POST", "/apis/storage.k8s.io/v1/storageclasses", &class).await;
    let volume = json!({
        "metadata": {"name": name},
        "spec": {"storageClassName": name, "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "example.com", "volumeHandle": name}},
    });
    world.space.forget_later(&format!("/api/v1/persistentvolumes/{name}"));
    world.space.send("POST", "/api/v1/persistentvolumes", &volume).await;
    let good = world.commit("A claim", &[("shop/data.yaml", &claim(&world, "1Gi", "good"))]);
    world.wait_for("shop", Phase::Ready, &good).await;
    world
        .wait_object("v1", "persistentvolumeclaims", "data", "is bound", |c| c["status"]["phase"] == "Bound")
        .await;

    let bad = world.commit(
        "Grows it, and breaks",
        &[
            ("shop/data.yaml", &claim(&world, "2Gi", "bad")),
            ("shop/web.yaml", &deployment("web", "unready", 1)),
        ],
    );
    world.wait_for("shop", Phase::Waiting, &bad).await;
    // What a driver does then.
    let path = format!("{}/data/status", world.space.path("v1", "persistentvolumeclaims"));
    world.space.send("PATCH", &path, &json!({"status": {"capacity": {"storage": "2Gi"}}})).await;
    broken(&world).await;
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    let status = delivery.status.clone().unwrap();
    let told = about(&status.rolled_back_except, &format!("PersistentVolumeClaim {name}/data"));
    assert!(told.contains("2Gi") && told.contains("1Gi"), "{told}");
    assert_eq!(status.history[0].except, status.rolled_back_except);
    let (_, _, message) = condition(&delivery, kind::HELD);
    assert!(message.contains("not undone: PersistentVolumeClaim"), "{message}");
    world.wait_event("shop", "RolledBackExcept").await;
    let data = world.get("v1", "persistentvolumeclaims", "data").await;
    assert_eq!(data["spec"]["resources"]["requests"]["storage"], "2Gi");
    assert_eq!(data["metadata"]["labels"]["which"], "good");
    assert_eq!(status.drift, Some(0));
    // The next commit that leaves the claim alone is no trouble.
    let fixed = world.commit(
        "Fixed",
        &[
            ("shop/web.yaml", &deployment("web", "fixed", 1)),
            ("shop/data.yaml", &claim(&world, "2Gi", "good")),
        ],
    );
    let delivery = world.wait_for("shop", Phase::Ready, &fixed).await;
    assert!(delivery.status.unwrap().rolled_back_except.is_empty());
}

/// The same, to be removed with the commit that removes it.
fn prunable(manifest: &str) -> String {
    manifest.replacen("metadata: {", "metadata: {annotations: {windlass.dev/prune: enabled}, ", 1)
}

pub fn definition(group: &str, versions: &[&str]) -> String {
    let all: String = versions
        .iter()
        .enumerate()
        .map(|(i, v)| {
            format!(
                "  - name: {v}\n    served: true\n    storage: {}\n    schema: {{openAPIV3Schema: {{type: object, \
                 x-kubernetes-preserve-unknown-fields: true}}}}\n",
                i + 1 == versions.len()
            )
        })
        .collect();
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: things.{group}}}\nspec:\n  \
         group: {group}\n  scope: Namespaced\n  names: {{kind: Thing, plural: things, singular: thing, listKind: ThingList}}\n  \
         versions:\n{all}"
    )
}

#[tokio::test]
async fn definitions_namespaces_and_jobs_of_the_bad_commit() {
    let (mut world, _) = deployed("definitions", &[]).await;
    let name = world.space.name.clone();
    let (kept, made) = (format!("kept.{name}.example.com"), format!("made.{name}.example.com"));
    for group in [&kept, &made] {
        world
            .space
            .forget_later(&format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}"));
    }
    world.space.forget_later(&format!("/api/v1/namespaces/{name}-more"));
    let good = world.commit("A definition", &[("shop/kept.yaml", &definition(&kept, &["v1"]))]);
    world.wait_for("shop", Phase::Ready, &good).await;
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate}\nspec: {template: {spec: {restartPolicy: Never, \
               containers: [{name: it, image: \"registry.example.com/migrate:ok\"}]}}}\n";
    let bad = world.commit(
        "Another version, a definition, a namespace and a job",
        &[
            ("shop/kept.yaml", &definition(&kept, &["v1", "v2"])),
            ("shop/made.yaml", &definition(&made, &["v1"])),
            (
                "shop/more.yaml",
                &prunable(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}-more}}\n")),
            ),
            ("shop/data.yaml", &prunable(&claim(&world, "1Gi", "bad"))),
            ("shop/job.yaml", job),
            ("shop/web.yaml", &deployment("web", "unready", 1)),
        ],
    );
    world.wait_for("shop", Phase::Waiting, &bad).await;
    broken(&world).await;
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    let except = delivery.status.unwrap().rolled_back_except;
    let told = about(&except, &format!("CustomResourceDefinition things.{kept}"));
    assert!(told.contains("keeps version v2"), "{told}");
    about(&except, &format!("CustomResourceDefinition things.{made}"));
    // What it asked for its own data to be removed with counts when a commit removes it.
    about(&except, &format!("Namespace {name}-more"));
    about(&except, &format!("PersistentVolumeClaim {name}/data"));
    let told = about(&except, &format!("Job {name}/migrate"));
    assert!(told.contains("not undone"), "{told}");
    assert_eq!(except.len(), 5, "{except:?}");
    let definition = world
        .space
        .send(
            "GET",
            &format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{kept}"),
            &Value::Null,
        )
        .await;
    let versions = definition["spec"]["versions"].as_array().unwrap();
    let stored: Vec<_> =
        versions.iter().map(|v| (v["name"].as_str().unwrap(), v["storage"] == true)).collect();
    assert_eq!(stored, [("v1", true), ("v2", false)]);
    let more = world.space.send("GET", &format!("/api/v1/namespaces/{name}-more"), &Value::Null).await;
    assert!(more["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "it is released");
    assert!(more["metadata"]["uid"].is_string() && more["metadata"]["deletionTimestamp"].is_null());
    let data = world.get("v1", "persistentvolumeclaims", "data").await;
    assert!(data["metadata"]["uid"].is_string() && data["metadata"]["deletionTimestamp"].is_null());
    assert!(data["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "it is released");
    assert!(world.get("batch/v1", "jobs", "migrate").await.is_null());
}

#[tokio::test]
async fn what_is_made_anew_without_what_it_held_is_listed() {
    let (mut world, _) = deployed("anew", &[]).await;
    let name = world.space.name.clone();
    let group = format!("anew.{name}.example.com");
    world
        .space
        .forget_later(&format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}"));
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate}\nspec: {template: {spec: {restartPolicy: Never, \
               containers: [{name: it, image: \"registry.example.com/migrate:ok\"}]}}}\n";
    let good = world.commit(
        "With a definition and a job",
        &[("shop/things.yaml", &prunable(&definition(&group, &["v1"]))), ("shop/job.yaml", job)],
    );
    world.wait_for("shop", Phase::Ready, &good).await;
    let bare = world.commit("Without", &[("shop/things.yaml", ""), ("shop/job.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &bare).await;
    assert!(world.get("batch/v1", "jobs", "migrate").await.is_null());
    world.annotate("shop", names::ROLLBACK_REQUEST, &good).await;
    let status = world.wait_for("shop", Phase::Held, &bare).await.status.unwrap();
    let except = status.rolled_back_except;
    let told = about(&except, &format!("CustomResourceDefinition things.{group}"));
    assert!(told.contains("made anew, without the objects of its kind"), "{told}");
    let told = about(&except, &format!("Job {name}/migrate"));
    assert!(told.contains("runs again"), "{told}");
    assert_eq!(except.len(), 2, "{except:?}");
    assert!(world.get("batch/v1", "jobs", "migrate").await.is_object());
    world.wait_event("shop", "RolledBackExcept").await;
}

#[tokio::test]
async fn what_a_good_revision_brought_is_left_when_somebody_goes_back() {
    let (world, first) = deployed("by-hand", &[]).await;
    let name = world.space.name.clone();
    let map = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{who: {value}}}\n")
    };
    let theirs = json!({"metadata": {"name": "settings"}, "data": {"who": "them"}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &theirs).await;
    let second = world.commit(
        "With a claim, and a ConfigMap that stands there",
        &[("shop/data.yaml", &prunable(&claim(&world, "1Gi", "second"))), ("shop/settings.yaml", &map("us"))],
    );
    world.wait_for("shop", Phase::Ready, &second).await;
    world.annotate("shop", names::ROLLBACK_REQUEST, &first).await;
    let status = world.wait_for("shop", Phase::Held, &second).await.status.unwrap();
    about(&status.rolled_back_except, &format!("PersistentVolumeClaim {name}/data"));
    for (resource, object) in [("persistentvolumeclaims", "data"), ("configmaps", "settings")] {
        let there = world.get("v1", resource, object).await;
        assert!(there["metadata"]["uid"].is_string(), "{object} is gone");
        assert!(there["metadata"]["deletionTimestamp"].is_null(), "{object} goes");
        assert!(there["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "{object} is released");
    }
    // A commit that removes them again removes what it asks for.
    world.annotate("shop", names::RELEASE_REQUEST, &second).await;
    world.wait_for("shop", Phase::Ready, &second).await;
    let without = world.commit("Without", &[("shop/data.yaml", ""), ("shop/settings.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &without).await;
    let gone = world.get("v1", "persistentvolumeclaims", "data").await;
    assert!(gone.is_null() || gone["metadata"]["deletionTimestamp"].is_string(), "{gone}");
}
