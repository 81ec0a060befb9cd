//! Watches that begin before anybody asks: of the kinds that a few Deliveries have while the daemon begins, and of all others
//! while the Deliveries are listed. One after the other, a daemon that starts would wait for twice as long.

use crate::api::Delivery;
use crate::cluster::watch::{Filter, Interest};
use crate::cluster::{Connection, ServiceAccount};
use crate::core::manifest::Gvk;
use crate::reconcile::daemon::Daemon;
use kube::Api;
use kube::api::ListParams;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// By then each Delivery has asked for the watches that it needs.
const HELD: Duration = Duration::from_secs(10);

/// Deliveries that are read ahead of the list of all: few enough to come at once, and hardly a kind is in none of them.
const AHEAD: u32 = 32;

/// What does not come at once is not waited for: the list brings it.
const AHEAD_LIMIT: Duration = Duration::from_millis(500);

/// A few of the Deliveries; none where they do not come at once.
pub async fn ahead(connection: &Connection, namespaces: &[String]) -> Vec<Delivery> {
    let api: Api<Delivery> = match namespaces {
        [one] => Api::namespaced(connection.client.clone(), one),
        _ => Api::all(connection.client.clone()),
    };
    let params = ListParams::default().limit(AHEAD);
    match tokio::time::timeout(AHEAD_LIMIT, api.list(&params)).await {
        Ok(Ok(few)) => few.items,
        _ => Vec::new(),
    }
}

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
