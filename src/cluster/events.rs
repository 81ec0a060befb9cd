//! Kubernetes Events (`events.k8s.io/v1`) about Deliveries and the objects concerned.
//!
//! Best effort: noting never waits, and what cannot be written is dropped and counted. The same note about the same
//! object becomes a series (one Event with a count), written at most every half minute. kube's recorder is not used:
//! it leaves the text out of what makes two events the same, so a second held commit would show the first one's.

use super::connect::Connection;
use crate::core::manifest::ObjectId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Who reports, in every Event.
pub const CONTROLLER: &str = "windlass.dev/windlass";

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 256;

/// Notes that are remembered so that their repetitions become a series.
const REMEMBERED: usize = 512;

/// A series is over when nothing was added for so long.
const SERIES_END: Duration = Duration::from_secs(6 * 60);

/// A series is written at most this often.
const SERIES_PAUSE: Duration = Duration::from_secs(30);

/// The API server takes no longer text, in bytes.
const LONGEST_NOTE: usize = 1024;

/// A call may take this long; the next Event waits for it.
const CALL_LIMIT: Duration = Duration::from_secs(10);

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

/// Writes Events in the background. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Starts the writer on this runtime; it ends when the last clone is dropped. `instance` says which replica
    /// reports (at most 128 characters).
    pub fn start(connection: &Connection, instance: &str) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let instance = instance.chars().take(128).collect();
        tokio::spawn(write_all(connection.client.clone(), instance, notes, dropped.clone()));
        Recorder { queue, dropped }
    }

    /// Has an Event written some time soon.
    pub fn note(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many Events were lost so far, for want of room or because the API server did not take them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A note that was written.
struct Written {
    name: String,
    count: u32,
    unwritten: bool,
    last_noted: Instant,
    last_written: Instant,
}

async fn write_all(
    client: kube::Client,
    instance: String,
    mut notes: mpsc::Receiver<Note>,
    dropped: Arc<AtomicU64>,
) {
    let mut known: BTreeMap<Note, Written> = BTreeMap::new();
    loop {
        let due = known.values().filter(|w| w.unwritten).map(|w| w.last_written + SERIES_PAUSE).min();
        let note = match due {
            Some(at) => tokio::select! {
                biased;
                note = notes.recv() => note.map(Some),
                () = tokio::time::sleep_until(at) => Some(None),
            },
            None => notes.recv().await.map(Some),
        };
        match note {
            None => return,
            Some(Some(note)) => take(&client, &instance, &mut known, note, &dropped).await,
            Some(None) => {}
        }
        let now = Instant::now();
        let ready = |w: &Written| w.unwritten && now >= w.last_written + SERIES_PAUSE;
        let ready: Vec<Note> = known.iter().filter(|(_, w)| ready(w)).map(|(n, _)| n.clone()).collect();
        for note in ready {
            if let Some(written) = known.get_mut(&note) {
                written.unwritten = false;
                written.last_written = now;
                let path = format!("{}/{}", collection(&note), written.name);
                let series = json!({"series": {"count": written.count, "lastObservedTime": micro_time()}});
                if !send(&client, "PATCH", &path, &series).await {
                    // It is gone (Events live for an hour): the next one begins anew.
                    known.remove(&note);
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

async fn take(
    client: &kube::Client,
    instance: &str,
    known: &mut BTreeMap<Note, Written>,
    note: Note,
    dropped: &AtomicU64,
) {
    let now = Instant::now();
    known.retain(|_, written| written.unwritten || now < written.last_noted + SERIES_END);
    if let Some(written) = known.get_mut(&note) {
        written.count += 1;
        written.unwritten = true;
        written.last_noted = now;
        return;
    }
    let name = event_name(&note.regarding.id.name);
    if !send(client, "POST", &collection(&note), &event(&note, &name, instance)).await {
        dropped.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if known.len() >= REMEMBERED
        && let Some(oldest) = known.iter().min_by_key(|(_, w)| w.last_noted).map(|(n, _)| n.clone())
    {
        known.remove(&oldest);
    }
    known.insert(note, Written { name, count: 1, unwritten: false, last_noted: now, last_written: now });
}

fn event(note: &Note, name: &str, instance: &str) -> Value {
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
        "eventTime": micro_time(),
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

fn micro_time() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
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

async fn send(client: &kube::Client, method: &str, path: &str, body: &Value) -> bool {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, kind)
        .body(kube::client::Body::from(body.to_string().into_bytes()));
    let Ok(request) = request else { return false };
    match tokio::time::timeout(CALL_LIMIT, client.send(request)).await {
        Ok(Ok(answer)) => {
            if !answer.status().is_success() {
                tracing::debug!(status = answer.status().as_u16(), path, "an event was not taken");
            }
            answer.status().is_success()
        }
        _ => false,
    }
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
