//! The controller of Deliveries: observe, ask the state machine, write the state, act. Each round may be the last one
//! of this process; the next one goes on from what stands in status.

mod admission;
pub mod adopted;
pub mod apply;
mod beside;
pub mod bundle;
pub mod depends;
pub mod drift;
pub mod early;
mod except;
mod finish;
mod foreign;
mod foreseen;
pub mod hooks;
pub mod inventory;
mod late;
pub mod leave;
mod leaving;
pub mod measure;
pub mod observe;
mod pods;
pub mod prepare;
pub mod prune;
mod revert;
mod route;
mod served;
pub mod settings;
mod sight;
pub mod stage;
mod subjects;
mod words;
pub mod work;

use super::daemon::Daemon;
use super::fault;
use super::live::Kept;
use crate::api::delivery::{DriftMode, EntryOrigin, Goal, InventoryEntry, Phase, Revision};
use crate::api::{Delivery, DeliveryStatus, names};
use crate::cluster::Access;
use crate::cluster::watch::{Entry, Filter};
use crate::core::bundle::Bundle;
use crate::core::ignore::{RuleError, Rules};
use crate::core::lost;
use crate::core::manifest::{Gvk, Manifest, ObjectId};
use crate::core::plan::Live;
use crate::core::rollout::late as late_requests;
use crate::core::rollout::{
    Action, ApplyEnd, Pruned, Refusal, SOURCE_UNKNOWN, Spec, Staging, State, dependencies, next, status,
};
use crate::lock::lock;
use bundle::refusal;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller;
use prepare::Planner;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;
use work::Memory;

/// Rounds of observe, decide and act within one reconcile. A Delivery that needs more goes on in the next one.
const ROUNDS: usize = 24;

/// However short the interval is, nothing is compared in full more often.
const SHORTEST_INTERVAL: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// How soon it is known whether a Lease that could not be renewed is still ours.
const LEASE_RETRY: Duration = Duration::from_secs(1);

/// How soon a Delivery that is deleted looks again whether those that depend on it are gone.
const DEPENDENT: jiff::SignedDuration = jiff::SignedDuration::from_millis(500);

/// How long a Delivery waits to go for a mirror that is about to be opened.
const MIRROR_LIMIT: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);

/// How soon settings that could not be read are read again.
const SETTINGS_RETRY: Duration = Duration::from_secs(15);

/// Why a round ended early. Everything that concerns the Delivery itself stands in its status instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status could not be written; nothing was done.
    #[error("status could not be written: {0}")]
    Status(#[source] Box<kube::Error>),
    /// A shard of the inventory could not be read; nothing was done.
    #[error("the inventory could not be read: {0}")]
    Inventory(#[source] Box<kube::Error>),
    /// The finalizer could not be written.
    #[error("finalizer could not be written: {0}")]
    Finalizer(#[source] Box<kube::Error>),
}

/// A Delivery in one round, and whom it acts as.
pub struct Scope<'a> {
    /// The daemon.
    pub daemon: &'a Daemon,
    /// The Delivery as it stands.
    pub delivery: &'a Delivery,
    /// The account that acts for it.
    pub access: Access,
    /// The value of its label.
    pub label: String,
    /// What of its objects is left to others, or why that cannot be told.
    pub rules: Result<Arc<Rules>, RuleError>,
}

impl<'a> Scope<'a> {
    fn new(daemon: &'a Daemon, delivery: &'a Delivery, access: Access, memory: &mut Memory) -> Self {
        let namespace = delivery.namespace().unwrap_or_default();
        let label = names::delivery_label(&daemon.options.installation, &namespace, &delivery.name_any());
        let of = (delivery.uid(), delivery.metadata.generation);
        let rules = match &memory.rules {
            Some((known, rules)) if *known == of => rules.clone(),
            _ => {
                let ignore = delivery.spec.template.drift.as_ref().map_or(&[][..], |d| &d.ignore);
                let rules = Rules::parse(ignore).map(Arc::new);
                memory.rules = Some((of, rules.clone()));
                rules
            }
        };
        Scope { daemon, delivery, access, label, rules }
    }

    /// The settings that decide.
    pub fn spec(&self) -> Spec {
        Spec::of(self.delivery)
    }

    /// What is done about the drift of an object: as it says itself, else as the Delivery does.
    pub fn drift_mode(&self, manifest: &Manifest) -> DriftMode {
        let general = self.delivery.spec.template.drift.as_ref().map(|d| d.mode);
        // A bundle cannot be made of objects whose annotation cannot be read.
        crate::core::bundle::drift_mode(manifest).ok().flatten().or(general).unwrap_or_default()
    }

    /// How often everything is compared in full.
    pub fn interval(&self) -> jiff::SignedDuration {
        let given = self.delivery.spec.template.interval;
        given.map_or(jiff::SignedDuration::from_mins(10), |d| d.signed()).max(SHORTEST_INTERVAL)
    }

    /// What the watch knows of an object.
    pub fn live(&self, gvk: &Gvk, id: &ObjectId) -> Option<Entry<Kept>> {
        self.daemon.watches.get(self.account().as_ref(), gvk, Filter::Labelled, id)
    }

    /// The Delivery is woken by whatever changes of an object that was read, while the answer is held.
    pub fn closely(&self, gvk: &Gvk, live: &serde_json::Value) -> Option<crate::cluster::Closely> {
        self.daemon.watches.closely(self.account().as_ref(), gvk, Filter::Labelled, live)
    }

    /// Whether a Job of the inventory has completed, by what was seen last of it; `None` where it was not seen.
    pub fn completed(&self, entry: &InventoryEntry) -> Option<bool> {
        let (account, gvk, id) = (self.account(), entry.gvk(), entry.id());
        let watches = &self.daemon.watches;
        let last = match self.live(&gvk, &id) {
            Some(live) => Some((live.uid, live.kept)),
            None => watches.departed(account.as_ref(), &gvk, Filter::Labelled, &id),
        };
        last.filter(|(uid, _)| entry.uid.as_deref() == Some(&**uid))?.1.completed
    }

    /// Whether an object of the inventory is a Job that is gone without having completed, as far as is known.
    pub fn ended_early(&self, entry: &InventoryEntry) -> bool {
        let gone = self.live(&entry.gvk(), &entry.id()).is_none();
        gone && self.completed(entry).map_or(entry.unfinished, |completed| !completed)
    }

    /// Whether the watch has seen all objects of a kind.
    pub fn synced(&self, gvk: &Gvk, namespace: &str) -> bool {
        self.daemon.watches.synced(self.account().as_ref(), gvk, Filter::Labelled, namespace)
    }

    /// The account that acts.
    pub fn account(&self) -> Option<crate::cluster::ServiceAccount> {
        self.daemon.account(self.delivery)
    }

    /// What the watch knows, as the planner wants it.
    pub fn live_fn(&self) -> impl Fn(&Manifest) -> Option<Live> + Sync + use<'_, 'a> {
        move |manifest| {
            let live = self.live(&manifest.gvk(), &manifest.id())?;
            Some(Live {
                uid: live.uid.into(),
                version: live.resource_version.into(),
                digest: live.kept.digest.into(),
                label: live.label.as_ref().into(),
            })
        }
    }

    /// A planner.
    pub fn planner<'p>(
        &'p self,
        live: &'p (dyn Fn(&Manifest) -> Option<Live> + Sync),
        owner: &'p (dyn Fn(&str) -> Option<String> + Sync),
        previous: Option<Arc<Bundle>>,
    ) -> Planner<'p> {
        Planner {
            access: &self.access,
            discovery: &self.daemon.discovery,
            key: &self.daemon.secret_key,
            label: &self.label,
            live,
            now: self.daemon.now(),
            previous,
            owner,
            knows: prepare::Knows::All,
            rules: self.rules.clone(),
            adopt: self.delivery.spec.template.adopt.unwrap_or_default(),
        }
    }

    /// Which Delivery a value of our label stands for.
    pub fn owner_fn(&self) -> impl Fn(&str) -> Option<String> + Sync + use<'_, 'a> {
        |label| self.daemon.owner(label)
    }

    /// Whether a person said that what carries the label is this Delivery's, whatever its status knows.
    pub fn is_adopted_again(&self) -> bool {
        let uid = self.delivery.annotations().get(names::ADOPT);
        uid.is_some() && uid == self.delivery.metadata.uid.as_ref()
    }

    /// Whoever looks at the cluster before a rollout.
    fn eyes(&self) -> stage::Eyes<'_> {
        stage::Eyes {
            access: &self.access,
            discovery: &self.daemon.discovery,
            label: &self.label,
            namespace: self.delivery.spec.template.target_namespace.as_deref().unwrap_or_default(),
        }
    }

    /// Tells people, by an event on the Delivery.
    pub fn notify(&self, warning: bool, reason: &str, object: &str, message: &str) {
        self.daemon.notify(self.delivery, warning, reason, object, message);
    }
}

/// One reconcile of a Delivery, as kube's controller asks for it.
pub async fn reconcile(delivery: Arc<Delivery>, daemon: Arc<Daemon>) -> Result<controller::Action, Error> {
    let again = look(delivery, daemon).await?;
    Ok(again.map_or_else(controller::Action::await_change, controller::Action::requeue))
}

/// One reconcile of a Delivery, counted, with its name and the revision that it is about on every line of the log.
/// Answers how soon it is to be looked at again if nothing happens before.
pub async fn look(delivery: Arc<Delivery>, daemon: Arc<Daemon>) -> Result<Option<Duration>, Error> {
    let span = tracing::info_span!(
        "delivery",
        delivery = %daemon.name(&delivery),
        revision = tracing::field::Empty
    );
    let begin = std::time::Instant::now();
    let result = rounds(delivery.clone(), daemon.clone()).instrument(span).await;
    daemon.was_looked_at(&delivery);
    daemon.metrics.reconciled("Delivery", result.is_ok(), begin.elapsed());
    result
}

/// Says in the log which revision is worked on: the one under way, else the newest that was fetched, else what runs.
fn log_revision(daemon: &Daemon, delivery: &Delivery, logged: &mut String) {
    let status = delivery.status.as_ref();
    let revision = match status.and_then(|s| s.attempt.as_ref()) {
        Some(attempt) => attempt.revision.to_string(),
        None => match daemon.sources.get(&delivery.source_key()).and_then(|known| known.fetched) {
            Some(fetched) => fetched.revision(),
            None => status.and_then(|s| s.revision.clone()).unwrap_or_default(),
        },
    };
    if *logged != revision {
        tracing::Span::current().record("revision", &revision);
        *logged = revision;
    }
}

async fn rounds(delivery: Arc<Delivery>, daemon: Arc<Daemon>) -> Result<Option<Duration>, Error> {
    let memory = daemon.memory(&delivery);
    let mut memory = memory.lock().await;
    let ours = memory.latest.take();
    let mut delivery = newer(delivery, ours.clone());
    if ours.is_some_and(|ours| decided(&ours) != decided(&delivery)) {
        memory.forget_work();
    }
    // Kept whatever becomes of this round: the watch may show an older one for a while.
    memory.latest = Some(delivery.clone());
    if daemon.is_stopping() {
        return Ok(None);
    }
    let deleting = delivery.metadata.deletion_timestamp.is_some();
    let ours = delivery.finalizers().iter().any(|f| f == names::FINALIZER);
    if deleting && !ours {
        daemon.forget(&delivery);
        return Ok(None);
    }
    if !ours {
        fault::place(|| "before finalizer".into());
        delivery =
            finish::add_finalizer(&daemon, &delivery).await.map_err(|e| Error::Finalizer(Box::new(e)))?;
        fault::place(|| "after finalizer".into());
    }
    if delivery.status.as_ref().is_some_and(|s| !s.inventory_shards.is_empty()) {
        let mut whole = (*delivery).clone();
        inventory::complete(&daemon.connection.client, &mut whole, &mut memory.shards)
            .await
            .map_err(|e| Error::Inventory(Box::new(e)))?;
        delivery = Arc::new(whole);
    }
    let mut logged = String::new();
    let mut slot = None;
    for _ in 0..ROUNDS {
        // Told to end, or not the one who works any more: what was begun is finished, and nothing is decided.
        if daemon.is_stopping() {
            return Ok(None);
        }
        // It may be another's by now: that is known soon.
        if !daemon.may_write() {
            return Ok(Some(LEASE_RETRY));
        }
        if !deleting
            && delivery.annotations().contains_key(names::ADOPT)
            && delivery.status.as_ref().is_some_and(|s| !lost::is_blank(s))
        {
            // It was said about that one loss; another one is asked about again, however soon it comes.
            delivery = finish::forget_adoption(&daemon, &delivery)
                .await
                .map_err(|e| Error::Finalizer(Box::new(e)))?;
            memory.latest = Some(delivery.clone());
        }
        log_revision(&daemon, &delivery, &mut logged);
        let access = daemon.access(&delivery, &mut memory);
        let before = delivery.status.clone().unwrap_or_default();
        daemon.note_owned(&delivery, before.inventory.len());
        if lost::is_blank(&before) {
            memory.forget_what_was_written();
        }
        let now = daemon.now();
        let decision;
        let standing;
        let written;
        let mut wake: Option<Timestamp> = None;
        {
            let scope = Scope::new(&daemon, &delivery, access.clone(), &mut memory);
            watch(&scope, &mut memory, &before);
            if let Some(until) = sight::await_first(&scope, &mut memory, &before) {
                return Ok(Some(left(until, now)));
            }
            if !deleting {
                wake = drift::follow(&scope, &mut memory, &before).await;
            }
            pods::follow(&scope, &mut memory, &before);
            if let Some(at) = route::follow(&scope, &mut memory, &before).await {
                wake = Some(wake.map_or(at, |w| w.min(at)));
            }
            if let Some(at) = served::follow(&scope, &mut memory, &before).await {
                wake = Some(wake.map_or(at, |w| w.min(at)));
            }
            measure::ensure(&scope, &mut memory, &before).await;
            let seen = observe::observe(&scope, &mut memory, &before).await;
            // The watch may still show one that has gone, and wakes nobody when it does not any more. Nothing is asked.
            if seen.dependent.is_some() {
                wake = Some(wake.map_or(now + DEPENDENT, |w| w.min(now + DEPENDENT)));
            }
            let spec = scope.spec();
            decision = next(&spec, &State::from(&before), &seen, now);
            if slot.is_none() && decision.actions.iter().any(takes_much) {
                let waited = daemon.slots.are_taken();
                slot = daemon.slots.take().await;
                if waited {
                    // What was seen is old by now.
                    continue;
                }
            }
            let status =
                status::status(&spec, &decision.state, &seen, &before, delivery.metadata.generation, now);
            // A clock that was set back must not silence it.
            let words_at = memory.worded_at.filter(|at| *at <= now).map_or(now, |at| words::due(&status, at));
            let generation = delivery.metadata.generation.unwrap_or_default();
            standing = dependencies::standing(&spec, &decision.state, &seen, generation);
            // What is about to be found out is written together with what it led to. A failure that was cleared is lost
            // without harm; one that is new must be written, or it would be found out again and again.
            let begun = |state: &State| (state.attempt.clone(), state.held.clone(), state.effective.clone());
            let told = decision.state.failure.is_none() || decision.state.failure == before.failure;
            let finding_out = told
                && begun(&decision.state) == begun(&State::from(&before))
                && decision.actions.iter().any(|a| matches!(a, Action::Prepare(..)));
            written = (!finding_out && words::must_write(&before, &status, words_at <= now))
                .then_some(status.clone());
            // Words that wait a little are written then, also if nothing else happens.
            if written.is_none() && !finding_out && status != before {
                wake = Some(wake.map_or(words_at, |w| w.min(words_at)));
            }
        }
        if let Some(status) = written {
            tracing::debug!(phase = ?status.phase, "status");
            let recorded = status.clone();
            let at = |side: &str| fault::places(|| places_of(side, &before, &recorded));
            at("before");
            match finish::write_status(&daemon, &delivery, status, &mut memory).await {
                Ok(new) => {
                    at("after");
                    memory.worded_at = Some(now);
                    daemon.count_deployment(&before, &new);
                    log_revision(&daemon, &new, &mut logged);
                    delivery = Arc::new(new);
                }
                // Somebody else wrote it: what we decided was decided on something old.
                Err(kube::Error::Api(e)) if e.code == 409 || e.code == 404 => {
                    return Ok(Some(Duration::from_millis(200)));
                }
                Err(error) => return Err(Error::Status(Box::new(error))),
            }
        }
        memory.latest = Some(delivery.clone());
        let key = (delivery.namespace().unwrap_or_default(), delivery.name_any());
        daemon.wake_keys(daemon.dependencies.note(&key, standing));
        memory.forget_what_was_shown();
        let scope = Scope::new(&daemon, &delivery, access, &mut memory);
        let mut again = false;
        for action in decision.actions {
            let place = action.name();
            let at = |side: &str| fault::places(|| places_of_action(side, &place, &delivery));
            at("before");
            let next = perform(&scope, &mut memory, action).await;
            at("after");
            match next {
                Next::Done => {}
                Next::Again => again = true,
                Next::Wake(at) => wake = Some(wake.map_or(at, |w| w.min(at))),
                Next::Gone => {
                    daemon.forget(&delivery);
                    return Ok(None);
                }
            }
        }
        if !again {
            let looks = [
                observe::looks_again(&memory),
                hooks::looks_again(&memory, now),
                route::looks_again(&memory, now),
            ];
            for at in looks.into_iter().flatten() {
                wake = Some(wake.map_or(at, |w| w.min(at)));
            }
            if delivery.status.as_ref().is_some_and(|s| s.attempt.is_none()) {
                memory.previous = None;
            }
            if delivery.status.as_ref().is_some_and(|s| s.attempt.is_none() && s.failure.is_none()) {
                memory.work = None;
                if delivery.status.as_ref().is_some_and(|s| s.bake.is_none()) {
                    memory.pods.clear();
                }
            }
            let mut rest = Duration::try_from(scope.interval()).unwrap_or(Duration::from_secs(600));
            if memory.settings_missing {
                rest = rest.min(SETTINGS_RETRY);
            }
            return Ok(Some(wake.map_or(rest, |at| rest.min(left(at, daemon.now())))));
        }
    }
    Ok(Some(Duration::from_millis(100)))
}

/// Whether an action makes a bundle, and what is to be done with each of its objects: only so many Deliveries hold theirs at a
/// time, and those that began are done sooner. Going back waits for nobody.
fn takes_much(action: &Action) -> bool {
    matches!(action, Action::Prepare(_, Goal::Deploy, _) | Action::Apply(_, Goal::Deploy, _))
}

/// How long it is until then, at least a moment.
fn left(until: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default().max(Duration::from_millis(10))
}

/// A status that is written, by what is under way (or by its phase), and by what it records for the first time.
fn places_of(side: &str, before: &DeliveryStatus, status: &DeliveryStatus) -> Vec<String> {
    let mut names = vec![match &status.attempt {
        Some(attempt) => format!("{:?} {:?}", attempt.goal, attempt.step),
        None => format!("{:?}", status.phase),
    }];
    for run in &status.hooks {
        let was = before.hooks.iter().find(|known| known.job == run.job && known.namespace == run.namespace);
        if was.is_none_or(|was| was.step != run.step) {
            names.push(format!("hook {} {:?}", run.point, run.step));
        }
        if was.is_some_and(|was| was.state != run.state) {
            names.push(format!("hook {} {:?}", run.point, run.state));
        }
    }
    let reverted = |s: &DeliveryStatus| s.held.as_ref().is_some_and(|held| held.revert.is_some());
    if reverted(status) && !reverted(before) {
        names.push("reverted".into());
    }
    if status.waiting.is_some() && before.waiting.is_none() {
        names.push("waiting for another".into());
    }
    match (&before.bake, &status.bake) {
        (None, Some(_)) => names.push("bake begun".into()),
        (Some(_), None) => names.push("bake over".into()),
        _ => {}
    }
    if status.phase == Phase::RollbackFailed && before.phase != Phase::RollbackFailed {
        names.push("rollback failed".into());
    }
    if status.handled_release != before.handled_release {
        names.push("release handled".into());
    }
    if status.handled_rollback != before.handled_rollback {
        names.push("rollback handled".into());
    }
    let suspended = |s: &DeliveryStatus| s.phase == Phase::Suspended;
    match (suspended(before), suspended(status)) {
        (false, true) => names.push("suspension begun".into()),
        (true, false) => names.push("suspension over".into()),
        _ => {}
    }
    let drifted = |s: &DeliveryStatus| s.drift.unwrap_or(0) > 0;
    match (drifted(before), drifted(status)) {
        (false, true) => names.push("drift told".into()),
        (true, false) => names.push("drift over".into()),
        _ => {}
    }
    let rollout = |s: &DeliveryStatus| s.attempt.as_ref().and_then(|a| a.rollout.clone());
    if let Some(now) = rollout(status) {
        let was = rollout(before).filter(|was| (was.stage, was.at) == (now.stage, now.at));
        if was.is_none() {
            names.push(format!("stage {:?} {}", now.stage, now.at));
        }
        if now.settled.is_some() && was.is_none_or(|was| was.settled.is_none()) {
            names.push(format!("settled {:?} {}", now.stage, now.at));
        }
    }
    names.into_iter().map(|name| format!("{side} status {name}")).collect()
}

/// An action that is performed, by its name, and by the stage of the rollout that it is for.
fn places_of_action(side: &str, action: &str, delivery: &Delivery) -> Vec<String> {
    let attempt = delivery.status.as_ref().and_then(|s| s.attempt.as_ref());
    let staged = attempt.and_then(|a| a.rollout.as_ref());
    let staged = staged.map(|r| format!("{side} {action} {:?} {}", r.stage, r.at));
    [Some(format!("{side} {action}")), staged].into_iter().flatten().collect()
}

/// What a status has decided. Where somebody else wrote it, another daemon was at work: what we know of our own work is
/// no longer what stands in the cluster.
fn decided(
    delivery: &Delivery,
) -> Option<(Option<&crate::api::delivery::Attempt>, Option<&Revision>, Option<&crate::api::delivery::Held>)>
{
    let status = delivery.status.as_ref()?;
    Some((status.attempt.as_ref(), status.effective.as_ref(), status.held.as_ref()))
}

/// The newer of what the watch shows and what we wrote last. Versions of one kind of object can be compared as numbers.
fn newer(shown: Arc<Delivery>, ours: Option<Arc<Delivery>>) -> Arc<Delivery> {
    let version = |d: &Delivery| d.resource_version().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    match ours {
        Some(ours) if ours.uid() == shown.uid() && version(&ours) > version(&shown) => ours,
        _ => shown,
    }
}

/// Watches what the Delivery has, and what it is about to have; ends the watches that it needs no more.
fn watch(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) {
    let work = memory.work.iter().flat_map(|w| w.inventory.iter());
    let mut kinds: BTreeMap<Gvk, BTreeSet<String>> = BTreeMap::new();
    for entry in status.inventory.iter().chain(work) {
        kinds.entry(entry.gvk()).or_default().insert(entry.namespace.clone());
    }
    for (kind, namespace) in hooks::watched(status) {
        kinds.entry(kind).or_default().insert(namespace);
    }
    // A late request may still bring these back.
    let now = scope.daemon.now();
    for entry in status.removed.iter().filter(|r| r.counts(now)) {
        if kinds.contains_key(&entry.gvk()) || scope.daemon.discovery.resource(&entry.gvk()).is_some() {
            kinds.entry(entry.gvk()).or_default().insert(entry.namespace.clone());
        }
    }
    memory.interests.retain(|kind, (of, _)| kinds.contains_key(kind) && *of == scope.account());
    ensure_watches(scope, memory, kinds);
}

fn ensure_watches(scope: &Scope<'_>, memory: &mut Memory, kinds: BTreeMap<Gvk, BTreeSet<String>>) {
    let account = scope.account();
    for (kind, mut namespaces) in kinds {
        namespaces.remove("");
        let known = memory.interests.get(&kind).map(|(_, interests)| interests);
        let missing: BTreeSet<String> = match known {
            Some(known) if namespaces.is_empty() && !known.is_empty() => continue,
            Some(known) => {
                namespaces.into_iter().filter(|n| !known.iter().any(|(of, _)| of.contains(n))).collect()
            }
            None => namespaces,
        };
        if known.is_some() && missing.is_empty() {
            continue;
        }
        let interest = scope.daemon.watches.ensure(account.as_ref(), &kind, Filter::Labelled, &missing);
        let (_, interests) = memory.interests.entry(kind).or_insert_with(|| (account.clone(), Vec::new()));
        interests.push((missing, interest));
    }
}

/// What an action came to.
enum Next {
    /// Nothing more.
    Done,
    /// There is something new to observe.
    Again,
    /// Look again then.
    Wake(Timestamp),
    /// The Delivery is gone.
    Gone,
}

async fn perform(scope: &Scope<'_>, memory: &mut Memory, action: Action) -> Next {
    let empty = DeliveryStatus::default();
    let status = scope.delivery.status.as_ref().unwrap_or(&empty);
    match action {
        Action::Wake(at) => return Next::Wake(at),
        Action::Notify(notice) => {
            scope.notify(notice.warning, &notice.reason, &notice.object, &notice.message);
            return Next::Done;
        }
        Action::Keep(revision) => {
            finish::keep(scope, memory, status, &revision).await;
            adopted::forget(scope, memory, status).await;
            return Next::Done;
        }
        Action::Revert(held) => {
            revert::begin(scope, memory, &held);
            return Next::Done;
        }
        // Woken when it is time.
        Action::RemoveFinalizer if memory.leaving.waits => return Next::Done,
        Action::RemoveFinalizer => {
            // While there is still somebody who would do it once more: a crash after the finalizer went would leave it for ever.
            let now = scope.daemon.now();
            let since = *memory.leaving_since.get_or_insert(now);
            if !finish::keep_nothing(scope).await && now < since + MIRROR_LIMIT {
                return Next::Wake(now + DEPENDENT);
            }
            fault::place(|| "amid RemoveFinalizer".into());
            return match finish::remove_finalizer(scope.daemon, scope.delivery).await {
                Ok(()) => Next::Gone,
                Err(error) => {
                    tracing::warn!(%error, "the finalizer could not be removed");
                    Next::Wake(scope.daemon.now() + jiff::SignedDuration::from_secs(2))
                }
            };
        }
        Action::Prepare(revision, goal, staging) => {
            match stage::prepare(scope, memory, status, &revision, goal, staging).await {
                Ok(mut work) => {
                    if let Some((of, written)) = memory.carried.take()
                        && of == revision
                    {
                        work.written = written;
                    }
                    adopted::keep(scope, memory, &work).await;
                    finish::keep_ahead(scope, memory, status, &revision).await;
                    memory.work = Some(work);
                }
                Err(refusal) => {
                    if memory.work.as_ref().is_some_and(|w| w.revision == revision) {
                        memory.work = None;
                    }
                    memory.refused = Some(work::Refused {
                        revision,
                        refusal: memory.redacted(refusal),
                        at: scope.daemon.now(),
                        request: scope.delivery.annotations().get(names::RECONCILE_REQUEST).cloned(),
                    });
                }
            }
        }
        Action::Apply(revision, goal, staging) => {
            let as_asked = |w: &work::Work| w.revision == revision && w.staging == staging;
            let Some(mut work) = memory.work.take().filter(as_asked) else {
                return Next::Again;
            };
            // It was planned by rules that could be used. What they left to others is not overwritten now.
            if let (Err(error), true) = (&scope.rules, work.goal != Goal::Rollback) {
                work.end = Some((ApplyEnd::Failed(leave::refusal(error)), scope.daemon.now()));
                memory.work = Some(work);
                return Next::Again;
            }
            let live = scope.live_fn();
            let previous = previous(scope, memory, status).await;
            let before = match scope.spec().prune {
                true => {
                    remove(scope, &work.inventory, Some(work.goal), prune::What::Before, previous.as_deref())
                        .await
                }
                false => crate::core::rollout::Pruned { inventory: work.inventory.clone(), refusal: None },
            };
            let owner = scope.owner_fn();
            let planner = scope.planner(&live, &owner, previous);
            work.inventory = before.inventory;
            let end = match before.refusal {
                Some(refusal) => ApplyEnd::Failed(refusal),
                None => {
                    let known: &Memory = memory;
                    // A candidate that is not healthy must not keep traffic from leaving it.
                    let excused = observe::excused(status);
                    let counts =
                        |e: &&InventoryEntry| !excused(e) && (goal != Goal::Rollback || !e.candidate);
                    let healthy = |work: &work::Work, ids: &[ObjectId]| {
                        let some: Vec<InventoryEntry> = work
                            .inventory
                            .iter()
                            .filter(counts)
                            .filter(|e| ids.contains(&e.id()))
                            .cloned()
                            .collect();
                        observe::health(scope, &some, Some(work), known)
                    };
                    let superseded = || scope.daemon.commit_moved(scope.delivery, memory);
                    apply::run(&planner, &mut work, healthy, superseded, || !scope.daemon.may_write()).await
                }
            };
            let end = match end {
                ApplyEnd::Done => route_last(scope, &mut work).await,
                other => other,
            };
            let end = match end {
                ApplyEnd::Failed(refusal) => ApplyEnd::Failed(memory.redacted(refusal)),
                ApplyEnd::Blocked(message) => ApplyEnd::Blocked(memory.redact(&message)),
                ApplyEnd::Done => ApplyEnd::Done,
            };
            let now = scope.daemon.now();
            memory.awaited.extend(work.written.iter().map(|(id, w)| (id.clone(), (w.resource_version, now))));
            memory.drift.forget(work.written.keys());
            // Broken off, it is no result: should the Lease be ours still, it goes on from there.
            work.end = scope.daemon.may_write().then_some((end, now));
            memory.work = Some(work);
        }
        Action::Prune => {
            if let Some(refusal) = route::names_candidate(scope, memory, status).await {
                let inventory = status.inventory.clone();
                memory.pruned = Some(Pruned { inventory, refusal: Some(refusal) });
                return Next::Again;
            }
            let good = previous_or_why(scope, memory, status).await;
            let goal = status.attempt.as_ref().map(|attempt| attempt.goal);
            let all = scope.spec().prune;
            memory.pruned = Some(match good {
                Ok(good) if all => {
                    remove(scope, &status.inventory, goal, prune::What::Stale, good.as_deref()).await
                }
                Ok(good) => {
                    remove(scope, &status.inventory, goal, prune::What::Failed, good.as_deref()).await
                }
                Err(_) if all => remove(scope, &status.inventory, goal, prune::What::Stale, None).await,
                // It is known in a moment, and what is kept once is kept for good.
                Err(why) if why.problem.reason == SOURCE_UNKNOWN => {
                    Pruned { inventory: status.inventory.clone(), refusal: Some(why) }
                }
                // Where it cannot be told what was good, nothing is taken for what never was.
                Err(_) => remove(scope, &status.inventory, goal, prune::What::Candidates, None).await,
            });
        }
        Action::RunHook(run) => return hooks::run(scope, memory, &run).await,
        Action::RemoveHooks(runs) => return hooks::remove(scope, memory, &runs).await,
        Action::RemoveLate(late) => {
            return match late::remove(scope, memory, &late).await {
                Some(at) => Next::Wake(at),
                None => Next::Done,
            };
        }
        Action::Evict(pods) => {
            prune::evict(scope, &pods).await;
            return Next::Done;
        }
        Action::PruneAll => {
            // It may have been told otherwise meanwhile.
            memory.leaving = leaving::Leaving::default();
            if let Some(refusal) = give_back(scope, status).await {
                memory.pruned = Some(Pruned { inventory: status.inventory.clone(), refusal: Some(refusal) });
                return Next::Again;
            }
            memory.pruned = Some(remove(scope, &status.inventory, None, prune::What::All, None).await);
        }
        Action::OrphanAll => {
            if let Some(at) = leaving::end_rollout(scope, memory, status).await {
                return Next::Wake(at);
            }
            give_back(scope, status).await;
            let left = remove(scope, &status.inventory, None, prune::What::Orphan, None).await;
            if let Some(refusal) = left.refusal {
                scope.notify(true, "LabelLeft", &refusal.problem.object, &refusal.problem.message);
            }
            return Next::Done;
        }
        Action::Correct(effective) => {
            return match drift::correct(scope, memory, &effective, &status.inventory).await {
                Some(at) => Next::Wake(at),
                None if memory.drift.corrected.is_some() => Next::Again,
                None => Next::Done,
            };
        }
    }
    Next::Again
}

/// The route comes last: what it sends traffic to is there by then.
async fn route_last(scope: &Scope<'_>, work: &mut work::Work) -> ApplyEnd {
    let Some(external) = &mut work.route else { return ApplyEnd::Done };
    match route::ensure(scope, external).await {
        Ok(None) => {
            external.waits = None;
            ApplyEnd::Done
        }
        Ok(Some(why)) => {
            external.waits = Some(why.clone());
            ApplyEnd::Blocked(why)
        }
        // Going back, there is nothing that traffic could be taken from.
        Err(refusal) if refusal.problem.reason == route::MISSING && work.goal == Goal::Rollback => {
            ApplyEnd::Done
        }
        Err(refusal) => ApplyEnd::Failed(refusal),
    }
}

/// Gives a route of others back before what it sends traffic to is removed. Answers why that has to wait; one that cannot be
/// given back keeps nobody from going.
async fn give_back(scope: &Scope<'_>, status: &DeliveryStatus) -> Option<Refusal> {
    let external = route::to_give_back(scope, status)?;
    let refusal = route::ensure(scope, &external).await.err()?;
    if !refusal.transient {
        scope.notify(true, "RouteLeft", &refusal.problem.object, &refusal.problem.message);
    }
    Some(refusal).filter(|r| r.transient)
}

/// Removes objects. `good` is the bundle of the last good revision, where it can be had: what only a revision after it
/// adopted is released. `goal` is that of the attempt under way.
async fn remove(
    scope: &Scope<'_>,
    inventory: &[InventoryEntry],
    goal: Option<Goal>,
    what: prune::What,
    good: Option<&Bundle>,
) -> Pruned {
    let never_good = |e: &InventoryEntry| !e.kept && good.is_none_or(|b| b.get(&e.id()).is_none());
    let gives_back = |e: &InventoryEntry| e.stale && e.origin == EntryOrigin::Adopted && never_good(e);
    let released = !matches!(what, prune::What::All | prune::What::Orphan);
    let mut befores = adopted::Befores::new();
    if released && inventory.iter().any(gives_back) {
        match adopted::kept(scope.delivery, &scope.access).await {
            Ok(kept) => befores = kept,
            Err(error) => {
                // The server's words about a Secret are not passed on.
                let code = match &error {
                    kube::Error::Api(status) => status.code.to_string(),
                    _ => "no answer".into(),
                };
                let text = format!("what adopted objects were before could not be read ({code})");
                let refusal = Some(refusal("AdoptedUnreadable", text, true));
                return Pruned { inventory: inventory.to_vec(), refusal };
            }
        }
    }
    let (access, discovery) = (&scope.access, &scope.daemon.discovery);
    let rolls_back = goal == Some(Goal::Rollback) && what != prune::What::Failed;
    let undone = |e: &InventoryEntry| rolls_back || never_good(e);
    prune::run(access, discovery, &scope.label, inventory, what, undone, &befores).await
}

/// The bundle of the effective revision, to tell which fields left Git. Without it (its commit is lost) fields that
/// somebody else co-owns stay.
async fn previous(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) -> Option<Arc<Bundle>> {
    previous_or_why(scope, memory, status).await.ok().flatten()
}

/// The bundle of the effective revision, if there is one, or why it cannot be had.
async fn previous_or_why(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
) -> Result<Option<Arc<Bundle>>, Refusal> {
    let Some(effective) = status.effective.clone() else { return Ok(None) };
    let of = (scope.delivery.metadata.generation, effective);
    // Planning, applying and pruning each ask, and rendering may mean running kustomize.
    if let Some((known, bundle)) = &memory.previous
        && *known == of
    {
        return Ok(Some(bundle.clone()));
    }
    let bundle = bundle_of(scope, memory, &of.1).await?;
    memory.previous = Some((of, bundle.clone()));
    Ok(Some(bundle))
}

async fn prepare(
    scope: &Scope<'_>,
    memory: &mut Memory,
    status: &DeliveryStatus,
    revision: &Revision,
    goal: Goal,
    bundle: Arc<Bundle>,
) -> Result<work::Work, Refusal> {
    crate::core::plan::guard_empty(&bundle, &revision.path, &status.inventory)
        .map_err(|problem| Refusal { problem, transient: false })?;
    finish::ensure_namespace(scope).await?;
    let mut kinds: BTreeMap<Gvk, BTreeSet<String>> = BTreeMap::new();
    for object in bundle.objects() {
        kinds.entry(object.gvk()).or_default().insert(object.namespace().to_owned());
    }
    ensure_watches(scope, memory, kinds);
    if goal == Goal::Rollback {
        admission::first(scope, &bundle, &status.inventory).await?;
    }
    hooks::try_out(scope, &bundle, revision, goal).await?;
    let previous = previous(scope, memory, status).await;
    let live = scope.live_fn();
    let owner = scope.owner_fn();
    let mut planner = scope.planner(&live, &owner, previous);
    let name = scope.delivery.name_any();
    planner.knows = match lost::is_blank(status) {
        false => prepare::Knows::All,
        true if scope.is_adopted_again() => prepare::Knows::Adopting,
        true => prepare::Knows::Nothing(&name),
    };
    let mut inventory = status.inventory.clone();
    for entry in inventory.iter_mut().filter(|e| scope.ended_early(e)) {
        entry.unfinished = true;
    }
    let mut work = planner.plan(revision, goal, bundle, &inventory).await?;
    let made = |id: &ObjectId| matches!(work.plan.get(id), Some(p) if matches!(p.act, work::Act::Create));
    late_requests::adopted_again(&mut work.inventory, &inventory, &status.removed, made);
    let again = work.plan.values().filter(|p| p.lost).count();
    if again > 0 {
        let text =
            format!("{again} objects that carry the label are this Delivery's again, as a person said");
        scope.notify(false, "Adopted", "", &text);
    }
    Ok(work)
}

/// The bundle of a revision. Workloads whose configuration has changed once carry a digest of it.
pub(super) async fn bundle_of(
    scope: &Scope<'_>,
    memory: &Memory,
    revision: &Revision,
) -> Result<Arc<Bundle>, Refusal> {
    let rendered = rendered(scope, memory, revision).await?;
    Ok(stage::still_restarting(scope, rendered))
}

/// The bundle of a revision as Git says, from the cache or rendered.
async fn rendered(scope: &Scope<'_>, memory: &Memory, revision: &Revision) -> Result<Arc<Bundle>, Refusal> {
    if let Some(work) = &memory.work
        && work.revision == *revision
        && work.staging == Staging::Whole
    {
        return Ok(work.bundle.clone());
    }
    let delivery = scope.delivery;
    let cache = (scope.label.clone(), delivery.metadata.generation, revision.clone());
    if let Some(bundle) = scope.daemon.bundles.get(&cache) {
        return Ok(bundle);
    }
    let source = scope.daemon.sources.get(&delivery.source_key());
    let Some(store) = source.and_then(|k| k.store) else {
        return Err(refusal(SOURCE_UNKNOWN, "the source was not read yet", true));
    };
    let settings = match &memory.settings {
        Some(settings) if settings.digest == revision.settings => Some(settings.clone()),
        _ => {
            let kept = settings::kept(delivery, &scope.access, revision, scope.daemon.now()).await;
            if let Some(kept) = &kept {
                *lock(&memory.kept) = Some(kept.clone());
            }
            kept
        }
    };
    if settings.is_none() {
        return Err(refusal(
            "SettingsLost",
            format!("the values that {revision} was rendered with are not kept any more"),
            true,
        ));
    }
    let tree = bundle::tree(&store, revision).await?;
    let options = bundle::options(&delivery.spec, settings.as_ref(), &scope.daemon.options.renderer);
    let scopes = bundle::ClusterScopes(&scope.daemon.discovery);
    let (bundle, warnings) = bundle::render(tree, &revision.path, &options, &scopes, &scope.label).await?;
    for warning in warnings {
        tracing::warn!(delivery = %scope.daemon.name(delivery), %revision, "{}", memory.redact(&warning));
    }
    let bundle = Arc::new(bundle);
    scope.daemon.bundles.put(cache, bundle.clone());
    Ok(bundle)
}
