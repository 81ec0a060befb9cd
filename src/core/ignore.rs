//! Fields that are left to others: what a Delivery's `spec.drift.ignore` names, and what has a rightful owner by itself
//! ([`super::rightful`]).
//!
//! What is left to others counts in Git only when the object is created. From then on it is no drift, and neither a
//! correction nor a new revision touches it: the manifest is changed into one that says nothing about it before it is compared or
//! applied. Saying nothing is not always leaving it out. A field that we still own alone would vanish (or fall back to a
//! default) by being left out, and a part of a list that counts as one value cannot be: there the live value is applied.

use super::diff::{Certainty, ChangeKind};
use super::drift::{DriftedField, ObjectDrift};
use super::expression::{Expression, ExpressionError};
use super::fields::{
    ListShape, Operation, Path, PathSet, Segment, find_item, is_server_metadata, item_segment, list_shape,
    owned_by, owners,
};
use super::selector::{Selector, SelectorError};
use crate::api::ignore::{IgnoreRule, IgnoreTarget};
use crate::api::names::{DELIVERY_LABEL, FIELD_MANAGER};
use serde_json::{Map, Value};

/// The rules of a Delivery, read and checked.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    target: Target,
    paths: Vec<Pattern>,
    managers: Vec<String>,
    cel: Option<Expression>,
}

#[derive(Debug, Default)]
struct Target {
    group: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<Selector>,
}

/// Why a rule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It names nothing.
    #[error(
        "spec.drift.ignore[{0}] names neither paths nor managers; the path \"\" stands for the whole object"
    )]
    Empty(usize),
    /// A path is no JSON pointer.
    #[error(
        "spec.drift.ignore[{rule}].paths: \"{path}\" is no JSON pointer; it begins with /, and within a name / is written \
         ~1 and ~ is written ~0"
    )]
    Pointer {
        /// Which rule.
        rule: usize,
        /// The path.
        path: String,
    },
    /// The expression cannot be read.
    #[error("spec.drift.ignore[{rule}].cel: {source}")]
    Expression {
        /// Which rule.
        rule: usize,
        /// Why.
        source: ExpressionError,
    },
    /// The label selector cannot be read.
    #[error("spec.drift.ignore[{rule}].target.labelSelector: {source}")]
    Selector {
        /// Which rule.
        rule: usize,
        /// Why.
        source: SelectorError,
    },
}

/// A JSON pointer in which `*` stands for any text of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

impl Pattern {
    /// Reads a pointer; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Pattern(Vec::new()));
        }
        let rest = text.strip_prefix('/')?;
        rest.split('/').map(unescaped).collect::<Option<_>>().map(Pattern)
    }

    /// Of the names of fields; `*` as in a pointer.
    pub fn of(names: &[&str]) -> Self {
        Pattern(names.iter().map(|n| (*n).to_owned()).collect())
    }
}

fn unescaped(segment: &str) -> Option<String> {
    let mut parts = segment.split('~');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (letter, rest) = match (part.strip_prefix('0'), part.strip_prefix('1')) {
            (Some(rest), _) => ('~', rest),
            (_, Some(rest)) => ('/', rest),
            _ => return None,
        };
        out.push(letter);
        out.push_str(rest);
    }
    Some(out)
}

/// The pointer that names a field in a rule's `paths`.
pub fn pointer(path: &Path) -> String {
    let escaped = |text: &str| text.replace('~', "~0").replace('/', "~1");
    let text = |step: &Segment| match step {
        Segment::Field(name) => name.clone(),
        Segment::Key(keys) => {
            keys.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect::<Vec<_>>().join(",")
        }
        Segment::Value(value) => plain(value),
        Segment::Index(index) => index.to_string(),
    };
    path.segments().iter().map(|step| format!("/{}", escaped(&text(step)))).collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a text is as a pattern in which `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl Rules {
    /// Reads the rules of a Delivery.
    pub fn parse(rules: &[IgnoreRule]) -> Result<Self, RuleError> {
        rules.iter().enumerate().map(|(at, rule)| Rule::parse(at, rule)).collect::<Result<_, _>>().map(Rules)
    }

    /// Whether a rule may be about an object of the bundle.
    pub fn concern(&self, desired: &Value) -> bool {
        self.0.iter().any(|rule| rule.target.matches(desired))
    }

    /// Whether what is left to others in an object of the bundle depends on how it is: on who has a field, or on an expression.
    pub fn depend_on_live(&self, desired: &Value) -> bool {
        let depends = |rule: &Rule| !rule.managers.is_empty() || rule.cel.is_some();
        self.0.iter().any(|rule| depends(rule) && rule.target.matches(desired))
    }

    /// What the rules leave to others in an object that is there.
    pub fn exemptions(&self, desired: &Value, live: &Value) -> Vec<Exemption> {
        let holds = |rule: &&Rule| rule.cel.as_ref().is_none_or(|cel| cel.holds(live) == Ok(true));
        let meant = self.0.iter().filter(|rule| rule.target.matches(desired)).filter(holds);
        meant
            .map(|rule| Exemption {
                paths: if rule.paths.is_empty() { vec![Pattern(Vec::new())] } else { rule.paths.clone() },
                theirs: (!rule.managers.is_empty())
                    .then(|| of_managers(live, |m| rule.managers.iter().any(|r| glob(r, m)))),
            })
            .collect()
    }
}

/// What managers, ourselves left out, have in an object.
pub(super) fn of_managers(live: &Value, is: impl Fn(&str) -> bool) -> PathSet {
    let theirs = owners(live).into_iter().filter(|o| o.manager != FIELD_MANAGER && is(&o.manager));
    theirs.fold(PathSet::default(), |set, owner| set.union(&owner.fields))
}

impl Rule {
    fn parse(rule: usize, of: &IgnoreRule) -> Result<Self, RuleError> {
        if of.paths.is_empty() && of.managers.is_empty() {
            return Err(RuleError::Empty(rule));
        }
        let pattern =
            |path: &String| Pattern::parse(path).ok_or(RuleError::Pointer { rule, path: path.clone() });
        let cel = of.cel.as_deref().map(Expression::parse).transpose();
        let none = IgnoreTarget::default();
        let target = of.target.as_ref().unwrap_or(&none);
        let labels = target.label_selector.as_deref().map(Selector::parse).transpose();
        Ok(Rule {
            target: Target {
                group: target.group.clone(),
                kind: target.kind.clone(),
                name: target.name.clone(),
                namespace: target.namespace.clone(),
                labels: labels.map_err(|source| RuleError::Selector { rule, source })?,
            },
            paths: of.paths.iter().map(pattern).collect::<Result<_, _>>()?,
            managers: of.managers.clone(),
            cel: cel.map_err(|source| RuleError::Expression { rule, source })?,
        })
    }
}

impl Target {
    fn matches(&self, object: &Value) -> bool {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let api = text(&object["apiVersion"]);
        let group = api.split_once('/').map_or("", |(group, _)| group);
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
        let metadata = &object["metadata"];
        is(&self.group, group)
            && is(&self.kind, &text(&object["kind"]))
            && is(&self.namespace, &text(&metadata["namespace"]))
            && self.name.as_deref().is_none_or(|name| glob(name, &text(&metadata["name"])))
            && self.labels.as_ref().is_none_or(|labels| labels.matches(metadata["labels"].as_object()))
    }
}

/// Fields of one object that are left to others.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemption {
    /// Where.
    pub paths: Vec<Pattern>,
    /// Only what is in this set, where it is given: what others have.
    pub theirs: Option<PathSet>,
}

/// A manifest that says nothing about what is left to others.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    /// The manifest.
    pub desired: Value,
    /// What is left, as far as Git or the cluster has it.
    pub paths: Vec<Path>,
    /// Whether the manifest is another than Git's.
    pub changed: bool,
    /// Whether values of the cluster stand in it: applied to another state of the object they would undo a change.
    pub quotes: bool,
}

impl Left {
    /// Nothing is left to others.
    pub fn nothing(desired: Value) -> Self {
        Left { desired, paths: Vec::new(), changed: false, quotes: false }
    }

    /// Of what differs from [`Left::desired`], what nobody else is in charge of.
    ///
    /// A field that our own apply wrote, and not as our own but by an update, was changed on its way by an admission webhook:
    /// it is changed again each time, so that only a dry-run can tell whether anything differs.
    pub fn rest(&self, found: ObjectDrift) -> ObjectDrift {
        let retained = |mut fields: Vec<DriftedField>| {
            fields.retain(|f| {
                !(self.covers(&f.path) || f.kind == ChangeKind::Ownership && self.touches(&f.path))
            });
            for field in &mut fields {
                if field.manager.as_deref() == Some(FIELD_MANAGER)
                    && field.operation == Some(Operation::Update)
                {
                    field.certainty = Certainty::Doubtful;
                }
            }
            fields
        };
        match found {
            ObjectDrift::Modified(fields) => match retained(fields) {
                fields if fields.is_empty() => ObjectDrift::InSync,
                fields => ObjectDrift::Modified(fields),
            },
            ObjectDrift::Unlabelled(fields) => ObjectDrift::Unlabelled(retained(fields)),
            other => other,
        }
    }

    /// Whether a field, or all that differs about it, is left to others.
    pub fn covers(&self, path: &Path) -> bool {
        self.paths.iter().any(|left| left.covers(path))
    }

    /// Whether a part of a field is left to others.
    pub fn touches(&self, path: &Path) -> bool {
        self.paths.iter().any(|left| path.covers(left))
    }
}

/// Changes a manifest into one that says nothing about what is left to others in `live`.
pub fn leave(desired: &Value, live: &Value, exemptions: &[Exemption]) -> Left {
    let owned = owned_by(live, FIELD_MANAGER);
    let known = owners(live).iter().fold(owned.clone(), |set, owner| set.union(&owner.fields));
    let states: Vec<State> = exemptions
        .iter()
        .flat_map(|e| e.paths.iter().map(|p| State { rest: &p.0, theirs: e.theirs.as_ref() }))
        .collect();
    let mut walk = Walk { at: Vec::new(), paths: Vec::new(), quotes: false };
    let place = Place { live: Some(live), owned: Some(&owned), known: Some(&known), inside: false };
    let made = walk.node(Some(desired), place, &states).unwrap_or_else(|| desired.clone());
    let changed = made != *desired;
    Left { desired: made, paths: walk.paths, changed, quotes: walk.quotes }
}

/// How far one pattern is met on the way down.
#[derive(Clone, Copy)]
struct State<'a> {
    /// What is still to be met; empty within what is left.
    rest: &'a [String],
    /// What the others have here, if that counts.
    theirs: Option<&'a PathSet>,
}

impl<'a> State<'a> {
    fn matched(&self) -> bool {
        self.rest.is_empty() && self.theirs.is_none_or(PathSet::is_leaf)
    }

    /// One step down. `position` is that of an item in Git's list, `item` the item.
    fn step(&self, segment: &Segment, position: Option<usize>, item: Option<&Value>) -> Option<Self> {
        let rest = match self.rest.split_first() {
            None => self.rest,
            Some((first, rest)) if meets(first, segment, position, item) => rest,
            Some(_) => return None,
        };
        let theirs = match self.theirs {
            None => None,
            // Below what counts as one value all is theirs.
            Some(set) if set.is_leaf() => Some(set),
            Some(set) => Some(set.child(segment)?),
        };
        Some(State { rest, theirs })
    }
}

fn steps<'a>(
    states: &[State<'a>],
    segment: &Segment,
    position: Option<usize>,
    item: Option<&Value>,
) -> Vec<State<'a>> {
    states.iter().filter_map(|state| state.step(segment, position, item)).collect()
}

/// Whether a segment of a pattern stands for a step.
fn meets(wanted: &str, segment: &Segment, position: Option<usize>, item: Option<&Value>) -> bool {
    match segment {
        Segment::Field(name) => glob(wanted, name),
        Segment::Value(value) => glob(wanted, &plain(value)),
        Segment::Key(_) | Segment::Index(_) => {
            if wanted == "*" || position.is_some_and(|p| wanted == p.to_string()) {
                return true;
            }
            // `containerPort=80,protocol=TCP`: each that is named.
            wanted.contains('=')
                && wanted.split(',').all(|pair| {
                    let Some((key, value)) = pair.split_once('=') else { return false };
                    let from_key = match segment {
                        Segment::Key(keys) => keys.get(key),
                        _ => None,
                    };
                    let found = from_key.or_else(|| item.and_then(|i| i.get(key)));
                    found.is_some_and(|found| glob(value, &plain(found)))
                })
        }
    }
}

/// What stands in the cluster at one place.
#[derive(Clone, Copy)]
struct Place<'a> {
    live: Option<&'a Value>,
    owned: Option<&'a PathSet>,
    known: Option<&'a PathSet>,
    /// Within a value that counts as one.
    inside: bool,
}

impl<'a> Place<'a> {
    fn at(self, segment: &Segment, live: Option<&'a Value>) -> Self {
        Place {
            live,
            owned: self.owned.and_then(|s| s.child(segment)),
            known: self.known.and_then(|s| s.child(segment)),
            inside: self.inside,
        }
    }
}

struct Walk {
    at: Vec<Segment>,
    paths: Vec<Path>,
    quotes: bool,
}

impl Walk {
    /// What a manifest is to say here; `None` for nothing.
    fn node(&mut self, desired: Option<&Value>, place: Place, states: &[State]) -> Option<Value> {
        if states.is_empty() || self.is_ours() {
            return desired.cloned();
        }
        if !self.holds_ours() && states.iter().any(State::matched) {
            if desired.is_some() || place.live.is_some() {
                self.paths.push(Path(self.at.clone()));
            }
            let live = place.live?;
            let kept = if place.inside { Some(live.clone()) } else { part(live, place.owned?) };
            self.quotes |= kept.is_some();
            return kept;
        }
        match (desired, place.live) {
            (_, Some(Value::Object(found))) if desired.is_none_or(Value::is_object) => {
                let wanted = desired.and_then(Value::as_object);
                let inside = place.inside
                    || (!self.at.is_empty()
                        && !found.is_empty()
                        && place.known.is_some_and(PathSet::is_leaf));
                self.map(wanted, found, Place { inside, ..place }, states)
            }
            (_, Some(Value::Array(found))) if desired.is_none_or(Value::is_array) => {
                let wanted = desired.and_then(Value::as_array);
                self.list(wanted.map(Vec::as_slice), found, place, states)
            }
            _ => desired.cloned(),
        }
    }

    fn below(
        &mut self,
        segment: &Segment,
        desired: Option<&Value>,
        place: Place,
        states: &[State],
    ) -> Option<Value> {
        self.at.push(segment.clone());
        let made = self.node(desired, place, states);
        self.at.pop();
        made
    }

    fn map(
        &mut self,
        wanted: Option<&Map<String, Value>>,
        found: &Map<String, Value>,
        place: Place,
        states: &[State],
    ) -> Option<Value> {
        let mut out = Map::new();
        let names = wanted.into_iter().flat_map(Map::keys);
        let more = found.keys().filter(|name| wanted.is_none_or(|w| !w.contains_key(*name)));
        for name in names.chain(more) {
            let segment = Segment::field(name.as_str());
            let below = steps(states, &segment, None, None);
            let there = place.at(&segment, found.get(name));
            if let Some(value) = self.below(&segment, wanted.and_then(|w| w.get(name)), there, &below) {
                out.insert(name.clone(), value);
            }
        }
        let asked = wanted.is_some_and(Map::is_empty) || self.at.is_empty();
        (!out.is_empty() || asked).then_some(Value::Object(out))
    }

    fn list(
        &mut self,
        wanted: Option<&[Value]>,
        found: &[Value],
        place: Place,
        states: &[State],
    ) -> Option<Value> {
        let none: &[Value] = &[];
        let shape = match place.inside {
            true => ListShape::Atomic,
            false => list_shape(place.known).or_obvious(wanted.unwrap_or(none), found),
        };
        let mut out = Vec::new();
        match shape {
            ListShape::Keyed(keys) => {
                self.keyed(&keys, wanted.unwrap_or(none), found, place, states, &mut out)
            }
            ListShape::Set => {
                let more = found.iter().filter(|item| !wanted.unwrap_or(none).contains(item));
                for item in wanted.unwrap_or(none).iter().chain(more) {
                    let segment = Segment::Value(item.clone());
                    let below = steps(states, &segment, None, None);
                    let there = place.at(&segment, found.iter().find(|other| segment.matches(0, other)));
                    let wanted = wanted.and_then(|w| w.iter().find(|other| *other == item));
                    out.extend(self.below(&segment, wanted, there, &below));
                }
            }
            ListShape::Atomic | ListShape::Unknown => {
                // A list that Git does not have, and that counts as one value, is not begun for the sake of a part.
                let wanted = wanted?;
                for position in 0..wanted.len().max(found.len()) {
                    let (item, other) = (wanted.get(position), found.get(position));
                    let segment = Segment::Index(position);
                    let below = steps(states, &segment, Some(position), item.or(other));
                    let there = Place { live: other, owned: None, known: None, inside: true };
                    out.extend(self.below(&segment, item, there, &below));
                }
            }
        }
        let asked = wanted.is_some_and(<[Value]>::is_empty);
        (!out.is_empty() || asked).then_some(Value::Array(out))
    }

    fn keyed(
        &mut self,
        keys: &[String],
        wanted: &[Value],
        found: &[Value],
        place: Place,
        states: &[State],
        out: &mut Vec<Value>,
    ) {
        let mut seen = Vec::new();
        for (position, item) in wanted.iter().enumerate() {
            let other = find_item(keys, item, found);
            seen.extend(other.map(|(at, _)| at));
            let other = other.map(|(_, other)| other);
            let segment = item_segment(keys, other.unwrap_or(item));
            let below = steps(states, &segment, Some(position), Some(item));
            let made = self.below(&segment, Some(item), place.at(&segment, other), &below);
            let whole = below.iter().any(State::matched);
            match made {
                Some(value) => out.push(with_keys(value, keys, item)),
                None if whole => {}
                // What is left of the item is that it is wanted.
                None => out.push(with_keys(Value::Object(Map::new()), keys, item)),
            }
        }
        for (_, item) in found.iter().enumerate().filter(|(at, _)| !seen.contains(at)) {
            let segment = item_segment(keys, item);
            let below = steps(states, &segment, None, Some(item));
            if let Some(value) = self.below(&segment, None, place.at(&segment, Some(item)), &below) {
                out.push(with_keys(value, keys, item));
            }
        }
    }

    /// What makes an object ours, and what it is, is left to nobody.
    fn is_ours(&self) -> bool {
        is_server_metadata(&self.at)
            || matches!(self.at.as_slice(), [Segment::Field(top)] if top == "status")
            || matches!(self.at.as_slice(), [Segment::Field(top), Segment::Field(labels), Segment::Field(name)]
                if top == "metadata" && labels == "labels" && name == DELIVERY_LABEL)
    }

    /// Whether such a field stands below.
    fn holds_ours(&self) -> bool {
        match self.at.as_slice() {
            [] => true,
            [Segment::Field(top)] => top == "metadata",
            [Segment::Field(top), Segment::Field(labels)] => top == "metadata" && labels == "labels",
            _ => false,
        }
    }
}

/// An item with the fields that tell it apart.
fn with_keys(mut value: Value, keys: &[String], item: &Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        for key in keys {
            if let Some(own) = item.get(key) {
                map.insert(key.clone(), own.clone());
            }
        }
    }
    value
}

/// The part of a value that somebody owns; `None` for nothing.
fn part(live: &Value, owned: &PathSet) -> Option<Value> {
    if owned.is_empty() {
        return None;
    }
    if owned.is_leaf() {
        return Some(live.clone());
    }
    match live {
        Value::Object(found) => {
            let mut out = Map::new();
            for (segment, below) in owned.children() {
                let Segment::Field(name) = segment else { continue };
                if let Some(value) = found.get(name).and_then(|value| part(value, below)) {
                    out.insert(name.clone(), value);
                }
            }
            (!out.is_empty() || owned.is_member()).then_some(Value::Object(out))
        }
        Value::Array(found) => {
            // In the order in which they stand.
            let items = found.iter().enumerate().filter_map(|(at, item)| {
                let (segment, below) = owned.children().find(|(segment, _)| segment.matches(at, item))?;
                let value = part(item, below)?;
                Some(match segment {
                    Segment::Key(keys) => {
                        let keys: Vec<String> = keys.keys().cloned().collect();
                        with_keys(value, &keys, item)
                    }
                    _ => value,
                })
            });
            let out: Vec<Value> = items.collect();
            (!out.is_empty()).then_some(Value::Array(out))
        }
        _ => Some(live.clone()),
    }
}

#[cfg(test)]
mod tests;
