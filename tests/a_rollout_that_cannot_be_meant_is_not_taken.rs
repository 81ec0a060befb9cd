//! A `spec.rollout` that contradicts itself is refused by the API server when it is written, with a sentence that says what to
//! write instead.

use crate::support::cluster::{SOON, try_send, wait_until};
use crate::support::daemon::World;
use serde_json::{Value, json};

fn with(mut policy: Value, more: Value) -> Value {
    for (field, value) in more.as_object().unwrap() {
        policy[field] = value.clone();
    }
    policy
}

fn ab(more: Value) -> Value {
    let header = json!({"name": "x-beta", "value": "1"});
    let policy = json!({
        "strategy": "AB", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "ab": {"header": header, "duration": "1h"},
    });
    with(policy, more)
}

fn canary(more: Value) -> Value {
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 10}],
    });
    with(policy, more)
}

fn pods(more: Value) -> Value {
    with(canary(json!({"router": {"replicas": {}}})), more)
}

fn blue_green(more: Value) -> Value {
    with(canary(json!({"strategy": "BlueGreen", "steps": [{"pause": {}}]})), more)
}

fn metric(more: Value) -> Value {
    let metric = with(json!({"name": "load"}), more);
    canary(json!({"analysis": {"metrics": [metric]}}))
}

#[tokio::test]
async fn and_is_told_what_to_write() {
    let world = World::stopped("policy").await;
    let job = json!({"name": "smoke", "timeout": "10m"});
    let cookie = json!({"cookie": {"name": "beta", "value": "1"}});
    let table: Vec<(Value, &str)> = vec![
        (json!({}), ""),
        (canary(json!({})), ""),
        (canary(json!({"steps": [{"weight": 10}, {"job": job}]})), ""),
        (canary(json!({"steps": [{"weight": 10, "job": job}]})), "a step takes one of weight, pause"),
        (canary(json!({"steps": [{"job": {"timeout": "10m"}}]})), "name"),
        (canary(json!({"stepWeight": 5})), "needs one of steps and stepWeight"),
        (pods(json!({})), ""),
        (pods(json!({"candidate": {"size": "Share"}})), ""),
        (
            pods(json!({"steps": [{"weight": 10}, {"scale": {"percent": 100}}]})),
            "leave scale out, or use gatewayAPI",
        ),
        (
            pods(json!({"candidate": {"size": "Fixed", "replicas": 2}})),
            "leave candidate out, or use gatewayAPI",
        ),
        (pods(json!({"candidate": {}})), "leave candidate out, or use gatewayAPI"),
        (
            canary(
                json!({"candidate": {"size": "Fixed", "replicas": 2}, "steps": [{"scale": {"percent": 50}}]}),
            ),
            "",
        ),
        (canary(json!({"candidate": {"replicas": 2}})), "a number of pods for size: Fixed"),
        (blue_green(json!({"candidate": {}, "steps": [{"scale": {"percent": 50}}]})), ""),
        (blue_green(json!({"candidate": {"size": "Share"}})), "BlueGreen starts a full copy"),
        (blue_green(json!({"candidate": {"size": "Fixed"}})), "BlueGreen starts a full copy"),
        // It says nothing of how pods are replaced then.
        (
            pods(
                json!({"strategy": "Rolling", "candidate": {"size": "Fixed"}, "steps": [{"scale": {"percent": 50}}]}),
            ),
            "",
        ),
        (metric(json!({"job": job})), ""),
        (metric(json!({"job": job, "success": "result > 1"})), "takes nothing besides"),
        (metric(json!({"job": job, "interval": "1m"})), "how long it may take is job.timeout"),
        (
            metric(json!({"job": job, "http": {"path": "/"}})),
            "takes one of prometheus, http, webhook and job",
        ),
        (metric(json!({})), "takes one of prometheus, http, webhook and job"),
        (ab(json!({})), ""),
        (ab(json!({"ab": cookie, "router": {"istio": {"virtualService": "web"}}})), ""),
        (ab(json!({"ab": cookie})), "only istio can tell requests by a cookie"),
        (ab(json!({"ab": {"duration": "1h"}})), "takes one of header and cookie"),
        (ab(json!({"ab": null})), "AB needs ab"),
        (ab(json!({"steps": [{"weight": 10}]})), "AB has no steps"),
        (ab(json!({"router": {"replicas": {}}})), "only gatewayAPI and istio can"),
        (ab(json!({"router": {"service": {"name": "web"}}})), "only gatewayAPI and istio can"),
        (ab(json!({"router": null})), "need a router"),
        (ab(json!({"workload": null})), "need one of workload and workloads"),
        (canary(json!({"ab": {"header": {"name": "x", "value": "1"}}})), "no other strategy takes it"),
    ];
    let path = format!("{}?dryRun=All", world.space.path("windlass.dev/v1alpha1", "deliveries"));
    for (rollout, expected) in table {
        let delivery = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery", "metadata": {"name": "shop"},
            "spec": {"source": {"repository": "config", "path": "shop"}, "targetNamespace": "shop", "rollout": rollout},
        });
        let answer = try_send(&world.space.connection.client, "POST", &path, &delivery).await;
        let told = answer.err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(told.is_empty(), expected.is_empty(), "{rollout}: {told}");
        assert!(told.contains(expected), "{rollout}: {told}");
    }
}

/// The definition of Deliveries under another name, which nobody else goes by.
fn definition(group: &str) -> Value {
    let all = windlass::api::crds();
    let mut own = all.into_iter().find(|d| d["spec"]["names"]["kind"] == "Delivery").unwrap();
    own["metadata"] = json!({"name": format!("stored.{group}")});
    own["spec"]["group"] = group.into();
    own["spec"]["names"] =
        json!({"kind": "Stored", "listKind": "StoredList", "plural": "stored", "singular": "stored"});
    own
}

/// The same before it was thought of that a candidate's size may be one of which nothing comes.
fn older(group: &str) -> Value {
    let mut old = definition(group);
    let rollout = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/rollout";
    let rollout = old.pointer_mut(rollout).unwrap();
    let about_sizes =
        |rule: &Value| ["scale", "candidate"].iter().any(|w| rule["rule"].as_str().unwrap().contains(w));
    let rules = rollout["x-kubernetes-validations"].as_array_mut().unwrap();
    let before = rules.len();
    rules.retain(|rule| !about_sizes(rule));
    assert_eq!(before - rules.len(), 3);
    let candidate = rollout["properties"]["candidate"].as_object_mut().unwrap();
    assert!(candidate.remove("x-kubernetes-validations").is_some());
    old
}

/// A newer definition refuses what an older one took. What is stored already gets its status, labels and other fields all the same;
/// only its rollout has to be mended when it is changed.
#[tokio::test]
async fn and_what_was_stored_before_it_was_refused_can_still_be_written() {
    let mut world = World::stopped("stored").await;
    let group = format!("{}.example.com", world.space.name);
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    world.space.make_cluster_object(definitions, &older(&group)).await;
    let client = world.space.connection.client.clone();
    let all = world.space.path(&format!("{group}/v1alpha1"), "stored");
    let scaled = json!({"steps": [{"weight": 10}, {"scale": {"percent": 100}}]});
    let fixed = json!({"candidate": {"size": "Fixed"}});
    let bad = [
        ("scaled", pods(scaled)),
        ("fixed", pods(fixed.clone())),
        ("full", blue_green(fixed)),
        ("number", canary(json!({"candidate": {"replicas": 2}}))),
    ];
    let object = |name: &str, rollout: &Value| {
        json!({
            "apiVersion": format!("{group}/v1alpha1"), "kind": "Stored", "metadata": {"name": name},
            "spec": {"source": {"repository": "config", "path": "shop"}, "targetNamespace": "shop", "rollout": rollout},
        })
    };
    for (name, rollout) in &bad {
        let body = object(name, rollout);
        wait_until("it is stored", SOON, || async {
            try_send(&client, "POST", &all, &body).await.map_err(|e| e.to_string())
        })
        .await;
    }
    let newer = json!({"spec": {"versions": definition(&group)["spec"]["versions"]}});
    world.space.send("PATCH", &format!("{definitions}/stored.{group}"), &newer).await;
    for (_, rollout) in &bad {
        let (body, path) = (object("other", rollout), format!("{all}?dryRun=All"));
        wait_until("it is refused", SOON, || async {
            try_send(&client, "POST", &path, &body)
                .await
                .map_or(Ok(()), |_| Err(format!("{rollout} is taken")))
        })
        .await;
    }
    for (name, _) in &bad {
        let path = format!("{all}/{name}");
        let told = json!({"status": {"handledRequest": "now"}});
        world.space.send("PATCH", &format!("{path}/status"), &told).await;
        let labels = json!({"metadata": {"labels": {"team": "shop"}}, "spec": {"suspend": true}});
        world.space.send("PATCH", &path, &labels).await;
        let changed = match *name {
            "number" => json!({"candidate": {"replicas": 3}}),
            _ => json!({"settle": "3s"}),
        };
        let changed = json!({"spec": {"rollout": changed}});
        let answer = try_send(&client, "PATCH", &path, &changed).await;
        let refused = matches!(&answer, Err(kube::Error::Api(status)) if status.code == 422);
        assert!(refused, "{name} is looked at when it changes: {answer:?}");
    }
}
