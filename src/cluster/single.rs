//! Watches of single objects by name, shared: one for each account, kind and name, however many wait for it. A watch of one
//! name needs no more rights than reading it (`resourceNames` in a Role may name it), and brings nothing else.

use super::connect::{Connection, ServiceAccount};
use super::discovery::Discovery;
use super::follow::{Seen, Source, follow};
use crate::core::manifest::Gvk;
use crate::lock::lock;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tokio::task::AbortHandle;

/// An object to watch, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedObject {
    /// `None` is the daemon.
    pub account: Option<ServiceAccount>,
    /// `apiVersion` and kind.
    pub gvk: Gvk,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is kept of an object.
pub(super) trait State: Default + Send + 'static {
    /// Takes in what the watch saw.
    fn take(&mut self, seen: Seen);
}

/// The watches that run.
pub(super) struct Singles<S> {
    connection: Connection,
    discovery: Discovery,
    running: Mutex<HashMap<NamedObject, Weak<Running<S>>>>,
}

/// A watch; it ends with the last one who holds it.
pub(super) struct Running<S> {
    state: Arc<Mutex<S>>,
    task: AbortHandle,
}

impl<S> Drop for Running<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<S> Running<S> {
    /// What is kept of the object.
    pub(super) fn state(&self) -> MutexGuard<'_, S> {
        lock(&self.state)
    }
}

impl<S: State> Singles<S> {
    /// No watch yet.
    pub(super) fn new(connection: &Connection, discovery: &Discovery) -> Self {
        Singles { connection: connection.clone(), discovery: discovery.clone(), running: Mutex::default() }
    }

    /// The watch of an object, begun if there is none. Does not wait. Called on a runtime.
    pub(super) fn ensure(&self, object: &NamedObject) -> Arc<Running<S>> {
        let mut all = lock(&self.running);
        let known = all.get(object).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let running = Arc::new(self.start(object));
            all.retain(|_, known| known.strong_count() > 0);
            all.insert(object.clone(), Arc::downgrade(&running));
            running
        })
    }

    fn start(&self, object: &NamedObject) -> Running<S> {
        let client = match &object.account {
            Some(account) => self.connection.as_service_account(account),
            None => self.connection.client.clone(),
        };
        let source = Source {
            client,
            discovery: self.discovery.clone(),
            share: self.connection.beginning(),
            gvk: object.gvk.clone(),
            namespace: Some(object.namespace.clone()),
            labels: None,
            fields: Some(format!("metadata.name={}", object.name)),
        };
        let state = Arc::new(Mutex::new(S::default()));
        let of_task = state.clone();
        let name = format!("{} {}/{}", object.gvk.kind, object.namespace, object.name);
        let task = tokio::spawn(follow(source, move |seen| {
            if let Seen::Failed(cause) = &seen {
                tracing::debug!(object = %name, %cause, "is not watched at the moment");
            }
            lock(&of_task).take(seen);
            ControlFlow::Continue(())
        }));
        Running { state, task: task.abort_handle() }
    }
}
