//! What rollouts cost: how soon an abort has brought the router back, and what many canaries at once take while they are
//! measured.

use super::cluster::{Cluster, send, wait_until};
use super::detection::follow;
use super::process::Process;
use super::report::Requests;
use super::{HOME, LIMIT, config, deployed, git, observer, prepare, quiet, repository, staged};
use axum::Router;
use axum::routing::any;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use windlass::api::delivery::Phase;
use windlass::api::rollout::Stage;
use windlass::api::{Delivery, names};

/// What was measured.
pub struct Rollouts {
    /// From the answer to a request to abort until the Service leads back to stable; one after the other.
    pub aborts: Vec<Duration>,
    /// Canaries at once.
    pub canaries: usize,
    /// How long they were watched while each waited in a step, measured every [`INTERVAL`].
    pub watched: Duration,
    /// Processor time of the daemon meanwhile, in seconds.
    pub processor: f64,
    /// Requests to the API server meanwhile.
    pub requests: Requests,
    /// What Events told meanwhile: reasons and texts without figures, with how many there were of each.
    pub told: BTreeMap<String, usize>,
    /// Questions that the provider was asked meanwhile.
    pub asked: usize,
    /// Resident memory by the end, in MiB.
    pub memory: f64,
    /// From the push until all of them waited in their step, where the first measurement has passed.
    pub begun: Duration,
}

/// How often a metric of each canary is measured, in seconds.
pub const INTERVAL: u32 = 5;

/// So many aborts; so many canaries for so long.
pub async fn run(aborts: usize, canaries: usize, watched: Duration) -> Rollouts {
    let cluster = Cluster::own();
    let client = observer(cluster).await;
    let all = |prefix: &'static str, count: usize| (1..=count).map(move |n| config::name(prefix, n));
    let namespaces = all("switch", aborts).chain(all("canary", canaries)).collect();
    prepare(cluster, &client, namespaces).await;
    let asked = Arc::new(Mutex::new(0));
    let provider = provider(asked.clone()).await;
    let scratch = tempfile::tempdir().unwrap();
    let kinds = [
        (
            "switch",
            aborts,
            json!({
                "strategy": "BlueGreen", "workload": {"name": "web"}, "router": {"service": {"name": "web"}},
                "settle": "1s", "scaleDownDelay": "1h",
            }),
        ),
        (
            "canary",
            canaries,
            json!({
                "strategy": "Canary", "workload": {"name": "web"}, "router": {"replicas": {}},
                "steps": [{"weight": 50}, {"pause": {}}], "settle": "1s",
                "analysis": {"interval": format!("{INTERVAL}s"), "metrics": [{
                    "name": "rate", "success": "result >= 0.99",
                    "prometheus": {"address": provider, "query": "rate{app=\"{{ candidate }}\"}"},
                }]},
            }),
        ),
    ];
    let mut repos = HashMap::new();
    for (prefix, count, rollout) in kinds {
        let repo = git::Repo::empty();
        write(&repo, prefix, count, 0);
        let commit = repo.commit(&[]);
        repository(&client, prefix, &repo.path(), json!({"timeout": "5m", "rollout": rollout})).await;
        repos.insert(prefix, (repo, commit, count));
    }
    let daemon = Process::start(cluster, HOME, scratch.path());
    for (_, commit, count) in repos.values() {
        deployed(&client, commit, *count).await;
    }
    quiet(cluster).await;

    let aborts = abort(&client, &repos["switch"].0, aborts).await;
    quiet(cluster).await;

    let begin = Instant::now();
    push(&repos["canary"].0, "canary", canaries);
    // A step that waits for a person says so once what is measured in it has passed for the first time.
    let waiting = those(&client, |delivery| {
        delivery.status.as_ref().is_some_and(|status| status.phase == Phase::Paused)
    });
    wait(&waiting, "canary", canaries).await;
    let begun = begin.elapsed();
    quiet(cluster).await;
    let audit = cluster.audit();
    let (used, from) = (daemon.processor(), Timestamp::now());
    *asked.lock().unwrap() = 0;
    tokio::time::sleep(watched).await;
    let processor = daemon.processor() - used;
    let requests = Requests::of(&audit.by_agent("windlass/"));
    let asked = *asked.lock().unwrap();
    let memory = daemon.memory("VmRSS");
    let told = told(&client, from).await;
    daemon.stop();
    cluster.stop();
    Rollouts { aborts, canaries, watched, processor, requests, told, asked, memory, begun }
}

/// What was told by Events since then.
async fn told(client: &Client, from: Timestamp) -> BTreeMap<String, usize> {
    let all: Api<Event> = Api::all(client.clone());
    let since = |event: &Event| {
        let series = event.series.as_ref().map(|series| series.last_observed_time.0);
        series.or(event.event_time.as_ref().map(|time| time.0)).is_some_and(|at| at >= from)
    };
    let mut told = BTreeMap::new();
    for event in all.list(&ListParams::default()).await.unwrap().items.into_iter().filter(since) {
        let text: String = event.note.unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).collect();
        *told.entry(format!("{}: {text}", event.reason.unwrap_or_default())).or_default() += 1;
    }
    told
}

/// A provider for which all is well; it counts what it is asked, and serves until the benchmark ends.
async fn provider(asked: Arc<Mutex<usize>>) -> String {
    let answer = move || {
        *asked.lock().unwrap() += 1;
        let one = json!({"metric": {}, "value": [1, "0.999"]});
        let body = json!({"status": "success", "data": {"resultType": "vector", "result": [one]}});
        async move { axum::Json(body) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pages = Router::new().route("/api/v1/query", any(answer));
    tokio::spawn(async move { axum::serve(listener, pages).await.unwrap() });
    format!("http://{address}")
}

fn write(repo: &git::Repo, prefix: &str, count: usize, round: u32) {
    for name in (1..=count).map(|n| config::name(prefix, n)) {
        config::write_objects(&repo.path(), &name, &config::rolled_out(&name, prefix == "canary", round));
    }
}

fn push(repo: &git::Repo, prefix: &str, count: usize) -> String {
    write(repo, prefix, count, 1);
    let commit = staged(repo);
    repo.git(&["update-ref", "refs/heads/main", &commit]);
    commit
}

/// The Deliveries of which something holds.
fn those(client: &Client, is: impl Fn(&Delivery) -> bool + Send + 'static) -> Arc<Mutex<HashSet<String>>> {
    let found: Arc<Mutex<HashSet<String>>> = Arc::default();
    let seen = found.clone();
    // It ends with the process.
    tokio::spawn(follow(Api::<Delivery>::namespaced(client.clone(), HOME), move |delivery| {
        let mut seen = seen.lock().unwrap();
        match is(&delivery) {
            true => seen.insert(delivery.name_any()),
            false => seen.remove(&delivery.name_any()),
        };
    }));
    found
}

async fn wait(there: &Mutex<HashSet<String>>, prefix: &str, count: usize) {
    wait_until(&format!("all {prefix} are in their step"), LIMIT, async || {
        let found = there.lock().unwrap().iter().filter(|name| name.starts_with(prefix)).count();
        if found == count { Ok(()) } else { Err(format!("{found} of {count}")) }
    })
    .await;
}

/// Switches all of them over, and aborts one after the other.
async fn abort(client: &Client, repo: &git::Repo, count: usize) -> Vec<Duration> {
    let commit = push(repo, "switch", count);
    let switched = those(client, |delivery| {
        let attempt = delivery.status.as_ref().and_then(|s| s.attempt.as_ref());
        let rollout = attempt.and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.stage == Stage::Switching && r.settled.is_some())
    });
    wait(&switched, "switch", count).await;
    // By namespace, since when the Service leads to stable.
    let back: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let seen = back.clone();
    tokio::spawn(follow(Api::<Service>::all(client.clone()), move |service| {
        let selector = service.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
        let stable = selector.get("app").is_some_and(|app| app == "web");
        if service.name_any() != "web" {
            return;
        }
        let (namespace, mut seen) = (service.namespace().unwrap_or_default(), seen.lock().unwrap());
        if stable {
            seen.entry(namespace).or_insert_with(Instant::now);
        } else {
            seen.remove(&namespace);
        }
    }));
    let away = |name: &String| !back.lock().unwrap().contains_key(name);
    let mut took = Vec::new();
    for name in (1..=count).map(|n| config::name("switch", n)) {
        wait_until("it is seen to lead to the candidate", LIMIT, async || {
            if away(&name) { Ok(()) } else { Err("not yet".into()) }
        })
        .await;
        let path = format!("/apis/windlass.dev/v1alpha1/namespaces/{HOME}/deliveries/{name}");
        let asked = format!("abort:{commit}:now:benchmark");
        let patch: Value = json!({"metadata": {"annotations": {names::ROLLOUT_REQUEST: asked}}});
        send(client, "PATCH", &path, &patch).await;
        let answered = Instant::now();
        let at = wait_until("traffic is back", LIMIT, async || {
            back.lock().unwrap().get(&name).copied().ok_or_else(|| "not yet".to_owned())
        })
        .await;
        took.push(at.saturating_duration_since(answered));
    }
    took
}
