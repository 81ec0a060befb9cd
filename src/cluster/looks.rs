//! Lists of whole kinds for somebody who looks at the cluster with his own rights: once, or for as long as he watches.

use super::connect::Connection;
use super::discovery::{Discovery, DiscoveryError};
use super::error::Cause;
use super::follow::{Seen as Event, Source, follow};
use crate::core::look::{Look, Seen, Shown};
use crate::core::manifest::ObjectId;
use crate::lock::lock;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Times that a list is asked for by who looks once, before the API server counts as away.
const ATTEMPTS: u32 = 4;

/// What the cluster serves is asked again after so long.
const KINDS_ARE_OLD: Duration = Duration::from_secs(60);

/// What is looked at.
pub struct Looking<K> {
    connection: Connection,
    discovery: Discovery,
    keep: fn(&Value) -> K,
    goes_on: bool,
    changes: watch::Sender<()>,
    running: BTreeMap<Look, Running<K>>,
}

struct Running<K> {
    state: Arc<Mutex<State<K>>>,
    task: Option<AbortHandle>,
}

impl<K> Drop for Running<K> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct State<K> {
    shown: Shown<K>,
    /// What the list under way has brought.
    listing: BTreeMap<(String, String), K>,
    away: Option<Cause>,
    failures: u32,
}

impl<K: Clone + PartialEq + Send + 'static> Looking<K> {
    /// Nothing is looked at yet. `keep` makes of an object what is kept of it. With `goes_on` each look is kept up to date; without
    /// it, each is one list.
    pub fn new(connection: &Connection, keep: fn(&Value) -> K, goes_on: bool) -> Self {
        let discovery = Discovery::new(connection.client.clone());
        let connection = connection.clone();
        let changes = watch::Sender::new(());
        Looking { connection, discovery, keep, goes_on, changes, running: BTreeMap::new() }
    }

    /// What was read already, by somebody who looks once: it is not asked for again.
    pub fn given(&mut self, look: Look, objects: &[Value]) {
        let objects = objects.iter().map(|object| (place(object), (self.keep)(object))).collect();
        let shown = Shown { objects, complete: true, failing: None, unknown: false };
        let state = State { shown, listing: BTreeMap::new(), away: None, failures: 0 };
        self.running.insert(look, Running { state: Arc::new(Mutex::new(state)), task: None });
    }

    /// Has these looked at, and nothing else any more. Does not wait. Called on a runtime.
    pub fn only(&mut self, wanted: &BTreeSet<Look>) {
        self.running.retain(|look, _| wanted.contains(look));
        for look in wanted {
            if !self.running.contains_key(look) {
                let running = self.start(look);
                self.running.insert(look.clone(), running);
            }
        }
    }

    /// Waits until it is known of each what there is, or that it cannot be known. Answers all that was seen. An error is an API
    /// server that does not answer.
    pub async fn settled(&self) -> Result<Seen<K>, Cause> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let mut seen = Seen::new();
            let mut settled = true;
            for (look, running) in &self.running {
                let state = lock(&running.state);
                if !self.goes_on
                    && state.failures >= ATTEMPTS
                    && let Some(cause) = &state.away
                {
                    return Err(cause.clone());
                }
                settled &= state.shown.is_settled();
                seen.insert(look.clone(), state.shown.clone());
            }
            if settled {
                return Ok(seen);
            }
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
    }

    /// The version in which the cluster prefers to serve a kind; `None` for one that it does not serve.
    pub async fn version(&self, group: &str, kind: &str) -> Result<Option<String>, DiscoveryError> {
        self.discovery.refresh_if_older(KINDS_ARE_OLD).await?;
        Ok(self.discovery.preferred(group, kind).map(|resource| resource.gvk.version))
    }

    /// A receiver of every change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Why what is shown may be old, as long as that is so.
    pub fn away(&self) -> Option<Cause> {
        self.running.values().find_map(|running| lock(&running.state).away.clone())
    }

    fn start(&self, look: &Look) -> Running<K> {
        let source = Source {
            client: self.connection.client.clone(),
            discovery: self.discovery.clone(),
            share: self.connection.beginning(),
            gvk: look.gvk.clone(),
            namespace: Some(look.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            labels: None,
            fields: look.name.as_ref().map(|name| format!("metadata.name={name}")),
        };
        let shown = Shown::default();
        let state = Arc::new(Mutex::new(State { shown, listing: BTreeMap::new(), away: None, failures: 0 }));
        let (of_task, keep, goes_on) = (state.clone(), self.keep, self.goes_on);
        let changes = self.changes.clone();
        let task = tokio::spawn(follow(source, move |event| {
            let mut state = lock(&of_task);
            let changed = state.take(event, keep);
            let done = !goes_on && state.shown.is_settled();
            drop(state);
            if changed {
                changes.send_replace(());
            }
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }));
        Running { state, task: Some(task.abort_handle()) }
    }
}

impl<K: PartialEq> State<K> {
    /// Takes in what was seen. Answers whether somebody is to be told.
    fn take(&mut self, event: Event, keep: fn(&Value) -> K) -> bool {
        let failed = matches!(event, Event::Failed(_));
        let back = !failed && !matches!(event, Event::Begin) && self.away.take().is_some();
        let changed = match event {
            Event::Begin => {
                self.listing.clear();
                false
            }
            Event::Listed(object) => {
                self.listing.insert(place(&object), keep(&object));
                false
            }
            Event::Complete => {
                let listed = std::mem::take(&mut self.listing);
                let first = !self.shown.complete || self.shown.failing.is_some() || self.shown.unknown;
                let other = listed != self.shown.objects;
                self.shown = Shown { objects: listed, complete: true, failing: None, unknown: false };
                self.failures = 0;
                first || other
            }
            Event::Applied(object) => {
                let kept = keep(&object);
                let place = place(&object);
                let other = self.shown.objects.get(&place) != Some(&kept);
                self.shown.objects.insert(place, kept);
                other
            }
            Event::Gone(object) => self.shown.objects.remove(&place(&object)).is_some(),
            Event::Failed(Cause::KindUnknown { .. }) => {
                self.shown.objects.clear();
                !std::mem::replace(&mut self.shown.unknown, true)
            }
            // What was seen last stands while the server is away.
            Event::Failed(cause) if cause.is_transient() => {
                self.failures += 1;
                self.away.replace(cause.clone()) != Some(cause) || self.failures >= ATTEMPTS
            }
            Event::Failed(cause) => {
                self.shown.objects.clear();
                self.shown.failing.replace(cause.to_string()) != Some(cause.to_string())
            }
            Event::Calm => self.shown.failing.take().is_some(),
        };
        changed || back
    }
}

fn place(object: &Value) -> (String, String) {
    let id = ObjectId::of(object);
    (id.namespace, id.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, value: u64) -> Value {
        json!({"metadata": {"name": name}, "value": value})
    }

    fn state() -> State<u64> {
        State { shown: Shown::default(), listing: BTreeMap::new(), away: None, failures: 0 }
    }

    fn keep(object: &Value) -> u64 {
        object["value"].as_u64().unwrap_or_default()
    }

    #[test]
    fn who_looks_is_told_of_changes_and_of_nothing_else() {
        let mut state = state();
        let mut take = |event: Event| state.take(event, keep);
        assert!(!take(Event::Begin) && !take(Event::Listed(object("a", 1))));
        assert!(take(Event::Complete) && !take(Event::Applied(object("a", 1))));
        assert!(take(Event::Applied(object("a", 2))) && take(Event::Applied(object("b", 1))));
        assert!(take(Event::Gone(object("a", 2))) && !take(Event::Gone(object("a", 2))));
        // The server is away, and has the same list afterwards.
        let away = || Event::Failed(Cause::Unavailable { message: "gone".into() });
        assert!(take(away()) && !take(away()));
        assert!(!take(Event::Begin) && take(Event::Listed(object("b", 1))) && !take(Event::Complete));
        let no = || Event::Failed(Cause::Refused { code: 403, message: "no".into() });
        assert!(take(no()) && !take(no()));
        assert!(state.shown.objects.is_empty() && state.shown.is_settled());
        assert!(!state.take(Event::Begin, keep) && state.take(Event::Complete, keep));
        assert!(state.shown.failing.is_none());
        assert!(state.take(Event::Failed(Cause::KindUnknown { kind: "v1 Odd".into() }), keep));
        assert!(state.shown.unknown);
    }
}
