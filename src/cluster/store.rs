//! What one watch has seen: entries by place and by label value, and what is told when one changes.

use super::closely::{Closely, Watched};
use super::follow::Seen;
use super::watch::{Change, Entry, Event, Keep, Key, Sight};
use crate::api::names::DELIVERY_LABEL;
use crate::core::manifest::{Gvk, ObjectId};
use crate::lock::{lock, read, write};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::{mpsc, watch};

/// Namespace and name.
pub(super) type Place = (Arc<str>, Box<str>);

pub(super) fn id(gvk: &Gvk, (namespace, name): &Place) -> ObjectId {
    ObjectId {
        group: gvk.group.clone(),
        kind: gvk.kind.clone(),
        namespace: namespace.to_string(),
        name: name.to_string(),
    }
}

fn place_at(id: &ObjectId) -> Place {
    (id.namespace.as_str().into(), id.name.as_str().into())
}

/// So many objects that are gone are remembered; with one more all are forgotten.
const DEPARTED: usize = 1000;

/// What one watch has seen.
pub(super) struct Store<K> {
    key: Key,
    objects: RwLock<Objects<K>>,
    // The list under way, if there is one.
    listing: Mutex<Option<HashSet<Place>>>,
    pub(super) sight: watch::Sender<Sight>,
    closed: std::sync::atomic::AtomicBool,
}

/// The objects of one watch, found by place and by label value.
pub(super) struct Objects<K> {
    by_place: HashMap<Place, Entry<K>>,
    by_label: HashMap<Arc<str>, HashSet<Place>>,
    namespaces: HashSet<Arc<str>>,
    // What was shown last of some objects that are gone, with their uid.
    departed: HashMap<Place, (Box<str>, K)>,
    // Those of which every change counts.
    closely: Watched,
}

impl<K> Objects<K> {
    fn new() -> Self {
        Objects {
            by_place: HashMap::new(),
            by_label: HashMap::new(),
            namespaces: HashSet::new(),
            departed: HashMap::new(),
            closely: Watched::default(),
        }
    }

    /// The place, sharing the text of namespaces that are known already.
    fn place(&mut self, namespace: &str, name: &str) -> Place {
        let namespace = match self.namespaces.get(namespace) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = namespace.into();
                self.namespaces.insert(new.clone());
                new
            }
        };
        (namespace, name.into())
    }

    fn label(&self, label: &str) -> Arc<str> {
        self.by_label.get_key_value(label).map_or_else(|| label.into(), |(known, _)| known.clone())
    }

    pub(super) fn get(&self, id: &ObjectId) -> Option<&Entry<K>> {
        self.by_place.get(&place_at(id))
    }

    /// What was shown last of an object that is gone, where that is remembered, with its uid.
    pub(super) fn departed(&self, id: &ObjectId) -> Option<&(Box<str>, K)> {
        self.departed.get(&place_at(id))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Place, &Entry<K>)> {
        self.by_place.iter()
    }

    pub(super) fn of_label(&self, label: &str) -> impl Iterator<Item = (&Place, &Entry<K>)> {
        let places = self.by_label.get(label).into_iter().flatten();
        places.filter_map(|place| self.by_place.get_key_value(place))
    }

    fn insert(&mut self, place: Place, entry: Entry<K>) -> Option<Entry<K>> {
        self.departed.remove(&place);
        self.by_label.entry(entry.label.clone()).or_default().insert(place.clone());
        let label = entry.label.clone();
        let old = self.by_place.insert(place.clone(), entry);
        if let Some(old) = &old
            && old.label != label
        {
            self.unlabel(&old.label, &place);
        }
        old
    }

    fn remove(&mut self, place: &Place) -> Option<Entry<K>> {
        let old = self.by_place.remove(place)?;
        self.unlabel(&old.label, place);
        Some(old)
    }

    fn unlabel(&mut self, label: &Arc<str>, place: &Place) {
        if let Some(places) = self.by_label.get_mut(label) {
            places.remove(place);
            if places.is_empty() {
                self.by_label.remove(label);
            }
        }
    }
}

impl<K: Clone + PartialEq> Store<K> {
    pub(super) fn new(key: Key) -> Self {
        Store {
            key,
            objects: RwLock::new(Objects::new()),
            listing: Mutex::default(),
            sight: watch::Sender::new(Sight::default()),
            closed: false.into(),
        }
    }

    pub(super) fn objects(&self) -> std::sync::RwLockReadGuard<'_, Objects<K>> {
        read(&self.objects)
    }

    /// Looks at an object as a whole from now on, see [`Closely`].
    pub(super) fn closely(&self, object: &Value) -> Closely {
        let (namespace, name) = place_of(object);
        let mut objects = write(&self.objects);
        let place = objects.place(namespace, name);
        let shown = objects.by_place.get(&place).and_then(|entry| entry.resource_version.parse().ok());
        objects.closely.begin(place, object, shown)
    }

    /// Another watch takes over; who waits for this one looks again.
    pub(super) fn close(&self) {
        self.closed.store(true, std::sync::atomic::Ordering::Release);
        self.sight.send_modify(|_| ());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(std::sync::atomic::Ordering::Acquire)
    }

    pub(super) fn take(
        &self,
        seen: Seen,
        keep: &Keep<K>,
        remember: fn(&K) -> bool,
        changes: &mpsc::UnboundedSender<Change<K>>,
    ) {
        let mut listing = lock(&self.listing);
        match seen {
            // Said before the server is asked: it is no sign of life.
            Seen::Begin => {
                *listing = Some(HashSet::new());
                return;
            }
            Seen::Calm => (),
            Seen::Listed(object) | Seen::Applied(object) => {
                // Of the first list nobody needs to know before it is complete: nothing can be said to be missing until then.
                let first = listing.is_some() && !self.sight.borrow().synced;
                let place = self.put(&object, keep, (!first).then_some(changes));
                if let Some(listing) = &mut *listing {
                    listing.insert(place);
                }
            }
            Seen::Complete => {
                let listed = listing.take().unwrap_or_default();
                let first = !self.sight.borrow().synced;
                let mut missing: Vec<Place> = {
                    let objects = self.objects();
                    objects.iter().map(|(place, _)| place).filter(|p| !listed.contains(*p)).cloned().collect()
                };
                missing.sort();
                for place in missing {
                    self.drop_out(&place, false, None, changes);
                }
                self.sight.send_replace(Sight { synced: true, failing: None });
                if first {
                    let objects = self.objects();
                    for (place, entry) in objects.iter() {
                        self.tell(changes, entry.label.clone(), place, Event::Applied(entry.clone()));
                    }
                }
            }
            Seen::Gone(object) => {
                let (namespace, name) = place_of(&object);
                let certain = !object["metadata"]["deletionTimestamp"].is_null();
                let last = keep(&object);
                let last = remember(&last).then_some(last);
                self.drop_out(&(namespace.into(), name.into()), certain, last, changes);
            }
            Seen::Failed(cause) => {
                self.sight.send_if_modified(|sight| {
                    let new = sight.failing.as_ref() != Some(&cause);
                    sight.failing = Some(cause);
                    new
                });
                return;
            }
        }
        // Something is seen, so nothing fails.
        self.sight.send_if_modified(|sight| sight.failing.take().is_some());
    }

    /// Takes an object in, and tells of it if anything of what is kept is new.
    fn put(
        &self,
        object: &Value,
        keep: &Keep<K>,
        changes: Option<&mpsc::UnboundedSender<Change<K>>>,
    ) -> Place {
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let owners = metadata["ownerReferences"].as_array();
        let label = metadata["labels"][DELIVERY_LABEL].as_str().unwrap_or_default();
        // The costly part, before the lock.
        let kept = keep(object);
        let mut objects = write(&self.objects);
        let (namespace, name) = place_of(object);
        let place = objects.place(namespace, name);
        let entry = Entry {
            uid: text("uid").into(),
            resource_version: text("resourceVersion").into(),
            generation: metadata["generation"].as_i64().unwrap_or(0),
            label: objects.label(label),
            deleting: !metadata["deletionTimestamp"].is_null(),
            controlled: owners.is_some_and(|o| o.iter().any(|o| o["controller"] == true)),
            kept,
        };
        let otherwise = objects.closely.show(&place, object);
        let old = objects.insert(place.clone(), entry.clone());
        drop(objects);
        let Some(changes) = changes else { return place };
        if let Some(old) = old {
            if old.label != entry.label || old.uid != entry.uid {
                let certain = old.uid != entry.uid;
                self.tell(changes, old.label, &place, Event::Gone { uid: old.uid, certain });
            } else if same(&old, &entry) && !otherwise {
                return place;
            }
        }
        self.tell(changes, entry.label.clone(), &place, Event::Applied(entry));
        place
    }

    fn drop_out(
        &self,
        place: &Place,
        certain: bool,
        last: Option<K>,
        changes: &mpsc::UnboundedSender<Change<K>>,
    ) {
        let mut objects = write(&self.objects);
        let old = objects.remove(place);
        // At once with its going: nobody must see the one without the other.
        if let (Some(old), Some(last)) = (&old, last) {
            if objects.departed.len() >= DEPARTED {
                objects.departed.clear();
            }
            objects.departed.insert(place.clone(), (old.uid.clone(), last));
        }
        drop(objects);
        if let Some(old) = old {
            let certain = certain || old.deleting;
            self.tell(changes, old.label, place, Event::Gone { uid: old.uid, certain });
        }
    }

    fn tell(
        &self,
        changes: &mpsc::UnboundedSender<Change<K>>,
        label: Arc<str>,
        place: &Place,
        event: Event<K>,
    ) {
        let (account, gvk) = (self.key.account.clone(), self.key.gvk.clone());
        let id = id(&gvk, place);
        // Nobody listens any more when the daemon ends.
        let _ = changes.send(Change { label, account, gvk, id, event });
    }
}

/// Whether nobody needs to know: all but the resourceVersion is as before.
fn same<K: PartialEq>(old: &Entry<K>, new: &Entry<K>) -> bool {
    old.generation == new.generation
        && old.deleting == new.deleting
        && old.controlled == new.controlled
        && old.kept == new.kept
}

fn place_of(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}
