//! One history from beginning to end.

use super::daemon;
use super::history::{History, What};
use super::oracle::{Promise, Violation};
use super::planted::Planted;
use super::things::{Key, SPACE};
use super::world::{Life, TEAM, World, delivery_path, furnish};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use windlass::api::names;

/// Nothing was written for so long: it is quiet. Longer than the longest pause between two tries, and than a revision may
/// wait after an outage.
const QUIET: Duration = Duration::from_secs(240);

/// It must be quiet so long after the last thing went wrong, but for what waits for people.
const LIMIT: Duration = Duration::from_secs(12 * 60);

/// What goes wrong may keep a daemon from acting for so long, in milliseconds: a request without an answer takes 65 s.
pub const HINDERED: u64 = 90_000;

/// A run may not send more requests than this.
const MOST_REQUESTS: u32 = 20_000;

/// How a run ended.
pub struct Ended {
    pub violation: Option<Violation>,
    pub trace: Vec<String>,
    /// Equal for equal runs.
    pub digest: u64,
    pub requests: u32,
    /// The numbers of the requests that changed something.
    pub writes: Vec<u32>,
}

/// Runs a history.
pub fn run(history: &History, planted: Option<Planted>, traced: bool) -> Ended {
    // Jitter of back-off and names of events.
    fastrand::seed(history.seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let ended = runtime.block_on(play(history.clone(), planted, traced));
    drop(runtime);
    ended
}

async fn play(history: History, planted: Option<Planted>, traced: bool) -> Ended {
    let (world, dead) = World::new(history, planted, traced);
    furnish(&world);
    let mut manager =
        Manager { world: world.clone(), dead, lives: BTreeMap::new(), next: 0, restarts: Vec::new() };
    manager.start(0);
    if world.lock().history.lease {
        manager.start(1);
    }
    let controllers = tokio::spawn(controllers(world.clone()));
    manager.steps().await;
    manager.until_quiet().await;
    controllers.abort();
    for (_, (_, handle)) in std::mem::take(&mut manager.lives) {
        handle.abort();
    }
    let mut state = world.lock();
    Ended {
        violation: state.violation.take(),
        trace: state.trace.take().unwrap_or_default(),
        digest: state.digest,
        requests: state.requests,
        writes: std::mem::take(&mut state.written),
    }
}

/// The controllers of the cluster, a moment after each change.
async fn controllers(world: World) {
    loop {
        let changed = world.next_change();
        let due = world.controllers();
        let wait = due.map(|at| Duration::try_from(at.duration_since(world.now())).unwrap_or_default());
        let wait = wait.unwrap_or(Duration::from_secs(3600)).max(Duration::from_millis(1));
        tokio::select! {
            biased;
            () = changed => {}
            () = tokio::time::sleep(wait) => {}
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

struct Manager {
    world: World,
    dead: mpsc::UnboundedReceiver<usize>,
    lives: BTreeMap<usize, (Arc<Life>, AbortHandle)>,
    next: u32,
    /// When which daemon is started again.
    restarts: Vec<(tokio::time::Instant, usize)>,
}

impl Manager {
    fn start(&mut self, slot: usize) {
        let life = Arc::new(Life::new(slot, self.next, !self.world.lock().history.lease));
        self.next += 1;
        let handle = daemon::start(&self.world, life.clone());
        self.lives.insert(slot, (life, handle));
    }

    fn stop(&mut self, slot: usize) {
        if let Some((life, handle)) = self.lives.remove(&slot) {
            life.alive.store(false, std::sync::atomic::Ordering::Relaxed);
            handle.abort();
        }
    }

    fn violated(&self) -> bool {
        let state = self.world.lock();
        state.violation.is_some() || state.requests > MOST_REQUESTS
    }

    /// Lets time pass until then, and starts again what died.
    async fn until(&mut self, at: tokio::time::Instant) {
        loop {
            if self.violated() {
                return;
            }
            let next = self.restarts.iter().map(|(at, _)| *at).min().unwrap_or(at).min(at);
            tokio::select! {
                biased;
                Some(slot) = self.dead.recv() => {
                    self.stop(slot);
                    let again = tokio::time::Instant::now() + Duration::from_millis(300 + fastrand::u64(0..8_000));
                    self.restarts.push((again, slot));
                    let at = self.world.millis();
                    let mut state = self.world.lock();
                    state.oracle.forgot();
                    state.oracle.hindered(at);
                }
                () = tokio::time::sleep_until(next) => {
                    let now = tokio::time::Instant::now();
                    let (due, later): (Vec<_>, Vec<_>) = self.restarts.iter().partition(|(at, _)| *at <= now);
                    self.restarts = later;
                    for (_, slot) in due {
                        if !self.lives.contains_key(&slot) {
                            self.start(slot);
                        }
                    }
                    if now >= at {
                        return;
                    }
                }
            }
        }
    }

    async fn steps(&mut self) {
        let begin = tokio::time::Instant::now();
        let steps = self.world.lock().history.steps.clone();
        for (n, step) in steps.iter().enumerate() {
            let at = begin + Duration::from_millis(step.at);
            while tokio::time::Instant::now() < at && !self.violated() {
                let pause = tokio::time::Instant::now() + Duration::from_secs(5);
                self.until(at.min(pause)).await;
                self.watch_time();
            }
            if self.violated() {
                return;
            }
            self.world.note(|| format!("--- {:?}", step.what));
            self.step(n, &step.what);
        }
    }

    /// Whether what is due at once was done at once.
    fn watch_time(&self) {
        let at = self.world.millis();
        let last = self.world.lock().last_fault;
        let lease = self.world.lock().history.lease;
        let one = if lease { self.world.is_led() } else { self.lives.len() == 1 };
        let disturbed = self.world.lock().cluster.is_disturbed();
        let hindered = !one || disturbed || last > 0 && at < last + HINDERED;
        if hindered {
            self.world.lock().oracle.hindered(at);
            return;
        }
        let count = self.world.lock().history.deliveries.len();
        let specs: Vec<Option<Arc<Value>>> = (0..count).map(|d| self.world.delivery(d)).collect();
        let git = self.world.lock().git.clone();
        let violation = self.world.lock().oracle.time(&git.lock(), &specs, at);
        self.world.fail(violation);
        // It reads the cluster through the world, so it is taken out for that while.
        let mut rollouts = std::mem::take(&mut self.world.lock().oracle.rollouts);
        let violation = rollouts.time(&self.world, &specs, at);
        self.world.lock().oracle.rollouts = rollouts;
        self.world.fail(violation);
    }

    /// Something happens to the nodes.
    fn nodes(&self, change: impl FnOnce(&mut super::model::Cluster, jiff::Timestamp)) {
        let now = self.world.now();
        change(&mut self.world.lock().cluster, now);
        self.world.look();
        self.world.changed();
    }

    async fn until_quiet(&mut self) {
        // A fault that was drawn for later still comes.
        let settle = tokio::time::Instant::now() + Duration::from_secs(20);
        self.until(settle).await;
        self.world.lock().faulty = false;
        self.nodes(|cluster, now| {
            cluster.node_answers(now, true);
            cluster.has_room(now, true);
        });
        if !self.world.lock().history.stay_two() {
            self.stop(1);
            self.restarts.retain(|(_, slot)| *slot == 0);
            self.world.lock().oracle.two = false;
        }
        let begin = tokio::time::Instant::now();
        let mut last = (self.world.lock().writes, begin);
        let writes_on = loop {
            let now = tokio::time::Instant::now();
            if self.violated() {
                return self.too_many();
            }
            let writes = self.world.lock().writes;
            if writes != last.0 {
                last = (writes, now);
            }
            if now >= last.1 + QUIET || now >= begin + LIMIT {
                break now < last.1 + QUIET;
            }
            self.until(now + Duration::from_secs(10)).await;
            self.watch_time();
        };
        // The oracle reads through the world, so it is taken out for that while.
        let empty = super::oracle::Oracle::new(&self.world.lock().history.clone());
        let oracle = std::mem::replace(&mut self.world.lock().oracle, empty);
        let violation = oracle.quiet(&self.world, writes_on);
        self.world.lock().oracle = oracle;
        self.world.fail(violation);
    }

    /// Says so where a run was cut short because of the number of its requests.
    fn too_many(&self) {
        let requests = self.world.lock().requests;
        if requests > MOST_REQUESTS {
            let what = format!("more than {MOST_REQUESTS} requests were sent");
            self.world.fail(Some(Violation { promise: Promise::Ends, what }));
        }
    }

    fn step(&mut self, n: usize, what: &What) {
        let world = self.world.clone();
        let git = world.lock().git.clone();
        const MERGE: &str = "application/merge-patch+json";
        let annotate = |d: usize, name: &str, value: String| {
            world.person(
                "PATCH",
                &delivery_path(d),
                MERGE,
                &json!({"metadata": {"annotations": {name: value}}}),
            );
        };
        let lease = world.lock().history.lease;
        let two = self.lives.len() > 1 && !lease;
        let touched = |key: &Key, relabelled: bool| {
            let mut state = world.lock();
            state.oracle.person_touched(key, relabelled);
            state.oracle.rollouts.person_touched(key);
        };
        match what {
            What::Commit(edits) => git.lock().commit(edits),
            What::Rewrite(back, edits) => git.lock().rewrite(*back, edits),
            What::Revert => git.lock().revert(),
            // Two daemons that know different commits and cannot learn of the newer one would go on against each other.
            What::Branch(there) => git.lock().there = *there || two,
            What::Remote(reachable) => git.lock().reachable = *reachable || two,
            What::CacheLost => git.lock().lose_cache(),
            What::Suspend(d, suspend) => {
                world.person("PATCH", &delivery_path(*d), MERGE, &json!({"spec": {"suspend": suspend}}));
                let at = world.millis();
                world.lock().oracle.hindered(at);
            }
            What::Release(d) => {
                let held = world.delivery(*d).map(|d| d["status"]["held"]["revision"]["commit"].clone());
                let commit = held.as_ref().and_then(Value::as_str).unwrap_or("0000000");
                annotate(*d, names::RELEASE_REQUEST, format!("{commit}/{n}"));
            }
            What::Rollback(d) => {
                let history = world.delivery(*d).map(|d| d["status"]["history"].clone()).unwrap_or_default();
                let mut good =
                    history.as_array().into_iter().flatten().filter(|h| h["outcome"] == "Deployed");
                // In the midst of a rollout mostly to what ran until then.
                let rolls = world.delivery(*d).is_some_and(|d| !d["status"]["attempt"]["rollout"].is_null());
                let good = good.nth(usize::from(!rolls || n % 4 == 3));
                let commit = good.and_then(|h| h["revision"]["commit"].as_str()).unwrap_or("0000000");
                annotate(*d, names::ROLLBACK_REQUEST, format!("{commit}/{n}"));
            }
            What::Edited(key) => {
                touched(key, false);
                let patch = match key.0 {
                    super::things::Kind::ConfigMap => json!({"data": {"value": "edited", "mine": "too"}}),
                    super::things::Kind::Deployment => {
                        json!({"spec": {"template": {"metadata": {"annotations": {"example.com/value": "edited"}}}}})
                    }
                    kind @ (super::things::Kind::Route
                    | super::things::Kind::Grpc
                    | super::things::Kind::Mesh
                    | super::things::Kind::Scaler) => super::rollouts::routes::edited(kind),
                    _ => json!({"metadata": {"labels": {"edited": "yes"}}}),
                };
                world.person("PATCH", &key.path(), MERGE, &patch);
            }
            What::Scaled(key, replicas) => {
                touched(key, false);
                world.person("PATCH", &key.path(), MERGE, &json!({"spec": {"replicas": replicas}}));
            }
            What::Unlabelled(key) => {
                touched(key, true);
                let patch = json!({"metadata": {"labels": {(names::DELIVERY_LABEL): null}}});
                world.person("PATCH", &key.path(), MERGE, &patch);
            }
            What::Labelled(d, name) => {
                let label = world.lock().oracle.label(*d).to_owned();
                let object = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": format!("mine-{name}"), "namespace": SPACE, "labels": {(names::DELIVERY_LABEL): label}},
                    "data": {"mine": "yes"},
                });
                world.person(
                    "POST",
                    &format!("/api/v1/namespaces/{SPACE}/configmaps"),
                    "application/json",
                    &object,
                );
            }
            What::Deleted(key) => {
                touched(key, false);
                if let Some(there) = world.get(&key.path()) {
                    world.lock().oracle.person_deletes(key, &there);
                }
                world.person("DELETE", &key.path(), "application/json", &Value::Null);
            }
            What::DeliveryDeleted(d) => {
                world.lock().oracle.person_deleted(*d);
                world.person("DELETE", &delivery_path(*d), "application/json", &Value::Null);
            }
            What::Settings(d, settings) => {
                let all = format!("/api/v1/namespaces/{TEAM}/configmaps");
                let one = format!("{all}/{}", super::world::vars_name(*d));
                world.lock().oracle.person_sets(*d, settings.clone());
                match settings {
                    None => drop(world.person("DELETE", &one, "application/json", &Value::Null)),
                    Some(settings) => {
                        let (status, _) =
                            world.person("PATCH", &one, MERGE, &json!({"data": settings.values()}));
                        if status == 404 {
                            let object = super::world::vars(*d, settings);
                            world.person("POST", &all, "application/json", &object);
                        }
                    }
                }
            }
            What::KeptLost(d) => {
                world.lock().oracle.person_loses_kept(*d);
                let path = format!("/api/v1/namespaces/{TEAM}/secrets/d{d}.windlass-settings");
                world.person("DELETE", &path, "application/json", &Value::Null);
            }
            What::Depends(d, on) => {
                let on: Vec<Value> = on.iter().map(|on| json!({"name": format!("d{on}")})).collect();
                world.person("PATCH", &delivery_path(*d), MERGE, &json!({"spec": {"dependsOn": on}}));
                let at = world.millis();
                world.lock().oracle.hindered(at);
            }
            What::Sick(name, sick) => {
                let key = Key(super::things::Kind::Deployment, name.clone());
                world.lock().oracle.made_sick(&key);
                super::rollouts::make_sick(&world, name, *sick);
            }
            What::Provider(says) => {
                let mut state = world.lock();
                state.provider = *says;
                state.oracle.rollouts.provider_says(*says);
            }
            What::Ask(d, verb) => {
                let status = world.delivery(*d).map(|d| d["status"].clone()).unwrap_or_default();
                let commit = match verb.as_str() {
                    "retry" => &status["held"]["revision"]["commit"],
                    _ => &status["attempt"]["revision"]["commit"],
                };
                let commit = commit.as_str().unwrap_or("0000000");
                if verb.starts_with("promote") {
                    world.lock().oracle.rollouts.person_pushed();
                }
                annotate(*d, names::ROLLOUT_REQUEST, format!("{verb}:{commit}:{n}:ada"));
            }
            What::Policy(d, policy) => {
                world.lock().oracle.person_changes_policy(*d, policy.clone());
                world.person("PATCH", &delivery_path(*d), MERGE, &json!({"spec": {"rollout": null}}));
                if policy.is_some() {
                    world.person("PATCH", &delivery_path(*d), MERGE, &json!({"spec": {"rollout": policy}}));
                }
                let at = world.millis();
                world.lock().oracle.hindered(at);
            }
            What::Killed(slot) => {
                if let Some((life, _)) = self.lives.get(slot) {
                    world.kill(life);
                }
            }
            What::Asleep(slot, millis) => {
                if let Some((life, _)) = self.lives.get(slot) {
                    let until = world.millis() + u64::from(*millis);
                    life.asleep_until.store(until, std::sync::atomic::Ordering::Relaxed);
                    let mut state = world.lock();
                    state.last_fault = state.last_fault.max(until);
                }
            }
            What::Node(answers) => self.nodes(|cluster, now| cluster.node_answers(now, *answers)),
            What::Room(there) => self.nodes(|cluster, now| cluster.has_room(now, *there)),
            What::Second(true) => {
                if !self.lives.contains_key(&1) && lease {
                    self.start(1);
                } else if !self.lives.contains_key(&1) {
                    let mut remote = git.lock();
                    (remote.there, remote.reachable) = (true, true);
                    drop(remote);
                    let mut state = world.lock();
                    (state.oracle.two, state.oracle.mixed) = (true, true);
                    drop(state);
                    self.start(1);
                }
            }
            What::Second(false) => {
                self.stop(1);
                world.lock().oracle.two = false;
                self.restarts.retain(|(_, slot)| *slot != 1);
            }
            What::Compacted => {
                let mut state = world.lock();
                state.cluster.compact();
                state.cuts += 1;
                drop(state);
                world.changed();
            }
            What::Cut => {
                world.lock().cuts += 1;
                world.changed();
            }
        }
        let _ = TEAM;
    }
}
