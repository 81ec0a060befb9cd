//! A rollout takes along what it names and what belongs to it: several workloads as one, a StatefulSet, the configuration alone, a
//! disruption budget; and gives the candidate the size that is asked for.

use crate::a_rollback_deletes_no_data::definition;
use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployment, image, service, web};
use crate::support::cli::windlass;
use crate::support::cluster::{try_send, wait_until};
use crate::support::daemon::{World, config_map};
use crate::support::gateway::{Controller, GATEWAY, MONITORS, ROUTES, know, know_routes, route, share};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::Phase;
use windlass::api::names;

const APPS: &str = "apps/v1";

/// What the test of another application is, under the name `api`.
fn api(text: &str) -> String {
    text.replace("web", "api")
}

fn ask(world: &World, verb: &str) {
    let answer = windlass(&world.space, &[verb, "shop", "-n", &world.space.name]);
    assert_eq!(answer.code, 0, "{verb}: {answer:?}");
}

async fn deployed(test: &str, rollout: Value, files: &[(&str, &str)]) -> (World, String) {
    let world = World::new(test).await;
    let settings = config_map("settings", "blue");
    let all: Vec<(&str, &str)> =
        files.iter().copied().chain([("shop/settings.yaml", settings.as_str())]).collect();
    let good = world.commit("First version", &all);
    world.deliver("shop", json!({"rollout": rollout})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

#[tokio::test]
async fn several_workloads_are_promoted_and_taken_back_as_one() {
    let mut policy = canary(json!([{"weight": 50}, {"pause": {}}]));
    policy["workload"] = Value::Null;
    policy["workloads"] = json!([{"name": "web"}, {"name": "api"}]);
    let files = [
        ("shop/web.yaml", web("ok", 2)),
        ("shop/api.yaml", api(&web("ok", 1))),
        ("shop/web-service.yaml", service("app: web")),
        ("shop/api-service.yaml", api(&service("app: web"))),
    ];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let (world, good) = deployed("rollout-several", policy, &files).await;
    let both = ["api", "web"];
    let next = world.commit(
        "Both are new",
        &[("shop/web.yaml", &web("ok2", 2)), ("shop/api.yaml", &api(&web("ok2", 1)))],
    );
    world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(world.names(APPS, "deployments").await, ["api", "api-canary", "web", "web-canary"]);
    for name in both {
        let tagged = |tag: &str| format!("registry.example.com/{name}:{tag}");
        assert_eq!(image(&deployment(&world, name).await), tagged("ok"), "{name} is untouched");
        assert_eq!(image(&deployment(&world, &format!("{name}-canary")).await), tagged("ok2"));
    }
    ask(&world, "promote");
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(world.names(APPS, "deployments").await, both);
    for name in both {
        let wanted = format!("registry.example.com/{name}:ok2");
        assert_eq!(image(&deployment(&world, name).await), wanted);
    }

    // One of them is broken: the other does not stay either.
    let before = deployment(&world, "web").await;
    let bad = world.commit(
        "One is broken",
        &[("shop/web.yaml", &web("ok3", 2)), ("shop/api.yaml", &api(&web("crash", 1)))],
    );
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, next);
    assert_ne!(good, next);
    let problem = held.held.unwrap().problem;
    assert!(problem.object.ends_with("/api-canary"), "{problem:?}");
    assert_eq!(world.names(APPS, "deployments").await, both);
    let after = deployment(&world, "web").await;
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
}

fn set(tag: &str) -> String {
    let text = web(tag, 2).replace("kind: Deployment", "kind: StatefulSet");
    text.replace("  replicas: 2\n", "  replicas: 2\n  serviceName: web\n")
}

#[tokio::test]
async fn a_stateful_set_is_switched() {
    let mut policy = blue_green();
    policy["workload"] = json!({"kind": "StatefulSet", "name": "web"});
    let selector = "app: web, tier: front";
    let files = [("shop/web.yaml", set("ok")), ("shop/service.yaml", service(selector))];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let (world, _) = deployed("rollout-set", policy, &files).await;
    let next = world.commit("Second", &[("shop/web.yaml", &set("ok2"))]);
    world.wait_for("shop", Phase::Paused, &next).await;
    let get = async |name: &str| world.get(APPS, "statefulsets", name).await;
    assert_eq!(image(&get("web").await), "registry.example.com/web:ok", "stable is untouched");
    let preview = get("web-preview").await;
    assert_eq!(image(&preview), "registry.example.com/web:ok2");
    assert_eq!(preview["status"]["readyReplicas"], 2);
    ask(&world, "promote");
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(image(&get("web").await), "registry.example.com/web:ok2");
    assert_eq!(world.names(APPS, "statefulsets").await, ["web"]);
    let back = world.get("v1", "services", "web").await;
    assert_eq!(back["spec"]["selector"], json!({"app": "web", "tier": "front"}));
}

/// A volume for a claim: nobody makes any by himself here.
async fn volume_for(world: &mut World, claim: &str) {
    let (space, all) = (&mut world.space, "/api/v1/persistentvolumes");
    let name = format!("{}-{claim}", space.name);
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/data"},
            "claimRef": {"namespace": space.name, "name": claim},
        },
    });
    space.send("POST", all, &volume).await;
    space.forget_later(&format!("{all}/{name}"));
}

#[tokio::test]
async fn a_stateful_set_that_fails_goes_and_stable_was_not_touched() {
    let mut policy = blue_green();
    policy["workload"] = json!({"kind": "StatefulSet", "name": "web"});
    let files = [("shop/web.yaml", set("ok")), ("shop/service.yaml", service("app: web, tier: front"))];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let (world, good) = deployed("rollout-set-fails", policy, &files).await;
    let before = world.get(APPS, "statefulsets", "web").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &set("crash"))]);
    set_is_held(&world, &bad, &good, &before).await;
}

/// The candidate of a set has failed and is gone, and stable is as it was.
async fn set_is_held(world: &World, bad: &str, good: &str, before: &Value) {
    let held = world.wait_for("shop", Phase::Held, bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, good);
    let problem = held.held.unwrap().problem;
    assert!(problem.object.ends_with("/web-preview"), "{problem:?}");
    let after = world.get(APPS, "statefulsets", "web").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
    assert_eq!(world.names(APPS, "statefulsets").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
}

#[tokio::test]
async fn a_stateful_set_that_fails_takes_the_claims_along_that_its_controller_has_taken() {
    // Of pods that start one after the other, the controller takes no claim before they are ready.
    let set = |tag: &str| {
        set(tag).replace("  serviceName: web\n", "  serviceName: web\n  podManagementPolicy: Parallel\n")
            + "  volumeClaimTemplates:\n  - metadata: {name: data}\n    spec: {accessModes: [ReadWriteOnce], \
               storageClassName: \"\", resources: {requests: {storage: 1Gi}}}\n"
    };
    let mut policy = blue_green();
    policy["workload"] = json!({"kind": "StatefulSet", "name": "web"});
    let mut world = World::new("rollout-set-claims").await;
    for of in ["web-0", "web-1", "web-preview-0", "web-preview-1"] {
        volume_for(&mut world, &format!("data-{of}")).await;
    }
    let good = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &set("ok")),
            ("shop/service.yaml", &service("app: web, tier: front")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let before = world.get(APPS, "statefulsets", "web").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &set("crash"))]);
    let claims = "persistentvolumeclaims";
    let there = |claim: &Value| !claim.is_null();
    world.wait_object("v1", claims, "data-web-preview-0", "is made", there).await;
    set_is_held(&world, &bad, &good, &before).await;
    for claim in ["data-web-preview-0", "data-web-preview-1"] {
        world.wait_object("v1", claims, claim, "goes", Value::is_null).await;
    }
    assert_eq!(world.names("v1", claims).await, ["data-web-0", "data-web-1"]);
}

#[tokio::test]
async fn configuration_alone_is_one_with_a_budget_and_the_size_that_a_step_asks_for() {
    let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web}\nspec:\n  minAvailable: 1\n  \
                  selector: {matchLabels: {app: web, tier: front}}\n";
    let mut policy = blue_green();
    policy["steps"] = json!([{"scale": {"replicas": 3}}, {"pause": {}}]);
    let files = [
        ("shop/web.yaml", web("ok", 2)),
        ("shop/service.yaml", service("app: web, tier: front")),
        ("shop/budget.yaml", budget.to_owned()),
    ];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let (world, _) = deployed("rollout-settings", policy, &files).await;
    let before = deployment(&world, "web").await;
    let red = world.commit("Red", &[("shop/settings.yaml", &config_map("settings", "red"))]);
    world.wait_for("shop", Phase::Paused, &red).await;
    let preview = deployment(&world, "web-preview").await;
    assert_eq!((&preview["spec"]["replicas"], &preview["status"]["readyReplicas"]), (&json!(3), &json!(3)));
    let reads = &preview["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"];
    assert_eq!(reads, "settings-preview");
    assert_eq!(world.get("v1", "configmaps", "settings-preview").await["data"]["key"], "red");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
    assert_eq!(deployment(&world, "web").await["spec"], before["spec"], "stable is untouched");
    assert_eq!(world.names("policy/v1", "poddisruptionbudgets").await, ["web", "web-preview"]);

    // A person stops it, and it goes on only when that is taken back.
    ask(&world, "pause");
    let reason = |d: &windlass::api::Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.clone());
        rollout.and_then(|r| r.paused).map(|paused| paused.reason).unwrap_or_default()
    };
    world.wait("shop", "is paused by hand", |d| reason(d) == "PausedByHand").await;
    ask(&world, "resume");
    world.wait("shop", "waits in its step again", |d| reason(d) == "AwaitsPromotion").await;
    ask(&world, "promote");
    world.wait_for("shop", Phase::Ready, &red).await;
    let after = deployment(&world, "web").await;
    assert!(after["spec"]["template"]["metadata"]["annotations"][names::CONFIG].is_string(), "{after}");
    assert_eq!(after["spec"]["replicas"], 2);
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "configmaps").await, ["settings"]);
    assert_eq!(world.names("policy/v1", "poddisruptionbudgets").await, ["web"]);
}

/// How many pods the workload has whose candidate's size is looked at.
const PODS: u32 = 5;

/// A canary whose steps are these weights, each with so many pods of the candidate: they are ready before it has its share, and are
/// taken away only after it has a smaller one. For all traffic there are as many as stable has. `first` are the steps before these.
async fn is_sized(test: &str, candidate: Value, first: &[Value], steps: &[(u64, u64)]) {
    know_routes().await;
    let world = World::new(test).await;
    world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &route()).await;
    let controller = Controller::of(&world);
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", PODS)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    let weights = steps.iter().flat_map(|(weight, _)| [json!({"weight": weight}), json!({"pause": {}})]);
    let all: Vec<Value> = first.iter().cloned().chain(weights).collect();
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "candidate": candidate, "settle": "300ms", "steps": all,
    });
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let before = deployment(&world, "web").await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", PODS))]);
    let has = |pods: u64| {
        move |canary: &Value| canary["spec"]["replicas"] == pods && canary["status"]["readyReplicas"] == pods
    };
    let whole = [(100, u64::from(PODS))];
    let then = steps.iter().skip(1).chain(&whole);
    for (number, ((weight, pods), (next_weight, next_pods))) in (1..).zip(steps.iter().zip(then)) {
        let at = u32::try_from(first.len()).unwrap() + 2 * number;
        let waits = |d: &Delivery| {
            let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
            rollout.is_some_and(|r| r.step == at && r.paused.is_some())
        };
        world.wait("shop", &format!("waits at step {at}"), waits).await;
        let what = format!("has {pods} pods at {weight} %");
        world.wait_object(APPS, "deployments", "web-canary", &what, has(*pods)).await;
        assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(*weight));
        // Nothing is heard of the next share until this test says so.
        controller.keep_silent(Some(*next_weight));
        ask(&world, "promote");
        let divided = |route: &Value| share(route) == Some(*next_weight);
        let what = format!("gives the candidate {next_weight} %");
        world.wait_object(GATEWAY, ROUTES, "web", &what, divided).await;
        let canary = deployment(&world, "web-canary").await;
        let most = *pods.max(next_pods);
        assert!(has(most)(&canary), "{most} pods for {weight} % and for {next_weight} %: {canary}");
        let stable = deployment(&world, "web").await;
        assert_eq!(stable["metadata"]["generation"], before["metadata"]["generation"], "stable is untouched");
        controller.answer_all();
    }
    world.wait_for("shop", Phase::Ready, &next).await;
    let stable = deployment(&world, "web").await;
    assert_eq!(
        (image(&stable), &stable["status"]["readyReplicas"]),
        ("registry.example.com/web:ok2", &json!(PODS))
    );
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    assert_eq!(world.get(GATEWAY, ROUTES, "web").await["spec"], route()["spec"]);
}

/// One pod takes its share, and no more pods are started for it; for all traffic there are as many as stable has.
#[tokio::test]
async fn a_candidate_of_a_fixed_size_is_whole_before_it_has_all_traffic() {
    is_sized("fixed-size", json!({"size": "Fixed", "replicas": 1}), &[], &[(30, 1), (60, 1)]).await;
}

#[tokio::test]
async fn a_candidate_that_a_step_scales_stays_so_and_is_whole_before_it_has_all_traffic() {
    let scale = json!({"scale": {"replicas": 1}});
    is_sized("scaled", Value::Null, &[scale], &[(30, 1), (60, 1)]).await;
}

#[tokio::test]
async fn a_candidate_with_its_share_of_pods_has_them_before_the_traffic_and_until_after_it() {
    is_sized("share-size", json!({"size": "Share"}), &[], &[(30, 2), (60, 3), (20, 1)]).await;
}

/// The files of a directory from objects: JSON is YAML.
fn file(objects: &[Value]) -> String {
    objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

/// An object of the cluster, `Null` where there is none.
async fn stands(world: &World, path: &str) -> Value {
    match try_send(&world.space.connection.client, "GET", path, &Value::Null).await {
        Err(kube::Error::Api(e)) if e.code == 404 => Value::Null,
        got => got.unwrap(),
    }
}

const RBAC: &str = "rbac.authorization.k8s.io/v1";

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
}

/// A Role over ConfigMaps, and its binding to an account of this namespace; both of one name.
fn rights(world: &World, [name, to]: [&str; 2], verbs: &[&str]) -> [Value; 2] {
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]);
    let subject = json!({"kind": "ServiceAccount", "name": to, "namespace": world.space.name});
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    [
        json!({"apiVersion": RBAC, "kind": "Role", "metadata": {"name": name}, "rules": rules}),
        json!({
            "apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": name}, "subjects": [subject],
            "roleRef": reference,
        }),
    ]
}

/// Whether an account of this namespace may do something with the ConfigMaps of a namespace, by the API server's own answer.
async fn may(world: &World, account: &str, verb: &str, namespace: &str) -> bool {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{}:{account}", world.space.name),
            "resourceAttributes": {"namespace": namespace, "verb": verb, "group": "", "resource": "configmaps"},
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    world.space.send("POST", path, &review).await["status"]["allowed"] == true
}

async fn wait_may(world: &World, account: &str, verb: &str, namespace: &str) {
    // Who decides learns of a role a moment after it was made.
    wait_until(&format!("{account} may {verb} in {namespace}"), world.limit, || async {
        if may(world, account, verb, namespace).await { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}

/// The commit that brings all that: pods with this tag run as another account, with rights that are new, rights that are wider than
/// before and rights in a namespace that is new, in a class and beside a kind that are new as well.
fn all_new(world: &World, tag: &str) -> String {
    let name = &world.space.name;
    let more = format!("{name}-more");
    let group = format!("{name}.example.com");
    let mut elsewhere = rights(world, ["peek", "front"], &["get"]);
    for object in &mut elsewhere {
        object["metadata"]["namespace"] = json!(more);
    }
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1,
    });
    let thing = json!({"apiVersion": format!("{group}/v1"), "kind": "Thing", "metadata": {"name": "one"}});
    let new = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": more}});
    let objects: Vec<Value> = [account("front"), class, thing, new]
        .into_iter()
        .chain(rights(world, ["front", "front"], &["list"]))
        .chain(rights(world, ["reader", "front"], &["get", "delete"]))
        .chain(elsewhere)
        .collect();
    let pods = format!("      serviceAccountName: front\n      priorityClassName: {name}\n      containers:");
    let web = web(tag, 2).replace("      containers:", &pods);
    [web, definition(&group, &["v1"]), config_map("more", "1"), file(&objects)].join("---\n")
}

#[tokio::test]
async fn what_a_candidate_cannot_be_without_comes_before_promotion_and_the_rest_and_removals_wait() {
    let mut world = World::stopped("rollout-needs").await;
    let name = world.space.name.clone();
    let (more, group) = (format!("{name}-more"), format!("{name}.example.com"));
    let class = format!("/apis/scheduling.k8s.io/v1/priorityclasses/{name}");
    let kind = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}");
    let namespace = format!("/api/v1/namespaces/{more}");
    let peek = format!("/apis/{RBAC}/namespaces/{more}/rolebindings/peek");
    let thing = format!("/apis/{group}/v1/namespaces/{name}/things/one");
    for path in [&class, &kind, &namespace] {
        world.space.forget_later(path);
    }
    world.start();
    let [role, binding] = rights(&world, ["reader", "app"], &["get"]);
    let old = web("ok", 2).replace("      containers:", "      serviceAccountName: app\n      containers:");
    let first = [old, config_map("old", "1"), file(&[account("app"), role.clone(), binding])].join("---\n");
    let good = world.commit(
        "First",
        &[
            ("shop/all.yaml", &first),
            ("shop/service.yaml", &service("app: web, tier: front")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    world.deliver("shop", json!({"rollout": blue_green()})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let is_as_it_was = async || {
        assert_eq!(world.names("v1", "configmaps").await, ["old", "settings"]);
        assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");
        assert_eq!(world.get(RBAC, "roles", "reader").await["rules"], role["rules"]);
        let subjects = world.get(RBAC, "rolebindings", "reader").await["subjects"].clone();
        assert_eq!(subjects[0]["name"], "app", "{subjects}");
        assert!(!may(&world, "app", "delete", &name).await, "nobody gave stable that");
        assert_eq!(stands(&world, &thing).await, Value::Null, "it is no need of a candidate");
    };

    // One that breaks goes with all of that, but for what may hold data.
    let bad = world.commit("Breaks", &[("shop/all.yaml", &all_new(&world, "crash"))]);
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert!(held.held.unwrap().problem.object.ends_with("/web-preview"));
    is_as_it_was().await;
    assert_eq!(world.names("v1", "serviceaccounts").await, ["app"]);
    for plural in ["roles", "rolebindings"] {
        assert_eq!(world.names(RBAC, plural).await, ["reader"], "{plural}");
    }
    for path in [&class, &peek] {
        assert_eq!(stands(&world, path).await, Value::Null, "{path}");
    }
    let left: Vec<&str> = held.rolled_back_except.iter().map(|e| e.object.as_str()).collect();
    assert_eq!(left, [format!("CustomResourceDefinition things.{group}"), format!("Namespace {more}")]);

    let next = world.commit("Second", &[("shop/all.yaml", &all_new(&world, "ok2"))]);
    world.wait_for("shop", Phase::Paused, &next).await;
    let preview = deployment(&world, "web-preview").await;
    assert_eq!(
        (image(&preview), &preview["status"]["readyReplicas"]),
        ("registry.example.com/web:ok2", &json!(2))
    );
    assert_eq!(preview["spec"]["template"]["spec"]["serviceAccountName"], "front");
    for (verb, of) in [("list", &name), ("delete", &name), ("get", &more)] {
        wait_may(&world, "front", verb, of).await;
    }
    let established = |definition: Value| {
        let mut conditions =
            definition["status"]["conditions"].as_array().cloned().unwrap_or_default().into_iter();
        conditions.any(|c| c["type"] == "Established" && c["status"] == "True")
    };
    assert!(established(stands(&world, &kind).await));
    is_as_it_was().await;
    assert_eq!(world.names("v1", "serviceaccounts").await, ["app", "front"]);
    assert_eq!(world.names(RBAC, "roles").await, ["front", "reader", "reader-preview"]);

    ask(&world, "promote");
    let ready = world.wait_for("shop", Phase::Ready, &next).await.status.unwrap();
    assert!(ready.inventory.iter().all(|e| !e.candidate && !e.stale), "{:?}", ready.inventory);
    assert!(!stands(&world, &thing).await.is_null());
    assert_eq!(world.names("v1", "configmaps").await, ["more", "settings"]);
    assert_eq!(world.names("v1", "serviceaccounts").await, ["front"]);
    for plural in ["roles", "rolebindings"] {
        assert_eq!(world.names(RBAC, plural).await, ["front", "reader"], "{plural}");
    }
    let [role, binding] = rights(&world, ["reader", "front"], &["get", "delete"]);
    assert_eq!(world.get(RBAC, "roles", "reader").await["rules"], role["rules"]);
    assert_eq!(world.get(RBAC, "rolebindings", "reader").await["subjects"], binding["subjects"]);
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
}

/// Pods that read Secrets by a volume and by a projected one, a policy over them, one that lets them in elsewhere, and a monitor.
fn guarded(tag: &str, value: &str, more: &[&str]) -> String {
    let secret = |name: &&str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": value}});
    let named = ["keys"].iter().chain(more).map(|name| json!({"secret": {"name": name}}));
    let sources: Vec<Value> = named.chain([json!({"configMap": {"name": "settings"}})]).collect();
    let volumes = json!([
        {"name": "login", "secret": {"secretName": "login"}}, {"name": "keys", "projected": {"sources": sources}},
    ]);
    let pods = format!("      volumes: {volumes}\n      containers:");
    let by_app = |name: &str| json!({"matchLabels": {"app": name}});
    let policy = |name: &str, from: Value, to: &str| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
            "spec": {"podSelector": by_app(to), "ingress": [{"from": [{"podSelector": from}]}]},
        })
    };
    let objects: Vec<Value> = ["login", "keys"].iter().chain(more).map(secret).collect();
    let monitor = json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "web"},
        "spec": {"selector": by_app("web"), "podMetricsEndpoints": [{"port": "http"}]},
    });
    let fences = [policy("fence", by_app("door"), "web"), policy("store", by_app("web"), "store"), monitor];
    let all: Vec<Value> = objects.into_iter().chain(fences).collect();
    [web(tag, 2).replace("      containers:", &pods), file(&all)].join("---\n")
}

/// What two policies and a monitor of these names say.
async fn specs(world: &World, [one, other, monitor]: [&str; 3]) -> [Value; 3] {
    let spec = async |api: &str, plural: &str, name: &str| world.get(api, plural, name).await["spec"].clone();
    let policy = async |name: &str| spec("networking.k8s.io/v1", "networkpolicies", name).await;
    [policy(one).await, policy(other).await, spec("monitoring.coreos.com/v1", "podmonitors", monitor).await]
}

#[tokio::test]
async fn its_secrets_its_policies_and_its_monitor_are_copied_and_those_of_stable_stay() {
    let _alone = MONITORS.lock().await;
    let mut world = World::stopped("rollout-copies").await;
    know(&mut world.space, "monitoring.coreos.com", "PodMonitor", "podmonitors").await;
    world.start();
    let good = world.commit(
        "First",
        &[
            ("shop/all.yaml", &guarded("ok", "old", &[])),
            ("shop/service.yaml", &service("app: web, tier: front")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    world.deliver("shop", json!({"rollout": blue_green()})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let before = specs(&world, ["fence", "store", "web"]).await;
    // The daemon has Secrets of its own.
    let secrets = async || {
        let mut names = world.names("v1", "secrets").await;
        names.retain(|name| !name.contains("windlass"));
        names
    };
    let says = async |name: &str| world.get("v1", "secrets", name).await["data"]["key"].clone();

    let next = world.commit("Second", &[("shop/all.yaml", &guarded("ok2", "new", &["extra"]))]);
    world.wait_for("shop", Phase::Paused, &next).await;
    let reads = async |name: &str| {
        let volumes = deployment(&world, name).await["spec"]["template"]["spec"]["volumes"].clone();
        let sources = volumes[1]["projected"]["sources"].as_array().unwrap().iter();
        let of = |source: &Value| {
            source["secret"]["name"].as_str().or(source["configMap"]["name"].as_str()).unwrap().to_owned()
        };
        (volumes[0]["secret"]["secretName"].clone(), sources.map(of).collect::<Vec<_>>())
    };
    let expected = ["keys-preview", "extra", "settings"].map(String::from).to_vec();
    assert_eq!(reads("web-preview").await, (json!("login-preview"), expected));
    assert_eq!(secrets().await, ["extra", "keys", "keys-preview", "login", "login-preview"]);
    let (old, new) = (json!("b2xk"), json!("bmV3"));
    for name in ["keys", "login"] {
        assert_eq!((says(name).await, says(&format!("{name}-preview")).await), (old.clone(), new.clone()));
    }
    let [fence, store, monitor] =
        specs(&world, ["fence-preview", "store-peers-preview", "web-preview"]).await;
    let preview = json!({"matchLabels": {"app": "web-preview"}});
    assert_eq!((&fence["podSelector"], &fence["ingress"]), (&preview, &before[0]["ingress"]));
    let from = json!([{"from": [{"podSelector": preview}]}]);
    assert_eq!((&store["podSelector"], &store["ingress"]), (&before[1]["podSelector"], &from));
    let ports = &monitor["podMetricsEndpoints"];
    assert_eq!((&monitor["selector"], ports), (&preview, &before[2]["podMetricsEndpoints"]));
    assert_eq!(specs(&world, ["fence", "store", "web"]).await, before, "those of stable stay");

    ask(&world, "promote");
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(secrets().await, ["extra", "keys", "login"]);
    assert_eq!((says("login").await, says("keys").await), (new.clone(), new));
    let expected = ["keys", "extra", "settings"].map(String::from).to_vec();
    assert_eq!(reads("web").await, (json!("login"), expected));
    assert_eq!(world.names("networking.k8s.io/v1", "networkpolicies").await, ["fence", "store"]);
    assert_eq!(world.names("monitoring.coreos.com/v1", "podmonitors").await, ["web"]);
    assert_eq!(specs(&world, ["fence", "store", "web"]).await, before);
}
