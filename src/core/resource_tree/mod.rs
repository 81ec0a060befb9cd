//! What a Delivery or an Application has in the cluster, what that owns in turn, and how each of it is.
//!
//! The objects of a Delivery are those of its inventory; what they own is found by `ownerReferences`. Both are read from lists of
//! whole kinds ([`wanted`]), so that the number of requests does not grow with the number of objects.

mod kinds;

#[cfg(test)]
mod tests;

use super::health::{Status, verdict};
use super::look::{Look, Looks, Seen};
use super::manifest::{Gvk, ObjectId};
use crate::api::delivery::InventoryEntry;
use crate::api::hook::HookRun;
use crate::api::names;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Owners above owners, at most: what owns itself would have no end.
const DEEPEST: usize = 16;

/// The object that a tree is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its kind: a Delivery or an Application.
    pub gvk: Gvk,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is kept of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    uid: String,
    owners: Vec<String>,
    status: Option<Status>,
    message: String,
    created: Option<String>,
    // A ReplicaSet that an earlier revision left behind.
    empty: bool,
    // Of a Delivery or a shard of its inventory.
    delivers: Vec<Delivered>,
    shards: Vec<String>,
}

/// An object of a Delivery.
#[derive(Clone, Debug, PartialEq)]
struct Delivered {
    gvk: Gvk,
    namespace: String,
    name: String,
    candidate: bool,
    // The Job of a hook, which may be gone.
    hook: bool,
}

/// An object with what it owns.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Version and group that it was read in.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace, empty for a kind without.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it is.
    pub status: Status,
    /// What of it waits for what.
    pub message: String,
    /// When it was made (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// It is there for a rollout only, beside the one that stands in Git.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub candidate: bool,
    /// A ReplicaSet that is not to have pods and has none.
    #[serde(skip)]
    pub empty: bool,
    /// What it has, or owns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Node>,
}

/// A Delivery's or an Application's objects.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tree {
    /// What the tree is of.
    #[serde(flatten)]
    pub root: Node,
    /// What could not be looked at, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

impl Node {
    /// Which object it is.
    pub fn id(&self) -> ObjectId {
        let gvk = Gvk::new(&self.api_version, &self.kind);
        id(&gvk, &self.namespace, &self.name)
    }

    /// Whether it, and all below it, is as it should be.
    pub fn is_well(&self) -> bool {
        matches!(self.status, Status::Healthy | Status::Suspended) && self.children.iter().all(Node::is_well)
    }
}

/// What happened to an object between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Happened {
    /// It is there now.
    Added,
    /// It is not as it was.
    Modified,
    /// It is gone.
    Deleted,
}

/// What changed from one tree to the next, each as it is now, or as it was last. In the order of the trees, what is gone first.
pub fn changes<'a>(before: &'a Tree, after: &'a Tree) -> Vec<(Happened, &'a Node)> {
    fn flat<'a>(node: &'a Node, into: &mut Vec<&'a Node>) {
        into.push(node);
        node.children.iter().for_each(|child| flat(child, into));
    }
    let all = |tree: &'a Tree| {
        let mut nodes = Vec::new();
        flat(&tree.root, &mut nodes);
        nodes
    };
    let (was, is) = (all(before), all(after));
    let by_id = |nodes: &[&'a Node]| -> BTreeMap<ObjectId, &'a Node> {
        nodes.iter().map(|node| (node.id(), *node)).collect()
    };
    let (old, new) = (by_id(&was), by_id(&is));
    let gone = was.into_iter().filter(|node| !new.contains_key(&node.id()));
    let mut all: Vec<(Happened, &Node)> = gone.map(|node| (Happened::Deleted, node)).collect();
    let told = |node: &Node| (node.status, node.message.clone(), node.candidate, node.created.clone());
    all.extend(is.into_iter().filter_map(|node| match old.get(&node.id()) {
        None => Some((Happened::Added, node)),
        Some(was) if told(was) != told(node) => Some((Happened::Modified, node)),
        Some(_) => None,
    }));
    all
}

/// What is kept of an object. No value of it is.
pub fn keep(object: &Value) -> Known {
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let id = ObjectId::of(object);
    let verdict = verdict(object);
    let entries = match (id.group.as_str(), id.kind.as_str()) {
        (names::GROUP, "Delivery") => &object["status"]["inventory"],
        (names::GROUP, "InventoryShard") => &object["spec"]["entries"],
        _ => &Value::Null,
    };
    let entries: Vec<InventoryEntry> = serde_json::from_value(entries.clone()).unwrap_or_default();
    let mut delivers: Vec<Delivered> = entries.into_iter().map(Delivered::from).collect();
    if (id.group.as_str(), id.kind.as_str()) == (names::GROUP, "Delivery") {
        let hooks: Vec<HookRun> =
            serde_json::from_value(object["status"]["hooks"].clone()).unwrap_or_default();
        delivers.extend(hooks.into_iter().map(|hook| Delivered {
            gvk: Gvk::new("batch/v1", "Job"),
            namespace: hook.namespace,
            name: hook.job,
            candidate: false,
            hook: true,
        }));
    }
    let shards: Vec<String> =
        serde_json::from_value(object["status"]["inventoryShards"].clone()).unwrap_or_default();
    Known {
        uid: text(&metadata["uid"]),
        owners: owners.map(|owner| text(&owner["uid"])).collect(),
        status: Some(verdict.status),
        message: verdict.message,
        created: metadata["creationTimestamp"].as_str().map(str::to_owned),
        empty: id.kind == "ReplicaSet"
            && object["spec"]["replicas"] == 0
            && object["status"]["replicas"].as_i64().unwrap_or(0) == 0,
        delivers,
        shards,
    }
}

impl From<InventoryEntry> for Delivered {
    fn from(entry: InventoryEntry) -> Self {
        Delivered {
            gvk: Gvk { group: entry.group, version: entry.version, kind: entry.kind },
            namespace: entry.namespace,
            name: entry.name,
            candidate: entry.candidate,
            hook: false,
        }
    }
}

/// What has to be looked at, as far as is known from what was seen. Once all of it was seen it may be more: a Delivery tells
/// what it has only when it is there.
pub fn wanted(root: &Root, seen: &Seen<Known>) -> BTreeSet<Look> {
    let mut looks = Looks::default();
    let mut deliveries: BTreeSet<(String, String)> = BTreeSet::new();
    // Inventories name Applications, and these have Deliveries.
    let mut open = vec![(root.gvk.clone(), root.namespace.clone(), root.name.clone())];
    while let Some((gvk, namespace, name)) = open.pop() {
        looks.one(gvk.clone(), &namespace, &name);
        kinds::owned(&gvk, &namespace, &mut looks);
        if gvk.group != names::GROUP {
            continue;
        }
        if gvk.kind == "Application" {
            let gvk = Gvk { kind: "Delivery".into(), ..gvk };
            open.push((gvk, namespace, names::application_delivery(&name)));
        } else if gvk.kind == "Delivery" && deliveries.insert((namespace.clone(), name.clone())) {
            let Some(delivery) = find(seen, &gvk, &namespace, &name) else { continue };
            for shard in &delivery.shards {
                looks.one(kinds::shard(), &namespace, shard);
            }
            open.extend(
                inventory(seen, delivery, &namespace)
                    .map(|entry| (entry.gvk.clone(), entry.namespace.clone(), entry.name.clone())),
            );
        }
    }
    looks.gathered()
}

/// What is known of an object.
fn find<'a>(seen: &'a Seen<Known>, gvk: &Gvk, namespace: &str, name: &str) -> Option<&'a Known> {
    let key = (namespace.to_owned(), name.to_owned());
    let here = [Some(name.to_owned()), None].map(|name| Look {
        gvk: gvk.clone(),
        namespace: namespace.to_owned(),
        name,
    });
    here.iter().find_map(|look| seen.get(look)?.objects.get(&key))
}

/// The objects of a Delivery, those in shards of its inventory included.
fn inventory<'a>(
    seen: &'a Seen<Known>,
    delivery: &'a Known,
    namespace: &'a str,
) -> impl Iterator<Item = &'a Delivered> {
    let shards = delivery.shards.iter().filter_map(move |name| find(seen, &kinds::shard(), namespace, name));
    delivery.delivers.iter().chain(shards.flat_map(|shard| &shard.delivers))
}

/// The tree, from what was seen of [`wanted`].
pub fn grow(root: &Root, seen: &Seen<Known>) -> Tree {
    let mut grower =
        Grower { seen, owned: BTreeMap::new(), claimed: BTreeSet::new(), grown: BTreeSet::new() };
    for (look, shown) in seen {
        for ((namespace, name), known) in &shown.objects {
            for owner in &known.owners {
                grower.owned.entry(owner).or_default().push((&look.gvk, namespace, name, known));
            }
            if (look.gvk.group.as_str(), look.gvk.kind.as_str()) == (names::GROUP, "Delivery") {
                let all = inventory(seen, known, namespace);
                grower.claimed.extend(all.map(|e| id(&e.gvk, &e.namespace, &e.name)));
            }
        }
    }
    let root = grower.node(&root.gvk, &root.namespace, &root.name, false, 0);
    // What nobody can own matters to nobody.
    let unseen = seen.iter().filter_map(|(look, shown)| {
        let why = shown.failing.as_ref()?;
        Some(match look.namespace.as_str() {
            "" => format!("{}: {why}", look.gvk.kind),
            namespace => format!("{} in namespace {namespace}: {why}", look.gvk.kind),
        })
    });
    Tree { root, unseen: unseen.collect() }
}

type Object<'a> = (&'a Gvk, &'a String, &'a String, &'a Known);

struct Grower<'a> {
    seen: &'a Seen<Known>,
    // What is owned, by the owner's uid.
    owned: BTreeMap<&'a String, Vec<Object<'a>>>,
    // What Deliveries have: it stands below them, whoever else owns it.
    claimed: BTreeSet<ObjectId>,
    grown: BTreeSet<ObjectId>,
}

impl<'a> Grower<'a> {
    fn node(&mut self, gvk: &Gvk, namespace: &str, name: &str, candidate: bool, depth: usize) -> Node {
        self.grown.insert(id(gvk, namespace, name));
        let known = find(self.seen, gvk, namespace, name);
        let (status, message) = match known {
            Some(known) => (known.status.unwrap_or(Status::Unknown), known.message.clone()),
            None => self.absent(gvk, namespace, name),
        };
        let children =
            known.filter(|_| depth < DEEPEST).map(|known| self.children(gvk, namespace, known, depth));
        Node {
            api_version: gvk.api_version(),
            kind: gvk.kind.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            status,
            message,
            created: known.and_then(|known| known.created.clone()),
            candidate,
            empty: known.is_some_and(|known| known.empty),
            children: children.unwrap_or_default(),
        }
    }

    fn children(&mut self, gvk: &Gvk, namespace: &str, known: &'a Known, depth: usize) -> Vec<Node> {
        let seen = self.seen;
        let mut children = Vec::new();
        if (gvk.group.as_str(), gvk.kind.as_str()) == (names::GROUP, "Delivery") {
            for entry in inventory(seen, known, namespace) {
                let there = || find(seen, &entry.gvk, &entry.namespace, &entry.name).is_some();
                let new = !self.grown.contains(&id(&entry.gvk, &entry.namespace, &entry.name));
                if new && (!entry.hook || there()) {
                    children.push(self.node(
                        &entry.gvk,
                        &entry.namespace,
                        &entry.name,
                        entry.candidate,
                        depth + 1,
                    ));
                }
            }
        }
        let owned = self.owned.get(&known.uid).cloned().unwrap_or_default();
        for (gvk, namespace, name, _) in owned {
            let object = id(gvk, namespace, name);
            if !self.claimed.contains(&object) && !self.grown.contains(&object) && !kinds::is_own(gvk) {
                children.push(self.node(gvk, namespace, name, false, depth + 1));
            }
        }
        // What runs before what it is made of, and a candidate beside what it is of.
        children.sort_by_cached_key(|node| (kinds::rank(&node.kind), node.id()));
        children
    }

    /// What is to be said of an object that was not seen.
    fn absent(&self, gvk: &Gvk, namespace: &str, name: &str) -> (Status, String) {
        let look = |name: Option<&str>| Look {
            gvk: gvk.clone(),
            namespace: namespace.to_owned(),
            name: name.map(str::to_owned),
        };
        let shown = self.seen.get(&look(Some(name))).or_else(|| self.seen.get(&look(None)));
        match shown {
            Some(shown) if shown.unknown => (Status::Missing, format!("the cluster does not serve {gvk}")),
            Some(shown) if shown.failing.is_some() => (Status::Unknown, "could not be looked at".to_owned()),
            Some(shown) if shown.complete => {
                let missing = verdict(&Value::Null);
                (missing.status, missing.message)
            }
            _ => (Status::Unknown, "was not looked at yet".to_owned()),
        }
    }
}

fn id(gvk: &Gvk, namespace: &str, name: &str) -> ObjectId {
    ObjectId {
        group: gvk.group.clone(),
        kind: gvk.kind.clone(),
        namespace: namespace.into(),
        name: name.into(),
    }
}
