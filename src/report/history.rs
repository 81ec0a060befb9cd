//! `windlass history`: the last revisions of a Delivery and what became of each.

use super::age::since;
use super::table::{head, lines, shortened, tame};
use super::{BAD, GOOD, UNSURE, paint, short};
use crate::api::Delivery;
use crate::api::delivery::{HistoryEntry, Outcome, Revision};
use crate::core::rollout::status::told;
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

/// Longest subject and reason in a table that is not wide, in characters.
const WORDS: usize = 60;

/// The history of a Delivery.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Namespace of the Delivery.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The commit that the cluster should be running.
    pub effective: Option<String>,
    /// The commit that is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// What is being put in place now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Revision>,
    /// What became of the last revisions, newest first.
    pub revisions: Vec<HistoryEntry>,
}

/// The history of a Delivery.
pub fn report(delivery: &Delivery) -> History {
    let status = delivery.status.clone().unwrap_or_default();
    History {
        namespace: delivery.namespace().unwrap_or_default(),
        name: delivery.name_any(),
        effective: status.effective.map(|r| r.commit),
        held: status.held.map(|h| h.revision.commit),
        attempt: status.attempt.map(|a| a.revision),
        revisions: status.history,
    }
}

/// The history as a table. `*` marks what is running.
pub fn text(history: &History, wide: bool, now: Timestamp) -> String {
    if history.revisions.is_empty() && history.attempt.is_none() {
        return format!("{}/{} has no history yet\n", history.namespace, history.name);
    }
    let words = |text: &str| if wide { tame(text) } else { shortened(&tame(text), WORDS) };
    let mut rows = vec![head(&["", "REVISION", "OUTCOME", "WHEN", "AUTHOR", "SUBJECT", "REASON"])];
    if let Some(attempt) = &history.attempt {
        rows.push(vec![
            String::new(),
            short(attempt),
            paint(UNSURE, "under way"),
            "now".into(),
            words(&attempt.author),
            words(&attempt.subject),
            "-".into(),
        ]);
    }
    let mut marked = false;
    for entry in &history.revisions {
        let style = match entry.outcome {
            Outcome::Deployed | Outcome::Restored => GOOD,
            Outcome::RolledBack | Outcome::Failed => BAD,
            Outcome::Superseded => UNSURE,
        };
        let good = matches!(entry.outcome, Outcome::Deployed | Outcome::Restored);
        let running = good && !marked && history.effective.as_ref() == Some(&entry.revision.commit);
        marked |= running;
        let held = history.held.as_ref() == Some(&entry.revision.commit) && !good;
        let outcome = format!("{:?}{}", entry.outcome, if held { ", held" } else { "" });
        rows.push(vec![
            if running { "*".into() } else { String::new() },
            short(&entry.revision),
            paint(style, &outcome),
            since(&entry.at, now),
            words(&entry.revision.author),
            words(&entry.revision.subject),
            entry.problem.as_ref().map_or_else(|| left(entry, &words), |p| words(&told(p))),
        ]);
    }
    let mut text = lines(&rows).join("\n");
    text.push('\n');
    text
}

/// What bringing a revision back did not undo.
fn left(entry: &HistoryEntry, words: &dyn Fn(&str) -> String) -> String {
    if entry.except.is_empty() {
        return "-".into();
    }
    let objects: Vec<&str> = entry.except.iter().map(|e| e.object.as_str()).collect();
    words(&format!("not undone: {}", objects.join(", ")))
}
