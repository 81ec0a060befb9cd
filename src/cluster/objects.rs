//! Watches of single objects by name whose state somebody waits for: what Deliveries depend on.
//!
//! Like the watches of settings ([`super::named`]) they need no more rights than reading the one object, and bring
//! nothing else. One watch for each account, kind and name, however many wait for it. The object is kept as it was seen
//! last, and who waits is woken only when what he makes of it changes.

use super::connect::{Connection, ServiceAccount};
use super::discovery::Discovery;
use super::error::Cause;
use super::follow::{Seen, Source, follow};
use super::named::NamedObject;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tokio::task::AbortHandle;

/// What is known of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// It was not looked for yet.
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
pub struct ObjectWatches(Arc<Inner>);

struct Inner {
    connection: Connection,
    discovery: Discovery,
    running: Mutex<HashMap<NamedObject, Weak<Running>>>,
}

struct Running {
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Told what is known of an object.
type Told = Box<dyn FnMut(&Known) + Send>;

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
    running: Arc<Running>,
    id: u64,
    made: Arc<Mutex<T>>,
}

impl ObjectWatches {
    /// No watch yet.
    pub fn new(connection: &Connection, discovery: &Discovery) -> Self {
        ObjectWatches(Arc::new(Inner {
            connection: connection.clone(),
            discovery: discovery.clone(),
            running: Mutex::default(),
        }))
    }

    /// Watches an object until the answer is dropped. `make` says what is made of it; `wake` is called when that changes
    /// and should only wake somebody. Does not wait. Called on a runtime.
    pub fn ensure<T: PartialEq + Send + 'static>(
        &self,
        object: &NamedObject,
        make: impl Fn(&Known) -> T + Send + 'static,
        wake: impl Fn() + Send + 'static,
    ) -> Waiter<T> {
        let mut all = lock(&self.0.running);
        let known = all.get(object).and_then(Weak::upgrade);
        let running = known.unwrap_or_else(|| {
            let running = Arc::new(self.start(object));
            all.retain(|_, known| known.strong_count() > 0);
            all.insert(object.clone(), Arc::downgrade(&running));
            running
        });
        let mut state = lock(&running.state);
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

    fn start(&self, object: &NamedObject) -> Running {
        let client = match &object.account {
            Some(account) => self.0.connection.as_service_account(account),
            None => self.0.connection.client.clone(),
        };
        let source = Source {
            client,
            discovery: self.0.discovery.clone(),
            share: self.0.connection.share(),
            gvk: object.gvk.clone(),
            namespace: Some(object.namespace.clone()),
            labels: None,
            fields: Some(format!("metadata.name={}", object.name)),
        };
        let state = State { known: Known::Unseen, listing: None, waiting: BTreeMap::new(), last: 0 };
        let state = Arc::new(Mutex::new(state));
        let of_task = state.clone();
        let task = tokio::spawn(follow(source, move |seen| {
            lock(&of_task).take(seen);
            ControlFlow::Continue(())
        }));
        Running { state, task: task.abort_handle() }
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
        lock(&self.running.state).waiting.remove(&self.id);
    }
}

impl State {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn who_waits_is_told_what_changes_for_him_and_nothing_else() {
        let mut state = State { known: Known::Unseen, listing: None, waiting: BTreeMap::new(), last: 0 };
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
