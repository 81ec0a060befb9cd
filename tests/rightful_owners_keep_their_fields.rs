//! A field whose rightful owner is an autoscaler, an injector or an admission policy is left to it without anybody
//! saying so.

use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use base64::Engine;
use serde_json::{Value, json};
use windlass::api::delivery::Phase;

/// Changes an object that is corrected, and waits until it is: what was changed before has been looked at then.
async fn a_round(world: &World) {
    world.patch("v1", "configmaps", "marker", json!({"data": {"key": "by hand"}})).await;
    world.wait_object("v1", "configmaps", "marker", "corrected", |o| o["data"]["key"] == "1").await;
    world
        .wait("shop", "in sync", |d| {
            d.status.as_ref().is_some_and(|s| s.drift == Some(0) && s.attempt.is_none())
        })
        .await;
}

/// What was ever told of an object besides the marker.
async fn told(world: &World) -> Vec<String> {
    let report = world.reports().get("shop").await.unwrap().spec;
    let objects = report.objects.iter().chain(report.episodes.iter().map(|e| &e.object));
    objects
        .filter(|o| o.name != "marker")
        .flat_map(|o| o.fields.iter().map(|f| format!("{}: {} by {}", o.name, f.path, f.manager)))
        .collect()
}

fn autoscaler(least: u32) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: web}}\nspec:\n  \
         scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}\n  minReplicas: {least}\n  maxReplicas: 9\n  \
         metrics: [{{type: Resource, resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 80}}}}}}]\n"
    )
}

#[tokio::test]
async fn replicas_that_git_names_are_the_autoscalers_while_there_is_one() {
    let world = World::new("rightfulhpa").await;
    let first = world.commit(
        "It",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 1)),
            ("shop/scaler.yaml", &autoscaler(3)),
            ("shop/marker.yaml", &config_map("marker", "1")),
        ],
    );
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let replicas = |o: &Value| o["spec"]["replicas"].as_i64().unwrap_or(0);
    world.wait_object("apps/v1", "deployments", "web", "scaled", |o| replicas(o) == 3).await;
    a_round(&world).await;
    assert_eq!(told(&world).await, Vec::<String>::new());
    let generation =
        world.get("apps/v1", "deployments", "web").await["metadata"]["generation"].as_i64().unwrap();
    // A new image, and other replicas: one change of the object, and no way down and up again.
    let second = world.commit("Two", &[("shop/web.yaml", &deployment("web", "two", 2))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!((replicas(&web), web["metadata"]["generation"].as_i64().unwrap()), (3, generation + 1));
    // Something else about it is corrected, and the replicas stay.
    let none = json!({"metadata": {"labels": {"windlass.dev/delivery": null}}});
    world.patch("apps/v1", "deployments", "web", none).await;
    let label = |o: &Value| o["metadata"]["labels"]["windlass.dev/delivery"].is_string();
    let web = world.wait_object("apps/v1", "deployments", "web", "labelled", label).await;
    assert_eq!(replicas(&web), 3);
    // Without the autoscaler Git counts again.
    let third = world.commit("No autoscaler", &[("shop/scaler.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &third).await;
    world.wait_object("apps/v1", "deployments", "web", "as Git says", |o| replicas(o) == 2).await;
}

#[tokio::test]
async fn requests_that_a_vertical_autoscaler_wrote_are_its_own() {
    let world = World::new("rightfulvpa").await;
    let mut web: Value = serde_saphyr::from_str(&deployment("web", "ok", 1)).unwrap();
    web["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    let first = world.commit(
        "It",
        &[("shop/web.yaml", &web.to_string()), ("shop/marker.yaml", &config_map("marker", "1"))],
    );
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let at = "/spec/template/spec/containers/0/resources/requests/cpu";
    let path = world.space.path("apps/v1", "deployments");
    let write = async |manager: &str, at: &str, value: Value| {
        let patch = json!([{"op": "replace", "path": at, "value": value}]);
        world.space.send("PATCH", &format!("{path}/web?fieldManager={manager}"), &patch).await
    };
    write("vpa-updater", at, json!("250m")).await;
    a_round(&world).await;
    let now = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(now.pointer(at), Some(&json!("250m")));
    assert_eq!(told(&world).await, Vec::<String>::new());
    // Of anybody else it is drift.
    write("hand", at, json!("300m")).await;
    world
        .wait_object("apps/v1", "deployments", "web", "corrected", |o| o.pointer(at) == Some(&json!("100m")))
        .await;
}

#[tokio::test]
async fn a_ca_bundle_that_git_leaves_empty_is_the_injectors() {
    let mut world = World::new("cabundle").await;
    let name = world.space.name.clone();
    let hook = |label: &str| {
        format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\n\
             metadata: {{name: {name}, labels: {{version: {label}}}}}\nwebhooks:\n\
             - name: it.example.com\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  failurePolicy: Ignore\n  \
             clientConfig: {{caBundle: \"\", service: {{name: it, namespace: {name}}}}}\n  \
             rules: [{{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [nones]}}]\n"
        )
    };
    let path = format!("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}");
    world.space.forget_later(&path);
    let first = world
        .commit("It", &[("shop/hook.yaml", &hook("one")), ("shop/marker.yaml", &config_map("marker", "1"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let root = world.wait_object("v1", "configmaps", "kube-root-ca.crt", "is there", Value::is_object).await;
    let root = root["data"]["ca.crt"].as_str().unwrap();
    let bundle = base64::engine::general_purpose::STANDARD.encode(root.as_bytes());
    let inject = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]);
    world.space.send("PATCH", &format!("{path}?fieldManager=cert-manager-cainjector"), &inject).await;
    let now = || async { world.space.send("GET", &path, &Value::Null).await };
    let bundled = |o: &Value| o["webhooks"][0]["clientConfig"]["caBundle"] == bundle.as_str();
    a_round(&world).await;
    assert!(bundled(&now().await));
    assert_eq!(told(&world).await, Vec::<String>::new());
    let second = world.commit("Two", &[("shop/hook.yaml", &hook("two"))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    let hooks = now().await;
    assert!(bundled(&hooks) && hooks["metadata"]["labels"]["version"] == "two", "{hooks}");
    // What else somebody changes about it is drift.
    let patch = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}]);
    world.space.send("PATCH", &format!("{path}?fieldManager=hand"), &patch).await;
    wait_until("it is corrected", LIMIT, || async {
        let hooks = now().await;
        let well = hooks["webhooks"][0]["failurePolicy"] == "Ignore" && bundled(&hooks);
        if well { Ok(()) } else { Err(hooks.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn what_admission_changes_and_what_is_injected_is_no_drift() {
    let mut world = World::new("admission").await;
    let name = world.space.name.clone();
    let base = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "reinvocationPolicy": "Never", "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'replace', path: '/spec/template/spec/containers/0/image', value: object.spec.template.spec.containers[0].image.replace('registry.example.com', 'mirror.example.com')}, \
                  JSONPatch{op: 'add', path: '/spec/template/spec/priorityClassName', value: ''}, \
                  JSONPatch{op: 'add', path: '/spec/minReadySeconds', value: 1}]"}}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}},
    });
    world.space.make_cluster_object(&format!("{base}/mutatingadmissionpolicies"), &policy).await;
    world.space.make_cluster_object(&format!("{base}/mutatingadmissionpolicybindings"), &binding).await;
    let probe = json!({"metadata": {"name": "probe"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "registry.example.com/a"}]}}}});
    wait_until("the policy counts", LIMIT, || async {
        let path = format!("{}?dryRun=All", world.space.path("apps/v1", "deployments"));
        let answer = world.space.send("POST", &path, &probe).await;
        if answer["spec"]["minReadySeconds"] == 1 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    let first = world.commit(
        "It",
        &[("shop/web.yaml", &deployment("web", "ok", 1)), ("shop/marker.yaml", &config_map("marker", "1"))],
    );
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let image = |o: &Value| {
        o["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
    };
    let web = world.get("apps/v1", "deployments", "web").await;
    assert!(image(&web).starts_with("mirror.example.com/"), "{web}");
    // A sidecar, as an injector puts it in.
    let sidecar = json!([{"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "proxy", "image": "mirror.example.com/proxy"}}]);
    let path = format!("{}/web?fieldManager=injector", world.space.path("apps/v1", "deployments"));
    world.space.send("PATCH", &path, &sidecar).await;
    a_round(&world).await;
    assert_eq!(told(&world).await, Vec::<String>::new());
    // By hand, besides: told is that, and not what admission does each time.
    world.patch("apps/v1", "deployments", "web", json!({"spec": {"replicas": 2}})).await;
    let web =
        world.wait_object("apps/v1", "deployments", "web", "corrected", |o| o["spec"]["replicas"] == 1).await;
    assert_eq!(web["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    let fields = wait_until("it is told", LIMIT, || async {
        let fields = told(&world).await;
        if fields.is_empty() { Err("nothing".to_owned()) } else { Ok(fields) }
    })
    .await;
    assert_eq!(fields, ["web: spec.replicas by hand"]);
    a_round(&world).await;
}

#[tokio::test]
async fn replicas_are_gits_again_as_soon_as_an_autoscaler_of_somebody_else_is_gone() {
    let world = World::new("rightfulgone").await;
    let first = world.commit("It", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let audit = world.space.cluster.audit();
    let scaler: Value = serde_saphyr::from_str(&autoscaler(3)).unwrap();
    let scalers = world.space.path("autoscaling/v2", "horizontalpodautoscalers");
    world.space.send("POST", &scalers, &scaler).await;
    let replicas = |o: &Value| o["spec"]["replicas"].as_i64().unwrap_or(0);
    world.wait_object("apps/v1", "deployments", "web", "scaled", |o| replicas(o) == 3).await;
    let settled = |d: &windlass::api::Delivery| {
        d.status.as_ref().is_some_and(|s| s.drift == Some(0) && s.phase == Phase::Ready)
    };
    world.wait("shop", "in sync", settled).await;
    // What was looked at is known to rest on the autoscaler.
    wait_until("the autoscaler is watched", LIMIT, || async {
        let watched = audit.in_namespace(&world.space.name).into_iter().any(|r| {
            r.verb == "watch"
                && r.resource == "horizontalpodautoscalers"
                && r.uri.contains("metadata.name%3Dweb")
        });
        if watched { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    world.delete("autoscaling/v2", "horizontalpodautoscalers", "web").await;
    world.wait_object("apps/v1", "deployments", "web", "as Git says", |o| replicas(o) == 1).await;
}
