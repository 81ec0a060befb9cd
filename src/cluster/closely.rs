//! Objects of a watch of which every change counts, also one of fields that are not ours, for as long as somebody holds them.
//!
//! Of what is in sync the digest of our own fields is enough. What differs has lost the fields that differ to others: that they change
//! once more shows in nothing that is kept.

use super::store::Place;
use crate::core::fields::whole_digest;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Keeps an object looked at as a whole; ends when it is dropped.
#[derive(Debug)]
pub struct Closely(Arc<AtomicBool>);

impl Closely {
    /// Whether the object is another than the one that was handed in, as far as its watch has shown. So it is taken to be when nothing
    /// looks at it any more: the watch has ended.
    pub fn is_outdated(&self) -> bool {
        self.0.load(Ordering::Acquire) || Arc::weak_count(&self.0) == 0
    }
}

/// The objects of one watch that are looked at as a whole.
#[derive(Default)]
pub(super) struct Watched(HashMap<Place, Vec<One>>);

/// One state of an object that somebody holds.
struct One {
    version: u64,
    digest: String,
    changed: Weak<AtomicBool>,
}

impl Watched {
    /// Begins to look at an object. `shown` is the version that the watch has shown of it: should that be a newer one, what happened in
    /// between is not known.
    pub(super) fn begin(&mut self, place: Place, object: &Value, shown: Option<u64>) -> Closely {
        self.0.retain(|_, all| {
            all.retain(|one| one.changed.strong_count() > 0);
            !all.is_empty()
        });
        let version = version(object);
        let changed = Arc::new(AtomicBool::new(shown.is_some_and(|shown| shown > version)));
        let one = One { version, digest: whole_digest(object), changed: Arc::downgrade(&changed) };
        self.0.entry(place).or_default().push(one);
        Closely(changed)
    }

    /// Compares an object that the watch shows. Answers whether somebody who holds it has to look again, and was not told so before.
    pub(super) fn show(&mut self, place: &Place, object: &Value) -> bool {
        let Some(all) = self.0.get_mut(place) else { return false };
        all.retain(|one| one.changed.strong_count() > 0);
        if all.is_empty() {
            self.0.remove(place);
            return false;
        }
        let (version, digest) = (version(object), whole_digest(object));
        let mut tell = false;
        for one in all.iter().filter(|one| one.version < version && one.digest != digest) {
            tell |= one.changed.upgrade().is_some_and(|changed| !changed.swap(true, Ordering::AcqRel));
        }
        tell
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(version: u64, value: &str, status: &str) -> Value {
        json!({
            "metadata": {"name": "a", "resourceVersion": version.to_string()},
            "data": {"key": value}, "status": {"phase": status},
        })
    }

    fn place() -> Place {
        ("shop".into(), "a".into())
    }

    #[test]
    fn a_later_change_is_told_once_and_only_while_somebody_holds_the_object() {
        let mut watched = Watched::default();
        let held = watched.begin(place(), &object(5, "2", ""), Some(5));
        // What was shown late, a heartbeat, and another object.
        assert!(!watched.show(&place(), &object(4, "1", "")));
        assert!(!watched.show(&place(), &object(6, "2", "beats")));
        assert!(!watched.show(&("shop".into(), "b".into()), &object(7, "3", "")));
        assert!(!held.is_outdated());
        assert!(watched.show(&place(), &object(7, "3", "")));
        assert!(held.is_outdated());
        assert!(!watched.show(&place(), &object(8, "4", "")));
        // Looked at again.
        let again = watched.begin(place(), &object(8, "4", ""), Some(8));
        drop(held);
        assert!(!again.is_outdated());
        assert!(watched.show(&place(), &object(9, "5", "")));
        drop(again);
        assert!(!watched.show(&place(), &object(10, "6", "")));
        assert!(watched.0.is_empty());
    }

    #[test]
    fn what_the_watch_has_shown_meanwhile_is_looked_at_again() {
        let mut watched = Watched::default();
        assert!(watched.begin(place(), &object(5, "2", ""), Some(6)).is_outdated());
        assert!(!watched.begin(place(), &object(5, "2", ""), Some(4)).is_outdated());
        let held = watched.begin(place(), &object(5, "2", ""), None);
        assert!(!held.is_outdated());
        // The dropped ones are gone.
        assert_eq!(watched.0.values().map(Vec::len).sum::<usize>(), 1);
        drop(watched);
        assert!(held.is_outdated());
    }
}
