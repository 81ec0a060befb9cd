//! A daemon in the simulation: the real reconcile code, with a driver in the place of kube's controller, whose order of
//! work would hang on addresses in memory.

use super::gate::Gate;
use super::git::Git;
use super::mirror::Mirror;
use super::planted::Planted;
use super::rollouts::provider::Provider;
use super::world::{HOME, INSTALLATION, Life, TEAM, World, delivery_path};
use futures::stream::{FuturesUnordered, StreamExt};
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use windlass::api::Delivery;
use windlass::api::delivery::Problem;
use windlass::cluster::lease::{Candidate, Leadership, LeaseOptions};
use windlass::cluster::{Connection, Discovery};
use windlass::reconcile::clock::Clock;
use windlass::reconcile::daemon::{Daemon, Options};
use windlass::reconcile::delivery;
use windlass::reconcile::delivery::bundle::Renderer;
use windlass::reconcile::run::{Inboxes, prepare, relay};
use windlass::reconcile::snapshot::Shown;
use windlass::reconcile::sources::Store;
use windlass::source::{Credentials, Limits};

/// How often the repository is polled.
const POLL: Duration = Duration::from_secs(5);

/// Namespace and name.
type Key = (String, String);

/// Starts a life of a daemon.
pub fn start(world: &World, life: Arc<Life>) -> AbortHandle {
    tokio::spawn(live(world.clone(), life)).abort_handle()
}

async fn live(world: World, life: Arc<Life>) {
    world.note(|| format!("{life} starts"));
    let gate = Gate { world: world.clone(), life: life.clone() };
    let connection = Connection::from_service(gate, HOME);
    if !world.lock().history.lease {
        return work(world, life, connection, None).await;
    }
    // As `windlass run` does in a pod: one that was lost is waited for again.
    loop {
        let name = format!("windlass-{INSTALLATION}");
        let options = LeaseOptions::new(HOME, &name, &life.to_string());
        let held = Candidate::new(&connection, options).acquire().await;
        world.leads(&life);
        // With this bug it goes on whoever holds the Lease.
        let ignored = world.lock().planted == Some(Planted::LeaseIgnored);
        let ours = if ignored { connection.clone() } else { connection.while_held(held.contact()) };
        work(world.clone(), life.clone(), ours, Some(&held).filter(|_| !ignored)).await;
        world.rests(&life);
        held.release().await;
    }
}

/// What a daemon does until it loses the Lease; for ever without one.
async fn work(world: World, life: Arc<Life>, connection: Connection, held: Option<&Leadership>) {
    let discovery = Discovery::new(connection.client.clone());
    let clock = {
        let world = world.clone();
        Clock::new(move || world.now())
    };
    let options = Options {
        installation: INSTALLATION.into(),
        namespaces: Vec::new(),
        default_service_account: None,
        cache_dir: "/nonexistent".into(),
        allow_file: false,
        inventory_shard: 1000,
        renderer: Renderer { kustomize: "/nonexistent/kustomize".into() },
        clock,
        measures: Some(Provider { world: world.clone() }.clients()),
    };
    let (daemon, inboxes) = loop {
        match prepare(connection.clone(), discovery.clone(), options.clone(), HOME).await {
            Ok(both) => break both,
            Err(_) if held.is_some_and(|held| !held.is_held()) => return,
            Err(_) => tokio::time::sleep(Duration::from_secs(2)).await,
        }
    };
    if let Some(held) = held {
        let _ = daemon.contact.set(held.contact());
    }
    let lost = async {
        match held {
            Some(held) => held.lost().await,
            None => std::future::pending().await,
        }
    };
    let git = world.lock().git.clone();
    let (shown, repositories) = (Writer::default(), Writer::default());
    let _ = daemon.shown.set(Shown { deliveries: shown.as_reader(), repositories: repositories.as_reader() });
    let driver = Driver {
        shown,
        git,
        world,
        life,
        daemon,
        known: BTreeMap::new(),
        due: BTreeMap::new(),
        busy: BTreeSet::new(),
        running: FuturesUnordered::new(),
    };
    driver.run(inboxes, lost).await;
}

type Running = Pin<Box<dyn Future<Output = (Key, Result<Option<Duration>, delivery::Error>)> + Send>>;

struct Driver {
    world: World,
    life: Arc<Life>,
    git: Git,
    daemon: Arc<Daemon>,
    /// What others of the daemon see of Deliveries.
    shown: Writer<Delivery>,
    known: BTreeMap<Key, Arc<Delivery>>,
    due: BTreeMap<Key, Instant>,
    busy: BTreeSet<Key>,
    running: FuturesUnordered<Running>,
}

impl Driver {
    async fn run(mut self, inboxes: Inboxes, lost: impl Future<Output = ()>) {
        let mut lost = std::pin::pin!(lost);
        let Inboxes { mut deliveries, changes } = inboxes;
        let mut tasks = JoinSet::new();
        tasks.spawn(relay(self.daemon.clone(), changes));
        let (sender, mut events) = mpsc::unbounded_channel();
        tasks.spawn(follow(self.daemon.connection.client.clone(), sender));
        let mut listing = BTreeMap::new();
        let mut poll = Instant::now() + Duration::from_millis(100);
        loop {
            self.start_what_is_due();
            let next = self.due.iter().filter(|(key, _)| !self.busy.contains(*key)).map(|(_, at)| *at).min();
            let next = next.map_or(poll, |at| at.min(poll));
            tokio::select! {
                biased;
                () = &mut lost => {
                    self.daemon.stop();
                    while self.running.next().await.is_some() {}
                    return;
                }
                Some(event) = events.recv() => self.take(event, &mut listing),
                Some(wake) = deliveries.recv() => {
                    let key = (wake.namespace.unwrap_or_default(), wake.name);
                    let status = self.known.get(&key).and_then(|d| d.status.as_ref());
                    let waits = status.is_some_and(|s| s.waiting.is_some());
                    if waits && self.world.lock().planted == Some(Planted::WaitsOn) {
                        continue;
                    }
                    self.schedule(key, Instant::now());
                }
                Some((key, result)) = self.running.next(), if !self.running.is_empty() => {
                    self.busy.remove(&key);
                    let again = match result {
                        Ok(again) => again,
                        Err(_) => Some(Duration::from_millis(1000 + fastrand::u64(0..1000))),
                    };
                    if let Some(again) = again {
                        self.schedule(key, Instant::now() + again);
                    }
                    if self.world.lock().planted == Some(Planted::PruneByLabel) {
                        self.prune_by_label().await;
                    }
                }
                () = tokio::time::sleep_until(next) => {
                    if Instant::now() >= poll {
                        self.poll();
                        poll = Instant::now() + POLL;
                    }
                }
            }
        }
    }

    fn take(&mut self, mut event: watcher::Event<Delivery>, listing: &mut BTreeMap<Key, Arc<Delivery>>) {
        if self.world.lock().planted == Some(Planted::DependencyIgnored)
            && let watcher::Event::Apply(delivery) | watcher::Event::InitApply(delivery) = &mut event
        {
            delivery.spec.template.depends_on.clear();
        }
        self.shown.apply_watcher_event(&event);
        let key = |d: &Delivery| (d.namespace().unwrap_or_default(), d.name_any());
        match event {
            watcher::Event::Init => listing.clear(),
            watcher::Event::InitApply(delivery) => {
                listing.insert(key(&delivery), Arc::new(delivery));
            }
            watcher::Event::InitDone => {
                self.known = std::mem::take(listing);
                let all: Vec<Key> = self.known.keys().cloned().collect();
                for key in all {
                    self.schedule(key, Instant::now());
                }
            }
            watcher::Event::Apply(delivery) => {
                let key = key(&delivery);
                self.known.insert(key.clone(), Arc::new(delivery));
                self.schedule(key, Instant::now());
            }
            watcher::Event::Delete(delivery) => {
                self.known.remove(&key(&delivery));
            }
        }
    }

    fn schedule(&mut self, key: Key, at: Instant) {
        let due = self.due.entry(key).or_insert(at);
        *due = at.min(*due);
    }

    fn start_what_is_due(&mut self) {
        let now = Instant::now();
        let due: Vec<Key> = self
            .due
            .iter()
            .filter(|(key, at)| **at <= now && !self.busy.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.due.remove(&key);
            let Some(delivery) = self.known.get(&key).cloned() else { continue };
            self.busy.insert(key.clone());
            let daemon = self.daemon.clone();
            self.running.push(Box::pin(async move { (key, delivery::look(delivery, daemon).await) }));
        }
    }

    /// What the controller of Repositories does.
    fn poll(&self) {
        let at = self.world.millis();
        let key = (TEAM.to_owned(), "config".to_owned());
        let planted = self.world.lock().planted;
        let seen_before = self.daemon.sources.get(&key).is_some_and(|k| k.fetched.is_some());
        if planted == Some(Planted::CommitsUnseen) && seen_before {
            return;
        }
        let polled = self.git.poll();
        let store = Store {
            mirror: Arc::new(Mirror {
                git: self.git.clone(),
                world: self.world.clone(),
                life: self.life.clone(),
            }),
            credentials: Credentials::default(),
            limits: Limits::default(),
        };
        let known = self.daemon.sources.get(&key).and_then(|k| k.fetched).map(|f| f.commit.id);
        match &polled {
            Ok(fetched) => {
                let git = self.git.clone();
                let mut state = self.world.lock();
                state.oracle.polled(self.life.slot, &git.lock(), fetched.commit.id.as_str(), at);
                let waits = state.planted == Some(Planted::NewerWaits)
                    && known.is_some()
                    && (0..2).any(|d| {
                        let delivery = state.get(self.world.now(), &delivery_path(d));
                        delivery.is_some_and(|d| !d["status"]["attempt"].is_null())
                    });
                drop(state);
                if waits {
                    return;
                }
                self.daemon.sources.update(&key, |known| {
                    known.store = Some(store);
                    known.fetched = Some(fetched.clone());
                    known.problem = None;
                });
            }
            Err(reason) => {
                self.world.lock().oracle.forgot();
                self.daemon.sources.update(&key, |known| {
                    known.store = Some(store);
                    let problem = Problem {
                        reason: (*reason).into(),
                        object: String::new(),
                        message: "simulated".into(),
                    };
                    known.problem = Some(problem);
                });
            }
        }
        let now = self.daemon.sources.get(&key).and_then(|k| k.fetched).map(|f| f.commit.id);
        if known != now {
            self.world.note(|| format!("{} sees {now:?}", self.life));
            self.daemon.wake_deliveries_of(&key);
        }
    }

    /// The bug of that name.
    async fn prune_by_label(&mut self) {
        for (d, name) in [(0, "mine-one"), (0, "mine-two"), (0, "mine-three"), (1, "mine-one")] {
            let path = format!("/api/v1/namespaces/{}/configmaps/{name}", super::things::SPACE);
            let Some(object) = self.world.get(&path) else { continue };
            let label = self.world.lock().oracle.label(d.min(self.known.len().saturating_sub(1))).to_owned();
            if object["metadata"]["labels"][windlass::api::names::DELIVERY_LABEL] != label.as_str() {
                continue;
            }
            let body = json!({"kind": "DeleteOptions", "apiVersion": "v1"}).to_string();
            let request = http::Request::builder()
                .method("DELETE")
                .uri(path)
                .header("content-type", "application/json");
            if let Ok(request) = request.body(kube::client::Body::from(body.into_bytes())) {
                let _ = self.daemon.connection.client.send(request).await;
            }
        }
    }
}

/// The Deliveries as the API server shows them.
async fn follow(client: kube::Client, sender: mpsc::UnboundedSender<watcher::Event<Delivery>>) {
    let api: Api<Delivery> = Api::all(client);
    let mut events = Box::pin(watcher(api, watcher::Config::default().any_semantic()));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let _ = sender.send(event);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(500 + fastrand::u64(0..500))).await,
        }
    }
}
