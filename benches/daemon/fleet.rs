//! What a large installation costs: a thousand Deliveries of ten objects each in memory, processor time at rest, and how
//! soon a daemon that was begun again knows all of it, beside a bare list of the same kinds. And what it costs when each of
//! many Deliveries acts as an account of its own, which may see its namespace only.

use super::cluster::{Audited, Cluster, send, wait_until};
use super::process::Process;
use super::{HOME, LIMIT, config, deployed, git, load, observer, prepare, quiet, repository};
use futures::{StreamExt, stream};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use windlass::api::Delivery;
use windlass::api::names::DELIVERY_LABEL;

/// ConfigMaps of each directory besides the four objects.
const MORE: usize = 6;

/// One Delivery in so many loses an object while the daemon is away, so that one can see when it knows everything.
const LOST: usize = 50;

/// What is lost, one after the other.
const LOST_EACH: [&str; 5] =
    ["services/web", "configmaps/more-00", "configmaps/more-01", "configmaps/more-02", "configmaps/more-03"];

/// Kinds of the plain objects, as in the paths of their lists.
const KINDS: [&str; 4] =
    ["api/v1/configmaps", "api/v1/services", "api/v1/serviceaccounts", "apis/apps/v1/deployments"];

/// What an installation with one account costs.
pub struct Fleet {
    /// Deliveries, and objects of all.
    pub size: (usize, usize),
    /// Resident memory when all are Ready, in MiB.
    pub settled: f64,
    /// The most that was, until then.
    pub peak: f64,
    /// Resident memory after a restart.
    pub restarted: f64,
    /// The most that was, while everything was listed and looked at.
    pub restarted_peak: f64,
    /// Processor time at rest, in percent of a core.
    pub rest: f64,
    /// A daemon begun again, several times.
    pub starts: Vec<Start>,
}

/// A daemon that was begun again, beside a bare list.
pub struct Start {
    /// From the start of the process until each of the kinds is watched: its list was read and taken in.
    pub seen: Duration,
    /// From the start of the process until the status of each Delivery that lost an object tells of it.
    pub known: Duration,
    /// A bare list of the same kinds and of the Deliveries.
    pub listed: Duration,
    /// The load average before these.
    pub load: String,
}

/// Brings up so many Deliveries; rests for so long.
pub async fn run(deliveries: usize, rest: Duration) -> Fleet {
    let cluster = Cluster::own();
    let client = observer(cluster).await;
    prepare(cluster, &client, (1..=deliveries).map(|n| config::name("app", n)).collect()).await;
    let scratch = tempfile::tempdir().unwrap();
    let repo = git::Repo::empty();
    config::write(&repo.path(), "app", deliveries, 0, MORE);
    let commit = repo.commit(&[]);
    let template = json!({"timeout": "10m", "drift": {"mode": "Report"}});
    repository(&client, "config", &repo.path(), template).await;
    let begin = Instant::now();
    let daemon = Process::start(cluster, HOME, scratch.path());
    deployed(&client, &commit, deliveries).await;
    eprintln!("  {deliveries} Deliveries are Ready after {:?}", begin.elapsed());
    quiet(cluster).await;
    let (settled, peak) = (daemon.memory("VmRSS"), daemon.memory("VmHWM"));
    let used = daemon.processor();
    tokio::time::sleep(rest).await;
    let rest = (daemon.processor() - used) / rest.as_secs_f64() * 100.0;
    daemon.stop();

    let mut starts = Vec::new();
    let mut memory = (0.0, 0.0);
    for object in LOST_EACH {
        let (start, resident) = restart(cluster, &client, scratch.path(), deliveries, object).await;
        starts.push(start);
        memory = resident;
    }
    cluster.stop();
    let size = (deliveries, deliveries * (4 + MORE));
    Fleet { size, settled, peak, restarted: memory.0, restarted_peak: memory.1, rest, starts }
}

/// Takes an object from some Deliveries while no daemon runs, and begins one. Also its resident memory in MiB, and the most
/// that was.
async fn restart(
    cluster: &Cluster,
    client: &Client,
    scratch: &Path,
    deliveries: usize,
    object: &str,
) -> (Start, (f64, f64)) {
    let lost: Vec<String> = (1..=deliveries).step_by(LOST).map(|n| config::name("app", n)).collect();
    let api: Api<Delivery> = Api::namespaced(client.clone(), HOME);
    let drift = async |name: &str| {
        let status = api.get(name).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        Ok::<_, String>(status.drift.unwrap_or(0))
    };
    let mut before = Vec::new();
    for name in &lost {
        let path = format!("/api/v1/namespaces/{name}/{object}");
        send(client, "DELETE", &path, &Value::Null).await;
        before.push(drift(name).await.unwrap());
    }
    quiet(cluster).await;
    let load = load();
    let listed = list(cluster).await;
    let audit = cluster.audit();
    let (started, begin) = (jiff::Timestamp::now(), Instant::now());
    let daemon = Process::start(cluster, HOME, scratch);
    // One after the other, each asked for alone: a list of all would cost more than what is measured.
    for (name, before) in lost.iter().zip(before) {
        wait_until(&format!("{name} tells what it lost"), LIMIT, async || {
            if drift(name).await? > before { Ok(()) } else { Err("not yet".into()) }
        })
        .await;
    }
    let known = begin.elapsed();
    quiet(cluster).await;
    let seen = watched(&audit.by_agent("windlass/"), started);
    let memory = (daemon.memory("VmRSS"), daemon.memory("VmHWM"));
    daemon.stop();
    (Start { seen, known, listed, load }, memory)
}

/// How long after `started` the last of the kinds began to be watched.
fn watched(all: &[Audited], started: jiff::Timestamp) -> Duration {
    let kinds = KINDS.iter().map(|path| path.rsplit('/').next().unwrap()).chain(["deliveries"]);
    let first = kinds.map(|kind| {
        let watches = all.iter().filter(|r| r.verb == "watch" && r.resource == kind);
        watches.filter_map(|r| r.at.parse::<jiff::Timestamp>().ok()).min().unwrap()
    });
    Duration::try_from(first.max().unwrap().duration_since(started)).unwrap()
}

/// How long it takes to list what the daemon lists when it begins, from the first connection on.
async fn list(cluster: &Cluster) -> Duration {
    let begin = Instant::now();
    let connection = cluster.connect().await;
    let own = format!("apis/windlass.dev/v1alpha1/namespaces/{HOME}/deliveries");
    let labelled = KINDS.map(|kind| (kind, DELIVERY_LABEL));
    let lists = labelled.iter().copied().chain([(own.as_str(), "")]);
    stream::iter(lists)
        .map(|(path, label)| pages(&connection.client, path, label))
        .buffer_unordered(KINDS.len() + 1)
        .collect::<Vec<()>>()
        .await;
    begin.elapsed()
}

async fn pages(client: &Client, path: &str, label: &str) {
    let mut next = String::new();
    loop {
        let page = format!("/{path}?limit=500&labelSelector={label}&continue={next}");
        let answer = send(client, "GET", &page, &Value::Null).await;
        match answer["metadata"]["continue"].as_str().filter(|c| !c.is_empty()) {
            Some(more) => next = more.to_owned(),
            None => return,
        }
    }
}

/// What it costs when each Delivery acts as an account of its own.
pub struct Tenants {
    /// Accounts, and kinds that each of them has.
    pub size: (usize, usize),
    /// Connections to the API server when all is quiet.
    pub connections: usize,
    /// Resident memory after a restart, in MiB.
    pub restarted: f64,
}

/// Brings up so many Deliveries, each as an account that may do everything in its namespace and nothing elsewhere.
pub async fn tenants(accounts: usize) -> Tenants {
    let cluster = Cluster::own();
    let client = observer(cluster).await;
    let names: Vec<String> = (1..=accounts).map(|n| config::name("tenant", n)).collect();
    prepare(cluster, &client, names.clone()).await;
    let scratch = tempfile::tempdir().unwrap();
    let repo = git::Repo::empty();
    for name in &names {
        let account = json!({"metadata": {"name": name}});
        send(&client, "POST", &format!("/api/v1/namespaces/{HOME}/serviceaccounts"), &account).await;
        let binding = json!({
            "metadata": {"name": "deployer"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "namespace": HOME, "name": name}],
        });
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings");
        send(&client, "POST", &path, &binding).await;
        config::write_objects(&repo.path(), name, &config::tenant(name));
    }
    let commit = repo.commit(&[]);
    let template = json!({"timeout": "10m", "serviceAccountName": "{{ directory }}"});
    repository(&client, "config", &repo.path(), template).await;
    let daemon = Process::start(cluster, HOME, scratch.path());
    deployed(&client, &commit, accounts).await;
    quiet(cluster).await;
    daemon.stop();
    let audit = cluster.audit();
    let daemon = Process::start(cluster, HOME, scratch.path());
    let kinds = config::tenant("any").len();
    wait_until("everything is watched", LIMIT, async || {
        let all = audit.by_agent("windlass/");
        let count =
            all.iter().filter(|r| r.verb == "watch" && !r.namespace.is_empty() && r.code < 300).count();
        if count >= accounts * kinds { Ok(()) } else { Err(format!("{count} watches")) }
    })
    .await;
    // Longer than connections that nobody needs are kept.
    tokio::time::sleep(Duration::from_secs(100)).await;
    let tenants = Tenants {
        size: (accounts, kinds),
        connections: daemon.connections(),
        restarted: daemon.memory("VmRSS"),
    };
    daemon.stop();
    cluster.stop();
    tenants
}
