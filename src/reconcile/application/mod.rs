//! The controller of Applications: what a spec becomes is kept as a revision and handed to a Delivery of its own, which puts it in
//! place, mends it and takes it back like a commit of a repository; how that goes is told in the Application's status.
//!
//! The Delivery and the revisions belong to the Application (owner references), so they go with it, and the objects go with the
//! Delivery. Where the Application itself lies in a directory that a Delivery delivers, that one goes back when it fails, and its
//! own does not.

mod follow;
mod pods;
mod retry;
mod revisions;
mod sight;

pub use follow::{follow, follow_revisions, gvk};
pub(super) use pods::are_lacking;

use super::daemon::Daemon;
use super::fault;
use super::sources::{Awaited, Fetched};
use crate::api::application::{ApplicationPhase, ApplicationStatus};
use crate::api::condition::{self, kind};
use crate::api::delivery::{
    Adopt, DeliverySpec, DeliveryTemplate, Problem, RollbackMode, RollbackPolicy, Source, application_source,
};
use crate::api::{Application, Delivery, names, status_over};
use crate::cluster::{self, Cause, Discovery};
use crate::core::application::{
    Kinds, Notice, Pods, Seen, expand_for, revision, revision_name, rollout, status, url, waits,
};
use crate::core::manifest::{ObjectId, Origin};
use crate::core::rollout::status::told;
use crate::lock::lock;
use crate::source::{CommitInfo, backoff};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use retry::Retry;
use serde_json::{Value, json};
use sight::{Known, Sight};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::Instrument;

/// Namespace and name of an Application.
type Key = (String, String);

/// The least time between two revisions of one Application that are begun: of a burst of edits the first is taken at once, and
/// then the last.
const PAUSE: Duration = Duration::from_secs(1);

/// How soon it is known whether a Lease that could not be renewed is still ours.
const LEASE_RETRY: Duration = Duration::from_secs(1);

/// Applications that are on their way and have not said so, from which on those that come after them go first.
const MANY: usize = 16;

/// The first wait after something was refused.
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// The longest: rights are granted and names become free without anybody telling.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// How soon a Delivery that is in the way is looked for again, if nobody tells that it is gone.
const IN_THE_WAY: Duration = Duration::from_secs(10);

/// Why a round ended early. Everything that concerns the Application itself stands in its status instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status could not be written.
    #[error("status could not be written: {0}")]
    Status(#[source] Box<kube::Error>),
}

/// Why something could not be done for an Application.
enum Hitch {
    /// It may work a little later, though nobody does anything; not before so long a time.
    Passing(Problem, Duration),
    /// Somebody has to do something.
    Refused(Problem),
}

impl Hitch {
    /// `what` ends the sentence that the object begins, such as ` could not be written`.
    fn new(reason: &str, object: &ObjectId, kind: &str, what: &str, error: kube::Error) -> Self {
        let cause = cluster::access::cause(object, kind, error);
        let least = match &cause {
            Cause::Throttled { retry_after } => *retry_after,
            _ => Duration::ZERO,
        };
        let passes = cause.is_transient() || cause.needs_new_plan();
        let problem = problem(reason, format!("{object}{what}: {cause}"));
        if passes { Hitch::Passing(problem, least) } else { Hitch::Refused(problem) }
    }
}

/// The Applications' side of the daemon.
pub struct Applications {
    daemon: Arc<Daemon>,
    shown: Store<Application>,
    memories: Mutex<HashMap<Key, Memory>>,
    /// Revisions that somebody removed, of each Application that was not looked at since.
    removed: Mutex<HashMap<Key, BTreeSet<String>>>,
    /// The revisions that are there, as their watch shows them.
    sight: Sight,
}

/// What an expansion follows from: the generation of the spec, and what the cluster has.
type Basis = (Option<i64>, Kinds);

/// What is remembered of an Application between two rounds. All of it may be lost.
#[derive(Default)]
struct Memory {
    uid: Option<String>,
    /// What its spec becomes, by generation and what the cluster has: a revision, or why it is none.
    expanded: Option<(Basis, Result<Wanted, Problem>)>,
    /// The revision that was handed to its Delivery last, and when.
    begun: Option<(String, Instant)>,
    /// The generation of the spec for which the Delivery was last seen to be as it must.
    ensured: Option<Option<i64>>,
    /// The revision that was kept last, or found in place, until it is known that no other is there in vain or is nobody's.
    kept: Option<String>,
    /// The status that was written last, and its version: the watch may still show an older one.
    written: Option<(ApplicationStatus, u64)>,
    /// Since when there is something to say that was not written yet.
    unsaid: Option<Timestamp>,
    /// How often something was refused in a row.
    refused: u32,
    /// What failed in a row, and the generation of the spec that it failed for: a newer one is tried at once.
    retry: (Option<i64>, Retry),
    /// How often the status could not be written in a row.
    unwritten: Retry,
    /// How many pods were wanted when that was seen last and nothing moved traffic.
    wanted_pods: Option<i32>,
}

/// What a spec becomes.
#[derive(Clone)]
struct Wanted {
    /// The id of the revision.
    id: String,
    /// What the cluster has that it makes use of.
    kinds: Kinds,
    /// What may not do what was meant.
    notices: Arc<[Notice]>,
}

impl Applications {
    /// Those that the daemon watches.
    pub fn new(daemon: Arc<Daemon>, shown: Store<Application>) -> Self {
        let (memories, removed, sight) = (Mutex::default(), Mutex::default(), Sight::default());
        Applications { daemon, shown, memories, removed, sight }
    }

    /// Notes that a revision of an Application is not there any more: it is kept again, if it is what the spec is.
    fn note_removed(&self, key: Key, revision: String) {
        let its = self.shown.get(&ObjectRef::new(&key.1).within(&key.0));
        if its.is_none_or(|application| application.metadata.deletion_timestamp.is_some()) {
            return;
        }
        let (namespace, name) = key.clone();
        lock(&self.removed).entry(key).or_default().insert(revision);
        self.daemon.wake_application(&namespace, &name);
    }

    /// Whether the cluster has its hands full with what is new: then words wait.
    fn is_busy(&self) -> bool {
        self.daemon.slots.are_taken() || are_many(&lock(&self.memories))
    }

    fn recall(&self, application: &Application, key: &Key) -> Memory {
        let mut memories = lock(&self.memories);
        // Those that are gone are forgotten in passing.
        if !memories.contains_key(key) {
            let there =
                |(namespace, name): &Key| self.shown.get(&ObjectRef::new(name).within(namespace)).is_some();
            memories.retain(|key, _| there(key));
            lock(&self.removed).retain(|key, _| there(key));
            self.sight.retain(there);
        }
        let known = memories.remove(key).filter(|m| m.uid == application.uid());
        known.unwrap_or_else(|| Memory { uid: application.uid(), ..Memory::default() })
    }
}

/// Whether many Applications are on their way at once.
fn are_many(memories: &HashMap<Key, Memory>) -> bool {
    memories.values().filter(|memory| memory.unsaid.is_some()).count() >= MANY
}

fn problem(reason: &str, message: impl Into<String>) -> Problem {
    Problem { reason: reason.into(), object: String::new(), message: message.into() }
}

/// One reconcile of an Application, counted, with its name on every line of the log.
pub async fn reconcile(
    application: Arc<Application>,
    context: Arc<Applications>,
) -> Result<controller::Action, Error> {
    let key = (application.namespace().unwrap_or_default(), application.name_any());
    let span = tracing::info_span!("application", application = %format!("{}/{}", key.0, key.1));
    let begin = Instant::now();
    let mut memory = context.recall(&application, &key);
    let result = round(&application, &context, &key, &mut memory).instrument(span).await;
    if result.is_ok() {
        memory.unwritten = Retry::default();
    }
    lock(&context.memories).insert(key, memory);
    context.daemon.metrics.reconciled("Application", result.is_ok(), begin.elapsed());
    Ok(result?.map_or_else(controller::Action::await_change, controller::Action::requeue))
}

/// How soon a round that ended early is begun again.
pub fn again(application: &Application, error: &Error, context: &Applications) -> controller::Action {
    let key = (application.namespace().unwrap_or_default(), application.name_any());
    let now = context.daemon.now();
    let mut memories = lock(&context.memories);
    let retry = &mut memories.entry(key.clone()).or_default().unwritten;
    retry.failed(problem("StatusNotWritten", error.to_string()), now, fastrand::f64(), Duration::ZERO);
    let left = retry.left(now).unwrap_or_default();
    let (namespace, name) = key;
    tracing::warn!(
        namespace, name, failures = retry.failures(), in_ms = left.as_millis(), error = %error,
        "an Application's round failed; it is tried again"
    );
    controller::Action::requeue(left)
}

/// One round. Answers how soon it is to be looked at again if nothing happens before.
async fn round(
    application: &Application,
    context: &Applications,
    key: &Key,
    memory: &mut Memory,
) -> Result<Option<Duration>, Error> {
    let daemon = &context.daemon;
    // Its Delivery goes with it: the owner reference says so.
    if daemon.is_stopping() || application.metadata.deletion_timestamp.is_some() {
        memory.unsaid = None;
        return Ok(None);
    }
    if !daemon.may_write() {
        return Ok(Some(LEASE_RETRY));
    }
    daemon.all_deliveries_seen().await;
    daemon.note_application(key);
    let source = (key.0.clone(), application_source(&key.1));
    let shown = daemon.shown_delivery(&key.0, &names::application_delivery(&key.1));
    let mut delivery = shown.clone();
    let kinds = kinds(&daemon.discovery, memory.expanded.as_ref().map(|((_, kinds), _)| *kinds));
    let (wanted, mut hindrance, mut rest) = (expanded(application, kinds, memory), None, None);
    let now = daemon.now();
    if memory.retry.0 != application.metadata.generation {
        memory.retry = (application.metadata.generation, Retry::default());
    }
    match (&wanted, whose(application, shown.as_deref())) {
        (Err(problem), _) => daemon.sources.amend(&source, |known| known.problem = Some(problem.clone())),
        (Ok(_), Whose::Going) => {
            delivery = None;
            rest = Some(IN_THE_WAY);
        }
        (Ok(_), Whose::Anothers(taken)) => {
            delivery = None;
            hindrance = Some(taken);
        }
        (Ok(_), Whose::Ours | Whose::Nobodys) if memory.retry.1.left(now).is_some() => {
            rest = memory.retry.1.left(now);
        }
        (Ok(wanted), Whose::Ours | Whose::Nobodys) => {
            daemon.sources.amend(&source, |known| known.problem = None);
            if memory.begun.as_ref().is_none_or(|(begun, _)| *begun != wanted.id) {
                let left = memory.begun.as_ref().and_then(|(_, at)| PAUSE.checked_sub(at.elapsed()));
                if let Some(left) = left.filter(|left| !left.is_zero()) {
                    return Ok(Some(left));
                }
            }
            let done = hand_over(application, context, wanted, shown.as_deref(), memory).await;
            match done {
                Err(Hitch::Passing(problem, least)) => {
                    tracing::warn!(reason = problem.reason, "{}; it is tried again", problem.message);
                    memory.retry.1.failed(problem, now, fastrand::f64(), least);
                    rest = memory.retry.1.left(now);
                }
                Err(Hitch::Refused(refused)) => {
                    memory.retry.1 = Retry::default();
                    hindrance = Some(refused);
                }
                Ok(written) => {
                    memory.retry.1 = Retry::default();
                    delivery = written.map(Arc::new).or(delivery);
                }
            }
        }
    }
    if hindrance.is_some() {
        memory.refused += 1;
        rest = Some(backoff(memory.refused, FIRST_RETRY, fastrand::f64()).min(LAST_RETRY));
    } else {
        memory.refused = 0;
    }
    let of_delivery = delivery.as_deref();
    let pods = of_delivery.and_then(|d| pods::of(daemon, d, application));
    if let (Some(delivery), Some(pods)) = (of_delivery, pods) {
        tell_of_size(application, daemon, delivery, pods, memory);
    }
    let delay = memory.retry.1.told().cloned();
    let seen = Seen {
        name: &key.1,
        generation: application.metadata.generation,
        wanted: wanted.as_ref().map(|wanted| wanted.id.as_str()),
        hindrance: hindrance.as_ref(),
        delay: delay.as_ref(),
        notices: wanted.as_ref().ok().map(|wanted| &*wanted.notices),
        delivery: of_delivery.and_then(|d| d.status.as_ref()),
        pods,
        url: url(&application.spec),
    };
    if let Some(wait) = tell(application, context, &seen, memory).await? {
        rest = Some(rest.map_or(wait, |rest| rest.min(wait)));
    }
    if let (Some(last), Ok(wanted), Some(delivery)) = (&memory.kept, &wanted, of_delivery)
        && revisions::is_settled(delivery, &wanted.id)
    {
        let client = &daemon.connection.client;
        let all = match context.sight.of(key, last) {
            Known::Behind => return Ok(rest),
            Known::All(all) => Some(all),
            Known::Unwatched => revisions::ask(client, application).await,
        };
        let is_tidy = match all {
            Some(all) => revisions::tidy(client, application, delivery, all).await,
            // It is asked for again with the next one.
            None => true,
        };
        match is_tidy {
            true => memory.kept = None,
            // What was seen of them is outdated, and the watch may have shown that already.
            false => rest = Some(rest.map_or(PAUSE, |rest| rest.min(PAUSE))),
        }
    }
    Ok(rest)
}

/// What the spec becomes, or why it is no revision.
fn expanded(application: &Application, kinds: Kinds, memory: &mut Memory) -> Result<Wanted, Problem> {
    let of = (application.metadata.generation, kinds);
    if let Some((known_of, known)) = &memory.expanded
        && *known_of == of
    {
        return known.clone();
    }
    let answer = match expand_for(application, &Origin::default(), kinds) {
        Ok(expansion) => Ok(Wanted { id: revision(&expansion).id, kinds, notices: expansion.notices.into() }),
        Err(invalid) => Err(problem("InvalidApplication", invalid.to_string())),
    };
    memory.expanded = Some((of, answer.clone()));
    answer
}

/// What the cluster has that Applications make use of, as far as it was asked. An API server that begins may not tell of any custom
/// resource for a moment: then what was `known` before stands.
fn kinds(discovery: &Discovery, known: Option<Kinds>) -> Kinds {
    match known.filter(|_| discovery.resource(&gvk()).is_none()) {
        Some(known) => known,
        None => Kinds::new(|gvk| discovery.resource(gvk).is_some()),
    }
}

/// Whose a Delivery with the name of an Application's is.
enum Whose {
    /// There is none, or one that nothing owns.
    Nobodys,
    /// The Application's.
    Ours,
    /// That of an Application of this name that is gone: it goes, too.
    Going,
    /// Somebody else's.
    Anothers(Problem),
}

fn whose(application: &Application, delivery: Option<&Delivery>) -> Whose {
    let Some(delivery) = delivery else { return Whose::Nobodys };
    if delivery.metadata.deletion_timestamp.is_some() {
        return Whose::Going;
    }
    let owner = delivery.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        None => Whose::Nobodys,
        Some(owner) if Some(&owner.uid) == application.metadata.uid.as_ref() => Whose::Ours,
        Some(owner)
            if owner.kind == "Application"
                && owner.name == application.name_any()
                && owner.api_version.starts_with(&format!("{}/", names::GROUP)) =>
        {
            Whose::Going
        }
        Some(owner) => Whose::Anothers(problem(
            "DeliveryTaken",
            format!(
                "Delivery {}/{} belongs to {} {}; delete it, or give the Application another name",
                delivery.namespace().unwrap_or_default(),
                delivery.name_any(),
                owner.kind,
                owner.name
            ),
        )),
    }
}

/// Hands the spec to its Delivery, which is made where it is not there. Answers the Delivery if it had to be written.
async fn hand_over(
    application: &Application,
    context: &Applications,
    spec: &Wanted,
    delivery: Option<&Delivery>,
    memory: &mut Memory,
) -> Result<Option<Delivery>, Hitch> {
    let wanted = delivery_spec(application);
    let generation = application.metadata.generation;
    let ours =
        |d: &Delivery| d.owner_references().iter().any(|o| Some(&o.uid) == application.metadata.uid.as_ref());
    keep_again(application, context, spec).await?;
    let stands = delivery.filter(|d| ours(d) && is_as(&d.spec, &wanted, memory.ensured == Some(generation)));
    if memory.begun.as_ref().is_none_or(|(begun, _)| *begun != spec.id) {
        let takes = if stands.is_none() && delivery.is_some() { Some(Awaited::Writing) } else { None };
        begin(application, context, spec, delivery, takes, memory).await?;
    }
    let key = (application.namespace().unwrap_or_default(), application_source(&application.name_any()));
    let version = |d: &Delivery| d.resource_version().and_then(|text| text.parse().ok()).unwrap_or(0);
    let sources = &context.daemon.sources;
    let name = names::application_delivery(&application.name_any());
    let mut behind = false;
    let mut reaches = |delivery: &Delivery, anyway: bool| {
        sources.amend(&key, |known| {
            behind = known.awaited.get(&name) == Some(&Awaited::Writing);
            if behind || anyway {
                known.awaits(&name, Awaited::Written(version(delivery)));
            }
        });
    };
    let written = match stands {
        Some(shown) => {
            reaches(shown, false);
            None
        }
        None => {
            let written = write_delivery(application, &context.daemon, &wanted, delivery).await?;
            reaches(&written, true);
            // Also while the watch does not show it yet.
            if delivery.is_none() && memory.ensured.is_none() {
                tell_of_objects(application, &context.daemon, spec.kinds);
            }
            Some(written)
        }
    };
    // The watch may have shown it before that was known: then it was looked at in vain.
    if behind {
        context.daemon.wake(&key.0, &name);
    }
    memory.ensured = Some(generation);
    Ok(written)
}

/// Keeps the revision that the spec is once more, where somebody removed it: a rollback to it would find nothing.
async fn keep_again(application: &Application, context: &Applications, spec: &Wanted) -> Result<(), Hitch> {
    let key = (application.namespace().unwrap_or_default(), application.name_any());
    let removed = lock(&context.removed).remove(&key).unwrap_or_default();
    let revision = revision_name(&key.1, &spec.id);
    if !removed.contains(&revision) {
        return Ok(());
    }
    let kept = revisions::keep(&context.daemon.connection.client, application, spec.kinds).await;
    if kept.is_err() {
        lock(&context.removed).entry(key).or_default().insert(revision);
    }
    kept
}

/// Keeps the revision that the spec is, and tells the Delivery of it: together with the other spec that it `takes`, if so.
async fn begin(
    application: &Application,
    context: &Applications,
    Wanted { id, kinds, .. }: &Wanted,
    delivery: Option<&Delivery>,
    takes: Option<Awaited>,
    memory: &mut Memory,
) -> Result<(), Hitch> {
    let daemon = &context.daemon;
    let Ok(commit) = id.parse() else {
        return Err(Hitch::Refused(problem("InvalidApplication", format!("{id} is no revision"))));
    };
    // What is at rest was kept before: a daemon that begins asks for nothing. What is put in place once more may have been
    // removed meanwhile, also where the history names it.
    let at_rest = memory.begun.is_none() && delivery.is_some_and(|d| revisions::is_settled(d, id));
    if !at_rest {
        fault::place(|| "before keeping a revision".into());
        revisions::keep(&daemon.connection.client, application, *kinds).await?;
        fault::place(|| "after keeping a revision".into());
    }
    // Also at rest: a daemon that was killed may have left some that nothing needs, and others are orphans that it never saw alone.
    memory.kept = Some(revision_name(&application.name_any(), id));
    let (author, at) = last_change(application);
    let commit = CommitInfo {
        id: commit,
        author_name: author,
        author_email: String::new(),
        subject: application.spec.image.clone(),
        time: at,
    };
    let (namespace, name) = (application.namespace().unwrap_or_default(), application.name_any());
    let now = daemon.now();
    daemon.sources.amend(&(namespace.clone(), application_source(&name)), |known| {
        known.saw(id, now);
        known.fetched = Some(Fetched { branch: name.clone(), commit });
        known.problem = None;
        if let Some(how_far) = takes {
            known.awaits(&names::application_delivery(&name), how_far);
        }
    });
    memory.begun = Some((id.clone(), Instant::now()));
    daemon.wake(&namespace, &names::application_delivery(&name));
    Ok(())
}

/// Who changed the spec last, as far as the API server knows: a field manager, not a person. And when.
fn last_change(application: &Application) -> (String, jiff::Timestamp) {
    let entries = application.managed_fields().iter();
    let last = entries
        .filter(|entry| entry.subresource.as_deref() != Some("status"))
        .filter_map(|entry| Some((entry.time.as_ref()?.0, entry.manager.clone()?)))
        .max();
    last.map_or_else(|| (String::new(), jiff::Timestamp::UNIX_EPOCH), |(at, manager)| (manager, at))
}

/// Whether the Delivery of an Application is as it must be. The rest is for people to say, such as how long it may take and
/// whether it is suspended; how a change reaches traffic where the Application does not say it, which cannot be told from what it
/// said before but by writing it once (`ensured`).
fn is_as(is: &DeliverySpec, wanted: &DeliverySpec, ensured: bool) -> bool {
    let mode = |spec: &DeliverySpec| spec.template.rollback.as_ref().map(|r| r.mode).unwrap_or_default();
    let (to_be, has) = (&wanted.template, &is.template);
    is.source == wanted.source
        && has.target_namespace == to_be.target_namespace
        && mode(is) == mode(wanted)
        && has.adopt == to_be.adopt
        && (has.rollout == to_be.rollout || ensured && to_be.rollout.is_none())
}

/// What the Delivery of an Application is to be like.
fn delivery_spec(application: &Application) -> DeliverySpec {
    // Delivered by a directory: that one's Delivery goes back when this fails, and two would fight over it.
    let by_another = application.labels().contains_key(names::DELIVERY_LABEL);
    let mode = if by_another { RollbackMode::Off } else { RollbackMode::Hold };
    DeliverySpec {
        source: Source { application: Some(application.name_any()), ..Source::default() },
        template: DeliveryTemplate {
            target_namespace: application.namespace(),
            rollback: Some(RollbackPolicy { mode, ..RollbackPolicy::default() }),
            rollout: rollout(application),
            adopt: Some(application.spec.adopt.unwrap_or(Adopt::KeepPods)),
            ..DeliveryTemplate::default()
        },
    }
}

/// What is asked of the Delivery of an Application: not what people may ask of it besides.
fn asked(wanted: &DeliverySpec) -> Value {
    let mut spec = json!(wanted);
    if let Some(rollback) = spec["rollback"].as_object_mut() {
        rollback.retain(|field, _| field == "mode");
    }
    spec
}

/// Writes the Delivery of an Application as it must be.
async fn write_delivery(
    application: &Application,
    daemon: &Daemon,
    wanted: &DeliverySpec,
    shown: Option<&Delivery>,
) -> Result<Delivery, Hitch> {
    let owner = application.controller_owner_ref(&());
    let namespace = application.namespace().unwrap_or_default();
    let name = names::application_delivery(&application.name_any());
    let mut body = json!({
        "apiVersion": format!("{}/v1alpha1", names::GROUP), "kind": "Delivery",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {names::APPLICATION_LABEL: application.name_any()},
            "finalizers": [names::FINALIZER],
            "ownerReferences": Vec::from_iter(owner),
        },
        "spec": asked(wanted),
    });
    if let Some(uid) = shown.and_then(|d| d.metadata.uid.clone()) {
        body["metadata"]["uid"] = uid.into();
    }
    // What was refused as it was is tried at once as it is to be.
    if shown.and_then(|d| d.status.as_ref()).is_some_and(|s| s.failure.is_some()) {
        let request = format!("application/{}", application.metadata.generation.unwrap_or_default());
        body["metadata"]["annotations"] = json!({names::RECONCILE_REQUEST: request});
    }
    let api: Api<Delivery> = Api::namespaced(daemon.connection.client.clone(), &namespace);
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    fault::place(|| "before writing a Delivery".into());
    let written = api.patch(&name, &params, &Patch::Apply(body)).await;
    fault::place(|| "after writing a Delivery".into());
    written.map_err(|error| {
        let object = ObjectId { group: names::GROUP.into(), kind: "Delivery".into(), namespace, name };
        Hitch::new(
            "DeliveryNotWritten",
            &object,
            "windlass.dev/v1alpha1 Delivery",
            " could not be written",
            error,
        )
    })
}

/// Writes the status if it changed, and tells people what a spec that is none lacks. Answers how long the status waits for better words.
async fn tell(
    application: &Application,
    context: &Applications,
    seen: &Seen<'_>,
    memory: &mut Memory,
) -> Result<Option<Duration>, Error> {
    let daemon = &context.daemon;
    let version = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let shown = version(application.resource_version());
    let before = match &memory.written {
        Some((written, at)) if *at > shown => written.clone(),
        _ => application.status.clone().unwrap_or_default(),
    };
    let now = daemon.now();
    let new = status(seen, &before, now);
    if new == before {
        memory.unsaid = None;
        return Ok(None);
    }
    let since = *memory.unsaid.get_or_insert(now);
    if let Some(left) = waits(seen, &before, since, || context.is_busy(), now) {
        return Ok(Some(Duration::try_from(left).unwrap_or_default()));
    }
    if let Some(problem) = seen.wanted.err().or(seen.hindrance).or(seen.delay) {
        let was = condition::get(&before.conditions, kind::READY);
        let known = was.is_some_and(|c| c.reason == problem.reason && c.message.starts_with(&told(problem)));
        if !known {
            daemon.notify_application(application, true, &problem.reason, &told(problem));
        }
    }
    let limited = |status: &ApplicationStatus| {
        let limited = condition::get(&status.conditions, kind::LIMITED).filter(|c| c.status == "True");
        limited.map(|c| (c.reason.clone(), c.message.clone()))
    };
    if let Some((reason, message)) = limited(&new).filter(|now| Some(now) != limited(&before).as_ref()) {
        daemon.notify_application(application, true, &reason, &message);
    }
    let api: Api<Application> =
        Api::namespaced(daemon.connection.client.clone(), &application.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"uid": application.uid()}, "status": status_over(&before, &new)});
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    tell_of_pods(application, daemon, &before, &new);
    let phase = new.phase;
    fault::place(|| format!("before Application status {phase:?}"));
    let written = api.patch_status(&application.name_any(), &params, &Patch::Merge(patch)).await;
    fault::place(|| format!("after Application status {phase:?}"));
    match written {
        Ok(written) => {
            memory.written = Some((new, version(written.resource_version())));
            memory.unsaid = None;
            Ok(None)
        }
        // Gone, or another one of the name: the watch shows that.
        Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => {
            memory.unsaid = None;
            Ok(None)
        }
        Err(error) => Err(Error::Status(Box::new(error))),
    }
}

/// Tells people that no pod of what runs is available any more, and when one is again. What a change does is told by itself.
fn tell_of_pods(
    application: &Application,
    daemon: &Daemon,
    before: &ApplicationStatus,
    new: &ApplicationStatus,
) {
    let Some((bad, reason)) = turn(before, new) else { return };
    let available = condition::get(&new.conditions, kind::AVAILABLE).map_or("", |c| &c.message);
    daemon.notify_application(application, bad, reason, available);
}

/// Whether the last pod of what runs has become unavailable (a warning), or the first is available again, and the reason for that.
/// Neither is so where other numbers are wanted: from none on, pods are on their way, and none that are wanted lack nothing.
fn turn(before: &ApplicationStatus, new: &ApplicationStatus) -> Option<(bool, &'static str)> {
    let lacks = |status: &ApplicationStatus| {
        let degraded = condition::get(&status.conditions, kind::DEGRADED);
        degraded.is_some_and(|c| c.status == "True" && c.reason == "PodsUnavailable")
    };
    let has_some = |status: &ApplicationStatus| status.available_replicas.is_some_and(|pods| pods > 0);
    let runs = [ApplicationPhase::Running, ApplicationPhase::PartiallyRunning, ApplicationPhase::RolledBack];
    match (lacks(before), lacks(new)) {
        (false, true) if has_some(before) => Some((true, "PodsUnavailable")),
        (true, false) if has_some(new) && runs.contains(&new.phase) => Some((false, "PodsAvailable")),
        _ => None,
    }
}

/// Tells people that another number of pods is wanted, whoever wants it. The steps of a rollout speak for themselves.
fn tell_of_size(
    application: &Application,
    daemon: &Daemon,
    delivery: &Delivery,
    pods: Pods,
    memory: &mut Memory,
) {
    let rolls_out = delivery.status.as_ref().and_then(|s| s.attempt.as_ref()?.rollout.as_ref()).is_some();
    // One that is not there wants nothing.
    if rolls_out || (pods.there == 0 && pods.wanted > 0) {
        return;
    }
    if let Some(before) = memory.wanted_pods.replace(pods.wanted).filter(|before| *before != pods.wanted) {
        let text = format!("from {before} to {}", counted(pods.wanted));
        daemon.notify_application(application, false, "Scaled", &text);
    }
}

fn counted(pods: i32) -> String {
    format!("{pods} {}", if pods == 1 { "pod" } else { "pods" })
}

/// Tells people what is made of an Application that is new.
fn tell_of_objects(application: &Application, daemon: &Daemon, kinds: Kinds) {
    let Ok(expansion) = expand_for(application, &Origin::default(), kinds) else { return };
    let all: Vec<String> =
        expansion.objects.iter().map(|object| format!("{} {}", object.gvk().kind, object.name())).collect();
    daemon.notify_application(application, false, "Created", &format!("it becomes {}", all.join(", ")));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn application() -> Application {
        serde_json::from_value(json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": "web", "namespace": "shop", "uid": "1"},
            "spec": {"image": "web:1"},
        }))
        .unwrap()
    }

    fn owned(kind: &str, name: &str, uid: &str) -> Delivery {
        let mut delivery = Delivery::new("web.application", delivery_spec(&application()));
        delivery.metadata.owner_references = Some(vec![
            serde_json::from_value(json!({
                "apiVersion": "windlass.dev/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": true,
            }))
            .unwrap(),
        ]);
        delivery
    }

    #[test]
    fn a_delivery_is_taken_from_nobody() {
        let application = application();
        let of = |delivery: &Delivery| whose(&application, Some(delivery));
        assert!(matches!(whose(&application, None), Whose::Nobodys));
        assert!(matches!(of(&owned("Application", "web", "1")), Whose::Ours));
        assert!(matches!(of(&owned("Application", "web", "0")), Whose::Going), "of one that was deleted");
        assert!(matches!(of(&owned("Platform", "web", "7")), Whose::Anothers(_)));
        let mut orphan = owned("Application", "web", "1");
        orphan.metadata.owner_references = None;
        assert!(matches!(of(&orphan), Whose::Nobodys));
    }

    #[test]
    fn of_the_delivery_no_more_is_asked_than_is_minded() {
        let asked = asked(&delivery_spec(&application()));
        let fields: Vec<&String> = asked.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["adopt", "rollback", "source", "targetNamespace"]);
        assert_eq!(asked["rollback"], json!({"mode": "Hold"}));
    }

    #[test]
    fn many_are_on_their_way_where_sixteen_have_something_to_say() {
        let mut memories = HashMap::new();
        for number in 0..40 {
            let unsaid = (number % 2 == 0).then_some(Timestamp::UNIX_EPOCH);
            assert_eq!(are_many(&memories), number > 30, "{number}");
            let key = ("shop".to_owned(), format!("web{number}"));
            memories.insert(key, Memory { unsaid, ..Memory::default() });
        }
    }

    #[test]
    fn only_pods_that_fail_or_come_back_are_told() {
        use ApplicationPhase::{Degraded, Progressing, RolledBack, Running};
        let is = |phase: ApplicationPhase, available: i32, lacks: bool| {
            let mut status = ApplicationStatus {
                phase,
                available_replicas: Some(available),
                ..ApplicationStatus::default()
            };
            let reason = if lacks { "PodsUnavailable" } else { "NotDegraded" };
            let degraded = if lacks { "True" } else { "False" };
            condition::set(
                &mut status.conditions,
                kind::DEGRADED,
                degraded,
                reason,
                "",
                Timestamp::UNIX_EPOCH,
                None,
            );
            status
        };
        let (well, ill) = (is(Running, 2, false), is(Degraded, 0, true));
        for (before, new, told) in [
            (&well, &ill, Some((true, "PodsUnavailable"))),
            (&is(RolledBack, 2, false), &ill, Some((true, "PodsUnavailable"))),
            (&ill, &well, Some((false, "PodsAvailable"))),
            (&ill, &is(RolledBack, 1, false), Some((false, "PodsAvailable"))),
            // Another number is wanted: from none, to none.
            (&is(Running, 0, false), &ill, None),
            (&ill, &is(Running, 0, false), None),
            // Another spec is on its way.
            (&ill, &is(Progressing, 1, false), None),
            (&ill, &ill, None),
            (&well, &well, None),
        ] {
            assert_eq!(turn(before, new), told, "{:?} {:?}", before.phase, new.phase);
        }
    }

    #[test]
    fn only_one_of_two_goes_back() {
        let mut application = application();
        let mode = |application: &Application| delivery_spec(application).template.rollback.map(|r| r.mode);
        assert_eq!(mode(&application), Some(RollbackMode::Hold));
        application.labels_mut().insert(names::DELIVERY_LABEL.into(), "0".into());
        assert_eq!(mode(&application), Some(RollbackMode::Off));
    }
}
