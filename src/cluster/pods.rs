//! The Pods and ReplicaSets of workloads whose revision is unsettled.
//!
//! They carry only the labels of the workload's template, not ours. So that the number of requests does not grow with
//! that of workloads, watches are shared within one account and namespace: the first unsettled workload there has its
//! own, by its selector; all further ones share a second one, of the whole namespace. Both stay for a moment after the
//! last workload is settled, since Deliveries are deployed in bursts.
//!
//! What is kept is what health reads of the objects that a watched workload selects, and nothing of the others, however
//! many there are. So a workload that joins a watch has it list again, at most once a second for all that joined: its
//! new pods are seen from the moment it joins, those that it had before with the next list.

mod state;

use super::connect::{Connection, ServiceAccount};
use super::discovery::Discovery;
use super::error::Cause;
use super::follow::{Source, follow};
use crate::core::manifest::Gvk;
use crate::lock::lock;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use serde_json::Value;
use state::State;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Watches by selector in one account and namespace; further workloads share one of the whole namespace.
const NARROW: usize = 1;

/// How long a watch stays after the last workload that needed it.
const LINGER: Duration = Duration::from_secs(10);

/// A watch lists again at most this often for those that join.
const LIST_PAUSE: Duration = Duration::from_secs(1);

/// Why a workload's Pods cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum PodWatchError {
    /// The selector is none, or selects everything.
    #[error("the workload's selector cannot be used to watch its Pods: {0}")]
    Selector(String),
}

/// Shared watches of Pods and ReplicaSets. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct PodWatches(Arc<Inner>);

struct Inner {
    connection: Connection,
    discovery: Discovery,
    feeds: Mutex<HashMap<Place, Vec<Weak<Feed>>>>,
}

type Place = (Option<ServiceAccount>, String);

/// A watch of Pods and one of ReplicaSets, with the same selector.
struct Feed {
    // `None`: everything in the namespace.
    labels: Option<String>,
    pods: Kind,
    replica_sets: Kind,
}

struct Kind {
    state: Arc<Mutex<State>>,
    joined: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Kind {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The Pods and ReplicaSets that one workload selects, kept up to date until it is dropped.
#[must_use = "the watch ends when this is dropped"]
pub struct PodWatch {
    feed: Arc<Feed>,
    pods: u64,
    replica_sets: u64,
}

impl PodWatches {
    /// No watch yet.
    pub fn new(connection: &Connection, discovery: &Discovery) -> Self {
        PodWatches(Arc::new(Inner {
            connection: connection.clone(),
            discovery: discovery.clone(),
            feeds: Mutex::default(),
        }))
    }

    /// Has the Pods and ReplicaSets watched, as an account, that a workload selects in its namespace. `selector` is its
    /// `spec.selector`. `changed` is called after each change of what is kept of them; it should only wake somebody.
    /// Does not wait. Called on a runtime.
    pub fn watch(
        &self,
        account: Option<&ServiceAccount>,
        namespace: &str,
        selector: &Value,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<PodWatch, PodWatchError> {
        let selector = read_selector(selector)?;
        let labels = selector.to_string();
        let changed: Arc<dyn Fn() + Send + Sync> = Arc::new(changed);
        let place = (account.cloned(), namespace.to_owned());
        let mut feeds = lock(&self.0.feeds);
        feeds.retain(|_, all| {
            all.retain(|feed| feed.strong_count() > 0);
            !all.is_empty()
        });
        let here = feeds.entry(place).or_default();
        let known: Vec<Arc<Feed>> = here.iter().filter_map(Weak::upgrade).collect();
        let fits = |feed: &&Arc<Feed>| feed.labels.as_ref().is_none_or(|l| *l == labels);
        if let Some(feed) = known.iter().find(fits) {
            return Ok(feed.clone().join(selector, changed));
        }
        let labels = (known.len() < NARROW).then_some(labels);
        let source = |api_version, kind| Source {
            client: match account {
                Some(account) => self.0.connection.as_service_account(account),
                None => self.0.connection.client.clone(),
            },
            discovery: self.0.discovery.clone(),
            share: self.0.connection.beginning(),
            gvk: Gvk::new(api_version, kind),
            namespace: Some(namespace.to_owned()),
            labels: labels.clone(),
            fields: None,
        };
        let (pods, pod_reader) = Kind::start(source("v1", "Pod"), selector.clone(), changed.clone());
        let (replica_sets, set_reader) = Kind::start(source("apps/v1", "ReplicaSet"), selector, changed);
        let feed = Arc::new(Feed { labels, pods, replica_sets });
        here.push(Arc::downgrade(&feed));
        Ok(PodWatch { feed, pods: pod_reader, replica_sets: set_reader })
    }
}

impl Feed {
    fn join(self: Arc<Self>, selector: Selector, changed: Arc<dyn Fn() + Send + Sync>) -> PodWatch {
        let pods = self.pods.join(selector.clone(), changed.clone());
        let replica_sets = self.replica_sets.join(selector, changed);
        PodWatch { feed: self, pods, replica_sets }
    }
}

impl Kind {
    fn start(source: Source, selector: Selector, changed: Arc<dyn Fn() + Send + Sync>) -> (Self, u64) {
        let mut state = State::default();
        let reader = state.join(selector, changed);
        let state = Arc::new(Mutex::new(state));
        let joined = Arc::new(Notify::new());
        let task = tokio::spawn(keep(source, state.clone(), joined.clone())).abort_handle();
        (Kind { state, joined, task }, reader)
    }

    fn join(&self, selector: Selector, changed: Arc<dyn Fn() + Send + Sync>) -> u64 {
        let reader = lock(&self.state).join(selector, changed);
        self.joined.notify_one();
        reader
    }
}

/// Watches for ever; begins again, with a list, a moment after somebody joined.
async fn keep(source: Source, state: Arc<Mutex<State>>, joined: Arc<Notify>) {
    loop {
        let begun = Instant::now();
        // Who joined until now is seen by the list that begins.
        let _ = futures::FutureExt::now_or_never(joined.notified());
        let again = async {
            joined.notified().await;
            tokio::time::sleep_until(begun + LIST_PAUSE).await;
        };
        let seen = |seen| {
            lock(&state).take(seen);
            ControlFlow::Continue(())
        };
        tokio::select! {
            biased;
            () = follow(source.clone(), seen) => {}
            () = again => {}
        }
    }
}

impl PodWatch {
    /// The Pods by name, with what health reads of them ([`crate::core::health::essence`]).
    pub fn pods(&self) -> Vec<Arc<Value>> {
        lock(&self.feed.pods.state).objects(self.pods)
    }

    /// The ReplicaSets by name, with what health reads of them.
    pub fn replica_sets(&self) -> Vec<Arc<Value>> {
        lock(&self.feed.replica_sets.state).objects(self.replica_sets)
    }

    /// Whether all of them are seen, as far as they ever will be. False in the first moment, and while the API server is
    /// away.
    pub fn is_complete(&self) -> bool {
        let of = |kind: &Kind, reader| lock(&kind.state).is_complete(reader);
        of(&self.feed.pods, self.pods) && of(&self.feed.replica_sets, self.replica_sets)
    }

    /// Why Pods or ReplicaSets are not seen at the moment.
    pub fn failing(&self) -> Option<Cause> {
        let of = |kind: &Kind| lock(&kind.state).failing.clone();
        of(&self.feed.pods).or_else(|| of(&self.feed.replica_sets))
    }
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        lock(&self.feed.pods.state).leave(self.pods);
        lock(&self.feed.replica_sets.state).leave(self.replica_sets);
        let feed = self.feed.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(LINGER).await;
                drop(feed);
            });
        }
    }
}

fn read_selector(selector: &Value) -> Result<Selector, PodWatchError> {
    let refuse = |e: &dyn std::fmt::Display| PodWatchError::Selector(e.to_string());
    let selector: LabelSelector = serde_json::from_value(selector.clone()).map_err(|e| refuse(&e))?;
    let selector = Selector::try_from(selector).map_err(|e| refuse(&e))?;
    if selector.selects_all() {
        return Err(refuse(&"it is empty"));
    }
    Ok(selector)
}
