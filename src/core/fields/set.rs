//! A set of paths, as a tree in which shared beginnings stand once.

use super::{Path, Segment};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of paths. Each node of the tree is a set itself: the paths below it.
///
/// A path can be a member while others below it are members too: an item of a list is, besides its fields. A member with
/// nothing below it is either a scalar, a list or map that counts as one value (*atomic*), or an empty map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathSet {
    member: bool,
    children: BTreeMap<Segment, PathSet>,
}

impl PathSet {
    /// From `fieldsV1`. What is not understood is left out.
    pub fn decode(fields: &Value) -> Self {
        let mut set = PathSet::default();
        let Value::Object(fields) = fields else { return set };
        set.member = fields.is_empty() || fields.contains_key(".");
        for (key, below) in fields {
            if let Some(segment) = Segment::decode(key) {
                set.children.insert(segment, PathSet::decode(below));
            }
        }
        set
    }

    /// As `fieldsV1`.
    pub fn encode(&self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.children.is_empty() {
            fields.insert(".".into(), Value::Object(Map::new()));
        }
        for (segment, below) in &self.children {
            fields.insert(segment.encode(), below.encode());
        }
        Value::Object(fields)
    }

    /// Whether it has no path.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(PathSet::is_empty)
    }

    /// Whether the path of this node is itself in the set.
    pub fn is_member(&self) -> bool {
        self.member
    }

    /// Whether the path of this node is in the set and nothing below it.
    pub fn is_leaf(&self) -> bool {
        self.member && self.children.is_empty()
    }

    /// The paths below one step.
    pub fn child(&self, segment: &Segment) -> Option<&PathSet> {
        self.children.get(segment)
    }

    /// The paths below a field.
    pub fn field(&self, name: &str) -> Option<&PathSet> {
        self.children.get(&Segment::Field(name.into()))
    }

    /// The steps that lead on, in order.
    pub fn children(&self) -> impl Iterator<Item = (&Segment, &PathSet)> {
        self.children.iter()
    }

    /// The paths below a path.
    pub fn at(&self, path: &[Segment]) -> Option<&PathSet> {
        path.iter().try_fold(self, |set, segment| set.child(segment))
    }

    /// Puts a path into the set.
    pub fn insert(&mut self, path: &[Segment]) {
        self.node(path).member = true;
    }

    /// Puts all of `other`'s paths below `path`.
    pub fn graft(&mut self, path: &[Segment], other: &PathSet) {
        let node = self.node(path);
        *node = node.union(other);
    }

    /// Takes out everything at and below one step and returns it.
    pub fn detach(&mut self, path: &[Segment]) -> PathSet {
        match path {
            [] => std::mem::take(self),
            [last] => self.children.remove(last).unwrap_or_default(),
            [first, rest @ ..] => self.children.get_mut(first).map(|c| c.detach(rest)).unwrap_or_default(),
        }
    }

    fn node(&mut self, path: &[Segment]) -> &mut PathSet {
        path.iter().fold(self, |node, segment| node.children.entry(segment.clone()).or_default())
    }

    /// Whether the path itself is in the set.
    pub fn contains(&self, path: &Path) -> bool {
        self.at(path.segments()).is_some_and(|node| node.member)
    }

    /// Whether whoever owns this set owns the value at `path`: the path is in it, or stands inside a value that counts as
    /// one, or has a member below it.
    pub fn touches(&self, path: &Path) -> bool {
        let mut node = self;
        for segment in path.segments() {
            match node.child(segment) {
                Some(next) => node = next,
                None => return node.is_leaf(),
            }
        }
        !node.is_empty()
    }

    /// All paths, parents before children, in order.
    pub fn paths(&self) -> Vec<Path> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, at: &mut Vec<Segment>, out: &mut Vec<Path>) {
        if self.member {
            out.push(Path(at.clone()));
        }
        for (segment, below) in &self.children {
            at.push(segment.clone());
            below.collect(at, out);
            at.pop();
        }
    }

    /// The paths that are in one of the two.
    pub fn union(&self, other: &PathSet) -> PathSet {
        let mut out = self.clone();
        out.add(other);
        out
    }

    fn add(&mut self, other: &PathSet) {
        self.member |= other.member;
        for (segment, below) in &other.children {
            self.children.entry(segment.clone()).or_default().add(below);
        }
    }

    /// The paths that are in this set and not in the other.
    pub fn difference(&self, other: &PathSet) -> PathSet {
        let mut out = PathSet { member: self.member && !other.member, ..PathSet::default() };
        for (segment, below) in &self.children {
            let rest = match other.child(segment) {
                Some(theirs) => below.difference(theirs),
                None => below.clone(),
            };
            if !rest.is_empty() {
                out.children.insert(segment.clone(), rest);
            }
        }
        out
    }
}

impl FromIterator<Path> for PathSet {
    fn from_iter<T: IntoIterator<Item = Path>>(paths: T) -> Self {
        let mut set = PathSet::default();
        for path in paths {
            set.insert(path.segments());
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn segment() -> impl Strategy<Value = Segment> {
        prop_oneof![
            "[ab]".prop_map(Segment::Field),
            "[ab]".prop_map(|n| Segment::Key([("name".to_owned(), json!(n))].into())),
            (0..2).prop_map(|n| Segment::Value(json!(n))),
        ]
    }

    fn paths() -> impl Strategy<Value = BTreeSet<Path>> {
        prop::collection::btree_set(prop::collection::vec(segment(), 1..4).prop_map(Path), 0..8)
    }

    proptest! {
        #[test]
        fn a_tree_of_paths_behaves_as_a_set(a in paths(), b in paths()) {
            let (sa, sb): (PathSet, PathSet) = (a.iter().cloned().collect(), b.iter().cloned().collect());
            let set = |s: &PathSet| s.paths().into_iter().collect::<BTreeSet<_>>();
            prop_assert_eq!(&set(&sa), &a);
            prop_assert_eq!(set(&sa.union(&sb)), a.union(&b).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(set(&sa.difference(&sb)), a.difference(&b).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(a.iter().all(|p| sa.contains(p)), true);
            prop_assert_eq!(sa.is_empty(), a.is_empty());
            if !a.is_empty() {
                prop_assert_eq!(PathSet::decode(&sa.encode()), sa);
            }
        }
    }
}
