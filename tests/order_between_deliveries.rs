//! A Delivery begins a revision when what it depends on is ready, the moment it is, and not before.

use crate::support::cluster::{Audited, Cluster, Space, wait_until};
use crate::support::daemon::{LIMIT, World, condition, config_map, deployment};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::open_gates;
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse().unwrap_or(0)
}

/// Whether a Delivery waits, and for what.
fn waits_for(delivery: &Delivery) -> Option<String> {
    let status = delivery.status.as_ref()?;
    let waiting = status.waiting.as_ref().filter(|_| status.phase == Phase::Pending)?;
    Some(format!("{}: {}", waiting.problem.object, waiting.problem.message))
}

async fn wait_cycle(world: &World, name: &str, way: &str) {
    world
        .wait(name, way, |d| {
            let conditions = d.status.iter().flat_map(|s| &s.conditions);
            conditions
                .into_iter()
                .any(|c| c.type_ == kind::STALLED && c.reason == "DependencyCycle" && c.message.contains(way))
        })
        .await;
}

#[tokio::test]
async fn a_dependent_starts_when_its_dependency_is_ready_also_with_the_same_commit() {
    let world = World::new("dependent").await;
    // Healthy when this test says so.
    let shut = deployment("db", "ok", 1).replace(
        "spec: {containers",
        "spec: {readinessGates: [{conditionType: example.com/open}], containers",
    );
    let first = world.commit(
        "Both",
        &[
            ("apps/db/db.yaml", &shut),
            ("apps/web/web.yaml", &config_map("web", "1")),
            ("apps/web/windlass.yaml", "dependsOn: [{name: db}]\nretryInterval: 1h\n"),
        ],
    );
    world.deliver("apps/*", json!({})).await;
    let waiting = world.wait("web", "waits", |d| waits_for(d).is_some()).await;
    let (ready, reason, message) = condition(&waiting, kind::READY);
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "DependencyNotReady"));
    assert!(message.contains(&format!("Delivery {}/db", world.space.name)), "{message}");
    assert!(world.get("v1", "configmaps", "web").await.is_null(), "nothing of it is applied");
    open_gates(&world).await;
    world.wait_for("web", Phase::Ready, &first).await;
    let db = version(&world.get("apps/v1", "deployments", "db").await);
    assert!(db < version(&world.get("v1", "configmaps", "web").await), "db was healthy before");

    // Both change with one commit while db is ready by the old one.
    let second = world.commit(
        "Both again",
        &[("apps/db/db.yaml", &deployment("db", "slow", 2)), ("apps/web/web.yaml", &config_map("web", "2"))],
    );
    world.wait_for("web", Phase::Ready, &second).await;
    world.wait_for("db", Phase::Ready, &second).await;
    let db = world.get("apps/v1", "deployments", "db").await;
    assert_eq!(db["spec"]["replicas"], 2);
    assert!(version(&db) < version(&world.get("v1", "configmaps", "web").await), "not against the old db");

    // One that fails holds its dependents, and what runs of them goes on running.
    let bad = world.commit(
        "Both, and db is broken",
        &[
            ("apps/db/db.yaml", &deployment("db", "missing", 2)),
            ("apps/web/web.yaml", &config_map("web", "3")),
        ],
    );
    world.wait_for("db", Phase::Held, &bad).await;
    let waiting =
        world.wait("web", "waits for db", |d| waits_for(d).is_some_and(|w| w.contains("is held"))).await;
    assert!(condition(&waiting, kind::READY).2.contains(&format!("{second} goes on running")));
    assert_eq!(world.get("v1", "configmaps", "web").await["data"]["key"], "2");
    // A commit that touches only the dependency lets both through.
    let mended = world.commit("Mended", &[("apps/db/db.yaml", &deployment("db", "ok", 2))]);
    world.wait_for("db", Phase::Ready, &mended).await;
    world.wait_object("v1", "configmaps", "web", "the third", |o| o["data"]["key"] == "3").await;
    let web =
        world.wait("web", "Ready", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)).await;
    assert!(web.status.unwrap().waiting.is_none());
}

#[tokio::test]
async fn any_object_and_a_repository_can_be_waited_for() {
    let world = World::new("objects").await;
    world.commit(
        "Four",
        &[
            ("plain/it.yaml", &config_map("plain", "1")),
            ("ruled/it.yaml", &config_map("ruled", "1")),
            ("late/it.yaml", &config_map("late", "1")),
            ("seen/it.yaml", &config_map("seen", "1")),
        ],
    );
    world.repository(json!({})).await;
    let on = |on: Value| json!({"dependsOn": [on], "retryInterval": "1h"});
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "base"});
    world.deliver_by_hand("plain", "plain", on(web)).await;
    let flag = |ready: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "flag", "ready": ready});
    world.deliver_by_hand("ruled", "ruled", on(flag("object.data.go == 'yes'"))).await;
    world.deliver_by_hand("seen", "seen", on(flag("object.data.go == 'off'"))).await;
    world.deliver_by_hand("late", "late", on(json!({"kind": "Repository", "name": "other"}))).await;
    let say = |name: &'static str, what: &'static str| {
        world.wait(name, what, move |d| waits_for(d).is_some_and(|w| w.contains(what)))
    };
    say("plain", "is not in the cluster").await;
    say("ruled", "is not in the cluster").await;
    say("late", "does not exist").await;

    let flag = |go: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flag"}, "data": {"go": go}});
    let path = world.space.path("v1", "configmaps");
    world.space.send("POST", &path, &flag("no")).await;
    say("ruled", "is not ready by the expression").await;
    world.patch("v1", "configmaps", "flag", json!({"data": {"go": "yes"}})).await;
    world.wait_object("v1", "configmaps", "ruled", "applied", Value::is_object).await;

    let base = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "base"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "base"}}, "template": {
            "metadata": {"labels": {"app": "base"}},
            "spec": {"containers": [{"name": "app", "image": "registry.example.com/base:slow"}]}}},
    });
    world.space.send("POST", &world.space.path("apps/v1", "deployments"), &base).await;
    world.wait_object("v1", "configmaps", "plain", "applied", Value::is_object).await;
    let base = world.get("apps/v1", "deployments", "base").await;
    assert_eq!(base["status"]["availableReplicas"], 1, "by our own verdict");

    world.apply("Repository", "other", json!({"spec": {"url": world.repo.path(), "interval": "1h"}})).await;
    world.wait_object("v1", "configmaps", "late", "applied", Value::is_object).await;
    // What is not ready any more undoes nothing.
    world.patch("v1", "configmaps", "flag", json!({"data": {"go": "off"}})).await;
    world.wait_object("v1", "configmaps", "seen", "applied: the daemon knows", Value::is_object).await;
    world.delete("apps/v1", "deployments", "base").await;
    let commit = world.commit("Another", &[("ruled/it.yaml", &config_map("ruled", "2"))]);
    world.wait_fetched(&commit).await;
    say("ruled", "is not ready by the expression").await;
    assert_eq!(world.get("v1", "configmaps", "ruled").await["data"]["key"], "1");
    assert!(world.get("v1", "configmaps", "plain").await.is_object());
}

#[tokio::test]
async fn a_mistake_in_an_expression_is_told_at_once() {
    let world = World::new("expression").await;
    let commit = world.commit("It", &[("shop/it.yaml", &config_map("it", "1"))]);
    world.repository(json!({})).await;
    let on = |ready: &str| json!({"dependsOn": [{"apiVersion": "v1", "kind": "Pod", "name": "it", "ready": ready}]});
    world.deliver_by_hand("shop", "shop", on("status.phase == 'Running'")).await;
    // That its Repository does not exist may be told first, by a daemon that has not seen it yet.
    let refused = |d: &Delivery| {
        let failed = d.status.as_ref().is_some_and(|s| s.phase == Phase::Failed);
        failed && condition(d, kind::STALLED).1 == "InvalidDependency"
    };
    let told = world.wait("shop", "refused", refused).await;
    for about in [kind::STALLED, kind::READY] {
        let (_, reason, message) = condition(&told, about);
        assert_eq!(reason, "InvalidDependency");
        assert!(
            message.contains("spec.dependsOn[0] (it): ready: the expression names \"status\""),
            "{message}"
        );
    }
    world.wait_event("shop", "InvalidDependency").await;
    assert!(world.get("v1", "configmaps", "it").await.is_null());
    // Without it nothing is waited for.
    world.deliver_by_hand("shop", "shop", json!({"dependsOn": []})).await;
    let delivery = world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(condition(&delivery, kind::STALLED).0, "False");
}

#[tokio::test]
async fn deliveries_that_wait_for_each_other_are_all_told_the_cycle() {
    let world = World::new("cycle").await;
    let on = |name: &str| format!("dependsOn: [{{name: {name}}}]\n");
    let mut files: Vec<(String, String)> = Vec::new();
    for (name, dependency) in [("a", "b"), ("b", "c"), ("c", "a"), ("outside", "a")] {
        files.push((format!("{name}/windlass.yaml"), on(dependency)));
        files.push((format!("{name}/it.yaml"), config_map(name, "1")));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    world.commit("Round and round", &files);
    world.deliver("*", json!({})).await;
    wait_cycle(&world, "a", "a -> b -> c -> a").await;
    wait_cycle(&world, "b", "b -> c -> a -> b").await;
    wait_cycle(&world, "c", "c -> a -> b -> c").await;
    let outside = world.wait("outside", "waits", |d| waits_for(d).is_some()).await;
    assert_eq!(condition(&outside, kind::STALLED).0, "False", "it is no member");
    let commit = world.commit("Straight", &[("c/windlass.yaml", "")]);
    for name in ["a", "b", "c", "outside"] {
        let delivery =
            world.wait(name, "Ready", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)).await;
        assert_eq!(condition(&delivery, kind::STALLED).0, "False");
    }
    world.wait_fetched(&commit).await;
}

#[tokio::test]
async fn another_namespace_is_waited_for_only_where_it_allows_that() {
    let cluster = Cluster::own();
    let mut world = World::stopped_in(cluster, "near").await;
    let far = Space::of(cluster, "far").await;
    world.everywhere = true;
    world.start();
    let commit = world.commit(
        "Near and far",
        &[("web/it.yaml", &config_map("web", "1")), ("db/it.yaml", &config_map("db", "1"))],
    );
    world.repository(json!({})).await;
    let make = |plural: &'static str, kind: &'static str, name: &'static str, spec: Value| {
        let body = json!({"apiVersion": "windlass.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let far = &far;
        async move { far.send("POST", &far.path("windlass.dev/v1alpha1", plural), &body).await }
    };
    make("repositories", "Repository", "config", json!({"url": world.repo.path(), "interval": "30s"})).await;
    let db = json!({"source": {"repository": "config", "path": "db"}, "targetNamespace": far.name});
    make("deliveries", "Delivery", "db", db).await;
    let path = format!("{}/db", far.path("windlass.dev/v1alpha1", "deliveries"));
    wait_until("db is ready", LIMIT, || async {
        let db = far.send("GET", &path, &Value::Null).await;
        if db["status"]["phase"] == "Ready" { Ok(()) } else { Err(db["status"].to_string()) }
    })
    .await;
    // One that is there and does not allow it reads as one that is not there.
    let on =
        |name: &str| json!({"dependsOn": [{"name": name, "namespace": far.name}], "retryInterval": "1h"});
    world.deliver_by_hand("web", "web", on("db")).await;
    world.deliver_by_hand("ghost", "web", on("ghost")).await;
    let mut told = Vec::new();
    for name in ["web", "ghost"] {
        let waiting = world.wait(name, "waits", |d| waits_for(d).is_some()).await;
        let problem = waiting.status.unwrap().waiting.unwrap().problem;
        told.push(problem.message);
    }
    assert_eq!(told[0], told[1]);
    assert!(
        told[0].contains("spec.allowDependentsFrom") && told[0].contains(&world.space.name),
        "{}",
        told[0]
    );
    far.send("PATCH", &path, &json!({"spec": {"allowDependentsFrom": [world.space.name]}})).await;
    world.wait_for("web", Phase::Ready, &commit).await;
    for name in ["web", "ghost"] {
        world.delete("windlass.dev/v1alpha1", "deliveries", name).await;
        world.wait_gone(name).await;
    }
    far.send("DELETE", &path, &Value::Null).await;
    wait_until("db is gone", LIMIT, || async {
        let list = far.send("GET", &far.path("windlass.dev/v1alpha1", "deliveries"), &Value::Null).await;
        if list["items"] == json!([]) { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
    drop((far, world));
    cluster.stop();
}

#[tokio::test]
async fn what_is_deleted_together_goes_in_the_reverse_order() {
    let world = World::new("deleted").await;
    let commit = world.commit(
        "Three",
        &[
            ("a/it.yaml", &config_map("a", "1")),
            ("b/it.yaml", &config_map("b", "1")),
            ("c/it.yaml", &config_map("c", "1")),
        ],
    );
    world.repository(json!({})).await;
    world.deliver_by_hand("a", "a", json!({})).await;
    world.deliver_by_hand("b", "b", json!({"dependsOn": [{"name": "a"}]})).await;
    world.deliver_by_hand("c", "c", json!({"dependsOn": [{"name": "b"}]})).await;
    world.wait_for("c", Phase::Ready, &commit).await;
    // Held by a finalizer, so that there is time to see who waits.
    let hold = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    world.patch("v1", "configmaps", "c", hold(json!(["example.com/hold"]))).await;
    for name in ["c", "b", "a"] {
        world.delete("windlass.dev/v1alpha1", "deliveries", name).await;
    }
    for (name, after) in [("b", "/c"), ("a", "/b")] {
        let told = world
            .wait(name, "waits to be deleted", |d| {
                condition(d, kind::READY).2.contains("which depends on it")
            })
            .await;
        assert!(condition(&told, kind::READY).2.contains(after));
        assert!(world.get("v1", "configmaps", name).await.is_object());
    }
    world.patch("v1", "configmaps", "c", hold(Value::Null)).await;
    for name in ["c", "b", "a"] {
        world.wait_gone(name).await;
        assert!(world.get("v1", "configmaps", name).await.is_null());
    }
}

/// Deliveries of the chain.
const CHAIN: usize = 50;

#[tokio::test]
async fn a_chain_of_fifty_takes_the_time_of_its_own_work_and_no_request_for_waiting() {
    let world = World::new("chain").await;
    let files = |value: &str| -> Vec<(String, String)> {
        let each = |n: usize| {
            let name = format!("link-{n:02}");
            let mut files = vec![(format!("apps/{name}/it.yaml"), config_map(&name, value))];
            if n > 0 {
                let on = format!("dependsOn: [{{name: link-{:02}}}]\n", n - 1);
                files.push((format!("apps/{name}/windlass.yaml"), on));
            }
            files
        };
        (0..CHAIN).flat_map(each).collect()
    };
    let commit = |value: &str| {
        let files = files(value);
        let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        world.commit(value, &files)
    };
    // Were anything polled or tried again by the clock, the chain would take hours: the limit of the wait is the test.
    let slow = json!({"retryInterval": "1h", "interval": "1h", "timeout": "1h"});
    let settled = |commit: String| {
        let world = &world;
        async move {
            wait_until("the chain is ready", LIMIT * 2, || async {
                let all = world.deliveries().list(&Default::default()).await.map_err(|e| e.to_string())?;
                let ready = |d: &&Delivery| {
                    d.status.as_ref().is_some_and(|s| {
                        s.phase == Phase::Ready && s.revision.as_ref().is_some_and(|r| r.ends_with(&commit))
                    })
                };
                let count = all.items.iter().filter(ready).count();
                if count == CHAIN { Ok(()) } else { Err(format!("{count} of {CHAIN}")) }
            })
            .await;
            // The events are written behind the statuses, and several at a time.
            for n in 0..CHAIN {
                world.wait_event(&format!("link-{n:02}"), "Deployed").await;
            }
        }
    };
    let first = commit("one");
    world.deliver("apps/*", slow).await;
    settled(first).await;
    let mut versions = Vec::new();
    for n in 0..CHAIN {
        versions.push(version(&world.get("v1", "configmaps", &format!("link-{n:02}")).await));
    }
    assert!(versions.is_sorted(), "one after the other: {versions:?}");

    let audit = world.space.cluster.audit();
    let second = commit("two");
    settled(second).await;
    let requests = audit.in_namespace(&world.space.name);
    let mut versions = Vec::new();
    for n in 0..CHAIN {
        versions.push(version(&world.get("v1", "configmaps", &format!("link-{n:02}")).await));
    }
    assert!(versions.is_sorted(), "one after the other: {versions:?}");
    let about = |r: &&Audited| r.resource == "deliveries" && !r.is_read();
    let about_objects = |r: &&Audited| r.resource == "configmaps";
    let objects: Vec<&Audited> =
        requests.iter().filter(about_objects).filter(|r| r.verb == "patch").collect();
    // A dry-run and an apply for each object; begun, done, and for all but the first that it waits. What it waits for may
    // be worded anew while it waits long.
    assert_eq!(objects.len(), 2 * CHAIN, "{objects:#?}");
    // A link that waits asks for nothing until it is told: it is tried once, applied once, and never read.
    for n in 0..CHAIN {
        let name = format!("link-{n:02}");
        let (tries, applies): (Vec<&Audited>, Vec<&Audited>) =
            objects.iter().copied().filter(|r| r.name == name).partition(|r| r.is_read());
        assert_eq!((tries.len(), applies.len()), (1, 1), "{name}");
    }
    let asks = |r: &&Audited| {
        matches!(r.verb.as_str(), "get" | "list")
            && (r.resource == "configmaps" || r.name.starts_with("link-"))
    };
    let asked: Vec<&Audited> = requests.iter().filter(asks).collect();
    assert!(asked.is_empty(), "{asked:#?}");
    let writes = requests.iter().filter(about).count();
    assert!(writes <= 4 * CHAIN, "{writes} writes about {CHAIN} Deliveries");
    let events = requests.iter().filter(|r| r.resource == "events").count();
    assert!(events <= CHAIN, "{events} events");
}
