//! The bare limit: the same dry-runs and applies with the same client and the same concurrency, and nothing else.

use super::cluster::Cluster;
use super::config;
use futures::{StreamExt, stream};
use serde_json::Value;
use std::time::{Duration, Instant};
use windlass::cluster::apply::{apply, dry_run};
use windlass::cluster::connect::CONCURRENCY;
use windlass::cluster::{Access, Discovery, Guard};
use windlass::core::manifest::Gvk;

/// A client as the daemon has it, with a share for each directory.
pub struct Bare {
    discovery: Discovery,
    shares: Vec<Access>,
    prefix: &'static str,
}

impl Bare {
    /// For so many directories.
    pub async fn new(cluster: &Cluster, prefix: &'static str, count: usize) -> Self {
        let connection = cluster.connect().await;
        let discovery = Discovery::new(connection.client.clone());
        discovery.refresh().await.unwrap();
        let shares = (0..count).map(|_| connection.access(None)).collect();
        Bare { discovery, shares, prefix }
    }

    /// Tries and applies the objects of a round, `only` those that this says. How long it took, and how many.
    pub async fn run(&self, round: u32, only: impl Fn(&Value) -> bool) -> (Duration, usize) {
        let mut todo = Vec::new();
        for (number, access) in self.shares.iter().enumerate() {
            let objects = config::objects(&config::name(self.prefix, number + 1), round, 0);
            todo.extend(objects.into_iter().filter(&only).map(|o| (access.clone(), o)));
        }
        let count = todo.len();
        let begin = Instant::now();
        stream::iter(todo)
            .map(|(access, object)| async move {
                let text = |field: &str| object[field].as_str().unwrap();
                let resource = self.discovery.resource(&Gvk::new(text("apiVersion"), text("kind"))).unwrap();
                dry_run(&access, &resource, &object, Guard::Any).await.unwrap();
                apply(&access, &resource, &object, Guard::Any).await.unwrap();
            })
            .buffer_unordered(CONCURRENCY)
            .collect::<Vec<()>>()
            .await;
        (begin.elapsed(), count)
    }
}
