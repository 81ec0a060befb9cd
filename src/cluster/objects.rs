//! Watches of single objects by name whose state somebody waits for: what Deliveries depend on.
//!
//! The object is kept as it was seen last, and who waits is woken only when what he makes of it changes.

use super::connect::{Connection, ServiceAccount};
use super::discovery::Discovery;
use super::error::Cause;
use super::follow::Seen;
use super::single::{self, NamedObject, Running, Singles};
use crate::lock::lock;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What is known of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Known {
    /// It was not looked for yet.
    #[default]
    Unseen,
    /// It cannot be seen: no right, no such kind, no answer.
    Failing(Cause),
    /// It is not there.
    Absent,
    /// It is there.
    Present(Arc<Value>),
}

/// Watches of single objects. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct ObjectWatches(Arc<Singles<State>>);

/// Told what is known of an object.
type Told = Box<dyn FnMut(&Known) + Send>;

#[derive(Default)]
struct State {
    known: Known,
    /// What the list under way has brought.
    listing: Option<Arc<Value>>,
    waiting: BTreeMap<u64, Told>,
    last: u64,
}

/// Keeps an object watched for one who waits; the watch ends with the last one that is dropped.
#[must_use = "the watch ends when this is dropped"]
pub struct Waiter<T> {
    running: Arc<Running<State>>,
    id: u64,
    made: Arc<Mutex<T>>,
}

impl ObjectWatches {
    /// No watch yet.
    pub fn new(connection: &Connection, discovery: &Discovery) -> Self {
        ObjectWatches(Arc::new(Singles::new(connection, discovery)))
    }

    /// Watches an object until the answer is dropped. `make` says what is made of it; `wake` is called when that changes
    /// and should only wake somebody. Does not wait. Called on a runtime.
    pub fn ensure<T: PartialEq + Send + 'static>(
        &self,
        object: &NamedObject,
        make: impl Fn(&Known) -> T + Send + 'static,
        wake: impl Fn() + Send + 'static,
    ) -> Waiter<T> {
        let running = self.0.ensure(object);
        let mut state = running.state();
        let made = Arc::new(Mutex::new(make(&state.known)));
        state.last += 1;
        let id = state.last;
        let of_state = made.clone();
        state.waiting.insert(
            id,
            Box::new(move |known| {
                let new = make(known);
                let mut old = lock(&of_state);
                if *old != new {
                    *old = new;
                    drop(old);
                    wake();
                }
            }),
        );
        drop(state);
        Waiter { running, id, made }
    }
}

impl<T: Clone> Waiter<T> {
    /// What is made of the object now.
    pub fn made(&self) -> T {
        lock(&self.made).clone()
    }
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        self.running.state().waiting.remove(&self.id);
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
                self.listing = Some(Arc::new(object));
                return;
            }
            Seen::Complete => self.listing.take().map_or(Known::Absent, Known::Present),
            Seen::Applied(object) => Known::Present(Arc::new(object)),
            Seen::Gone(_) => Known::Absent,
            // What was seen last stands while the server is away.
            Seen::Failed(cause) if cause.is_transient() && self.known != Known::Unseen => return,
            Seen::Failed(cause) => Known::Failing(cause),
            Seen::Calm => return,
        };
        self.known = new;
        for waiter in self.waiting.values_mut() {
            waiter(&self.known);
        }
    }
}

/// As whom an object is watched.
pub fn as_account(account: Option<&ServiceAccount>) -> String {
    account.map_or_else(|| "the daemon".into(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::single::State as _;
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn who_waits_is_told_what_changes_for_him_and_nothing_else() {
        let mut state = State::default();
        let told = Arc::new(AtomicUsize::new(0));
        let (count, mut last) = (told.clone(), None);
        state.waiting.insert(
            1,
            Box::new(move |known| {
                let ready = matches!(known, Known::Present(o) if o["ready"] == true);
                if last.replace(ready) != Some(ready) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }),
        );
        let told = |state: &mut State, seen: Seen| {
            state.take(seen);
            told.load(Ordering::Relaxed)
        };
        told(&mut state, Seen::Begin);
        assert_eq!(told(&mut state, Seen::Complete), 1, "it is not there");
        assert_eq!(told(&mut state, Seen::Applied(json!({"ready": false}))), 1);
        assert_eq!(told(&mut state, Seen::Applied(json!({"ready": true}))), 2);
        assert_eq!(told(&mut state, Seen::Applied(json!({"ready": true, "more": 1}))), 2);
        let away = Cause::Unavailable { message: "no answer".into() };
        assert_eq!(told(&mut state, Seen::Failed(away)), 2, "what was seen last stands");
        assert_eq!(told(&mut state, Seen::Gone(json!({}))), 3);
    }
}
