//! What is stored: the objects, and what became of them since versions were last forgotten.

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Kind, namespace, name.
pub type Key = (usize, String, String);

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version that it made.
    pub version: u64,
    /// Which object.
    pub key: Key,
    /// As it was.
    pub old: Option<Arc<Value>>,
    /// As it is; of one that was deleted the last state, with the version of the deletion.
    pub new: Arc<Value>,
    /// It was deleted.
    pub deleted: bool,
}

/// The store.
#[derive(Clone, Debug)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    changes: Vec<Change>,
    forgotten: usize,
    forgotten_version: u64,
    version: u64,
    uids: u64,
    /// The last change of each kind.
    changed: Vec<u64>,
    /// The last time that something went, was marked to go, or came with an owner.
    endings: u64,
}

impl Default for Store {
    fn default() -> Self {
        let (objects, changes) = (BTreeMap::new(), Vec::new());
        Store {
            objects,
            changes,
            forgotten: 0,
            forgotten_version: 0,
            version: 100,
            uids: 0,
            changed: Vec::new(),
            endings: 0,
        }
    }
}

impl Store {
    /// The last version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version of the last change of a kind.
    pub fn changed(&self, at: usize) -> u64 {
        self.changed.get(at).copied().unwrap_or(0)
    }

    /// The last version in which something went, was marked to go, or came with an owner.
    pub fn endings(&self) -> u64 {
        self.endings
    }

    fn note(&mut self, at: usize, ending: bool) {
        if self.changed.len() <= at {
            self.changed.resize(at + 1, 0);
        }
        self.changed[at] = self.version;
        if ending {
            self.endings = self.version;
        }
    }

    /// A new uid.
    pub fn uid(&mut self) -> String {
        self.uids += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.uids)
    }

    /// A number that was not given before.
    pub fn number(&mut self) -> u64 {
        self.uids += 1;
        self.uids
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.objects.values().map(|o| o.as_ref())
    }

    /// The objects of a kind.
    pub fn of_kind(&self, at: usize) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let first: Key = (at, String::new(), String::new());
        self.objects.range(first..).take_while(move |(key, _)| key.0 == at)
    }

    /// The objects of a kind in a namespace (`""`: in all) that come after `after`.
    pub fn list<'a>(
        &'a self,
        at: usize,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let first: Key = (at, namespace.to_string(), String::new());
        let range = self.objects.range(first..);
        range.take_while(move |(key, _)| key.0 == at && (namespace.is_empty() || key.1 == namespace))
    }

    /// One object.
    pub fn get(&self, at: usize, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&(at, namespace.to_string(), name.to_string()))
    }

    /// Writes an object, which gets a new version.
    pub fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), new.clone());
        let meta = &new["metadata"];
        self.note(
            key.0,
            !meta["deletionTimestamp"].is_null() || old.is_none() && meta["ownerReferences"].is_array(),
        );
        self.changes.push(Change { version: self.version, key, old, new: new.clone(), deleted: false });
        new
    }

    /// Removes an object; its last state, if it was there.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.remove(key)?;
        self.version += 1;
        self.note(key.0, true);
        let mut last = old.as_ref().clone();
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        let new = Arc::new(last);
        let change = Change {
            version: self.version,
            key: key.clone(),
            old: Some(old),
            new: new.clone(),
            deleted: true,
        };
        self.changes.push(change);
        Some(new)
    }

    /// The changes after a version, and where they end; `None` if they are forgotten.
    pub fn changes_after(&self, version: u64) -> Option<&[Change]> {
        if version < self.forgotten_version {
            return None;
        }
        let first = self.changes.partition_point(|change| change.version <= version);
        Some(&self.changes[first..])
    }

    /// The objects of a kind in a namespace as they were at a version; `None` if that is forgotten.
    pub fn list_at(&self, at: usize, namespace: &str, version: u64) -> Option<BTreeMap<Key, Arc<Value>>> {
        let changes = self.changes_after(version)?;
        let mut found: BTreeMap<Key, Arc<Value>> =
            self.list(at, namespace).map(|(key, object)| (key.clone(), object.clone())).collect();
        for change in changes.iter().rev() {
            if change.key.0 == at && (namespace.is_empty() || change.key.1 == namespace) {
                match &change.old {
                    Some(old) => drop(found.insert(change.key.clone(), old.clone())),
                    None => drop(found.remove(&change.key)),
                }
            }
        }
        Some(found)
    }

    /// Forgets all changes so far.
    pub fn compact(&mut self) {
        self.forgotten += self.changes.len();
        self.changes.clear();
        self.forgotten_version = self.version;
    }
}
