//! What the daemon remembers of a Delivery between two rounds. All of it may be lost: a restarted daemon finds it out
//! again.

use crate::api::Delivery;
use crate::api::delivery::{EntryOrigin, Goal, InventoryEntry, Revision};
use crate::cluster::watch::Interest;
use crate::cluster::{Access, Named, NamedObject, ServiceAccount};
use crate::core::bundle::Bundle;
use crate::core::fields::Path;
use crate::core::health::Verdict;
use crate::core::ignore::{RuleError, Rules};
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::rollout::{ApplyEnd, Begin, Pruned, Refusal, Staging, Target};
use crate::lock::lock;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The need of a watch, and the namespaces that it is needed for.
pub type InNamespaces = (BTreeSet<String>, Interest);

/// The uid and the generation of a Delivery.
pub type RulesOf = (Option<String>, Option<i64>);

/// A bundle, with the generation of the spec and the revision that it was rendered from.
pub type Rendered = ((Option<i64>, Revision), Arc<Bundle>);

/// What the daemon remembers of a Delivery.
#[derive(Default)]
pub struct Memory {
    /// The Delivery as we last wrote it: the watch may still show an older one.
    pub latest: Option<Arc<Delivery>>,
    /// When status was last written.
    pub worded_at: Option<Timestamp>,
    /// What Git wants, and what that was computed from.
    pub target: Option<(TargetKey, Target)>,
    /// The revision being worked on.
    pub work: Option<Work>,
    /// The bundle of the last good revision while another one is put in place.
    pub previous: Option<Rendered>,
    /// Why preparing failed; shown to the machine once.
    pub refused: Option<Refused>,
    /// What was written for a revision whose plan met something unexpected and is made anew.
    pub carried: Option<(Revision, BTreeMap<ObjectId, Written>)>,
    /// What was written for work that was forgotten, and the watch may not show yet.
    pub before: BTreeMap<ObjectId, Written>,
    /// What was written and the watch may not show yet: the version, and when.
    pub awaited: BTreeMap<ObjectId, (u64, Timestamp)>,
    /// What is left to others, and the uid and generation of the Delivery that say so.
    pub rules: Option<(RulesOf, Result<Arc<Rules>, RuleError>)>,
    /// Its first look in this life of the daemon.
    pub first: super::sight::First,
    /// Since when the API server has been in contact without a gap, in this life of the daemon.
    pub in_contact_since: Option<Timestamp>,
    /// Since when the objects are seen without a gap.
    pub seen_since: Option<Timestamp>,
    /// The shards of a large inventory.
    pub shards: super::inventory::Shards,
    /// Shards that an earlier life of the daemon left were looked for.
    pub shards_tidied: bool,
    /// What pruning came to; shown once.
    pub pruned: Option<Pruned>,
    /// The settings that were read, by their digest.
    pub settings: Option<Settings>,
    /// The settings of the last good revision, once they were needed.
    pub kept: std::sync::Mutex<Option<Settings>>,
    /// They could not be read last time: that is tried again soon, for the account may not be allowed to watch them.
    pub settings_missing: bool,
    /// Watches of the objects that they come from.
    pub followed: BTreeMap<NamedObject, Named>,
    /// Watches of the objects that it depends on.
    pub depended: super::depends::Depended,
    /// The Jobs of its hooks.
    pub hooks: super::hooks::Known,
    /// The pods of workloads that are not settled.
    pub pods: super::pods::Pods,
    /// The watches that it needs, by kind: as whom, and in which namespaces.
    pub interests: BTreeMap<Gvk, (Option<ServiceAccount>, Vec<InNamespaces>)>,
    /// The account that acts, and its share of what the cluster takes.
    pub access: Option<(Option<ServiceAccount>, Access)>,
    /// What looked as if a late request had left it, was looked at in this version, and is none of ours.
    pub left_alone: BTreeMap<ObjectId, String>,
    /// Nothing is kept of what adopted objects were before.
    pub nothing_adopted: bool,
    /// The revert of the held commit that is being pushed.
    pub reverting: super::revert::Reverting,
    /// The route of others that a rollout divides.
    pub route: Option<super::route::Followed>,
    /// The endpoints of the Services that it sends traffic to.
    pub serving: Option<super::served::Serving>,
    /// What is measured of the rollout that is under way.
    pub measures: super::measure::Measures,
    /// Since when it could go, were it not for its mirror.
    pub leaving_since: Option<Timestamp>,
    /// How far the end of a rollout is whose Delivery goes and leaves its objects.
    pub leaving: super::leaving::Leaving,
    /// Objects that differ, as the watch told, with the digest that was looked at.
    pub drift: super::drift::Seen,
}

/// Why preparing a revision failed.
pub struct Refused {
    /// The revision.
    pub revision: Revision,
    /// Why.
    pub refusal: Refusal,
    /// When.
    pub at: Timestamp,
    /// The request to look again that it was prepared with: it answers no later one.
    pub request: Option<String>,
}

/// What the target of a Delivery was computed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetKey {
    /// The commit.
    pub commit: String,
    /// The branch that was followed.
    pub branch: String,
    /// The generation of the Delivery's spec.
    pub generation: i64,
    /// The request to look again, by annotation.
    pub request: String,
}

/// Values that `substitute` read.
#[derive(Clone)]
pub struct Settings {
    /// Their digest; empty when nothing is substituted.
    pub digest: String,
    /// The values. Never printed.
    pub values: BTreeMap<String, String>,
    /// Names of the values that come from a Secret.
    pub hidden: BTreeSet<String>,
    /// When they were read.
    pub at: Timestamp,
}

/// A shorter value is part of too much text to be looked for in it.
const SHORTEST_HIDDEN: usize = 4;

impl Settings {
    /// The text without what came from a Secret: the API server, kustomize and a drift report quote what stands in
    /// manifests, and a value of a Secret may have been put there.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for name in &self.hidden {
            let Some(value) = self.values.get(name) else { continue };
            // Quoted as JSON or Go would, or line by line.
            let quoted = serde_json::Value::from(value.as_str()).to_string();
            let quoted = quoted.trim_matches('"');
            for part in [value.as_str(), quoted].into_iter().chain(value.lines().map(str::trim)) {
                if part.len() >= SHORTEST_HIDDEN || text.trim_matches('"') == part && !part.is_empty() {
                    text = text.replace(part, &format!("(value of {name})"));
                }
            }
        }
        text
    }
}

/// A revision that was prepared, and how far its apply is.
pub struct Work {
    /// The revision.
    pub revision: Revision,
    /// What for.
    pub goal: Goal,
    /// What the cluster is to be made like.
    pub staging: Staging,
    /// How the revision is begun, where that was asked.
    pub begin: Option<Begin>,
    /// Its objects.
    pub bundle: Arc<Bundle>,
    /// A route that is not among them, and how it is to divide traffic.
    pub route: Option<super::route::External>,
    /// What is to be done with each.
    pub plan: BTreeMap<ObjectId, Planned>,
    /// The inventory as it must be recorded, with what was written so far.
    pub inventory: Vec<InventoryEntry>,
    /// What was written in this life of the daemon.
    pub written: BTreeMap<ObjectId, Written>,
    /// Of these, what a watch has shown since.
    pub shown: BTreeSet<ObjectId>,
    /// Objects of this plan that are done.
    pub done: BTreeSet<ObjectId>,
    /// When it was prepared.
    pub at: Timestamp,
    /// How the last apply ended, and when. A failure or a block is shown to the machine once.
    pub end: Option<(ApplyEnd, Timestamp)>,
}

/// What is to be done with an object.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What.
    pub act: Act,
    /// Digest of its manifest.
    pub digest: String,
    /// Whether it was there before, where that was found out.
    pub origin: Option<EntryOrigin>,
    /// Replicas that are applied although Git names none.
    pub replicas: Option<i64>,
    /// It carries our label, and the status, which knows of nothing, was lost.
    pub lost: bool,
    /// What is applied instead of the manifest, going back: as much of it as Kubernetes takes back.
    pub instead: Option<Arc<serde_json::Value>>,
    /// What is then left as it is, and why.
    pub except: Option<String>,
    /// What an object that is about to be adopted is now.
    pub found: Option<Arc<serde_json::Value>>,
    /// It is read before it is applied, since something of it may be left to others.
    pub reads: bool,
    /// Something of it is left to others, so that what we own is not all that Git names.
    pub left: bool,
    /// Of what steers traffic: the version that was looked at.
    pub version: Option<String>,
}

impl Planned {
    /// An act by the manifest itself.
    pub fn by_manifest(act: Act, digest: String, origin: Option<EntryOrigin>, replicas: Option<i64>) -> Self {
        Planned {
            act,
            digest,
            origin,
            replicas,
            lost: false,
            instead: None,
            except: None,
            found: None,
            reads: false,
            left: false,
            version: None,
        }
    }
}

/// What is to be done with an object.
#[derive(Clone, Debug)]
pub enum Act {
    /// Nothing.
    Unchanged,
    /// It is as wanted although we did not leave it so: only the inventory is brought up to date.
    Record {
        /// Its uid.
        uid: String,
        /// Digest of the fields that we own.
        digest: String,
    },
    /// It is created.
    Create,
    /// It is applied to the object with this uid.
    Update {
        /// The uid of the object that was looked at.
        uid: String,
        /// Fields that left Git and would not go by applying alone.
        release: Vec<Path>,
    },
    /// It is deleted and created again.
    Recreate {
        /// The uid of the object that goes.
        uid: String,
    },
    /// It is tried when its wave is due.
    Later,
}

impl Act {
    /// Whether it writes to the cluster.
    pub fn writes(&self) -> bool {
        !matches!(self, Act::Unchanged | Act::Record { .. })
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The resourceVersion of the answer: what a watch shows from before does not count.
    pub resource_version: u64,
    /// The health of the answer.
    pub verdict: Verdict,
}

impl Work {
    /// The entry of an object.
    pub fn entry_mut(&mut self, id: &ObjectId) -> Option<&mut InventoryEntry> {
        self.inventory.iter_mut().find(|e| e.is(id))
    }
}

impl Memory {
    /// The text without what came from a Secret.
    pub fn redact(&self, text: &str) -> String {
        let kept = lock(&self.kept);
        let known = self.settings.iter().chain(kept.as_ref());
        known.fold(text.to_owned(), |text, settings| settings.redact(&text))
    }

    /// The refusal without what came from a Secret.
    pub fn redacted(&self, mut refusal: Refusal) -> Refusal {
        refusal.problem.message = self.redact(&refusal.problem.message);
        refusal.problem.object = self.redact(&refusal.problem.object);
        refusal
    }

    /// Drops a revision of which something was written: the status, which knew of it before, was lost meanwhile, and what is
    /// there now is found out again.
    pub fn forget_what_was_written(&mut self) {
        if self.work.as_ref().is_some_and(|w| w.end.is_some() || !w.written.is_empty()) {
            self.work = None;
        }
        self.carried = None;
    }

    /// Drops what was prepared, written and found out: it is looked at anew.
    pub fn forget_work(&mut self) {
        // What was written stays written: a watch that is behind says nothing about it.
        self.before.extend(self.work.take().into_iter().flat_map(|work| work.written));
        self.carried = None;
        self.refused = None;
        self.pruned = None;
        self.drift = super::drift::Seen::default();
    }

    /// Drops what the machine is shown once. A plan whose apply failed goes too: what was written is in the inventory,
    /// and what comes next is planned against the cluster as it is then.
    pub fn forget_what_was_shown(&mut self) {
        self.refused = None;
        self.pruned = None;
        self.drift.corrected = None;
        self.reverting.forget_answer();
        self.hooks.forget_what_was_shown();
        let Some(work) = &mut self.work else { return };
        match work.end {
            Some((ApplyEnd::Blocked(_), _)) => work.end = None,
            Some((ApplyEnd::Failed(_), _)) => {
                self.carried = self.work.take().map(|w| (w.revision, w.written));
            }
            _ => {}
        }
    }
}
