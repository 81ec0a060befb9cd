//! What a daemon asks during a rollout besides Prometheus: the app itself at every ready endpoint of the candidate, and somebody
//! else who decides, with credentials from a Secret. What could never be answered is refused before any pod is started.

use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployed, service as plain_service, web};
use crate::support::cli::windlass_with;
use crate::support::cluster::wait_until;
use crate::support::daemon::World;
use crate::support::plane::{self, Plane, server, service};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use windlass::api::Delivery;
use windlass::api::analysis::{MetricRun, Outcome};
use windlass::api::delivery::Phase;

const APPS: &str = "apps/v1";

fn runs(delivery: &Delivery) -> Vec<MetricRun> {
    let attempt = delivery.status.as_ref().and_then(|s| s.attempt.as_ref());
    attempt.and_then(|a| a.rollout.as_ref()).map(|r| r.analysis.clone()).unwrap_or_default()
}

/// A Deployment whose pods answer with a number, which is JSON: they say their version, which is empty, and their hostname. This
/// share of the answers is a 500.
fn counting(name: &str, number: u32, replicas: u32, errors: u32) -> Value {
    let mut made = server(name, "v1", replicas);
    let template = &mut made["spec"]["template"]["spec"];
    template["hostname"] = json!(number.to_string());
    template["containers"][0]["env"] =
        json!([{"name": "VERSION", "value": ""}, {"name": "ERROR_SHARE", "value": errors.to_string()}]);
    made
}

fn files(plane: &Plane, host: &str, number: u32, errors: u32) -> String {
    let mut served = service("web", "http");
    // Nobody listens at the first port of the Service, which is not the one that the route uses.
    let port = |name: &str, port: u16, target: u16| json!({"name": name, "port": port, "targetPort": target});
    served["spec"]["ports"] = json!([port("admin", 81, 8081), port("web", 80, 8080)]);
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [plane.parent], "hostnames": [host],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        },
    });
    // JSON is YAML.
    [counting("web", number, 2, errors), served, route].map(|object| object.to_string()).join("\n---\n")
}

#[tokio::test]
async fn every_ready_endpoint_of_the_candidate_has_to_answer_well() {
    let Some(plane) = plane::shared("the_app_itself_is_asked") else { return };
    let mut world = World::stopped_in(plane.cluster, "asked").await;
    let _told = plane.told(&world.space);
    world.start();
    let host = format!("{}.test", world.space.name);
    let commit =
        |number: u32| world.commit("A number", &[("shop/web.yaml", &files(plane, &host, number, 0))]);
    let rollout = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 10}, {"analysis": {"count": 2}}, {"pause": {}}], "settle": "300ms",
        "analysis": {
            "interval": "1s", "initialDelay": "1s", "failureLimit": 0, "consecutiveErrorLimit": 10,
            "metrics": [
                {"name": "health", "http": {"path": "/healthz", "port": "web"}},
                {"name": "ready", "http": {"path": "/readyz", "port": 8080, "status": [200]}},
                {"name": "number", "http": {"path": "/"}, "success": "result <= stable + 1 && result > 0"},
            ],
        },
    });
    let good = commit(7);
    world.deliver("shop", json!({"rollout": rollout})).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    let next = commit(8);
    let well = |d: &Delivery| {
        let runs = runs(d);
        let all = runs.len() == 3 && runs.iter().all(|run| run.outcome == Some(Outcome::Success));
        all && d.status.as_ref().is_some_and(|s| s.phase == Phase::Paused)
    };
    world.wait("shop", "all answer well, and a person is waited for", well).await;

    // One endpoint more, of which nothing that carries our label tells: the pod behind it does not answer as it should.
    let path = world.space.path(APPS, "deployments");
    world.space.send("POST", &path, &counting("stranger", 70, 1, 0)).await;
    let selected = format!("{}?labelSelector=app%3Dstranger", world.space.path("v1", "pods"));
    let address = wait_until("the stranger is ready", world.limit, || async {
        let pods = world.space.send("GET", &selected, &Value::Null).await;
        let status = &pods["items"][0]["status"];
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        match status["conditions"].as_array().is_some_and(|all| all.iter().any(ready)) {
            true => Ok(status["podIP"].as_str().unwrap().to_owned()),
            false => Err(status.to_string()),
        }
    })
    .await;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "stranger", "labels": {"kubernetes.io/service-name": "web-canary"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
    });
    world.space.send("POST", &world.space.path("discovery.k8s.io/v1", "endpointslices"), &slice).await;
    let held = world.wait_for("shop", Phase::Held, &next).await.status.unwrap();
    let problem = held.held.unwrap().problem;
    assert_eq!(problem.reason, "AnalysisFailed");
    let said = format!("{address}:8080: result <= stable + 1 && result > 0 does not hold");
    assert!(problem.message.contains("number") && problem.message.contains(&said), "{}", problem.message);
    assert_eq!(held.effective.unwrap().commit, good);
    world.space.send("DELETE", &format!("{path}/stranger"), &Value::Null).await;
}

#[tokio::test]
async fn the_candidate_answers_for_itself_through_the_route_that_leads_to_it() {
    let Some(plane) = plane::shared("the_app_itself_is_asked::through_the_route") else { return };
    let mut world = World::stopped_in(plane.cluster, "asked-through").await;
    let _told = plane.told(&world.space);
    world.start();
    let host = format!("{}.test", world.space.name);
    let commit = |number: u32, errors: u32| {
        world.commit("A number", &[("shop/web.yaml", &files(plane, &host, number, errors))])
    };
    // Stable says 7, which is no success: only the candidate says more, and only with the header it is asked.
    let rollout = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}}, "settle": "1s",
        "steps": [{"header": {"name": "x-canary", "value": "1"}}, {"analysis": {"count": 3}}, {"pause": {}}],
        "analysis": {
            "interval": "1s", "initialDelay": "1s", "failureLimit": 3, "consecutiveErrorLimit": 10,
            "metrics": [{
                "name": "through", "success": "result > 7",
                "http": {"url": format!("{}/", plane.gateway), "headers": {"Host": host, "x-canary": "1"}},
            }],
        },
    });
    let good = commit(7, 0);
    world.deliver("shop", json!({"rollout": rollout})).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    let next = commit(8, 0);
    let waits = world.wait_for("shop", Phase::Paused, &next).await;
    let run = runs(&waits).remove(0);
    assert_eq!(run.outcome, Some(Outcome::Success), "{run:?}");
    let promoted = windlass_with(&plane.cluster.kubeconfig, &["promote", "shop", "-n", &world.space.name]);
    assert_eq!(promoted.code, 0, "{promoted:?}");
    world.wait_for("shop", Phase::Ready, &next).await;

    let bad = commit(9, 1);
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    let problem = held.held.unwrap().problem;
    assert_eq!(problem.reason, "AnalysisFailed");
    assert!(problem.message.contains("through") && problem.message.contains("500"), "{}", problem.message);
    assert_eq!(held.effective.unwrap().commit, next);
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
}

/// Somebody who is asked whether a rollout may go on, and what was sent along.
#[derive(Clone)]
struct Gate {
    go: Arc<Mutex<bool>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    url: String,
}

impl Gate {
    /// It serves until the test's runtime ends.
    async fn new() -> Self {
        async fn answer(
            State(gate): State<Gate>,
            headers: HeaderMap,
            body: axum::body::Bytes,
        ) -> axum::Json<Value> {
            let word = headers.get("authorization").map(|v| v.to_str().unwrap().to_owned());
            let body = serde_json::from_slice(&body).unwrap();
            gate.asked.lock().unwrap().push((word.unwrap_or_default(), body));
            let go = *gate.go.lock().unwrap();
            axum::Json(json!({"go": go}))
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/{{{{ delivery }}}}", listener.local_addr().unwrap());
        let gate = Gate { go: Arc::new(Mutex::new(true)), asked: Arc::default(), url };
        let pages = axum::Router::new().route("/shop", post(answer)).with_state(gate.clone());
        tokio::spawn(async move { axum::serve(listener, pages).await.unwrap() });
        gate
    }
}

#[tokio::test]
async fn a_gate_is_asked_with_the_credentials_of_a_secret_which_are_never_told() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let gate = Gate::new().await;
    let mut policy = canary(json!([{"weight": 30}, {"analysis": {"count": 2}}]));
    policy["analysis"] = json!({
        "interval": "1s", "initialDelay": "1s", "failureLimit": 0, "consecutiveErrorLimit": 1,
        "metrics": [{
            "name": "gate", "timeout": "60s", "success": "result.go",
            "webhook": {"url": gate.url, "metadata": {"team": "shop"}, "secretRef": {"name": "gate-auth"}},
        }],
    });
    let (world, good) = deployed("gate", "app: web", policy).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    // Nobody is asked without the credentials; that counts as an error, and is never a success.
    let without = world
        .wait("shop", "is paused without the Secret", |d| {
            let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
            let paused = attempt.and_then(|a| a.rollout.as_ref()?.paused.as_ref());
            paused.is_some_and(|p| p.message.contains("Secret gate-auth: it is not there"))
        })
        .await;
    let run = runs(&without).remove(0);
    assert_eq!((run.outcome, run.succeeded, run.failed), (Some(Outcome::Error), 0, 0));
    assert!(run.unanswered > 1, "{run:?}");
    assert!(gate.asked.lock().unwrap().is_empty());

    // Once it is there, the rollout goes on by itself.
    let secret = |token: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gate-auth"}, "stringData": {"bearerToken": token}});
    world.space.send("POST", &world.space.path("v1", "secrets"), &secret(TOKEN)).await;
    world.wait_for("shop", Phase::Ready, &next).await;
    let (word, body) = gate.asked.lock().unwrap()[0].clone();
    assert_eq!(word, format!("Bearer {TOKEN}"));
    assert_eq!((&body["candidate"], &body["metadata"]["team"]), (&json!("web-canary"), &json!("shop")));

    *gate.go.lock().unwrap() = false;
    let bad = world.commit("Third", &[("shop/web.yaml", &web("ok3", 2))]);
    let held = world.wait_for("shop", Phase::Held, &bad).await;
    let problem = held.status.as_ref().unwrap().held.as_ref().unwrap().problem.clone();
    assert_eq!(problem.reason, "AnalysisFailed");
    assert!(problem.message.contains("result.go does not hold"), "{}", problem.message);
    assert_ne!(held.status.as_ref().unwrap().effective.as_ref().unwrap().commit, good);

    let told = [
        world.log(),
        serde_json::to_string(&held).unwrap(),
        format!("{:?}", world.events("shop").await),
        serde_json::to_string(&world.reports().get_opt("shop").await.unwrap()).unwrap(),
    ];
    assert!(told.iter().all(|text| !text.contains(TOKEN)), "the credentials were told");
}

/// Waits until a rollout is refused for what it would measure. Answers what was said.
async fn refused(world: &World) -> String {
    let refused = world.wait_refused("shop", "InvalidAnalysis").await.status.unwrap();
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    let failure = refused.failure.unwrap();
    assert!(!failure.transient);
    failure.problem.message
}

#[tokio::test]
async fn what_could_never_be_answered_is_refused_before_any_pod_is_started() {
    let measured = |mut policy: Value, metric: Value| {
        policy["analysis"] = json!({"metrics": [metric]});
        json!({"rollout": policy})
    };
    let path = json!({"name": "health", "http": {"path": "/healthz"}});
    let shared = canary(json!([{"weight": 30}]));
    let (world, good) = deployed("unanswerable", "app: web", shared.clone()).await;
    world.deliver("shop", measured(shared.clone(), path.clone())).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let said = refused(&world).await;
    assert!(said.contains("metric health: http.path asks the endpoints of a Service"), "{said}");

    let builtin = json!({"address": "http://prometheus.example.com", "builtin": "request-success-rate"});
    world.deliver("shop", measured(shared, json!({"name": "rate", "prometheus": builtin}))).await;
    let asks = |d: &Delivery| {
        let failure = d.status.as_ref().and_then(|s| s.failure.as_ref());
        failure.is_some_and(|f| f.problem.message.contains("metric rate: the query asks for {{ service }}"))
    };
    world.wait("shop", "is refused for the other metric", asks).await;
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);

    // A Service with two ports, and no route that uses one of them.
    let two = plain_service("app: web, tier: front")
        .replace("[{port: 80}]", "[{name: http, port: 80}, {name: admin, port: 81}]");
    world.deliver("shop", measured(blue_green(), path.clone())).await;
    world.commit("Two ports", &[("shop/service.yaml", &two)]);
    let ambiguous = |d: &Delivery| {
        let failure = d.status.as_ref().and_then(|s| s.failure.as_ref());
        failure.is_some_and(|f| f.problem.message.contains("has the ports http (80), admin (81)"))
    };
    let last = world.wait("shop", "is refused for the port", ambiguous).await;
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    let effective = last.status.unwrap().effective.unwrap();
    assert!(effective.commit == good && effective.commit != next);
    let named = json!({"name": "health", "http": {"path": "/healthz", "port": "http"}});
    world.deliver("shop", measured(blue_green(), named)).await;
    world.wait("shop", "it begins", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Paused)).await;
}
