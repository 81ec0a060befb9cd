//! However ready its pods are, a candidate gets no share before its Service has a ready endpoint: whoever sends requests there before
//! would find nobody. One that never has any is taken back in its time, without having had traffic.

use crate::a_rollout_goes_step_by_step::{service, web};
use crate::support::cli::windlass;
use crate::support::cluster::{suffix, try_send, wait_until};
use crate::support::daemon::{World, config_map};
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use windlass::api::Delivery;
use windlass::api::delivery::Phase;

const SLICES: &str = "discovery.k8s.io/v1";

/// Has the API server refuse endpoints of candidates in this namespace, as it does now and then for a moment. Answers the paths of
/// what does so.
async fn without_endpoints(world: &mut World) -> Vec<String> {
    let name = format!("no-endpoints-{}", suffix());
    let api = "admissionregistration.k8s.io/v1";
    let label = "object.metadata.labels['kubernetes.io/service-name']";
    let rules = json!([{"apiGroups": ["discovery.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["endpointslices"]}]);
    let policy = json!({
        "apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail", "matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": format!("!{label}.endsWith('-canary')"), "message": "not now"}],
        },
    });
    let binding = json!({
        "apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {
            "policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.space.name}}},
        },
    });
    let mut made = Vec::new();
    for (plural, object) in
        [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)]
    {
        let all = format!("/apis/{api}/{plural}");
        world.space.make_cluster_object(&all, &object).await;
        made.push(format!("{all}/{name}"));
    }
    let slice = json!({
        "apiVersion": SLICES, "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [], "ports": [],
        "metadata": {"name": "probe", "labels": {"kubernetes.io/service-name": "probe-canary"}},
    });
    let path = format!("{}?dryRun=All", world.space.path(SLICES, "endpointslices"));
    wait_until("no endpoints of candidates can be made", world.limit, || async {
        match try_send(&world.space.connection.client, "POST", &path, &slice).await {
            Err(error) if error.to_string().contains("not now") => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
    made
}

#[tokio::test]
async fn and_none_is_sent_to_a_candidate_that_has_none() {
    know_routes().await;
    let mut world = World::stopped("endpoints").await;
    let _controller = Controller::of(&world);
    let guards = without_endpoints(&mut world).await;
    world.start();
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/route.yaml", &route().to_string()),
        ],
    );
    let policy = json!({"rollout": {
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 30}, {"pause": {}}], "settle": "300ms",
    }});
    world.deliver("shop", policy.clone()).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // Every share that the route ever has.
    let shares: Arc<Mutex<BTreeSet<Option<u64>>>> = Arc::default();
    let (client, seen) = (world.space.connection.client.clone(), Arc::clone(&shares));
    let path = format!("{}/web", world.space.path(GATEWAY, ROUTES));
    let watching = tokio::spawn(async move {
        loop {
            if let Ok(route) = try_send(&client, "GET", &path, &Value::Null).await {
                seen.lock().unwrap().insert(share(&route));
            }
        }
    });

    // What it waits for is told after 10, 20 and 40 s.
    world.give_time(45, policy).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let nobody = format!("Service {}/web-canary", world.space.name);
    let says = |d: &Delivery| {
        let said = d
            .status
            .iter()
            .flat_map(|s| &s.conditions)
            .any(|c| c.message.contains(&nobody) && c.message.contains("has no ready endpoint"));
        said && d.status.as_ref().is_some_and(|s| s.phase == Phase::RollingOut)
    };
    world.wait("shop", "says what it waits for", says).await;
    let ready = |deployment: &Value| deployment["status"]["readyReplicas"] == 2;
    world.wait_object("apps/v1", "deployments", "web-canary", "is ready, for all that", ready).await;
    let held = world.wait_for("shop", Phase::Held, &next).await.status.unwrap();
    let problem = held.held.unwrap().problem;
    assert_eq!(problem.object, nobody);
    assert!(problem.message.contains("has no ready endpoint"), "{problem:?}");
    assert_eq!(*shares.lock().unwrap(), BTreeSet::from([None, Some(0)]), "it had a share");
    watching.abort();

    for guard in guards.iter().rev() {
        world.space.send("DELETE", guard, &Value::Null).await;
    }
    let retry = windlass(&world.space, &["retry", "shop", "-n", &world.space.name]);
    assert_eq!(retry.code, 0, "{retry:?}");
    world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30));
}
