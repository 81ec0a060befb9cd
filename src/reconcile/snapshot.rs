//! The state of a daemon as numbers, read off what the controllers hold when somebody asks. Nothing is kept for it,
//! so it cannot be out of step.

use super::daemon::Daemon;
use crate::api::condition::kind;
use crate::api::{Delivery, DeliveryStatus, Phase, Repository};
use crate::lock::lock;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use std::collections::BTreeMap;
use std::time::Duration;

/// The Deliveries and Repositories as the controllers' watches show them.
pub struct Shown {
    /// The Deliveries.
    pub deliveries: Store<Delivery>,
    /// The Repositories.
    pub repositories: Store<Repository>,
}

/// A Delivery in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryNumbers {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub phase: Phase,
    /// Whether it is as Git says and healthy.
    pub ready: bool,
    /// Whether a revision of it is held.
    pub held: bool,
    /// Objects that differ from the effective revision.
    pub drift: i64,
    /// Objects that it owns.
    pub inventory: usize,
}

/// The state of a daemon in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The Deliveries.
    pub deliveries: Vec<DeliveryNumbers>,
    /// The Repositories: namespace, name, and whether the last poll went well.
    pub repositories: Vec<(String, String, bool)>,
    /// Requests to the API server by verb and class of the answer.
    pub requests: BTreeMap<(&'static str, &'static str), u64>,
    /// Watches of objects that are open.
    pub watches: usize,
    /// Events that could not be written.
    pub events_dropped: u64,
}

/// A Delivery in numbers.
pub fn numbers(delivery: &Delivery) -> DeliveryNumbers {
    let none = DeliveryStatus::default();
    let status = delivery.status.as_ref().unwrap_or(&none);
    DeliveryNumbers {
        namespace: delivery.namespace().unwrap_or_default(),
        name: delivery.name_any(),
        phase: status.phase,
        ready: status.conditions.iter().any(|c| c.type_ == kind::READY && c.status == "True"),
        held: status.held.is_some(),
        drift: status.drift.unwrap_or(0),
        inventory: status.inventory.len(),
    }
}

impl Daemon {
    /// The state in numbers.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            requests: self.connection.counters.snapshot(),
            watches: self.watches.open(),
            events_dropped: self.events.dropped(),
            ..Snapshot::default()
        };
        if let Some(shown) = self.shown.get() {
            let owned = lock(&self.owned);
            let whole = |delivery: &Delivery| {
                let mut numbers = numbers(delivery);
                numbers.ready &= !super::application::are_lacking(self, delivery);
                let sharded = delivery.status.as_ref().is_some_and(|s| !s.inventory_shards.is_empty());
                if sharded && let Some(count) = owned.get(&(numbers.namespace.clone(), numbers.name.clone()))
                {
                    numbers.inventory = *count;
                }
                numbers
            };
            snapshot.deliveries = shown.deliveries.state().iter().map(|d| whole(d)).collect();
            drop(owned);
            let ready = |r: &Repository| {
                let conditions = r.status.iter().flat_map(|s| &s.conditions);
                conditions.into_iter().any(|c| c.type_ == kind::READY && c.status == "True")
            };
            snapshot.repositories = shown
                .repositories
                .state()
                .iter()
                .map(|r| (r.namespace().unwrap_or_default(), r.name_any(), ready(r)))
                .collect();
        }
        snapshot
    }

    /// Waits until all Deliveries were seen once.
    pub(super) async fn all_deliveries_seen(&self) {
        // An error says that the sender is gone: it is ours.
        let _ = self.deliveries_listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Whether all Deliveries and Repositories were seen once.
    pub fn synced(&self) -> bool {
        *self.deliveries_listed.borrow() && self.repositories_listed()
    }

    /// Counts a deployment from a commit, if this write of status is what says that it ended well.
    pub(super) fn count_deployment(&self, before: &DeliveryStatus, after: &Delivery) {
        let Some(status) = &after.status else { return };
        let (Some(new), None) = (&status.effective, &status.attempt) else { return };
        // New settings move the effective revision too, but no commit is to be timed then.
        if before.effective.as_ref().is_some_and(|old| old.commit == new.commit) || status.held.is_some() {
            return;
        }
        let Some(seen) = self.sources.get(&after.source_key()).and_then(|known| known.seen_at(&new.commit))
        else {
            return;
        };
        // A clock that was set back has not made us faster.
        let took = Duration::try_from(self.now().duration_since(seen)).unwrap_or_default();
        self.metrics.deployed(took);
    }
}
