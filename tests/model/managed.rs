//! Who manages which fields, and what becomes of it when somebody writes.

use super::schema::Type;
use super::set::Set;
use super::typed::{self, compare, merge, set_of, with_named, without};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How many managers that updated are remembered one by one.
const MOST_UPDATERS: usize = 10;

/// Who wrote how: what an entry is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The field manager.
    pub manager: String,
    /// By server-side apply.
    pub applied: bool,
    /// The version in which it updated; empty for an apply.
    pub version: String,
    /// Through which subresource.
    pub subresource: String,
}

impl Who {
    /// Somebody who applies, or updates in a version.
    pub fn new(manager: &str, applied: bool, version: &str, subresource: &str) -> Who {
        Who {
            manager: if manager.is_empty() { "unknown".into() } else { manager.into() },
            applied,
            version: if applied { String::new() } else { version.into() },
            subresource: subresource.into(),
        }
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The version of the paths.
    pub version: String,
    /// The fields.
    pub set: Set,
    /// When it last changed.
    pub time: String,
}

/// All entries of an object.
#[derive(Clone, Debug, Default)]
pub struct Managers(pub BTreeMap<Who, Entry>);

/// A write: of what type, by whom, in which version, and what it does not manage.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The object's type.
    pub of: &'a Type,
    /// Fields that this way of writing does not reach.
    pub ignored: &'a Set,
    /// Who writes.
    pub who: &'a Who,
    /// The version of the paths.
    pub version: &'a str,
}

/// Another manager has fields that were to change.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// Who.
    pub who: Who,
    /// Which.
    pub fields: Set,
}

/// How a time is written.
pub fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Managers {
    /// Those of an object.
    pub fn of(object: &Value) -> Managers {
        Managers::decode(&object["metadata"]["managedFields"]).unwrap_or_default()
    }

    /// From `managedFields`; `None` if they cannot be read.
    pub fn decode(entries: &Value) -> Option<Managers> {
        let mut out = BTreeMap::new();
        for entry in entries.as_array().into_iter().flatten() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default();
            let applied = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            };
            if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
                return None;
            }
            let who = Who {
                manager: text("manager").into(),
                applied,
                version: if applied { String::new() } else { text("apiVersion").into() },
                subresource: text("subresource").into(),
            };
            let set = Set::decode(&entry["fieldsV1"]);
            out.insert(who, Entry { version: text("apiVersion").into(), set, time: text("time").into() });
        }
        Some(Managers(out))
    }

    /// As `managedFields`; `None` if there are none.
    pub fn encode(&self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        let mut entries: Vec<(&Who, &Entry)> = self.0.iter().collect();
        entries.sort_by_key(|(who, entry)| {
            (!who.applied, &entry.time, &who.manager, &entry.version, &who.subresource)
        });
        let entries = entries.into_iter().map(|(who, entry)| {
            let mut out = Map::new();
            out.insert("apiVersion".into(), entry.version.as_str().into());
            out.insert("fieldsType".into(), "FieldsV1".into());
            out.insert("fieldsV1".into(), entry.set.encode());
            out.insert("manager".into(), who.manager.as_str().into());
            out.insert("operation".into(), if who.applied { "Apply" } else { "Update" }.into());
            if !who.subresource.is_empty() {
                out.insert("subresource".into(), who.subresource.as_str().into());
            }
            if !entry.time.is_empty() {
                out.insert("time".into(), entry.time.as_str().into());
            }
            Value::Object(out)
        });
        Some(Value::Array(entries.collect()))
    }

    /// Writes them into an object.
    pub fn write(&self, object: &mut Value) {
        let encoded = self.encode();
        if let Some(meta) = object["metadata"].as_object_mut() {
            match encoded {
                Some(entries) => drop(meta.insert("managedFields".into(), entries)),
                None => drop(meta.remove("managedFields")),
            }
        }
    }

    /// Takes from all others what changes from `old` to `new`; without force that is a conflict.
    fn take(
        &mut self,
        of: &Type,
        old: &Value,
        new: &Value,
        ignored: &Set,
        who: Option<&Who>,
        force: bool,
    ) -> Result<typed::Difference, Vec<Conflict>> {
        let mut change = compare(of, Some(old), Some(new));
        for set in [&mut change.removed, &mut change.modified, &mut change.added] {
            set.subtract_all_below(ignored);
        }
        let mut written = change.modified.clone();
        written.unite(&change.added);
        let mut conflicts = Vec::new();
        for (other, entry) in &self.0 {
            if Some(other) == who {
                continue;
            }
            let fields = entry.set.intersection(&written);
            if !fields.is_empty() {
                conflicts.push(Conflict { who: other.clone(), fields });
            }
        }
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        for conflict in &conflicts {
            if let Some(entry) = self.0.get_mut(&conflict.who) {
                entry.set.subtract(&conflict.fields);
            }
        }
        for (other, entry) in &mut self.0 {
            if Some(other) != who {
                entry.set.subtract(&change.removed);
            }
        }
        self.0.retain(|_, entry| !entry.set.is_empty());
        Ok(change)
    }

    /// Somebody replaced `old` by `new`.
    pub fn update(&mut self, write: Write<'_>, old: &Value, new: &Value, now: Timestamp) {
        let Write { of, ignored, who, version } = write;
        // Forced: there is no conflict.
        let Ok(change) = self.take(of, old, new, ignored, None, true) else { return };
        let mut set = change.modified;
        set.unite(&change.added);
        set.subtract_all_below(ignored);
        set.subtract(&never_managed());
        if !set.is_empty() {
            let entry = Entry { version: version.into(), set, time: time(now) };
            match self.0.get_mut(who) {
                Some(mine) => {
                    mine.set.unite(&entry.set);
                    mine.version = entry.version;
                    mine.time = entry.time;
                }
                None => drop(self.0.insert(who.clone(), entry)),
            }
        }
        self.cap();
    }

    /// The oldest updaters become one.
    fn cap(&mut self) {
        let mut updaters: Vec<Who> = self.0.keys().filter(|w| !w.applied).cloned().collect();
        if updaters.len() <= MOST_UPDATERS {
            return;
        }
        updaters.sort_by_key(|who| (self.0[who].time.clone(), who.clone()));
        let mut length = updaters.len();
        let mut first: BTreeMap<String, Who> = BTreeMap::new();
        for who in updaters {
            if length <= MOST_UPDATERS {
                break;
            }
            let version = self.0[&who].version.clone();
            let bucket = Who::new("ancient-changes", false, &version, "");
            match first.get(&version) {
                None => drop(first.insert(version, who)),
                Some(one) => {
                    if !self.0.contains_key(&bucket)
                        && let Some(entry) = self.0.remove(one)
                    {
                        self.0.insert(bucket.clone(), entry);
                    }
                    if let Some(entry) = self.0.remove(&who)
                        && let Some(old) = self.0.get_mut(&bucket)
                    {
                        old.set.unite(&entry.set);
                        old.time = entry.time;
                    }
                    length -= 1;
                }
            }
        }
    }

    /// Somebody applied `config`. `None`: nothing of the object changed (who owns what may have).
    pub fn apply(
        &mut self,
        write: Write<'_>,
        live: &Value,
        config: &Value,
        force: bool,
    ) -> Result<Option<Value>, Vec<Conflict>> {
        let Write { of, ignored, who, version } = write;
        let merged = merge(of, Some(live), Some(config)).unwrap_or(Value::Null);
        let last = self.0.get(who).map(|entry| entry.set.clone());
        let mut set = set_of(of, config);
        set.subtract_all_below(ignored);
        let time = self.0.get(who).map(|entry| entry.time.clone()).unwrap_or_default();
        self.0.insert(who.clone(), Entry { version: version.into(), set, time });
        let new = match last {
            Some(last) if !last.is_empty() => self.prune(of, merged, &last),
            _ => merged,
        };
        self.take(of, live, &new, ignored, Some(who), force)?;
        if let Some(mine) = self.0.get_mut(who) {
            mine.set.subtract(&never_managed());
        }
        self.0.retain(|_, entry| !entry.set.is_empty());
        Ok((new != *live).then_some(new))
    }

    /// Takes out what was applied last time and is not now, unless somebody else has it.
    fn prune(&self, of: &Type, merged: Value, last: &Set) -> Value {
        let mut managed = Set::default();
        for entry in self.0.values() {
            managed.unite(&entry.set);
        }
        let mut unowned = last.clone();
        unowned.subtract(&managed);
        if unowned.is_empty() {
            return merged;
        }
        let last = with_named(of, last);
        let pruned = without(of, &merged, &last).unwrap_or(Value::Null);
        let everything = with_named(of, &set_of(of, &merged));
        let mut gone = everything.clone();
        let mut stays = with_named(of, &set_of(of, &pruned));
        stays.unite(&with_named(of, &managed));
        gone.subtract(&stays);
        let pruned = without(of, &merged, &gone).unwrap_or(Value::Null);
        let mut gone = everything;
        gone.subtract(&with_named(of, &set_of(of, &pruned)));
        without(of, &merged, &gone.intersection(&last)).unwrap_or(Value::Null)
    }
}

/// Fields that nobody manages.
fn never_managed() -> Set {
    static NAMES: std::sync::OnceLock<Set> = std::sync::OnceLock::new();
    let make = || {
        Set::of_fields(&[
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", "managedFields"],
            &["metadata", "resourceVersion"],
        ])
    };
    NAMES.get_or_init(make).clone()
}

/// What the server says of conflicts.
pub fn conflict_message(conflicts: &[Conflict]) -> (String, Vec<Value>) {
    let mut causes = Vec::new();
    let mut said = Vec::new();
    for conflict in conflicts {
        for field in conflict.fields.shown() {
            let who = format!("conflict with {:?}", conflict.who.manager);
            said.push(format!("{who}: {field}"));
            causes.push(json!({"reason": "FieldManagerConflict", "message": who, "field": field}));
        }
    }
    let count = said.len();
    let ending = if count == 1 { "" } else { "s" };
    (format!("Apply failed with {count} conflict{ending}: {}", said.join("\n- ")), causes)
}
