//! The daemon's life: connect, watch, reconcile, and end in good order.

use super::application::{self, Applications};
use super::daemon::{BundleCache, Daemon, Options};
use super::delivery;
use super::live::keep;
use super::metrics::Metrics;
use super::repository::{self, Repositories};
use super::snapshot::Shown;
use super::sources::Sources;
use crate::api::{Application, Delivery, Repository};
use crate::cluster::events::Recorder;
use crate::cluster::watch::{Event, Watches};
use crate::cluster::{Connection, Discovery, NamedWatches, ObjectWatches, PodWatches};
use crate::core::manifest::Gvk;
use crate::lock::lock;
use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// What the cluster said of its kinds is new for so long.
const FRESH: Duration = Duration::from_secs(5);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kinds of the cluster cannot be read.
    #[error("the API server's kinds could not be read: {0}")]
    Discovery(#[from] crate::cluster::discovery::DiscoveryError),
    /// The key for digests of Secrets cannot be read or made.
    #[error("the installation's key could not be read or made: {0}")]
    Key(#[source] Box<kube::Error>),
    /// A metric has a name that is none.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Builds what all controllers share. `home` is the namespace of the installation.
pub async fn prepare(
    connection: Connection,
    discovery: Discovery,
    options: Options,
    home: &str,
) -> Result<(Arc<Daemon>, Inboxes), RunError> {
    let (kinds, secret_key, few) = futures::join!(
        // Who begins has just asked.
        discovery.refresh_if_older(FRESH),
        super::key::ensure(&connection.client, home, &options.installation),
        delivery::early::ahead(&connection, &options.namespaces),
    );
    kinds?;
    let secret_key = secret_key.map_err(|e| RunError::Key(Box::new(e)))?;
    let of_watch = secret_key.clone();
    let keep = move |object: &_| keep(object, &of_watch);
    let (watches, changes) =
        Watches::remembering(&connection, &discovery, keep, |kept| kept.completed.is_some());
    let (wake, deliveries) = mpsc::unbounded_channel();
    let events = Recorder::start(&connection, &options.installation);
    let named = NamedWatches::new(&connection, &discovery);
    let pods = PodWatches::new(&connection, &discovery);
    let objects = ObjectWatches::new(&connection, &discovery);
    let slots = super::slots::Slots::new(connection.limit());
    let daemon = Arc::new(Daemon {
        measures: options.measures.clone().unwrap_or_else(|| crate::analysis::Clients::new(reach())),
        connection,
        discovery,
        watches,
        named,
        pods,
        objects,
        dependencies: super::dependencies::Dependencies::default(),
        sources: Sources::default(),
        slots,
        bundles: BundleCache::default(),
        options,
        secret_key,
        wake,
        wake_repository: std::sync::OnceLock::new(),
        wake_application: std::sync::OnceLock::new(),
        asked: Arc::default(),
        events,
        metrics: Metrics::new()?,
        shown: std::sync::OnceLock::new(),
        memories: Mutex::default(),
        owned: Mutex::default(),
        labels: Mutex::default(),
        deliveries: Mutex::default(),
        awaiting: Arc::default(),
        hasty: Arc::default(),
        directories: Mutex::default(),
        listed: AtomicBool::new(false),
        applications: Mutex::default(),
        applications_listed: tokio::sync::watch::Sender::new(false),
        early: Mutex::default(),
        deliveries_listed: tokio::sync::watch::Sender::new(false),
        stopping: AtomicBool::new(false),
        contact: std::sync::OnceLock::new(),
    });
    for delivery in &few {
        lock(&daemon.early).begin(&daemon, delivery);
    }
    Ok((daemon, Inboxes { deliveries, changes }))
}

/// What the controllers are woken by.
pub struct Inboxes {
    /// Deliveries to look at.
    pub deliveries: mpsc::UnboundedReceiver<ObjectRef<Delivery>>,
    /// What the watches of their objects show.
    pub changes: mpsc::UnboundedReceiver<crate::cluster::watch::Change<super::live::Kept>>,
}

/// Runs all controllers until `shutdown` resolves; then what is being written is finished, and nothing new is begun.
pub async fn run(daemon: Arc<Daemon>, inboxes: Inboxes, shutdown: impl Future<Output = ()> + Send + 'static) {
    let (repository_wake, repository_inbox) = mpsc::unbounded_channel();
    let _ = daemon.wake_repository.set(repository_wake);
    let repositories = Arc::new(Repositories::new(daemon.clone()));
    let ending = shared(shutdown, daemon.clone());

    let relay = tokio::spawn(relay(daemon.clone(), inboxes.changes));
    let follow = tokio::spawn(follow_repositories(daemon.clone(), repositories.clone()));
    let config = || watcher::Config::default().any_semantic();
    let controller_config = || controller::Config::default().concurrency(0);

    let of_repositories = Controller::new(api::<Repository>(&daemon), config());
    let (deliveries, of_deliveries) = follow_deliveries(&daemon);
    let of_deliveries = Controller::for_stream(of_deliveries, deliveries.clone());
    // Set once: a daemon runs once.
    let _ = daemon.shown.set(Shown { deliveries, repositories: of_repositories.store() });
    let of_repositories = of_repositories
        .with_config(controller_config())
        .reconcile_on(stream_of(repository_inbox))
        .graceful_shutdown_on(ending.clone())
        .run(repository::reconcile, |_, error, _| again(error), repositories)
        .for_each(|result| async { told(result.err()) });
    let of_deliveries = of_deliveries
        .with_config(controller_config())
        .reconcile_on(stream_of(inboxes.deliveries))
        .graceful_shutdown_on(ending.clone())
        .run(delivery::reconcile, |_, error, _| again(error), daemon.clone())
        .for_each(|result| async { told(result.err()) });
    futures::join!(of_repositories, of_deliveries, applications(daemon.clone(), ending));
    relay.abort();
    follow.abort();
}

/// Applications that are looked at at once: each may write three objects.
const AT_ONCE: u16 = 32;

/// How soon it is asked again whether the cluster has Applications, if nobody else finds new kinds.
const MISSING: Duration = Duration::from_secs(30);

/// Returns once the cluster has a kind.
async fn served(daemon: &Daemon, kind: &Gvk) {
    loop {
        let came = daemon.discovery.changed();
        tokio::select! { biased; () = came => (), () = tokio::time::sleep(MISSING) => () }
        // What cannot be read now is as it was.
        if let Ok(Some(_)) = daemon.discovery.find(kind).await {
            return;
        }
    }
}

/// The controller of Applications; waits where the cluster does not have the kind, as before an upgrade of the definitions.
async fn applications(
    daemon: Arc<Daemon>,
    ending: futures::future::Shared<futures::future::BoxFuture<'static, ()>>,
) {
    let kind = application::gvk();
    if daemon.discovery.resource(&kind).is_none() {
        // It may just have been installed. What cannot be read now is as it was.
        let _ = daemon.discovery.refresh().await;
    }
    if daemon.discovery.resource(&kind).is_none() {
        daemon.has_no_applications();
        tokio::select! {
            biased;
            () = ending.clone() => return,
            () = served(&daemon, &kind) => {}
        }
        tracing::info!("the cluster has Applications now");
        // All were not seen.
        daemon.applications_listed.send_replace(false);
    }
    let (wake, inbox) = mpsc::unbounded_channel();
    let _ = daemon.wake_application.set(wake);
    let (shown, stream) = application::follow(&daemon, api::<Application>(&daemon));
    let context = Arc::new(Applications::new(daemon.clone(), shown.clone()));
    // Some make use of what a cluster may have later.
    let of = daemon.clone();
    let kinds = tokio::spawn(async move {
        loop {
            of.discovery.changed().await;
            of.wake_applications();
        }
    });
    let revisions = tokio::spawn(application::follow_revisions(context.clone(), api(&daemon)));
    Controller::for_stream(stream, shown)
        .with_config(controller::Config::default().concurrency(AT_ONCE))
        .reconcile_on(stream_of(inbox))
        .graceful_shutdown_on(ending)
        .run(application::reconcile, |of, error, context| application::again(&of, error, &context), context)
        .for_each(|result| async { told(result.err()) })
        .await;
    kinds.abort();
    revisions.abort();
}

fn api<K>(daemon: &Daemon) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match daemon.options.namespaces.as_slice() {
        [one] => Api::namespaced(daemon.connection.client.clone(), one),
        _ => Api::all(daemon.connection.client.clone()),
    }
}

fn again<E: std::error::Error>(error: &E) -> controller::Action {
    tracing::warn!(error = %chain(error), "a round failed; it is tried again");
    controller::Action::requeue(Duration::from_millis(1000 + fastrand::u64(0..1000)))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(source) = inner {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        inner = source.source();
    }
    text
}

fn told<E: std::error::Error>(error: Option<E>) {
    if let Some(error) = error {
        tracing::debug!(error = %chain(&error), "controller");
    }
}

fn stream_of<T>(mut inbox: mpsc::UnboundedReceiver<T>) -> impl futures::Stream<Item = T> + Send + 'static
where
    T: Send + 'static,
{
    futures::stream::poll_fn(move |context| inbox.poll_recv(context))
}

/// A future that many can wait for.
fn shared(
    shutdown: impl Future<Output = ()> + Send + 'static,
    daemon: Arc<Daemon>,
) -> futures::future::Shared<futures::future::BoxFuture<'static, ()>> {
    use futures::FutureExt;
    async move {
        shutdown.await;
        daemon.stop();
    }
    .boxed()
    .shared()
}

/// Changes that are taken at once.
const TAKEN: usize = 1024;

/// Wakes the Deliveries that changes concern, each once for those that came together.
pub async fn relay(
    daemon: Arc<Daemon>,
    mut changes: mpsc::UnboundedReceiver<crate::cluster::watch::Change<super::live::Kept>>,
) {
    let mut taken = Vec::new();
    while changes.recv_many(&mut taken, TAKEN).await > 0 {
        let mut labels = BTreeSet::new();
        for change in taken.drain(..) {
            if let Event::Gone { .. } = change.event {
                tracing::trace!(object = %change.id, "out of sight");
            }
            labels.insert(change.label);
        }
        for label in &labels {
            daemon.wake_label(label);
            daemon.wake_application_of(label);
        }
    }
}

/// Deliveries listed at once.
const PAGE: u32 = 500;

/// Deliveries that were read and that the controller has not taken yet.
const READ: usize = PAGE as usize;

/// The Deliveries as they come and change, and what is known of them. Their objects' watches begin with the first page of the
/// list, as far as they have not begun. They are read by a task of their own: while the controller looks at some, others come.
fn follow_deliveries(
    daemon: &Arc<Daemon>,
) -> (Store<Delivery>, impl Stream<Item = Result<Delivery, watcher::Error>> + Send + 'static) {
    let (known, writer) = reflector::store();
    let config = watcher::Config::default().page_size(PAGE);
    let of = daemon.clone();
    let events = watcher(api::<Delivery>(daemon), config).default_backoff().modify(lean);
    let events = events.inspect_ok(move |event| match event {
        watcher::Event::InitApply(delivery) => lock(&of.early).begin(&of, delivery),
        // Who needs them has asked for them in the first rounds, which follow.
        watcher::Event::InitDone => lock(&of.early).release(),
        watcher::Event::Init | watcher::Event::Apply(_) | watcher::Event::Delete(_) => {}
    });
    // Not the store's own `wait_until_ready`: it wakes only the last of those who wait, or none when that one has just asked in
    // passing; and the controller waits for it. Others wait for what is sent here.
    let of = daemon.clone();
    let reflected = reflector(writer, events).inspect_ok(move |event| match event {
        watcher::Event::InitDone => {
            of.deliveries_listed.send_replace(true);
            of.wake_applications();
        }
        watcher::Event::Apply(delivery) | watcher::Event::Delete(delivery) => {
            if let Some(application) = &delivery.spec.source.application {
                of.wake_application(&delivery.namespace().unwrap_or_default(), application);
            }
        }
        watcher::Event::Init | watcher::Event::InitApply(_) => {}
    });
    let (read, mut taken) = mpsc::channel(READ);
    tokio::spawn(async move {
        let all = async {
            let mut deliveries = std::pin::pin!(reflected.applied_objects());
            while let Some(delivery) = deliveries.next().await {
                match delivery {
                    // Nobody takes them any more: it ends below.
                    Ok(delivery) => drop(read.send(delivery).await),
                    Err(error) => tracing::debug!(%error, "watch of Deliveries"),
                }
            }
        };
        tokio::select! {
            () = all => {}
            () = read.closed() => {}
        }
    });
    (known, futures::stream::poll_fn(move |context| taken.poll_recv(context)).map(Ok))
}

/// Takes from a Delivery what nobody reads and what takes more room than the rest of it.
fn lean(delivery: &mut Delivery) {
    delivery.metadata.managed_fields = None;
}

/// Keeps what is known of Repositories in step with which of them there are.
async fn follow_repositories(daemon: Arc<Daemon>, repositories: Arc<Repositories>) {
    let mut events =
        watcher(api::<Repository>(&daemon), watcher::Config::default()).default_backoff().boxed();
    let mut listing: BTreeSet<(String, String)> = BTreeSet::new();
    while let Some(event) = events.next().await {
        let key = |r: &Repository| (r.namespace().unwrap_or_default(), r.name_any());
        match event {
            Ok(watcher::Event::Init) => listing.clear(),
            Ok(watcher::Event::InitApply(repository)) => {
                // Known to be there, though nothing was fetched yet.
                daemon.sources.update(&key(&repository), |_| {});
                listing.insert(key(&repository));
            }
            Ok(watcher::Event::InitDone) => {
                repositories.retain(|key| listing.contains(key));
                daemon.listed.store(true, Ordering::Relaxed);
                daemon.wake_all();
            }
            Ok(watcher::Event::Apply(repository)) => daemon.sources.update(&key(&repository), |_| {}),
            Ok(watcher::Event::Delete(repository)) => {
                let key = key(&repository);
                daemon.sources.forget(&key);
                lock(&daemon.directories).remove(&key);
                repositories.retain(|k| *k != key);
                daemon.wake_deliveries_of(&key);
                daemon.wake_keys(daemon.dependencies.forget_repository(&key));
            }
            Err(error) => tracing::debug!(%error, "watch of Repositories"),
        }
    }
}

/// Whoever may write a Delivery chooses what is asked for metrics. In a pod nothing on the daemon's own machine is any of their
/// business; on somebody's desk it is a forwarded port.
fn reach() -> crate::analysis::Reach {
    crate::analysis::Reach { loopback: std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() }
}
