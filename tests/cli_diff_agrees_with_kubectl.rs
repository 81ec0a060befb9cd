//! `windlass diff` and `kubectl diff` give the same verdict about a directory and a namespace, and `windlass diff`
//! never shows what a Secret holds.

use crate::support::cli::{kubectl, windlass};
use crate::support::cluster::{Space, wait_until};
use crate::support::daemon::{LIMIT, World, config_map};
use serde_json::{Value, json};
use std::fs;
use windlass::api::delivery::Phase;

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web, labels: {a: b}}\ndata: {color: green, size: \"1\"}\n";
const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: web}\nstringData: {password: hunter2}\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 0\n  \
    selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      \
    - name: app\n        image: example.com/app:ok\n        env: [{name: A, value: \"1\"}]\n        \
    resources: {requests: {cpu: 1000m}}\n        ports: [{containerPort: 8080}]\n";
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";

/// What stands there (by `kubectl apply`), what stands on disk, and what both are to say.
const TABLE: [(&str, &str, &str, i32); 14] = [
    ("nothing changed", MAP, MAP, 0),
    (
        "a value",
        MAP,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web, labels: {a: b}}\ndata: {color: red, size: \"1\"}\n",
        1,
    ),
    (
        "a key left",
        MAP,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web, labels: {a: b}}\ndata: {color: green}\n",
        1,
    ),
    (
        "a label left",
        MAP,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {color: green, size: \"1\"}\n",
        1,
    ),
    (
        "another order",
        MAP,
        "kind: ConfigMap\ndata: {size: \"1\", color: green}\nmetadata: {labels: {a: b}, name: web}\napiVersion: v1\n",
        0,
    ),
    ("a new object", MAP, SERVICE, 1),
    ("the same Deployment", DEPLOYMENT, DEPLOYMENT, 0),
    ("the same in another spelling", DEPLOYMENT, "cpu: 1000m => cpu: 1", 0),
    ("an image", DEPLOYMENT, "app:ok => app:slow", 1),
    ("an environment variable left", DEPLOYMENT, "        env: [{name: A, value: \"1\"}]\n => ", 1),
    (
        "a default that is spelt out",
        DEPLOYMENT,
        "containerPort: 8080 => containerPort: 8080, protocol: TCP",
        0,
    ),
    ("the same Service", SERVICE, SERVICE, 0),
    ("the same Secret", SECRET, SECRET, 0),
    ("another Secret", SECRET, "hunter2 => hunter3", 1),
];

/// Waits until the controllers have written what they write into a new Deployment: in the middle of a comparison it would be a
/// difference.
async fn settled(space: &Space, name: &str) {
    let path = format!("{}/{name}", space.path("apps/v1", "deployments"));
    wait_until(&format!("the controllers are done with {name}"), LIMIT, || async {
        let found = space.send("GET", &path, &Value::Null).await;
        let conditions = found["status"]["conditions"].as_array();
        let done = conditions.into_iter().flatten().any(|c| c["reason"] == "NewReplicaSetAvailable");
        let numbered = found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1";
        if done && numbered { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn the_verdict_is_that_of_kubectl() {
    let space = Space::new("clidiff").await;
    let disk = tempfile::tempdir().unwrap();
    for (number, (what, before, after, expected)) in TABLE.iter().enumerate() {
        let dir = disk.path().join(number.to_string());
        fs::create_dir(&dir).unwrap();
        // A name of its own for each row, since rows share the namespace.
        let named = |text: &str| text.replace("name: web", &format!("name: web{number}"));
        let after = match after.split_once(" => ") {
            Some((old, new)) => {
                assert!(before.contains(old), "{what}");
                before.replace(old, new)
            }
            None => (*after).to_owned(),
        };
        let file = dir.join("all.yaml");
        fs::write(&file, named(before)).unwrap();
        let file_name = file.to_str().unwrap();
        let applied = kubectl(&space, &["apply", "-n", &space.name, "-f", file_name]);
        assert_eq!(applied.code, 0, "{what}: {applied:?}");
        if *before == DEPLOYMENT {
            settled(&space, &format!("web{number}")).await;
        }
        fs::write(&file, named(&after)).unwrap();
        let theirs = kubectl(&space, &["diff", "-n", &space.name, "-f", file_name]);
        let ours = windlass(&space, &["diff", dir.to_str().unwrap(), "--namespace", &space.name]);
        assert_eq!(theirs.code, *expected, "{what}: {theirs:?}");
        assert_eq!(ours.code, *expected, "{what}: {ours:?}");
        assert!(!format!("{ours:?}").contains("hunter"), "{what}: {ours:?}");
        assert!(!format!("{ours:?}").contains("aHVudGVy"), "{what}: {ours:?}");
        let json = windlass(&space, &["diff", dir.to_str().unwrap(), "-n", &space.name, "-o", "json"]);
        let report: Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!(
            report["objects"].as_array().unwrap().len(),
            usize::from(*expected == 1),
            "{what}: {report}"
        );
        assert!(!json.out.contains("aHVudGVy"), "{what}: {json:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_compared_is_an_error_with_file_and_line() {
    let space = Space::new("clidiff").await;
    let disk = tempfile::tempdir().unwrap();
    let dir = disk.path().to_str().unwrap();
    let table = [
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatum: {}\n", "all.yaml:1"),
        ("apiVersion: example.com/v1\nkind: Nothing\nmetadata: {name: a}\n", "CustomResourceDefinition"),
        ("apiVersion: v1\nkind: [\n", "all.yaml"),
        ("# nothing\n", "no manifest"),
    ];
    for (text, told) in table {
        fs::write(disk.path().join("all.yaml"), text).unwrap();
        let ours = windlass(&space, &["diff", dir, "-n", &space.name]);
        assert_eq!(ours.code, 2, "{text}: {ours:?}");
        assert!(ours.err.contains(told), "{text}: {ours:?}");
    }
    fs::write(disk.path().join("all.yaml"), MAP).unwrap();
    let homeless = windlass(&space, &["diff", dir]);
    assert_eq!(homeless.code, 2);
    assert!(homeless.err.contains("names no namespace"), "{homeless:?}");
}

#[tokio::test]
async fn what_came_from_a_secret_is_not_shown_wherever_it_was_put() {
    let world = World::new("cliredact").await;
    let secret = json!({"metadata": {"name": "credentials"}, "stringData": {"token": "never-to-be-seen"}});
    world.space.send("POST", &world.space.path("v1", "secrets"), &secret).await;
    let first = world.commit("A token", &[("shop/map.yaml", &config_map("map", "${token}"))]);
    world.deliver("shop", json!({"substitute": {"from": [{"secret": "credentials"}]}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    assert_eq!(world.get("v1", "configmaps", "map").await["data"]["key"], "never-to-be-seen");
    let dir = world.repo.path().join("shop");
    fs::write(dir.join("map.yaml"), config_map("map", "${token}, and more")).unwrap();
    for form in [&["-o", "json"][..], &[]] {
        let delivery = ["diff", dir.to_str().unwrap(), "--delivery", "shop", "-n", &world.space.name];
        let installation = ["--installation", world.installation()];
        let arguments: Vec<&str> = delivery.iter().chain(&installation).chain(form).copied().collect();
        let ours = windlass(&world.space, &arguments);
        assert_eq!(ours.code, 1, "{ours:?}");
        assert!(ours.out.contains("(value of token), and more"), "{ours:?}");
        assert!(!format!("{ours:?}").contains("never-to-be-seen"), "{ours:?}");
    }
}
