//! The comparison of a manifest with the live object, led by who owns what.
//!
//! An edit by another manager takes the field out of our entry. So where we still own a field, nobody has changed it since our
//! apply, and a value that reads differently was spelt differently, was filled with defaults, or is wanted differently now.

use super::equal::{self, Same, is_zero};
use super::{Certainty, ChangeKind, FieldChange, KindOf, defaults};
use crate::core::fields::{
    ListShape, Path, PathSet, Segment, desired_paths, find_item, is_server_metadata, item_segment,
    list_shape, owners,
};
use serde_json::{Map, Value};

/// What an apply of `desired` would change in `live`, where `owned` is what our apply entry holds.
///
/// Values are compared as the API server sees them; lists by their keys where `managedFields` shows that they have keys, whole
/// otherwise. What others put beside our fields is no change. Paths that we own and that are not wanted are [`ChangeKind::Removed`],
/// wanted ones with the right value that we do not own [`ChangeKind::Ownership`]. Changes come in the order of the manifest,
/// removals last. `stringData` must be folded before ([`super::fold_string_data`]).
pub fn diff(desired: &Value, live: &Value, owned: &PathSet) -> Vec<FieldChange> {
    let known = owners(live).iter().fold(owned.clone(), |set, owner| set.union(&owner.fields));
    let mut walk = Walk { of: KindOf::new(desired), at: Vec::new(), out: Vec::new() };
    walk.value(desired, Some(live), Some(owned), Some(&known));
    let unwanted = owned.difference(&desired_paths(desired, &known));
    walk.unwanted(&unwanted, Some(live));
    walk.out
}

struct Walk<'a> {
    of: KindOf<'a>,
    at: Vec<Segment>,
    out: Vec<FieldChange>,
}

fn owns(owned: Option<&PathSet>) -> bool {
    owned.is_some_and(PathSet::is_member)
}

fn owns_below(owned: Option<&PathSet>) -> bool {
    owned.is_some_and(|set| !set.is_empty())
}

/// Doubtful where we own what is compared, see the head of this file.
fn unless(owned: bool) -> Certainty {
    if owned { Certainty::Doubtful } else { Certainty::Sure }
}

impl Walk<'_> {
    fn push(
        &mut self,
        kind: ChangeKind,
        certainty: Certainty,
        desired: Option<&Value>,
        live: Option<&Value>,
    ) {
        self.out.push(FieldChange {
            path: Path(self.at.clone()),
            desired: desired.cloned(),
            live: live.cloned(),
            kind,
            certainty,
        });
    }

    fn below(
        &mut self,
        segment: Segment,
        desired: &Value,
        live: Option<&Value>,
        owned: Option<&PathSet>,
        known: Option<&PathSet>,
    ) {
        let (owned, known) = (owned.and_then(|s| s.child(&segment)), known.and_then(|s| s.child(&segment)));
        self.at.push(segment);
        self.value(desired, live, owned, known);
        self.at.pop();
    }

    fn value(
        &mut self,
        desired: &Value,
        live: Option<&Value>,
        owned: Option<&PathSet>,
        known: Option<&PathSet>,
    ) {
        let null = live.is_some_and(Value::is_null);
        let live = live.filter(|v| !v.is_null());
        match (desired, live) {
            // null stands for "no value of ours": nothing, or the default.
            (Value::Null, Some(found)) if !owns(owned) || !defaults::is_default(self.of, &self.at, found) => {
                self.push(ChangeKind::Changed, Certainty::Doubtful, Some(desired), live);
            }
            (Value::Null, _) => {}
            // Custom resources keep a null as it is.
            (_, None) if null && !self.of.is_built_in() => {
                self.push(ChangeKind::Changed, Certainty::Doubtful, Some(desired), Some(&Value::Null));
            }
            (_, None) => self.missing(desired, owned),
            (Value::Object(wanted), Some(Value::Object(found))) => {
                self.map(desired, wanted, live, found, owned, known);
            }
            (Value::Array(wanted), Some(Value::Array(found))) => {
                self.list(desired, wanted, live, found, owned, known);
            }
            (_, Some(found)) => self.whole(desired, found, owned),
        }
    }

    /// A wanted value that is not there.
    fn missing(&mut self, desired: &Value, owned: Option<&PathSet>) {
        match desired {
            // An empty list with keys is owned by nobody, and built-in types do not write it.
            Value::Array(items) if items.is_empty() => {
                if !owns(owned) && !self.of.is_built_in() {
                    self.push(ChangeKind::Added, Certainty::Doubtful, Some(desired), None);
                }
            }
            // Built-in types leave out empty values. Had anybody removed it, we would not own it.
            _ if is_zero(desired) && owns(owned) => {}
            Value::Object(_) if is_zero(desired) => {
                // An empty map of labels is none; an empty struct can be a choice (`emptyDir`).
                if !(self.of.is_built_in() && defaults::is_free_map(&self.at)) {
                    self.push(ChangeKind::Added, Certainty::Doubtful, Some(desired), None);
                }
            }
            // A whole map of labels or data: each of its keys is told.
            Value::Object(wanted)
                if !wanted.is_empty() && self.is_outer() && !owned.is_some_and(PathSet::is_leaf) =>
            {
                self.map(desired, wanted, None, &Map::new(), owned, None);
            }
            _ if is_zero(desired) && self.of.is_built_in() => {
                self.push(ChangeKind::Ownership, Certainty::Sure, Some(desired), None);
            }
            _ => self.push(ChangeKind::Added, unless(owns_below(owned)), Some(desired), None),
        }
    }

    /// Whether this is a part of the object rather than a field: `spec`, `data`, `metadata.labels`.
    fn is_outer(&self) -> bool {
        match self.at.as_slice() {
            [] | [_] => true,
            [Segment::Field(top), _] => top == "metadata",
            _ => false,
        }
    }

    /// A value that counts as one.
    fn whole(&mut self, desired: &Value, live: &Value, owned: Option<&PathSet>) {
        match equal::same(self.of, &mut self.at, desired, live) {
            Same::Yes if owns(owned) => {}
            Same::Yes => self.push(ChangeKind::Ownership, Certainty::Sure, Some(desired), Some(live)),
            // That we would own it is sure where we do not; whether the value differs is not.
            Same::Perhaps => {
                self.push(ChangeKind::Changed, Certainty::Doubtful, Some(desired), Some(live));
            }
            // An empty value of a built-in type may be none to the server, which then fills in the default again.
            Same::No
                if self.of.is_built_in()
                    && (matches!(desired, Value::Array(items) if items.is_empty())
                        || (defaults::is_unset(&self.at, desired)
                            && defaults::is_default(self.of, &self.at, live))) =>
            {
                self.push(ChangeKind::Changed, Certainty::Doubtful, Some(desired), Some(live));
            }
            Same::No => self.push(ChangeKind::Changed, Certainty::Sure, Some(desired), Some(live)),
        }
    }

    fn map(
        &mut self,
        desired: &Value,
        wanted: &Map<String, Value>,
        live: Option<&Value>,
        found: &Map<String, Value>,
        owned: Option<&PathSet>,
        known: Option<&PathSet>,
    ) {
        let one_value = known.is_some_and(PathSet::is_leaf) && !self.at.is_empty();
        if wanted.is_empty() {
            let granular = known.is_some_and(|k| !k.is_leaf() && !k.is_empty());
            match owns(owned) {
                // A map is wanted and there is one: what is in it is others' business, and so is who owns the map itself (the
                // first key that anybody puts in takes it from us).
                _ if found.is_empty() || granular => {}
                // Ours, and filled with defaults, or until now ours with content.
                true => self.push(ChangeKind::Changed, Certainty::Doubtful, Some(desired), live),
                false if one_value => {
                    self.push(ChangeKind::Changed, Certainty::Sure, Some(desired), live);
                }
                false => self.push(ChangeKind::Changed, Certainty::Doubtful, Some(desired), live),
            }
            return;
        }
        if one_value {
            if let Some(live) = live {
                self.whole(desired, live, owned);
            }
            return;
        }
        for (name, value) in wanted {
            let segment = Segment::field(name.as_str());
            self.at.push(segment.clone());
            let skipped = is_server_metadata(&self.at)
                || (self.at.len() == 1
                    && name == "status"
                    && owned.and_then(|s| s.child(&segment)).is_none());
            self.at.pop();
            if !skipped {
                self.below(segment, value, found.get(name), owned, known);
            }
        }
    }

    fn list(
        &mut self,
        desired: &Value,
        wanted: &[Value],
        live: Option<&Value>,
        found: &[Value],
        owned: Option<&PathSet>,
        known: Option<&PathSet>,
    ) {
        let Some(live) = live else { return };
        match list_shape(known).or_obvious(wanted, found) {
            ListShape::Keyed(keys) => self.keyed(&keys, wanted, found, owned, known),
            ListShape::Set => {
                for item in wanted {
                    let there = found.iter().any(|other| Segment::Value(item.clone()).matches(0, other));
                    let ours = owned.and_then(|s| s.child(&Segment::Value(item.clone())));
                    self.at.push(Segment::Value(item.clone()));
                    match (there, ours.is_some()) {
                        (true, true) => {}
                        (true, false) => {
                            self.push(ChangeKind::Ownership, Certainty::Sure, Some(item), Some(item));
                        }
                        (false, ours) => self.push(ChangeKind::Added, unless(ours), Some(item), None),
                    }
                    self.at.pop();
                }
            }
            // No entry tells what this list is, so nobody owns any of it. It may be a set that has more.
            ListShape::Unknown => {
                if desired == live && !wanted.is_empty() {
                    self.push(ChangeKind::Ownership, Certainty::Sure, Some(desired), Some(live));
                } else if desired != live {
                    self.push(ChangeKind::Changed, Certainty::Doubtful, Some(desired), Some(live));
                }
            }
            ListShape::Atomic => self.whole(desired, live, owned),
        }
    }

    fn keyed(
        &mut self,
        keys: &[String],
        wanted: &[Value],
        found: &[Value],
        owned: Option<&PathSet>,
        known: Option<&PathSet>,
    ) {
        let mut places = Vec::new();
        for item in wanted {
            match find_item(keys, item, found) {
                None => {
                    let segment = item_segment(keys, item);
                    let ours = owned.and_then(|s| s.child(&segment));
                    let certainty = unless(owns_below(ours));
                    self.at.push(segment);
                    self.push(ChangeKind::Added, certainty, Some(item), None);
                    self.at.pop();
                }
                Some((place, other)) => {
                    places.push((place, item_segment(keys, item)));
                    self.below(item_segment(keys, other), item, Some(other), owned, known);
                }
            }
        }
        // An apply puts our items back into our order; items of others stay between them.
        if !places.is_sorted_by_key(|(place, _)| *place) {
            let wanted = order(keys, places.iter().map(|(_, segment)| segment));
            places.sort_by_key(|(place, _)| *place);
            let found = order(keys, places.iter().map(|(_, segment)| segment));
            self.push(ChangeKind::Changed, Certainty::Sure, Some(&wanted), Some(&found));
        }
    }

    /// What we own and do not want: the uppermost path of each.
    fn unwanted(&mut self, unwanted: &PathSet, live: Option<&Value>) {
        if unwanted.is_member() {
            match live {
                Some(_) => self.push(ChangeKind::Removed, Certainty::Sure, None, live),
                None => self.push(ChangeKind::Ownership, Certainty::Sure, None, None),
            }
            return;
        }
        for (segment, below) in unwanted.children() {
            self.at.push(segment.clone());
            self.unwanted(below, live.and_then(|v| segment.step(v)));
            self.at.pop();
        }
    }
}

/// The keys of items in their order: `["web", "log"]` for a single key.
fn order<'a>(keys: &[String], items: impl Iterator<Item = &'a Segment>) -> Value {
    items
        .filter_map(|segment| match segment {
            Segment::Key(values) if keys.len() == 1 => values.values().next().cloned(),
            Segment::Key(values) => Some(serde_json::json!(values)),
            _ => None,
        })
        .collect()
}
