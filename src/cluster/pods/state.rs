//! What one watch of Pods or ReplicaSets has seen for each workload that reads it.

use crate::cluster::error::Cause;
use crate::cluster::follow::Seen;
use crate::core::health::essence;
use kube::core::{Selector, SelectorExt};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Objects by reader.
#[derive(Default)]
pub(super) struct State {
    readers: BTreeMap<u64, Reader>,
    last: u64,
    /// Why nothing is seen at the moment.
    pub(super) failing: Option<Cause>,
}

struct Reader {
    selector: Selector,
    changed: Arc<dyn Fn() + Send + Sync>,
    objects: BTreeMap<String, Arc<Value>>,
    // What the list under way has brought; none where it began before this reader was there.
    listed: Option<HashSet<String>>,
    // A list was complete since this reader is there.
    complete: bool,
}

impl State {
    /// Keeps what the selector selects from now on.
    pub(super) fn join(&mut self, selector: Selector, changed: Arc<dyn Fn() + Send + Sync>) -> u64 {
        self.last += 1;
        let reader = Reader { selector, changed, objects: BTreeMap::new(), listed: None, complete: false };
        self.readers.insert(self.last, reader);
        self.last
    }

    /// Forgets what was kept for a reader.
    pub(super) fn leave(&mut self, reader: u64) {
        self.readers.remove(&reader);
    }

    /// What is kept for a reader, by name.
    pub(super) fn objects(&self, reader: u64) -> Vec<Arc<Value>> {
        self.readers.get(&reader).map(|r| r.objects.values().cloned().collect()).unwrap_or_default()
    }

    /// Whether all that a reader selects is seen, as far as it ever will be: a right that was taken away is not waited for.
    pub(super) fn is_complete(&self, reader: u64) -> bool {
        match &self.failing {
            Some(cause) => !cause.is_transient(),
            None => self.readers.get(&reader).is_some_and(|r| r.complete),
        }
    }

    /// Takes in what was seen, and wakes whom it concerns.
    pub(super) fn take(&mut self, seen: Seen) {
        // Said before the server is asked: it is no sign of life.
        if !matches!(seen, Seen::Failed(_) | Seen::Begin) && self.failing.take().is_some() {
            self.readers.values().for_each(|r| (r.changed)());
        }
        match seen {
            Seen::Begin => self.readers.values_mut().for_each(|r| r.listed = Some(HashSet::new())),
            Seen::Listed(object) | Seen::Applied(object) => self.put(&object),
            Seen::Complete => {
                for reader in self.readers.values_mut() {
                    let Some(listed) = reader.listed.take() else { continue };
                    let before = reader.objects.len();
                    reader.objects.retain(|name, _| listed.contains(name));
                    let first = !std::mem::replace(&mut reader.complete, true);
                    if first || reader.objects.len() != before {
                        (reader.changed)();
                    }
                }
            }
            Seen::Gone(object) => {
                let name = name(&object);
                self.readers.values_mut().for_each(|r| r.remove(name));
            }
            Seen::Failed(cause) => {
                if self.failing.as_ref() != Some(&cause) {
                    tracing::debug!(%cause, "pods are not seen at the moment");
                    self.failing = Some(cause);
                    self.readers.values().for_each(|r| (r.changed)());
                }
            }
            Seen::Calm => {}
        }
    }

    fn put(&mut self, object: &Value) {
        let labels: BTreeMap<String, String> = object["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        let name = name(object);
        let mut kept: Option<Arc<Value>> = None;
        for reader in self.readers.values_mut() {
            if !reader.selector.matches(&labels) {
                reader.remove(name);
                continue;
            }
            if let Some(listed) = &mut reader.listed {
                listed.insert(name.to_owned());
            }
            let new = kept.get_or_insert_with(|| Arc::new(essence(object))).clone();
            if reader.objects.get(name) != Some(&new) {
                reader.objects.insert(name.to_owned(), new);
                (reader.changed)();
            }
        }
    }
}

impl Reader {
    fn remove(&mut self, name: &str) {
        if self.objects.remove(name).is_some() {
            (self.changed)();
        }
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn pod(name: &str, app: &str, restarts: u32) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": app}},
            "status": {"containerStatuses": [{"name": "app", "restartCount": restarts}]},
        })
    }

    fn join(state: &mut State, app: &str) -> (u64, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let selector = Selector::from_iter([("app".to_owned(), app.to_owned())]);
        let wake = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        (state.join(selector, wake), woken)
    }

    fn names(state: &State, reader: u64) -> Vec<String> {
        state.objects(reader).iter().map(|o| name(o).to_owned()).collect()
    }

    #[test]
    fn each_workload_has_its_own_pods_and_nobody_elses_are_kept() {
        let mut state = State::default();
        let (web, woken) = join(&mut state, "web");
        let (api, _) = join(&mut state, "api");
        state.take(Seen::Begin);
        for n in 0..1000 {
            state.take(Seen::Listed(pod(&format!("foreign-{n}"), "other", 0)));
        }
        state.take(Seen::Listed(pod("web-1", "web", 0)));
        state.take(Seen::Listed(pod("api-1", "api", 0)));
        state.take(Seen::Complete);
        assert_eq!((names(&state, web), names(&state, api)), (vec!["web-1".into()], vec!["api-1".into()]));
        assert_eq!(state.readers.values().map(|r| r.objects.len()).sum::<usize>(), 2);
        let before = woken.load(Ordering::Relaxed);
        state.take(Seen::Applied(pod("api-1", "api", 1)));
        state.take(Seen::Applied(pod("web-1", "web", 0)));
        assert_eq!(woken.load(Ordering::Relaxed), before, "nothing that concerns it changed");
        state.take(Seen::Applied(pod("web-1", "web", 1)));
        assert_eq!(woken.load(Ordering::Relaxed), before + 1);
        // Its labels were changed: it is another's now.
        state.take(Seen::Applied(pod("web-1", "api", 1)));
        assert_eq!((names(&state, web).len(), names(&state, api).len()), (0, 2));
        state.leave(api);
        assert_eq!(names(&state, api).len(), 0);
    }

    #[test]
    fn that_there_are_no_pods_is_known_after_a_list_and_told() {
        let mut state = State::default();
        let (web, woken) = join(&mut state, "web");
        state.take(Seen::Begin);
        let (late, _) = join(&mut state, "late");
        assert!(!state.is_complete(web));
        state.take(Seen::Complete);
        assert!(state.is_complete(web) && !state.is_complete(late));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        state.take(Seen::Failed(Cause::Unavailable { message: "away".into() }));
        assert!(!state.is_complete(web), "what happened since is not known");
        state.take(Seen::Calm);
        assert!(state.is_complete(web));
        assert_eq!(woken.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn who_joins_sees_what_is_new_at_once_and_the_rest_with_the_next_list() {
        let mut state = State::default();
        let (web, _) = join(&mut state, "web");
        state.take(Seen::Begin);
        state.take(Seen::Listed(pod("web-1", "web", 0)));
        state.take(Seen::Listed(pod("api-1", "api", 0)));
        let (api, _) = join(&mut state, "api");
        state.take(Seen::Listed(pod("api-2", "api", 0)));
        state.take(Seen::Complete);
        assert_eq!(names(&state, api), ["api-2"]);
        state.take(Seen::Applied(pod("api-3", "api", 0)));
        assert_eq!(names(&state, api), ["api-2", "api-3"]);
        // The next list; one of them went meanwhile.
        state.take(Seen::Begin);
        state.take(Seen::Listed(pod("api-1", "api", 0)));
        state.take(Seen::Listed(pod("api-3", "api", 0)));
        assert_eq!(names(&state, web), ["web-1"], "what was known stays until the list is complete");
        state.take(Seen::Complete);
        assert_eq!(names(&state, api), ["api-1", "api-3"]);
        assert_eq!(names(&state, web), Vec::<String>::new());
    }
}
