//! What Deliveries that fail for ever cost those beside them: the same push, to the same Deliveries, while the failing ones
//! are suspended and while they are not, in turn.

use super::cluster::{Cluster, wait_until};
use super::process::Process;
use super::{HOME, LIMIT, config, deployed, git, load, observer, prepare, quiet, repository, staged};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::time::{Duration, Instant};
use windlass::api::Delivery;
use windlass::api::delivery::Phase;

/// One push: from the moment in which the branch moves.
#[derive(Clone, Copy)]
pub struct Push {
    /// Whether the neighbours were at it.
    pub with: bool,
    /// Until half of the Deliveries are Ready.
    pub half: Duration,
    /// Until all are.
    pub all: Duration,
}

/// Pushes to `healthy` Deliveries beside `failing` ones, so many times with and so many times without them.
pub async fn run(pairs: u32, healthy: usize, failing: usize) -> Vec<Push> {
    let cluster = Cluster::own();
    let client = observer(cluster).await;
    let neighbours: Vec<String> = (1..=failing).map(|n| config::name("hopeless", n)).collect();
    let namespaces = (1..=healthy).map(|n| config::name("app", n)).chain(neighbours.clone());
    prepare(cluster, &client, namespaces.collect()).await;

    let scratch = tempfile::tempdir().unwrap();
    let (good, bad) = (git::Repo::empty(), git::Repo::empty());
    config::write(&good.path(), "app", healthy, 0, 0);
    for (number, name) in neighbours.iter().enumerate() {
        config::write_objects(&bad.path(), name, &config::hopeless(name, number));
    }
    let commit = good.commit(&[]);
    bad.commit(&[]);
    repository(&client, "good", &good.path(), json!({"timeout": "3m"})).await;
    // As restless as they may be.
    repository(&client, "bad", &bad.path(), json!({"timeout": "5s", "retryInterval": "1s"})).await;
    let daemon = Process::start(cluster, HOME, scratch.path());
    deployed(&client, &commit, healthy).await;
    all_fail(&client, &neighbours).await;

    let mut pushes = Vec::new();
    for number in 0..pairs * 2 {
        // Without, with, with, without: what changes as time goes by hits both.
        let with = matches!(number % 4, 1 | 2);
        suspend(&client, &neighbours, !with).await;
        if with {
            all_fail(&client, &neighbours).await;
        }
        quiet(cluster).await;
        config::write(&good.path(), "app", healthy, number + 1, 0);
        let commit = staged(&good);
        let begin = Instant::now();
        good.git(&["update-ref", "refs/heads/main", &commit]);
        let marks = deployed(&client, &commit, healthy).await;
        let at = |n: usize| marks[n].duration_since(begin);
        let push = Push { with, half: at(healthy / 2), all: at(healthy - 1) };
        eprintln!("  with neighbours: {with}, all Ready after {:?}, load {}", push.all, load());
        pushes.push(push);
    }
    daemon.stop();
    cluster.stop();
    pushes
}

async fn suspend(client: &Client, names: &[String], suspend: bool) {
    let api: Api<Delivery> = Api::namespaced(client.clone(), HOME);
    for name in names {
        let patch = json!({"spec": {"suspend": suspend}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

async fn all_fail(client: &Client, names: &[String]) {
    let api: Api<Delivery> = Api::namespaced(client.clone(), HOME);
    for name in names {
        wait_until(&format!("{name} fails"), LIMIT, async || {
            let phase = api.get(name).await.map_err(|e| e.to_string())?.status.unwrap_or_default().phase;
            if phase == Phase::Failed { Ok(()) } else { Err(format!("{phase:?}")) }
        })
        .await;
    }
}
