//! Values by their types: what stands in them, how two differ, how they become one, what is taken out.
//!
//! The rules are those of structured merge and diff, which server-side apply is made of.

use super::schema::{ListKind, Scalar, Type};
use super::set::{Set, Step};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What tells an item of a list from the others; `Err` says why it cannot be told.
pub fn step_of(item: &Value, of: &Type, kind: &ListKind) -> Result<Step, String> {
    match kind {
        ListKind::Atomic => Err("invalid indexing of non-associative list".into()),
        ListKind::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(Step::Value(scalar.to_string())),
        },
        ListKind::Keyed(keys) => {
            let Value::Object(item) = item else {
                return Err("associative list with keys may not have non-map elements".into());
            };
            let mut found = Map::new();
            for key in keys {
                let default = || match of {
                    Type::Struct(s) => s.fields.get(key)?.default.as_ref(),
                    _ => None,
                };
                if let Some(value) = item.get(key).or_else(default) {
                    found.insert(key.clone(), value.clone());
                }
            }
            if found.is_empty() {
                let keys: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have \
                     default values for any key fields)",
                    keys.join(" ")
                ));
            }
            Ok(Step::Key(Value::Object(found).to_string()))
        }
    }
}

/// What does not fit, as the API server says it: `.spec.x: field not declared in schema`. `duplicates` are let be
/// in what is stored.
pub fn validate(of: &Type, value: &Value, duplicates: bool) -> Vec<String> {
    match (of, value) {
        (_, Value::Null) | (Type::Untyped, _) => Vec::new(),
        (Type::Scalar(scalar), value) => {
            let (fits, wanted) = match scalar {
                Scalar::Text | Scalar::Bytes => (value.is_string(), "string"),
                Scalar::Number => (value.is_number(), "numeric (int or float)"),
                Scalar::Bool => (value.is_boolean(), "boolean"),
                _ => (!value.is_object() && !value.is_array(), "any scalar"),
            };
            if fits { Vec::new() } else { vec![format!(": expected {wanted}, got {value}")] }
        }
        (Type::List { of, kind }, Value::Array(items)) => {
            let (mut out, mut seen) = (Vec::new(), BTreeSet::new());
            for (index, item) in items.iter().enumerate() {
                let inner = validate(of, item, duplicates);
                if *kind == ListKind::Atomic {
                    out.extend(inner.into_iter().map(|said| format!("[{index}]{said}")));
                    continue;
                }
                match step_of(item, of, kind) {
                    Err(said) => {
                        out.push(format!(": element {index}: {said}"));
                        return out;
                    }
                    Ok(step) => {
                        out.extend(inner.into_iter().map(|said| format!("{step}{said}")));
                        if !duplicates && seen.contains(&step) {
                            out.push(format!(": duplicate entries for key {step}"));
                        }
                        seen.insert(step);
                    }
                }
            }
            out
        }
        (Type::List { .. }, _) => vec![format!(": expected list, got {value}")],
        (_, Value::Object(fields)) => {
            let mut out = Vec::new();
            for (name, value) in fields {
                match of.field(name) {
                    Some(of) => {
                        let inner = validate(of, value, duplicates);
                        out.extend(inner.into_iter().map(|said| format!(".{name}{said}")));
                    }
                    None => {
                        out.push(format!(".{name}: field not declared in schema"));
                        return out;
                    }
                }
            }
            out
        }
        (_, value) => vec![format!(": expected map, got {value}")],
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Null) | None => true,
        _ => false,
    }
}

/// How a value is walked.
enum Shape<'a> {
    Leaf,
    Map(&'a Type),
    List(&'a Type, &'a ListKind),
}

fn shape<'a>(of: &'a Type, value: &Value) -> Shape<'a> {
    match of {
        Type::Scalar(_) => Shape::Leaf,
        Type::Struct(s) if s.atomic => Shape::Leaf,
        Type::Map { atomic: true, .. } => Shape::Leaf,
        Type::Struct(_) | Type::Map { .. } => Shape::Map(of),
        Type::List { kind: ListKind::Atomic, .. } => Shape::Leaf,
        Type::List { of, kind } => Shape::List(of, kind),
        Type::Untyped if value.is_object() => Shape::Map(of),
        Type::Untyped => Shape::Leaf,
    }
}

/// Everything that a value names.
pub fn set_of(of: &Type, value: &Value) -> Set {
    let mut out = Set::default();
    match shape(of, value) {
        Shape::Leaf => out.member = true,
        Shape::Map(of) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let Some(inner) = of.field(name) else { continue };
                let mut set = set_of(inner, value);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.member |= empty || !of.has_named(name);
                out.put(Step::Field(name.clone()), set);
            }
        }
        Shape::List(of, kind) => {
            for item in value.as_array().into_iter().flatten() {
                let Ok(step) = step_of(item, of, kind) else { continue };
                let mut set = set_of(of, item);
                set.member = true;
                out.put(step, set);
            }
        }
    }
    out
}

/// How two values differ.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// Only in the first.
    pub removed: Set,
    /// In both, with other values.
    pub modified: Set,
    /// Only in the second.
    pub added: Set,
}

impl Difference {
    fn put(&mut self, step: Step, inner: Difference) {
        if !inner.removed.is_empty() {
            self.removed.below.insert(step.clone(), inner.removed);
        }
        if !inner.modified.is_empty() {
            self.modified.below.insert(step.clone(), inner.modified);
        }
        if !inner.added.is_empty() {
            self.added.below.insert(step, inner.added);
        }
    }
}

/// How two values of a type differ; `None` is nothing there.
pub fn compare(of: &Type, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let mut out = Difference::default();
    if let (Some(old), Some(new)) = (old, new)
        && old == new
    {
        return out;
    }
    // Where there is no schema, what it is now decides; where both are there and unlike, the value changed.
    let unlike = matches!((of, old, new), (Type::Untyped, Some(a), Some(b))
        if a.is_object() != b.is_object() && !a.is_null() && !b.is_null());
    let Some(sample) = new.filter(|v| !v.is_null()).or(old).or(new) else { return out };
    match if unlike { Shape::Leaf } else { shape(of, sample) } {
        Shape::Leaf if unlike => {
            // What was or is a map loses or gets what is in it besides.
            let none = Some(&Value::Null);
            out = match old.is_some_and(Value::is_object) {
                true => compare(of, old, none),
                false => compare(of, none, new),
            };
            out.modified.member = true;
        }
        Shape::Leaf => leaf(&mut out, old, new),
        Shape::Map(_) | Shape::List(..) if is_empty(old) && is_empty(new) => leaf(&mut out, old, new),
        Shape::Map(of) => {
            let none = Map::new();
            let (olds, news) = (
                old.and_then(Value::as_object).unwrap_or(&none),
                new.and_then(Value::as_object).unwrap_or(&none),
            );
            for (name, value) in olds {
                if let Some(inner) = of.field(name) {
                    let other = news.get(name);
                    if other != Some(value) {
                        out.put(Step::Field(name.clone()), compare(inner, Some(value), other));
                    }
                }
            }
            for (name, value) in news {
                if !olds.contains_key(name)
                    && let Some(inner) = of.field(name)
                {
                    out.put(Step::Field(name.clone()), compare(inner, None, Some(value)));
                }
            }
            ends(&mut out, old, new);
        }
        Shape::List(of, kind) => {
            let (olds, news) = (index(old, of, kind), index(new, of, kind));
            let steps: BTreeSet<&Step> = olds.keys().chain(news.keys()).collect();
            let none = Vec::new();
            for step in steps {
                let (a, b) = (olds.get(step).unwrap_or(&none), news.get(step).unwrap_or(&none));
                match (a.len(), b.len()) {
                    (0 | 1, 0 | 1) => {
                        out.put(step.clone(), compare(of, a.first().copied(), b.first().copied()));
                    }
                    (2.., 2..) => {
                        if a != b {
                            out.modified.put(step.clone(), Set::leaf());
                        }
                    }
                    (2.., _) => {
                        let mut inner = b.first().map(|b| compare(of, None, Some(b))).unwrap_or_default();
                        inner.removed.member = true;
                        out.put(step.clone(), inner);
                    }
                    _ => {
                        let mut inner = a.first().map(|a| compare(of, Some(a), None)).unwrap_or_default();
                        inner.added.member = true;
                        out.put(step.clone(), inner);
                    }
                }
            }
            ends(&mut out, old, new);
        }
    }
    out
}

fn leaf(out: &mut Difference, old: Option<&Value>, new: Option<&Value>) {
    match (old, new) {
        (None, _) => out.added.member = true,
        (_, None) => out.removed.member = true,
        (Some(a), Some(b)) => out.modified.member = a != b,
    }
}

/// A map or list that came or went does so itself, besides what is in it.
fn ends(out: &mut Difference, old: Option<&Value>, new: Option<&Value>) {
    out.added.member |= old.is_none();
    out.removed.member |= new.is_none();
}

fn index<'a>(list: Option<&'a Value>, of: &Type, kind: &ListKind) -> BTreeMap<Step, Vec<&'a Value>> {
    let mut out: BTreeMap<Step, Vec<&Value>> = BTreeMap::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        if let Ok(step) = step_of(item, of, kind) {
            out.entry(step).or_default().push(item);
        }
    }
    out
}

/// Both in one; where both have a value, that of `new` stays. `None` is nothing at all.
pub fn merge(of: &Type, old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
    let (old, new) = match (old, new) {
        (None, only) | (only, None) => return only.cloned(),
        (Some(old), Some(new)) => (old, new),
    };
    let unlike =
        matches!(of, Type::Untyped) && old.is_object() != new.is_object() && !old.is_null() && !new.is_null();
    let sample = if new.is_null() { old } else { new };
    match if unlike { Shape::Leaf } else { shape(of, sample) } {
        Shape::Leaf => Some(new.clone()),
        Shape::Map(_) | Shape::List(..) if is_empty(Some(old)) && is_empty(Some(new)) => Some(new.clone()),
        Shape::Map(of) => {
            let none = Map::new();
            let (olds, news) = (old.as_object().unwrap_or(&none), new.as_object().unwrap_or(&none));
            let mut out = Map::new();
            for (name, value) in olds {
                let inner = of.field(name).unwrap_or(&Type::Untyped);
                if let Some(value) = merge(inner, Some(value), news.get(name)) {
                    out.insert(name.clone(), value);
                }
            }
            for (name, value) in news {
                if !olds.contains_key(name) {
                    out.insert(name.clone(), value.clone());
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        Shape::List(of, kind) => merge_lists(of, kind, old, new),
    }
}

/// The items in the order of `new`, those that only `old` has in between where they stood.
fn merge_lists(of: &Type, kind: &ListKind, old: &Value, new: &Value) -> Option<Value> {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let (olds, news) = (items(old), items(new));
    let steps = |items: &[Value]| -> Vec<Option<Step>> {
        items.iter().map(|item| step_of(item, of, kind).ok()).collect()
    };
    let (old_steps, new_steps) = (steps(&olds), steps(&news));
    let new_at: BTreeMap<&Step, usize> =
        new_steps.iter().enumerate().filter_map(|(i, s)| Some((s.as_ref()?, i))).collect();
    // An item that stands twice is not merged with the new one.
    let mut old_at: BTreeMap<&Step, Option<usize>> = BTreeMap::new();
    for (i, step) in old_steps.iter().enumerate() {
        if let Some(step) = step {
            old_at.entry(step).and_modify(|at| *at = None).or_insert(Some(i));
        }
    }
    let mut shared = new_steps.iter().flatten().filter(|step| old_at.contains_key(step));
    let mut next_shared = shared.next();
    let mut merged: BTreeSet<&Step> = BTreeSet::new();
    let mut out = Vec::new();
    let both = |step: &Step| {
        let old = old_at.get(step).copied().flatten().map(|i| &olds[i]);
        merge(of, old, new_at.get(step).map(|i| &news[*i]))
    };
    let (mut l, mut r) = (0, 0);
    while l < olds.len() || r < news.len() {
        if l < olds.len()
            && r < news.len()
            && let (Some(a), Some(b)) = (&old_steps[l], &new_steps[r])
        {
            if a == b {
                merged.insert(a);
                out.extend(both(a));
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if new_at.contains_key(a) && next_shared.is_some() && next_shared != Some(a) {
                l += 1;
                continue;
            }
        }
        if l < olds.len() {
            match &old_steps[l] {
                Some(step) if merged.contains(step) => l += 1,
                Some(step) if new_at.contains_key(step) => {}
                _ => {
                    out.push(olds[l].clone());
                    l += 1;
                    continue;
                }
            }
        }
        if r < news.len() {
            if let Some(step) = &new_steps[r] {
                merged.insert(step);
                out.extend(both(step));
                if next_shared == Some(step) {
                    next_shared = shared.next();
                }
            }
            r += 1;
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}

/// The value without what is in the set; `None` if nothing is left of it.
pub fn without(of: &Type, value: &Value, set: &Set) -> Option<Value> {
    match shape(of, value) {
        Shape::Leaf if matches!(of, Type::Scalar(_)) => Some(value.clone()),
        Shape::Leaf if matches!(of, Type::Untyped) && !value.is_array() => Some(value.clone()),
        Shape::Leaf => None,
        Shape::Map(of) => {
            let mut out = Map::new();
            for (name, value) in value.as_object()? {
                let below = set.below.get(&Step::Field(name.clone()));
                match below {
                    Some(set) if set.member => {}
                    Some(set) => {
                        let inner = of.field(name).unwrap_or(&Type::Untyped);
                        out.insert(name.clone(), without(inner, value, set).unwrap_or(Value::Null));
                    }
                    None => drop(out.insert(name.clone(), value.clone())),
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        Shape::List(of, kind) => {
            let mut out = Vec::new();
            for item in value.as_array()? {
                let below = step_of(item, of, kind).ok().and_then(|step| set.below.get(&step));
                match below {
                    Some(set) if set.member => {}
                    Some(set) => out.push(without(of, item, set).unwrap_or(Value::Null)),
                    None => out.push(item.clone()),
                }
            }
            (!out.is_empty()).then_some(Value::Array(out))
        }
    }
}

/// The set, and every field of a struct that something of it is below.
pub fn with_named(of: &Type, set: &Set) -> Set {
    let mut out = Set { member: set.member, below: BTreeMap::new() };
    for (step, inner) in &set.below {
        let (named, below_of) = match step {
            Step::Field(name) => (of.has_named(name) && !inner.below.is_empty(), of.field(name)),
            Step::Key(_) => (false, of.items().map(|(of, _)| of)),
            Step::Value(_) => (false, None),
        };
        let mut set = match below_of {
            Some(of) => with_named(of, inner),
            None => inner.clone(),
        };
        set.member |= named;
        out.below.insert(step.clone(), set);
    }
    out
}
