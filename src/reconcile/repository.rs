//! The controller of Repositories: polls the remote, keeps the mirror, and makes a Delivery of each directory that
//! matches.

use super::daemon::Daemon;
use super::directories::Expanded;
use super::sources::{Awaited, Fetched, RepositoryKey, Store};
use crate::api::condition::{self, kind};
use crate::api::delivery::Problem;
use crate::api::repository::{RepositoryRef, RepositoryStatus};
use crate::api::{Repository, names, status_over};
use crate::cluster::NamedObject;
use crate::cluster::named::{Named, Version};
use crate::core::manifest::Gvk;
use crate::lock::lock;
use crate::source::{
    Credentials, History, Limits, Mirror, Reference, RemoteUrl, SourceError, Watcher, backoff, jittered,
    watch_local,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller;
use kube::{Api, ResourceExt};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::Instrument;

/// The first wait after a failure, unless the interval is shorter.
const FIRST_RETRY: Duration = Duration::from_secs(10);

/// The longest wait while a remote is away, unless the interval is longer.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Repositories are polled no more often than this, whatever their interval is.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its status could not be written.
    #[error("status could not be written: {0}")]
    Status(#[source] Box<kube::Error>),
}

/// A Repository that was polled, until it is due again.
struct Rest {
    version: Option<String>,
    until: Instant,
}

/// The Repositories' side of the daemon.
pub struct Repositories {
    daemon: Arc<Daemon>,
    mirrors: Mutex<HashMap<String, Arc<Mirror>>>,
    watchers: Mutex<HashMap<RepositoryKey, (String, Watcher)>>,
    failures: Mutex<HashMap<RepositoryKey, u32>>,
    secrets: Mutex<HashMap<RepositoryKey, (String, Named)>>,
    rests: Mutex<HashMap<RepositoryKey, Rest>>,
}

impl Repositories {
    /// Those that the daemon watches.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Repositories {
            daemon,
            mirrors: Mutex::default(),
            watchers: Mutex::default(),
            failures: Mutex::default(),
            secrets: Mutex::default(),
            rests: Mutex::default(),
        }
    }

    /// Forgets Repositories that are not there any more.
    pub fn retain(&self, there: impl Fn(&RepositoryKey) -> bool) {
        lock(&self.watchers).retain(|key, _| there(key));
        lock(&self.failures).retain(|key, _| there(key));
        lock(&self.secrets).retain(|key, _| there(key));
        lock(&self.rests).retain(|key, _| there(key));
        lock(&self.daemon.asked).retain(|key| there(key));
    }

    /// Asks for a Repository to be polled now.
    fn waker(&self, key: &RepositoryKey) -> impl Fn() + Send + Sync + 'static {
        self.daemon.poller(key)
    }

    /// How long a Repository rests that comes only because its status was written.
    fn rests(&self, key: &RepositoryKey, repository: &Repository) -> Option<Duration> {
        // Asked for while it was polled, it is polled again.
        if lock(&self.daemon.asked).remove(key) {
            return None;
        }
        let rests = lock(&self.rests);
        let rest = rests.get(key).filter(|r| repository.resource_version() == r.version)?;
        rest.until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    fn mirror(&self, url: &RemoteUrl) -> Result<Arc<Mirror>, SourceError> {
        let mut mirrors = lock(&self.mirrors);
        if let Some(mirror) = mirrors.get(&url.to_string()) {
            return Ok(mirror.clone());
        }
        let mirror = Arc::new(Mirror::open(&self.daemon.options.cache_dir, url.clone())?);
        mirrors.insert(url.to_string(), mirror.clone());
        Ok(mirror)
    }

    /// Watches the Secret of a Repository; a new one is tried at once.
    fn watch_secret(self: &Arc<Self>, key: &RepositoryKey, name: Option<&str>) {
        let mut secrets = lock(&self.secrets);
        let Some(name) = name else {
            secrets.remove(key);
            return;
        };
        if secrets.get(key).is_some_and(|(watched, _)| watched == name) {
            return;
        }
        let object = NamedObject {
            account: None,
            gvk: Gvk::new("v1", "Secret"),
            namespace: key.0.clone(),
            name: name.to_owned(),
        };
        let watch = self.daemon.named.ensure(&object, self.waker(key));
        secrets.insert(key.clone(), (name.to_owned(), watch));
    }

    /// Which version of its Secret was read.
    fn note_secret(self: &Arc<Self>, key: &RepositoryKey, version: Version) {
        let outdated = lock(&self.secrets).get(key).is_some_and(|(_, watch)| {
            watch.note(version);
            watch.is_outdated()
        });
        if outdated {
            self.waker(key)();
        }
    }

    fn watch(self: &Arc<Self>, key: &RepositoryKey, url: &RemoteUrl) {
        let Some(path) = url.is_local() else {
            lock(&self.watchers).remove(key);
            return;
        };
        let mut watchers = lock(&self.watchers);
        if watchers.get(key).is_some_and(|(watched, _)| *watched == url.to_string()) {
            return;
        }
        // Without it a commit is seen at the next poll.
        match watch_local(path, self.waker(key)) {
            Ok(watcher) => {
                watchers.insert(key.clone(), (url.to_string(), watcher));
            }
            Err(error) => tracing::warn!(%error, "the local repository cannot be watched; it is polled"),
        }
    }
}

/// What was wrong, for the condition.
struct Failure {
    problem: Problem,
    transient: bool,
}

fn failure(error: &SourceError) -> Failure {
    Failure {
        problem: Problem { reason: error.reason().into(), object: String::new(), message: error.to_string() },
        transient: error.is_transient(),
    }
}

/// One reconcile of a Repository, counted, with its name on every line of the log.
pub async fn reconcile(
    repository: Arc<Repository>,
    context: Arc<Repositories>,
) -> Result<controller::Action, Error> {
    let name = format!("{}/{}", repository.namespace().unwrap_or_default(), repository.name_any());
    let span = tracing::info_span!("repository", repository = %name);
    let begin = Instant::now();
    let result = round(repository, context.clone()).instrument(span).await;
    context.daemon.metrics.reconciled("Repository", result.is_ok(), begin.elapsed());
    result
}

async fn round(repository: Arc<Repository>, context: Arc<Repositories>) -> Result<controller::Action, Error> {
    let daemon = &context.daemon;
    let key: RepositoryKey = (repository.namespace().unwrap_or_default(), repository.name_any());
    if daemon.is_stopping() || repository.metadata.deletion_timestamp.is_some() {
        return Ok(controller::Action::await_change());
    }
    if repository.spec.suspend {
        let generation = repository.metadata.generation.unwrap_or_default();
        daemon.wake_keys(daemon.dependencies.note_repository(&key, (generation, false)));
        // Nothing is fetched, but what was can be brought back.
        if let Err(failure) = open(&context, &repository, &key) {
            tracing::warn!(repository = %format!("{}/{}", key.0, key.1), "{}", failure.problem.message);
        }
        return Ok(controller::Action::await_change());
    }
    if let Some(left) = context.rests(&key, &repository) {
        return Ok(controller::Action::requeue(left));
    }
    let begin = Instant::now();
    let polled = poll(&context, &repository, &key).await;
    daemon.metrics.fetched(polled.is_ok(), begin.elapsed());
    let before = repository.status.clone().unwrap_or_default();
    let known = daemon.sources.get(&key).unwrap_or_default();
    let moved = match (&polled, &known.fetched) {
        (Ok(new), Some(old)) => new.commit.id != old.commit.id || new.branch != old.branch,
        (Ok(_), None) => true,
        (Err(failure), _) => known.problem.as_ref() != Some(&failure.problem),
    };
    let behind = known.awaited.values().any(|how_far| *how_far == Awaited::Writing);
    // A commit and what it makes of the Deliveries are taken together, or neither.
    let expanded = match &polled {
        Ok(fetched) => super::directories::look(daemon, &repository, fetched, &before).await,
        Err(_) => Ok(Expanded::AsTheyAre(before.deliveries)),
    };
    let mut refused = false;
    daemon.sources.update(&key, |known| match &polled {
        Ok(fetched) => {
            if let Ok(Expanded::Anew(expansion)) = &expanded {
                refused = expansion.await_in(known);
            }
            let unexpanded = expanded.as_ref().err().cloned();
            refused |= known.unexpanded != unexpanded;
            known.unexpanded = unexpanded;
            known.saw(fetched.commit.id.as_str(), daemon.now());
            known.fetched = Some(fetched.clone());
            known.problem = None;
        }
        Err(failure) => known.problem = Some(failure.problem.clone()),
    });
    let mut status = before.clone();
    let generation = repository.metadata.generation;
    let now = daemon.now();
    status.observed_generation = generation;
    status.handled_request = repository.annotations().get(names::RECONCILE_REQUEST).cloned();
    let mut set_problem = None;
    if let Ok(fetched) = &polled {
        status.revision = Some(fetched.revision());
        let written = match &expanded {
            Ok(Expanded::AsTheyAre(count)) => Ok((*count, None)),
            Ok(Expanded::Anew(expansion)) => super::directories::write(daemon, &repository, expansion).await,
            Err(problem) => Err(problem.clone()),
        };
        match written {
            Ok((count, problem)) => (status.deliveries, set_problem) = (count, problem),
            Err(problem) => set_problem = Some(problem),
        }
    }
    let problem = set_problem.clone().or_else(|| polled.as_ref().err().map(|f| f.problem.clone()));
    match &problem {
        None => {
            if let Ok(fetched) = &polled {
                let message = format!("{} is fetched", fetched.revision());
                condition::set(
                    &mut status.conditions,
                    kind::READY,
                    "True",
                    "Fetched",
                    &message,
                    now,
                    generation,
                );
                condition::set(
                    &mut status.conditions,
                    kind::STALLED,
                    "False",
                    "NotStalled",
                    "",
                    now,
                    generation,
                );
            }
        }
        Some(problem) => {
            let message = crate::core::rollout::status::told(problem);
            condition::set(
                &mut status.conditions,
                kind::READY,
                "False",
                &problem.reason,
                &message,
                now,
                generation,
            );
            let stalled = polled.as_ref().is_err_and(|f| !f.transient) || set_problem.is_some();
            let (stalled, why) =
                if stalled { ("True", problem.reason.as_str()) } else { ("False", "Retrying") };
            condition::set(&mut status.conditions, kind::STALLED, stalled, why, &message, now, generation);
        }
    }
    if let Some(problem) = &problem {
        let told =
            condition::get(&before.conditions, kind::READY).is_some_and(|c| c.reason == problem.reason);
        if !told {
            daemon.notify_repository(
                &repository,
                &problem.reason,
                &crate::core::rollout::status::told(problem),
            );
        }
    }
    // Before anything that may fail: the next round does not see any more that it moved.
    let polled_as = (generation.unwrap_or_default(), problem.is_none());
    daemon.wake_keys(daemon.dependencies.note_repository(&key, polled_as));
    if moved || behind || refused {
        daemon.wake_deliveries_of(&key);
    }
    let mut version = repository.resource_version();
    if status != before {
        let written = write_status(daemon, &repository, &before, &status).await;
        version = written.map_err(|e| Error::Status(Box::new(e)))?;
    }
    let interval = repository.spec.interval.0.max(SHORTEST_INTERVAL);
    let random = fastrand::f64();
    let rest = match &polled {
        Ok(_) => {
            lock(&context.failures).remove(&key);
            let rest = jittered(interval, random);
            // The Deliveries could not be written: that is no matter of the remote.
            if set_problem.is_some_and(|p| p.reason == super::directories::NOT_WRITTEN) {
                rest.min(FIRST_RETRY)
            } else {
                rest
            }
        }
        Err(failure) => {
            let mut failures = lock(&context.failures);
            let attempt = failures.entry(key.clone()).or_default();
            *attempt += 1;
            tracing::warn!(reason = %failure.problem.reason, "{}", failure.problem.message);
            let wait = backoff(*attempt, interval.min(FIRST_RETRY), random);
            // A remote that is back is noticed soon; a password does not become right by itself, and too many tries
            // lock an account.
            if failure.transient { wait.min(interval.max(LAST_RETRY)) } else { wait }
        }
    };
    let until = Instant::now() + rest;
    lock(&context.rests).insert(key, Rest { version, until });
    Ok(controller::Action::requeue(rest))
}

fn reference(reference: Option<&RepositoryRef>) -> Reference {
    match reference {
        Some(RepositoryRef { branch: Some(branch), .. }) => Reference::Branch(branch.clone()),
        Some(RepositoryRef { tag: Some(tag), .. }) => Reference::Tag(tag.clone()),
        Some(RepositoryRef { semver: Some(range), .. }) => Reference::Semver(range.clone()),
        Some(RepositoryRef { commit: Some(commit), .. }) => Reference::Commit(commit.clone()),
        _ => Reference::Default,
    }
}

/// Opens the mirror of a Repository: what was fetched before can be read whatever becomes of remote and credentials.
fn open(
    context: &Repositories,
    repository: &Repository,
    key: &RepositoryKey,
) -> Result<(RemoteUrl, Arc<Mirror>, Limits), Failure> {
    let daemon = &context.daemon;
    let url = RemoteUrl::parse(&repository.spec.url, daemon.options.allow_file).map_err(|e| failure(&e))?;
    let mirror = context.mirror(&url).map_err(|e| failure(&e))?;
    let fetch = repository.spec.timeout.0.max(Duration::from_secs(1));
    let limits = Limits { fetch, listing: fetch.min(Limits::default().listing), ..Limits::default() };
    // What was fetched before is of use without credentials too.
    daemon.sources.update(key, |known| {
        if !known
            .store
            .as_ref()
            .is_some_and(|s| std::ptr::addr_eq(Arc::as_ptr(&s.mirror), Arc::as_ptr(&mirror)))
        {
            let (mirror, limits) = (mirror.clone(), limits.clone());
            known.store = Some(Store { mirror, credentials: Credentials::default(), limits });
        }
    });
    Ok((url, mirror, limits))
}

async fn poll(
    context: &Arc<Repositories>,
    repository: &Repository,
    key: &RepositoryKey,
) -> Result<Fetched, Failure> {
    let daemon = &context.daemon;
    let spec = &repository.spec;
    let (url, mirror, limits) = open(context, repository, key)?;
    context.watch(key, &url);
    let credentials = credentials(context, repository, key).await?;
    let store = Store { mirror: mirror.clone(), credentials: credentials.clone(), limits: limits.clone() };
    daemon.sources.update(key, |known| known.store = Some(store));
    let old = daemon.sources.get(key).and_then(|k| k.fetched).map(|f| f.commit.id);
    let polled = mirror
        .poll(&reference(spec.reference.as_ref()), old.as_ref(), &credentials, &limits)
        .await
        .map_err(|e| failure(&e))?;
    if polled.history == History::Rewritten {
        tracing::warn!(branch = %polled.ref_name, "history was rewritten");
    }
    let (at, commit) = (mirror.clone(), polled.commit.clone());
    let commit = tokio::task::spawn_blocking(move || at.commit(&commit))
        .await
        .map_err(|e| Failure {
            problem: Problem { reason: "Internal".into(), object: String::new(), message: e.to_string() },
            transient: true,
        })?
        .map_err(|e| failure(&e))?;
    Ok(Fetched { branch: polled.ref_name, commit })
}

async fn credentials(
    context: &Arc<Repositories>,
    repository: &Repository,
    key: &RepositoryKey,
) -> Result<Credentials, Failure> {
    let daemon = &context.daemon;
    context.watch_secret(key, repository.spec.secret_ref.as_ref().map(|s| s.name.as_str()));
    let Some(secret) = &repository.spec.secret_ref else { return Ok(Credentials::default()) };
    let namespace = repository.namespace().unwrap_or_default();
    let problem = |reason: &str, message: String, transient| Failure {
        problem: Problem {
            reason: reason.into(),
            object: format!("Secret {namespace}/{}", secret.name),
            message,
        },
        transient,
    };
    let api: Api<Secret> = Api::namespaced(daemon.connection.client.clone(), &namespace);
    let found = api
        .get_opt(&secret.name)
        .await
        .map_err(|_| problem("SecretUnreadable", "could not be read".into(), true))?;
    let version = found.as_ref().and_then(|s| s.resource_version()).and_then(|v| v.parse().ok());
    context.note_secret(key, version);
    let found = found.ok_or_else(|| {
        problem("SecretMissing", "does not exist, and spec.secretRef names it; create it".into(), true)
    })?;
    let data: BTreeMap<String, Vec<u8>> =
        found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    Credentials::from_secret(&data).map_err(|e| problem("SecretInvalid", e.to_string(), false))
}

async fn write_status(
    daemon: &Daemon,
    repository: &Repository,
    before: &RepositoryStatus,
    status: &RepositoryStatus,
) -> Result<Option<String>, kube::Error> {
    let namespace = repository.namespace().unwrap_or_default();
    let api: Api<Repository> = Api::namespaced(daemon.connection.client.clone(), &namespace);
    let patch = serde_json::json!({"status": status_over(before, status)});
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    match api.patch_status(&repository.name_any(), &params, &Patch::Merge(patch)).await {
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(None),
        other => other.map(|r| r.resource_version()),
    }
}
