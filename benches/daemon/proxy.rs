//! How soon requests follow an abort: on a real node, until the route is written, and until no answer of Envoy comes from the
//! candidate any more.

use super::cluster::{send, wait_until};
use super::detection::follow;
use super::plane::{self, Plane, server, service};
use super::process::Process;
use super::{HOME, LIMIT, config, deployed, git, observer, prepare, repository, staged};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use windlass::api::rollout::Stage;
use windlass::api::{Delivery, names};

/// The directory, its namespace and the workload's host.
const NAME: &str = "proxy";
const HOST: &str = "proxy.test";

/// What was measured, abort by abort.
#[derive(Default)]
pub struct Proxy {
    /// From the answer to a request to abort until the route gives all requests to stable.
    pub written: Vec<Duration>,
    /// From then until the last answer of the candidate.
    pub followed: Vec<Duration>,
    /// Requests from one abort to the next that had no good answer.
    pub failed: usize,
    /// Requests sent.
    pub sent: usize,
}

/// What each request came to: when it was answered, and by which version; `None` if it was not.
type Answers = Arc<Mutex<Vec<(Instant, Option<String>)>>>;

/// So many aborts; `None` where this machine cannot have a real node.
pub async fn run(aborts: usize) -> Option<Proxy> {
    let plane = plane::shared("rollouts: how soon the proxy follows")?;
    let client = observer(plane.cluster).await;
    prepare(plane.cluster, &client, vec![NAME.to_owned()]).await;
    let scratch = tempfile::tempdir().unwrap();
    let repo = git::Repo::empty();
    write(&repo, plane, "v0");
    let commit = repo.commit(&[]);
    let rollout = json!({
        "strategy": "BlueGreen", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "settle": "1s", "scaleDownDelay": "1h",
    });
    repository(&client, NAME, &repo.path(), json!({"timeout": "5m", "rollout": rollout})).await;
    let daemon = Process::start(plane.cluster, HOME, scratch.path());
    deployed(&client, &commit, 1).await;
    wait_until("the gateway leads to the application", LIMIT, || async {
        let (status, _) = plane.get(HOST, "/").await?;
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let answers: Answers = Arc::default();
    let asks = tokio::spawn(ask(plane, answers.clone()));
    let back = stable_since(&client);
    let mut found = Proxy::default();
    for round in 1..=aborts {
        let tag = format!("v{round}");
        write(&repo, plane, &tag);
        let commit = staged(&repo);
        repo.git(&["update-ref", "refs/heads/main", &commit]);
        wait_until(&format!("{tag} has all requests"), LIMIT, || async {
            let delivery: Delivery = Api::namespaced(client.clone(), HOME).get(NAME).await.unwrap();
            let attempt = delivery.status.and_then(|s| s.attempt).filter(|a| a.revision.commit == commit);
            let rollout = attempt.and_then(|a| a.rollout);
            let switched = rollout.is_some_and(|r| r.stage == Stage::Switching && r.settled.is_some());
            let last = answers.lock().unwrap().last().and_then(|(_, version)| version.clone());
            if switched && last == Some(tag.clone()) { Ok(()) } else { Err(format!("{last:?}")) }
        })
        .await;
        answers.lock().unwrap().clear();
        let path = format!("/apis/windlass.dev/v1alpha1/namespaces/{HOME}/deliveries/{NAME}");
        let asked = format!("abort:{commit}:{round}:benchmark");
        let patch = json!({"metadata": {"annotations": {names::ROLLOUT_REQUEST: asked}}});
        send(&client, "PATCH", &path, &patch).await;
        let asked = Instant::now();
        let written = wait_until("the route leads to stable", LIMIT, || async {
            back.lock().unwrap().ok_or_else(|| "not yet".to_owned())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let all = std::mem::take(&mut *answers.lock().unwrap());
        let last =
            all.iter().filter(|(_, version)| version.as_deref() == Some(&tag)).map(|(at, _)| *at).max();
        found.written.push(written.saturating_duration_since(asked));
        found.followed.push(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(written)));
        found.failed += all.iter().filter(|(_, version)| version.is_none()).count();
        found.sent += all.len();
        wait_until("it is held", LIMIT, || async {
            let delivery: Delivery = Api::namespaced(client.clone(), HOME).get(NAME).await.unwrap();
            let status = delivery.status.unwrap_or_default();
            if status.attempt.is_none() { Ok(()) } else { Err(format!("{:?}", status.phase)) }
        })
        .await;
    }
    asks.abort();
    daemon.stop();
    plane.cluster.stop();
    Some(found)
}

fn write(repo: &git::Repo, plane: &Plane, tag: &str) {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [plane.parent], "hostnames": [HOST],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        },
    });
    config::write_objects(&repo.path(), NAME, &[server("web", tag, 1), service("web", "http"), route]);
}

/// Asks the gateway again and again.
async fn ask(plane: &'static Plane, answers: Answers) {
    loop {
        let answer = plane.get(HOST, "/").await;
        let version = match answer {
            Ok((200, headers)) => headers.get("x-version").cloned(),
            _ => None,
        };
        answers.lock().unwrap().push((Instant::now(), version));
    }
}

/// Since when the route gives the candidate nothing, as a watch tells.
fn stable_since(client: &Client) -> Arc<Mutex<Option<Instant>>> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let routes: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), NAME, &ApiResource::from_gvk(&kind));
    let since: Arc<Mutex<Option<Instant>>> = Arc::default();
    let seen = since.clone();
    // It ends with the process.
    tokio::spawn(follow(routes, move |route: DynamicObject| {
        if route.name_any() != "web" {
            return;
        }
        let refs = route.data["spec"]["rules"][0]["backendRefs"].as_array().cloned().unwrap_or_default();
        let gets = |r: &Value| r["name"] != "web" && r["weight"] != 0;
        let mut seen = seen.lock().unwrap();
        *seen = match refs.iter().any(gets) {
            true => None,
            false => seen.or_else(|| Some(Instant::now())),
        };
    }));
    since
}
