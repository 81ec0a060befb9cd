//! What is known of the objects of all Deliveries without asking: shared watches.
//!
//! One watch for each account, kind and scope, however many Deliveries use it. It is filtered on the server by our
//! label. The scope is the cluster, or, where the account may not list the cluster, the namespaces that are needed.
//! Of each object only a digest and a verdict are kept (whatever `keep` makes of it), never the object.
//!
//! A change is sent to a channel with the label value of the Delivery that it concerns. A change that alters
//! nothing of what is kept (a status heartbeat) wakes nobody, unless the object is looked at closely ([`Closely`]).

use super::closely::Closely;
use super::connect::{Connection, ServiceAccount};
use super::discovery::Discovery;
use super::error::Cause;
use super::follow::{Seen, Source, follow};
use super::limit::Share;
use super::store::{Store, id};
use crate::api::names::DELIVERY_LABEL;
use crate::core::manifest::{Gvk, ObjectId};
use crate::lock::lock;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Which objects of a kind are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Filter {
    /// Those that carry our label.
    Labelled,
    /// All: for kinds that act on our objects without being ours (autoscalers).
    Everything,
}

/// What is kept of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<K> {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.resourceVersion` when it was last seen.
    pub resource_version: Box<str>,
    /// `metadata.generation`; 0 where a kind has none.
    pub generation: i64,
    /// The value of our label; empty where it is not set ([`Filter::Everything`]).
    pub label: Arc<str>,
    /// It is marked for deletion.
    pub deleting: bool,
    /// It has an owner that controls it: made by a controller, not by us.
    pub controlled: bool,
    /// What the caller keeps.
    pub kept: K,
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<K> {
    /// It is there, and differs from before in what is kept.
    Applied(Entry<K>),
    /// It is out of sight. Deleted, or its label was removed or changed: only a GET tells, unless `certain`.
    Gone {
        /// Which object it was.
        uid: Box<str>,
        /// It was marked for deletion before, so it is deleted.
        certain: bool,
    },
}

/// A change of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<K> {
    /// The label value of the Delivery that it concerns; empty if it carries none.
    pub label: Arc<str>,
    /// As whom it was seen; `None` is the daemon.
    pub account: Option<ServiceAccount>,
    /// Its kind, in the version that is watched.
    pub gvk: Gvk,
    /// Which object.
    pub id: ObjectId,
    /// What happened.
    pub event: Event<K>,
}

/// How a watch is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sight {
    /// A complete list was seen once; what is known may be old while `failing`.
    pub synced: bool,
    /// Why nothing is seen at the moment.
    pub failing: Option<Cause>,
}

/// Why a kind's objects are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Nobody asked for it ([`Watches::ensure`]).
    #[error("{0} is not watched")]
    NotWatched(Gvk),
    /// The list could not be read.
    #[error("cannot watch {gvk}{}: {cause}", .account.as_ref().map(|a| format!(" as {a}")).unwrap_or_default())]
    Failing {
        /// The kind.
        gvk: Gvk,
        /// As whom.
        account: Option<ServiceAccount>,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// The list did not come in time.
    #[error("the first list of {gvk} did not come within {}s", .limit.as_secs())]
    Late {
        /// The kind.
        gvk: Gvk,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// One set of watches: as whom, which kind, filtered or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) account: Option<ServiceAccount>,
    pub(super) gvk: Gvk,
    pub(super) filter: Filter,
}

pub(super) type Keep<K> = dyn Fn(&Value) -> K + Send + Sync;

/// Shared watches; see the module. Cheap to clone; clones share everything. Watches end when nobody needs them.
pub struct Watches<K>(Arc<Inner<K>>);

impl<K> Clone for Watches<K> {
    fn clone(&self) -> Self {
        Watches(self.0.clone())
    }
}

struct Inner<K> {
    connection: Connection,
    discovery: Discovery,
    share: Share,
    keep: Box<Keep<K>>,
    remember: fn(&K) -> bool,
    changes: mpsc::UnboundedSender<Change<K>>,
    groups: Mutex<HashMap<Key, Group<K>>>,
}

struct Group<K> {
    // The account may not list the whole cluster.
    by_namespace: bool,
    // How many want to know about a namespace ("" stands for cluster-scoped objects).
    wanted: BTreeMap<String, usize>,
    running: BTreeMap<Option<String>, Running<K>>,
}

struct Running<K> {
    store: Arc<Store<K>>,
    task: AbortHandle,
}

impl<K> Drop for Running<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps a kind watched in some namespaces; the watch ends with the last one that is dropped.
#[must_use = "the watch ends when this is dropped"]
pub struct Interest {
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Drop for Interest {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl<K: Clone + PartialEq + Send + Sync + 'static> Watches<K> {
    /// No watch yet. `keep` makes of an object what is kept of it; changes come out of the receiver.
    pub fn new(
        connection: &Connection,
        discovery: &Discovery,
        keep: impl Fn(&Value) -> K + Send + Sync + 'static,
    ) -> (Self, mpsc::UnboundedReceiver<Change<K>>) {
        Self::remembering(connection, discovery, keep, |_| false)
    }

    /// The same; what was shown last of an object when it went is remembered for a while where `remember` says so, see
    /// [`Watches::departed`].
    pub fn remembering(
        connection: &Connection,
        discovery: &Discovery,
        keep: impl Fn(&Value) -> K + Send + Sync + 'static,
        remember: fn(&K) -> bool,
    ) -> (Self, mpsc::UnboundedReceiver<Change<K>>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let inner = Inner {
            connection: connection.clone(),
            discovery: discovery.clone(),
            share: connection.beginning(),
            keep: Box::new(keep),
            remember,
            changes,
            groups: Mutex::default(),
        };
        (Watches(Arc::new(inner)), receiver)
    }

    /// Watches a kind as an account, at least in these namespaces (none for a cluster-scoped kind), until the
    /// answer is dropped. Does not wait; see [`Watches::wait_synced`]. Called on a runtime.
    pub fn ensure(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
        namespaces: &BTreeSet<String>,
    ) -> Interest {
        let key = Key { account: account.cloned(), gvk: gvk.clone(), filter };
        let wanted: Vec<String> =
            if namespaces.is_empty() { vec![String::new()] } else { namespaces.iter().cloned().collect() };
        {
            let mut groups = self.0.groups();
            let group = groups.entry(key.clone()).or_insert_with(|| Group {
                by_namespace: false,
                wanted: BTreeMap::new(),
                running: BTreeMap::new(),
            });
            for namespace in &wanted {
                *group.wanted.entry(namespace.clone()).or_default() += 1;
            }
            self.0.adjust(&key, group);
        }
        let inner = Arc::downgrade(&self.0);
        Interest { release: Some(Box::new(move || release(&inner, &key, &wanted))) }
    }

    /// How the watch of a kind in a namespace (`""` for a cluster-scoped kind) is doing.
    pub fn sight(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
        namespace: &str,
    ) -> Sight {
        let store = self.store(account, gvk, filter, namespace);
        store.map(|s| s.sight.borrow().clone()).unwrap_or_default()
    }

    /// Whether the objects of a kind in a namespace are known.
    pub fn synced(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
        namespace: &str,
    ) -> bool {
        self.sight(account, gvk, filter, namespace).synced
    }

    /// Waits until the objects of a kind in a namespace are known. Fails at once when something is missing that
    /// only a person can give (rights, a CRD); waits on while the server is not available.
    pub async fn wait_synced(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
        namespace: &str,
        limit: Duration,
    ) -> Result<(), WatchError> {
        let late = || WatchError::Late { gvk: gvk.clone(), limit };
        let failing = |cause| WatchError::Failing { gvk: gvk.clone(), account: account.cloned(), cause };
        let last = Mutex::new(None);
        let wait = async {
            loop {
                // Looked up again each time: losing the right to list the cluster puts another in its place.
                let Some(store) = self.store(account, gvk, filter, namespace) else {
                    return Err(WatchError::NotWatched(gvk.clone()));
                };
                let mut sight = store.sight.subscribe();
                let now = sight.borrow_and_update().clone();
                match now {
                    Sight { synced: true, .. } => return Ok(()),
                    Sight { failing: Some(cause), .. } if !cause.is_transient() && !store.is_closed() => {
                        return Err(failing(cause));
                    }
                    Sight { failing, .. } => *lock(&last) = failing,
                }
                // An error means that the store was replaced: look again.
                let _ = sight.changed().await;
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(answer) => answer,
            Err(_) => match last.into_inner().unwrap_or_else(|e| e.into_inner()) {
                Some(cause) => Err(failing(cause)),
                None => Err(late()),
            },
        }
    }

    /// What is known of one object.
    pub fn get(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
        id: &ObjectId,
    ) -> Option<Entry<K>> {
        self.store(account, gvk, filter, &id.namespace)?.objects().get(id).cloned()
    }

    /// What was shown last of an object that was seen to go, with its uid; only where that is remembered.
    pub fn departed(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
        id: &ObjectId,
    ) -> Option<(Box<str>, K)> {
        self.store(account, gvk, filter, &id.namespace)?.objects().departed(id).cloned()
    }

    /// Every change of an object counts from now on, until the answer is dropped: it is told like one of what is kept. `object` is what
    /// was read of it. `None` where its kind is not watched.
    pub fn closely(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
        object: &Value,
    ) -> Option<Closely> {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        Some(self.store(account, gvk, filter, namespace)?.closely(object))
    }

    /// The objects of a kind that carry a label value, by namespace and name; in all namespaces that are watched.
    pub fn labelled(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
        label: &str,
    ) -> Vec<(ObjectId, Entry<K>)> {
        let mut found = Vec::new();
        for store in self.stores(account, gvk, filter) {
            for (place, entry) in store.objects().of_label(label) {
                found.push((id(gvk, place), entry.clone()));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// All objects of a kind that are seen, by namespace and name.
    pub fn all(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
    ) -> Vec<(ObjectId, Entry<K>)> {
        let mut found = Vec::new();
        for store in self.stores(account, gvk, filter) {
            for (place, entry) in store.objects().iter() {
                found.push((id(gvk, place), entry.clone()));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// How many watches are open.
    pub fn open(&self) -> usize {
        self.0.groups().values().map(|g| g.running.len()).sum()
    }

    fn stores(&self, account: Option<&ServiceAccount>, gvk: &Gvk, filter: Filter) -> Vec<Arc<Store<K>>> {
        let key = Key { account: account.cloned(), gvk: gvk.clone(), filter };
        let groups = self.0.groups();
        groups.get(&key).map(|g| g.running.values().map(|r| r.store.clone()).collect()).unwrap_or_default()
    }

    fn store(
        &self,
        account: Option<&ServiceAccount>,
        gvk: &Gvk,
        filter: Filter,
        namespace: &str,
    ) -> Option<Arc<Store<K>>> {
        let key = Key { account: account.cloned(), gvk: gvk.clone(), filter };
        let groups = self.0.groups();
        let running = &groups.get(&key)?.running;
        running.get(&None).or_else(|| running.get(&Some(namespace.to_string()))).map(|r| r.store.clone())
    }
}

fn release<K: Clone + PartialEq + Send + Sync + 'static>(
    inner: &Weak<Inner<K>>,
    key: &Key,
    namespaces: &[String],
) {
    let Some(inner) = inner.upgrade() else { return };
    let mut groups = inner.groups();
    let Some(group) = groups.get_mut(key) else { return };
    for namespace in namespaces {
        if let Some(count) = group.wanted.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                group.wanted.remove(namespace);
            }
        }
    }
    if group.wanted.is_empty() {
        groups.remove(key);
    } else {
        inner.adjust(key, group);
    }
}

impl<K> Inner<K> {
    fn groups(&self) -> MutexGuard<'_, HashMap<Key, Group<K>>> {
        lock(&self.groups)
    }
}

impl<K: Clone + PartialEq + Send + Sync + 'static> Inner<K> {
    /// Starts the watches that are wanted and do not run, ends those that run and are not wanted.
    fn adjust(self: &Arc<Self>, key: &Key, group: &mut Group<K>) {
        let scopes: BTreeSet<Option<String>> = if group.by_namespace {
            group.wanted.keys().cloned().map(Some).collect()
        } else {
            BTreeSet::from([None])
        };
        group.running.retain(|scope, _| scopes.contains(scope));
        for scope in scopes {
            let start = || self.start(key, scope.clone());
            group.running.entry(scope.clone()).or_insert_with(start);
        }
    }

    fn start(self: &Arc<Self>, key: &Key, scope: Option<String>) -> Running<K> {
        let store = Arc::new(Store::new(key.clone()));
        let client = match &key.account {
            Some(account) => self.connection.as_service_account(account),
            None => self.connection.client.clone(),
        };
        let source = Source {
            client,
            discovery: self.discovery.clone(),
            share: self.share.clone(),
            gvk: key.gvk.clone(),
            namespace: scope.clone(),
            labels: (key.filter == Filter::Labelled).then(|| DELIVERY_LABEL.to_string()),
            fields: None,
        };
        // Weak: a task must not keep alive what would end it.
        let inner = Arc::downgrade(self);
        let seen = {
            let (store, key) = (store.clone(), key.clone());
            move |seen: Seen| {
                let Some(inner) = inner.upgrade() else { return ControlFlow::Break(()) };
                let forbidden = matches!(&seen, Seen::Failed(Cause::Forbidden { .. }));
                if forbidden && scope.is_none() && inner.only_by_namespace(&key) {
                    store.close();
                    return ControlFlow::Break(());
                }
                store.take(seen, &inner.keep, inner.remember, &inner.changes);
                ControlFlow::Continue(())
            }
        };
        let task = tokio::spawn(follow(source, seen)).abort_handle();
        Running { store, task }
    }

    /// The account may not list the cluster: watches the namespaces instead. `false` if the kind has none.
    fn only_by_namespace(self: &Arc<Self>, key: &Key) -> bool {
        let mut groups = self.groups();
        let Some(group) = groups.get_mut(key) else { return false };
        if group.by_namespace || group.wanted.contains_key("") {
            return false;
        }
        group.by_namespace = true;
        self.adjust(key, group);
        true
    }
}
