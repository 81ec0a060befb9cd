//! What is known of the objects of all Deliveries without asking: shared watches.
//!
//! One watch for each account, kind and scope, however many Deliveries use it. It is filtered on the server by our
//! label. The scope is the cluster, or, where the account may not list the cluster, the namespaces that are needed.
//! Of each object only a digest and a verdict are kept (whatever `keep` makes of it), never the object.
//!
//! A change is sent to a channel with the label value of the Delivery that it concerns. A change that alters
//! nothing of what is kept (a status heartbeat) wakes nobody.

use super::connect::{Connection, ServiceAccount};
use super::discovery::Discovery;
use super::error::Cause;
use super::follow::{Seen, Source, follow};
use super::limit::Share;
use crate::api::names::DELIVERY_LABEL;
use crate::core::manifest::{Gvk, ObjectId};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
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
struct Key {
    account: Option<ServiceAccount>,
    gvk: Gvk,
    filter: Filter,
}

type Keep<K> = dyn Fn(&Value) -> K + Send + Sync;

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
        let (changes, receiver) = mpsc::unbounded_channel();
        let inner = Inner {
            connection: connection.clone(),
            discovery: discovery.clone(),
            share: connection.share(),
            keep: Box::new(keep),
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
                    Sight { failing, .. } => *last.lock().unwrap_or_else(|e| e.into_inner()) = failing,
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
        namespace: &str,
        name: &str,
    ) -> Option<Entry<K>> {
        self.store(account, gvk, filter, namespace)?.objects().get(namespace, name).cloned()
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
        self.groups.lock().unwrap_or_else(|e| e.into_inner())
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
                store.take(seen, &inner.keep, &inner.changes);
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

/// Namespace and name.
type Place = (Arc<str>, Box<str>);

fn id(gvk: &Gvk, (namespace, name): &Place) -> ObjectId {
    ObjectId {
        group: gvk.group.clone(),
        kind: gvk.kind.clone(),
        namespace: namespace.to_string(),
        name: name.to_string(),
    }
}

/// What one watch has seen.
struct Store<K> {
    key: Key,
    objects: RwLock<Objects<K>>,
    // The list under way, if there is one.
    listing: Mutex<Option<HashSet<Place>>>,
    sight: watch::Sender<Sight>,
    closed: std::sync::atomic::AtomicBool,
}

/// The objects of one watch, found by place and by label value.
struct Objects<K> {
    by_place: HashMap<Place, Entry<K>>,
    by_label: HashMap<Arc<str>, HashSet<Place>>,
    namespaces: HashSet<Arc<str>>,
}

impl<K> Objects<K> {
    fn new() -> Self {
        Objects { by_place: HashMap::new(), by_label: HashMap::new(), namespaces: HashSet::new() }
    }

    /// The place, sharing the text of namespaces that are known already.
    fn place(&mut self, namespace: &str, name: &str) -> Place {
        let namespace = match self.namespaces.get(namespace) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = namespace.into();
                self.namespaces.insert(new.clone());
                new
            }
        };
        (namespace, name.into())
    }

    fn label(&self, label: &str) -> Arc<str> {
        self.by_label.get_key_value(label).map_or_else(|| label.into(), |(known, _)| known.clone())
    }

    fn get(&self, namespace: &str, name: &str) -> Option<&Entry<K>> {
        self.by_place.get(&(namespace.into(), name.into()))
    }

    fn iter(&self) -> impl Iterator<Item = (&Place, &Entry<K>)> {
        self.by_place.iter()
    }

    fn of_label(&self, label: &str) -> impl Iterator<Item = (&Place, &Entry<K>)> {
        let places = self.by_label.get(label).into_iter().flatten();
        places.filter_map(|place| self.by_place.get_key_value(place))
    }

    fn insert(&mut self, place: Place, entry: Entry<K>) -> Option<Entry<K>> {
        self.by_label.entry(entry.label.clone()).or_default().insert(place.clone());
        let label = entry.label.clone();
        let old = self.by_place.insert(place.clone(), entry);
        if let Some(old) = &old
            && old.label != label
        {
            self.unlabel(&old.label, &place);
        }
        old
    }

    fn remove(&mut self, place: &Place) -> Option<Entry<K>> {
        let old = self.by_place.remove(place)?;
        self.unlabel(&old.label, place);
        Some(old)
    }

    fn unlabel(&mut self, label: &Arc<str>, place: &Place) {
        if let Some(places) = self.by_label.get_mut(label) {
            places.remove(place);
            if places.is_empty() {
                self.by_label.remove(label);
            }
        }
    }
}

impl<K: Clone + PartialEq> Store<K> {
    fn new(key: Key) -> Self {
        Store {
            key,
            objects: RwLock::new(Objects::new()),
            listing: Mutex::default(),
            sight: watch::Sender::new(Sight::default()),
            closed: false.into(),
        }
    }

    fn objects(&self) -> std::sync::RwLockReadGuard<'_, Objects<K>> {
        self.objects.read().unwrap_or_else(|e| e.into_inner())
    }

    /// Another watch takes over; who waits for this one looks again.
    fn close(&self) {
        self.closed.store(true, std::sync::atomic::Ordering::Release);
        self.sight.send_modify(|_| ());
    }

    fn is_closed(&self) -> bool {
        self.closed.load(std::sync::atomic::Ordering::Acquire)
    }

    fn take(&self, seen: Seen, keep: &Keep<K>, changes: &mpsc::UnboundedSender<Change<K>>) {
        let mut listing = self.listing.lock().unwrap_or_else(|e| e.into_inner());
        match seen {
            // Said before the server is asked: it is no sign of life.
            Seen::Begin => {
                *listing = Some(HashSet::new());
                return;
            }
            Seen::Calm => (),
            Seen::Listed(object) | Seen::Applied(object) => {
                let place = self.put(&object, keep, changes);
                if let Some(listing) = &mut *listing {
                    listing.insert(place);
                }
            }
            Seen::Complete => {
                let listed = listing.take().unwrap_or_default();
                let missing: Vec<Place> = {
                    let objects = self.objects();
                    objects.iter().map(|(place, _)| place).filter(|p| !listed.contains(*p)).cloned().collect()
                };
                for place in missing {
                    self.drop_out(&place, false, changes);
                }
                self.sight.send_replace(Sight { synced: true, failing: None });
            }
            Seen::Gone(object) => {
                let (namespace, name) = place_of(&object);
                let certain = !object["metadata"]["deletionTimestamp"].is_null();
                self.drop_out(&(namespace.into(), name.into()), certain, changes);
            }
            Seen::Failed(cause) => {
                self.sight.send_if_modified(|sight| {
                    let new = sight.failing.as_ref() != Some(&cause);
                    sight.failing = Some(cause);
                    new
                });
                return;
            }
        }
        // Something is seen, so nothing fails.
        self.sight.send_if_modified(|sight| sight.failing.take().is_some());
    }

    fn put(&self, object: &Value, keep: &Keep<K>, changes: &mpsc::UnboundedSender<Change<K>>) -> Place {
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let owners = metadata["ownerReferences"].as_array();
        let label = metadata["labels"][DELIVERY_LABEL].as_str().unwrap_or_default();
        // The costly part, before the lock.
        let kept = keep(object);
        let mut objects = self.objects.write().unwrap_or_else(|e| e.into_inner());
        let (namespace, name) = place_of(object);
        let place = objects.place(namespace, name);
        let entry = Entry {
            uid: text("uid").into(),
            resource_version: text("resourceVersion").into(),
            generation: metadata["generation"].as_i64().unwrap_or(0),
            label: objects.label(label),
            deleting: !metadata["deletionTimestamp"].is_null(),
            controlled: owners.is_some_and(|o| o.iter().any(|o| o["controller"] == true)),
            kept,
        };
        let old = objects.insert(place.clone(), entry.clone());
        drop(objects);
        if let Some(old) = old {
            if old.label != entry.label || old.uid != entry.uid {
                let certain = old.uid != entry.uid;
                self.tell(changes, old.label, &place, Event::Gone { uid: old.uid, certain });
            } else if same(&old, &entry) {
                return place;
            }
        }
        self.tell(changes, entry.label.clone(), &place, Event::Applied(entry));
        place
    }

    fn drop_out(&self, place: &Place, certain: bool, changes: &mpsc::UnboundedSender<Change<K>>) {
        let old = self.objects.write().unwrap_or_else(|e| e.into_inner()).remove(place);
        if let Some(old) = old {
            let certain = certain || old.deleting;
            self.tell(changes, old.label, place, Event::Gone { uid: old.uid, certain });
        }
    }

    fn tell(
        &self,
        changes: &mpsc::UnboundedSender<Change<K>>,
        label: Arc<str>,
        place: &Place,
        event: Event<K>,
    ) {
        let (account, gvk) = (self.key.account.clone(), self.key.gvk.clone());
        let id = id(&gvk, place);
        // Nobody listens any more when the daemon ends.
        let _ = changes.send(Change { label, account, gvk, id, event });
    }
}

/// Whether nobody needs to know: all but the resourceVersion is as before.
fn same<K: PartialEq>(old: &Entry<K>, new: &Entry<K>) -> bool {
    old.generation == new.generation
        && old.deleting == new.deleting
        && old.controlled == new.controlled
        && old.kept == new.kept
}

fn place_of(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}
