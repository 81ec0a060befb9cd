//! What somebody wants to see of the cluster, and what was seen of it.

use super::manifest::Gvk;
use std::collections::{BTreeMap, BTreeSet};

/// Objects of one kind in one place. Asked for with one list, however many objects are meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Look {
    /// The kind, in the version that is read.
    pub gvk: Gvk,
    /// The namespace, `""` for a kind without.
    pub namespace: String,
    /// The only object that is meant, by its name.
    pub name: Option<String>,
}

/// What was seen of a [`Look`].
#[derive(Clone, Debug, PartialEq)]
pub struct Shown<K> {
    /// What is kept of each object, by namespace and name.
    pub objects: BTreeMap<(String, String), K>,
    /// A complete list was seen.
    pub complete: bool,
    /// Why it cannot be seen, where waiting does not help.
    pub failing: Option<String>,
    /// The cluster does not serve the kind.
    pub unknown: bool,
}

impl<K> Default for Shown<K> {
    fn default() -> Self {
        Shown { objects: BTreeMap::new(), complete: false, failing: None, unknown: false }
    }
}

impl<K> Shown<K> {
    /// Whether it is known what there is, or that it cannot be known.
    pub fn is_settled(&self) -> bool {
        self.complete || self.failing.is_some() || self.unknown
    }
}

/// What was seen of each look.
pub type Seen<K> = BTreeMap<Look, Shown<K>>;

/// Wishes, gathered into as few lists as they take.
#[derive(Default)]
pub struct Looks(BTreeMap<(Gvk, String), Option<BTreeSet<String>>>);

impl Looks {
    /// One object is wanted.
    pub fn one(&mut self, gvk: Gvk, namespace: &str, name: &str) {
        let names = self.0.entry((gvk, namespace.to_owned())).or_insert_with(|| Some(BTreeSet::new()));
        if let Some(names) = names {
            names.insert(name.to_owned());
        }
    }

    /// All of a kind in a namespace are wanted. Answers whether that is new.
    pub fn all(&mut self, gvk: Gvk, namespace: &str) -> bool {
        self.0.insert((gvk, namespace.to_owned()), None) != Some(None)
    }

    /// The lists that show all of it.
    pub fn gathered(self) -> BTreeSet<Look> {
        let each = self.0.into_iter().map(|((gvk, namespace), names)| {
            let mut names = names.unwrap_or_default().into_iter();
            // Of several a selector cannot tell the names.
            let name = names.next().filter(|_| names.next().is_none());
            Look { gvk, namespace, name }
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_list_shows_all_that_is_wanted_of_a_kind() {
        let (pod, map) = (Gvk::new("v1", "Pod"), Gvk::new("v1", "ConfigMap"));
        let mut looks = Looks::default();
        looks.one(map.clone(), "a", "one");
        looks.one(map.clone(), "a", "one");
        looks.one(map.clone(), "b", "one");
        looks.one(map.clone(), "b", "two");
        looks.one(pod.clone(), "a", "web");
        assert!(looks.all(pod.clone(), "a"));
        assert!(!looks.all(pod.clone(), "a"));
        looks.one(pod.clone(), "a", "other");
        let look = |gvk: &Gvk, namespace: &str, name: Option<&str>| Look {
            gvk: gvk.clone(),
            namespace: namespace.into(),
            name: name.map(str::to_owned),
        };
        let wanted = [look(&map, "a", Some("one")), look(&map, "b", None), look(&pod, "a", None)];
        assert_eq!(looks.gathered(), BTreeSet::from(wanted));
    }
}
