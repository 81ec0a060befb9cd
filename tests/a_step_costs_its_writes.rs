//! A step of a rollout costs the writes that it needs and a few of its status, by the API server's own count: one for a weight,
//! one for a switch, and one to go back.

use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployed, web};
use crate::support::cli::windlass;
use crate::support::cluster::Audited;
use crate::support::daemon::World;
use serde_json::{Value, json};
use std::time::Instant;
use windlass::api::Delivery;
use windlass::api::delivery::Phase;

/// Statuses of one layout: that it is wanted, that it is applied and in effect, and that the next one is wanted or what it
/// waits for.
const STATUSES: usize = 3;

/// What a step sent: what it wrote of objects (`verb resource name`), tries of it, and statuses of the Delivery.
#[derive(Debug)]
struct Sent {
    writes: Vec<String>,
    tries: usize,
    statuses: usize,
}

fn sent(world: &World, requests: &[Audited]) -> Sent {
    let own = ["deliveries", "events", "driftreports", "leases", "repositories"];
    let of = |r: &Audited| format!("{} {} {}", r.verb, r.resource, r.name);
    let dry = |r: &Audited| r.uri.contains("dryRun=All");
    let all: Vec<&Audited> = requests.iter().filter(|r| r.uri.contains(&world.space.name)).collect();
    let objects = || all.iter().filter(|r| !own.contains(&r.resource.as_str()));
    let mut writes: Vec<String> = objects().filter(|r| !r.is_read() && !dry(r)).map(|r| of(r)).collect();
    writes.sort();
    Sent {
        writes,
        tries: objects().filter(|r| dry(r)).count(),
        statuses: all.iter().filter(|r| r.resource == "deliveries" && r.verb == "update").count(),
    }
}

/// Statuses that only say anew what is waited for, which takes long on a busy machine: one in ten seconds at most.
fn words(since: Instant) -> usize {
    since.elapsed().as_secs() as usize / 10
}

fn ask(world: &World, verb: &str) {
    let answer = windlass(&world.space, &[verb, "shop", "-n", &world.space.name]);
    assert_eq!(answer.code, 0, "{answer:?}");
}

fn waits_in(step: u32) -> impl Fn(&Delivery) -> bool {
    move |d| {
        d.status.as_ref().is_some_and(|s| {
            let rollout = s.attempt.as_ref().and_then(|a| a.rollout.as_ref());
            s.phase == Phase::Paused && rollout.is_some_and(|r| r.step == step)
        })
    }
}

#[tokio::test]
async fn a_weight_costs_one_write_and_so_does_going_back() {
    let steps: Value = json!([{"weight": 20}, {"pause": {}}, {"weight": 50}, {"pause": {}}]);
    let (world, _) = deployed("step-costs", "app: web", canary(steps)).await;
    let bad = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait("shop", "waits in step 2", waits_in(2)).await;
    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(&world, "promote");
    world.wait("shop", "waits in step 4", waits_in(4)).await;
    let next = sent(&world, &audit.in_namespace(&world.space.name));
    println!("a weight: {next:?}");
    assert_eq!(next.writes, ["patch deployments web-canary"], "{next:?}");
    assert!(next.tries <= 1, "{next:?}");
    // Two layouts, though the second is the first one again, and the word of the person.
    assert!(next.statuses <= 2 * STATUSES + 1 + words(begin), "{next:?}");

    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(&world, "abort");
    world.wait_for("shop", Phase::Held, &bad).await;
    let back = sent(&world, &audit.in_namespace(&world.space.name));
    println!("going back: {back:?}");
    assert_eq!(back.writes, ["delete deployments web-canary"], "nothing but what goes: {back:?}");
    assert!(back.statuses <= STATUSES + 2 + words(begin), "{back:?}");
}

#[tokio::test]
async fn a_switch_costs_one_write_each_way() {
    let mut policy = blue_green();
    policy["scaleDownDelay"] = json!("1h");
    let (world, _) = deployed("switch-costs", "app: web, tier: front", policy).await;
    let bad = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Paused, &bad).await;
    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(&world, "promote");
    let switched = |d: &Delivery| {
        let rollout = d.status.as_ref().and_then(|s| s.attempt.as_ref()).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.layout.weight == 100 && r.settled.is_some())
    };
    world.wait("shop", "is switched", switched).await;
    let there = sent(&world, &audit.in_namespace(&world.space.name));
    println!("a switch: {there:?}");
    assert_eq!(there.writes, ["patch services web"], "{there:?}");
    assert!(there.tries <= 1 && there.statuses <= STATUSES + 1 + words(begin), "{there:?}");

    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(&world, "abort");
    world.wait_for("shop", Phase::Held, &bad).await;
    let back = sent(&world, &audit.in_namespace(&world.space.name));
    println!("back: {back:?}");
    let expected = ["delete deployments web-preview", "delete services web-preview", "patch services web"];
    assert_eq!(back.writes, expected, "{back:?}");
    assert!(back.tries <= 1 && back.statuses <= STATUSES + 2 + words(begin), "{back:?}");
}
