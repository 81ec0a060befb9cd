//! What the documentation shows as a first rollout is one, with no more rights than the documentation says; the commented one of
//! the example repository is one, too; and no policy and no resource that is shown is refused.

use crate::routes_are_valid::{Served, crds, definitions};
use crate::support::cli::windlass;
use crate::support::cluster::{Space, try_send, wait_until};
use crate::support::daemon::World;
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, share};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use windlass::api::delivery::Phase;
use windlass::render::yaml::{Keep, Limits, parse};

const APPS: &str = "apps/v1";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The blocks of YAML of a page.
fn blocks(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn documents(text: &str) -> Vec<Value> {
    let all = parse(text, Keep::Variables, &Limits::default()).unwrap_or_else(|e| panic!("{e:?} in\n{text}"));
    all.into_iter().map(|document| document.value).collect()
}

/// The files of the first example, as it names them.
fn example() -> Vec<(String, String)> {
    let named = |block: String| {
        let name =
            block.lines().next()?.strip_prefix("# ").filter(|name| name.starts_with("apps/"))?.to_owned();
        Some((name, block))
    };
    let files: Vec<_> =
        blocks(&root().join("docs/rollouts/README.md")).into_iter().filter_map(named).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    files
}

/// The rules of the role that the documentation has for rollouts.
fn rules() -> Value {
    let all = blocks(&root().join("docs/security.md")).into_iter().flat_map(|block| documents(&block));
    let mut roles = all.filter(|document| document["kind"] == "ClusterRole");
    let role = roles.next().expect("docs/security.md has a ClusterRole");
    assert_eq!(role["metadata"]["name"], "windlass-rollouts");
    assert!(roles.next().is_none());
    role["rules"].clone()
}

fn ask(world: &World, arguments: &[&str]) {
    let answer = windlass(&world.space, &[arguments, &["-n", &world.space.name]].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
}

/// What became of the files is committed.
fn commit(world: &World, subject: &str, files: &[(String, String)]) -> String {
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    world.commit(subject, &files)
}

/// The same files with another image.
fn with_image(files: &[(String, String)], old: &str, new: &str) -> Vec<(String, String)> {
    let found = files.iter().filter(|(_, text)| text.contains(old));
    let changed: Vec<_> = found.map(|(name, text)| (name.clone(), text.replace(old, new))).collect();
    assert_eq!(changed.len(), 1, "{old}");
    changed
}

async fn alone(world: &World) {
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
}

#[tokio::test]
async fn with_exactly_the_rights_that_are_documented() {
    know_routes().await;
    let mut world = World::stopped("documented").await;
    let _controller = Controller::of(&world);
    let deployer = world.space.account("deployer", rules()).await;
    let user = format!("system:serviceaccount:{}:{}", deployer.namespace, deployer.name);
    let audit = world.space.cluster.audit();
    world.start();
    let files = example();
    let first = commit(&world, "First", &files);
    world.deliver("apps/*", json!({"serviceAccountName": "deployer"})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let shares = |wanted: Option<u64>| move |route: &Value| share(route) == wanted;

    // It goes on by a person's word, also where it would wait for five minutes.
    let second = commit(&world, "Second", &with_image(&files, "nginx:1.27", "nginx:1.28"));
    world.wait_object(GATEWAY, ROUTES, "web", "the candidate has 10 %", shares(Some(10))).await;
    let waits = |d: &windlass::api::Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.step == 2 && r.settled.is_some())
    };
    world.wait("shop", "waits in its second step", waits).await;
    ask(&world, &["rollout", "shop"]);
    ask(&world, &["promote", "shop"]);
    world.wait_for("shop", Phase::Paused, &second).await;
    let route = world.get(GATEWAY, ROUTES, "web").await;
    assert_eq!(share(&route), Some(50));
    ask(&world, &["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &second).await;
    alone(&world).await;
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), None);

    let third = commit(&world, "Third", &with_image(&files, "nginx:1.27", "nginx:1.29"));
    world.wait_object(GATEWAY, ROUTES, "web", "the candidate has 10 %", shares(Some(10))).await;
    ask(&world, &["abort", "shop"]);
    let held = world.wait_for("shop", Phase::Held, &third).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, second);
    alone(&world).await;

    // All that it asked for in the namespace it was given. That it may not see the whole cluster is found out by asking.
    let asked = audit.in_namespace(&world.space.name);
    let asked: Vec<_> = asked.into_iter().filter(|request| request.user == user).collect();
    let looked = |resource: &str| asked.iter().any(|request| request.resource == resource);
    assert!(looked("endpointslices") && looked("networkpolicies") && looked("httproutes"), "{asked:#?}");
    let refused: Vec<_> = asked.iter().filter(|request| request.code == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    // And nothing was said to be unknown for want of a right.
    for commit in [&second, &third] {
        wait_until("it is told that it rolls out", world.limit, || async {
            let events = world.events("shop").await;
            let of =
                |(reason, text): &&(String, String)| reason == "RollingOut" && text.contains(commit.as_str());
            let (_, text) = events.iter().find(of).ok_or_else(|| format!("{events:?}"))?;
            assert!(!text.contains("is not known of"), "{text}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_route_is_one_by_the_published_schema() {
    let mut space = Space::new("documented-route").await;
    let file = crds().join("gateway-new/gateway.networking.k8s.io_httproutes.yaml");
    let gateway =
        Served::new(&mut space, "gateway.networking.k8s.io", definitions(&file, &["httproutes"])).await;
    let text = example().into_iter().find(|(name, _)| name.ends_with("route.yaml")).unwrap().1;
    let mut route = documents(&text).remove(0);
    route["metadata"]["namespace"] = "shop".into();
    gateway.applied(&space, &route, "&dryRun=All").await.unwrap();
}

#[tokio::test]
async fn the_commented_policy_of_the_example_repository_needs_nothing_installed() {
    let world = World::new("commented").await;
    let folder = root().join("examples/config/apps/shop");
    let read = |name: &str| (format!("apps/shop/{name}"), fs::read_to_string(folder.join(name)).unwrap());
    let mut files = ["settings.yaml", "web.yaml", "windlass.yaml"].map(read);
    let (before, policy) = files[2].1.split_once("# rollout:\n").expect("a policy in comments");
    let policy: Vec<&str> = policy.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    files[2].1 = format!("{before}rollout:\n{}\n", policy.join("\n"));
    let first = commit(&world, "First", &files);
    world.deliver("apps/*", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let next = commit(&world, "Next", &with_image(&files, "pause:3.9", "pause:3.10"));
    world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(world.names(APPS, "deployments").await, ["web", "web-preview"]);
    ask(&world, &["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &next).await;
    alone(&world).await;
}

/// The files below a folder.
fn pages(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => pages(&path, out),
            false => out.push(path),
        }
    }
}

#[tokio::test]
async fn no_policy_that_is_shown_is_refused() {
    let world = World::stopped("shown-policies").await;
    let mut all = vec![root().join("README.md")];
    pages(&root().join("docs"), &mut all);
    let path = format!(
        "{}?dryRun=All&fieldValidation=Strict",
        world.space.path("windlass.dev/v1alpha1", "deliveries")
    );
    let mut tried = 0;
    for page in all {
        let with_policy = blocks(&page).into_iter().filter(|block| block.contains("rollout:"));
        for document in with_policy.flat_map(|block| documents(&block)) {
            let policy = match (&document["rollout"], &document["spec"]["rollout"]) {
                (Value::Object(policy), _) => policy,
                (_, Value::Object(policy)) if document["kind"] != "Application" => policy,
                _ => continue,
            };
            let delivery = json!({
                "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery", "metadata": {"name": "shown"},
                "spec": {"source": {"repository": "config", "path": "apps/shop"}, "rollout": policy},
            });
            let answer = try_send(&world.space.connection.client, "POST", &path, &delivery).await;
            answer.unwrap_or_else(|e| panic!("{}: {delivery}: {e}", page.display()));
            tried += 1;
        }
    }
    assert!(tried >= 3, "{tried}");
}

#[tokio::test]
async fn no_repository_or_delivery_that_is_shown_is_refused() {
    let world = World::stopped("shown-resources").await;
    let mut all = vec![root().join("README.md")];
    pages(&root().join("docs"), &mut all);
    let mut tried = std::collections::BTreeSet::new();
    for page in all {
        let ours = blocks(&page).into_iter().filter(|block| block.contains("apiVersion: windlass.dev"));
        for mut document in ours.flat_map(|block| documents(&block)) {
            let (kind, plural) = match document["kind"].as_str() {
                Some("Repository") => ("Repository", "repositories"),
                Some("Delivery") => ("Delivery", "deliveries"),
                _ => continue,
            };
            document["metadata"]["namespace"] = world.space.name.as_str().into();
            let path = world.space.path("windlass.dev/v1alpha1", plural);
            let path = format!("{path}?dryRun=All&fieldValidation=Strict");
            let answer = try_send(&world.space.connection.client, "POST", &path, &document).await;
            answer.unwrap_or_else(|e| panic!("{}: {document}: {e}", page.display()));
            tried.insert(kind);
        }
    }
    assert_eq!(tried.len(), 2, "{tried:?}");
}
