//! How many pods an Application has, as the shared watch of its Deployment shows it.

use crate::api::{Application, Delivery, names};
use crate::cluster::watch::{Entry, Filter};
use crate::core::application::Pods;
use crate::core::manifest::{Gvk, ObjectId};
use crate::reconcile::daemon::Daemon;
use crate::reconcile::live::Kept;
use kube::ResourceExt;

/// The Deployment of an Application, and whether all of its kind were seen.
fn deployment(daemon: &Daemon, delivery: &Delivery, application: &str) -> (Option<Entry<Kept>>, bool) {
    let account = daemon.account(delivery);
    let namespace = delivery.namespace().unwrap_or_default();
    let label = names::delivery_label(&daemon.options.installation, &namespace, &delivery.name_any());
    let gvk = Gvk::new("apps/v1", "Deployment");
    let id = ObjectId {
        group: gvk.group.clone(),
        kind: gvk.kind.clone(),
        namespace: namespace.clone(),
        name: application.to_owned(),
    };
    let watches = &daemon.watches;
    let live =
        watches.get(account.as_ref(), &gvk, Filter::Labelled, &id).filter(|live| *live.label == *label);
    let synced = live.is_some() || watches.synced(account.as_ref(), &gvk, Filter::Labelled, &namespace);
    (live, synced)
}

/// The pods of an Application; `None` while they were not seen.
pub(super) fn of(daemon: &Daemon, delivery: &Delivery, application: &Application) -> Option<Pods> {
    match deployment(daemon, delivery, &application.name_any()) {
        (Some(live), _) => live.kept.pods,
        (None, true) => {
            let scaling = application.spec.autoscaling.as_ref();
            let least = scaling.map_or(application.spec.replicas, |scaling| scaling.min_replicas);
            Some(Pods { wanted: least, ..Pods::default() })
        }
        (None, false) => None,
    }
}

/// Whether the Delivery is that of an Application whose pods are seen to be fewer than they should be. Its own status does not say so.
pub(in crate::reconcile) fn are_lacking(daemon: &Daemon, delivery: &Delivery) -> bool {
    let Some(application) = &delivery.spec.source.application else { return false };
    match deployment(daemon, delivery, application) {
        (Some(live), _) => !live.kept.verdict.settles(),
        (None, synced) => synced,
    }
}
