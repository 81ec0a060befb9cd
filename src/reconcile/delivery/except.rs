//! What the rollback under way cannot undo, as far as its plan and the watches show.

use super::Scope;
use super::work::Memory;
use crate::api::delivery::{DeliveryStatus, EntryOrigin, Exception, Goal};
use crate::core::plan::{self, Removal};

/// What is left as it is, and why.
pub fn observed(scope: &Scope<'_>, memory: &Memory, status: &DeliveryStatus) -> Vec<Exception> {
    let Some(attempt) = status.attempt.as_ref().filter(|a| a.goal == Goal::Rollback) else {
        return Vec::new();
    };
    let Some(work) = memory.work.as_ref().filter(|w| w.revision == attempt.revision) else {
        return Vec::new();
    };
    let planned = work.plan.iter().filter_map(|(id, planned)| {
        Some(Exception { object: id.to_string(), message: planned.except.clone()? })
    });
    // Made by a daemon that died before it could record that.
    let unrecorded = work
        .inventory
        .iter()
        .filter(|e| {
            e.stale
                && e.uid.is_none()
                && e.origin == EntryOrigin::Created
                && plan::removal(e, true) == Removal::Release
                && scope.live(&e.gvk(), &e.id()).is_some()
        })
        .map(|e| Exception {
            object: e.id().to_string(),
            message: "was made by the revision that is undone and stays".into(),
        });
    planned.chain(unrecorded).collect()
}
