//! What the watch shows of the revisions that are kept: what is to be tidied up is known without asking for it.
//!
//! A watch lags behind what was just written, so what it does not show is not taken for missing here. It shows in order what was written,
//! though: once it has shown a revision, it has shown all that were kept before that one.

use super::Key;
use crate::lock::lock;
use kube::{Resource, ResourceExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

/// A kept revision, as far as it has to be known to tidy up.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kept {
    /// The name of the ControllerRevision.
    pub(super) name: String,
    /// What it is known by.
    pub(super) uid: Option<String>,
    /// The version that was seen.
    pub(super) version: Option<String>,
    /// The uids of its owners.
    pub(super) owners: Vec<String>,
    /// Somebody has deleted it.
    pub(super) goes: bool,
}

impl Kept {
    /// What is to be known of a ControllerRevision, or of its metadata.
    pub(super) fn of<K: Resource>(revision: &K) -> Self {
        Kept {
            name: revision.name_any(),
            uid: revision.uid(),
            version: revision.resource_version(),
            owners: revision.owner_references().iter().map(|owner| owner.uid.clone()).collect(),
            goes: revision.meta().deletion_timestamp.is_some(),
        }
    }
}

/// What can be said of an Application's revisions.
#[derive(Debug, PartialEq)]
pub(super) enum Known {
    /// They are not watched: they have to be asked for.
    Unwatched,
    /// What was kept last is not shown yet. The next event about a revision of this Application says so.
    Behind,
    /// These are there, each in this version or a newer one.
    All(Vec<Kept>),
}

/// The revisions that the watch shows, by Application.
#[derive(Default)]
pub(super) struct Sight(Mutex<Shown>);

#[derive(Default)]
struct Shown {
    of: HashMap<Key, BTreeMap<String, Kept>>,
    unwatched: bool,
    /// Applications of which something is waited for.
    awaited: BTreeSet<Key>,
}

impl Sight {
    /// Takes a list for what is there. Answers the Applications that wait for one.
    pub(super) fn listed(&self, all: impl IntoIterator<Item = (Key, Kept)>) -> BTreeSet<Key> {
        let mut of: HashMap<Key, BTreeMap<String, Kept>> = HashMap::new();
        for (key, kept) in all {
            of.entry(key).or_default().insert(kept.name.clone(), kept);
        }
        let mut shown = lock(&self.0);
        (shown.of, shown.unwatched) = (of, false);
        std::mem::take(&mut shown.awaited)
    }

    /// Whether a revision of an Application is shown.
    pub(super) fn shows(&self, key: &Key, name: &str) -> bool {
        lock(&self.0).of.get(key).is_some_and(|its| its.contains_key(name))
    }

    /// One came, or changed. Answers whether its Application waits for that.
    pub(super) fn came(&self, key: &Key, kept: Kept) -> bool {
        let mut shown = lock(&self.0);
        shown.of.entry(key.clone()).or_default().insert(kept.name.clone(), kept);
        shown.awaited.remove(key)
    }

    /// One is gone.
    pub(super) fn went(&self, key: &Key, name: &str) {
        let mut shown = lock(&self.0);
        let Some(its) = shown.of.get_mut(key) else { return };
        its.remove(name);
        if its.is_empty() {
            shown.of.remove(key);
        }
    }

    /// They may not be watched. Answers the Applications that wait for what would be seen.
    pub(super) fn shut(&self) -> BTreeSet<Key> {
        let mut shown = lock(&self.0);
        shown.of.clear();
        shown.unwatched = true;
        std::mem::take(&mut shown.awaited)
    }

    /// Nobody waits any more for those that are not there.
    pub(super) fn retain(&self, there: impl Fn(&Key) -> bool) {
        lock(&self.0).awaited.retain(there);
    }

    /// The revisions of an Application, of which `last` was kept last.
    pub(super) fn of(&self, key: &Key, last: &str) -> Known {
        let mut shown = lock(&self.0);
        if shown.unwatched {
            return Known::Unwatched;
        }
        match shown.of.get(key).filter(|its| its.contains_key(last)) {
            Some(its) => Known::All(its.values().cloned().collect()),
            None => {
                shown.awaited.insert(key.clone());
                Known::Behind
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("shop".into(), name.into())
    }

    fn kept(name: &str, version: &str) -> Kept {
        Kept {
            name: name.into(),
            uid: Some(name.into()),
            version: Some(version.into()),
            owners: Vec::new(),
            goes: false,
        }
    }

    fn names(known: Known) -> Vec<String> {
        match known {
            Known::All(all) => all.into_iter().map(|kept| kept.name).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn what_was_kept_last_is_waited_for_and_the_rest_is_shown_by_then() {
        let (sight, web) = (Sight::default(), key("web"));
        assert_eq!(sight.of(&web, "web-1"), Known::Behind, "nothing was listed yet");
        assert_eq!(sight.listed([(web.clone(), kept("web-0", "1"))]), BTreeSet::from([web.clone()]));
        assert_eq!(sight.of(&web, "web-1"), Known::Behind);
        assert!(!sight.came(&key("other"), kept("other-0", "2")), "another's");
        assert!(sight.came(&web, kept("web-1", "3")));
        assert!(!sight.came(&web, kept("web-1", "4")), "nobody waits any more");
        assert_eq!(names(sight.of(&web, "web-1")), ["web-0", "web-1"]);
        sight.went(&web, "web-0");
        assert_eq!(sight.of(&web, "web-1"), Known::All(vec![kept("web-1", "4")]), "as it is now");
        sight.went(&web, "web-1");
        sight.went(&key("other"), "other-0");
        assert!(lock(&sight.0).of.is_empty(), "nothing is left of those that are gone");
    }

    #[test]
    fn what_may_not_be_watched_is_asked_for_until_it_may() {
        let (sight, web) = (Sight::default(), key("web"));
        assert_eq!(sight.of(&web, "web-1"), Known::Behind);
        assert_eq!(sight.shut(), BTreeSet::from([web.clone()]));
        assert_eq!(sight.of(&web, "web-1"), Known::Unwatched);
        sight.listed([(web.clone(), kept("web-1", "1"))]);
        assert_eq!(names(sight.of(&web, "web-1")), ["web-1"]);
    }

    #[test]
    fn nobody_waits_for_those_that_are_gone() {
        let (sight, web) = (Sight::default(), key("web"));
        assert_eq!(sight.of(&web, "web-1"), Known::Behind);
        sight.retain(|_| false);
        assert!(!sight.came(&web, kept("web-1", "1")));
    }
}
