//! What Jobs of steps promise: each runs once in its step, which is not left before it has completed, and fails with it.
#![allow(clippy::unwrap_used)]

use super::hooks::tests::hook;
use super::progress_tests::{ask, rolling};
use super::tests::{World, problem};
use super::*;
use crate::api::delivery::Phase;
use crate::api::hook::HookPoint;
use serde_json::json;

fn with(steps: serde_json::Value, analysis: serde_json::Value) -> World {
    let mut policy = json!({"strategy": "Canary", "workload": {"name": "web"},
        "router": {"gatewayAPI": {"route": "web"}}, "steps": steps});
    if !analysis.is_null() {
        policy["analysis"] = analysis;
    }
    let mut world = rolling(policy);
    world.hooks = vec![hook("smoke", &[HookPoint::RolloutStep])];
    world
}

fn smoked() -> World {
    let job = json!({"job": {"name": "smoke"}});
    let mut world = with(json!([{"weight": 10}, job, {"weight": 50}, job]), json!(null));
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    world
}

/// Ends the Jobs that run.
fn end(world: &mut World, failed: bool) {
    for (_, job) in world.seen.hooks.jobs.iter_mut().filter(|(_, job)| matches!(job, JobSeen::Running(_))) {
        *job = match failed {
            true => JobSeen::Failed("u".into(), problem("JobFailed")),
            false => JobSeen::Succeeded("u".into()),
        };
    }
    world.settle();
}

#[test]
fn each_step_runs_its_job_once_and_waits_for_it() {
    let mut world = smoked();
    world.pass(60);
    assert_eq!((world.weight, world.started.len()), (10, 1), "it is not done: {:?}", world.started);
    let (_, _, message) = world.condition("Ready");
    assert!(message.contains("(step 2 of 4): waits for Job shop/smoke-"), "{message}");
    end(&mut world, false);
    world.pass(10);
    assert_eq!(world.weight, 50);
    assert_eq!(world.started, ["rollout-step smoke b", "rollout-step smoke b"], "another step, another Job");
    assert_eq!(world.made.len(), 2);
    end(&mut world, false);
    world.pass(60);
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.started.len(), 2);
}

#[test]
fn a_job_that_fails_or_takes_too_long_fails_its_step() {
    let mut world = smoked();
    end(&mut world, true);
    world.pass(10);
    assert_eq!((world.weight, world.phase()), (0, Phase::Held));
    assert_eq!(world.state.held.as_ref().unwrap().problem.reason, "JobFailed");

    let late = json!([{"weight": 10}, {"job": {"name": "smoke", "timeout": "20m"}}]);
    let mut world = with(late, json!(null));
    world.push("b", &["web"]);
    world.settle();
    world.pass(1190);
    assert_eq!(world.weight, 10, "its own time counts, not that of its revision");
    world.pass(30);
    assert_eq!((world.weight, world.phase()), (0, Phase::Held));
    let told = &world.state.held.as_ref().unwrap().problem.message;
    assert!(told.contains("not done within 20m"), "{told}");
}

#[test]
fn a_daemon_that_died_knows_what_ran() {
    let mut world = smoked();
    world.crash();
    world.pass(10);
    assert_eq!((world.weight, world.started.len()), (10, 1));
    end(&mut world, false);
    world.crash();
    world.pass(10);
    assert_eq!((world.weight, world.started.len()), (50, 2), "what it has not rendered yet it renders");
}

#[test]
fn a_person_who_says_go_waits_for_no_job() {
    let mut world = smoked();
    let first = world.made.iter().next().unwrap().clone();
    ask(&mut world, "promote", "b");
    world.pass(10);
    assert_eq!(world.weight, 50);
    assert!(!world.seen.hooks.jobs.contains_key(&first), "it is stopped");
}

#[test]
fn a_metric_that_is_a_job_runs_it_in_each_step_with_traffic() {
    let metrics = json!({"metrics": [{"name": "load", "job": {"name": "smoke"}}]});
    let mut world = with(json!([{"weight": 10}, {"weight": 50}]), metrics);
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    assert_eq!((world.weight, world.started.len()), (10, 1));
    end(&mut world, false);
    world.pass(10);
    assert_eq!((world.weight, world.started.len()), (50, 2));
    end(&mut world, true);
    world.pass(10);
    assert_eq!((world.weight, world.phase()), (0, Phase::Held));
}

#[test]
fn a_job_that_is_not_there_is_told() {
    let mut world = smoked();
    world.hooks.clear();
    end(&mut world, false);
    world.pass(30);
    assert_eq!(world.phase(), Phase::Held);
    let told = &world.state.held.as_ref().unwrap().problem.message;
    assert!(told.contains("smoke") && told.contains("rollout-step"), "{told}");
}
