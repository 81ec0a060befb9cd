//! Drift of a Delivery's objects: seen by the digest that the watch keeps, looked at once, reported and mended.

use super::beside::{self, Beside};
use super::leave::without_others_by;
use super::prepare::Planner;
use super::work::{Act, Memory, Work};
use super::{Scope, bundle_of, stage};
use crate::api::delivery::{DeliveryStatus, DriftMode, Goal, InventoryEntry, Revision};
use crate::api::drift_report::{
    DriftEpisode, DriftReport, DriftReportSpec, DriftedField, DriftedObject, RecurringField,
};
use crate::api::names::{DELIVERY_LABEL, FIELD_MANAGER};
use crate::cluster::apply::{Guard, dry_run, get};
use crate::cluster::watch::Entry;
use crate::cluster::{Cause, Closely};
use crate::core::autoscale::with_replicas;
use crate::core::bundle::Bundle;
use crate::core::contest;
use crate::core::drift::{self, ObjectDrift, drift};
use crate::core::drift_report::{FIELDS, Found, ended, grown, same_object};
use crate::core::ignore::{Left, Rules, pointer};
use crate::core::manifest::{Gvk, Manifest, ObjectId};
use crate::core::plan::manifest_digest;
use crate::core::rightful::depends_on_who;
use crate::core::rollout::{ApplyEnd, Health, Measure, Refusal, back_off, is_strict, measure, rests, stamp};
use crate::core::router;
use crate::reconcile::fault;
use crate::reconcile::live::{Kept, digest, version};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a watch may take to show what we wrote before its silence means something.
const LAG: SignedDuration = SignedDuration::from_secs(10);

/// How soon an object that differs is read again because something of it has changed once more: one that others write all the time must
/// not cost a request each time.
const PACE: SignedDuration = SignedDuration::from_secs(5);

/// How soon drift that could not be looked at, or told, is looked at again.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

/// Objects that are read and compared at once.
const AT_ONCE: usize = 8;

/// Longest value that is shown, in characters.
const VALUE: usize = 256;

/// What is known about drift.
#[derive(Default)]
pub struct Seen {
    /// What the rest was measured against; `None` since objects are being applied.
    pub measured: Option<Measure>,
    /// What was found out about objects whose digest is not the one that we left.
    looked: BTreeMap<ObjectId, Looked>,
    /// Objects with our label that are in no bundle, with their uid.
    pub foreign: BTreeMap<ObjectId, (String, DriftedObject)>,
    /// Why objects could not be compared; tried again soon.
    uncompared: BTreeMap<ObjectId, String>,
    /// When to look again: the silence of a watch about what we wrote begins to mean something, or what differs may be read again.
    again_at: Option<Timestamp>,
    /// Whether the watches have shown all objects, so that what does not differ is in sync.
    complete: bool,
    /// The inventory after a correction; shown to the machine once.
    pub corrected: Option<Vec<InventoryEntry>>,
    /// Fields that were written back, as the report has them; `None` until that was read.
    recurring: Option<Recurring>,
    /// The report as it was read in this look: nobody else writes it.
    read: Option<DriftReportSpec>,
    /// What was reported last.
    reported: Option<Vec<DriftedObject>>,
    /// Drifts that were mended and not yet reported.
    mended: Vec<DriftEpisode>,
    /// Whether objects were applied since the last report: what differs no more ended by that.
    applied: bool,
    /// Objects whose correction was refused, how often in a row, and when it is tried again. It keeps no other from being corrected.
    refused: BTreeSet<ObjectId>,
    failures: u32,
    retry_at: Option<Timestamp>,
}

/// Fields that were written back.
struct Recurring {
    /// The effective revision and the generation of the spec that this is about.
    of: (String, i64),
    fields: Vec<RecurringField>,
    /// Whether the report has yet to tell.
    new: bool,
    /// What an earlier life of the daemon told last to differ.
    recalled: Vec<DriftedObject>,
}

impl Recurring {
    /// Notes what is about to be written back, before it is: a crash in between must not lose how often a field comes back. What
    /// an earlier life of the daemon noted and did not come to do is the same round.
    fn note(&mut self, object: &DriftedObject, now: Timestamp) {
        let known = &self.fields;
        let same = |old: &DriftedObject| is_same_drift(old, object) && contest::is_noted(known, old);
        if let Some(at) = self.recalled.iter().position(same) {
            self.recalled.remove(at);
            return;
        }
        contest::note(&mut self.fields, object, &stamp(now));
        self.new = true;
    }
}

/// Whether two entries tell of the same change of one object.
fn is_same_drift(a: &DriftedObject, b: &DriftedObject) -> bool {
    let written = |o: &DriftedObject| -> Vec<_> {
        let of = |f: &DriftedField| (f.path.clone(), f.live.clone(), f.manager.clone(), f.at.clone());
        o.fields.iter().map(of).collect()
    };
    same_object(a, b) && a.state == b.state && written(a) == written(b)
}

/// What was found out about one object.
struct Looked {
    /// The uid, digest and manifest that were looked at.
    mark: String,
    /// How it differs.
    drifted: Option<DriftedObject>,
    /// Whether it is to be written back: not where it carries the label of another Delivery.
    correctable: bool,
    /// Another object that this rests on, or the object itself where it is out of sight.
    beside: Option<Beside>,
    /// Version of the API server that was asked whether it differs.
    settled_by: Option<String>,
    /// Tells of later changes to what differs and stays so, or is left to some others and not to all, and when it was read.
    closely: Option<(Closely, Timestamp)>,
    /// When it is looked at again: it was deleted again and again, and rests.
    rests_until: Option<Timestamp>,
}

impl Seen {
    /// How many objects differ.
    pub fn count(&self) -> usize {
        self.drifted().count()
    }

    /// How many of them are to be written back.
    pub fn correctable(&self) -> usize {
        self.looked.values().filter(|l| l.is_correctable()).count()
    }

    /// One of those that steers traffic.
    pub fn misdirected(&self) -> Option<String> {
        let mut steering = self.looked.iter().filter(|(id, l)| l.is_correctable() && router::is_steering(id));
        steering.next().map(|(id, _)| id.to_string())
    }

    /// Drops what was found out about objects: they were applied since.
    pub fn forget<'a>(&mut self, written: impl Iterator<Item = &'a ObjectId>) {
        for id in written {
            self.looked.remove(id);
            self.applied = true;
        }
    }

    /// Whether an object is known to differ.
    pub fn differs(&self, id: &ObjectId) -> bool {
        self.looked.get(id).is_some_and(|l| l.drifted.is_some())
    }

    /// Why it is not known of all objects whether they differ: how many, and why for one of them.
    pub fn uncompared(&self) -> Option<String> {
        let (id, why) = self.uncompared.first_key_value()?;
        let more = match self.uncompared.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some(format!("{id} could not be compared: {why}{more}"))
    }

    /// Fields that are left to others who keep writing them, as people are told; the first few.
    pub fn contested(&self) -> Vec<String> {
        let recurring = self.recurring.as_ref().map(|r| r.fields.as_slice()).unwrap_or_default();
        let objects = self.drifted().map(|(_, object)| object);
        objects
            .flat_map(|object| contest::stopped(recurring, object))
            .take(3)
            .map(contest::sentence)
            .collect()
    }

    fn drifted(&self) -> impl Iterator<Item = (&ObjectId, &DriftedObject)> {
        let looked = self.looked.iter().filter_map(|(id, l)| Some((id, l.drifted.as_ref()?)));
        looked.chain(self.foreign.iter().map(|(id, (_, d))| (id, d)))
    }

    fn objects(&self) -> Vec<DriftedObject> {
        let all: BTreeMap<_, _> = self.drifted().collect();
        all.into_values().cloned().collect()
    }
}

impl Looked {
    /// One that does not differ.
    fn alike(mark: String, beside: Option<Beside>, settled_by: Option<String>) -> Self {
        Looked {
            mark,
            drifted: None,
            correctable: false,
            beside,
            settled_by,
            closely: None,
            rests_until: None,
        }
    }

    fn is_correctable(&self) -> bool {
        self.drifted.is_some() && self.correctable
    }

    /// When what differs is to be read again, since it has changed once more or has rested.
    fn due(&self) -> Option<Timestamp> {
        let changed =
            self.closely.as_ref().and_then(|(closely, at)| closely.is_outdated().then(|| *at + PACE));
        changed.or(self.rests_until)
    }
}

/// Measures drift and reports it, unless objects are being applied at the moment. Answers when to do it again.
pub async fn follow(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) -> Option<Timestamp> {
    let (spec, now) = (scope.spec(), scope.daemon.now());
    let attempt = status.attempt.as_ref();
    let measure = measure(attempt, status.effective.as_ref(), &spec)?;
    let done = |w: &&Work| {
        let all = matches!(w.end, Some((ApplyEnd::Done, _)));
        all && w.staging == measure.staging && attempt.is_some_and(|a| a.revision == w.revision)
    };
    // Status does not have yet what was written a moment ago.
    let applied = memory.work.as_ref().filter(done).map(|w| w.inventory.clone());
    if !attempt.is_none_or(|a| rests(a, applied.is_some(), &spec, now)) {
        // For the moment in which it is tried again, what was measured stands.
        if attempt.is_some_and(|a| a.retries == 0) {
            memory.drift.measured = None;
        }
        return None;
    }
    let inventory = applied.as_ref().unwrap_or(&status.inventory);
    let strict = applied.is_none() && is_strict(attempt);
    let looked = look(scope, memory, &measure, inventory, strict).await;
    let looked = super::foreign::look(scope, memory, status).await && looked;
    let told = report(scope, memory, &measure.revision).await;
    memory.drift.measured = Some(measure);
    if looked && told { memory.drift.again_at } else { Some(now + RETRY) }
}

/// What objects are compared with.
struct Wanted {
    bundle: Arc<Bundle>,
    /// The effective bundle, where another revision is put in place and not all of it was applied: an object is compared with
    /// what was applied to it last.
    before: Option<Arc<Bundle>>,
}

impl Wanted {
    fn is_applied(&self, entry: &InventoryEntry, key: &[u8]) -> bool {
        self.bundle.get(&entry.id()).is_none_or(|m| manifest_digest(m, key) == entry.applied)
    }

    fn manifest(&self, entry: &InventoryEntry, key: &[u8]) -> Option<&Manifest> {
        let id = entry.id();
        let before = self.before.as_ref().filter(|_| !self.is_applied(entry, key));
        let was = before.and_then(|b| b.get(&id)).filter(|m| manifest_digest(m, key) == entry.applied);
        was.or_else(|| self.bundle.get(&id))
    }
}

/// Looks at the objects whose digest is not the one that we left. Answers whether all could be looked at.
async fn look(
    scope: &Scope<'_>,
    memory: &mut Memory,
    measure: &Measure,
    inventory: &[InventoryEntry],
    strict: bool,
) -> bool {
    let now = scope.daemon.now();
    memory.drift.read = None;
    let mut differ: BTreeMap<ObjectId, (String, &InventoryEntry)> = BTreeMap::new();
    let mut complete = true;
    let mut awaited: BTreeSet<ObjectId> = BTreeSet::new();
    let mut again_at: Option<Timestamp> = None;
    let server = server_version(scope, memory, inventory).await;
    let still_says = |by: &Option<String>| by.is_none() || *by == server;
    let attempt = scope.delivery.status.as_ref().and_then(|s| s.attempt.as_ref());
    // What is only told does not come back.
    let corrects = !scope.spec().suspend && attempt.is_none();
    let key = &scope.daemon.secret_key;
    let strict = match strict {
        true => {
            Some(stage::standing(scope, memory, measure).await.map(|bundle| Wanted { bundle, before: None }))
        }
        false => None,
    };
    let behind = |entry: &InventoryEntry| match &strict {
        Some(Ok(wanted)) => !wanted.is_applied(entry, key),
        Some(Err(_)) => true,
        None => false,
    };
    let counts = |entry: &&InventoryEntry| match &strict {
        // What the failed revision left out comes back as well.
        Some(Ok(wanted)) => !entry.stale || wanted.bundle.get(&entry.id()).is_some(),
        Some(Err(_)) => !entry.stale,
        None => !entry.stale && entry.uid.is_some(),
    };
    for entry in inventory.iter().filter(counts) {
        let id = entry.id();
        let live = scope.live(&entry.gvk(), &id);
        if let Some((written, at)) = memory.awaited.get(&id) {
            let shown = live.as_ref().is_some_and(|l| version(l) >= *written);
            if !shown && *at + LAG > now {
                complete = false;
                again_at = sooner(again_at, *at + LAG);
                awaited.insert(id);
                continue;
            }
            memory.awaited.remove(&id);
        }
        let digest = match &live {
            Some(live) => live.kept.digest.to_string(),
            None if !scope.synced(&entry.gvk(), &entry.namespace) => {
                complete = false;
                continue;
            }
            None if entry.group == "batch" && entry.kind == "Job" => continue,
            None => "missing".into(),
        };
        let in_sync = is_as_left(entry, live.as_ref()) && still_says(&entry.settled_by) && !behind(entry);
        if !in_sync {
            let uid = live.map_or_else(String::new, |l| l.uid.into());
            // What is left to others, by the spec or by an autoscaler of the same revision, may be another now.
            let generation = scope.delivery.metadata.generation.unwrap_or_default();
            let inputs = &measure.revision.inputs;
            let mark = format!("{uid}/{digest}/{}/{generation}/{inputs}/{corrects}", entry.applied);
            differ.insert(id, (mark, entry));
        }
    }
    memory.drift.complete = complete;
    let before: BTreeMap<ObjectId, String> =
        memory.drift.drifted().map(|(id, object)| (id.clone(), object.since.clone())).collect();
    let stands = |id: &ObjectId, l: &Looked| {
        let as_it_was =
            !l.beside.as_ref().is_some_and(Beside::is_outdated) && l.due().is_none_or(|at| at > now);
        as_it_was && still_says(&l.settled_by) && differ.get(id).is_some_and(|(mark, _)| *mark == l.mark)
    };
    memory.drift.looked.retain(|id, l| awaited.contains(id) || stands(id, l));
    let due = memory.drift.looked.values().filter_map(Looked::due);
    memory.drift.again_at = due.fold(again_at, sooner);
    memory.drift.uncompared.clear();
    let new: Vec<_> = differ.into_iter().filter(|(id, _)| !memory.drift.looked.contains_key(id)).collect();
    if new.is_empty() {
        return true;
    }
    let wanted = match strict {
        Some(strict) => strict,
        None => wanted(scope, memory, measure, new.iter().map(|(_, (_, entry))| *entry)).await,
    };
    let known = match wanted {
        Ok(wanted) if recall(scope, memory, &measure.revision).await => Ok(wanted),
        Ok(_) => Err("its DriftReport could not be read".to_owned()),
        Err(refusal) => Err(memory.redact(&refusal.problem.message)),
    };
    let wanted = match known {
        Ok(wanted) => wanted,
        Err(why) => {
            tracing::warn!(problem = %why, "drift cannot be looked at");
            memory.drift.uncompared.extend(new.into_iter().map(|(id, _)| (id, why.clone())));
            return false;
        }
    };
    let mut all = true;
    let mut settled: BTreeMap<ObjectId, (String, Option<String>)> = BTreeMap::new();
    let mut to_compare = Vec::new();
    for (id, (mark, entry)) in new {
        let Some(manifest) = wanted.manifest(entry, key) else { continue };
        match scope.drift_mode(manifest) {
            DriftMode::Ignore => {
                memory.drift.looked.insert(id, Looked::alike(mark, None, None));
            }
            mode => to_compare.push((id, mark, entry, manifest, mode)),
        }
    }
    // Some at once: one after the other, many that were lost together would each wait for all before them.
    let mut left = to_compare.into_iter();
    loop {
        let some: Vec<_> = left.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            break;
        }
        let redact = |text: &str| memory.redact(text);
        let answers = some.iter().map(|(_, _, entry, manifest, _)| compare(scope, manifest, entry, &redact));
        let answers = futures::future::join_all(answers).await;
        for ((id, mark, entry, _, mode), answer) in some.into_iter().zip(answers) {
            match answer {
                Ok(Compared::Same { digest, by, beside, live }) => {
                    settled.extend(digest.map(|digest| (id.clone(), (digest, by.clone()))));
                    let closely = live.and_then(|live| Some((scope.closely(&entry.gvk(), &live)?, now)));
                    let looked = Looked { closely, ..Looked::alike(mark, beside, by) };
                    memory.drift.looked.insert(id, looked);
                }
                Ok(Compared::Differs { object, correctable, beside, live }) => {
                    let mut drifted = Some(object);
                    if let (Some(object), Some(since)) = (&mut drifted, before.get(&id)) {
                        object.since.clone_from(since);
                    }
                    let mut correctable = correctable && mode == DriftMode::Correct;
                    if let (Some(object), Some(recurring), true) =
                        (&drifted, &mut memory.drift.recurring, correctable)
                    {
                        recurring.new |= contest::rested(&mut recurring.fields, object, now);
                        for one in contest::stop(&mut recurring.fields, object, &stamp(now)) {
                            recurring.new = true;
                            scope.notify(true, "Contested", &id.to_string(), &contest::sentence(&one));
                        }
                        correctable = contest::is_correctable(&recurring.fields, object);
                        if correctable && corrects {
                            // Not before it was seen to differ.
                            recurring.note(object, scope.daemon.now());
                        }
                    }
                    let known =
                        memory.drift.recurring.as_ref().map(|r| r.fields.as_slice()).unwrap_or_default();
                    let rests = |object| contest::rests_until(known, object).filter(|_| corrects);
                    let rests_until = drifted.as_ref().and_then(rests);
                    // What is written back is looked at again by then.
                    let stays = !(correctable && corrects);
                    let live = live.filter(|_| stays);
                    let closely = live.and_then(|live| Some((scope.closely(&entry.gvk(), &live)?, now)));
                    if let Some(at) = rests_until {
                        memory.drift.again_at = sooner(memory.drift.again_at, at);
                    }
                    let looked =
                        Looked { mark, drifted, correctable, beside, settled_by: None, closely, rests_until };
                    memory.drift.looked.insert(id, looked);
                }
                Err(why) => {
                    memory.drift.uncompared.insert(id, memory.redact(&why));
                    all = false;
                }
            }
        }
    }
    // As it is, it is as wanted: that is recorded, so that nobody asks again, also after a restart.
    if !settled.is_empty() && memory.drift.corrected.is_none() {
        let mut known = inventory.to_vec();
        for entry in &mut known {
            if let Some((digest, by)) = settled.remove(&entry.id()) {
                entry.digest = digest;
                entry.settled_by = by;
            }
        }
        memory.drift.corrected = Some(known);
    }
    all
}

/// What objects are compared with.
async fn wanted(
    scope: &Scope<'_>,
    memory: &Memory,
    measure: &Measure,
    mut differ: impl Iterator<Item = &InventoryEntry>,
) -> Result<Wanted, Refusal> {
    let status = scope.delivery.status.as_ref();
    let mut wanted = Wanted { bundle: stage::standing(scope, memory, measure).await?, before: None };
    if let Some(effective) = status.filter(|s| s.attempt.is_some()).and_then(|s| s.effective.as_ref())
        && differ.any(|entry| !wanted.is_applied(entry, &scope.daemon.secret_key))
    {
        wanted.before = bundle_of(scope, memory, effective).await.ok();
    }
    Ok(wanted)
}

/// Whether the watch shows an object as we left it.
pub fn is_as_left(entry: &InventoryEntry, live: Option<&Entry<Kept>>) -> bool {
    live.is_some_and(|l| entry.uid.as_deref() == Some(&*l.uid) && *l.kept.digest == *entry.digest)
}

fn sooner(a: Option<Timestamp>, b: Timestamp) -> Option<Timestamp> {
    Some(a.map_or(b, |a| a.min(b)))
}

/// The API server's version, where an answer that it gave is remembered: one of another version may answer otherwise.
async fn server_version(scope: &Scope<'_>, memory: &Memory, inventory: &[InventoryEntry]) -> Option<String> {
    let remembered = inventory.iter().any(|e| e.settled_by.is_some())
        || memory.drift.looked.values().any(|l| l.settled_by.is_some());
    if remembered { scope.daemon.discovery.server_version().await } else { None }
}

/// Reads from the report which fields were written back before, once; begins anew for another revision or spec.
async fn recall(scope: &Scope<'_>, memory: &mut Memory, effective: &Revision) -> bool {
    let of = (effective.to_string(), scope.delivery.metadata.generation.unwrap_or_default());
    if memory.drift.recurring.is_none() {
        let namespace = scope.delivery.namespace().unwrap_or_default();
        let api: Api<DriftReport> = Api::namespaced(scope.daemon.connection.client.clone(), &namespace);
        let Ok(report) = api.get_opt(&scope.delivery.name_any()).await else { return false };
        let spec = report.map(|r| r.spec).unwrap_or_default();
        let of = (spec.revision.clone(), spec.generation);
        let (fields, recalled) = (spec.recurring.clone(), spec.objects.clone());
        memory.drift.read = Some(spec);
        memory.drift.recurring = Some(Recurring { of, fields, new: false, recalled });
    }
    if let Some(recurring) = memory.drift.recurring.as_mut().filter(|r| r.of != of) {
        recurring.new = recurring.fields.iter().any(|one| one.stopped_at.is_some());
        contest::end(&mut recurring.fields);
        recurring.of = of;
    }
    true
}

/// What a comparison came to.
enum Compared {
    /// It is as wanted.
    Same {
        /// The digest of what we own in it, where it is the object that we wrote.
        digest: Option<String>,
        /// Version of the API server that had to be asked.
        by: Option<String>,
        /// What that rests on.
        beside: Option<Beside>,
        /// What was read, where that rests on whose its fields are.
        live: Option<Value>,
    },
    /// It is not.
    Differs {
        /// How.
        object: DriftedObject,
        /// Whether it is to be written back.
        correctable: bool,
        /// What that rests on.
        beside: Option<Beside>,
        /// What was read, where the watch shows it too.
        live: Option<Value>,
    },
}

/// Compares one object field by field; a doubtful difference is settled by a dry-run.
async fn compare(
    scope: &Scope<'_>,
    manifest: &Manifest,
    entry: &InventoryEntry,
    redact: &(dyn Fn(&str) -> String + Sync),
) -> Result<Compared, String> {
    let gvk = manifest.gvk();
    let desired = with_replicas(manifest.to_value(), entry.replicas);
    let resource = scope.daemon.discovery.find(&gvk).await.map_err(|e| e.to_string())?;
    let live = match &resource {
        Some(resource) => get(&scope.access, resource, manifest.namespace(), manifest.name())
            .await
            .map_err(|e| e.cause.to_string())?,
        // Without its definition nothing of the kind is there.
        None => None,
    };
    let rules = scope.rules.as_ref().map_err(ToString::to_string)?;
    let (left, scaler) = match &live {
        Some(live) => without_others_by(&scope.access, &scope.daemon.discovery, rules, &desired, live)
            .await
            .map_err(|e| e.cause.to_string())?,
        None => (Left::nothing(desired), None),
    };
    // Should it go, the replicas are ours again.
    let scaler = scaler.map(|(resource, scaler)| beside::autoscaler(scope, &resource, &scaler));
    let mut found = left.rest(drift(&left.desired, live.as_ref()));
    let desired = &left.desired;
    let settled = |live: &Value| {
        // What is left to others counts again when the rule goes.
        let ours = !left.changed && live["metadata"]["uid"].as_str() == entry.uid.as_deref();
        ours.then(|| digest(live, &scope.daemon.secret_key))
    };
    let rests_on_live = || {
        let on_who =
            |live: &Value| rules.depend_on_live(desired) || depends_on_who(&manifest.to_value(), live);
        live.clone().filter(|live| left.changed && on_who(live))
    };
    if let (true, Some(resource), Some(live)) = (found.has_doubt(), &resource, &live) {
        let uid = live["metadata"]["uid"].as_str().unwrap_or_default();
        let by = scope.daemon.discovery.server_version().await;
        if by.is_none() {
            return Err("the API server does not tell its version".into());
        }
        match dry_run(&scope.access, resource, desired, Guard::Uid(uid)).await {
            Ok(answer) if found.is_doubtful() && drift::is_unchanged(desired, live, &answer.object) => {
                let digest = settled(live);
                return Ok(Compared::Same { digest, by, beside: scaler, live: rests_on_live() });
            }
            Ok(answer) => found.settle(live, &answer.object),
            Err(e) if e.cause.is_transient() || e.cause == Cause::UidChanged => {
                return Err(e.cause.to_string());
            }
            // What cannot be tried is not known to be the same.
            Err(_) => {}
        }
    }
    let state = match &found {
        ObjectDrift::InSync => {
            let digest = live.as_ref().and_then(settled);
            return Ok(Compared::Same { digest, by: None, beside: scaler, live: rests_on_live() });
        }
        ObjectDrift::Missing => "Missing",
        ObjectDrift::Unlabelled(_) => "Unlabelled",
        ObjectDrift::Modified(_) => "Modified",
    };
    let label = live.as_ref().and_then(|l| l["metadata"]["labels"][DELIVERY_LABEL].as_str());
    let correctable = label.is_none_or(|label| label == scope.label);
    let fields = found.fields().to_vec();
    let id = manifest.id();
    let rests_on = match &live {
        Some(live) if state == "Unlabelled" => Some(beside::out_of_sight(scope, &gvk, &id, live)),
        _ => scaler,
    };
    let object = told(&id, &gvk, state, fields, scope.daemon.now(), redact);
    let live = live.filter(|_| state == "Modified");
    Ok(Compared::Differs { object, correctable, beside: rests_on, live })
}

/// An object that differs, as the report tells it.
pub fn told(
    id: &ObjectId,
    gvk: &Gvk,
    state: &str,
    fields: Vec<drift::DriftedField>,
    now: Timestamp,
    redact: &(dyn Fn(&str) -> String + Sync),
) -> DriftedObject {
    let left_out = fields.len().saturating_sub(FIELDS);
    let fields = fields.into_iter().take(FIELDS).map(|mut f| {
        f.redact(&gvk.kind);
        DriftedField {
            path: redact(&f.path.to_string()),
            pointer: redact(&pointer(&f.path)),
            desired: f.desired.as_ref().map(|v| shown(v, redact)),
            live: f.live.as_ref().map(|v| shown(v, redact)),
            manager: f.manager.unwrap_or_else(|| "unknown".into()),
            operation: f.operation.map(|o| o.to_string()),
            subresource: f.subresource,
            at: f.at,
        }
    });
    DriftedObject {
        api_version: gvk.api_version(),
        kind: gvk.kind.clone(),
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        state: state.into(),
        since: stamp(now),
        fields: fields.collect(),
        fields_left_out: i64::try_from(left_out).unwrap_or(i64::MAX),
    }
}

fn shown(value: &Value, redact: &(dyn Fn(&str) -> String + Sync)) -> String {
    let text = redact(&value.to_string());
    match text.char_indices().nth(VALUE) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Writes back what differs. Only these objects are sent.
pub async fn correct(
    scope: &Scope<'_>,
    memory: &mut Memory,
    effective: &Revision,
    inventory: &[InventoryEntry],
) -> Option<Timestamp> {
    let now = scope.daemon.now();
    let waits = memory.drift.retry_at.filter(|at| *at > now);
    let ids: BTreeSet<ObjectId> = memory
        .drift
        .looked
        .iter()
        .filter(|(id, l)| l.is_correctable() && (waits.is_none() || !memory.drift.refused.contains(*id)))
        .map(|(id, _)| id.clone())
        .collect();
    if ids.is_empty() {
        return waits;
    }
    let bundle = bundle_of(scope, memory, effective).await.ok()?;
    let objects: Vec<Manifest> = ids.iter().filter_map(|id| bundle.get(id).cloned()).collect();
    let live = scope.live_fn();
    let owner = scope.owner_fn();
    let mut planner = scope.planner(&live, &owner, None);
    let recurring = memory.drift.recurring.as_ref().map(|r| r.fields.as_slice()).unwrap_or_default();
    let mut left: Vec<_> =
        recurring.iter().filter(|f| f.stopped_at.is_some()).filter_map(contest::as_rule).collect();
    if !left.is_empty() {
        left.extend(scope.delivery.spec.template.drift.iter().flat_map(|d| d.ignore.iter().cloned()));
        planner.rules = Rules::parse(&left).map(Arc::new);
    }
    let mut done = Corrected::default();
    done.write(scope, &planner, effective, inventory, objects.clone()).await;
    if done.refused.is_some() && objects.len() > 1 {
        // One that is refused is in the way of no other: each for itself.
        done.refused = None;
        for manifest in objects {
            if !done.written.contains_key(&manifest.id()) {
                done.write(scope, &planner, effective, inventory, vec![manifest]).await;
            }
        }
    }
    let Corrected { written, refused } = done;
    let left = ids.into_iter().filter(|id| !written.contains_key(id));
    match (waits, &refused) {
        (None, None) => {
            memory.drift.refused.clear();
            memory.drift.failures = 0;
            memory.drift.retry_at = None;
        }
        (None, Some(_)) => {
            memory.drift.refused = left.collect();
            memory.drift.retry_at = Some(now + back_off(SignedDuration::from_secs(5), memory.drift.failures));
            memory.drift.failures += 1;
        }
        (Some(_), Some(_)) => memory.drift.refused.extend(left),
        (Some(_), None) => {}
    }
    if !written.is_empty() {
        note_corrected(memory, inventory, written, now);
    }
    if let Some(refusal) = refused {
        let refusal = memory.redacted(refusal);
        let told = without_values(&refusal.problem.message);
        scope.notify(true, "DriftNotCorrected", &refusal.problem.object, &told);
        tracing::warn!(object = %refusal.problem.object, problem = %refusal.problem.message, "drift was not corrected");
    }
    // What was written back is shown to the machine first; it asks for the rest again.
    if memory.drift.corrected.is_some() { None } else { memory.drift.retry_at }
}

/// What the API server says of a value that it does not take, up to the value: events tell how much differs, and where.
fn without_values(message: &str) -> String {
    const BEFORE: [&str; 3] = ["Invalid value", "Unsupported value", "Duplicate value"];
    let first = BEFORE.iter().filter_map(|before| Some(message.find(before)? + before.len())).min();
    first.map_or(message, |at| &message[..at]).to_owned()
}

/// What a correction came to.
#[derive(Default)]
struct Corrected {
    /// What was written back, as the inventory has it now, and in which version.
    written: BTreeMap<ObjectId, (InventoryEntry, Option<u64>)>,
    /// Why something was not.
    refused: Option<Refusal>,
}

impl Corrected {
    /// Writes some objects back; none where one of them cannot be planned.
    async fn write(
        &mut self,
        scope: &Scope<'_>,
        planner: &Planner<'_>,
        effective: &Revision,
        inventory: &[InventoryEntry],
        objects: Vec<Manifest>,
    ) {
        let ids: BTreeSet<ObjectId> = objects.iter().map(Manifest::id).collect();
        let entries: Vec<InventoryEntry> =
            inventory.iter().filter(|e| ids.contains(&e.id())).cloned().collect();
        // They stood in one bundle before.
        let Ok(partial) = Bundle::new(objects) else { return };
        let mut work = match planner.plan(effective, Goal::Deploy, partial.into(), &entries).await {
            Ok(work) => work,
            Err(refusal) => {
                self.refused.get_or_insert(refusal);
                return;
            }
        };
        for planned in work.plan.values_mut() {
            // What the watch does not show any more is made anew.
            if let Act::Record { uid, .. } = &planned.act {
                planned.act = Act::Update { uid: uid.clone(), release: Vec::new() };
            }
        }
        let stopping = || !scope.daemon.may_write();
        let healthy = |_: &Work, _: &[ObjectId]| Health::Healthy;
        let end = super::apply::run(planner, &mut work, healthy, || false, stopping).await;
        let all = matches!(end, ApplyEnd::Done);
        if let ApplyEnd::Failed(refusal) = end {
            self.refused.get_or_insert(refusal);
        }
        for entry in work.inventory {
            let id = entry.id();
            if all || work.done.contains(&id) {
                let version = work.written.get(&id).map(|w| w.resource_version);
                self.written.insert(id, (entry, version));
            }
        }
    }
}

/// Notes what was written back: the end of a drift.
fn note_corrected(
    memory: &mut Memory,
    inventory: &[InventoryEntry],
    mut written: BTreeMap<ObjectId, (InventoryEntry, Option<u64>)>,
    now: Timestamp,
) {
    let versions = written.iter().filter_map(|(id, (_, version))| Some((id.clone(), ((*version)?, now))));
    memory.awaited.extend(versions);
    let mended_at = stamp(now);
    for id in written.keys() {
        let Some(Looked { drifted: Some(mut object), mark, .. }) = memory.drift.looked.remove(id) else {
            continue;
        };
        if let Some(recurring) = &memory.drift.recurring {
            let whole = object.clone();
            contest::leave_out(&recurring.fields, &mut object);
            // What is left to others differs on, until it is looked at again.
            if object.fields.len() < whole.fields.len() {
                let mut left = whole;
                left.fields.retain(|field| !object.fields.contains(field));
                let looked = Looked { drifted: Some(left), ..Looked::alike(mark, None, None) };
                memory.drift.looked.insert(id.clone(), looked);
            }
        }
        let started_at = object.since.clone();
        let mended_by = Some(FIELD_MANAGER.to_owned());
        let episode = DriftEpisode { started_at, mended_at: mended_at.clone(), mended_by, object };
        memory.drift.mended.insert(0, episode);
    }
    let brought_up_to_date = |old: &InventoryEntry| match written.remove(&old.id()) {
        Some((entry, _)) => InventoryEntry { origin: old.origin, ..entry },
        None => old.clone(),
    };
    memory.drift.corrected = Some(inventory.iter().map(brought_up_to_date).collect());
}

/// Writes the DriftReport when there is something new to tell. Answers whether it stands.
pub async fn report(scope: &Scope<'_>, memory: &mut Memory, effective: &Revision) -> bool {
    let objects = memory.drift.objects();
    // A report that an earlier life of the daemon left may say more than is true now.
    let known = memory.drift.complete || scope.spec().drift == DriftMode::Ignore;
    let told = known && scope.delivery.status.as_ref().and_then(|s| s.drift).unwrap_or(0) > 0;
    let quiet = memory.drift.reported.as_ref().map_or(objects.is_empty() && !told, |r| *r == objects);
    let quiet = quiet && !memory.drift.recurring.as_ref().is_some_and(|r| r.new);
    if quiet && memory.drift.mended.is_empty() {
        return true;
    }
    let Some(owner) = scope.delivery.controller_owner_ref(&()) else { return true };
    let namespace = scope.delivery.namespace().unwrap_or_default();
    let name = scope.delivery.name_any();
    let api: Api<DriftReport> = Api::namespaced(scope.daemon.connection.client.clone(), &namespace);
    let old = match memory.drift.read.take() {
        Some(read) => read,
        None => match api.get_opt(&name).await {
            Ok(old) => old.map(|r| r.spec).unwrap_or_default(),
            Err(_) => return false,
        },
    };
    let revision = effective.to_string();
    let found = Found {
        revision: &revision,
        generation: scope.delivery.metadata.generation.unwrap_or_default(),
        objects: &objects,
        mended: &memory.drift.mended,
        recurring: memory.drift.recurring.as_ref().map(|r| r.fields.as_slice()),
        now: scope.daemon.now(),
    };
    let all_seen = memory.drift.complete && memory.drift.uncompared.is_empty();
    let over = match all_seen && scope.spec().drift != DriftMode::Ignore {
        true => ended(&old, found, memory.drift.reported.is_none(), memory.drift.applied),
        false => Vec::new(),
    };
    let mended = [memory.drift.mended.as_slice(), &over].concat();
    let found = Found { mended: &mended, ..found };
    let spec = grown(old, found);
    let mut report = DriftReport::new(&name, spec);
    report.metadata.owner_references = Some(vec![owner]);
    let params = PatchParams::apply(crate::api::names::FIELD_MANAGER).force();
    let body = json!(report);
    fault::place(|| "before DriftReport".into());
    let written = api.patch(&name, &params, &Patch::Apply(body)).await.is_ok();
    fault::place(|| "after DriftReport".into());
    if written {
        let fresh = objects.len();
        if fresh > 0 && memory.drift.reported.as_ref() != Some(&objects) {
            let text = format!(
                "{fresh} {} from {effective}; see `windlass drift {name}`",
                if fresh == 1 { "object differs" } else { "objects differ" }
            );
            scope.notify(true, "Drifted", "", &text);
        }
        let count = mended.iter().filter(|e| e.mended_by.is_some()).count();
        if count > 0 {
            let text = format!(
                "{count} {} written back as {effective} wants",
                if count == 1 { "object was" } else { "objects were" }
            );
            scope.notify(false, "DriftCorrected", "", &text);
        }
        memory.drift.mended.clear();
        memory.drift.applied = false;
        if let Some(recurring) = &mut memory.drift.recurring {
            recurring.new = false;
        }
        memory.drift.reported = Some(objects);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::without_values;

    #[test]
    fn an_event_quotes_no_value() {
        let table = [
            ("spec.a: Invalid value: {\"b\": \"c; d: e\"}: field is immutable", "spec.a: Invalid value"),
            ("b: is required; a: Duplicate value: \"it\"", "b: is required; a: Duplicate value"),
            ("the webhook is away", "the webhook is away"),
        ];
        for (message, told) in table {
            assert_eq!(without_values(message), told);
        }
    }
}
