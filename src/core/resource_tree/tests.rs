#![allow(clippy::unwrap_used)]

use super::*;
use crate::core::look::Shown;
use serde_json::json;

const OURS: &str = "windlass.dev/v1alpha1";

fn root(kind: &str, name: &str) -> Root {
    Root { gvk: Gvk::new(OURS, kind), namespace: "shop".into(), name: name.into() }
}

fn entry(api_version: &str, kind: &str, name: &str) -> Value {
    let gvk = Gvk::new(api_version, kind);
    json!({"group": gvk.group, "version": gvk.version, "kind": kind, "namespace": "shop", "name": name, "origin": "Created"})
}

fn object(api_version: &str, kind: &str, name: &str, owner: &str, more: Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1},
    });
    if !owner.is_empty() {
        object["metadata"]["ownerReferences"] = json!([{"uid": owner}]);
    }
    for (field, value) in more.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

fn delivery(name: &str, inventory: Value) -> Value {
    let status = json!({"phase": "Ready", "inventory": inventory, "conditions": [
        {"type": "Ready", "status": "True", "reason": "Deployed", "message": "", "observedGeneration": 1}]});
    object(OURS, "Delivery", name, "", json!({"spec": {}, "status": status}))
}

fn set(name: &str, replicas: u32) -> Value {
    let status = json!({"observedGeneration": 1, "replicas": replicas, "availableReplicas": replicas});
    object("apps/v1", "ReplicaSet", name, "web", json!({"spec": {"replicas": replicas}, "status": status}))
}

fn pod(name: &str, owner: &str, ready: bool) -> Value {
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        "containerStatuses": [{"name": "app", "ready": ready, "state": {"running": {}}}]});
    object("v1", "Pod", name, owner, json!({"spec": {"containers": [{"name": "app"}]}, "status": status}))
}

/// What is seen of these objects when all is looked at that is wanted, and how many lists that took.
fn seen(root: &Root, objects: &[Value]) -> (Seen<Known>, usize) {
    let mut seen = Seen::new();
    let mut lists = 0;
    loop {
        let looks = wanted(root, &seen);
        if looks.iter().eq(seen.keys()) {
            return (seen, lists);
        }
        let before = std::mem::take(&mut seen);
        for look in looks {
            if let Some(shown) = before.get(&look) {
                seen.insert(look, shown.clone());
                continue;
            }
            lists += 1;
            let mut shown = Shown { complete: true, ..Shown::default() };
            for object in objects {
                let id = ObjectId::of(object);
                let is = id.kind == look.gvk.kind
                    && id.namespace == look.namespace
                    && look.name.as_ref().is_none_or(|name| *name == id.name);
                if is {
                    shown.objects.insert((id.namespace, id.name), keep(object));
                }
            }
            seen.insert(look, shown);
        }
    }
}

fn lines(tree: &Tree) -> Vec<String> {
    fn walk(node: &Node, depth: usize, into: &mut Vec<String>) {
        into.push(format!("{}{} {} {}", "  ".repeat(depth), node.kind, node.name, node.status));
        node.children.iter().for_each(|child| walk(child, depth + 1, into));
    }
    let mut all = Vec::new();
    walk(&tree.root, 0, &mut all);
    all
}

fn shop() -> Vec<Value> {
    let inventory = json!([
        entry("v1", "Service", "web"),
        entry("v1", "ConfigMap", "one"),
        entry("v1", "ConfigMap", "two"),
        entry("apps/v1", "Deployment", "web"),
    ]);
    let web = json!({"spec": {"replicas": 2}, "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
        "readyReplicas": 2, "availableReplicas": 2}});
    let slice = json!({"endpoints": [{"conditions": {"ready": true}}, {"conditions": {"ready": false}}]});
    vec![
        delivery("shop", inventory),
        object("apps/v1", "Deployment", "web", "", web),
        set("web-1", 2),
        set("web-0", 0),
        pod("web-1-a", "web-1", true),
        pod("web-1-b", "web-1", true),
        pod("stranger", "", true),
        object("v1", "Service", "web", "", json!({"spec": {"clusterIP": "10.0.0.1"}})),
        object("discovery.k8s.io/v1", "EndpointSlice", "web-x", "web", slice),
        object("v1", "ConfigMap", "one", "", json!({})),
        object("v1", "ConfigMap", "other", "", json!({})),
    ]
}

#[test]
fn each_object_stands_below_what_owns_it_and_what_is_not_there_is_told() {
    let mut objects = shop();
    // The owner of an EndpointSlice is the Service, whose uid is another than the Deployment's.
    objects[7]["metadata"]["uid"] = json!("service");
    objects[8]["metadata"]["ownerReferences"] = json!([{"uid": "service"}]);
    let root = root("Delivery", "shop");
    let (seen, lists) = seen(&root, &objects);
    let tree = grow(&root, &seen);
    assert_eq!(
        lines(&tree),
        [
            "Delivery shop Healthy",
            "  Deployment web Healthy",
            "    ReplicaSet web-0 Healthy",
            "    ReplicaSet web-1 Healthy",
            "      Pod web-1-a Healthy",
            "      Pod web-1-b Healthy",
            "  Service web Healthy",
            "    EndpointSlice web-x Healthy",
            "  ConfigMap one Healthy",
            "  ConfigMap two Missing",
        ]
    );
    assert!(!tree.root.is_well(), "an object of the Delivery is not there");
    assert!(tree.root.children[0].is_well() && tree.root.children[0].children[0].empty);
    assert_eq!(tree.root.children[1].children[0].message, "1 of 2 endpoints ready");
    assert_eq!(lists, 7, "one for each kind: {:?}", seen.keys());
}

#[test]
fn what_may_not_be_looked_at_is_told_and_the_rest_is_shown() {
    let root = root("Delivery", "shop");
    let (mut seen, _) = seen(&root, &shop());
    for (look, shown) in &mut seen {
        if matches!(look.gvk.kind.as_str(), "Pod" | "ConfigMap") {
            *shown = Shown { failing: Some("Ada may not list it".into()), ..Shown::default() };
        }
        if look.gvk.kind == "EndpointSlice" {
            *shown = Shown { unknown: true, ..Shown::default() };
        }
    }
    let tree = grow(&root, &seen);
    assert_eq!(
        tree.unseen,
        ["ConfigMap in namespace shop: Ada may not list it", "Pod in namespace shop: Ada may not list it"]
    );
    let told = lines(&tree);
    assert!(told.contains(&"  ConfigMap one Unknown".to_owned()), "{told:?}");
    assert!(told.contains(&"    ReplicaSet web-1 Healthy".to_owned()), "{told:?}");
    assert!(!tree.root.is_well());
}

#[test]
fn an_application_has_its_delivery_and_that_has_the_objects() {
    let ready =
        json!({"status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}});
    let mut own = delivery(
        "web.application",
        json!([entry("v1", "ConfigMap", "one"), entry("v1", "ConfigMap", "gone")]),
    );
    own["metadata"]["ownerReferences"] = json!([{"uid": "app"}]);
    // An object that names the Application as its owner as well is shown once.
    let map = object("v1", "ConfigMap", "one", "app", json!({}));
    let mut application = object(OURS, "Application", "web", "", ready);
    application["metadata"]["uid"] = json!("app");
    let revision = object("apps/v1", "ControllerRevision", "web-1", "app", json!({}));
    let objects = [application, own, map, revision];
    let expected = [
        "Application web Healthy",
        "  Delivery web.application Healthy",
        "    ConfigMap gone Missing",
        "    ConfigMap one Healthy",
        "  ControllerRevision web-1 Healthy",
    ];
    let of_application = root("Application", "web");
    let (shown, lists) = seen(&of_application, &objects);
    assert_eq!(lines(&grow(&of_application, &shown)), expected);
    assert_eq!(lists, 4);
    // One that lies in a directory stands below its Delivery, with all it has.
    let outer = delivery("shop", json!([entry(OURS, "Application", "web")]));
    let objects = [vec![outer], objects.to_vec()].concat();
    let of_delivery = root("Delivery", "shop");
    let (shown, _) = seen(&of_delivery, &objects);
    let below: Vec<String> = lines(&grow(&of_delivery, &shown)).split_off(1);
    assert_eq!(below, expected.map(|line| format!("  {line}")));
}

#[test]
fn a_large_inventory_and_the_jobs_of_hooks_are_part_of_it() {
    let mut big = delivery("big", json!([]));
    big["status"]["inventoryShards"] = json!(["big-1"]);
    let hook = json!({"point": "BeforeApply", "namespace": "shop", "name": "migrate", "job": "migrate-1",
        "revision": {"commit": "a", "inputs": "b"}, "since": "2026-01-01T00:00:00Z", "step": "Succeeded"});
    let mut gone = hook.clone();
    gone["job"] = json!("migrate-0");
    big["status"]["hooks"] = json!([hook, gone]);
    let job = json!({"spec": {"completions": 1}, "status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}});
    let objects = [
        big,
        object(
            OURS,
            "InventoryShard",
            "big-1",
            "big",
            json!({"spec": {"entries": [entry("v1", "ConfigMap", "one")]}}),
        ),
        object("v1", "ConfigMap", "one", "", json!({})),
        object("batch/v1", "Job", "migrate-1", "", job),
    ];
    let root = root("Delivery", "big");
    let (seen, _) = seen(&root, &objects);
    assert_eq!(
        lines(&grow(&root, &seen)),
        ["Delivery big Healthy", "  Job migrate-1 Healthy", "  ConfigMap one Healthy"]
    );
}

#[test]
fn owners_in_a_circle_have_an_end() {
    let mut one = object("v1", "ConfigMap", "one", "two", json!({}));
    one["metadata"]["uid"] = json!("one");
    let two = object("v1", "ConfigMap", "two", "one", json!({}));
    let objects = [
        delivery("shop", json!([entry("v1", "ConfigMap", "one"), entry("v1", "ConfigMap", "three")])),
        one,
        two,
    ];
    let root = root("Delivery", "shop");
    let (seen, _) = seen(&root, &objects);
    assert_eq!(
        lines(&grow(&root, &seen)),
        [
            "Delivery shop Healthy",
            "  ConfigMap one Healthy",
            "    ConfigMap two Healthy",
            "  ConfigMap three Missing"
        ]
    );
}

#[test]
fn what_came_went_or_changed_is_told_and_nothing_else() {
    let root = root("Delivery", "shop");
    let tree = |objects: &[Value]| grow(&root, &seen(&root, objects).0);
    let mut later = shop();
    let before = tree(&later);
    assert!(changes(&before, &tree(&later)).is_empty());
    later[4]["metadata"]["resourceVersion"] = json!("7");
    assert!(changes(&before, &tree(&later)).is_empty(), "nothing that is shown is another");
    later[4] = pod("web-1-a", "web-1", false);
    later.remove(5);
    later.push(pod("web-1-c", "web-1", true));
    let after = tree(&later);
    let told: Vec<(Happened, &str)> =
        changes(&before, &after).into_iter().map(|(what, node)| (what, node.name.as_str())).collect();
    assert_eq!(
        told,
        [(Happened::Deleted, "web-1-b"), (Happened::Modified, "web-1-a"), (Happened::Added, "web-1-c")]
    );
}
