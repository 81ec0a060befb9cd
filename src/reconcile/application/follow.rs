//! The Applications as they come and change, and what is known of them as sources.

use super::revisions::Revisions;
use super::sight::Kept;
use super::{Applications, Key};
use crate::api::delivery::application_source;
use crate::api::{Application, names};
use crate::core::fields::{Path, owned_by};
use crate::core::manifest::Gvk;
use crate::lock::lock;
use crate::reconcile::daemon::Daemon;
use crate::reconcile::sources::Store as SourceStore;
use crate::source::{Credentials, Limits};
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

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
    let stream = reflector(writer, events).inspect(move |event| {
        let key = |a: &Application| (a.namespace().unwrap_or_default(), a.name_any());
        match event {
            Err(error) if code(error) == Some(404) => ask_whether_there_are_any(&of),
            Err(_) => {}
            Ok(watcher::Event::Init) => listing.clear(),
            Ok(watcher::Event::InitApply(application)) => {
                open(&of, &reader, &key(application));
                listing.insert(key(application));
            }
            Ok(watcher::Event::InitDone) => {
                for gone in there.difference(&listing) {
                    forget(&of, gone);
                }
                there = listing.clone();
                of.applications_listed.send_replace(true);
                of.wake_all();
                // Those of earlier pages may have been looked at before the store had them as they are now.
                for (namespace, name) in &there {
                    of.wake_application(namespace, name);
                }
            }
            Ok(watcher::Event::Apply(application)) => {
                open(&of, &reader, &key(application));
                there.insert(key(application));
            }
            Ok(watcher::Event::Delete(application)) => {
                there.remove(&key(application));
                forget(&of, &key(application));
            }
        }
    });
    (shown, stream.applied_objects())
}

/// What is known of the cluster's kinds may be older than the removal of this one. Or a server is not ready yet: then they are listed soon.
fn ask_whether_there_are_any(daemon: &Arc<Daemon>) {
    let daemon = daemon.clone();
    tokio::spawn(async move {
        if daemon.discovery.refresh().await.is_ok() && daemon.discovery.resource(&gvk()).is_none() {
            daemon.has_no_applications();
        }
    });
}

/// The kind of Applications.
pub fn gvk() -> Gvk {
    Gvk::new(&format!("{}/v1alpha1", names::GROUP), "Application")
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

/// Watches the revisions that were kept, to know which are there, and to notice what somebody removes of them; what they keep is not
/// sent. Where the daemon has no right to it, as with the roles of an older installation, that is told once.
pub async fn follow_revisions(context: Arc<Applications>, api: Api<PartialObjectMeta<ControllerRevision>>) {
    let config = watcher::Config::default().labels(names::APPLICATION_LABEL).page_size(PAGE);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut told = false;
    let of = |revision: &PartialObjectMeta<ControllerRevision>| {
        let application = revision.labels().get(names::APPLICATION_LABEL)?.clone();
        Some(((revision.namespace().unwrap_or_default(), application), Kept::of(revision)))
    };
    let wake = |keys: BTreeSet<Key>| {
        for (namespace, name) in keys {
            context.daemon.wake_application(&namespace, &name);
        }
    };
    let mut listing = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listing.clear(),
            Ok(watcher::Event::InitApply(revision)) => listing.extend(of(&revision)),
            Ok(watcher::Event::InitDone) => {
                wake(context.sight.listed(std::mem::take(&mut listing)));
                // Not the store's own `wait_until_ready`, for which the controller waits.
                let _ = context.daemon.applications_listed.subscribe().wait_for(|listed| *listed).await;
                for application in context.shown.state() {
                    let key = (application.namespace().unwrap_or_default(), application.name_any());
                    let runs = application.status.as_ref().and_then(|s| s.current_revision.clone());
                    if let Some(runs) = runs.filter(|runs| !context.sight.shows(&key, runs)) {
                        context.note_removed(key, runs);
                    }
                }
            }
            Ok(watcher::Event::Apply(revision)) => {
                if let Some((key, kept)) = of(&revision)
                    && context.sight.came(&key, kept)
                {
                    wake(BTreeSet::from([key]));
                }
            }
            Ok(watcher::Event::Delete(revision)) => {
                if let Some((key, kept)) = of(&revision) {
                    context.sight.went(&key, &kept.name);
                    context.note_removed(key, kept.name);
                }
            }
            Err(error) if code(&error) == Some(403) => {
                wake(context.sight.shut());
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "revisions of Applications that somebody removes are not noticed");
                }
            }
            Err(error) => tracing::debug!(%error, "watch of revisions"),
        }
    }
}

/// The status with which the API server refused.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
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

/// Takes from an Application what nobody reads and what takes more room than the rest of it. Who changed it last stays. The label of
/// a directory's Delivery stays where that one wrote it, which nothing else of what is left tells.
fn lean(application: &mut Application) {
    if application.labels().contains_key(names::DELIVERY_LABEL) && !is_delivered(application) {
        application.labels_mut().remove(names::DELIVERY_LABEL);
    }
    let entries = application.metadata.managed_fields.take().unwrap_or_default().into_iter();
    let last = entries
        .filter(|entry| entry.subresource.as_deref() != Some("status"))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    application.metadata.managed_fields = last.map(|mut entry| {
        entry.fields_v1 = None;
        vec![entry]
    });
}

/// Whether the Delivery of a directory has put it there. The label alone does not say so: whoever copies an object copies it along.
fn is_delivered(application: &Application) -> bool {
    let entries = json!({"metadata": {"managedFields": application.metadata.managed_fields}});
    owned_by(&entries, names::FIELD_MANAGER).contains(&Path::fields([
        "metadata",
        "labels",
        names::DELIVERY_LABEL,
    ]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_was_copied_along_says_nothing() {
        let kept = |manager: &str, operation: &str| {
            let label = names::DELIVERY_LABEL;
            let labelled = json!({"f:metadata": {"f:labels": {format!("f:{label}"): {}}}});
            let mut application: Application = serde_json::from_value(json!({
                "apiVersion": "windlass.dev/v1alpha1", "kind": "Application", "spec": {"image": "web:1"},
                "metadata": {"name": "web", "labels": {label: "0", "team": "a"}, "managedFields": [{
                    "manager": manager, "operation": operation, "apiVersion": "windlass.dev/v1alpha1",
                    "fieldsType": "FieldsV1", "fieldsV1": labelled,
                }]},
            }))
            .unwrap();
            lean(&mut application);
            application.labels().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(kept(names::FIELD_MANAGER, "Apply"), ["team", names::DELIVERY_LABEL]);
        assert_eq!(kept("kubectl-client-side-apply", "Update"), ["team"]);
    }
}
