//! What a rollback does not undo (`RolledBackExcept`): nothing that holds data is deleted to roll back, and what
//! Kubernetes cannot take back stays. All of it is listed, before the first write.

use super::next::Machine;
use crate::api::delivery::{EntryOrigin, Exception, Goal, InventoryEntry};
use crate::core::plan::{self, Removal};

/// Objects that are named in one message.
const NAMED: usize = 5;

impl Machine<'_> {
    /// Lists what the rollback under way leaves.
    pub(super) fn note_exceptions(&mut self, goal: Goal) {
        if goal == Goal::Rollback {
            self.list_exceptions();
        }
    }

    pub(super) fn list_exceptions(&mut self) {
        let left = self.state.inventory.iter().filter(|e| e.stale).filter_map(left);
        let new: Vec<Exception> = left.chain(self.seen.except.iter().cloned()).collect();
        for exception in new {
            if !self.state.except.iter().any(|e| e.object == exception.object) {
                self.state.except.push(exception);
            }
        }
        self.state.except.sort();
    }

    /// Tells people what the rollback that has just ended left, and keeps it with the history.
    pub(super) fn tell_exceptions(&mut self) {
        if self.state.except.is_empty() {
            return;
        }
        let except = self.state.except.clone();
        if let Some(entry) = self.state.history.first_mut() {
            entry.except = except.clone();
        }
        self.notify(true, "RolledBackExcept", "", format!("the rollback did not undo {}", in_words(&except)));
    }
}

/// What is left of an object that the failed revision made, if anything.
fn left(entry: &InventoryEntry) -> Option<Exception> {
    if entry.kept || entry.uid.is_none() || entry.origin != EntryOrigin::Created {
        return None;
    }
    let message = match plan::removal(entry, true) {
        Removal::Release if entry.prune.as_deref() == Some("disabled") => {
            "was made by the revision that is undone and stays, as windlass.dev/prune: disabled says"
        }
        Removal::Release => {
            "was made by the revision that is undone and stays, since no data is deleted to roll back; delete it by hand when \
             nobody needs it"
        }
        Removal::Delete if entry.group == "batch" && entry.kind == "Job" => {
            "was made by the revision that is undone and is removed; what it did, if it ran, is not undone"
        }
        Removal::Delete => return None,
    };
    Some(Exception { object: entry.id().to_string(), message: message.into() })
}

/// Exceptions as people read them: the first few, and how many more.
pub fn in_words(except: &[Exception]) -> String {
    let mut words: Vec<String> =
        except.iter().take(NAMED).map(|e| format!("{} ({})", e.object, e.message)).collect();
    if except.len() > NAMED {
        words.push(format!("{} more, listed in status.rolledBackExcept", except.len() - NAMED));
    }
    words.join(", ")
}
