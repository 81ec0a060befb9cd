//! A `spec.rollout` that contradicts itself is refused by the API server when it is written, with a sentence that says what to
//! write instead.

use crate::support::cluster::try_send;
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
