//! What a spec asks for and does not get is told in the Application, be it that a router cannot do it or that the API server does
//! not answer; and what passes by itself is tried again.

use crate::routes_are_valid::{crds, definitions};
use crate::support::applications::condition_of;
use crate::support::cluster::{Cluster, TEST_AGENT, try_send, wait_until};
use crate::support::daemon::{LIMIT, World};
use crate::support::faults::{Fault, Faults};
use crate::support::gateway::{Controller, GATEWAY, ROUTES};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;
use windlass::api::application::ApplicationPhase;
use windlass::api::condition::kind;
use windlass::api::delivery::Adopt;

#[tokio::test]
async fn what_the_router_cannot_do_is_a_condition_and_an_event() {
    let world = World::new("app-limits").await;
    let probe = json!({"readiness": {"httpGet": {"path": "/ready", "port": 8080}}});
    let asked = json!({"healthCheck": probe, "traffic": {"mtls": "Strict", "timeout": "5s"}});
    world.application("web", "ok", asked.clone()).await;
    let status = world.wait_application_runs("web", "ok").await;
    let (limited, reason, message) = condition_of(&status, kind::LIMITED);
    assert_eq!((limited.as_str(), reason.as_str()), ("True", "UnsupportedByRouter"));
    assert!(
        message.starts_with("spec.traffic.timeout, spec.traffic.mtls cannot be carried out"),
        "{message}"
    );
    assert_eq!(condition_of(&status, kind::READY).0, "True", "what can be done is done");
    let told = async || {
        let events = world.events_about("Application", "web").await;
        events.into_iter().filter(|(reason, _)| reason == "UnsupportedByRouter").collect::<Vec<_>>()
    };
    // Another change, in what nothing is said about: it is told once.
    let mut more = asked;
    more["env"] = json!([{"name": "COLOUR", "value": "red"}]);
    world.application("web", "ok2", more).await;
    world.wait_application_runs("web", "ok2").await;
    wait_until("one event tells it", LIMIT, || async {
        let events = told().await;
        if events.len() == 1 { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
    world.application("web", "ok2", json!({"healthCheck": probe})).await;
    let status = world
        .wait_application("web", "nothing is limited", |s| {
            s.conditions.iter().any(|c| c.type_ == kind::LIMITED && c.status == "False")
        })
        .await;
    assert_eq!(condition_of(&status, kind::LIMITED).1, "NothingLimited");
}

/// Has the cluster know HTTPRoutes as a release of the Gateway API defines them.
async fn install_routes(world: &World, release: &str) {
    let file = crds().join(release).join("gateway.networking.k8s.io_httproutes.yaml");
    let definition = definitions(&file, &["httproutes"]).remove(0);
    let all = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let path = format!("{all}/httproutes.gateway.networking.k8s.io?fieldManager={TEST_AGENT}&force=true");
    world.space.send("APPLY", &path, &definition).await;
}

#[tokio::test]
async fn a_field_that_the_clusters_routes_do_not_have_is_told_with_the_setting_and_nothing_is_half_applied() {
    // Of its own: the definition of routes is the whole cluster's.
    let cluster = Cluster::own();
    let mut world = World::stopped_in(cluster, "app-channel").await;
    let client = world.space.connection.client.clone();
    let routes = world.space.path(GATEWAY, ROUTES);
    install_routes(&world, "gateway-new").await;
    wait_until("routes are served", LIMIT, || async {
        try_send(&client, "GET", &routes, &Value::Null).await.map_err(|e| e.to_string())
    })
    .await;
    world.start();
    let controller = Controller::of(&world);
    let asked = |channel: &str| {
        json!({
            "healthCheck": {"readiness": {"httpGet": {"path": "/ready", "port": 8080}}},
            "expose": {"host": "web.example.com", "gateway": {"name": "public", "channel": channel}},
            "traffic": {"timeout": "5s", "retries": {"attempts": 2, "retryOn": "503"}},
        })
    };
    world.application("web", "ok", asked("Standard")).await;
    let status = world.wait_application_runs("web", "ok").await;
    let (limited, _, message) = condition_of(&status, kind::LIMITED);
    assert!(
        limited == "True" && message.starts_with("spec.traffic.retries cannot be carried out"),
        "{message}"
    );
    assert!(message.contains("for retries set expose.gateway.channel: Experimental"), "{message}");
    let before = world.get(GATEWAY, ROUTES, "web").await;

    world.application("web", "ok2", asked("Experimental")).await;
    let status = world
        .wait_application("web", "it is refused", |s| {
            s.conditions.iter().any(|c| c.type_ == kind::READY && c.reason == "UnknownField")
        })
        .await;
    let message = condition_of(&status, kind::READY).2;
    let route = format!("HTTPRoute {}/web", world.space.name);
    for words in [
        &route,
        "unknown field spec.rules[0].retry",
        "spec.expose.gateway.channel is Experimental",
        "or set Standard",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(condition_of(&status, kind::DEGRADED), ("True".into(), "RolloutRefused".into(), message));
    assert_eq!(status.phase, ApplicationPhase::Running, "what was there runs on");
    assert_eq!(
        world.image_of("web").await,
        "registry.example.com/web:ok",
        "nothing of the other revision is begun"
    );
    let after = world.get(GATEWAY, ROUTES, "web").await;
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);

    install_routes(&world, "gateway-experimental").await;
    wait_until("routes have the field", LIMIT, || async {
        let probe = json!({
            "apiVersion": GATEWAY, "kind": "HTTPRoute", "metadata": {"name": "probe"},
            "spec": {"rules": [{"retry": {"attempts": 1}}]},
        });
        let path = format!("{routes}/probe?fieldManager={TEST_AGENT}&dryRun=All&fieldValidation=Strict");
        try_send(&client, "APPLY", &path, &probe).await.map_err(|e| e.to_string())
    })
    .await;
    world.application("web", "ok3", asked("Experimental")).await;
    let status = world.wait_application_runs("web", "ok3").await;
    assert_eq!(condition_of(&status, kind::LIMITED).1, "NothingLimited");
    let route = world.get(GATEWAY, ROUTES, "web").await;
    assert_eq!(route["spec"]["rules"][0]["retry"], json!({"attempts": 2, "codes": [503]}), "{route}");
    drop((controller, world));
    cluster.stop();
}

/// A daemon that reaches the API server through faults.
async fn behind_faults(test: &str) -> (World, Faults) {
    let mut world = World::stopped(test).await;
    let faults = world.behind_faults().await;
    world.start();
    (world, faults)
}

fn is_kept(method: &str, path: &str) -> bool {
    method == "POST" && path.contains("/controllerrevisions")
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again_and_told_if_it_lasts() {
    for (test, code) in [("app-503", 503), ("app-429", 429)] {
        let (world, faults) = behind_faults(test).await;
        faults.set(move |request| {
            is_kept(request.method().as_str(), request.uri().path()).then_some(Fault::Status(code, None))
        });
        world.application("web", "ok", json!({})).await;
        let status = world
            .wait_application("web", "it is told", |s| {
                s.conditions.iter().any(|c| c.type_ == kind::READY && c.reason == "RevisionNotKept")
            })
            .await;
        assert_eq!(status.phase, ApplicationPhase::Pending);
        let (ready, _, message) = condition_of(&status, kind::READY);
        assert!(ready == "False" && message.contains("ControllerRevision"), "{message}");
        assert!(message.ends_with("it is tried again"), "{message}");
        assert_eq!(condition_of(&status, kind::DEGRADED).0, "False", "nobody has to do anything");
        assert!(faults.count(is_kept) >= 3, "not for once or twice");
        world.wait_application_event("web", "RevisionNotKept").await;
        faults.set(|_| None);
        let status = world.wait_application_runs("web", "ok").await;
        assert_eq!(condition_of(&status, kind::READY).0, "True");
    }
}

#[tokio::test]
async fn a_newer_spec_does_not_wait_for_the_one_before() {
    let (world, faults) = behind_faults("app-newer").await;
    // The first spec is never taken, whatever is tried.
    faults.set(|request| {
        let first = is_kept(request.method().as_str(), request.uri().path());
        first.then_some(Fault::Status(503, None))
    });
    world.application("web", "ok", json!({})).await;
    wait_until("it was tried some times", LIMIT, || async {
        let tried = faults.count(is_kept);
        if tried >= 4 { Ok(()) } else { Err(format!("{tried} times")) }
    })
    .await;
    world.application("web", "ok2", json!({})).await;
    faults.set(|_| None);
    world.wait_application_runs("web", "ok2").await;
    assert_eq!(world.revisions_of("web").await.len(), 1, "and the one before is not tried any more");
}

#[tokio::test]
async fn a_spec_is_taken_though_its_delivery_is_shown_before_the_write_is_answered() {
    let (world, faults) = behind_faults("app-late-answer").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    let held = Arc::new(Notify::new());
    let later = held.clone();
    faults.set(move |request| {
        let writes =
            request.method() == "PATCH" && request.uri().path().ends_with("/deliveries/web.application");
        writes.then(|| Fault::AnswerLater(later.clone()))
    });
    world.application("web", "ok2", json!({"adopt": "Restart"})).await;
    wait_until("the Delivery is looked at as it was written", LIMIT, || async {
        let delivery = world.deliveries().get("web.application").await.map_err(|e| e.to_string())?;
        let seen = delivery.status.as_ref().and_then(|s| s.observed_generation);
        match delivery.spec.template.adopt == Some(Adopt::Restart) && seen == delivery.metadata.generation {
            true => Ok(()),
            false => Err(format!("{delivery:?}")),
        }
    })
    .await;
    faults.set(|_| None);
    held.notify_one();
    world.wait_application_runs("web", "ok2").await;
}
