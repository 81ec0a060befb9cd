//! The plan of a revision: what is to be written, in which waves, and what becomes stale.
//!
//! What needs the API server's answer (is it valid, was it there before) is settled one object at a time by
//! the reconciler from the answer to a dry-run; what is known without asking is decided here.

use super::bundle::{Bundle, Wave, wave};
use super::digest;
use super::manifest::{Gvk, Manifest, ObjectId};
use crate::api::delivery::{EntryOrigin, InventoryEntry, Problem};
use crate::api::names;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a watch keeps of an object that carries our label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub version: String,
    /// Digest of the fields that we own, with their values; empty when we own none.
    pub digest: String,
    /// The value of our label.
    pub label: String,
}

/// What is known about one object of a bundle before anything is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is as it was after our last apply of the same manifest: nothing is sent.
    Unchanged,
    /// It must be tried by a dry-run.
    Ask,
    /// It cannot be tried yet: its namespace or its kind comes with the same bundle.
    Later,
}

impl InventoryEntry {
    /// The identity of the object.
    pub fn id(&self) -> ObjectId {
        ObjectId {
            group: self.group.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Whether this is the entry of an object.
    pub fn is(&self, id: &ObjectId) -> bool {
        self.name == id.name
            && self.namespace == id.namespace
            && self.kind == id.kind
            && self.group == id.group
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    /// An entry for an object that is about to be written.
    pub fn intent(manifest: &Manifest, origin: EntryOrigin) -> Self {
        let (gvk, id) = (manifest.gvk(), manifest.id());
        InventoryEntry {
            group: gvk.group,
            version: gvk.version,
            kind: gvk.kind,
            namespace: id.namespace,
            name: id.name,
            uid: None,
            origin,
            applied: String::new(),
            digest: String::new(),
            prune: None,
            stale: false,
            kept: false,
            settled_by: None,
            unfinished: false,
            candidate: false,
            config: None,
            replicas: None,
            wave: 0,
        }
    }
}

/// Digest of a manifest as it is recorded in the inventory; keyed for Secrets.
pub fn manifest_digest(manifest: &Manifest, key: &[u8]) -> String {
    let value = manifest.to_value();
    if is_secret(&value) { digest::of_value_keyed(&value, key) } else { digest::of_value(&value) }
}

/// Whether an object is a Secret.
pub fn is_secret(object: &Value) -> bool {
    object["kind"] == "Secret" && object["apiVersion"] == "v1"
}

/// Whether an object needs asking about, from what the inventory and the watch know.
pub fn known(
    manifest: &Manifest,
    digest: &str,
    entry: Option<&InventoryEntry>,
    live: Option<&Live>,
) -> Known {
    let Some(entry) = entry else { return Known::Ask };
    let same = !digest.is_empty() && entry.applied == digest;
    match live {
        Some(live) if same && entry.uid.as_deref() == Some(&live.uid) && entry.digest == live.digest => {
            Known::Unchanged
        }
        // A Job that ran and was cleaned up by its TTL has done its work: it is not run again.
        None if same && entry.uid.is_some() && is_job(manifest) && !entry.unfinished => Known::Unchanged,
        _ => Known::Ask,
    }
}

fn is_job(manifest: &Manifest) -> bool {
    let gvk = manifest.gvk();
    gvk.group == "batch" && gvk.kind == "Job"
}

/// What the bundle itself brings: namespaces, kinds by its CRDs, roles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Brings {
    /// Names of its Namespaces.
    pub namespaces: BTreeSet<String>,
    /// Group and kind of its CRDs.
    pub kinds: BTreeSet<(String, String)>,
    /// What all definitions of the bundle serve, also those that stand there already; see [`defined`].
    pub defined: BTreeSet<Gvk>,
    /// Workloads that its autoscalers scale.
    pub scaled: BTreeSet<ObjectId>,
    /// Its Roles and ClusterRoles.
    pub roles: BTreeSet<ObjectId>,
}

impl Brings {
    /// Whether an object binds a role that the bundle brings: what the account may bind is known once that is applied.
    pub fn role_of(&self, manifest: &Manifest) -> bool {
        let gvk = manifest.gvk();
        if gvk.group != RBAC || !["RoleBinding", "ClusterRoleBinding"].contains(&gvk.kind.as_str()) {
            return false;
        }
        let named = &manifest.fields()["roleRef"];
        let text = |field: &str| named[field].as_str().unwrap_or_default().to_owned();
        let kind = text("kind");
        let namespace = if kind == "Role" { manifest.namespace().to_owned() } else { String::new() };
        self.roles.contains(&ObjectId { group: RBAC.into(), kind, namespace, name: text("name") })
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// What objects bring.
pub fn brings<'a>(objects: impl IntoIterator<Item = &'a Manifest>) -> Brings {
    let mut brings = Brings::default();
    for object in objects {
        let gvk = object.gvk();
        brings.scaled.extend(super::autoscale::target(&object.to_value()));
        match (gvk.group.as_str(), gvk.kind.as_str()) {
            ("", "Namespace") => {
                brings.namespaces.insert(object.name().to_owned());
            }
            (RBAC, "Role" | "ClusterRole") => {
                brings.roles.insert(object.id());
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                let spec = &object.fields()["spec"];
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                brings.kinds.insert((text(&spec["group"]), text(&spec["names"]["kind"])));
            }
            _ => {}
        }
    }
    brings
}

/// The kinds that the definitions among some objects serve, in each version.
pub fn defined<'a>(objects: impl IntoIterator<Item = &'a Manifest>) -> BTreeSet<Gvk> {
    let mut all = BTreeSet::new();
    for object in objects {
        let gvk = object.gvk();
        if (gvk.group.as_str(), gvk.kind.as_str()) != ("apiextensions.k8s.io", "CustomResourceDefinition") {
            continue;
        }
        let spec = &object.fields()["spec"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let served = spec["versions"].as_array().into_iter().flatten().filter(|v| v["served"] == true);
        all.extend(served.map(|version| Gvk {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            kind: text(&spec["names"]["kind"]),
        }));
    }
    all
}

/// The groups of objects that are applied together, in order.
pub fn waves(bundle: &Bundle) -> Vec<(Wave, Vec<&Manifest>)> {
    let mut waves: BTreeMap<Wave, Vec<&Manifest>> = BTreeMap::new();
    for object in bundle.objects() {
        // A bundle cannot be made of objects whose wave cannot be read.
        if let Ok(wave) = wave(object) {
            waves.entry(wave).or_default().push(object);
        }
    }
    waves.into_iter().collect()
}

/// Whether everything before must be healthy before a wave begins.
pub fn barrier(before: Wave, next: Wave) -> bool {
    use super::bundle::Stage;
    before.number != next.number || next.stage == Stage::Admission || before.stage == Stage::Definitions
}

/// The inventory while a bundle is being put in place: an entry for each of its objects, and what is in it no longer
/// marked stale. `origins` says for objects that have no entry whether they were there before.
pub fn inventory_for(
    bundle: &Bundle,
    old: &[InventoryEntry],
    origins: &BTreeMap<ObjectId, EntryOrigin>,
) -> Vec<InventoryEntry> {
    let mut old: BTreeMap<ObjectId, InventoryEntry> = old.iter().map(|e| (e.id(), e.clone())).collect();
    let mut inventory = Vec::with_capacity(bundle.objects().len() + old.len());
    for object in bundle.objects() {
        let id = object.id();
        let mut entry = old.remove(&id).unwrap_or_else(|| {
            InventoryEntry::intent(object, origins.get(&id).copied().unwrap_or(EntryOrigin::Created))
        });
        // What was meant to be created, and somebody else made before it was written.
        if entry.uid.is_none() && origins.get(&id) == Some(&EntryOrigin::Adopted) {
            entry.origin = EntryOrigin::Adopted;
        }
        entry.version = object.gvk().version;
        entry.stale = false;
        entry.prune = object.annotation(names::PRUNE).map(str::to_owned);
        entry.wave = wave(object).map_or(0, |w| w.number);
        inventory.push(entry);
    }
    inventory.extend(old.into_values().map(|mut entry| {
        entry.stale = true;
        entry
    }));
    inventory
}

/// What is done with an object that left the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is deleted.
    Delete,
    /// It stays; our label and our fields' ownership are given up.
    Release,
}

/// Data, and what holds everything in it: removed only where asked for.
pub fn is_precious(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        ("", "PersistentVolumeClaim" | "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition")
    )
}

/// What is done with an object that left the bundle. `never_good`: no good revision had it, so that it left because the
/// commit that brought it failed or was overtaken, rather than because a commit removed it.
pub fn removal(entry: &InventoryEntry, never_good: bool) -> Removal {
    let keep = entry.prune.as_deref() == Some("disabled");
    let precious = is_precious(&entry.group, &entry.kind);
    // No data is deleted to roll back, whatever is asked for.
    if keep || precious && (never_good || entry.prune.as_deref() != Some("enabled")) {
        return Removal::Release;
    }
    if never_good && entry.origin == EntryOrigin::Adopted {
        return Removal::Release;
    }
    Removal::Delete
}

/// The order in which objects are removed: the reverse of the one in which they are applied, in groups that go
/// together.
pub fn removal_order(entries: &[InventoryEntry]) -> Vec<Vec<InventoryEntry>> {
    let mut groups: BTreeMap<Wave, Vec<InventoryEntry>> = BTreeMap::new();
    for entry in entries {
        let wave = Wave { number: entry.wave, stage: super::bundle::stage(&entry.group, &entry.kind) };
        groups.entry(wave).or_default().push(entry.clone());
    }
    groups.into_values().rev().collect()
}

/// Whether a value of our label stands for another Delivery than the one whose value is `ours`.
pub fn is_anothers(label: &str, ours: &str) -> bool {
    !label.is_empty() && label != ours
}

/// Whose an object is that carries a label of ours other than its own Delivery's, and what to do about it. `owner` is the
/// Delivery (`namespace/name`) that the label stands for, where it is known.
pub fn whose(label: &str, owner: Option<&str>) -> String {
    match owner {
        Some(owner) => {
            format!("belongs to Delivery {owner} already, which keeps it; remove it from one of the two")
        }
        None => format!(
            "belongs to a Delivery that this installation does not know ({} is {label}), which keeps it: of another \
             installation, or one that is gone; remove it here or there, or take the label off if nobody has it any more",
            names::DELIVERY_LABEL
        ),
    }
}

/// Refuses a bundle that would remove everything although nobody ordered that: an empty one after one that was not.
pub fn guard_empty(bundle: &Bundle, path: &str, inventory: &[InventoryEntry]) -> Result<(), Problem> {
    if !bundle.is_empty() {
        return Ok(());
    }
    let owned = inventory.iter().filter(|e| !e.stale).count();
    let message = if owned == 0 {
        format!("the directory \"{path}\" holds no manifests; add one, or point the Delivery elsewhere")
    } else {
        format!(
            "the directory \"{path}\" holds no manifests any more, and {owned} objects would be removed; \
             nothing was: delete the Delivery to remove them"
        )
    };
    Err(Problem { reason: "EmptyBundle".into(), object: String::new(), message })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::tree::Origin;
    use serde_json::json;

    fn manifest(kind: &str, name: &str) -> Manifest {
        let api = if kind == "Job" { "batch/v1" } else { "v1" };
        Manifest::new(
            json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "shop"}}),
            Origin::default(),
        )
        .unwrap()
    }

    #[test]
    fn a_definition_defines_what_it_serves() {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.example.com"},
            "spec": {"group": "example.com", "names": {"kind": "Thing"}, "versions": [
                {"name": "v1", "served": true}, {"name": "v0", "served": false},
            ]},
        });
        let definition = Manifest::new(definition, Origin::default()).unwrap();
        let found = defined([&definition, &manifest("ConfigMap", "it")]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [Gvk::new("example.com/v1", "Thing")]);
    }

    fn written(manifest: &Manifest) -> InventoryEntry {
        InventoryEntry {
            uid: Some("u1".into()),
            applied: "m1".into(),
            digest: "d1".into(),
            ..InventoryEntry::intent(manifest, EntryOrigin::Created)
        }
    }

    fn live(uid: &str, digest: &str) -> Live {
        Live { uid: uid.into(), version: "1".into(), digest: digest.into(), label: String::new() }
    }

    #[test]
    fn only_an_object_that_is_just_as_we_left_it_is_not_asked_about() {
        let web = manifest("ConfigMap", "web");
        let entry = written(&web);
        let table = [
            ("m1", Some(&entry), Some(live("u1", "d1")), Known::Unchanged),
            ("m2", Some(&entry), Some(live("u1", "d1")), Known::Ask),
            ("m1", Some(&entry), Some(live("u2", "d1")), Known::Ask),
            ("m1", Some(&entry), Some(live("u1", "d2")), Known::Ask),
            ("m1", Some(&entry), None, Known::Ask),
            ("m1", None, Some(live("u1", "d1")), Known::Ask),
        ];
        for (digest, entry, live, expected) in table {
            assert_eq!(known(&web, digest, entry, live.as_ref()), expected, "{digest} {live:?}");
        }
    }

    #[test]
    fn a_job_cleaned_up_by_its_ttl_is_not_run_again() {
        let job = manifest("Job", "migrate");
        let entry = written(&job);
        assert_eq!(known(&job, "m1", Some(&entry), None), Known::Unchanged);
        assert_eq!(known(&job, "m2", Some(&entry), None), Known::Ask);
        let deleted = InventoryEntry { unfinished: true, ..entry };
        assert_eq!(known(&job, "m1", Some(&deleted), None), Known::Ask, "somebody deleted it before its end");
    }

    #[test]
    fn what_left_the_bundle_becomes_stale_and_what_came_back_does_not_stay_so() {
        let (a, b) = (manifest("ConfigMap", "a"), manifest("ConfigMap", "b"));
        let both = Bundle::new(vec![a.clone(), b.clone()]).unwrap();
        let only_a = Bundle::new(vec![a]).unwrap();
        let first = inventory_for(&both, &[], &BTreeMap::new());
        assert!(first.iter().all(|e| !e.stale && e.uid.is_none()));
        let second = inventory_for(&only_a, &first, &BTreeMap::new());
        assert_eq!(
            second.iter().map(|e| (e.name.as_str(), e.stale)).collect::<Vec<_>>(),
            [("a", false), ("b", true)]
        );
        let third = inventory_for(&both, &second, &BTreeMap::new());
        assert!(third.iter().all(|e| !e.stale));
    }

    #[test]
    fn data_is_removed_only_where_asked_for() {
        let claim = written(&manifest("PersistentVolumeClaim", "data"));
        assert_eq!(removal(&claim, false), Removal::Release);
        let asked = InventoryEntry { prune: Some("enabled".into()), ..claim };
        assert_eq!(removal(&asked, false), Removal::Delete);
        assert_eq!(removal(&asked, true), Removal::Release, "no data is deleted to roll back");
        let map = written(&manifest("ConfigMap", "web"));
        assert_eq!(removal(&map, false), Removal::Delete);
        assert_eq!(
            removal(&InventoryEntry { prune: Some("disabled".into()), ..map.clone() }, false),
            Removal::Release
        );
        let adopted = InventoryEntry { origin: EntryOrigin::Adopted, ..map };
        assert_eq!(removal(&adopted, true), Removal::Release);
        assert_eq!(removal(&adopted, false), Removal::Delete);
    }
}
