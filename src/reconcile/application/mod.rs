//! The controller of Applications: what a spec becomes is kept as a revision and handed to a Delivery of its own, which puts it in
//! place, mends it and takes it back like a commit of a repository; how that goes is told in the Application's status.
//!
//! The Delivery and the revisions belong to the Application (owner references), so they go with it, and the objects go with the
//! Delivery. Where the Application itself lies in a directory that a Delivery delivers, that one goes back when it fails, and its
//! own does not.

mod follow;
mod pods;
mod revisions;

pub use follow::follow;

use super::daemon::Daemon;
use super::sources::Fetched;
use crate::api::application::ApplicationStatus;
use crate::api::condition::{self, kind};
use crate::api::delivery::{
    DeliverySpec, DeliveryTemplate, Problem, RollbackMode, RollbackPolicy, Source, application_source,
};
use crate::api::{Application, Delivery, names};
use crate::core::application::{Seen, expand, revision, status, url};
use crate::core::manifest::Origin;
use crate::core::rollout::status::told;
use crate::lock::lock;
use crate::source::{CommitInfo, backoff};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::HashMap;
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
    /// The revision could not be kept, for now.
    #[error("the revision could not be kept: {0}")]
    Revision(#[source] Box<kube::Error>),
    /// The Delivery could not be written, for now.
    #[error("the Delivery could not be written: {0}")]
    Delivery(#[source] Box<kube::Error>),
}

/// The Applications' side of the daemon.
pub struct Applications {
    daemon: Arc<Daemon>,
    shown: Store<Application>,
    memories: Mutex<HashMap<Key, Memory>>,
}

/// What is remembered of an Application between two rounds. All of it may be lost.
#[derive(Default)]
struct Memory {
    uid: Option<String>,
    /// What its spec becomes, by generation: the id of the revision, or why it is none.
    expanded: Option<(Option<i64>, Result<String, Problem>)>,
    /// The revision that was handed to its Delivery last, and when.
    begun: Option<(String, Instant)>,
    /// A revision was kept, so that others may not be needed any more.
    kept: bool,
    /// The status that was written last, and its version: the watch may still show an older one.
    written: Option<(ApplicationStatus, u64)>,
    /// How often something was refused in a row.
    refused: u32,
}

impl Applications {
    /// Those that the daemon watches.
    pub fn new(daemon: Arc<Daemon>, shown: Store<Application>) -> Self {
        Applications { daemon, shown, memories: Mutex::default() }
    }

    fn recall(&self, application: &Application, key: &Key) -> Memory {
        let mut memories = lock(&self.memories);
        // Those that are gone are forgotten in passing.
        if !memories.contains_key(key) {
            let there =
                |(namespace, name): &Key| self.shown.get(&ObjectRef::new(name).within(namespace)).is_some();
            memories.retain(|key, _| there(key));
        }
        let known = memories.remove(key).filter(|m| m.uid == application.uid());
        known.unwrap_or_else(|| Memory { uid: application.uid(), ..Memory::default() })
    }
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
    lock(&context.memories).insert(key, memory);
    context.daemon.metrics.reconciled("Application", result.is_ok(), begin.elapsed());
    Ok(result?.map_or_else(controller::Action::await_change, controller::Action::requeue))
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
    let (mut wanted, mut hindrance, mut rest) = (expanded(application, memory), None, None);
    match (&wanted, whose(application, shown.as_deref())) {
        (Err(problem), _) => daemon.sources.update(&source, |known| known.problem = Some(problem.clone())),
        (Ok(_), Whose::Going) => {
            delivery = None;
            rest = Some(IN_THE_WAY);
        }
        (Ok(_), Whose::Anothers(taken)) => {
            delivery = None;
            hindrance = Some(taken);
        }
        (Ok(id), Whose::Ours | Whose::Nobodys) => {
            let id = id.clone();
            daemon.sources.update(&source, |known| known.problem = None);
            if memory.begun.as_ref().is_none_or(|(begun, _)| *begun != id) {
                let left = memory.begun.as_ref().and_then(|(_, at)| PAUSE.checked_sub(at.elapsed()));
                if let Some(left) = left.filter(|left| !left.is_zero()) {
                    return Ok(Some(left));
                }
                if let Err(refused) = begin(application, context, &id, shown.as_deref(), memory).await? {
                    wanted = Err(refused);
                }
            }
            if wanted.is_ok() {
                match ensure(application, daemon, shown.as_deref()).await? {
                    Ok(Some(written)) => delivery = Some(Arc::new(written)),
                    Ok(None) => {}
                    Err(refused) => hindrance = Some(refused),
                }
            }
        }
    }
    let expands = matches!(&memory.expanded, Some((_, Ok(_))));
    if hindrance.is_some() || (wanted.is_err() && expands) {
        memory.refused += 1;
        rest = Some(backoff(memory.refused, FIRST_RETRY, fastrand::f64()).min(LAST_RETRY));
    } else {
        memory.refused = 0;
    }
    let of_delivery = delivery.as_deref();
    let seen = Seen {
        name: &key.1,
        generation: application.metadata.generation,
        wanted: wanted.as_deref(),
        hindrance: hindrance.as_ref(),
        delivery: of_delivery.and_then(|d| d.status.as_ref()),
        pods: of_delivery.and_then(|d| pods::of(daemon, d, application)),
        url: url(&application.spec),
    };
    tell(application, daemon, &seen, memory).await?;
    if memory.kept
        && let (Ok(id), Some(delivery)) = (&wanted, of_delivery)
        && revisions::is_settled(delivery, id)
    {
        memory.kept = false;
        revisions::tidy(&daemon.connection.client, application, delivery).await;
    }
    Ok(rest)
}

/// What the spec becomes: the id of the revision, or why it is none.
fn expanded(application: &Application, memory: &mut Memory) -> Result<String, Problem> {
    let generation = application.metadata.generation;
    if let Some((of, known)) = &memory.expanded
        && *of == generation
    {
        return known.clone();
    }
    let expanded = expand(application, &Origin::default());
    let answer = match &expanded {
        Ok(expansion) => Ok(revision(expansion).id),
        Err(invalid) => Err(problem("InvalidApplication", invalid.to_string())),
    };
    memory.expanded = Some((generation, answer.clone()));
    answer
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
        Some(owner) if owner.kind == "Application" && owner.name == application.name_any() => Whose::Going,
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

/// Keeps the revision that the spec is, and hands it to the Delivery. Answers why it could not be kept.
async fn begin(
    application: &Application,
    context: &Applications,
    id: &str,
    delivery: Option<&Delivery>,
    memory: &mut Memory,
) -> Result<Result<(), Problem>, Error> {
    let daemon = &context.daemon;
    // What a Delivery has begun was kept before.
    if !delivery.is_some_and(|d| revisions::needed(d).any(|known| known == id)) {
        if let Err(error) = revisions::keep(&daemon.connection.client, application).await {
            return match error {
                revisions::NotKept::Later(error) => Err(Error::Revision(error)),
                revisions::NotKept::Refused(problem) => Ok(Err(problem)),
            };
        }
        memory.kept = true;
    }
    let Ok(commit) = id.parse() else {
        return Ok(Err(problem("InvalidApplication", format!("{id} is no revision"))));
    };
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
    daemon.sources.update(&(namespace.clone(), application_source(&name)), |known| {
        known.saw(id, now);
        known.fetched = Some(Fetched { branch: name.clone(), commit });
        known.problem = None;
    });
    memory.begun = Some((id.to_owned(), Instant::now()));
    daemon.wake(&namespace, &names::application_delivery(&name));
    Ok(Ok(()))
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
            ..DeliveryTemplate::default()
        },
    }
}

/// Sees to it that the Delivery is there and as it must be. Answers it if it had to be written, or why it cannot be.
async fn ensure(
    application: &Application,
    daemon: &Daemon,
    shown: Option<&Delivery>,
) -> Result<Result<Option<Delivery>, Problem>, Error> {
    let wanted = delivery_spec(application);
    if let Some(shown) = shown {
        let ours = shown.owner_references().iter().any(|o| Some(&o.uid) == application.metadata.uid.as_ref());
        // The rest is for people to say, such as how long it may take and whether it is suspended.
        let (is, to_be) = (&shown.spec, &wanted);
        let mode = |spec: &DeliverySpec| spec.template.rollback.as_ref().map(|r| r.mode);
        let same = is.source == to_be.source
            && is.template.target_namespace == to_be.template.target_namespace
            && mode(is).unwrap_or_default() == mode(to_be).unwrap_or_default();
        if ours && same {
            return Ok(Ok(None));
        }
    }
    let Some(owner) = application.controller_owner_ref(&()) else { return Ok(Ok(None)) };
    let namespace = application.namespace().unwrap_or_default();
    let name = names::application_delivery(&application.name_any());
    let body = json!({
        "apiVersion": format!("{}/v1alpha1", names::GROUP), "kind": "Delivery",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {names::APPLICATION_LABEL: application.name_any()},
            "finalizers": [names::FINALIZER],
            "ownerReferences": [owner],
        },
        "spec": wanted,
    });
    let mut body: Value = body;
    if let Some(uid) = shown.and_then(|d| d.metadata.uid.clone()) {
        body["metadata"]["uid"] = uid.into();
    }
    let api: Api<Delivery> = Api::namespaced(daemon.connection.client.clone(), &namespace);
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    match api.patch(&name, &params, &Patch::Apply(body)).await {
        Ok(written) => Ok(Ok(Some(written))),
        Err(kube::Error::Api(status)) if is_refusal(status.code) => {
            let text = format!("Delivery {namespace}/{name} could not be written: {}", status.message);
            Ok(Err(problem("DeliveryNotWritten", text)))
        }
        Err(error) => Err(Error::Delivery(Box::new(error))),
    }
}

/// An answer that stays the same until somebody does something.
fn is_refusal(code: u16) -> bool {
    matches!(code, 400 | 403 | 413 | 422)
}

/// Writes the status if it changed, and tells people what a spec that is none lacks.
async fn tell(
    application: &Application,
    daemon: &Daemon,
    seen: &Seen<'_>,
    memory: &mut Memory,
) -> Result<(), Error> {
    let version = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let shown = version(application.resource_version());
    let before = match &memory.written {
        Some((written, at)) if *at > shown => written.clone(),
        _ => application.status.clone().unwrap_or_default(),
    };
    let new = status(seen, &before, daemon.now());
    if new == before {
        return Ok(());
    }
    if let Some(problem) = seen.wanted.err().or(seen.hindrance) {
        let was = condition::get(&before.conditions, kind::READY);
        let known = was.is_some_and(|c| c.reason == problem.reason && c.message.starts_with(&told(problem)));
        if !known {
            daemon.notify_application(application, true, &problem.reason, &told(problem));
        }
    }
    let api: Api<Application> =
        Api::namespaced(daemon.connection.client.clone(), &application.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"uid": application.uid()}, "status": over(&before, &new)});
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    match api.patch_status(&application.name_any(), &params, &Patch::Merge(patch)).await {
        Ok(written) => {
            memory.written = Some((new, version(written.resource_version())));
            Ok(())
        }
        // Gone, or another one of the name: the watch shows that.
        Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => Ok(()),
        Err(error) => Err(Error::Status(Box::new(error))),
    }
}

/// A status as a merge patch over another: what it has no more is taken out.
fn over(before: &ApplicationStatus, new: &ApplicationStatus) -> Value {
    let (before, mut new) = (json!(before), json!(new));
    for field in before.as_object().into_iter().flat_map(|map| map.keys()) {
        if new.get(field).is_none() {
            new[field.as_str()] = Value::Null;
        }
    }
    new
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
    fn only_one_of_two_goes_back() {
        let mut application = application();
        let mode = |application: &Application| delivery_spec(application).template.rollback.map(|r| r.mode);
        assert_eq!(mode(&application), Some(RollbackMode::Hold));
        application.labels_mut().insert(names::DELIVERY_LABEL.into(), "0".into());
        assert_eq!(mode(&application), Some(RollbackMode::Off));
    }

    #[test]
    fn what_a_status_has_no_more_is_taken_out() {
        let before = ApplicationStatus { url: Some("http://a/".into()), ..ApplicationStatus::default() };
        let patch = over(&before, &ApplicationStatus::default());
        assert_eq!(patch["url"], Value::Null);
        assert!(patch.as_object().unwrap().contains_key("url"));
    }
}
