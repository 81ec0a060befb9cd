//! Whether what is known of a Delivery's objects is what they are: a watch that lost the API server keeps what it saw
//! last, and time that passes meanwhile must not be held against a revision.

use super::Scope;
use super::drift::is_as_left;
use super::work::Memory;
use crate::api::delivery::{DeliveryStatus, InventoryEntry};
use crate::cluster::watch::Filter;
use crate::core::manifest::Gvk;
use crate::core::rollout::Health;
use crate::reconcile::daemon::Haste;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// Notes since when the objects are seen without a gap. A watch that fails for good (a right that was taken away) is
/// no gap: waiting would not end.
pub fn note(scope: &Scope<'_>, memory: &mut Memory, inventory: &[InventoryEntry]) {
    let places: BTreeSet<(Gvk, &str)> =
        inventory.iter().filter(|e| !e.stale).map(|e| (e.gvk(), e.namespace.as_str())).collect();
    let account = scope.account();
    let (contact, now) = (scope.daemon.in_contact(), scope.daemon.now());
    memory.in_contact_since = memory.in_contact_since.filter(|_| contact).or(contact.then_some(now));
    let clear = contact
        && places.into_iter().all(|(gvk, namespace)| {
            let sight = scope.daemon.watches.sight(account.as_ref(), &gvk, Filter::Labelled, namespace);
            match sight.failing {
                Some(cause) => !cause.is_transient(),
                None => sight.synced,
            }
        });
    memory.seen_since = match memory.seen_since {
        since @ Some(_) if clear => since,
        _ => clear.then_some(now),
    };
}

/// A daemon that begins looks at nothing before it has seen all of a Delivery's objects, for so long at most.
const FIRST: SignedDuration = SignedDuration::from_secs(5);

/// The first look at a Delivery in this life of the daemon.
#[derive(Default)]
pub enum First {
    /// Nobody looked yet.
    #[default]
    Due,
    /// It is put off until its objects are seen, at the latest until then.
    Awaited(Timestamp),
    /// It was looked at.
    Over,
}

/// Whether a Delivery with which nothing is under way is not looked at yet, since not all of its objects were seen: it is woken
/// when they are. Answers when it is looked at all the same.
pub fn await_first(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) -> Option<Timestamp> {
    let now = scope.daemon.now();
    let settled = status.effective.is_some()
        && status.attempt.is_none()
        && scope.delivery.metadata.deletion_timestamp.is_none();
    let until = match memory.first {
        First::Due => now + FIRST,
        First::Awaited(until) => until,
        First::Over => return None,
    };
    let account = scope.account();
    let unseen: BTreeSet<(Gvk, String)> = status
        .inventory
        .iter()
        .filter(|e| settled && now < until && !e.stale)
        .map(|e| (e.gvk(), e.namespace.clone()))
        .filter(|(gvk, namespace)| {
            let sight = scope.daemon.watches.sight(account.as_ref(), gvk, Filter::Labelled, namespace);
            !sight.synced && sight.failing.is_none_or(|cause| cause.is_transient())
        })
        .collect();
    if unseen.is_empty() {
        memory.first = First::Over;
        return None;
    }
    if matches!(memory.first, First::Due) {
        memory.first = First::Awaited(until);
        let watches = scope.daemon.watches.clone();
        let limit = FIRST.unsigned_abs();
        let latest = memory.latest.clone();
        scope.daemon.wake_after(scope.delivery, async move {
            let seen = async {
                for (gvk, namespace) in &unseen {
                    // What cannot be seen is told by the look itself.
                    let _ =
                        watches.wait_synced(account.as_ref(), gvk, Filter::Labelled, namespace, limit).await;
                }
            };
            let _ = tokio::time::timeout(limit, seen).await;
            let as_left = |entry: &InventoryEntry| {
                let live = watches.get(account.as_ref(), &entry.gvk(), Filter::Labelled, &entry.id());
                entry.stale || entry.uid.is_none() || is_as_left(entry, live.as_ref())
            };
            // A part of the inventory that stands elsewhere may hold anything.
            let known =
                latest.as_ref().and_then(|d| d.status.as_ref()).filter(|s| s.inventory_shards.is_empty());
            match known.is_some_and(|s| s.inventory.iter().all(as_left)) {
                true => Haste::Later,
                false => Haste::Now,
            }
        });
    }
    Some(until)
}

/// The health as it may be used now: what was on its way when the API server went away may have arrived since.
pub fn through(memory: &Memory, health: Health) -> Health {
    match health {
        Health::Progressing(_) | Health::Degraded(_) if memory.seen_since.is_none() => Health::Unknown,
        health => health,
    }
}
