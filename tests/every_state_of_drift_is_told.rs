//! Each way in which an object can differ has its name, its author where Kubernetes records one, and what is not ours is left alone.

use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, condition, config_map, deployment};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::drift_report::{DriftReportSpec, DriftedObject};
use windlass::api::names::DELIVERY_LABEL;

const SLICES: &str = "discovery.k8s.io/v1";

fn service() -> &'static str {
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"
}

fn slice() -> &'static str {
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: outside}\naddressType: IPv4\n\
     endpoints: [{addresses: [192.0.2.7]}]\nports: [{name: http, port: 80, protocol: TCP}]\n"
}

async fn deployed(test: &str, mode: &str) -> (World, String) {
    let world = World::new(test).await;
    let names = ["a", "b", "c", "d"];
    let maps = names.map(|name| (format!("shop/{name}.yaml"), config_map(name, "1")));
    let mut files: Vec<(&str, &str)> = maps.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    files.extend([("shop/web.yaml", service()), ("shop/slice.yaml", slice())]);
    let commit = world.commit("It", &files);
    world.deliver("shop", json!({"drift": {"mode": mode}})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let map = world.get("v1", "configmaps", "a").await;
    let label = map["metadata"]["labels"][DELIVERY_LABEL].as_str().unwrap().to_owned();
    (world, label)
}

fn of<'a>(report: &'a DriftReportSpec, name: &str) -> &'a DriftedObject {
    let found = report.objects.iter().find(|o| o.name == name);
    found.unwrap_or_else(|| panic!("{name} is not in {report:#?}"))
}

fn states(report: &DriftReportSpec) -> Vec<(&str, &str)> {
    report.objects.iter().map(|o| (o.name.as_str(), o.state.as_str())).collect()
}

/// Makes an object that carries the Delivery's label, as `kubectl` would.
async fn make(world: &World, api: &str, plural: &str, mut object: Value, label: &str) {
    object["metadata"]["labels"][DELIVERY_LABEL] = json!(label);
    let path = format!("{}?fieldManager=copier", world.space.path(api, plural));
    world.space.send("POST", &path, &object).await;
}

#[tokio::test]
async fn modified_missing_unlabelled_and_foreign() {
    let (world, label) = deployed("states", "Report").await;
    // Slices with the Service's labels, made by Kubernetes, are there before anything else happens.
    wait_until("the Service has its slices", LIMIT, || async {
        let names = world.names(SLICES, "endpointslices").await;
        if names.len() > 1 { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    world.patch("v1", "configmaps", "a", json!({"data": {"key": "2"}})).await;
    world.delete("v1", "configmaps", "b").await;
    world.patch("v1", "configmaps", "c", json!({"metadata": {"labels": {DELIVERY_LABEL: null}}})).await;
    world.patch("v1", "configmaps", "d", json!({"data": {"key": null}})).await;
    // What has a controller is its controller's.
    let owner = world.get("v1", "services", "web").await["metadata"]["uid"].clone();
    let owner =
        json!([{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": owner, "controller": true}]);
    let controlled =
        json!({"metadata": {"name": "controlled", "ownerReferences": owner}, "data": {"key": "1"}});
    make(&world, "v1", "configmaps", controlled, &label).await;
    make(&world, "v1", "configmaps", json!({"metadata": {"name": "copy"}, "data": {"key": "1"}}), &label)
        .await;
    let seen = world.wait_report("five objects", |r| r.count == 5).await;
    assert_eq!(
        states(&seen),
        [("a", "Modified"), ("b", "Missing"), ("c", "Unlabelled"), ("copy", "Foreign"), ("d", "Modified")]
    );
    let field = &of(&seen, "a").fields[0];
    assert_eq!((field.path.as_str(), field.manager.as_str()), ("data.key", "hand"));
    assert_eq!((field.operation.as_deref(), field.at.is_some()), (Some("Update"), true));
    assert!(of(&seen, "b").fields.is_empty() && !of(&seen, "b").since.is_empty());
    let field = &of(&seen, "c").fields[0];
    assert!(field.path.contains(DELIVERY_LABEL), "{field:?}");
    assert_eq!((field.manager.as_str(), &field.operation, &field.at), ("unknown", &None, &None));
    let field = &of(&seen, "copy").fields[0];
    assert_eq!((field.desired.as_deref(), field.manager.as_str()), (None, "copier"));
    let field = &of(&seen, "d").fields[0];
    assert_eq!((field.live.as_deref(), field.manager.as_str()), (None, "unknown"));
    let delivery =
        world.wait("shop", "drift", |d| d.status.as_ref().is_some_and(|s| s.drift == Some(5))).await;
    assert_eq!(condition(&delivery, kind::DRIFTED).0, "True");

    // The copy goes, and so does the entry about it.
    world.delete("v1", "configmaps", "copy").await;
    world
        .wait_report("the copy is gone", |r| r.count == 4 && r.objects.iter().all(|o| o.name != "copy"))
        .await;
    // The report goes with its Delivery.
    let params = kube::api::DeleteParams::default();
    world.repository(json!({})).await;
    let _ = world.deliveries().delete("shop", &params).await;
    world.wait_gone("shop").await;
    wait_until("the report is gone", LIMIT, || async {
        match world.reports().get_opt("shop").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn what_lost_the_label_and_is_not_written_back_is_still_seen() {
    let (world, _) = deployed("outofsight", "Report").await;
    for name in ["a", "b"] {
        let none = json!({"metadata": {"labels": {DELIVERY_LABEL: null}}});
        world.patch("v1", "configmaps", name, none).await;
    }
    let all = |state: &'static str| [("a", "Unlabelled"), ("b", state)];
    world.wait_report("two without the label", |r| states(r) == all("Unlabelled")).await;
    world.patch("v1", "configmaps", "a", json!({"data": {"key": "2"}})).await;
    let edited = |o: &DriftedObject| o.name == "a" && o.fields.iter().any(|f| f.path == "data.key");
    world.wait_report("the edit is told", |r| r.objects.iter().any(edited)).await;
    world.delete("v1", "configmaps", "b").await;
    world.wait_report("one is gone", |r| states(r) == all("Missing")).await;
}

#[tokio::test]
async fn what_differs_already_and_changes_once_more_is_told_anew() {
    let world = World::new("oncemore").await;
    let files = [
        ("shop/a.yaml", config_map("a", "1")),
        ("shop/web.yaml", service().to_owned()),
        ("shop/app.yaml", deployment("app", "ok", 1)),
    ];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let commit = world.commit("It", &files);
    world.deliver("shop", json!({"drift": {"mode": "Report"}})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    // After the first edit none of these fields is ours any more, and two of these kinds count no generation.
    let mut since = Vec::new();
    for value in [2, 3] {
        world.patch("v1", "configmaps", "a", json!({"data": {"key": value.to_string()}})).await;
        world
            .patch("v1", "services", "web", json!({"spec": {"selector": {"app": format!("v{value}")}}}))
            .await;
        world.patch("apps/v1", "deployments", "app", json!({"spec": {"replicas": value}})).await;
        let live = |r: &DriftReportSpec, name: &str| -> Option<String> {
            let object = r.objects.iter().find(|o| o.name == name)?;
            object.fields.first()?.live.clone()
        };
        let all = |r: &DriftReportSpec| {
            live(r, "a") == Some(format!("\"{value}\""))
                && live(r, "web") == Some(format!("{{\"app\":\"v{value}\"}}"))
                && live(r, "app") == Some(value.to_string())
        };
        let seen = world.wait_report(&format!("all three at {value}"), |r| r.count == 3 && all(r)).await;
        since.push(seen.objects.iter().map(|o| o.since.clone()).collect::<Vec<_>>());
    }
    assert_eq!(since[0], since[1], "it is one drift");
    // A field that nobody named before, and a removal.
    world.patch("v1", "configmaps", "a", json!({"data": {"key": null}})).await;
    world
        .wait_report("the removal", |r| {
            of(r, "a").fields.iter().any(|f| f.live.is_none() && f.manager == "unknown")
        })
        .await;
    // As Git wants it, ours again: that ends it.
    world.deliver("shop", json!({"drift": {"mode": "Correct"}})).await;
    world.wait_report("the end", |r| r.count == 0).await;
    let map = world.get("v1", "configmaps", "a").await;
    assert_eq!(map["data"]["key"], "1");
}

#[tokio::test]
async fn what_is_foreign_is_neither_adopted_nor_deleted_and_the_rest_is_mended() {
    let (world, label) = deployed("foreign", "Correct").await;
    let copy = json!({"metadata": {"name": "copy"}, "data": {"key": "theirs"}});
    make(&world, "v1", "configmaps", copy, &label).await;
    world.wait_report("one is foreign", |r| states(r) == [("copy", "Foreign")]).await;
    let before = world.get("v1", "configmaps", "copy").await;
    // Another's label on one of ours: it is told, and taken back by a person.
    let other = json!({"metadata": {"labels": {DELIVERY_LABEL: "0123456789abcdef0123456789abcdef"}}});
    world.patch("v1", "configmaps", "b", other).await;
    let seen = world.wait_report("two objects", |r| r.count == 2).await;
    assert_eq!(states(&seen), [("b", "Unlabelled"), ("copy", "Foreign")]);
    let field = &of(&seen, "b").fields[0];
    assert_eq!((field.desired.clone(), field.manager.as_str()), (Some(json!(label).to_string()), "hand"));
    // Neither is in the way of what can be mended.
    world.patch("v1", "configmaps", "a", json!({"data": {"key": "2"}})).await;
    world.wait_object("v1", "configmaps", "a", "mended", |o| o["data"]["key"] == "1").await;
    world.delete("v1", "configmaps", "c").await;
    world.wait_object("v1", "configmaps", "c", "back", |o| o["data"]["key"] == "1").await;
    // Nor is it touched by a new revision, or by the end of the Delivery.
    let commit = world.commit("Next", &[("shop/a.yaml", &config_map("a", "3")), ("shop/b.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &commit).await;
    world.wait_report("one is foreign", |r| states(r) == [("copy", "Foreign")]).await;
    assert_eq!(world.get("v1", "configmaps", "copy").await, before);
    world.repository(json!({})).await;
    let _ = world.deliveries().delete("shop", &kube::api::DeleteParams::default()).await;
    world.wait_gone("shop").await;
    assert_eq!(world.get("v1", "configmaps", "copy").await, before);
    assert_eq!(world.get("v1", "configmaps", "a").await, Value::Null);
}

#[tokio::test]
async fn a_report_is_bounded_and_says_what_it_leaves_out() {
    let world = World::new("bounded").await;
    let long =
        |value: &str| (0..200).map(|n| (format!("key-{n}"), json!(value))).collect::<serde_json::Map<_, _>>();
    let text = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": long("1")})
            .to_string()
    };
    let files: Vec<(String, String)> =
        (0..40).map(|n| (format!("shop/{n:02}.yaml"), text(&format!("it-{n:02}")))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    let commit = world.commit("Many", &files);
    world.deliver("shop", json!({"drift": {"mode": "Report"}})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    for n in 0..40 {
        world.patch("v1", "configmaps", &format!("it-{n:02}"), json!({"data": long(&"x".repeat(500))})).await;
    }
    let seen = world.wait_report("all objects", |r| r.count == 40).await;
    assert_eq!(seen.objects.len(), 40);
    let shown: usize = seen.objects.iter().map(|o| o.fields.len()).sum();
    let left_out = seen.left_out.unwrap();
    assert_eq!((left_out.objects, left_out.fields), (0, 40 * 200 - i64::try_from(shown).unwrap()));
    assert!(serde_json::to_vec(&seen).unwrap().len() < 256 * 1024);
}
