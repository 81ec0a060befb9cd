//! What the daemon costs, on a real control plane: time against the bare limit, requests, memory.
//!
//! `cargo bench` (or `cargo bench -- --quick`: once and without the long rest; with names of scenarios only those).
//! Linux only, for memory is read from `/proc`. The scenarios are whole processes that run for seconds against one server,
//! and what counts is the ratio of two of them taken side by side; criterion measures functions many times over, so this
//! is a harness of its own. Each scenario starts a cluster of its own:
//!
//! - `cost`, a few rounds: the bare limit of a first deployment, the daemon's cold start with the same objects, the bare
//!   limit of a change, the daemon's answer to a push of the same change, a rest, one reconcile that finds nothing, and
//!   memory.
//! - `detection`: how soon a rollback begins once the API server shows a failure.
//! - `neighbours`: the daemon's answer to a push, with and without Deliveries beside it that fail for ever.
//! - `drift`: how soon an edit is told of, and a deletion mended.
//! - `fleet`: a thousand Deliveries: memory, processor time at rest, a restart against a bare list.
//! - `rollouts`: how soon an abort has brought a router back; what two hundred canaries at once cost while they are measured; on
//!   a real node, where this machine can have one, how soon requests follow.
//! - `applications`: five hundred Applications at once, small ones and such as in the documentation, from nothing to all their objects,
//!   against the bare limit of these objects; what a status that changes costs; memory.
//! - `tenants`: two hundred accounts of eight kinds each: memory and connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod applications;
mod bare;
mod config;
mod detection;
mod drift;
mod fleet;
mod neighbours;
mod process;
mod proxy;
mod report;
mod rollouts;

#[path = "../../tests/support/cluster.rs"]
mod cluster;
#[path = "../../tests/support/git.rs"]
#[allow(dead_code)]
mod git;
#[path = "../../tests/support/plane.rs"]
mod plane;

use applications::Size;
use bare::Bare;
use cluster::{Cluster, send, wait_until};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use process::Process;
use report::{Requests, Round};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use windlass::api::delivery::Phase;
use windlass::api::{Delivery, names};
use windlass::cluster::{Discovery, crds};

/// Directories, each a Delivery of four objects.
const DELIVERIES: usize = 100;

/// ConfigMaps that each directory is given besides, to see what an object costs in memory.
const MORE: usize = 20;

/// The namespace of the daemon's own resources.
const HOME: &str = "windlass-system";

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|a| a == "--quick");
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |name: &str| named.is_empty() || named.contains(&name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if is_wanted("cost") {
        let rounds = if quick { 1 } else { 3 };
        let mut all = Vec::new();
        for number in 1..=rounds {
            eprintln!("round {number} of {rounds}, load average {}", load());
            // What takes long and hardly varies is taken once.
            let rest = if number == rounds {
                Duration::from_secs(if quick { 15 } else { 60 })
            } else {
                Duration::ZERO
            };
            all.push(runtime.block_on(round(rest)));
        }
        report::print(&all, DELIVERIES);
    }
    if is_wanted("detection") {
        eprintln!("detection, load average {}", load());
        let (pushes, each) = if quick { (1, 2) } else { (3, 10) };
        report::print_delays(&runtime.block_on(detection::run(pushes, each)));
    }
    if is_wanted("neighbours") {
        eprintln!("neighbours, load average {}", load());
        let (pairs, healthy, failing) = if quick { (1, 10, 3) } else { (4, DELIVERIES, 10) };
        report::print_pushes(&runtime.block_on(neighbours::run(pairs, healthy, failing)), healthy, failing);
    }
    if is_wanted("drift") {
        eprintln!("drift, load average {}", load());
        let (deliveries, rounds) = if quick { (10, 1) } else { (50, 10) };
        report::print_drift(&runtime.block_on(drift::run(deliveries, rounds)));
    }
    if is_wanted("fleet") {
        eprintln!("fleet, load average {}", load());
        let (deliveries, rest) = if quick { (100, 10) } else { (1000, 60) };
        report::print_fleet(&runtime.block_on(fleet::run(deliveries, Duration::from_secs(rest))));
    }
    if is_wanted("applications") {
        eprintln!("applications, load average {}", load());
        let (rounds, count) = if quick { (1, 50) } else { (3, 500) };
        for size in [Size::Least, Size::Example].repeat(rounds) {
            report::print_applications(&runtime.block_on(applications::run(size, count)));
        }
    }
    if is_wanted("rollouts") {
        eprintln!("rollouts, load average {}", load());
        let (aborts, canaries, watched) = if quick { (5, 10, 20) } else { (30, 200, 60) };
        let watched = Duration::from_secs(watched);
        report::print_rollouts(&runtime.block_on(rollouts::run(aborts, canaries, watched)));
        eprintln!("rollouts on a real node, load average {}", load());
        if let Some(proxy) = runtime.block_on(proxy::run(aborts.min(20))) {
            report::print_proxy(&proxy);
        }
    }
    if is_wanted("tenants") {
        eprintln!("tenants, load average {}", load());
        report::print_tenants(&runtime.block_on(fleet::tenants(if quick { 20 } else { 200 })));
    }
    std::process::exit(0);
}

/// The load average of the last minute: what else the machine does.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

async fn round(rest: Duration) -> Round {
    let cluster = Cluster::own();
    let client = observer(cluster).await;
    let prefixes = ["warm", "bare", "app"].into_iter();
    let namespaces = prefixes.flat_map(|prefix| (1..=DELIVERIES).map(move |n| config::name(prefix, n)));
    prepare(cluster, &client, namespaces.collect()).await;
    let mut round = Round { load: load(), ..Round::default() };

    // The server answers its first requests of each kind slowly; that is nobody's merit or fault.
    Bare::new(cluster, "warm", 20).await.run(0, |_| true).await;
    quiet(cluster).await;
    let bare = Bare::new(cluster, "bare", DELIVERIES).await;
    let server = Server::new(cluster);
    let (took, _) = bare.run(0, |_| true).await;
    round.bare_cold = took;
    round.bare_cold_server = server.since();
    quiet(cluster).await;
    (round.bare_push, _) = bare.run(1, config::changes).await;
    quiet(cluster).await;

    let scratch = tempfile::tempdir().unwrap();
    let repo = git::Repo::empty();
    config::write(&repo.path(), "app", DELIVERIES, 0, 0);
    let commit = repo.commit(&[]);
    repository(&client, "config", &repo.path(), json!({"timeout": "3m"})).await;
    let audit = cluster.audit();
    let server = Server::new(cluster);
    let begin = Instant::now();
    let daemon = Process::start(cluster, HOME, scratch.path());
    let marks = deployed(&client, &commit, DELIVERIES).await;
    round.cold = marks.last().unwrap().duration_since(begin);
    round.cold_first = marks.first().unwrap().duration_since(begin);
    round.cold_server = server.since();
    round.cold_daemon = daemon.processor();
    round.peak = daemon.memory("VmHWM");
    quiet(cluster).await;
    round.cold_requests = Requests::of(&audit.by_agent("windlass/"));

    let commit = push(&repo, 1, 0);
    let audit = cluster.audit();
    let (before, begin) = (jiff::Timestamp::now(), Instant::now());
    repo.git(&["update-ref", "refs/heads/main", &commit]);
    let marks = deployed(&client, &commit, DELIVERIES).await;
    round.push_ready = marks.last().unwrap().duration_since(begin);
    quiet(cluster).await;
    let requests = audit.by_agent("windlass/");
    round.push_live = Requests::last_write(&requests, before);
    round.push_requests = Requests::of(&requests);
    round.settled = daemon.memory("VmRSS");

    // One Delivery is looked at again though nothing changed.
    let audit = cluster.audit();
    let api: Api<Delivery> = Api::namespaced(client.clone(), HOME);
    let name = config::name("app", 1);
    let ask = json!({"metadata": {"annotations": {names::RECONCILE_REQUEST: "again"}}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(ask)).await.unwrap();
    wait_until("the request to look again is handled", LIMIT, || async {
        let status = api.get(&name).await.unwrap().status.unwrap();
        if status.handled_request.as_deref() == Some("again") { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    quiet(cluster).await;
    round.unchanged = Requests::of(&audit.by_agent("windlass/"));

    if rest > Duration::ZERO {
        let audit = cluster.audit();
        let used = daemon.processor();
        tokio::time::sleep(rest).await;
        round.rest = Some((rest, Requests::of(&audit.by_agent("windlass/")), daemon.processor() - used));
        memory(cluster, &client, &repo, scratch.path(), daemon, &mut round).await;
    } else {
        daemon.stop();
    }
    cluster.stop();
    round
}

/// Installs the definitions, makes the namespaces, and waits until that is over.
async fn prepare(cluster: &Cluster, client: &kube::Client, namespaces: Vec<String>) {
    let connection = cluster.connect().await;
    let discovery = Discovery::new(connection.client.clone());
    discovery.refresh().await.unwrap();
    crds::install(&connection.access(None), &discovery, &windlass::api::crds(), LIMIT).await.unwrap();
    let made = namespaces.into_iter().chain([HOME.to_owned()]).map(|name| {
        let client = client.clone();
        async move {
            send(&client, "POST", "/api/v1/namespaces", &json!({"metadata": {"name": name}})).await;
        }
    });
    stream::iter(made).buffer_unordered(16).collect::<Vec<()>>().await;
    quiet(cluster).await;
}

/// A client that is not taken for the daemon's in the audit log.
async fn observer(cluster: &Cluster) -> kube::Client {
    let file = kube::config::Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// Waits until a daemon that was just started has seen all objects, and for a moment longer.
async fn started(cluster: &'static Cluster, audit: &cluster::Audit) {
    wait_until("the daemon watches what it delivered", LIMIT, || async {
        let all = audit.by_agent("windlass/");
        let watches = |kind: &str| all.iter().any(|r| r.verb == "watch" && r.resource == kind);
        let all = ["configmaps", "services", "deployments", "serviceaccounts"].into_iter().all(watches);
        if all { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    quiet(cluster).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// What an object costs: the daemon begun again with the objects there are, and once more with many more of them.
async fn memory(
    cluster: &'static Cluster,
    client: &kube::Client,
    repo: &git::Repo,
    scratch: &Path,
    daemon: Process,
    round: &mut Round,
) {
    daemon.stop();
    let audit = cluster.audit();
    let daemon = Process::start(cluster, HOME, scratch);
    started(cluster, &audit).await;
    round.restarted = daemon.memory("VmRSS");
    let commit = push(repo, 1, MORE);
    repo.git(&["update-ref", "refs/heads/main", &commit]);
    deployed(client, &commit, DELIVERIES).await;
    daemon.stop();
    let audit = cluster.audit();
    let daemon = Process::start(cluster, HOME, scratch);
    started(cluster, &audit).await;
    round.restarted_more = Some((daemon.memory("VmRSS"), MORE * DELIVERIES));
    daemon.stop();
}

/// Commits another round without moving the branch. Answers the commit.
fn push(repo: &git::Repo, round: u32, more: usize) -> String {
    config::write(&repo.path(), "app", DELIVERIES, round, more);
    staged(repo)
}

/// Commits what stands in the working directory without moving the branch: the push itself is then one moment. Answers the
/// commit.
fn staged(repo: &git::Repo) -> String {
    repo.git(&["add", "--all"]);
    let tree = repo.git(&["write-tree"]);
    repo.git(&["commit-tree", &tree, "-p", "HEAD", "-m", "Another round"])
}

/// A Repository that makes a Delivery of each directory. `template` adds to theirs.
async fn repository(client: &kube::Client, name: &str, path: &Path, mut template: Value) {
    template["targetNamespace"] = "{{ directory }}".into();
    let body = json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Repository", "metadata": {"name": name},
        "spec": {"url": path, "interval": "30s", "deliveries": [{"path": "apps/*", "template": template}]},
    });
    let path = format!("/apis/windlass.dev/v1alpha1/namespaces/{HOME}/repositories");
    send(client, "POST", &path, &body).await;
}

/// Waits until so many Deliveries are Ready with a commit; when each was.
async fn deployed(client: &kube::Client, commit: &str, count: usize) -> Vec<Instant> {
    let api: Api<Delivery> = Api::namespaced(client.clone(), HOME);
    let mut seen = BTreeSet::new();
    let mut marks = Vec::new();
    let watch = async {
        let mut events = std::pin::pin!(watcher(api.clone(), watcher::Config::default()));
        while let Some(event) = events.try_next().await.unwrap_or(None) {
            let (watcher::Event::Apply(delivery) | watcher::Event::InitApply(delivery)) = event else {
                continue;
            };
            let ready = delivery.status.as_ref().is_some_and(|s| {
                s.phase == Phase::Ready && s.effective.as_ref().is_some_and(|e| e.commit == commit)
            });
            if ready && seen.insert(delivery.name_any()) {
                marks.push(Instant::now());
            }
            if seen.len() == count {
                return;
            }
        }
    };
    if tokio::time::timeout(LIMIT, watch).await.is_err() {
        let all = api.list(&Default::default()).await.unwrap();
        let left = all.iter().find(|d| !seen.contains(&d.name_any())).map(|d| &d.status);
        panic!("{} of {count} are Ready; another one: {left:#?}", seen.len());
    }
    marks
}

/// Waits until the server has had nothing to do for a moment: controllers go on after who made the objects.
async fn quiet(cluster: &Cluster) {
    let size = || std::fs::metadata(cluster.dir.join("audit.log")).map(|m| m.len()).unwrap_or(0);
    let mut last = size();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let now = size();
        // Leases and the like are a few hundred bytes a second.
        if now - last < 8_000 {
            return;
        }
        last = now;
    }
}

/// Processor time of the API server and etcd.
struct Server {
    pids: Vec<u32>,
    before: f64,
}

impl Server {
    fn new(cluster: &Cluster) -> Self {
        let text = std::fs::read_to_string(cluster.dir.join("pids.json")).unwrap();
        let all: Value = serde_json::from_str(&text).unwrap();
        let pids = all["processes"].as_array().unwrap().iter();
        let pids = pids
            .filter(|p| p["name"] == "kube-apiserver" || p["name"] == "etcd")
            .filter_map(|p| u32::try_from(p["pid"].as_u64()?).ok())
            .collect();
        let mut server = Server { pids, before: 0.0 };
        server.before = server.since();
        server
    }

    fn since(&self) -> f64 {
        self.pids.iter().map(|p| process::processor(*p)).sum::<f64>() - self.before
    }
}
