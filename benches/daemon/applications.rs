//! What Applications cost, in two sizes: hundreds at once, from nothing to all their objects, beside the API server's bare limit for the
//! same objects; what a status of a Deployment costs that changes and nothing else; and memory.

use super::cluster::{Cluster, send, wait_until};
use super::process::{Process, of_all};
use super::report::Requests;
use super::{HOME, LIMIT, load, observer, prepare, quiet};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::time::{Duration, Instant};
use windlass::cluster::apply::{apply, dry_run};
use windlass::cluster::connect::CONCURRENCY;
use windlass::cluster::{Access, Discovery, Guard};
use windlass::core::application::{expand, read};
use windlass::core::manifest::{Manifest, Origin};

/// The namespace of the bare loop.
const BARE: &str = "bare";

/// Deployments whose status is changed by hand.
const TOUCHED: usize = 20;

/// What is asked for in each Application.
#[derive(Clone, Copy)]
pub enum Size {
    /// As little as a service needs.
    Least,
    /// As in the documentation's example, with a NetworkPolicy and an Ingress instead of what needs pods or a gateway.
    Example,
}

/// What was measured.
pub struct Applications {
    /// The load average before it.
    pub load: String,
    /// Applications, and objects that they are short for.
    pub count: (usize, usize),
    /// The bare limit: each object tried by a dry-run and applied, as the daemon does.
    pub bare: Duration,
    /// What making the Applications takes where no daemon runs.
    pub bare_made: Duration,
    /// The same without the dry-runs.
    pub bare_applies: Duration,
    /// Processor time of the whole machine, in seconds: for the bare limit, and until all objects were seen.
    pub processor: [f64; 2],
    /// Until the last Application was made, by a loop of the same concurrency, from before the first.
    pub made: Duration,
    /// Until the last object was written, from before the first Application was made.
    pub there: Duration,
    /// Until the daemon had nothing more to say about them: each has its status.
    pub told: Duration,
    /// The daemon's requests until then.
    pub requests: Requests,
    /// Resident memory before, then, and after a restart, in MiB.
    pub memory: [f64; 3],
    /// Statuses of Deployments that changed (some by their controller, which puts them back).
    pub statuses: usize,
    /// What the daemon asked or wrote for these.
    pub status_requests: Requests,
}

fn name(number: usize) -> String {
    format!("app-{number:03}")
}

/// An Application as people write one, without pods: what these cost the server and its controllers is not what is measured.
fn application(size: Size, namespace: &str, number: usize) -> Value {
    let mut application = json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Application",
        "metadata": {"name": name(number), "namespace": namespace},
        "spec": {
            "image": "registry.example.com/web:1.0", "port": 8080, "replicas": 0,
            "env": [{"name": "LOG_LEVEL", "value": "info"}],
            "config": {"env": {"FEATURE_X": "on"}},
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "healthCheck": {"readiness": {"httpGet": {"path": "/ready", "port": "http"}}},
        },
    });
    if let Size::Example = size {
        let spec = &mut application["spec"];
        spec["config"]["files"] = json!({"app.yaml": "greeting: good morning\n"});
        spec["healthCheck"]["liveness"] = json!({"httpGet": {"path": "/health", "port": "http"}});
        spec["healthCheck"]["startup"] = json!({});
        spec["expose"] = json!({"host": format!("{}.example.com", name(number)), "ingress": {}});
        spec["security"] = json!({"networkPolicy": {}});
        spec["metrics"] = json!({"port": 9090});
    }
    application
}

fn children(size: Size, namespace: &str, number: usize) -> Vec<Manifest> {
    let application = read(&application(size, namespace, number)).unwrap();
    expand(&application, &Origin::default()).unwrap().objects
}

/// The objects that the daemon made, as the audit log grows: who asks the API server is measured as well.
struct Made {
    log: BufReader<File>,
    line: String,
    count: usize,
}

impl Made {
    /// From now on.
    fn new(cluster: &Cluster) -> Self {
        let mut log = File::open(cluster.dir.join("audit.log")).unwrap();
        log.seek(SeekFrom::End(0)).unwrap();
        Made { log: BufReader::new(log), line: String::new(), count: 0 }
    }

    /// How many there are.
    fn look(&mut self) -> usize {
        let home = format!("/namespaces/{HOME}/");
        while self.log.read_line(&mut self.line).unwrap() > 0 {
            // The rest of it is written soon.
            if !self.line.ends_with('\n') {
                break;
            }
            let line = std::mem::take(&mut self.line);
            let of = |text: &str| line.contains(text);
            let others =
                of("dryRun=") || of("/events") || of("/controllerrevisions") || of("/apis/windlass.dev/");
            self.count += usize::from(of("\"windlass/") && of(&home) && of("\"code\":201") && !others);
        }
        self.count
    }
}

/// Brings up so many.
pub async fn run(size: Size, count: usize) -> Applications {
    let load = load();
    let (bare, applies) = (bare_limit(size, count, true).await, bare_limit(size, count, false).await);
    let objects = bare.objects;
    let cluster = warm(size).await;
    let client = observer(cluster).await;

    let scratch = tempfile::tempdir().unwrap();
    let audit = cluster.audit();
    let daemon = Process::start(cluster, HOME, scratch.path());
    watches(&audit, "applications").await;
    quiet(cluster).await;
    let empty = daemon.memory("VmRSS");

    let audit = cluster.audit();
    let mut written = Made::new(cluster);
    let (began, used) = (jiff::Timestamp::now(), of_all());
    let made = make(&client, size, HOME, count).await;
    wait_until(&format!("{objects} objects"), LIMIT, || {
        let there = written.look();
        std::future::ready(if there >= objects { Ok(()) } else { Err(there.to_string()) })
    })
    .await;
    let used = of_all() - used;
    wait_until("each Application has its status", LIMIT, async || {
        let all = audit.by_agent("windlass/");
        let told = all.iter().filter(|r| r.resource == "applications" && r.subresource == "status");
        let told: std::collections::BTreeSet<&str> = told.map(|r| r.name.as_str()).collect();
        if told.len() >= count { Ok(()) } else { Err(format!("{}", told.len())) }
    })
    .await;
    quiet(cluster).await;
    let all = audit.by_agent("windlass/");
    let there = Requests::last_write(&all, began);
    let told =
        all.iter().filter(|r| r.resource != "leases" && r.verb != "watch").filter_map(|r| r.at.parse().ok());
    let told: Option<jiff::Timestamp> = told.max();
    let told = told.and_then(|at| Duration::try_from(at.duration_since(began)).ok()).unwrap_or_default();
    let requests = Requests::of(&all);
    let settled = daemon.memory("VmRSS");

    let (statuses, status_requests) = touch(cluster, &client).await;
    daemon.stop();
    let audit = cluster.audit();
    let daemon = Process::start(cluster, HOME, scratch.path());
    watches(&audit, "deployments").await;
    quiet(cluster).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let memory = [empty, settled, daemon.memory("VmRSS")];
    daemon.stop();
    cluster.stop();
    Applications {
        load,
        count: (count, objects),
        bare: bare.took,
        bare_made: bare.made,
        bare_applies: applies.took,
        processor: [bare.processor, used],
        made,
        there,
        told,
        requests,
        memory,
        statuses,
        status_requests,
    }
}

/// A cluster that has answered a few requests of each kind: the first ones are slow, which is nobody's merit or fault. Each measurement has
/// one of its own, for a Service costs the more the more there are.
async fn warm(size: Size) -> &'static Cluster {
    let cluster = Cluster::own();
    prepare(cluster, &observer(cluster).await, ["warm", BARE].map(str::to_owned).into()).await;
    bare(cluster, size, "warm", 20, true).await;
    quiet(cluster).await;
    cluster
}

/// What a cluster without a daemon needs.
struct Alone {
    /// For the objects.
    took: Duration,
    /// Processor time of the machine for these, in seconds.
    processor: f64,
    objects: usize,
    /// For the Applications that they stand for.
    made: Duration,
}

/// What the objects of so many Applications need alone, tried before or not, and then the Applications.
async fn bare_limit(size: Size, count: usize, tries: bool) -> Alone {
    let cluster = warm(size).await;
    let (took, processor, objects) = bare(cluster, size, BARE, count, tries).await;
    quiet(cluster).await;
    let made = make(&observer(cluster).await, size, BARE, count).await;
    cluster.stop();
    Alone { took, processor, objects, made }
}

/// Makes so many Applications. How long it took.
async fn make(client: &kube::Client, size: Size, namespace: &str, count: usize) -> Duration {
    let begin = Instant::now();
    let path = format!("/apis/windlass.dev/v1alpha1/namespaces/{namespace}/applications");
    let all = (1..=count).map(|number| {
        let path = &path;
        async move { drop(send(client, "POST", path, &application(size, namespace, number)).await) }
    });
    stream::iter(all).buffer_unordered(CONCURRENCY).collect::<Vec<()>>().await;
    begin.elapsed()
}

/// Writes the objects of so many Applications, tried before or not. How long it took, with how much processor time, and how many.
async fn bare(
    cluster: &Cluster,
    size: Size,
    namespace: &str,
    count: usize,
    tries: bool,
) -> (Duration, f64, usize) {
    let connection = cluster.connect().await;
    let discovery = Discovery::new(connection.client.clone());
    discovery.refresh().await.unwrap();
    let mut todo: Vec<(Access, Value)> = Vec::new();
    for number in 1..=count {
        // A share for each, as each Delivery has one.
        let access = connection.access(None);
        todo.extend(
            children(size, namespace, number).iter().map(|object| (access.clone(), object.to_value())),
        );
    }
    let (objects, begin, used) = (todo.len(), Instant::now(), of_all());
    stream::iter(todo)
        .map(|(access, object)| {
            let discovery = &discovery;
            async move {
                let manifest = Manifest::new(object.clone(), Origin::default()).unwrap();
                let resource = discovery.resource(&manifest.gvk()).unwrap();
                if tries {
                    dry_run(&access, &resource, &object, Guard::Any).await.unwrap();
                }
                apply(&access, &resource, &object, Guard::Any).await.unwrap();
            }
        })
        .buffer_unordered(CONCURRENCY)
        .collect::<Vec<()>>()
        .await;
    (begin.elapsed(), of_all() - used, objects)
}

async fn watches(audit: &super::cluster::Audit, resource: &str) {
    wait_until(&format!("the daemon watches {resource}"), LIMIT, async || {
        let all = audit.by_agent("windlass/");
        let is = all.iter().any(|r| r.verb == "watch" && r.resource == resource);
        if is { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
}

/// Changes the status of some Deployments and nothing else. How many changes that were, and what the daemon asked for them.
async fn touch(cluster: &'static Cluster, client: &kube::Client) -> (usize, Requests) {
    quiet(cluster).await;
    let audit = cluster.audit();
    for number in 1..=TOUCHED {
        let path = format!("/apis/apps/v1/namespaces/{HOME}/deployments/{}/status", name(number));
        send(
            client,
            "PATCH",
            &path,
            &json!({"status": {"availableReplicas": 1, "readyReplicas": 1, "replicas": 1}}),
        )
        .await;
    }
    quiet(cluster).await;
    let statuses = audit
        .all()
        .into_iter()
        .filter(|r| r.resource == "deployments" && r.subresource == "status" && !r.is_read() && r.code < 300);
    let statuses = statuses.count();
    let requests =
        audit.by_agent("windlass/").into_iter().filter(|r| r.resource != "leases" && r.verb != "watch");
    (statuses, Requests::of(&requests.collect::<Vec<_>>()))
}
