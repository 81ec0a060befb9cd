//! With no change nothing is asked and nothing is written; a change costs what it must and no more.

use crate::requests_are_counted::since_it_was_slow;
use crate::support::cluster::{Audited, Cluster, Space, try_send, wait_until};
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::support::faults::Fault;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use windlass::api::delivery::Phase;

/// What is done anyhow: the Lease is renewed, and watches are opened again now and then.
fn besides_watches_and_lease(requests: Vec<Audited>) -> Vec<Audited> {
    requests.into_iter().filter(|r| r.resource != "leases" && r.verb != "watch").collect()
}

pub async fn settled(world: &World, commit: &str) {
    world.wait_for("shop", Phase::Ready, commit).await;
    world.wait_fetched(commit).await;
    quiet(world).await;
}

/// Waits until the daemon has asked for nothing for a moment: Events and words follow a change.
async fn quiet(world: &World) {
    quiet_for(world, Duration::from_millis(1500)).await;
}

/// The same for so long: a daemon that asks at rest never comes to an end of it.
async fn quiet_for(world: &World, time: Duration) {
    wait_until("it is quiet", LIMIT, || async {
        let audit = world.space.cluster.audit();
        tokio::time::sleep(time).await;
        let requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
        if requests.is_empty() { Ok(()) } else { Err(format!("{requests:?}")) }
    })
    .await;
}

async fn deployed(test: &str, template: serde_json::Value) -> (World, String) {
    let world = World::new(test).await;
    let commit = world.commit(
        "First",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 1)),
            ("shop/settings.yaml", &config_map("settings", "1")),
        ],
    );
    world.deliver("shop", template).await;
    settled(&world, &commit).await;
    (world, commit)
}

#[tokio::test]
async fn without_a_change_nothing_is_asked() {
    let (world, _) = deployed("quiet", json!({"interval": "1s"})).await;
    world
        .repository(json!({"interval": "1s", "deliveries": [{"path": "shop", "template": {
        "targetNamespace": world.space.name, "timeout": "3m", "retryInterval": "2s", "interval": "1s"}}]}))
        .await;
    // The point is that time passes and nothing happens: three full comparisons, and as many looks at Git.
    quiet_for(&world, Duration::from_millis(3500)).await;
}

#[tokio::test]
async fn what_is_depended_on_and_hooks_that_ran_cost_nothing_at_rest() {
    let world = World::new("atrest").await;
    let hook = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: test, annotations: {windlass.dev/hook: after-apply}}\n\
                spec:\n  template: {spec: {restartPolicy: Never, containers: [{name: it, image: \"registry.example.com/it:ok\"}]}}\n";
    let commit = world.commit(
        "Two",
        &[
            ("base/base.yaml", &config_map("base", "1")),
            ("shop/it.yaml", &config_map("it", "1")),
            ("shop/test.yaml", hook),
        ],
    );
    world.repository(json!({"interval": "1s"})).await;
    world.deliver_by_hand("base", "base", json!({"interval": "1s"})).await;
    let on = json!([
        {"name": "base"}, {"kind": "Repository", "name": "config"},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "base", "ready": "object.data.key == '1'"},
    ]);
    world.deliver_by_hand("shop", "shop", json!({"interval": "1s", "dependsOn": on})).await;
    settled(&world, &commit).await;
    // The point is that time passes and nothing happens.
    quiet_for(&world, Duration::from_millis(3500)).await;
}

#[tokio::test]
async fn what_differs_and_is_only_told_costs_nothing_at_rest() {
    let template = json!({"interval": "1s", "drift": {"mode": "Report"}});
    let (world, _) = deployed("differs", template).await;
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "2"}})).await;
    world.wait_report("one differs", |r| r.count == 1).await;
    // The point is that time passes and nothing happens.
    quiet_for(&world, Duration::from_millis(3500)).await;
}

#[tokio::test]
async fn a_restart_over_a_settled_state_writes_nothing() {
    let (mut world, commit) = deployed("again", json!({})).await;
    // Longer than words wait.
    quiet_for(&world, Duration::from_secs(6)).await;
    let before = world.deliveries().get("shop").await.unwrap().metadata.resource_version;
    let audit = world.space.cluster.audit();
    world.restart().await;
    wait_until("the new daemon reads the objects", LIMIT, || async {
        let requests = audit.in_namespace(&world.space.name);
        let seen = requests.iter().any(|r| r.resource == "deliveries" && r.verb == "list");
        if seen { Ok(()) } else { Err(format!("{} requests", requests.len())) }
    })
    .await;
    quiet(&world).await;
    let mut writes = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    writes.retain(|r| !r.is_read());
    assert!(writes.is_empty(), "{writes:#?}");
    let after = world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(after.metadata.resource_version, before);
    // What there is to read does not grow with the objects: a list for each kind at most, and no object by itself.
    let requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    assert!(requests.iter().all(|r| r.resource != "configmaps" || r.name.is_empty()), "{requests:#?}");
}

#[tokio::test]
async fn a_restart_watches_the_objects_before_all_deliveries_are_listed() {
    let (mut world, _) = deployed("ahead", json!({})).await;
    world.kill();
    let faults = world.behind_faults().await;
    faults.set(|request| {
        let query = request.uri().query().unwrap_or_default();
        let all = request.uri().path().ends_with("/deliveries") && query.contains("limit=500");
        all.then_some(Fault::Hang)
    });
    let watched = wait_until("the kinds are watched", LIMIT, || async {
        let of = |kind: &str| faults.count(|_, uri| uri.contains(kind) && uri.contains("watch=true"));
        let watches = ["/configmaps?", "/deployments?"].map(of);
        if watches.iter().all(|n| *n > 0) { Ok(()) } else { Err(format!("{watches:?} watches")) }
    });
    tokio::pin!(watched);
    // What is read ahead has half a second: on a machine that stalls a daemon may miss it, and the next one does not.
    loop {
        world.restart().await;
        if tokio::time::timeout(std::time::Duration::from_secs(20), &mut watched).await.is_ok() {
            return;
        }
    }
}

#[tokio::test]
async fn repositories_that_begin_together_are_shown_their_deliveries_and_list_none() {
    let mut world = World::stopped("together").await;
    let faults = world.behind_faults().await;
    world.start();
    let names = ["one", "two", "three", "four"];
    let commit = |world: &World, value: &str| {
        let files = names.map(|n| (format!("{n}/it.yaml"), config_map(n, value)));
        let files: Vec<_> = files.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
        world.commit(value, &files)
    };
    let first = commit(&world, "1");
    for name in names {
        let template = json!({"targetNamespace": world.space.name, "retryInterval": "2s"});
        let deliveries = json!([{"path": name, "template": template}]);
        let spec = json!({"url": world.repo.path(), "interval": "30s", "deliveries": deliveries});
        world.apply("Repository", name, json!({"spec": spec})).await;
    }
    for name in names {
        world.wait_for(name, Phase::Ready, &first).await;
    }
    // Each has to look again for the Deliveries that it made, and the first list of them is late.
    world.kill();
    let second = commit(&world, "2");
    // What is read ahead of it is late, too.
    let (mut late, listed) = (3, Arc::new(Mutex::new(Vec::new())));
    let by_name = listed.clone();
    faults.set(move |request| {
        let query = request.uri().query().unwrap_or_default();
        if request.method() != "GET"
            || !request.uri().path().ends_with("/deliveries")
            || query.contains("watch=")
        {
            return None;
        }
        if query.contains("labelSelector") {
            by_name.lock().unwrap().push(request.uri().to_string());
        }
        let refused = late > 0;
        late -= i32::from(refused);
        refused.then_some(Fault::Status(503, None))
    });
    world.restart().await;
    for name in names {
        world.wait_for(name, Phase::Ready, &second).await;
        wait_until(&format!("{name} has looked at its Deliveries"), LIMIT, || async {
            let status = world.repositories().get(name).await.map_err(|e| e.to_string())?.status;
            let revision = status.and_then(|s| s.revision).unwrap_or_default();
            if revision.ends_with(&second) { Ok(()) } else { Err(revision) }
        })
        .await;
    }
    assert_eq!(*listed.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_commit_elsewhere_costs_the_delivery_nothing() {
    let (world, commit) = deployed("elsewhere", json!({})).await;
    // Longer than words wait.
    quiet_for(&world, Duration::from_secs(6)).await;
    let before = world.deliveries().get("shop").await.unwrap();
    let audit = world.space.cluster.audit();
    let other = world.commit("Elsewhere", &[("other/it.txt", "1"), ("read.me", "2")]);
    world.wait_fetched(&other).await;
    quiet(&world).await;
    let requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    let about: Vec<_> =
        requests.iter().filter(|r| !["repositories", "events"].contains(&r.resource.as_str())).collect();
    assert!(about.iter().all(|r| r.resource == "deliveries" && r.is_read()), "{about:#?}");
    let after = world.deliveries().get("shop").await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
    assert!(after.status.unwrap().revision.unwrap().ends_with(&commit));
}

#[tokio::test]
async fn a_changed_object_costs_two_requests_and_a_delivery_three_writes() {
    let world = World::new("budget").await;
    let all = |value: &str| -> Vec<(String, String)> {
        (0..10)
            .map(|n| {
                (format!("shop/{n}.yaml"), config_map(&format!("it-{n}"), if n < 5 { value } else { "same" }))
            })
            .collect()
    };
    let commit = |value: &str| {
        let all = all(value);
        let files: Vec<(&str, &str)> = all.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
        world.commit(value, &files)
    };
    let first = commit("one");
    world.deliver("shop", json!({})).await;
    settled(&world, &first).await;
    let audit = world.space.cluster.audit();
    let second = commit("two");
    settled(&world, &second).await;
    let requests = besides_watches_and_lease(audit.in_namespace(&world.space.name));
    let (objects, own): (Vec<_>, Vec<_>) = requests.into_iter().partition(|r| r.resource == "configmaps");
    assert_eq!(objects.len(), 10, "a dry-run and an apply for each of the five: {objects:#?}");
    assert_eq!(world.writes(&audit).len(), 5);
    let own: Vec<_> = own.into_iter().filter(|r| !r.is_read() && r.resource != "repositories").collect();
    let slow = since_it_was_slow(&own.iter().collect::<Vec<_>>());
    assert!(own.len() <= 3 + slow, "{own:#?}");
}

/// Objects of several kinds, as one account delivers them.
fn several_kinds(dir: &str) -> Vec<(String, String)> {
    let meta = |kind: &str, api: &str, rest: &str| {
        format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: it}}\n{rest}")
    };
    let all = [
        ("web", deployment("web", "ok", 1)),
        ("settings", config_map("settings", "1")),
        ("secret", meta("Secret", "v1", "stringData: {key: value}\n")),
        ("service", meta("Service", "v1", "spec: {selector: {app: web}, ports: [{port: 80}]}\n")),
        ("account", meta("ServiceAccount", "v1", "")),
        (
            "cron",
            meta(
                "CronJob",
                "batch/v1",
                "spec: {schedule: \"0 0 1 1 *\", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, \
                 containers: [{name: it, image: \"registry.example.com/it:ok\"}]}}}}}\n",
            ),
        ),
        (
            "policy",
            meta(
                "NetworkPolicy",
                "networking.k8s.io/v1",
                "spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}\n",
            ),
        ),
        (
            "budget",
            meta(
                "PodDisruptionBudget",
                "policy/v1",
                "spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}\n",
            ),
        ),
    ];
    all.into_iter().map(|(name, text)| (format!("{dir}/{name}.yaml"), text)).collect()
}

#[tokio::test]
async fn over_a_full_interval_nothing_but_the_lease_whatever_the_kinds_and_the_accounts() {
    // Of its own, so that every request of the daemon counts, whatever it is about.
    let cluster = Cluster::own();
    let mut world = World::stopped_in(cluster, "interval").await;
    let other = Space::of(cluster, "interval-too").await;
    world.everywhere = true;
    let every = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    world.space.account("one", every.clone()).await;
    other.account("two", every).await;
    let mut files = several_kinds("one");
    files.extend(several_kinds("two"));
    let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    let commit = world.commit("Two of everything", &files);
    world.start();
    world.repository(json!({"interval": "5s"})).await;
    world.deliver_by_hand("one", "one", json!({"serviceAccountName": "one", "interval": "10s"})).await;
    // The other account is in another namespace, and so are its Repository and its Delivery.
    let resource = |kind: &str, plural: &str, name: &str, spec: serde_json::Value| {
        let path =
            format!("{}/{name}?fieldManager=test&force=true", other.path("windlass.dev/v1alpha1", plural));
        (
            path,
            json!({"apiVersion": "windlass.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}),
        )
    };
    let repository = json!({"url": world.repo.path(), "interval": "5s"});
    let delivery = json!({"source": {"repository": "config", "path": "two"}, "targetNamespace": other.name,
        "serviceAccountName": "two", "interval": "10s", "timeout": "3m", "retryInterval": "2s"});
    for (path, body) in [
        resource("Repository", "repositories", "config", repository),
        resource("Delivery", "deliveries", "two", delivery),
    ] {
        other.send("APPLY", &path, &body).await;
    }
    world.wait_for("one", Phase::Ready, &commit).await;
    wait_until("the other is ready", LIMIT, || async {
        let path = format!("{}/two", other.path("windlass.dev/v1alpha1", "deliveries"));
        let found = try_send(&other.connection.client, "GET", &path, &serde_json::Value::Null).await;
        let phase = found.map_err(|e| e.to_string())?["status"]["phase"].clone();
        if phase == "Ready" { Ok(()) } else { Err(phase.to_string()) }
    })
    .await;
    // Events, words and the first look at what controllers did come after a deployment, for a while.
    wait_until("it is quiet, and lives", LIMIT, || async {
        let audit = cluster.audit();
        // The point is that a full interval passes, and nothing happens.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let requests = audit.by_agent("windlass/");
        let renewed = requests.iter().any(|r| r.resource == "leases");
        let requests = besides_watches_and_lease(requests);
        if renewed && requests.is_empty() { Ok(()) } else { Err(format!("renewed {renewed}: {requests:#?}")) }
    })
    .await;
    // And it watches: what changes is seen, as either account.
    for space in [&world.space, &other] {
        let path = format!("{}/settings?fieldManager=hand", space.path("v1", "configmaps"));
        space.send("PATCH", &path, &json!({"data": {"key": "2"}})).await;
        wait_until("it is mended", LIMIT, || async {
            let found = try_send(&space.connection.client, "GET", &path, &serde_json::Value::Null).await;
            let key = found.map_err(|e| e.to_string())?["data"]["key"].clone();
            if key == "1" { Ok(()) } else { Err(key.to_string()) }
        })
        .await;
    }
    drop(world);
    drop(other);
    cluster.stop();
}
