//! What watches see, and that they see it whatever happens to the label, the rights, the kind and the server.

use crate::support::cluster::{Audited, Cluster, Space, TEST_AGENT, wait_until};
use crate::support::daemon::LIMIT;
use crate::support::faults::{Fault, Faults, is_watch};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::sync::mpsc::UnboundedReceiver;
use windlass::api::names::{DELIVERY_LABEL, delivery_label};
use windlass::cluster::watch::WatchError;
use windlass::cluster::{Cause, Change, Connection, Discovery, Event, Filter};
use windlass::cluster::{PodWatch, PodWatches, ServiceAccount, Watches};
use windlass::core::manifest::{Gvk, ObjectId};

/// What these tests keep of an object: one value.
type Kept = String;

struct Seen {
    space: Space,
    watches: Watches<Kept>,
    changes: UnboundedReceiver<Change<Kept>>,
    label: String,
}

fn maps() -> Gvk {
    Gvk::new("v1", "ConfigMap")
}

impl Seen {
    async fn new(test: &str) -> Self {
        Seen::of(Space::new(test).await)
    }

    fn of(space: Space) -> Self {
        let (connection, discovery) = (space.connection.clone(), space.discovery.clone());
        Seen::over(space, &connection, &discovery)
    }

    /// Watches over another connection.
    fn over(space: Space, connection: &Connection, discovery: &Discovery) -> Self {
        let keep = |object: &Value| object["data"]["key"].as_str().unwrap_or_default().to_string();
        let (watches, changes) = Watches::new(connection, discovery, keep);
        let label = delivery_label("test", &space.name, "shop");
        Seen { space, watches, changes, label }
    }

    fn namespaces(&self) -> BTreeSet<String> {
        BTreeSet::from([self.space.name.clone()])
    }

    /// A ConfigMap of this test's namespace.
    fn at(&self, name: &str) -> ObjectId {
        ObjectId {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: self.space.name.clone(),
            name: name.into(),
        }
    }

    fn map(&self, name: &str, value: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {DELIVERY_LABEL: self.label}}, "data": {"key": value}})
    }

    async fn make(&self, name: &str, value: &str) -> Value {
        self.space.send("POST", &self.space.path("v1", "configmaps"), &self.map(name, value)).await
    }

    async fn patch(&self, name: &str, patch: Value) -> Value {
        let path = format!("{}/{name}", self.space.path("v1", "configmaps"));
        self.space.send("PATCH", &path, &patch).await
    }

    async fn delete(&self, name: &str) {
        let path = format!("{}/{name}", self.space.path("v1", "configmaps"));
        self.space.send("DELETE", &path, &Value::Null).await;
    }

    async fn synced(&self, account: Option<&ServiceAccount>) -> Result<(), WatchError> {
        self.watches.wait_synced(account, &maps(), Filter::Labelled, &self.space.name, LIMIT).await
    }

    /// The next change in this test's namespace (a watch of the cluster sees other tests' objects too).
    async fn next(&mut self) -> Change<Kept> {
        let find = async {
            loop {
                let change = self.changes.recv().await.unwrap();
                if change.id.namespace == self.space.name {
                    return change;
                }
            }
        };
        tokio::time::timeout(LIMIT, find).await.expect("a change was to come")
    }

    async fn next_value(&mut self, name: &str) -> (String, String) {
        let change = self.next().await;
        assert_eq!(change.id.name, name, "{change:?}");
        match change.event {
            Event::Applied(entry) => (change.label.to_string(), entry.kept),
            Event::Gone { .. } => panic!("{change:?}"),
        }
    }

    async fn next_gone(&mut self, name: &str) -> (String, bool) {
        let change = self.next().await;
        assert_eq!(change.id.name, name, "{change:?}");
        match change.event {
            Event::Gone { certain, .. } => (change.label.to_string(), certain),
            Event::Applied(_) => panic!("{change:?}"),
        }
    }
}

#[tokio::test]
async fn changes_arrive_with_the_delivery_that_they_concern() {
    let mut seen = Seen::new("watch").await;
    let label = seen.label.clone();
    let made = seen.make("one", "1").await;
    let plain = json!({"metadata": {"name": "plain"}, "data": {"key": "1"}});
    seen.space.send("POST", &seen.space.path("v1", "configmaps"), &plain).await;
    let _interest = seen.watches.ensure(None, &maps(), Filter::Labelled, &seen.namespaces());
    seen.synced(None).await.unwrap();
    assert_eq!(seen.next_value("one").await, (label.clone(), "1".into()));
    let known = seen.watches.labelled(None, &maps(), Filter::Labelled, &label);
    assert_eq!(known.len(), 1, "what carries no label is not seen");
    assert_eq!(known[0].1.uid.as_ref(), made["metadata"]["uid"].as_str().unwrap());
    assert_eq!(known[0].0.to_string(), format!("ConfigMap {}/one", seen.space.name));

    // What is not kept wakes nobody: the next change that comes is the second one.
    seen.patch("one", json!({"metadata": {"annotations": {"heartbeat": "1"}}})).await;
    seen.patch("one", json!({"data": {"key": "2"}})).await;
    assert_eq!(seen.next_value("one").await, (label.clone(), "2".into()));

    // A label that goes looks like a deletion.
    seen.patch("one", json!({"metadata": {"labels": {DELIVERY_LABEL: null}}})).await;
    assert_eq!(seen.next_gone("one").await, (label.clone(), false));
    assert!(seen.watches.labelled(None, &maps(), Filter::Labelled, &label).is_empty());

    seen.patch("one", json!({"metadata": {"labels": {DELIVERY_LABEL: label}}})).await;
    assert_eq!(seen.next_value("one").await.0, label);
    let other = delivery_label("test", &seen.space.name, "other");
    seen.patch("one", json!({"metadata": {"labels": {DELIVERY_LABEL: other}}})).await;
    assert_eq!(seen.next_gone("one").await, (label.clone(), false), "the old owner is told");
    assert_eq!(seen.next_value("one").await, (other.clone(), "2".into()), "and the new one");

    seen.patch("one", json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    seen.delete("one").await;
    let change = seen.next().await;
    assert!(matches!(&change.event, Event::Applied(entry) if entry.deleting), "{change:?}");
    seen.patch("one", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(seen.next_gone("one").await, (other, true), "it was marked, so it is deleted");
}

#[tokio::test]
async fn knowing_costs_nothing() {
    let mut seen = Seen::new("rest").await;
    let interests: Vec<_> =
        (0..100).map(|_| seen.watches.ensure(None, &maps(), Filter::Labelled, &seen.namespaces())).collect();
    seen.synced(None).await.unwrap();
    assert_eq!(seen.watches.open(), 1, "one watch, however many need it");
    // The watch itself is counted when its answer begins, a moment after the list.
    let before = wait_until("the watch is open", LIMIT, async || {
        let counts = seen.space.connection.counters.snapshot();
        if counts.get(&("watch", "2xx")) == Some(&1) { Ok(counts) } else { Err(format!("{counts:?}")) }
    })
    .await;
    // The test's own requests go over the same connection: they are counted as what they are.
    for round in 0..20 {
        seen.make(&format!("it-{round}"), "1").await;
        seen.next_value(&format!("it-{round}")).await;
    }
    let label = seen.label.clone();
    for _ in 0..100 {
        assert_eq!(seen.watches.labelled(None, &maps(), Filter::Labelled, &label).len(), 20);
    }
    let mut after = seen.space.connection.counters.snapshot();
    let made = before.get(&("create", "2xx")).unwrap_or(&0) + 20;
    assert_eq!(after.insert(("create", "2xx"), made), Some(made));
    let mut before = before;
    before.insert(("create", "2xx"), made);
    assert_eq!(before, after, "no list, no get, no second watch");
    drop(interests);
    assert_eq!(seen.watches.open(), 0, "nobody needs it, nobody pays for it");

    // The same as a tenant, by what the server itself has written down.
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}]);
    let account = seen.space.account("reader", rules).await;
    let _interest = seen.watches.ensure(Some(&account), &maps(), Filter::Labelled, &seen.namespaces());
    wait_until("the role counts", LIMIT, async || {
        seen.synced(Some(&account)).await.map_err(|e| e.to_string())
    })
    .await;
    for _ in 0..20 {
        seen.next().await;
    }
    let audit = seen.space.cluster.audit();
    for round in 0..20 {
        seen.patch(&format!("it-{round}"), json!({"data": {"key": "2"}})).await;
        seen.next_value(&format!("it-{round}")).await;
    }
    let asked = wait_until("the audit log is written", LIMIT, async || {
        let all = audit.in_namespace(&seen.space.name);
        let all: Vec<_> = all.into_iter().filter(|r| r.verb != "watch").map(|r| (r.user, r.verb)).collect();
        let patched = audit.by_agent(TEST_AGENT).iter().filter(|r| r.namespace == seen.space.name).count();
        if patched >= 20 { Ok(all) } else { Err(format!("{patched} of our own")) }
    })
    .await;
    assert!(asked.is_empty(), "{asked:?}");
}

#[tokio::test]
async fn a_tenant_without_rights_in_the_cluster_is_served_by_namespace() {
    let mut seen = Seen::new("scope").await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    let account = seen.space.account("reader", json!([])).await;
    let label = seen.label.clone();
    seen.make("one", "1").await;
    let interest = seen.watches.ensure(Some(&account), &maps(), Filter::Labelled, &seen.namespaces());
    let error = seen.synced(Some(&account)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("may not list configmaps in namespace"), "{text}");
    assert!(text.contains(&format!("service account {account}")), "{text}");

    seen.space.grant("reader", rules).await;
    wait_until("rights that come later count", LIMIT, async || {
        seen.synced(Some(&account)).await.map_err(|e| e.to_string())
    })
    .await;
    assert_eq!(seen.next_value("one").await, (label, "1".into()));
    let elsewhere = BTreeSet::from([format!("{}-nowhere", seen.space.name)]);
    let second = seen.watches.ensure(Some(&account), &maps(), Filter::Labelled, &elsewhere);
    assert_eq!(seen.watches.open(), 2);
    let error = seen
        .watches
        .wait_synced(Some(&account), &maps(), Filter::Labelled, elsewhere.first().unwrap(), LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, WatchError::Failing { cause: Cause::Forbidden { .. }, .. }), "{error}");
    assert!(seen.watches.synced(Some(&account), &maps(), Filter::Labelled, &seen.space.name));
    drop(second);
    assert_eq!(seen.watches.open(), 1);
    drop(interest);
    assert_eq!(seen.watches.open(), 0);
}

#[tokio::test]
async fn a_kind_that_comes_and_goes_and_comes_is_watched_again() {
    let mut space = Space::new("kind").await;
    let group = format!("{}.example.com", space.name);
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    space.forget_later(&format!("{crds}/widgets.{group}"));
    let gvk = Gvk { group: group.clone(), version: "v1".into(), kind: "Widget".into() };
    let mut seen = Seen::of(space);
    let _interest = seen.watches.ensure(None, &gvk, Filter::Labelled, &seen.namespaces());
    let namespace = seen.space.name.clone();
    let error = seen.watches.wait_synced(None, &gvk, Filter::Labelled, &namespace, LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("CustomResourceDefinition"), "{error}");
    let collection = format!("/apis/{group}/v1/namespaces/{namespace}/widgets");
    for round in ["1", "2"] {
        let definitions = [crd.clone()];
        windlass::cluster::crds::install(&seen.space.access, &seen.space.discovery, &definitions, LIMIT)
            .await
            .unwrap();
        wait_until("it is watched", LIMIT, async || {
            seen.watches
                .wait_synced(None, &gvk, Filter::Labelled, &namespace, LIMIT)
                .await
                .map_err(|e| e.to_string())?;
            match seen.watches.sight(None, &gvk, Filter::Labelled, &namespace).failing {
                None => Ok(()),
                failing => Err(format!("{failing:?}")),
            }
        })
        .await;
        let widget = json!({"apiVersion": format!("{group}/v1"), "kind": "Widget",
            "metadata": {"name": "one", "labels": {DELIVERY_LABEL: seen.label}}, "data": {"key": round}});
        seen.space.send("POST", &collection, &widget).await;
        assert_eq!(seen.next_value("one").await.1, round);
        seen.space.send("DELETE", &format!("{crds}/widgets.{group}"), &Value::Null).await;
        loop {
            // Marked first (finalizers of the CRD's clean-up), then gone.
            if let Event::Gone { .. } = seen.next().await.event {
                break;
            }
        }
        wait_until("the kind is gone", LIMIT, async || {
            match seen.watches.sight(None, &gvk, Filter::Labelled, &namespace).failing {
                Some(Cause::KindUnknown { .. }) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn everything_is_seen_where_the_label_does_not_matter() {
    let mut seen = Seen::new("every").await;
    let _interest = seen.watches.ensure(None, &maps(), Filter::Everything, &seen.namespaces());
    let plain = json!({"metadata": {"name": "plain"}, "data": {"key": "1"}});
    seen.space.send("POST", &seen.space.path("v1", "configmaps"), &plain).await;
    loop {
        // The namespace's own `kube-root-ca.crt` comes too.
        let change = seen.next().await;
        if change.id.name == "plain" {
            assert_eq!(change.label.as_ref(), "");
            break;
        }
    }
    let plain = seen.at("plain");
    let found = seen.watches.get(None, &maps(), Filter::Everything, &plain).unwrap();
    assert_eq!(found.kept, "1");
    assert!(seen.watches.get(None, &maps(), Filter::Labelled, &plain).is_none());
}

#[tokio::test]
async fn a_watch_that_the_server_ends_goes_on_where_it_was() {
    let space = Space::new("timeout").await;
    let faults = Faults::before(space.cluster).await;
    faults.set(|request| is_watch(request).then_some(Fault::EndAfter(1)));
    let connection = faults.connect().await;
    let discovery = Discovery::new(connection.client.clone());
    let mut seen = Seen::over(space, &connection, &discovery);
    let _interest = seen.watches.ensure(None, &maps(), Filter::Labelled, &seen.namespaces());
    seen.synced(None).await.unwrap();
    seen.make("it", "0").await;
    seen.next_value("it").await;
    let is = |kind: bool| {
        move |_: &str, uri: &str| uri.contains("/configmaps?") && uri.contains("watch=true") == kind
    };
    // Each change arrives, also one that is made while no watch is open.
    let mut round = 0;
    while faults.count(is(true)) < 5 {
        round += 1;
        seen.patch("it", json!({"data": {"key": round.to_string()}})).await;
        assert_eq!(seen.next_value("it").await.1, round.to_string());
        let sight = seen.watches.sight(None, &maps(), Filter::Labelled, &seen.space.name);
        assert_eq!(sight.failing, None, "an end in time is no failure");
    }
    let held = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let refusing = held.clone();
    faults.set(move |request| {
        is_watch(request).then(|| {
            refusing.store(true, std::sync::atomic::Ordering::SeqCst);
            Fault::Status(503, None)
        })
    });
    wait_until("no watch is open", LIMIT, async || match held.load(std::sync::atomic::Ordering::SeqCst) {
        true => Ok(()),
        false => Err("it is".to_string()),
    })
    .await;
    seen.patch("it", json!({"data": {"key": "while none was open"}})).await;
    seen.delete("it").await;
    faults.set(|_| None);
    assert_eq!(seen.next_value("it").await.1, "while none was open");
    seen.next_gone("it").await;
    assert_eq!(faults.count(is(false)), 1, "listed once");
}

#[tokio::test]
async fn nothing_is_missed_while_the_api_server_is_away() {
    let cluster = Cluster::own();
    let mut seen = Seen::of(Space::of(cluster, "away").await);
    let _interest = seen.watches.ensure(None, &maps(), Filter::Labelled, &seen.namespaces());
    seen.synced(None).await.unwrap();
    for name in ["stays", "changes", "goes"] {
        seen.make(name, "1").await;
        seen.next_value(name).await;
    }

    // Paused: nothing is lost, nothing is said.
    cluster.signal("kube-apiserver", "STOP");
    assert!(seen.watches.synced(None, &maps(), Filter::Labelled, &seen.space.name));
    cluster.signal("kube-apiserver", "CONT");
    seen.patch("changes", json!({"data": {"key": "2"}})).await;
    assert_eq!(seen.next_value("changes").await.1, "2");

    // Something else is written: the server that comes back begins its history after what we saw last (410).
    let secret = json!({"metadata": {"name": "other"}});
    seen.space.send("POST", &seen.space.path("v1", "secrets"), &secret).await;

    // Killed: what is known stays known, and says that it may be old.
    let stopped = cluster.kill_api_server();
    let failing = wait_until("the watch fails", LIMIT, async || {
        let sight = seen.watches.sight(None, &maps(), Filter::Labelled, &seen.space.name);
        sight.failing.ok_or_else(|| "it does not".to_string())
    })
    .await;
    assert!(failing.is_transient(), "{failing:?}");
    assert!(seen.watches.synced(None, &maps(), Filter::Labelled, &seen.space.name));
    assert_eq!(seen.watches.labelled(None, &maps(), Filter::Labelled, &seen.label).len(), 3);
    let error = windlass::cluster::apply::get(
        &seen.space.access,
        &seen.space.resource("v1", "ConfigMap"),
        &seen.space.name,
        "stays",
    )
    .await
    .unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("not available"), "{error}");

    let audit = cluster.audit();
    let _restarted = stopped.start();
    wait_until("the server is back", LIMIT, async || {
        let path = format!("{}/goes", seen.space.path("v1", "configmaps"));
        let client = &seen.space.connection.client;
        match crate::support::cluster::try_send(client, "DELETE", &path, &Value::Null).await {
            // Carried out by a request whose answer was lost.
            Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
            gone => gone.map(|_| ()).map_err(|e| e.to_string()),
        }
    })
    .await;
    seen.patch("changes", json!({"data": {"key": "3"}})).await;
    let mut wanted = BTreeSet::from(["gone: goes".to_string(), "changes: 3".to_string()]);
    while !wanted.is_empty() {
        let change = seen.next().await;
        let text = match change.event {
            Event::Gone { .. } => format!("gone: {}", change.id.name),
            Event::Applied(entry) => format!("{}: {}", change.id.name, entry.kept),
        };
        assert!(wanted.remove(&text), "{text} came, {wanted:?} was to come");
    }
    wait_until("the watch is well again", LIMIT, async || {
        match seen.watches.sight(None, &maps(), Filter::Labelled, &seen.space.name).failing {
            None => Ok(()),
            failing => Err(format!("{failing:?}")),
        }
    })
    .await;
    // One that was refused, since the server was not ready yet, is tried again.
    let is_list = |r: &Audited| r.resource == "configmaps" && r.verb == "list" && r.code == 200;
    let lists = audit.by_agent("windlass/").into_iter().filter(is_list);
    assert_eq!(lists.count(), 1, "the history was too short, so it was listed again, once");
    drop(seen);
    cluster.stop();
}

fn web(name: &str, tag: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": format!("example.com/app:{tag}")}]},
            },
        },
    })
}

#[tokio::test]
async fn pods_of_an_unsettled_workload_are_seen_by_its_selector() {
    let space = Space::new("pods").await;
    let (wake, mut woken) = tokio::sync::mpsc::unbounded_channel();
    let watches = PodWatches::new(&space.connection, &space.discovery);
    let deployment = web("web", "crash");
    let watch = watches
        .watch(None, &space.name, &deployment["spec"]["selector"], move || {
            let _ = wake.send(());
        })
        .unwrap();
    space.send("POST", &space.path("apps/v1", "deployments"), &deployment).await;
    let restarts = async {
        loop {
            woken.recv().await.unwrap();
            let most = watch
                .pods()
                .iter()
                .filter_map(|p| p["status"]["containerStatuses"][0]["restartCount"].as_u64())
                .max();
            // ReplicaSets come by a watch of their own; the pod goes on waking us.
            if most.unwrap_or(0) >= 3 && !watch.replica_sets().is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, restarts).await.expect("the pod restarts three times");
    assert!(watch.failing().is_none());
    let sets = watch.replica_sets();
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0]["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    let pod = &watch.pods()[0];
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], sets[0]["metadata"]["uid"]);
    assert!(pod["metadata"]["managedFields"].is_null() && pod["spec"]["volumes"].is_null());

    let empty = watches.watch(None, &space.name, &json!({}), || ());
    assert!(empty.is_err(), "a selector that selects everything is refused");
}

#[tokio::test]
async fn workloads_of_one_namespace_share_the_watch_of_their_pods() {
    const WORKLOADS: usize = 20;
    let space = Space::new("pods-shared").await;
    for n in 0..WORKLOADS {
        space.send("POST", &space.path("apps/v1", "deployments"), &web(&format!("web-{n}"), "ok")).await;
    }
    let pods = async || {
        let list = space.send("GET", &space.path("v1", "pods"), &Value::Null).await;
        list["items"].as_array().unwrap().len()
    };
    wait_until("all pods are there", LIMIT, async || match pods().await {
        WORKLOADS => Ok(()),
        n => Err(format!("{n} pods")),
    })
    .await;
    let audit = space.cluster.audit();
    let watches = PodWatches::new(&space.connection, &space.discovery);
    let begin = || {
        let all = (0..WORKLOADS).map(|n| {
            let selector = json!({"matchLabels": {"app": format!("web-{n}")}});
            watches.watch(None, &space.name, &selector, || ()).unwrap()
        });
        all.collect::<Vec<_>>()
    };
    let seen = async |all: &[PodWatch]| {
        wait_until("each workload's pod and ReplicaSet is seen, and no other", LIMIT, async || {
            let found: Vec<_> = all.iter().map(|w| (w.pods().len(), w.replica_sets().len())).collect();
            if found.iter().all(|f| *f == (1, 1)) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        for (n, watch) in all.iter().enumerate() {
            let name = format!("web-{n}-");
            assert!(watch.pods()[0]["metadata"]["name"].as_str().unwrap().starts_with(&name));
        }
    };
    let first = begin();
    seen(&first).await;
    drop(first);
    // They are still open for those that come a moment later.
    seen(&begin()).await;
    let requests = audit.in_namespace(&space.name);
    for resource in ["pods", "replicasets"] {
        // The first workload's own, and one of all others; again for those that joined, and for those that came later.
        let lists = requests.iter().filter(|r| r.verb == "list" && r.resource == resource).count();
        assert!((2..=8).contains(&lists), "{lists} lists of {resource} for {WORKLOADS} workloads twice");
    }
}
