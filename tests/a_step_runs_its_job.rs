//! A step of a rollout, and a metric, may run a Job of the directory: once for each revision and step, whoever dies meanwhile; when
//! it fails, so does the rollout, and its log is told.

use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployed, deployment, image, web};
use crate::hooks_run_once::{created, end_well, hook, jobs};
use crate::support::cli::windlass;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, condition};
use crate::the_daemon_dies_at_every_stage_of_a_rollout as stages;
use crate::the_daemon_dies_at_every_step::{arm, around, at_each, dies_and_rises};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::hook::{HookPoint, HookRun, HookStep};

fn smoke(tag: &str) -> String {
    hook("smoke", "rollout-step", "", tag)
}

fn with_job() -> Value {
    let mut policy = blue_green();
    policy["steps"] = json!([{"job": {"name": "smoke"}}, {"pause": {}}]);
    policy
}

async fn alone(world: &World) {
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
}

#[tokio::test]
async fn it_runs_once_and_the_step_waits_for_it() {
    let (world, _) = deployed("step-job", "app: web, tier: front", with_job()).await;
    assert!(jobs(&world).await.is_empty());
    let audit = world.space.cluster.audit();
    let next =
        world.commit("Second", &[("shop/web.yaml", &web("ok2", 2)), ("shop/smoke.yaml", &smoke("hang"))]);
    let runs = |d: &Delivery| {
        let of = |run: &HookRun| run.at == Some(1) && run.step == HookStep::Running;
        d.status.as_ref().is_some_and(|s| s.phase == Phase::RollingOut && s.hooks.iter().any(of))
    };
    let running = world.wait("shop", "runs the Job", runs).await;
    let (_, _, message) = condition(&running, kind::READY);
    let waits = format!("(step 1 of 2): waits for Job {}/smoke-", world.space.name);
    assert!(message.contains(&waits), "{message}");
    end_well(&world).await;
    world.wait_for("shop", Phase::Paused, &next).await;
    let found = jobs(&world).await;
    assert!(
        found.len() == 1 && found[0].0.starts_with("smoke-") && found[0].1 == "rollout-step" && found[0].2,
        "{found:?}"
    );
    assert_eq!(
        world.get("v1", "services", "web").await["spec"]["selector"],
        json!({"app": "web", "tier": "front"})
    );
    let promoted = windlass(&world.space, &["promote", "shop", "--wait", "-n", &world.space.name]);
    assert_eq!(promoted.code, 0, "{promoted:?}");
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(created(&world, &audit), 1);
    alone(&world).await;
}

#[tokio::test]
async fn before_traffic_a_hook_runs_once_and_traffic_waits_for_it() {
    let mut policy = blue_green();
    policy["steps"] = json!([]);
    let (world, good) = deployed("before-traffic", "app: web, tier: front", policy).await;
    let selector = async || world.get("v1", "services", "web").await["spec"]["selector"].clone();
    let stable = json!({"app": "web", "tier": "front"});
    let audit = world.space.cluster.audit();
    let probe = |tag: &str| hook("probe", "before-traffic", "hook-succeeded", tag);
    let bad = world.commit(
        "A probe that fails",
        &[("shop/web.yaml", &web("ok2", 2)), ("shop/probe.yaml", &probe("fail"))],
    );
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    let problem = held.held.unwrap().problem;
    assert_eq!(problem.reason, "HookFailed");
    assert!(problem.message.contains("before-traffic") && problem.message.contains("its log"), "{problem:?}");
    assert_eq!(held.effective.unwrap().commit, good);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");
    assert_eq!(selector().await, stable);
    alone(&world).await;
    assert_eq!(created(&world, &audit), 1);
    // No write gave the candidate traffic.
    let switched = world.writes(&audit).into_iter().filter(|r| r.resource == "services" && r.name == "web");
    assert_eq!(switched.count(), 0);

    let next = world.commit("A probe that hangs", &[("shop/probe.yaml", &probe("hang"))]);
    let runs = |d: &Delivery| {
        let of = |run: &HookRun| run.point == HookPoint::BeforeTraffic && run.step == HookStep::Running;
        d.status.as_ref().is_some_and(|s| s.hooks.iter().any(of))
    };
    world.wait("shop", "runs the hook", runs).await;
    assert_eq!(selector().await, stable, "traffic waits");
    end_well(&world).await;
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2");
    assert_eq!(created(&world, &audit), 2, "each ran once");
    wait_until("the one that succeeded is gone", LIMIT, || async {
        let all = jobs(&world).await;
        if all.is_empty() { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    alone(&world).await;
}

async fn dies_before_traffic(mut world: World, place: String) {
    let mut policy = blue_green();
    policy["steps"] = json!([]);
    stages::deployed(&mut world, "app: web, tier: front", policy).await;
    let audit = world.space.cluster.audit();
    arm(&world, &place);
    let probe = hook("probe", "before-traffic", "", "ok");
    let next = world.commit("Next", &[("shop/web.yaml", &web("ok2", 2)), ("shop/probe.yaml", &probe)]);
    dies_and_rises(&mut world, &place).await;
    world.wait_for("shop", Phase::Ready, &next).await;
    assert_eq!(created(&world, &audit), 1, "{place}: it ran once");
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2", "{place}");
}

#[tokio::test]
async fn before_traffic_it_runs_once_though_the_daemon_dies() {
    let steps = ["status hook before-traffic Running", "RunHook", "status hook before-traffic Succeeded"];
    let places = around(&steps, &[]);
    at_each(&places, dies_before_traffic).await;
}

#[tokio::test]
async fn one_that_fails_ends_the_rollout_and_one_that_is_not_there_refuses_it() {
    let (world, good) = deployed("step-job-fails", "app: web, tier: front", with_job()).await;
    let missing = world.commit("Second, and nobody tests it", &[("shop/web.yaml", &web("ok2", 2))]);
    let refused = world.wait_refused("shop", "InvalidRollout").await.status.unwrap();
    let failure = refused.failure.unwrap();
    assert_eq!(failure.revision.unwrap().commit, missing);
    assert!(failure.problem.message.contains("Job smoke"), "{}", failure.problem.message);
    alone(&world).await;

    let bad = world.commit("With a test that fails", &[("shop/smoke.yaml", &smoke("fail"))]);
    let held = world.wait_for("shop", Phase::Held, &bad).await;
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("rollout-step") && message.contains("log"), "{message}");
    let told = world.wait_event("shop", "RollingBack").await;
    assert!(told.contains("rollout-step") && told.contains("log"), "{told}");
    let status = held.status.unwrap();
    assert_eq!(status.held.unwrap().problem.reason, "HookFailed");
    assert_eq!(status.effective.unwrap().commit, good);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");
    alone(&world).await;
}

#[tokio::test]
async fn a_metric_may_be_one_in_each_step_with_traffic() {
    let mut policy = canary(json!([{"weight": 30}, {"weight": 50}]));
    policy["analysis"] = json!({"metrics": [{"name": "load", "job": {"name": "smoke"}}]});
    let (world, _) = deployed("metric-job", "app: web", policy).await;
    let audit = world.space.cluster.audit();
    let next =
        world.commit("Second", &[("shop/web.yaml", &web("ok2", 2)), ("shop/smoke.yaml", &smoke("ok"))]);
    let ready = world.wait_for("shop", Phase::Ready, &next).await.status.unwrap();
    // Where pods are the traffic the first layout has some already; then come the two weights.
    let made = created(&world, &audit);
    let told = world.events("shop").await;
    assert_eq!(made, 3, "{told:?} {:?}", ready.hooks);
    alone(&world).await;
}

async fn dies_in_a_job_of_a_step(mut world: World, place: String) {
    stages::deployed(&mut world, "app: web, tier: front", with_job()).await;
    let audit = world.space.cluster.audit();
    arm(&world, &place);
    let next = world.commit("Next", &[("shop/web.yaml", &web("ok2", 2)), ("shop/smoke.yaml", &smoke("ok"))]);
    dies_and_rises(&mut world, &place).await;
    world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(created(&world, &audit), 1, "{place}: it ran once");
    wait_until(&format!("{place}: it is told of"), LIMIT, || async {
        let found = jobs(&world).await;
        if found.len() == 1 && found[0].2 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test]
async fn it_runs_once_though_the_daemon_dies() {
    let steps = ["status hook rollout-step Running", "RunHook", "status hook rollout-step Succeeded"];
    let places = around(&steps, &[]);
    at_each(&places, dies_in_a_job_of_a_step).await;
}
