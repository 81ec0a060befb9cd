//! Watches that begin before anybody asks: while the Deliveries are listed, those of the objects that they have.

use crate::api::Delivery;
use crate::cluster::ServiceAccount;
use crate::cluster::watch::{Filter, Interest};
use crate::core::manifest::Gvk;
use crate::reconcile::daemon::Daemon;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// By then each Delivery has asked for the watches that it needs.
const HELD: Duration = Duration::from_secs(10);

/// What was begun while a list comes.
#[derive(Default)]
pub struct Early {
    begun: HashSet<(Option<ServiceAccount>, Gvk)>,
    held: Vec<Interest>,
}

impl Early {
    /// Begins the watches of the objects that a Delivery has, as far as nobody did. Called on a runtime.
    pub fn begin(&mut self, daemon: &Daemon, delivery: &Delivery) {
        let Some(status) = &delivery.status else { return };
        let account = daemon.account(delivery);
        for entry in status.inventory.iter().filter(|e| !e.stale) {
            let gvk = entry.gvk();
            if !self.begun.insert((account.clone(), gvk.clone())) {
                continue;
            }
            // Where it is not one watch for the whole cluster, the others begin a little later.
            let namespaces = BTreeSet::from([entry.namespace.clone()]);
            let namespaces = if entry.namespace.is_empty() { BTreeSet::new() } else { namespaces };
            self.held.push(daemon.watches.ensure(account.as_ref(), &gvk, Filter::Labelled, &namespaces));
        }
    }

    /// Leaves the watches to those who need them.
    pub fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.begun.clear();
        tokio::spawn(async move {
            tokio::time::sleep(HELD).await;
            drop(held);
        });
    }
}
