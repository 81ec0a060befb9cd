//! A step of a rollout costs the writes that it needs and a few of its status, by the API server's own count: one for a weight,
//! one for a switch, and one to go back. It reads nothing but a route of others, which no watch of ours shows.

use crate::a_mesh_is_steered_by_its_hosts::{API, meshed};
use crate::a_rollout_goes_step_by_step::{blue_green, canary, deployed, service, web};
use crate::support::cli::windlass;
use crate::support::cluster::Audited;
use crate::support::daemon::{World, config_map};
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route};
use serde_json::{Value, json};
use std::time::Instant;
use windlass::api::Delivery;
use windlass::api::delivery::Phase;

/// Statuses of one layout: that it is wanted, that it is applied and in effect, and that the next one is wanted or what it
/// waits for.
const STATUSES: usize = 3;

/// What a step sent: what it wrote of objects (`verb resource name`), what it read, watches apart, tries of what it wrote, and
/// statuses of the Delivery.
#[derive(Debug)]
struct Sent {
    writes: Vec<String>,
    reads: Vec<String>,
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
    let read = |r: &&&Audited| matches!(r.verb.as_str(), "get" | "list");
    let reads = objects().filter(read).map(|r| of(r)).collect();
    Sent {
        writes,
        reads,
        tries: objects().filter(|r| dry(r)).count(),
        // One that was refused says that somebody else wrote meanwhile, such as a person who asks for something.
        statuses: all
            .iter()
            .filter(|r| r.resource == "deliveries" && r.verb == "update" && r.code == 200)
            .count(),
    }
}

/// Statuses that only say anew what is waited for, which takes long on a busy machine: one in ten seconds at most.
fn words(since: Instant) -> usize {
    since.elapsed().as_secs() as usize / 10
}

/// What is read of the pods of a workload that is not ready, once, where their watch begins.
const PODS: [&str; 2] = ["list pods ", "list replicasets "];

/// Nothing else was read: what is removed is looked at before, and what was shown to be gone once after.
fn reads_only(sent: &Sent, these: &[&str]) {
    assert!(sent.reads.iter().all(|read| these.contains(&read.as_str())), "not only {these:?}: {sent:?}");
}

/// How often a route of others is read for a step: before it is written, once its status tells what is waited for, and when it
/// is watched.
const LOOKS: usize = 3;

/// How often it is looked at again for as long as its controller has not answered.
fn looks(since: Instant) -> usize {
    since.elapsed().as_millis() as usize / 500
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
    reads_only(&next, &PODS);
    // Two layouts, though the second is the first one again, and the word of the person.
    assert!(next.statuses <= 2 * STATUSES + 1 + words(begin), "{next:?}");

    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(&world, "abort");
    world.wait_for("shop", Phase::Held, &bad).await;
    let back = sent(&world, &audit.in_namespace(&world.space.name));
    println!("going back: {back:?}");
    assert_eq!(back.writes, ["delete deployments web-canary"], "nothing but what goes: {back:?}");
    reads_only(&back, &[&PODS[..], &["get deployments web-canary"]].concat());
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
    reads_only(&there, &[]);
    assert!(there.tries <= 1 && there.statuses <= STATUSES + 1 + words(begin), "{there:?}");

    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(&world, "abort");
    world.wait_for("shop", Phase::Held, &bad).await;
    let back = sent(&world, &audit.in_namespace(&world.space.name));
    println!("back: {back:?}");
    let expected = ["delete deployments web-preview", "delete services web-preview", "patch services web"];
    assert_eq!(back.writes, expected, "{back:?}");
    reads_only(&back, &["get deployments web-preview", "get services web-preview"]);
    assert!(back.tries <= 1 && back.statuses <= STATUSES + 2 + words(begin), "{back:?}");
}

/// A canary through a route of the directory: the requests of a share, and of promotion.
async fn a_route_of_the_directory(world: &World, route: &Value, router: Value, plural: &str) {
    let good = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &web("ok", 1)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/route.yaml", &route.to_string()),
        ],
    );
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": router,
        "steps": [{"weight": 20}, {"pause": {}}, {"weight": 50}, {"pause": {}}], "settle": "300ms",
    });
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 1))]);
    world.wait("shop", "waits in step 2", waits_in(2)).await;

    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(world, "promote");
    world.wait("shop", "waits in step 4", waits_in(4)).await;
    let share = sent(world, &audit.in_namespace(&world.space.name));
    println!("a share of a route: {share:?}");
    let written = format!("patch {plural} web");
    assert_eq!(share.writes, [written.as_str()], "{share:?}");
    reads_only(&share, &[]);
    assert!(share.tries <= 1, "{share:?}");
    assert!(share.statuses <= 2 * STATUSES + 1 + words(begin), "{share:?}");

    // All traffic to the candidate, the workload, traffic back, the route as Git has it; and what goes.
    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(world, "promote");
    world.wait_for("shop", Phase::Ready, &next).await;
    let promoted = sent(world, &audit.in_namespace(&world.space.name));
    println!("promotion: {promoted:?}");
    let expected = [
        "delete deployments web-canary",
        "delete services web-canary",
        "patch deployments web",
        &written,
        &written,
        &written,
    ];
    assert_eq!(promoted.writes, expected, "{promoted:?}");
    let gone = ["get deployments web-canary", "get services web-canary"];
    reads_only(&promoted, &[PODS, gone].concat());
    assert!(promoted.tries <= 4, "one for each object that is written: {promoted:?}");
    assert!(promoted.statuses <= 4 * STATUSES + 2 + words(begin), "{promoted:?}");
}

#[tokio::test]
async fn a_share_of_a_route_costs_one_write_and_promotion_one_for_each_thing_that_changes() {
    let (_alone, world) = meshed("route-costs").await;
    let route = json!({
        "apiVersion": API, "kind": "VirtualService", "metadata": {"name": "web"},
        "spec": {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]},
    });
    let router = json!({"istio": {"virtualService": "web"}});
    a_route_of_the_directory(&world, &route, router, "virtualservices").await;
}

#[tokio::test]
async fn so_it_is_with_a_route_whose_controller_says_that_it_took_it() {
    know_routes().await;
    let world = World::new("http-route-costs").await;
    let _controller = Controller::of(&world);
    let router = json!({"gatewayAPI": {"route": "web"}});
    a_route_of_the_directory(&world, &route(), router, ROUTES).await;
}

#[tokio::test]
async fn a_share_of_a_route_of_others_costs_one_write_and_is_looked_at_until_it_is_taken() {
    know_routes().await;
    let mut world = World::stopped("others-route-costs").await;
    world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &route()).await;
    let _controller = Controller::of(&world);
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 20}, {"pause": {}}, {"weight": 50}, {"pause": {}}], "settle": "300ms",
    });
    let good =
        crate::the_daemon_dies_at_every_stage_of_a_rollout::deployed(&mut world, "app: web", policy).await;
    let bad = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait("shop", "waits in step 2", waits_in(2)).await;

    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(&world, "promote");
    world.wait("shop", "waits in step 4", waits_in(4)).await;
    let share = sent(&world, &audit.in_namespace(&world.space.name));
    println!("a share of a route of others: {:?} {share:?}", begin.elapsed());
    assert_eq!(share.writes, ["patch httproutes web"], "{share:?}");
    reads_only(&share, &["get httproutes web", "list httproutes web"]);
    let read = |what: &str| share.reads.iter().filter(|read| *read == what).count();
    let (looked, watched) = (read("get httproutes web"), read("list httproutes web"));
    assert!(watched <= 1 && looked <= LOOKS + looks(begin), "{share:?}");
    assert_eq!(share.tries, 0, "{share:?}");
    assert!(share.statuses <= 2 * STATUSES + 1 + words(begin), "{share:?}");

    let (audit, begin) = (world.space.cluster.audit(), Instant::now());
    ask(&world, "abort");
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, good);
    let back = sent(&world, &audit.in_namespace(&world.space.name));
    println!("back: {:?} {back:?}", begin.elapsed());
    // All traffic to stable, and later the route as its owner has it.
    let expected = [
        "delete deployments web-canary",
        "delete services web-canary",
        "patch httproutes web",
        "patch httproutes web",
    ];
    assert_eq!(back.writes, expected, "{back:?}");
    let gone = ["get deployments web-canary", "get services web-canary", "get httproutes web"];
    reads_only(&back, &gone);
    assert!(back.statuses <= 2 * STATUSES + 2 + words(begin), "{back:?}");
}
