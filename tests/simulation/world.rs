//! The world of one history: the modelled API server, the repository, what goes wrong when, and what was seen of it.

use super::git::Git;
use super::history::{Fault, History, Lag};
use super::model::{Answer, Cluster, Request};
use super::oracle::{Oracle, Violation};
use super::planted::Planted;
use super::rollouts::provider::Says;
use super::wire::Wire;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// The namespace of Deliveries.
pub const TEAM: &str = "team";

/// The namespace of the installation.
pub const HOME: &str = "windlass-system";

/// The installation.
pub const INSTALLATION: &str = "sim";

/// Shared by everything in one run.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    begin: Instant,
    /// Told whenever something in the cluster changed.
    // First come, first served; the order of a `watch` channel's receivers is drawn by lot.
    changed: tokio::sync::Notify,
    /// Told when a daemon dies.
    deaths: tokio::sync::mpsc::UnboundedSender<usize>,
}

/// What changes during a run.
pub struct State {
    pub cluster: Cluster,
    pub history: History,
    pub git: Git,
    pub oracle: Oracle,
    pub planted: Option<Planted>,
    /// Numbers of the next request and the next event.
    pub requests: u32,
    pub events: u32,
    /// Whether things may still go wrong.
    pub faulty: bool,
    /// When something went wrong last, in milliseconds.
    pub last_fault: u64,
    /// How often something in the cluster was written by a daemon.
    pub writes: u64,
    /// The numbers of the requests that did.
    pub written: Vec<u32>,
    pub violation: Option<Violation>,
    /// What happened, if somebody wants to read it.
    pub trace: Option<Vec<String>>,
    /// A digest of what happened: equal for equal runs.
    pub digest: u64,
    /// How many times the watches were cut.
    pub cuts: u64,
    /// What is answered to who asks for metrics.
    pub provider: Says,
    /// Who holds the Lease, where there is one.
    pub leader: Option<Arc<Life>>,
    pub wire: Wire,
}

/// One life of a daemon.
pub struct Life {
    /// 0 is the daemon, 1 the one that was started by mistake.
    pub slot: usize,
    /// Which life of that slot.
    pub number: u32,
    pub alive: AtomicBool,
    /// Whether it is the one that works: always, where there is no Lease.
    pub works: AtomicBool,
    /// Until when nothing of it arrives, and it is told nothing, in milliseconds.
    pub asleep_until: AtomicU64,
}

impl Life {
    /// One that begins.
    pub fn new(slot: usize, number: u32, works: bool) -> Self {
        let (alive, works) = (AtomicBool::new(true), AtomicBool::new(works));
        Life { slot, number, alive, works, asleep_until: AtomicU64::new(0) }
    }

    /// Whether what it does is what the daemon does: it lives, and no other one works in its place.
    pub fn works(&self) -> bool {
        self.is_alive() && self.works.load(Ordering::Relaxed)
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", ["A", "B"][self.slot.min(1)], self.number)
    }
}

impl World {
    /// A world before anything happened. Called on a runtime whose time stands.
    pub fn new(
        history: History,
        planted: Option<Planted>,
        traced: bool,
    ) -> (Self, tokio::sync::mpsc::UnboundedReceiver<usize>) {
        let (deaths, dead) = tokio::sync::mpsc::unbounded_channel();
        let git = Git::new(&history);
        let state = State {
            cluster: installed(),
            oracle: Oracle::new(&history),
            git,
            planted,
            requests: 0,
            events: 0,
            faulty: true,
            last_fault: 0,
            writes: 0,
            written: Vec::new(),
            violation: None,
            trace: traced.then(Vec::new),
            digest: 0xcbf2_9ce4_8422_2325,
            cuts: 0,
            provider: Says::default(),
            leader: None,
            wire: Wire::default(),
            history,
        };
        let inner = Inner {
            state: Mutex::new(state),
            begin: Instant::now(),
            changed: tokio::sync::Notify::new(),
            deaths,
        };
        (World(Arc::new(inner)), dead)
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Milliseconds since the beginning.
    pub fn millis(&self) -> u64 {
        u64::try_from(self.0.begin.elapsed().as_millis()).unwrap()
    }

    /// The time in this world.
    pub fn now(&self) -> Timestamp {
        // The first moment of 2026.
        let begin = Timestamp::constant(1_767_225_600, 0);
        begin + SignedDuration::try_from(self.0.begin.elapsed()).unwrap()
    }

    /// Called when something in the cluster changed.
    pub fn changed(&self) {
        self.0.changed.notify_waiters();
    }

    /// Resolves at the next change after this call.
    pub fn next_change(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.changed.notified()
    }

    /// Ends a life at once. Its requests that were not carried out never are.
    pub fn kill(&self, life: &Life) {
        if life.alive.swap(false, Ordering::Relaxed) {
            self.note(|| format!("{life} dies"));
            let _ = self.0.deaths.send(life.slot);
        }
    }

    /// A life has got the Lease: those before it work no more.
    pub fn leads(&self, life: &Arc<Life>) {
        self.note(|| format!("{life} holds the Lease"));
        let mut state = self.lock();
        if let Some(before) = state.leader.replace(life.clone()) {
            before.works.store(false, Ordering::Relaxed);
        }
        life.works.store(true, Ordering::Relaxed);
        drop(state);
        self.unknown();
    }

    /// A life knows that the Lease is not its own any more.
    pub fn rests(&self, life: &Life) {
        self.note(|| format!("{life} has lost the Lease"));
        life.works.store(false, Ordering::Relaxed);
        let led = self.lock().leader.take_if(|leader| leader.number == life.number);
        if led.is_some() {
            self.unknown();
        }
    }

    /// Whether somebody works, where one of two does.
    pub fn is_led(&self) -> bool {
        self.lock().leader.as_ref().is_some_and(|leader| leader.works())
    }

    /// Nobody knows anything of commits for now.
    fn unknown(&self) {
        let at = self.millis();
        let mut state = self.lock();
        state.oracle.forgot();
        state.oracle.hindered(at);
    }

    /// How long nothing of a life arrives still.
    pub fn sleeps(&self, life: &Life) -> Option<Duration> {
        let until = life.asleep_until.load(Ordering::Relaxed);
        until.checked_sub(self.millis()).filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// Writes down what happened.
    pub fn note(&self, text: impl FnOnce() -> String) {
        let at = self.millis();
        let mut state = self.lock();
        if let Some(trace) = &mut state.trace {
            trace.push(format!("{:>10.3} s  {}", at as f64 / 1000.0, text()));
        }
    }

    /// Mixes something into the digest of the run.
    pub fn mix(&self, state: &mut State, text: &str) {
        for byte in text.bytes().chain(self.millis().to_le_bytes()) {
            state.digest = (state.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The first thing that went against a promise ends the run.
    pub fn fail(&self, violation: Option<Violation>) {
        let Some(violation) = violation else { return };
        self.note(|| format!("!!! {}: {}", violation.promise, violation.what));
        self.lock().violation.get_or_insert(violation);
    }

    /// What somebody other than a daemon does at the API server.
    pub fn person(&self, method: &str, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let now = self.now();
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let asked = format!("{path}?fieldManager=kubectl-edit");
        let request =
            Request { method, path_and_query: &asked, content_type, user: Some("person"), body: &bytes };
        let answer = self.lock().cluster.handle(now, &request);
        let Answer::Object { status, body } = answer else { panic!("a watch for a person") };
        if method != "GET" {
            self.note(|| format!("a person: {method} {path} -> {status}"));
            self.look();
            self.changed();
        }
        (status, Arc::unwrap_or_clone(body))
    }

    /// Reads an object as nobody in particular.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.lock().cluster.at_path(path).map(|object| object.as_ref().clone())
    }

    /// The items of a list, as nobody in particular reads it.
    pub fn list(&self, path: &str) -> Vec<Value> {
        let now = self.now();
        let mut list = self.lock().get(now, path).unwrap_or_default();
        list["items"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Looks at what must hold at every moment.
    pub fn look(&self) {
        let mut state = self.lock();
        let State { cluster, oracle, .. } = &mut *state;
        let violation = oracle.moment(cluster);
        drop(state);
        self.fail(violation);
    }

    /// What controllers do, as long as there is something to do; answers when they want to be called again.
    pub fn controllers(&self) -> Option<Timestamp> {
        let now = self.now();
        let mut state = self.lock();
        let acted = state.cluster.run_controllers(now);
        let due = state.cluster.next_due();
        drop(state);
        if acted {
            self.look();
            self.changed();
        }
        due
    }

    /// The time that a request or event takes, by its number: a few milliseconds, or one without jitter.
    pub fn delay(state: &State, salt: u64, number: u32) -> Duration {
        if !state.history.jitter {
            return Duration::from_millis(1);
        }
        let mut random = fastrand::Rng::with_seed(state.history.seed ^ salt ^ u64::from(number) << 20);
        Duration::from_millis(match random.u32(0..10) {
            0..=6 => random.u64(1..5),
            7 | 8 => random.u64(1..30),
            _ => random.u64(1..200),
        })
    }

    /// The number of a request, what goes wrong with it, and how long it takes.
    pub fn next_request(&self) -> (u32, Option<Fault>, Duration) {
        let mut state = self.lock();
        let number = state.requests;
        state.requests += 1;
        let fault = if state.faulty { state.history.faults.get(&number).copied() } else { None };
        if fault.is_some() {
            state.last_fault = state.last_fault.max(self.millis());
        }
        (number, fault, Self::delay(&state, 0x5eed, number))
    }

    /// The number of an event, what goes wrong with it, and how long it takes.
    pub fn next_event(&self) -> (u32, Option<Lag>, Duration) {
        let mut state = self.lock();
        let number = state.events;
        state.events += 1;
        let lag = if state.faulty { state.history.lags.get(&number).copied() } else { None };
        if lag.is_some() {
            state.last_fault = state.last_fault.max(self.millis());
        }
        (number, lag, Self::delay(&state, 0xe7e7, number))
    }

    /// The Delivery's object, if it is there.
    pub fn delivery(&self, d: usize) -> Option<Arc<Value>> {
        self.lock().cluster.at_path(&delivery_path(d)).cloned()
    }
}

impl State {
    /// Reads an object as nobody in particular.
    pub fn get(&mut self, now: Timestamp, path: &str) -> Option<Value> {
        let request = Request {
            method: "GET",
            path_and_query: path,
            content_type: "",
            user: Some("person"),
            body: b"",
        };
        match self.cluster.handle(now, &request) {
            Answer::Object { status: 200, body } => Some(Arc::unwrap_or_clone(body)),
            _ => None,
        }
    }
}

/// A cluster with our kinds.
fn installed() -> Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let make = || {
        let mut cluster = Cluster::new();
        for definition in windlass::api::crds() {
            cluster.install(&definition);
        }
        cluster.install(&super::model::gateway::http_routes());
        cluster.install(&super::model::gateway::grpc_routes());
        for definition in super::model::mesh::definitions() {
            cluster.install(&definition);
        }
        cluster
    };
    CLUSTER.get_or_init(make).clone()
}

/// The path of a Delivery.
pub fn delivery_path(d: usize) -> String {
    format!("/apis/windlass.dev/v1alpha1/namespaces/{TEAM}/deliveries/d{d}")
}

/// The name of the ConfigMap with the settings of a Delivery.
pub fn vars_name(d: usize) -> String {
    format!("vars-{d}")
}

/// It.
pub fn vars(d: usize, settings: &super::things::Settings) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": vars_name(d), "namespace": TEAM},
        "data": settings.values(),
    })
}

/// Makes what stands there before the daemon starts.
pub fn furnish(world: &World) {
    let history = world.lock().history.clone();
    let make = |path: &str, body: Value| {
        let (status, answer) = world.person("POST", path, "application/json", &body);
        assert!(status < 300, "{path}: {status} {answer}");
    };
    for name in [TEAM, HOME, super::things::SPACE] {
        make(
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
    }
    let key = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": format!("windlass-{INSTALLATION}-key"), "namespace": HOME},
        "data": {"key": "c2ltdWxhdGlvbiBzaW11bGF0aW9uIHNpbXVsYXRpb24="},
    });
    make(&format!("/api/v1/namespaces/{HOME}/secrets"), key);
    for (key, thing) in &history.before {
        let mut object = thing.manifest(key, None);
        object["metadata"]["namespace"] = super::things::SPACE.into();
        let path = key.path();
        make(path.rsplit_once('/').unwrap().0, object);
        let made = world.get(&path).unwrap();
        world.lock().oracle.stood_there(&made);
    }
    for (d, setup) in history.deliveries.iter().enumerate() {
        let mut delivery = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery",
            "metadata": {"name": format!("d{d}"), "namespace": TEAM},
            "spec": {
                "source": {"repository": "config", "path": format!("d{d}")},
                "targetNamespace": super::things::SPACE,
                "timeout": "1m", "retryInterval": "10s", "interval": "10m",
                "prune": setup.prune,
                "deletionPolicy": if setup.orphan { "Orphan" } else { "Prune" },
            },
        });
        let spec = &mut delivery["spec"];
        if let Some(settings) = &setup.settings {
            spec["substitute"] = json!({"from": [{"configMap": vars_name(d)}]});
            let object = vars(d, settings);
            make(&format!("/api/v1/namespaces/{TEAM}/configmaps"), object);
        }
        if let Some(on) = setup.depends {
            spec["dependsOn"] = json!([{"name": format!("d{on}")}]);
        }
        if let Some(bake) = setup.bake {
            spec["rollback"]["bake"] = format!("{bake}s").into();
        }
        if setup.revert {
            spec["rollback"]["mode"] = "Revert".into();
        }
        if setup.remove_first {
            spec["rollback"]["firstRevision"] = "Remove".into();
        }
        if let Some(rollout) = &setup.rollout {
            spec["rollout"] = rollout.clone();
        }
        make(&format!("/apis/windlass.dev/v1alpha1/namespaces/{TEAM}/deliveries"), delivery);
    }
    world.controllers();
}
