//! The ready endpoints of a few Services, watched for as long as somebody measures the app itself: a pod that becomes ready or
//! stops being so changes no object that carries our label.

use super::connect::{Connection, ServiceAccount};
use super::discovery::Discovery;
use super::error::Cause;
use super::follow::{Seen, Source, follow};
use crate::core::analysis::endpoints::{Endpoint, SERVICE_NAME, ready, together};
use crate::core::manifest::Gvk;
use crate::lock::lock;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use tokio::task::AbortHandle;

/// Whose endpoints are watched, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicesOf {
    /// `None` is the daemon.
    pub account: Option<ServiceAccount>,
    /// The namespace of the Services.
    pub namespace: String,
    /// Their names.
    pub services: BTreeSet<String>,
}

/// The ready endpoints of Services, kept up to date until it is dropped.
#[must_use = "the watch ends when this is dropped"]
pub struct EndpointWatch {
    of: ServicesOf,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

/// What is kept of an EndpointSlice: its Service, and its endpoints by pod.
type Slice = (String, BTreeMap<String, Endpoint>);

#[derive(Default)]
struct State {
    slices: BTreeMap<String, Slice>,
    /// What the list under way has brought.
    listing: BTreeMap<String, Slice>,
    complete: bool,
    failing: Option<Cause>,
}

impl Drop for EndpointWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl EndpointWatch {
    /// Has the endpoints watched. `changed` is called after each change of what is kept, and when it is complete or cannot be
    /// had; it should only wake somebody. Does not wait. Called on a runtime.
    pub fn start(
        connection: &Connection,
        discovery: &Discovery,
        of: ServicesOf,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let names: Vec<&str> = of.services.iter().map(String::as_str).collect();
        let source = Source {
            client: match &of.account {
                Some(account) => connection.as_service_account(account),
                None => connection.client.clone(),
            },
            discovery: discovery.clone(),
            share: connection.beginning(),
            gvk: Gvk::new("discovery.k8s.io/v1", "EndpointSlice"),
            namespace: Some(of.namespace.clone()),
            labels: Some(format!("{SERVICE_NAME} in ({})", names.join(","))),
            fields: None,
        };
        let state = Arc::new(Mutex::new(State::default()));
        let of_task = state.clone();
        let task = tokio::spawn(follow(source, move |seen| {
            if lock(&of_task).take(seen) {
                changed();
            }
            ControlFlow::Continue(())
        }));
        EndpointWatch { of, state, task: task.abort_handle() }
    }

    /// Whose endpoints these are.
    pub fn of(&self) -> &ServicesOf {
        &self.of
    }

    /// The ready endpoints of a Service; `None` until all of them are seen.
    pub fn ready(&self, service: &str) -> Option<Vec<Endpoint>> {
        let state = lock(&self.state);
        let here = state.slices.values().filter(|(of, _)| of == service).map(|(_, all)| all.clone());
        // What may not be watched any more grows old.
        (state.complete && state.failing.is_none()).then(|| together(here))
    }

    /// Why they cannot be seen, where waiting does not help.
    pub fn failing(&self) -> Option<Cause> {
        lock(&self.state).failing.clone()
    }
}

impl State {
    /// Takes in what the watch saw. Answers whether somebody is to be told.
    fn take(&mut self, seen: Seen) -> bool {
        let goes_on = matches!(seen, Seen::Applied(_) | Seen::Gone(_) | Seen::Complete | Seen::Calm);
        let again = goes_on && self.failing.take().is_some();
        let changed = match seen {
            Seen::Begin => {
                self.listing.clear();
                false
            }
            Seen::Listed(slice) => {
                let (name, slice) = kept(&slice);
                self.listing.insert(name, slice);
                false
            }
            Seen::Complete => {
                let listed = std::mem::take(&mut self.listing);
                let told = !self.complete || listed != self.slices;
                (self.slices, self.complete) = (listed, true);
                told
            }
            Seen::Applied(slice) => {
                let (name, slice) = kept(&slice);
                self.slices.insert(name, slice.clone()) != Some(slice)
            }
            Seen::Gone(slice) => self.slices.remove(&kept(&slice).0).is_some(),
            // What was seen last stands while the server is away.
            Seen::Failed(cause) if cause.is_transient() => false,
            Seen::Failed(cause) => self.failing.replace(cause.clone()) != Some(cause),
            Seen::Calm => false,
        };
        changed || again
    }
}

fn kept(slice: &Value) -> (String, Slice) {
    let metadata = &slice["metadata"];
    let service = metadata["labels"][SERVICE_NAME].as_str().unwrap_or_default();
    (metadata["name"].as_str().unwrap_or_default().to_owned(), (service.to_owned(), ready(slice)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(name: &str, address: &str, more: Value) -> Value {
        json!({"metadata": {"name": name, "labels": {SERVICE_NAME: "web"}, "resourceVersion": more},
            "ports": [{"port": 80}], "endpoints": [{"addresses": [address]}]})
    }

    #[test]
    fn who_measures_is_told_of_changes_and_of_nothing_else() {
        let mut state = State::default();
        assert!(!state.take(Seen::Begin) && !state.take(Seen::Listed(slice("a", "10.0.0.1", json!("1")))));
        assert!(!state.complete);
        assert!(state.take(Seen::Complete));
        assert!(state.complete);
        assert!(!state.take(Seen::Applied(slice("a", "10.0.0.1", json!("2")))), "nothing of it is another");
        assert!(state.take(Seen::Applied(slice("b", "10.0.0.2", json!("3")))));
        assert!(state.take(Seen::Gone(slice("a", "10.0.0.1", json!("4")))));
        assert_eq!(state.slices.keys().collect::<Vec<_>>(), ["b"]);
        // The server is away for a moment, and then has another list.
        assert!(!state.take(Seen::Failed(Cause::Unavailable { message: "gone".into() })) && state.complete);
        assert!(!state.take(Seen::Begin) && !state.take(Seen::Listed(slice("b", "10.0.0.2", json!("3")))));
        assert!(!state.take(Seen::Complete));
        let forbidden = || Seen::Failed(Cause::Refused { code: 403, message: "no".into() });
        assert!(state.take(forbidden()) && state.failing.is_some() && !state.take(forbidden()));
        assert!(state.take(Seen::Calm) && state.failing.is_none() && !state.take(Seen::Calm));
        assert!(!state.take(Seen::Begin) && state.take(Seen::Complete) && state.slices.is_empty());
    }
}
