//! How long a failure that the API server shows goes unnoticed: from the event that shows a crash loop, a missing image
//! or a failed Job until the status of the Delivery says that it is rolled back, both seen by watches of the benchmark.

use super::cluster::Cluster;
use super::cluster::wait_until;
use super::process::Process;
use super::{HOME, LIMIT, config, deployed, git, observer, prepare, quiet, repository, staged};
use futures::TryStreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use windlass::api::Delivery;
use windlass::api::delivery::{Goal, Phase};

/// What one scenario measured: by way to fail, from the event until the rollback was begun.
pub type Delays = HashMap<&'static str, Vec<Duration>>;

/// What the watches saw of the commit that is tried.
#[derive(Default)]
struct Seen {
    round: u32,
    commit: String,
    shown: HashMap<String, Instant>,
    begun: HashMap<String, Instant>,
    over: HashMap<String, Instant>,
}

impl Seen {
    fn shown(&mut self, delivery: &str) {
        self.shown.entry(delivery.to_owned()).or_insert_with(Instant::now);
    }

    fn delivery(&mut self, delivery: &Delivery) {
        let Some(status) = &delivery.status else { return };
        if status.held.as_ref().is_none_or(|h| h.revision.commit != self.commit) {
            return;
        }
        let name = delivery.name_any();
        if status.attempt.as_ref().is_some_and(|a| a.goal == Goal::Rollback) {
            self.begun.entry(name.clone()).or_insert_with(Instant::now);
        }
        if status.phase == Phase::Held {
            self.over.entry(name).or_insert_with(Instant::now);
        }
    }
}

/// Pushes so many commits each of which breaks all Deliveries, `each` for each way to fail.
pub async fn run(pushes: u32, each: usize) -> Delays {
    let cluster = Cluster::own();
    let ways = config::FAILURES.iter();
    let names: Vec<(&'static str, String)> =
        ways.flat_map(|(way, _)| (1..=each).map(move |n| (*way, config::name(way, n)))).collect();
    let client = observer(cluster).await;
    prepare(cluster, &client, names.iter().map(|(_, name)| name.clone()).collect()).await;

    let scratch = tempfile::tempdir().unwrap();
    let repo = git::Repo::empty();
    let write = |round: u32| {
        for (way, name) in &names {
            config::write_objects(&repo.path(), name, &config::failing(name, way, round));
        }
    };
    write(0);
    let good = repo.commit(&[]);
    repository(&client, "config", &repo.path(), json!({"timeout": "3m"})).await;
    let daemon = Process::start(cluster, HOME, scratch.path());
    deployed(&client, &good, names.len()).await;
    quiet(cluster).await;

    let seen = Arc::new(Mutex::new(Seen::default()));
    let watching = watch(&client, &seen);
    let mut delays = Delays::new();
    for round in 1..=pushes {
        write(round);
        let commit = staged(&repo);
        *seen.lock().unwrap() = Seen { round, commit: commit.clone(), ..Seen::default() };
        repo.git(&["update-ref", "refs/heads/main", &commit]);
        wait_until("all Deliveries are rolled back", LIMIT, async || {
            let seen = seen.lock().unwrap();
            let left = names.iter().find(|(_, name)| !seen.over.contains_key(name));
            left.map_or(Ok(()), |(_, name)| Err(format!("{name} is not")))
        })
        .await;
        {
            let seen = seen.lock().unwrap();
            for (way, name) in &names {
                let (Some(shown), Some(begun)) = (seen.shown.get(name), seen.begun.get(name)) else {
                    panic!("{name}: the failure or its rollback was not seen");
                };
                delays.entry(way).or_default().push(begun.saturating_duration_since(*shown));
            }
        }
        quiet(cluster).await;
    }
    drop(watching);
    daemon.stop();
    cluster.stop();
    delays
}

/// Ends the watches when dropped.
struct Watching(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn watch(client: &kube::Client, seen: &Arc<Mutex<Seen>>) -> Watching {
    let of_pods = {
        let seen = seen.clone();
        follow(Api::<Pod>::all(client.clone()), move |pod| {
            let mut seen = seen.lock().unwrap();
            let this = pod.labels().get("round").is_some_and(|r| *r == seen.round.to_string());
            if this && is_broken(&pod) {
                seen.shown(&pod.namespace().unwrap_or_default());
            }
        })
    };
    let of_jobs = {
        let seen = seen.clone();
        follow(Api::<Job>::all(client.clone()), move |job| {
            let mut seen = seen.lock().unwrap();
            let this = job.labels().get("round").is_some_and(|r| *r == seen.round.to_string());
            let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
            // The first is said while its pods are still ending; nothing leads back from it.
            let failed = ["FailureTarget", "Failed"];
            if this
                && conditions.into_iter().any(|c| failed.contains(&c.type_.as_str()) && c.status == "True")
            {
                seen.shown(&job.namespace().unwrap_or_default());
            }
        })
    };
    let of_deliveries = {
        let seen = seen.clone();
        follow(Api::<Delivery>::namespaced(client.clone(), HOME), move |delivery| {
            seen.lock().unwrap().delivery(&delivery);
        })
    };
    Watching(vec![tokio::spawn(of_pods), tokio::spawn(of_jobs), tokio::spawn(of_deliveries)])
}

/// Restarted three times, or an image that is not to be had.
fn is_broken(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.into_iter().any(|status| {
        let waiting = status.state.as_ref().and_then(|s| s.waiting.as_ref());
        let reason = waiting.and_then(|w| w.reason.as_deref()).unwrap_or_default();
        status.restart_count >= 3 || matches!(reason, "ErrImagePull" | "ImagePullBackOff")
    })
}

/// Shows each object as it is now, and each change of it, for ever.
pub async fn follow<K>(api: Api<K>, mut see: impl FnMut(K))
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => see(object),
            Ok(Some(_)) => {}
            Ok(None) => return,
            // It begins again by itself.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
