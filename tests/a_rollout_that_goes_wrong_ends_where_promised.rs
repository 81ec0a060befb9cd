//! Whatever goes wrong in the middle of a rollout, on the real control plane: stable that becomes ill, a promotion that fails
//! half-way, a provider that is down, routes that people change or delete, autoscalers, names that change in Git, and a
//! Delivery that is deleted, suspended or set otherwise. Each ends where docs/rollouts says.

use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployed, deployment, image, service, web};
use crate::support::cli::{Answer, windlass};
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, condition, config_map};
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use crate::support::git::git;
use crate::support::values::{Values, follow};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use windlass::api::Delivery;
use windlass::api::analysis::OnNoData;
use windlass::api::condition::kind;
use windlass::api::delivery::{Attempt, Goal, Outcome, Phase, Step};
use windlass::api::rollout::{RolloutStatus, Stage};

const APPS: &str = "apps/v1";

fn rollout(delivery: &Delivery) -> Option<&RolloutStatus> {
    delivery.status.as_ref()?.attempt.as_ref()?.rollout.as_ref()
}

/// Why it goes no further for now.
fn paused(delivery: &Delivery) -> &str {
    rollout(delivery).and_then(|r| r.paused.as_ref()).map_or("", |p| &p.reason)
}

fn asked(world: &World, arguments: &[&str]) -> Answer {
    let all: Vec<&str> = arguments.iter().copied().chain(["-n", &world.space.name]).collect();
    windlass(&world.space, &all)
}

fn ask(world: &World, arguments: &[&str]) {
    let answer = asked(world, arguments);
    assert_eq!(answer.code, 0, "{answer:?}");
}

/// Has the pods of stable called ready or not, by whoever looks after their node.
async fn say_ready(world: &World, ready: &str) {
    set_ready(world, "tier=front", ready).await;
}

/// The same of any pods.
async fn set_ready(world: &World, selector: &str, ready: &str) {
    let selector = selector.replace('=', "%3D");
    let path = format!("{}?labelSelector={selector}", world.space.path("v1", "pods"));
    let pods = world.space.send("GET", &path, &Value::Null).await;
    let pods = pods["items"].as_array().unwrap();
    assert!(!pods.is_empty());
    for pod in pods {
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let at = conditions.iter().position(|c| c["type"] == "Ready").unwrap();
        let patch =
            json!([{"op": "replace", "path": format!("/status/conditions/{at}/status"), "value": ready}]);
        let name = pod["metadata"]["name"].as_str().unwrap();
        world.patch("v1", "pods", &format!("{name}/status"), patch).await;
    }
}

/// Nothing of a candidate is left, and the Service leads to the pods under the names of Git.
async fn alone(world: &World) {
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
    let selector = &world.get("v1", "services", "web").await["spec"]["selector"];
    assert!(!selector.to_string().contains("web-"), "{selector}");
}

#[tokio::test]
async fn stable_that_becomes_ill_by_itself_freezes_it_until_it_is_well_or_a_person_promotes() {
    let (world, good) =
        deployed("stable-ill", "app: web", canary(json!([{"weight": 30}, {"pause": "1h"}]))).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let waits = |d: &Delivery| rollout(d).is_some_and(|r| r.step == 2 && r.settled.is_some());
    world.wait("shop", "is in its pause", waits).await;
    say_ready(&world, "False").await;
    let frozen = world.wait("shop", "freezes", |d| paused(d) == "StableUnhealthy").await;
    let status = frozen.status.as_ref().unwrap();
    assert_eq!((status.phase, status.effective.as_ref().unwrap().commit.clone()), (Phase::Paused, good));
    assert!(status.held.is_none());
    assert_eq!(rollout(&frozen).unwrap().layout.weight, 30, "weights stay as they are");
    let told = world.wait_event("shop", "StableUnhealthy").await;
    assert!(told.contains("promote --full"), "{told}");

    say_ready(&world, "True").await;
    world.wait("shop", "goes on", |d| waits(d) && paused(d).is_empty()).await;

    say_ready(&world, "False").await;
    world.wait("shop", "freezes again", |d| paused(d) == "StableUnhealthy").await;
    ask(&world, &["promote", "shop", "--full"]);
    let ready = world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(ready.status.unwrap().history[0].outcome, Outcome::Deployed);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2");
    alone(&world).await;
}

#[tokio::test]
async fn stable_that_becomes_ill_leaves_the_route_as_it_is_until_a_person_promotes_or_it_is_well() {
    know_routes().await;
    let mut world = World::stopped("stable-ill-route").await;
    let _controller = Controller::of(&world);
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
    let mut policy = canary(json!([{"weight": 30}, {"pause": "1h"}]));
    policy["router"] = json!({"gatewayAPI": {"route": "web"}});
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // Every share that the route ever gives the candidate; -1 where it does not name it.
    let shares = async || {
        let all = world.space.send("GET", &world.space.path(GATEWAY, ROUTES), &Value::Null).await;
        let since = all["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let of = |route: &Value| share(route).map_or(-1, |share| i64::try_from(share).unwrap());
        follow(&world, (GATEWAY, ROUTES, "web"), &since, of)
    };
    let freezes = async |tag: &str| {
        let next = world.commit("Next", &[("shop/web.yaml", &web(tag, 2))]);
        let waits = |d: &Delivery| {
            rollout(d).is_some_and(|r| r.candidate.commit == next && r.step == 2 && r.settled.is_some())
        };
        world.wait("shop", "is in its pause", waits).await;
        set_ready(&world, "app=web", "False").await;
        let frozen = world.wait("shop", "freezes", |d| paused(d) == "StableUnhealthy").await;
        assert_eq!(frozen.status.unwrap().phase, Phase::Paused);
        assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30));
        next
    };
    let as_in_git = async || {
        alone(&world).await;
        assert_eq!(world.get(GATEWAY, ROUTES, "web").await["spec"], route()["spec"]);
    };

    let given = shares().await;
    let second = freezes("ok2").await;
    ask(&world, &["promote", "shop", "--full"]);
    world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2");
    as_in_git().await;
    were(&given, "the candidate's shares", |seen| seen == [0, 30, 100, 0, -1]).await;

    // Who takes it back takes no traffic from pods that are well.
    let given = shares().await;
    let third = freezes("ok3").await;
    ask(&world, &["abort", "shop"]);
    let goes_back = |d: &Delivery| {
        let status = d.status.as_ref().unwrap();
        let waits = |a: &Attempt| a.goal == Goal::Rollback && a.step == Step::Waiting;
        status.held.is_some() && status.attempt.as_ref().is_some_and(waits)
    };
    let kept = world.wait("shop", "waits for stable", goes_back).await.status.unwrap();
    assert_eq!(kept.held.unwrap().problem.reason, "Aborted");
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30));
    were(&given, "the candidate's shares", |seen| seen == [0, 30]).await;
    set_ready(&world, "app=web", "True").await;
    let held = world.wait_for("shop", Phase::Held, &third).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, second);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2");
    as_in_git().await;
    were(&given, "the candidate's shares", |seen| seen == [0, 30, 0, -1]).await;
}

#[tokio::test]
async fn a_candidate_that_has_traffic_and_no_ready_pod_is_left_long_before_its_timeout() {
    let mut switch = blue_green();
    switch["steps"] = json!([]);
    switch["scaleDownDelay"] = json!("1h");
    let paused = canary(json!([{"weight": 50}, {"pause": {}}]));
    let cases = [
        ("unready-canary", "app: web", paused, "web-canary", Stage::Stepping),
        ("unready-switched", "app: web, tier: front", switch, "web-preview", Stage::Switching),
    ];
    for (test, selector, policy, name, stage) in cases {
        let (world, good) = deployed(test, selector, policy.clone()).await;
        world.deliver("shop", json!({"rollout": policy, "timeout": "1h"})).await;
        let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
        let serves = |d: &Delivery| {
            let has = |r: &RolloutStatus| r.layout.has_traffic() && r.settled.is_some() && r.stage == stage;
            rollout(d).is_some_and(has)
        };
        world.wait("shop", "gives it traffic", serves).await;
        let labels = deployment(&world, name).await["spec"]["selector"]["matchLabels"].clone();
        let labels = labels.as_object().unwrap().iter();
        let selector: Vec<String> = labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap())).collect();
        set_ready(&world, &selector.join(","), "False").await;
        let noted = |d: &Delivery| rollout(d).is_some_and(|r| r.unready.is_some());
        let noted = world.wait("shop", "notes it", noted).await;
        assert!(serves(&noted), "a moment may pass");
        let held = world.wait_for("shop", Phase::Held, &next).await.status.unwrap();
        assert_eq!(held.effective.unwrap().commit, good);
        let problem = held.held.unwrap().problem;
        assert_eq!(problem.reason, "NoPodReady", "{problem:?}");
        assert!(problem.object.ends_with(name), "{problem:?}");
        assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");
        alone(&world).await;
    }
}

#[tokio::test]
async fn a_commit_that_returns_exactly_to_what_runs_ends_it_and_nothing_is_held() {
    let mut switch = blue_green();
    (switch["steps"], switch["scaleDownDelay"]) = (json!([]), json!("1h"));
    let steps = json!([{"weight": 30}, {"pause": {}}]);
    for (test, selector, policy) in
        [("returns-canary", "app: web", canary(steps)), ("returns-switched", "app: web, tier: front", switch)]
    {
        let (world, good) = deployed(test, selector, policy).await;
        let before = deployment(&world, "web").await;
        let ran = world.wait_for("shop", Phase::Ready, &good).await.status.unwrap().effective.unwrap();
        world.commit(
            "Second",
            &[("shop/web.yaml", &web("ok2", 2)), ("shop/settings.yaml", &config_map("settings", "red"))],
        );
        let in_its_middle = |d: &Delivery| {
            let here = |r: &RolloutStatus| r.step == 2 || r.stage == Stage::Switching;
            rollout(d).is_some_and(|r| here(r) && r.layout.has_traffic() && r.settled.is_some())
        };
        world.wait("shop", "gives the candidate traffic", in_its_middle).await;
        git(&world.repo.path(), &["revert", "--no-edit", "HEAD"]);
        let ready = |d: &Delivery| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready);
        let status = world.wait("shop", "is ready again", ready).await.status.unwrap();
        assert!(status.held.is_none() && status.attempt.is_none(), "{test}: {status:?}");
        assert_eq!(status.effective.unwrap().inputs, ran.inputs, "{test}");
        assert!(status.inventory.iter().all(|e| !e.candidate && !e.stale), "{test}");
        let after = deployment(&world, "web").await;
        assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "{test}");
        assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"], "{test}");
        assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue", "{test}");
        assert_eq!(world.names("v1", "configmaps").await, ["settings"], "{test}");
        alone(&world).await;
    }
}

#[tokio::test]
async fn a_promotion_that_fails_half_way_brings_all_of_the_last_good_revision_back() {
    let mut policy = blue_green();
    policy["steps"] = json!([]);
    let (world, good) = deployed("promotion-fails", "app: web, tier: front", policy).await;
    let before = deployment(&world, "web").await;
    // The candidate is well; what comes with promotion is not.
    let worker = crate::support::daemon::deployment("worker", "missing", 1);
    let bad = world.commit(
        "Second, with a worker",
        &[
            ("shop/web.yaml", &web("ok2", 2)),
            ("shop/settings.yaml", &config_map("settings", "red")),
            ("shop/worker.yaml", &worker),
        ],
    );
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, good);
    assert!(held.held.unwrap().problem.object.ends_with("/worker"));
    let outcomes: Vec<Outcome> = held.history.iter().map(|h| h.outcome).collect();
    assert_eq!(outcomes, [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed]);
    let after = deployment(&world, "web").await;
    assert_eq!(image(&after), "registry.example.com/web:ok");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
    assert_eq!(world.names("v1", "configmaps").await, ["settings"]);
    alone(&world).await;
}

#[tokio::test]
async fn a_candidate_that_never_becomes_ready_goes_when_its_time_is_up_and_stable_was_never_touched() {
    let steps = json!([{"weight": 30}, {"pause": {}}]);
    for (test, selector, policy) in [
        ("never-canary", "app: web", canary(steps)),
        ("never-preview", "app: web, tier: front", blue_green()),
    ] {
        let (world, good) = deployed(test, selector, policy.clone()).await;
        world.give_time(15, json!({"rollout": policy})).await;
        let before = deployment(&world, "web").await;
        let service = world.get("v1", "services", "web").await;
        let bad = world.commit(
            "Never ready",
            &[("shop/web.yaml", &web("unready", 2)), ("shop/settings.yaml", &config_map("settings", "red"))],
        );
        let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
        assert_eq!(status.effective.unwrap().commit, good, "{test}");
        let problem = status.held.unwrap().problem;
        assert_eq!(problem.reason, "Timeout", "{test}: {problem:?}");
        assert!(problem.object.contains("/web-"), "{test}: {problem:?}");
        let after = deployment(&world, "web").await;
        assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "{test}");
        assert_eq!(after["spec"], before["spec"], "{test}");
        assert_eq!(
            after["metadata"]["generation"], before["metadata"]["generation"],
            "{test}: not for a moment"
        );
        let now = world.get("v1", "services", "web").await;
        assert_eq!(
            now["metadata"]["resourceVersion"], service["metadata"]["resourceVersion"],
            "{test}: nor this"
        );
        assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue", "{test}");
        assert_eq!(world.names("v1", "configmaps").await, ["settings"], "{test}");
        alone(&world).await;
    }
}

/// A Prometheus that is down until it is told otherwise.
async fn provider(up: Arc<AtomicBool>) -> String {
    async fn answer(State(up): State<Arc<AtomicBool>>) -> impl IntoResponse {
        let one = json!({"metric": {}, "value": [1, "0.999"]});
        let body = json!({"status": "success", "data": {"resultType": "vector", "result": [one]}});
        match up.load(Ordering::SeqCst) {
            true => (StatusCode::OK, axum::Json(body)),
            false => (StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({}))),
        }
    }
    let pages = Router::new().route("/api/v1/query", get(answer).post(answer)).with_state(up);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It serves until the test's runtime ends.
    tokio::spawn(async move { axum::serve(listener, pages).await.unwrap() });
    format!("http://{address}")
}

fn measured(address: &str, on_no_data: &str) -> Value {
    let mut policy = canary(json!([{"weight": 30}, {"analysis": {"count": 2}}]));
    policy["analysis"] = json!({
        "interval": "1s", "initialDelay": "1s", "consecutiveErrorLimit": 1, "onNoData": on_no_data,
        "metrics": [{
            "name": "rate", "success": "result >= 0.99",
            "prometheus": {"address": address, "query": "rate{app=\"{{ candidate }}\"}"},
        }],
    });
    policy
}

#[tokio::test]
async fn a_provider_that_is_down_pauses_it_fails_it_or_is_passed_over_and_is_never_a_success() {
    let up = Arc::new(AtomicBool::new(false));
    let address = provider(up.clone()).await;
    let (world, _) = deployed("provider-down", "app: web", measured(&address, "Pause")).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let told = |d: &Delivery| {
        let problem = rollout(d).and_then(|r| r.paused.as_ref());
        problem.is_some_and(|p| p.message.contains("503"))
    };
    let waits = world.wait("shop", "is paused, for it answers 503", told).await;
    assert_eq!(waits.status.as_ref().unwrap().phase, Phase::Paused);
    assert!(rollout(&waits).unwrap().analysis.iter().all(|run| run.succeeded == 0));
    up.store(true, Ordering::SeqCst);
    world.wait_for("shop", Phase::Ready, &next).await;

    up.store(false, Ordering::SeqCst);
    world.deliver("shop", json!({"rollout": measured(&address, "Fail")})).await;
    let bad = world.commit("Third", &[("shop/web.yaml", &web("ok3", 2))]);
    let held = world.wait_for("shop", Phase::Held, &bad).await;
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("rate") && message.contains("503"), "{message}");
    assert_eq!(held.status.unwrap().effective.unwrap().commit, next);
    alone(&world).await;

    let mut policy = measured(&address, "Pass");
    policy["steps"] = json!([{"weight": 30}, {"analysis": {"count": 2}}, {"pause": {}}]);
    world.deliver("shop", json!({"rollout": policy})).await;
    let passes = |d: &Delivery| {
        let analysis = d.spec.template.rollout.as_ref().and_then(|r| r.analysis.as_ref());
        analysis.is_some_and(|a| a.on_no_data == Some(OnNoData::Pass))
    };
    world.wait("shop", "passes what has no data over", passes).await;
    let passed = world.commit("Fourth", &[("shop/web.yaml", &web("ok4", 2))]);
    let waits = |d: &Delivery| rollout(d).is_some_and(|r| r.candidate.commit == passed && r.step == 3);
    let over = world.wait("shop", "goes on without", |d| waits(d) && paused(d) == "AwaitsPromotion").await;
    assert!(rollout(&over).unwrap().analysis.iter().all(|run| run.succeeded == 0), "it is no success");
    wait_until("it is told", LIMIT, || async {
        let events = world.events("shop").await;
        let told = |text: &str| text.contains("onNoData is Pass") && text.contains("503");
        events.iter().any(|(_, text)| told(text)).then_some(()).ok_or(format!("{events:?}"))
    })
    .await;
    ask(&world, &["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &passed).await;
    alone(&world).await;
}

#[tokio::test]
async fn a_workload_that_is_renamed_meanwhile_is_refused_until_the_rollout_names_it() {
    let (world, good) = deployed("renamed", "app: web", json!({})).await;
    let settings = |name: &str| {
        let mut policy = canary(json!([{"weight": 30}, {"pause": {}}]));
        policy["workload"]["name"] = json!(name);
        json!({"rollout": policy}).to_string()
    };
    let second = world.commit(
        "Second, step by step",
        &[("shop/web.yaml", &web("ok2", 2)), ("shop/windlass.yaml", &settings("web"))],
    );
    world.wait_for("shop", Phase::Paused, &second).await;
    let renamed = web("ok3", 2).replacen("name: web", "name: front", 1);
    let third = world.commit("Renamed", &[("shop/web.yaml", &renamed)]);
    let refused = world
        .wait("shop", "is refused", |d| {
            d.status
                .as_ref()
                .unwrap()
                .failure
                .as_ref()
                .is_some_and(|f| f.problem.reason.starts_with("Workload"))
        })
        .await;
    let status = refused.status.as_ref().unwrap();
    assert_eq!(status.failure.as_ref().unwrap().revision.as_ref().unwrap().commit, third);
    // What is refused changes nothing.
    assert_eq!(status.effective.as_ref().unwrap().commit, good);
    assert_eq!(rollout(&refused).unwrap().candidate.commit, second);
    assert_eq!(world.names(APPS, "deployments").await, ["web", "web-canary"]);
    let fourth = world.commit("And said so", &[("shop/windlass.yaml", &settings("front"))]);
    world.wait_for("shop", Phase::Ready, &fourth).await;
    assert_eq!(world.names(APPS, "deployments").await, ["front"]);
    assert_eq!(image(&deployment(&world, "front").await), "registry.example.com/web:ok3");
}

#[tokio::test]
async fn a_delivery_that_is_deleted_meanwhile_takes_the_candidate_along() {
    let (world, _) = deployed("deleted-meanwhile", "app: web, tier: front", blue_green()).await;
    let next = world.commit(
        "Second",
        &[("shop/web.yaml", &web("ok2", 2)), ("shop/settings.yaml", &config_map("settings", "red"))],
    );
    world.wait_for("shop", Phase::Paused, &next).await;
    // Nobody makes it anew.
    world.repository(json!({"deliveries": []})).await;
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    world.wait_gone("shop").await;
    for (api, plural) in [(APPS, "deployments"), ("v1", "services"), ("v1", "configmaps")] {
        assert!(world.names(api, plural).await.is_empty(), "{plural}");
    }
}

#[tokio::test]
async fn suspended_meanwhile_everything_stays_as_it_is_and_goes_on_later() {
    let (world, _) = deployed("suspended-meanwhile", "app: web, tier: front", blue_green()).await;
    let set = |suspend: bool| json!({"rollout": blue_green(), "suspend": suspend});
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Paused, &next).await;
    world.deliver("shop", set(true)).await;
    world
        .wait("shop", "is suspended", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Suspended))
        .await;
    let audit = world.space.cluster.audit();
    let refused = asked(&world, &["promote", "shop"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    // Somebody breaks the preview: nobody acts on that now.
    let broken = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "app", "image": "registry.example.com/web:crash"}]}}}});
    world.patch(APPS, "deployments", "web-preview", broken).await;
    world
        .wait_object(APPS, "deployments", "web-preview", "breaks", |d| {
            d["status"]["unavailableReplicas"].is_i64()
        })
        .await;
    assert!(world.writes(&audit).is_empty(), "{:?}", world.writes(&audit));
    assert_eq!(world.names(APPS, "deployments").await, ["web", "web-preview"]);

    world.deliver("shop", set(false)).await;
    // What was broken meanwhile is found to be so.
    world.wait_for("shop", Phase::Held, &next).await;
    alone(&world).await;
    ask(&world, &["retry", "shop"]);
    world.wait_for("shop", Phase::Paused, &next).await;
    world.deliver("shop", set(true)).await;
    world
        .wait("shop", "is suspended", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Suspended))
        .await;
    world.deliver("shop", set(false)).await;
    world.wait_for("shop", Phase::Paused, &next).await;
    ask(&world, &["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &next).await;
    alone(&world).await;
}

#[tokio::test]
async fn switched_on_it_changes_nothing_that_runs_and_switched_off_the_rest_is_one_step() {
    let (world, good) = deployed("switched", "app: web", json!({})).await;
    let before = deployment(&world, "web").await;
    let audit = world.space.cluster.audit();
    world.deliver("shop", json!({"rollout": canary(json!([{"weight": 30}, {"pause": {}}]))})).await;
    let seen = |d: &Delivery| {
        let has = d.spec.template.rollout.as_ref().is_some_and(|r| r.workload.is_some());
        let of = |c: &windlass::api::condition::Condition| c.observed_generation == d.metadata.generation;
        has && d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready && s.conditions.iter().any(of))
    };
    let on = world.wait("shop", "has a rollout", seen).await;
    assert_eq!(on.status.unwrap().effective.unwrap().commit, good);
    assert!(world.writes(&audit).is_empty(), "{:?}", world.writes(&audit));
    assert_eq!(deployment(&world, "web").await["metadata"]["generation"], before["metadata"]["generation"]);

    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Paused, &next).await;
    world.deliver("shop", json!({"rollout": {}})).await;
    let off = world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(off.status.unwrap().history[0].outcome, Outcome::Deployed);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2");
    alone(&world).await;
    let third = world.commit("Third", &[("shop/web.yaml", &web("ok3", 2))]);
    world.wait_for("shop", Phase::Ready, &third).await;
}

const SCALING: &str = "autoscaling/v2";
const SCALERS: &str = "horizontalpodautoscalers";

/// What a number of an object has ever been is in the end so.
async fn were(values: &Values<i64>, what: &str, as_wanted: impl Fn(&[i64]) -> bool) {
    wait_until(what, LIMIT, || async {
        let seen = values.lock().unwrap().clone();
        if as_wanted(&seen) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test]
async fn an_autoscaler_that_changes_sizes_finds_its_capacity_before_during_and_after() {
    let scaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  \
                  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  minReplicas: 2\n  maxReplicas: 20\n  \
                  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]\n";
    let scaled = |tag: &str| web(tag, 2).replace("  replicas: 2\n", "");
    let world = World::new("autoscaled").await;
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &scaled("ok")),
            ("shop/service.yaml", &service("app: web, tier: front")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/scaler.yaml", scaler),
        ],
    );
    let mut policy = blue_green();
    policy["steps"] = json!([{"pause": {}}, {"pause": {}}]);
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let size = |replicas: i64| {
        move |d: &Value| d["spec"]["replicas"] == replicas && d["status"]["readyReplicas"] == replicas
    };
    let scale = async |replicas: i64| {
        // As the autoscaler does.
        world.patch(APPS, "deployments", "web/scale", json!({"spec": {"replicas": replicas}})).await;
        world.wait_object(APPS, "deployments", "web", "is scaled", size(replicas)).await;
    };
    let least = async |name: &str| world.get(SCALING, SCALERS, name).await["spec"]["minReplicas"].clone();
    world.wait_object(APPS, "deployments", "web", "has the least size", size(2)).await;
    scale(4).await;
    let list = world.space.send("GET", &world.space.path(SCALING, SCALERS), &Value::Null).await;
    let since = list["metadata"]["resourceVersion"].as_str().unwrap();
    let number = |at: &'static str| move |object: &Value| object.pointer(at).and_then(Value::as_i64).unwrap();
    let bound = |name: &str| follow(&world, (SCALING, SCALERS, name), since, number("/spec/minReplicas"));
    let (bounds, of_candidate) = (bound("web"), bound("web-preview"));
    let sizes = follow(&world, (APPS, "deployments", "web"), since, number("/spec/replicas"));
    let next = world.commit("Second", &[("shop/web.yaml", &scaled("ok2"))]);
    world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(least("web").await, 4, "it does not shrink below what going back needs");
    assert_eq!(least("web-preview").await, 4);
    let preview = deployment(&world, "web-preview").await;
    assert!(size(4)(&preview), "{preview}");

    scale(5).await;
    let still = world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(rollout(&still).unwrap().paused.as_ref().unwrap().reason, "AwaitsPromotion");
    // With the next step, and before any traffic, the candidate grows as what it takes the place of has.
    ask(&world, &["promote", "shop"]);
    let second = |d: &Delivery| rollout(d).is_some_and(|r| r.step == 2) && paused(d) == "AwaitsPromotion";
    world.wait("shop", "is at its second step", second).await;
    world.wait_object(APPS, "deployments", "web-preview", "has grown", size(5)).await;
    assert_eq!((least("web").await, least("web-preview").await), (json!(4), json!(5)));
    ask(&world, &["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &next).await;
    // Each value that its bounds ever had, in order: stable's size while it may have to take all traffic back, both together while
    // it takes the candidate's place, and those of Git.
    were(&bounds, "the bounds of stable", |seen| seen == [4, 10, 2]).await;
    were(&of_candidate, "the bounds of the candidate", |seen| seen == [4, 5]).await;
    // Nor did stable ever have fewer pods than before, whatever was applied to it.
    let grows = |seen: &[i64]| seen.first() >= Some(&4) && seen.is_sorted() && seen.last() >= Some(&5);
    were(&sizes, "the sizes of stable", grows).await;
    assert_eq!(world.names(SCALING, SCALERS).await, ["web"]);
    alone(&world).await;
}

#[tokio::test]
async fn a_policy_of_others_that_leaves_the_candidate_out_refuses_it() {
    let steps = json!([{"weight": 30}, {"pause": {}}]);
    let (world, good) = deployed("policy-of-others", "app: web", canary(steps)).await;
    let api = "networking.k8s.io/v1";
    let policy = json!({
        "apiVersion": api, "kind": "NetworkPolicy", "metadata": {"name": "fence"},
        "spec": {"podSelector": {"matchLabels": {"tier": "front"}}, "policyTypes": ["Ingress"]},
    });
    world.space.send("POST", &world.space.path(api, "networkpolicies"), &policy).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let refused = world.wait_refused("shop", "CannotFollowCandidate").await.status.unwrap();
    let problem = refused.failure.unwrap().problem;
    let said = format!("NetworkPolicy {}/fence is in the cluster and not in the directory", world.space.name);
    assert!(problem.message.contains(&said), "{problem:?}");
    assert!(problem.message.contains("would not isolate the candidate's"), "{problem:?}");
    assert_eq!(refused.effective.unwrap().commit, good);
    assert_eq!(world.names(APPS, "deployments").await, ["web"]);
    // Both variants have this label.
    let both = json!([{"op": "replace", "path": "/spec/podSelector/matchLabels", "value": {"app": "web"}}]);
    world.patch(api, "networkpolicies", "fence", both).await;
    world.wait_for("shop", Phase::Paused, &next).await;
    ask(&world, &["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &next).await;
    alone(&world).await;
}

#[tokio::test]
async fn an_object_that_was_ill_before_neither_switches_a_rollout_off_nor_is_held_against_it() {
    let world = World::new("ill-before").await;
    let worker = |tag: &str| crate::support::daemon::deployment("worker", tag, 1);
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/worker.yaml", &worker("ok")),
        ],
    );
    let steps = json!([{"weight": 30}, {"pause": {}}]);
    let rollback = json!({"bake": "1h"});
    world.deliver("shop", json!({"rollout": canary(steps), "rollback": rollback})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // Whoever looks after its node says that its pod is not ready.
    let sick = |d: &Delivery| condition(d, kind::HEALTHY).0 == "False";
    set_ready(&world, "app=worker", "False").await;
    world.wait("shop", "is not healthy", sick).await;

    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let paused = world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(rollout(&paused).unwrap().excused, [format!("Deployment {}/worker", world.space.name)]);
    assert_eq!(world.names(APPS, "deployments").await, ["web", "web-canary", "worker"]);
    let told = world.wait_event("shop", "UnhealthyBefore").await;
    assert!(told.contains("/worker was not healthy before"), "{told}");
    assert!(sick(&paused));
    ask(&world, &["promote", "shop"]);
    let promoted = |d: &Delivery| {
        let status = d.status.as_ref().unwrap();
        status.attempt.is_none() && status.effective.as_ref().is_some_and(|e| e.commit == next)
    };
    let done = world.wait("shop", "is promoted", promoted).await;
    assert_eq!(done.status.as_ref().unwrap().history[0].outcome, Outcome::Deployed);
    assert!(sick(&done), "and it says all the same that not all is well");
    assert!(done.status.unwrap().held.is_none());
}

#[tokio::test]
async fn a_switch_that_people_turn_or_delete_meanwhile_is_told_and_ends_right() {
    let (world, _) = deployed("turned", "app: web, tier: front", blue_green()).await;
    let second = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Paused, &second).await;
    // What the rollout itself changes is no drift.
    let drifts = |n| move |d: &Delivery| d.status.as_ref().is_some_and(|s| s.drift == Some(n));
    world.wait("shop", "is as the step wants it", drifts(0)).await;
    let preview = world.get("v1", "services", "web-preview").await["spec"]["selector"].clone();
    let leads = |s: &Value| s["spec"]["selector"] == json!({"app": "web", "tier": "front"});
    world.patch("v1", "services", "web", json!({"spec": {"selector": preview}})).await;
    // It is written again at once, as the step wants it, and the rollout waits where it was.
    world.wait_object("v1", "services", "web", "leads to stable again", leads).await;
    let told = world.wait_event("shop", "Overwritten").await;
    assert!(told.contains("web"), "{told}");
    let still = world.wait_for("shop", Phase::Paused, &second).await;
    assert_eq!((paused(&still), rollout(&still).unwrap().step), ("AwaitsPromotion", 1));
    ask(&world, &["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &second).await;
    alone(&world).await;

    let third = world.commit("Third", &[("shop/web.yaml", &web("ok3", 2))]);
    world.wait_for("shop", Phase::Paused, &third).await;
    world.delete("v1", "services", "web").await;
    // So is one that is deleted.
    world.wait_object("v1", "services", "web", "is put back", leads).await;
    let told = world.wait_event("shop", "Missing").await;
    assert!(told.contains("put back"), "{told}");
    let still = world.wait_for("shop", Phase::Paused, &third).await;
    assert_eq!((paused(&still), rollout(&still).unwrap().step), ("AwaitsPromotion", 1));
    ask(&world, &["promote", "shop"]);
    world.wait_for("shop", Phase::Ready, &third).await;
    alone(&world).await;
}
