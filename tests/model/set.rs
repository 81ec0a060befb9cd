//! Sets of fields, as `managedFields` has them.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// One step to a field. Keys and values are kept as their JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// `f:`
    Field(String),
    /// `k:`
    Key(String),
    /// `v:`
    Value(String),
}

impl Step {
    fn encode(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Key(json) => format!("k:{json}"),
            Step::Value(json) => format!("v:{json}"),
        }
    }

    fn decode(text: &str) -> Option<Step> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Step::Field(rest.into())),
            // Read and written again: one order of keys.
            "k" => Some(Step::Key(serde_json::from_str::<Value>(rest).ok()?.to_string())),
            "v" => Some(Step::Value(rest.into())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Step {
    /// `.name`, `[key="value"]`, `[="value"]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(json) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Step::Value(json) => write!(f, "[={json}]"),
        }
    }
}

/// A set of paths: whether this one is in it, and the sets below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// This path is in it.
    pub member: bool,
    /// Below; none of them is empty.
    pub below: BTreeMap<Step, Set>,
}

impl Set {
    /// One that holds just this path.
    pub fn leaf() -> Set {
        Set { member: true, below: BTreeMap::new() }
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// Puts a set below a step; an empty one is left out.
    pub fn put(&mut self, step: Step, set: Set) {
        if !set.is_empty() {
            self.below.insert(step, set);
        }
    }

    /// The path of fields becomes a member.
    pub fn insert_fields(&mut self, path: &[&str]) {
        let mut at = self;
        for name in path {
            at = at.below.entry(Step::Field((*name).into())).or_default();
        }
        at.member = true;
    }

    /// A set of paths of fields.
    pub fn of_fields(paths: &[&[&str]]) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert_fields(path);
        }
        set
    }

    /// In either.
    pub fn unite(&mut self, other: &Set) {
        self.member |= other.member;
        for (step, set) in &other.below {
            match self.below.get_mut(step) {
                Some(mine) => mine.unite(set),
                None => drop(self.below.insert(step.clone(), set.clone())),
            }
        }
    }

    /// Not in the other.
    pub fn subtract(&mut self, other: &Set) {
        self.member &= !other.member;
        for (step, set) in &other.below {
            if let Some(mine) = self.below.get_mut(step) {
                mine.subtract(set);
                if mine.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }

    /// Neither in the other nor below what is in the other.
    pub fn subtract_all_below(&mut self, other: &Set) {
        if other.member {
            *self = Set::default();
            return;
        }
        for (step, set) in &other.below {
            if let Some(mine) = self.below.get_mut(step) {
                mine.subtract_all_below(set);
                if mine.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }

    /// In both.
    pub fn intersection(&self, other: &Set) -> Set {
        let mut out = Set { member: self.member && other.member, below: BTreeMap::new() };
        for (step, set) in &self.below {
            if let Some(theirs) = other.below.get(step) {
                out.put(step.clone(), set.intersection(theirs));
            }
        }
        out
    }

    /// As `FieldsV1`.
    pub fn encode(&self) -> Value {
        let mut out = Map::new();
        for (step, set) in &self.below {
            let mut inner = set.encode();
            if set.member
                && !set.below.is_empty()
                && let Some(inner) = inner.as_object_mut()
            {
                inner.insert(".".into(), Value::Object(Map::new()));
            }
            out.insert(step.encode(), inner);
        }
        Value::Object(out)
    }

    /// From `FieldsV1`.
    pub fn decode(fields: &Value) -> Set {
        let mut out = Set::default();
        for (key, inner) in fields.as_object().into_iter().flatten() {
            let Some(step) = Step::decode(key) else { continue };
            let mut set = Set::decode(inner);
            set.member = inner.as_object().is_none_or(|o| o.is_empty() || o.contains_key("."));
            out.put(step, set);
        }
        out
    }

    /// All paths, as the server writes them for people.
    pub fn shown(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.show("", &mut out);
        out
    }

    fn show(&self, at: &str, out: &mut Vec<String>) {
        if self.member {
            out.push(at.to_string());
        }
        for (step, set) in &self.below {
            set.show(&format!("{at}{step}"), out);
        }
    }

    /// All paths, each as its steps joined.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, at: &str, out: &mut Vec<String>) {
        if self.member {
            out.push(at.to_string());
        }
        for (step, set) in &self.below {
            set.collect(&format!("{at}/{}", step.encode()), out);
        }
    }
}
