//! Which Deliveries depend on what, and how what they depend on stands: who becomes ready wakes who waits for it.

use crate::core::rollout::dependencies::{Key, Standing};
use crate::lock::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// A Delivery or a Repository that others depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// A Delivery.
    Delivery(Key),
    /// A Repository.
    Repository(Key),
}

/// How a Repository stands: the generation that was polled, and whether that went well.
pub type Polled = (i64, bool);

/// How Deliveries and Repositories stand, and who depends on them. What it holds is found out again by a restarted daemon
/// as each of them is looked at.
#[derive(Default)]
pub struct Dependencies(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    deliveries: BTreeMap<Key, Standing>,
    repositories: BTreeMap<Key, Polled>,
    on: BTreeMap<Key, BTreeSet<Node>>,
    dependents: BTreeMap<Node, BTreeSet<Key>>,
}

impl Inner {
    fn dependents(&self, node: &Node) -> Vec<Key> {
        self.dependents.get(node).into_iter().flatten().cloned().collect()
    }
}

impl Dependencies {
    /// How a Delivery stood when it was looked at last.
    pub fn standing(&self, key: &Key) -> Option<Standing> {
        lock(&self.0).deliveries.get(key).cloned()
    }

    /// How a Repository stood when it was polled last.
    pub fn polled(&self, key: &Key) -> Option<Polled> {
        lock(&self.0).repositories.get(key).copied()
    }

    /// Notes how a Delivery stands. Answers whom that concerns.
    #[must_use]
    pub fn note(&self, key: &Key, standing: Standing) -> Vec<Key> {
        let mut inner = lock(&self.0);
        if inner.deliveries.get(key) == Some(&standing) {
            return Vec::new();
        }
        inner.deliveries.insert(key.clone(), standing);
        inner.dependents(&Node::Delivery(key.clone()))
    }

    /// Notes how a Repository stands. Answers whom that concerns.
    #[must_use]
    pub fn note_repository(&self, key: &Key, polled: Polled) -> Vec<Key> {
        let mut inner = lock(&self.0);
        if inner.repositories.insert(key.clone(), polled) == Some(polled) {
            return Vec::new();
        }
        inner.dependents(&Node::Repository(key.clone()))
    }

    /// Notes what a Delivery depends on. Answers whom it concerns when that changed: all that depend on it, over however
    /// many others, since they may be in a cycle now.
    #[must_use]
    pub fn depends(&self, key: &Key, on: BTreeSet<Node>) -> Vec<Key> {
        let mut inner = lock(&self.0);
        let before = match on.is_empty() {
            true => inner.on.remove(key),
            false => inner.on.insert(key.clone(), on.clone()),
        };
        let before = before.unwrap_or_default();
        if before == on {
            return Vec::new();
        }
        for node in before.difference(&on) {
            if let Some(dependents) = inner.dependents.get_mut(node) {
                dependents.remove(key);
                if dependents.is_empty() {
                    inner.dependents.remove(node);
                }
            }
        }
        for node in on {
            inner.dependents.entry(node).or_default().insert(key.clone());
        }
        let mut concerned: BTreeSet<Key> = BTreeSet::new();
        let mut next = vec![key.clone()];
        while let Some(at) = next.pop() {
            for dependent in inner.dependents(&Node::Delivery(at)) {
                if concerned.insert(dependent.clone()) {
                    next.push(dependent);
                }
            }
        }
        concerned.remove(key);
        concerned.into_iter().collect()
    }

    /// Forgets a Delivery that is gone. Answers whom that concerns.
    #[must_use]
    pub fn forget(&self, key: &Key) -> Vec<Key> {
        let mut concerned = self.depends(key, BTreeSet::new());
        let mut inner = lock(&self.0);
        inner.deliveries.remove(key);
        concerned.extend(inner.dependents(&Node::Delivery(key.clone())));
        concerned
    }

    /// Forgets a Repository that is gone. Answers whom that concerns.
    #[must_use]
    pub fn forget_repository(&self, key: &Key) -> Vec<Key> {
        let mut inner = lock(&self.0);
        inner.repositories.remove(key);
        inner.dependents(&Node::Repository(key.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("shop".into(), name.into())
    }

    fn on(names: &[&str]) -> BTreeSet<Node> {
        names.iter().map(|n| Node::Delivery(key(n))).collect()
    }

    #[test]
    fn who_depends_is_woken_by_a_change_and_by_nothing_else() {
        let all = Dependencies::default();
        assert!(all.depends(&key("web"), on(&["db"])).is_empty());
        let ready = Standing { ready: true, ..Standing::default() };
        assert_eq!(all.note(&key("db"), ready.clone()), [key("web")]);
        assert!(all.note(&key("db"), ready.clone()).is_empty());
        assert!(all.depends(&key("web"), on(&[])).is_empty());
        assert!(all.note(&key("db"), Standing::default()).is_empty());
        assert_eq!(all.standing(&key("db")), Some(Standing::default()));
    }

    #[test]
    fn a_new_dependency_concerns_all_that_hang_on_it() {
        let all = Dependencies::default();
        assert!(all.depends(&key("a"), on(&["b"])).is_empty());
        assert_eq!(all.depends(&key("b"), on(&["c"])), [key("a")]);
        assert_eq!(all.depends(&key("c"), on(&["a"])), [key("a"), key("b")]);
        assert!(all.depends(&key("c"), on(&["a"])).is_empty(), "nothing new");
    }
}
