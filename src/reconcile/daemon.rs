//! What all controllers share: the connection, what the watches know, what was fetched, and what is remembered.

use super::clock::Clock;
use super::delivery::bundle::Renderer;
use super::delivery::early::Early;
use super::delivery::work::Memory;
use super::dependencies::Dependencies;
use super::live::Kept;
use super::metrics::Metrics;
use super::slots::{PLACES, Slots};
use super::snapshot::Shown;
use super::sources::{RepositoryKey, Sources};
use crate::api::delivery::Revision;
use crate::api::{Application, Delivery, Repository};
use crate::cluster::events::{Note, Recorder, Regarding};
use crate::cluster::lease::Contact;
use crate::cluster::watch::Watches;
use crate::cluster::{
    Access, Connection, Discovery, NamedWatches, ObjectWatches, PodWatches, ServiceAccount,
};
use crate::core::bundle::Bundle;
use crate::core::manifest::ObjectId;
use crate::lock::lock;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What the installer chose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the installation: its Lease and labels derive from it.
    pub installation: String,
    /// The namespaces whose resources are acted on; all when empty.
    pub namespaces: Vec<String>,
    /// The service account that acts for a Delivery that names none; the daemon's own account without.
    pub default_service_account: Option<String>,
    /// Where mirrors are kept.
    pub cache_dir: PathBuf,
    /// Whether Repositories may name directories of this machine.
    pub allow_file: bool,
    /// Entries of an inventory that stand in one object; more are kept in shards.
    pub inventory_shard: usize,
    /// How manifests are rendered.
    pub renderer: Renderer,
    /// What tells the time.
    pub clock: Clock,
    /// What metrics are asked with, instead of the network.
    pub measures: Option<crate::analysis::Clients>,
}

/// How soon a Delivery is looked at for the first time, once its objects are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Something is not as it was left.
    Now,
    /// All is as it was left: where there are many, nobody waits for what a look at it would say.
    Later,
}

/// How much later at least: in that time it is known of all that begin together what is not as it was left.
const LATER: Duration = Duration::from_millis(250);

/// How much later at most, while others tell of what was lost.
const LATEST: Duration = Duration::from_secs(3);

/// The Deliveries that are looked at before others, and who waits for that.
#[derive(Default)]
pub(super) struct Hasty {
    under_way: Mutex<HashSet<(String, String)>>,
    none_left: tokio::sync::Notify,
}

impl Hasty {
    /// One is about to be looked at.
    fn begin(&self, key: (String, String)) {
        lock(&self.under_way).insert(key);
    }

    /// One was looked at, be it one of them or not.
    fn end(&self, key: &(String, String)) {
        let mut under_way = lock(&self.under_way);
        if under_way.remove(key) && under_way.is_empty() {
            self.none_left.notify_waiters();
        }
    }

    /// Waits until all of them were looked at.
    async fn over(&self) {
        // Asked for first: what ends between the two counts.
        let none_left = self.none_left.notified();
        if lock(&self.under_way).is_empty() {
            return;
        }
        none_left.await;
    }
}

/// What is remembered of one Delivery, held by whoever reconciles it.
type Remembered = Arc<tokio::sync::Mutex<Memory>>;

/// What all controllers share.
pub struct Daemon {
    /// The cluster.
    pub connection: Connection,
    /// The kinds that it knows.
    pub discovery: Discovery,
    /// What it holds of ours.
    pub watches: Watches<Kept>,
    /// Single objects that settings and credentials come from.
    pub named: NamedWatches,
    /// The pods of workloads that are not settled.
    pub pods: PodWatches,
    /// Single objects that Deliveries depend on.
    pub objects: ObjectWatches,
    /// What metrics are asked with.
    pub measures: crate::analysis::Clients,
    /// Who depends on which Deliveries and Repositories, and how these stand.
    pub dependencies: Dependencies,
    /// What was fetched.
    pub sources: Sources,
    /// Deliveries that put a revision in place at a time.
    pub slots: Slots,
    /// Bundles rendered last.
    pub bundles: BundleCache,
    /// What the installer chose.
    pub options: Options,
    /// The key for digests of Secrets.
    pub secret_key: Vec<u8>,
    /// Deliveries to look at.
    pub wake: UnboundedSender<ObjectRef<Delivery>>,
    /// Repositories to look at; set once their controller runs.
    pub wake_repository: OnceLock<UnboundedSender<ObjectRef<Repository>>>,
    /// Applications to look at; set once their controller runs, and never where the cluster does not have the kind.
    pub wake_application: OnceLock<UnboundedSender<ObjectRef<Application>>>,
    /// Repositories that are polled at their next look, although they rest.
    pub(super) asked: Arc<Mutex<HashSet<RepositoryKey>>>,
    /// Events for people.
    pub events: Recorder,
    /// What is counted.
    pub metrics: Metrics,
    /// The Deliveries and Repositories as the controllers' watches show them.
    pub shown: std::sync::OnceLock<Shown>,
    pub(super) memories: Mutex<HashMap<(String, String), Remembered>>,
    pub(super) owned: Mutex<HashMap<(String, String), usize>>,
    pub(super) labels: Mutex<HashMap<String, (String, String)>>,
    pub(super) deliveries: Mutex<BTreeMap<(String, String), RepositoryKey>>,
    pub(super) awaiting: Arc<Mutex<HashSet<(String, String)>>>,
    pub(super) hasty: Arc<Hasty>,
    pub(super) directories: Mutex<HashMap<RepositoryKey, String>>,
    pub(super) listed: AtomicBool,
    /// The Applications that were looked at, by the label of their objects.
    pub(super) applications: Mutex<HashMap<String, (String, String)>>,
    /// Whether all Applications were seen, or the cluster does not have the kind.
    pub(super) applications_listed: tokio::sync::watch::Sender<bool>,
    /// Watches that began before a Delivery asked for them.
    pub(super) early: Mutex<Early>,
    /// Whether [`Shown`] has all Deliveries: the first list was complete.
    pub(super) deliveries_listed: tokio::sync::watch::Sender<bool>,
    pub(super) stopping: AtomicBool,
    /// What tells whether the Lease is ours; without it this is the only daemon.
    pub contact: OnceLock<Contact>,
}

impl Daemon {
    /// The time. Everything that decides gets it handed in.
    pub fn now(&self) -> Timestamp {
        self.options.clock.now()
    }

    /// `namespace/name`, for logs.
    pub fn name(&self, delivery: &Delivery) -> String {
        format!("{}/{}", delivery.namespace().unwrap_or_default(), delivery.name_any())
    }

    /// The account that acts for a Delivery; `None` is the daemon itself.
    pub fn account(&self, delivery: &Delivery) -> Option<ServiceAccount> {
        let name = delivery.spec.template.service_account_name.as_ref();
        let name = name.or(self.options.default_service_account.as_ref())?;
        Some(ServiceAccount { namespace: delivery.namespace().unwrap_or_default(), name: name.clone() })
    }

    /// A client as the account of a Delivery, with the Delivery's share of what the cluster takes.
    pub fn access(&self, delivery: &Delivery, memory: &mut Memory) -> Access {
        let account = self.account(delivery);
        match &memory.access {
            Some((known, access)) if *known == account => access.clone(),
            _ => {
                let access = self.connection.access(account.as_ref());
                memory.access = Some((account, access.clone()));
                access
            }
        }
    }

    /// What is remembered of a Delivery.
    pub fn memory(&self, delivery: &Delivery) -> Arc<tokio::sync::Mutex<Memory>> {
        let key = (delivery.namespace().unwrap_or_default(), delivery.name_any());
        let label = crate::api::names::delivery_label(&self.options.installation, &key.0, &key.1);
        lock(&self.labels).entry(label).or_insert_with(|| key.clone());
        lock(&self.deliveries).insert(key.clone(), delivery.source_key());
        lock(&self.memories).entry(key).or_default().clone()
    }

    /// Forgets a Delivery that is gone.
    pub fn forget(&self, delivery: &Delivery) {
        let key = (delivery.namespace().unwrap_or_default(), delivery.name_any());
        let label = crate::api::names::delivery_label(&self.options.installation, &key.0, &key.1);
        lock(&self.labels).remove(&label);
        lock(&self.deliveries).remove(&key);
        lock(&self.owned).remove(&key);
        lock(&self.memories).remove(&key);
        self.wake_keys(self.dependencies.forget(&key));
        // What it depended on may wait to be deleted after it.
        let on = &delivery.spec.template.depends_on;
        self.wake_keys(crate::core::rollout::dependencies::deliveries(on, &key.0));
        // Its directory may be there still, or again.
        if let Some(repository) = delivery.labels().get(crate::api::names::REPOSITORY_LABEL) {
            let repository = (key.0, repository.clone());
            lock(&self.directories).remove(&repository);
            self.poll_soon(&repository);
        }
    }

    /// Notes how many objects a Delivery owns: a large inventory does not stand in its status.
    pub fn note_owned(&self, delivery: &Delivery, objects: usize) {
        let key = (delivery.namespace().unwrap_or_default(), delivery.name_any());
        lock(&self.owned).insert(key, objects);
    }

    /// The Delivery (`namespace/name`) that a value of our label stands for, among those that were looked at or are
    /// watched.
    pub fn owner(&self, label: &str) -> Option<String> {
        if let Some((namespace, name)) = lock(&self.labels).get(label) {
            return Some(format!("{namespace}/{name}"));
        }
        let shown = self.shown.get()?.deliveries.state();
        crate::api::names::owner(&self.options.installation, shown.iter().map(AsRef::as_ref), label)
    }

    /// Called when something about the Delivery with this label changed.
    pub fn waker(&self, label: &str) -> impl Fn() + Send + Sync + 'static {
        let key = lock(&self.labels).get(label).cloned();
        let wake = self.wake.clone();
        move || {
            if let Some((namespace, name)) = &key {
                let _ = wake.send(ObjectRef::new(name).within(namespace));
            }
        }
    }

    /// Looks at a Delivery soon. One whose objects are just about to be seen is looked at then.
    pub fn wake(&self, namespace: &str, name: &str) {
        if lock(&self.awaiting).contains(&(namespace.to_owned(), name.to_owned())) {
            return;
        }
        // The receiver is gone only when the daemon stops.
        let _ = self.wake.send(ObjectRef::new(name).within(namespace));
    }

    /// Looks at a Delivery when `seen` resolves, or a little after that, and before only if it is asked for by itself.
    pub(super) fn wake_after(&self, delivery: &Delivery, seen: impl Future<Output = Haste> + Send + 'static) {
        let key = (delivery.namespace().unwrap_or_default(), delivery.name_any());
        let (awaiting, hasty, wake) = (self.awaiting.clone(), self.hasty.clone(), self.wake.clone());
        lock(&awaiting).insert(key.clone());
        tokio::spawn(async move {
            let haste = seen.await;
            let many = lock(&awaiting).len() > PLACES;
            match haste {
                Haste::Now => hasty.begin(key.clone()),
                Haste::Later if many => {
                    tokio::time::sleep(LATER).await;
                    let _ = tokio::time::timeout(LATEST - LATER, hasty.over()).await;
                }
                Haste::Later => {}
            }
            lock(&awaiting).remove(&key);
            // The receiver is gone only when the daemon stops.
            let _ = wake.send(ObjectRef::new(&key.1).within(&key.0));
        });
    }

    /// Notes that a Delivery was looked at.
    pub(super) fn was_looked_at(&self, delivery: &Delivery) {
        self.hasty.end(&(delivery.namespace().unwrap_or_default(), delivery.name_any()));
    }

    /// Looks at some Deliveries soon.
    pub fn wake_keys(&self, keys: Vec<(String, String)>) {
        for (namespace, name) in keys {
            self.wake(&namespace, &name);
        }
    }

    /// Looks at the Deliveries of a Repository soon.
    pub fn wake_deliveries_of(&self, repository: &RepositoryKey) {
        let all: Vec<_> = lock(&self.deliveries)
            .iter()
            .filter(|(_, of)| *of == repository)
            .map(|(d, _)| d.clone())
            .collect();
        for (namespace, name) in all {
            self.wake(&namespace, &name);
        }
    }

    /// Polls a Repository soon, also one that rests until it is due.
    pub fn poll_soon(&self, key: &RepositoryKey) {
        self.poller(key)();
    }

    /// Called when a Repository is to be polled soon, also one that rests until it is due.
    pub fn poller(&self, key: &RepositoryKey) -> impl Fn() + Send + Sync + 'static {
        let (asked, wake, key) = (self.asked.clone(), self.wake_repository.get().cloned(), key.clone());
        move || {
            lock(&asked).insert(key.clone());
            if let Some(wake) = &wake {
                // The receiver is gone only when the daemon stops.
                let _ = wake.send(ObjectRef::new(&key.1).within(&key.0));
            }
        }
    }

    /// Looks at all Deliveries soon.
    pub fn wake_all(&self) {
        let all: Vec<_> = lock(&self.deliveries).keys().cloned().collect();
        for (namespace, name) in all {
            self.wake(&namespace, &name);
        }
    }

    /// Commit and generation whose directories were made into Deliveries last.
    pub fn directories_seen(&self, namespace: &str, repository: &str) -> Option<String> {
        lock(&self.directories).get(&(namespace.to_owned(), repository.to_owned())).cloned()
    }

    /// Remembers commit and generation whose directories were made into Deliveries.
    pub fn set_directories_seen(&self, namespace: &str, repository: &str, seen: String) {
        lock(&self.directories).insert((namespace.to_owned(), repository.to_owned()), seen);
    }

    /// Looks at the Delivery with this label soon.
    pub fn wake_label(&self, label: &str) {
        let key = lock(&self.labels).get(label).cloned();
        if let Some((namespace, name)) = key {
            self.wake(&namespace, &name);
        }
    }

    /// Whether all Repositories were seen: one that is not known then does not exist.
    pub fn repositories_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// The cluster does not have the kind: none of them is there, and none is waited for.
    pub fn has_no_applications(&self) {
        if !self.applications_listed.send_replace(true) {
            tracing::info!("the cluster has no Applications; `windlass install` brings their definition");
            self.wake_all();
        }
    }

    /// Whether all that may be the source of a Delivery was seen: a source that is not known then does not exist.
    pub fn sources_listed(&self, delivery: &Delivery) -> bool {
        match delivery.spec.source.application {
            Some(_) => *self.applications_listed.borrow(),
            None => self.repositories_listed(),
        }
    }

    /// A Delivery as the watch shows it.
    pub fn shown_delivery(&self, namespace: &str, name: &str) -> Option<Arc<Delivery>> {
        self.shown.get()?.deliveries.get(&ObjectRef::new(name).within(namespace))
    }

    /// Notes an Application, so that what becomes of its objects wakes it.
    pub(super) fn note_application(&self, key: &(String, String)) {
        let delivery = crate::api::names::application_delivery(&key.1);
        let label = crate::api::names::delivery_label(&self.options.installation, &key.0, &delivery);
        lock(&self.applications).entry(label).or_insert_with(|| key.clone());
    }

    /// Looks at an Application soon.
    pub fn wake_application(&self, namespace: &str, name: &str) {
        if let Some(wake) = self.wake_application.get() {
            // The receiver is gone only when the daemon stops.
            let _ = wake.send(ObjectRef::new(name).within(namespace));
        }
    }

    /// Looks at the Application whose objects carry this label soon, if there is one.
    pub fn wake_application_of(&self, label: &str) {
        let key = lock(&self.applications).get(label).cloned();
        if let Some((namespace, name)) = key {
            self.wake_application(&namespace, &name);
        }
    }

    /// Looks at all Applications soon.
    pub fn wake_applications(&self) {
        let all: Vec<_> = lock(&self.applications).values().cloned().collect();
        for (namespace, name) in all {
            self.wake_application(&namespace, &name);
        }
    }

    /// Whether the daemon is to end: what is being written is finished, nothing new is begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether a write may be begun: it is not to end, and the Lease is ours for sure.
    pub fn may_write(&self) -> bool {
        !self.is_stopping() && self.contact.get().is_none_or(Contact::holds)
    }

    /// Whether the API server took our last write about the Lease when it was due: else nothing that is known is new.
    pub fn in_contact(&self) -> bool {
        self.contact.get().is_none_or(Contact::is_close)
    }

    /// Begins nothing new any more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the Repository of a Delivery moved on since its target was computed.
    pub fn commit_moved(&self, delivery: &Delivery, memory: &Memory) -> bool {
        let newest = self
            .sources
            .get(&delivery.source_key())
            .and_then(|k| k.fetched)
            .map(|f| f.commit.id.as_str().to_owned());
        match (&memory.target, newest) {
            (Some((known, _)), Some(newest)) => known.commit != newest,
            _ => false,
        }
    }

    /// Tells people, by an event on the Delivery and on the object concerned if the Delivery owns it.
    pub fn notify(&self, delivery: &Delivery, warning: bool, reason: &str, object: &str, message: &str) {
        if warning {
            tracing::warn!(reason, object, "{message}");
        } else {
            tracing::info!(reason, object, "{message}");
        }
        let text = if object.is_empty() || message.contains(object) {
            message.into()
        } else {
            format!("{object}: {message}")
        };
        let mut about = note("Delivery", delivery, warning, reason, text);
        // Where there is an Application, people look there.
        if let Some(application) = &delivery.spec.source.application {
            about.regarding.id.kind = "Application".into();
            about.regarding.id.name.clone_from(application);
            let owner = delivery.owner_references().iter().find(|owner| owner.controller == Some(true));
            about.regarding.uid = owner.map(|owner| owner.uid.clone());
        }
        let inventory = delivery.status.iter().flat_map(|s| &s.inventory);
        // And on the object itself, where people who do not know Windlass look.
        if let Some(entry) = inventory.filter(|_| !object.is_empty()).find(|e| e.id().to_string() == object) {
            self.events.note(Note {
                regarding: Regarding {
                    api_version: entry.gvk().api_version(),
                    id: entry.id(),
                    uid: entry.uid.clone(),
                },
                related: Some(about.regarding.clone()),
                ..about.clone()
            });
        }
        self.events.note(about);
    }

    /// Tells people about an Application, by an event on it.
    pub fn notify_application(&self, application: &Application, warning: bool, reason: &str, message: &str) {
        self.events.note(note("Application", application, warning, reason, message.into()));
    }

    /// Tells people what is wrong with a Repository, by an event on it.
    pub fn notify_repository(&self, repository: &Repository, reason: &str, message: &str) {
        self.events.note(note("Repository", repository, true, reason, message.into()));
    }
}

fn note(kind: &str, about: &impl ResourceExt, warning: bool, reason: &str, text: String) -> Note {
    let group = crate::api::names::GROUP;
    Note {
        regarding: Regarding {
            api_version: format!("{group}/v1alpha1"),
            id: ObjectId {
                group: group.into(),
                kind: kind.into(),
                namespace: about.namespace().unwrap_or_default(),
                name: about.name_any(),
            },
            uid: about.uid(),
        },
        related: None,
        warning,
        reason: reason.into(),
        action: "Reconcile".into(),
        text,
    }
}

/// What a bundle is rendered from: the Delivery's label, the generation of its spec, and the revision.
pub type BundleKey = (String, Option<i64>, Revision);

/// The bundles rendered last. Small: what is settled is not kept in memory, and is rendered again when it drifts.
#[derive(Default)]
pub struct BundleCache(Mutex<VecDeque<(BundleKey, Arc<Bundle>)>>);

/// Bundles that are kept.
const BUNDLES: usize = 16;

impl BundleCache {
    /// A bundle, if it is still there.
    pub fn get(&self, key: &BundleKey) -> Option<Arc<Bundle>> {
        lock(&self.0).iter().find(|(k, _)| k == key).map(|(_, bundle)| bundle.clone())
    }

    /// Keeps a bundle; the oldest one goes.
    pub fn put(&self, key: BundleKey, bundle: Arc<Bundle>) {
        let mut kept = lock(&self.0);
        kept.retain(|(k, _)| *k != key);
        kept.push_back((key, bundle));
        while kept.len() > BUNDLES {
            kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn key(name: &str) -> (String, String) {
        ("shop".into(), name.into())
    }

    #[tokio::test]
    async fn the_others_are_looked_at_once_none_is_in_haste_any_more() {
        let hasty = Hasty::default();
        assert!(hasty.over().now_or_never().is_some(), "nobody is in haste");
        hasty.begin(key("web"));
        hasty.begin(key("blog"));
        let mut over = std::pin::pin!(hasty.over());
        assert!(over.as_mut().now_or_never().is_none());
        hasty.end(&key("web"));
        hasty.end(&key("another"));
        assert!(over.as_mut().now_or_never().is_none(), "one is left");
        hasty.end(&key("blog"));
        assert!(over.now_or_never().is_some() && hasty.over().now_or_never().is_some());
    }
}
