//! `windlass tree` shows what a Delivery or an Application has, what that owns, and how it is: as it stands, and as it changes.

use crate::support::cli::{Answer, Watching, windlass, windlass_with};
use crate::support::daemon::{World, config_map, deployment};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use windlass::api::Delivery;
use windlass::api::application::ApplicationPhase;
use windlass::api::delivery::Phase;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";

fn tree(world: &World, arguments: &[&str]) -> Answer {
    windlass(&world.space, &[&["tree", "-n", &world.space.name], arguments].concat())
}

/// The nodes of a tree in JSON: for each `Kind name` of what stands above it, its own kind, name and status.
fn nodes(answer: &Answer) -> Vec<(String, String, String)> {
    fn walk(node: &Value, above: &str, into: &mut Vec<(String, String, String)>) {
        let text = |field: &str| node[field].as_str().unwrap_or_default().to_owned();
        let name = format!("{} {}", text("kind"), text("name"));
        into.push((above.to_owned(), name.clone(), text("status")));
        for child in node["children"].as_array().into_iter().flatten() {
            walk(child, &name, into);
        }
    }
    let mut all = Vec::new();
    walk(&serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e}: {answer:?}")), "", &mut all);
    all
}

async fn deployed(test: &str) -> World {
    let world = World::new(test).await;
    let files = [
        ("shop/web.yaml", deployment("web", "ok", 2)),
        ("shop/service.yaml", SERVICE.to_owned()),
        ("shop/one.yaml", config_map("one", "1")),
        ("shop/two.yaml", config_map("two", "2")),
    ];
    let commit = world.commit("First", &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    world.wait_object("v1", "services", "web", "it is there", |_| true).await;
    // Its endpoints come a moment later.
    crate::support::cluster::wait_until("both pods are endpoints", world.limit, || async {
        let slices = world
            .space
            .send("GET", &world.space.path("discovery.k8s.io/v1", "endpointslices"), &Value::Null)
            .await;
        let all = slices["items"].as_array().into_iter().flatten();
        let ready = all.flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
        let ready = ready.filter(|e| e["conditions"]["ready"] == true).count();
        if ready == 2 { Ok(()) } else { Err(format!("{ready} ready")) }
    })
    .await;
    world
}

/// A kubeconfig of somebody who may read these.
async fn reader(world: &World, name: &str, rules: Value) -> (std::path::PathBuf, String) {
    let account = world.space.account(name, rules).await;
    let user = format!("system:serviceaccount:{}:{}", account.namespace, account.name);
    let text = fs::read_to_string(&world.space.cluster.kubeconfig).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["users"][0]["user"]["as"] = json!(user);
    let file = world.file(&format!("{name}.kubeconfig"));
    fs::write(&file, config.to_string()).unwrap();
    (file, user)
}

#[tokio::test]
async fn each_object_stands_below_what_owns_it() {
    let world = deployed("tree").await;
    let answer = tree(&world, &["shop", "-o", "json"]);
    let nodes = nodes(&answer);
    assert_eq!(answer.code, 0, "{answer:#?}");
    assert!(nodes.iter().all(|(_, _, status)| status == "Healthy"), "{nodes:#?}");
    let above = |name: &str| -> Vec<&str> {
        nodes.iter().filter(|(_, n, _)| n.starts_with(name)).map(|(above, _, _)| above.as_str()).collect()
    };
    for name in ["Deployment web", "Service web", "ConfigMap one", "ConfigMap two"] {
        assert_eq!(above(name), ["Delivery shop"], "{name}: {nodes:#?}");
    }
    assert_eq!(above("ReplicaSet web-"), ["Deployment web"]);
    assert_eq!(above("EndpointSlice web-"), ["Service web"]);
    let pods = above("Pod web-");
    assert!(pods.len() == 2 && pods.iter().all(|above| above.starts_with("ReplicaSet web-")), "{nodes:#?}");

    let table = tree(&world, &["dlv/shop"]);
    assert!(
        table.out.contains("├─ Deployment web") && table.out.contains("2 of 2 endpoints ready"),
        "{table:?}"
    );
    assert!(tree(&world, &["shop", "-o", "yaml"]).out.contains("kind: EndpointSlice"));

    // An object of the Delivery that does not do what it should, and one that is gone.
    assert_eq!(windlass(&world.space, &["suspend", "shop", "-n", &world.space.name]).code, 0);
    let suspended = |d: &Delivery| d.status.as_ref().is_some_and(|s| s.phase == Phase::Suspended);
    world.wait("shop", "is suspended", suspended).await;
    world.delete("v1", "configmaps", "two").await;
    let answer = tree(&world, &["shop", "-o", "json"]);
    let gone = ("Delivery shop".to_owned(), "ConfigMap two".to_owned(), "Missing".to_owned());
    assert!(answer.code == 1 && self::nodes(&answer).contains(&gone), "{answer:#?}");
}

#[tokio::test]
async fn it_is_asked_for_once_per_kind_and_shows_what_one_may_see() {
    let world = deployed("treeread").await;
    let ours = json!({"apiGroups": ["windlass.dev"], "resources": ["deliveries", "applications"], "verbs": ["list"]});
    let most = json!({"apiGroups": ["", "apps", "discovery.k8s.io"], "verbs": ["list"],
        "resources": ["configmaps", "services", "deployments", "replicasets", "endpointslices"]});
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    let (file, user) = reader(&world, "all", json!([ours, most, pods])).await;
    let audit = world.space.cluster.audit();
    let answer = windlass_with(&file, &["tree", "shop", "-n", &world.space.name]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for request in audit.all().into_iter().filter(|r| r.user == user && !r.resource.is_empty()) {
        assert_eq!(request.verb, "list", "{request:?}");
        *asked.entry(request.resource).or_default() += 1;
    }
    let kinds =
        ["configmaps", "deliveries", "deployments", "endpointslices", "pods", "replicasets", "services"];
    assert_eq!(asked, kinds.map(|kind| (kind.to_owned(), 1)).into(), "one list for each kind");

    // What nobody may see of what is owned is told; what is delivered is known to be well all the same.
    let (file, _) = reader(&world, "most", json!([ours, most])).await;
    let answer = windlass_with(&file, &["tree", "shop", "-n", &world.space.name]);
    assert!(answer.out.contains("not shown: Pod in namespace "), "{answer:?}");
    assert!(answer.out.contains("may not list pods") && !answer.out.contains("Pod web-"), "{answer:?}");
    assert_eq!(answer.code, 0, "{answer:?}");
    // What is delivered and cannot be seen is not known to be well.
    let (file, _) = reader(&world, "few", json!([ours])).await;
    let answer = windlass_with(&file, &["tree", "shop", "-n", &world.space.name, "-o", "json"]);
    let unknown = ("Delivery shop".to_owned(), "Deployment web".to_owned(), "Unknown".to_owned());
    assert!(answer.code == 1 && nodes(&answer).contains(&unknown), "{answer:#?}");
}

#[tokio::test]
async fn an_application_has_its_delivery_and_its_revisions() {
    let world = World::new("treeapp").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    for name in [&["web"][..], &["application", "web"], &["wapp/web"]] {
        let answer = tree(&world, &[name, &["-o", "json"]].concat());
        let nodes = nodes(&answer);
        assert_eq!(nodes[0].1, "Application web", "{answer:?}");
        let below = |above: &str, name: &str| {
            nodes.iter().filter(|(a, n, _)| a == above && n.starts_with(name)).count()
        };
        assert_eq!(below("Application web", "Delivery web.application"), 1, "{nodes:#?}");
        assert_eq!(below("Application web", "ControllerRevision web-"), 1, "{nodes:#?}");
        for child in ["Deployment web", "Service web", "PodDisruptionBudget web"] {
            assert_eq!(below("Delivery web.application", child), 1, "{nodes:#?}");
        }
        assert_eq!(nodes.iter().filter(|(_, name, _)| name.starts_with("Pod web-")).count(), 2);
    }
    let none = tree(&world, &["application", "nowhere"]);
    assert!(none.code == 2 && none.err.contains("there is no Application nowhere; there are: "), "{none:?}");
    let odd = tree(&world, &["deployment", "web"]);
    assert!(odd.code == 2 && odd.err.contains("is not delivery or application"), "{odd:?}");
}

#[tokio::test]
async fn an_application_is_followed_as_it_changes_and_goes_back() {
    let world = World::new("treeappwatch").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    let name = &world.space.name;
    let mut watching = Watching::of(&world, &["tree", "application", "web", "-n", name, "--watch"]);
    watching.wait("Deployment web").await;
    world.application("web", "ok2", json!({})).await;
    let mut open = ["ADDED      ControllerRevision", "ADDED      Pod", "DELETED    Pod"]
        .map(|what| format!("{what} {name}/web-"))
        .to_vec();
    watching
        .until("that it has another revision and other pods", |line| {
            open.retain(|part| !line.starts_with(part.as_str()));
            open.is_empty()
        })
        .await;
    world.application("web", "crash", json!({})).await;
    world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    watching
        .until("that it was taken back", |line| {
            line.starts_with(&format!("MODIFIED   Application {name}/web   ")) && line.contains("rolled back")
        })
        .await;
    assert_eq!(watching.interrupt().await, Some(1), "a revision is held");
}

#[tokio::test]
async fn what_comes_changes_and_goes_is_followed() {
    let world = deployed("treewatch").await;
    let name = &world.space.name;
    let mut watching = Watching::of(&world, &["tree", "shop", "-n", name, "--watch"]);
    watching.wait("2 of 2 endpoints ready").await;
    let pods = world.names("v1", "pods").await;
    let pod = pods.iter().find(|pod| pod.starts_with("web-")).unwrap();
    world.delete("v1", "pods", pod).await;
    let mut open = vec![format!("DELETED    Pod {name}/{pod}"), format!("ADDED      Pod {name}/web-")];
    watching
        .until("that a pod went and another came", |line| {
            open.retain(|part| !line.starts_with(part.as_str()));
            open.is_empty()
        })
        .await;
    // A change of health, and an object that the Delivery did not have.
    let next = world.commit("Second", &[("shop/three.yaml", &config_map("three", "3"))]);
    world.wait_for("shop", Phase::Ready, &next).await;
    // It is planned before it is there: it may come as one that is missing.
    watching.wait(&format!("ConfigMap {name}/three   Healthy")).await;
    let bad = world.commit("Third", &[("shop/web.yaml", &deployment("web", "crash", 2))]);
    watching.wait(&format!("MODIFIED   Deployment {name}/web   ")).await;
    world.wait_for("shop", Phase::Held, &bad).await;
    let (mut back, mut held) = (false, false);
    watching
        .until("that it went back and is held", |line| {
            back |= line.starts_with(&format!("MODIFIED   Deployment {name}/web   Healthy"));
            held |= line.starts_with(&format!("MODIFIED   Delivery {name}/shop   "))
                && line.contains("RevisionHeld");
            back && held
        })
        .await;
    assert_eq!(watching.interrupt().await, Some(1), "a revision is held");
}
