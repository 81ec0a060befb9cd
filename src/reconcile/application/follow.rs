//! The Applications as they come and change, and what is known of them as sources.

use super::revisions::Revisions;
use crate::api::delivery::application_source;
use crate::api::{Application, names};
use crate::lock::lock;
use crate::reconcile::daemon::Daemon;
use crate::reconcile::sources::Store as SourceStore;
use crate::source::{Credentials, Limits};
use futures::{Stream, TryStreamExt};
use kube::runtime::reflector::{self, Store, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Applications listed at once.
const PAGE: u32 = 500;

/// Watches Applications. What is known of them as sources follows: a Delivery whose Application is not there is told so once all were
/// listed.
pub fn follow(
    daemon: &Arc<Daemon>,
    api: Api<Application>,
) -> (Store<Application>, impl Stream<Item = Result<Application, watcher::Error>> + Send + 'static) {
    let (shown, writer) = reflector::store();
    let config = watcher::Config::default().page_size(PAGE);
    let events = watcher(api, config).default_backoff().modify(lean);
    let (of, reader) = (daemon.clone(), shown.clone());
    let (mut there, mut listing) = (BTreeSet::new(), BTreeSet::new());
    let stream = reflector(writer, events).inspect_ok(move |event| {
        let key = |a: &Application| (a.namespace().unwrap_or_default(), a.name_any());
        match event {
            watcher::Event::Init => listing.clear(),
            watcher::Event::InitApply(application) => {
                open(&of, &reader, &key(application));
                listing.insert(key(application));
            }
            watcher::Event::InitDone => {
                for gone in there.difference(&listing) {
                    forget(&of, gone);
                }
                there = listing.clone();
                of.applications_listed.store(true, Ordering::Relaxed);
                of.wake_all();
            }
            watcher::Event::Apply(application) => {
                open(&of, &reader, &key(application));
                there.insert(key(application));
            }
            watcher::Event::Delete(application) => {
                there.remove(&key(application));
                forget(&of, &key(application));
            }
        }
    });
    (shown, stream.applied_objects())
}

/// What was kept of it can be read, also while its spec is none that can be delivered.
fn open(daemon: &Daemon, shown: &Store<Application>, (namespace, name): &(String, String)) {
    daemon.sources.update(&(namespace.clone(), application_source(name)), |known| {
        known.store.get_or_insert_with(|| SourceStore {
            mirror: Arc::new(Revisions {
                client: daemon.connection.client.clone(),
                discovery: daemon.discovery.clone(),
                shown: shown.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            credentials: Credentials::default(),
            limits: Limits::default(),
        });
    });
}

fn forget(daemon: &Daemon, (namespace, name): &(String, String)) {
    let delivery = names::application_delivery(name);
    daemon.sources.forget(&(namespace.clone(), application_source(name)));
    lock(&daemon.applications).remove(&names::delivery_label(
        &daemon.options.installation,
        namespace,
        &delivery,
    ));
    daemon.wake(namespace, &delivery);
}

/// Takes from an Application what nobody reads and what takes more room than the rest of it. Who changed it last stays.
fn lean(application: &mut Application) {
    let entries = application.metadata.managed_fields.take().unwrap_or_default().into_iter();
    let last = entries
        .filter(|entry| entry.subresource.as_deref() != Some("status"))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    application.metadata.managed_fields = last.map(|mut entry| {
        entry.fields_v1 = None;
        vec![entry]
    });
}
