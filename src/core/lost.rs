//! A Delivery whose status was lost, in a restore from a backup or by somebody's hand, while its objects stand.
//!
//! The intent to write an object stands in the status before the first write, and the history stays when the inventory
//! becomes empty. So a status that knows of nothing, and an object that carries the Delivery's label, mean a loss: not a new
//! Delivery, and not a daemon that died early. What was good, adopted or to be removed is not known any more, so nothing is
//! touched until a person looked. The same holds for a status that has a revision in place, and an inventory that somebody emptied.

use super::bundle::wave_of;
use super::manifest::{Gvk, ObjectId};
use crate::api::delivery::{DeliveryStatus, EntryOrigin, InventoryEntry, Problem};
use crate::api::names;
use serde_json::Value;

/// The reason of a Delivery whose status was lost.
pub const REASON: &str = "InventoryLost";

/// Objects that a message names at most.
const NAMED: usize = 10;

/// Whether a status knows of nothing that was ever done, or of a revision that is in place and of none of its objects: a bundle
/// has one at least (`EmptyBundle`). That a single one is missing cannot be told from one that somebody else made.
pub fn is_blank(status: &DeliveryStatus) -> bool {
    let no_objects = status.inventory.is_empty() && status.inventory_shards.is_empty();
    if status.effective.is_some() && status.attempt.is_none() && no_objects {
        return true;
    }
    status.inventory.is_empty()
        && status.inventory_shards.is_empty()
        && status.history.is_empty()
        && status.removed.is_empty()
        && status.hooks.is_empty()
        && status.effective.is_none()
        && status.attempt.is_none()
        && status.held.is_none()
}

/// What is wrong, with which objects, and what to do. `wanted` are in Git, `others` are not.
pub fn problem(delivery: &str, wanted: &[ObjectId], others: &[ObjectId]) -> Problem {
    let mut message = format!(
        "the status of this Delivery was lost (a restore from a backup?), and {} carry its label: {}",
        counted(wanted.len() + others.len()),
        named(wanted)
    );
    if !others.is_empty() {
        message.push_str(&format!("; not in its source: {}", named(others)));
    }
    message.push_str(&format!(
        ". They are neither changed nor removed until you say whose they are: `windlass adopt {delivery}` makes those in \
         its source this Delivery's again and lets the others go as they are"
    ));
    Problem { reason: REASON.into(), object: String::new(), message }
}

fn counted(n: usize) -> String {
    if n == 1 { "1 object".into() } else { format!("{n} objects") }
}

fn named(ids: &[ObjectId]) -> String {
    let names: Vec<String> = ids.iter().take(NAMED).map(ToString::to_string).collect();
    match ids.len().checked_sub(NAMED) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// Whether an object has its labels from another one: a controller made it (a Service's labels are copied to its
/// EndpointSlices).
pub fn is_made_by_controller(object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|all| all.iter().any(|o| o["controller"] == true))
        || matches!(object["kind"].as_str(), Some("EndpointSlice" | "Endpoints"))
}

/// The entry of an object that stands there with our label, is not in Git, and is let go once the rest is well.
pub fn entry(gvk: &Gvk, object: &Value) -> InventoryEntry {
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let note = |name: &str| metadata["annotations"][name].as_str();
    InventoryEntry {
        group: gvk.group.clone(),
        version: gvk.version.clone(),
        kind: gvk.kind.clone(),
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        uid: metadata["uid"].as_str().map(str::to_owned),
        // Whether it was there before is not known: it is not deleted as something that only we made.
        origin: EntryOrigin::Adopted,
        applied: String::new(),
        digest: String::new(),
        // It is let go, whatever `prune` says now or later: nobody removed it from Git knowingly.
        prune: Some("disabled".into()),
        kept: false,
        stale: true,
        settled_by: None,
        unfinished: false,
        candidate: false,
        config: None,
        replicas: None,
        wave: note(names::WAVE).and_then(wave_of).unwrap_or(0),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::delivery::{HistoryEntry, Outcome, Revision};
    use serde_json::json;

    fn id(name: &str) -> ObjectId {
        ObjectId {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    #[test]
    fn a_status_that_knows_of_anything_is_not_blank() {
        assert!(is_blank(&DeliveryStatus::default()));
        // What could not be begun left nothing behind.
        let refused = DeliveryStatus {
            failure: serde_json::from_value(json!({"problem":
            {"reason": "UnknownField", "message": ""}, "retries": 1, "retryAt": ""}))
            .unwrap(),
            ..Default::default()
        };
        assert!(is_blank(&refused));
        let history = vec![HistoryEntry {
            revision: Revision::default(),
            outcome: Outcome::Failed,
            at: String::new(),
            problem: None,
            except: Vec::new(),
        }];
        assert!(!is_blank(&DeliveryStatus { history, ..Default::default() }));
        let shards = DeliveryStatus { inventory_shards: vec!["a".into()], ..Default::default() };
        assert!(!is_blank(&shards));
    }

    #[test]
    fn a_revision_without_objects_has_lost_them() {
        let effective = Some(Revision::default());
        let robbed = DeliveryStatus { effective: effective.clone(), ..Default::default() };
        assert!(is_blank(&robbed));
        let shards = DeliveryStatus { inventory_shards: vec!["a".into()], ..robbed.clone() };
        assert!(!is_blank(&shards));
        let attempt = serde_json::from_value(json!({"goal": "Deploy", "revision": Revision::default(),
            "step": "Applying", "startedAt": "", "deadline": "", "retries": 0}))
        .unwrap();
        assert!(!is_blank(&DeliveryStatus { attempt: Some(attempt), ..robbed }));
    }

    #[test]
    fn the_problem_names_objects_and_what_to_do() {
        let many: Vec<ObjectId> = (0..12).map(|n| id(&format!("c{n}"))).collect();
        let message = problem("shop", &many, &[id("old")]).message;
        for words in [
            "13 objects",
            "ConfigMap shop/c9 and 2 more",
            "not in its source: ConfigMap shop/old",
            "windlass adopt shop",
        ] {
            assert!(message.contains(words), "{words}: {message}");
        }
    }

    #[test]
    fn what_is_not_in_git_is_never_deleted_for_being_lost() {
        let object = json!({"metadata": {"namespace": "shop", "name": "old", "uid": "u",
            "annotations": {"windlass.dev/prune": "enabled", "windlass.dev/wave": "-2"}}});
        let entry = entry(&Gvk::new("v1", "ConfigMap"), &object);
        assert_eq!((entry.id(), entry.wave, entry.stale), (id("old"), -2, true));
        for undone in [true, false] {
            assert_eq!(crate::core::plan::removal(&entry, undone), crate::core::plan::Removal::Release);
        }
    }

    #[test]
    fn what_controllers_copied_is_not_ours() {
        assert!(is_made_by_controller(&json!({"kind": "EndpointSlice"})));
        assert!(is_made_by_controller(
            &json!({"kind": "Pod", "metadata": {"ownerReferences": [{"controller": true}]}})
        ));
        assert!(!is_made_by_controller(&json!({"kind": "ConfigMap", "metadata": {"ownerReferences": [{}]}})));
    }
}
