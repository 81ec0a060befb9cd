//! Watches: what happened to the objects that somebody looks at.

use super::select::Selector;
use super::{Cluster, refuse};
use serde_json::{Value, json};
use std::sync::Arc;

/// An open watch.
#[derive(Clone, Debug)]
pub struct Watch {
    pub(super) at: usize,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) selector: Selector,
    pub(super) version: u64,
    /// The state of now comes first.
    pub(super) fresh: bool,
    /// Nothing more will come.
    pub(super) ended: bool,
}

impl Watch {
    /// Nothing more will come: close the stream.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    fn sees(&self, object: &Value) -> bool {
        let name = &object["metadata"]["name"];
        (self.name.is_empty() || *name == self.name.as_str()) && self.selector.fits(object)
    }
}

impl Cluster {
    /// What happened since the last look, oldest first. A version that is forgotten makes one ERROR event (410),
    /// and the watch ends.
    pub fn events(&mut self, watch: &mut Watch) -> Vec<Value> {
        let seen = self.happened(watch);
        seen.into_iter().map(|(kind, object)| json!({"type": kind, "object": *object})).collect()
    }

    /// The same: the type of each event, and its object.
    pub fn happened(&mut self, watch: &mut Watch) -> Vec<(&'static str, Arc<Value>)> {
        if watch.ended {
            return Vec::new();
        }
        let mut out = Vec::new();
        if std::mem::take(&mut watch.fresh) {
            let now = self.store.list(watch.at, &watch.namespace).map(|(_, object)| object);
            out.extend(now.filter(|o| watch.sees(o)).map(|o| ("ADDED", o.clone())));
            watch.version = self.store.version();
            return out;
        }
        let Some(changes) = self.store.changes_after(watch.version) else {
            watch.ended = true;
            let message = format!("too old resource version: {} ({})", watch.version, self.store.version());
            return vec![("ERROR", Arc::new(refuse::expired(&message).body))];
        };
        for change in changes {
            if change.key.0 != watch.at || !watch.namespace.is_empty() && change.key.1 != watch.namespace {
                continue;
            }
            let before = change.old.as_ref().is_some_and(|old| watch.sees(old));
            let after = !change.deleted && watch.sees(&change.new);
            match (before, after) {
                (false, true) => out.push(("ADDED", change.new.clone())),
                (true, true) => out.push(("MODIFIED", change.new.clone())),
                (true, false) => {
                    // The last state that was seen, with the version of the change that took it out of sight.
                    let mut last = change.old.as_deref().cloned().unwrap_or_default();
                    last["metadata"]["resourceVersion"] = change.version.to_string().into();
                    out.push(("DELETED", Arc::new(last)));
                }
                (false, false) => {}
            }
        }
        watch.version = self.store.version();
        out
    }

    /// Whether [`Cluster::events`] has something to tell.
    pub fn has_events(&self, watch: &Watch) -> bool {
        !watch.ended
            && (watch.fresh
                || self.store.changes_after(watch.version).is_none_or(|changes| {
                    changes.iter().any(|c| {
                        c.key.0 == watch.at && (watch.namespace.is_empty() || c.key.1 == watch.namespace)
                    })
                }))
    }

    /// A BOOKMARK: the version up to which the watch has told everything.
    pub fn bookmark(&self, watch: &Watch) -> Value {
        let kind = &self.kinds[watch.at];
        json!({"type": "BOOKMARK", "object": {
            "kind": kind.kind, "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": watch.version.to_string()},
        }})
    }
}
