//! What a late request leaves behind. A Lease cannot stop a request that a former leader sent before it lost it: an apply that
//! creates an object may arrive after the new leader rolled back or pruned, and the object would stand there, labelled, with
//! nobody who knows of it.
//!
//! So what leaves the inventory is remembered for a while. An object of the same identity that appears then, with the
//! Delivery's label, put there by our own apply, is removed when the Delivery is settled. Nothing else is: what was never in the
//! inventory, what somebody labelled by hand, and what a controller copied stays.

use super::next::Machine;
use super::{Action, read_stamp, stamp};
use crate::api::delivery::{InventoryEntry, RemovedEntry, Step};
use crate::api::names;
use crate::core::fields::{Path, owned_by};
use crate::core::lost::is_made_by_controller;
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::plan::{self, Removal};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::BTreeSet;

/// How long what left the inventory is remembered. The API server gives up a request after a minute, and a client of
/// ours before; the rest is for clocks that differ.
pub const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);

/// How much is remembered: the newest. A status holds no more than some thousand entries of any kind.
pub const MOST: usize = 200;

impl RemovedEntry {
    /// The identity of the object.
    pub fn id(&self) -> ObjectId {
        ObjectId {
            group: self.group.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    /// Whether a late request may still arrive.
    pub fn counts(&self, now: Timestamp) -> bool {
        read_stamp(&self.at) + REMEMBERED > now
    }

    fn of(entry: &InventoryEntry, now: Timestamp) -> Self {
        RemovedEntry {
            group: entry.group.clone(),
            version: entry.version.clone(),
            kind: entry.kind.clone(),
            namespace: entry.namespace.clone(),
            name: entry.name.clone(),
            uid: entry.uid.clone(),
            origin: entry.origin,
            prune: entry.prune.clone(),
            at: stamp(now),
        }
    }

    /// Whether an object with this uid, which the watch shows with our label, may be what a late request left: not while
    /// the watch only lags behind our own delete.
    pub fn may_be(&self, uid: &str) -> bool {
        self.uid.as_deref() != Some(uid) || self.origin == crate::api::delivery::EntryOrigin::Adopted
    }

    /// What is to be done with the object that stands there now; `None` where it is none of ours.
    pub fn removal(&self, object: &Value, label: &str) -> Option<Removal> {
        let labelled = Path::fields(["metadata", "labels", names::DELIVERY_LABEL]);
        let ours = object["metadata"]["labels"][names::DELIVERY_LABEL].as_str() == Some(label)
            && owned_by(object, names::FIELD_MANAGER).contains(&labelled)
            && !is_made_by_controller(object);
        if !ours {
            return None;
        }
        // The very one that was let go got our label back; any other one was made by the late request. What was about to be
        // adopted and was never written stands there still, for all that is known.
        let same = match &self.uid {
            Some(uid) => object["metadata"]["uid"] == uid.as_str(),
            None => self.origin == crate::api::delivery::EntryOrigin::Adopted,
        };
        let origin = match same {
            true => crate::api::delivery::EntryOrigin::Adopted,
            false => crate::api::delivery::EntryOrigin::Created,
        };
        let entry = InventoryEntry {
            group: self.group.clone(),
            version: self.version.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: None,
            origin,
            applied: String::new(),
            digest: String::new(),
            prune: self.prune.clone(),
            stale: true,
            kept: false,
            settled_by: None,
            unfinished: false,
            candidate: false,
            config: None,
            replicas: None,
            wave: 0,
        };
        Some(plan::removal(&entry, true))
    }
}

/// What was adopted, let go a short while ago, and stands there with our label once more (another daemon is at work, or a
/// late request put it there) is adopted again: it was not made by us. `made` tells of an object whether it is about to be.
pub fn adopted_again(
    inventory: &mut [InventoryEntry],
    before: &[InventoryEntry],
    removed: &[RemovedEntry],
    made: impl Fn(&ObjectId) -> bool,
) {
    use crate::api::delivery::EntryOrigin::Adopted;
    for was in removed.iter().filter(|r| r.origin == Adopted) {
        let id = was.id();
        if made(&id) || before.iter().any(|e| e.is(&id)) {
            continue;
        }
        if let Some(entry) = inventory.iter_mut().find(|e| e.is(&id)) {
            entry.origin = Adopted;
        }
    }
}

impl Machine<'_> {
    /// Remembers what left the inventory in this step. What is remembered for longer than it counts goes with the next
    /// change, so that no status is written for that alone.
    pub(super) fn remember_removed(&mut self, before: &[InventoryEntry]) {
        if self.state.inventory == before {
            return;
        }
        let there: BTreeSet<ObjectId> = self.state.inventory.iter().map(InventoryEntry::id).collect();
        let gone: Vec<RemovedEntry> = before
            .iter()
            .filter(|e| !there.contains(&e.id()))
            .map(|e| RemovedEntry::of(e, self.now))
            .collect();
        let again: BTreeSet<ObjectId> = gone.iter().map(RemovedEntry::id).collect();
        let now = self.now;
        let removed = &mut self.state.removed;
        removed.retain(|r| r.counts(now) && !there.contains(&r.id()) && !again.contains(&r.id()));
        removed.splice(0..0, gone);
        removed.truncate(MOST);
    }

    /// Has what late requests left removed, once nothing else is under way.
    pub(super) fn late(&mut self) {
        let settled = self.state.attempt.as_ref().is_none_or(|a| a.step == Step::Failed);
        if settled && !self.seen.late.is_empty() {
            self.actions.push(Action::RemoveLate(self.seen.late.clone()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::delivery::EntryOrigin;
    use crate::core::rollout::{Observation, Spec, State, next};
    use serde_json::json;

    fn entry(name: &str) -> InventoryEntry {
        serde_json::from_value(
            json!({"version": "v1", "kind": "ConfigMap", "namespace": "shop", "name": name, "uid": name, "origin": "Created"}),
        )
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn spec() -> Spec {
        let spec = json!({"source": {"repository": "config"}});
        Spec::from(&serde_json::from_value::<crate::api::delivery::DeliverySpec>(spec).unwrap())
    }

    fn after(state: &State, inventory: Vec<InventoryEntry>, now: Timestamp) -> State {
        // The shortest way for an inventory to change: drift was written back.
        let seen = Observation { corrected: Some(inventory), ..Observation::default() };
        next(&spec(), state, &seen, now).state
    }

    #[test]
    fn what_leaves_the_inventory_is_remembered_for_a_while_and_within_bounds() {
        let state = State { inventory: vec![entry("a"), entry("b")], ..State::default() };
        let state = after(&state, vec![entry("a")], now());
        assert_eq!(state.removed.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["b"]);
        // It is back, and no more a thing of the past.
        let back = after(&state, vec![entry("a"), entry("b")], now());
        assert!(back.removed.is_empty());
        // Nothing is forgotten, and so nothing written, for the time that passed alone.
        let later = now() + REMEMBERED;
        assert_eq!(after(&state, vec![entry("a")], later).removed, state.removed);
        assert!(!state.removed[0].counts(later) && state.removed[0].counts(now()));
        let next = after(&state, Vec::new(), later);
        assert_eq!(next.removed.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["a"]);
        let many = (0..MOST + 9).map(|n| entry(&n.to_string())).collect();
        let state = State { inventory: many, ..State::default() };
        assert_eq!(after(&state, Vec::new(), now()).removed.len(), MOST);
    }

    #[test]
    fn it_is_removed_only_once_nothing_else_is_under_way() {
        let removed = RemovedEntry::of(&entry("late"), now());
        let seen = Observation { late: vec![removed.clone()], ..Observation::default() };
        let acts = |state: &State, spec: &Spec| {
            next(spec, state, &seen, now()).actions.contains(&Action::RemoveLate(vec![removed.clone()]))
        };
        assert!(acts(&State::default(), &spec()));
        assert!(!acts(&State::default(), &Spec { suspend: true, ..spec() }));
        let attempt = |step: &str| State {
            attempt: serde_json::from_value(json!({"goal": "Deploy", "step": step, "startedAt": "",
                "deadline": "2027-01-01T00:00:00Z", "revision": {"commit": "c", "inputs": "i"}}))
            .unwrap(),
            ..State::default()
        };
        assert!(!acts(&attempt("Waiting"), &spec()));
        assert!(acts(&attempt("Failed"), &spec()));
    }

    #[test]
    fn only_what_our_own_apply_put_there_is_touched() {
        let owned = json!({"f:metadata": {"f:labels": {"f:windlass.dev/delivery": {}}}});
        let object = |manager: &str, operation: &str, label: &str, more: Value| {
            let mut object = json!({"kind": "ConfigMap", "metadata": {"uid": "new", "labels": {"windlass.dev/delivery": label},
                "managedFields": [{"manager": manager, "operation": operation, "fieldsV1": owned}]}});
            for (field, value) in more.as_object().unwrap() {
                object["metadata"][field] = value.clone();
            }
            object
        };
        let removed = RemovedEntry::of(&entry("old"), now());
        let table = [
            ("windlass", "Apply", "mine", json!({}), Some(Removal::Delete)),
            ("kubectl", "Apply", "mine", json!({}), None),
            ("windlass", "Update", "mine", json!({}), None),
            ("windlass", "Apply", "other", json!({}), None),
            ("windlass", "Apply", "mine", json!({"ownerReferences": [{"controller": true}]}), None),
            ("windlass", "Apply", "mine", json!({"managedFields": []}), None),
            ("windlass", "Apply", "mine", json!({"uid": "old"}), Some(Removal::Release)),
        ];
        for (manager, operation, label, more, expected) in table {
            let object = object(manager, operation, label, more);
            assert_eq!(removed.removal(&object, "mine"), expected, "{object}");
        }
        let ours = object("windlass", "Apply", "mine", json!({}));
        let kept = RemovedEntry { prune: Some("disabled".into()), ..removed.clone() };
        assert_eq!(kept.removal(&ours, "mine"), Some(Removal::Release));
        let claim = RemovedEntry { kind: "PersistentVolumeClaim".into(), ..removed.clone() };
        assert_eq!(claim.removal(&ours, "mine"), Some(Removal::Release), "data is never deleted for this");
        // What was about to be adopted and was never written may be the very one that stands there.
        let never = RemovedEntry { uid: None, origin: EntryOrigin::Adopted, ..removed.clone() };
        assert_eq!(never.removal(&ours, "mine"), Some(Removal::Release));
        let never = RemovedEntry { origin: EntryOrigin::Created, ..never };
        assert_eq!(never.removal(&ours, "mine"), Some(Removal::Delete));
        // A watch that has not shown our delete yet shows the old one.
        assert!(!removed.may_be("old") && removed.may_be("new"));
        assert!(RemovedEntry { origin: EntryOrigin::Adopted, ..removed }.may_be("old"));
    }

    #[test]
    fn what_was_adopted_and_let_go_is_not_made_when_it_is_taken_again() {
        let adopted = InventoryEntry { origin: EntryOrigin::Adopted, ..entry("theirs") };
        let removed = [RemovedEntry::of(&adopted, now()), RemovedEntry::of(&entry("ours"), now())];
        let origins = |before: &[InventoryEntry], made: bool| {
            let mut inventory = vec![entry("theirs"), entry("ours")];
            adopted_again(&mut inventory, before, &removed, |_| made);
            inventory.iter().map(|e| e.origin).collect::<Vec<_>>()
        };
        use EntryOrigin::{Adopted, Created};
        assert_eq!(origins(&[], false), [Adopted, Created]);
        assert_eq!(origins(&[], true), [Created, Created], "it is gone and made anew");
        assert_eq!(origins(&[entry("theirs")], false), [Created, Created], "the inventory knows better");
    }
}
