//! How long drift goes unnoticed and unmended: from the answer to somebody's edit until the status tells of it, and from
//! the answer to a deletion until the object is there again, seen by watches of the benchmark.

use super::cluster::{Cluster, send, wait_until};
use super::detection::follow;
use super::process::Process;
use super::{HOME, LIMIT, config, deployed, git, observer, prepare, quiet, repository};
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use windlass::api::Delivery;

/// What is deleted at once, besides one by one.
const AT_ONCE: usize = 10;

/// What one run measured.
#[derive(Default)]
pub struct Delays {
    /// From the answer to an edit until the status tells of drift; edits one after the other.
    pub told: Vec<Duration>,
    /// From the answer to the deletion of a Deployment until there is another; one after the other.
    pub back: Vec<Duration>,
    /// From the first answer to the deletion of ten until all ten are there again.
    pub all_back: Vec<Duration>,
}

/// Edits in so many Deliveries, as many deletions one by one, and `rounds` times ten at once.
pub async fn run(deliveries: usize, rounds: usize) -> Delays {
    let cluster = Cluster::own();
    let client = observer(cluster).await;
    let names = |prefix: &'static str| (1..=deliveries).map(move |n| config::name(prefix, n));
    prepare(cluster, &client, names("told").chain(names("mended")).collect()).await;
    let scratch = tempfile::tempdir().unwrap();
    let repos = [("told", "Report"), ("mended", "Correct")].map(|(prefix, mode)| {
        let repo = git::Repo::empty();
        config::write(&repo.path(), prefix, deliveries, 0, 0);
        let commit = repo.commit(&[]);
        (prefix, mode, repo, commit)
    });
    for (prefix, mode, repo, _) in &repos {
        let template = json!({"timeout": "3m", "drift": {"mode": mode}});
        repository(&client, prefix, &repo.path(), template).await;
    }
    let daemon = Process::start(cluster, HOME, scratch.path());
    for (_, _, _, commit) in &repos {
        deployed(&client, commit, deliveries).await;
    }
    quiet(cluster).await;

    let mut delays = Delays::default();
    let drifted: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let there: Arc<Mutex<HashMap<String, (String, Instant)>>> = Arc::default();
    let of_deliveries = {
        let drifted = drifted.clone();
        follow(Api::<Delivery>::namespaced(client.clone(), HOME), move |delivery| {
            if delivery.status.as_ref().and_then(|s| s.drift).unwrap_or(0) > 0 {
                drifted.lock().unwrap().entry(delivery.name_any()).or_insert_with(Instant::now);
            }
        })
    };
    let of_deployments = {
        let there = there.clone();
        follow(Api::<Deployment>::all(client.clone()), move |deployment| {
            let (namespace, uid) = (deployment.namespace().unwrap(), deployment.uid().unwrap());
            let mut there = there.lock().unwrap();
            if there.get(&namespace).is_none_or(|(known, _)| *known != uid) {
                there.insert(namespace, (uid, Instant::now()));
            }
        })
    };
    let watching = [tokio::spawn(of_deliveries), tokio::spawn(of_deployments)];
    for name in names("told") {
        let path = format!("/api/v1/namespaces/{name}/configmaps/settings?fieldManager=somebody");
        send(&client, "PATCH", &path, &json!({"data": {"round": "edited"}})).await;
        let answered = Instant::now();
        delays.told.push(told(&drifted, &name).await.saturating_duration_since(answered));
    }
    for name in names("mended") {
        let before = delete(&client, &name).await;
        let answered = Instant::now();
        delays.back.push(again(&there, &name, &before).await.saturating_duration_since(answered));
    }
    for round in 0..rounds {
        quiet(cluster).await;
        // others each time: what is deleted again and again is a fight, and given up
        let ten: Vec<String> = names("mended").cycle().skip(round * AT_ONCE).take(AT_ONCE).collect();
        let deleted: Vec<(String, String, Instant)> = stream::iter(&ten)
            .map(|name| async { (name.clone(), delete(&client, name).await, Instant::now()) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let first = deleted.iter().map(|(_, _, at)| *at).min().unwrap();
        let mut last = first;
        for (name, before, _) in &deleted {
            last = last.max(again(&there, name, before).await);
        }
        delays.all_back.push(last.duration_since(first));
    }
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    daemon.stop();
    cluster.stop();
    delays
}

/// Waits until the status of a Delivery has told of drift; when that was seen.
async fn told(drifted: &Mutex<HashMap<String, Instant>>, name: &str) -> Instant {
    wait_until(&format!("{name} tells of drift"), LIMIT, async || {
        drifted.lock().unwrap().get(name).copied().ok_or_else(|| "not yet".to_owned())
    })
    .await
}

/// Deletes the Deployment of a namespace. Answers its uid.
async fn delete(client: &Client, namespace: &str) -> String {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/web");
    let answer = send(client, "DELETE", &path, &Value::Null).await;
    answer["details"]["uid"].as_str().unwrap().to_owned()
}

/// Waits until there is another Deployment in a namespace; when it was seen first.
async fn again(there: &Mutex<HashMap<String, (String, Instant)>>, namespace: &str, before: &str) -> Instant {
    wait_until(&format!("{namespace} has its Deployment again"), LIMIT, async || {
        let there = there.lock().unwrap();
        let other = there.get(namespace).filter(|(uid, _)| uid != before);
        other.map(|(_, at)| *at).ok_or_else(|| "not yet".to_owned())
    })
    .await
}
