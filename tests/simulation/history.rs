//! One history: what happens to Git, to the cluster and to the daemon, and when. Made from a seed, written down as
//! JSON, and made shorter step by step when it ends badly.

use super::things::{Directory, Hook, Key, Kind, Settings, Tag, Thing};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A change of what stands in Git.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edit {
    /// An object is added or changed in a directory.
    Put(usize, Key, Thing),
    /// It is removed.
    Remove(usize, Key),
    /// It is moved to the other directory.
    Move(usize, Key),
    /// All files of a directory are removed.
    Empty(usize),
    /// A file that is no YAML is added, or removed again.
    Break(usize, bool),
    /// A hook of that name is added or changed, or removed.
    Hook(usize, String, Option<Hook>),
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A commit on the branch.
    Commit(Vec<Edit>),
    /// A commit that takes the place of the last ones.
    Rewrite(usize, Vec<Edit>),
    /// A commit that brings back what stood there before the last one.
    Revert,
    /// The branch is deleted, or made again.
    Branch(bool),
    /// The remote is away, or back.
    Remote(bool),
    /// The cache of the daemon is lost.
    CacheLost,
    /// A person suspends a Delivery, or lets it go on.
    Suspend(usize, bool),
    /// A person releases what is held.
    Release(usize),
    /// A person asks to go back to the revision before.
    Rollback(usize),
    /// A person changes a field of an object.
    Edited(Key),
    /// A person scales a Deployment.
    Scaled(Key, u32),
    /// A person takes the label of an object away.
    Unlabelled(Key),
    /// A person puts the label of a Delivery on an object of his own.
    Labelled(usize, String),
    /// A person deletes an object.
    Deleted(Key),
    /// A person deletes a Delivery.
    DeliveryDeleted(usize),
    /// A person changes the settings of a Delivery, or loses them.
    Settings(usize, Option<Settings>),
    /// What is kept of the settings of its good revisions is lost.
    KeptLost(usize),
    /// A person makes a Delivery depend on another, or on none.
    Depends(usize, Option<usize>),
    /// A person asks something of a rollout: the verb of `windlass.dev/rollout`.
    Ask(usize, String),
    /// A person changes `spec.rollout`, or takes it out.
    Policy(usize, Option<Value>),
    /// The pods of a Deployment are not well, or well again.
    Sick(String, bool),
    /// What is asked for metrics answers so from now on.
    Provider(super::rollouts::provider::Says),
    /// A daemon is killed, and started again.
    Killed(usize),
    /// What a daemon sends in so many milliseconds arrives after them, and what it is told meanwhile as well.
    Asleep(usize, u32),
    /// The node that runs the pods does not answer any more, or answers again.
    Node(bool),
    /// All pods are evicted and no node has room for others, or there is room again.
    Room(bool),
    /// A second daemon is started by mistake, or stopped.
    Second(bool),
    /// What happened so far is forgotten by the API server: watches begin again.
    Compacted,
    /// All watches break off.
    Cut,
}

/// Something that happens, so many milliseconds after the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub at: u64,
    pub what: What,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It takes so many milliseconds until it is carried out.
    Slow(u32),
    /// It is refused with this status, and not carried out.
    Refused(u16),
    /// The connection breaks before it is carried out.
    Broken,
    /// No answer ever comes, and it is not carried out.
    Silent,
    /// It is carried out, and the answer is lost.
    Lost,
    /// The daemon dies before it is carried out.
    CrashBefore,
    /// The daemon dies after it was carried out.
    CrashAfter,
    /// The daemon dies, and so many milliseconds later it is carried out all the same.
    CrashLate(u32),
}

/// What goes wrong with an event of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lag {
    /// It is held back for so many milliseconds, and those after it.
    Late(u32),
    /// The watch breaks off instead.
    Cut,
    /// It comes twice.
    Twice,
}

/// How a Delivery is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    pub prune: bool,
    pub orphan: bool,
    /// The settings that it reads.
    #[serde(default)]
    pub settings: Option<Settings>,
    /// The Delivery that it depends on.
    #[serde(default)]
    pub depends: Option<usize>,
    /// For so many seconds a revision is watched on.
    #[serde(default)]
    pub bake: Option<u32>,
    /// What failed is taken back in Git.
    #[serde(default)]
    pub revert: bool,
    /// A first revision that fails is removed.
    #[serde(default)]
    pub remove_first: bool,
    /// How a revision reaches traffic: `spec.rollout`.
    #[serde(default)]
    pub rollout: Option<Value>,
    /// What stands in its directory at first.
    pub first: Directory,
}

/// One history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// What delays are drawn from.
    pub seed: u64,
    /// Whether requests and events take a while, each its own.
    pub jitter: bool,
    /// Whether commits can be fetched by their id.
    pub by_id: bool,
    /// Whether two daemons stay alive to the end.
    #[serde(default)]
    pub both: bool,
    /// Whether the daemons are kept apart by a Lease.
    #[serde(default)]
    pub lease: bool,
    /// Whether the branch takes no pushes.
    #[serde(default)]
    pub protected: bool,
    pub deliveries: Vec<Setup>,
    /// Objects that stand in the cluster beforehand.
    pub before: Vec<(Key, Thing)>,
    pub steps: Vec<Step>,
    /// By the number of the request.
    pub faults: BTreeMap<u32, Fault>,
    /// By the number of the event.
    pub lags: BTreeMap<u32, Lag>,
}

impl History {
    /// The history of a seed: with a second daemon in one of three.
    pub fn new(seed: u64) -> Self {
        if seed.is_multiple_of(3) { Self::with_two(seed) } else { Self::with_one(seed) }
    }

    /// The same, with one daemon.
    pub fn with_one(seed: u64) -> Self {
        let mut history = Self::with_two(seed);
        history.steps.retain(|s| !matches!(s.what, What::Second(_) | What::Asleep(..)));
        (history.both, history.lease) = (false, false);
        history
    }

    /// The same, with a second daemon that is started by mistake now and then.
    pub fn with_two(seed: u64) -> Self {
        let mut history = Maker { random: fastrand::Rng::with_seed(seed), value: 0 }.history(seed);
        super::extras::add(&mut history);
        history
    }

    /// Whether two daemons are alive to the end.
    pub fn stay_two(&self) -> bool {
        self.both || self.lease
    }

    /// Histories that are a little simpler, the largest cuts first.
    pub fn simpler(&self) -> Vec<History> {
        let mut all = Vec::new();
        let mut add = |change: &dyn Fn(&mut History)| {
            let mut other = self.clone();
            change(&mut other);
            if other != *self {
                all.push(other);
            }
        };
        add(&|h| h.faults.clear());
        add(&|h| h.lags.clear());
        add(&|h| h.jitter = false);
        add(&|h| h.both = false);
        add(&|h| h.lease = false);
        add(&|h| h.before.clear());
        let steps = self.steps.len();
        for size in [steps / 2, steps / 4, 1] {
            if size == 0 {
                continue;
            }
            for from in (0..steps).step_by(size) {
                add(&|h| {
                    h.steps.drain(from..(from + size).min(steps));
                });
            }
        }
        let numbers: Vec<u32> = self.faults.keys().copied().collect();
        for size in [numbers.len() / 2, 1] {
            for some in numbers.chunks(size.max(1)) {
                add(&|h| h.faults.retain(|n, _| !some.contains(n)));
            }
        }
        let numbers: Vec<u32> = self.lags.keys().copied().collect();
        for size in [numbers.len() / 2, 1] {
            for some in numbers.chunks(size.max(1)) {
                add(&|h| h.lags.retain(|n, _| !some.contains(n)));
            }
        }
        for (at, step) in self.steps.iter().enumerate() {
            let edits = match &step.what {
                What::Commit(edits) | What::Rewrite(_, edits) if edits.len() > 1 => edits.len(),
                _ => 0,
            };
            for edit in 0..edits {
                add(&|h| match &mut h.steps[at].what {
                    What::Commit(edits) | What::Rewrite(_, edits) => {
                        edits.remove(edit);
                    }
                    _ => {}
                });
            }
        }
        for (d, setup) in self.deliveries.iter().enumerate() {
            add(&|h| h.deliveries[d].first.hooks.clear());
            add(&|h| h.deliveries[d].depends = None);
            add(&|h| h.deliveries[d].bake = None);
            add(&|h| h.deliveries[d].revert = false);
            add(&|h| h.deliveries[d].remove_first = false);
            for key in setup.first.things.keys() {
                add(&|h| {
                    h.deliveries[d].first.things.remove(key);
                });
            }
        }
        if self.deliveries.len() > 1 {
            add(&|h| {
                h.deliveries.pop();
            });
        }
        for at in 0..self.before.len() {
            add(&|h| {
                h.before.remove(at);
            });
        }
        all
    }
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.lease {
            writeln!(f, "  two daemons, one of which holds the Lease")?;
        }
        for (key, thing) in &self.before {
            writeln!(f, "  beforehand   {key} stands there ({})", thing.value)?;
        }
        for (d, setup) in self.deliveries.iter().enumerate() {
            let things: Vec<String> =
                setup.first.things.iter().map(|(k, t)| format!("{k} {}", told(t))).collect();
            writeln!(f, "  at first     d{d}: {}", things.join(", "))?;
            for (name, hook) in &setup.first.hooks {
                writeln!(f, "               {name}: {hook:?}")?;
            }
            if let Some(settings) = &setup.settings {
                writeln!(f, "               reads {settings:?}")?;
            }
            if let Some(on) = setup.depends {
                writeln!(f, "               depends on d{on}")?;
            }
            if let Some(bake) = setup.bake {
                writeln!(f, "               is watched on for {bake} s")?;
            }
            if let Some(rollout) = &setup.rollout {
                writeln!(f, "               is rolled out by {rollout}")?;
            }
            if setup.remove_first {
                writeln!(f, "               a first revision that fails is removed")?;
            }
            if setup.revert {
                writeln!(f, "               what failed is reverted (protected: {})", self.protected)?;
            }
        }
        for step in &self.steps {
            writeln!(f, "  {:>9.3} s  {:?}", step.at as f64 / 1000.0, step.what)?;
        }
        for (n, fault) in &self.faults {
            writeln!(f, "  request {n:<4} {fault:?}")?;
        }
        for (n, lag) in &self.lags {
            writeln!(f, "  event {n:<6} {lag:?}")?;
        }
        Ok(())
    }
}

fn told(thing: &Thing) -> String {
    let ttl = thing.ttl.map_or_else(String::new, |ttl| format!(" ttl {ttl}"));
    let setting = if thing.setting { " with settings" } else { "" };
    format!("({} {:?} x{}{ttl}{setting})", thing.value, thing.tag, thing.replicas)
}

/// Draws histories.
struct Maker {
    random: fastrand::Rng,
    value: u32,
}

const MAPS: [&str; 3] = ["one", "two", "three"];
/// `api` may be short of one pod during an update, `db` is made anew for each change, `web` is neither.
const WORKLOADS: [&str; 3] = ["web", "api", "db"];

impl Maker {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.u32(0..n) == 0
    }

    fn key(&mut self) -> Key {
        let pick = |r: &mut fastrand::Rng, names: &[&str]| names[r.usize(0..names.len())].to_owned();
        match self.random.u32(0..12) {
            0..=4 => Key(Kind::ConfigMap, pick(&mut self.random, &MAPS)),
            5 => Key(Kind::Secret, "token".into()),
            6 => Key(Kind::Claim, "data".into()),
            7 => Key(Kind::Job, "migrate".into()),
            _ => Key(Kind::Deployment, pick(&mut self.random, &WORKLOADS)),
        }
    }

    fn thing(&mut self, key: &Key, good: bool) -> Thing {
        self.value += 1;
        let tag = match self.random.u32(0..8) {
            _ if good => {
                if self.one_in(4) {
                    Tag::Slow
                } else {
                    Tag::Ok
                }
            }
            0 | 1 => Tag::Crash,
            2 => Tag::Missing,
            3 | 4 => Tag::Unready,
            5 => Tag::Slow,
            _ => Tag::Ok,
        };
        let prune = match self.random.u32(0..24) {
            0 => Some("disabled".to_owned()),
            1 => Some("enabled".to_owned()),
            2 => Some("before".to_owned()),
            _ => None,
        };
        let wave = self.one_in(8).then(|| self.random.i32(-1..2));
        let recreate = key.0 == Kind::Deployment && key.1.starts_with("db");
        let invalid = !good && self.one_in(6);
        let replicas = if key.1.starts_with("api") { self.random.u32(2..4) } else { self.random.u32(1..3) };
        let more = self.one_in(3);
        let ttl = (key.0 == Kind::Job && self.one_in(2)).then(|| self.random.u32(0..20));
        let (value, setting, reads, scaled) = (self.value, false, None, false);
        Thing { value, tag, replicas, prune, wave, recreate, more, invalid, ttl, setting, reads, scaled }
    }

    fn directory(&mut self, d: usize) -> Directory {
        let mut directory = Directory::default();
        for _ in 0..self.random.usize(1..5) {
            let mut key = self.key();
            if d == 1 {
                key.1 = format!("{}-b", key.1);
            }
            let good = !self.one_in(12);
            let thing = self.thing(&key, good);
            directory.things.insert(key, thing);
        }
        directory
    }

    fn edits(&mut self, deliveries: usize) -> Vec<Edit> {
        let good = !self.one_in(2);
        let mut edits = Vec::new();
        for _ in 0..self.random.usize(1..4) {
            let d = self.random.usize(0..deliveries);
            let mut key = self.key();
            if d == 1 && !self.one_in(6) {
                key.1 = format!("{}-b", key.1);
            }
            edits.push(match self.random.u32(0..20) {
                0..=2 => Edit::Remove(d, key),
                3 if deliveries > 1 => Edit::Move(d, key),
                4 if self.one_in(3) => Edit::Empty(d),
                5 if self.one_in(2) => Edit::Break(d, true),
                6 => Edit::Break(d, false),
                _ => {
                    let thing = self.thing(&key, good);
                    Edit::Put(d, key, thing)
                }
            });
        }
        edits
    }

    fn history(mut self, seed: u64) -> History {
        let count = if self.one_in(3) { 2 } else { 1 };
        let deliveries: Vec<Setup> = (0..count)
            .map(|d| {
                let (prune, orphan) = (!self.one_in(8), self.one_in(4));
                Setup { prune, orphan, first: self.directory(d), ..Setup::default() }
            })
            .collect();
        let mut before = Vec::new();
        while self.one_in(2) && before.len() < 3 {
            let key = self.key();
            if key.0 != Kind::Job && !key.1.starts_with("db") && !before.iter().any(|(k, _)| *k == key) {
                let thing = self.thing(&key, true);
                before.push((key, thing));
            }
        }
        let mut steps = Vec::new();
        let mut at = self.random.u64(500..20_000);
        for _ in 0..self.random.usize(1..7) {
            let d = self.random.usize(0..count);
            let key = self.key();
            let what = match self.random.u32(0..48) {
                0..=19 => What::Commit(self.edits(count)),
                20 | 21 => What::Rewrite(self.random.usize(1..3), self.edits(count)),
                22 | 23 => What::Revert,
                24 => What::Branch(self.one_in(2)),
                25 => What::Remote(self.one_in(2)),
                26 => What::CacheLost,
                27 | 28 => What::Suspend(d, !self.one_in(3)),
                29 | 30 => What::Release(d),
                31 => What::Rollback(d),
                32..=34 => What::Edited(key),
                35 => What::Scaled(
                    Key(Kind::Deployment, WORKLOADS[self.random.usize(0..3)].into()),
                    self.random.u32(0..4),
                ),
                36 => What::Unlabelled(key),
                37 => What::Labelled(d, MAPS[self.random.usize(0..3)].into()),
                38 | 39 => What::Deleted(key),
                40 => What::DeliveryDeleted(d),
                41 | 42 => What::Killed(0),
                43 | 44 => What::Second(true),
                45 => What::Second(false),
                46 => What::Compacted,
                _ => What::Cut,
            };
            steps.push(Step { at, what });
            at += match self.random.u32(0..4) {
                0 => self.random.u64(1..2_000),
                1 => self.random.u64(1..20_000),
                _ => self.random.u64(5_000..90_000),
            };
        }
        let (mut faults, mut lags) = (BTreeMap::new(), BTreeMap::new());
        if !self.one_in(4) {
            let (from, often) = (self.random.u32(0..80), self.random.u32(4..60));
            for n in from..from + self.random.u32(20..300) {
                if self.one_in(often) {
                    faults.insert(n, self.fault());
                }
            }
            let often = self.random.u32(3..40);
            for n in 0..200 {
                if self.one_in(often) {
                    lags.insert(n, self.lag());
                }
            }
        }
        let both = self.one_in(10);
        let by_id = !self.one_in(3);
        History {
            seed,
            jitter: true,
            by_id,
            both,
            lease: false,
            protected: false,
            deliveries,
            before,
            steps,
            faults,
            lags,
        }
    }

    fn fault(&mut self) -> Fault {
        match self.random.u32(0..16) {
            0..=2 => Fault::Slow(self.random.u32(20..3_000)),
            3 => Fault::Slow(self.random.u32(3_000..50_000)),
            4 | 5 => Fault::Refused([409, 429, 500, 503, 504][self.random.usize(0..5)]),
            6 => Fault::Broken,
            7 => Fault::Silent,
            8 | 9 => Fault::Lost,
            10 | 11 => Fault::CrashBefore,
            12 | 13 => Fault::CrashAfter,
            _ => Fault::CrashLate(self.random.u32(10..30_000)),
        }
    }

    fn lag(&mut self) -> Lag {
        match self.random.u32(0..5) {
            0 | 1 => Lag::Late(self.random.u32(10..1_500)),
            2 => Lag::Late(self.random.u32(1_500..20_000)),
            3 => Lag::Cut,
            _ => Lag::Twice,
        }
    }
}
