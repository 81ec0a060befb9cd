//! What stands beside a Delivery and goes by the label of its pods or by the name of its Service is somebody else's, and is not copied
//! for a candidate. Where the candidate would be without what the workload has, or get traffic that nobody gave it, the rollout is
//! refused before a pod is started, with the object's name and what to do; the rest is told.

use crate::a_mesh_is_steered_by_its_hosts::{API, meshed};
use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployed, service, web};
use crate::support::cluster::wait_until;
use crate::support::daemon::{World, config_map};
use crate::support::gateway::{MONITORS, know};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::{Phase, Problem};

const MONITORING: &str = "monitoring.coreos.com/v1";
const GATEWAY: &str = "gateway.networking.k8s.io/v1";

fn object(api: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Waits until the revision is refused for an object; what is said of it.
async fn refused_for(world: &World, reason: &str, object: &str) -> String {
    let object = object.replace("NS", &world.space.name);
    let problem =
        |d: &Delivery| -> Option<Problem> { Some(d.status.as_ref()?.failure.as_ref()?.problem.clone()) };
    let is = |d: &Delivery| problem(d).is_some_and(|p| p.reason == reason && p.object == object);
    let delivery = world.wait("shop", &format!("is refused for {object}"), is).await;
    assert!(delivery.status.as_ref().unwrap().attempt.is_none());
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"], "no pod of a candidate was started");
    let message = problem(&delivery).unwrap().message;
    assert!(
        message.starts_with(&format!("{object} is in the cluster and not in the directory")),
        "{message}"
    );
    message
}

/// What is told of a rollout when it begins.
async fn told(world: &World, commit: &str) -> String {
    world.wait_for("shop", Phase::Paused, commit).await;
    wait_until("it is told", world.limit, || async {
        let events = world.events("shop").await;
        let of = |(reason, text): &&(String, String)| reason == "RollingOut" && text.contains(commit);
        events.iter().find(of).map(|(_, text)| text.clone()).ok_or_else(|| format!("{events:?}"))
    })
    .await
}

#[tokio::test]
async fn monitors_and_policies_of_others_would_leave_the_candidate_out() {
    let _alone = MONITORS.lock().await;
    let mut world = World::stopped("others").await;
    for (group, kind, plural) in [
        ("monitoring.coreos.com", "PodMonitor", "podmonitors"),
        ("monitoring.coreos.com", "ServiceMonitor", "servicemonitors"),
        ("gateway.networking.k8s.io", "BackendTLSPolicy", "backendtlspolicies"),
    ] {
        know(&mut world.space, group, kind, plural).await;
    }
    world.start();
    let served = service("app: web, tier: front").replacen("name: web}", "name: web, labels: {app: web}}", 1);
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &served),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    world.deliver("shop", json!({"rollout": blue_green()})).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    let by_app = json!({"selector": {"matchLabels": {"app": "web"}}});
    let to_web = |name: &str| {
        let policy = json!({
            "targetRefs": [{"group": "", "kind": "Service", "name": name}], "validation": {"hostname": "web.example.com"},
        });
        object(GATEWAY, "BackendTLSPolicy", name, policy)
    };
    let others = [
        (
            "podmonitors",
            object(MONITORING, "PodMonitor", "web", by_app.clone()),
            "would not measure the candidate's",
        ),
        (
            "servicemonitors",
            object(MONITORING, "ServiceMonitor", "web", by_app),
            "would not measure the candidate",
        ),
        ("backendtlspolicies", to_web("web"), "have one for web-preview beside it"),
    ];
    let mut last = String::new();
    for (at, (plural, other, why)) in others.iter().enumerate() {
        let (api, kind) = (other["apiVersion"].as_str().unwrap(), other["kind"].as_str().unwrap());
        let kind = if api == MONITORING { format!("{kind}.monitoring.coreos.com") } else { kind.to_owned() };
        world.space.send("POST", &world.space.path(api, plural), other).await;
        last = world.commit("Next", &[("shop/web.yaml", &web(&format!("ok{}", at + 2), 2))]);
        let said = refused_for(&world, "CannotFollowCandidate", &format!("{kind} NS/web")).await;
        assert!(said.contains(why), "{said}");
        if *plural != "backendtlspolicies" {
            world.delete(api, plural, "web").await;
        }
    }
    // Who says it of the candidate, too, has said enough.
    world.space.send("POST", &world.space.path(GATEWAY, "backendtlspolicies"), &to_web("web-preview")).await;
    world.wait_for("shop", Phase::Paused, &last).await;
}

#[tokio::test]
async fn a_destination_rule_of_others_is_about_one_host() {
    let (_alone, world) = meshed("others-mesh").await;
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 1)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"istio": {"virtualService": "web"}},
        "steps": [{"weight": 20}, {"pause": {}}], "settle": "300ms",
    });
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let host = format!("web.{}.svc.cluster.local", world.space.name);
    let rule = object(
        API,
        "DestinationRule",
        "theirs",
        json!({"host": host, "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}),
    );
    world.space.send("POST", &world.space.path(API, "destinationrules"), &rule).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 1))]);
    let said =
        refused_for(&world, "CannotFollowCandidate", "DestinationRule.networking.istio.io NS/theirs").await;
    assert!(said.contains("have one for web-canary beside it"), "{said}");
    world.delete(API, "destinationrules", "theirs").await;
    world.wait_for("shop", Phase::Paused, &next).await;
}

#[tokio::test]
async fn a_service_of_others_gives_the_candidate_nothing_that_nobody_asked_for() {
    let (world, _) = deployed("others-services", "app: web, tier: front", blue_green()).await;
    let send = async |api: &str, plural: &str, object: Value| {
        world.space.send("POST", &world.space.path(api, plural), &object).await;
    };
    let selecting = |name: &str, labels: Value| {
        object("v1", "Service", name, json!({"selector": labels, "ports": [{"port": 80}]}))
    };
    // It tells the variants apart by nothing.
    send("v1", "services", selecting("all-fronts", json!({"tier": "front"}))).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let said = refused_for(&world, "ServiceSeesBothVariants", "Service NS/all-fronts").await;
    assert!(said.contains("add app: web to its selector"), "{said}");

    // What the candidate is not part of is told, and borne.
    let guard = object(
        "policy/v1",
        "PodDisruptionBudget",
        "guard",
        json!({
            "maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}},
        }),
    );
    send("policy/v1", "poddisruptionbudgets", guard).await;
    world.patch("v1", "services", "all-fronts", json!({"spec": {"selector": {"app": "web"}}})).await;
    let told = told(&world, &next).await;
    let ns = &world.space.name;
    let service = format!(
        "Service {ns}/all-fronts, which is not in the directory, sends requests to the pods of Deployment {ns}/web and none to the candidate's"
    );
    assert!(told.contains(&service), "{told}");
    let budget = format!(
        "PodDisruptionBudget {ns}/guard, which is not in the directory, covers the pods of Deployment {ns}/web and not the candidate's"
    );
    assert!(told.contains(&budget), "{told}");
}

#[tokio::test]
async fn what_may_not_be_looked_at_is_said_and_keeps_no_rollout() {
    let world = World::new("others-unseen").await;
    // All that it delivers, and no more.
    let rules = json!([
        {"apiGroups": ["", "apps"], "resources": ["services", "configmaps", "deployments", "replicasets", "pods"], "verbs": ["*"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]);
    for (api, plural, object) in [
        (
            "v1",
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "deployer"}}),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "roles",
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "deployer"}, "rules": rules}),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "rolebindings",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "deployer"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "deployer"},
                "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": world.space.name}],
            }),
        ),
    ] {
        world.space.send("POST", &world.space.path(api, plural), &object).await;
    }
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    let policy = canary(json!([{"weight": 30}, {"pause": {}}]));
    world.deliver("shop", json!({"serviceAccountName": "deployer", "rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let told = told(&world, &next).await;
    assert!(told.contains("mean the candidate as they mean the workload is not known of"), "{told}");
    assert!(told.contains("PodDisruptionBudget") && told.contains("NetworkPolicy"), "{told}");
    assert!(told.contains("may not list"), "{told}");
    assert!(!told.contains("of Service,"), "{told}");
}
