//! Where only the API server can tell whether an object differs it is asked, once. An answer that does not come is never taken
//! for "in sync", and one that came counts for as long as the server is of the same version.

use crate::late_requests_leave_nothing_behind::label;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, condition, config_map};
use crate::support::faults::{Fault, Faults, is_dry_run, is_watch};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::names::{DELIVERY_LABEL, FIELD_MANAGER};

/// A Delivery that runs, and whose drift is only told, behind an API server that can be made to fail.
async fn deployed(
    test: &str,
    rule: impl FnMut(&axum::extract::Request) -> Option<Fault> + Send + 'static,
) -> (World, Faults) {
    let mut world = World::stopped(test).await;
    let faults = world.behind_faults().await;
    faults.set(rule);
    world.start();
    let names = ["it", "first", "second", "third"];
    let files = names.map(|name| (format!("shop/{name}.yaml"), config_map(name, "1")));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let commit = world.commit("It", &files);
    world.deliver("shop", json!({"drift": {"mode": "Report"}})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    (world, faults)
}

/// Has our own manager write a value: whether it is what an apply of the manifest comes to, only the server knows.
async fn write_as_us(world: &World, value: &str) -> Value {
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"key": value},
        "metadata": {"name": "it", "namespace": world.space.name, "labels": {DELIVERY_LABEL: label(world)}},
    });
    let path = format!("{}/it?fieldManager={FIELD_MANAGER}&force=true", world.space.path("v1", "configmaps"));
    world.space.send("APPLY", &path, &body).await
}

fn tries_it(request: &axum::extract::Request) -> bool {
    is_dry_run(request) && request.uri().path().ends_with("/configmaps/it")
}

fn asked(faults: &Faults) -> usize {
    faults.count(|_, uri| uri.contains("/configmaps/it?") && uri.contains("dryRun=All"))
}

#[tokio::test]
async fn what_may_not_be_tried_is_told_as_it_reads() {
    let refused = |request: &axum::extract::Request| {
        let forbidden = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"});
        tries_it(request).then(|| Fault::Refuse(403, forbidden.to_string()))
    };
    let (world, faults) = deployed("refuseddry", |_| None).await;
    faults.set(refused);
    let before = asked(&faults);
    write_as_us(&world, "2").await;
    let report = world.wait_report("it is told", |r| r.count == 1).await;
    assert_eq!((report.objects[0].name.as_str(), report.objects[0].state.as_str()), ("it", "Modified"));
    assert_eq!(asked(&faults), before + 1, "asked once");
    let drifted = |d: &windlass::api::Delivery| condition(d, kind::DRIFTED).0 == "True";
    world.wait("shop", "drift", drifted).await;
}

#[tokio::test]
async fn what_could_not_be_tried_is_not_known() {
    let (world, faults) = deployed("failingdry", |_| None).await;
    faults.set(|request| tries_it(request).then_some(Fault::Status(503, None)));
    write_as_us(&world, "2").await;
    let unknown = |d: &windlass::api::Delivery| condition(d, kind::DRIFTED).0 == "Unknown";
    let delivery = world.wait("shop", "not compared", unknown).await;
    let (_, reason, message) = condition(&delivery, kind::DRIFTED);
    assert_eq!(reason, "NotCompared");
    let words = format!("ConfigMap {}/it could not be compared: ", world.space.name);
    assert!(message.starts_with(&words), "{message}");
    // It is tried again, and meanwhile nothing is said to be in sync.
    let tried = asked(&faults);
    wait_until("it is tried again", LIMIT, || async {
        if asked(&faults) > tried { Ok(()) } else { Err(format!("{tried}")) }
    })
    .await;
    assert!(unknown(&world.deliveries().get("shop").await.unwrap()));
    faults.set(|_| None);
    world.wait_report("it is told", |r| r.count == 1 && r.objects[0].name == "it").await;
    world.wait("shop", "drift", |d| condition(d, kind::DRIFTED).0 == "True").await;
}

/// An admission policy of this namespace that makes 2 of a 1. Answers where its two objects are.
async fn make_policy(world: &mut World) -> [String; 2] {
    let name = world.space.name.clone();
    let base = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "reinvocationPolicy": "Never", "failurePolicy": "Ignore",
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]},
            "matchConditions": [{"name": "one", "expression": "object.metadata.name == 'it' && object.data.key == '1'"}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'replace', path: '/data/key', value: '2'}]"}}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}},
    });
    let kinds =
        ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"].map(|kind| format!("{base}/{kind}"));
    world.space.make_cluster_object(&kinds[0], &policy).await;
    world.space.make_cluster_object(&kinds[1], &binding).await;
    answers(world, "2").await;
    kinds.map(|kind| format!("{kind}/{name}"))
}

/// Waits until the server makes this of a 1.
async fn answers(world: &World, value: &str) {
    wait_until("the policy counts, or not any more", LIMIT, || async {
        let path = format!("{}/it?fieldManager=probe&dryRun=All", world.space.path("v1", "configmaps"));
        let answer = world.space.send("PATCH", &path, &json!({"data": {"key": "1", "probe": "1"}})).await;
        if answer["data"]["key"] == value { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

async fn settled_by(world: &World) -> Option<String> {
    let status = world.deliveries().get("shop").await.unwrap().status.unwrap();
    status.inventory.into_iter().find(|e| e.name == "it").unwrap().settled_by
}

/// Has the daemon look at the Delivery, by an edit of another object of it, and waits until it has.
async fn look(world: &World, other: &str) {
    world.patch("v1", "configmaps", other, json!({"data": {"key": "by hand"}})).await;
    world.wait_report("the other is told", |r| r.objects.iter().any(|o| o.name == other)).await;
}

#[tokio::test]
async fn the_answer_counts_as_long_as_the_server_is_of_the_same_version() {
    // Watches end soon, so that the daemon notices when the server is away.
    let soon = |request: &axum::extract::Request| is_watch(request).then_some(Fault::EndAfter(2));
    let (mut world, faults) = deployed("version", soon).await;
    let policy = make_policy(&mut world).await;
    assert_eq!(write_as_us(&world, "1").await["data"]["key"], "2");
    wait_until("asked, and remembered", LIMIT, || async {
        settled_by(&world).await.map(|_| ()).ok_or_else(|| "nothing is".to_owned())
    })
    .await;
    let version = settled_by(&world).await.unwrap();
    assert!(version.starts_with("v1."), "{version}");
    look(&world, "first").await;
    world.restart().await;
    let before = asked(&faults);
    look(&world, "second").await;
    assert_eq!(asked(&faults), before, "the answer is remembered, also through a restart");

    // The server goes, and another version comes, which makes something else of the manifest.
    for path in &policy {
        world.space.send("DELETE", path, &Value::Null).await;
    }
    answers(&world, "1").await;
    faults.set(|request| is_watch(request).then_some(Fault::Status(503, None)));
    let watched = || faults.count(|_, uri| uri.contains("/configmaps?") && uri.contains("watch=true"));
    let before = watched();
    wait_until("its watch is refused", LIMIT, || async {
        if watched() > before { Ok(()) } else { Err(format!("{before} watches")) }
    })
    .await;
    faults.set(|request| {
        let info = json!({"major": "1", "minor": "99", "gitVersion": "v1.99.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        (request.uri().path() == "/version").then(|| Fault::Answer(info.to_string()))
    });
    look(&world, "third").await;
    world
        .wait_report("it is told", |r| r.objects.iter().any(|o| o.name == "it" && o.state == "Modified"))
        .await;
}
