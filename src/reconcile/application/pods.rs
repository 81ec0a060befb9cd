//! How many pods an Application has, as the shared watch of its Deployment shows it.

use crate::api::{Application, Delivery, names};
use crate::cluster::watch::Filter;
use crate::core::application::Pods;
use crate::core::manifest::{Gvk, ObjectId};
use crate::reconcile::daemon::Daemon;
use kube::ResourceExt;

/// The pods of an Application; `None` while they were not seen.
pub(super) fn of(daemon: &Daemon, delivery: &Delivery, application: &Application) -> Option<Pods> {
    let account = daemon.account(delivery);
    let namespace = application.namespace().unwrap_or_default();
    let label = names::delivery_label(&daemon.options.installation, &namespace, &delivery.name_any());
    let gvk = Gvk::new("apps/v1", "Deployment");
    let id = ObjectId {
        group: gvk.group.clone(),
        kind: gvk.kind.clone(),
        namespace: namespace.clone(),
        name: application.name_any(),
    };
    let watches = &daemon.watches;
    match watches.get(account.as_ref(), &gvk, Filter::Labelled, &id).filter(|live| *live.label == *label) {
        Some(live) => live.kept.pods,
        None if watches.synced(account.as_ref(), &gvk, Filter::Labelled, &namespace) => {
            Some(Pods { wanted: application.spec.replicas, ..Pods::default() })
        }
        None => None,
    }
}
