//! Kubernetes Events (`events.k8s.io/v1`) about Deliveries and the objects concerned.
//!
//! Noting never waits. Notes stand in a queue and are written a few at once, within what the cluster takes and behind
//! what others ask of it, though not for long; what the API server cannot take at the moment is tried again. The same
//! note about the same object becomes a series (one Event with a count), written at most every half minute, and costs
//! nothing while the first one waits. Events are an aid to people, no record: what finds no room, or no server for too
//! long, is dropped, counted and told in the log. kube's recorder is not used: it leaves the text out of what makes two
//! events the same, so a second held commit would show the first one's.

mod queue;
mod writer;

use super::connect::Connection;
use crate::core::manifest::ObjectId;
use queue::Queue;
use serde_json::{Value, json};
use std::sync::Arc;

/// Who reports, in every Event.
pub const CONTROLLER: &str = "windlass.dev/windlass";

/// The API server takes no longer text, in bytes.
const LONGEST_NOTE: usize = 1024;

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Regarding {
    /// `apps/v1`.
    pub api_version: String,
    /// Which object.
    pub id: ObjectId,
    /// Its uid, where known: `kubectl describe` finds Events by it.
    pub uid: Option<String>,
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The object that it is about.
    pub regarding: Regarding,
    /// Another object that it has to do with.
    pub related: Option<Regarding>,
    /// `Warning`, otherwise `Normal`.
    pub warning: bool,
    /// Why, in CamelCase, such as `RevisionHeld`.
    pub reason: String,
    /// What was done, in CamelCase, such as `RolledBack`.
    pub action: String,
    /// The sentence for people. No Secret's value.
    pub text: String,
}

/// Has Events written in the background. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Open>);

/// The end of the queue that notes go into; the writer ends once this is gone and everything is written.
struct Open(Arc<Queue>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Recorder {
    /// Starts the writer on this runtime; it ends when the last clone is dropped and what was noted is written.
    /// `instance` says which replica reports (at most 128 characters).
    pub fn start(connection: &Connection, instance: &str) -> Self {
        let queue = Arc::new(Queue::default());
        let instance = instance.chars().take(128).collect();
        tokio::spawn(writer::run(connection.access(None), instance, queue.clone()));
        Recorder(Arc::new(Open(queue)))
    }

    /// Has an Event written some time soon.
    pub fn note(&self, note: Note) {
        self.0.0.note(note);
    }

    /// How many notes were lost so far, for want of room or because the API server did not take them.
    pub fn dropped(&self) -> u64 {
        self.0.0.dropped()
    }
}

/// `time` is when it was noted, as [`micro_time`] writes it.
fn event(note: &Note, name: &str, instance: &str, time: &str) -> Value {
    let reference = |of: &Regarding| {
        let mut value = json!({"apiVersion": of.api_version, "kind": of.id.kind, "name": of.id.name});
        if !of.id.namespace.is_empty() {
            value["namespace"] = of.id.namespace.as_str().into();
        }
        if let Some(uid) = &of.uid {
            value["uid"] = uid.as_str().into();
        }
        value
    };
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace(note)},
        "eventTime": time,
        "reportingController": CONTROLLER,
        "reportingInstance": if instance.is_empty() { "windlass" } else { instance },
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": note.reason,
        "action": note.action,
        "note": cut(&note.text, LONGEST_NOTE),
        "regarding": reference(&note.regarding),
    });
    if let Some(related) = &note.related {
        event["related"] = reference(related);
    }
    event
}

/// Events about cluster-scoped objects stand in `default`, where `kubectl` looks for them.
fn namespace(note: &Note) -> &str {
    if note.regarding.id.namespace.is_empty() { "default" } else { &note.regarding.id.namespace }
}

fn collection(note: &Note) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{}/events", namespace(note))
}

/// The object's name with a random end. Names like `system:x` and long ones make no valid name of an Event.
fn event_name(object: &str) -> String {
    let keep = |c: char| {
        if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.') { c } else { '-' }
    };
    let name: String = object.chars().map(keep).take(220).collect();
    let name = name.trim_matches(['-', '.']);
    let name = if name.is_empty() { "object" } else { name };
    format!("{name}.{:016x}", fastrand::u64(..))
}

/// So long ago.
fn micro_time(ago: std::time::Duration) -> String {
    let now = jiff::Timestamp::now();
    now.checked_sub(ago).unwrap_or(now).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// At most so many bytes, cut between characters.
fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_string();
    }
    let room = bytes - '…'.len_utf8();
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= room).last();
    format!("{}…", &text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_fit() {
        for name in ["web", "system:Node-x", "", "...", &"x".repeat(253)] {
            let name = event_name(name);
            assert!(name.len() <= 253 && name.starts_with(|c: char| c.is_ascii_alphanumeric()), "{name}");
        }
        assert_eq!(cut("short", 10), "short");
        let long = "ä".repeat(600);
        assert!(cut(&long, 1024).len() <= 1024 && cut(&long, 1024).ends_with('…'));
    }
}
