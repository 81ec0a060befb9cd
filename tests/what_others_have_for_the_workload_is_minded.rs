//! What stands beside a Delivery and goes by the label of its pods or by the name of its Service is somebody else's, and is not copied
//! for a candidate. Where the candidate would be without what the workload has, or get traffic that nobody gave it, or where an
//! autoscaler that nobody holds could take away what going back needs, the rollout is refused before a pod is started, with the
//! object's name and what to do; the rest is told.

use crate::a_mesh_is_steered_by_its_hosts::{API, meshed};
use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployed, service, web};
use crate::routes_are_valid::{crds, definitions};
use crate::support::cli::windlass_with;
use crate::support::cluster::{Cluster, wait_until};
use crate::support::daemon::{World, config_map};
use crate::support::gateway::{MONITORS, know};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::delivery::{Phase, Problem};

const MONITORING: &str = "monitoring.coreos.com/v1";
const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const SCALING: &str = "autoscaling/v2";
const SCALERS: &str = "horizontalpodautoscalers";
const KEDA: &str = "keda.sh/v1alpha1";

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
    for kind in ["PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler"] {
        assert!(told.contains(kind), "{told}");
    }
    assert!(told.contains("may not list"), "{told}");
    assert!(!told.contains("of Service,"), "{told}");
}

/// An autoscaler of the Deployment `web`.
fn scaler(name: &str) -> Value {
    let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
    let spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1, "maxReplicas": 9, "metrics": [{"type": "Resource", "resource": cpu}],
    });
    object(SCALING, "HorizontalPodAutoscaler", name, spec)
}

#[tokio::test]
async fn an_autoscaler_of_others_could_take_away_what_going_back_needs() {
    let (world, _) = deployed("others-scaler", "app: web, tier: front", blue_green()).await;
    let ns = world.space.name.as_str();
    let scalers = world.space.path(SCALING, SCALERS);
    // Others of the same namespace are nobody's business.
    let mut elsewhere = scaler("of-another");
    elsewhere["spec"]["scaleTargetRef"]["name"] = json!("another");
    world.space.send("POST", &scalers, &elsewhere).await;
    world.space.send("POST", &scalers, &scaler("web")).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let id = format!("HorizontalPodAutoscaler {ns}/web");
    let said = refused_for(&world, "CannotFollowCandidate", &id).await;
    assert!(said.contains(&format!("and scales Deployment {ns}/web: it could take away the pods")), "{said}");
    assert!(said.contains("or take it away for the rollout"), "{said}");
    // So it is foretold.
    let arguments = [
        "diff",
        "--delivery",
        "shop",
        "-n",
        ns,
        "--installation",
        world.installation(),
        "--revision",
        next.as_str(),
    ];
    let foretold = windlass_with(&world.space.cluster.kubeconfig, &arguments);
    assert!(foretold.out.contains(&format!("would be refused: {said}")), "{foretold:?}");

    // With the revision it comes too late: until promotion nobody holds it.
    let brought = scaler("web").to_string();
    let next = world.commit("And its autoscaler", &[("shop/scaler.yaml", &brought)]);
    let late = |d: &Delivery| {
        let failure = d.status.as_ref().and_then(|status| status.failure.as_ref());
        failure.is_some_and(|failure| {
            failure.problem.message.contains("not in the directory of the last good revision")
        })
    };
    world.wait("shop", "is refused as long as nobody holds it", late).await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"], "no pod of a candidate was started");
    let arguments = [&arguments[..8], &[next.as_str()]].concat();
    let foretold = windlass_with(&world.space.cluster.kubeconfig, &arguments);
    assert!(foretold.out.contains("not in the directory of the last good revision"), "{foretold:?}");
    world.delete(SCALING, SCALERS, "web").await;
    world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(world.names(SCALING, SCALERS).await, ["of-another", "web-preview"]);
}

#[tokio::test]
async fn an_autoscaler_that_came_into_the_directory_before_is_held() {
    let (world, _) = deployed("others-scaler-adopted", "app: web, tier: front", blue_green()).await;
    world.space.send("POST", &world.space.path(SCALING, SCALERS), &scaler("web")).await;
    let good = world.commit("Its autoscaler", &[("shop/scaler.yaml", &scaler("web").to_string())]);
    world.wait_for("shop", Phase::Ready, &good).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Paused, &next).await;
    let least = async |name: &str| world.get(SCALING, SCALERS, name).await["spec"]["minReplicas"].clone();
    assert_eq!((least("web").await, least("web-preview").await), (json!(2), json!(2)));
}

/// What KEDA's operator does is played by hand: it makes an autoscaler for a ScaledObject, with the labels of that.
#[tokio::test]
async fn an_autoscaler_that_keda_makes_is_minded_by_its_scaled_object() {
    // Of its own: the kind is the whole cluster's, and the requests of other tests are counted.
    let cluster = Cluster::own();
    let mut world = World::stopped_in(cluster, "others-keda").await;
    let collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = definitions(&crds().join("keda.yaml"), &["scaledobjects"]).remove(0);
    world.space.send("POST", collection, &definition).await;
    world.start();
    let by_keda = |name: &str| {
        let cron =
            json!({"timezone": "Etc/UTC", "start": "0 6 * * *", "end": "0 20 * * *", "desiredReplicas": "5"});
        let spec = json!({
            "scaleTargetRef": {"name": "web"}, "minReplicaCount": 1, "maxReplicaCount": 9,
            "triggers": [{"type": "cron", "metadata": cron}],
        });
        object(KEDA, "ScaledObject", name, spec)
    };
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web, tier: front")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/scaler.yaml", &by_keda("web").to_string()),
        ],
    );
    world.deliver("shop", json!({"rollout": blue_green()})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let made_for = async |name: &str| {
        let owner = world.get(KEDA, "scaledobjects", name).await;
        let mut made = scaler(&format!("keda-hpa-{name}"));
        made["metadata"]["labels"] = owner["metadata"]["labels"].clone();
        made["metadata"]["ownerReferences"] = json!([{
            "apiVersion": KEDA, "kind": "ScaledObject", "name": name, "uid": owner["metadata"]["uid"], "controller": true,
        }]);
        world.space.send("POST", &world.space.path(SCALING, SCALERS), &made).await;
    };
    made_for("web").await;

    // Somebody else's is named, and not what KEDA made for it.
    world.space.send("POST", &world.space.path(KEDA, "scaledobjects"), &by_keda("by-hand")).await;
    made_for("by-hand").await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    refused_for(&world, "CannotFollowCandidate", "ScaledObject.keda.sh NS/by-hand").await;
    // The garbage collector takes half a minute to know a new kind of owner.
    world.delete(SCALING, SCALERS, "keda-hpa-by-hand").await;
    world.delete(KEDA, "scaledobjects", "by-hand").await;
    world.wait_for("shop", Phase::Paused, &next).await;
    let least =
        async |name: &str| world.get(KEDA, "scaledobjects", name).await["spec"]["minReplicaCount"].clone();
    assert_eq!((least("web").await, least("web-preview").await), (json!(2), json!(2)));
    drop(world);
    cluster.stop();
}
