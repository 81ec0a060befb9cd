//! Watches of single objects by name: the ConfigMaps and Secrets that somebody's settings come from.
//!
//! Of the object only its resourceVersion is kept: who is woken reads it, and notes which version that was. Without the
//! right to watch it is read again at the interval.

use super::connect::Connection;
use super::discovery::Discovery;
use super::follow::Seen;
use super::single::{self, NamedObject, Running, Singles};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The resourceVersion of an object, `None` when it is not there.
pub type Version = Option<u64>;

/// Watches of objects by name. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct NamedWatches(Arc<Singles<State>>);

#[derive(Default)]
struct State {
    /// What was seen last; `None` before the first list is complete.
    seen: Option<Version>,
    /// What the list under way has brought.
    listing: Version,
    readers: BTreeMap<u64, Reader>,
    last_reader: u64,
}

struct Reader {
    wake: Box<dyn Fn() + Send + Sync>,
    read: Option<Version>,
}

/// Keeps an object watched for one reader; the watch ends with the last one that is dropped.
#[must_use = "the watch ends when this is dropped"]
pub struct Named {
    running: Arc<Running<State>>,
    id: u64,
}

impl NamedWatches {
    /// No watch yet.
    pub fn new(connection: &Connection, discovery: &Discovery) -> Self {
        NamedWatches(Arc::new(Singles::new(connection, discovery)))
    }

    /// Watches an object until the answer is dropped. `wake` is called when it is not as the reader last read it; it
    /// should only wake somebody. Does not wait. Called on a runtime.
    pub fn ensure(&self, object: &NamedObject, wake: impl Fn() + Send + Sync + 'static) -> Named {
        let running = self.0.ensure(object);
        let mut state = running.state();
        state.last_reader += 1;
        let id = state.last_reader;
        state.readers.insert(id, Reader { wake: Box::new(wake), read: None });
        drop(state);
        Named { running, id }
    }
}

impl Named {
    /// The reader has read this version.
    pub fn note(&self, read: Version) {
        let mut state = self.running.state();
        if let Some(reader) = state.readers.get_mut(&self.id) {
            reader.read = Some(read);
        }
    }

    /// Whether something else was seen than what the reader read last. A watch that has not caught up with what was
    /// read says nothing.
    pub fn is_outdated(&self) -> bool {
        let state = self.running.state();
        let read = state.readers.get(&self.id).and_then(|r| r.read);
        matches!((state.seen, read), (Some(seen), Some(read)) if differs(seen, read))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.running.state().readers.remove(&self.id);
    }
}

fn differs(seen: Version, read: Version) -> bool {
    match (seen, read) {
        (Some(seen), Some(read)) => seen > read,
        (seen, read) => seen != read,
    }
}

impl single::State for State {
    fn take(&mut self, seen: Seen) {
        let new = match seen {
            Seen::Begin => {
                self.listing = None;
                return;
            }
            Seen::Listed(object) => {
                self.listing = version(&object);
                return;
            }
            Seen::Complete => self.listing,
            Seen::Applied(object) => version(&object),
            Seen::Gone(_) => None,
            Seen::Failed(_) | Seen::Calm => return,
        };
        if self.seen.replace(new) == Some(new) {
            return;
        }
        for reader in self.readers.values() {
            if reader.read.is_some_and(|read| differs(new, read)) {
                (reader.wake)();
            }
        }
    }
}

/// The version of an object as it was read.
pub fn version(object: &Value) -> Version {
    object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::single::State as _;
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn object(version: &str) -> Value {
        json!({"metadata": {"name": "x", "resourceVersion": version}})
    }

    fn with_reader(read: Option<Version>) -> (State, Arc<AtomicUsize>) {
        let mut state = State::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let wake = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        state.readers.insert(1, Reader { wake, read });
        (state, woken)
    }

    #[test]
    fn a_reader_is_woken_by_what_it_has_not_read() {
        let (mut state, woken) = with_reader(Some(Some(7)));
        let count = |woken: &AtomicUsize| woken.load(Ordering::Relaxed);
        state.take(Seen::Begin);
        state.take(Seen::Listed(object("7")));
        state.take(Seen::Complete);
        assert_eq!(count(&woken), 0, "the first list brings what was read");
        state.take(Seen::Applied(object("9")));
        assert_eq!(count(&woken), 1);
        state.take(Seen::Gone(object("10")));
        assert_eq!(count(&woken), 2);
    }

    #[test]
    fn what_was_missing_wakes_when_it_is_there_and_an_older_state_wakes_nobody() {
        let (mut state, woken) = with_reader(Some(None));
        state.take(Seen::Begin);
        state.take(Seen::Complete);
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        state.take(Seen::Applied(object("3")));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let (mut state, woken) = with_reader(Some(Some(5)));
        state.take(Seen::Applied(object("4")));
        assert_eq!(woken.load(Ordering::Relaxed), 0);
    }
}
