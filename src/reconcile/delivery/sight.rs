//! Whether what is known of a Delivery's objects is what they are: a watch that lost the API server keeps what it saw
//! last, and time that passes meanwhile must not be held against a revision.

use super::Scope;
use super::work::Memory;
use crate::api::delivery::InventoryEntry;
use crate::cluster::watch::Filter;
use crate::core::manifest::Gvk;
use crate::core::rollout::Health;
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

/// The health as it may be used now: what was on its way when the API server went away may have arrived since.
pub fn through(memory: &Memory, health: Health) -> Health {
    match health {
        Health::Progressing(_) | Health::Degraded(_) if memory.seen_since.is_none() => Health::Unknown,
        health => health,
    }
}
