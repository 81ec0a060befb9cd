//! A first deployment and a change cost at most two requests for each object and three writes about each Delivery, by
//! the API server's own count; the same bundle again costs none.

use crate::support::cluster::{Audited, wait_until};
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use windlass::api::delivery::Phase;
use windlass::api::names;

/// Deliveries of this test.
const DELIVERIES: usize = 10;

/// Their objects: four each.
const OBJECTS: usize = 4;

fn files(round: u32) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for n in 0..DELIVERIES {
        let file = |name: &str| format!("apps/app-{n}/{name}.yaml");
        let name = format!("app-{n}");
        files.push((file("web"), deployment(&name, &format!("v{round}"), 0)));
        files.push((file("settings"), config_map(&name, &round.to_string())));
        files.push((
            file("account"),
            format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n"),
        ));
        let port = 80 + round;
        files.push((
            file("service"),
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
                 spec: {{selector: {{app: {name}}}, ports: [{{port: {port}}}]}}\n"
            ),
        ));
    }
    files
}

fn commit(world: &World, subject: &str, round: u32) -> String {
    let files = files(round);
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    world.commit(subject, &files)
}

async fn all_ready(world: &World, commit: &str) {
    for n in 0..DELIVERIES {
        world.wait_for(&format!("app-{n}"), Phase::Ready, commit).await;
    }
    // The event about the last one is written behind its status.
    wait_until("the events are there", LIMIT, || async {
        for n in 0..DELIVERIES {
            let events = world.events(&format!("app-{n}")).await;
            if !events.iter().any(|(reason, text)| reason == "Deployed" && text.contains(commit)) {
                return Err(format!("app-{n}: {events:?}"));
            }
        }
        Ok(())
    })
    .await;
}

/// What the daemon sent in the test's namespace, its Lease and its Repository apart: (about objects, about Deliveries).
fn sent(requests: &[Audited]) -> (Vec<&Audited>, Vec<&Audited>) {
    let own = |r: &Audited| ["deliveries", "events", "driftreports"].contains(&r.resource.as_str());
    let other = |r: &Audited| ["leases", "repositories", "secrets"].contains(&r.resource.as_str());
    let dry_run = |r: &Audited| r.uri.contains("dryRun=All");
    let objects = requests.iter().filter(|r| !own(r) && !other(r) && (dry_run(r) || !r.is_read())).collect();
    let about = requests.iter().filter(|r| own(r) && !r.is_read()).collect();
    (objects, about)
}

fn told(requests: &[&Audited]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for r in requests {
        let dry_run = if r.uri.contains("dryRun=All") { " (dry-run)" } else { "" };
        *counts.entry(format!("{} {}{dry_run} {}", r.verb, r.resource, r.code)).or_default() += 1;
    }
    counts
}

/// Writes that only a machine short of breath causes: a revision that takes longer than ten seconds has its wait recorded,
/// and its words after 10, 20, 40 seconds and so on.
pub fn since_it_was_slow(about: &[&Audited]) -> usize {
    let mut writes: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    for r in about.iter().filter(|r| r.resource == "deliveries" && r.verb == "update") {
        writes.entry(&r.name).or_default().push(r.at.parse().unwrap());
    }
    let more = |times: &Vec<Timestamp>| {
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        let tens = u64::try_from(last.duration_since(*first).as_secs()).unwrap() / 10;
        // The wait, and one for each time that ten seconds have doubled.
        if tens == 0 { 0 } else { 2 + tens.ilog2() as usize }
    };
    writes.values().map(more).sum()
}

fn within_budget(what: &str, requests: &[Audited], changed: usize, more: usize) {
    let (objects, about) = sent(requests);
    assert!(
        objects.len() <= 2 * changed,
        "{what}: {} requests about objects: {:#?}",
        objects.len(),
        told(&objects)
    );
    let most = (3 + more) * DELIVERIES + since_it_was_slow(&about);
    assert!(about.len() <= most, "{what}: {} writes about Deliveries: {:#?}", about.len(), told(&about));
}

#[tokio::test]
async fn a_deployment_costs_two_requests_an_object_and_three_writes_a_delivery() {
    let world = World::new("requests").await;
    let first = commit(&world, "First", 1);
    let audit = world.space.cluster.audit();
    world.deliver("apps/*", json!({})).await;
    all_ready(&world, &first).await;
    // Making the Delivery of a directory is one more.
    let requests = audit.in_namespace(&world.space.name);
    within_budget("first deployment", &requests, OBJECTS * DELIVERIES, 1);
    let pods = requests.iter().filter(|r| ["pods", "replicasets"].contains(&r.resource.as_str())).count();
    assert_eq!(pods, 0, "workloads without pods have none to look at");

    let audit = world.space.cluster.audit();
    let second = commit(&world, "Another image, setting and port", 2);
    all_ready(&world, &second).await;
    within_budget("change", &audit.in_namespace(&world.space.name), (OBJECTS - 1) * DELIVERIES, 0);

    let audit = world.space.cluster.audit();
    for n in 0..DELIVERIES {
        world.annotate(&format!("app-{n}"), names::RECONCILE_REQUEST, "again").await;
    }
    for n in 0..DELIVERIES {
        world
            .wait(&format!("app-{n}"), "looked at again", |d| {
                d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some("again"))
            })
            .await;
    }
    let requests = audit.in_namespace(&world.space.name);
    let (objects, _) = sent(&requests);
    assert!(objects.is_empty(), "the same bundle again: {:#?}", told(&objects));
}
